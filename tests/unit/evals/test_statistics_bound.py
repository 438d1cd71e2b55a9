"""The atom bound: exact where the exact law is known, sure where it is not, the same at every call."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom

from llmartifacts.errors import InvalidValue
from llmartifacts.evals.statistics import lower_bound, upper_bound

ALPHAS = (0.25, 0.05, 0.025, 0.01, 0.05 / 7, 0.001)
UNIT = st.floats(0, 1) | st.sampled_from([0.0, 0.5, 1.0])
MANY = st.lists(UNIT, min_size=1, max_size=30)
SOME_ALPHA = st.sampled_from(ALPHAS)
KINDS = ("0 and 1", "even", "both ends", "all equal", "rare loss", "rare gain", "low", "near the top")


def shape(kind: str, n: int, rng: np.random.Generator) -> Any:
    """Values on [0, 1] as scores have them."""
    some = rng.random(n)
    return {
        "0 and 1": np.round(some),
        "even": some,
        "both ends": rng.beta(0.1, 0.1, n),
        "all equal": np.full(n, some[0]),
        "rare loss": np.where(rng.random(n) < 0.03, some, 1),
        "rare gain": np.where(rng.random(n) < 0.03, some, 0),
        "low": some**20,
        "near the top": 1 - some * 1e-7,
    }[kind]


def of_ones(k: int, n: int, alpha: float) -> float:
    return lower_bound([1] * k + [0] * (n - k), 0, 1, alpha=alpha)


# --- against what is known


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize(
    ("sizes", "off", "off_equal"),
    [(range(1, 6), 0.0008, 0.0028), (range(6, 30, 3), 0.0008, 0.0022), ((60, 100, 400), 0.0002, 0.00045)],
)
def test_on_0_and_1_it_is_clopper_and_pearsons_bound_and_hardly_ever_above_it(
    sizes: Sequence[int], off: float, off_equal: float, alpha: float
) -> None:
    for n in sizes:
        for k in range(1, n, max(1, n // 30)):
            too_high = of_ones(k, n, alpha) - beta.ppf(alpha, k, n - k + 1)
            assert -off <= too_high <= 0.0002, (k, n)
        assert -off_equal <= of_ones(n, n, alpha) - alpha ** (1 / n) <= 0, n


def test_the_tolerance_of_the_decision_holds_from_six_items_on_at_the_default_confidence() -> None:
    for n in range(6, 121, 6):
        for k in range(1, n + 1):
            assert of_ones(k, n, 0.05) == pytest.approx(beta.ppf(0.05, k, n - k + 1), abs=0.002)


@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize(("n", "off"), [(3, 0.002), (10, 0.001), (40, 0.001)])
def test_dirichlet_weights_put_the_mean_below_it_with_probability_alpha(n: int, off: float, clustered: bool) -> None:
    rng = np.random.default_rng(n)
    values = rng.beta(0.4, 0.2, n)
    names = [f"d{i % (n - n // 3)}" for i in range(n)] if clustered else [f"d{i}" for i in range(n)]
    groups = [[v for v, name in zip(values, names, strict=True) if name == one] for one in sorted(set(names))]
    sums, sizes = np.array([sum(g) for g in groups]), np.array([float(len(g)) for g in groups])
    sums, sizes = np.append(sums, 0.0), np.append(sizes, sizes.mean())  # the atom: one whole group, all lost
    drawn = rng.exponential(size=(400_000, sums.size))
    means = np.sort((drawn @ sums) / (drawn @ sizes))
    for alpha in (0.05, 0.01):
        bound = lower_bound(values, 0, 1, alpha=alpha, clusters=names if clustered else None)
        below = np.searchsorted(means, bound) / means.size
        assert below <= alpha + 4 * math.sqrt(alpha / means.size)
        assert bound == pytest.approx(np.quantile(means, alpha), abs=0.001 + off)


@pytest.mark.parametrize("kind", KINDS)
def test_it_agrees_with_the_reference_code(gate_reference: Any, kind: str) -> None:
    rng = np.random.default_rng(KINDS.index(kind))
    for n in (1, 2, 3, 7, 25, 60, 400):
        values = shape(kind, n, rng)
        clusters = [f"d{i}" for i in rng.integers(0, max(1, n // 3), n)]
        for alpha in (0.05, 0.025, 0.05 / 7, 1e-6):
            for of in (None, clusters):
                theirs = gate_reference.lower_bound(values, 0.0, 1.0, alpha, of)
                assert lower_bound(values, 0, 1, alpha=alpha, clusters=of) == pytest.approx(theirs, abs=1e-6)
                theirs = -gate_reference.lower_bound(-values, -1.0, 0.0, alpha, of)
                assert upper_bound(values, 0, 1, alpha=alpha, clusters=of) == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize(
    ("values", "scale", "alpha", "clusters", "low", "high"),
    [  # another implementation of it gives them too
        ([0.0] * 59, (-1, 1), 0.05, None, -0.0497665020567, 0.0497665020567),
        ([1.0] * 57 + [0.0] * 3, (0, 1), 0.05, None, 0.8757560049337, 0.9862316555019),
        ([3, 4, 4, 5, 5, 5, 2, 4, 1, 5], (1, 5), 0.025, None, 2.6266880864324, 4.5405505393465),
        ([0.2, 0.4, 0.9, 1.0, 0.7, 0.0], (0, 1), 0.05, list("aabbbc"), 0.1041612118673, 0.8631353037120),
    ],
)
def test_it_gives_these_numbers(
    values: list[float], scale: tuple[float, float], alpha: float, clusters: list[str] | None, low: float, high: float
) -> None:
    assert lower_bound(values, *scale, alpha=alpha, clusters=clusters) == pytest.approx(low, abs=1e-8)
    assert upper_bound(values, *scale, alpha=alpha, clusters=clusters) == pytest.approx(high, abs=1e-8)


@pytest.mark.parametrize("n", [5, 30, 100])
def test_whatever_the_share_of_passes_it_is_wrong_for_at_most_alpha_of_the_samples(n: int) -> None:
    bounds = np.array([of_ones(k, n, 0.05) for k in range(n + 1)])
    for truth in np.linspace(0.005, 0.995, 199):
        wrong = binom.pmf(np.arange(n + 1), n, truth)[bounds > truth].sum()
        assert wrong <= 0.0501


def test_59_items_without_a_loss_are_the_fewest_that_show_a_margin_of_five_points() -> None:
    fewest = {m: next(n for n in range(1, 400) if lower_bound([0.0] * n, -1, 1) > -m) for m in (0.05, 0.02, 0.01)}
    assert fewest == {0.05: 59, 0.02: 150, 0.01: 300}
    assert {m: math.ceil(math.log(0.05) / math.log(1 - m)) for m in fewest} == {0.05: 59, 0.02: 149, 0.01: 299}


# --- how it behaves


@given(MANY, SOME_ALPHA)
def test_it_lies_between_the_worst_value_and_the_mean(values: list[float], alpha: float) -> None:
    mean = math.fsum(values) / len(values)
    assert 0 <= lower_bound(values, 0, 1, alpha=alpha) <= mean + 1e-12
    assert mean - 1e-12 <= upper_bound(values, 0, 1, alpha=alpha) <= 1


@given(MANY, SOME_ALPHA)
def test_the_upper_bound_is_the_lower_bound_of_the_turned_scale(values: list[float], alpha: float) -> None:
    turned = [1 - v for v in values]
    assert upper_bound(values, 0, 1, alpha=alpha) == pytest.approx(1 - lower_bound(turned, 0, 1, alpha=alpha), abs=1e-9)


@given(MANY, st.data(), SOME_ALPHA, st.booleans())
def test_a_better_value_never_lowers_it(values: list[float], data: st.DataObject, alpha: float, grouped: bool) -> None:
    at = data.draw(st.integers(0, len(values) - 1))
    better = values.copy()
    better[at] = data.draw(st.floats(values[at], 1))
    clusters = [f"d{i % 3}" for i in range(len(values))] if grouped else None
    before = lower_bound(values, 0, 1, alpha=alpha, clusters=clusters)
    assert lower_bound(better, 0, 1, alpha=alpha, clusters=clusters) >= before - 1e-10


@given(MANY, st.lists(st.sampled_from([*ALPHAS, 1e-6, 1e-12]), min_size=2, max_size=2, unique=True))
def test_more_confidence_never_raises_it(values: list[float], alphas: list[float]) -> None:
    surer, less_sure = sorted(alphas)
    assert lower_bound(values, 0, 1, alpha=surer) <= lower_bound(values, 0, 1, alpha=less_sure) + 1e-10


@given(MANY, st.floats(-1000, 1000), st.floats(0.001, 1000))
def test_it_moves_and_stretches_with_the_scale(values: list[float], lo: float, width: float) -> None:
    hi = lo + width
    moved = [min(max(lo + v * width, lo), hi) for v in values]
    expected = lo + lower_bound(values, 0, 1) * width
    assert lower_bound(moved, lo, hi) == pytest.approx(expected, abs=1e-9 * (abs(lo) + width))


@given(MANY, st.floats(0, 5))
def test_a_worse_worst_value_never_raises_it(values: list[float], further: float) -> None:
    assert lower_bound(values, -further, 1) <= lower_bound(values, 0, 1) + 1e-10


@given(st.lists(st.tuples(UNIT, st.sampled_from("abcd")), min_size=1, max_size=20), st.randoms(use_true_random=False))
def test_the_order_of_the_items_and_the_names_of_the_clusters_change_no_bit(
    items: list[tuple[float, str]], random: Any
) -> None:
    mixed = items.copy()
    random.shuffle(mixed)

    def bounds(these: list[tuple[float, str]], clusters: list[str] | None) -> tuple[float, float]:
        values = [v for v, _ in these]
        return lower_bound(values, 0, 1, clusters=clusters), upper_bound(values, 0, 1, clusters=clusters)

    assert bounds(items, None) == bounds(mixed, None)
    assert bounds(items, [c for _, c in items]) == bounds(mixed, [c for _, c in mixed])
    assert bounds(items, [c for _, c in items]) == bounds(items, [f"other {c}" for _, c in items])


@given(MANY, SOME_ALPHA)
def test_clusters_of_one_item_each_are_no_clusters(values: list[float], alpha: float) -> None:
    alone = [f"d{i}" for i in range(len(values))]
    assert lower_bound(values, 0, 1, alpha=alpha, clusters=alone) == pytest.approx(
        lower_bound(values, 0, 1, alpha=alpha), abs=1e-10
    )


@given(MANY, st.integers(2, 5))
def test_repeating_each_item_inside_its_cluster_adds_no_certainty(values: list[float], times: int) -> None:
    repeated = [v for v in values for _ in range(times)]
    clusters = [f"d{i}" for i in range(len(values)) for _ in range(times)]
    assert lower_bound(repeated, 0, 1, clusters=clusters) == pytest.approx(lower_bound(values, 0, 1), abs=1e-9)


def test_a_large_cluster_counts_for_more_than_a_small_one_and_is_lost_as_a_whole() -> None:
    sizes = [10] * 20 + [1] * 20
    clusters = [f"d{i:02}" for i, size in enumerate(sizes) for _ in range(size)]
    first_lost, last_lost = ([float(c != gone) for c in clusters] for gone in ("d00", "d39"))
    assert lower_bound(first_lost, 0, 1, clusters=clusters) < lower_bound(last_lost, 0, 1, clusters=clusters)
    assert lower_bound(last_lost, 0, 1, clusters=clusters) < lower_bound(last_lost, 0, 1) - 0.05


# --- at the ends


def test_all_at_the_worst_value_gives_exactly_that_and_all_at_the_best_the_exact_law() -> None:
    assert lower_bound([1, 1, 1], 1, 5) == 1
    assert upper_bound([5, 5, 5], 1, 5) == 5
    assert lower_bound([1.0] * 100, 0, 1) == pytest.approx(0.05 ** (1 / 100), abs=2e-4)
    assert upper_bound([0.0] * 100, 0, 1) == pytest.approx(1 - 0.05 ** (1 / 100), abs=2e-4)


@pytest.mark.parametrize("value", [0.0, 1e-300, 1e-13, 1e-6, 0.3, 1 - 1e-9, 1.0])
@pytest.mark.parametrize("clusters", [None, ["d"]])
def test_of_one_value_it_is_that_share_of_it(value: float, clusters: list[str] | None) -> None:
    for alpha in (0.05, 0.25, 0.001):
        assert lower_bound([value], 0, 1, alpha=alpha, clusters=clusters) == pytest.approx(alpha * value, abs=0.003)


def test_one_cluster_says_no_more_than_one_item_of_its_mean() -> None:
    values = [0.2, 0.4, 0.9, 1.0]
    assert lower_bound(values, 0, 1, clusters=["d"] * 4) == pytest.approx(lower_bound([0.625], 0, 1), abs=1e-10)


@pytest.mark.parametrize("alpha", [1e-15, 1e-100, 1e-300, 5e-324])
def test_a_tiny_alpha_gives_a_bound_near_the_worst_value_and_no_nonsense(alpha: float) -> None:
    for values in ([0.5], [1.0] * 10, [0, 1, 0.5, 0.5], np.linspace(0, 1, 1000)):
        assert 0 <= lower_bound(values, 0, 1, alpha=alpha) <= lower_bound(values, 0, 1, alpha=1e-12)
    assert lower_bound([1.0] * 10, 0, 1, alpha=1e-300) < 1e-12


@settings(deadline=None, max_examples=20)
@given(st.sampled_from(KINDS), st.integers(0, 2**32), st.booleans())
def test_ten_thousand_items_are_as_good_as_few(kind: str, seed: int, clustered: bool) -> None:
    rng = np.random.default_rng(seed)
    values = shape(kind, 10_000, rng)
    clusters = [f"d{i}" for i in rng.integers(0, 3000, 10_000)] if clustered else None
    low, high = lower_bound(values, 0, 1, clusters=clusters), upper_bound(values, 0, 1, clusters=clusters)
    assert low <= values.mean() <= high
    assert high - low < 0.06


def test_with_many_items_it_comes_near_the_normal_bound() -> None:
    values = np.random.default_rng(0).beta(2, 3, 10_000)
    normal = values.mean() - 1.6448536 * values.std() / 100
    assert lower_bound(values, 0, 1) == pytest.approx(normal, abs=2e-4)


@pytest.mark.parametrize("width", [1e-300, 1e-9, 1e9, 1e300])
def test_the_size_of_the_scale_does_not_matter(width: float) -> None:
    values = [0.1, 0.4, 0.4, 1.0]
    assert lower_bound([v * width for v in values], 0, width) == pytest.approx(width * lower_bound(values, 0, 1))


@pytest.mark.parametrize(
    "make",
    [
        tuple,
        iter,
        np.array,
        lambda v: np.array(v, np.float32),
        lambda v: np.array(v, np.int8),
        lambda v: np.array(v, bool),
        lambda v: np.array(v, object),
        lambda v: [np.float32(x) for x in v],
        lambda v: [bool(x) for x in v],
        lambda v: [np.bool_(x) for x in v],
    ],
)
def test_any_row_of_numbers_will_do(make: Callable[[list[int]], Any]) -> None:
    values = [0, 1, 1, 1, 0]
    assert lower_bound(make(values), 0, 1) == lower_bound(values, 0, 1)


# --- what is refused


@pytest.mark.parametrize("bound", [lower_bound, upper_bound])
@pytest.mark.parametrize(
    ("values", "field", "says"),
    [
        ([], "values", "there is no value"),
        (np.empty(0), "values", "there is no value"),
        ([0.5, math.nan], "values[1]", "value 1 of 2 is NaN"),
        ([math.inf], "values[0]", "value 0 of 1 is inf, outside"),
        ([0.5, 0.5, -math.inf], "values[2]", "outside the scale from 0 to 1"),
        ([0.5, 1.1], "values[1]", "value 1 of 2 is 1.1, outside the scale from 0 to 1"),
        ([-1e-9], "values[0]", "outside the scale"),
        (["0.5"], "values[0]", "no number but '0.5'"),
        ([0.5, None], "values[1]", "no number but None"),
        ([0.5, 1j], "values[1]", "no number but 1j"),
        ([[0.5], [0.6]], "values[0]", "no number but [0.5]"),
        (np.zeros((2, 2)), "values", "shape (2, 2)"),
        (np.array(["0.5"]), "values[0]", "no number"),
        ([10**400], "values", "beyond every float"),
    ],
)
def test_what_has_no_bound_is_refused_and_named(bound: Any, values: Any, field: str, says: str) -> None:
    with pytest.raises(InvalidValue) as refused:
        bound(values, 0, 1)
    assert refused.value.field == field
    assert says in refused.value.message


@pytest.mark.parametrize(
    ("lo", "hi"), [(0, 0), (1, 0), (0, math.inf), (-math.inf, 0), (math.nan, 1), (0, math.nan), (-1e308, 1e308)]
)
@pytest.mark.parametrize("bound", [lower_bound, upper_bound])
def test_a_scale_without_a_finite_width_is_refused(bound: Any, lo: float, hi: float) -> None:
    with pytest.raises(InvalidValue, match="scale") as refused:
        bound([0], lo, hi)
    assert refused.value.field == "lo, hi"


@pytest.mark.parametrize("alpha", [0, -0.05, 0.2500001, 0.95, 1, math.nan, math.inf])
@pytest.mark.parametrize("bound", [lower_bound, upper_bound])
def test_an_alpha_that_is_no_small_share_is_refused(bound: Any, alpha: float) -> None:
    with pytest.raises(InvalidValue, match=r"at most 0\.25") as refused:
        bound([0], 0, 1, alpha=alpha)
    assert refused.value.field == "alpha"


@pytest.mark.parametrize(
    ("clusters", "field"),
    [([], "clusters"), (["a"], "clusters"), (["a", None], "clusters[1]"), ([1, 2], "clusters[0]")],
)
def test_each_value_has_one_cluster_and_it_is_text(clusters: Any, field: str) -> None:
    with pytest.raises(InvalidValue) as refused:
        lower_bound([0.5, 0.5], 0, 1, clusters=clusters)
    assert refused.value.field == field


def test_importing_it_loads_no_numpy() -> None:
    code = "import sys, llmartifacts.evals.statistics; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
