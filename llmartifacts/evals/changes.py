"""Which items are worth a look: those that failed, and those that lost most against the baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llmartifacts.evals.shorten import shorten
from llmartifacts.kinds.report import Report

SHOWN = 20
"""Items that are named."""


@dataclass(frozen=True, slots=True)
class Loss:
    """One item that scores worse than the baseline.

    Attributes:
        id: Its id.
        was: The baseline's score.
        now: The target's.
    """

    id: str
    was: float
    now: float


def losses(report: Report, before: Mapping[str, float], metric: str) -> tuple[list[Loss], int]:
    """The items that lost on a metric, worst first, and how many gained.

    Args:
        report: The report.
        before: Item id -> the baseline's score.
        metric: Name of the metric.
    """
    sign = 1 if report.metric(metric).higher_is_better else -1
    pairs = [
        Loss(item.id, before[item.id], score)
        for item in report.items
        if (score := item.scores.get(metric)) is not None and item.id in before
    ]
    lost = sorted((p for p in pairs if sign * (p.now - p.was) < 0), key=lambda p: sign * (p.now - p.was))
    return lost, sum(sign * (p.now - p.was) > 0 for p in pairs)


def failing_items(
    report: Report, metric: str = "", before: Mapping[str, float] | None = None, most: int = SHOWN
) -> tuple[str, ...]:
    """A line for each item that failed: first those with an error, then those to blame on one metric.

    Args:
        report: The report.
        metric: The metric; empty for errors alone.
        before: Item id -> the baseline's score: those that lost most are to blame. Without it, those that miss the best
            score, the worst first.
        most: At most so many.
    """
    lines = [f"{item.id}: {shorten(item.error, 160)}" for item in report.items if item.error]
    if metric and before:
        lines += [f"{loss.id}: {metric} {loss.was:.4g} -> {loss.now:.4g}" for loss in losses(report, before, metric)[0]]
    elif metric:
        about = report.metric(metric)
        best, sign = (about.hi, 1) if about.higher_is_better else (about.lo, -1)
        scored = [(s, item.id) for item in report.items if (s := item.scores.get(metric)) is not None and s != best]
        lines += [f"{item}: {metric} {score:.4g}" for score, item in sorted(scored, key=lambda pair: sign * pair[0])]
    more = len(lines) - most
    return (*lines[:most], *([f"and {more} more"] if more > 0 else []))
