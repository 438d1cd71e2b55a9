"""Backups that are there: listed, read to the last bit, and the older ones removed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from llmartifacts.errors import Damaged, LlmartifactsError, NewerFormat, NotFound
from llmartifacts.metadata.dump import Table, kept
from llmartifacts.metadata.schema import SCHEMA
from llmartifacts.records.arguments import check_count
from llmartifacts.records.backup import OBJECTS as PREFIX
from llmartifacts.records.backup import BackupRecord, Stream, object_digest, record_key
from llmartifacts.records.digest import Digest, digest_bytes, parse_digest
from llmartifacts.versioning.backups.place import BackupPlace
from llmartifacts.versioning.backups.rows import OBJECTS, PACKS, decompress


@dataclass(frozen=True, slots=True)
class Pruned:
    """What became of older backups.

    Attributes:
        dry_run: Whether nothing was removed.
        kept: Numbers of the backups that stay.
        removed: Numbers of those that went.
        objects: Files that no backup needs any more.
        freed: Their bytes.
    """

    dry_run: bool
    kept: tuple[int, ...]
    removed: tuple[int, ...]
    objects: int
    freed: int


def backups(target: str) -> list[BackupRecord]:
    """Every backup at a place, the oldest first. Raises `Damaged` where a record was altered."""
    place = BackupPlace.open(target)
    return [place.record(number) for number in place.numbers()]


def listed(target: str) -> tuple[list[BackupRecord], list[LlmartifactsError]]:
    """Every backup at a place whose record can be read, the oldest first; and what is wrong with the others."""
    place = BackupPlace.open(target)
    found: list[BackupRecord] = []
    problems: list[LlmartifactsError] = []
    for number in place.numbers():
        try:
            found.append(place.record(number))
        except (Damaged, NewerFormat) as error:
            problems.append(error)
        except NotFound:
            continue  # removed meanwhile
    return found, problems


def check(target: str, which: str | int | None = None) -> tuple[BackupRecord, tuple[LlmartifactsError, ...]]:
    """Read a backup to the last bit, without restoring it.

    Args:
        target: The place.
        which: Number of the backup, or the beginning of its id; by default the newest.

    Returns:
        Its record, and everything that is missing or not what it should be.

    Raises:
        NotFound: There is no such backup.
        Damaged: Its record was altered.
    """
    place = BackupPlace.open(target)
    record = place.find(which)
    return record, tuple(_problems(place, record))


def _problems(place: BackupPlace, record: BackupRecord) -> Iterator[LlmartifactsError]:
    tables = {table.name: table for table in kept(record.schema)} if record.schema <= SCHEMA else {}
    for stream in record.tables:
        try:
            if stream.name in tables:
                for _ in place.rows(stream, tables[stream.name]):
                    pass
            else:
                _only_read(place, stream)
        except Damaged as error:
            yield error
    for stream, table in ((record.objects, OBJECTS), (record.packs, PACKS)):
        try:
            for key, size, digest in place.rows(stream, table):
                try:
                    for _ in place.pieces(parse_digest(digest), size):
                        pass
                except LlmartifactsError as error:
                    yield Damaged(f"{key}: {error.message}", digest=digest)
        except Damaged as error:
            yield error


def _only_read(place: BackupPlace, stream: Stream) -> None:
    for piece in stream.pieces:
        decompress(piece, place.fetch(piece.digest, piece.stored), place.name)


def prune(target: str, keep: int, *, dry_run: bool = False) -> Pruned:
    """Remove all but the newest backups, and what only they needed.

    What stays is read first: where that cannot be done, nothing is removed. Killed half-way, it goes on the next time.

    Args:
        target: The place.
        keep: How many stay, at least 1.
        dry_run: Only say what would go.

    Raises:
        Damaged: A backup that stays cannot be read; nothing was removed.
        Busy: A backup is being taken there, or older ones are being removed.
    """
    check_count(keep, field="keep")
    place = BackupPlace.open(target)
    with place.busy("prune"):
        numbers = place.numbers()
        stay, going = numbers[-keep:], numbers[:-keep]
        needed = {digest_bytes(digest) for number in stay for digest in _needed(place, place.record(number))}
        if not dry_run:
            for number in going:
                place.driver.delete(record_key(number))
        objects = freed = 0
        for key, size in place.driver.list(PREFIX):
            digest = object_digest(key)
            if digest is not None and digest_bytes(digest) not in needed:
                objects += 1
                freed += size
                if not dry_run:
                    place.driver.delete(key)
    return Pruned(dry_run, tuple(stay), tuple(going), objects, freed)


def _needed(place: BackupPlace, record: BackupRecord) -> Iterator[Digest]:
    for stream in record.streams:
        for piece in stream.pieces:
            yield piece.digest
    pairs: tuple[tuple[Stream, Table], ...] = ((record.objects, OBJECTS), (record.packs, PACKS))
    for stream, table in pairs:
        for _, _, digest in place.rows(stream, table):
            yield parse_digest(digest)
