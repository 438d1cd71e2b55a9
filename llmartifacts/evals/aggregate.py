"""From the scores of items to the metrics of a report, with intervals and the comparison with a baseline."""

from __future__ import annotations

from collections.abc import Mapping

from llmartifacts.evals.scoring import Graded
from llmartifacts.evals.statistics import compare, estimate
from llmartifacts.kinds.eval_suite import EvalSuite
from llmartifacts.kinds.report import Metric
from llmartifacts.records.evidence import ALPHA, Comparison

Clusters = Mapping[str, str]


def metrics_of(
    suite: EvalSuite,
    graded: Mapping[str, Graded],
    baseline: Mapping[str, Graded] | None = None,
    clusters: Clusters | None = None,
) -> list[Metric]:
    """The metrics of a report, in the suite's order.

    Every metric that the baseline has too is compared. The number of metrics compared together is that of the
    thresholds with a margin: to be proven worse, a candidate must be so at `alpha` divided by it.

    Args:
        suite: The suite.
        graded: Metric -> scores of the target.
        baseline: The same of the baseline; None if there is none.
        clusters: Item id -> cluster; None if items are independent.
    """
    together = max(1, sum(limits.margin is not None for limits in suite.thresholds.values()))
    made = []
    for entry in suite.scorers:
        name = entry["metric"]
        mine, other = graded[name], None if baseline is None else baseline[name]
        values = mine.values
        failed = set(mine.errors)
        limits = suite.thresholds.get(name)
        if other is not None and limits is not None and limits.margin is not None:
            failed |= other.errors.keys()  # what could not be compared is no evidence
        lo, hi = float(entry["lo"]), float(entry["hi"])
        value = lower = upper = sd = None
        n = 0
        if values:
            found = estimate(
                values.values(),
                lo,
                hi,
                alpha=ALPHA,
                clusters=None if clusters is None else [clusters[i] for i in values],
            )
            value, n, sd = found.mean, found.n, found.sd
            lower, upper = max(lo, min(found.lower, value)), min(hi, max(found.upper, value))
        made.append(
            Metric(
                name=name,
                value=value,
                lower=lower,
                upper=upper,
                n=n,
                lo=lo,
                hi=hi,
                higher_is_better=bool(entry["higher_is_better"]),
                alpha=ALPHA,
                sd=sd,
                errors=len(failed),
                scorer=suite.scorer_digest(name),
                comparison=None
                if other is None
                else compared(values, other.values, (lo, hi), bool(entry["higher_is_better"]), together, clusters),
            )
        )
    return made


def compared(
    candidate: Mapping[str, float],
    baseline: Mapping[str, float],
    scale: tuple[float, float],
    higher_is_better: bool,
    metrics: int,
    clusters: Clusters | None,
) -> Comparison | None:
    """The comparison over the items that both have a score of; None if there are none.

    Args:
        candidate: Item id -> score.
        baseline: Item id -> score.
        scale: Lower and upper end.
        higher_is_better: Whether more is better.
        metrics: How many are compared together.
        clusters: As in `metrics_of`.
    """
    both = [item for item in candidate if item in baseline]
    if not both:
        return None
    return compare(
        {i: baseline[i] for i in both},
        {i: candidate[i] for i in both},
        lo=scale[0],
        hi=scale[1],
        higher_is_better=higher_is_better,
        alpha=ALPHA,
        metrics=metrics,
        clusters=clusters,
    )
