"""A cache is read to the last bit, whatever was noted of it; what others do meanwhile is no damage."""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from llmartifacts.blobs import cache_check, trust
from llmartifacts.blobs.cache import IN_MEMORY, BlobCache
from llmartifacts.blobs.cache_check import check_objects, object_path
from llmartifacts.blobs.trust import Record, identity_of
from llmartifacts.errors import Damaged, DigestMismatch, UnsafeContent
from llmartifacts.records.digest import Blob, digest_of

DATA = b"cached " * 1000
BLOB = Blob(digest_of(DATA), len(DATA))


@pytest.fixture
def cache(tmp_path: Path) -> BlobCache:
    made = BlobCache(tmp_path / "cache", limit="none")
    made.put(BLOB, DATA)
    return made


def alter(file: Path, data: bytes) -> None:
    file.chmod(0o644)
    file.write_bytes(data)
    file.chmod(0o444)


def test_what_is_right_is_counted_and_told_as_it_goes(cache: BlobCache) -> None:
    cache.put(Blob(digest_of(b""), 0), b"")
    told: list[tuple[int, int]] = []
    found = list(check_objects(cache.root, progress=lambda done, total: told.append((done, total))))
    assert {(one.digest, one.size) for one in found} == {(BLOB.digest, BLOB.size), (digest_of(b""), 0)}
    assert not any(one.problem or one.record_problem for one in found)
    assert told[-1] == (BLOB.size, BLOB.size)
    assert list(check_objects(cache.root / "nothing")) == []


def test_bits_that_a_disk_lost_without_a_write_are_found_although_a_record_vouches_for_them(cache: BlobCache) -> None:
    """Nobody can make such a file but a disk; here the record is forged instead, which a process of this user can."""
    file = object_path(cache.root, BLOB.digest)
    alter(file, DATA[:-1] + b"!")
    time.sleep(trust.TICK / 1e9 + 0.02)
    Record(file).write(BLOB, identity_of(file.stat()), time.time_ns())
    assert BlobCache(cache.root).at_hand(BLOB) == file, "it is believed for a week"
    (one,) = check_objects(cache.root)
    assert isinstance(one.problem, DigestMismatch)
    assert (one.problem.file, one.problem.digest, one.record_problem) == (str(file), BLOB.digest, None)


def test_a_record_that_is_old_or_of_another_file_is_no_damage_and_an_altered_one_is(tmp_path: Path) -> None:
    large = os.urandom(IN_MEMORY + 1)
    cache = BlobCache(tmp_path / "first", limit="none")
    cache.put(Blob(digest_of(large), len(large)), large)
    copied = shutil.copytree(cache.root, tmp_path / "copied")
    (one,) = check_objects(copied)
    assert (one.problem, one.record_problem) == (None, None)
    record = one.path.with_name(f"{one.path.name}.ok")
    whole = record.read_bytes()
    for torn in (whole[:-1], b"", whole.replace(b"verified/1", b"verified/2"), whole + b"\n"):
        alter(record, torn)
        (one,) = check_objects(copied)
        assert one.problem is None
        assert isinstance(one.record_problem, Damaged)
        assert one.record_problem.file == str(record)
    record.unlink()
    record.symlink_to("/dev/zero")
    (one,) = check_objects(copied)
    assert one.record_problem is not None


def test_a_record_that_is_being_written_is_read_again(cache: BlobCache, monkeypatch: pytest.MonkeyPatch) -> None:
    file = object_path(cache.root, BLOB.digest)
    Record(file).write(BLOB, identity_of(file.stat()), time.time_ns())
    record = file.with_name(f"{file.name}.ok")
    whole = record.read_bytes()
    alter(record, whole[:20])
    monkeypatch.setattr(cache_check.time, "sleep", lambda seconds: alter(record, whole))
    (one,) = check_objects(cache.root)
    assert one.record_problem is None


def test_no_link_pipe_or_folder_passes_for_an_object(cache: BlobCache, tmp_path: Path) -> None:
    file = object_path(cache.root, BLOB.digest)
    file.rename(tmp_path / "elsewhere")
    for put in (lambda: file.symlink_to(tmp_path / "elsewhere"), lambda: os.mkfifo(file)):
        put()
        (one,) = check_objects(cache.root)
        assert isinstance(one.problem, UnsafeContent)
        file.unlink()
    file.mkdir()
    (one,) = check_objects(cache.root)
    assert isinstance(one.problem, UnsafeContent)


def test_what_is_evicted_or_mended_meanwhile_is_no_damage(cache: BlobCache, monkeypatch: pytest.MonkeyPatch) -> None:
    file = object_path(cache.root, BLOB.digest)
    read: Any = cache_check._read
    alter(file, b"rotten")

    def mended(*arguments: Any) -> Any:
        found = read(*arguments)
        if file.read_bytes() == b"rotten":
            BlobCache(cache.root).put(BLOB, DATA)
        return found

    monkeypatch.setattr(cache_check, "_read", mended)
    (one,) = check_objects(cache.root)
    assert (one.problem, one.size) == (None, BLOB.size)
    other = Blob(digest_of(b"other"), 5)
    cache.put(other, b"other")
    objects = check_objects(cache.root)
    first = next(objects)
    cache.remove(other if first.digest == BLOB.digest else BLOB)
    assert list(objects) == []


def test_parts_and_locks_are_no_objects(cache: BlobCache) -> None:
    file = object_path(cache.root, BLOB.digest)
    for name in (f"{file.name}.part", f"{file.name}.lock", "notes.txt", file.name.upper()):
        file.with_name(name).write_bytes(b"x")
    assert [one.path for one in check_objects(cache.root)] == [file]


def test_it_goes_on_while_a_cache_is_filled_and_emptied(cache: BlobCache) -> None:
    ended = threading.Event()

    def busy() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            data = b"%d" % (number % 50) * 100
            blob = Blob(digest_of(data), len(data))
            cache.put(blob, data)
            cache.remove(blob)

    worker = threading.Thread(target=busy)
    worker.start()
    try:
        found = [one for _ in range(30) for one in check_objects(cache.root)]
    finally:
        ended.set()
        worker.join()
    assert {one.digest for one in found} >= {BLOB.digest}
    assert not [one for one in found if one.problem or one.record_problem]
