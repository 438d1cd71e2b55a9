"""The gates `lineage` and `freshness`."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from llmartifacts.errors import InvalidValue
from llmartifacts.gates.base import Ancestor, Candidate, Moving, Trail, judge
from llmartifacts.gates.origin import FreshnessGate, LineageGate
from llmartifacts.records.digest import digest_of
from llmartifacts.records.evidence import RecordedReport, ReportFacts
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.policy import GateResult, Verdict
from llmartifacts.records.version import Version

NOW = datetime(2026, 3, 3, tzinfo=UTC)


def version(name: str, kind: str = "files", number: int = 1, *, days: float = 1, **more: Any) -> Version:
    content = digest_of(f"{name}{number}".encode())
    return Version("default", name, kind, number, content, NOW - timedelta(days=days), **more)


DOCS = Ancestor(version("docs"), "derived_from")


def ask(gate: Any, *ancestors: Ancestor, run: str = "", **more: Any) -> GateResult:
    one = version("kb", "vector_index", 2, git_commit=more.pop("commit", ""))
    trail = Trail(ancestors, run)
    moving = Moving("prod", one, Manifest.build("vector_index", {}), None, trail=trail, **more)
    return judge(gate, Candidate("default", (moving,), at=NOW))


def test_what_is_derived_from_something_passes_and_what_comes_from_nowhere_does_not() -> None:
    assert ask(LineageGate(), DOCS).message == "it came from docs:v1"
    missing = ask(LineageGate())
    assert missing.verdict is Verdict.INCONCLUSIVE
    assert "--input NAME:vN for kb:v2" in missing.next_step
    assert ask(LineageGate(), Ancestor(version("q"), "evaluated_with")).verdict is Verdict.INCONCLUSIVE
    assert ask(LineageGate(), Ancestor(version("part"), "contains")).verdict is Verdict.PASS


def test_what_came_from_something_withdrawn_fails_whatever_else_is_known() -> None:
    gone = replace(DOCS, version=version("docs", yanked_at=NOW, yank_reason="leaked"))
    found = ask(LineageGate(), DOCS, gone)
    assert found.verdict is Verdict.FAIL
    assert "kb:v2 came from docs:v1, which was withdrawn: leaked" in found.message


def test_kinds_a_run_and_a_commit_can_be_asked_for() -> None:
    assert ask(LineageGate(kinds=["files"]), DOCS).verdict is Verdict.PASS
    assert ask(LineageGate(kinds="files"), DOCS).verdict is Verdict.PASS
    lacking = ask(LineageGate(kinds=["files", "eval_dataset"]), DOCS)
    assert (lacking.verdict, "kb:v2 came from no eval_dataset" in lacking.message) == (Verdict.INCONCLUSIVE, True)
    assert ask(LineageGate(run=True), run="done").message == "it came from a run"
    for status, told in (("", "no run that is done logged kb:v2"), ("failed", "its run is failed")):
        found = ask(LineageGate(run=True), DOCS, run=status)
        assert (found.verdict, told in found.message) == (Verdict.INCONCLUSIVE, True)
    assert ask(LineageGate(git_commit=True), DOCS).verdict is Verdict.INCONCLUSIVE
    assert ask(LineageGate(git_commit=True), DOCS, commit="abc").verdict is Verdict.PASS


def test_a_message_names_some_of_many_ancestors_only() -> None:
    many = [Ancestor(version(f"d{i}"), "derived_from") for i in range(10_000)]
    assert "9,990 more" in ask(LineageGate(), *many).message
    gone = [replace(a, version=replace(a.version, yanked_at=NOW)) for a in many]
    assert len(ask(LineageGate(), *gone).message) < 1000


def test_a_corpus_is_as_old_as_its_newest_source() -> None:
    gate = FreshnessGate(corpus="30d")
    old = Ancestor(version("old", days=99), "derived_from")
    assert ask(gate, old, DOCS).verdict is Verdict.PASS
    stale = ask(gate, old)
    assert stale.verdict is Verdict.INCONCLUSIVE
    assert "corpus of kb:v2: old:v1 is 99 days old; 30 days are allowed" in stale.message
    assert "has no source to be fresh" in ask(gate).message
    assert "has no source" in ask(gate, Ancestor(version("part"), "contains")).message


def test_evidence_is_as_old_as_the_newest_report_that_can_be_read() -> None:
    def report(number: int, days: float, **more: Any) -> RecordedReport:
        own = {"problem": more.pop("altered", "")}
        return RecordedReport(version("r", "report", number, days=days), ReportFacts("s", **more), **own)

    gate = FreshnessGate(evidence="7d")
    assert ask(gate, reports=(report(2, 1), report(1, 30))).verdict is Verdict.PASS
    assert ask(gate, reports=(report(1, 30),)).verdict is Verdict.INCONCLUSIVE
    assert ask(gate, reports=()).message == "kb:v2 has no report to be fresh"
    for bad in ({"problem": "NaN"}, {"altered": "altered"}, {"ended": "2025-01-01"}):
        assert ask(gate, reports=(report(2, 1, **bad), report(1, 30))).verdict is Verdict.INCONCLUSIVE


def test_the_version_itself_may_not_be_too_old() -> None:
    assert ask(FreshnessGate(version="2d")).verdict is Verdict.PASS
    assert ask(FreshnessGate(version="23h")).verdict is Verdict.INCONCLUSIVE
    both = ask(FreshnessGate(version="23h", corpus="1h"), DOCS)
    assert both.message.count("is 1 day old") == 2


def test_without_a_clock_nothing_is_fresh() -> None:
    one = Moving("prod", version("kb"), Manifest.build("files", {}), None)
    assert judge(FreshnessGate(version="2d"), Candidate("default", (one,))).verdict is Verdict.ERROR


@pytest.mark.parametrize(
    ("gate", "options"),
    [
        (FreshnessGate, {}),
        (FreshnessGate, {"corpus": "0d"}),
        (FreshnessGate, {"corpus": "99999999w"}),
        (FreshnessGate, {"corups": "1d"}),
        (LineageGate, {"kinds": 3}),
        (LineageGate, {"kinds": [""]}),
        (LineageGate, {"run": 1}),
        (LineageGate, {"git": True}),
    ],
)
def test_options_that_cannot_be_taken_are_refused(gate: Any, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue):
        gate(**options)
