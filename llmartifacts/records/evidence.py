"""What a report says, read without trust, and the rules that turn recorded numbers into verdicts.

The numbers are computed in `evals`; these rules are pure, so that a gate and a page say the same. Source of the rules:
Gaffke 2005 and Learned-Miller and Thomas 2019 for the bounds; the sample sizes are a normal approximation with the
price of the bound's imaginary item added.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from llmartifacts.errors import InvalidInput, InvalidValue, LlmartifactsError
from llmartifacts.records.canonical import canonical_bytes
from llmartifacts.records.digest import digest_of
from llmartifacts.records.names import did_you_mean
from llmartifacts.records.policy import Verdict, all_of
from llmartifacts.records.times import parse_time
from llmartifacts.records.version import Version

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


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signed a report.

    Attributes:
        person: Whose key it is.
        roles: Their roles.
        problem: Why it does not count; empty if it does.
    """

    person: str
    roles: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class RecordedReport:
    """A report as the registry has it.

    Attributes:
        version: The report's own version.
        facts: What its config says.
        problem: What is wrong with its bytes; empty if they are what they claim.
        signers: Who signed it.
        vouched: Whether it counts as evidence: on a server, whether an evaluator of the project logged it.
    """

    version: Version
    facts: ReportFacts
    problem: str = ""
    signers: tuple[Signer, ...] = ()
    vouched: bool = True

    @property
    def at(self) -> datetime:
        """When the evaluation ended, as it says itself, but not after it was logged: logged again, it is no younger."""
        try:
            return min(parse_time(self.facts.ended), self.version.created_at)
        except InvalidInput:
            return self.version.created_at


