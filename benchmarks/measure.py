"""How something is measured: several runs of ours and of its floor, in turn; the median with the spread.

A floor is what the machine does without us: the same rows through plain SQLite, a bare Python, `cp`, FAISS alone.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Unit = Literal["s", "/s", "%", "MB", "% new", "count"]
Scale = Literal["small", "full"]
Measured = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Figure:
    """Several measurements of one thing.

    Attributes:
        samples: One number per run.
        unit: `s`, `MB`, `count` or `% new` (bytes, of a file's; less is better), `/s` or `%` (more is better).
    """

    samples: tuple[float, ...]
    unit: Unit = "s"

    @property
    def median(self) -> float:
        """The one in the middle."""
        return statistics.median(self.samples)


@dataclass(frozen=True, slots=True)
class Budget:
    """What the design allows.

    Attributes:
        text: How the table shows it.
        holds: Whether ours, given the floor, keeps to it; both are medians.
        relative: Whether it says how much better than the floor ours has to be, so that no machine is too slow for it.
    """

    text: str
    holds: Callable[[float, float], bool]
    relative: bool = False


def within(seconds: float) -> Budget:
    """So much time, whatever the floor."""
    text = f"{seconds:g} s" if seconds >= 1 else f"{seconds * 1e3:g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:g} µs"
    return Budget(text, lambda ours, floor: ours <= seconds)


def above_floor(seconds: float) -> Budget:
    """So much time more than the floor."""
    return Budget(f"floor+{seconds * 1e3:g} ms", lambda ours, floor: ours <= floor + seconds)


def times_floor(factor: float) -> Budget:
    """So many times the floor's time."""
    return Budget(f"{factor:g} x floor", lambda ours, floor: ours <= factor * floor)


def at_least(rate: float) -> Budget:
    """So many a second."""
    return Budget(f"{rate:,g}/s" if rate < 1e6 else f"{rate:g}/s", lambda ours, floor: ours >= rate)


def no_more_than(count: float) -> Budget:
    """So many, whatever the floor."""
    return Budget(f"{count:g}", lambda ours, floor: ours <= count, relative=True)


def at_most(percent: float) -> Budget:
    """So many percent of a file's bytes."""
    return Budget(f"{percent:g} %", lambda ours, floor: ours <= percent)


def speed_of_floor(factor: float) -> Budget:
    """At least such a part of the floor's speed."""
    return Budget(f"{factor:g} of speed", lambda ours, floor: ours * factor <= floor)


@dataclass(frozen=True, slots=True)
class Absent:
    """In place of a line: something that is not here, so that it was not measured.

    Attributes:
        name: What is missing.
        why: Why, in one line.
    """

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table.

    Attributes:
        name: What was measured.
        ours: What it takes here.
        floor: What it takes without us, in the same run.
        beside: What the floor is.
        budget: What the design allows; None where it says nothing.
        binding: False where the budget speaks of another scale than this one, so that nothing is said about it.
        note: What a reader must know.
    """

    name: str
    ours: Figure
    floor: Figure
    beside: str
    budget: Budget | None = None
    binding: bool = True
    note: str = ""

    @property
    def ratio(self) -> float:
        """How many times the floor's time; of rates, how many times the floor is faster."""
        worse, better = self.ours.median, self.floor.median
        if self.ours.unit in ("/s", "%"):
            worse, better = better, worse
        return worse / better if better else float("inf") if worse else 1.0

    @property
    def met(self) -> bool | None:
        """Whether the budget is kept; None where there is none, or it speaks of another scale."""
        if self.budget is None or not self.binding:
            return None
        return self.budget.holds(self.ours.median, self.floor.median)

    @property
    def possible(self) -> bool:
        """Whether the floor itself keeps to the budget: a slow disk may not."""
        return self.budget is None or self.budget.relative or self.budget.holds(self.floor.median, self.floor.median)


@dataclass(frozen=True, slots=True)
class Subject:
    """One subject of the benchmarks, a file each.

    Attributes:
        name: What the command line calls it.
        about: What is measured.
        floor: What it is measured beside.
        measure: Does it.
    """

    name: str
    about: str
    floor: str
    measure: Callable[[Bench], Iterator[Line | Absent]]


@dataclass(frozen=True)
class Bench:
    """What a subject is given to work with.

    Attributes:
        folder: Empty, on the file system that is measured; removed at the end.
        scale: `small` for a look of a minute, `full` for the sizes that the budgets speak of.
        runs: How often each figure is taken.
        say: Takes one line of progress.
        peers: Whether other tools are measured too, where they can be had.
        peers_in: The Python environment of those that pip installs; made if it is not there.
        inputs: Where large inputs are kept for the next time; None where each is removed when it was measured.
    """

    folder: Path
    scale: Scale
    runs: int
    say: Callable[[str], None] = print
    peers: bool = False
    peers_in: Path | None = None
    inputs: Path | None = None
    _shared: dict[str, Any] = field(default_factory=dict)

    @property
    def full(self) -> bool:
        """Whether the sizes are those of the budgets."""
        return self.scale == "full"

    def size(self, small: int, full: int) -> int:
        """The size for this scale."""
        return full if self.full else small

    def shared(self, name: str, make: Callable[[], Any]) -> Any:
        """Something that several subjects use, made once."""
        if name not in self._shared:
            self._shared[name] = make()
        return self._shared[name]

    def beside(self, *measured: Measured, unit: Unit = "s") -> tuple[Figure, ...]:
        """Measure ours and its floors in turn, so that all see the same machine; once beforehand, forgotten.

        Args:
            *measured: Each measures once.
            unit: Of all of them.
        """
        taken = [[measure() for measure in measured] for _ in range(self.runs + 1)]
        return tuple(Figure(samples, unit) for samples in zip(*taken[1:], strict=True))


def seconds(work: Callable[[], object], calls: int = 1) -> float:
    """How long some calls take, all together."""
    gc.collect()
    begin = time.perf_counter()
    for _ in range(calls):
        work()
    return time.perf_counter() - begin


def per_call(work: Callable[[], object], at_least: float = 0.1) -> float:
    """How long one of many calls takes, on average.

    Args:
        work: What is called.
        at_least: Seconds to go on for.
    """
    calls = 1
    while True:
        taken = seconds(work, calls)
        if taken >= at_least / 2:
            return taken / calls
        calls = max(calls * 2, int(calls * at_least / max(taken, 1e-9)))


def python(code: str, *arguments: str, cache: Path | None = None) -> float:
    """How long a new Python takes for some code, from its start to its end."""
    return seconds(lambda: _run(code, arguments, cache))


def python_tells(code: str, *arguments: str, cache: Path | None = None) -> dict[str, Any]:
    """What code in a new Python measured: the JSON object that it prints."""
    told: dict[str, Any] = json.loads(_run(code, arguments, cache))
    return told


def _run(code: str, arguments: tuple[str, ...], cache: Path | None) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LLMARTIFACTS_")}
    if cache is not None:
        environment["LLMARTIFACTS_CACHE"] = str(cache)
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"a measured process failed:\n{done.stderr}")
    return done.stdout
