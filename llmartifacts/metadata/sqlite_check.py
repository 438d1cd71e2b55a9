"""What SQLite's own check of a file does not look at: its header, its tables' definitions, and the log beside it.

A log is read by SQLite up to the first record whose checksum is wrong, and what comes after it is dropped without a
word: right after a crash, when the rest was never acknowledged, and lost commits when a bit has rotted. So the log is
walked here too, over all that is in it.
"""

from __future__ import annotations

import sys
import time
from array import array
from collections.abc import Iterator
from functools import cache
from operator import mul
from pathlib import Path
from typing import BinaryIO, Literal

import apsw

from llmartifacts.metadata.database import Session
from llmartifacts.metadata.schema import MIGRATIONS, statements
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
_HEADER, _FRAME = 32, 24
_LOG: dict[bytes, Literal["little", "big"]] = {b"\x37\x7f\x06\x82": "little", b"\x37\x7f\x06\x83": "big"}
_WORD = 0xFFFFFFFF
_NEAR = 4
"""Bits by which the mark of a record may differ from the log's and still be taken for it; old ones differ by half."""
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


def log_damage(path: Path) -> str | None:
    """What is wrong with a write-ahead log, in one line; None where all of it can be read, or was never finished.

    A record that was being written when a process died is no damage: it is the last one, and it is told from a rotted
    one by its checksum, which one flipped bit changes in a way of its own.
    """
    try:
        file = open(path, "rb", buffering=1 << 20)  # noqa: SIM115 - closed below
    except FileNotFoundError:
        return None
    with file:
        head = file.read(_HEADER)
        if len(head) < _HEADER or not any(head):
            return None
        order = _LOG.get(head[:4])
        size = int.from_bytes(head[8:12], "big")
        if order is None or not 512 <= size <= 65536 or size & (size - 1):
            return "the header of its log is damaged: what was committed last may be lost"
        sums = _Sums(order, size)
        chain = sums.of_header(head[:24])
        if chain != _pair(head[24:32]):
            return "the header of its log is damaged: what was committed last may be lost"
        told = _walk(file, head[16:24], sums, chain, size)
        file.seek(0)
        return told if file.read(_HEADER) == head else None  # else it was begun anew meanwhile


def _walk(file: BinaryIO, mark: bytes, sums: _Sums, chain: tuple[int, int], size: int) -> str | None:
    """As `log_damage`, over the records."""
    number = broken = 0
    while len(record := file.read(_FRAME + size)) == _FRAME + size:
        number += 1
        head = record[:_FRAME]
        if broken:
            if head[8:16] == mark:
                return (
                    f"record {broken} of its log is damaged, and {_more(number - broken)} after it:"
                    " what was committed there is lost"
                )
            continue
        made = sums.after(chain, record)
        if head[8:16] == mark and made == _pair(head[16:24]):
            chain = made
            continue
        broken = number
        distance = _distance(head[8:16], mark)
        if 0 < distance <= _NEAR or (not distance and sums.one_bit(made, _pair(head[16:24]))):
            return f"record {number} of its log is damaged: what was committed there is lost"
    return None


def _more(count: int) -> str:
    return "there is one" if count == 1 else f"there are {count} and maybe more"


def _distance(one: bytes, other: bytes) -> int:
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).bit_count()


def _bytes(pair: tuple[int, int]) -> bytes:
    return b"".join(one.to_bytes(4, "big") for one in pair)


def _pair(data: bytes) -> tuple[int, int]:
    return int.from_bytes(data[:4], "big"), int.from_bytes(data[4:8], "big")


class _Sums:
    """The checksums of a log.

    For each pair of words x, y: a += x + b; b += y + a, modulo 2^32. That is linear, so the sum over a whole record is
    a product with Fibonacci numbers.
    """

    def __init__(self, order: Literal["little", "big"], size: int) -> None:
        self._swap = order != sys.byteorder
        pairs = (8 + size) // 8
        numbers = [0, 1]
        while len(numbers) < 2 * pairs + 3:
            numbers.append((numbers[-1] + numbers[-2]) & _WORD)
        self._first = [w for k in reversed(range(pairs)) for w in (numbers[2 * k + 1], numbers[2 * k])]
        self._second = [w for k in reversed(range(pairs)) for w in (numbers[2 * k + 2], numbers[2 * k + 1])]
        self._power = (numbers[2 * pairs - 1], numbers[2 * pairs], numbers[2 * pairs + 1])

    def of_header(self, head: bytes) -> tuple[int, int]:
        """The checksum of the header of the log."""
        a = b = 0
        words = self._words(head)
        for x, y in zip(words[::2], words[1::2], strict=True):
            a = (a + x + b) & _WORD
            b = (b + y + a) & _WORD
        return a, b

    def after(self, before: tuple[int, int], record: bytes) -> tuple[int, int]:
        """The checksum after one more record."""
        words = self._words(record[:8] + record[_FRAME:])
        low, mid, high = self._power
        a, b = before
        first, second = sum(map(mul, self._first, words)), sum(map(mul, self._second, words))
        return (low * a + mid * b + first) & _WORD, (mid * a + high * b + second) & _WORD

    def one_bit(self, made: tuple[int, int], stored: tuple[int, int]) -> bool:
        """Whether one flipped bit explains that the checksum is another."""
        if _distance(_bytes(made), _bytes(stored)) == 1:
            return True  # of the checksum itself
        a, b = ((one - other) & _WORD for one, other in zip(made, stored, strict=True))
        wanted = {(a, b), (-a & _WORD, -b & _WORD)}
        return any(
            (x << bit & _WORD, y << bit & _WORD) in wanted
            for x, y in zip(self._first, self._second, strict=True)
            for bit in range(32)
        )

    def _words(self, data: bytes) -> array[int]:
        words = array("I", data)
        if self._swap:
            words.byteswap()
        return words


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
