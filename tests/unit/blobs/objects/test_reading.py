"""Which ranges are asked for together, and that any of them come out as they lie, in order and in bounded memory."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.blobs.objects import reading
from llmartifacts.blobs.objects.reading import ObjectStream, Part, fetch_each, together
from llmartifacts.errors import BlobMissing

OBJECTS = {key: random.Random(key).randbytes(40_000) for key in ("a", "b")}
RANGES = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 39_000), st.integers(0, 1000)), max_size=40)


def fetch(key: str, start: int, count: int) -> Part:
    if key not in OBJECTS:
        raise BlobMissing(f"there is no {key}")
    return Part(OBJECTS[key][start : start + count], len(OBJECTS[key]), "tag")


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as made:
        yield made


@given(RANGES, st.booleans())
def test_ranges_come_out_in_order_however_they_are_asked_for(
    pool: ThreadPoolExecutor, ranges: list[tuple[str, int, int]], ascending: bool
) -> None:
    ranges = sorted(ranges) if ascending else ranges
    got = [stream.read() for stream in fetch_each(ranges, fetch, pool)]
    assert got == [OBJECTS[key][start : start + length] for key, start, length in ranges]
    asked = list(together(ranges))
    assert sum(len(one.ranges) for one in asked) == len(ranges)
    assert all(one.end - one.start <= reading.PART for one in asked)


def test_neighbours_are_one_request_and_strangers_are_not() -> None:
    near, far = reading._GAP, reading._GAP + 1
    assert len(list(together([("a", 0, 10), ("a", 10, 10), ("a", 20 + near, 1)]))) == 1
    assert len(list(together([("a", 0, 10), ("a", 10 + far, 1)]))) == 2
    assert len(list(together([("a", 0, 10), ("b", 10, 1)]))) == 2
    assert len(list(together([("a", 10, 10), ("a", 5, 1)]))) == 2
    assert len(list(together([("a", 0, reading.PART), ("a", reading.PART, 1)]))) == 2


def test_what_is_fetched_ahead_has_a_bound(pool: ThreadPoolExecutor) -> None:
    out, most, lock = [0], [0], threading.Lock()

    def counted(key: str, start: int, count: int) -> Part:
        with lock:
            out[0] += count
            most[0] = max(most[0], out[0])
        return Part(bytes(count), 1 << 40, "tag")

    ranges = [("a", at * 2 * reading.PART, reading.PART) for at in range(30)]
    for stream in fetch_each(ranges, counted, pool):
        assert len(stream.read()) == reading.PART
        with lock:
            out[0] -= reading.PART
    assert most[0] <= reading._AHEAD + reading.PART


def test_an_object_that_is_missing_is_told_when_it_is_its_turn(pool: ThreadPoolExecutor) -> None:
    streams = fetch_each([("a", 0, 10), ("gone", 0, 10), ("a", 20, 10)], fetch, pool)
    assert next(streams).read() == OBJECTS["a"][:10]
    with pytest.raises(BlobMissing):
        next(streams)


@given(st.integers(0, 40_000), st.integers(0, 45_000), st.integers(2000, 9000), st.integers(100, 9000))
def test_a_stream_is_the_range_that_it_is_of(
    pool: ThreadPoolExecutor, start: int, length: int, part: int, piece: int
) -> None:
    first = fetch("a", start, min(part, length))
    before, reading.PART = reading.PART, part
    try:
        with ObjectStream("a", first, start, start + length, fetch, pool, lambda: None) as stream:
            got = b"".join(iter(lambda: stream.read(piece), b""))
    finally:
        reading.PART = before
    assert got == OBJECTS["a"][start : start + length]
