"""The cache stays below its limit: what was used least recently goes, and nothing that is in use."""

from __future__ import annotations

import fcntl
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llmartifacts.blobs import eviction
from llmartifacts.blobs.cache import BlobCache
from llmartifacts.blobs.eviction import DEFAULT_LIMIT, VARIABLE, default_limit, make_room, parse_limit
from llmartifacts.blobs.trust import SUFFIX
from llmartifacts.errors import InvalidInput
from llmartifacts.records.digest import Blob, digest_of

SIZE = 1000


def body(number: int) -> bytes:
    return number.to_bytes(2, "big") * (SIZE // 2)


def blob(number: int) -> Blob:
    return Blob(digest_of(body(number)), SIZE)


def place(root: Path, number: int) -> Path:
    return root / "sha256" / blob(number).digest[7:9] / blob(number).digest[7:]


def aged(path: Path, hours: float) -> None:
    """Let a file have been used last some hours ago; without a record the time it was built counts, which is now."""
    record = path.with_name(path.name + SUFFIX)
    if not record.exists():
        record.write_bytes(b"")
    then = time.time() - hours * 3600
    os.utime(record, (then, then))


def filled(root: Path, count: int) -> list[Path]:
    """A cache of so many files; the first was used longest ago."""
    cache = BlobCache(root, limit="none")
    paths = [Path(cache.put(blob(i), body(i))) for i in range(count)]
    for i, path in enumerate(paths):
        aged(path, hours=count - i)
    return paths


def left(root: Path) -> set[int]:
    return {i for i in range(50) if place(root, i).exists()}


def total(root: Path) -> int:
    return sum(p.stat().st_size for p in (root / "sha256").rglob("*") if len(p.name) == 64)


# --- the limit


@pytest.mark.parametrize(
    ("given", "bytes_"),
    [
        *((1, 1), ("1500000", 1_500_000), ("20GB", 20 * 10**9), ("20 gb", 20 * 10**9), ("1.5GiB", 1.5 * 2**30)),
        *(("3k", 3000), ("2KiB", 2048), ("7B", 7), ("1TB", 10**12), ("none", math.inf), (" NONE ", math.inf)),
    ],
)
def test_a_limit_is_bytes_or_a_size_or_none(given: int | str, bytes_: float) -> None:
    assert parse_limit(given) == bytes_


@pytest.mark.parametrize(
    "given",
    [*("", "0", "-1", "GB", "20XB", "1e9", "nan", "inf", "20GBs", "٣GB", "0.0001B", "1" * 40), 0, -5, True, 1.5, b"1"],
)
def test_nonsense_is_no_limit_and_is_named(given: object, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInput) as caught:
        BlobCache(limit=given)  # type: ignore[arg-type]
    assert caught.value.field == "limit"
    if isinstance(given, str) and given:
        monkeypatch.setenv(VARIABLE, given)
        with pytest.raises(InvalidInput) as caught:
            BlobCache()
        assert caught.value.field == "LLMARTIFACTS_CACHE_LIMIT"
        assert BlobCache(limit=5).limit == 5
        assert BlobCache.temporary().limit == math.inf


def test_the_variable_sets_the_limit_and_an_argument_goes_first(
    cache: BlobCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache.limit == default_limit(cache.root) <= DEFAULT_LIMIT
    monkeypatch.setenv(VARIABLE, "2MB")
    assert BlobCache(cache.root).limit == 2_000_000
    assert BlobCache(cache.root, limit="none").limit == math.inf


def test_without_a_limit_a_small_disk_gives_half_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Small:
        f_frsize, f_blocks = 4096, 1_000_000

    monkeypatch.setattr(os, "statvfs", lambda _: Small)
    assert default_limit(tmp_path) == 2_048_000_000


# --- what goes, and what stays


def test_what_was_used_least_recently_goes_until_the_rest_fits(tmp_path: Path) -> None:
    filled(tmp_path, 6)
    aged(place(tmp_path, 1), hours=0.2)  # built early, used late
    BlobCache(tmp_path, limit=5000).put(blob(6), body(6))
    assert left(tmp_path) == {1, 4, 5, 6}
    assert not [p for p in (tmp_path / "sha256").rglob(f"*{SUFFIX}") if not p.with_suffix("").exists()]


def test_reading_a_file_keeps_it(tmp_path: Path) -> None:
    filled(tmp_path, 4)
    assert BlobCache(tmp_path).read(blob(0)) == body(0)
    BlobCache(tmp_path, limit=4300).put(blob(4), body(4))
    assert left(tmp_path) == {0, 2, 3, 4}


def test_the_file_just_built_and_those_used_in_the_last_minutes_stay(tmp_path: Path) -> None:
    paths = filled(tmp_path, 3)
    for path in paths[1:]:
        aged(path, hours=eviction.RECENT / 3600 - 0.01)
    BlobCache(tmp_path, limit=10).put(blob(3), body(3))
    assert left(tmp_path) == {1, 2, 3}


def test_one_process_that_builds_much_stays_below_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eviction, "RECENT", 0)
    cache = BlobCache(tmp_path, limit=10_000)
    for i in range(40):
        cache.put(blob(i), body(i))
        assert total(tmp_path) <= 10_000
    assert 39 in left(tmp_path)


def test_a_small_build_does_not_look_through_a_cache_with_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Path] = []
    monkeypatch.setattr(eviction, "make_room", lambda root, limit: looked.append(root) or 0)
    cache = BlobCache(tmp_path, limit=80_000)  # an eighth of it is looked after once
    for i in range(21):
        cache.put(blob(i), body(i))
    assert len(looked) == 3, "at the first build, and after each 10,000 bytes"


