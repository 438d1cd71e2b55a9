"""While many rows are written, a database of this process keeps more pages; before and after it does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from llmartifacts.metadata.bulk import MEMORY, many_rows
from llmartifacts.metadata.sqlite import SqliteDatabase


@pytest.fixture
def database(tmp_path: Path) -> Iterator[SqliteDatabase]:
    made = SqliteDatabase(tmp_path / "registry.db", create=True)
    yield made
    made.close()


def memory(database: SqliteDatabase) -> int:
    with database.reading() as s:
        row = s.row("pragma cache_size")
    assert row is not None
    return int(row[0])


def test_it_is_as_before_afterwards_also_where_it_failed(database: SqliteDatabase) -> None:
    before = memory(database)
    with many_rows(database):
        assert memory(database) == -MEMORY
        with many_rows(database):
            assert memory(database) == -MEMORY
        assert memory(database) == -MEMORY
    assert memory(database) == before
    with pytest.raises(KeyboardInterrupt), many_rows(database), database.writing() as s:
        s.run("create table t(x)")
        raise KeyboardInterrupt
    assert memory(database) == before
    with database.reading() as s:
        assert s.row("select count(*) from sqlite_master where name = 't'") == (0,)


def test_a_database_on_a_server_is_left_alone(database: SqliteDatabase) -> None:
    class Elsewhere:
        types: ClassVar[dict[str, str]] = {**SqliteDatabase.types, "keyed": ""}

        def reading(self) -> Any:
            raise AssertionError("it was asked something")

    elsewhere: Any = Elsewhere()
    with many_rows(elsewhere):
        pass
