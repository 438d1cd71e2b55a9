"""From scores of items to the numbers that verdicts are taken from: two targets compared, or one mean by itself."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from llmartifacts.errors import InvalidValue
from llmartifacts.evals.statistics.bound import (
    check_alpha,
    checked_scale,
    checked_values,
    grouped,
    is_number_type,
    lower_bound,
    upper_bound,
)
from llmartifacts.records.evidence import ALPHA, Comparison

if TYPE_CHECKING:
    from llmartifacts.evals.statistics.bound import Floats

_NAMED = 5  # items that an error names


class Estimated(NamedTuple):
    """The mean of one metric with its bounds, in the unit of its scores.

    Attributes:
        mean: Mean over the items.
        lower: One-sided lower bound of the true mean.
        upper: One-sided upper bound.
        n: Independent values behind it: items, or clusters of items.
        sd: Standard deviation of those, as a share of the scale; 0 if there is only one.
    """

    mean: float
    lower: float
    upper: float
    n: int
    sd: float


def mean_per_item(repeats: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The mean of each item's repeats. Repeats of one item are not independent items, so they are never pooled.

    Args:
        repeats: Item id -> its scores, at least one; items may have different numbers of them.

    Returns:
        Item id -> mean score, between the least and the greatest of them.

    Raises:
        InvalidValue: An item has no score, or one that is no finite number.

    Example:
        >>> mean_per_item({"q1": [1, 0, 1, 1], "q2": [0.5]})
        {'q1': 0.75, 'q2': 0.5}
    """
    means: dict[str, float] = {}
    for item, scores in repeats.items():
        if not len(scores):
            raise InvalidValue(f"item {item} has no score", field=f"repeats.{item}")
        for score in scores:
            if not is_number_type(type(score)) or not math.isfinite(score):
                raise InvalidValue(f"a score of item {item} is {score!r:.40}", field=f"repeats.{item}")
        means[item] = _mean([float(score) for score in scores])
    return means


def compare(
    baseline: Mapping[str, float],
    candidate: Mapping[str, float],
    *,
    lo: float,
    hi: float,
    higher_is_better: bool = True,
    alpha: float = ALPHA,
    metrics: int = 1,
    clusters: Mapping[str, str] | None = None,
) -> Comparison:
    """How a candidate differs from a baseline on one metric, over the same items.

    Args:
        baseline: Item id -> score; repeats are averaged before (`mean_per_item`).
        candidate: Item id -> score, of exactly the same items.
        lo: Lower end of the metric's scale, in the unit of the scores.
        hi: Upper end.
        higher_is_better: Whether more is better; where not, the difference is turned round.
        alpha: Share of samples for which a bound may be wrong; one-sided, above 0 and at most 0.25.
        metrics: How many metrics are compared together: `family_upper` is taken at `alpha / metrics`.
        clusters: Item id -> what it belongs to, such as its document, where items of one are alike; items that are not
            compared may have one too. None if items are independent.

    Returns:
        The comparison. All its differences are shares of the scale, and positive where the candidate is better.

    Raises:
        InvalidValue: Only one of the two has a score for some item, or there is no item; a score is no number, NaN or
            outside the scale; an item has no cluster; `lo`, `hi`, `alpha` or `metrics` make no sense.

    Example:
        >>> before = {f"q{i}": 1.0 for i in range(100)}
        >>> found = compare(before, before | {"q7": 0.0}, lo=0, hi=1)
        >>> found.delta, round(found.lower, 2), round(found.upper, 2), found.n
        (-0.01, -0.05, 0.02, 100)
    """
    low, high = checked_scale(lo, hi)
    check_alpha(alpha)
    if isinstance(metrics, bool) or not isinstance(metrics, int) or metrics < 1:
        raise InvalidValue(f"the number of metrics is at least 1, not {metrics!r}", field="metrics")
    _same_items(baseline, candidate)
    items = list(baseline)
    before = checked_values([baseline[i] for i in items], low, high, field="baseline", names=items)
    after = checked_values([candidate[i] for i in items], low, high, field="candidate", names=items)
    shares = (after - before if higher_is_better else before - after) / (high - low)
    of = None if clusters is None else _clusters_of(items, clusters)
    found = estimate(shares, -1, 1, alpha=alpha, clusters=of)
    family_upper = found.upper
    if metrics > 1:
        family_upper = max(family_upper, upper_bound(shares, -1, 1, alpha=alpha / metrics, clusters=of))
    return Comparison(
        delta=found.mean,
        lower=found.lower,
        upper=found.upper,
        family_upper=family_upper,
        n=found.n,
        sd=2 * found.sd,  # the scale of differences is 2 wide
        alpha=alpha,
        metrics=metrics,
    )


