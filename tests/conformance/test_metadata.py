"""Every built-in metadata database keeps the contract."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from llmartifacts.metadata.postgres import PostgresDatabase
from llmartifacts.metadata.sqlite import SqliteDatabase
from llmartifacts.testing.metadata import check_database


def test_sqlite_keeps_the_contract(tmp_path: Path) -> None:
    places = itertools.count()
    check_database(lambda: SqliteDatabase(tmp_path / str(next(places)), create=True))


def test_postgresql_keeps_the_contract(postgres_server: Any) -> None:
    check_database(lambda: PostgresDatabase(postgres_server.new_database(), connections=4))


def test_postgresql_behind_a_pooler_of_transactions_keeps_the_contract(postgres_server: Any) -> None:
    check_database(lambda: PostgresDatabase(f"{postgres_server.new_database()}?pooler=transaction", connections=4))
