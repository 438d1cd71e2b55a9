"""The floor of everything that is kept in the database: the same number of rows through SQLite alone.

The same library, journal and durability as the registry's (apsw, WAL, `synchronous=FULL`), and none of its indexes,
checks or hashes.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import apsw

ROWS_OF_A_LOG = (600, 120, 80, 450, 60)
"""Bytes of the rows that logging one prompt writes: manifest, version, move of `latest`, audit entry, collection."""

ROWS_OF_A_MOVE = (40, 120, *(60, 90) * 3, 600)
"""Bytes of the rows that moving three aliases writes: project, promotion, alias and move of each, audit entry."""


class PlainTable:
    """One table with a number and some bytes.

    Args:
        path: The database; made if it is not there.
        wait: Seconds that SQLite itself waits for other writers.
    """

    def __init__(self, path: Path, *, wait: float = 60.0) -> None:
        self._connection = apsw.Connection(str(path))
        self._connection.set_busy_timeout(int(wait * 1000))
        self._connection.execute("pragma journal_mode=wal")
        self._connection.execute("pragma synchronous=full")
        self._connection.execute("create table if not exists thing(id integer primary key, body blob not null)")

    def commit(self, rows: Iterable[int]) -> None:
        """One durable transaction.

        Args:
            rows: Bytes of each row.
        """
        self._connection.execute("begin immediate")
        self._connection.executemany("insert into thing(body) values (?)", [(bytes(size),) for size in rows])
        self._connection.execute("commit")

    def read(self, number: int = 1) -> bytes:
        """One row by its number."""
        found: Any = self._connection.execute("select body from thing where id = ?", (number,)).fetchall()
        body: bytes = found[0][0]
        return body

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
