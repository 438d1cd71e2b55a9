"""What nothing needs is condemned by one gc and swept by a later one, unless somebody relies on it again meanwhile."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import llmartifacts as la
from llmartifacts.blobs.chunks import pack as packs
from llmartifacts.blobs.chunks.entries import ids_of
from llmartifacts.blobs.forms import RECIPE, key_of
from llmartifacts.metadata import condemned
from llmartifacts.records.retention import SHARED_GRACE
from tests.unit.versioning.conftest import Shelf as Opened

HOUR = timedelta(hours=1)
NONE = timedelta(0)
Shelf = Any


def noise(seed: int, size: int = 1_250_000) -> bytes:
    return random.Random(seed).randbytes(size)


def waiting(shelf: Shelf) -> set[str]:
    with shelf.parts.metadata.reading() as s:
        return set(condemned.all_of(s))


def age(shelf: Shelf, by: timedelta) -> None:
    """Let time pass for what is condemned."""
    with shelf.parts.metadata.writing() as s:
        s.run("update condemned set at = at - :by", {"by": int(by.total_seconds() * 1_000_000)})


def test_what_nothing_needs_is_condemned_first_and_swept_after_the_grace_period(shelf: Shelf) -> None:
    shelf.log("kb", noise(1))
    shelf.log("kb", b"small " * 100)
    shelf.log("kb", noise(2))
    before = shelf.files()
    done = shelf.registry.gc(keep_last=1, grace=HOUR)
    assert done.freed <= 0
    assert (done.objects, done.packs) == (0, 0)
    assert done.condemned == len(waiting(shelf)) > 2
    assert before.items() <= shelf.files().items()
    again = shelf.registry.gc(grace=HOUR)
    assert (again.objects, again.packs, again.condemned) == (0, 0, done.condemned)
    age(shelf, HOUR / 2)
    assert shelf.registry.gc(grace=HOUR).objects == 0
    age(shelf, HOUR / 2)
    assert waiting(shelf)
    swept = shelf.registry.gc(grace=HOUR)
    assert swept.objects == 2
    assert swept.packs >= 1
    assert waiting(shelf) == set()
    assert shelf.registry.stats().unused == 0
    assert shelf.read("kb:v3") == noise(2)
    assert shelf.registry.verify(read_data=True).ok


def test_servers_that_share_a_store_wait_for_a_day_and_a_directory_does_not(shelf: Shelf) -> None:
    shelf.log("kb", b"one")
    shelf.log("kb", b"two")
    shelf.parts.shared = True
    assert shelf.registry.gc(keep_last=1).condemned == 1
    age(shelf, SHARED_GRACE - HOUR)
    assert shelf.registry.gc().condemned == 1
    age(shelf, HOUR)
    assert shelf.registry.gc().objects == 1
    shelf.log("kb", b"three")
    shelf.parts.shared = False
    assert shelf.registry.gc(keep_last=1).objects == 1


def test_readers_of_a_pack_that_was_rewritten_go_on_until_it_is_swept(shelf: Shelf) -> None:
    shelf.log("kb", noise(1) + noise(2))
    shelf.log("kb", noise(1, 700_000) + noise(3))
    old = set(shelf.files("packs"))
    shelf.forget("kb:v1")
    place = shelf.parts.blobs.index.find
    chunks = shelf.parts.blobs.recipe(shelf.registry.find("kb:v2").manifest.file("index.faiss").blob).entries()
    before = place(ids_of(chunks))
    done = shelf.registry.gc(compact=True, grace=HOUR)
    assert done.written == 1
    assert old <= set(shelf.files("packs"))
    for one in before.values():  # as somebody reads who looked the places up before
        with shelf.parts.blobs.driver.get(packs.key_of(one.pack), one.offset, one.stored) as stream:
            assert len(stream.read()) == one.stored
    assert {p.pack for p in place(ids_of(chunks)).values()}.isdisjoint(p.pack for p in before.values())
    again = shelf.registry.gc(compact=True, grace=HOUR)
    assert again.written == 0
    age(shelf, HOUR)
    shelf.registry.gc(compact=True, grace=HOUR)
    assert old.isdisjoint(shelf.files("packs"))
    assert shelf.read("kb:v2") == noise(1, 700_000) + noise(3)


@pytest.mark.parametrize("size", [5_000, 1_300_000], ids=["small", "large"])
def test_a_write_that_relies_on_something_condemned_takes_it_off_the_list(shelf: Shelf, size: int) -> None:
    shelf.log("kb", noise(1, size))
    shelf.log("kb", b"newer")
    shelf.registry.gc(keep_last=1, grace=HOUR)
    assert waiting(shelf)
    shelf.log("other", noise(1, size))
    assert waiting(shelf) == set()
    age(shelf, HOUR)
    assert shelf.registry.gc(grace=HOUR).objects == 0
    assert shelf.read("other:v1") == noise(1, size)


def test_its_grace_begins_anew_when_it_is_condemned_again(shelf: Shelf) -> None:
    for content in (noise(1), b"newer"):
        shelf.log("kb", content)
    shelf.registry.gc(keep_last=1, grace=HOUR)
    age(shelf, 2 * HOUR)
    shelf.log("kb", noise(1))
    shelf.log("kb", b"newest")
    done = shelf.registry.gc(keep_last=1, grace=HOUR)
    assert done.removed == ("kb:v1", "kb:v2")
    assert (done.objects, done.packs) == (0, 0)
    assert shelf.log("kb", noise(1)).number == 1
    assert shelf.read("kb:v1") == noise(1)


def test_chunks_that_only_a_condemned_pack_has_are_shared_again(shelf: Shelf) -> None:
    shelf.log("kb", noise(1))
    shelf.forget("kb:v1")
    shelf.registry.gc(grace=HOUR)
    packs_before = set(shelf.files("packs"))
    shelf.log("new", noise(1) + noise(9, 100_000))
    added = sum(size for name, size in shelf.files("packs").items() if name not in packs_before)
    assert added < 400_000, "most of it was stored already"
    assert not {key for key in waiting(shelf) if key.startswith("packs/")}
    age(shelf, HOUR)
    shelf.registry.gc(grace=HOUR)
    assert shelf.read("new:v1") == noise(1) + noise(9, 100_000)


def test_a_recipe_that_is_condemned_and_named_again_spares_its_packs(shelf: Shelf) -> None:
    version = shelf.log("kb", noise(1))
    blob = shelf.registry.find(str(version)).manifest.file("index.faiss").blob
    shelf.log("kb", b"newer")
    shelf.registry.gc(keep_last=1, grace=HOUR)
    assert key_of(blob.digest, RECIPE) in waiting(shelf)
    assert any(key.startswith("packs/") for key in waiting(shelf))
    shelf.log("kb", noise(1))
    assert waiting(shelf) == set()


def test_a_gc_without_grace_sweeps_what_another_condemned(shelf: Shelf) -> None:
    shelf.log("kb", noise(1))
    shelf.forget("kb:v1")
    shelf.registry.gc(grace=HOUR)
    assert shelf.registry.gc(grace=NONE).objects == 1
    assert shelf.files("packs") == {}
    assert waiting(shelf) == set()


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(st.sampled_from(["log", "again", "retain", "gc", "age", "compact"]), min_size=3, max_size=12))
def test_whatever_happens_in_whatever_order_every_version_reads(tmp_path_factory: Any, steps: list[str]) -> None:
    rows = [noise(n, 80_000) for n in range(6)]
    with la.init(tmp_path_factory.mktemp("any") / "registry") as registry:
        shelf = Opened(registry)
        contents: dict[int, bytes] = {}
        choice = random.Random(",".join(steps))
        for step in steps:
            if step == "log" or (step == "again" and not contents):
                content = b"".join(choice.choices(rows, k=14))
                contents[shelf.log("kb", content).number] = content
            elif step == "again":
                number = choice.choice(sorted(contents))
                assert shelf.log("kb", contents[number]).number == number
            elif step == "age":
                age(shelf, HOUR)
            else:
                keep = {"keep_last": 1} if step == "retain" else {}
                registry.gc(grace=HOUR, compact=step == "compact", **keep)
            for version in registry.versions("kb") if contents else ():
                if version.removed_at is None:
                    assert shelf.read(f"kb:v{version.number}") == contents[version.number]
        age(shelf, HOUR)
        registry.gc(compact=True, grace=HOUR)
        age(shelf, HOUR)
        registry.gc(compact=True, grace=HOUR)
        assert registry.stats().unused == 0
        assert registry.verify(read_data=True).ok


# --- killed

_STEPS = """
import os, sys
from datetime import timedelta
import llmartifacts as la
from llmartifacts.metadata import condemned, removals
from llmartifacts.blobs.chunks.sweep import Sweep
from llmartifacts.blobs.local import LocalDriver

