"""A service that keeps itself up to date: how often it asks, that a pair is never torn, and what `current` costs.

Requests are counted by the log of a real server over loopback. The floor is what one does without a resolver: ask for
one component after another, and look whether something is there before it is fetched.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import timeit
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llmartifacts as la
from benchmarks.inputs import prompts
from benchmarks.measure import Bench, Budget, Figure, Line, Subject, no_more_than, python_tells, within
from benchmarks.server_asked import BLOB, READ, UNCHANGED, Asked
from benchmarks.server_resolve import fill
from benchmarks.server_setup import ROOT, Store, serving
from benchmarks.watching_service import COMPONENTS, PAIR, READERS, THREADS, VERSIONS, WORK, spec
from llmartifacts.registry import Registry
from llmartifacts.runtime import lockfile

PROCESSES = 8
INTERVAL = 1.0
CODE = "import sys; sys.path.insert(0, sys.argv[1]); from benchmarks.watching_service import main; main(*sys.argv[2:])"
ONE_BY_ONE = "a GET for each"
IF_MISSING = "fetch if not there"


def measure(bench: Bench) -> Iterator[Line]:
    place = bench.folder / "watching"
    place.mkdir()
    store = Store("SQLite", place / "registry")
    with store.open() as registry:
        fill(registry)
        blobs = _blobs(registry)
        for name in PAIR:
            registry.log_many([(name, prompt) for prompt in prompts(VERSIONS, mark=f"{name} ")])
        registry.promote([f"{name}:v1" for name in PAIR], to="prod", reason="measured")
        lock = lockfile.lock(spec(), registry)
        lockfile.install(lock, registry, place / "installed")
    token = store.token()
    with serving(store) as (server,):
        asked = Asked(store, server)
        service = _Service(server.url, token, place, asked)
        yield from _cold(bench, service, blobs)
        yield from _warm(bench, service)
        yield _watching(bench, service)
        yield from _torn(bench, service)
    with store.open() as registry, la.Resolver(spec(), registry=registry) as resolver:
        yield from _current(bench, resolver)


@dataclass(frozen=True)
class _Service:
    """Starts new processes of `watching_service` against a server, and counts what they ask it."""

    url: str
    token: str
    place: Path
    asked: Asked

    def tells(self, what: str, *more: str, cache: str, plainly: str = "") -> dict[str, Any]:
        """One process; what it tells."""
        return python_tells(CODE, *self._arguments(what, cache, plainly, *more), cache=self.place / cache)

    def together(
        self, count: int, what: str, *more: str, caches: Callable[[int], str], plainly: str = "", lasting: float = 0
    ) -> tuple[list[dict[str, Any]], Counter[str]]:
        """Several that begin at the same moment; what they tell, and what the server was asked from that moment.

        Args:
            count: How many.
            what: What they do.
            *more: Arguments of it.
            caches: Number of the process -> the name of its cache.
            plainly: As `watching_service` takes it.
            lasting: Seconds after which they are told to end; 0 where they end by themselves.
        """
        running: list[subprocess.Popen[str]] = []
        with ExitStack() as stack:
            for n in range(count):
                name = caches(n)
                kept = {k: v for k, v in os.environ.items() if not k.startswith("LLMARTIFACTS_")}
                one = subprocess.Popen(
                    [sys.executable, "-c", CODE, *self._arguments(what, name, plainly, *more)],
                    env={**kept, "LLMARTIFACTS_CACHE": str(self.place / name)},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
                stack.enter_context(one)
                stack.callback(one.kill)
                running.append(one)
            for one in running:
                if _line(one) != "ready\n":
                    raise RuntimeError(f"a process of {what!r} failed")
            self.asked.mark()
            _go(running)
            if lasting:
                time.sleep(lasting)
                counted = self.asked.since()
                _go(running)
            told = [json.loads(_line(one) or "null") for one in running]
            if None in told:
                raise RuntimeError(f"a process of {what!r} failed")
        return told, counted if lasting else self.asked.since()

    def counting(self, what: str, *more: str, cache: str, plainly: str = "") -> tuple[dict[str, Any], Counter[str]]:
        """One process; what it tells, and what the server was asked."""
        self.asked.mark()
        return self.tells(what, *more, cache=cache, plainly=plainly), self.asked.since()

    def without(self, cache: str) -> str:
        """A cache, emptied."""
        shutil.rmtree(self.place / cache, ignore_errors=True)
        return cache

    def _arguments(self, what: str, cache: str, plainly: str, *more: str) -> list[str]:
        return [str(ROOT), what, self.url, self.token, str(self.place / f"{cache}-plain"), plainly, *more]


def _cold(bench: Bench, service: _Service, blobs: int) -> Iterator[Line]:
    """Many that want the same at the same moment, and nothing is here."""

    def threads(plainly: str) -> Counter[str]:
        told, counted = service.counting("cold", cache=_empty(service, "cold"), plainly=plainly)
        if not plainly and (told["source"], told["fetched"], told["generation"]) != ("registry", blobs, 1):
            raise RuntimeError(f"16 threads started otherwise than once: {told}")
        return counted

    def processes(plainly: str) -> Counter[str]:
        name = _empty(service, "together")
        told, counted = service.together(PROCESSES, "one", caches=lambda _: name, plainly=plainly)
        if not plainly and any(one["source"] != "registry" for one in told):
            raise RuntimeError(f"not every process started from the registry: {told}")
        return counted

    bench.say(f"{THREADS} threads, then {PROCESSES} processes, that start with nothing here")
    taken = [(threads(""), threads("plainly")) for _ in range(bench.runs)]
    note = f"one process, an empty cache, four components with {blobs} files; counted by the server's log"
    yield _line_of(taken, f"{THREADS} threads, cold: reads", READ, 1, no_more_than(1), note)
    yield _line_of(taken, "  fetches of each file", BLOB, blobs, no_more_than(1), note)
    shared = [(processes(""), processes("plainly")) for _ in range(bench.runs)]
    note = f"{PROCESSES} processes that begin at the same moment over one empty cache; each reads the references once"
    yield _line_of(shared, f"{PROCESSES} processes, cold: fetches", BLOB, blobs, no_more_than(1), note)


def _warm(bench: Bench, service: _Service) -> Iterator[Line]:
    """What a start asks for when everything is here and nothing has changed; and a look."""
    bench.say("starts and looks with nothing changed")
    cache = _empty(service, "warm")
    service.tells("warm", cache=cache)

    def start(plainly: str) -> Counter[str]:
        told, counted = service.counting("warm", cache=cache, plainly=plainly)
        if not plainly and (told["source"], counted[UNCHANGED]) != ("registry", 1):
            raise RuntimeError(f"a warm start asked for {dict(counted)}, and served {told}")
        return counted

    def look(plainly: str) -> Counter[str]:
        if plainly:
            return start(plainly)
        (told,), counted = service.together(1, "look", caches=lambda _: cache)
        if told["swapped"] or counted[UNCHANGED] != 1:
            raise RuntimeError(f"a look asked for {dict(counted)}, and said {told}")
        return counted

    def frozen(plainly: str) -> Counter[str]:
        if plainly:
            return start(plainly)
        service.asked.mark()
        installed, empty = service.place / "installed", _empty(service, "none")
        arguments = [str(ROOT), "frozen", service.url, service.token, str(installed), ""]
        told = python_tells(CODE, *arguments, cache=service.place / empty)
        if told["source"] != "lockfile":
            raise RuntimeError(f"a frozen start served {told}")
        return service.asked.since()

    note = (
        "a new process of four components, cache warm. The one request is conditional and answered 304 with no byte of"
        " a body, which is checked"
    )
    for name, work, most, why in (
        ("warm start: requests", start, 1, note),
        ("a look: requests", look, 1, note),
        ("frozen start: requests", frozen, 0, "from a folder of `install --to`, with an empty cache"),
    ):
        taken = [(work(""), work("plainly")) for _ in range(bench.runs)]
        yield _line_of(taken, name, "all", 1, no_more_than(most), why, beside=ONE_BY_ONE)


def _watching(bench: Bench, service: _Service) -> Line:
    """Workers of one host that watch the same: they share looks through the cache."""
    lasting = bench.size(5, 20) * INTERVAL
    bench.say(f"{PROCESSES} processes that watch, {lasting:g} s each time")

    def watched(caches: Callable[[int], str]) -> Counter[str]:
        for n in range(PROCESSES):
            _empty(service, caches(n))
        told, counted = service.together(PROCESSES, "watched", str(INTERVAL), caches=caches, lasting=lasting)
        if any(one["state"] != "READY" or one["failed"] for one in told):
            raise RuntimeError(f"a look failed: {told}")
        return counted

    taken = [(watched(lambda _: "shared"), watched(lambda n: f"own-{n}")) for _ in range(bench.runs)]
    note = (
        f"looks that reach the server in {lasting:g} s, for each interval of {INTERVAL:g} s; the floor has as many"
        " hosts, each with a cache of its own"
    )
    return _line_of(
        taken, f"{PROCESSES} processes: looks", READ, int(lasting / INTERVAL), None, note, beside="a cache for each"
    )


def _torn(bench: Bench, service: _Service) -> Iterator[Line]:
    """A pair that is promoted together, under those who read it."""
    promotions = bench.size(100, 1000)
    bench.say(f"{promotions:,} promotions of a pair under {2 * READERS} readers")
    taken = [service.tells("torn", str(promotions), cache=_empty(service, "torn")) for _ in range(bench.runs)]
    for one in taken:
        if one["swaps"] != promotions:
            raise RuntimeError(f"of {promotions} promotions {one['swaps']} were served")
        if not one["pairs"] or not one["plain pairs"]:
            raise RuntimeError(f"nothing was read: {one}")

    def figure(name: str, unit: Any = "s") -> Figure:
        return Figure(tuple(one[name] for one in taken), unit)

    pairs, plain = (f"{sum(one[k] for one in taken) / len(taken):,.0f}" for k in ("pairs", "plain pairs"))
    note = (
        f"{promotions:,} promotions, each waited for until it is served, while {READERS} threads read the pair from one"
        f" generation and {READERS} by two lookups, {WORK * 1e3:g} ms between the two; {pairs} and {plain} pairs a run"
    )
    zero = no_more_than(0)
    yield Line("a pair: torn reads", figure("torn", "count"), figure("plain torn", "count"), "two lookups", zero,
               note=note)  # fmt: skip
    yield Line("  promoted, until served", figure("served"), figure("promote"), "the promotion", note=note)


def _current(bench: Bench, resolver: la.Resolver[Any]) -> Iterator[Line]:
    """What a request pays for asking what is served."""

    class Holder:
        current = None

    holder = Holder()
    holder.current = resolver.current
    reads: tuple[tuple[str, str, Budget | None], ...] = (
        ("resolver.current", "r.current", within(1e-6)),
        ("resolver.state", "r.state", None),
        ("resolver.status()", "r.status()", None),
    )
    for name, code, budget in reads:
        ours, floor = bench.beside(lambda code=code: _each(code, resolver), lambda: _each("r.current", holder))  # type: ignore[misc]
        yield Line(name, ours, floor, "a plain attribute", budget)


def _each(code: str, r: object) -> float:
    timer = timeit.Timer(code, globals={"r": r})
    calls, taken = timer.autorange()
    return taken / calls


def _line_of(
    taken: list[tuple[Counter[str], Counter[str]]],
    name: str,
    what: str,
    among: int,
    budget: Budget | None,
    note: str,
    beside: str = IF_MISSING,
) -> Line:
    """A line of counts, of ours and of the floor's."""
    ours, floor = (Figure(tuple(one[n][what] / among for one in taken), "count") for n in (0, 1))
    return Line(name, ours, floor, beside, budget, note=note)


def _blobs(registry: Registry) -> int:
    """How many different files the components have, those of a bundle's parts with them."""
    found = [item.manifest for item in registry.read([f"{name}:prod" for name in COMPONENTS]).items]  # type: ignore[union-attr]
    parts = registry.backend.manifests([part.digest for one in found for part in one.components])
    return len({file.digest for one in (*found, *parts.values()) for file in one.files})


def _empty(service: _Service, cache: str) -> str:
    service.without(f"{cache}-plain")
    return service.without(cache)


def _go(running: list[subprocess.Popen[str]]) -> None:
    for one in running:
        if one.stdin is not None:
            one.stdin.write("\n")
            one.stdin.flush()


def _line(one: subprocess.Popen[str]) -> str:
    return "" if one.stdout is None else one.stdout.readline()


SUBJECT = Subject(
    "watching",
    "a service kept up to date: what it asks a server for, cold and warm; torn reads of a pair; resolver.current",
    "plain GETs one after another, two lookups, and a plain attribute",
    measure,
)
