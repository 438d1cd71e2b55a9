"""Eight processes that write at once, and one that reads: nobody is starved, and the reader does not notice."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llmartifacts as la
from benchmarks.inputs import prompts
from benchmarks.measure import Bench, Figure, Line, Subject, Unit
from benchmarks.plain import PlainTable

WRITERS = 8
ROWS_OF_ONE_MOVE = (40, 120, 60, 90, 400)
BESIDE = "SQLite's own waiting"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run gave.

    Attributes:
        counts: Transactions of each writer.
        rate: Transactions a second, together.
        p99: Seconds that 99 of 100 reads stayed below.
    """

    counts: tuple[int, ...]
    rate: float
    p99: float

    @property
    def slowest(self) -> float:
        """Transactions of the slowest writer, of an equal share, in per cent."""
        return 100 * min(self.counts) * len(self.counts) / sum(self.counts)


def registry_work(place: Path, writer: int | None) -> Callable[[], object]:
    """Move an alias of one's own to and fro; a reader looks one up."""
    registry = la.connect(place)
    if writer is None:
        return lambda: registry.get("agent-0:prod")
    goals = [f"agent-{writer}:v1", f"agent-{writer}:v2"]

    def move() -> None:
        goals.reverse()
        registry.promote(goals[0], to="prod", reason="measured")

    return move


def plain_work(place: Path, writer: int | None) -> Callable[[], object]:
    """Write as many rows through SQLite, which waits as it does by itself; a reader reads one."""
    table = PlainTable(place)
    return table.read if writer is None else lambda: table.commit(ROWS_OF_ONE_MOVE)


def run(make: Callable[[Path, int | None], Callable[[], object]], place: Path, lasting: float) -> Outcome:
    """Let eight writers and a reader work for some seconds."""
    spawn = multiprocessing.get_context("spawn")
    barrier, told = spawn.Barrier(WRITERS + 1), spawn.Queue()
    processes = [
        spawn.Process(target=_work, args=(make, place, number, lasting, barrier, told))
        for number in [*range(WRITERS), None]
    ]
    for process in processes:
        process.start()
    answers = dict(told.get(timeout=lasting + 120) for _ in processes)
    for process in processes:
        process.join()
    counts = tuple(answers[number] for number in range(WRITERS))
    return Outcome(counts, sum(counts) / lasting, answers[None])


def _work(
    make: Callable[[Path, int | None], Callable[[], object]],
    place: Path,
    number: int | None,
    lasting: float,
    barrier: Any,
    told: Any,
) -> None:
    work = make(place, number)
    work()
    barrier.wait(timeout=120)
    end = time.perf_counter() + lasting
    taken: list[float] = []
    while (begin := time.perf_counter()) < end:
        work()
        taken.append(time.perf_counter() - begin)
        if number is None:
            time.sleep(0.001)
    told.put((number, sorted(taken)[int(len(taken) * 0.99)] if number is None else len(taken)))


def measure(bench: Bench) -> Iterator[Line]:
    lasting = bench.size(1, 5)
    place, database = bench.folder / "writers", bench.folder / "writers.db"
    with la.init(place) as registry:
        for writer in range(WRITERS):
            registry.log_many([(f"agent-{writer}", prompt) for prompt in prompts(2, mark=f"{writer} ")])
        registry.promote([f"agent-{writer}:v1" for writer in range(WRITERS)], to="prod", reason="first")
    table = PlainTable(database)
    table.commit(ROWS_OF_ONE_MOVE)
    table.close()
    bench.say(f"{WRITERS} writers and a reader, {2 * bench.runs} times {lasting} s")
    ours, floor = [], []
    for _ in range(bench.runs):
        ours.append(run(registry_work, place, lasting))
        floor.append(run(plain_work, database, lasting))
    note = f"{WRITERS} processes for {lasting} s: {_range(ours)} each, beside {_range(floor)}"
    yield Line("promotions, all together", *_figures(ours, floor, lambda o: o.rate, "/s"), BESIDE, note=note)
    yield Line("of an equal share, slowest", *_figures(ours, floor, lambda o: o.slowest, "%"), BESIDE, note=note)
    yield Line("a reader's p99 meanwhile", *_figures(ours, floor, lambda o: o.p99, "s"), BESIDE, note=note)


def _figures(
    ours: Sequence[Outcome], floor: Sequence[Outcome], of: Callable[[Outcome], float], unit: Unit
) -> tuple[Figure, Figure]:
    return Figure(tuple(map(of, ours)), unit), Figure(tuple(map(of, floor)), unit)


def _range(outcomes: Sequence[Outcome]) -> str:
    """The least and the most of any writer, in the run whose slowest writer is the one in the middle."""
    middle = sorted(outcomes, key=lambda o: o.slowest)[len(outcomes) // 2]
    return f"{min(middle.counts):,} to {max(middle.counts):,} transactions"


SUBJECT = Subject(
    "writers",
    "eight processes promoting for some seconds, and a reader: fairness, rate, the reader's p99",
    "as many rows through plain SQLite with its own waiting",
    measure,
)
