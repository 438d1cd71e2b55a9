"""One look: what is served stays, or is swapped whole; what kept a newer set out is told."""

from __future__ import annotations

import gc
import shutil
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest

import llmartifacts as la
from llmartifacts.errors import (
    DeadlineExceeded,
    DigestMismatch,
    InvalidInput,
    NotAllowed,
    NotFound,
    Refused,
    ResolutionError,
    Unreachable,
    Yanked,
)
from llmartifacts.records.backend import Reading
from llmartifacts.records.compatibility import Problem
from llmartifacts.records.reference import Reference
from llmartifacts.records.version import Found
from llmartifacts.registry import Registry
from llmartifacts.runtime import known_good, lockfile, refresh
from llmartifacts.runtime.generation import Generation
from llmartifacts.runtime.resolver import Resolver
from llmartifacts.runtime.stamp import parse_stamp
from llmartifacts.runtime.state import State

BOTH = {"agent": "agent:prod", "kb": "kb:prod"}
SECONDS = 30


@pytest.fixture
def resolver(cache: Path, gated: Registry) -> Iterator[Resolver[Any]]:
    """Started, at v1 of both."""
    with Resolver(BOTH, registry=gated) as made:
        yield made


def numbers(generation: Generation[Any]) -> dict[str, int]:
    return {name: locked.number for name, locked in generation.lock.components.items()}


def damage(registry: Registry, reference: str, flip: Callable[[Path], None]) -> None:
    hexdigest = registry.find(reference).manifest.files[0].digest[7:]
    (stored,) = [p for p in Path(registry.backend.location).rglob("*") if p.name.startswith(hexdigest)]
    flip(stored)


# --- nothing new


def test_a_look_that_finds_nothing_new_asks_one_question_and_changes_nothing(resolver: Resolver[Any], gate):
    before = resolver.current
    resolver.refresh()
    gate.calls.clear()
    assert resolver.refresh() is False
    assert gate.calls == ["read"]
    assert resolver.current is before
    status = resolver.status()
    assert (status.state, status.checks.unchanged, status.checks.swapped) == (State.READY, 2, 0)


def test_an_embedded_registry_named_by_its_place_is_opened_once_for_many_looks(
    cache: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
):
    opened: list[Any] = []
    real = la.connect
    monkeypatch.setattr("llmartifacts.runtime.place.connect", lambda *a: opened.append(a) or real(*a))
    with Resolver(BOTH, registry=registry.backend.location) as resolver:
        opened.clear()
        for _ in range(5):
            resolver.refresh()
    assert len(opened) == 1


def test_what_else_moved_in_the_project_is_nothing_new_and_is_waited_for_all_the_same(
    resolver: Resolver[Any], registry: Registry
):
    before = resolver.current
    other = registry.promote("kb:v2", to="staging", reason="somebody else's")
    assert resolver.wait_for(other.revision, SECONDS) is before
    assert resolver.status().checks.swapped == 0


# --- something new


def test_a_new_set_is_swapped_in_whole_and_the_old_one_stays_with_who_holds_it(
    resolver: Resolver[Any], registry: Registry
):
    before = resolver.current
    promotion = registry.promote(["agent:v2", "kb:v2"], to="prod", reason="second")
    assert resolver.refresh() is True
    after = resolver.current
    assert (after.number, after.revision, after.source, numbers(after)) == (
        2,
        promotion.revision,
        "registry",
        {"agent": 2, "kb": 2},
    )
    assert after.value["kb"].read("kb.txt").startswith(b"kb 2")
    assert before.value["kb"].read("kb.txt").startswith(b"kb 1")
    assert numbers(before) == {"agent": 1, "kb": 1}
    checks = resolver.status().checks
    assert checks.swapped == 1
    assert checks.last_swap_seconds is not None
    assert checks.fetched == 4


