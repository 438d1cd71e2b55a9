"""What SQLite's own check of a file does not look at: its header, its tables' definitions, and the log beside it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import apsw

from llmartifacts.metadata.database import Session
from llmartifacts.metadata.schema import MIGRATIONS, statements
from llmartifacts.metadata.sqlite_log import log_damage
from llmartifacts.metadata.sqlite_pages import APPLICATION, SUM

_MAGIC = b"SQLite format 3\0"
_CONSTANT = {
    18: b"\2\2",
    21: b"\x40\x20\x20",
    44: b"\0\0\0\4",
    52: bytes(4),
    56: b"\0\0\0\1",
    60: bytes(8),
    72: bytes(20),
}
"""Offset in the header -> bytes that a registry has there: log, format 4, UTF-8, and what is 0."""
_CHECKSUMS = {(0, 0), (SUM, APPLICATION)}
"""Bytes kept for the checksum of a page, and the application id: of a file of the first releases, and of one now."""
_LOOKS = 3


def problems(path: Path, s: Session, head: bytes) -> Iterator[str]:
    """What is wrong with a file besides, one readable line each.

    Args:
        path: The file.
        s: A transaction on it.
        head: Its header.
    """
    log = Path(f"{path}-wal")
    if log.exists() and log.stat().st_size:
        head = b""  # the log may hold a newer one
    if head and not _usual(head):
        yield "its header is not one that a registry has"
    row = s.row("select value from meta where name = 'schema'")
    expected = _definitions(int(row[0]) if row else 0)
    found = {(r[0], r[1]): r[2] for r in s.rows("select type, name, sql from sqlite_master where sql is not null")}
    for kind, name in sorted(expected.keys() | found.keys()):
        if found.get((kind, name)) != expected.get((kind, name)):
            yield f"the definition of the {kind} {name!r:.60} is not the one that a release makes"
    told = log_damage(log)
    for _ in range(_LOOKS - 1):
        if told is None:
            return
        time.sleep(0.05)
        before, told = told, log_damage(log)
        if told is not None and told.partition(" is damaged")[0] != before.partition(" is damaged")[0]:
            return  # somebody is writing to it, and was met half-way: damage stays where it is
    if told is not None:
        yield told


def _usual(head: bytes) -> bool:
    sums = head[20], int.from_bytes(head[68:72], "big")
    same = all(head[at:].startswith(want) for at, want in _CONSTANT.items())
    return same and head.startswith(_MAGIC) and sums in _CHECKSUMS


@cache
def _definitions(schema: int) -> dict[tuple[str, str], str]:
    """Type and name of every table and index of a schema -> its definition as SQLite keeps it."""
    from llmartifacts.metadata.sqlite import SqliteDatabase

    connection = apsw.Connection(":memory:")
    connection.execute("create table meta(name text primary key, value bigint not null)")
    for migration in MIGRATIONS[:schema]:
        for statement in statements(migration, SqliteDatabase.types):
            connection.execute(statement)
    rows = connection.execute("select type, name, sql from sqlite_master where sql is not null").fetchall()
    connection.close()
    return {(str(kind), str(name)): str(sql) for kind, name, sql in rows}
