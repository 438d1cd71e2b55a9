"""restore: a backup becomes a registry, in an empty place, or nothing does.

    bytes      every object, its digest and what it holds checked, under its key in the new place
    rows       every table, checked row by row; the list of chunks is made anew from the packs
    check      as `verify` does, and that the audit is the one that the backup names
    appear     a folder gets its name; a database commits

Rows, check and the entry in the audit are one transaction of the new database, so of a restore that was killed there is
never half a registry: a folder without its name, or bytes that no database knows, and the next restore clears away the
one and goes on from the other.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from mmap import PROT_READ, mmap
from pathlib import Path
from typing import Any

from llmartifacts import plugins
from llmartifacts.blobs.base import PIECE, Driver, read_up_to
from llmartifacts.blobs.cache import BlobCache
from llmartifacts.blobs.disk import create_file, sync_data, sync_folder, write_all
from llmartifacts.blobs.failures import storage_errors
from llmartifacts.blobs.forms import RAW, RECIPE, BadForm, Reader, parse_key
from llmartifacts.blobs.scratch import Scratch, sweep
from llmartifacts.blobs.store import BlobStore
from llmartifacts.blobs.verify import Sha256
from llmartifacts.errors import (
    BlobMissing,
    Conflict,
    Damaged,
    DigestMismatch,
    InvalidInput,
    LlmartifactsError,
    NewerFormat,
)
from llmartifacts.metadata import audit, dump
from llmartifacts.metadata.bulk import many_rows
from llmartifacts.metadata.database import Database, Session
from llmartifacts.metadata.schema import SCHEMA
from llmartifacts.metadata.store import MetadataStore
from llmartifacts.records.backend import Verification
from llmartifacts.records.backup import BackupRecord
from llmartifacts.records.digest import Digest, parse_digest
from llmartifacts.versioning import auditlog, verify
from llmartifacts.versioning.backups.place import BackupPlace
from llmartifacts.versioning.backups.rows import OBJECTS, PACKS
from llmartifacts.versioning.chunk_index import RecordedIndex
from llmartifacts.versioning.embedded import DATABASE, EmbeddedBackend, give_name, is_there, taken
from llmartifacts.versioning.parts import Parts
from llmartifacts.versioning.team import ASIDE, MARKER, PLACE, database_at, driver_at, holds_bytes, mark_at, mark_of

_RESTORING = "restoring"
"""Key of the object that says whose bytes a restore is putting there."""
_TOGETHER = 64
_TOGETHER_BYTES = 64 * 1024 * 1024
_STEP = "Take another backup of this place (llmartifacts backup PLACE --list), or another copy of it."


@dataclass(frozen=True, slots=True)
class Restored:
    """A registry that was restored.

    Attributes:
        backup: What it was restored from.
        location: The folder, or the database.
        revisions: Project -> its revision.
        verification: What a check found; nothing, unless damage was accepted.
    """

    backup: BackupRecord
    location: str
    revisions: dict[str, int]
    verification: Verification


def restore_folder(
    source: str,
    to: Path,
    *,
    which: str | int | None = None,
    read_data: bool = False,
    accept_damage: bool = False,
    actor: str,
) -> Restored:
    """Restore into a new folder: an embedded registry.

    Args:
        source: Where the backups are.
        to: The folder; not there, or empty.
        which: Number of the backup, or the beginning of its id; by default the newest.
        read_data: Put every file together and hash it, before the registry appears.
        accept_damage: Restore also what `verify` finds fault with. What a backup holds is checked all the same.
        actor: Who restores, for the audit.

    Raises:
        Conflict: There is something at the folder.
        NotFound: There is no such backup.
        Damaged: The backup is not whole, or was altered, or is none of a registry that is sound; nothing was made.
        NewerFormat: A newer release took it.
        NotAllowed: The place is full, or may not be written.
        Unreachable: The backups cannot be had.
    """
    place = BackupPlace.open(source)
    record = _wanted(place, which)
    home = Path(os.path.abspath(to))
    if place.folder is not None and place.folder.resolve() in (home.resolve(), *home.resolve().parents):
        raise InvalidInput(f"{home} lies where the backups are", field="to", next_step="Name another folder.")
    with storage_errors("make", home):
        if is_there(home) and (not home.is_dir() or any(home.iterdir())):
            _tidy(home)
            raise taken(home)
        home.parent.mkdir(parents=True, exist_ok=True)
    with _aside(home) as scratch:
        made = scratch.path / "registry"
        with storage_errors("make", home):
            for folder in (made, made / "blobs", made / "tmp"):
                folder.mkdir()
        driver = plugins.load("blobs", "local")(made / "blobs")
        _bytes(place, record, driver, scratch)
        database = plugins.load("metadata", "sqlite")(made / DATABASE, create=True)
        try:
            with many_rows(database), database.writing() as s:
                parts = _rows(s, place, record, database, driver, scratch.path / "cache", made / "tmp", str(home))
                revisions = _finish(s, parts, record, actor, accept_damage)
        finally:
            database.close()
        backend = EmbeddedBackend.open(made)
        try:
            found = _verified(backend.parts, read_data, accept_damage)
        finally:
            backend.close()
        with storage_errors("make", home):
            give_name(made, home)
            sync_folder(home.parent)
    return Restored(record, str(home), revisions, found)


def restore_team(
    source: str,
    database: str,
    blobs: str,
    *,
    which: str | int | None = None,
    read_data: bool = False,
    accept_damage: bool = False,
    cache: BlobCache | None = None,
    actor: str,
) -> Restored:
    """Restore into an empty database and an empty place of bytes: the registry of a team.

    Args:
        source: Where the backups are.
        database: URL of the database.
        blobs: Where the bytes go: a folder or a URL.
        which: As in `restore_folder`.
        read_data: As in `restore_folder`.
        accept_damage: As in `restore_folder`.
        cache: Where files are made of compressed content; by default the user's.
        actor: Who restores, for the audit.

    Raises:
        Conflict: The database holds a registry, or the place holds bytes.
        InvalidInput: One of the addresses is none, or both are the same place.
        NotFound: As in `restore_folder`; so are `Damaged`, `NewerFormat`, `NotAllowed` and `Unreachable`.
    """
    place = BackupPlace.open(source)
    record = _wanted(place, which)
    driver, folder = driver_at(blobs)
    if folder is not None and place.folder is not None and folder.resolve() == place.folder.resolve():
        raise InvalidInput("the bytes cannot go where the backups are", field="blobs", next_step="Name another place.")
    opened = database_at(database)
    try:
        if not dump.is_empty(opened):
            raise Conflict(
                "the database holds a registry already", field="database", next_step="Name one that is empty: createdb."
            )
        where = getattr(opened, "place", "")
        _begin(driver, folder, record, where)
        cache = cache or BlobCache()
        aside = folder / ASIDE if folder is not None else driver.spool or cache.root / ASIDE
        with storage_errors("write", aside):
            sweep(aside)
            scratch = Scratch(aside)
        try:
            _bytes(place, record, driver, scratch)
            number = _number(driver, record)
            with many_rows(opened), opened.writing() as s:
                parts = _rows(s, place, record, opened, driver, scratch.path / "cache", aside, where)
                s.run("insert into meta(name, value) values (:name, :v)", {"name": PLACE, "v": number})
                revisions = _finish(s, parts, record, actor, accept_damage)
                found = _verified(parts, read_data, accept_damage)
        finally:
            scratch.close()
        with suppress(LlmartifactsError):  # it is done, whether or not the place can be tidied up
            driver.delete(_RESTORING)
    finally:
        opened.close()
    return Restored(record, where, revisions, found)


# --- before


def _wanted(place: BackupPlace, which: str | int | None) -> BackupRecord:
    record = place.find(which)
    if record.schema > SCHEMA:
        raise NewerFormat(
            f"backup {record.number} is of a database with schema {record.schema}, this release knows {SCHEMA}",
            field="backup",
        )
    wanted = {table.name: tuple(column.name for column in table.columns) for table in dump.kept(record.schema)}
    found = {stream.name: stream.columns for stream in record.tables}
    if wanted != found:
        strange = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        raise Damaged(
            f"backup {record.number} has not the tables of schema {record.schema}: {', '.join(strange):.200}",
            file=place.name,
            next_step=_STEP,
        )
    columns = tuple(column.name for column in OBJECTS.columns)
    if record.objects.columns != columns or record.packs.columns != columns:
        raise Damaged(f"backup {record.number} lists its bytes otherwise", file=place.name, next_step=_STEP)
    return record


@contextmanager
def _aside(home: Path) -> Iterator[Scratch]:
    """A folder beside the one to come, on its file system; those of killed restores are removed."""
    _tidy(home)
    with storage_errors("make", home):
        scratch = Scratch(_root_of(home))
    try:
        yield scratch
    finally:
        scratch.close()
        _tidy(home)


def _tidy(home: Path) -> None:
    """Remove what killed restores left beside a folder."""
    sweep(_root_of(home))
    with suppress(OSError):
        _root_of(home).rmdir()


def _root_of(home: Path) -> Path:
    return home.parent / f".{home.name[:64]}.restoring"


def _begin(driver: Driver, folder: Path | None, record: BackupRecord, database: str) -> None:
    """Say whose bytes come here. A place with bytes is refused, unless they are those of this restore, begun before.

    The same restore is that of the same registry into the same database: a place that a finished one could not tidy up
    belongs to that one's database, and to no second.
    """
    where = folder or "that place"
    if folder is not None and ((folder / DATABASE).exists() or (folder.parent / DATABASE).exists()):
        raise Conflict(
            f"{folder} belongs to an embedded registry", field="blobs", next_step="Name a folder of its own."
        )
    own = f"{record.origin} {hashlib.sha256(database.encode()).hexdigest()}"
    said = _said(driver)
    if not said:
        if mark_at(driver) or holds_bytes(driver):
            raise Conflict(f"{where} holds bytes already", field="blobs", next_step="Name a place that is empty.")
        driver.put_if_absent(_RESTORING, f"{own}\n".encode())
        said = _said(driver)
    if said != own:
        raise Conflict(
            f"another restore into {where} was begun: of {said.partition(' ')[0]!r:.60}, into some database",
            field="blobs",
            next_step="Name the database that it was begun with, or another place.",
        )


def _said(driver: Driver) -> str:
    try:
        with driver.get(_RESTORING) as stream:
            return read_up_to(stream, 200).decode("ascii", "replace").strip()
    except BlobMissing:
        return ""


def _number(driver: Driver, record: BackupRecord) -> int:
    """Mark the place as that of the registry; the number that the database has to know."""
    number = secrets.randbits(62) + 1
    driver.put_if_absent(MARKER, f"{mark_of(record.origin, number)}\n".encode())
    origin, _, told = mark_at(driver).partition(" ")
    if origin != record.origin or len(told) != 16:
        raise Conflict("the place of the bytes is another registry's by now", field="blobs")
    return int(told, 16)


# --- bytes


def _bytes(place: BackupPlace, record: BackupRecord, driver: Driver, scratch: Scratch) -> None:
    """Put every object under its key, checked."""
    waiting: list[tuple[str, Path]] = []
    heavy = 0

    def flush() -> None:
        driver.put_many(waiting)
        for _, file in waiting:
            with storage_errors("remove", file):
                file.unlink(missing_ok=True)
        waiting.clear()

    for stream, table, check in ((record.objects, OBJECTS, _check_object), (record.packs, PACKS, _check_pack)):
        last = ""
        for key, size, told in place.rows(stream, table):
            digest = parse_digest(told) if len(told) == 71 else None
            if key <= last or size < 0 or digest is None:
                raise _lies(place, f"lists {key!r:.100} twice, or in a way that nobody would")
            last = key
            known = check(key)
            if known is None:
                raise _lies(place, f"lists {key!r:.100}, which is no key of a registry's bytes")
            if driver.size(key) == size:
                continue  # an earlier restore that was killed brought it, checked
            file = scratch.new_file()
            _fetch(place, digest, size, file)
            problem = known(file, size)
            if problem:
                raise _lies(place, f"has something else under {key}: {problem}", digest)
            waiting.append((key, file))
            heavy += size
            if len(waiting) >= _TOGETHER or heavy >= _TOGETHER_BYTES:
                flush()
                heavy = 0
    flush()


def _fetch(place: BackupPlace, digest: Digest, size: int, target: Path) -> None:
    with storage_errors("write", target):
        fd = create_file(target)
        try:
            for piece in place.pieces(digest, size):
                write_all(fd, piece)
            sync_data(fd)
        finally:
            os.close(fd)


_Check = Callable[[Path, int], str]


def _check_object(key: str) -> _Check | None:
    """Tells what is wrong with the object under a key of a blob; None if it is no such key."""
    parsed = parse_key(key)
    if parsed is None:
        return None
    digest, form = parsed

    def whole(file: Path, size: int) -> str:
        seen = Sha256()
        with open(file, "rb") as opened, Reader(form, opened) as reader:
            try:
                for piece in reader.pieces(size if form == RAW else _UNPACKED):
                    seen.update(piece)
            except BadForm as error:
                return str(error)
        return "" if seen.blob.digest == digest else f"it holds {seen.blob.digest}"

    def recipe(file: Path, size: int) -> str:
        return "" if file.read_bytes()[:8] == b"LLMARC1\n" else "it is no recipe"

    return recipe if form == RECIPE else whole


_UNPACKED = 64 * PIECE
"""Bytes of a small file, unpacked: those over 1 MiB are stored as chunks."""


def _check_pack(key: str) -> _Check | None:
    """Tells what is wrong with the pack under a key; None if it is no key of one."""
    from llmartifacts.blobs.chunks.check import check_view
    from llmartifacts.blobs.chunks.pack import parse_key as parse_pack

    name = parse_pack(key)
    if name is None:
        return None

    def whole(file: Path, size: int) -> str:
        try:
            with open(file, "rb") as opened:
                check_view(name, memoryview(mmap(opened.fileno(), 0, prot=PROT_READ)))
        except (BadForm, ValueError) as error:
            return str(error)
        return ""

    return whole


def _lies(place: BackupPlace, told: str, digest: str = "") -> Damaged:
    return DigestMismatch(f"the backup {told}", digest=digest, file=place.name, next_step=_STEP)


# --- rows


def _rows(
    s: Session,
    place: BackupPlace,
    record: BackupRecord,
    database: Database,
    driver: Driver,
    cache: Path,
    scratch: Path,
    location: str,
) -> Parts:
    """Fill the database, and bring it to this release's schema; the parts over it, within the open transaction."""
    dump.create(s, database.types, record.schema, record.meta)
    streams = {stream.name: stream for stream in record.tables}
    for table in dump.kept(record.schema):
        dump.insert(s, table, place.rows(streams[table.name], table))
    dump.go_on_numbering(s, database, record.schema)
    store = MetadataStore(database)
    blobs = BlobStore(driver, cache=BlobCache(cache), scratch=scratch, index=lambda given: RecordedIndex(store, given))
    parts = Parts(store, blobs, location)
    index = blobs.index
    if record.packs.rows and isinstance(index, RecordedIndex):
        for problem in index.rebuild():
            raise problem
    return parts


