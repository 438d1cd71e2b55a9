"""A set of components moved together, one of them a large index: promotion, rollback, and what was served when."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.inputs import service_set
from benchmarks.measure import Bench, Line, Subject, seconds, within
from benchmarks.plain import ROWS_OF_A_MOVE, PlainTable
from llmartifacts.registry import Registry

ROUNDS = 20
SET = ["agent:v2", "kb:v2", "questions:v2"]
BESIDE = "the rows in SQLite"


def measure(bench: Bench) -> Iterator[Line]:
    made = service_set(bench)
    plain = PlainTable(bench.folder / "moving.db")
    promoting: list[float] = []
    rolling: list[float] = []

    def plainly() -> float:
        return seconds(lambda: plain.commit(ROWS_OF_A_MOVE), ROUNDS) / ROUNDS

    with made.open() as registry:

        def promote() -> float:
            """There and back, so that each round moves all three; the way back is measured too."""
            promoting.clear()
            rolling.clear()
            for _ in range(ROUNDS):
                promoting.append(seconds(lambda: registry.promote(SET, to="prod", reason="measured")))
                rolling.append(seconds(lambda: _roll_back(registry)))
            return sum(promoting) / ROUNDS

        ours, back, floor = bench.beside(promote, lambda: sum(rolling) / ROUNDS, plainly)
    note = f"the index has {made.count:,} x 384 components; no file of it is read"
    yield Line("promote 3 components", ours, floor, BESIDE, within(0.05), note=note)
    yield Line("roll the 3 back", back, floor, BESIDE, within(0.05), note=note)
    plain.close()


def _roll_back(registry: Registry) -> None:
    registry.rollback("kb:prod", whole=True, reason="measured")


SUBJECT = Subject(
    "moving",
    "promotion and rollback of a prompt, a dataset and a large index together",
    "as many rows in one durable transaction of plain SQLite",
    measure,
)
