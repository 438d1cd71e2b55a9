"""From answers to scores: repeats, errors, the worst score, the baseline's answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from llmartifacts.evals.runner import Answers
from llmartifacts.evals.scorers.base import Answer
from llmartifacts.evals.scoring import Grade, Grading, errors_of, grade, outputs_of
from llmartifacts.kinds.eval_dataset.value import EvalDataset

DATASET = EvalDataset([{"id": "a", "input": "x"}, {"id": "b", "input": "x"}])


def answers(**outputs: Sequence[Any]) -> Answers:
    """An exception class among the outputs is an error."""
    return {
        (item, r): Answer(error="it broke") if o is ValueError else Answer(o)
        for item, many in outputs.items()
        for r, o in enumerate(many)
    }


def metric(given: Grade, *, higher: bool = True, compares: bool = False) -> Grading:
    return Grading("m", 0.0, 10.0, higher, compares, given)


def as_it_is(item: Any, repeat: int, answer: Answer, other: Answer | None) -> Any:
    return answer.output


def test_repeats_are_averaged_for_each_item_first() -> None:
    found = grade([metric(as_it_is)], DATASET, answers(a=[1, 2, 6], b=[4, 4, 4]), repeats=3)["m"]
    assert found.scores == {"a": 3.0, "b": 4.0}
    assert not found.errors


def test_an_item_that_was_not_answered_once_is_an_error() -> None:
    given = answers(a=[5, ValueError], b=[1, 1])
    found = grade([metric(as_it_is)], DATASET, given, repeats=2)
    assert found["m"].scores == {"a": None, "b": 1.0}
    assert found["m"].errors == {"a": "it broke"}
    assert found["m"].values == {"b": 1.0}
    assert errors_of(found, given, "a", 2) == "it broke"
    assert errors_of(found, given, "b", 2) == ""


@pytest.mark.parametrize(("higher", "expected"), [(True, 2.5), (False, 7.5)])
def test_with_worst_a_repeat_without_an_answer_counts_as_the_worst_score(higher: bool, expected: float) -> None:
    given = answers(a=[5, ValueError], b=[ValueError, ValueError])
    found = grade([metric(as_it_is, higher=higher)], DATASET, given, repeats=2, on_error="worst")["m"]
    assert found.scores == {"a": expected, "b": 0.0 if higher else 10.0}
    assert not found.errors


@pytest.mark.parametrize("on_error", ["error", "worst"])
@pytest.mark.parametrize("score", [float("nan"), float("inf"), 10.5, -1, "high", True])
def test_a_score_off_the_scale_is_an_error_whatever_the_suite_says(score: Any, on_error: str) -> None:
    found = grade([metric(as_it_is)], DATASET, answers(a=[score], b=[1]), on_error=on_error)["m"]
    assert found.scores == {"a": None, "b": 1.0}
    assert found.errors["a"].startswith("m: the score")


@pytest.mark.parametrize("on_error", ["error", "worst"])
def test_a_scorer_that_raises_is_an_error_whatever_the_suite_says(on_error: str) -> None:
    def raises(item: Any, repeat: int, answer: Answer, other: Answer | None) -> float:
        raise ZeroDivisionError("no")

    found = grade([metric(raises)], DATASET, answers(a=[1], b=[1]), on_error=on_error)["m"]
    assert found.errors == dict.fromkeys("ab", "m: ZeroDivisionError: no")


def test_an_item_with_nothing_to_grade_by_has_no_score_and_no_error() -> None:
    found = grade([metric(as_it_is)], DATASET, answers(a=[None], b=[1]))["m"]
    assert found.scores == {"a": None, "b": 1.0}
    assert not found.errors


def test_a_metric_that_compares_sees_the_baselines_answer_to_the_same_repeat() -> None:
    def difference(item: Any, repeat: int, answer: Answer, other: Answer | None) -> float:
        assert other is not None
        return abs(float(answer.output - other.output))

    one = metric(difference, compares=True)
    found = grade([one], DATASET, answers(a=[5, 6], b=[1, 1]), repeats=2, baseline=answers(a=[4, 4], b=[1, 3]))["m"]
    assert found.scores == {"a": 1.5, "b": 1.0}
    assert grade([one], DATASET, answers(a=[5], b=[1]))["m"].scores == {"a": None, "b": None}
    broken = grade([one], DATASET, answers(a=[5], b=[1]), baseline=answers(a=[ValueError], b=[1]))["m"]
    assert broken.errors == {"a": "the baseline: it broke"}


def test_a_report_keeps_one_output_or_one_for_each_repeat() -> None:
    given = answers(a=["x", ValueError], b=[ValueError, ValueError])
    assert outputs_of(given, "a", 1) == "x"
    assert outputs_of(given, "a", 2) == ["x", None]
    assert outputs_of(given, "b", 2) is None
