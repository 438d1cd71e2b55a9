"""A warm process: looking up an alias, and loading the prompt that it names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import llmartifacts as la
from benchmarks.inputs import prompts
from benchmarks.measure import Bench, Budget, Line, Subject, per_call, within
from benchmarks.plain import PlainTable

BESIDE = "one SQLite row"


def measure(bench: Bench) -> Iterator[Line]:
    plain = PlainTable(bench.folder / "resolving.db")
    plain.commit([600] * 100)
    with la.init(bench.folder / "resolving") as registry:
        for number in range(5):
            registry.log_many([(f"agent-{number}", prompt) for prompt in prompts(20, mark=f"{number} ")])
        names = [f"agent-{number}:prod" for number in range(5)]
        registry.promote([f"agent-{number}:v7" for number in range(5)], to="prod", reason="first")
        reads: tuple[tuple[str, Callable[[], object], Budget | None], ...] = (
            ("registry.get, an alias", lambda: registry.get(names[0]), within(50e-6)),
            ("registry.resolve, a prompt", lambda: registry.resolve(names[0], la.Prompt), None),
            ("registry.read, 5 at once", lambda: registry.read(names), None),
        )
        for name, work, budget in reads:
            ours, floor = bench.beside(partial(per_call, work), partial(per_call, plain.read))
            yield Line(name, ours, floor, BESIDE, budget)
    plain.close()


SUBJECT = Subject(
    "resolving",
    "a warm process: an alias to its version; the prompt itself; five references at one revision",
    "reading one row through plain SQLite",
    measure,
)
