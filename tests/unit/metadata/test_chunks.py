"""The tables of packs and chunks: short rows, found by their ids, and brought to registries that did not have them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.errors import Damaged, NotAllowed
from llmartifacts.metadata import chunks, schema, sqlite, sqlite_pages
from llmartifacts.metadata import store as store_module
from llmartifacts.metadata.chunks import PackRow
from llmartifacts.metadata.sqlite import SqliteDatabase
from llmartifacts.metadata.store import MetadataStore

ONE, TWO = "11" * 32, "22" * 32


def name(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "registry.db"


@pytest.fixture
def store(path: Path) -> Iterator[MetadataStore]:
    made = MetadataStore(SqliteDatabase(path, create=True), create=True)
    yield made
    made.close()


@pytest.fixture
def old(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registry's database as the release with schema 1 makes it."""
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "MIGRATIONS", schema.MIGRATIONS[:1])
        patch.setattr(store_module, "SCHEMA", 1)
        made = MetadataStore(SqliteDatabase(path, create=True), create=True)
        with made.writing() as s:
            s.run("insert into project(name, name_key, created_at) values ('acme', 'acme', 7)")
        made.close()
    return path


def test_a_registry_of_schema_1_gets_the_tables_and_keeps_what_it_has(old: Path) -> None:
    store = MetadataStore(SqliteDatabase(old))
    with store.writing() as s:
        assert s.row("select value from meta where name = 'schema'") == (schema.SCHEMA,)
        assert s.rows("select name, created_at from project") == [("acme", 7)]
        chunks.record(s, PackRow(ONE, 100, 5), [(name(1), (8, 10, 10, 0))])
        assert list(chunks.find(s, [name(1)])) == [(name(1), ONE, 8, 10, 10, 0)]
    assert store.database.check() == []
    store.close()