left = int(sys.argv[2])
def dying(real):
    def called(*arguments, **more):
        global left
        left -= 1
        if left == 0:
            os._exit(9)
        made = real(*arguments, **more)
        left -= 1
        if left == 0:
            os._exit(9)
        return made
    return called
for owner, name in ((condemned, "replace"), (removals, "mark"), (Sweep, "apply"), (Sweep, "delete"),
                    (LocalDriver, "delete"), (LocalDriver, "put_many")):
    setattr(owner, name, dying(getattr(owner, name)))
with la.connect(sys.argv[1]) as registry:
    registry.gc(keep_last=2, compact=True, grace=timedelta(hours=int(sys.argv[3])))
"""


@pytest.mark.matrix
def test_a_gc_that_is_killed_anywhere_loses_nothing_and_the_next_one_finishes(shelf: Shelf, tmp_path: Path) -> None:
    for number in range(4):
        shelf.log("kb", noise(0, 700_000) + noise(number))
    shelf.log("small", b"text " * 2000)
    shelf.log("small", b"more " * 2000)
    shelf.registry.gc(grace=HOUR)
    shelf.registry.close()
    reached = 0
    for grace in (0, 1):
        for point in range(1, 40):
            place = tmp_path / f"{grace}-{point}"
            shutil.copytree(shelf.place, place)
            done = subprocess.run(
                [sys.executable, "-c", _STEPS, str(place), str(point), str(grace)],
                env={**os.environ, "LLMARTIFACTS_ACTOR": "ann"},
                check=False,
            )
            with la.connect(place) as registry:
                left = Opened(registry)
                for number in (2, 3):
                    assert left.read(f"kb:v{number + 1}") == noise(0, 700_000) + noise(number)
                registry.gc(keep_last=2, compact=True, grace=NONE)
                assert [v.number for v in registry.versions("kb") if v.removed_at is None] == [4, 3]
                assert registry.verify(read_data=True).ok
                assert registry.stats().unused == 0
            shutil.rmtree(place)
            if done.returncode == 0:
                break
            assert done.returncode == 9
            reached += 1
    assert reached >= 12
