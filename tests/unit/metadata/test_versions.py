"""Looking up a version costs the same however many there are: SQLite finds it through an index, by every column."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmartifacts.metadata import projects, versions
from llmartifacts.metadata.sqlite import SqliteDatabase
from llmartifacts.metadata.store import MetadataStore
from llmartifacts.records.digest import digest_of
from llmartifacts.records.reference import Reference


class Explaining:
    """A session that asks how each statement would be done, and finds nothing."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.steps: list[str] = []

    def rows(self, sql: str, parameters: Any) -> list[Any]:
        self.steps += [row[3] for row in self._session.rows(f"explain query plan {sql}", parameters)]
        return []

    def row(self, sql: str, parameters: Any) -> Any:
        self.rows(sql, parameters)
        return None


@pytest.fixture
def explaining(tmp_path: Path) -> Iterator[Explaining]:
    database = SqliteDatabase(tmp_path / "registry.db", create=True)
    store = MetadataStore(database, create=True)
    with store.reading() as session:
        yield Explaining(session)
    store.close()


@pytest.mark.parametrize("selector", [":prod", ":v7", f"@{digest_of(b'x')}"])
def test_a_reference_is_found_without_walking_the_names_of_the_project(explaining: Explaining, selector: str) -> None:
    with pytest.raises(AttributeError, match="explained"):
        versions.find(_Stopping(explaining), 1, "default", Reference.parse(f"support-agent{selector}"))
    assert not [step for step in explaining.steps if step.startswith("SCAN")]
    assert any("project_id=? AND name_key=?" in step for step in explaining.steps)


def test_a_tagged_page_walks_the_tags_in_the_order_of_the_page(explaining: Explaining) -> None:
    collection = projects.CollectionRow(1, 1, "support-agent", "prompt", 9, 9, 9)
    versions.page(explaining, "default", collection, {"team": "x", "even": "yes"}, 50, 7)
    assert any("tag_name (name=? AND value=? AND version_id<?)" in step for step in explaining.steps)
    assert not [step for step in explaining.steps if step.startswith("SCAN") or "TEMP B-TREE" in step]


class _Stopping:
    """Explains one statement; what `find` would ask after finding nothing does not matter here."""

    def __init__(self, explaining: Explaining) -> None:
        self._explaining = explaining

    def row(self, sql: str, parameters: Any) -> Any:
        self._explaining.rows(sql, parameters)
        raise AttributeError("explained")
