"""`evaluate`: a suite on a target, to a report.

    evaluate = pin -> ask target and baseline -> grade -> estimate and compare -> log the report

Outputs come from a cache where the same target was asked the same before; see `outputs.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from llmartifacts.errors import InvalidInput, NotAllowed, NotFound
from llmartifacts.evals.aggregate import metrics_of
from llmartifacts.evals.clusters import clusters_of
from llmartifacts.evals.gradings import grading_of, is_slow, scorers_of
from llmartifacts.evals.importing import distributions, working_directory_first
from llmartifacts.evals.outputs import OutputCaches
from llmartifacts.evals.plan import Plan, Side, at_home, plan_of
from llmartifacts.evals.runner import Answers, Conditions, ask
from llmartifacts.evals.scorers.base import Answer, Scorer
from llmartifacts.evals.scoring import Graded, errors_of, grade, only_of_baseline, outputs_of
from llmartifacts.evals.verdicts import Ruling, rule_all, worst
from llmartifacts.kinds.eval_dataset.value import EvalDataset
from llmartifacts.kinds.eval_suite import EvalSuite
from llmartifacts.kinds.report import ItemScore, Report, current_environment
from llmartifacts.records.policy import Verdict
from llmartifacts.records.reference import Reference
from llmartifacts.records.times import to_text
from llmartifacts.records.version import Version
from llmartifacts.records.wording import counted
from llmartifacts.registry import Registry

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""
_TAKES_PART = {"vector_index": ("faiss-cpu", "numpy"), "prompt": ("langchain-core",), "bundle": ()}
_MAX_TOLD = 500
_NAMES = ("function", "model", "embeddings")
"""Options of scorers that name an object of a module."""


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation came to.

    Attributes:
        report: The report.
        version: The report's version; None if it was not logged.
        suite: The suite as it was run.
        suite_version: The suite's version; None if nothing was logged and the suite was not before.
        target: What was evaluated.
        dataset: On what.
        baseline: What it is compared with; None if with nothing.
        rulings: Every demand of the suite, and what it came to.
        uncompared: Why the report compares with nothing; empty if it compares.
        remarks: What somebody should know besides.
        asked: Outputs that were made now, baseline included.
        reused: Outputs that were known already.
        items: The items that were asked.
        before: Metric -> item id -> the baseline's score; empty if nothing is compared.
    """

    report: Report
    version: Version | None
    suite: EvalSuite
    suite_version: Version | None
    target: Version
    dataset: Version
    baseline: Version | None
    rulings: tuple[Ruling, ...]
    uncompared: str
    remarks: tuple[str, ...]
    asked: int
    reused: int
    items: EvalDataset
    before: Mapping[str, Mapping[str, float]]

    @property
    def verdict(self) -> Verdict | None:
        """The worst of the rulings; None where the suite demands nothing."""
        return worst(list(self.rulings))


def evaluate(
    registry: Registry,
    suite: EvalSuite | str | os.PathLike[str] | Reference,
    target: str | Reference | None = None,
    *,
    baseline: str | Reference | None = None,
    outputs: Any = None,
    concurrency: int | None = None,
    repeats: int | None = None,
    cache: bool | str = True,
    progress: Progress | None = None,
    log: bool = True,
) -> Report:
    """Evaluate a target by a suite, and log the report.

    The module that a suite names is imported, from the working directory too, and runs with the rights of the caller:
    evaluate suites of people whom you would let run code. Nothing else imports what a suite names.

    Args:
        registry: The registry.
        suite: A suite, the path of its YAML file, or a reference. A suite that is not from the registry is logged there
            under its own name.
        target: What to evaluate; by default what the suite says. Without a selector, its latest version.
        baseline: What to compare with: an alias of the target's own collection, or a reference; `none` for nothing. By
            default what the suite says. An alias that does not exist yet is no error, for a first version has no
            baseline; unless it is given here and one like it does exist.
        outputs: How outputs are made, instead of what the suite says: a function `f(value, item)`, a factory
            `f(value)`, a LangChain Runnable, a mapping item id -> output, or the path of a JSON Lines file of recorded
            outputs. See `evals.targets`. Outputs of a mapping or a file are those of the target only.
        concurrency: Items asked at a time; by default what the suite says.
        repeats: How often each item is asked, instead of what the suite says; this makes it another suite, which is
            called after the number too, `support-retrieval-x3`.
        cache: Whether outputs that were made before are used. False asks anew, yet goes on where such a run was
            interrupted within a day. A text names what makes the outputs, where that cannot be told by itself: for a
            Runnable or a function with something bound to it; without a name their outputs are not kept.
        progress: Called with what is being done, how much of it is done, and how much there is.
        log: Whether to log suite and report.

    Returns:
        The report. `evaluate_logged` gives it with its version and the verdicts.

    Raises:
        InvalidInput: The suite is wrong, or says not enough.
        NotFound: A version, file, module or object is not there.
        WrongKind: A version is of another kind than is wanted.
        Incompatible: An embedder is not the one of the index.

    Example:
        >>> import llmartifacts as la
        >>> from llmartifacts.connect import init
        >>> registry = init("registry")
        >>> v = registry.log("sums", la.EvalDataset([{"input": "1 + 1", "expected_output": "2"}]))
        >>> v = registry.log("adder", la.Prompt("What is {{ input }}?", template_format="jinja2"))
        >>> suite = EvalSuite("adding", "sums", ["equals"])
        >>> report = evaluate(registry, suite, "adder:v1", outputs=lambda prompt, item: str(eval(item.input)))
        >>> report.metric("equals").value
        1.0
    """
    return evaluate_logged(
        registry,
        suite,
        target,
        baseline=baseline,
        outputs=outputs,
        concurrency=concurrency,
        repeats=repeats,
        cache=cache,
        progress=progress,
        log=log,
    ).report


