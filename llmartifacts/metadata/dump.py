"""Tables as rows, out of any database and into any other: what backups are made of.

Which tables there are, and what is in them, is read from the migrations themselves: they are run in a small database in
memory, which is then asked. So a table or a column that a later release adds is in its backups without a word here.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from llmartifacts.errors import Conflict, Damaged, NotFound
from llmartifacts.metadata.database import Database, Row, Session
from llmartifacts.metadata.needed import blobs_after
from llmartifacts.metadata.schema import MIGRATIONS, SCHEMA, statements
from llmartifacts.records.digest import Blob, digest_from_bytes

DERIVED = frozenset({"pack", "chunk"})
"""Tables that are made anew from the packs."""
PASSING = frozenset({"condemned", "idempotency", "upload", "upload_blob"})
"""Tables of what is under way, and over when a registry comes back: uploads, repeated requests, cleaning up."""
_ARRIVES = {"manifest": "digest", "content": "manifest"}
"""Tables that are keyed by the digests of versions, and the column of it."""
PAGE = 1000
_OWN = frozenset({"schema", "place"})
"""What `meta` says of one database and of one place of bytes, and never of another."""
_IDENTITY = "as identity"
_WORDS = {"id": "integer primary key", "text": "text", "bytes": "blob", "keyed": "without rowid"}
_TYPES = {"integer": "number", "bigint": "number", "text": "text", "blob": "bytes"}
_KINDS: Mapping[str, type] = {"number": int, "text": str, "bytes": bytes}
_MOST = 1 << 63


@dataclass(frozen=True, slots=True)
class Column:
    """A column.

    Attributes:
        name: Its name.
        type: `number`, `text` or `bytes`.
        required: Whether it is never null.
    """

    name: str
    type: str
    required: bool

    def fits(self, value: object) -> bool:
        """Whether a value is one that it may hold."""
        if value is None:
            return not self.required
        kind = _KINDS[self.type]
        return type(value) is kind and (not isinstance(value, int) or -_MOST <= value < _MOST)


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes:
        name: Its name.
        columns: Its columns, in their order.
        key: Names of the columns of its primary key, in the key's order.
        numbered: Whether the database itself numbers its rows.
    """

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    numbered: bool

    def check(self, row: Sequence[Any]) -> str:
        """What is wrong with a row; empty if it fits."""
        if len(row) != len(self.columns):
            return f"a row of {self.name} has {len(row)} values, and the table {len(self.columns)} columns"
        for column, value in zip(self.columns, row, strict=True):
            if not column.fits(value):
                return f"{self.name}.{column.name} holds a value that is no {column.type}"
        return ""


@functools.cache
def tables(schema: int = SCHEMA) -> tuple[Table, ...]:
    """The tables of a schema that this release knows, each after those that it refers to."""
    import apsw

    found: list[Table] = []
    refers: dict[str, set[str]] = {}
    with apsw.Connection(":memory:") as connection:
        for migration in MIGRATIONS[:schema]:
            for statement in statements(migration, _WORDS):
                connection.execute(statement)
        every = "select name, sql from sqlite_master where type = 'table' order by rowid"
        made: list[tuple[str, str]] = [(str(name), str(sql)) for name, sql in connection.execute(every)]
        for name, sql in made:
            columns, key = [], {}
            for _, column, kind, required, _, place in connection.execute(f"pragma table_info({name})"):
                columns.append(Column(column, _TYPES[kind.lower()], bool(required or place)))
                if place:
                    key[place] = column
            if not key:
                raise RuntimeError(f"the table {name} has no primary key, so its rows have no order")
            numbered = f"{columns[0].name} {_WORDS['id']}" in sql
            found.append(Table(name, tuple(columns), tuple(key[place] for place in sorted(key)), numbered))
            parents = connection.execute(f"pragma foreign_key_list({name})")
            refers[name] = {row[2] for row in parents} - {name}
    return tuple(_ordered(found, refers))


def kept(schema: int = SCHEMA) -> tuple[Table, ...]:
    """The tables that a backup holds."""
    return tuple(table for table in tables(schema) if table.name not in DERIVED | PASSING)


def rows(s: Session, table: Table, page: int = PAGE) -> Iterator[Row]:
    """Every row of a table, a page at a time; in the order of its primary key, or in that in which versions came.

    Of the tables that grow with versions, all but two have keys that grow. What is keyed by a digest would be strewn
    over all of its table, and a few new versions would change most of it.

    Raises:
        Damaged: It holds a value that no release writes.
    """
    digest = _ARRIVES.get(table.name)
    for row in _by_key(s, table, page) if digest is None else _by_arrival(s, table, digest, page):
        wrong = table.check(row)
        if wrong:
            raise Damaged(f"database: {wrong}", next_step="See what else is wrong: llmartifacts verify.")
        yield row


def _by_key(s: Session, table: Table, page: int, only: str = "true") -> Iterator[Row]:
    names = ", ".join(f't."{column.name}"' for column in table.columns)
    key = ", ".join(f't."{name}"' for name in table.key)
    last = ", ".join(f":k{i}" for i in range(len(table.key)))
    at = [next(i for i, column in enumerate(table.columns) if column.name == name) for name in table.key]
    after, asked = "true", dict[str, Any](n=page)
    while True:
        found = s.rows(f'select {names} from "{table.name}" t where {after} and {only} order by {key} limit :n', asked)
        yield from found
        if len(found) < page:
            return
        after = f"({key}) > ({last})"
        asked |= {f"k{i}": found[-1][place] for i, place in enumerate(at)}