def test_a_registry_of_schema_1_that_may_not_be_written_says_so_and_stays(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_may_write", lambda path: False)
    database = SqliteDatabase(old)
    with pytest.raises(NotAllowed, match="cannot be written"):
        MetadataStore(database)
    with database.reading() as s:
        assert s.row("select value from meta where name = 'schema'") == (1,)
    database.close()


def test_a_chunk_takes_one_row_and_is_found_without_walking_the_table(store: MetadataStore) -> None:
    with store.reading() as s:
        made = s.row("select sql from sqlite_master where name = 'chunk'")
        assert made is not None
        assert made[0].lower().rstrip().endswith("without rowid")

        class Explaining:
            steps: list[str] = []  # noqa: RUF012

            def rows(self, sql: str, parameters: dict[str, object]) -> list[object]:
                self.steps += [row[3] for row in s.rows(f"explain query plan {sql}", parameters)]
                return []

        list(chunks.find(Explaining(), [name(1), name(2)]))  # type: ignore[arg-type]
    assert any(step.startswith("SEARCH k USING PRIMARY KEY (id=?)") for step in Explaining.steps)
    assert not any(step.startswith("SCAN k") for step in Explaining.steps)


@given(st.lists(st.integers(0, 60), max_size=40), st.lists(st.integers(0, 80), max_size=60))
def test_those_that_are_recorded_are_found_and_no_others(recorded: list[int], asked: list[int]) -> None:
    store = _shared()
    with pytest.raises(_Undone), store.writing() as s:
        rows = {name(n): (8 * n, n, n, 0) for n in recorded}
        chunks.record(s, PackRow(ONE, 10_000, 5), rows.items())
        found = {row[0]: row[1:] for row in chunks.find(s, [name(n) for n in asked])}
        assert found == {name(n): (ONE, *rows[name(n)]) for n in asked if n in recorded}
        raise _Undone


class _Undone(Exception):
    pass


_made: list[MetadataStore] = []


@pytest.fixture(autouse=True, scope="module")
def _one_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    place = tmp_path_factory.mktemp("shared") / "registry.db"
    _made.append(MetadataStore(SqliteDatabase(place, create=True), create=True))
    yield
    _made.pop().close()


def _shared() -> MetadataStore:
    return _made[0]


def test_more_ids_than_go_at_once_are_all_found(store: MetadataStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "_AT_ONCE", 7)
    with store.writing() as s:
        chunks.record(s, PackRow(ONE, 10_000, 5), [(name(n), (8, 1, 1, 0)) for n in range(50)])
        assert {row[0] for row in chunks.find(s, [name(n) for n in range(60)])} == {name(n) for n in range(50)}


def test_ids_that_begin_or_end_with_zeros_are_told_apart(store: MetadataStore) -> None:
    ids = [bytes(32), b"a" + bytes(31), bytes(31) + b"a", b"\xff" * 32]
    with store.writing() as s:
        chunks.record(s, PackRow(ONE, 10_000, 5), [(i, (8, n, n, 0)) for n, i in enumerate(ids)])
        found = {row[0]: row[3] for row in chunks.find(s, ids)}
    assert found == {i: n for n, i in enumerate(ids)}


def test_an_id_of_another_length_is_refused(store: MetadataStore) -> None:
    with pytest.raises(Damaged, match="32 bytes"), store.reading() as s:
        list(chunks.find(s, [b"short"]))


def test_a_chunk_is_found_in_the_pack_that_was_recorded_last(store: MetadataStore) -> None:
    with store.writing() as s:
        chunks.record(s, PackRow(ONE, 100, 5), [(name(1), (8, 10, 10, 0)), (name(2), (24, 10, 10, 0))])
        chunks.record(s, PackRow(TWO, 90, 6), [(name(1), (16, 4, 10, 1))])
        found = sorted(chunks.find(s, [name(1), name(2)]), key=lambda row: row[1])
        assert found == [(name(2), ONE, 24, 10, 10, 0), (name(1), TWO, 16, 4, 10, 1)]
        assert chunks.packs(s) == [PackRow(ONE, 100, 5), PackRow(TWO, 90, 6)]


def test_a_pack_that_is_recorded_again_is_the_same_pack(store: MetadataStore) -> None:
    with store.writing() as s:
        for _ in range(2):
            chunks.record(s, PackRow(ONE, 100, 5), [(name(1), (8, 10, 10, 0))])
        assert s.row("select count(*) from pack") == (1,)
        assert s.row("select count(*) from chunk") == (1,)


def test_a_pack_is_forgotten_with_its_chunks_and_no_others(store: MetadataStore) -> None:
    with store.writing() as s:
        chunks.record(s, PackRow(ONE, 100, 5), [(name(1), (8, 10, 10, 0))])
        chunks.record(s, PackRow(TWO, 100, 5), [(name(2), (8, 10, 10, 0))])
        chunks.forget(s, [ONE, "33" * 32])
        assert [row[0] for row in chunks.find(s, [name(1), name(2)])] == [name(2)]
        assert [pack.name for pack in chunks.packs(s)] == [TWO]
        chunks.clear(s)
        assert chunks.packs(s) == []


def test_sound_rows_have_no_problems(store: MetadataStore) -> None:
    with store.writing() as s:
        chunks.record(s, PackRow(ONE, 100, 5), [(name(1), (8, 10, 10, 0)), (name(2), (24, 4, 10, 1))])
        assert list(chunks.problems(s)) == []


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ("update chunk set place_offset = 91", "1 chunks are recorded outside of the pack 1111111111111111"),
        ("update chunk set place_offset = -1", "outside of the pack"),
        ("update chunk set length = 11", "a form that they cannot have"),
        ("update chunk set form = 2", "a form that they cannot have"),
        ("update chunk set id = x'00'", "no proper id"),
        ("update pack set name = x'00'", "no proper name or size"),
    ],
)
def test_rows_that_contradict_each_other_are_told(store: MetadataStore, broken: str, told: str) -> None:
    with store.writing() as s:
        chunks.record(s, PackRow(ONE, 100, 5), [(name(1), (8, 10, 10, 0))])
        s.run(broken)
        found = list(chunks.problems(s))
    assert len(found) == 1
    assert told in found[0]


def test_a_chunk_in_a_pack_that_is_not_recorded_is_told(path: Path, store: MetadataStore) -> None:
    with store.writing() as s:
        chunks.record(s, PackRow(ONE, 100, 5), [(name(1), (8, 10, 10, 0))])
    store.close()
    import apsw

    by_hand = apsw.Connection(str(path), vfs=sqlite_pages.vfs())
    by_hand.execute("delete from pack")
    by_hand.close()
    again = MetadataStore(SqliteDatabase(path))
    with again.reading() as s:
        assert list(chunks.problems(s)) == ["1 chunks are recorded in packs that are not"]
    with pytest.raises(Damaged, match="in no pack"), again.reading() as s:
        list(chunks.find(s, [name(1)]))
    again.close()


def test_a_chunk_in_a_form_that_there_is_not_is_refused(store: MetadataStore) -> None:
    with store.writing() as s:
        chunks.record(s, PackRow(ONE, 100, 5), [(name(1), (8, 10, 10, 0))])
        s.run("update chunk set form = 7")
    with pytest.raises(Damaged, match="cannot have"), store.reading() as s:
        list(chunks.find(s, [name(1)]))


@pytest.mark.parametrize("value", ["-1", "'a name'", "x'00ff'"])
def test_a_place_that_no_release_writes_is_refused_or_a_number(store: MetadataStore, value: str) -> None:
    with store.writing() as s:
        chunks.record(s, PackRow(ONE, 100, 5), [(name(1), (8, 10, 10, 0))])
        s.run(f"update chunk set place_offset = {value}")
    try:
        with store.reading() as s:
            found = list(chunks.find(s, [name(1)]))
    except Damaged:
        return
    assert all(type(number) is int and number >= 0 for number in found[0][2:])
