"""`BackupPlace`: where backups are kept, a folder or an object store, with the format of `records.backup`."""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

from llmartifacts.blobs.base import PIECE, Driver, Source, read_up_to
from llmartifacts.blobs.cache import BlobCache
from llmartifacts.blobs.disk import create_file, sync_data, write_all
from llmartifacts.blobs.failures import storage_errors
from llmartifacts.blobs.scratch import Scratch, sweep
from llmartifacts.errors import (
    BlobMissing,
    Busy,
    Conflict,
    Damaged,
    DigestMismatch,
    InvalidInput,
    LlmartifactsError,
    NotFound,
)
from llmartifacts.metadata.dump import Table
from llmartifacts.records.arguments import shown
from llmartifacts.records.backup import (
    MAX_RECORD,
    RECORDS,
    BackupRecord,
    Stream,
    object_key,
    record_key,
    record_number,
)
from llmartifacts.records.canonical import canonical_bytes, parse_json
from llmartifacts.records.digest import Digest, digest_from_hex
from llmartifacts.records.times import parse_time, to_text
from llmartifacts.versioning.backups.rows import decompress, from_lines
from llmartifacts.versioning.embedded import DATABASE
from llmartifacts.versioning.team import MARKER, driver_at

_ASIDE = ".staging"
_RUNNING = "running/"
_STALE = timedelta(days=1)
"""After which what was said to be under way is taken for killed."""
_STEP = "Take another backup of this place (llmartifacts backup PLACE --list), or another copy of it."


