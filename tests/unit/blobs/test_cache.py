from __future__ import annotations

import io
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llmartifacts.blobs import verify
from llmartifacts.blobs.cache import BlobCache, Sink
from llmartifacts.errors import BlobMissing, DigestMismatch
from llmartifacts.records.backend import BlobSource
from llmartifacts.records.digest import Blob, digest_of

DATA = b"cached " * 1000
BLOB = Blob(digest_of(DATA), len(DATA))
BIG = os.urandom(9 * 1024 * 1024)
BIG_BLOB = Blob(digest_of(BIG), len(BIG))


def fetching(data: bytes) -> Callable[[Sink], None]:
    def fetch(sink: Sink) -> None:
        for start in range(0, len(data), 1000):
            sink.write(data[start : start + 1000])

    return fetch


def never(sink: Sink) -> None:
    raise AssertionError("fetched although it is cached")


def names(cache: BlobCache) -> list[str]:
    """Every file but the records."""
    return sorted(p.name for p in cache.root.rglob("*") if p.is_file() and p.suffix != ".ok")


def spoil(path: Path) -> None:
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.write(b"X")
    path.chmod(0o444)


def test_a_blob_is_fetched_once_and_then_read_from_the_cache(cache: BlobCache) -> None:
    path = cache.path(BLOB, fetching(DATA))
    assert path == cache.root / "sha256" / BLOB.digest[7:9] / BLOB.digest[7:]
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert cache.path(BLOB, never) == cache.get(BLOB) == path
    assert BlobCache(cache.root).path(BLOB, never) == path
    assert names(cache) == [BLOB.digest[7:]]


def test_the_cache_alone_is_a_source_of_verified_bytes(cache: BlobCache) -> None:
    for blob, data in ((BLOB, DATA), (BIG_BLOB, BIG)):
        cache.put(blob, data)
        source: BlobSource = BlobCache(cache.root)
        with source.open(blob) as stream:
            assert stream.read(5) == data[:5]
            assert stream.read() == data[5:]
        assert source.read(blob) == source.path(blob).read_bytes() == data


def test_a_cached_blob_is_found_by_its_digest_alone(cache: BlobCache) -> None:
    assert cache.find(BLOB.digest) is None
    cache.put(BLOB, DATA)
    assert cache.find(BLOB.digest) == BLOB


def test_what_is_not_cached_is_missing_and_named(cache: BlobCache) -> None:
    assert cache.get(BLOB) is None
    for call in (cache.read, cache.open, cache.path):
        with pytest.raises(BlobMissing) as caught:
            call(BLOB)
        assert caught.value.digest == BLOB.digest
    assert not cache.root.exists()


@pytest.mark.parametrize("wrong", [b"", DATA[:-1], DATA + b"!", b"X" + DATA[1:], b"x" * 10_000_000])
def test_bytes_that_are_not_the_blob_are_refused_and_nothing_stays(cache: BlobCache, wrong: bytes) -> None:
    with pytest.raises(DigestMismatch) as caught:
        cache.path(BLOB, fetching(wrong), origin=lambda: "the store's file")
    assert (caught.value.digest, caught.value.file) == (BLOB.digest, "the store's file")
    assert names(cache) == []


def test_a_fetch_that_fails_leaves_nothing_and_its_error_comes_through(cache: BlobCache) -> None:
    def fetch(sink: Sink) -> None:
        sink.write(DATA[:10])
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError, match="gone"):
        cache.path(BLOB, fetch)
    assert names(cache) == []


@pytest.mark.parametrize("form", ["bytes", "path", "stream"])
def test_put_takes_bytes_a_file_or_a_stream(cache: BlobCache, tmp_path: Path, form: str) -> None:
    (tmp_path / "file").write_bytes(BIG)
    stream = io.BytesIO(BIG)
    cache.put(BIG_BLOB, {"bytes": BIG, "path": tmp_path / "file", "stream": stream}[form])
    assert cache.read(BIG_BLOB) == BIG
    assert not stream.closed


def test_put_of_other_bytes_is_refused(cache: BlobCache) -> None:
    with pytest.raises(DigestMismatch):
        cache.put(BLOB, b"other")
    assert names(cache) == []


# --- damage


@pytest.mark.parametrize(("blob", "data"), [(BLOB, DATA), (BIG_BLOB, BIG)], ids=["small", "big"])
def test_a_damaged_cached_file_is_never_handed_over(cache: BlobCache, blob: Blob, data: bytes) -> None:
    path = cache.put(blob, data)
    spoil(path)
    for reader in (cache, BlobCache(cache.root)):
        assert reader.get(blob) is None
        for call in (reader.read, reader.open, reader.path):
            with pytest.raises(DigestMismatch) as caught:
                call(blob)
            assert (caught.value.digest, caught.value.file) == (blob.digest, str(path))