def test_files_with_other_names_links_and_folders_are_never_removed(tmp_path: Path) -> None:
    (path,) = filled(tmp_path, 1)
    kept = [path.with_name("notes.txt"), path.with_name(path.name + ".bak"), tmp_path / "known-good", tmp_path / "x"]
    for one in kept[:3]:
        one.write_bytes(bytes(5000))
    link = path.with_name(f"{path.name[:2]}{'0' * 62}")
    link.symlink_to(kept[0])
    kept[3].mkdir()
    (tmp_path / "sha256" / "zz").symlink_to(kept[3])
    make_room(tmp_path, 1)
    assert left(tmp_path) == set()
    assert all(one.exists() for one in kept)
    assert link.is_symlink()


def test_a_record_without_its_file_is_removed(tmp_path: Path) -> None:
    path, other = filled(tmp_path, 2)
    path.unlink()
    make_room(tmp_path, 10_000)
    assert not path.with_name(path.name + SUFFIX).exists()
    assert other.with_name(other.name + SUFFIX).exists()


def test_a_cache_on_a_file_system_without_locks_is_never_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path, 3)

    def refused(fd: object, how: int) -> None:
        raise OSError(37, "No locks available")

    cache = BlobCache(tmp_path, limit=10)
    monkeypatch.setattr(eviction.fcntl, "flock", refused)
    cache._room.built(tmp_path, 10, 1)
    assert left(tmp_path) == {0, 1, 2}


# --- several processes


SEARCH = """
import sys
from pathlib import Path
import numpy as np
from llmartifacts.kinds.vector_index.guard import open_index
index = open_index(Path(sys.argv[1])).index
for line in sys.stdin:
    print(index.search(np.eye(1, 8, dtype="f4"), 1)[1][0][0], flush=True)
"""


def test_an_index_that_a_live_process_searches_stays_and_goes_after_its_death(tmp_path: Path, child: Callable) -> None:
    import faiss
    import numpy as np

    index = faiss.IndexFlatIP(8)
    index.add(np.eye(8, dtype="f4"))
    faiss.write_index(index, str(tmp_path / "index"))
    root, data = tmp_path / "cache", (tmp_path / "index").read_bytes()
    path = Path(BlobCache(root).put(Blob(digest_of(data), len(data)), data))
    searching = child(SEARCH, path)
    searching.tell()
    assert searching.hears() == "0"
    filled(root, 3)
    aged(path, hours=100)

    BlobCache(root, limit=1500).put(blob(3), body(3))
    assert left(root) == {3}, "everything else went, though it was used later"
    assert path.exists()
    searching.tell()
    assert searching.hears() == "0"

    searching.kill()
    BlobCache(root, limit=1200).put(blob(4), body(4))
    assert not path.exists()


EVICT = """
import sys
from pathlib import Path
from llmartifacts.blobs import eviction
print("ready", flush=True)
sys.stdin.readline()
print(eviction.make_room(Path(sys.argv[1]), float(sys.argv[2])), flush=True)
"""


