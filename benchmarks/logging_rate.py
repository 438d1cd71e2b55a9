"""Prompts logged in a second, durable: one by one, and many in one transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import llmartifacts as la
from benchmarks.inputs import prompts
from benchmarks.measure import Bench, Line, Subject, at_least, seconds
from benchmarks.plain import ROWS_OF_A_LOG, PlainTable
from llmartifacts.registry import Registry

NOTE = "prompts made beforehand; each transaction is on disk before the call returns"


def measure(bench: Bench) -> Iterator[Line]:
    plain = PlainTable(bench.folder / "logging.db")
    with la.init(bench.folder / "logging") as registry:
        fresh = iter(range(1 << 30))

        def batch(count: int) -> Sequence[la.Prompt]:
            return prompts(count, mark=f"run {next(fresh)} ")

        def one_by_one(count: int) -> float:
            made = batch(count)
            left = iter(made)
            return count / seconds(lambda: registry.log("agent", next(left)), count)

        def plain_one_by_one(count: int) -> float:
            return count / seconds(lambda: plain.commit(ROWS_OF_A_LOG), count)

        ours, floor = bench.beside(lambda: one_by_one(1000), lambda: plain_one_by_one(1000), unit="/s")
        yield Line("1,000 prompts one by one", ours, floor, "as many SQLite rows", at_least(1000), note=NOTE)

        ours, floor = bench.beside(
            lambda: _in_a_batch(registry, batch(10_000)),
            lambda: 10_000 / seconds(lambda: plain.commit(ROWS_OF_A_LOG * 10_000)),
            unit="/s",
        )
        yield Line("10,000 prompts in a batch", ours, floor, "as many SQLite rows", at_least(10_000), note=NOTE)
    plain.close()


def _in_a_batch(registry: Registry, made: Sequence[la.Prompt]) -> float:
    return len(made) / seconds(lambda: registry.log_many([("agent", prompt) for prompt in made]))


SUBJECT = Subject(
    "logging_rate",
    "1,000 prompt versions one by one and 10,000 in a batch, durable",
    "as many rows in as many durable transactions of plain SQLite",
    measure,
)