def test_a_component_that_did_not_move_is_not_loaded_again(resolver: Resolver[Any], registry: Registry):
    before = resolver.current
    registry.promote("kb:v2", to="prod", reason="one of two")
    assert resolver.refresh()
    assert resolver.current.value["agent"] is before.value["agent"]
    assert resolver.current.value["kb"] is not before.value["kb"]


def test_a_typed_set_is_swapped_too_and_an_optional_field_comes_and_goes(cache: Path, registry: Registry):
    @dataclass(frozen=True)
    class Wanted:
        kb: Annotated[la.Files, "kb:prod"]
        extra: Annotated[la.Files | None, "extra:prod"] = None

    with Resolver(Wanted, registry=registry) as resolver:
        assert resolver.current.value.extra is None
        registry.log("extra", la.Files({"a": b"1"}), aliases="prod")
        assert resolver.refresh()
        assert resolver.current.value.extra is not None
        registry.remove_alias("extra:prod", reason="not any more")
        assert resolver.refresh()
        assert resolver.current.value.extra is None
        assert resolver.state is State.READY


def test_a_bundle_that_moved_is_followed(cache: Path, registry: Registry):
    @dataclass(frozen=True)
    class Stack:
        agent: la.Files
        kb: la.Files

    registry.log("stack", la.Bundle({"agent": "agent:v1", "kb": "kb:v1"}, {}), aliases="prod")
    with Resolver(Stack, "stack:prod", registry=registry) as resolver:
        assert not resolver.refresh()
        registry.log("stack", la.Bundle({"agent": "agent:v1", "kb": "kb:v2"}, {}), aliases="prod")
        assert resolver.refresh()
        assert resolver.current.value.kb.read("kb.txt").startswith(b"kb 2")


def test_the_set_that_was_swapped_in_is_the_last_known_good_one(
    resolver: Resolver[Any], cache: Path, registry: Registry, gated: Registry, gate
):
    registry.promote("kb:v2", to="prod", reason="second")
    resolver.refresh()
    gate.error = Unreachable("connection refused")
    again = Resolver(BOTH, registry=gated).start()
    assert (again.source, numbers(again)) == ("last-known-good", {"agent": 1, "kb": 2})


def test_a_set_that_stood_in_becomes_the_registry_s_once_that_confirms_it(
    cache: Path, gated: Registry, gate, registry: Registry
):
    Resolver(BOTH, registry=gated).start()
    gate.error = Unreachable("connection refused")
    with Resolver(BOTH, registry=gated) as resolver:
        before = resolver.current
        gate.error = None
        assert resolver.refresh()
        after = resolver.current
        assert (after.number, after.source, after.warnings) == (2, "registry", ())
        assert after.value is before.value, "nothing was loaded again"
        assert resolver.state is State.READY
        assert parse_stamp(after.stamp()).source == "registry"


def test_a_fallback_gives_way_to_the_registry(cache: Path, registry: Registry, gated: Registry, gate, tmp_path: Path):
    lockfile.install(lockfile.lock(BOTH, registry), registry, tmp_path / "packaged")
    registry.promote("kb:v2", to="prod", reason="newer than what was packaged")
    gate.error = Unreachable("connection refused")
    with Resolver(BOTH, registry=gated, fallback=tmp_path / "packaged") as resolver:
        assert resolver.current.source == "fallback"
        gate.error = None
        assert resolver.refresh()
        assert (resolver.current.source, numbers(resolver.current)["kb"]) == ("registry", 2)
        assert resolver.state is State.READY


# --- what keeps a new set out