def test_processes_that_evict_at_once_remove_no_more_than_one_alone_would(tmp_path: Path, child: Callable) -> None:
    filled(tmp_path, 40)
    started = [child(EVICT, tmp_path, 20_000) for _ in range(4)]
    for one in started:
        assert one.hears() == "ready"
    for one in started:
        one.tell()
    assert {float(one.hears()) for one in started} <= {19_000.0, 20_000.0}
    assert left(tmp_path) == set(range(21, 40))


CHURN = """
import sys, random
from llmartifacts.blobs import eviction
from llmartifacts.blobs.cache import BlobCache
from llmartifacts.records.digest import Blob, digest_of
eviction.RECENT = 0
cache, chance = BlobCache(sys.argv[1], limit=6000), random.Random(int(sys.argv[2]))
for _ in range(150):
    number = chance.randrange(20)
    body = number.to_bytes(2, "big") * 500
    blob = Blob(digest_of(body), 1000)
    path = cache.path(blob, lambda sink: sink.write(body))
    assert path.read_bytes() == body
    assert cache.read(blob) == body
print("good", flush=True)
"""


def test_processes_that_build_use_and_evict_all_the_time_never_miss_what_they_hold(
    tmp_path: Path, child: Callable
) -> None:
    started = [child(CHURN, tmp_path, seed) for seed in range(4)]
    assert [one.hears() for one in started] == ["good"] * 4
    assert [one.end() for one in started] == [0] * 4
    make_room(tmp_path, 6000)
    assert {p.suffix for p in (tmp_path / "sha256").rglob("*") if p.is_file()} <= {"", ".ok"}


BUILD = """
import sys
from llmartifacts.blobs.cache import BlobCache
from llmartifacts.records.digest import Blob
def fetch(sink):
    sink.write(b"half")
    print("building", flush=True)
    sys.stdin.readline()
    sink.write(sys.argv[4].encode() * 100)
print(BlobCache(sys.argv[1]).path(Blob(sys.argv[2], int(sys.argv[3])), fetch).stat().st_size, flush=True)
"""


def test_a_live_builder_is_left_alone_and_what_a_killed_one_left_is_removed(tmp_path: Path, child: Callable) -> None:
    data = b"half" + b"x" * 100
    wanted = Blob(digest_of(data), len(data))
    filled(tmp_path, 1)

    def leftovers() -> set[str]:
        return {p.suffix for p in (tmp_path / "sha256").rglob("*") if p.is_file()} - {"", SUFFIX}

    building = child(BUILD, tmp_path, wanted.digest, wanted.size, "x")
    assert building.hears() == "building"
    make_room(tmp_path, 1)
    assert leftovers() == {".part", ".lock"}
    building.tell()
    assert building.hears() == "104"
    assert leftovers() == set()

    BlobCache(tmp_path)._find(wanted, lambda file, entry: entry).unlink()
    killed = child(BUILD, tmp_path, wanted.digest, wanted.size, "x")
    assert killed.hears() == "building"
    killed.kill()
    assert leftovers() == {".part", ".lock"}
    make_room(tmp_path, 10**9)
    assert leftovers() == set()


def test_a_part_whose_lock_was_removed_is_removed(tmp_path: Path) -> None:
    (path,) = filled(tmp_path, 1)
    path.with_name(f"{path.name}.part").write_bytes(b"left")
    make_room(tmp_path, 10**9)
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name, path.name + SUFFIX]


def test_a_file_that_is_removed_by_hand_while_it_is_built_is_built_again(
    cache: BlobCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[int] = []

    def fetch(sink: object) -> None:
        built.append(1)
        sink.write(body(1))  # type: ignore[attr-defined]

    was = BlobCache._write

    def then_removed(self: BlobCache, entry: Path, *rest: object) -> object:
        held = was(self, entry, *rest)  # type: ignore[arg-type]
        if len(built) < 3:
            entry.unlink()
        return held

    monkeypatch.setattr(BlobCache, "_write", then_removed)
    assert cache.path(blob(1), fetch).read_bytes() == body(1)
    assert len(built) == 3


def test_who_is_evicting_is_waited_for_but_not_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path, 3)
    monkeypatch.setattr(eviction, "_PATIENCE", 0.05)
    fd = os.open(tmp_path / "sha256", os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    assert make_room(tmp_path, 10) == 10
    assert left(tmp_path) == {0, 1, 2}
    os.close(fd)
    make_room(tmp_path, 10)
    assert left(tmp_path) == set()
