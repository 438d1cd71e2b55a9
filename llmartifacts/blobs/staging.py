"""Bytes on their way into a store: hashed and written aside by `add`, given their names by `publish`."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from llmartifacts.blobs.base import PIECE, Driver, read_up_to
from llmartifacts.blobs.disk import create_file, sync_data, write_all, write_file
from llmartifacts.blobs.failures import storage_error, storage_errors
from llmartifacts.blobs.forms import Writer, encode, form_for, key_of
from llmartifacts.blobs.scratch import Scratch
from llmartifacts.blobs.verify import Sha256
from llmartifacts.errors import Conflict, InvalidInput, NotAllowed, NotFound
from llmartifacts.records.digest import Blob, Digest, digest_of


class Stored(Protocol):
    """What staging asks of a store about content that may be there already."""

    def has(self, blob: Blob) -> bool:
        """Whether something is stored under the digest."""

    def standing(self, blob: Blob) -> tuple[Sequence[str], Sequence[str]]:
        """Keys under which a blob is stored: the good ones and the damaged ones. Reads and hashes what is there."""


@dataclass(frozen=True, slots=True)
class _Heal:
    blob: Blob
    key: str
    file: Path


class BlobStaging:
    """The `Staging` of a `BlobStore`.

    Content that is stored already is read and hashed where it lies, and staged again only if it is damaged: so logging
    the same content again heals a damaged store, and nothing that relies on stored bytes relies on wrong ones. For
    large content this costs about what writing it again would.

    Args:
        driver: Where `publish` stores.
        store: Knows what is stored already.
        root: Where the scratch folder is made, on the file system of the store, when the first bytes need it.
    """

    def __init__(self, driver: Driver, store: Stored, root: Path) -> None:
        self._driver = driver
        self._store = store
        self._root = root
        self._scratch: Scratch | None = None
        self._known: dict[Digest, Blob] = {}
        self._new: list[tuple[str, Path]] = []
        self._heal: list[_Heal] = []
        self._relied: list[tuple[Blob, Sequence[str]]] = []

    def add(self, source: bytes | Path | BinaryIO) -> Blob:
        """Take bytes, a file or a stream, with bounded memory, and make them durable aside.

        Args:
            source: The bytes; a file is read as it is now, a stream from where it stands to its end.

        Returns:
            Their address.

        Raises:
            NotFound: There is no such file.
            InvalidInput: It is no plain file, or the stream gives no bytes.
            NotAllowed: The file may not be read, or the store's place is full or read-only.
        """
        if isinstance(source, bytes | bytearray | memoryview):
            return self._add_bytes(bytes(source))
        with ExitStack() as opened:
            stream = opened.enter_context(_open_source(source)) if isinstance(source, Path) else source
            given = _Given(stream, source if isinstance(source, Path) else None)
            head = given.up_to(PIECE + 1)
            return self._add_bytes(head) if len(head) <= PIECE else self._add_stream(head, given)

    def publish(self) -> None:
        """Make all of it readable; durable when it returns.

        Raises:
            Conflict: Stored bytes that this relies on were removed meanwhile.
            NotAllowed: The store is full or read-only. What was stored by then stays: whole, and named by no version.
        """
        for blob, _ in self._relied:
            if not self._store.has(blob):
                raise Conflict(
                    f"{blob.digest} was stored when it was added, and has been removed since",
                    next_step="Somebody cleaned up at the same time; log it again.",
                )
        self._driver.settle(key for _, keys in self._relied for key in keys)
        self._driver.put_many(self._new)
        for heal in self._heal:
            self._driver.replace(heal.key, heal.file)
            # Its other form shadows or doubles it; looked at again, for somebody else may have healed that one.
            for key in self._store.standing(heal.blob)[1]:
                self._driver.delete(key)
        self._new, self._heal, self._relied = [], [], []

    def close(self) -> None:
        """Remove what was not published."""
        if self._scratch is not None:
            self._scratch.close()
            self._scratch = None

    # --- one source

    def _add_bytes(self, data: bytes) -> Blob:
        blob = Blob(digest_of(data), len(data))
        damaged = self._wanted(blob)
        if damaged is None:
            return blob
        form = form_for(data)
        file = self._new_file()
        with storage_errors("write", file):
            write_file(file, encode(form, data))
        self._stage(blob, form, file, damaged)
        return blob

    def _add_stream(self, data: bytes, given: _Given) -> Blob:
        form, seen, file = form_for(data), Sha256(), self._new_file()
        writer = Writer(form)
        with storage_errors("write", file):
            fd = create_file(file)
        keep = False
        try:
            while data:
                seen.update(data)
                _write(fd, writer.add(data), file)
                data = given.up_to(PIECE)
            _write(fd, writer.end(), file)
            blob = seen.blob
            damaged = self._wanted(blob)
            if damaged is not None:
                with storage_errors("write", file):
                    sync_data(fd)
                self._stage(blob, form, file, damaged)
                keep = True
            return blob
        finally:
            os.close(fd)
            if not keep:
                with suppress(OSError):
                    file.unlink()

    def _wanted(self, blob: Blob) -> Sequence[str] | None:
        """None where good bytes are stored or staged already; else the keys of damaged ones."""
        if blob.digest in self._known:
            return None
        good, damaged = self._store.standing(blob)
        if good and not damaged:
            self._known[blob.digest] = blob
            self._relied.append((blob, good))
            return None
        return damaged

    def _stage(self, blob: Blob, form: str, file: Path, damaged: Sequence[str]) -> None:
        key = key_of(blob.digest, form)
        if damaged:
            self._heal.append(_Heal(blob, key, file))
        else:
            self._new.append((key, file))
        self._known[blob.digest] = blob

    def _new_file(self) -> Path:
        if self._scratch is None:
            with storage_errors("write", self._root):
                self._scratch = Scratch(self._root)
        return self._scratch.new_file()


def _open_source(path: Path) -> BinaryIO:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {path}", what="file", name=str(path)) from error
    except PermissionError as error:
        raise NotAllowed(f"{path} may not be read", origin=str(path)) from error
    except OSError as error:
        raise InvalidInput(f"{path} cannot be opened: {error.strerror}", origin=str(path)) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise InvalidInput(f"{path} is no plain file", origin=str(path), next_step="Give a file, or the bytes.")
    return open(fd, "rb", buffering=0)


class _Given:
    """A source as callers give it: checked to give bytes, in whole pieces however few it gives at a time."""

    def __init__(self, stream: BinaryIO, path: Path | None) -> None:
        self._stream = stream
        self._path = path

    def up_to(self, size: int) -> bytes:
        """The next bytes, fewer than `size` only at the end."""
        return read_up_to(cast(BinaryIO, self), size)

    def read(self, size: int) -> bytes:
        try:
            data: object = self._stream.read(size)
        except OSError as error:
            if self._path is None:
                raise  # the caller's own stream: the caller's own error
            raise storage_error(error, "read", self._path) from error
        if isinstance(data, bytes | bytearray | memoryview):
            return bytes(data)
        raise InvalidInput(
            f"the stream gives {type(data).__name__}, not bytes",
            field="source",
            next_step="Open the file with mode 'rb'.",
        )


def _write(fd: int, data: bytes, file: Path) -> None:
    if data:
        with storage_errors("write", file):
            write_all(fd, data)
