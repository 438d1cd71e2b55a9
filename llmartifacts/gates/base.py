"""What a gate is: one condition, judged on recorded facts alone, that answers with a verdict.

A gate is pure: the candidate carries all it may look at. It never calls a model, never opens an index.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from llmartifacts.errors import GateRefused
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.policy import GateResult, Verdict, all_of, any_of
from llmartifacts.records.version import Version


@dataclass(frozen=True, slots=True)
class Moving:
    """One alias that is about to move.

    Attributes:
        alias: The alias.
        version: The version it shall point at.
        manifest: What that is.
        serving: The version it points at now; None if it does not exist.
    """

    alias: str
    version: Version
    manifest: Manifest
    serving: Version | None


@dataclass(frozen=True)
class Candidate:
    """Everything a gate may look at.

    Attributes:
        project: Name of the project.
        moving: The aliases about to move.
        parts: Manifest digest -> manifest of every part of the bundles among them; None where it is missing.
        actor: Who asks.
        reason: Why.
        ticket: Ticket of the change.
        at: When, UTC.
    """

    project: str
    moving: tuple[Moving, ...]
    parts: Mapping[str, Manifest | None] = field(default_factory=dict)
    actor: str = ""
    reason: str = ""
    ticket: str = ""
    at: datetime | None = None


class Gate(Protocol):
    """One condition.

    Attributes:
        name: Its name.
    """

    name: str

    def judge(self, candidate: Candidate) -> GateResult:
        """Judge a candidate; pure, and never raises for a candidate that is merely bad."""


@dataclass(frozen=True, slots=True)
class AllOf:
    """Passes if every gate passes; the worst verdict otherwise. Of no gates at all: ERROR."""

    gates: Sequence[Gate]
    name: str = "all-of"

    def judge(self, candidate: Candidate) -> GateResult:
        """Judge by every gate."""
        return _combined(self.name, [g.judge(candidate) for g in self.gates], all_of)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Passes if some gate passes and none is tampered with; the best verdict otherwise. Of no gates at all: ERROR."""

    gates: Sequence[Gate]
    name: str = "any-of"

    def judge(self, candidate: Candidate) -> GateResult:
        """Judge by every gate."""
        return _combined(self.name, [g.judge(candidate) for g in self.gates], any_of)


def _combined(name: str, results: list[GateResult], rule: object) -> GateResult:
    verdict = any_of([r.verdict for r in results]) if rule is any_of else all_of([r.verdict for r in results])
    told = "; ".join(str(r) for r in results if r.verdict is not Verdict.PASS) or "all conditions hold"
    steps = " ".join(r.next_step for r in results if r.next_step)
    return GateResult(name, name, verdict, told if results else "no condition was given", steps)


def require_pass(results: Sequence[GateResult]) -> None:
    """Refuse unless every result is PASS.

    Raises:
        GateRefused: Some are not; each is listed.
    """
    bad = [r for r in results if r.verdict is not Verdict.PASS]
    if bad:
        verdict = all_of([r.verdict for r in bad])
        steps = " ".join(dict.fromkeys(r.next_step for r in bad if r.next_step))
        raise GateRefused(
            f"refused by {', '.join(dict.fromkeys(r.rule for r in bad))}: {bad[0].message}",
            verdict=verdict.value,
            problems=tuple(map(str, bad)),
            next_step=steps,
        )
