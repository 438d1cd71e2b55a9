"""The socket for databases: what `MetadataStore` needs of one. `sqlite.py` is the embedded one.

The SQL is written once. A database translates three things: `:name` parameters, `{lock}` after a SELECT that is
followed by an UPDATE of the same row, and the column types of `schema.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Protocol

Row = tuple[Any, ...]
Parameters = Mapping[str, Any]


class Session(Protocol):
    """An open transaction."""

    def rows(self, sql: str, parameters: Parameters = {}) -> list[Row]:
        """Run one statement and return every row."""

    def row(self, sql: str, parameters: Parameters = {}) -> Row | None:
        """Run one statement and return its first row, or None."""

    def run(self, sql: str, parameters: Parameters = {}) -> None:
        """Run one statement that returns nothing."""

    def run_many(self, sql: str, parameters: Sequence[Parameters]) -> None:
        """Run one statement for each set of parameters."""

    def now(self) -> int:
        """Microseconds since 1970, UTC, by the database's clock."""


class Database(Protocol):
    """One database. Safe to use from several threads and after a fork."""

    types: ClassVar[Mapping[str, str]]
    """Names of column types in `schema.py`, and `keyed` -> this database's words; those for `keyed` may be none."""

    def reading(self) -> AbstractContextManager[Session]:
        """A read transaction: everything in it is of one moment. In a transaction of this thread, that one again."""

    def writing(self) -> AbstractContextManager[Session]:
        """A write transaction, one at a time, in fair order.

        In a write transaction of this thread, a part of that one: it is committed with it, and an error that leaves
        the part undoes the part alone and goes on up. Whoever catches an error of a statement and goes on must do so
        outside of a part, since a database may refuse whatever follows a failed statement. In a read transaction of
        this thread it cannot be had.

        Raises:
            Busy: Another writer held on for longer than was waited.
            NotAllowed: It cannot be written.
            RuntimeError: A read transaction is open in this thread.
        """

    def size(self) -> int:
        """Bytes it takes."""

    def scrub(self) -> None:
        """Leave nothing in the files of what was deleted, as far as the database can.

        Raises:
            Busy: Somebody reads what was; what was deleted is gone for everybody else, and may be called again.
        """

    def check(self) -> list[str]:
        """The database's own problems, one readable line each; empty if it is sound."""

    def close(self) -> None:
        """Close every connection."""
