"""The gate `probes`."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from llmartifacts.errors import InvalidValue
from llmartifacts.gates.base import Candidate, Moving, judge
from llmartifacts.gates.probes import PROBES, ProbesGate
from llmartifacts.records.digest import digest_of
from llmartifacts.records.evidence import Measured, RecordedReport, ReportFacts
from llmartifacts.records.manifest import Descriptor, Manifest
from llmartifacts.records.policy import GateResult, Verdict
from llmartifacts.records.version import Version

NOW = datetime(2026, 3, 3, tzinfo=UTC)
FILE = Descriptor(PROBES, digest_of(b"probes"), 6)
INDEX = Manifest.build("vector_index", {"probes": {"queries": 8}}, [FILE])
KB = Version("default", "kb", "vector_index", 2, INDEX.digest, NOW)
FOUND = Measured("probes", 1.0, 0.7, 1.0, 8)
FACTS = ReportFacts("probes", "", {"kb:v2": KB.digest}, FILE.digest, "", {"probes": FOUND})


def report(*, days: float = 1, problem: str = "", **changed: Any) -> RecordedReport:
    at = NOW - timedelta(days=days)
    facts = ReportFacts() if problem else replace(FACTS, **changed)
    return RecordedReport(Version("default", "p", "report", 1, digest_of(b"p"), at), facts, problem)


def ask(*reports: RecordedReport, manifest: Manifest = INDEX, **options: Any) -> GateResult:
    version = replace(KB, kind=manifest.kind)
    one = Moving("prod", version, manifest, None, reports=reports)
    return judge(ProbesGate(**options), Candidate("default", (one,), at=NOW))


def test_an_index_whose_probes_all_came_out_right_passes() -> None:
    found = ask(report())
    assert (found.verdict, found.message) == (Verdict.PASS, "p:v1: all 8 probes came out right")


@pytest.mark.parametrize(
    ("changed", "verdict", "told"),
    [
        ({"metrics": {"probes": replace(FOUND, value=0.875)}}, "FAIL", "88% of the 8 probes came out right"),
        ({"metrics": {"probes": replace(FOUND, n=7)}}, "INCONCLUSIVE", "ran 7 probes, and kb:v2 has 8"),
        ({"metrics": {"probes": replace(FOUND, errors=1)}}, "ERROR", "the probes could not be run"),
        ({"metrics": {"probes": replace(FOUND, value=None)}}, "ERROR", "the probes could not be run"),
        ({"metrics": {"probes": replace(FOUND, value=5.0, hi=9.0)}}, "FAIL", "came out right"),
        ({"metrics": {"recall": FOUND}}, "ERROR", "it has no such metric"),
        ({"problem": "", "dataset": digest_of(b"others")}, "TAMPERED", "on other probes than kb:v2 has"),
        ({"targets": {"kb:v1": digest_of(b"1")}}, "INCONCLUSIVE", "is on another version"),
        ({"problem": "it was altered"}, "TAMPERED", "it was altered"),
    ],
)
def test_a_report_that_says_less_denies(changed: dict[str, Any], verdict: str, told: str) -> None:
    found = ask(report(**changed))
    assert (found.verdict, told in found.message) == (verdict, True), found.message


def test_the_newest_report_decides() -> None:
    bad = report(metrics={"probes": replace(FOUND, value=0.5)})
    assert ask(bad, report()).verdict is Verdict.FAIL
    assert ask(report(), bad).verdict is Verdict.PASS


def test_without_a_report_it_says_what_to_run() -> None:
    for found in (ask(), ask(report(suite="support"))):
        assert found.verdict is Verdict.INCONCLUSIVE
        assert found.next_step == "Run them: llmartifacts eval probes kb:v2."


def test_a_stale_report_does_not_count() -> None:
    assert ask(report(days=8), max_age="7d").verdict is Verdict.INCONCLUSIVE
    assert ask(report(days=7), max_age="7d").verdict is Verdict.PASS
    assert ask(report(days=0, ended="2025-01-01"), max_age="7d").verdict is Verdict.INCONCLUSIVE


def test_what_has_no_probes_is_told_of() -> None:
    assert ask(report(), manifest=Manifest.build("vector_index", {})).message == "kb:v2 was logged without probes"
    assert ask(report(), manifest=Manifest.build("prompt", {})).verdict is Verdict.ERROR
    assert ask(report(), manifest=Manifest.build("vector_index", {"probes": 3}, [FILE])).verdict is Verdict.PASS
    assert judge(ProbesGate(), Candidate("default", ())).verdict is Verdict.ERROR


def test_unknown_options_are_refused() -> None:
    with pytest.raises(InvalidValue):
        ProbesGate(max_ages="7d")


def test_a_report_that_nobody_vouches_for_is_passed_over_and_told_of() -> None:
    lies = replace(report(), vouched=False, version=replace(report().version, author="wendy"))
    found = ask(lies, lies)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "no report of the probes of kb:v2 counts: p:v1 does not count" in found.message
    assert "wendy logged it" in found.message
    assert found.next_step.startswith("Let an evaluator of the project log it")
    assert ask(lies, report()).verdict is Verdict.PASS
    assert ask(replace(lies, facts=replace(FACTS, dataset="")), report()).verdict is Verdict.PASS
    assert ask(replace(report(problem="it was altered"), vouched=False), report()).verdict is Verdict.TAMPERED
