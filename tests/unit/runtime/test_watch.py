"""Watching: in the background, at intervals, without ever serving half of a set or keeping what is over."""

from __future__ import annotations

import gc
import json
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import llmartifacts as la
from llmartifacts.errors import InvalidInput, Unreachable
from llmartifacts.registry import Registry
from llmartifacts.runtime import watcher as watchers
from llmartifacts.runtime.resolver import Resolver
from llmartifacts.runtime.state import State
from llmartifacts.runtime.watcher import MOST_SECONDS, Outcome, Watcher, pause
from llmartifacts.testing.server import running_server

BOTH = {"agent": "agent:prod", "kb": "kb:prod"}
QUICK = 0.01
NEVER = 3600.0


def threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "llmartifacts-watch"]


@pytest.fixture
def resolver(cache: Path, gated: Registry) -> Iterator[Resolver[Any]]:
    with Resolver(BOTH, registry=gated) as made:
        yield made
    assert threads() == []


# --- how long to wait


@given(interval=st.floats(0.001, 86_400), drawn=st.floats(0, 1))
def test_looks_that_succeed_are_an_interval_apart_give_or_take_a_tenth(interval: float, drawn: float):
    assert 0.9 * interval <= pause(interval, 0, lambda: drawn) * (1 + 1e-9)
    assert pause(interval, 0, lambda: drawn) <= 1.1 * interval * (1 + 1e-9)


@given(interval=st.floats(0.001, 86_400), failures=st.integers(1, 10_000), drawn=st.floats(0, 1))
def test_failures_make_it_longer_up_to_ten_intervals_or_five_minutes(interval: float, failures: int, drawn: float):
    longest = min(10 * interval, max(MOST_SECONDS, interval))
    assert 0 < pause(interval, failures, lambda: drawn) <= longest
    assert pause(interval, failures, lambda: drawn) <= pause(interval, failures + 1, lambda: drawn)


# --- the thread


class Looker:
    """Counts looks; each can be held."""

    def __init__(self, outcome: Outcome | BaseException | None = None) -> None:
        self.outcome = outcome or Outcome()
        self.forced: list[bool] = []
        self.ended = 0

    def look(self, forced: bool) -> Outcome:
        self.forced.append(forced)
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome

    def end(self) -> None:
        self.ended += 1


def test_nothing_runs_before_it_is_needed_and_one_thread_does_it_all(until):
    looker = Looker()
    made = Watcher(looker.look, looker.end)
    assert threads() == []
    made.watch(QUICK)
    made.watch(2 * QUICK)
    until(lambda: len(looker.forced) > 3)
    assert made.ask(30) == Outcome()
    assert len(threads()) == 1
    assert looker.forced.count(True) == 1
    made.close()
    assert (threads(), looker.ended) == ([], 1)
    assert made.ask(30) is None


def test_a_look_that_raises_what_nobody_expects_does_not_end_the_watching(until, caplog: pytest.LogCaptureFixture):
    looker = Looker(SystemExit("from somebody's callback"))
    made = Watcher(looker.look, looker.end)
    made.watch(0.001)
    until(lambda: len(looker.forced) > 2)
    made.close()
    assert "unexpected error" in caplog.text