def test_a_damaged_cached_file_is_built_anew_and_who_maps_the_old_one_keeps_it(cache: BlobCache) -> None:
    path = cache.put(BLOB, DATA)
    spoil(path)
    with path.open("rb") as old:
        assert cache.path(BLOB, fetching(DATA)) == path
        assert old.read() == b"X" + DATA[1:]
    assert path.read_bytes() == DATA
    assert names(cache) == [BLOB.digest[7:]]


@pytest.mark.parametrize("size", [0, 10, 20_000])
def test_a_cached_file_of_another_length_is_built_anew(cache: BlobCache, size: int) -> None:
    path = cache.put(BLOB, DATA)
    path.chmod(0o644)
    os.truncate(path, size)
    assert cache.path(BLOB, fetching(DATA)).read_bytes() == DATA


def test_a_link_in_the_cache_is_not_followed(cache: BlobCache, tmp_path: Path) -> None:
    path = cache.put(BLOB, DATA)
    path.unlink()
    (tmp_path / "elsewhere").write_bytes(DATA)
    path.symlink_to(tmp_path / "elsewhere")
    assert cache.get(BLOB) is None
    assert not cache.path(BLOB, fetching(DATA)).is_symlink()
    assert (tmp_path / "elsewhere").read_bytes() == DATA


def test_a_warm_process_does_not_hash_a_file_again(cache: BlobCache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.put(BLOB, DATA)
    time.sleep(0.06)
    cache.path(BLOB)
    monkeypatch.setattr(verify, "is_blob", lambda *_: pytest.fail("hashed again"))
    assert cache.path(BLOB) == cache.get(BLOB)


# --- several processes


def test_of_eight_processes_one_builds_and_the_others_wait(cache: BlobCache, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    (tmp_path / "source").write_bytes(BIG)
    code = f"""
import os, time
from pathlib import Path
from llmartifacts.blobs.cache import BlobCache
from llmartifacts.records.digest import Blob
def fetch(sink):
    Path({str(marks)!r}, str(os.getpid())).touch()
    time.sleep(0.3)
    sink.write(Path({str(tmp_path / "source")!r}).read_bytes())
blob = Blob({BIG_BLOB.digest!r}, {BIG_BLOB.size})
assert BlobCache({str(cache.root)!r}).path(blob, fetch).stat().st_size == blob.size
"""
    workers = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(8)]
    assert [w.wait() for w in workers] == [0] * 8
    assert len(list(marks.iterdir())) == 1
    assert names(cache) == [BIG_BLOB.digest[7:]]


def test_a_killed_builder_blocks_nobody(cache: BlobCache) -> None:
    code = f"""
import os, signal
from llmartifacts.blobs.cache import BlobCache
from llmartifacts.records.digest import Blob
def fetch(sink):
    sink.write(b"half of it")
    os.kill(os.getpid(), signal.SIGKILL)
BlobCache({str(cache.root)!r}).path(Blob({BLOB.digest!r}, {BLOB.size}), fetch)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert len(names(cache)) == 2
    assert cache.get(BLOB) is None
    assert cache.path(BLOB, fetching(DATA)).read_bytes() == DATA
    assert names(cache) == [BLOB.digest[7:]]


# --- where it is


def test_who_asks_for_a_blob_waits_its_turn_and_not_for_ever(cache: BlobCache) -> None:
    code = """
import sys
from llmartifacts.blobs.cache import BlobCache
from llmartifacts.records.digest import Blob
with BlobCache(sys.argv[1]).turn(Blob(sys.argv[2], int(sys.argv[3])), 60.0):
    print("mine", flush=True)
    sys.stdin.readline()
"""
    arguments = [sys.executable, "-c", code, str(cache.root), BLOB.digest, str(BLOB.size)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "mine\n"
        with cache.turn(BLOB, 0.05):  # the other one may have stopped: it is not waited for any longer
            assert other.poll() is None
        waited = threading.Event()

        def wait() -> None:
            with cache.turn(BLOB, 60.0):
                waited.set()

        thread = threading.Thread(target=wait)
        thread.start()
        assert not waited.wait(0.1)
        other.kill()
        assert waited.wait(30)
        thread.join()
    assert not list((cache.root / "fetching").rglob("*.lock"))


def test_the_cache_is_where_the_variable_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LLMARTIFACTS_CACHE", str(tmp_path / "here"))
    assert BlobCache().root == tmp_path / "here"


def test_without_the_variable_it_is_in_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LLMARTIFACTS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert BlobCache().root.is_relative_to(tmp_path)
    assert BlobCache().root.name == "llmartifacts"


def test_a_temporary_cache_is_gone_with_its_owner() -> None:
    cache = BlobCache.temporary()
    root = cache.root
    cache.put(BLOB, DATA)
    assert root.is_dir()
    del cache
    assert not root.exists()
