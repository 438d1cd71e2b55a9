"""`MetadataStore`: a database brought to this release's schema, with its two kinds of transaction.

The tables are worked on by `projects`, `versions`, `aliases`, `graph`, `runs` and `audit`, which hold all SQL.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from llmartifacts.errors import NewerFormat, NotFound
from llmartifacts.metadata.database import Database, Session
from llmartifacts.metadata.schema import MIGRATIONS, SCHEMA, statements


class MetadataStore:
    """A database with this release's schema.

    Args:
        database: The database; migrated on opening if it is older.
        create: Begin with an empty schema where there is none.

    Raises:
        NewerFormat: It was written by a newer release.
        NotAllowed: It is older and cannot be written.
        NotFound: There is no schema, and none is to be made.
    """

    def __init__(self, database: Database, *, create: bool = False) -> None:
        self.database = database
        try:
            with database.reading() as s:
                current = _schema(s) == SCHEMA
        except NotFound:
            if not create:
                raise
            current = False
            self._begin()
        if not current:
            self._migrate()

    def reading(self) -> AbstractContextManager[Session]:
        """A read transaction: everything in it is of one moment."""
        return self.database.reading()

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A write transaction, one at a time, in fair order.

        Raises:
            NewerFormat: A newer release has migrated the database since it was opened: this one would leave out what
                that one keeps.
        """
        with self.database.writing() as s:
            _schema(s)
            yield s

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    def _begin(self) -> None:
        # Only where it is not there: a server's user may have the right to use tables, and none to make them.
        text = self.database.types["text"]
        with self.database.writing() as s:
            s.run(f"create table if not exists meta(name {text} primary key, value bigint not null)")
            s.run("insert into meta(name, value) values ('schema', 0) on conflict do nothing")

    def _migrate(self) -> None:
        with self.database.writing() as s:
            at = _schema(s)  # again: another process may have been first
            for number, migration in enumerate(MIGRATIONS[at:], at + 1):
                for statement in statements(migration, self.database.types):
                    s.run(statement)
                s.run("update meta set value = :v where name = 'schema'", {"v": number})


def _schema(s: Session) -> int:
    row = s.row("select value from meta where name = 'schema'")
    number = int(row[0]) if row else 0
    if number > SCHEMA:
        raise NewerFormat(f"the registry has schema {number}, this release knows {SCHEMA}", field="schema")
    return number