def test_without_an_interval_the_thread_ends_when_nobody_asks_any_more(until, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(watchers, "IDLE", 0.05)
    looker = Looker()
    made = Watcher(looker.look, looker.end)
    for _ in range(2):
        assert made.ask(30) == Outcome()
        until(lambda: threads() == [])
    assert looker.forced == [True, True]
    assert looker.ended == 2
    made.close()


# --- a resolver that watches


def test_what_is_promoted_is_served_without_anybody_asking(resolver: Resolver[Any], registry: Registry, until):
    told: list[int] = []
    resolver.on_change(lambda new, old: told.append(new.number))
    resolver.watch(QUICK)
    registry.promote(["agent:v2", "kb:v2"], to="prod", reason="second")
    until(lambda: told == [2])
    assert resolver.current.value["agent"].read("agent.txt").startswith(b"agent 2")


def test_watching_twice_changes_the_interval_of_the_one_watcher(resolver: Resolver[Any], registry: Registry, until):
    resolver.watch(NEVER)
    resolver.watch(QUICK)
    assert len(threads()) == 1
    registry.promote("kb:v2", to="prod", reason="second")
    until(lambda: resolver.current.number == 2)


def test_who_waits_for_a_revision_wakes_the_watcher(resolver: Resolver[Any], registry: Registry):
    resolver.watch(NEVER)
    promotion = registry.promote("kb:v2", to="prod", reason="second")
    assert resolver.wait_for(promotion.revision, 30).revision == promotion.revision
    assert len(threads()) == 1


def test_a_revision_may_be_waited_for_before_it_is_there(resolver: Resolver[Any], registry: Registry):
    got: list[int] = []
    now = resolver.current.revision
    waiting = threading.Thread(target=lambda: got.append(resolver.wait_for(now + 1, 30).number))
    waiting.start()
    registry.promote("kb:v2", to="prod", reason="second")
    waiting.join()
    assert got == [2]


def test_a_service_that_started_from_what_it_knew_looks_at_once(cache: Path, gated: Registry, gate, until):
    Resolver(BOTH, registry=gated).start()
    gate.error = Unreachable("connection refused")
    with Resolver(BOTH, registry=gated) as resolver:
        gate.error = None
        resolver.watch(NEVER)
        until(lambda: resolver.state is State.READY)
        assert resolver.current.source == "registry"


def test_with_the_registry_gone_it_serves_on_turns_red_in_time_and_comes_back(
    cache: Path, gated: Registry, gate, until, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, "llmartifacts.resolver")
    with Resolver(BOTH, registry=gated, max_stale=0.5) as resolver:
        served = resolver.current
        resolver.watch(QUICK)
        gate.error = Unreachable("connection refused")
        until(lambda: resolver.state is State.STALE)
        until(lambda: resolver.status().code == "too-old")
        assert not resolver.status().ready
        assert resolver.current is served
        gate.error = None
        until(lambda: resolver.state is State.READY)
    said = [r.getMessage().split(": ")[1].split(" (")[0] for r in caplog.records if "->" in r.getMessage()]
    assert said == [
        "NOT_READY -> READY",
        "READY -> STALE",
        "STALE -> ERROR",
        "ERROR -> READY",
        "READY -> NOT_READY",
    ]


def test_closing_ends_a_look_that_is_held_and_forgets_what_it_would_have_brought(
    resolver: Resolver[Any], registry: Registry, gate, until
):
    gate.calls.clear()
    gate.held.add("blobs.open")
    registry.promote("kb:v2", to="prod", reason="second")
    resolver.watch(QUICK)
    until(lambda: "blobs.open" in gate.calls)
    served = resolver.current
    resolver.close()
    gate.let_go()
    until(lambda: threads() == [])
    assert resolver.current is served
    assert resolver.start().number == 2, "a later start sees it"


def test_an_interval_is_a_positive_number(resolver: Resolver[Any]):
    for bad in (0, -1, float("nan"), "often"):
        with pytest.raises(InvalidInput) as caught:
            resolver.watch(bad)  # type: ignore[arg-type]
        assert caught.value.field == "interval"


# --- never torn


def pairs(registry: Registry) -> None:
    for name in ("left", "right"):
        for side in ("a", "b"):
            registry.log(name, la.Prompt(f"{side}", template_format="f-string"), message=side)


def test_two_components_that_are_promoted_together_are_never_seen_apart(cache: Path, registry: Registry):
    pairs(registry)
    registry.promote(["left:v1", "right:v1"], to="prod", reason="first")
    seen: set[tuple[str, str]] = set()
    over = threading.Event()
    with Resolver({"left": "left:prod", "right": "right:prod"}, registry=registry) as resolver:

        def read() -> None:
            while not over.is_set():
                value = resolver.current.value
                seen.add((value["left"].format(), value["right"].format()))
                time.sleep(0)  # else the interpreter's lock changes hands every 5 ms only

        readers = [threading.Thread(target=read) for _ in range(2)]
        for reader in readers:
            reader.start()
        try:
            for number in range(100):
                goal = "v2" if number % 2 == 0 else "v1"
                made = registry.promote([f"left:{goal}", f"right:{goal}"], to="prod", reason=str(number))
                resolver.wait_for(made.revision, 30)
        finally:
            over.set()
            for reader in readers:
                reader.join()
        assert resolver.status().checks.swapped == 100
    assert seen == {("a", "a"), ("b", "b")}


# --- memory


@pytest.mark.parametrize("swaps", [50, pytest.param(1000, marks=pytest.mark.matrix)])
def test_swapping_a_mapped_index_leaves_no_map_and_no_memory_behind(cache: Path, registry: Registry, swaps: int):
    np = pytest.importorskip("numpy")
    random = np.random.default_rng(7)
    space = la.EmbeddingSpec("toy", 64, metric="l2")
    vectors = random.standard_normal((20_000, 64), dtype=np.float32)  # 5 MB each
    for number in range(2):
        kb = la.VectorIndex.from_vectors(
            vectors + np.float32(number), [f"{number} {n}" for n in range(20_000)], embedding=space, index="Flat"
        )
        registry.log("index", kb)
    registry.promote("index:v1", to="prod", reason="first")

    def mapped() -> int:
        text = Path("/proc/self/maps").read_text()
        return sum(str(cache) in line for line in text.splitlines())

    def megabytes() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

    with Resolver({"index": "index:prod"}, registry=registry) as resolver:
        counts, sizes = [], []
        for number in range(swaps):
            goal = 2 - number % 2
            registry.promote(f"index:v{goal}", to="prod", reason=str(number))
            assert resolver.refresh()
            resolver.current.value["index"].search(vectors[:1], k=1)
            if number >= 10:
                counts.append(mapped())
                sizes.append(megabytes())
        gc.collect()
        assert counts[0] >= 1, "it is mapped"
        assert max(counts) == min(counts)
        assert max(sizes[-10:]) < max(sizes[:10]) + 30


# --- over HTTP


def reads(log: str) -> list[int]:
    """The statuses of the answers to readings of references."""
    lines = [json.loads(line) for line in log.splitlines() if '"event": "request"' in line]
    return [line["status"] for line in lines if line["route"].endswith("/read")]


def test_over_http_a_look_is_one_conditional_request_and_a_server_that_ends_leaves_the_set_serving(
    cache: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch, until
):
    location = registry.backend.location
    with running_server(location) as server:
        monkeypatch.setenv("LLMARTIFACTS_TOKEN", server.token)
        with Resolver(BOTH, registry=server.url) as resolver:
            resolver.refresh()
            until(lambda: reads(server.log_text())[-1:] == [304])  # the line comes after the answer
            before = len(reads(server.log_text()))
            for _ in range(5):
                assert resolver.refresh() is False
            until(lambda: len(reads(server.log_text())) == before + 5)
            assert reads(server.log_text())[before:] == [304] * 5
            resolver.watch(QUICK)
            made = registry.promote(["agent:v2", "kb:v2"], to="prod", reason="second")
            generation = resolver.wait_for(made.revision, 30)
            assert generation.value["kb"].read("kb.txt").startswith(b"kb 2")
            server.stop()
            until(lambda: resolver.state is State.STALE)
            assert resolver.status().code == "registry-unreachable"
            assert resolver.current is generation
