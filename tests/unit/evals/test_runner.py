"""Asking a target about items: in any order, with its own time for each, and told in the dataset's order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from llmartifacts.evals import runner
from llmartifacts.evals.outputs import OutputCache
from llmartifacts.evals.runner import Conditions, ask, told
from llmartifacts.evals.scorers.base import Answer
from llmartifacts.evals.targets import Called
from llmartifacts.kinds.eval_dataset.value import EvalDataset, Item


def items(n: int) -> EvalDataset:
    return EvalDataset([{"id": f"q{i}", "input": str(i)} for i in range(n)])


def maker(function: Callable[..., Any]) -> Called:
    return Called(function, {"runnable": "app:f"}, "app:f")


def test_answers_are_in_the_datasets_order_whatever_the_order_of_completion() -> None:
    first = threading.Event()

    def slow_first(value: Any, item: Item) -> str:
        if item.id == "q0":
            first.wait(30)
        elif item.id == "q5":
            first.set()
        return f"{value} {item.input}"

    found = ask("v", maker(slow_first), items(10), Conditions(concurrency=3))
    assert list(found) == [(f"q{i}", 0) for i in range(10)]
    assert [a.output for a in found.values()] == [f"v {i}" for i in range(10)]


def test_items_are_asked_several_at_a_time() -> None:
    together = threading.Barrier(4, timeout=30)  # nobody passes unless four are in it at once

    def meet(value: Any, item: Item) -> int:
        return together.wait()

    found = ask(None, maker(meet), items(8), Conditions(concurrency=4))
    assert not any(a.error for a in found.values())


def test_with_concurrency_one_nothing_runs_beside() -> None:
    running: list[str] = []
    most = [0]

    def alone(value: Any, item: Item) -> int:
        running.append(item.id)
        most[0] = max(most[0], len(running))
        running.remove(item.id)
        return 1

    ask(None, maker(alone), items(50), Conditions(concurrency=1))
    assert most == [1]


def test_an_item_that_hangs_is_an_error_and_the_run_goes_on_and_ends() -> None:
    forever = threading.Event()

    def hangs_on_three(value: Any, item: Item) -> str:
        if item.id == "q3":
            forever.wait()
        return item.input

    found = ask(None, maker(hangs_on_three), items(8), Conditions(concurrency=1, timeout=0.2))
    assert found["q3", 0].error == "no answer within 0.2 s"
    assert [a.output for a in found.values()] == ["0", "1", "2", None, "4", "5", "6", "7"]
    forever.set()


def test_a_target_that_always_hangs_ends_the_run_and_not_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "MAX_HANGING", 5)
    forever = threading.Event()
    asked: list[str] = []

    def hangs(value: Any, item: Item) -> None:
        asked.append(item.id)
        forever.wait()

    found = ask(None, maker(hangs), items(100), Conditions(concurrency=2, timeout=0.05))
    errors = [a.error for a in found.values()]
    assert len(asked) <= 7
    assert errors.count("no answer within 0.05 s") == len(asked)
    assert sum("not asked" in e for e in errors) == 100 - len(asked)
    forever.set()


def test_an_answer_that_comes_too_late_changes_nothing_and_is_not_kept(tmp_path: Path) -> None:
    late, go = threading.Event(), threading.Event()

    def answers_late(value: Any, item: Item) -> str:
        if item.id == "q0":
            go.wait(30)
            late.set()
        return "x"

    cache = OutputCache({"a": 1}, root=tmp_path)
    found = ask(None, maker(answers_late), items(2), Conditions(concurrency=1, timeout=0.1), cache)
    go.set()
    assert late.wait(30)
    time.sleep(0.05)
    assert found["q0", 0].error
    assert len(OutputCache({"a": 1}, root=tmp_path)) == 1


@pytest.mark.parametrize("raised", [ValueError("no"), SystemExit(3), KeyboardInterrupt(), RecursionError()])
def test_whatever_a_function_raises_is_the_error_of_its_item(raised: BaseException) -> None:
    def raises(value: Any, item: Item) -> str:
        if item.id == "q1":
            raise raised
        return "fine"

    found = ask(None, maker(raises), items(3), Conditions())
    assert [bool(a.error) for a in found.values()] == [False, True, False]
    assert type(raised).__name__ in found["q1", 0].error


def test_an_error_is_told_in_one_short_line_that_is_text() -> None:
    assert told(ValueError("two\nlines")) == "ValueError: two lines"
    assert told(KeyboardInterrupt()) == "KeyboardInterrupt"
    assert len(told(ValueError("x" * 10_000))) == runner.MAX_ERROR
    told(ValueError("\ud800")).encode()


def test_each_repeat_has_its_own_seed_and_only_what_is_missing_is_asked(tmp_path: Path) -> None:
    asked: list[tuple[str, int]] = []

    def seeded(value: Any, item: Item, seed: int) -> str:
        asked.append((item.id, seed))
        return f"{item.id} {seed}"

    cache = OutputCache({"a": 1}, root=tmp_path)
    ask(None, maker(seeded), items(3), Conditions(repeats=2, seed=7), cache)
    assert sorted(asked) == [(f"q{i}", seed) for i in range(3) for seed in (7, 8)]
    asked.clear()
    found = ask(None, maker(seeded), items(4), Conditions(repeats=3, seed=7), cache)
    assert sorted(asked) == [("q0", 9), ("q1", 9), ("q2", 9), ("q3", 7), ("q3", 8), ("q3", 9)]
    assert found["q2", 1].output == "q2 8"


def test_a_function_that_takes_no_seed_is_not_asked_again_for_another(tmp_path: Path) -> None:
    asked: list[str] = []

    def plain(value: Any, item: Item) -> str:
        asked.append(item.id)
        return "x"

    cache = OutputCache({"a": 1}, root=tmp_path)
    ask(None, maker(plain), items(2), Conditions(seed=1), cache)
    ask(None, maker(plain), items(2), Conditions(seed=2), cache)
    assert len(asked) == 2


def test_progress_counts_what_is_known_and_what_is_done(tmp_path: Path) -> None:
    def plain(value: Any, item: Item) -> str:
        return "x"

    cache = OutputCache({"a": 1}, root=tmp_path)
    ask(None, maker(plain), items(2), Conditions(), cache)
    seen: list[tuple[int, int]] = []
    ask(None, maker(plain), items(5), Conditions(), cache, lambda done, total: seen.append((done, total)))
    assert seen == [(2, 5), (3, 5), (4, 5), (5, 5)]


class Batches:
    identity: Any = None
    told = "batches"
    packages: Sequence[str] = ()
    takes_seed = False
    batch = 4

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def prepare(self, value: Any, items: Sequence[Item]) -> None: ...

    def answer(self, value: Any, items: Sequence[Item], seed: int, repeat: int) -> list[Answer]:
        self.sizes.append(len(items))
        return [Answer(item.input) for item in items]


def test_what_answers_in_batches_gets_batches() -> None:
    made = Batches()
    found = ask(None, made, items(10), Conditions(concurrency=1))
    assert made.sizes == [4, 4, 2]
    assert [a.output for a in found.values()] == [str(i) for i in range(10)]