def _by_arrival(s: Session, table: Table, digest: str, page: int) -> Iterator[Row]:
    """Rows by the first version of their digest, then those of no version."""
    names = ", ".join(f't."{column.name}"' for column in table.columns)
    key = ", ".join(f't."{name}"' for name in table.key)
    last = ", ".join(f":k{i}" for i in range(len(table.key)))
    at = [next(i for i, column in enumerate(table.columns) if column.name == name) for name in table.key]
    after, asked = "true", dict[str, Any](n=page, v=0)
    while True:
        found = s.rows(  # `cross join`, so that versions lead, by their ids, and never the table
            f'select {names}, v.id from version v cross join "{table.name}" t where t."{digest}" = v.digest'
            f" and v.id >= :v and {after}"
            " and not exists (select 1 from version e where e.digest = v.digest and e.id < v.id)"
            f" order by v.id, {key} limit :n",
            asked,
        )
        for row in found:
            yield row[:-1]
        if len(found) < page:
            break
        after = f"(v.id > :v or ({key}) > ({last}))"
        asked |= {"v": found[-1][-1], **{f"k{i}": found[-1][place] for i, place in enumerate(at)}}
    yield from _by_key(s, table, page, f'not exists (select 1 from version v where v.digest = t."{digest}")')


def needed(s: Session) -> Iterator[Blob]:
    """Every blob that some version needs, by digest, a page at a time.

    Raises:
        Damaged: One is listed with a size that is none, or with two.
    """
    last = b""
    while found := blobs_after(s, last):
        for blob, size, other in found:
            last = bytes(blob)
            if len(last) != 32 or type(size) is not int or size < 0 or size != other:
                raise Damaged("database: a file is listed with a size that is none, or with two")
            yield Blob(digest_from_bytes(last), size)


def settings(s: Session) -> dict[str, int]:
    """What `meta` says that another database may take over."""
    return {str(name): int(value) for name, value in s.rows("select name, value from meta") if name not in _OWN}


def create(s: Session, types: Mapping[str, str], schema: int, meta: Mapping[str, int]) -> None:
    """Make the empty tables of a schema.

    Args:
        s: A write transaction of a database that has none.
        types: The database's words for types of columns.
        schema: Number of the schema, one that this release knows.
        meta: What `meta` said in the other database.

    Raises:
        Conflict: There are tables already.
    """
    s.run(f"create table if not exists meta(name {types['text']} primary key, value bigint not null)")
    s.run("insert into meta(name, value) values ('schema', 0) on conflict do nothing")
    row = s.row("select value from meta where name = 'schema'")
    if row is None or row[0] != 0:
        raise Conflict("the database holds a registry already", field="database", next_step="Name one that is empty.")
    for migration in MIGRATIONS[:schema]:
        for statement in statements(migration, types):
            s.run(statement)
    for table in reversed(tables(schema)):  # a migration may have put something in
        s.run(f'delete from "{table.name}"')
    s.run("update meta set value = :v where name = 'schema'", {"v": schema})
    for name, value in meta.items():
        if name not in _OWN:
            s.run("insert into meta(name, value) values (:n, :v)", {"n": name, "v": value})


def insert(s: Session, table: Table, found: Iterable[Row]) -> int:
    """Put rows into an empty table; returns how many. They must fit it: see `Table.check`."""
    names = [column.name for column in table.columns]
    listed = ", ".join(f'"{name}"' for name in names)
    values = ", ".join(f":{name}" for name in names)
    count = 0
    left = iter(found)
    while some := list(islice(left, PAGE)):
        s.run_many(
            f'insert into "{table.name}"({listed}) values ({values})',
            [dict(zip(names, row, strict=True)) for row in some],
        )
        count += len(some)
    return count


def go_on_numbering(s: Session, database: Database, schema: int) -> None:
    """Have the database number new rows after those that came with their numbers."""
    if _IDENTITY not in database.types["id"]:
        return  # SQLite takes the highest number there is, and one more
    for table in tables(schema):
        if table.numbered:
            name = table.key[0]
            row = s.row(f'select coalesce(max("{name}"), 0) + 1 from "{table.name}"')
            s.run(f'alter table "{table.name}" alter column "{name}" restart with {int(row[0]) if row else 1}')


def is_empty(database: Database) -> bool:
    """Whether a database has no tables of a registry yet."""
    try:
        with database.reading() as s:
            row = s.row("select value from meta where name = 'schema'")
    except NotFound:
        return True
    return row is None or row[0] == 0


def _ordered(found: Sequence[Table], refers: Mapping[str, set[str]]) -> Iterator[Table]:
    """The tables, each after those that it refers to; else in the order in which migrations make them."""
    left = list(found)
    done: set[str] = set()
    while left:
        table = next((table for table in left if refers[table.name] <= done), None)
        if table is None:
            raise RuntimeError("tables refer to one another in a circle")
        left.remove(table)
        done.add(table.name)
        yield table
