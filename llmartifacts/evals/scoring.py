"""Grades answers: repeats averaged for each item first, what failed counted."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmartifacts.evals.runner import Answers, told
from llmartifacts.evals.scorers.base import Answer
from llmartifacts.kinds.eval_dataset.value import EvalDataset, Item

Grade = Callable[[Item, int, Answer, Answer | None], float | None]
"""(item, repeat, answer, the baseline's answer) -> score on the metric's scale, or None for nothing to grade by."""


@dataclass(frozen=True, slots=True)
class Grading:
    """One metric, and what grades it.

    Attributes:
        metric: Its name.
        lo: Lower end of its scale.
        hi: Upper end.
        higher_is_better: Whether more is better.
        compares: Whether it needs the baseline's answers.
        grade: Grades one answer.
    """

    metric: str
    lo: float
    hi: float
    higher_is_better: bool
    compares: bool
    grade: Grade

    @property
    def worst(self) -> float:
        """The score that nothing can be below."""
        return self.lo if self.higher_is_better else self.hi


@dataclass
class Graded:
    """One metric over all items.

    Attributes:
        scores: Item id -> mean of its repeats; None where there is nothing to grade by, or it failed.
        errors: Item id -> why it failed.
    """

    scores: dict[str, float | None] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    @property
    def values(self) -> dict[str, float]:
        """The items that have a score."""
        return {item: score for item, score in self.scores.items() if score is not None}


def grade(
    gradings: Sequence[Grading],
    dataset: EvalDataset,
    answers: Answers,
    *,
    repeats: int = 1,
    on_error: str = "error",
    baseline: Answers | None = None,
) -> dict[str, Graded]:
    """The scores of one target.

    Args:
        gradings: The metrics.
        dataset: The items.
        answers: What the target gave.
        repeats: How often each item was asked.
        on_error: `error` counts an item that was not answered in any repeat, or not graded, as failed; `worst` takes
            the worst score of the scale for a repeat without an answer; `skip` gives such an item no score, and is
            for a baseline, whose bad day must not make the target look good. A scorer that fails is always an error.
        baseline: What the baseline gave, for metrics that compare; without it they have no score.

    Returns:
        Metric -> its scores, items in the dataset's order.
    """
    made = {g.metric: Graded() for g in gradings}
    for item in dataset:
        for one in gradings:
            found = made[one.metric]
            if one.compares and baseline is None:
                found.scores[item.id] = None
                continue
            try:
                found.scores[item.id] = _of_item(one, item, answers, repeats, on_error, baseline)
            except _Failed as failed:
                found.scores[item.id] = None
                found.errors[item.id] = str(failed)
    return made


def only_of_baseline(graded: Graded, baseline: Graded, metric: str) -> Graded:
    """The scores of a target; an item that was graded for the baseline alone is an error.

    Whether there is something to grade by is a matter of the item. A scorer that finds nothing in what the target
    answers would leave its bad answers out of the comparison.

    Args:
        graded: Of the target.
        baseline: Of the baseline.
        metric: Name of the metric.
    """
    lost = [i for i, score in graded.scores.items() if score is None and baseline.scores.get(i) is not None]
    told = f"{metric}: no score, where the baseline has one; give the answer the worst score instead"
    return Graded(graded.scores, {**dict.fromkeys(lost, told), **graded.errors})


class ScorerFailed(Exception):
    """A scorer failed elsewhere, and what it raised is told already."""


class _Failed(Exception):
    """An item has no score, and should have one. Never leaves this file."""


def _of_item(
    one: Grading, item: Item, answers: Answers, repeats: int, on_error: str, baseline: Answers | None
) -> float | None:
    scores: list[float] = []
    failed = 0
    for repeat in range(repeats):
        answer = answers[item.id, repeat]
        other = None if baseline is None else baseline[item.id, repeat]
        if one.compares and other is not None and other.error:
            raise _Failed(f"the baseline: {other.error}")
        if answer.error:
            if on_error == "skip":
                return None
            if on_error != "worst":
                raise _Failed(answer.error)
            failed += 1
            continue
        score = _checked(one, item, repeat, answer, other)
        if score is None:
            return None  # nothing to grade by, whatever another repeat answered
        scores.append(score)
    if not scores and not failed:
        return None
    return math.fsum([*scores, *[one.worst] * failed]) / (len(scores) + failed)


def _checked(one: Grading, item: Item, repeat: int, answer: Answer, other: Answer | None) -> float | None:
    try:
        score: Any = one.grade(item, repeat, answer, other)
    except ScorerFailed as error:
        raise _Failed(f"{one.metric}: {error}") from None
    except Exception as error:  # noqa: BLE001 - a scorer may raise anything
        raise _Failed(f"{one.metric}: {told(error)}") from None
    if score is None:
        return None
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        raise _Failed(f"{one.metric}: the score is {score!r:.40}, no finite number")
    if not one.lo <= score <= one.hi:
        raise _Failed(f"{one.metric}: the score {score:g} is not on the scale from {one.lo:g} to {one.hi:g}")
    return float(score)


def outputs_of(answers: Answers, item: str, repeats: int) -> Any:
    """What a report keeps of an item's answers: the output, or one a repeat; None where all failed."""
    made = [answers[item, r].output for r in range(repeats)]
    return made[0] if repeats == 1 else None if all(m is None for m in made) else made


def errors_of(graded: Mapping[str, Graded], answers: Answers, item: str, repeats: int) -> str:
    """Why an item has not all of its scores; each reason once."""
    reasons = [answers[item, r].error for r in range(repeats) if answers[item, r].error]
    reasons += [g.errors[item] for g in graded.values() if item in g.errors]
    return "; ".join(dict.fromkeys(reasons))
