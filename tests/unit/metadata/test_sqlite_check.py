"""What SQLite's own check does not look at: the header, and the definitions of tables."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from llmartifacts.errors import Damaged
from llmartifacts.metadata import sqlite_pages
from llmartifacts.metadata.sqlite import SqliteDatabase
from llmartifacts.metadata.store import MetadataStore


@pytest.fixture
def store(tmp_path: Path) -> MetadataStore:
    return MetadataStore(SqliteDatabase(tmp_path / "registry.db", create=True), create=True)


def flipped(data: bytes, bit: int) -> bytes:
    made = bytearray(data)
    made[bit // 8] ^= 1 << bit % 8
    return bytes(made)


def test_a_sound_database_is_sound(store: MetadataStore) -> None:
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
