"""The gate `python`: a function of the team's own, in a process of its own with limits.

The function takes one JSON object, the candidate, and returns true or false, or `{"verdict", "message", "next_step"}`.
It sees records only; what it needs from elsewhere it fetches itself. It runs where the alias lives, while no
transaction waits for it; where something changed before the move, it is asked once more. A server runs only functions
that its operator allowed, by name: who may set a policy may not choose what code runs there.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

from llmartifacts.gates import options
from llmartifacts.gates.base import Answers, Candidate, Moving
from llmartifacts.records.canonical import canonical_bytes
from llmartifacts.records.digest import digest_of
from llmartifacts.records.policy import GateResult, Verdict
from llmartifacts.records.times import to_text

ALLOW = "Ask its operator to start it with --allow-gate and this function, or take the gate out of the policy."
MAX_SECONDS = 60.0
MAX_MEGABYTES = 8192


class PythonGate:
    """Passes if the function says so.

    Args:
        function: `package.module:function`, importable where the gate runs.
        seconds: How long it may take; 10 by default, at most 60: the writers of a registry wait for it.
        megabytes: How much memory it may use; 1024 by default.

    Raises:
        InvalidValue: An option cannot be taken.
    """

    name = "python"
    slow = True

    def __init__(self, **given: Any) -> None:
        options.check_known(self.name, given, ("function", "seconds", "megabytes"))
        self.function = options.line(self.name, "function", given.get("function"))
        module, colon, attribute = self.function.partition(":")
        if not (colon and attribute.isidentifier() and all(part.isidentifier() for part in module.split("."))):
            step = "Write it like: mypackage.gates:is_monday."
            raise options.refused(self.name, "function", f"{self.function!r:.80} names no function", step)
        self.seconds = options.number(self.name, "seconds", given.get("seconds", 10), least=0.1, most=MAX_SECONDS)
        self.megabytes = options.count(
            self.name, "megabytes", given.get("megabytes", 1024), least=64, most=MAX_MEGABYTES
        )

    def judge(self, candidate: Candidate) -> GateResult:
        """Ask the function."""
        from llmartifacts.limits import run_limited

        rule = f"{self.name}:{self.function}"
        if refusal := not_allowed(self.function, candidate.allowed):
            return GateResult(self.name, rule, Verdict.ERROR, refusal, ALLOW)
        asked = as_json(candidate)
        key = f"{self.function} {self.seconds} {self.megabytes} {digest_of(canonical_bytes(_timeless(asked)))}"
        outcome = candidate.answers.get(key)
        if outcome is None:
            memory = self.megabytes * 1024 * 1024
            ask = partial(run_limited, self.function, asked, seconds=self.seconds, memory_bytes=memory)
            if isinstance(candidate.answers, Answers):
                candidate.answers.open[key] = ask
                return GateResult(self.name, rule, Verdict.ERROR, f"{self.function} has not been asked yet")
            outcome = candidate.answers[key] = ask()
        if outcome.error:
            told = f"{self.function} could not answer ({outcome.error}): {outcome.message}"
            step = "Install or mend it where the registry is (PYTHONPATH counts), or take it out of the policy."
            return GateResult(self.name, rule, Verdict.ERROR, told[:1000], step)
        return _result(self.name, rule, self.function, outcome.value)


def not_allowed(function: str, allowed: Collection[str] | None) -> str:
    """Why a function is not run here; empty if it may be."""
    return "" if allowed is None or function in allowed else f"this server does not allow {function}: nobody ran it"


def _timeless(asked: dict[str, Any]) -> dict[str, Any]:
    """A question without what differs between two times that it is asked: a version to be logged is made anew."""
    subject = asked["subject"]
    ones = {"subject": None if subject is None else {**subject, "created_at": ""}}
    return {**asked, **ones, "at": "", "moving": [{**m, "created_at": ""} for m in asked["moving"]]}


def as_json(candidate: Candidate) -> dict[str, Any]:
    """A candidate as a function of the team's own gets it."""
    return {
        "project": candidate.project,
        "actor": candidate.actor,
        "reason": candidate.reason,
        "ticket": candidate.ticket,
        "at": "" if candidate.at is None else to_text(candidate.at),
        "subject": None if candidate.subject is None else _moving(candidate.subject),
        "moving": [_moving(m) for m in candidate.moving],
    }


def _moving(moving: Moving) -> dict[str, Any]:
    version, serving = moving.version, moving.serving
    return {
        "alias": moving.alias,
        "name": version.name,
        "version": version.number,
        "digest": version.digest,
        "kind": version.kind,
        "author": version.author,
        "message": version.message,
        "created_at": to_text(version.created_at),
        "git_commit": version.git_commit,
        "config": moving.manifest.config,
        "files": {f.path: {"digest": f.digest, "size": f.size} for f in moving.manifest.files[:1000]},
        "serving": None if serving is None else {"version": serving.number, "digest": serving.digest},
        "ancestors": [str(a.version) for a in moving.trail.ancestors[:1000]],
        "reports": [
            {
                "version": str(r.version),
                "suite": r.facts.suite,
                "metrics": {m.name: m.value for m in r.facts.metrics.values()},
            }
            for r in moving.reports
            if r.vouched
        ],
    }


def _result(name: str, rule: str, function: str, said: Any) -> GateResult:
    if isinstance(said, bool):
        verdict = Verdict.PASS if said else Verdict.FAIL
        return GateResult(name, rule, verdict, f"{function} says {'yes' if said else 'no'}")
    if (
        isinstance(said, dict)
        and said.get("verdict") in set(Verdict)
        and all(isinstance(said.get(key, ""), str) for key in ("message", "next_step"))
    ):
        told = str(said.get("message") or f"{function} says {said['verdict']}")[:1000]
        return GateResult(name, rule, Verdict(said["verdict"]), told, str(said.get("next_step", ""))[:1000])
    told = f"{function} answered {str(said)[:80]!r}, which is neither true nor false nor a verdict"
    return GateResult(name, rule, Verdict.ERROR, told, "Return true, false, or {'verdict', 'message'}.")
