"""Verdicts of gates and how they combine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


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
    """

    gate: str
    rule: str
    verdict: Verdict
    message: str
    next_step: str = ""

    def __str__(self) -> str:
        return f"{self.verdict} {self.rule}: {self.message}"


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
