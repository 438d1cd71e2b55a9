"""A whole registry whose bytes lie behind a bad line: writers, readers, gc and verify at once, and nothing is lost.

The database is a real one; a third of the calls to the store of bytes fails, before or after the work was done, some
downloads break off in the middle, and some answers are cut short.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from faulting.bad_line import Faulty, Patient
from faulting.operations import PAIR, pair_content, seen

import llmartifacts as la
from llmartifacts.blobs.cache import BlobCache
from llmartifacts.blobs.store import BlobStore
from llmartifacts.errors import Conflict, Damaged, Unreachable
from llmartifacts.metadata.sqlite import SqliteDatabase
from llmartifacts.metadata.store import MetadataStore
from llmartifacts.records.backend import Found
from llmartifacts.registry import Registry
from llmartifacts.versioning.chunk_index import RecordedIndex
from llmartifacts.versioning.embedded import EmbeddedBackend
from llmartifacts.versioning.parts import Parts

T = TypeVar("T")


def opened(place: Path, driver: Faulty) -> Registry:
    """As another server would open it: with a cache of its own."""
    metadata = MetadataStore(SqliteDatabase(place / "registry.db"))
    own = place / "servers" / str(time.monotonic_ns())
    blobs = BlobStore(
        driver,
        cache=BlobCache(own / "cache"),
        scratch=own / "scratch",
        index=lambda given: RecordedIndex(metadata, given),
    )
    return Registry(EmbeddedBackend(Parts(metadata, blobs, str(place))), project="default", actor="tester")


def until_it_works(call: Callable[[], T], lies: bool = False) -> T:
    for _ in range(3000):
        try:
            return call()
        except (Unreachable, Damaged) as error:
            told = error
        assert told.hint(), told
        # An answer that is cut short looks like damage, and is refused.
        assert isinstance(told, Unreachable) or (lies and (told.file or told.digest)), told
    raise AssertionError("it never worked")


def cut_short(chance: random.Random) -> Callable[[str, bytes], bytes]:
    return lambda key, data: data[: len(data) // 2] if chance.random() < 0.2 else data


@pytest.mark.slow
@pytest.mark.parametrize(
    ("versions", "fails", "waits", "cuts"),
    [
        (3, 0.3, 0.0, False),
        pytest.param(40, 0.3, 0.0, False, marks=pytest.mark.faults),
        pytest.param(20, 0.0, 0.01, False, marks=pytest.mark.faults),
        pytest.param(20, 0.1, 0.0, True, marks=pytest.mark.faults),
    ],
)
def test_writers_readers_and_gc_over_a_bad_line_lose_nothing(
    tmp_path: Path, versions: int, fails: float, waits: float, cuts: bool
) -> None:
    place, driver = tmp_path / "r", Patient(versions)
    la.init(place).close()
    acknowledged, stopped, wrong = [0], threading.Event(), []

    def guarded(work: Callable[[Registry], Any]) -> threading.Thread:
        def run() -> None:
            try:
                work(opened(place, driver))
            except BaseException as error:
                wrong.append(error)
                stopped.set()

        made = threading.Thread(target=run)
        made.start()
        return made

    def write(registry: Registry) -> None:
        for number in range(1, versions + 1):
            pairs = [(name, la.Files(pair_content(number))) for name in PAIR]
            made = until_it_works(lambda: registry.log_many(pairs, aliases="prod"), cuts)  # noqa: B023 - called at once
            assert [version.number for version in made] == [number, number]
            acknowledged[0] = number
            if stopped.is_set():
                return

    def read(registry: Registry) -> None:
        while not stopped.is_set():
            least = acknowledged[0]
            if not least:
                continue
            found = [f for f in registry.read([f"{name}:prod" for name in PAIR]).items if isinstance(f, Found)]
            numbers = {one.version.number for one in found}
            assert len(found) == len(PAIR)
            assert len(numbers) == 1, f"half of a set was seen: {numbers}"
            assert min(numbers) >= least, "an acknowledged set was not seen"
            for one in found:
                value = until_it_works(lambda: registry.load(one.manifest), cuts)  # noqa: B023 - called at once
                for path, content in pair_content(one.version.number).items():
                    assert until_it_works(lambda: value.read(path), cuts) == content  # noqa: B023

    def collect(registry: Registry) -> None:
        while not stopped.is_set():
            with suppress(Unreachable, Damaged, Conflict):
                registry.gc(grace=timedelta(minutes=5))
                registry.verify()

    driver.fails, driver.waits = fails, waits
    if cuts:
        driver.bends = cut_short(random.Random(versions))
    writer = guarded(write)
    others = [guarded(work) for work in (read, read, collect)]
    writer.join()
    stopped.set()
    for thread in others:
        thread.join()
    if wrong:
        raise wrong[0]
    assert driver.failed > versions or not fails

    driver.fails, driver.waits, driver.bends = 0.0, 0.0, lambda key, data: data
    with opened(place, driver) as registry:
        assert registry.verify(read_data=True).ok
        assert registry.verify_audit().ok
        state = seen(registry)
        assert [number for number, _, _ in state["versions"][PAIR[0]]] == list(range(versions, 0, -1))
        registry.gc(grace=timedelta(0), compact=True)
        assert registry.stats().unused == 0
        assert seen(registry)["versions"] == state["versions"]
        for name in PAIR:
            value = registry.resolve(f"{name}:v{versions}", la.Files)
            assert {path: value.read(path) for path in value.paths()} == pair_content(versions)
