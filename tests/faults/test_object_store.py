"""An object store that is slow, lies, or fails a third of its calls: typed errors, nothing partial, retry works."""

from __future__ import annotations

import io
import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
from faulting.bad_line import Faulty

from llmartifacts.blobs.base import Driver, Source
from llmartifacts.blobs.cache import BlobCache
from llmartifacts.blobs.chunks.check import check_pack
from llmartifacts.blobs.chunks.pack import parse_key as parse_pack
from llmartifacts.blobs.forms import RECIPE, parse_key
from llmartifacts.blobs.memory import MemoryDriver
from llmartifacts.blobs.store import BlobStore
from llmartifacts.errors import Damaged, Unreachable
from llmartifacts.records.digest import Blob, Digest, digest_of

T = TypeVar("T")
NOISE = random.Random(1).randbytes(3_000_000)
TEXT = b"".join(b'{"id": %d, "text": "order %d"}\n' % (i, i * i) for i in range(60_000))
CONTENTS = {"small": NOISE[:50_000], "small text": TEXT[:50_000], "noise": NOISE, "text": TEXT}


def store_over(driver: Driver, folder: Path) -> BlobStore:
    """As another process would open it: knowing nothing yet, with a cache of its own."""
    own = folder / str(time.monotonic_ns())
    return BlobStore(driver, cache=BlobCache(own / "cache"), scratch=own / "scratch")


def put(store: BlobStore, data: bytes) -> Blob:
    with store.stage() as staging:
        blob = staging.add(io.BytesIO(data))
        staging.publish()
    return blob


def until_it_works(
    call: Callable[[], T],
) -> T:
    for _ in range(20_000):  # a large one takes a dozen calls, and most tries end at the second
        try:
            return call()
        except Unreachable as error:
            told = (str(error), error.hint())
            assert all(told)
    raise AssertionError("it never worked")


def all_is_whole(driver: MemoryDriver, folder: Path) -> set[Digest]:
    """Every object that is really there is right; the digests of blobs."""
    store = store_over(driver, folder)
    found = set()
    for key, size in driver.list():
        pack = parse_pack(key)
        if pack is not None:
            check_pack(driver, pack, size)
            continue
        parsed = parse_key(key)
        assert parsed is not None, key
        data = next(d for d in CONTENTS.values() if digest_of(d) == parsed[0])
        assert store.read(Blob(parsed[0], len(data))) == data
        found.add(parsed[0])
    return found


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.matrix)])
def test_while_a_third_of_the_calls_fails_each_is_a_typed_error_and_trying_again_works_in_the_end(
    tmp_path: Path, seed: int
) -> None:
    driver = Faulty(seed)
    for data in CONTENTS.values():
        driver.fails = 1 / 3
        store = store_over(driver, tmp_path)
        for _ in range(2):
            blob = until_it_works(partial(put, store, data))
        assert digest_of(data) in all_is_whole(driver.inner, tmp_path)
        for fresh in (store, store_over(driver, tmp_path)):
            assert until_it_works(partial(fresh.read, blob)) == data
            until_it_works(partial(fresh.check, blob))
            path = until_it_works(partial(fresh.path, blob))
            assert path.read_bytes() == data
            assert not list(fresh.cache.root.rglob("*.part"))
    assert driver.failed > 10


@pytest.mark.parametrize("seeds", [4, pytest.param(12, marks=pytest.mark.matrix)])
@pytest.mark.parametrize("kind", CONTENTS)
def test_a_put_that_fails_leaves_nothing_that_can_be_seen_in_part(tmp_path: Path, kind: str, seeds: int) -> None:
    for seed in range(seeds):
        driver = Faulty(seed)
        driver.fails = 0.5
        store = store_over(driver, tmp_path)
        try:
            put(store, CONTENTS[kind])
        except Unreachable:
            assert all_is_whole(driver.inner, tmp_path) <= {digest_of(CONTENTS[kind])}
        assert not [p for p in store.scratch.rglob("*") if p.is_file()]
        driver.fails = 0
        put(store, CONTENTS[kind])
        assert all_is_whole(driver.inner, tmp_path) == {digest_of(CONTENTS[kind])}


def test_a_slow_store_gives_the_same(tmp_path: Path) -> None:
    driver = Faulty()
    driver.waits = 0.01
    for data in CONTENTS.values():
        assert store_over(driver, tmp_path).read(put(store_over(driver, tmp_path), data)) == data


def flipped(key: str, data: bytes) -> bytes:
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 8]) + data[at + 1 :]


