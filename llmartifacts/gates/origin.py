"""The gates `lineage` and `freshness`: where a version comes from, and how old that is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from llmartifacts.gates import options
from llmartifacts.gates.base import Candidate, Moving
from llmartifacts.records.policy import GateResult, Verdict, all_of
from llmartifacts.records.times import duration_text

MOST_TOLD = 10
"""Versions that a message names."""
_SOURCES = ("derived_from", "contains")


class LineageGate:
    """Passes if it is recorded what the version came from, and nothing of that was withdrawn.

    Args:
        kinds: Kinds that must be among what it came from, such as `files` for the documents of an index.
        run: Whether a run that is done must have logged it.
        git_commit: Whether the commit of the code must be known.

    Raises:
        InvalidValue: An option cannot be taken.
    """

    name = "lineage"

    def __init__(self, **given: Any) -> None:
        options.check_known(self.name, given, ("kinds", "run", "git_commit"))
        self.kinds = options.lines(self.name, "kinds", given.get("kinds", ()))
        self.run = options.flag(self.name, "run", given.get("run", False))
        self.git_commit = options.flag(self.name, "git_commit", given.get("git_commit", False))

    def judge(self, candidate: Candidate) -> GateResult:
        """Judge where the subject comes from."""
        problems = [problem for moving in candidate.judged for problem in self._problems(moving)]
        if not problems:
            ancestors = (a.version for m in candidate.judged for a in m.trail.ancestors)
            known = list({(v.project, v.name, v.number): v for v in ancestors}.values())
            return GateResult(self.name, self.name, Verdict.PASS, f"it came from {_some(known) or 'a run'}")
        verdict = all_of([v for v, _, _ in problems])
        told = "; ".join(t for v, t, _ in problems if v is verdict)
        steps = " ".join(dict.fromkeys(s for v, _, s in problems if v is verdict and s))
        return GateResult(self.name, self.name, verdict, told, steps)

    def _problems(self, moving: Moving) -> list[tuple[Verdict, str, str]]:
        version, trail, made = moving.version, moving.trail, []
        sources = [a.version for a in trail.ancestors if a.relation in _SOURCES]
        if not sources and not (self.run and trail.run_status == "done"):
            step = f"Log it again with what it was made from: --input NAME:vN for {version}."
            made.append((Verdict.INCONCLUSIVE, f"nothing is recorded that {version} came from", step))
        gone = dict.fromkeys(f"{a}, which was withdrawn: {a.yank_reason}" for a in sources if a.yanked_at is not None)
        if gone:
            told = f"{version} came from {_some(list(gone), '; ')}"
            made.append((Verdict.FAIL, told, "Build it anew from another version of that."))
        lacking = [kind for kind in self.kinds if all(a.kind != kind for a in sources)]
        if lacking:
            told = f"{version} came from no {' and no '.join(lacking)}"
            made.append((Verdict.INCONCLUSIVE, told, "Log what it was made from, and name it as input."))
        if self.run and trail.run_status != "done":
            told = f"no run that is done logged {version}" + (
                f": its run is {trail.run_status}" if trail.run_status else ""
            )
            made.append((Verdict.INCONCLUSIVE, told, "Log it within `with registry.run(…)`."))
        if self.git_commit and not version.git_commit:
            made.append(
                (Verdict.INCONCLUSIVE, f"the commit of the code behind {version} is not known", "Log it from a clone.")
            )
        return made


def _some(many: Sequence[object], between: str = ", ") -> str:
    more = [f"{len(many) - MOST_TOLD:,} more"] if len(many) > MOST_TOLD else []
    return between.join([*map(str, many[:MOST_TOLD]), *more])


class FreshnessGate:
    """Passes if nothing that counts is too old.

    Args:
        version: How old the version may be, such as `30d`.
        corpus: How old the newest version that it came from may be: the documents of an index.
        evidence: How old the newest report on it may be.

    Raises:
        InvalidValue: An option cannot be taken, or none is given.
    """

    name = "freshness"

    def __init__(self, **given: Any) -> None:
        known = ("version", "corpus", "evidence")
        options.check_known(self.name, given, known)
        self.limits = {k: d for k in known if (d := options.duration(self.name, k, given.get(k))) is not None}
        if not self.limits:
            raise options.refused(self.name, "version", "no age is given", "Write: freshness: {corpus: 30d}.")

    def judge(self, candidate: Candidate) -> GateResult:
        """Judge the ages of the subject's parts."""
        if candidate.at is None:
            return GateResult(self.name, self.name, Verdict.ERROR, "nobody knows what time it is")
        told: list[str] = []
        stale: list[str] = []
        for moving in candidate.judged:
            for what, limit in self.limits.items():
                line, fine = _age(what, limit, moving, candidate.at)
                (told if fine else stale).append(line)
        if stale:
            step = "Build and evaluate it anew from what is there now."
            return GateResult(self.name, self.name, Verdict.INCONCLUSIVE, "; ".join(stale), step)
        return GateResult(self.name, self.name, Verdict.PASS, "; ".join(told))


def _age(what: str, limit: timedelta, moving: Moving, now: datetime) -> tuple[str, bool]:
    version = moving.version
    if what == "corpus":
        sources = (a.version for a in moving.trail.ancestors if a.relation == "derived_from")
        dated = [(v.created_at, str(v)) for v in sources]
    elif what == "evidence":
        sound = (r for r in moving.reports if r.vouched and not r.problem and not r.facts.problem)
        dated = [(r.at, str(r.version)) for r in sound]
    else:
        dated = [(version.created_at, str(version))]
    if not dated:
        return f"{version} has no {'report' if what == 'evidence' else 'source'} to be fresh", False
    at, newest = max(dated)
    allowed = f"{duration_text(limit)} are allowed"
    return f"{what} of {version}: {newest} is {duration_text(now - at)} old; {allowed}", now - at <= limit
