"""A report held against the thresholds of its suite."""

from __future__ import annotations

from typing import Any

import pytest

from llmartifacts.evals.verdicts import Ruling, rule_all, worst
from llmartifacts.kinds.eval_suite import Threshold
from llmartifacts.kinds.report import Metric, Report
from llmartifacts.records.digest import digest_of
from llmartifacts.records.evidence import Comparison
from llmartifacts.records.policy import Verdict


def compared(delta: float, half: float, n: int = 100, sd: float = 0.3, metrics: int = 1) -> Comparison:
    return Comparison(delta, delta - half, delta + half, delta + half * 1.2, n, sd, metrics=metrics)


def metric(**more: Any) -> Metric:
    given: dict[str, Any] = {"value": 0.8, "lower": 0.7, "upper": 0.9, "n": 100}
    return Metric("m", **(given | more))


def ruled(found: Metric, limits: Threshold, uncompared: str = "") -> list[Ruling]:
    report = Report("s", {"kb:v1": digest_of(b"t")}, digest_of(b"d"), [found])
    return rule_all(report, {"m": limits}, uncompared=uncompared)


def one(found: Metric, limits: Threshold, uncompared: str = "") -> Ruling:
    (ruling,) = ruled(found, limits, uncompared)
    return ruling


MARGIN = Threshold(margin=0.05)


def test_not_worse_by_more_than_the_margin_passes() -> None:
    assert one(metric(comparison=compared(0.0, 0.04)), MARGIN).verdict is Verdict.PASS


def test_proven_worse_fails_and_says_whether_beyond_the_margin() -> None:
    found = one(metric(comparison=compared(-0.06, 0.04)), MARGIN)
    assert (found.verdict, "by more than" in found.message) == (Verdict.FAIL, False)
    found = one(metric(comparison=compared(-0.2, 0.04)), MARGIN)
    assert (found.verdict, "by more than" in found.message) == (Verdict.FAIL, True)


def test_in_between_is_inconclusive_and_says_how_many_items_would_decide() -> None:
    found = one(metric(comparison=compared(0.0, 0.06, sd=0.3162)), MARGIN)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.next_step.startswith("About 268 items would decide")
    found = one(metric(comparison=compared(-0.03, 0.06, n=1000, sd=0.1)), MARGIN)
    assert "1,000 items are enough" in found.next_step


@pytest.mark.parametrize("comparison", [compared(0.0, 0.01, n=40), None])
def test_too_few_items_are_inconclusive_and_say_how_many_are_needed(comparison: Comparison | None) -> None:
    found = one(metric(n=40, comparison=comparison), MARGIN, "nothing there")
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.message == "40 independent items are too few, 60 are needed"
    assert "Add 20 items" in found.next_step


def test_a_candidate_proven_worse_on_few_items_fails_all_the_same() -> None:
    assert one(metric(n=40, comparison=compared(-0.5, 0.1, n=40)), MARGIN).verdict is Verdict.FAIL


def test_the_first_version_passes_a_margin_where_nothing_is_served_yet() -> None:
    assert one(metric(), MARGIN, "kb:prod does not exist yet").verdict is Verdict.PASS
    assert one(metric(), MARGIN).verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("limits", "verdict"),
    [
        (Threshold(at_least=0.65), Verdict.PASS),
        (Threshold(at_least=0.75), Verdict.INCONCLUSIVE),
        (Threshold(at_least=0.75, estimate="point"), Verdict.PASS),
        (Threshold(at_least=0.95), Verdict.FAIL),
        (Threshold(at_least=0.65, min_samples=101), Verdict.INCONCLUSIVE),
        (Threshold(at_most=0.95), Verdict.PASS),
        (Threshold(at_most=0.65), Verdict.FAIL),
    ],
)
def test_an_absolute_threshold_is_held_against_the_bound(limits: Threshold, verdict: Verdict) -> None:
    assert one(metric(), limits).verdict is verdict


def test_both_demands_of_one_metric_are_told_and_the_worst_counts() -> None:
    found = ruled(metric(comparison=compared(0.0, 0.04)), Threshold(margin=0.05, at_least=0.95))
    assert [(r.rule, r.verdict) for r in found] == [("margin 0.05", Verdict.PASS), ("at least 0.95", Verdict.FAIL)]
    assert worst(found) is Verdict.FAIL
    assert worst([]) is None


def test_an_error_denies_whatever_the_numbers_say() -> None:
    found = one(metric(errors=1, comparison=compared(0.5, 0.01)), Threshold(margin=0.05, at_least=0.1))
    assert found.verdict is Verdict.ERROR
    assert "1 of the items" in found.message


def test_a_metric_measured_on_nothing_is_inconclusive() -> None:
    empty = {"value": None, "lower": None, "upper": None, "n": 0}
    assert one(metric(**empty), Threshold(at_least=0.5)).verdict is Verdict.INCONCLUSIVE
    assert one(metric(**empty), MARGIN, "no baseline").verdict is Verdict.INCONCLUSIVE


def test_a_metric_without_a_threshold_is_not_judged() -> None:
    report = Report("s", {"kb:v1": digest_of(b"t")}, digest_of(b"d"), [metric()])
    assert rule_all(report, {}) == []
