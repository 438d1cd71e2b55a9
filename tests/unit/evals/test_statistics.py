"""Two targets compared item by item, a mean by itself, and the verdicts that follow."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.errors import InvalidValue
from llmartifacts.evals.statistics import compare, estimate, lower_bound, mean_per_item, upper_bound
from llmartifacts.records.evidence import Comparison, baseline_verdict, beyond_margin, items_needed
from llmartifacts.records.policy import Verdict

UNIT = st.floats(0, 1) | st.sampled_from([0.0, 0.5, 1.0])
PAIRS = st.lists(st.tuples(UNIT, UNIT), min_size=1, max_size=25)


def named(values: Any) -> dict[str, float]:
    return {f"q{i}": float(v) for i, v in enumerate(values)}


def pass_fail(n: int, lost: int, won: int) -> Comparison:
    """Of `n` items the candidate loses some that the baseline had, and wins some that it had not."""
    before = [1] * lost + [0] * won + [1] * (n - lost - won)
    after = [0] * lost + [1] * won + [1] * (n - lost - won)
    return compare(named(before), named(after), lo=0, hi=1)


# --- a comparison


def test_its_bounds_are_those_of_the_differences_as_shares_of_the_scale() -> None:
    before, after = [1, 3, 5, 2, 4], [2, 3, 4, 5, 5]
    found = compare(named(before), named(after), lo=1, hi=5, alpha=0.025, metrics=3)
    shares = [0.25, 0, -0.25, 0.75, 0.25]
    assert found.delta == pytest.approx(0.2)
    assert found.sd == pytest.approx(np.std(shares, ddof=1))
    assert found.lower == lower_bound(shares, -1, 1, alpha=0.025)
    assert found.upper == upper_bound(shares, -1, 1, alpha=0.025)
    assert found.family_upper == upper_bound(shares, -1, 1, alpha=0.025 / 3)
    assert (found.n, found.alpha, found.metrics) == (5, 0.025, 3)


def test_items_are_paired_by_their_ids_and_not_by_their_order() -> None:
    before, after = named([0, 0.2, 0.4, 1]), named([0.1, 0.3, 0.5, 1])
    turned = dict(reversed(after.items()))
    assert compare(before, turned, lo=0, hi=1) == compare(before, after, lo=0, hi=1)


def test_where_less_is_better_the_difference_is_turned_round() -> None:
    slow, fast = named([0.9, 2.0, 1.1]), named([0.5, 1.5, 1.2])
    found = compare(slow, fast, lo=0, hi=10, higher_is_better=False)
    assert found.delta == pytest.approx(0.08 / 3)
    assert found == compare(fast, slow, lo=0, hi=10)


@given(PAIRS, st.sampled_from([0.05, 0.025, 0.25]), st.integers(1, 9), st.booleans())
def test_the_mean_lies_between_its_bounds_and_the_family_bound_is_the_widest(
    pairs: list[tuple[float, float]], alpha: float, metrics: int, grouped: bool
) -> None:
    before, after = named(b for b, _ in pairs), named(a for _, a in pairs)
    clusters = {item: f"d{i % 4}" for i, item in enumerate(before)} if grouped else None
    found = compare(before, after, lo=0, hi=1, alpha=alpha, metrics=metrics, clusters=clusters)
    assert -1 <= found.lower <= found.delta <= found.upper <= found.family_upper <= 1
    assert found.n == (min(4, len(pairs)) if grouped else len(pairs))
    assert 0 <= found.sd <= math.sqrt(2) + 1e-12
    assert all(type(value) is float for value in (found.delta, found.lower, found.upper, found.family_upper, found.sd))


@given(PAIRS)
def test_seen_from_the_other_side_everything_is_mirrored(pairs: list[tuple[float, float]]) -> None:
    before, after = named(b for b, _ in pairs), named(a for _, a in pairs)
    there, back = compare(before, after, lo=0, hi=1), compare(after, before, lo=0, hi=1)
    assert (back.delta, back.lower, back.upper) == pytest.approx((-there.delta, -there.upper, -there.lower), abs=1e-12)
    assert back.sd == pytest.approx(there.sd, abs=1e-12)


@given(PAIRS, st.data())
def test_a_better_answer_never_makes_the_candidate_look_worse(
    pairs: list[tuple[float, float]], data: st.DataObject
) -> None:
    before, after = named(b for b, _ in pairs), named(a for _, a in pairs)
    item = data.draw(st.sampled_from(sorted(after)))
    better = after | {item: data.draw(st.floats(after[item], 1))}
    worse_found, better_found = compare(before, after, lo=0, hi=1), compare(before, better, lo=0, hi=1)
    for name in ("delta", "lower", "upper", "family_upper"):
        assert getattr(better_found, name) >= getattr(worse_found, name) - 1e-10


def test_a_target_compared_with_itself_differs_by_nothing_and_the_bounds_say_how_sure_that_is() -> None:
    scores = named(np.linspace(0, 1, 200))
    found = compare(scores, scores, lo=0, hi=1)
    assert (found.delta, found.sd) == (0, 0)
    assert found.lower == pytest.approx(-(1 - 0.05 ** (1 / 200)), abs=2e-4)
    assert found.upper == -found.lower


def test_one_item_and_a_candidate_that_loses_everything_have_numbers_too() -> None:
    alone = compare({"q": 1}, {"q": 1}, lo=0, hi=1)
    assert (alone.n, alone.sd, alone.delta) == (1, 0, 0)
    assert alone.lower == pytest.approx(-0.95, abs=0.003)
    lost = compare(named([1] * 60), named([0] * 60), lo=0, hi=1)
    assert (lost.delta, lost.lower, lost.sd) == (-1, -1, 0)
    assert lost.upper == pytest.approx(-1 + 2 * (1 - 0.05 ** (1 / 60)), abs=6e-4)


@pytest.mark.parametrize("alpha", [1e-9, 1e-300])
def test_a_tiny_alpha_and_many_metrics_leave_finite_bounds(alpha: float) -> None:
    found = compare(named([1, 0, 1, 1]), named([1, 1, 0, 1]), lo=0, hi=1, alpha=alpha, metrics=1000)
    assert -1 <= found.lower <= found.delta <= found.upper <= found.family_upper <= 1


# --- clusters


def test_clusters_count_instead_of_items_and_widen_the_bounds() -> None:
    rng = np.random.default_rng(3)
    by_document = np.repeat(rng.choice([-0.2, 0.0, 0.2], 80), 5)
    before, after = named([0.5] * 400), named(0.5 + by_document)
    documents = {item: f"d{i // 5:02}" for i, item in enumerate(before)}
    ignored = compare(before, after, lo=0, hi=1)
    found = compare(before, after, lo=0, hi=1, clusters=documents | {"a question of another split": "d99"})
    assert (ignored.n, found.n) == (400, 80)
    assert found.delta == ignored.delta
    assert found.sd == pytest.approx(np.std(by_document[::5], ddof=1))
    assert found.lower < ignored.lower - 0.01
    assert found.upper > ignored.upper + 0.01


def test_the_sd_of_clusters_is_that_of_their_means_and_the_mean_is_that_of_the_items() -> None:
    before, after = named([0] * 5), named([1, 1, 1, 0.5, 0])
    found = compare(before, after, lo=0, hi=1, clusters=dict(zip(before, "aaabc", strict=True)))
    assert found.delta == pytest.approx(0.7)
    assert found.sd == pytest.approx(np.std([1, 0.5, 0], ddof=1))
    assert found.n == 3


def test_one_cluster_is_one_observation() -> None:
    before = named([1] * 100)
    found = compare(before, before, lo=0, hi=1, clusters=dict.fromkeys(before, "the same document"))
    assert (found.n, found.sd) == (1, 0)
    assert found.lower == pytest.approx(-0.95, abs=0.003)


# --- repeats


def test_repeats_are_averaged_before_anything_is_counted() -> None:
    assert mean_per_item({"a": [1, 0, 1, 1], "b": (0.5,), "c": np.array([1.0, 2.0])}) == {"a": 0.75, "b": 0.5, "c": 1.5}
    assert mean_per_item({}) == {}


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9), st.randoms(use_true_random=False))
def test_a_mean_never_leaves_the_scores_it_is_of_and_does_not_depend_on_their_order(
    scores: list[float], random: Any
) -> None:
    mean = mean_per_item({"q": scores})["q"]
    assert min(scores) <= mean <= max(scores)
    random.shuffle(scores)
    assert mean_per_item({"q": scores}) == {"q": mean}


def test_equal_repeats_at_the_end_of_the_scale_stay_on_it() -> None:
    for top in (0.1, 0.7, 0.9, 1.1):
        for times in range(1, 12):
            mean = mean_per_item({"q": [top] * times})
            assert mean == {"q": top}
            assert compare(mean, mean, lo=0, hi=top).delta == 0


@pytest.mark.parametrize("scores", [[], [math.nan], [1, math.inf], ["1"], [None]])
def test_an_item_whose_repeats_have_no_mean_is_named(scores: list[Any]) -> None:
    with pytest.raises(InvalidValue, match="item q7") as refused:
        mean_per_item({"q1": [1], "q7": scores})
    assert refused.value.field == "repeats.q7"


# --- a mean by itself


def test_a_mean_has_bounds_in_the_unit_of_its_scores_and_its_spread_as_a_share() -> None:
    scores = [1, 2, 5, 5, 4, 4, 3]
    found = estimate(scores, 1, 5, alpha=0.01)
    assert found.mean == pytest.approx(24 / 7)
    assert found.lower == lower_bound(scores, 1, 5, alpha=0.01)
    assert found.upper == upper_bound(scores, 1, 5, alpha=0.01)
    assert found.n == 7
    assert found.sd == pytest.approx(np.std(scores, ddof=1) / 4)
    mean, lower, upper, n, sd = found
    assert (mean, lower, upper, n, sd) == (found.mean, found.lower, found.upper, found.n, found.sd)


def test_a_mean_of_clusters_counts_them_and_one_item_has_no_spread() -> None:
    found = estimate([1, 1, 0, 0.5], 0, 1, clusters=["a", "a", "b", "b"])
    assert (found.mean, found.n) == (0.625, 2)
    assert found.sd == pytest.approx(np.std([1, 0.25], ddof=1))
    assert estimate([0.3], 0, 1).sd == 0


# --- verdicts

VERDICTS = [
    # n, lost, won, margin, min_samples, verdict
    (59, 0, 0, 0.05, 60, Verdict.INCONCLUSIVE),  # enough to show it, fewer than are asked for
    (59, 0, 0, 0.05, 59, Verdict.PASS),
    (58, 0, 0, 0.05, 1, Verdict.INCONCLUSIVE),
    (60, 0, 0, 0.05, 60, Verdict.PASS),
    (60, 1, 0, 0.05, 60, Verdict.INCONCLUSIVE),
    (60, 5, 0, 0.05, 60, Verdict.FAIL),
    (20, 20, 0, 0.05, 60, Verdict.FAIL),  # proven worse needs no minimum
    (20, 0, 20, 0.05, 60, Verdict.INCONCLUSIVE),
    (400, 20, 20, 0.05, 60, Verdict.PASS),
    (400, 70, 70, 0.05, 60, Verdict.INCONCLUSIVE),
    (400, 30, 10, 0.05, 60, Verdict.FAIL),
    (400, 7, 0, 0.05, 60, Verdict.PASS),  # proven worse, and proven to be within the margin: that comes first
    (400, 0, 0, 0.01, 60, Verdict.PASS),
    (400, 0, 0, 0.007, 60, Verdict.INCONCLUSIVE),
    (10_000, 100, 90, 0.01, 60, Verdict.PASS),
    (100, 0, 0, 0, 60, Verdict.INCONCLUSIVE),  # a margin of 0 asks for proof of something better
    (100, 0, 5, 0, 60, Verdict.PASS),
    (100, 100, 0, 1, 60, Verdict.FAIL),
    (100, 99, 0, 1, 60, Verdict.PASS),  # a margin of the whole scale refuses a total loss only
    (100, 100, 0, 2, 60, Verdict.PASS),
]


@pytest.mark.parametrize(("n", "lost", "won", "margin", "least", "verdict"), VERDICTS)
def test_the_verdict_on_pass_and_fail(n: int, lost: int, won: int, margin: float, least: int, verdict: Verdict) -> None:
    found = pass_fail(n, lost, won)
    assert found.delta == pytest.approx((won - lost) / n)
    assert baseline_verdict(found, margin=margin, min_samples=least) is verdict


def test_with_several_metrics_worse_must_hold_at_a_share_of_alpha() -> None:
    before, after = named([1] * 100), named([0] * 5 + [1] * 95)
    alone, among = (compare(before, after, lo=0, hi=1, metrics=k) for k in (1, 10))
    assert alone.upper == among.upper < 0 < among.family_upper
    assert baseline_verdict(alone) is Verdict.FAIL
    assert baseline_verdict(among) is Verdict.INCONCLUSIVE


def test_fewer_than_59_clusters_cannot_pass_however_many_questions_they_have() -> None:
    for clusters, verdict in ((58, Verdict.INCONCLUSIVE), (59, Verdict.PASS)):
        before = named([1] * clusters * 20)
        documents = {item: f"d{i % clusters}" for i, item in enumerate(before)}
        found = compare(before, before, lo=0, hi=1, clusters=documents)
        assert baseline_verdict(found, min_samples=1) is verdict


def test_a_loss_beyond_the_margin_is_told_from_one_that_may_be_within() -> None:
    assert beyond_margin(pass_fail(400, 60, 0), 0.05)
    assert not beyond_margin(pass_fail(400, 20, 0), 0.05)
    assert baseline_verdict(pass_fail(400, 20, 0)) is Verdict.FAIL


def test_about_as_many_items_as_are_said_to_decide_do_decide() -> None:
    found = pass_fail(100, 5, 5)
    assert baseline_verdict(found) is Verdict.INCONCLUSIVE
    needed = items_needed(found.sd, 0.05)
    assert 264 <= needed <= 320
    assert baseline_verdict(pass_fail(needed, round(needed / 20), round(needed / 20))) is Verdict.PASS


@pytest.mark.parametrize("seed", range(12))
def test_numbers_and_verdicts_agree_with_the_reference_code(gate_reference: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    seen = set()
    for n in (20, 60, 100, 400):
        before = rng.beta(2, 1, n).round(1)
        after = np.clip(before + rng.choice([0, 0, 0, 1], n) * rng.normal(rng.choice([0, -0.1, -0.6]), 0.2, n), 0, 1)
        clusters = rng.integers(0, n // 2, n) if seed % 2 else None
        metrics = 1 + seed % 3
        verdict, delta, lower, upper = gate_reference.compare(before, after, metrics=metrics, clusters=clusters)
        of: Mapping[str, str] | None = (
            None if clusters is None else {f"q{i}": f"d{c:03}" for i, c in enumerate(clusters)}
        )
        found = compare(named(before), named(after), lo=0, hi=1, metrics=metrics, clusters=of)
        assert (found.delta, found.lower, found.upper) == pytest.approx((delta, lower, upper), abs=1e-6)
        assert baseline_verdict(found) == verdict
        seen.add(verdict)
    assert len(seen) > 1


# --- what is refused


@pytest.mark.parametrize(
    ("before", "after", "field", "says"),
    [
        ({"a": 1, "b": 1}, {"a": 1}, "candidate", "the candidate has no score for 1 item of the baseline: b"),
        ({"a": 1}, {"a": 1, "c": 1, "b": 1}, "baseline", "no score for 2 items of the candidate: b, c"),
        (named([1] * 9), {}, "candidate", "9 items of the baseline: q0, q1, q2, q3, q4, …"),
        ({}, {}, "baseline", "there is no value"),
        ({"a": 1}, {"a": math.nan}, "candidate.a", "the score of item a is NaN"),
        ({"a": math.nan}, {"a": math.nan}, "baseline.a", "the score of item a is NaN"),
        ({"a": 1}, {"a": math.inf}, "candidate.a", "outside the scale"),
        ({"a": -0.1}, {"a": 1}, "baseline.a", "is -0.1, outside the scale from 0 to 1"),
        ({"a": 1}, {"a": None}, "candidate.a", "no number but None"),
        ({"a": "1"}, {"a": 1}, "baseline.a", "no number but '1'"),
    ],
)
def test_scores_that_cannot_be_paired_or_measured_are_refused_and_named(
    before: Any, after: Any, field: str, says: str
) -> None:
    with pytest.raises(InvalidValue) as refused:
        compare(before, after, lo=0, hi=1)
    assert refused.value.field == field
    assert says in refused.value.message


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"lo": 1, "hi": 1}, "lo, hi"),
        ({"hi": math.inf}, "lo, hi"),
        ({"alpha": 0}, "alpha"),
        ({"alpha": 0.5}, "alpha"),
        ({"metrics": 0}, "metrics"),
        ({"metrics": True}, "metrics"),
        ({"metrics": 1.5}, "metrics"),
        ({"clusters": {"a": "d"}}, "clusters"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidValue) as refused:
        compare({"a": 1, "b": 1}, {"a": 1, "b": 0}, **({"lo": 0, "hi": 1} | options))
    assert refused.value.field == field
