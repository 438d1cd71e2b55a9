"""Two reports of one suite on one dataset, item by item: what differs, and how sure that is."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from llmartifacts.errors import Incompatible, NotFound
from llmartifacts.evals.aggregate import compared
from llmartifacts.evals.clusters import clusters_of
from llmartifacts.evals.plan import at_home
from llmartifacts.kinds.eval_dataset.value import EvalDataset
from llmartifacts.kinds.eval_suite import EvalSuite
from llmartifacts.kinds.report import Metric, Report
from llmartifacts.records.evidence import MARGIN, MIN_SAMPLES, Comparison, baseline_verdict, report_facts
from llmartifacts.records.names import DEFAULT_PROJECT
from llmartifacts.records.policy import Verdict
from llmartifacts.records.reference import Reference
from llmartifacts.records.version import Found, Version
from llmartifacts.records.wording import counted
from llmartifacts.registry import Registry

TIMED = "latency"


@dataclass(frozen=True, slots=True)
class MetricComparison:
    """One metric of both reports.

    Attributes:
        metric: Its name.
        before: What the first report found; None if it was not measured.
        after: What the second one found.
        comparison: The second against the first, positive where it is better; None where no item has both scores.
        margin: By how much of the scale it may be worse.
        min_samples: Items that a PASS needs.
        verdict: By the rule of the gates; None where nothing could be compared.
        is_demanded: Whether the suite has a threshold with a margin for it.
    """

    metric: str
    before: float | None
    after: float | None
    comparison: Comparison | None
    margin: float
    min_samples: int
    verdict: Verdict | None
    is_demanded: bool


@dataclass(frozen=True, slots=True)
class ItemChange:
    """An item that does not score as before.

    Attributes:
        id: Its id.
        worst: The greatest loss over the metrics, as a share of the scale; negative is worse, positive better.
        scores: Metric -> score before and after; only those that differ.
        input: What was asked; None if the dataset is not there.
        before: Output of the first report.
        after: Output of the second.
        errors: Why there is no output, before and after; empty if there is.
    """

    id: str
    worst: float
    scores: Mapping[str, tuple[float | None, float | None]]
    input: Any
    before: Any
    after: Any
    errors: tuple[str, str]


@dataclass(frozen=True, slots=True)
class ReportComparison:
    """Two reports compared.

    Attributes:
        before: Version of the first report.
        after: Version of the second.
        targets: What each was on.
        suite: Name of their suite.
        dataset: Digest of their dataset.
        metrics: Every metric, in the suite's order.
        changed: Items that do not score as before, worst first.
        unchanged: How many items score as before.
        remarks: What could not be taken into account.
    """

    before: Version
    after: Version
    targets: tuple[str, str]
    suite: str
    dataset: str
    metrics: tuple[MetricComparison, ...]
    changed: tuple[ItemChange, ...]
    unchanged: int
    remarks: tuple[str, ...] = ()


def compare_reports(registry: Registry, before: str | Reference, after: str | Reference) -> ReportComparison:
    """Compare two reports, or the newest reports that two targets have in common.

    Args:
        registry: The registry.
        before: A report, or what was evaluated.
        after: A report, or what was evaluated; differences are positive where this one is better.

    Raises:
        NotFound: There is no such version, or no report on it.
        Incompatible: The reports are not of one suite, dataset and scorers; every difference is named.
    """
    first, second = _reports_of(registry, before), _reports_of(registry, after)
    pair = _newest_pair(first, second)
    if pair is None:
        problems = differences(first[0].manifest.config, second[0].manifest.config)
        raise Incompatible(
            f"{first[0].version} and {second[0].version} cannot be compared: {problems[0].partition(': ')[2]}",
            problems=tuple(problems),
            next_step="Evaluate both by the same version of the suite, then compare again.",
        )
    a, b = pair
    reports = cast(Report, registry.load(a.manifest)), cast(Report, registry.load(b.manifest))
    suite, dataset, remarks = _about(registry, b.version, reports[1])
    missing = _missing(reports[0], suite)
    if missing:
        told = counted(len(missing), "item")
        remarks.append(f"{a.version} has no answer to {told}, left out of the comparison")
    clusters = None
    if suite is not None and suite.cluster is not None and dataset is not None:
        clusters = clusters_of(dataset, suite.cluster)
    return ReportComparison(
        a.version,
        b.version,
        (", ".join(reports[0].targets), ", ".join(reports[1].targets)),
        reports[1].suite,
        str(reports[1].dataset),
        tuple(_metrics(reports, suite, clusters, missing)),
        *_items(reports, dataset, suite),
        tuple(remarks),
    )


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Why two reports cannot be compared, from their configs; empty if they can.

    Args:
        before: Config of the first.
        after: Config of the second.
    """
    first, second = report_facts(before), report_facts(after)
    if first.problem or second.problem:
        return [f"report: {facts.problem}" for facts in (first, second) if facts.problem]
    made = []
    if (first.suite, first.suite_digest) != (second.suite, second.suite_digest):
        told = [f"{f.suite} ({_short(f.suite_digest)})" if f.suite_digest else f.suite for f in (first, second)]
        made.append(f"suite: they are of other suites, {told[0]} and {told[1]}")
    if first.dataset != second.dataset:
        made.append(f"dataset: they are on other datasets, {_short(first.dataset)} and {_short(second.dataset)}")
    for name in sorted(first.metrics.keys() | second.metrics.keys()):
        a, b = first.metrics.get(name), second.metrics.get(name)
        if a is None or b is None:
            made.append(f"scorer: only one of them has {name}")
        elif (a.scorer, a.lo, a.hi, a.higher_is_better) != (b.scorer, b.lo, b.hi, b.higher_is_better):
            made.append(f"scorer: {name} was scored by other scorers")
    return made