def evaluate_logged(
    registry: Registry,
    suite: EvalSuite | str | os.PathLike[str] | Reference,
    target: str | Reference | None = None,
    *,
    baseline: str | Reference | None = None,
    outputs: Any = None,
    concurrency: int | None = None,
    repeats: int | None = None,
    cache: bool | str = True,
    progress: Progress | None = None,
    log: bool = True,
) -> Evaluation:
    """`evaluate`, with the report's version, the verdicts, and what somebody should know besides."""
    with working_directory_first():  # a function may import more of its application when it is called
        return _evaluated(registry, suite, target, baseline, outputs, concurrency, repeats, cache, progress, log)


def _evaluated(
    registry: Registry,
    suite: EvalSuite | str | os.PathLike[str] | Reference,
    target: str | Reference | None,
    baseline: str | Reference | None,
    outputs: Any,
    concurrency: int | None,
    repeats: int | None,
    cache: bool | str,
    progress: Progress | None,
    log: bool,
) -> Evaluation:
    started = datetime.now(UTC)
    name = cache if isinstance(cache, str) else ""
    plan = plan_of(registry, suite, target, baseline=baseline, outputs=outputs, repeats=repeats, cache_name=name)
    conditions = _conditions(plan.suite, concurrency)
    with scorers_of(plan.suite.scorers, registry) as scorers, OutputCaches(fresh=cache is False) as caches:
        run = _Run(registry, plan, scorers, conditions, caches, progress)
        report = run.report(started)
        caches.done()
    logged = suite_version = None
    if log:
        suite_version = plan.suite_version or _logged_suite(registry, plan)
        about = [plan.target.version, plan.dataset, suite_version, *filter(None, [plan.compared_with])]
        logged = registry.log(plan.report_name, report, inputs=[at_home(version) for version in about])
    allowed = plan.uncompared if plan.is_expected else ""
    return Evaluation(
        report,
        logged,
        plan.suite,
        suite_version or plan.suite_version,
        plan.target.version,
        plan.dataset,
        plan.compared_with,
        tuple(rule_all(report, plan.suite.thresholds, uncompared=allowed)),
        plan.uncompared,
        (*plan.remarks, *plan.target.maker.remarks, *run.remarks, *caches.remarks()),
        run.asked,
        run.reused,
        plan.items,
        run.before,
    )


def _logged_suite(registry: Registry, plan: Plan) -> Version:
    """The version of the suite, logged if it is new: who may log reports only uses what a writer logged."""
    project, name = plan.target.version.project, plan.suite.name
    try:
        return registry.log(f"{project}/{name}", plan.suite, message=plan.suite.description)
    except NotAllowed as error:
        with suppress(NotFound):
            return registry.get(Reference(name, project, digest=plan.suite_digest))
        target = plan.target.version.reference.seen_from(registry.project, registry.project)
        step = (
            f"Somebody who may write in {project} logs the suite: llmartifacts log eval_suite {name} FILE. Then run it"
            f" by name: llmartifacts eval run {name} --target {target}. Or measure only: --no-log."
        )
        raise NotAllowed.of(error, next_step=step) from None


def _conditions(suite: EvalSuite, concurrency: int | None) -> Conditions:
    many = suite.concurrency if concurrency is None else concurrency
    if type(many) is not int or not 1 <= many <= 256:
        raise InvalidInput(f"{many!r:.40} is no concurrency", field="concurrency", next_step="From 1 to 256.")
    return Conditions(suite.repeats, suite.seed, many, suite.timeout)


