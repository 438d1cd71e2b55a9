"""The log beside a SQLite file: whether something that was committed to it is lost.

A log is read by SQLite up to the first record whose checksum is wrong, and what comes after it is dropped without a
word: right after a crash, when the rest was never acknowledged, and lost commits when a bit has rotted. So the log is
walked here too, over all that is in it.

Source: sqlite.org/fileformat2.html, "The Write-Ahead Log".
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal

import apsw

from llmartifacts.errors import Damaged
from llmartifacts.metadata.sqlite_sums import Sums, distance, pair

_HEADER, _FRAME = 32, 24
_LOG: dict[bytes, Literal["little", "big"]] = {b"\x37\x7f\x06\x82": "little", b"\x37\x7f\x06\x83": "big"}
_NEAR = 4
"""Bits by which the mark of a record may differ from the log's and still be taken for it; old ones differ by half."""

_WALKED: dict[str, bytes] = {}  # path of a log -> its header when it was found sound


def require_all_taken(connection: apsw.Connection, path: Path) -> None:
    """Refuse a database that SQLite has opened without something that was committed.

    Where the log goes on behind what SQLite took of it, one look at the next record tells; only then it is walked.

    Args:
        connection: Opened on the database.
        path: The database.

    Raises:
        Damaged: A record of the log rotted, and what was committed in it or after it is not there.
    """
    log = Path(f"{path}-wal")
    told = None
    # To close the connection would remove the log, which alone shows that something is lost.
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    for look in range(2):  # somebody who writes now can be met half-way, and rot stays
        told = log_damage(log) if _goes_on(connection, log) else None
        if told is None:
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
            return
        if not look:
            time.sleep(0.05)
    raise Damaged(
        f"the database {path} is damaged: {told}",
        file=str(log),
        next_step="Restore it from a backup; or go on without what is lost: llmartifacts repair --database.",
    )


@contextmanager
def _opened(log: Path, buffering: int) -> Iterator[tuple[BinaryIO | None, bytes]]:
    """A log behind its header, and the header; None where there is no log, or none was begun."""
    try:
        file = open(log, "rb", buffering=buffering)  # noqa: SIM115 - closed below
    except FileNotFoundError:
        yield None, b""
        return
    with file:
        head = file.read(_HEADER)
        begun = len(head) == _HEADER and any(head)
        yield (file, head) if begun else (None, b"")


def _goes_on(connection: apsw.Connection, log: Path) -> bool:
    """Whether the log has a record of its own behind those that SQLite has taken."""
    with _opened(log, 0) as (file, head):
        if file is None:
            return False
        if connection.readonly("main"):  # which SQLite does not tell how far it read
            return not _was_walked(log, head)
        taken, _ = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
        file.seek(_HEADER + max(taken, 0) * (_FRAME + int.from_bytes(head[8:12], "big")))
        record = file.read(_FRAME)
    return taken <= 0 or (len(record) == _FRAME and distance(record[8:16], head[16:24]) <= _NEAR)


def _was_walked(log: Path, head: bytes) -> bool:
    """Whether this round of a log is sound; once in a process, since a walk takes 0.1 s at the usual size."""
    if _WALKED.get(str(log)) != head:
        if log_damage(log) is not None:
            return False
        _WALKED[str(log)] = head
    return True


def log_damage(path: Path) -> str | None:
    """What is wrong with a write-ahead log, in one line; None where all of it can be read, or was never finished.

    A change that was being written when a process died, or the host lost power, is no damage, and nobody was told of
    it. It is the last one: behind a broken record of it no other change begins. One flipped bit changes the checksum
    in a way of its own, and is told wherever it is.
    """
    with _opened(path, 1 << 20) as (file, head):
        if file is None:
            return None
        order = _LOG.get(head[:4])
        size = int.from_bytes(head[8:12], "big")
        if order is None or not 512 <= size <= 65536 or size & (size - 1):
            return "the header of its log is damaged: what was committed last may be lost"
        sums = Sums(order, (8 + size) // 8)
        chain = Sums(order, 3).after((0, 0), head[:24])
        if chain != pair(head[24:32]):
            return "the header of its log is damaged: what was committed last may be lost"
        told = _walk(file, head[16:24], sums, chain, size)
        file.seek(0)
        return told if file.read(_HEADER) == head else None  # else it was begun anew meanwhile


def _walk(file: BinaryIO, mark: bytes, sums: Sums, chain: tuple[int, int], size: int) -> str | None:
    """As `log_damage`, over the records."""
    number = broken = ended = 0
    while len(record := file.read(_FRAME + size)) == _FRAME + size:
        number += 1
        head = record[:_FRAME]
        if broken:
            if head[8:16] != mark:
                continue
            if ended:  # a change ended behind the broken record, and another began: it was durable by then
                return (
                    f"record {broken} of its log is damaged, and {_more(number - broken)} after it:"
                    " what was committed there is lost"
                )
            ended = int.from_bytes(head[4:8], "big")
            continue
        made = sums.after(chain, record[:8] + record[_FRAME:])
        if head[8:16] == mark and made == pair(head[16:24]):
            chain = made
            continue
        broken = number
        apart = distance(head[8:16], mark)
        if 0 < apart <= _NEAR or (not apart and sums.one_bit(made, pair(head[16:24]))):
            return f"record {number} of its log is damaged: what was committed there is lost"
        ended = int.from_bytes(head[4:8], "big") if not apart else 0
    return None


def _more(count: int) -> str:
    return "there is one" if count == 1 else f"there are {count} and maybe more"