def _short(digest: str) -> str:
    return digest[7:19]


def _reports_of(registry: Registry, reference: str | Reference) -> list[Found]:
    """The report that is named, or all on what is named, newest first."""
    found = registry.find(Reference.parse(reference))
    if found.version.kind == "report":
        return [found]
    graph = registry.lineage(at_home(found.version), "down")
    nodes = [Reference.parse(n.id).within(DEFAULT_PROJECT) for n in graph.nodes.values() if n.kind == "report"]
    read = [registry.find(reference) for reference in nodes]
    on = [r for r in read if found.version.digest in report_facts(r.manifest.config).targets.values()]
    if not on:
        raise NotFound(
            f"no report is on {found.version}",
            what="report",
            name=str(found.version),
            next_step=f"Make one: llmartifacts eval run SUITE --target {found.version}.",
        )
    return sorted(on, key=lambda r: r.version.created_at, reverse=True)


def _newest_pair(first: Sequence[Found], second: Sequence[Found]) -> tuple[Found, Found] | None:
    for b in second:
        for a in first:
            if not differences(a.manifest.config, b.manifest.config):
                return a, b
    return None


def _about(
    registry: Registry, version: Version, report: Report
) -> tuple[EvalSuite | None, EvalDataset | None, list[str]]:
    """The suite and the dataset of a report, by its lineage."""
    graph = registry.lineage(at_home(version), "up")
    nodes = {node.digest: node for node in graph.nodes.values()}

    def loaded(digest: str | None) -> Any:
        node = nodes.get(digest or "")
        if node is None:
            return None
        return registry.load(registry.find(Reference.parse(node.id).within(DEFAULT_PROJECT)).manifest)

    suite, dataset = loaded(report.suite_digest), loaded(str(report.dataset))
    remarks = []
    if not isinstance(suite, EvalSuite):
        suite = None
        remarks.append(
            f"the suite is not in the report's lineage: the margin is taken as {MARGIN:g}, items as independent"
        )
    if not isinstance(dataset, EvalDataset):
        dataset = None
        remarks.append("the dataset is not in the report's lineage: inputs are not shown")
    return suite, dataset, remarks


def _metrics(
    reports: tuple[Report, Report],
    suite: EvalSuite | None,
    clusters: Mapping[str, str] | None,
    missing: Collection[str],
) -> list[MetricComparison]:
    thresholds = suite.thresholds if suite is not None else {}
    together = max(1, sum(t.margin is not None for t in thresholds.values()))
    made = []
    for metric in reports[1].metrics:
        other = reports[0].metric(metric.name)
        before, after = (_scores(report, metric.name) for report in reports)
        before = {item: score for item, score in before.items() if item not in missing}
        found = compared(after, before, (metric.lo, metric.hi), metric.higher_is_better, together, clusters)
        limits = thresholds.get(metric.name)
        margin = limits.margin if limits is not None and limits.margin is not None else None
        least = limits.min_samples if limits is not None else MIN_SAMPLES
        verdict: Verdict | None = None
        if found is not None:
            verdict = baseline_verdict(found, margin=margin or MARGIN, min_samples=least)
        if metric.errors or other.errors:
            verdict = Verdict.ERROR
        made.append(
            MetricComparison(
                metric.name,
                other.value,
                metric.value,
                found,
                margin or MARGIN,
                least,
                verdict,
                margin is not None,
            )
        )
    return made


def _missing(report: Report, suite: EvalSuite | None) -> set[str]:
    """Items that count as the worst score for want of an answer: no measure of what one is compared with."""
    if suite is None or suite.on_error != "worst":
        return set()
    missing = set()
    for item in report.items:
        many = item.output if suite.repeats > 1 and isinstance(item.output, list) else [item.output]
        if item.error and None in many:
            missing.add(item.id)
    return missing


def _scores(report: Report, metric: str) -> dict[str, float]:
    return {i.id: s for i in report.items if (s := i.scores.get(metric)) is not None}


def _items(
    reports: tuple[Report, Report], dataset: EvalDataset | None, suite: EvalSuite | None
) -> tuple[tuple[ItemChange, ...], int]:
    # Every item takes another time than before: a change of that alone is none to look at.
    timed = {entry["metric"] for entry in suite.scorers if entry["type"] == TIMED} if suite is not None else set()
    metrics = {m.name: m for m in reports[1].metrics if m.name not in timed}
    before = {item.id: item for item in reports[0].items}
    changed, unchanged = [], 0
    for item in reports[1].items:
        was = before.get(item.id)
        if was is None:
            continue
        pairs = {name: (was.scores.get(name), item.scores.get(name)) for name in metrics}
        differing = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
        if not differing and was.error == item.error:
            unchanged += 1
            continue
        known = dataset[item.id].input if dataset is not None and item.id in dataset else None
        steps = [_step(metrics[name], *pair) for name, pair in differing.items()]
        worst = min(steps, default=0.0) if min(steps, default=0.0) < 0 else max(steps, default=0.0)
        errors = (was.error, item.error)
        changed.append(ItemChange(item.id, worst, differing, known, was.output, item.output, errors))
    changed.sort(key=lambda change: change.worst)  # stable: equal ones stay in the dataset's order
    return tuple(changed), unchanged


def _step(metric: Metric, before: float | None, after: float | None) -> float:
    """How much better an item is, as a share of the scale; what has no score any more lost all, and the reverse."""
    if before is None or after is None:
        return -1.0 if after is None else 1.0
    step = (after - before) / (metric.hi - metric.lo)
    return step if metric.higher_is_better else -step
