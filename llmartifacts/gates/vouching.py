"""Reports that do not count, since whoever logged them may not vouch for evidence: on a server, evaluators may."""

from __future__ import annotations

from collections.abc import Sequence

from llmartifacts.records.evidence import RecordedReport

STEP = "Let an evaluator of the project log it, or the very same report once more."


def that_count(reports: Sequence[RecordedReport]) -> list[RecordedReport]:
    """The reports that count, in their order."""
    return [r for r in reports if r.vouched]


def passed_over(reports: Sequence[RecordedReport]) -> str:
    """Which reports do not count, and who logged them; empty where all do."""
    others = [r.version for r in reports if not r.vouched]
    if not others:
        return ""
    first = others[0]
    more = f", nor do {len(others) - 1} earlier ones" if len(others) > 1 else ""
    return f"{first} does not count{more}: {first.author} logged it, who is no evaluator of the project"