def test_a_registry_that_cannot_be_had_leaves_the_old_set_and_says_why(resolver: Resolver[Any], gate):
    before = resolver.current
    gate.error = Unreachable("connection refused")
    with pytest.raises(Unreachable, match="connection refused"):
        resolver.refresh()
    status = resolver.status()
    assert (status.state, status.ready, status.code) == (State.STALE, True, "registry-unreachable")
    assert "connection refused" in status.reason
    assert resolver.current is before
    assert before.warnings == (), "what is served is what it was; only the state is told"
    gate.error = None
    resolver.refresh()
    assert (resolver.state, resolver.current) == (State.READY, before)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotAllowed("the token expired"), "registry-refused"),
        (RuntimeError("a driver's own error"), "registry-unreachable"),
        (NotFound("there is no project", what="project", name="default"), "alias-missing"),
        (NotFound("there is no registry", what="registry", name="x"), "registry-unreachable"),
    ],
)
def test_each_sort_of_trouble_has_its_code(resolver: Resolver[Any], gate, error: Exception, code: str):
    gate.error = error
    with pytest.raises(Exception, match=str(error)[:12]):
        resolver.refresh()
    assert (resolver.status().code, resolver.status().ready) == (code, True)


def test_a_damaged_new_version_is_not_served_and_not_loaded_again_until_something_moves(
    resolver: Resolver[Any], registry: Registry, gate, flip: Callable[[Path], None]
):
    before = resolver.current
    registry.promote("kb:v2", to="prod", reason="second")
    damage(registry, "kb:v2", flip)
    for _ in range(3):
        with pytest.raises(ResolutionError) as caught:
            resolver.refresh()
        assert isinstance(caught.value.failures["kb"], DigestMismatch)
        assert caught.value.message == "spec cannot be brought up to date", "it serves: nothing kept it from starting"
    assert gate.calls.count("blobs.open") == 3, "two at the start, and one that was damaged"
    assert resolver.current is before
    assert (resolver.status().code, resolver.status().checks.failed) == ("newer-set-refused", 3)
    damage(registry, "kb:v2", flip)  # and back
    registry.promote("agent:v2", to="prod", reason="something moved")
    assert resolver.refresh()
    assert numbers(resolver.current) == {"agent": 2, "kb": 2}