def estimate(
    values: Iterable[float], lo: float, hi: float, *, alpha: float = ALPHA, clusters: Sequence[str] | None = None
) -> Estimated:
    """The mean of some scores, with the bounds of the true mean: for absolute thresholds, and for a page.

    A verdict takes two one-sided bounds at 0.05; the 95 % interval that a page may show has `alpha=0.025`.

    Args:
        values: A score for each item, shape (n,), n at least 1.
        lo: Lower end of the metric's scale, in the unit of the scores.
        hi: Upper end.
        alpha: As in `compare`.
        clusters: The cluster of each value, in the same order; None if items are independent.

    Raises:
        InvalidValue: As `lower_bound`.

    Example:
        >>> found = estimate([1] * 95 + [0] * 5, 0, 1)
        >>> found.mean, round(found.lower, 3), round(found.upper, 3)
        (0.95, 0.898, 0.98)
    """
    low, high = checked_scale(lo, hi)
    scores = checked_values(values, low, high)
    mean = _mean(scores.tolist())
    return Estimated(
        mean=mean,
        lower=min(lower_bound(scores, low, high, alpha=alpha, clusters=clusters), mean),  # but for rounding it is
        upper=max(upper_bound(scores, low, high, alpha=alpha, clusters=clusters), mean),
        n=scores.size if clusters is None else len(set(clusters)),
        sd=_spread(scores, clusters) / (high - low),
    )


def _mean(values: Sequence[float]) -> float:
    """Exact but for one rounding, whatever the order; rounding never takes it past the least or the greatest value."""
    return min(max(math.fsum(values) / len(values), min(values)), max(values))


def _spread(values: Floats, clusters: Sequence[str] | None) -> float:
    """Standard deviation of the values, or of the means of their clusters; 0 if there is only one."""
    import numpy as np

    if clusters is None:
        alone = np.sort(values)
    else:
        totals, sizes = grouped(values, clusters)
        alone = totals / sizes
    return float(np.std(alone, ddof=1)) if alone.size > 1 else 0.0


def _same_items(baseline: Mapping[str, float], candidate: Mapping[str, float]) -> None:
    for side, has, other, lacks in (
        ("candidate", baseline, "baseline", candidate),
        ("baseline", candidate, "candidate", baseline),
    ):
        if missing := [item for item in has if item not in lacks]:
            named = ", ".join(sorted(missing)[:_NAMED]) + (", …" if len(missing) > _NAMED else "")
            items = "item" if len(missing) == 1 else "items"
            raise InvalidValue(
                f"the {side} has no score for {len(missing)} {items} of the {other}: {named}",
                field=side,
                next_step="Evaluate both on the same version of the dataset.",
            )


def _clusters_of(items: Sequence[str], clusters: Mapping[str, str]) -> list[str]:
    if missing := [item for item in items if item not in clusters]:
        named = ", ".join(sorted(missing)[:_NAMED]) + (", …" if len(missing) > _NAMED else "")
        raise InvalidValue(
            f"{len(missing)} of {len(items)} items have no cluster: {named}",
            field="clusters",
            next_step="Give every item its own, where it shares none.",
        )
    return [clusters[item] for item in items]
