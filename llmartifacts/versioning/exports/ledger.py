"""What an export holds, and what is to become of it: tables in a database that is gone with the process.

An export may hold a million versions in a hundred thousand collections, and its files are as many. Kept as objects they
would take gigabytes; here they take a few MiB of memory, and a temporary file without a name.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

from llmartifacts.errors import NotAllowed
from llmartifacts.metadata.failures import database_errors

PAGE = 1000
"""Rows that are held at once."""
_MEMORY = 16 * 1024
"""KiB of the tables that are kept in memory."""
_TABLES = """
create table project(key text primary key, name text not null) without rowid;
create table collection(
  id integer primary key, project text not null, name text not null, kind text not null,
  project_key text not null, name_key text not null, last integer not null default 0, latest integer,
  there integer not null default 0, count integer not null default 0, fresh integer not null default 0,
  newest integer not null default 0, again integer not null default 0, renumbered integer not null default 0,
  unique(project, name), unique(project_key, name_key));
create table version(
  seq integer primary key, collection integer not null, number integer not null, digest blob not null,
  sum blob not null, fresh integer not null default 1);
create table pointed(
  collection integer, name text, number integer not null, primary key(collection, name)) without rowid;
create table file(digest blob primary key, size integer not null, used integer not null default 0) without rowid;
create table late(seq integer, place integer, primary key(seq, place)) without rowid;
"""
_INDICES = (
    "create unique index version_digest on version(collection, digest)",
    "create unique index version_number on version(collection, number)",
)


@dataclass(frozen=True, slots=True)
class Listed:
    """A collection of an export.

    Attributes:
        id: Its number in these tables.
        project: Its project, in the file.
        name: Its name.
        kind: Its kind.
        there: Whether it is here already.
        count: How many versions the file has.
        fresh: How many of them are not here.
        renumbered: How many of the new ones got another number.
    """

    id: int
    project: str
    name: str
    kind: str
    there: bool
    count: int
    fresh: int
    renumbered: int


@dataclass(frozen=True, slots=True)
class Place:
    """A version of an export.

    Attributes:
        seq: Its place in the file, from 1.
        collection: The number of its collection in these tables.
        told: SHA-256 of its frame.
        fresh: Whether it is not here.
    """

    seq: int
    collection: int
    told: bytes
    fresh: bool


_ALIASES = (
    "select a.name, v.digest from pointed a join version v on v.collection = a.collection and v.number = a.number"
    " where a.collection = ? order by a.name"
)
_COLLECTIONS = (
    "select id, project, name, kind, there, count, fresh, renumbered from collection"
    " where id > :last order by id limit :n"
)
_VERSIONS = "select seq, collection, sum, fresh from version where seq > :last order by seq limit :n"
_AGAIN = (
    "select v.seq from version v join collection c on c.id = v.collection"
    " where v.seq > :last and c.again and v.number = c.newest order by v.seq limit :n"
)


class Twice(Exception):
    """Two rows say what only one may say. Never leaves this package."""


class Ledger:
    """The tables; see above. For one thread.

    Raises:
        NotAllowed: The temporary folder is full; so may every call.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[Any, ...]] = []
        self._count = 0
        self._db = apsw.Connection("")
        for pragma in ("journal_mode=off", "synchronous=off", "temp_store=file", f"cache_size=-{_MEMORY}"):
            self._run(f"pragma {pragma}")
        self._run("begin")
        for statement in _TABLES.split(";"):
            self._run(statement)

    def close(self) -> None:
        """Let go of it."""
        self._db.close()

    def _all(self, sql: str, given: Any = ()) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(sql, given).fetchall()
        except apsw.Error as error:
            raise self._typed(error) from error

    def _row(self, sql: str, given: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        found = self._all(sql, given)
        return found[0] if found else None

    def _run(self, sql: str, given: Sequence[Any] = ()) -> None:
        try:
            self._db.execute(sql, given)
        except apsw.Error as error:
            raise self._typed(error) from error

    def _run_many(self, sql: str, given: Iterable[Sequence[Any]]) -> None:
        try:
            self._db.executemany(sql, given)
        except apsw.Error as error:
            raise self._typed(error) from error

    def _typed(self, error: apsw.Error) -> Exception:
        """What is to be raised for what went wrong with the temporary file."""
        if isinstance(error, apsw.FullError):
            return NotAllowed(
                "the temporary folder is full, and what the export holds has to be listed there",
                field="TMPDIR",
                next_step="Free some space there, or name another folder: TMPDIR=…",
            )
        try:
            with database_errors(Path(tempfile.gettempdir())):
                raise error
        except Exception as typed:  # noqa: BLE001 - that is what it makes of it
            return typed

    def _pages(self, sql: str) -> Iterator[tuple[Any, ...]]:
        """Rows whose first column is a number that grows; `:last` and `:n` say from where on, and how many at once."""
        asked = {"last": 0, "n": PAGE}
        while True:
            found = self._all(sql, asked)
            yield from found
            if len(found) < PAGE:
                return
            asked["last"] = found[-1][0]

    # --- what the file holds

    def collection(self, project: str, name: str, kind: str) -> tuple[int, str, int]:
        """A collection, which is listed if it is not yet: number, kind, number of its last version.

        Raises:
            Twice: A name differs from another in case only.
        """
        row = self._row("select id, kind, last from collection where project = ? and name = ?", (project, name))
        if row is not None:
            return row[0], row[1], row[2]
        self._run("insert into project(key, name) values (?, ?) on conflict do nothing", (project.casefold(), project))
        if self._row("select 1 from project where key = ? and name = ?", (project.casefold(), project)) is None:
            raise Twice
        made = self._row(
            "insert into collection(project, name, kind, project_key, name_key) values (?, ?, ?, ?, ?)"
            " on conflict do nothing returning id",
            (project, name, kind, project.casefold(), name.casefold()),
        )
        if made is None:
            raise Twice
        return made[0], kind, 0

    def version(self, collection: int, number: int, digest: bytes, told: bytes) -> None:
        """List a version, the next one of the file. `told` is the SHA-256 of its frame."""
        self._count += 1
        self._waiting.append((self._count, collection, number, digest, told))
        self._run("update collection set last = ?, count = count + 1 where id = ?", (number, collection))
        if len(self._waiting) >= PAGE:
            self._flush()

    def _flush(self) -> None:
        some, self._waiting = self._waiting, []
        self._run_many("insert into version(seq, collection, number, digest, sum) values (?, ?, ?, ?, ?)", some)

    def latest(self, collection: int, number: int) -> None:
        """Note which version of a collection was logged last. Raises `Twice`."""
        told = "update collection set latest = ? where id = ? and latest is null returning 1"
        if self._row(told, (number, collection)) is None:
            raise Twice

    def alias(self, collection: int, name: str, number: int) -> None:
        """Note where an alias pointed. Raises `Twice`."""
        self._run("insert into pointed values (?, ?, ?) on conflict do nothing", (collection, name, number))
        found = self._row("select number from pointed where collection = ? and name = ?", (collection, name))
        if found != (number,):
            raise Twice

    def file(self, digest: bytes, size: int) -> None:
        """List a file. Raises `Twice`."""
        told = "insert into file(digest, size) values (?, ?) on conflict do nothing returning 1"
        if self._row(told, (digest, size)) is None:
            raise Twice

    def use(self, digest: bytes, size: int) -> bool:
        """Note that a version needs a file; whether it is listed, with that size."""
        told = "update file set used = 1 where digest = ? and size = ? returning 1"
        return self._row(told, (digest, size)) is not None

    def seal(self) -> None:
        """Call it when all is listed. Raises `Twice` where a collection has some content, or a number, twice."""
        self._flush()
        for statement in _INDICES:
            try:
                self._db.execute(statement)
            except apsw.ConstraintError:
                raise Twice from None
            except apsw.Error as error:
                raise self._typed(error) from error

    @property
    def versions(self) -> int:
        """How many versions there are."""
        return self._count

    def has_unused_file(self) -> bool:
        """Whether there is a file that no version needs."""
        return self._row("select 1 from file where used = 0 limit 1") is not None

    def projects(self) -> list[str]:
        """Names of the projects, sorted."""
        return [row[0] for row in self._all("select name from project order by name")]

    # --- what is to become of it

    def collections(self) -> Iterator[Listed]:
        """The collections in the order of the file, a page at a time."""
        for row in self._pages(_COLLECTIONS):
            yield Listed(row[0], row[1], row[2], row[3], bool(row[4]), row[5], row[6], row[7])

    def here(self, collection: int, digests: Iterable[bytes]) -> None:
        """Note that a collection is here, and the content that it has here."""
        self._run("update collection set there = 1 where id = ?", (collection,))
        self._run_many(
            "update version set fresh = 0 where collection = ? and digest = ?", ((collection, d) for d in digests)
        )

    def settle(self) -> None:
        """Call it when all that is here is noted: now it is known what is new, and what `latest` will mean."""
        self._run("create table top(collection integer primary key, n integer, least integer, most integer)")
        self._run(
            "insert into top select collection, sum(fresh), max(number), max(case when fresh then number end)"
            " from version group by collection"
        )
        self._run(  # `least` where nothing is new: the newest that the file has
            "update collection set fresh = t.n, newest = case"
            " when latest is null or (there and not exists (select 1 from version v where v.collection = collection.id"
            " and v.number = latest and v.fresh)) then coalesce(t.most, t.least) else latest end"
            " from top t where t.collection = collection.id"
        )
        self._run(
            "update collection set again = 1 from top t where t.collection = collection.id and not there"
            " and t.most <> newest"
        )

    @property
    def fresh(self) -> int:
        """How many versions are new."""
        row = self._row("select coalesce(sum(fresh), 0) from collection")
        return int(row[0]) if row else 0

    def brings(self, kind: str) -> bool:
        """Whether a version of some kind is new."""
        return self._row("select 1 from collection where kind = ? and fresh > 0 limit 1", (kind,)) is not None

    def aliases(self) -> Iterator[tuple[str, str, str, bytes]]:
        """The aliases, in the order of the file: project, collection, alias, digest."""
        for given in self.collections():
            for row in self._all(_ALIASES, (given.id,)):
                yield given.project, given.name, row[0], row[1]

    # --- while it is logged

    def each(self) -> Iterator[Place]:
        """Every version in order, a page at a time."""
        for row in self._pages(_VERSIONS):
            yield Place(row[0], row[1], row[2], bool(row[3]))

    def place(self, project: str, name: str, number: int, digest: bytes) -> int | None:
        """The place in the file of a version; None where it is not in it."""
        row = self._row(
            "select v.seq from version v join collection c on c.id = v.collection"
            " where c.project = ? and c.name = ? and v.digest = ? and v.number = ?",
            (project, name, digest, number),
        )
        return None if row is None else int(row[0])

    def only_needed(self) -> None:
        """Forget which files are needed: from now on `use` says so of those that new versions need."""
        self._run("update file set used = 0")

    def is_needed(self, digest: bytes) -> bool:
        """Whether a file is needed."""
        return self._row("select 1 from file where digest = ? and used = 1", (digest,)) is not None

    def later(self, seq: int, place: int) -> None:
        """Note that an edge of a version leads to one that comes later: the place of both."""
        self._run("insert into late values (?, ?) on conflict do nothing", (seq, place))
        told = "update collection set again = 1 where id = (select collection from version where seq = ?)"
        self._run(told, (seq,))

    def late(self) -> Iterator[int]:
        """Places of the versions with edges that were left for later, in order, a page at a time."""
        for row in self._pages("select distinct seq from late where seq > :last order by seq limit :n"):
            yield row[0]

    def late_of(self, seq: int) -> list[int]:
        """Places, among the edges of a version, of those that were left for later."""
        return [row[0] for row in self._all("select place from late where seq = ? order by place", (seq,))]

    def once_more(self) -> Iterator[int]:
        """Places of the versions that are logged again at the end, in order, a page at a time."""
        for row in self._pages(_AGAIN):
            yield row[0]

    def renumber(self, collections: Sequence[int]) -> None:
        """Note that versions got other numbers: the collection of each."""
        told = "update collection set renumbered = renumbered + 1 where id = ?"
        self._run_many(told, [(one,) for one in collections])
