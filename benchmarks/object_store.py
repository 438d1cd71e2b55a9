"""Packs and small objects in an object store, through the driver and through its library alone."""

from __future__ import annotations

import os
import random
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from benchmarks.measure import Absent, Bench, Line, Subject, seconds, times_floor

PLACE = "LLMARTIFACTS_BENCH_BLOBS"
"""The variable that names the place, such as `s3://bucket/prefix?endpoint=…`; what is put there is removed."""
PACK = 48 * 1024 * 1024
SMALL = 4096
RANGE = 16 * 1024
AT_ONCE = 6
BESIDE = "obstore alone"
NOTE = "the same store, as many requests at once; obstore alone checks nothing and tries nothing again"


def measure(bench: Bench) -> Iterator[Line | Absent]:
    place = os.environ.get(PLACE, "")
    if not place:
        yield Absent("an object store", f"set {PLACE} to the address of a place in one, and its credentials")
        return
    import obstore

    from llmartifacts.blobs.object_store import ObjectStoreDriver

    head, mark, options = place.partition("?")
    driver = ObjectStoreDriver(f"{head.rstrip('/')}/bench-{secrets.token_hex(4)}{mark}{options}")
    store = driver._store()
    packs, smalls = bench.size(4, 16), bench.size(200, 2000)
    noise = random.Random(1).randbytes(PACK)
    files = []
    for number in range(packs):
        files.append(bench.folder / f"pack-{number}")
        files[-1].write_bytes(noise[number:] + noise[:number])
    chance = random.Random(2)
    starts = sorted(chance.sample(range(0, PACK - RANGE, RANGE), bench.size(200, 1000)))
    taken: list[str] = []

    def keys(count: int) -> list[str]:
        taken.extend(f"bench/{secrets.token_hex(16)}" for _ in range(count))
        return taken[-count:]

    def at_once(work: Callable[[int], object], count: int) -> float:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return seconds(lambda: list(pool.map(work, range(count))))

    def put(count: int, source: Callable[[int], object]) -> float:
        return seconds(partial(driver.put_many, [(k, source(i)) for i, k in enumerate(keys(count))]))  # type: ignore[misc]

    def put_alone(count: int, source: Callable[[int], object]) -> float:
        named = keys(count)
        return at_once(
            lambda i: obstore.put(store, named[i], source(i), mode="create", use_multipart=False),  # type: ignore[arg-type]
            count,
        )

    driver.put_if_absent("bench/first", b"1")  # whether conditions are kept is found out once
    taken.append("bench/first")
    try:
        total = f"{packs} packs of 48 MiB"
        ours, floor = bench.beside(lambda: put(packs, lambda i: files[i]), lambda: put_alone(packs, lambda i: files[i]))
        yield Line(f"put {total}", ours, floor, BESIDE, times_floor(1.2), note=NOTE)

        body = noise[:SMALL]
        ours, floor = bench.beside(lambda: put(smalls, lambda i: body), lambda: put_alone(smalls, lambda i: body))
        yield Line(f"put {smalls:,} small objects", ours, floor, BESIDE, times_floor(1.2), note=NOTE)

        there = keys(packs)
        driver.put_many(list(zip(there, files, strict=True)))
        ranges = [(key, at, min(8 << 20, PACK - at)) for key in there for at in range(0, PACK, 8 << 20)]
        ours, floor = bench.beside(
            lambda: seconds(lambda: sum(len(stream.read()) for stream in driver.get_each(ranges))),
            lambda: at_once(
                lambda i: len(obstore.get_range(store, ranges[i][0], start=ranges[i][1], length=ranges[i][2])),
                len(ranges),
            ),
        )
        yield Line(f"get {total}", ours, floor, BESIDE, times_floor(1.2), note=NOTE)

        scattered = [(there[0], at, RANGE) for at in starts]
        ours, floor = bench.beside(
            lambda: seconds(lambda: sum(len(stream.read()) for stream in driver.get_each(scattered))),
            lambda: seconds(lambda: obstore.get_ranges(store, there[0], starts=starts, lengths=[RANGE] * len(starts))),
        )
        yield Line(f"get {len(starts):,} ranges of a pack", ours, floor, BESIDE, times_floor(1.5), note=NOTE)
    finally:
        obstore.delete(store, taken)


SUBJECT = Subject(
    "object_store",
    f"packs and small objects put into a store and read from it (${PLACE} names it)",
    "the same requests by obstore alone",
    measure,
)
