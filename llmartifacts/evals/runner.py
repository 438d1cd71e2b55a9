"""Asks a target about items: several at a time, each with its own time, nothing asked twice.

A thread that hangs cannot be ended. Its item becomes an error, another thread takes its place, and it dies with the
process; after `MAX_HANGING` of them the items that are left are errors too, so that a run always ends.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmartifacts.evals.outputs import OutputCache, key_of
from llmartifacts.evals.scorers.base import Answer
from llmartifacts.evals.targets import Maker
from llmartifacts.kinds.eval_dataset.value import EvalDataset, Item

MAX_HANGING = 32
MAX_ERROR = 500
_TICK = 1.0
"""Seconds after which the time of every running item is looked at again, at the latest."""
Answers = Mapping[tuple[str, int], Answer]
"""(item id, repeat from 0) -> answer."""
Progress = Callable[[int, int], None]
"""Told how many are done, and how many there are in all."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """How a target is asked.

    Attributes:
        repeats: How often each item is asked.
        seed: Of the first repeat; each further one has the next.
        concurrency: How many are asked at a time.
        timeout: Seconds that one item may take.
    """

    repeats: int = 1
    seed: int = 0
    concurrency: int = 4
    timeout: float = 60.0


def ask(
    value: Any,
    maker: Maker,
    dataset: EvalDataset,
    conditions: Conditions,
    cache: OutputCache | None = None,
    progress: Progress | None = None,
    salt: Callable[[str, int], bytes] | None = None,
) -> Answers:
    """The answers of one target to every item, as often as asked for.

    What is done is in the cache the moment it is done, so that an interruption loses only what was under way.

    Args:
        value: The loaded target; `maker.prepare` has seen it.
        maker: Makes the outputs.
        dataset: The items.
        conditions: How to ask.
        cache: Where outputs are kept; None keeps none.
        progress: Told after each answer.
        salt: (item id, repeat) -> what else an answer depends on, for its key in the cache.

    Returns:
        An answer for every item and repeat, in the dataset's order; those that failed have an `error`.
    """
    found: dict[tuple[str, int], Answer] = {}
    jobs: list[_Job] = []
    every = [(item, dataset.line(item.id)) for item in dataset]
    for repeat in range(conditions.repeats):
        seed = conditions.seed + repeat
        waiting: list[tuple[Item, str]] = []
        for item, line in every:
            more = salt(item.id, repeat) if salt is not None else b""
            key = key_of(line + more, seed if maker.takes_seed else 0, repeat)
            known = cache.get(key) if cache is not None else None
            if known is None:
                waiting.append((item, key))
            else:
                found[item.id, repeat] = known
        for start in range(0, len(waiting), maker.batch):
            part = waiting[start : start + maker.batch]
            limit = conditions.timeout * len(part)
            jobs.append(_Job([item for item, _ in part], [key for _, key in part], seed, repeat, limit))
    total = len(every) * conditions.repeats
    if progress is not None:
        progress(len(found), total)
    pool = _Pool(value, maker, jobs, cache, conditions.timeout)
    for job, answers in pool.run(conditions.concurrency):
        for item, answer in zip(job.items, answers, strict=True):
            found[item.id, job.repeat] = answer
        if progress is not None:
            progress(len(found), total)
    return {(item.id, r): found[item.id, r] for item, _ in every for r in range(conditions.repeats)}


@dataclass(eq=False)
class _Job:
    items: Sequence[Item]
    keys: Sequence[str]
    seed: int
    repeat: int
    limit: float
    started: float = 0.0
    ended: bool = False
    """Whether its answers are settled: given, or given up."""


@dataclass(eq=False)
class _Pool:
    """Daemon threads over a list of jobs; the caller's own thread watches the time."""

    value: Any
    maker: Maker
    jobs: Sequence[_Job]
    cache: OutputCache | None
    timeout: float
    _waiting: queue.SimpleQueue[_Job | None] = field(default_factory=queue.SimpleQueue)
    _results: queue.SimpleQueue[tuple[_Job, list[Answer]]] = field(default_factory=queue.SimpleQueue)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _running: set[_Job] = field(default_factory=set)
    _stopped: bool = False

    def run(self, concurrency: int) -> Any:
        """Yields each job with its answers, as they come."""
        for job in self.jobs:
            self._waiting.put(job)
        left, hanging = len(self.jobs), 0
        for _ in range(min(concurrency, left)):
            self._start()
        try:
            while left:
                try:
                    yield self._results.get(timeout=self._until_next())
                    left -= 1
                except queue.Empty:
                    pass
                for job in self._overdue():
                    yield job, self._given_up(job, f"no answer within {self.timeout:g} s")
                    left, hanging = left - 1, hanging + 1
                    if hanging < MAX_HANGING:
                        self._start()
                if hanging >= MAX_HANGING and not self._running:
                    for job in self._drain():
                        yield job, self._given_up(job, f"not asked: {hanging} items before it did not answer in time")
                        left -= 1
        finally:
            self._stopped = True
            for _ in range(concurrency + hanging):
                self._waiting.put(None)

    def _start(self) -> None:
        threading.Thread(target=self._work, name="llmartifacts-eval", daemon=True).start()

    def _work(self) -> None:
        while (job := self._waiting.get()) is not None and not self._stopped:
            with self._lock:
                job.started = time.monotonic()
                self._running.add(job)
            try:
                answers = self.maker.answer(self.value, job.items, job.seed, job.repeat)
            except BaseException as error:  # noqa: BLE001 - a runnable may raise anything, SystemExit too
                answers = [Answer(error=told(error))] * len(job.items)
            with self._lock:
                if job.ended:
                    return  # too late, and another thread is in this one's place
                job.ended = True
                self._running.discard(job)
            try:
                if self.cache is not None:
                    for item, key, answer in zip(job.items, job.keys, answers, strict=True):
                        self.cache.put(key, item.id, job.repeat, answer)
            finally:  # whatever goes wrong with the cache, somebody waits for the answers
                self._results.put((job, answers))

    def _until_next(self) -> float:
        with self._lock:
            ends = [job.started + job.limit for job in self._running]
        return max(0.001, min([_TICK, *(end - time.monotonic() for end in ends)]))

    def _overdue(self) -> list[_Job]:
        now = time.monotonic()
        with self._lock:
            late = [job for job in self._running if now > job.started + job.limit]
            for job in late:
                job.ended = True
                self._running.discard(job)
        return sorted(late, key=lambda job: job.started)

    def _drain(self) -> list[_Job]:
        left = []
        try:
            while (job := self._waiting.get_nowait()) is not None:
                left.append(job)
        except queue.Empty:
            pass
        return left

    def _given_up(self, job: _Job, why: str) -> list[Answer]:
        return [Answer(error=why)] * len(job.items)


def told(error: BaseException) -> str:
    """What was raised, in one line that a report can keep."""
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    line = " ".join(text.encode("utf-8", "replace").decode("utf-8", "replace").split())
    return line if len(line) <= MAX_ERROR else f"{line[: MAX_ERROR - 1]}…"
