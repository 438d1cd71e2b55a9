"""The gate `eval`: a report on exactly this version, made with what the suite says now, holds the thresholds.

Of all reports that count, the newest decides: an earlier, better one is no excuse. One that nobody vouches for is
passed over, whatever it says. What is bound: the target's digest, the suite's, the dataset's, each scorer's, and, where
a threshold compares, the digest of what the alias serves now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from llmartifacts.errors import InvalidValue
from llmartifacts.gates import options, vouching
from llmartifacts.gates.base import Candidate, Moving, SuiteNow
from llmartifacts.records.digest import short
from llmartifacts.records.evidence import (
    ALPHA,
    Graded,
    Measured,
    RecordedReport,
    Threshold,
    baseline_verdict,
    beyond_margin,
    items_needed,
    threshold,
    threshold_verdict,
)
from llmartifacts.records.policy import GateResult, Verdict, all_of
from llmartifacts.records.times import duration_text
from llmartifacts.records.wording import counted

NAME = "eval"
FORGED = "Find out who did that, then withdraw it: llmartifacts yank REPORT --reason …"
_KNOWN = ("suite", "thresholds", "max_age", "signed_by")


@dataclass(frozen=True, slots=True)
class _Answer:
    """What one threshold comes to."""

    verdict: Verdict
    told: str
    next_step: str = ""


class EvalGate:
    """Passes if the newest report that counts holds every threshold.

    Args:
        suite: Reference of the suite, such as `support-retrieval` (its latest version) or `support-retrieval:v3`.
        thresholds: Metric -> what is demanded; None for what the suite says.
        max_age: How old the report may be, such as `30d`; None for no limit.
        signed_by: Role that somebody who signed the report must have; None where no signature is asked for.

    Raises:
        InvalidValue: An option cannot be taken.
    """

    name = NAME

    def __init__(self, **given: Any) -> None:
        options.check_known(NAME, given, _KNOWN)
        if "suite" not in given:
            raise options.refused(NAME, "suite", "no suite is named", "Write: eval: {suite: support-retrieval}.")
        self.suite = options.reference(NAME, "suite", given["suite"])
        self.max_age: timedelta | None = options.duration(NAME, "max_age", given.get("max_age"))
        role = given.get("signed_by")
        self.signed_by = None if role is None else options.line(NAME, "signed_by", role)
        self.thresholds = _thresholds(given.get("thresholds"))

    @property
    def suites(self) -> tuple[str, ...]:
        """Suites that it has to know."""
        return (self.suite,)

    def judge(self, candidate: Candidate) -> GateResult:
        """Judge the subject by its newest report that counts."""
        suite = candidate.suites.get(
            self.suite, SuiteNow(self.suite, problem=f"the suite {self.suite} was not looked up")
        )
        if suite.tampered:
            return self._result(Verdict.TAMPERED, suite.problem, "Find out who did that, then log the suite anew.")
        if suite.version is None or suite.problem or suite.facts.problem:
            told = suite.problem or f"the suite {suite.version}: {suite.facts.problem}"
            name = self.suite.partition(":")[0]
            step = f"Log the suite and its dataset: llmartifacts log eval_suite {name} FILE.yaml"
            return self._result(Verdict.INCONCLUSIVE, told, step)
        answers = [self._judge_one(candidate, moving, suite) for moving in candidate.judged]
        if not answers:
            return self._result(Verdict.ERROR, "nothing moves", "Name what is to be promoted.")
        order = all_of([a.verdict for a in answers])
        return next(a for a in answers if a.verdict is order)

    def _judge_one(self, candidate: Candidate, moving: Moving, suite: SuiteNow) -> GateResult:
        name = suite.facts.name
        run = f"Run it: llmartifacts eval run {name} --target {moving.version}"
        if moving.serving is not None:
            run += f" --baseline {moving.serving.name}:{moving.alias}"
        elif moving.before is not None:
            run += f" --baseline {moving.before}"
        demanded = suite.facts.thresholds if self.thresholds is None else self.thresholds
        if not demanded:
            told = f"neither the policy nor the suite {suite.version} says what to hold {moving.version} against"
            return self._result(Verdict.ERROR, told, "Add thresholds to the suite or to the gate.")
        found = [r for r in moving.reports if r.problem or r.facts.suite in ("", name)]  # "": nobody knows of which
        for bad in found:
            forged = bad.problem or (self._forged(bad) if bad.vouched else "")
            if forged:
                return self._result(Verdict.TAMPERED, f"the report {bad.version}: {forged}", FORGED, bad)
        own, others = vouching.that_count(found), vouching.passed_over(found)
        if not own:
            told = f"no report of the suite {name} on {moving.version} ({short(moving.version.digest)})"
            if others:
                return self._result(Verdict.INCONCLUSIVE, f"{told} counts: {others}", f"{vouching.STEP} {run}.")
            return self._result(Verdict.INCONCLUSIVE, told, f"{run}.")
        compares = any(t.margin is not None for t in demanded.values())
        newest: str = ""
        for report in own:
            if report.facts.problem:  # what it says is not known: an earlier, better one is no excuse
                return self._result(Verdict.ERROR, f"the report {report.version}: {report.facts.problem}", run, report)
            why = self._why_not(report, candidate, moving, suite, demanded, compares)
            if not why:
                return self._decide(report, moving, suite, demanded)
            newest = newest or f"{report.version}: {why}"
        more = f", and {counted(len(own) - 1, 'older one')} neither" if len(own) > 1 else ""
        told = f"the newest report on {moving.version} does not count{more}: {newest}"
        told += f"; {others}" if others else ""
        return self._result(Verdict.INCONCLUSIVE, told, f"{run}.", own[0])

    def _why_not(
        self,
        report: RecordedReport,
        candidate: Candidate,
        moving: Moving,
        suite: SuiteNow,
        demanded: Mapping[str, Threshold],
        compares: bool,
    ) -> str:
        """Why a report does not count, naming the bound field that is another now; empty if it counts."""
        facts = report.facts
        version, dataset, baseline = suite.version, suite.dataset, moving.baseline
        together = {m.version.digest for m in candidate.moving}
        if moving.version.digest not in facts.targets.values():
            return f"it is on another version ({', '.join(facts.targets)}), not on {moving.version}"
        if not set(facts.targets.values()) <= together:
            others = [name for name, digest in facts.targets.items() if digest not in together]
            return f"it is on {moving.version} together with {', '.join(others)}, which does not move with it"
        if version is None or facts.suite_digest != version.digest:
            return f"the suite has changed since: {suite.reference} is {_named(version)} now"
        if dataset is None or facts.dataset != dataset.digest:
            return f"the dataset has changed since: {suite.facts.dataset} is {_named(dataset)} now"
        for metric in demanded:
            changed = _scorer_change(facts.metrics.get(metric), suite.facts.scorers.get(metric))
            if changed:
                return changed
        if compares and baseline is not None and facts.baseline != baseline.digest != moving.version.digest:
            was = f"with {facts.baseline[7:19]}" if facts.baseline else "with nothing"
            serves = "serves" if moving.serving is not None else "served last"
            return f"it compares {was}, and the baseline is {_named(baseline)} now, which {moving.alias} {serves}"
        return self._too_old(report, candidate.at) or self._unsigned(report)

    def _too_old(self, report: RecordedReport, now: datetime | None) -> str:
        if self.max_age is None:
            return ""
        if now is None:
            return "nobody knows what time it is"
        age = now - report.at
        if age <= self.max_age:
            return ""
        return f"it is stale: {duration_text(age)} old, and {duration_text(self.max_age)} are allowed"

    def _forged(self, report: RecordedReport) -> str:
        """A signature under it that is not what it claims, where signatures count; empty if there is none."""
        problems = (s.problem for s in report.signers if s.problem.startswith("tampered:"))
        return "" if self.signed_by is None else next(problems, "")

    def _unsigned(self, report: RecordedReport) -> str:
        if self.signed_by is None:
            return ""
        if any(not s.problem and self.signed_by in s.roles for s in report.signers):
            return ""
        seen = "; ".join(f"{s.person}: {s.problem or 'has not that role'}" for s in report.signers)
        return f"nobody with the role {self.signed_by} signed it" + (f" ({seen})" if seen else "")

    def _decide(
        self, report: RecordedReport, moving: Moving, suite: SuiteNow, demanded: Mapping[str, Threshold]
    ) -> GateResult:
        answers = [
            answer
            for metric, asked in demanded.items()
            for answer in _held(report.facts.metrics.get(metric), metric, asked, moving)
        ]
        verdict = all_of([a.verdict for a in answers])
        shown = answers if verdict is Verdict.PASS else [a for a in answers if a.verdict is not Verdict.PASS]
        shown = sorted(shown, key=lambda a: a.verdict is not verdict)  # what decided comes first
        told = "; ".join(a.told for a in shown)
        steps = " ".join(dict.fromkeys(a.next_step for a in shown if a.next_step))
        return self._result(verdict, f"{report.version} on {moving.version}: {told}", steps, report)

    def _result(
        self, verdict: Verdict, told: str, next_step: str = "", report: RecordedReport | None = None
    ) -> GateResult:
        evidence = () if report is None else (str(report.version.pinned),)
        return GateResult(NAME, f"{NAME}:{_bare(self.suite)}", verdict, told, next_step, evidence=evidence)


def _held(found: Measured | None, metric: str, asked: Threshold, moving: Moving) -> Sequence[_Answer]:
    """The answers to one threshold, which may compare and be absolute at once."""
    if found is None:
        return (_Answer(Verdict.INCONCLUSIVE, f"{metric} was not measured", "Add it to the suite's scorers."),)
    if found.errors:
        told = f"{metric} could not be computed for {found.errors} items"
        return (_Answer(Verdict.ERROR, told, "See the report's items for what went wrong, and run it again."),)
    made = []
    if asked.margin is not None:
        made.append(_compared(found, asked, asked.margin, moving))
    if asked.at_least is not None or asked.at_most is not None:
        made.append(_absolute(found, asked))
    return made


def _compared(found: Measured, asked: Threshold, margin: float, moving: Moving) -> _Answer:
    if moving.baseline is None or moving.baseline.digest == moving.version.digest:
        if found.value is None or found.n < asked.min_samples:
            return _Answer(Verdict.INCONCLUSIVE, *_too_few(found.name, found.n, asked.min_samples))
        if moving.baseline is not None:
            return _Answer(
                Verdict.PASS, f"{found.name} is {found.value:.4g}; {moving.alias} served this very content last"
            )
        return _Answer(
            Verdict.PASS, f"{found.name} is {found.value:.4g}; {moving.alias} never served what to compare with"
        )
    by = found.comparison
    if by is None:
        return _Answer(Verdict.INCONCLUSIVE, f"{found.name} was not compared", "Run it with a baseline.")
    if by.alpha > ALPHA:
        return _Answer(Verdict.INCONCLUSIVE, *_too_lenient(found.name, by.alpha))
    verdict = baseline_verdict(by, margin=margin, min_samples=asked.min_samples)
    against = f"{found.name} {by.delta:+.3f} against {moving.baseline} [{by.lower:+.3f}, {by.upper:+.3f}], n = {by.n}"
    if verdict is Verdict.PASS:
        return _Answer(verdict, f"{against}: {'better' if by.lower > 0 else f'not worse by more than {margin:g}'}")
    if verdict is Verdict.FAIL:
        beyond = f", and by more than {margin:g}" if beyond_margin(by, margin) else ""
        return _Answer(
            verdict, f"{against}: worse{beyond}", "Mend the candidate; its report has the score of each item."
        )
    needed = max(items_needed(by.sd, margin), asked.min_samples)
    if by.n < asked.min_samples:
        return _Answer(Verdict.INCONCLUSIVE, *_too_few(found.name, by.n, asked.min_samples))
    step = f"About {needed} items would decide about an equal candidate; there are {by.n}."
    return _Answer(verdict, f"{against}: it may be worse by more than {margin:g}, or not worse at all", step)


def _absolute(found: Measured, asked: Threshold) -> _Answer:
    if asked.estimate == "bound" and found.alpha > ALPHA:
        return _Answer(Verdict.INCONCLUSIVE, *_too_lenient(found.name, found.alpha))
    verdict = threshold_verdict(
        found,
        at_least=asked.at_least,
        at_most=asked.at_most,
        min_samples=asked.min_samples,
        estimate=asked.estimate,
    )
    wanted = " and ".join(
        f"{word} {limit:g}"
        for word, limit in (("at least", asked.at_least), ("at most", asked.at_most))
        if limit is not None
    )
    if found.value is None or found.lower is None or found.upper is None:
        return _Answer(verdict, f"{found.name} was measured on no item; {wanted} is asked", "Add items with labels.")
    held = {Verdict.PASS: "holds", Verdict.FAIL: "misses"}.get(verdict, "may hold or miss")
    told = f"{found.name} {found.value:.3f} [{found.lower:.3f}, {found.upper:.3f}], n = {found.n}, {held} {wanted}"
    if verdict is Verdict.INCONCLUSIVE and found.n < asked.min_samples:
        return _Answer(verdict, *_too_few(found.name, found.n, asked.min_samples))
    step = "" if verdict is not Verdict.INCONCLUSIVE else "More items would narrow the interval."
    return _Answer(verdict, told, step)


def _too_lenient(metric: str, alpha: float) -> tuple[str, str]:
    return f"{metric}: its bounds are wrong with probability {alpha:g}, and {ALPHA:g} is allowed", "Run it again."


def _too_few(metric: str, n: int, needed: int) -> tuple[str, str]:
    told = f"{metric}: {n} independent items are too few, {needed} are needed"
    return told, f"Add at least {needed - n} items to the dataset, or clusters where the suite has them."


def _scorer_change(found: Measured | None, now: Graded | None) -> str:
    if found is None:
        return ""
    if now is None:
        return f"the suite has no scorer of {found.name} any more"
    if found.scorer != now.scorer:
        return f"the scorer of {found.name} has changed since"
    if (found.lo, found.hi, found.higher_is_better) != (now.lo, now.hi, now.higher_is_better):
        return f"its scale of {found.name} is not the suite's"
    return ""


def _thresholds(given: Any) -> Mapping[str, Threshold] | None:
    if given is None:
        return None
    if not isinstance(given, Mapping) or not given:
        raise options.refused(NAME, "thresholds", "no thresholds are given", "Write: {recall@5: {margin: 0.05}}.")
    try:
        return {options.line(NAME, "thresholds", name): threshold(body) for name, body in given.items()}
    except InvalidValue as error:
        raise options.refused(NAME, error.field, error.message, error.next_step) from None


def _named(version: Any) -> str:
    return "nothing" if version is None else f"{version} ({short(version.digest)})"


def _bare(reference: str) -> str:
    return reference.removesuffix(":latest")
