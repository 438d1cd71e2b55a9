"""The benchmarks of a service that keeps itself up to date count what a server was asked, and see a torn pair."""

from __future__ import annotations

import importlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la

ROOT = Path(__file__).resolve().parent.parent.parent
KINDS = ("IVF-Flat", "Flat")
LINES = {
    "watching": [
        *("16 threads, cold: reads", "  fetches of each file", "8 processes, cold: fetches"),
        *("warm start: requests", "a look: requests", "frozen start: requests", "8 processes: looks"),
        *("a pair: torn reads", "  promoted, until served"),
        *("resolver.current", "resolver.state", "resolver.status()"),
    ],
    "swapping": [
        f"{kind}: {name}"
        for kind in KINDS
        for name in (
            *("p50 in a swap", "p99 in a swap", "p99 in a swap", "slowest in a swap", "promote to served"),
            *("the same, cached", "peak, own", "after 12 swaps"),
        )
    ],
    "service_start": [
        *("start, cache warm", "start, cache warm", "start, cache cold"),
        *("start, registry silent", "start, registry gone", "server: cache warm", "server: cache cold"),
        *("server: port refused", "server: hangs", "server: a byte a second"),
    ],
}
COUNTED = {
    "16 threads, cold: reads": 1,
    "  fetches of each file": 1,
    "8 processes, cold: fetches": 1,
    "warm start: requests": 1,
    "a look: requests": 1,
    "frozen start: requests": 0,
    "a pair: torn reads": 0,
}


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def load(module: str) -> Any:
    return importlib.import_module(f"benchmarks.{module}")


@pytest.mark.matrix
@pytest.mark.parametrize("name", sorted(LINES))
def test_each_subject_has_a_line_for_everything_that_it_measures(name: str, tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", name, "--runs", "1", "--json", str(told)],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    measured = json.loads(told.read_text())["subjects"][name]
    assert [line["name"] for line in measured] == LINES[name]
    for line in measured:  # the figures that are not times are promises
        if line["name"] in COUNTED:
            assert line["ours"]["samples"] == [COUNTED[line["name"]]], line
            assert line["floor"]["samples"][0] > COUNTED[line["name"]], line


# --- what a server was asked


LOG = """2026-11-21T15:33:11.410Z info    listening address=http://127.0.0.1:52631 workers=1 pid=13413
2026-11-21T15:33:12.428Z info    request id=8c6e method=GET route=/api/v1/projects/{project}/read status=200 ms=3.47
2026-11-21T15:33:12.483Z info    request id=24d4 method=GET route=/api/v1/blobs/{digest} status=200 ms=3.46
2026-11-21T15:33:12.483Z info    request id=24d5 method=GET route=/api/v1/blobs/{digest} status=404 ms=3.46
2026-11-21T15:33:12.514Z info    request id=541b method=GET route=/api/v1/projects/{project}/read status=304 ms=0.4
"""


def test_requests_are_counted_from_a_mark_by_route_and_by_status(tmp_path: Path) -> None:
    counted = load("server_asked")
    log = tmp_path / "server-80.log"
    log.write_text("2026-11-21T15:33:12Z info    request id=1 method=GET route=/api/v1/info status=200\n")
    asked = counted.Asked(type("Store", (), {"place": tmp_path / "registry"})(), type("Server", (), {"port": 80})())
    asked.mark()
    with log.open("a") as file:
        file.write(LOG)
    found = asked.since()
    assert found["all"] == 4
    assert (found[counted.READ], found[counted.BLOB], found[counted.UNCHANGED]) == (2, 2, 1)
    assert found["GET /info"] == 0
    asked.mark()
    assert asked.since()["all"] == 0


# --- threads, and a pair


def test_threads_that_begin_together_tell_what_went_wrong_in_one_of_them() -> None:
    service = load("watching_service")
    met, all_there = [], threading.Barrier(5)

    def meet() -> None:
        met.append(all_there.wait(30))

    service.at_once(meet, 5)
    assert sorted(met) == [0, 1, 2, 3, 4]
    with pytest.raises(OSError, match="no such server"):
        service.at_once(lambda: (_ for _ in ()).throw(OSError("no such server")), 3)


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """A registry with the pair that is promoted together, and four components of a service."""
    place = tmp_path / "registry"
    with la.init(place) as registry:
        for name in load("watching_service").PAIR:
            prompts = load("inputs").prompts(load("watching_service").VERSIONS, mark=f"{name} ")
            registry.log_many([(name, prompt) for prompt in prompts])
        registry.promote(["first:v1", "second:v1"], to="prod", reason="first")
        load("server_resolve").fill(registry)
    return place


def test_every_promotion_of_a_pair_is_served_and_never_half_of_it(pair: Path, tmp_path: Path) -> None:
    told = load("watching_service").torn(str(pair), "", str(tmp_path / "plain"), "", "8")
    assert told["swaps"] == 8
    assert told["torn"] == 0
    assert told["pairs"] > 0
    assert told["plain pairs"] > 0
    assert 0 < told["promote"] <= told["served"]


def test_a_torn_pair_would_be_seen(pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = load("watching_service")
    current = la.Resolver.current.fget  # type: ignore[attr-defined]

    def torn(resolver: Any) -> Any:
        value = {**current(resolver).value, "second": la.Prompt("(of another one)", template_format="jinja2")}
        return type("Torn", (), {"value": value})()

    monkeypatch.setattr(la.Resolver, "current", property(torn))
    told = service.torn(str(pair), "", str(tmp_path / "plain"), "", "3")
    assert told["torn"] == told["pairs"] > 0


def test_sixteen_threads_start_one_resolver_once(pair: Path, tmp_path: Path) -> None:
    told = load("watching_service").cold(str(pair), "", str(tmp_path / "plain"), "")
    with la.connect(pair) as registry:
        assert told == {"source": "registry", "fetched": load("watching")._blobs(registry), "generation": 1}


# --- a swap under load


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load("swapping_service"), "AFTER", 0.2)


@pytest.fixture
def swapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    bench = load("measure").Bench(tmp_path, "small", 1, lambda text: None)
    monkeypatch.setenv("LLMARTIFACTS_CACHE", str(tmp_path / "cache"))
    made: dict[str, Any] = load("swapping")._made(bench, tmp_path / "made", "Flat", 2_000)
    return made


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("how", ["ours", "by hand"])
def test_answers_are_told_apart_by_when_they_were_due(how: str, swapped: dict[str, Any]) -> None:
    import numpy as np

    service = load("swapping_service")
    made = service.Ours(swapped["location"], "kb") if how == "ours" else service.ByHand(swapped["files"])
    told = service.measured(made, np.load(swapped["queries"]), 2, 0.2, 3, 100)
    assert len(told["quiet"]) >= 2 * 0.2 * 100 - 2
    assert len(told["swapping"]) >= 2 * 0.2 * 100 - 2
    assert (len(told["lasted"]), len(told["again"]), told["swaps"]) == (2, 3, 5)
    assert min(told["first"], told["last"], told["peak"]) > 0


@pytest.mark.usefixtures("brief")
def test_a_swap_to_a_version_that_is_not_in_the_cache_fetches_it_once_more(swapped: dict[str, Any]) -> None:
    service = load("swapping_service").Ours(swapped["location"], "kb")
    fetched = [service._resolver.status().checks.fetched]
    for version in ("v2", "v1", "v2"):
        service.swap(version)
        fetched.append(service._resolver.status().checks.fetched)
    assert all(later > before for before, later in pairwise(fetched))
    service.cold = False
    service.swap("v1")
    assert service._resolver.status().checks.fetched == fetched[-1]


def test_a_query_that_had_to_wait_is_counted_with_its_wait() -> None:
    service = load("swapping_service")
    free, asked = threading.Event(), threading.Semaphore(0)

    def ask(number: int) -> tuple[str, tuple[str, ...]]:
        asked.release()
        free.wait(30)
        return "v1", (str(number),)

    asking = service.Asking(ask, 1000.0)
    for _ in range(service.WORKERS):  # all are busy: what is due from now on waits
        asked.acquire(timeout=30)
    time.sleep(0.3)
    free.set()
    for _ in range(20):
        asked.acquire(timeout=30)
    answers = sorted(asking.end(), key=lambda one: one.due)
    assert len(answers) >= service.WORKERS + 20
    assert answers[service.WORKERS + 5].took > 0.2, "it was due long before anybody was free to ask it"
    gaps = {round(b.due - a.due, 6) for a, b in pairwise(answers)}
    assert gaps == {0.001}


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ([("v1", 0, "a"), ("v1", 0, "b")], "v1 answered query 0 in two ways"),
        ([("v1", 0, "a"), ("v2", 0, "a")], "two versions answer alike"),
    ],
)
def test_a_wrong_answer_is_no_fast_one(given: list[tuple[str, int, str]], problem: str) -> None:
    service = load("swapping_service")
    answers = [service.Answer(0.0, 1.0, query, served, (ids,)) for served, query, ids in given]
    with pytest.raises(RuntimeError, match=problem):
        service._consistent(answers)


