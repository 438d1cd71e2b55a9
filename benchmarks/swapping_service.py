"""A service that answers queries from a large index while another version of it is swapped in; ours, and by hand.

Queries come at a fixed rate, whatever the answers take, and each is measured from when it was due: what had to wait for
a pause is counted with its wait. `main(HOW, LOCATION, TOLD)` prints one line of JSON.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np

import llmartifacts as la

WORKERS = 4
BUSY = 0.5
"""Part of one core that the queries take, at most."""
FASTEST = 200.0
AFTER = 1.0
"""Seconds after a swap that still count to it: the first answers from pages that nobody has touched yet."""
QUERIES = 16


@dataclass(frozen=True, slots=True)
class Answer:
    """One answered query.

    Attributes:
        due: When it was due.
        ended: When it was answered.
        query: Which it was.
        served: Which version answered.
        ids: What it answered.
    """

    due: float
    ended: float
    query: int
    served: str
    ids: tuple[str, ...]

    @property
    def took(self) -> float:
        """Seconds from when it was due."""
        return self.ended - self.due


class Asking:
    """Asks at a fixed rate until it is ended.

    Args:
        ask: Takes the number of a query, gives the version that answers and its answer.
        rate: Queries a second.
    """

    def __init__(self, ask: Callable[[int], tuple[str, tuple[str, ...]]], rate: float) -> None:
        self._ask, self._gap = ask, 1 / rate
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._next = 0
        self._begun = time.perf_counter()
        self._errors: list[BaseException] = []
        self.answers: list[Answer] = []
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(WORKERS)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        try:
            while not self._over.is_set():
                with self._lock:
                    number, self._next = self._next, self._next + 1
                due = self._begun + number * self._gap
                time.sleep(max(0.0, due - time.perf_counter()))
                query = number % QUERIES
                served, ids = self._ask(query)
                self.answers.append(Answer(due, time.perf_counter(), query, served, ids))
        except BaseException as error:  # noqa: BLE001 - raised again by `end`
            self._errors.append(error)

    def end(self) -> list[Answer]:
        """Every answer; raises what went wrong in asking."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise self._errors[0]
        return self.answers


class Ours:
    """A resolver that follows `name:prod`, and the promotions.

    Args:
        location: The registry.
        name: The collection.
    """

    def __init__(self, location: str, name: str) -> None:
        self._registry = la.connect(location)
        self._name = name
        self._resolver = la.Resolver({"kb": f"{name}:prod"}, registry=location)
        self._resolver.start()
        self.cold = True

    def ask(self, query: Any) -> tuple[str, tuple[str, ...]]:
        """One answer, and the version that gave it."""
        generation = self._resolver.current
        return f"v{generation.lock.components['kb'].number}", tuple(generation.value["kb"].search(query, k=5).ids[0])

    def swap(self, version: str) -> None:
        """Promote a version and wait until it is served; where `cold`, its large file is fetched once more."""
        if self.cold:
            self._forget(version)
        moved = self._registry.promote([f"{self._name}:{version}"], to="prod", reason="measured")
        self._resolver.wait_for(moved.revision, timeout=600)

    def _forget(self, version: str) -> None:
        (found,) = self._registry.read([f"{self._name}:{version}"]).items
        largest = max(found.manifest.files, key=lambda file: file.size)  # type: ignore[union-attr]
        digits = str(largest.digest).rpartition(":")[2]
        folder = Path(os.environ["LLMARTIFACTS_CACHE"]) / "sha256" / digits[:2]
        for file in folder.glob(f"{digits}*"):
            file.unlink()


class ByHand:
    """What one does without a resolver: read the new file beside the old index, then assign.

    Args:
        files: Version -> its FAISS file, as it lies on the disk; its ids are those of the rows.
    """

    def __init__(self, files: dict[str, str]) -> None:
        self._files = files
        self._served = ("v1", faiss.read_index(files["v1"]))
        self.cold = False

    def ask(self, query: Any) -> tuple[str, tuple[str, ...]]:
        """One answer, and the version that gave it."""
        version, index = self._served
        return version, tuple(str(n) for n in index.search(query, 5)[1][0])

    def swap(self, version: str) -> None:
        """Read the version's file, and serve it."""
        self._served = (version, faiss.read_index(self._files[version]))


