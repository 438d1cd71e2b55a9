"""The socket for places that keep bytes: a driver stores objects under keys, and does no more.

`BlobStore` hashes, verifies and compresses; a driver never does, so every driver is trusted equally little.
To add one: a file here (or a package with an entry point in `llmartifacts.blobs`), a line in `plugins.py`, and a test
that calls `llmartifacts.testing.blobs.check_driver`.
"""

from __future__ import annotations

import io
import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from llmartifacts.errors import InvalidPath

PIECE = 1024 * 1024
"""Bytes that are read, hashed and written at a time."""

Source = bytes | Path
"""What a driver stores: bytes, or a staged file that is complete, durable and the driver's to move away."""

_KEY = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}(/[a-z0-9][a-z0-9._-]{0,127}){0,7}")


class Driver(Protocol):
    """Objects under keys. Subclass it; safe to use from several threads and processes.

    A key is relative and in lower case, such as `sha256/ab/abcd….zst`; `check_key` says what is allowed. An object is
    whole or not there: no reader ever sees a part of one. Nothing is changed in place.

    Failures are typed: `NotAllowed` (no right, read-only, full), `Unreachable`, `UnsafeContent` (something lies under
    the key that is no plain object).

    Attributes:
        spool: Folder for large content on its way, where objects are no files on this host; None for the system's.
    """

    spool: Path | None = None

    @abstractmethod
    def get(self, key: str, start: int = 0, length: int | None = None) -> BinaryIO:
        """Open an object for reading; the caller reads as much as it wants and closes it.

        Args:
            key: Which object.
            start: First byte to read, counted from 0.
            length: Bytes to read at most; None reads to the end. A range past the end gives what there is.

        Raises:
            BlobMissing: There is no such object.
        """

    def get_each(self, ranges: Sequence[tuple[str, int, int]]) -> Iterator[BinaryIO]:
        """Open several ranges in order, for drivers that fetch some ahead of those that are being read.

        Args:
            ranges: Key, first byte and bytes of each; at most some 64 MiB together.

        Raises:
            BlobMissing: As `get`, when it comes to the object.
        """
        for key, start, length in ranges:
            yield self.get(key, start, length)

    def signed(self, key: str, start: int, length: int, seconds: int) -> str | None:
        """An address under which anybody may read a range of an object for a while, without asking this program.

        Args:
            key: Which object.
            start: First byte.
            length: Bytes.
            seconds: How long the address holds.

        Returns:
            An `https` URL (`http` where the store is reached so); None where the driver has no such thing, as most.
        """
        return None

    @abstractmethod
    def put_if_absent(self, key: str, source: Source) -> bool:
        """Store an object unless there is one; atomic, and durable when it returns.

        Returns:
            Whether this call stored it. Of any number of callers at once, one is told so.
        """

    def put_many(self, items: Sequence[tuple[str, Source]]) -> Sequence[bool]:
        """`put_if_absent` for several objects, for drivers that do many at less than the sum of their costs."""
        return [self.put_if_absent(key, source) for key, source in items]

    @abstractmethod
    def replace(self, key: str, source: Source) -> None:
        """Store an object in place of a damaged one; atomic and durable. Who reads the old one goes on reading it."""

    def settle(self, keys: Iterable[str]) -> None:
        """Make objects durable that others stored, maybe only a moment ago; most drivers have nothing to do."""
        return

    @abstractmethod
    def delete(self, key: str) -> bool:
        """Remove an object; tells whether there was one."""

    def delete_many(self, keys: Sequence[str]) -> None:
        """Remove objects, in any order; after it, none of them is there. For drivers that do many at less cost.

        Where one cannot be removed, others may be gone already, and the same call again does the rest. Nothing goes on
        deleting once it has returned or raised: whoever deletes holds a lock until then.

        Args:
            keys: Which objects; those that are not there are passed over.
        """
        for key in keys:
            self.delete(key)

    @abstractmethod
    def size(self, key: str) -> int | None:
        """Bytes of an object, or None if there is none."""

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Key and size in bytes of every object whose key begins with a prefix, sorted by key."""

    def where(self, key: str) -> str:
        """Where an object lies, for messages."""
        return key

    def file(self, key: str) -> tuple[BinaryIO, Path] | None:
        """An object as an open file and its path, where objects are plain read-only files on this host; else None.

        Raises:
            BlobMissing: There is no such object.
        """
        return None


def check_key(key: str) -> str:
    """Check a key.

    Raises:
        InvalidPath: It is absolute, climbs, is hidden, has upper case or anything but ASCII letters, digits and `._-/`.
    """
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise InvalidPath(
            f"{key!r:.200} is not a key of the blob store",
            field="key",
            next_step="A key has 1 to 8 segments of ASCII lower-case letters, digits, '.', '_' and '-'.",
        )
    return key


def read_up_to(stream: BinaryIO, limit: int) -> bytes:
    """The bytes of a stream, at most `limit` of them; memory grows with what is there, not with `limit`."""
    first = stream.read(min(limit, PIECE))
    if not first or len(first) >= limit:
        return first
    whole = io.BytesIO()
    whole.write(first)
    while (left := limit - whole.tell()) > 0 and (piece := stream.read(min(left, PIECE))):
        whole.write(piece)
    return whole.getvalue()


class Limited(io.RawIOBase):
    """A stream that ends after `length` bytes of another, and closes it with itself."""

    def __init__(self, inner: BinaryIO, length: int) -> None:
        self._inner = inner
        self._left = length

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as the rest goes."""
        data = self._inner.read(min(self._left, len(buffer)))
        buffer[: len(data)] = data
        self._left -= len(data)
        return len(data)

    def close(self) -> None:
        """Close both."""
        self._inner.close()
        super().close()
