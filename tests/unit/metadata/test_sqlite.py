"""The embedded database: durable, queued, and honest about what it cannot do."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from llmartifacts.errors import Busy, Damaged, LlmartifactsError, NewerFormat, NotAllowed, NotFound
from llmartifacts.metadata import sqlite
from llmartifacts.metadata.database import Session
from llmartifacts.metadata.schema import MIGRATIONS, SCHEMA
from llmartifacts.metadata.sqlite import SqliteDatabase, file_system
from llmartifacts.metadata.store import MetadataStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "registry.db"


@pytest.fixture
def store(path: Path) -> MetadataStore:
    return MetadataStore(SqliteDatabase(path, create=True), create=True)


def test_a_new_store_has_the_newest_schema(store: MetadataStore) -> None:
    with store.reading() as s:
        assert s.row("select value from meta where name = 'schema'") == (SCHEMA,)
        tables = {r[0] for r in s.rows("select name from sqlite_master where type = 'table'")}
    assert {"project", "collection", "version", "alias", "move", "promotion", "edge", "audit"} <= tables


def test_an_older_schema_is_brought_up_to_date(path: Path) -> None:
    database = SqliteDatabase(path, create=True)
    with database.writing() as s:
        s.run("create table meta(name text primary key, value bigint not null)")
        s.run("insert into meta values ('schema', 0)")
    MetadataStore(database)
    with database.reading() as s:
        assert s.row("select value from meta") == (len(MIGRATIONS),)


def test_a_newer_schema_is_refused_and_left_alone(path: Path, store: MetadataStore) -> None:
    with store.writing() as s:
        s.run("update meta set value = 999")
    store.close()
    with pytest.raises(NewerFormat, match="999") as caught:
        MetadataStore(SqliteDatabase(path))
    assert "pip install --upgrade" in caught.value.hint()


def test_writes_are_durable_and_in_wal_mode(store: MetadataStore) -> None:
    with store.reading() as s:
        assert s.row("pragma journal_mode") == ("wal",)
        assert s.row("pragma synchronous") == (2,)
        assert s.row("pragma foreign_keys") == (1,)


def test_a_failed_transaction_leaves_nothing(store: MetadataStore) -> None:
    with pytest.raises(ZeroDivisionError), store.writing() as s:
        s.run("insert into meta values ('x', 1)")
        _ = 1 / 0
    with store.writing() as s:
        assert s.row("select 1 from meta where name = 'x'") is None


def test_a_read_sees_one_moment_while_others_write(store: MetadataStore) -> None:
    with store.reading() as s:
        before = s.rows("select * from meta")

        def write() -> None:
            with store.writing() as w:
                w.run("insert into meta values ('x', 1)")

        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
        assert s.rows("select * from meta") == before
    with store.reading() as s:
        assert len(s.rows("select * from meta")) == len(before) + 1


def test_a_file_that_is_no_database_is_damaged(path: Path) -> None:
    path.write_bytes(b"this is no database at all, but long enough to be read as a header" * 20)
    with pytest.raises(Damaged, match="damaged"):
        SqliteDatabase(path)


def test_a_database_without_our_tables_is_no_registry(path: Path) -> None:
    database = SqliteDatabase(path, create=True)
    with pytest.raises(NotFound, match="no registry"):
        MetadataStore(database)


def test_a_missing_file_is_not_found(path: Path) -> None:
    with pytest.raises(NotFound):
        SqliteDatabase(path)
    assert not path.exists()


def test_a_network_file_system_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "file_system", lambda folder: "nfs4")
    with pytest.raises(NotAllowed, match="nfs4"):
        SqliteDatabase(path, create=True)
    assert not path.exists()


def test_the_file_system_of_a_folder_is_read_from_the_mount_table() -> None:
    if not Path("/proc/self/mountinfo").exists():
        pytest.skip("NO MOUNT TABLE ON THIS SYSTEM")
    assert file_system(Path("/proc")) == "proc"


def test_a_writer_that_waits_too_long_is_told_who_is_in_the_way(path: Path, store: MetadataStore) -> None:
    other = SqliteDatabase(path, wait=0.05)
    with store.writing(), pytest.raises(Busy, match="locked by another writer"):
        thread_error: list[BaseException] = []

        def write() -> None:
            try:
                with other.writing():
                    pass
            except LlmartifactsError as error:
                thread_error.append(error)

        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
        raise thread_error[0]
    with other.writing() as s:  # and it is not left in the queue
        s.run("insert into meta values ('after', 1)")


def test_waiting_writers_all_get_their_turn(store: MetadataStore) -> None:
    with store.writing() as s:
        s.run("insert into meta values ('turns', 0)")

    def write() -> None:
        for _ in range(20):
            with store.writing() as s:
                value = s.row("select value from meta where name = 'turns'")
                s.run("update meta set value = :v where name = 'turns'", {"v": (value or (0,))[0] + 1})

    threads = [threading.Thread(target=write) for _ in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    with store.reading() as s:
        assert s.row("select value from meta where name = 'turns'") == (120,)


def test_a_release_that_is_older_than_the_database_by_now_writes_nothing_more(store: MetadataStore) -> None:
    with store.writing() as s:
        s.run("update meta set value = :v where name = 'schema'", {"v": SCHEMA + 1})
    with pytest.raises(NewerFormat), store.writing():
        pytest.fail("it was let in")


def test_a_killed_writer_blocks_nobody(path: Path, store: MetadataStore) -> None:
    code = (
        "import sys, time; from pathlib import Path; from llmartifacts.metadata.sqlite import SqliteDatabase\n"
        "with SqliteDatabase(Path(sys.argv[1])).writing() as s:\n"
        "    s.run(\"insert into meta values ('lost', 1)\"); print('in', flush=True); time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"in\n"
    child.kill()
    child.wait()
    child.stdout.close()
    with store.writing() as s:
        assert s.row("select 1 from meta where name = 'lost'") is None


def test_a_forked_child_opens_its_own_connection(store: MetadataStore) -> None:
    with store.reading() as s:
        assert s.row("select 1") == (1,)
    child = os.fork()
    if child == 0:
        try:
            with store.writing() as s:
                s.run("insert into meta values ('child', 1)")
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    with store.reading() as s:
        assert s.row("select value from meta where name = 'child'") == (1,)


def test_a_closed_database_says_so(store: MetadataStore) -> None:
    store.close()
    seen: list[str] = []

    def use() -> None:
        try:
            with store.reading():
                pass
        except NotAllowed as error:
            seen.append(str(error))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert "closed" in seen[0]


@pytest.mark.skipif(os.getuid() == 0, reason="ROOT MAY WRITE ANYTHING; tests/flow covers a read-only mount")
def test_a_directory_without_write_permission_can_be_read_but_not_written(path: Path, store: MetadataStore) -> None:
    store.close()
    path.parent.chmod(0o500)
    try:
        store = MetadataStore(SqliteDatabase(path))
        with store.reading() as s:
            assert s.row("select value from meta") == (SCHEMA,)
        with pytest.raises(NotAllowed), store.writing():
            pass
    finally:
        path.parent.chmod(0o700)


def test_the_clock_is_utc_microseconds(store: MetadataStore) -> None:
    with store.reading() as s:
        assert abs(s.now() / 1e6 - time.time()) < 60


def test_a_write_transaction_inside_another_is_a_part_of_it(store: MetadataStore) -> None:
    with store.writing() as outer:
        _note(outer, 1)
        with store.writing() as inner:
            assert inner is outer
            _note(inner, 2)
        with pytest.raises(ZeroDivisionError), store.writing() as inner:
            _note(inner, 3)
            raise ZeroDivisionError
        _note(outer, 4)
    assert _noted(store) == [1, 2, 4]


def test_a_part_is_undone_with_the_whole(store: MetadataStore) -> None:
    with pytest.raises(ZeroDivisionError), store.writing():
        with store.writing() as inner:
            _note(inner, 1)
        raise ZeroDivisionError
    assert _noted(store) == []


def test_a_part_whose_statement_fails_leaves_the_whole_usable(store: MetadataStore) -> None:
    with store.writing() as outer:
        _note(outer, 1)
        with pytest.raises(Damaged), store.writing() as inner:
            _note(inner, 2)
            _note(inner, 2)
        _note(outer, 3)
    assert _noted(store) == [1, 3]


def test_nothing_is_written_in_a_read_transaction(store: MetadataStore) -> None:
    with store.reading(), pytest.raises(RuntimeError, match="read transaction"), store.writing():
        pass


def _note(s: Session, number: int) -> None:
    s.run(
        "insert into pack(id, name, size, created_at) values (:n, :name, 0, 0)", {"n": number, "name": bytes([number])}
    )


def _noted(store: MetadataStore) -> list[int]:
    with store.reading() as s:
        return [r[0] for r in s.rows("select id from pack order by id")]
