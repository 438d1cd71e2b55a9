"""Policies of a project, and reviews of moves that broke the glass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmartifacts.errors import Conflict, NotFound, Refused
from llmartifacts.gates.policy import Policy
from llmartifacts.metadata import aliases, audit, projects
from llmartifacts.metadata import policies as table
from llmartifacts.records.approval import same_person
from llmartifacts.records.policy import PolicyRecord
from llmartifacts.records.promotion import Promotion
from llmartifacts.versioning.parts import Parts


def set_policy(parts: Parts, project: str, body: Mapping[str, Any] | None, *, message: str, actor: str) -> PolicyRecord:
    """Let a policy hold from now on; None takes the last one away. The same again is no new policy.

    Raises:
        InvalidValue: It is no policy, or names a function that may not be run here.
        Conflict: There is none to take away.
    """
    policy = None if body is None else Policy.of(body)
    if policy is not None:
        policy.refuse_functions_but(parts.allowed_gates)
    plain: dict[str, Any] = {} if policy is None else policy.plain
    digest = table.NONE if policy is None else policy.digest
    with parts.metadata.writing() as s:
        project_id, _ = parts.home(s, project)
        now = table.current(s, project_id, project)
        if now is not None and now.body == plain and now.digest == digest:
            return now
        if now is None and policy is None:
            raise Conflict(f"{project} has no policy to take away", field="policy")
        number = table.insert(s, project_id, project, plain, digest, author=actor, message=message)
        audit.record(
            s,
            project_id,
            project,
            actor=actor,
            verb="policy",
            subject=f"{project}@p{number}",
            digest=digest,
            message=message,
            protects=[] if policy is None else list(policy.protected),
            body=plain,
        )
        made = table.by_number(s, project_id, project, number)
    if made is None:
        raise NotFound(f"the policy {number} of {project} is gone", what="policy", name=str(number))
    return made


def policies(parts: Parts, project: str, *, limit: int | None = None, before: int | None = None) -> list[PolicyRecord]:
    """Every policy that was set, the newest first; those with lower numbers than one."""
    with parts.metadata.reading() as s:
        project_id, _ = projects.find_project(s, project)
        return table.newest(s, project_id, project, 1 << 40 if limit is None else limit, before)


def review(parts: Parts, project: str, promotion: str, *, reason: str, actor: str) -> Promotion:
    """Record that somebody looked at a move that broke the glass.

    Raises:
        NotFound: There is no such promotion.
        Conflict: It did not break the glass, or was reviewed already.
        Refused: The one who made it cannot review it.
    """
    with parts.metadata.writing() as s:
        project_id, _ = projects.lock_project(s, project)
        text = promotion.rpartition("@r")[2]
        revision = int(text) if text.isdecimal() and len(text) < 16 else 0
        found = aliases.promotions(s, project_id, project, revision=revision, limit=1)
        if not found or found[0].id != promotion:
            raise NotFound(f"there is no promotion {promotion!r:.200}", what="promotion", name=promotion)
        one = found[0]
        if not one.break_glass:
            raise Conflict(f"{promotion} did not break the glass", field="promotion", next_step="Nothing is to review.")
        if one.reviewed_by:
            raise Conflict(f"{promotion} was reviewed already, by {one.reviewed_by}", field="promotion")
        if same_person(one.actor) == same_person(actor):
            raise Refused(
                f"{actor} made {promotion}, and cannot review it", next_step="Ask somebody else to look at it."
            )
        table.review(s, project_id, revision, reviewer=actor, reason=reason)
        audit.record(s, project_id, project, actor=actor, verb="review", subject=promotion, reason=reason)
        return aliases.promotions(s, project_id, project, revision=revision, limit=1)[0]