LIES: dict[str, Callable[[str, bytes], bytes]] = {
    "wrong bytes": flipped,
    "other bytes": lambda key, data: random.Random(len(data)).randbytes(len(data)),
    "zeros": lambda key, data: bytes(len(data)),
    "nothing": lambda key, data: b"",
    "short reads": lambda key, data: data[:-10],
    "half": lambda key, data: data[: len(data) // 2],
    "more": lambda key, data: data + b"more",
}
PLACES = {"packs": "packs/", "recipes": "sha256/"}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("kind", ["noise", "text"])
def test_a_store_that_lies_is_refused_with_the_name_of_an_object(
    tmp_path: Path, kind: str, lie: str, place: str
) -> None:
    driver = Faulty()
    store = store_over(driver, tmp_path)
    blob = put(store, CONTENTS[kind])
    names = {driver.where(key) for key, _ in driver.inner.list()}
    driver.bends = lambda key, data: LIES[lie](key, data) if key.startswith(PLACES[place]) else data
    for one in (store, store_over(driver, tmp_path)):
        for call in (one.read, one.open, one.path, one.check):
            try:
                made: object = call(blob)
            except Damaged as error:
                told = error
                assert told.digest == blob.digest
                assert told.file in names
            else:  # what follows a pack's chunks is nothing that a reader who knows the pack reads
                assert place == "packs"
                assert lie == "more" or (lie == "short reads" and one is store)
                if isinstance(made, io.IOBase):
                    made.close()
        assert not list(one.cache.root.rglob("*.part"))
    driver.bends = lambda key, data: data
    for one in (store, store_over(driver, tmp_path)):
        assert one.read(blob) == CONTENTS[kind]
        assert one.path(blob).read_bytes() == CONTENTS[kind]


@pytest.mark.parametrize("told", [0, 1, 47, 56, 10_000, 2**40, 2**63])
def test_sizes_that_lie_are_refused_or_do_not_matter(tmp_path: Path, told: int) -> None:
    driver = Faulty()
    blob = put(store_over(driver, tmp_path), NOISE)
    driver.sizes = lambda key, size: told
    fresh = store_over(driver, tmp_path)
    for call in (fresh.read, fresh.path, fresh.check, lambda b: fresh.check(b, read_data=False)):
        with pytest.raises(Damaged) as caught:
            call(blob)
        assert caught.value.digest == blob.digest
        assert caught.value.file
    driver.sizes = lambda key, size: size
    assert fresh.read(blob) == NOISE


@pytest.mark.parametrize("place", PLACES)
def test_what_is_listed_and_then_missing_is_refused(tmp_path: Path, place: str) -> None:
    driver = Faulty()
    store = store_over(driver, tmp_path)
    blob = put(store, NOISE)
    driver.hides = lambda key: key.startswith(PLACES[place])
    for one in (store, store_over(driver, tmp_path)):
        for call in (one.read, one.open, one.path, one.check):
            with pytest.raises(Damaged) as caught:
                call(blob)
            assert caught.value.digest == blob.digest
            assert caught.value.file
    driver.hides = lambda key: False
    assert store.read(blob) == store_over(driver, tmp_path).read(blob) == NOISE


def test_what_was_lied_about_while_it_was_logged_again_is_stored_right(tmp_path: Path) -> None:
    """The lie looks like damage, and damage is mended; nothing right is lost by it."""
    for lie in LIES.values():
        driver = Faulty()
        put(store_over(driver, tmp_path), NOISE)
        driver.bends = lie
        store = store_over(driver, tmp_path)
        put(store, NOISE)
        driver.bends = lambda key, data: data
        assert all_is_whole(driver.inner, tmp_path) == {digest_of(NOISE)}


def test_a_writer_whose_answers_get_lost_relies_on_what_is_there(tmp_path: Path) -> None:
    """`put_if_absent` did its work and failed: the next try finds the object, and takes it for somebody else's."""

    class Lost(Faulty):
        lost = 0

        def put_many(self, items: Sequence[tuple[str, Source]]) -> Sequence[bool]:
            done = self.inner.put_many(items)
            self.lost += 1
            if self.lost in (1, 3):
                raise Unreachable("the answer got lost")
            return done

    driver = Lost()
    store = store_over(driver, tmp_path)
    with store.stage() as staging:
        blob = staging.add(NOISE)
        for _ in range(2):
            with pytest.raises(Unreachable):
                staging.publish()
        staging.publish()
    assert store.read(blob) == store_over(driver, tmp_path).read(blob) == NOISE
    assert [key for key, _ in driver.inner.list() if key.endswith(RECIPE)] == [
        f"sha256/{blob.digest[7:9]}/{blob.digest[7:]}{RECIPE}"
    ]
