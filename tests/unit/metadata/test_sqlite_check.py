"""What SQLite's own check does not look at: the header, the definitions of tables, and a log that ends too early."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import apsw
import pytest

from llmartifacts.errors import Damaged
from llmartifacts.metadata import sqlite_pages
from llmartifacts.metadata.sqlite import SqliteDatabase
from llmartifacts.metadata.sqlite_check import log_damage
from llmartifacts.metadata.store import MetadataStore


@pytest.fixture
def store(tmp_path: Path) -> MetadataStore:
    return MetadataStore(SqliteDatabase(tmp_path / "registry.db", create=True), create=True)


@pytest.fixture
def log(store: MetadataStore, tmp_path: Path) -> Path:
    """A log of some commits, as a killed process leaves it."""
    for number in range(20):
        with store.writing() as s:
            s.run("insert into condemned(key, at, size) values (:k, 0, 0)", {"k": f"key {number} " * 40})
    return Path(shutil.copy(tmp_path / "registry.db-wal", tmp_path / "log"))


def flipped(data: bytes, bit: int) -> bytes:
    made = bytearray(data)
    made[bit // 8] ^= 1 << bit % 8
    return bytes(made)


def test_a_sound_database_and_its_log_are_sound(store: MetadataStore, log: Path) -> None:
    assert store.database.check() == []
    assert log_damage(log) is None


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


def test_an_altered_definition_shows(store: MetadataStore, tmp_path: Path) -> None:
    store.close()
    outside = apsw.Connection(str(tmp_path / "registry.db"), vfs=sqlite_pages.vfs())
    outside.execute("create table stranger(x)")
    outside.execute("drop index lease_until")
    outside.close()
    told = SqliteDatabase(tmp_path / "registry.db").check()
    assert any("'stranger'" in line for line in told)
    assert any("'lease_until'" in line for line in told)


def test_an_altered_header_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a file of the first releases, whose pages have no checksums."""
    monkeypatch.setattr(sqlite_pages, "reserve", lambda connection: None)
    file = tmp_path / "registry.db"
    MetadataStore(SqliteDatabase(file, create=True), create=True).close()
    assert SqliteDatabase(file).check() == []
    good = file.read_bytes()
    for at in (20, 60, 68, 75):
        file.write_bytes(flipped(good, 8 * at))
        assert any("header" in line for line in _told_of(file))


def _told_of(file: Path) -> list[str]:
    try:
        return SqliteDatabase(file).check()
    except Damaged as error:
        return [error.message]
