"""The gate `approvals`: enough people said yes to exactly this, and none of them is the author."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from llmartifacts.errors import InvalidInput
from llmartifacts.gates import options
from llmartifacts.gates.base import Candidate
from llmartifacts.records.approval import SKEW, Approval, Binding, check_roles, mismatches, same_person
from llmartifacts.records.names import DEFAULT_PROJECT
from llmartifacts.records.policy import GateResult, Verdict
from llmartifacts.records.times import duration_text, to_text
from llmartifacts.records.wording import counted, printable

MOST_TOLD = 10
"""Approvals that do not count and are named one by one."""


class ApprovalsGate:
    """Passes if enough distinct people approved the exact set of digests, for what the alias points at now.

    Nobody approves what they logged themselves, and one person counts once, however many keys they have.

    Args:
        count: How many people, at least 1.
        roles: Each of these roles must be held by somebody who approved; one person may hold several.
        any_role: Only people who hold one of these roles count; by default everybody does.
        max_age: How old an approval may be, such as `7d`; by default any age.

    Raises:
        InvalidValue: An option is unknown, or cannot be taken.
    """

    name = "approvals"

    def __init__(self, **given: Any) -> None:
        options.check_known(self.name, given, ("count", "roles", "any_role", "max_age"))
        self.count = options.count(self.name, "count", given.get("count", 1))
        self.roles = self._roles("roles", given)
        self.any_role = self._roles("any_role", given)
        self.max_age = options.duration(self.name, "max_age", given.get("max_age"))

    def judge(self, candidate: Candidate) -> GateResult:
        """Judge the approvals that concern what moves."""
        bound = candidate.binding
        if bound is None or not bound.subjects:
            told = "nothing says what an approval would have to be for"
            return GateResult(self.name, self.name, Verdict.ERROR, told, "Name what is to be promoted.")
        forged = [a for a in candidate.approvals if a.verdict is Verdict.TAMPERED]
        if forged:
            told = _several([f"{_who(a)} is forged or was altered: {a.problem}" for a in forged])
            step = f"Find out who wrote it, then take it out: llmartifacts approve --withdraw {forged[0].id} --reason …"
            return GateResult(self.name, self.name, Verdict.TAMPERED, told, step, evidence=_ids(forged))
        authors = _authors(candidate)
        people: dict[str, Approval] = {}
        refused: list[str] = []
        for one in candidate.approvals:
            reason = self._refused(one, bound, candidate.at, authors)
            if reason:
                refused.append(f"{_who(one)} does not count: {reason}")
                continue
            known = people.setdefault(same_person(one.person), one)
            if known is not one:  # another key may speak in another role, but not for another person
                people[same_person(one.person)] = replace(known, roles=tuple(sorted({*known.roles, *one.roles})))
                refused.append(f"{_who(one)} counts once with {known.id}: the same person")
        return self._decided(candidate, bound, list(people.values()), refused)

    def _decided(self, candidate: Candidate, bound: Binding, given: list[Approval], refused: list[str]) -> GateResult:
        held = {role for one in given for role in one.roles}
        lacking = [role for role in self.roles if role not in held]
        told = []
        if len(given) < self.count:
            of = f" of {' or '.join(self.any_role)}" if self.any_role else ""
            have = f"{len(given)} of {counted(self.count, 'approval')}{of}"
            told.append(f"{have} for {bound}")
        if lacking:
            told.append(f"nobody with the role {' and nobody with '.join(lacking)} approved {bound}")
        if not told:
            said = ", ".join(f"{one.person}{_roles(one)}" for one in given)
            return GateResult(
                self.name, self.name, Verdict.PASS, printable(f"approved by {said}"), evidence=_ids(given)
            )
        message = "; ".join([*told, *([_several(refused)] if refused else [])])
        step = f"Somebody else than the author approves it: {_command(candidate.project, bound)}"
        return GateResult(self.name, self.name, Verdict.INCONCLUSIVE, printable(message), step, evidence=_ids(given))

    def _refused(self, one: Approval, bound: Binding, now: datetime | None, authors: dict[str, str]) -> str:
        """Why an approval does not count; empty if it does."""
        if one.problem or one.verdict is not Verdict.PASS or one.binding is None:
            return one.problem or "it is void"
        changed = mismatches(one.binding, bound)
        if changed:
            return "it has lapsed: " + "; ".join(changed)
        if one.at is None or now is None:
            return "it is not known when it was given"
        if one.at > now + SKEW:
            return f"it is dated {to_text(one.at)}, which is to come"
        if one.expires is not None and one.expires <= now:
            return f"it expired on {to_text(one.expires)}"
        if self.max_age is not None and now - one.at > self.max_age:
            return f"it is {duration_text(now - one.at)} old, and {duration_text(self.max_age)} is the most"
        person = same_person(one.person)
        if not person:
            return "nobody knows whose it is"
        if person in authors:
            return f"{one.person} is the author of {authors[person]}"
        if self.any_role and not set(self.any_role) & set(one.roles):
            return f"{one.person} is not {' or '.join(self.any_role)}"
        return ""

    def _roles(self, name: str, given: dict[str, Any]) -> tuple[str, ...]:
        try:
            return check_roles(given.get(name, ()), field=name)
        except InvalidInput as error:
            raise options.refused(self.name, name, error.message, error.hint()) from None


def _authors(candidate: Candidate) -> dict[str, str]:
    """Each author of what moves, and of the parts of a bundle -> what they logged."""
    made: dict[str, str] = {}
    for moving in candidate.moving:
        for version in (moving.version, *moving.parts):
            made.setdefault(same_person(version.author), str(version))
    return made


def _command(project: str, bound: Binding) -> str:
    prefix = "" if project == DEFAULT_PROJECT else f"{project}/"
    references = " ".join(f"{prefix}{subject}" for subject in bound.subjects)
    return f"llmartifacts approve {references} --to {bound.alias} --key NAME"


def _who(one: Approval) -> str:
    return f"{one.id} by {one.person}" if one.person else one.id


def _roles(one: Approval) -> str:
    return f" ({', '.join(one.roles)})" if one.roles else ""


def _ids(many: list[Approval]) -> tuple[str, ...]:
    return tuple(one.id for one in many)


def _several(lines: list[str]) -> str:
    more = len(lines) - MOST_TOLD
    return printable("; ".join([*lines[-MOST_TOLD:], *([f"and {more:,} earlier ones"] if more > 0 else [])]))