class _Run:
    """One evaluation under way."""

    def __init__(
        self,
        registry: Registry,
        plan: Plan,
        scorers: list[Scorer],
        conditions: Conditions,
        caches: OutputCaches,
        progress: Progress | None,
    ) -> None:
        self.registry = registry
        self.plan, self.scorers, self.conditions = plan, scorers, conditions
        self.caches, self.progress = caches, progress
        self.asked = self.reused = 0
        self.before: Mapping[str, Mapping[str, float]] = {}
        self.remarks: list[str] = []
        """What somebody should know besides."""

    def report(self, started: datetime) -> Report:
        plan, suite = self.plan, self.plan.suite
        clusters = clusters_of(plan.items, suite.cluster) if suite.cluster is not None else None
        answers = self._answers(plan.target)
        other = self._answers(plan.baseline) if plan.baseline is not None else self._recorded_before()
        if self.reused and any(entry["type"] == "latency" for entry in suite.scorers):
            told = f"{counted(self.reused, 'time')} of the latency were taken in earlier runs"
            self.remarks.append(f"{told}; --no-cache measures all of them now")
        graded = self._graded(plan.target.version, answers, other, suite.on_error)
        before = self._graded_before(other)
        self.before = {name: found.values for name, found in (before or {}).items()}
        if before is not None:
            held = [name for name in graded if name in suite.thresholds]
            graded |= {name: only_of_baseline(graded[name], before[name], name) for name in held}
        metrics = metrics_of(suite, graded, before, clusters)
        items = [
            ItemScore(
                item,
                {name: graded[name].scores[item] for name in suite.metrics},
                outputs_of(answers, item, suite.repeats),
                errors_of(graded, answers, item, suite.repeats),
            )
            for item in plan.items.ids
        ]
        return Report(
            suite=suite.name,
            targets={str(plan.target.version): plan.target.version.digest},
            dataset=plan.dataset.digest,
            metrics=metrics,
            items=items,
            suite_digest=plan.suite_digest,
            baseline=plan.compared_with.digest if plan.compared_with is not None else None,
            environment=self._environment(),
            seed=suite.seed,
            started=to_text(started),
            ended=to_text(max(started, datetime.now(UTC))),
        )

    # --- answers

    def _answers(self, side: Side) -> Answers:
        about = side.maker.identity
        cache = None if about is None else self.caches.get({"target": side.version.digest, "maker": dict(about)})
        told = self._progress_of(f"asking {side.version}")
        counts: list[int] = []

        def progress(done: int, total: int) -> None:
            counts.append(done)
            told(done, total)

        answers = ask(side.value, side.maker, self.plan.items, self.conditions, cache, progress)
        self.reused += counts[0]  # the first call says what is known before anything is asked
        self.asked += len(answers) - counts[0]
        return answers

    def _recorded_before(self) -> Answers | None:
        """The baseline's outputs as its own report has them."""
        earlier, repeats = self.plan.earlier, self.plan.suite.repeats
        if earlier is None:
            return None
        made: dict[tuple[str, int], Answer] = {}
        known = {item.id: item for item in earlier.items}
        for item in self.plan.items.ids:
            output = known[item].output if item in known else None
            for repeat in range(repeats):
                one = output if repeats == 1 else _nth(output, repeat)
                made[item, repeat] = Answer(one, error="" if one is not None else "no output in its report")
        return made

    # --- scores

    def _graded(self, version: Version, answers: Answers, other: Answers | None, on_error: str) -> dict[str, Graded]:
        plan = self.plan
        gradings = [
            grading_of(
                scorer,
                plan.items,
                answers,
                other,
                self.conditions,
                registry=self.registry,
                caches=self.caches,
                progress=self._progress_of(f"scoring {version}: {scorer.metric}") if is_slow(scorer) else None,
            )
            for scorer in self.scorers
        ]
        suite = plan.suite
        return grade(gradings, plan.items, answers, repeats=suite.repeats, on_error=on_error, baseline=other)

    def _graded_before(self, other: Answers | None) -> Mapping[str, Graded] | None:
        """The baseline's scores: those of its own report, where the outputs come from there."""
        earlier, suite = self.plan.earlier, self.plan.suite
        if other is None:
            return None
        missing = {item for (item, _), answer in other.items() if answer.error} if suite.on_error == "worst" else set()
        if missing:
            told = f"the baseline did not answer {counted(len(missing), 'item')}, left out of the comparison"
            self.remarks.append(told)
        if earlier is not None:
            return {name: _graded_in(earlier, name, missing) for name in suite.metrics}
        if self.plan.baseline is None:
            return None
        return self._graded(self.plan.baseline.version, other, None, "skip" if suite.on_error == "worst" else "error")

    # --- about it

    def _progress_of(self, label: str) -> Callable[[int, int], None]:
        progress = self.progress
        return (lambda done, total: None) if progress is None else (lambda done, total: progress(label, done, total))

    def _environment(self) -> dict[str, str]:
        plan = self.plan
        named = [value for e in plan.suite.scorers for name, value in e["options"].items() if name in _NAMES and value]
        packages = {"llmartifacts", *plan.target.maker.packages, *distributions(*self.scorers, *named)}
        packages |= set(_TAKES_PART.get(plan.target.version.kind, ()))
        told = "".join(c if c.isprintable() else "?" for c in plan.target.maker.told)
        return {**current_environment(*sorted(packages)), "outputs": told[:_MAX_TOLD]}


def _graded_in(report: Report, metric: str, missing: Collection[str]) -> Graded:
    scores = {item.id: None if item.id in missing else item.scores.get(metric) for item in report.items}
    return Graded(
        scores,
        {
            item.id: item.error
            for item in report.items
            if item.error and scores[item.id] is None and item.id not in missing
        },
    )


def _nth(output: Any, repeat: int) -> Any:
    """One output of an item that was asked several times; a report made by hand may have something else there."""
    return output[repeat] if isinstance(output, list) and repeat < len(output) else None