@dataclass(frozen=True, slots=True)
class Threshold:
    """What a suite or a policy demands of one metric.

    Attributes:
        margin: Share of the scale by which it may be worse than the baseline; None to compare with none.
        at_least: Score that it must reach; None for no such demand.
        at_most: Score that it must not pass; None for no such demand.
        min_samples: Items, or clusters, without which nothing passes.
        estimate: `bound` holds the bound of the mean against `at_least` and `at_most`; `point` the mean itself.
    """

    margin: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    min_samples: int = MIN_SAMPLES
    estimate: Estimate = "bound"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; what is None is left out."""
        return {name: value for name in self.__slots__ if (value := getattr(self, name)) is not None}


@dataclass(frozen=True, slots=True)
class Graded:
    """What a suite says of one metric: the digest of its scorer, and its scale."""

    scorer: str
    lo: float
    hi: float
    higher_is_better: bool


@dataclass(frozen=True, slots=True)
class SuiteFacts:
    """What a gate reads of a suite's config.

    Attributes:
        name: Its name.
        dataset: Reference of the dataset.
        scorers: Metric -> what grades it.
        thresholds: Metric -> what is demanded.
        problem: What is wrong with the config; empty if it reads well.
    """

    name: str = ""
    dataset: str = ""
    scorers: Mapping[str, Graded] = field(default_factory=dict)
    thresholds: Mapping[str, Threshold] = field(default_factory=dict)
    problem: str = ""


def suite_facts(config: Mapping[str, Any]) -> SuiteFacts:
    """Read the config of an `eval_suite`. What does not read well is told in `problem`, and never raises."""
    try:
        scorers = {
            _text(entry["metric"]): Graded(
                digest_of(canonical_bytes(entry)),
                float(entry["lo"]),
                float(entry["hi"]),
                bool(entry["higher_is_better"]),
            )
            for entry in config["scorers"]
        }
        thresholds = {_text(name): threshold(body) for name, body in (config.get("thresholds") or {}).items()}
        return SuiteFacts(_text(config["name"]), _text(config["dataset"]), scorers, thresholds)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, LlmartifactsError) as error:
        return SuiteFacts(problem=f"its config cannot be read: {type(error).__name__}: {error}")


def threshold(body: Mapping[str, Any]) -> Threshold:
    """A threshold from plain JSON.

    Without `margin`, one that names `at_least` or `at_most` compares with no baseline, and one that names neither does.

    Raises:
        InvalidValue: An unknown key, or a value that is no such number.
    """
    if not isinstance(body, Mapping):
        raise InvalidValue("a threshold is an object", field="thresholds")
    unknown = body.keys() - {"margin", "at_least", "at_most", "min_samples", "estimate"}
    if unknown:
        step = did_you_mean(min(unknown), Threshold.__slots__, f"Known: {', '.join(Threshold.__slots__)}.")
        raise InvalidValue("unknown key of a threshold", field=f"thresholds.{min(unknown)}", next_step=step)
    absolute = any(body.get(name) is not None for name in ("at_least", "at_most"))
    margin = body.get("margin", None if absolute else MARGIN)
    estimate = body.get("estimate", "bound")
    for name, value in (("margin", margin), ("at_least", body.get("at_least")), ("at_most", body.get("at_most"))):
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value)
        ):
            raise InvalidValue(f"{value!r:.40} is not a finite number", field=f"thresholds.{name}")
    if margin is not None and not 0 < margin < 1:
        raise InvalidValue(f"the margin is {margin!r:.40}, not a share of the scale", field="thresholds.margin")
    samples = body.get("min_samples", MIN_SAMPLES)
    if type(samples) is not int or samples < 1:
        raise InvalidValue(f"min_samples is {samples!r:.40}, no count from 1", field="thresholds.min_samples")
    if estimate not in ("bound", "point"):
        raise InvalidValue(f"estimate is {estimate!r:.40}, not bound or point", field="thresholds.estimate")
    if margin is None and not absolute:
        raise InvalidValue("a threshold that demands nothing", field="thresholds.margin", next_step="Leave it out.")
    return Threshold(margin, body.get("at_least"), body.get("at_most"), samples, estimate)


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
    found: Measured,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    min_samples: int = MIN_SAMPLES,
    estimate: Estimate = "bound",
) -> Verdict:
    """PASS if the metric holds absolute thresholds, FAIL if it is proven not to, else INCONCLUSIVE.

    Args:
        found: What was measured.
        at_least: Score that the mean must reach, on the metric's scale; None for no such demand.
        at_most: Score that it must not pass; None for no such demand.
        min_samples: Items, or clusters, that a PASS needs.
        estimate: `bound` holds the bound of the mean on the unfavourable side against it; `point` the mean itself.

    Returns:
        The worse verdict of the two; ERROR without a threshold.
    """
    if found.value is None or found.lower is None or found.upper is None or not found.n:
        return Verdict.INCONCLUSIVE
    if not _are_finite(found.value, found.lower, found.upper):
        return Verdict.ERROR
    lower, upper = (found.value, found.value) if estimate == "point" else (found.lower, found.upper)
    sides = [] if at_least is None else [(lower - at_least, upper - at_least)]
    sides += [] if at_most is None else [(at_most - upper, at_most - lower)]
    enough = found.n >= min_samples
    return all_of(
        [
            Verdict.PASS if worst >= 0 and enough else Verdict.FAIL if best < 0 else Verdict.INCONCLUSIVE
            for worst, best in sides
        ]
    )


def beyond_margin(found: Comparison, margin: float = MARGIN) -> bool:
    """Whether it is proven worse by more than the margin."""
    return found.upper < -margin


def items_needed(sd: float, margin: float = MARGIN) -> int:
    """About how many items would let an equal candidate pass with probability 0.8.

    Never fewer than pass when not one of them is lost: below that number no candidate can.

    Args:
        sd: Standard deviation of the item differences, as a share of the scale.
        margin: Share of the scale, above 0 and below 1.

    Example:
        >>> items_needed(0.1**0.5), items_needed(0.0)  # one pass in ten differs; none does
        (268, 59)
    """
    without_loss = math.ceil(math.log(ALPHA) / math.log1p(-margin))
    return max(math.ceil(_EQUAL_POWER * (sd / margin) ** 2 + 1 / margin), without_loss)


def report_facts(config: Mapping[str, Any]) -> ReportFacts:
    """Read the config of a report. What does not read well is told in `problem`, and never raises.

    Suite and targets are read first, so that of one whose numbers are bad it is still known what it is about.
    """
    made = ReportFacts()
    try:
        suite = config["suite"]
        made = ReportFacts(_text(suite["name"]), _text(suite.get("digest") or ""))
        made = replace(made, targets={_text(name): _text(digest) for name, digest in config["targets"].items()})
        metrics = {_text(m["name"]): _measured(m) for m in config["metrics"]}
        if len(metrics) != len(config["metrics"]) or not metrics:
            return replace(made, problem="a metric appears twice, or there is none")
        return replace(
            made,
            dataset=_text(config["dataset"]),
            baseline=_text(config.get("baseline") or ""),
            metrics=metrics,
            started=_text(config.get("started", "")),
            ended=_text(config.get("ended", "")),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        return replace(made, problem=f"its config cannot be read: {type(error).__name__}: {error}"[:500])


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
        raise ValueError(f"{made.name}: n or errors is no count")
    if not made.lo < made.hi or not 0 < made.alpha < 1 or not isinstance(made.higher_is_better, bool):
        raise ValueError(f"{made.name}: it has no scale, or bounds of no probability")
    if made.value is not None and made.lower is not None and made.upper is not None:
        if not made.lo <= made.lower <= made.value <= made.upper <= made.hi:
            raise ValueError(f"{made.name}: its bounds are not around its value, or leave its scale")
    elif made.value is not None:
        raise ValueError(f"{made.name}: a value without bounds")
    if made.comparison is not None:
        _check_comparison(made.name, made.comparison)
    return made


def _check_comparison(name: str, found: Comparison) -> None:
    for one in ("delta", "lower", "upper", "family_upper", "sd", "alpha"):
        _number(getattr(found, one))
    if type(found.n) is not int or type(found.metrics) is not int or found.n < 1 or found.metrics < 1:
        raise ValueError(f"{name}: n of the comparison is no count")
    if not -1 <= found.lower <= found.delta <= found.upper <= found.family_upper or found.upper > 1 or found.sd < 0:
        raise ValueError(f"{name}: the bounds of the comparison are not around its mean")
    if not 0 < found.alpha < 1:
        raise ValueError(f"{name}: bounds of no probability")


def _number(value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r:.40} is not a finite number")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is not text")
    return value


def _are_finite(*values: float) -> bool:
    return all(math.isfinite(value) for value in values)
