"""The gate `probes`: an index was opened somewhere, and its recorded probe queries found what they should.

A gate opens no index. `llmartifacts eval probes` does, and records a report: suite `probes`, the digest of the file
with the probes as its dataset, and one metric, `probes`, the share of them that came out right.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from llmartifacts.gates import options, vouching
from llmartifacts.gates.base import Candidate, Moving
from llmartifacts.records.evidence import RecordedReport
from llmartifacts.records.policy import GateResult, Verdict, all_of
from llmartifacts.records.times import duration_text

SUITE = "probes"
METRIC = "probes"
FORGED = "Find out who did that, then withdraw it: llmartifacts yank REPORT --reason …"
PROBES = "probes.json"
"""File of a `vector_index` with its probes."""


class ProbesGate:
    """Passes if the newest probe report on exactly this index says that every probe came out right.

    Args:
        max_age: How old it may be, such as `7d`; None for no limit.

    Raises:
        InvalidValue: An option cannot be taken.
    """

    name = "probes"

    def __init__(self, **given: Any) -> None:
        options.check_known(self.name, given, ("max_age",))
        self.max_age: timedelta | None = options.duration(self.name, "max_age", given.get("max_age"))

    def judge(self, candidate: Candidate) -> GateResult:
        """Judge the indexes among what moves."""
        found = [self._judge_one(candidate, m) for m in candidate.judged]
        if not found:
            return GateResult(self.name, self.name, Verdict.ERROR, "nothing moves", "Name what is to be promoted.")
        worst = all_of([r.verdict for r in found])
        return next(r for r in found if r.verdict is worst)

    def _judge_one(self, candidate: Candidate, moving: Moving) -> GateResult:
        version = moving.version
        if version.kind != "vector_index":
            return self._result(Verdict.ERROR, f"{version} is no index: it has no probes", "Ask this of indexes only.")
        probes = moving.manifest.file(PROBES)
        if probes is None:
            told = f"{version} was logged without probes"
            return self._result(Verdict.INCONCLUSIVE, told, "Log it again with the probes of `VectorIndex.build`.")
        run = f"Run them: llmartifacts eval probes {version}."
        found = [r for r in moving.reports if r.facts.suite == SUITE or r.problem]
        of_it = [r for r in found if r.vouched or r.problem]
        if not of_it and found:
            told = f"no report of the probes of {version} counts: {vouching.passed_over(found)}"
            return self._result(Verdict.INCONCLUSIVE, told, f"{vouching.STEP} {run}")
        if not of_it:
            return self._result(Verdict.INCONCLUSIVE, f"nobody has run the probes of {version}", run)
        report = of_it[0]
        if report.problem:
            return self._result(Verdict.TAMPERED, f"the report {report.version}: {report.problem}", FORGED, report)
        facts = report.facts
        measured = facts.metrics.get(METRIC)
        if facts.problem or measured is None:
            return self._result(
                Verdict.ERROR, f"{report.version}: {facts.problem or 'it has no such metric'}", run, report
            )
        if version.digest not in facts.targets.values():
            return self._result(Verdict.INCONCLUSIVE, f"{report.version} is on another version", run, report)
        if facts.dataset != probes.digest:
            return self._result(
                Verdict.TAMPERED, f"{report.version} is on other probes than {version} has", run, report
            )
        if self.max_age is not None and (candidate.at is None or candidate.at - report.at > self.max_age):
            told = f"{report.version} is stale: more than {duration_text(self.max_age)} old"
            return self._result(Verdict.INCONCLUSIVE, told, run, report)
        wanted = _count(moving.manifest.config)
        if measured.errors or measured.value is None:
            return self._result(Verdict.ERROR, f"{report.version}: the probes could not be run", run, report)
        if wanted is not None and measured.n != wanted:
            told = f"{report.version} ran {measured.n} probes, and {version} has {wanted}"
            return self._result(Verdict.INCONCLUSIVE, told, run, report)
        if measured.value != 1 or measured.n < 1:
            told = f"{report.version}: {measured.value:.0%} of the {measured.n} probes came out right"
            step = "Build the index anew, or use the embedder that it was built with."
            return self._result(Verdict.FAIL, told, step, report)
        return self._result(Verdict.PASS, f"{report.version}: all {measured.n} probes came out right", "", report)

    def _result(
        self, verdict: Verdict, told: str, next_step: str = "", report: RecordedReport | None = None
    ) -> GateResult:
        evidence = () if report is None else (str(report.version.pinned),)
        return GateResult(self.name, self.name, verdict, told, next_step, evidence=evidence)


def _count(config: Mapping[str, Any]) -> int | None:
    """How many query probes the config says there are; None where it does not say."""
    probes = config.get("probes")
    found = probes.get("queries") if isinstance(probes, Mapping) else None
    return found if type(found) is int else None