class BackupPlace:
    """A place of backups.

    Attributes:
        driver: What stores.
        folder: The folder, where it is one on this host.
        name: How it is called in messages; without secrets.
    """

    def __init__(self, driver: Driver, folder: Path | None, name: str) -> None:
        self.driver = driver
        self.folder = folder
        self.name = name

    @classmethod
    def open(cls, place: str | os.PathLike[str]) -> BackupPlace:
        """Open a place; there need not be anything yet.

        Args:
            place: A folder, a `file://` URL, or a URL whose scheme is that of an installed driver.

        Raises:
            InvalidInput: It is no place, or a registry itself.
            NotFound: No driver is installed for the scheme.
        """
        given = os.fspath(place)
        driver, folder = driver_at(given)
        if folder is not None and folder.exists() and not folder.is_dir():
            raise InvalidInput(f"{folder} is no folder", field="target", next_step="Name a folder, or a URL.")
        if folder is not None and ((folder / DATABASE).exists() or (folder.parent / DATABASE).exists()):
            raise InvalidInput(f"{folder} is a registry, or its bytes", field="target", next_step="Name another place.")
        if driver.size(MARKER) is not None:
            raise InvalidInput(
                f"{folder or 'that place'} holds the bytes of a registry", field="target", next_step="Name another one."
            )
        return cls(driver, folder, str(folder) if folder is not None else driver.where(RECORDS).removesuffix(RECORDS))

    # --- records

    def numbers(self) -> list[int]:
        """Numbers of the backups that are there, in order."""
        found = (record_number(key) for key, _ in self.driver.list(RECORDS))
        return sorted(number for number in found if number is not None)

    def record(self, number: int) -> BackupRecord:
        """The record of a backup.

        Raises:
            NotFound: There is none of that number.
            Damaged: It was altered, or is none.
            NewerFormat: A newer release wrote it.
        """
        key = record_key(number)
        try:
            with self.driver.get(key) as stream:
                data = read_up_to(stream, MAX_RECORD + 1)
        except BlobMissing:
            raise self._missing(str(number)) from None
        made = BackupRecord.from_bytes(data, origin=self.driver.where(key))
        if made.number != number:
            told = f"the record of backup {number} is that of {made.number}"
            raise DigestMismatch(told, file=self.driver.where(key), next_step=_STEP)
        return made

    def find(self, which: str | int | None = None) -> BackupRecord:
        """The record of a backup: by its number, or by the beginning of its id; without either, the newest.

        Raises:
            NotFound: There is none.
            InvalidInput: Several begin so, or backups of several registries are here and none was named.
        """
        numbers = self.numbers()
        if not numbers:
            raise NotFound(
                f"there is no backup at {self.name}",
                what="backup",
                name=str(which or ""),
                next_step="See that it is the right place. One is taken with: llmartifacts backup PLACE.",
            )
        if which is None:
            return self.record(numbers[-1])
        text = str(which)
        if text.isdecimal() and len(text) <= 10:
            return self.record(int(text))
        found = [made for made in map(self.record, numbers) if len(text) >= 4 and made.write.startswith(text)]
        if len(found) > 1:
            raise InvalidInput(f"several backups have an id like {text!r:.40}", field="backup")
        if not found:
            raise self._missing(text)
        return found[0]

    def list_record(self, made: BackupRecord) -> bool:
        """Make a backup visible, unless another one has its number by now; tells whether this call did."""
        key = record_key(made.number)
        if self.driver.put_if_absent(key, made.to_bytes()):
            return True
        # An answer that was lost looks like somebody else's: then what is there is our own.
        return self.record(made.number).write == made.write

    # --- bytes

    def holds(self, digest: Digest, size: int) -> bool:
        """Whether something of that size lies under a digest."""
        return self.driver.size(object_key(digest)) == size

    def send(self, items: Sequence[tuple[Digest, Source, int]], damaged: Set[Digest] = frozenset()) -> None:
        """Store bytes under their digests; durable when it returns.

        Args:
            items: Digest, bytes and their number of each.
            damaged: What is there and known to be wrong; so is what has another size. It is replaced.
        """
        stored = self.driver.put_many([(object_key(digest), source) for digest, source, _ in items])
        for (digest, source, size), new in zip(items, stored, strict=True):
            if not new and (digest in damaged or not self.holds(digest, size)):
                self.driver.replace(object_key(digest), source)

    def settle(self, digests: Iterable[Digest]) -> None:
        """Make durable what others stored, maybe only a moment ago: one digest of each folder will do."""
        self.driver.settle(object_key(digest) for digest in digests)

    def fetch(self, digest: Digest, size: int) -> bytes:
        """Bytes by their digest, in memory, verified. Raises as `pieces`."""
        return b"".join(self.pieces(digest, size))

    def pieces(self, digest: Digest, size: int) -> Iterator[bytes]:
        """Bytes by their digest, in order; raises after the last unless all of it was right.

        Raises:
            BlobMissing: They are not there.
            DigestMismatch: They are something else.
        """
        key = object_key(digest)
        seen, done = hashlib.sha256(), 0
        try:
            stream = self.driver.get(key)
        except BlobMissing:
            where = self.driver.where(key)
            told = f"the backup is not whole: {where} is missing"
            raise BlobMissing(told, digest=digest, file=where, next_step=_STEP) from None
        with storage_errors("read", self.driver.where(key)), stream:
            while done <= size and (piece := stream.read(min(PIECE, size + 1 - done))):
                seen.update(piece)
                done += len(piece)
                if done > size:
                    break
                yield piece
        if done != size or seen.hexdigest() != digest[7:]:
            where = self.driver.where(key)
            raise DigestMismatch(
                f"{where} holds something else than it is called", digest=digest, file=where, next_step=_STEP
            )

    def rows(self, stream: Stream, table: Table) -> Iterator[tuple[Any, ...]]:
        """The rows of a stream, checked.

        Raises:
            Damaged: A piece is missing, or something else.
        """
        for piece in stream.pieces:
            data = decompress(
                piece, self.fetch(piece.digest, piece.stored), self.driver.where(object_key(piece.digest))
            )
            yield from from_lines(table, piece, data, self.driver.where(object_key(piece.digest)))

    # --- aside

    @contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """Say what is done here meanwhile: backups may be taken at once, and none while others are removed.

        Args:
            what: `backup` or `prune`.

        Raises:
            Busy: Something is under way here that this does not go with.
        """
        key = f"{_RUNNING}{secrets.token_hex(16)}"
        told = canonical_bytes({"what": what, "at": to_text(datetime.now(UTC)), "host": shown(socket.gethostname())})
        self.driver.put_if_absent(key, told)
        try:
            for other, _ in self.driver.list(_RUNNING):
                if other != key:
                    self._require_company(what, other)
            yield
        finally:
            with suppress(LlmartifactsError):
                self.driver.delete(key)

    def _require_company(self, what: str, other: str) -> None:
        try:
            with self.driver.get(other) as stream:
                said = parse_json(read_up_to(stream, 4096))
            its, at = said["what"], parse_time(said["at"])
        except BlobMissing:
            return
        except (LlmartifactsError, KeyError, TypeError):
            its, at = "prune", datetime.now(UTC)
        if datetime.now(UTC) - at >= _STALE:
            self.driver.delete(other)
        elif (what, its) != ("backup", "backup"):
            raise Busy(
                f"a {its} is under way at {self.name} since {to_text(at)}",
                next_step=f"Wait for it. If it was killed, delete {self.driver.where(other)}; it counts for a day.",
            )

    @contextmanager
    def scratch(self) -> Iterator[Scratch]:
        """A folder for files on their way to this place; gone afterwards, also that of a killed process."""
        root = self.folder / _ASIDE if self.folder is not None else self.driver.spool
        root = root or BlobCache().root / _ASIDE
        with storage_errors("write", root):
            sweep(root)
            made = Scratch(root)
        try:
            yield made
        finally:
            made.close()

    def copy(self, stream: BinaryIO, target: Path, most: int) -> tuple[Digest, int]:
        """Write a stream into a new file, durable where it becomes an object by its name; its digest and size.

        At most one byte more than `most` is read.
        """
        seen, done = hashlib.sha256(), 0
        with storage_errors("write", target):
            fd = create_file(target)
            try:
                while done <= most and (piece := stream.read(min(PIECE, most + 1 - done))):
                    seen.update(piece)
                    done += len(piece)
                    write_all(fd, piece)
                if self.folder is not None:
                    sync_data(fd)
            finally:
                os.close(fd)
        return digest_from_hex(seen.hexdigest()), done

    def require_own(self, origin: str) -> BackupRecord | None:
        """The newest record, for another backup of the same registry; None where there is none yet.

        Raises:
            Conflict: The backups here are another registry's.
        """
        newest = next(self._readable(), None)
        if newest is None:
            return None
        if newest.origin != origin:
            raise Conflict(
                f"{self.name} has backups of {newest.origin}, and this is {origin}",
                field="target",
                next_step="Name a place of its own for each registry.",
            )
        return newest

    def _readable(self) -> Iterator[BackupRecord]:
        """The records, the newest first, without those that are damaged: a next backup does not depend on them."""
        for number in reversed(self.numbers()):
            with suppress(Damaged, NotFound):
                yield self.record(number)

    def _missing(self, which: str) -> NotFound:
        known = ", ".join(map(str, self.numbers()[-10:]))
        return NotFound(
            f"there is no backup {which} at {self.name}",
            what="backup",
            name=which,
            next_step=f"There are: {known}." if known else "",
        )