def test_a_set_that_was_refused_is_tried_again_after_some_minutes(
    resolver: Resolver[Any], registry: Registry, flip: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(refresh, "REFUSED_FOR", 0.0)
    registry.promote("kb:v2", to="prod", reason="second")
    damage(registry, "kb:v2", flip)
    with pytest.raises(ResolutionError):
        resolver.refresh()
    damage(registry, "kb:v2", flip)
    assert resolver.refresh()


def test_a_registry_that_is_lost_while_bytes_are_fetched_is_not_the_set_s_fault(
    resolver: Resolver[Any], registry: Registry, gate
):
    registry.promote("kb:v2", to="prod", reason="second")
    real = gate.pass_through

    def lost(name: str) -> None:
        if name == "blobs.open":
            raise Unreachable("the connection broke off")
        real(name)

    gate.pass_through = lost
    with pytest.raises(ResolutionError, match="broke off"):
        resolver.refresh()
    assert resolver.status().code == "registry-unreachable"
    gate.pass_through = real
    assert resolver.refresh(), "tried again at once, for the set was not refused"


def test_a_set_that_does_not_fit_together_is_not_served(
    resolver: Resolver[Any], registry: Registry, monkeypatch: pytest.MonkeyPatch
):
    def check(members, parts, installed):
        return [Problem("index-dimension", "error", (members[1].manifest.digest,), "384 is not 768", "Rebuild it.")]

    monkeypatch.setattr("llmartifacts.runtime.load.check_set", check)
    registry.promote("kb:v2", to="prod", reason="second")
    with pytest.raises(ResolutionError, match="384 is not 768"):
        resolver.refresh()
    assert numbers(resolver.current) == {"agent": 1, "kb": 1}
    assert "384 is not 768" in resolver.status().reason


def test_a_new_version_of_another_kind_is_not_served(cache: Path, registry: Registry):
    @dataclass(frozen=True)
    class Wanted:
        kb: Annotated[la.Files, "kb:prod"]

        def __post_init__(self) -> None:
            if self.kb.read("kb.txt").startswith(b"kb 2"):
                raise ValueError("the service's own check says no")

    with Resolver(Wanted, registry=registry) as resolver:
        registry.promote("kb:v2", to="prod", reason="second")
        with pytest.raises(ResolutionError, match="own check says no"):
            resolver.refresh()
        assert numbers(resolver.current) == {"kb": 1}


def test_an_alias_that_vanished_keeps_what_is_served_and_says_so(resolver: Resolver[Any], registry: Registry):
    before = resolver.current
    registry.remove_alias("kb:prod", reason="withdrawn")
    with pytest.raises(ResolutionError) as caught:
        resolver.refresh()
    assert isinstance(caught.value.failures["kb"], NotFound)
    status = resolver.status()
    assert (status.state, status.ready, status.code) == (State.STALE, True, "alias-missing")
    assert "kb" in status.reason
    assert resolver.current is before


def test_an_alias_that_vanished_turns_readiness_red_where_that_is_asked_for(cache: Path, registry: Registry):
    with Resolver(BOTH, registry=registry, on_missing_alias="fail") as resolver:
        before = resolver.current
        registry.remove_alias("kb:prod", reason="withdrawn")
        with pytest.raises(ResolutionError):
            resolver.refresh()
        status = resolver.status()
        assert (status.state, status.ready, status.code) == (State.ERROR, False, "alias-missing")
        assert resolver.current is before, "for the requests that are under way"
        registry.promote("kb:v1", to="prod", reason="back")
        resolver.refresh()
        assert resolver.state is State.READY


def test_a_version_that_is_withdrawn_while_it_is_served_is_told_of(cache: Path, registry: Registry):
    with Resolver({"kb": "kb:v2"}, registry=registry) as resolver:
        registry.yank("kb:v2", reason="wrong corpus")
        with pytest.raises(ResolutionError) as caught:
            resolver.refresh()
        assert isinstance(caught.value.failures["kb"], Yanked)
        status = resolver.status()
        assert (status.state, status.code) == (State.STALE, "newer-set-refused")
        assert "wrong corpus" in status.reason


def test_a_pinned_version_that_is_withdrawn_gets_a_warning_into_the_stamp_and_is_not_loaded_again(
    cache: Path, registry: Registry
):
    digest = registry.get("kb:v2").digest
    with Resolver({"kb": f"kb@{digest}"}, registry=registry) as resolver:
        before = resolver.current
        registry.yank("kb:v2", reason="wrong corpus")
        assert resolver.refresh()
        after = resolver.current
        assert after.value is before.value
        assert parse_stamp(after.stamp()).warnings == (("yanked", "kb"),)
        assert resolver.refresh() is False, "once is enough"


# --- a registry that is older than it was


@pytest.fixture
def older(cache: Path, registry: Registry, tmp_path: Path) -> Callable[[], None]:
    """Call it to put back the registry as it was before `kb:v2` became `prod`."""
    location = Path(registry.backend.location)
    shutil.copytree(location, tmp_path / "backup")
    registry.promote("kb:v2", to="prod", reason="second")

    def put_back() -> None:
        registry.close()
        location.rename(tmp_path / "newer")
        shutil.copytree(tmp_path / "backup", location)

    return put_back


def test_a_running_service_does_not_follow_a_registry_that_went_back(older: Callable[[], None], registry: Registry):
    with Resolver(BOTH, registry=registry.backend.location) as resolver:
        before = resolver.current
        older()
        with pytest.raises(Refused, match="an older copy of it") as caught:
            resolver.refresh()
        assert "LLMARTIFACTS_ACCEPT_REVISION=default@r2" in caught.value.hint()
        status = resolver.status()
        assert (status.state, status.ready, status.code) == (State.STALE, True, "revision-went-back")
        assert resolver.current is before
        assert numbers(before)["kb"] == 2


def test_a_start_from_a_registry_that_went_back_serves_what_is_known(older: Callable[[], None], registry: Registry):
    location = registry.backend.location
    Resolver(BOTH, registry=location).start()
    older()
    resolver = Resolver(BOTH, registry=location)
    generation = resolver.start()
    assert (generation.source, numbers(generation)["kb"]) == ("last-known-good", 2)
    assert [w.code for w in generation.warnings] == ["revision-went-back"]
    assert (resolver.state, resolver.status().code) == (State.STALE, "revision-went-back")


def test_with_nothing_known_on_this_host_an_older_registry_is_as_good_as_any(
    older: Callable[[], None], registry: Registry
):
    older()
    assert Resolver(BOTH, registry=registry.backend.location).start().source == "registry"


@pytest.mark.parametrize(
    ("accepted", "followed"),
    [("default@r2", True), ("default@r1", True), ("default@r3", False), ("other@r2", False), ("r2", False)],
)
def test_an_older_registry_is_followed_where_somebody_says_from_which_revision_on(
    older: Callable[[], None], registry: Registry, monkeypatch: pytest.MonkeyPatch, accepted: str, followed: bool
):
    location = registry.backend.location
    with Resolver(BOTH, registry=location) as running:
        older()
        monkeypatch.setenv("LLMARTIFACTS_ACCEPT_REVISION", accepted)
        starting = Resolver(BOTH, registry=location).start()
        if not followed:
            assert starting.source == "last-known-good"
            with pytest.raises(Refused):
                running.refresh()
            return
        assert (starting.source, [w.code for w in starting.warnings]) == ("registry", ["revision-went-back"])
        assert running.refresh()
        assert [w.code for w in running.current.warnings] == ["revision-went-back"]
        assert (numbers(running.current)["kb"], running.state) == (1, State.READY)
        monkeypatch.delenv("LLMARTIFACTS_ACCEPT_REVISION")
        assert running.refresh() is False
        assert Resolver(BOTH, registry=location).start().source == "registry", "it was written down"


def test_a_registry_that_was_made_anew_is_followed_and_told_of(cache: Path, registry: Registry, tmp_path: Path):
    location = Path(registry.backend.location)
    registry.promote(["kb:v2", "agent:v2"], to="prod", reason="second")
    with Resolver(BOTH, registry=location) as running:
        registry.close()
        location.rename(tmp_path / "away")
        with la.init(location) as other:
            other.log("agent", la.Files({"agent.txt": b"new"}), aliases="prod")
            other.log("kb", la.Files({"kb.txt": b"new"}), aliases="prod")
        starting = Resolver(BOTH, registry=location).start()
        assert (starting.source, [w.code for w in starting.warnings]) == ("registry", ["registry-replaced"])
        assert running.refresh()
        assert [w.code for w in running.current.warnings] == ["registry-replaced"]
        assert running.current.value["kb"].read("kb.txt") == b"new"
        assert running.refresh() is False


# --- who asks, and who is told


def test_whoever_comes_while_a_look_runs_waits_for_that_one(resolver: Resolver[Any], gate, registry: Registry, until):
    gate.calls.clear()
    gate.held.add("read")
    got: list[bool] = []
    threads = [threading.Thread(target=lambda: got.append(resolver.refresh(SECONDS))) for _ in range(8)]
    threads[0].start()
    until(lambda: gate.calls == ["read"])
    for thread in threads[1:]:
        thread.start()
    until(lambda: sum(t.name.startswith("Thread") for t in threading.enumerate()) >= 8)
    time.sleep(0.05)
    registry.promote("kb:v2", to="prod", reason="second")
    gate.let_go()
    for thread in threads:
        thread.join()
    assert got == [True] * 8
    assert gate.calls.count("read") == 1


def test_a_look_that_takes_too_long_is_left_to_itself_and_swaps_when_it_ends(
    resolver: Resolver[Any], gate, registry: Registry, until
):
    gate.held.add("read")
    registry.promote("kb:v2", to="prod", reason="second")
    with pytest.raises(DeadlineExceeded):
        resolver.refresh(0.1)
    gate.let_go()
    until(lambda: resolver.current.number == 2)


def test_callbacks_are_told_of_each_swap_until_they_are_removed(
    cache: Path, registry: Registry, caplog: pytest.LogCaptureFixture
):
    resolver = Resolver(BOTH, registry=registry)
    told: list[tuple[int, int | None]] = []

    def broken(new: Generation[Any], old: Generation[Any] | None) -> None:
        raise RuntimeError("the callback's own")

    resolver.on_change(broken)
    remove = resolver.on_change(lambda new, old: told.append((new.number, old and old.number)))
    resolver.start()
    registry.promote("kb:v2", to="prod", reason="second")
    assert resolver.refresh(), "an error of a callback is nobody else's"
    assert resolver.refresh() is False
    remove()
    registry.promote("kb:v1", to="prod", reason="back")
    assert resolver.refresh()
    resolver.close()
    assert told == [(1, None), (2, 1)]
    assert "the callback's own" in caplog.text


def test_a_callback_is_removed_without_waiting_for_anybody(resolver: Resolver[Any], registry: Registry):
    told: list[int] = []
    remove = resolver.on_change(lambda new, _: told.append(new.number))
    with resolver._lock:  # as where garbage is collected in a thread that holds it
        remove()
        remove()
    registry.promote("kb:v2", to="prod", reason="second")
    assert resolver.refresh()
    assert told == []


def test_a_callback_may_remove_itself_and_another(resolver: Resolver[Any], registry: Registry):
    told: list[str] = []

    def first(new: Any, old: Any) -> None:
        told.append("first")
        for remove in removers:
            remove()

    removers = [resolver.on_change(first), resolver.on_change(lambda new, old: told.append("second"))]
    registry.promote("kb:v2", to="prod", reason="second")
    assert resolver.refresh()
    assert told == ["first", "second"], "who was there when it was swapped is told"
    registry.promote("agent:v2", to="prod", reason="more")
    assert resolver.refresh()
    assert told == ["first", "second"]


def test_a_callback_may_use_the_resolver(resolver: Resolver[Any], registry: Registry):
    seen: list[Any] = []
    resolver.on_change(lambda new, old: seen.append((resolver.current is new, resolver.refresh(), resolver.state)))
    registry.promote("kb:v2", to="prod", reason="second")
    assert resolver.refresh()
    assert seen == [(True, False, State.READY)]


def test_a_callback_may_close_the_resolver(resolver: Resolver[Any], registry: Registry):
    resolver.on_change(lambda new, old: resolver.close())
    registry.promote("kb:v2", to="prod", reason="second")
    assert resolver.refresh()
    assert resolver.state is State.NOT_READY
    with pytest.raises(ResolutionError, match="was closed"):
        resolver.refresh()


def test_before_the_start_nothing_can_be_followed(registry: Registry):
    resolver = Resolver(BOTH, registry=registry)
    for call in (resolver.refresh, resolver.watch, lambda: resolver.wait_for(1)):
        with pytest.raises(ResolutionError, match="has not started"):
            call()


def test_a_resolver_of_a_lockfile_follows_nothing(cache: Path, registry: Registry, tmp_path: Path):
    lockfile.install(lockfile.lock(BOTH, registry), registry, tmp_path / "packaged")
    for how in ({"frozen": True}, {"registry": registry}):
        with Resolver(BOTH, lockfile=tmp_path / "packaged", **how) as resolver:  # type: ignore[call-overload]
            before = threading.active_count()
            resolver.watch(0.01)
            assert threading.active_count() == before
            assert resolver.refresh() is False
            assert resolver.wait_for(resolver.current.revision) is resolver.current
            with pytest.raises(DeadlineExceeded, match="a lockfile is served"):
                resolver.wait_for(10_000)


def test_a_revision_that_does_not_come_is_not_waited_for_longer_than_asked(resolver: Resolver[Any]):
    with pytest.raises(DeadlineExceeded, match="not yet 10000"):
        resolver.wait_for(10_000, 0.2)
    for bad in (-1, True, "r3", 1.5):
        with pytest.raises(InvalidInput):
            resolver.wait_for(bad)  # type: ignore[arg-type]


def test_waiting_for_a_set_that_is_refused_says_why(
    resolver: Resolver[Any], registry: Registry, flip: Callable[[Path], None]
):
    promotion = registry.promote("kb:v2", to="prod", reason="second")
    damage(registry, "kb:v2", flip)
    with pytest.raises(DeadlineExceeded, match="kb"):
        resolver.wait_for(promotion.revision, 0.5)


# --- nothing is kept that should go


def test_the_old_generation_goes_with_the_last_who_holds_it(resolver: Resolver[Any], registry: Registry):
    gone = weakref.ref(resolver.current.value["kb"])
    held = resolver.current
    registry.promote("kb:v2", to="prod", reason="second")
    resolver.refresh()
    assert gone() is not None
    gc.disable()
    try:
        del held
        assert gone() is None, "without the help of the garbage collector"
    finally:
        gc.enable()


def test_a_set_that_was_refused_leaves_nothing_of_it_in_memory(
    cache: Path, registry: Registry, flip: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
):
    made: list[weakref.ref[Any]] = []

    @dataclass(frozen=True)
    class Wanted:
        kb: Annotated[la.Files, "kb:prod"]

        def __post_init__(self) -> None:
            made.append(weakref.ref(self.kb))
            if self.kb.read("kb.txt").startswith(b"kb 2"):
                raise ValueError("no")

    with Resolver(Wanted, registry=registry) as resolver:
        registry.promote("kb:v2", to="prod", reason="second")
        with pytest.raises(ResolutionError):
            resolver.refresh()
        gc.collect()
        assert [ref() is None for ref in made] == [False, True]


def test_a_resolver_that_nobody_holds_ends_its_thread(cache: Path, registry: Registry, until):
    def names() -> set[str]:
        return {t.name for t in threading.enumerate() if t.name == "llmartifacts-watch"}

    resolver = Resolver(BOTH, registry=registry)
    resolver.start()
    resolver.watch(0.01)
    assert names()
    del resolver
    gc.collect()
    until(lambda: not names())


def test_the_time_of_the_last_look_is_written_down_now_and_then(
    cache: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
):
    with Resolver(BOTH, registry=registry, max_stale=3600) as resolver:
        (record,) = (cache / "known-good").iterdir()
        before = record.read_text()
        resolver.refresh()
        assert record.read_text() == before, "it was written a moment ago"
        resolver._refresher._kept = None
        monkeypatch.setattr(known_good.KnownGood, "age", lambda self: 400.0)
        resolver.refresh()
        assert record.read_text() != before


class Mixing:
    """A backend that gives the newest revision and an old answer for one component."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.old: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def read(self, project: str, references: Any) -> Any:
        reading = self._inner.read(project, references)
        if self.old is None:
            return reading
        return Reading(reading.project, reading.revision + 7, (reading.items[0], self.old))


def test_an_old_move_of_one_alias_under_a_new_revision_is_not_followed(cache: Path, registry: Registry):
    mixing = Mixing(registry.backend)
    replayed = Registry(mixing, project=registry.project, actor="tester")  # type: ignore[arg-type]
    old = registry.backend.read("default", [Reference.parse("kb:prod")]).items[0]
    registry.promote(["agent:v2", "kb:v2"], to="prod", reason="second")
    with Resolver(BOTH, registry=replayed) as resolver:
        mixing.old = old
        with pytest.raises(Refused, match="kb:prod is at its move 1 in the registry, and was at 2"):
            resolver.refresh()
        assert resolver.status().code == "revision-went-back"
        assert Resolver(BOTH, registry=replayed).start().source == "last-known-good"
        assert isinstance(old, Found)
        mixing.old = Found(old.version, old.manifest, 2)
        with pytest.raises(Refused, match="another version in the registry, and has not moved since"):
            resolver.refresh()
        mixing.old = None
        assert resolver.refresh() is False
        assert resolver.state is State.READY
