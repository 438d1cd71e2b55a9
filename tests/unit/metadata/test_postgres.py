"""PostgreSQL: what goes wrong with it is told in words, no password among them, and leaves nothing half-done."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from llmartifacts.errors import (
    Busy,
    Damaged,
    DeadlineExceeded,
    InvalidInput,
    LlmartifactsError,
    NotAllowed,
    NotFound,
    Unreachable,
)
from llmartifacts.metadata.database import Session
from llmartifacts.metadata.postgres import PostgresDatabase, _translated
from llmartifacts.metadata.postgres_failures import is_lost, typed
from llmartifacts.metadata.store import MetadataStore

make_certificate: Any = sys.modules["servers"].make_certificate
SECRET = "pa:ss/word@1"
QUOTED = "pa%3Ass%2Fword%401"


@pytest.fixture
def store(postgres_url: str) -> Iterator[MetadataStore]:
    made = MetadataStore(PostgresDatabase(postgres_url, wait=10), create=True)
    yield made
    made.close()


def note(s: Session, number: int) -> None:
    name = number.to_bytes(32, "big")
    s.run("insert into pack(id, name, size, created_at) values (:n, :name, 0, 0)", {"n": number, "name": name})


def noted(store: MetadataStore) -> list[int]:
    with store.reading() as s:
        return [r[0] for r in s.rows("select id from pack order by id")]


def cut(server: Any, url: str) -> int:
    """Cut every connection to a database, as an administrator or a failing network does."""
    name = url.rpartition("/")[2]
    rows = server.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", name)
    return len(rows)


# --- addresses


@pytest.mark.parametrize(
    "url",
    [
        "",
        "registry.db",
        "mysql://host/db",
        "postgresql:/host",
        "host=localhost dbname=x",
        f"postgresql://me:{SECRET}@host/db",  # not quoted: a part of it would be taken for the host or the port
        "postgresql://me:word@1@host/db",
        "postgresql://me:12#/word@host/db",
        "postgresql://host:port/db",
        "postgresql://host/db?sslmod=require",
        f"postgresql://me:{QUOTED}@host/db?%zz=1",
        "postgresql://host/db?pooler=session",
    ],
)
def test_what_is_no_address_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        PostgresDatabase(url)
    assert caught.value.field == "database"
    assert "word" not in told(caught.value).replace("user:password@", "").replace("in a password", "")


def test_a_wrong_password_is_not_allowed_and_not_told(postgres_url: str) -> None:
    with pytest.raises(NotAllowed, match="authentication failed") as caught:
        PostgresDatabase(postgres_url.replace(QUOTED, "se-cret%201"))
    assert "se-cret" not in told(caught.value)


def test_a_user_without_a_password_is_not_allowed(postgres_url: str) -> None:
    with pytest.raises(NotAllowed, match="password"):
        PostgresDatabase(postgres_url.replace(f":{QUOTED}", ""))


def test_a_database_that_is_not_there_is_named(postgres_server: Any) -> None:
    with pytest.raises(NotFound, match="nosuch") as caught:
        PostgresDatabase(postgres_server.url_of("nosuch"))
    assert "createdb" in caught.value.hint()
    assert SECRET not in told(caught.value)


def test_a_server_that_is_not_there_is_unreachable() -> None:
    with pytest.raises(Unreachable, match="cannot be had") as caught:
        PostgresDatabase(f"postgresql://me:{QUOTED}@127.0.0.1:1/db")
    assert SECRET not in told(caught.value)
    assert QUOTED not in told(caught.value)


def test_tls_is_demanded_when_the_address_says_so(postgres_url: str) -> None:
    with pytest.raises(Unreachable, match="SSL"):
        PostgresDatabase(f"{postgres_url}?sslmode=require")


def test_a_server_that_proves_who_it_is_is_used_and_another_is_not(own_postgres: Any, tmp_path: Path) -> None:
    own_postgres.use_tls(tmp_path / "good.crt")
    make_certificate(tmp_path / "other.crt", tmp_path / "other.key")
    url = f"{own_postgres.url}?sslmode=verify-full&sslrootcert={tmp_path}"
    database = PostgresDatabase(f"{url}/good.crt")
    with database.reading() as s:
        assert s.row("select ssl from pg_stat_ssl where pid = pg_backend_pid()") == (True,)
    database.close()
    with pytest.raises(Unreachable, match="certificate verify failed"):
        PostgresDatabase(f"{url}/other.crt")


def test_settings_of_the_address_come_before_our_own(postgres_url: str) -> None:
    database = PostgresDatabase(f"{postgres_url}?application_name=mine&options=-c%20statement_timeout%3D1234")
    with database.reading() as s:
        assert s.row("select current_setting('application_name')") == ("mine",)
        assert s.row("select current_setting('lock_timeout')") == ("1min",)
        assert s.row("select current_setting('statement_timeout')") == ("1234ms",)
    database.close()


def test_a_socket_in_a_folder_is_an_address_too(postgres_server: Any, postgres_url: str) -> None:
    name = postgres_url.rpartition("/")[2]
    at = f"host={postgres_server.folder}&port={postgres_server.port}"
    database = PostgresDatabase(f"postgresql://tester:{QUOTED}@/{name}?{at}")
    with database.reading() as s:
        assert s.row("select inet_client_addr() is null, current_database()") == (True, name)
    assert SECRET not in database.place
    database.close()


def test_a_database_that_cannot_hold_every_text_is_refused(postgres_server: Any) -> None:
    postgres_server.execute("create database latin encoding 'LATIN1' template template0 locale 'C'")
    try:
        with pytest.raises(NotAllowed, match="LATIN1"):
            PostgresDatabase(postgres_server.url_of("latin"))
    finally:
        postgres_server.drop(postgres_server.url_of("latin"))


def test_a_user_who_may_not_make_tables_is_told_what_to_grant(postgres_server: Any, postgres_url: str) -> None:
    postgres_server.execute("create role reader login password 'reader'")
    mine = postgres_url.replace(f"tester:{QUOTED}", "reader:reader")
    try:
        postgres_server.execute("revoke create on schema public from public", url=postgres_url)
        with pytest.raises(NotAllowed, match="permission denied") as caught:
            MetadataStore(PostgresDatabase(mine), create=True)
        assert "GRANT" in caught.value.hint()
        MetadataStore(PostgresDatabase(postgres_url), create=True).close()
        postgres_server.execute("grant select on all tables in schema public to reader", url=postgres_url)
        store = MetadataStore(PostgresDatabase(mine), create=True)  # the tables are there: nothing has to be made
        assert noted(store) == []
        with pytest.raises(NotAllowed), store.writing() as s:
            note(s, 1)
        store.close()
    finally:
        postgres_server.execute("revoke all on all tables in schema public from reader", url=postgres_url)
        postgres_server.execute("drop role reader")


def test_a_replica_is_read_and_not_written(own_postgres: Any) -> None:
    url = own_postgres.new_database()
    MetadataStore(PostgresDatabase(url), create=True).close()
    own_postgres.stop()
    (own_postgres.data / "standby.signal").touch()
    own_postgres.start()
    store = MetadataStore(PostgresDatabase(url))
    assert noted(store) == []
    with pytest.raises(NotAllowed) as caught, store.writing() as s:
        note(s, 1)
    assert "primary" in caught.value.hint()
    store.close()


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (psycopg.errors.DiskFull, NotAllowed),
        (psycopg.errors.OutOfMemory, Unreachable),
        (psycopg.errors.TooManyConnections, Busy),
        (psycopg.errors.SerializationFailure, Busy),
        (psycopg.errors.DeadlockDetected, Busy),
        (psycopg.errors.AdminShutdown, Unreachable),
        (psycopg.errors.CannotConnectNow, Unreachable),
        (psycopg.errors.ConnectionFailure, Unreachable),
        (psycopg.errors.InvalidPassword, NotAllowed),
        (psycopg.errors.DataCorrupted, Damaged),
        (psycopg.errors.IndexCorrupted, Damaged),
        (psycopg.errors.UndefinedFile, Damaged),
        (psycopg.errors.UndefinedColumn, Damaged),
        (psycopg.errors.NumericValueOutOfRange, Damaged),
        (psycopg.errors.ForeignKeyViolation, Damaged),
        (psycopg.InternalError, Unreachable),
    ],
)
def test_whatever_the_server_says_has_a_type_and_a_next_step(
    raised: type[psycopg.Error], expected: type[LlmartifactsError]
) -> None:
    error = typed("postgresql://host/db", raised("it\nsaid so"))
    assert type(error) is expected
    assert "it said so" in error.message
    assert error.hint()


# --- statements


def test_names_of_parameters_become_numbers_and_texts_stay() -> None:
    assert _translated("select :a, ':b', 'it''s :c', cast(:d as bigint), x::text, :a {lock}") == (
        "select $1, ':b', 'it''s :c', cast($2 as bigint), x::text, $1 for no key update",
        ("a", "d"),
    )


def test_a_text_that_cannot_be_stored_is_refused_as_such(store: MetadataStore) -> None:
    with pytest.raises(InvalidInput, match="NUL"), store.writing() as s:
        s.run("insert into meta(name, value) values (:n, 1)", {"n": "a\0b"})


def test_stored_values_do_not_appear_in_errors(store: MetadataStore) -> None:
    with pytest.raises(Damaged) as caught, store.writing() as s:
        for _ in range(2):
            s.run("insert into meta(name, value) values (:n, 1)", {"n": "a-token"})
    assert "a-token" not in told(caught.value)


def test_whoever_goes_on_after_a_failed_statement_is_told_that_nothing_was_kept(store: MetadataStore) -> None:
    with pytest.raises(RuntimeError, match="went on"), store.writing() as s:
        note(s, 1)
        with pytest.raises(psycopg.Error):
            note(s, 1)
    assert noted(store) == []


def test_a_statement_that_takes_too_long_is_stopped(postgres_url: str) -> None:
    store = MetadataStore(PostgresDatabase(f"{postgres_url}?options=-c%20statement_timeout%3D200"), create=True)
    with pytest.raises(DeadlineExceeded), store.writing() as s:
        s.rows("select pg_sleep(10)")
    store.close()


def test_what_an_administrator_broke_is_found(postgres_server: Any, postgres_url: str, store: MetadataStore) -> None:
    assert store.database.check() == []
    postgres_server.execute("alter table policy disable trigger all", url=postgres_url)
    postgres_server.execute("insert into policy values (77, 1, '', '', 0, '', '')", url=postgres_url)
    found = store.database.check()
    assert any("policy are switched off" in line for line in found)
    assert any("1 rows of policy refer to none of project" in line for line in found)


def test_an_index_out_of_order_is_found_where_the_extension_can_tell(own_postgres: Any) -> None:
    url = own_postgres.new_database()
    try:
        own_postgres.execute("create extension amcheck", url=url)
    except psycopg.Error:
        pytest.skip("AMCHECK MISSING: it comes with PostgreSQL's contrib package")
    store = MetadataStore(PostgresDatabase(url), create=True)
    with store.writing() as s:
        for number in range(2000):
            note(s, number)
    assert store.database.check() == []
    file = own_postgres.data / own_postgres.execute("select pg_relation_filepath('pack_pkey')", url=url)[0][0]
    own_postgres.stop()
    data = bytearray(file.read_bytes())
    third = 8192 + 24 + 2 * 4  # the third entry of the first leaf: behind the page's header, 4 bytes each
    data[third : third + 8] = data[third + 4 : third + 8] + data[third : third + 4]
    with file.open("r+b") as damaged:
        damaged.write(data)
    own_postgres.start()
    assert "pack_pkey" in "".join(store.database.check())
    store.close()


# --- writers


def test_a_writer_who_waits_too_long_is_told_busy(postgres_url: str, store: MetadataStore) -> None:
    other = PostgresDatabase(postgres_url, wait=0.2)
    with store.writing() as s:
        note(s, 1)
        with pytest.raises(Busy, match="locked"), other.writing():
            pass
    with other.writing() as s:
        note(s, 2)
    other.close()
    assert noted(store) == [1, 2]


def test_a_writer_of_this_process_who_waits_too_long_is_told_busy(postgres_url: str) -> None:
    store = MetadataStore(PostgresDatabase(postgres_url, wait=0.3), create=True)
    told_busy = []

    def write(_: int) -> None:
        try:
            with store.writing():
                pass
        except Busy as error:
            told_busy.append(error)

    with store.writing(), ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(6)))
    assert len(told_busy) == 6
    with store.writing() as s:  # and nobody's place in the line is lost
        note(s, 1)
    store.close()


def test_writers_that_wait_leave_connections_to_readers(postgres_url: str) -> None:
    store = MetadataStore(PostgresDatabase(postgres_url, connections=4, wait=30), create=True)
    with ThreadPoolExecutor(12) as pool:
        with store.writing() as s:
            note(s, 100)
            waiting = [pool.submit(write_one, store, number) for number in range(10)]
            time.sleep(0.2)
            with ThreadPoolExecutor(1) as reader:
                assert reader.submit(noted, store).result(timeout=10) == []
        for each in waiting:
            each.result()
    assert noted(store) == [*range(10), 100]
    store.close()


def write_one(store: MetadataStore, number: int) -> None:
    with store.writing() as s:
        note(s, number)


def test_all_connections_in_use_is_busy(postgres_url: str) -> None:
    store = MetadataStore(PostgresDatabase(postgres_url, connections=2, wait=0.3), create=True)
    go_on = threading.Event()

    def read() -> None:
        with store.reading() as s:
            s.rows("select 1")
            go_on.wait(30)

    with ThreadPoolExecutor(2) as pool:
        reading = [pool.submit(read) for _ in range(2)]
        time.sleep(0.2)
        with pytest.raises(Busy, match="all 2 connections"), store.reading():
            pass
        go_on.set()
        for each in reading:
            each.result()
    assert noted(store) == []
    store.close()


def test_a_writer_that_hangs_does_not_hold_up_the_others_for_ever(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmartifacts.metadata.postgres.IDLE_SECONDS", {"write": 1, "read": 1})
    store = MetadataStore(PostgresDatabase(postgres_url), create=True)
    other = PostgresDatabase(postgres_url)
    with pytest.raises(Unreachable), store.writing() as s:
        note(s, 1)
        with other.writing() as o:  # its turn comes when the first is ended
            note(o, 2)
        note(s, 3)
    assert noted(store) == [2]
    store.close()
    other.close()


# --- connections that end


def test_idle_connections_that_were_cut_are_replaced(
    postgres_server: Any, postgres_url: str, store: MetadataStore
) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: noted(store), range(40)))
        for round_ in range(5):
            assert cut(postgres_server, postgres_url)
            write_one(store, round_)
            assert all(len(found) == round_ + 1 for found in pool.map(lambda _: noted(store), range(8)))


def test_a_transaction_whose_connection_is_cut_is_undone(
    postgres_server: Any, postgres_url: str, store: MetadataStore
) -> None:
    with pytest.raises(Unreachable) as caught, store.writing() as s:
        note(s, 1)
        cut(postgres_server, postgres_url)
        note(s, 2)
    assert "try again" in caught.value.hint()
    assert noted(store) == []


def test_a_part_whose_connection_is_cut_is_undone_with_the_whole(
    postgres_server: Any, postgres_url: str, store: MetadataStore
) -> None:
    with pytest.raises(Unreachable), store.writing(), store.writing() as s:
        note(s, 1)
        cut(postgres_server, postgres_url)
    assert noted(store) == []


def test_a_connection_cut_at_the_commit_leaves_the_outcome_open(
    postgres_server: Any, postgres_url: str, store: MetadataStore
) -> None:
    with pytest.raises(Unreachable, match="not known") as caught, store.writing() as s:
        note(s, 1)
        cut(postgres_server, postgres_url)
    assert "idempotency key" in caught.value.hint()
    assert noted(store) == []


def test_a_reader_cut_at_its_end_has_read_what_it_read(
    postgres_server: Any, postgres_url: str, store: MetadataStore
) -> None:
    with store.reading() as s:
        assert s.rows("select id from pack") == []
        cut(postgres_server, postgres_url)
    assert noted(store) == []


def test_a_reader_whose_socket_hangs_up_has_read_what_it_read(store: MetadataStore) -> None:
    """psycopg tells of that before it takes the connection for closed."""
    with store.reading() as s:
        assert s.rows("select id from pack") == []
        with socket.socket(fileno=os.dup(s._connection.fileno())) as its:  # type: ignore[attr-defined]
            its.shutdown(socket.SHUT_RDWR)
    assert noted(store) == []


def test_an_error_of_the_connection_itself_is_told_from_one_of_the_server(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        assert is_lost(connection, psycopg.OperationalError("connection socket closed"))  # not marked as closed yet
        with pytest.raises(psycopg.OperationalError) as caught:
            connection.execute("set statement_timeout = 1; select pg_sleep(1)")
        assert not is_lost(connection, caught.value)


def test_a_server_that_stops_is_told_at_once_and_found_again(own_postgres: Any) -> None:
    url = own_postgres.new_database()
    store = MetadataStore(PostgresDatabase(url), create=True)
    write_one(store, 1)
    own_postgres.stop("immediate")
    for _ in range(3):
        begun = time.monotonic()
        with pytest.raises(Unreachable) as caught:
            noted(store)
        assert time.monotonic() - begun < 20  # not after the minute for which a writer would wait
        assert SECRET not in told(caught.value)
    own_postgres.start()
    assert noted(store) == [1]
    write_one(store, 2)
    own_postgres.restart()
    assert noted(store) == [1, 2]
    store.close()


# --- forks and ends


def test_parent_and_child_both_go_on_after_a_fork(postgres_url: str, store: MetadataStore) -> None:
    write_one(store, 1)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: noted(store), range(8)))
    child = os.fork()
    if not child:
        try:
            assert noted(store) == [1]
            write_one(store, 2)
            store.close()
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert noted(store) == [1, 2]
    write_one(store, 3)
    assert noted(store) == [1, 2, 3]


def test_a_child_cannot_go_on_with_its_parents_transaction(store: MetadataStore) -> None:
    with store.writing() as s:
        note(s, 1)
        child = os.fork()
        if not child:
            try:
                note(s, 2)
            except NotAllowed:
                os._exit(7)
            except BaseException:
                os._exit(1)
            os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        note(s, 3)
    assert noted(store) == [1, 3]


def test_a_child_that_lives_on_keeps_no_lock_of_a_dead_parent(postgres_url: str, store: MetadataStore) -> None:
    script = (
        "import os, sys, time\n"
        "from llmartifacts.metadata.postgres import PostgresDatabase\n"
        "with PostgresDatabase(sys.argv[1]).writing() as s:\n"
        "    s.run(\"insert into meta(name, value) values ('lost', 1)\")\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        time.sleep(60)\n"
        "        os._exit(0)\n"
        "    print(child, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, postgres_url], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.wait()
    parent.stdout.close()
    try:
        write_one(store, 1)  # `wait` is 10 s: the child would hold the lock for 60
    finally:
        os.kill(child, 9)
    with store.reading() as s:
        assert s.row("select 1 from meta where name = 'lost'") is None


def test_a_program_that_does_not_close_it_ends_at_once_and_quietly(postgres_url: str) -> None:
    script = (
        "import sys\n"
        "from llmartifacts.metadata.postgres import PostgresDatabase\n"
        "database = PostgresDatabase(sys.argv[1])\n"
        "with database.reading() as s:\n"
        "    print(s.row('select 1'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, postgres_url], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "(1,)\n", "")


def test_it_is_not_imported_for_an_embedded_registry() -> None:
    script = "import sys, llmartifacts, llmartifacts.metadata.sqlite\nprint('psycopg' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def told(error: LlmartifactsError) -> str:
    """All that a user or a log can come to see of an error, and of what caused it."""
    parts = [repr(error.details()), error.hint()]
    seen: BaseException | None = error
    while seen is not None:
        parts.append(f"{seen} {seen!r}")
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return "\n".join(parts)
