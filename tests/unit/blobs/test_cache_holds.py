"""What a live process uses is held: by a path, a stream or a map; and let go when the process ends, however it ends."""

from __future__ import annotations

import copy
import fcntl
import gc
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llmartifacts.blobs import hold
from llmartifacts.blobs.cache import IN_MEMORY, BlobCache
from llmartifacts.kinds.bundle import Bundle
from llmartifacts.kinds.files import Files
from llmartifacts.kinds.model import ModelSpec
from llmartifacts.kinds.vector_index.mapped import map_file
from llmartifacts.records.digest import Blob, digest_of

DATA = b"held " * 1000
BLOB = Blob(digest_of(DATA), len(DATA))
BIG = os.urandom(IN_MEMORY + 1)
BIG_BLOB = Blob(digest_of(BIG), len(BIG))


def is_free(path: Path) -> bool:
    """Whether somebody who evicts would get the file."""
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


MAP = """
import mmap, os, sys
from pathlib import Path
from llmartifacts.kinds.vector_index.mapped import map_file
data = map_file(Path(sys.argv[1]), field="x")
print(data[:4].decode(), flush=True)
sys.stdin.readline()
del data
print("unmapped", flush=True)
sys.stdin.readline()
"""


def test_a_map_holds_its_file_after_the_descriptor_is_closed_until_the_map_is_gone(
    cache: BlobCache, child: Callable
) -> None:
    path = Path(cache.put(BLOB, DATA))
    assert is_free(path)
    mapping = child(MAP, path)
    assert mapping.hears() == "held"
    assert not is_free(path)
    mapping.tell()
    assert mapping.hears() == "unmapped"
    assert is_free(path)


def test_the_kernel_keeps_the_lock_in_the_map_alone(cache: BlobCache, child: Callable) -> None:
    """Python's own map keeps a copy of the descriptor; here there is none left, only the mapping itself."""
    code = """
import ctypes, fcntl, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
fd = os.open(sys.argv[1], os.O_RDONLY)
fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
at = libc.mmap(None, 4096, 1, 1, fd, 0)
os.close(fd)
print(ctypes.string_at(at, 4).decode(), flush=True)
sys.stdin.readline()
libc.munmap(at, 4096)
print("unmapped", flush=True)
sys.stdin.readline()
"""
    path = Path(cache.put(BLOB, DATA))
    mapping = child(code, path)
    assert mapping.hears() == "held"
    assert not is_free(path)
    mapping.tell()
    assert mapping.hears() == "unmapped"
    assert is_free(path)


def test_a_killed_process_holds_nothing(cache: BlobCache, child: Callable) -> None:
    path = Path(cache.put(BLOB, DATA))
    mapping = child(MAP, path)
    assert mapping.hears() == "held"
    assert not is_free(path)
    mapping.kill()
    assert is_free(path)


def test_a_path_holds_its_file_as_long_as_that_very_object_lives(cache: BlobCache) -> None:
    for get in (lambda: cache.put(BLOB, DATA), lambda: cache.get(BLOB), lambda: cache.path(BLOB)):
        held = get()
        plain = Path(held)
        assert held == plain
        assert hash(held) == hash(plain)
        assert not is_free(plain)
        again = cache.path(BLOB)
        del held
        assert not is_free(plain), "another path to it is left"
        del again
        assert is_free(plain)


def test_what_is_made_from_a_held_path_is_an_ordinary_path_and_holds_nothing(cache: BlobCache) -> None:
    held = cache.put(BLOB, DATA)
    made = [held.parent / held.name, held.resolve(), Path(str(held)), pickle.loads(pickle.dumps(held))]
    made += [copy.copy(held), copy.deepcopy(held)]
    place = str(held)
    assert type(made[3]) is type(Path())
    assert {str(path) for path in made} == {place}
    assert os.fspath(held) == f"{held}" == place
    assert held.read_bytes() == DATA
    del held
    assert is_free(Path(place))


def test_an_open_stream_holds_its_file_until_it_is_closed(cache: BlobCache) -> None:
    path = Path(cache.put(BIG_BLOB, BIG))
    stream = cache.open(BIG_BLOB)
    assert not is_free(path)
    assert stream.read(3) == BIG[:3]
    assert not is_free(path)
    stream.close()
    assert is_free(path)


def test_a_peek_is_a_map_of_the_verified_bytes_that_holds_them(cache: BlobCache) -> None:
    assert cache.peek(BLOB) is None
    path = Path(cache.put(BLOB, DATA))
    seen = BlobCache(cache.root).peek(BLOB)
    assert seen is not None
    assert seen[:] == DATA
    assert not is_free(path)
    with pytest.raises(TypeError):
        seen[0] = 1
    del seen
    assert is_free(path)


