"""Every page of the embedded database has a checksum, and a page that rots is refused."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from llmartifacts.errors import Damaged, NotAllowed
from llmartifacts.metadata import sqlite_pages
from llmartifacts.metadata.sqlite import SqliteDatabase
from llmartifacts.metadata.store import MetadataStore

PAGE = 4096


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A closed database of some hundred pages, a few of which hold nothing any more."""
    path = tmp_path / "registry.db"
    store = MetadataStore(SqliteDatabase(path, create=True), create=True)
    chance = random.Random(5)
    with store.writing() as s:
        for number in range(600):
            s.run(
                "insert into condemned(key, at, size) values (:k, :n, :n)",
                {"k": f"key {number} {chance.randbytes(200).hex()}", "n": number},
            )
    with store.writing() as s:
        s.run("delete from condemned where at between 100 and 300")
    store.close()
    return path


def _database(path: Path, create: bool = False) -> SqliteDatabase:
    return SqliteDatabase(path, create=create)


def test_a_new_database_keeps_checksums_and_says_so(file: Path) -> None:
    head = file.read_bytes()[:100]
    assert head[20] == 8
    assert head[68:72] == b"lart"
    assert _damaged(file) == []
    assert _database(file).check() == []


def test_a_flipped_bit_in_any_page_is_found_with_the_number_of_the_page(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_pages.time, "sleep", lambda seconds: None)
    good = file.read_bytes()
    assert len(good) % PAGE == 0
    chance = random.Random(9)
    for page in (
        1,
        *range(2, len(good) // PAGE, 9),
    ):  # also those that hold nothing: what comes into them next is not theirs
        _flip(file, good, 8 * PAGE * page + chance.randrange(8 * PAGE))
        assert _damaged(file) == [f"a page is not what was written there: {page + 1}"]


def test_a_page_that_rotted_is_refused_where_it_is_read(file: Path) -> None:
    good = file.read_bytes()
    _flip(file, good, 8 * good.index(b"key 50 ") + 3)
    database = _database(file)
    with pytest.raises(Damaged, match="not what was written there") as told, database.reading() as s:
        s.rows("select * from condemned")
    assert told.value.file == str(file)
    assert any("a page is not what was written there" in line for line in database.check())
    database.close()


@pytest.mark.parametrize("at", range(100))
def test_a_flipped_bit_in_the_header_is_refused_at_the_door(file: Path, at: int) -> None:
    good = file.read_bytes()
    for bit in range(8):
        _flip(file, good, 8 * at + bit)
        with pytest.raises((Damaged, NotAllowed)), _database(file).reading() as s:
            s.rows("select count(*) from meta")


def test_several_damaged_pages_are_counted_and_named(file: Path) -> None:
    good = bytearray(file.read_bytes())
    for page in range(2, 40):
        good[PAGE * page + 100] ^= 1
    file.write_bytes(good)
    (told,) = _damaged(file)
    assert told.startswith("38 pages are not what was written there: 3, 4, 5")
    assert told.endswith("and more")


def test_a_file_that_was_cut_short_is_told(file: Path) -> None:
    good = file.read_bytes()
    file.write_bytes(good[: -PAGE // 2])
    assert _damaged(file) == [f"a page is not what was written there: {len(good) // PAGE}"]


def test_a_file_of_the_first_releases_has_none_and_is_used_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "old.db"
    with monkeypatch.context() as patch:
        patch.setattr(sqlite_pages, "reserve", lambda connection: None)
        MetadataStore(_database(path, create=True), create=True).close()
    assert path.read_bytes()[20] == 0
    store = MetadataStore(_database(path))
    with store.writing() as s:
        s.run("insert into condemned(key, at, size) values ('a', 1, 1)")
    assert store.database.check() == []
    assert _damaged(path) == []
    store.close()


def test_scrubbing_keeps_the_checksums(file: Path) -> None:
    database = _database(file)
    database.scrub()
    assert database.check() == []
    database.close()
    assert file.read_bytes()[20] == 8
    assert _damaged(file) == []


def test_pages_are_sound_while_somebody_writes(file: Path) -> None:
    """Checkpoints put pages into the file under the eyes of who looks."""
    writer = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys\nfrom pathlib import Path\nfrom llmartifacts.metadata.sqlite import SqliteDatabase\n"
            "database = SqliteDatabase(Path(sys.argv[1]))\n"
            "for number in range(1500):\n"
            "    with database.writing() as s:\n"
            "        s.run('insert into condemned values (:k, 0, 0)', {'k': f'late {number} ' + 'x' * 3000})\n"
            "print('done', flush=True)\nsys.stdin.read()\n",
            str(file),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert writer.stdin is not None
    assert writer.stdout is not None
    try:
        looks = [_damaged(file) for _ in _until(writer.stdout)]
    finally:
        writer.communicate(timeout=60)
    assert looks
    assert not any(looks)


def _until(output: object) -> Iterator[None]:
    import select

    while True:
        yield
        if select.select([output], [], [], 0)[0]:
            return


def test_what_others_open_in_this_process_is_left_as_it_was(tmp_path: Path) -> None:
    name = sqlite_pages.vfs()
    assert apsw.vfs_names()[0] != name
    plain = tmp_path / "plain.db"
    with apsw.Connection(str(plain)) as other:
        other.execute("create table t(x)")
    assert plain.read_bytes()[20] == 0


def _damaged(path: Path) -> list[str]:
    connection = apsw.Connection(str(path), vfs=sqlite_pages.vfs())
    try:
        return list(sqlite_pages.damaged(connection, path))
    finally:
        connection.close()


def _flip(file: Path, good: bytes, bit: int) -> None:
    bad = bytearray(good)
    bad[bit // 8] ^= 1 << bit % 8
    for beside in ("-wal", "-shm"):
        Path(f"{file}{beside}").unlink(missing_ok=True)
    file.write_bytes(bad)