def _finish(s: Session, parts: Parts, record: BackupRecord, actor: str, accept_damage: bool) -> dict[str, int]:
    """Hold the audit against the record, and write down that it was restored; the revision of each project."""
    origin = audit.origin(s)
    if origin != record.origin:
        raise Damaged(f"the backup says that it is of {record.origin}, and its audit begins as {origin or 'nothing'}")
    checkpoint = auditlog.checkpoint(parts)
    if (checkpoint.size, checkpoint.root.hex()) != (record.entries, record.root):
        raise Damaged("the audit in the backup is another than the backup says", file=parts.location, next_step=_STEP)
    told: dict[str, Any] = {"backup": record.number, "write": record.write, "as_of": record.at}
    told |= {"entries": record.entries, "root": record.root, "accept_damage": accept_damage}
    audit.record(s, None, "", actor=actor, verb="restore", subject="registry", **told)
    return {str(name): int(number) for name, number in s.rows("select name, revision from project order by name")}


def _verified(parts: Parts, read_data: bool, accept_damage: bool) -> Verification:
    found = verify.verify(parts, read_data=read_data)
    if not found.ok and not accept_damage:
        first = found.problems[0]
        more = f", and {len(found.problems) - 1} more" if len(found.problems) > 1 else ""
        raise Damaged(
            f"what the backup holds is no sound registry: {first}{more}",
            next_step="Take an earlier backup; or restore it all the same (--accept-damage), then llmartifacts verify.",
        )
    return found
