"""Conformance suite for metadata databases: what the verbs rely on, of any `Database`.

A database's whole test:

    def test_my_database_keeps_the_contract(tmp_path: Path) -> None:
        places = itertools.count()
        check_database(lambda: MyDatabase(tmp_path / str(next(places))))
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from llmartifacts.errors import Conflict, Damaged, LlmartifactsError, NewerFormat, NotAllowed, NotFound
from llmartifacts.metadata import audit, chunks, projects
from llmartifacts.metadata.database import Database, Session
from llmartifacts.metadata.schema import SCHEMA
from llmartifacts.metadata.store import MetadataStore

_E = TypeVar("_E", bound=BaseException)
WRITERS = 8
MANY = 5_000
"""Rows that are written at once."""


def check_database(make: Callable[[], Database]) -> None:
    """Check that a database keeps the contract of `Database`.

    Args:
        make: Gives a new, empty database, each time another.

    Raises:
        AssertionError: It does not; the message says what.
    """
    with _opened(make()) as database:
        _an_empty_one_is_no_registry(database)
    for check in (
        _the_schema_is_the_newest,
        _a_newer_schema_is_refused,
        _values_come_out_as_they_went_in,
        _what_is_written_together_is_kept_together,
        _a_part_is_undone_alone,
        _a_part_goes_with_the_whole,
        _a_failed_statement_spoils_its_part_only,
        _reading_inside_a_transaction_is_of_its_moment,
        _nothing_is_written_while_reading,
        _a_reader_sees_one_moment,
        _writers_come_one_at_a_time,
        _the_audit_has_no_gaps,
        _rows_that_contradict_are_refused,
        _many_rows_at_once,
        _time_goes_on,
        _it_knows_its_size_and_is_sound,
        _a_closed_one_says_so,
    ):
        with _opened(make()) as database:
            check(MetadataStore(database, create=True))


# --- the schema


def _an_empty_one_is_no_registry(database: Database) -> None:
    _raises(NotFound, lambda: MetadataStore(database), "an empty database is opened as a registry")
    MetadataStore(database, create=True)
    MetadataStore(database)  # and now there is one


def _the_schema_is_the_newest(store: MetadataStore) -> None:
    with store.reading() as s:
        _that(s.row("select value from meta where name = 'schema'") == (SCHEMA,), "the schema is not the newest")
        for table in ("project", "collection", "version", "alias", "move", "audit", "chunk", "account", "upload"):
            _that(not s.rows(f"select * from {table}"), f"a new database has rows in {table}")  # noqa: S608


def _a_newer_schema_is_refused(store: MetadataStore) -> None:
    with store.writing() as s:
        s.run("update meta set value = :v where name = 'schema'", {"v": SCHEMA + 1})
    _raises(NewerFormat, lambda: MetadataStore(store.database), "a newer schema is used")
    with store.reading() as s:
        _that(s.row("select value from meta") == (SCHEMA + 1,), "a newer schema was altered")


# --- values


def _values_come_out_as_they_went_in(store: MetadataStore) -> None:
    texts = ["", "prod", "Ünïcödé ☃ 🚀", "a'b\"c", "100%s :name $1 ?", "\\x41", "x" * 100_000, "line\nline"]
    for number, text in enumerate(texts):
        data = bytes(range(256)) * number
        with store.writing() as s:
            s.run("insert into manifest(digest, body, size) values (:d, :b, :n)", {"d": data, "b": None, "n": 1 << 53})
            s.run("insert into meta(name, value) values (:t, :v)", {"t": f"t{text}", "v": -number})
        with store.reading() as s:
            row = s.row("select digest, body, size from manifest where digest = :d", {"d": data})
            _that(row == (data, None, 1 << 53), f"bytes, nothing, or a large number came out as {row!r:.100}")
            row = s.row("select name, value from meta where name = :t", {"t": f"t{text}"})
            _that(row == (f"t{text}", -number), f"{text!r:.40} came out as {row!r:.100}")
    with store.reading() as s:
        _that(s.row("select 1 from meta where name = :t", {"t": "none"}) is None, "a row that is not there is not None")
        row = s.row("select sum(size), count(*), max(size) from manifest")
        _that(row == (len(texts) << 53, len(texts), 1 << 53), f"sums come out as {row}")
        _that(all(type(v) is int for v in row or ()), "sums of whole numbers are no whole numbers")
        row = s.row("select coalesce(cast(:a as bigint), 7), ':a', 'it''s :a'", {"a": None})
        _that(row == (7, ":a", "it's :a"), f"a parameter that is None, or its name in a text, gives {row}")
        names = [r[0] for r in s.rows("select name from meta where name like 't%' order by name")]
        _that(names == sorted(names, key=lambda n: n.encode()), "text is not ordered by its code points")


def _rows_that_contradict_are_refused(store: MetadataStore) -> None:
    def twice() -> None:
        with store.writing() as s:
            _note(s, 1)
            _note(s, 1)

    def alone() -> None:
        with store.writing() as s:
            s.run("insert into policy values (99, 1, :d, '', 0, '', '')", {"d": b"1"})

    _raises(Damaged, twice, "two rows of one key are kept")
    _raises(Damaged, alone, "a row that refers to none is kept")
    _that(_noted(store) == [], "something is left of what was refused")


def _many_rows_at_once(store: MetadataStore) -> None:
    ids = [number.to_bytes(32, "big") for number in range(MANY)]
    rows = [(name, (number, 1, 1, 0)) for number, name in enumerate(ids)]
    with store.writing() as s:
        chunks.record(s, chunks.PackRow("ab" * 32, MANY, 1), rows)
        s.run_many("delete from chunk where id = :id", [])
        _that(s.row("select count(*) from chunk") == (MANY,), "not every row was written")
    with store.reading() as s:
        found = {name: offset for name, _, offset, *_ in chunks.find(s, [*ids, b"\xff" * 32])}
    _that(found == {name: number for number, name in enumerate(ids)}, "many rows are not found again")


# --- transactions


def _what_is_written_together_is_kept_together(store: MetadataStore) -> None:
    def fail() -> None:
        with store.writing() as s:
            _note(s, 1)
            _note(s, 2)
            raise ZeroDivisionError

    _raises(ZeroDivisionError, fail, "an error does not leave the transaction")
    _that(_noted(store) == [], "something is left of a transaction that failed")
    with store.writing() as s:
        _note(s, 1)
        _note(s, 2)
    _that(_noted(store) == [1, 2], "what was committed is not there")


def _a_part_is_undone_alone(store: MetadataStore) -> None:
    def fail() -> None:
        with store.writing() as part:
            _note(part, 3)
            with store.writing() as inner:
                _note(inner, 4)
            raise ZeroDivisionError

    with store.writing() as s:
        _note(s, 1)
        with store.writing() as part:
            _that(_numbers(part) == [1], "a part does not see what the whole wrote")
            _note(part, 2)
        _raises(ZeroDivisionError, fail, "an error does not leave the part")
        _that(_numbers(s) == [1, 2], "something is left of a part that failed")
        _note(s, 5)
    _that(_noted(store) == [1, 2, 5], f"of a whole and its parts, {_noted(store)} was kept")


def _a_part_goes_with_the_whole(store: MetadataStore) -> None:
    def fail() -> None:
        with store.writing():
            with store.writing() as part:
                _note(part, 1)
            raise ZeroDivisionError

    _raises(ZeroDivisionError, fail, "an error does not leave the transaction")
    _that(_noted(store) == [], "a part was kept, though the whole was not")


def _a_failed_statement_spoils_its_part_only(store: MetadataStore) -> None:
    def twice() -> None:
        with store.writing() as part:
            _note(part, 2)
            _note(part, 2)

    with store.writing() as s:
        _note(s, 1)
        _raises(Damaged, twice, "two rows of one key are kept")
        _note(s, 3)
    _that(_noted(store) == [1, 3], "a statement that failed in a part spoiled the whole")


def _reading_inside_a_transaction_is_of_its_moment(store: MetadataStore) -> None:
    with store.writing() as s:
        _note(s, 1)
        with store.reading() as inner:
            _that(_numbers(inner) == [1], "reading inside a write transaction does not see what it wrote")
        _note(s, 2)
    with store.reading() as s, store.reading() as inner:
        _that(_numbers(s) == _numbers(inner) == [1, 2], "reading inside a read transaction sees something else")


def _nothing_is_written_while_reading(store: MetadataStore) -> None:
    def write() -> None:
        with store.reading(), store.writing() as s:
            _note(s, 1)

    _raises(RuntimeError, write, "a write transaction begins inside a read transaction")
    _that(_noted(store) == [], "something was written in a read transaction")


def _a_reader_sees_one_moment(store: MetadataStore) -> None:
    with store.writing() as s:
        _note(s, 1)
    with ThreadPoolExecutor(1) as other:
        with store.reading() as s:
            before = _numbers(s)

            def write() -> None:
                with store.writing() as w:
                    _note(w, 2)

            other.submit(write).result(timeout=60)  # and it does not wait for the reader
            _that(_numbers(s) == before == [1], "a reader sees what was committed after it began")
        _that(_noted(store) == [1, 2], "a new reader does not see what was committed")


def _writers_come_one_at_a_time(store: MetadataStore) -> None:
    inside = threading.Semaphore(1)
    with store.writing() as s:
        s.run("insert into meta(name, value) values ('count', 0)")

    def count(_: int) -> None:
        for _ in range(10):
            with store.writing() as s:
                _that(inside.acquire(blocking=False), "two writers are in a transaction at once")
                row = s.row("select value from meta where name = 'count'")
                s.run("update meta set value = :v where name = 'count'", {"v": (row or (0,))[0] + 1})
                inside.release()

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(count, range(WRITERS)))
    with store.reading() as s:
        row = s.row("select value from meta where name = 'count'")
    _that(row == (10 * WRITERS,), f"of {10 * WRITERS} changes, {row} were kept")


def _the_audit_has_no_gaps(store: MetadataStore) -> None:
    def change(number: int) -> None:
        for step in range(5):
            try:
                with store.writing() as s:
                    audit.record(s, None, "", actor="ann", verb="test", subject=f"{number}.{step}")
                    projects.insert_project(s, f"p{number}")  # there already, but for the first
            except Conflict:
                pass

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(change, range(WRITERS)))
    with store.reading() as s:
        numbers = [number for number, *_ in audit.entries(s)]
        _that(numbers == list(range(1, WRITERS + 1)), f"the audit has the numbers {numbers}")
        _that(list(audit.damaged(s)) == [], "the audit is not what was recorded")
        times = [e.at for e in audit.stored(s)]
        _that(times == sorted(times), "times go back in the order of the commits")


# --- the rest


def _time_goes_on(store: MetadataStore) -> None:
    with store.writing() as s:
        first = s.now()
        _that(isinstance(first, int), "the time is no whole number")
        _that(abs(first - time.time_ns() // 1000) < 86_400_000_000, "the time is not in microseconds since 1970")
    time.sleep(0.001)
    with store.reading() as s:
        _that(s.now() > first, "time does not go on")


def _it_knows_its_size_and_is_sound(store: MetadataStore) -> None:
    before = store.database.size()
    _that(before > 0, "it takes no room")
    with store.writing() as s:
        for number in range(20):
            s.run(
                "insert into manifest(digest, body, size) values (:d, :b, 1)",
                {"d": bytes([number]), "b": threading.current_thread().name.encode() * 100_000},
            )
    _that(store.database.size() > before, "it takes no more room for more")
    _that(store.database.check() == [], f"a sound one finds fault with itself: {store.database.check()}")


def _a_closed_one_says_so(store: MetadataStore) -> None:
    store.close()
    store.close()

    def use() -> None:
        with store.reading() as s:
            s.rows("select 1")

    _raises(NotAllowed, use, "a closed database is used")


# --- support


def _note(s: Session, number: int) -> None:
    name = number.to_bytes(32, "big")
    s.run("insert into pack(id, name, size, created_at) values (:i, :n, 0, 0)", {"i": number, "n": name})


def _numbers(s: Session) -> list[int]:
    return [row[0] for row in s.rows("select id from pack order by id")]


def _noted(store: MetadataStore) -> list[int]:
    with store.reading() as s:
        return _numbers(s)


@contextmanager
def _opened(database: Database) -> Iterator[Database]:
    try:
        yield database
    finally:
        database.close()


def _that(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)


def _raises(kind: type[_E], call: Callable[[], object], otherwise: str) -> _E:
    try:
        call()
    except kind as error:
        return error
    except (LlmartifactsError, RuntimeError) as error:
        raise AssertionError(f"{otherwise}: {error!r}") from error
    raise AssertionError(otherwise)
