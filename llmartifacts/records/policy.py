"""Verdicts of gates and how they combine, decisions, and policies as they are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from llmartifacts.records.digest import Digest


class Verdict(StrEnum):
    """What a gate answers."""

    PASS = "PASS"  # noqa: S105
    """The condition holds."""
    INCONCLUSIVE = "INCONCLUSIVE"
    """Evidence is missing, stale or too little."""
    FAIL = "FAIL"
    """Measured and bad."""
    ERROR = "ERROR"
    """It could not be computed: a crash, NaN."""
    TAMPERED = "TAMPERED"
    """The evidence is not what it claims."""


_WORST_FIRST = (Verdict.TAMPERED, Verdict.ERROR, Verdict.INCONCLUSIVE, Verdict.FAIL, Verdict.PASS)


@dataclass(frozen=True, slots=True)
class GateResult:
    """One gate's answer.

    Attributes:
        gate: The gate's name.
        rule: Id of the rule that decided.
        verdict: The verdict.
        message: One readable sentence.
        next_step: How to satisfy the gate, or what it warns of; empty if there is nothing to do.
        subject: The version that it is about; empty where it is about all that moves together.
        evidence: What it rests on: references of reports, ids of approvals and promotions.
    """

    gate: str
    rule: str
    verdict: Verdict
    message: str
    next_step: str = ""
    subject: str = ""
    evidence: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.verdict} {self.rule}: {self.message}"


@dataclass(frozen=True, slots=True)
class Decision:
    """What the gates say of a move, asked for or only imagined.

    Attributes:
        verdict: The worst of the results.
        results: Every gate's answer.
        moves: What would move, such as `kb:prod v1 -> v2`.
        policy: Digest of the policy; None if there is none.
        policy_number: Which policy of the project that is, from 1; 0 if there is none.
        protected: Aliases among those moving that the policy names.
        approvals: Who approved, of those whose approval counted.
        break_glass: Whether it may move, and does, although a gate denies.
        may_move: Whether the one who asks may move these aliases, whatever the gates say.
        refusal: Why they may not, and whom to ask; empty if they may.
    """

    verdict: Verdict
    results: tuple[GateResult, ...]
    moves: tuple[str, ...] = ()
    policy: Digest | None = None
    policy_number: int = 0
    protected: tuple[str, ...] = ()
    approvals: tuple[str, ...] = ()
    break_glass: bool = False
    may_move: bool = True
    refusal: str = ""

    def __str__(self) -> str:
        moves = "; ".join(self.moves) or "nothing would move"
        told = [] if self.may_move else [f"  you may not move it: {self.refusal}"]
        return "\n".join([f"{self.verdict}: {moves}", *(f"  {result}" for result in self.results), *told])

    @property
    def denied(self) -> tuple[GateResult, ...]:
        """The results that are not PASS."""
        return tuple(r for r in self.results if r.verdict is not Verdict.PASS)


@dataclass(frozen=True, slots=True)
class PolicyRecord:
    """One policy of a project, as it was set.

    Attributes:
        project: Name of the project.
        number: Counts the project's policies, from 1; the last one holds.
        digest: SHA-256 of its canonical JSON.
        body: The policy as plain JSON.
        at: When it was set, UTC.
        author: Who set it.
        message: What was said of it.
    """

    project: str
    number: int
    digest: Digest
    body: Mapping[str, Any]
    at: datetime
    author: str
    message: str = ""


def all_of(verdicts: Sequence[Verdict]) -> Verdict:
    """The worst verdict; of none at all, ERROR: an empty condition never passes."""
    return min(verdicts, key=_WORST_FIRST.index) if verdicts else Verdict.ERROR


def any_of(verdicts: Sequence[Verdict]) -> Verdict:
    """The best verdict, but TAMPERED wins; of none at all, ERROR."""
    if not verdicts:
        return Verdict.ERROR
    if Verdict.TAMPERED in verdicts:
        return Verdict.TAMPERED
    return max(verdicts, key=_WORST_FIRST.index)
