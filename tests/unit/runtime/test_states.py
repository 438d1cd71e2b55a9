"""The states of a resolver: what a readiness probe, a metric and the log are told."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmartifacts.errors import InvalidInput, NotAllowed, ResolutionError, Unreachable
from llmartifacts.records.lock import Lockfile
from llmartifacts.registry import Registry
from llmartifacts.runtime import lockfile
from llmartifacts.runtime.generation import Generation, Notice
from llmartifacts.runtime.resolver import Resolver
from llmartifacts.runtime.stamp import parse_stamp
from llmartifacts.runtime.standing import EACH, Standing
from llmartifacts.runtime.state import State

BOTH = {"agent": "agent:prod", "kb": "kb:prod"}
OLD = Notice("registry-unreachable", "the registry cannot be had: refused")


@pytest.fixture
def standing(clock) -> Standing:
    return Standing("spec", max_stale=100, overdue=10, clock=clock)


@pytest.fixture
def bundled(registry: Registry, tmp_path: Path) -> Path:
    """A packaged lockfile of `agent` and `kb`."""
    place = tmp_path / "packaged"
    lockfile.install(lockfile.lock(BOTH, registry), registry, place)
    return place


# --- from a start


def test_before_the_start_it_is_not_ready_and_says_so(registry: Registry):
    status = Resolver(BOTH, registry=registry).status()
    assert (status.state, status.ready, status.code) == (State.NOT_READY, False, "not-started")
    assert (status.generation, status.revision, status.source, status.stamp, status.age) == (0, None, None, "", None)
    assert status.reason


def test_a_set_that_the_registry_gave_is_ready_with_all_that_a_probe_wants(cache: Path, registry: Registry):
    resolver = Resolver(BOTH, registry=registry)
    generation = resolver.start()
    status = resolver.status()
    assert (status.state, status.ready, status.code, status.reason) == (State.READY, True, "", "")
    assert (status.generation, status.revision, status.source) == (1, generation.revision, "registry")
    assert status.stamp == generation.stamp()
    assert status.age is not None
    assert status.age >= 0
    assert (status.checks.fetched, status.checks.cached) == (2, 0)
    again = Resolver(BOTH, registry=registry)
    again.start()
    assert (again.status().checks.fetched, again.status().checks.cached) == (0, 2)


def test_a_start_that_fails_is_an_error_with_its_reason(tmp_path: Path):
    resolver = Resolver(BOTH, registry=tmp_path / "gone")
    with pytest.raises(ResolutionError):
        resolver.start()
    status = resolver.status()
    assert (status.state, status.ready, status.code) == (State.ERROR, False, "start-failed")
    assert "no registry at" in status.reason


def test_a_later_start_that_comes_through_is_ready(gated: Registry, gate):
    resolver = Resolver(BOTH, registry=gated)
    gate.error = Unreachable("connection refused")
    with pytest.raises(ResolutionError):
        resolver.start()
    gate.error = None
    resolver.start()
    assert resolver.state is State.READY


def test_a_last_known_good_set_is_stale_and_ready(cache: Path, gated: Registry, gate):
    Resolver(BOTH, registry=gated).start()
    gate.error = Unreachable("connection refused")
    resolver = Resolver(BOTH, registry=gated)
    resolver.start()
    status = resolver.status()
    assert (status.state, status.ready, status.code) == (State.STALE, True, "registry-unreachable")
    assert "connection refused" in status.reason
    assert status.source == "last-known-good"
    assert status.age is not None, "from the time at which it was saved"


def test_a_refused_token_has_a_code_of_its_own(cache: Path, gated: Registry, gate):
    Resolver(BOTH, registry=gated).start()
    gate.error = NotAllowed("the token is no good")
    resolver = Resolver(BOTH, registry=gated)
    resolver.start()
    assert resolver.status().code == "registry-refused"


def test_a_lockfile_that_was_asked_for_is_ready_and_of_no_age(registry: Registry, bundled: Path):
    resolver = Resolver(BOTH, lockfile=bundled, frozen=True)
    resolver.start()
    status = resolver.status()
    assert (status.state, status.source, status.age) == (State.READY, "lockfile", None)


def test_a_closed_resolver_is_not_ready_and_still_gives_what_it_had(registry: Registry):
    resolver = Resolver(BOTH, registry=registry)
    served = resolver.start()
    resolver.close()
    assert (resolver.state, resolver.current) == (State.NOT_READY, served)
    assert resolver.status().reason == "it was closed"


# --- the fallback


def test_with_neither_registry_nor_a_known_set_the_fallback_is_served_and_said(cache: Path, bundled: Path):
    shutil.rmtree(cache, ignore_errors=True)
    resolver = Resolver(BOTH, registry="/nowhere/at/all", fallback=bundled)
    generation = resolver.start()
    assert generation.source == "fallback"
    assert generation.value["kb"].read("kb.txt").startswith(b"kb 1")
    status = resolver.status()
    assert (status.state, status.ready, status.code, status.age) == (State.STALE, True, "fallback", None)
    assert "cannot be had" in status.reason
    assert parse_stamp(generation.stamp()).source == "fallback"


def test_the_fallback_may_be_named_by_its_lockfile_or_by_the_environment(
    cache: Path, bundled: Path, monkeypatch: pytest.MonkeyPatch
):
    shutil.rmtree(cache, ignore_errors=True)
    by_file = Resolver(BOTH, registry="/nowhere/at/all", fallback=bundled / "llmartifacts.lock").start()
    monkeypatch.setenv("LLMARTIFACTS_FALLBACK", str(bundled))
    assert Resolver(BOTH, registry="/nowhere/at/all").start().stamp() == by_file.stamp()


def test_the_last_known_good_set_comes_before_the_fallback(cache: Path, gated: Registry, gate, bundled: Path):
    gated.promote("kb:v2", to="prod", reason="newer than what was packaged")
    Resolver(BOTH, registry=gated).start()
    gate.error = Unreachable("connection refused")
    generation = Resolver(BOTH, registry=gated, fallback=bundled).start()
    assert (generation.source, generation.lock.components["kb"].number) == ("last-known-good", 2)


def test_where_the_kept_bytes_are_damaged_the_fallback_is_served(
    cache: Path, gated: Registry, gate, bundled: Path, flip: Callable[[Path], None]
):
    Resolver(BOTH, registry=gated).start()
    for file in (cache / "sha256").rglob("*"):
        if file.is_file() and not file.suffix:
            flip(file)
    gate.error = Unreachable("connection refused")
    assert Resolver(BOTH, registry=gated, fallback=bundled).start().source == "fallback"


def test_one_error_names_the_registry_the_known_set_and_the_fallback(
    cache: Path, gated: Registry, gate, bundled: Path, flip: Callable[[Path], None]
):
    Resolver(BOTH, registry=gated).start()
    for place in (cache, bundled):
        for file in (place / "sha256").rglob("*"):
            if file.is_file() and not file.suffix:
                flip(file)
    gate.error = Unreachable("connection refused")
    with pytest.raises(ResolutionError) as caught:
        Resolver(BOTH, registry=gated, fallback=bundled).start()
    assert "the last-known-good set cannot stand in" in caught.value.message
    assert "the fallback cannot stand in" in caught.value.message
    assert "connection refused" in caught.value.message
    assert list(caught.value.failures) == ["agent", "kb"]


def test_the_fallback_does_not_stand_in_for_an_alias_that_was_removed(cache: Path, registry: Registry, bundled: Path):
    registry.remove_alias("kb:prod", reason="withdrawn on purpose")
    with pytest.raises(ResolutionError) as caught:
        Resolver(BOTH, registry=registry, fallback=bundled).start()
    assert list(caught.value.failures) == ["kb"]


def test_a_fallback_of_another_spec_is_refused(cache: Path, bundled: Path):
    with pytest.raises(ResolutionError, match="the spec wants kb:staging"):
        Resolver({"kb": "kb:staging"}, registry="/nowhere/at/all", fallback=bundled).start()


# --- the time that a start may take


def test_a_start_ends_within_the_time_that_is_given_to_it(gated: Registry, gate):
    gate.held.add("read")
    resolver = Resolver(BOTH, registry=gated, startup_timeout=3600)
    with pytest.raises(ResolutionError, match=r"out of time after 0\.\d+ s while reading the references"):
        resolver.start(timeout=0.2)
    assert resolver.status().code == "start-failed"
    for bad in (0, -1, float("inf"), "soon"):
        with pytest.raises(InvalidInput) as caught:
            resolver.start(timeout=bad)  # type: ignore[arg-type]
        assert caught.value.field == "timeout"


def test_who_has_less_time_than_the_start_it_joins_leaves_and_does_not_end_it(gated: Registry, gate, until):
    gate.held.add("read")
    resolver = Resolver(BOTH, registry=gated)
    got: list[Any] = []
    first = threading.Thread(target=lambda: got.append(resolver.start(timeout=60)))
    first.start()
    until(lambda: "read" in gate.calls)
    with pytest.raises(ResolutionError, match=r"out of time after 0\.1 s"):
        resolver.start(timeout=0.1)
    assert resolver.state is State.NOT_READY
    gate.let_go()
    first.join()
    assert got == [resolver.current]


def test_sixteen_threads_that_start_it_cold_make_one_fetch(cache: Path, gated: Registry, gate):
    resolver = Resolver(BOTH, registry=gated)
    barrier = threading.Barrier(16)
    got: list[Any] = []

    def run() -> None:
        barrier.wait()
        got.append(resolver.start())

    threads = [threading.Thread(target=run) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 16
    assert len(set(map(id, got))) == 1
    assert gate.calls.count("read") == 1
    assert gate.calls.count("blobs.open") == 2, "one for each of the two files"
    assert resolver.status().checks.fetched == 2


# --- the states by themselves


def test_age_counts_from_the_last_confirmation(standing: Standing, clock):
    standing.started(age=5.0, why=None)
    clock.now += 10
    status = standing.status(served())
    assert (status.state, status.age) == (State.READY, 15.0)
    standing.confirmed(1.0)
    assert standing.status(served()).age == 1.0


def test_what_was_not_confirmed_for_max_stale_turns_red_and_a_look_mends_it(standing: Standing, clock):
    standing.started(age=0.0, why=None)
    clock.now += 100
    assert standing.state is State.READY
    clock.now += 1
    status = standing.status(served())
    assert (status.state, status.ready, status.code) == (State.ERROR, False, "too-old")
    assert "101 s ago, and max_stale is 100 s" in status.reason
    standing.confirmed(0.0)
    assert standing.state is State.READY


def test_a_failed_look_is_stale_then_too_old_then_ready_again(standing: Standing, clock):
    standing.started(age=0.0, why=None)
    standing.looks()
    standing.missed("registry-unreachable", "connection refused")
    assert (standing.state, standing.status(served()).code) == (State.STALE, "registry-unreachable")
    clock.now += 101
    status = standing.status(served())
    assert status.code == "too-old"
    assert "connection refused" in status.reason
    standing.confirmed(0.0)
    assert standing.state is State.READY


def test_the_seconds_served_stale_are_counted_and_those_that_are_red_are_not(standing: Standing, clock):
    standing.started(age=0.0, why=None)
    clock.now += 10
    standing.missed("registry-unreachable", "refused")
    clock.now += 20
    assert standing.status(served()).checks.stale_seconds == 20.0
    clock.now += 200  # of which the first 70 are stale: 100 s after the confirmation it is an error
    assert standing.status(served()).checks.stale_seconds == 90.0
    standing.confirmed(0.0)
    clock.now += 50
    assert standing.status(served()).checks.stale_seconds == 90.0
    standing.missed("alias-missing", "gone", red=True)
    clock.now += 50
    assert standing.status(served()).checks.stale_seconds == 90.0


def test_a_look_that_is_under_way_for_too_long_is_told(standing: Standing, clock):
    standing.started(age=0.0, why=None)
    standing.looks()
    clock.now += 10
    assert standing.state is State.READY
    clock.now += 1
    status = standing.status(served())
    assert (status.state, status.code) == (State.STALE, "registry-unreachable")
    assert "under way for 11 s" in status.reason
    standing.confirmed(0.0)
    assert standing.state is State.READY


def test_checks_count_what_became_of_each_look(standing: Standing):
    standing.started(age=0.0, why=None)
    for _ in range(4):
        standing.looks()
    standing.confirmed(0.0)
    standing.confirmed(0.0, shared=True)
    standing.confirmed(0.0, swap_seconds=0.5)
    standing.missed("newer-set-refused", "damaged")
    checks = standing.status(served()).checks
    assert (checks.made, checks.unchanged, checks.shared, checks.swapped, checks.failed) == (4, 1, 1, 1, 1)
    assert checks.last_swap_seconds == 0.5


def test_each_change_of_state_is_one_line_in_the_log(standing: Standing, clock, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "llmartifacts.resolver")
    standing.started(age=None, why=OLD)
    standing.confirmed(0.0)
    standing.confirmed(0.0)
    standing.missed("registry-unreachable", "refused")
    clock.now += 101
    standing.look_at_itself()
    standing.look_at_itself()
    standing.confirmed(0.0)
    changes = [(r.levelname, r.getMessage().split(": ")[1].split(" (")[0]) for r in caplog.records]
    assert changes == [
        ("WARNING", "NOT_READY -> STALE"),
        ("INFO", "STALE -> READY"),
        ("WARNING", "READY -> STALE"),
        ("ERROR", "STALE -> ERROR"),
        ("INFO", "ERROR -> READY"),
    ]


@pytest.mark.parametrize("asked", [lambda one: one.state, lambda one: one.status(None)])
def test_a_change_that_comes_with_time_alone_is_logged_by_whoever_asks(
    asked: Callable[[Standing], Any], standing: Standing, clock, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, "llmartifacts.resolver")
    standing.started(age=0.0, why=None)
    caplog.clear()
    clock.now += 101
    asked(standing)
    asked(standing)
    (line,) = caplog.messages
    assert "READY -> ERROR (too-old)" in line


def test_the_log_says_what_a_start_serves(registry: Registry, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "llmartifacts.resolver")
    stamp = Resolver(BOTH, registry=registry).start().stamp()
    assert caplog.messages == ["spec: NOT_READY -> READY", f"spec: serves {stamp}"]


def test_a_start_that_fails_is_one_line_in_the_log_that_names_every_component(
    gated: Registry, gate, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, "llmartifacts.resolver")
    gate.error = Unreachable("connection refused\nby the other end")
    resolver = Resolver(BOTH, registry=gated)
    with pytest.raises(ResolutionError):
        resolver.start()
    (line,) = caplog.messages
    assert line.startswith("spec: NOT_READY -> ERROR (start-failed): spec cannot start")
    assert "agent: connection refused by the other end; kb: connection refused by the other end" in line
    assert "\n" not in line + resolver.status().reason


def test_of_looks_that_fail_one_after_another_the_first_and_each_tenth_are_logged(
    standing: Standing, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, "llmartifacts.resolver")
    standing.started(age=0.0, why=None)
    caplog.clear()
    for _ in range(2 * EACH + 5):
        standing.missed("registry-unreachable", "refused")
    standing.missed("registry-refused", "the token expired")
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 4
    assert "READY -> STALE" in said[0]
    assert ["(10 in a row)" in said[1], "(20 in a row)" in said[2]] == [True, True]
    assert "registry-refused" in said[3]


def test_on_missing_alias_is_one_of_two_words(registry: Registry):
    with pytest.raises(InvalidInput) as caught:
        Resolver(BOTH, registry=registry, on_missing_alias="explode")  # type: ignore[call-overload]
    assert caught.value.field == "on_missing_alias"


def served() -> Generation[Any]:
    return Generation(1, {}, Lockfile("default", 1, {}), "registry")
