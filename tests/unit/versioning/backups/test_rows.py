"""Rows go into pieces and come out of them as they were, on every schema and whatever they hold."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.errors import Damaged
from llmartifacts.metadata import dump
from llmartifacts.metadata.dump import Column, Table
from llmartifacts.metadata.schema import SCHEMA
from llmartifacts.records.backup import Piece
from llmartifacts.records.digest import digest_of
from llmartifacts.versioning.backups.rows import compress, cut, decompress, from_lines, to_lines

TABLE = Table(
    "things",
    (Column("id", "number", True), Column("name", "text", False), Column("body", "bytes", False)),
    ("id",),
    True,
)
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
ROWS = st.lists(
    st.tuples(st.integers(-(2**63), 2**63 - 1), TEXT | st.none(), st.binary() | st.none()), min_size=1, max_size=30
)


def pieces_of(rows: list[Any]) -> list[tuple[Piece, bytes]]:
    made = []
    for data, count in cut(to_lines(TABLE, rows)):
        stored = compress(data)
        made.append((Piece(digest_of(stored), len(stored), len(data), count), stored))
    return made


@given(ROWS)
def test_rows_come_out_as_they_went_in(rows: list[Any]) -> None:
    out = [
        row for piece, stored in pieces_of(rows) for row in from_lines(TABLE, piece, decompress(piece, stored, ""), "")
    ]
    assert out == rows


@given(ROWS, st.data())
def test_what_is_no_row_is_refused_in_a_typed_way(rows: list[Any], data: st.DataObject) -> None:
    """Whatever the lines of a piece hold: rows of the table, or `Damaged`, and never anything else."""
    (piece, stored), *_ = pieces_of(rows)
    lines = bytearray(decompress(piece, stored, ""))
    for _ in range(data.draw(st.integers(1, 4))):
        lines[data.draw(st.integers(0, len(lines) - 1))] = data.draw(st.integers(0, 255))
    try:
        for row in from_lines(TABLE, piece, bytes(lines), ""):
            assert TABLE.check(row) == ""
    except Damaged:
        pass


@given(ROWS, st.integers(0, 2000))
def test_a_piece_that_is_cut_short_or_says_another_length_is_refused(rows: list[Any], at: int) -> None:
    (piece, stored), *_ = pieces_of(rows)
    with pytest.raises(Damaged):
        decompress(piece, stored[: at % len(stored)], "")
    for length in (piece.length - 1, piece.length + 1):
        with pytest.raises(Damaged):
            decompress(Piece(piece.digest, piece.stored, length, piece.rows), stored, "")


def test_pieces_have_a_size_that_is_worth_sending_and_the_same_cuts_after_a_change() -> None:
    rows = [(i, f"name {i * 7919 % 100_003}", bytes([i % 251]) * (i % 400)) for i in range(20_000)]
    before, after = pieces_of(rows), pieces_of([*rows[:9000], (-1, "put in", b""), *rows[9000:]])
    assert all(piece.length <= 1_100_000 for piece, _ in before)
    assert all(piece.length >= 64 * 1024 for piece, _ in before[:-1])
    assert len(before) > 12
    assert len({p.digest for p, _ in before} - {p.digest for p, _ in after}) <= 2


@pytest.mark.parametrize("schema", range(1, SCHEMA + 1))
def test_every_table_of_every_schema_has_an_order_and_comes_after_those_that_it_refers_to(schema: int) -> None:
    import apsw

    found = dump.tables(schema)
    assert {"project", "version", "audit"} <= {table.name for table in found}
    place = {table.name: i for i, table in enumerate(found)}
    with apsw.Connection(":memory:") as connection:
        for migration in dump.MIGRATIONS[:schema]:
            for statement in dump.statements(migration, dump._WORDS):
                connection.execute(statement)
        for table in found:
            assert table.key
            columns = [row[1] for row in connection.execute(f"pragma table_info({table.name})")]
            assert [column.name for column in table.columns] == columns
            for row in connection.execute(f"pragma foreign_key_list({table.name})"):
                assert place[row[2]] <= place[table.name]


def test_nothing_is_left_out_of_a_backup_but_what_is_named() -> None:
    """A table that is added later is in backups, or has to be named here with a reason."""
    left = {table.name for table in dump.tables()} - {table.name for table in dump.kept()}
    assert left == {"pack", "chunk", "upload", "upload_blob", "idempotency", "condemned"}
