"""Killed, refused and out of room at every system call that writes: nothing acknowledged is lost, and a retry works.

`faulting/` says what is held against what: after each point the registry opens, every byte and the audit verify, the
verb was done wholly or not at all, an error says what to do, and the same call made again ends as if nothing had
happened. The short form tries a few points of each verb; `make faults` tries all.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from faulting import table
from faulting.injector import FAULTS, Injector, Judge, Point
from faulting.verbs import OPERATIONS

FEW = 2


@pytest.mark.slow
@pytest.mark.xdist_group("faults")
@pytest.mark.parametrize("verb", OPERATIONS)
def test_a_fault_at_some_writes_loses_nothing_and_the_verb_can_be_tried_again(
    injector: Injector, folder: Path, verb: str
) -> None:
    judge = Judge(injector, verb, folder)
    assert judge.disorder == []
    points = [Point(fault, call, nth) for fault in FAULTS for call, nth in judge.calls]
    for point in random.Random(verb).sample(points, FEW):
        judge.attempt(point)
    assert len(points) >= 40, "there are points enough for the long form"


@pytest.mark.faults
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("verb", OPERATIONS)
def test_a_fault_at_every_write_loses_nothing_and_the_verb_can_be_tried_again(
    injector: Injector,
    folder: Path,
    verb: str,
    fault: str,
    record_property: Callable[[str, object], None],
    request: pytest.FixtureRequest,
) -> None:
    judge = Judge(injector, verb, folder)
    most = request.config.getoption("--faults-most", default=None) or len(judge.calls)
    outcomes = {"killed": 0, "refused": 0, "done": 0}
    for call, nth in spread(judge.calls, most):
        outcomes[judge.attempt(Point(fault, call, nth))] += 1
    assert outcomes["killed" if fault == "kill" else "refused"], "the fault was seen"
    record_property(table.PROPERTY, json.dumps(table.row(verb, fault, outcomes)))


def spread(calls: list[tuple[str, int]], most: int) -> list[tuple[str, int]]:
    """At most so many, from the first to the last; of each call, the first and the last are among them."""
    by_call: dict[str, list[tuple[str, int]]] = {}
    for call in calls:
        by_call.setdefault(call[0], []).append(call)
    ends = dict.fromkeys(one for same in by_call.values() for one in (same[0], same[-1]))
    others = [call for call in calls if call not in ends]
    room = max(0, most - len(ends))
    step = max(1.0, len(others) / room) if room else len(others) + 1
    chosen = [others[int(at * step)] for at in range(room) if int(at * step) < len(others)]
    return [*ends, *chosen]


def test_of_many_points_the_ends_of_each_call_are_tried() -> None:
    calls = [("write", n) for n in range(1, 301)] + [("link", 1), ("link", 2), ("fsync", 1)]
    assert sorted(spread(calls, 1000)) == sorted(calls)
    few = spread(calls, 50)
    assert len(few) == len(set(few)) == 50
    assert {("write", 1), ("write", 300), ("link", 1), ("link", 2), ("fsync", 1)} <= set(few)


def test_the_page_shows_what_was_tried_of_every_verb(repository: Path) -> None:
    rows = table.read(repository / "docs" / "faults.md")
    assert {(row["verb"], row["fault"]) for row in rows} == {(verb, fault) for verb in OPERATIONS for fault in FAULTS}
    for verb in OPERATIONS:
        tried = sum(row["killed"] + row["refused"] + row["done"] for row in rows if row["verb"] == verb)
        assert tried >= 40, verb
