"""A cached file is hashed once, not once in each process; and what was altered meanwhile is found out."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.blobs import trust, verify
from llmartifacts.blobs.cache import IN_MEMORY, BlobCache
from llmartifacts.blobs.trust import Record, identity_of
from llmartifacts.blobs.verify import is_blob
from llmartifacts.errors import DigestMismatch
from llmartifacts.records.digest import Blob, digest_of

DATA = b"trusted " * 1000
BLOB = Blob(digest_of(DATA), len(DATA))
OTHER = Blob(digest_of(DATA[::-1]), len(DATA))
BIG = os.urandom(IN_MEMORY + 1)
BIG_BLOB = Blob(digest_of(BIG), len(BIG))
SETTLE = trust.TICK / 1e9 + 0.02
HASH = """
import sys
from llmartifacts.blobs import verify
from llmartifacts.blobs.cache import BlobCache
from llmartifacts.records.digest import Blob
hashed, was = [], verify.is_blob
verify.is_blob = lambda stream, blob: hashed.append(blob) or was(stream, blob)
found = BlobCache(sys.argv[1]).get(Blob(sys.argv[2], int(sys.argv[3])))
print(len(hashed), found is not None, flush=True)
"""


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Blob]:
    """Every blob that was really read and hashed."""
    seen: list[Blob] = []
    monkeypatch.setattr(verify, "is_blob", lambda stream, blob: seen.append(blob) or is_blob(stream, blob))
    return seen


@pytest.fixture
def settled(cache: BlobCache, hashed: list[Blob]) -> Path:
    """A cached file with its record, as one process leaves it for the next."""
    path = Path(cache.put(BLOB, DATA))
    time.sleep(SETTLE)
    assert cache.get(BLOB) == path
    assert len(hashed) == 1
    assert Record(path).path.is_file()
    return path


def anew(cache: BlobCache) -> BlobCache:
    """The same folder, as the next process sees it."""
    return BlobCache(cache.root)


def test_the_next_process_does_not_hash_what_this_one_hashed(cache: BlobCache, settled: Path, child: Callable) -> None:
    assert child(HASH, cache.root, BLOB.digest, BLOB.size).hears() == "0 True"


def test_a_large_file_is_recorded_by_its_builder_and_never_hashed_again(cache: BlobCache, child: Callable) -> None:
    cache.put(BIG_BLOB, BIG)
    for _ in range(2):
        assert child(HASH, cache.root, BIG_BLOB.digest, BIG_BLOB.size).hears() == "0 True"


def test_a_file_built_just_now_is_hashed_until_it_has_settled(cache: BlobCache, hashed: list[Blob]) -> None:
    path = cache.put(BLOB, DATA)
    assert cache.get(BLOB)
    young = time.time_ns() - path.stat().st_ctime_ns < trust.TICK
    assert not (young and Record(path).path.exists())
    time.sleep(SETTLE)
    for _ in range(3):
        assert anew(cache).get(BLOB)
    assert len(hashed) == 2, "once too early, once for good"


def test_a_file_that_changes_while_it_is_hashed_within_one_step_of_the_clock_is_not_recorded(
    cache: BlobCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(stream: object, blob: Blob) -> bool:
        time.sleep(SETTLE)  # by its end the file looks old, and yet it could have changed after the first byte
        return True

    path = cache.put(BLOB, DATA)
    monkeypatch.setattr(verify, "is_blob", slowly)
    if time.time_ns() - path.stat().st_ctime_ns > trust.TICK:
        pytest.skip("THIS MACHINE WAS TOO SLOW to look at a file in its first 50 ms")
    assert cache.get(BLOB)
    assert not Record(path).path.exists()


# --- what was altered is found out


def flip(path: Path) -> None:
    was = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(100)
        file.write(bytes([DATA[100] ^ 1]))
    path.chmod(0o444)
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))  # hides it from whoever looks at the mtime only


def replace(path: Path) -> None:
    aside = path.with_name("aside")
    aside.write_bytes(DATA[::-1])
    shutil.copystat(path, aside)
    aside.rename(path)


def cut_and_grow(path: Path) -> None:
    path.chmod(0o644)
    os.truncate(path, 10)
    os.truncate(path, len(DATA))
    path.chmod(0o444)


@pytest.mark.parametrize("alter", [flip, replace, cut_and_grow])
def test_an_altered_file_with_a_good_record_is_found_out(
    cache: BlobCache, settled: Path, alter: Callable[[Path], None]
) -> None:
    alter(settled)
    for reader in (cache, anew(cache)):
        assert reader.get(BLOB) is None
        assert reader.peek(BLOB) is None
        with pytest.raises(DigestMismatch):
            reader.path(BLOB)
    assert anew(cache).path(BLOB, lambda sink: sink.write(DATA)).read_bytes() == DATA


def test_a_clock_of_a_file_that_was_set_back_and_forth_makes_it_hashed_again(
    cache: BlobCache, settled: Path, hashed: list[Blob]
) -> None:
    was = settled.stat()
    os.utime(settled, ns=(0, 0))
    os.utime(settled, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert settled.stat().st_mtime_ns == was.st_mtime_ns
    assert anew(cache).get(BLOB)
    assert len(hashed) == 2


# --- records that are not believed


def rewrite(settled: Path, change: Callable[[bytes], bytes]) -> None:
    record = Record(settled).path
    body = change(record.read_bytes())
    record.unlink()
    record.write_bytes(body)
    record.chmod(0o444)


def of_another_blob(settled: Path) -> None:
    record = Record(settled)
    record.write(OTHER, identity_of(settled.stat()), time.time_ns())


def of_another_state(settled: Path) -> None:
    found = identity_of(settled.stat())
    Record(settled).write(BLOB, (*found[:4], found[4] - 1), time.time_ns())


def of_another_inode(settled: Path) -> None:
    found = identity_of(settled.stat())
    Record(settled).write(BLOB, (found[0], found[1] + 1, *found[2:]), time.time_ns())


def hashed_too_early(settled: Path) -> None:
    Record(settled).write(BLOB, identity_of(settled.stat()), settled.stat().st_ctime_ns + trust.TICK)


def hashed_tomorrow(settled: Path) -> None:
    Record(settled).write(BLOB, identity_of(settled.stat()), time.time_ns() + 10**14)


def truncated(settled: Path) -> None:
    rewrite(settled, lambda body: body[:-20])


def longer(settled: Path) -> None:
    rewrite(settled, lambda body: body + b"\n")


def empty(settled: Path) -> None:
    rewrite(settled, lambda body: b"")


def one_digit(settled: Path) -> None:
    rewrite(settled, lambda body: body.replace(b"/1 ", b"/2 "))


def huge(settled: Path) -> None:
    rewrite(settled, lambda body: body * 100_000)


def linked(settled: Path) -> None:
    record = Record(settled).path
    record.rename(settled.with_name("elsewhere"))
    record.symlink_to(settled.with_name("elsewhere"))


def a_pipe(settled: Path) -> None:
    Record(settled).path.unlink()
    os.mkfifo(Record(settled).path, 0o444)


def a_folder(settled: Path) -> None:
    Record(settled).path.unlink()
    Record(settled).path.mkdir(0o755)


def others_may_write_it(settled: Path) -> None:
    Record(settled).path.chmod(0o464)


def others_may_write_beside_it(settled: Path) -> None:
    settled.parent.chmod(0o775)


UNBELIEVED = [
    *(of_another_blob, of_another_state, of_another_inode, hashed_too_early, hashed_tomorrow),
    *(truncated, longer, empty, one_digit, huge),
    *(linked, a_pipe, a_folder, others_may_write_it, others_may_write_beside_it),
]


@pytest.mark.parametrize("spoil", UNBELIEVED)
def test_a_record_that_is_not_to_be_believed_makes_the_file_hashed_again(
    cache: BlobCache, settled: Path, hashed: list[Blob], spoil: Callable[[Path], None]
) -> None:
    spoil(settled)
    assert anew(cache).get(BLOB) == settled
    assert len(hashed) == 2
    if spoil not in (a_folder, others_may_write_beside_it):
        assert anew(cache).get(BLOB) == settled
        assert len(hashed) == 2, "a good record took the place of the bad one"
        assert Record(settled).path.is_file()
        assert not Record(settled).path.is_symlink()


def test_a_record_with_the_same_bytes_in_a_new_file_is_believed(
    cache: BlobCache, settled: Path, hashed: list[Blob]
) -> None:
    rewrite(settled, lambda body: body)
    assert anew(cache).get(BLOB) == settled
    assert len(hashed) == 1


@pytest.mark.parametrize("whose", ["file", "record", "folder"])
def test_what_belongs_to_another_user_is_not_believed(
    cache: BlobCache, settled: Path, hashed: list[Blob], monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    if os.geteuid() != 0:
        pytest.skip("ONLY ROOT can give a file away")
    place = {"file": settled, "record": Record(settled).path, "folder": settled.parent}[whose]
    os.chown(place, 12345, -1)
    if whose == "file":  # giving it away changes its ctime: have a record of the file as it is now
        Record(settled).write(BLOB, identity_of(settled.stat()), time.time_ns() + 1)
        monkeypatch.setattr(trust, "TICK", 0)
    assert anew(cache).get(BLOB) == settled
    assert len(hashed) == 2


def test_after_a_week_a_file_is_hashed_again(
    cache: BlobCache, settled: Path, hashed: list[Blob], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time_ns
    monkeypatch.setattr(trust.time, "time_ns", lambda: now() + trust.FRESH_FOR - 10**10)
    assert anew(cache).get(BLOB)
    assert len(hashed) == 1
    monkeypatch.setattr(trust.time, "time_ns", lambda: now() + trust.FRESH_FOR + 10**10)
    assert anew(cache).get(BLOB)
    assert anew(cache).get(BLOB)
    assert len(hashed) == 2, "and then recorded for another week"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a good record, for a test with many examples."""
    entry = tmp_path_factory.mktemp("one") / BLOB.digest[7:]
    entry.write_bytes(DATA)
    entry.chmod(0o444)
    time.sleep(SETTLE)
    Record(entry).write(BLOB, identity_of(entry.stat()), time.time_ns())
    return entry


