"""A log that ends too early because a bit of it rotted: found by verify, and refused at the door."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import apsw
import pytest

from llmartifacts.errors import Damaged
from llmartifacts.metadata import sqlite, sqlite_log, sqlite_pages
from llmartifacts.metadata.sqlite import SqliteDatabase
from llmartifacts.metadata.sqlite_log import log_damage
from llmartifacts.metadata.store import MetadataStore

RECORD = 24 + 4096
COMMITS = 20


@pytest.fixture
def store(tmp_path: Path) -> MetadataStore:
    return MetadataStore(SqliteDatabase(tmp_path / "registry.db", create=True), create=True)


@pytest.fixture
def killed(store: MetadataStore, tmp_path: Path) -> Path:
    """A database with a log of some commits, as a killed process leaves it."""
    for number in range(COMMITS):
        _write(store, number)
    made = tmp_path / "killed"
    made.mkdir()
    for beside in ("", "-wal"):
        shutil.copy(tmp_path / f"registry.db{beside}", made / f"registry.db{beside}")
    return made / "registry.db"


@pytest.fixture
def log(killed: Path) -> Path:
    """A log of some commits, as a killed process leaves it."""
    return Path(f"{killed}-wal")


def _write(store: MetadataStore, number: int, size: int = 40) -> None:
    with store.writing() as s:
        s.run("insert into condemned(key, at, size) values (:k, :n, 0)", {"k": f"key {number} " * size, "n": number})


def _written(path: Path) -> list[int]:
    database = SqliteDatabase(path)
    try:
        with database.reading() as s:
            return [row[0] for row in s.rows("select at from condemned order by at")]
    finally:
        database.close()


def flipped(data: bytes, bit: int) -> bytes:
    made = bytearray(data)
    made[bit // 8] ^= 1 << bit % 8
    return bytes(made)


def test_a_log_that_was_left_is_sound_and_all_of_it_is_there(killed: Path, log: Path) -> None:
    assert log_damage(log) is None
    assert _written(killed) == list(range(COMMITS))


def test_any_flipped_bit_of_a_log_shows(log: Path) -> None:
    good = log.read_bytes()
    chance = random.Random(1)
    record = 24 + 4096
    bits = [chance.randrange(8 * len(good)) for _ in range(40)]
    bits += [8 * (len(good) - record) + chance.randrange(8 * record) for _ in range(40)]  # nothing follows these
    bits += list(range(0, 8 * 32, 3))
    for bit in bits:
        log.write_bytes(flipped(good, bit))
        assert log_damage(log), bit


def test_a_record_that_was_never_finished_is_no_damage(log: Path) -> None:
    good = log.read_bytes()
    for cut in (1, 100, 4096, 4097, 4119):
        log.write_bytes(good[:-cut])
        assert log_damage(log) is None
    log.write_bytes(good[:-4096] + bytes(4096))
    assert log_damage(log) is None
    log.write_bytes(b"")
    assert log_damage(log) is None
    log.write_bytes(bytes(40))
    assert log_damage(log) is None
    log.unlink()
    assert log_damage(log) is None


def test_records_of_an_earlier_round_are_no_damage(store: MetadataStore, tmp_path: Path) -> None:
    """A log that was copied into the database is written from its beginning again, over what is there."""
    for number in range(20):
        with store.writing() as s:
            s.run("insert into condemned(key, at, size) values (:k, 0, 0)", {"k": f"key {number} " * 40})
    outside = apsw.Connection(str(tmp_path / "registry.db"), vfs=sqlite_pages.vfs())
    outside.execute("pragma wal_checkpoint(restart)").fetchall()
    outside.close()
    with store.writing() as s:
        s.run("delete from condemned where key like 'key 1 %'")
    wal = tmp_path / "registry.db-wal"
    assert wal.stat().st_size > 100_000
    assert log_damage(wal) is None
    assert store.database.check() == []


def test_a_database_is_refused_that_would_open_without_what_was_committed(
    killed: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_log.time, "sleep", lambda seconds: None)
    good, database = log.read_bytes(), killed.read_bytes()
    chance = random.Random(2)
    last = 8 * (len(good) - RECORD)
    bits = [chance.randrange(8 * len(good)) for _ in range(20)] + [
        last + chance.randrange(8 * RECORD) for _ in range(5)
    ]
    refused = 0
    for bit in [*bits, 3, 8 * 17 + 1]:
        killed.write_bytes(database)
        log.write_bytes(flipped(good, bit))
        Path(f"{killed}-shm").unlink(missing_ok=True)
        for _ in range(2):  # to be refused mends nothing
            with pytest.raises(Damaged, match="of its log is damaged") as told:
                _written(killed)
        assert told.value.file == str(log)
        assert "repair --database" in told.value.next_step
        refused += 1
    assert refused == len(bits) + 2


@pytest.mark.parametrize("missing", range(1, 7))
def test_a_change_that_power_was_lost_in_the_midst_of_is_no_damage_ever_after(
    store: MetadataStore, tmp_path: Path, missing: int
) -> None:
    """Of the last change's records some reached the disk and others not; what came later was written over a part."""
    wal = tmp_path / "registry.db-wal"
    _write(store, 1)
    before = wal.stat().st_size
    _write(store, 2, 4000)  # of several records
    torn = wal.read_bytes()
    records = (len(torn) - before) // RECORD
    assert records >= 7
    at = before + (missing - 1) * RECORD
    for name, data in (
        ("zeros", torn[:at] + bytes(RECORD) + torn[at + RECORD :]),
        ("half", torn[: at + 2000] + bytes(RECORD - 2000) + torn[at + RECORD :]),
    ):
        place = tmp_path / name
        place.mkdir()
        shutil.copy(tmp_path / "registry.db", place / "registry.db")
        (place / "registry.db-wal").write_bytes(data)
        assert _written_beside(place, 3) == [1, 3]
        (place / "registry.db-shm").unlink(missing_ok=True)  # killed again
        assert log_damage(place / "registry.db-wal") is None
        assert _written_beside(place, 4) == [1, 3, 4]


def _written_beside(place: Path, number: int) -> list[int]:
    """What is there after one more; the log is left as it is."""
    kept = place / "kept"
    kept.mkdir(exist_ok=True)
    store = MetadataStore(SqliteDatabase(place / "registry.db"))
    _write(store, number)
    for beside in ("", "-wal"):
        shutil.copy(place / f"registry.db{beside}", kept / f"registry.db{beside}")
    store.close()
    for beside in ("", "-wal"):
        shutil.copy(kept / f"registry.db{beside}", place / f"registry.db{beside}")
    return _written(kept / "registry.db")


def test_a_reader_who_may_not_write_is_refused_as_well(
    killed: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_may_write", lambda path: False)
    good = log.read_bytes()
    log.write_bytes(flipped(good, 8 * (len(good) - RECORD) + 999))
    for _ in range(2):
        with pytest.raises(Damaged, match="of its log is damaged"):
            _written(killed)
    log.write_bytes(good)
    for _ in range(2):
        assert _written(killed) == list(range(COMMITS))
