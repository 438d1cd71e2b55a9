"""What a report says, read without trust, and the rules that turn recorded numbers into verdicts.

The numbers are computed in `evals`; these rules are pure, so that a gate and a page say the same. Source of the rules:
Gaffke 2005 and Learned-Miller and Thomas 2019 for the bounds; the sample sizes are a normal approximation with the
price of the bound's imaginary item added.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from llmartifacts.records.policy import Verdict

ALPHA = 0.05
"""One-sided probability of a wrong bound."""
MARGIN = 0.05
"""By how much of the scale a candidate may be worse, unless a threshold says otherwise."""
MIN_SAMPLES = 60
"""Items, or clusters of items, without which nothing passes, unless a threshold says otherwise."""
_EQUAL_POWER = 6.18
"""(z of 0.95 + z of 0.80) squared: an equal candidate passes with probability 0.8."""

Estimate = Literal["bound", "point"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a target differs from its baseline on one metric, item by item. Positive is better; a share of the scale.

    Attributes:
        delta: Mean difference.
        lower: One-sided lower bound of it.
        upper: One-sided upper bound.
        family_upper: Upper bound at `alpha / metrics`: with several metrics, "worse" must hold at this one.
        n: Independent differences behind it: items, or clusters of items.
        sd: Standard deviation of those differences.
        alpha: Probability that the truth lies below `lower`, and that it lies above `upper`.
        metrics: How many metrics were compared together.
    """

    delta: float
    lower: float
    upper: float
    family_upper: float
    n: int
    sd: float
    alpha: float = ALPHA
    metrics: int = 1


@dataclass(frozen=True, slots=True)
class Measured:
    """One metric of a report.

    Attributes:
        name: Such as `recall@5`.
        value: Mean over the items; None if nothing was measured.
        lower: One-sided lower bound of the mean.
        upper: One-sided upper bound.
        n: Items, or clusters, behind it.
        lo: Lower end of the scale.
        hi: Upper end.
        higher_is_better: Whether more is better.
        alpha: Probability of each bound to be wrong.
        sd: Standard deviation of the items' scores, as a share of the scale; None if it was not recorded.
        errors: Items for which it could not be computed.
        scorer: Digest of the scorer's name, options and definition; empty if it was not recorded.
        comparison: Against the baseline; None if there was none.
    """

    name: str
    value: float | None
    lower: float | None
    upper: float | None
    n: int
    lo: float = 0.0
    hi: float = 1.0
    higher_is_better: bool = True
    alpha: float = ALPHA
    sd: float | None = None
    errors: int = 0
    scorer: str = ""
    comparison: Comparison | None = None


@dataclass(frozen=True, slots=True)
class ReportFacts:
    """What a gate reads of a report's config.

    Attributes:
        suite: Name of the suite.
        suite_digest: Manifest digest of the suite's version; empty if it is not versioned.
        targets: Reference -> digest of what was evaluated.
        dataset: Digest of the dataset.
        baseline: Digest of what it was compared with; empty if with nothing.
        metrics: Name -> what was measured.
        started: When the evaluation began, UTC, ISO 8601; empty if unknown.
        ended: When it ended.
        problem: What is wrong with the config; empty if it reads well.
    """

    suite: str = ""
    suite_digest: str = ""
    targets: Mapping[str, str] = field(default_factory=dict)
    dataset: str = ""
    baseline: str = ""
    metrics: Mapping[str, Measured] = field(default_factory=dict)
    started: str = ""
    ended: str = ""
    problem: str = ""


def baseline_verdict(found: Comparison, *, margin: float = MARGIN, min_samples: int = MIN_SAMPLES) -> Verdict:
    """PASS if it is not worse by more than the margin, else FAIL if it is proven worse, else INCONCLUSIVE.

    Args:
        found: The comparison.
        margin: Share of the scale.
        min_samples: Items, or clusters, that a PASS needs.
    """
    if not _are_finite(found.delta, found.lower, found.upper, found.family_upper, found.sd):
        return Verdict.ERROR
    if found.lower > -margin and found.n >= min_samples:
        return Verdict.PASS
    return Verdict.FAIL if found.family_upper < 0 else Verdict.INCONCLUSIVE


def threshold_verdict(
    found: Measured, *, limit: float, min_samples: int = MIN_SAMPLES, estimate: Estimate = "bound"
) -> Verdict:
    """PASS if the metric holds an absolute threshold.

    Args:
        found: What was measured.
        limit: The score it must reach: at least this, or at most, where less is better. On the metric's scale.
        min_samples: Items, or clusters, that a PASS needs.
        estimate: `bound` holds the bound of the mean against it; `point` the mean itself.
    """
    if found.value is None or found.lower is None or found.upper is None or not found.n:
        return Verdict.INCONCLUSIVE
    if not _are_finite(found.value, found.lower, found.upper):
        return Verdict.ERROR
    value, worst, best = found.value, found.lower, found.upper
    if not found.higher_is_better:
        value, worst, best, limit = -value, -best, -worst, -limit
    if estimate == "point":
        worst = best = value
    if worst >= limit and found.n >= min_samples:
        return Verdict.PASS
    return Verdict.FAIL if best < limit else Verdict.INCONCLUSIVE


def beyond_margin(found: Comparison, margin: float = MARGIN) -> bool:
    """Whether it is proven worse by more than the margin."""
    return found.upper < -margin


def items_needed(sd: float, margin: float = MARGIN) -> int:
    """About how many items would let an equal candidate pass with probability 0.8.

    Args:
        sd: Standard deviation of the item differences, as a share of the scale.
        margin: Share of the scale, above 0.
    """
    return math.ceil(_EQUAL_POWER * (sd / margin) ** 2 + 1 / margin)


def report_facts(config: Mapping[str, Any]) -> ReportFacts:
    """Read the config of a report. What does not read well is told in `problem`, and never raises."""
    try:
        suite = config["suite"]
        metrics = {m["name"]: _measured(m) for m in config["metrics"]}
        if len(metrics) != len(config["metrics"]) or not metrics:
            return ReportFacts(problem="a metric appears twice, or there is none")
        return ReportFacts(
            _text(suite["name"]),
            _text(suite.get("digest") or ""),
            {_text(name): _text(digest) for name, digest in config["targets"].items()},
            _text(config["dataset"]),
            _text(config.get("baseline") or ""),
            metrics,
            _text(config.get("started", "")),
            _text(config.get("ended", "")),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return ReportFacts(problem=f"its config cannot be read: {type(error).__name__}: {error}")


def _measured(body: Mapping[str, Any]) -> Measured:
    known = {name: body[name] for name in Measured.__slots__ if name in body and name != "comparison"}
    compared = body.get("comparison")
    made = Measured(**known, comparison=None if compared is None else Comparison(**compared))
    for name in ("lo", "hi", "alpha"):
        _number(getattr(made, name))
    for name in ("value", "lower", "upper", "sd"):
        if getattr(made, name) is not None:
            _number(getattr(made, name))
    if type(made.n) is not int or type(made.errors) is not int or made.n < 0 or made.errors < 0:
        raise ValueError(f"{_text(made.name)}: n or errors is no count")
    if made.comparison is not None:
        for name in ("delta", "lower", "upper", "family_upper", "sd", "alpha"):
            _number(getattr(made.comparison, name))
        if type(made.comparison.n) is not int or type(made.comparison.metrics) is not int:
            raise ValueError(f"{_text(made.name)}: n of the comparison is no count")
    return made


def _number(value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r:.40} is not a finite number")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is not text")
    return value


def _are_finite(*values: float) -> bool:
    return all(math.isfinite(value) for value in values)
