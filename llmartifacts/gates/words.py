"""The gates `ticket`, `reason` and `stage`: what somebody says of a move, and where the version was before."""

from __future__ import annotations

import re
from typing import Any

from llmartifacts.gates import options
from llmartifacts.gates.base import Candidate
from llmartifacts.records.arguments import shown
from llmartifacts.records.names import LATEST, is_alias
from llmartifacts.records.policy import GateResult, Verdict

MAX_TICKET = 200
"""Characters of a ticket that a pattern is tried on."""


class TicketGate:
    """Passes if the ticket of the change has the right form.

    Args:
        pattern: Regular expression of Python that the whole ticket must match; by default any ticket does.

    Raises:
        InvalidValue: It is no regular expression.
    """

    name = "ticket"

    def __init__(self, **given: Any) -> None:
        options.check_known(self.name, given, ("pattern",))
        self.pattern = options.line(self.name, "pattern", given.get("pattern", r"\S.*"))
        try:
            self._matches = re.compile(self.pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise options.refused(self.name, "pattern", f"no regular expression: {error}") from None

    def judge(self, candidate: Candidate) -> GateResult:
        """Judge the ticket."""
        ticket, step = candidate.ticket, f"Name one that matches {self.pattern}: --ticket …"
        if not ticket:
            return GateResult(self.name, self.name, Verdict.INCONCLUSIVE, "no ticket is named", step)
        if len(ticket) > MAX_TICKET or not self._fits(ticket):
            return GateResult(self.name, self.name, Verdict.FAIL, f"{shown(ticket, 60)} is no such ticket", step)
        return GateResult(self.name, self.name, Verdict.PASS, f"the ticket is {ticket}", evidence=(ticket,))

    def _fits(self, ticket: str) -> bool:
        """Whether the pattern matches; one that could take for ever is tried in a process that is ended in time."""
        if len(_REPEAT.findall(self.pattern)) <= _FEW and _NESTED.search(self.pattern) is None:
            return self._matches.fullmatch(ticket) is not None
        from llmartifacts.limits import run_limited

        found = run_limited("llmartifacts.gates.words:matches", [self.pattern, ticket], seconds=_SECONDS)
        if found.error:
            raise TimeoutError(f"the pattern {shown(self.pattern, 60)} could not be tried: {found.message}")
        return found.value is True


def matches(pattern_and_ticket: list[str]) -> bool:
    """Whether a pattern matches all of a ticket; called in a process with limits."""
    pattern, ticket = pattern_and_ticket
    return re.fullmatch(pattern, ticket) is not None


_FEW = 3
"""Repeats of a pattern that cannot take long on a ticket, if none of them lies within another."""
_SECONDS = 1.0
_REPEAT = re.compile(r"[*+?{]")
_NESTED = re.compile(r"\)[*+?{]|\\[1-9]|\(\?P=")


class ReasonGate:
    """Passes if somebody says why."""

    name = "reason"

    def __init__(self, **given: Any) -> None:
        options.check_known(self.name, given, ())

    def judge(self, candidate: Candidate) -> GateResult:
        """Judge the reason."""
        if candidate.reason.strip():
            return GateResult(self.name, self.name, Verdict.PASS, "a reason is given")
        return GateResult(self.name, self.name, Verdict.INCONCLUSIVE, "no reason is given", "Say why: --reason …")


class StageGate:
    """Passes if another alias serves the version, or once did.

    Args:
        after: That alias, such as `staging`.

    Raises:
        InvalidValue: It is no alias.
    """

    name = "stage"

    def __init__(self, **given: Any) -> None:
        options.check_known(self.name, given, ("after",))
        self.after = options.line(self.name, "after", given.get("after", ""))
        if not is_alias(self.after) or self.after == LATEST:  # every version once was the latest
            raise options.refused(self.name, "after", f"{shown(self.after, 60)} is no alias that somebody sets")

    def judge(self, candidate: Candidate) -> GateResult:
        """Judge where the subject was before."""
        missing = [m for m in candidate.judged if self.after not in m.stages]
        if not missing:
            told = f"{self.after} serves it, or did: {', '.join(str(m.version) for m in candidate.judged)}"
            return GateResult(self.name, self.name, Verdict.PASS, told)
        names = ", ".join(str(m.version) for m in missing)
        step = f"Promote it there first: llmartifacts promote {names.replace(',', '')} --to {self.after}."
        return GateResult(self.name, self.name, Verdict.INCONCLUSIVE, f"{self.after} never served {names}", step)
