"""backup: all of a registry, as it was at one moment, while others go on writing.

    snapshot   every row of the database and the list of what they need, in one read transaction, to a file aside
    send       the rows, in pieces by their digest; then small files and recipes; then the packs that recipes name
    list       the record, last: only now there is a backup

What is stored is added to and never changed, so what the rows need is still there afterwards, unless a collection
removed it because nothing needs it any more: then the snapshot is taken again. Where the parts of large files lie is
not taken along: the packs say so themselves.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from mmap import PROT_READ, mmap
from pathlib import Path
from typing import BinaryIO

from llmartifacts.blobs.base import PIECE, Source, read_up_to
from llmartifacts.blobs.failures import storage_errors
from llmartifacts.blobs.forms import FORMS, RAW, RECIPE, BadForm, Reader, key_of, parse_key
from llmartifacts.blobs.scratch import Scratch
from llmartifacts.blobs.store import MAX_RECIPE
from llmartifacts.blobs.verify import Sha256
from llmartifacts.errors import (
    BlobMissing,
    Conflict,
    Damaged,
    DigestMismatch,
    LlmartifactsError,
    NewerFormat,
    NotAllowed,
)
from llmartifacts.metadata import audit, dump, uploads
from llmartifacts.metadata.dump import Table
from llmartifacts.metadata.schema import SCHEMA
from llmartifacts.metadata.uploads import UploadRow
from llmartifacts.records.backup import BackupRecord, Piece, Stream, total
from llmartifacts.records.checkpoint import Checkpoint
from llmartifacts.records.digest import Blob, Digest, digest_bytes, digest_from_bytes, digest_of
from llmartifacts.records.times import from_micros, to_text
from llmartifacts.versioning import auditlog
from llmartifacts.versioning.backups.place import BackupPlace
from llmartifacts.versioning.backups.rows import OBJECTS, PACKS, compress, cut, to_lines
from llmartifacts.versioning.parts import Parts

_ATTEMPTS = 5
_HOLD = 24 * 3600
"""Seconds for which a backup that was killed may keep what nothing needs from being freed."""
_TOGETHER = 64
_TOGETHER_BYTES = 16 * 1024 * 1024
_BLOB = 40


def backup(parts: Parts, target: str, *, read_back: bool = False) -> BackupRecord:
    """Take a backup. What an earlier one brought there is not sent again.

    Args:
        parts: The stores.
        target: A folder or a URL; see `BackupPlace.open`.
        read_back: Read and hash everything that is there already, and put right what is damaged; else its size is
            compared.

    Returns:
        The record of the backup, which is listed and durable.

    Raises:
        Damaged: Something that the registry needs cannot be read; there is no backup.
        Conflict: The place has backups of another registry, or of one that this one parted from when either was
            restored; or what the registry needs went away again and again.
        Busy: Backups are being removed there.
        NotAllowed: The place is full, or may not be written.
        Unreachable: It cannot be had.
    """
    place = BackupPlace.open(target)
    with parts.metadata.reading() as s:
        origin = audit.origin(s)
    if not origin:
        raise Damaged("the audit has no first entry, so nobody can say which registry this is", file=parts.location)
    with place.busy("backup"), place.scratch() as scratch, storage_errors("write", scratch.path):
        try:
            return _Attempt(parts, place, scratch, origin, read_back).run()
        except _Gone:
            pass
        with _held(parts):  # somebody cleans up: what is there now stays until this is done
            for left in reversed(range(_ATTEMPTS)):
                try:
                    return _Attempt(parts, place, scratch, origin, read_back).run()
                except _Gone as gone:
                    if not left:
                        raise _named(parts, gone.error) from None
    raise AssertionError("the last attempt returns or raises")


@contextmanager
def _held(parts: Parts) -> Iterator[None]:
    """Hold what versions need now, as an upload holds what it brought: a collection leaves it alone.

    Chunks may be put into other packs meanwhile; then the next attempt finds them there.
    """
    upload = f"backup-{secrets.token_hex(12)}"
    try:
        with parts.metadata.writing() as s:
            project = s.row("select min(id) from project")
            if project is not None and project[0] is not None:
                expires = s.now() + _HOLD * 1_000_000
                uploads.insert(s, UploadRow(upload, int(project[0]), "backup", expires))
                uploads.hold(s, upload, dump.needed(s))
    except NotAllowed:  # it cannot be written here; then one attempt more has to do
        yield
        return
    try:
        yield
    finally:
        with suppress(LlmartifactsError), parts.metadata.writing() as s:
            uploads.remove(s, upload)


class _Gone(Exception):
    """Something that the snapshot needs is not there any more. Never leaves this file."""

    def __init__(self, error: BlobMissing) -> None:
        super().__init__(error.message)
        self.error = error


@dataclass
class _Snapshot:
    """What one read transaction gave.

    Attributes:
        at: The database's time.
        schema: Number of its schema.
        meta: What it says of itself besides.
        entries: Entries of the audit.
        root: Root of the tree over them.
        versions: How many versions.
        tables: Each table, and its pieces with their places in the spool.
    """

    at: str
    schema: int
    meta: dict[str, int]
    entries: int
    root: str
    versions: int
    tables: list[tuple[Table, list[tuple[Piece, int]]]] = field(default_factory=list)


class _Attempt:
    """One try."""

    def __init__(self, parts: Parts, place: BackupPlace, scratch: Scratch, origin: str, read_back: bool) -> None:
        self._parts = parts
        self._place = place
        self._scratch = scratch
        self._read_back = read_back
        self._origin = origin
        self._previous = place.require_own(origin)
        self._waiting: dict[Digest, tuple[Source, int]] = {}
        self._damaged: set[Digest] = set()
        self._relied: dict[str, Digest] = {}
        self._heavy = 0
        self._packs: dict[str, None] = {}
        self._sent = self._stored = 0

    def run(self) -> BackupRecord:
        spool, listed = self._scratch.new_file(), self._scratch.new_file()
        try:
            with open(spool, "xb+") as pieces, open(listed, "xb+") as blobs:
                snapshot = self._snapshot(pieces, blobs)
                tables = tuple(self._send_table(table, found, pieces) for table, found in snapshot.tables)
                pieces.truncate(0)
                objects = self._send_rows(OBJECTS, self._objects(blobs))
        finally:
            spool.unlink(missing_ok=True)
            listed.unlink(missing_ok=True)
        packs = self._send_rows(PACKS, self._each_pack())
        self._flush()
        self._place.settle(self._relied.values())
        return self._list(snapshot, tables, objects, packs)

    # --- snapshot

    def _snapshot(self, pieces: BinaryIO, blobs: BinaryIO) -> _Snapshot:
        with self._parts.metadata.reading() as s:
            row = s.row("select value from meta where name = 'schema'")
            schema = int(row[0]) if row else 0
            if schema != SCHEMA:
                raise NewerFormat(f"the registry has schema {schema}, this release knows {SCHEMA}", field="schema")
            checkpoint = self._checkpoint(self._previous)
            count = s.row("select count(*) from version")
            made = _Snapshot(
                to_text(from_micros(s.now())),
                schema,
                dump.settings(s),
                checkpoint.size,
                checkpoint.root.hex(),
                int(count[0]) if count else 0,
            )
            for table in dump.kept():
                found: list[tuple[Piece, int]] = []
                for data, rows in cut(to_lines(table, dump.rows(s, table))):
                    stored = compress(data)
                    found.append((Piece(digest_of(stored), len(stored), len(data), rows), pieces.tell()))
                    pieces.write(stored)
                made.tables.append((table, found))
            for blob in dump.needed(s):
                blobs.write(digest_bytes(blob.digest) + blob.size.to_bytes(8, "little"))
        return made

    def _checkpoint(self, newest: BackupRecord | None) -> Checkpoint:
        """Size and root of the audit now, which must go on where the newest backup's audit ended.

        A registry that was restored, and the one that went on, have one origin and two audits. In one place the
        backups of one would push out those of the other, and the newest would be of either.

        Raises:
            Conflict: It does not.
        """
        if newest is None:
            return auditlog.checkpoint(self._parts)
        now, then = auditlog.with_earlier(self._parts, newest.entries)
        if then is not None and then.hex() == newest.root:
            return now
        if now.size < newest.entries:
            told = f"has {newest.entries:,} audit entries, and this registry only {now.size:,}"
        else:
            told = f"has other audit entries than this registry had when they were {newest.entries:,}"
        raise Conflict(
            f"backup {newest.number} at {self._place.name}, of {newest.at}, {told}: one of the two was restored from"
            " a backup, and the other went on",
            field="target",
            next_step="Give each a place of its own: name an empty place for the backups of this one. What only one of"
            " them has is brought into the other with llmartifacts export and import.",
        )

    # --- rows

    def _send_table(self, table: Table, found: list[tuple[Piece, int]], spool: BinaryIO) -> Stream:
        for piece, at in found:
            if not self._is_there(piece.digest, piece.stored):
                spool.seek(at)
                self._send(piece.digest, spool.read(piece.stored), piece.stored)
        return Stream(table.name, tuple(c.name for c in table.columns), tuple(piece for piece, _ in found))

    def _send_rows(self, table: Table, rows: Iterable[tuple[str, int, str]]) -> Stream:
        made: list[Piece] = []
        for data, count in cut(to_lines(table, rows)):
            stored = compress(data)
            made.append(Piece(digest_of(stored), len(stored), len(data), count))
            if not self._is_there(made[-1].digest, len(stored)):
                self._send(made[-1].digest, stored, len(stored))
        return Stream(table.name, tuple(c.name for c in table.columns), tuple(made))

    # --- files and recipes

    def _objects(self, blobs: BinaryIO) -> Iterator[tuple[str, int, str]]:
        """Key, size and digest of what is stored for every blob, sorted by key; sent on the way."""
        stored = _Stored(self._parts.blobs.driver.list("sha256/"))
        before = _Before(self._rows_before("objects"))
        for blob in _listed(blobs):
            key, size, form = self._stored_as(blob, stored)
            digest = before.digest(key, size)
            try:
                if form == RECIPE:  # it may be another one by now: `gc` writes recipes anew
                    digest, size = self._recipe(blob, key)
                elif digest is None or not self._is_there(digest, size):
                    digest = self._file(blob, key, size, form)
            except BlobMissing as error:
                raise _Gone(error) from error
            self._stored += size
            yield key, size, digest

    def _stored_as(self, blob: Blob, stored: _Stored) -> tuple[str, int, str]:
        found = stored.of(blob.digest)
        for form in FORMS:
            key = key_of(blob.digest, form)
            size = found.get(form) if found else self._parts.blobs.driver.size(key)
            if size is not None:
                return key, size, form
        raise _Gone(BlobMissing(f"the bytes of {blob.digest} are not in the store", digest=blob.digest))

    def _recipe(self, blob: Blob, key: str) -> tuple[Digest, int]:
        """Send a recipe, and note the packs that hold its chunks now; its digest and size."""
        blobs = self._parts.blobs
        with blobs.driver.get(key) as stream:
            data = read_up_to(stream, MAX_RECIPE)
        try:
            recipe = blobs.chunks.recipe(data, origin=blobs.driver.where(key))
            if recipe.size != blob.size:
                raise BadForm(f"it makes {recipe.size} of {blob.size} bytes")
        except BadForm as error:
            raise self._wrong(blob, key, str(error)) from None
        self._packs |= dict.fromkeys(place.pack for place in blobs.chunks.places(recipe).values())
        digest = digest_of(data)
        if not self._is_there(digest, len(data)):
            self._send(digest, data, len(data))
        return digest, len(data)

    def _file(self, blob: Blob, key: str, size: int, form: str) -> Digest:
        """Send a file that is stored whole, once it was checked."""
        driver = self._parts.blobs.driver
        file = self._scratch.new_file()
        with driver.get(key) as stream:
            digest, done = self._place.copy(stream, file, size)
        if done != size:
            raise self._wrong(blob, key, f"has {done} of {size} bytes")
        if (digest if form == RAW else self._content(file, form, blob)) != blob.digest:
            raise self._wrong(blob, key, "holds something else")
        self._send_file(digest, file, size)
        return digest

    def _content(self, file: Path, form: str, blob: Blob) -> Digest | None:
        seen = Sha256()
        with open(file, "rb") as opened, Reader(form, opened) as reader:
            try:
                for piece in reader.pieces(blob.size + 1):
                    seen.update(piece)
            except BadForm:
                return None
        return seen.blob.digest

    # --- packs

    def _each_pack(self) -> Iterator[tuple[str, int, str]]:
        if not self._packs:
            return
        from llmartifacts.blobs.chunks.pack import key_of as key_of_pack

        driver = self._parts.blobs.driver
        before = _Before(self._rows_before("packs"))
        for name in sorted(self._packs):
            key = key_of_pack(name)
            size = driver.size(key)
            if size is None:  # a collection put its chunks elsewhere
                raise _Gone(BlobMissing(f"the pack {driver.where(key)} is missing", file=driver.where(key)))
            digest = before.digest(key, size)
            if digest is None or not self._is_there(digest, size):
                digest = self._pack(name, key, size)
            self._stored += size
            yield key, size, digest

    def _pack(self, name: str, key: str, size: int) -> Digest:
        from llmartifacts.blobs.chunks.check import check_view

        driver, file = self._parts.blobs.driver, self._scratch.new_file()
        try:
            with driver.get(key) as stream:
                digest, done = self._place.copy(stream, file, size)
        except BlobMissing as error:
            raise _Gone(error) from error
        try:
            if done != size:
                raise BadForm(f"it has {done} of {size} bytes")
            with open(file, "rb") as opened:
                check_view(name, memoryview(mmap(opened.fileno(), 0, prot=PROT_READ)))
        except (BadForm, ValueError) as error:
            where = driver.where(key)
            raise Damaged(f"the pack {where} is damaged: {error}", file=where) from None
        self._send_file(digest, file, size)
        return digest

    # --- to the place

    def _rows_before(self, name: str) -> Iterator[tuple[str, int, str]]:
        """What the newest backup lists; nothing from where on it cannot be read."""
        if self._previous is None:
            return
        stream, table = (self._previous.objects, OBJECTS) if name == "objects" else (self._previous.packs, PACKS)
        try:
            yield from self._place.rows(stream, table)
        except Damaged:
            return

    def _is_there(self, digest: Digest, size: int) -> bool:
        if digest in self._waiting:
            return True
        if not self._place.holds(digest, size):
            return False
        self._relied[digest[7:9]] = digest
        if not self._read_back:
            return True
        try:
            for _ in self._place.pieces(digest, size):
                pass
        except Damaged:
            self._damaged.add(digest)
            return False
        return True

    def _send_file(self, digest: Digest, file: Path, size: int) -> None:
        if self._is_there(digest, size):
            file.unlink()
        else:
            self._send(digest, file, size)

    def _send(self, digest: Digest, source: Source, size: int) -> None:
        self._waiting[digest] = (source, size)
        self._sent += size
        self._heavy += size
        if len(self._waiting) >= _TOGETHER or self._heavy >= _TOGETHER_BYTES:
            self._flush()

    def _flush(self) -> None:
        waiting, self._waiting, self._heavy = self._waiting, {}, 0
        if waiting:
            self._place.send([(digest, *given) for digest, given in waiting.items()], self._damaged)
            self._damaged -= waiting.keys()
        for source, _ in waiting.values():
            if isinstance(source, Path):
                source.unlink(missing_ok=True)

    def _list(self, snapshot: _Snapshot, tables: tuple[Stream, ...], objects: Stream, packs: Stream) -> BackupRecord:
        made = BackupRecord(
            1,
            secrets.token_hex(16),
            self._origin,
            snapshot.at,
            snapshot.schema,
            snapshot.meta,
            snapshot.entries,
            snapshot.root,
            snapshot.versions,
            self._stored + total((*tables, objects, packs)),
            self._sent,
            tables,
            objects,
            packs,
        )
        while True:
            numbers = self._place.numbers()
            made = replace(made, number=(numbers[-1] if numbers else 0) + 1)
            newest = self._place.require_own(self._origin)
            if newest is not None and (self._previous is None or newest.write != self._previous.write):
                self._checkpoint(newest)  # it was listed meanwhile
                self._previous = newest
            if self._place.list_record(made):
                return made

    def _wrong(self, blob: Blob, key: str, what: str) -> Damaged:
        where = self._parts.blobs.driver.where(key)
        with self._parts.metadata.reading() as s:
            needing = self._parts.needing(s, blob.digest)
        return DigestMismatch(
            f"the stored file {where} {what}, not {blob.digest}", digest=blob.digest, file=where, versions=needing
        )


class _Stored:
    """The forms in which blobs are stored, from a listing that is sorted by key, asked in the same order."""

    def __init__(self, listing: Iterator[tuple[str, int]]) -> None:
        self._listing = listing
        self._ahead: tuple[Digest, str, int] | None = None
        self._next()

    def of(self, digest: Digest) -> dict[str, int]:
        """Form -> bytes of what is stored of a blob."""
        while self._ahead is not None and self._ahead[0] < digest:
            self._next()
        found: dict[str, int] = {}
        while self._ahead is not None and self._ahead[0] == digest:
            found[self._ahead[1]] = self._ahead[2]
            self._next()
        return found

    def _next(self) -> None:
        self._ahead = None
        for key, size in self._listing:
            parsed = parse_key(key)
            if parsed is not None:
                self._ahead = (*parsed, size)
                return


class _Before:
    """What an earlier backup lists, sorted by key, asked in the same order."""

    def __init__(self, rows: Iterator[tuple[str, int, str]]) -> None:
        self._rows = rows
        self._ahead = next(rows, None)

    def digest(self, key: str, size: int) -> Digest | None:
        """The digest of what is stored under a key, if it has that size."""
        while self._ahead is not None and self._ahead[0] < key:
            self._ahead = next(self._rows, None)
        if self._ahead is None or self._ahead[:2] != (key, size) or len(self._ahead[2]) != 71:
            return None
        return Digest(self._ahead[2])


def _listed(blobs: BinaryIO) -> Iterator[Blob]:
    """The blobs that the snapshot wrote down."""
    blobs.seek(0)
    while data := blobs.read(PIECE // _BLOB * _BLOB):
        for at in range(0, len(data), _BLOB):
            digest = digest_from_bytes(data[at : at + 32])
            yield Blob(digest, int.from_bytes(data[at + 32 : at + _BLOB], "little"))


def _named(parts: Parts, error: BlobMissing) -> LlmartifactsError:
    if not error.digest:
        return Conflict(
            f"the registry was cleaned up while the backup was taken, again and again: {error.message}",
            next_step="Try again.",
        )
    with parts.metadata.reading() as s:
        return replace(error, versions=error.versions or parts.needing(s, Digest(error.digest)))