def test_a_peek_at_a_damaged_an_empty_or_a_missing_file_gives_nothing(cache: BlobCache, tmp_path: Path) -> None:
    path = cache.put(BLOB, DATA)
    path.chmod(0o644)
    path.write_bytes(DATA[::-1])
    assert cache.peek(BLOB) is None
    path.unlink()
    path.symlink_to(tmp_path)
    assert cache.peek(BLOB) is None
    nothing = Blob(digest_of(b""), 0)
    cache.put(nothing, b"")
    assert cache.peek(nothing) is None
    (tmp_path / "file").write_bytes(b"")
    assert BlobCache(tmp_path / "file").peek(BLOB) is None


def test_no_more_than_so_many_paths_are_held_and_the_others_are_paths_all_the_same(
    cache: BlobCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hold, "MAX_HOLDS", 3)
    bodies = [bytes([i]) * 10 for i in range(5)]
    paths = [cache.put(Blob(digest_of(body), 10), body) for body in bodies]
    assert [is_free(Path(path)) for path in paths] == [False] * 3 + [True] * 2
    assert [path.read_bytes() for path in paths] == bodies
    del paths[0]
    held = cache.path(Blob(digest_of(bodies[3]), 10))
    assert not is_free(Path(held)), "one was let go, so there is room for another"


def test_without_a_descriptor_left_a_path_is_given_without_a_hold(
    cache: BlobCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.put(BLOB, DATA)

    def refused(fd: int) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(hold.os, "dup", refused)
    path = cache.path(BLOB)
    assert path.read_bytes() == DATA
    assert is_free(Path(path))


def test_a_file_that_somebody_locks_for_good_is_read_without_a_hold(
    cache: BlobCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cache.put(BLOB, DATA)
    plain = Path(path)
    del path
    monkeypatch.setattr(hold, "_TRIES", 3)
    with plain.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert cache.read(BLOB) == cache.path(BLOB).read_bytes() == map_file(plain, field="x")[:] == DATA


def test_on_a_file_system_without_locks_everything_is_readable(
    cache: BlobCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cache.put(BLOB, DATA)

    def refused(fd: object, how: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    assert cache.read(BLOB) == cache.path(BLOB).read_bytes() == map_file(path, field="x")[:] == DATA


# --- values that keep paths


class View:
    """The files of an artifact, out of a cache."""

    def __init__(self, cache: BlobCache, files: dict[str, Blob]) -> None:
        self.cache, self.files = cache, files

    def paths(self) -> list[str]:
        return sorted(self.files)

    def as_path(self, path: str) -> Path:
        return self.cache.path(self.files[path])


def test_files_hold_every_file_whose_path_they_gave_away(cache: BlobCache) -> None:
    cache.put(BLOB, DATA)
    files = Files._stored(View(cache, {"weights.bin": BLOB}), {})  # type: ignore[arg-type]
    place = str(files.path("weights.bin"))  # a library that maps it is given text
    assert not is_free(Path(place))
    del files
    assert is_free(Path(place))


def test_a_model_and_the_files_of_a_bundle_hold_their_files(cache: BlobCache) -> None:
    place = str(cache.put(BLOB, DATA))
    spec = ModelSpec("p", "m", files={"weights.bin": cache.path(BLOB)})
    assert not is_free(Path(place))
    bundle = Bundle(models={"llm": spec})
    del spec
    gc.collect()
    assert not is_free(Path(place))
    files = bundle.model_files("llm")
    del bundle
    gc.collect()
    assert str(files.path("weights.bin")) == os.path.realpath(place)
    assert not is_free(Path(place))
    del files
    gc.collect()
    assert is_free(Path(place))


# --- one builder


BUILD = """
import os, sys, time
from pathlib import Path
from llmartifacts.blobs.cache import BlobCache
from llmartifacts.records.digest import Blob
def fetch(sink):
    Path(sys.argv[4], str(os.getpid())).touch()
    for _ in range(10):
        sink.write(b"x" * 1000)
        time.sleep(0.05)
blob = Blob(sys.argv[2], int(sys.argv[3]))
print(BlobCache(sys.argv[1]).path(blob, fetch).stat().st_size, flush=True)
"""


def test_when_the_builder_of_eight_processes_is_killed_another_builds_and_all_get_the_file(
    cache: BlobCache, tmp_path: Path, child: Callable
) -> None:
    body, marks = b"x" * 10_000, tmp_path / "marks"
    marks.mkdir()
    blob = Blob(digest_of(body), len(body))
    started = [child(BUILD, cache.root, blob.digest, blob.size, marks) for _ in range(8)]
    while not (building := [int(mark.name) for mark in marks.iterdir()]):
        time.sleep(0.01)
    (first,) = [one for one in started if one.process.pid == building[0]]
    first.kill()
    others = [one for one in started if one is not first]
    assert [one.hears() for one in others] == ["10000"] * 7
    assert [one.end() for one in others] == [0] * 7
    assert len(list(marks.iterdir())) == 2, "the one that was killed, and the one that took over"
    assert {p.suffix for p in cache.root.rglob("*") if p.is_file()} <= {"", ".ok"}
