"""The gate `compatibility`: what moves together fits together, by the rules of `records/compatibility.py`."""

from __future__ import annotations

from functools import partial

from llmartifacts import plugins
from llmartifacts.gates.base import Candidate, Moving
from llmartifacts.records.compatibility import Member, Problem, Severity, check_set
from llmartifacts.records.policy import GateResult, Verdict

_VERDICTS: dict[Severity, Verdict] = {
    "error": Verdict.FAIL,
    "inconclusive": Verdict.INCONCLUSIVE,
    "warning": Verdict.PASS,
}


class CompatibilityGate:
    """Passes if no rule is broken. Warnings pass and are told; what no rule can judge is INCONCLUSIVE."""

    name = "compatibility"

    def judge(self, candidate: Candidate) -> GateResult:
        """Judge the set that moves, bundles unfolded."""
        if not candidate.moving:
            return GateResult(self.name, self.name, Verdict.ERROR, "nothing moves", "Name what is to be promoted.")
        members = [member(m) for m in candidate.moving]
        problems = check_set(members, candidate.parts, installed=partial(plugins.is_installed, "kinds"))
        if not problems:
            return GateResult(self.name, self.name, Verdict.PASS, "the components fit each other")
        worst = problems[0]  # errors come first, then what cannot be told
        verdict = _VERDICTS[worst.severity]
        deciding = [p for p in problems if p.severity == worst.severity]
        steps = " ".join(dict.fromkeys(p.mend for p in deciding if p.mend))
        if verdict is Verdict.PASS:
            told = f"the components fit each other, with a warning: {_told(deciding)}"
            return GateResult(self.name, self.name, verdict, told, steps)
        return GateResult(self.name, worst.rule, verdict, _told(deciding), steps)


def member(moving: Moving) -> Member:
    """One moving alias as the rules see it."""
    version = moving.version
    return Member(str(version), moving.manifest, version.name, moving.contains)


def _told(problems: list[Problem]) -> str:
    return "; ".join(map(str, problems))