def measured(service: Any, queries: Any, swaps: int, quiet: float, more: int, rate: float = 0) -> dict[str, Any]:
    """Swap under a load of queries.

    Args:
        service: `Ours` or `ByHand`, serving v1.
        queries: (n, d) float32.
        swaps: How often, to v2 and back, each after a quiet time.
        quiet: Seconds of it.
        more: Swaps at the end, one after another, to a version that is in the cache.
        rate: Queries a second; 0 for what takes half of a core, or less.

    Returns:
        Seconds of each answer in a quiet time and of each during a swap, seconds of each swap, and memory in MB.
    """
    rows = [queries[n : n + 1] for n in range(QUERIES)]
    taken = []
    for row in (*rows, *rows):
        begin = time.perf_counter()
        service.ask(row)
        taken.append(time.perf_counter() - begin)
    rate = rate or min(FASTEST, BUSY / sorted(taken)[len(taken) // 2])
    asking = Asking(lambda n: service.ask(rows[n]), rate)
    windows, quiets, memory = [], [], []
    lasted: list[float] = []
    again: list[float] = []
    order = ["v2", "v1"]
    watch = _Peak()
    for n in range(swaps):
        begin = time.perf_counter()
        time.sleep(quiet)
        quiets.append((begin, time.perf_counter()))
        if not n:
            watch.begin()
        begin = time.perf_counter()
        service.swap(order[n % 2])
        lasted.append(time.perf_counter() - begin)
        time.sleep(AFTER)
        windows.append((begin, time.perf_counter()))
        if n < 2:
            memory.append(resident())
    peak = watch.end()
    service.cold = False
    for n in range(swaps, swaps + more):
        begin = time.perf_counter()
        service.swap(order[n % 2])
        again.append(time.perf_counter() - begin)
    time.sleep(AFTER)
    answers = asking.end()
    _consistent(answers)
    for row in rows:
        service.ask(row)
    memory.append(resident())
    return {
        "rate": rate,
        "quiet": _within(answers, quiets),
        "swapping": _within(answers, windows),
        "lasted": lasted,
        "again": again,
        "first": max(memory[:-1]),
        "last": memory[-1],
        "peak": peak,
        "swaps": swaps + more,
    }


def resident() -> float:
    """Megabytes that this process has in memory, its mapped files with it."""
    gc.collect()
    return _status("VmRSS")


def _status(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("this kernel does not say how much memory a process has")


class _Peak:
    """The most memory of this process of its own, without files that it has mapped, from one moment to another."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._most = 0.0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def end(self) -> float:
        self._over.set()
        self._thread.join()
        return self._most

    def _run(self) -> None:
        while not self._over.is_set():
            self._most = max(self._most, _status("RssAnon"))
            self._over.wait(0.05)


def _within(answers: Sequence[Answer], windows: Sequence[tuple[float, float]]) -> list[float]:
    """Seconds of the answers that were due within the windows."""
    return [one.took for one in answers if any(begin <= one.due < end for begin, end in windows)]


def _consistent(answers: Sequence[Answer]) -> None:
    """One version gives one answer to one question; the two versions differ in some."""
    known: dict[tuple[str, int], tuple[str, ...]] = {}
    for one in answers:
        if known.setdefault((one.served, one.query), one.ids) != one.ids:
            raise RuntimeError(f"{one.served} answered query {one.query} in two ways")
    both = [n for n in range(QUERIES) if ("v1", n) in known and ("v2", n) in known]
    if both and all(known["v1", n] == known["v2", n] for n in both):
        raise RuntimeError("two versions answer alike, so that nobody can tell which was served")


def main(how: str, told: str) -> None:
    """Do it, and tell.

    Args:
        how: `ours` or `by hand`.
        told: JSON: location, name, files, queries, swaps, quiet, more, rate.
    """
    given = json.loads(told)
    queries = np.load(given["queries"])
    service = Ours(given["location"], given["name"]) if how == "ours" else ByHand(given["files"])
    made = measured(service, queries, given["swaps"], given["quiet"], given["more"], given["rate"])
    print(json.dumps(made), flush=True)
    with suppress(BrokenPipeError):
        sys.stdout.flush()
    os._exit(0)  # what threads of OpenMP do at the end of a process is not measured