@given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_record_with_any_bit_flipped_is_no_record(recorded: Path, position: int, bit: int) -> None:
    found, record = recorded.stat(), Record(recorded)
    good = record.path.read_bytes()
    assert record.vouches(BLOB, found)
    body = bytearray(good)
    body[position % len(body)] ^= 1 << bit
    record.path.chmod(0o644)
    record.path.write_bytes(body)
    assert not record.vouches(BLOB, found)
    record.path.write_bytes(good)


# --- where nothing can be written


def test_a_cache_that_cannot_be_written_is_used_without_records(
    cache: BlobCache, hashed: list[Blob], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cache.put(BLOB, DATA)
    time.sleep(SETTLE)
    was = os.open

    def refused(place: object, flags: int, *rest: object, **named: object) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, "Read-only file system", str(place))
        return was(place, flags, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refused)
    for _ in range(2):
        reader = anew(cache)
        assert reader.get(BLOB) == reader.path(BLOB) == path
    assert len(hashed) == 2, "once in each process"
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_what_root_put_there_is_believed_by_everybody(
    cache: BlobCache, settled: Path, hashed: list[Blob], monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.skip("ONLY ROOT has files of root")
    monkeypatch.setattr(trust.os, "geteuid", lambda: 12345)
    assert anew(cache).get(BLOB)
    assert len(hashed) == 1


# --- last use


def test_use_is_noted_on_the_record_and_never_on_the_file(cache: BlobCache, settled: Path) -> None:
    record, before = Record(settled).path, identity_of(settled.stat())
    for use in (cache.get, cache.read, cache.path, cache.peek, lambda blob: cache.open(blob).close()):
        os.utime(record, (1, 1))
        use(BLOB)
        assert abs(record.stat().st_mtime - time.time()) < 30
    assert identity_of(settled.stat()) == before


def test_use_is_noted_once_a_minute_at_most(cache: BlobCache, settled: Path) -> None:
    record = Record(settled).path
    a_moment_ago = time.time() - trust.USED_EVERY / 2
    os.utime(record, (a_moment_ago, a_moment_ago))
    cache.get(BLOB)
    assert record.stat().st_mtime == pytest.approx(a_moment_ago, abs=0.01)


def test_nobody_else_may_write_to_the_folders_of_a_cache_whatever_the_umask(tmp_path: Path) -> None:
    was = os.umask(0o002)
    try:
        path = BlobCache(tmp_path / "above" / "cache").put(BLOB, DATA)
    finally:
        os.umask(was)
    for folder in path.parents[:3]:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o755
