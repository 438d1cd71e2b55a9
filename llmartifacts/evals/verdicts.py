"""A report held against the thresholds of its suite, by the rules of `records.evidence`: what `eval run` ends with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from llmartifacts.kinds.report import Metric, Report
from llmartifacts.records.evidence import (
    Comparison,
    Measured,
    baseline_verdict,
    beyond_margin,
    items_needed,
    threshold_verdict,
)
from llmartifacts.records.policy import Verdict, all_of


class Limits(Protocol):
    """What must hold of one metric; see `kinds.eval_suite.Threshold`."""

    @property
    def margin(self) -> float | None: ...  # noqa: D102
    @property
    def min_samples(self) -> int: ...  # noqa: D102
    @property
    def at_least(self) -> float | None: ...  # noqa: D102
    @property
    def at_most(self) -> float | None: ...  # noqa: D102
    @property
    def estimate(self) -> Any: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Ruling:
    """What one demand on one metric came to.

    Attributes:
        metric: The metric.
        rule: What was asked, such as `margin 0.05` or `at least 0.9`.
        verdict: The verdict.
        message: Why, in one line.
        next_step: What would change it; empty if nothing has to.
    """

    metric: str
    rule: str
    verdict: Verdict
    message: str
    next_step: str = ""


def rule_all(report: Report, thresholds: Mapping[str, Limits], *, uncompared: str = "") -> list[Ruling]:
    """Every demand on every metric, in the report's order.

    Args:
        report: The report.
        thresholds: Metric -> what must hold.
        uncompared: Why the report compares with nothing, where that is as it should be, as when the alias serves
            nothing yet: a margin then asks for enough items only. Empty where a comparison is missing.
    """
    made: list[Ruling] = []
    for metric in report.metrics:
        if metric.name in thresholds:
            made += _rule(metric, thresholds[metric.name], uncompared)
    return made


def worst(rulings: list[Ruling]) -> Verdict | None:
    """The worst verdict; None where nothing was asked."""
    return all_of([r.verdict for r in rulings]) if rulings else None


def _rule(metric: Metric, limits: Limits, uncompared: str) -> Iterator[Ruling]:
    if metric.errors:
        told = f"no score for {metric.errors} of the items, because of an error"
        step = (
            "See the items that failed, and run it again; or write on_error: worst, to count them as the worst score."
        )
        yield Ruling(metric.name, "no errors", Verdict.ERROR, told, step)
        return
    if limits.margin is not None:
        yield _against_baseline(metric, limits, limits.margin, uncompared)
    if limits.at_least is not None or limits.at_most is not None:
        yield _absolute(metric, limits, uncompared)


def _against_baseline(metric: Metric, limits: Limits, margin: float, uncompared: str) -> Ruling:
    rule, found = f"margin {margin:g}", metric.comparison
    if found is None and uncompared and metric.n >= limits.min_samples:
        return Ruling(metric.name, rule, Verdict.PASS, "measured, with nothing to compare with")
    n = metric.n if found is None else found.n
    if n < limits.min_samples:
        told, step = too_few(n, limits.min_samples)
        if found is None or baseline_verdict(found, margin=margin, min_samples=limits.min_samples) is not Verdict.FAIL:
            return Ruling(metric.name, rule, Verdict.INCONCLUSIVE, told, step)
    if found is None:
        return Ruling(metric.name, rule, Verdict.INCONCLUSIVE, "it was not compared", "Run it with a baseline.")
    verdict = baseline_verdict(found, margin=margin, min_samples=limits.min_samples)
    if verdict is Verdict.PASS:
        return Ruling(metric.name, rule, verdict, f"not worse by more than {margin:g} of the scale")
    if verdict is Verdict.FAIL:
        more = f", and by more than {margin:g} of the scale" if beyond_margin(found, margin) else ""
        return Ruling(metric.name, rule, verdict, f"proven worse than the baseline{more}")
    if verdict is Verdict.ERROR:
        return Ruling(metric.name, rule, verdict, "the comparison is no number", "Run it again.")
    return Ruling(metric.name, rule, verdict, "it may be worse by more than the margin, or not", decides(found, limits))


def decides(found: Comparison, limits: Limits) -> str:
    """How many items would decide, in words."""
    margin = limits.margin or 0.05
    needed = max(items_needed(found.sd, margin), limits.min_samples)
    if needed > found.n:
        return f"About {needed:,} items would decide about a candidate that is as good; there are {found.n:,}."
    return f"{found.n:,} items are enough for a candidate that is as good; this one looks worse by {-found.delta:.3f}."


def too_few(n: int, needed: int) -> tuple[str, str]:
    """What is wrong with too few items, and what to do."""
    told = f"{n:,} independent items are too few, {needed:,} are needed"
    return told, f"Add {needed - n:,} items, or clusters of items where the suite has them."


def _absolute(metric: Metric, limits: Limits, uncompared: str) -> Ruling:
    sides = (("at least", limits.at_least), ("at most", limits.at_most))
    rule = " and ".join(f"{word} {limit:g}" for word, limit in sides if limit is not None)
    verdict = threshold_verdict(
        measured(metric),
        at_least=limits.at_least,
        at_most=limits.at_most,
        min_samples=limits.min_samples,
        estimate=limits.estimate,
    )
    if metric.value is None:
        step = "Add items that have what it is graded by"
        step += "; if that is the baseline's answer, there has to be a baseline." if uncompared else "."
        return Ruling(metric.name, rule, verdict, "measured on no item", step)
    held = "the mean" if limits.estimate == "point" else "the bound of the mean"
    if verdict is Verdict.PASS:
        return Ruling(metric.name, rule, verdict, f"{held} holds it")
    if verdict is Verdict.FAIL:
        return Ruling(metric.name, rule, verdict, f"proven not to hold: {metric.value:.4g}")
    if metric.n < limits.min_samples:
        return Ruling(metric.name, rule, verdict, *too_few(metric.n, limits.min_samples))
    return Ruling(metric.name, rule, verdict, "the interval has it inside", "More items would narrow the interval.")


def measured(metric: Metric) -> Measured:
    """A report's metric as the rules take it."""
    return Measured(
        metric.name,
        metric.value,
        metric.lower,
        metric.upper,
        metric.n,
        metric.lo,
        metric.hi,
        metric.higher_is_better,
        metric.alpha,
        metric.sd,
        metric.errors,
        metric.scorer or "",
        metric.comparison,
    )
