"""What a gate is: one condition, judged on recorded facts alone, that answers with a verdict.

A gate is pure: the candidate carries all it may look at. It never calls a model, never opens an index.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from llmartifacts.errors import GateRefused
from llmartifacts.records.digest import Digest
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
        contains: Of a bundle: role -> name of the collection the part came from.
    """

    alias: str
    version: Version
    manifest: Manifest
    serving: Version | None
    contains: Mapping[str, str] = field(default_factory=dict)


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
    parts: Mapping[Digest, Manifest | None] = field(default_factory=dict)
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
    """Passes if every gate passes; the worst verdict otherwise. Of no gates at all: ERROR.

    Attributes:
        gates: The gates.
        name: Its name.
    """

    gates: Sequence[Gate]
    name: str = "all-of"

    def judge(self, candidate: Candidate) -> GateResult:
        """Judge by every gate."""
        return _combined(self.name, [judge(g, candidate) for g in self.gates], all_of)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Passes if some gate passes and none is tampered with; the best verdict otherwise. Of no gates at all: ERROR.

    Attributes:
        gates: The gates.
        name: Its name.
    """

    gates: Sequence[Gate]
    name: str = "any-of"

    def judge(self, candidate: Candidate) -> GateResult:
        """Judge by every gate."""
        return _combined(self.name, [judge(g, candidate) for g in self.gates], any_of)


def judge(gate: Gate, candidate: Candidate) -> GateResult:
    """A gate's answer; one that crashes or answers with something else is an ERROR, which denies."""
    name = str(getattr(gate, "name", type(gate).__name__))
    try:
        result: object = gate.judge(candidate)
    except Exception as error:  # noqa: BLE001
        told = f"the gate could not be computed: {type(error).__name__}: {error}"
        return GateResult(name, name, Verdict.ERROR, told[:1000], "Mend the gate, or take it out of the policy.")
    if isinstance(result, GateResult) and isinstance(result.verdict, Verdict):
        return result
    told = f"the gate answered with a {type(result).__name__}, not with a verdict"
    return GateResult(name, name, Verdict.ERROR, told, "Mend the gate, or take it out of the policy.")


def _combined(name: str, results: Sequence[GateResult], combine: Callable[[Sequence[Verdict]], Verdict]) -> GateResult:
    verdict = combine([r.verdict for r in results])
    if not results:
        return GateResult(name, name, verdict, "no condition was given", "Name at least one gate.")
    if verdict is Verdict.PASS:
        return GateResult(name, name, verdict, "; ".join(str(r) for r in results if r.verdict is Verdict.PASS))
    bad = [r for r in results if r.verdict is not Verdict.PASS]
    steps = " ".join(dict.fromkeys(r.next_step for r in bad if r.next_step))
    return GateResult(name, name, verdict, "; ".join(map(str, bad)), steps)


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