def test_a_failure_to_answer_ends_the_measurement() -> None:
    service = load("swapping_service")
    asking = service.Asking(lambda number: (_ for _ in ()).throw(ValueError("no index")), 1000.0)
    with pytest.raises(ValueError, match="no index"):
        asking.end()


@pytest.mark.parametrize(("share", "told"), [(0.5, 3.0), (0.99, 5.0), (1.0, 5.0)])
def test_a_share_of_times_is_the_time_that_it_stays_within(share: float, told: float) -> None:
    assert load("swapping").within([5.0, 1.0, 2.0, 4.0, 3.0], share) == told
    with pytest.raises(RuntimeError, match="nothing was answered"):
        load("swapping").within([], share)


# --- servers that do not serve, and counts


@pytest.mark.parametrize(("name", "says"), [("_never", b""), ("_slowly", b"HTTP/1.1 200 OK")])
def test_a_server_that_does_not_serve_takes_connections_until_the_block_ends(name: str, says: bytes) -> None:
    start, port = load("service_start"), load("server_setup").free_port()
    answer: Callable[..., None] = getattr(start, name)
    with start._listening(port, answer), socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        client.settimeout(30 if says else 0.3)
        if says:
            assert client.recv(100).startswith(says)
        else:
            with pytest.raises(TimeoutError):
                client.recv(100)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=30)


def test_counts_are_shown_as_they_are_and_none_at_all_may_be_the_budget() -> None:
    measure, table = load("measure"), load("table")
    assert table.shown(measure.Figure((16.0, 16.0, 15.0), "count")) == "16 15..16"
    none, some = measure.Figure((0.0,), "count"), measure.Figure((3.0,), "count")
    budget = measure.no_more_than(0)
    assert table.verdict(measure.Line("x", none, some, "y", budget)) == "yes"
    assert table.verdict(measure.Line("x", some, some, "y", budget)) == "NO", "the floor's failing is no excuse"
    assert measure.Line("x", none, none, "y").ratio == 1.0
    assert measure.Line("x", some, none, "y").ratio == float("inf")
