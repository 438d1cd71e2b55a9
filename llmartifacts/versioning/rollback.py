"""rollback: walk back over promotions. It needs a reason but no new evidence: its goal was served before."""

from __future__ import annotations

from collections.abc import Sequence

from llmartifacts.errors import Conflict, InvalidInput, NotFound, Refused
from llmartifacts.metadata import aliases, policies, projects, versions
from llmartifacts.metadata.aliases import MoveRow
from llmartifacts.metadata.database import Session
from llmartifacts.metadata.projects import CollectionRow
from llmartifacts.records.policy import GateResult, Verdict
from llmartifacts.records.promotion import Promotion, promotion_id
from llmartifacts.records.reference import Reference
from llmartifacts.versioning.evidence import refuse_withdrawn
from llmartifacts.versioning.judge import is_protected
from llmartifacts.versioning.parts import Parts
from llmartifacts.versioning.promote import apply_moves

SERVED = "served-before"
"""Rule that lets a rollback pass without new evidence."""


def rollback(
    parts: Parts,
    project: str,
    target: Reference | str,
    *,
    to: Reference | None = None,
    whole: bool = False,
    reason: str,
    actor: str,
) -> Promotion:
    """Undo the newest promotion not yet undone of one alias, all that moved with it, or one promotion by id."""
    with parts.metadata.writing() as s:
        project_id, _ = projects.lock_project(s, project)
        if isinstance(target, str):
            undone = _promotion(s, project_id, project, target)
            return _undo(s, project_id, project, undone, reason=reason, actor=actor)
        collection = projects.find_collection(s, project_id, target.name)
        alias = target.alias or ""
        stack = aliases.stack(s, collection.id, alias)
        if to is not None:
            if whole:
                raise InvalidInput("a whole promotion cannot go to one component's version", field="to")
            return _go_to(s, project_id, project, collection, alias, stack, to, reason=reason, actor=actor)
        if not stack:
            raise _nothing(s, collection, alias)
        if whole:
            undone = aliases.of_revision(s, project_id, stack[0].revision)
            return _undo(s, project_id, project, undone, reason=reason, actor=actor)
        return _undo(s, project_id, project, stack[:1], reason=reason, actor=actor)


def remove_alias(parts: Parts, project: str, reference: Reference, *, reason: str, actor: str) -> Promotion:
    """Remove an alias; its history stays, and a rollback brings it back."""
    with parts.metadata.writing() as s:
        project_id, _ = projects.lock_project(s, project)
        collection = projects.find_collection(s, project_id, reference.name)
        versions.find(s, project_id, project, reference)
        alias = reference.alias or ""
        record = policies.current(s, project_id, project)
        if record is not None and is_protected(record, alias):
            raise Refused(
                f"{reference.name}:{alias} is protected by the policy {project}@p{record.number}, and is not removed",
                field="reference",
                next_step=f"Roll it back, or take {alias} out of the policy first.",
            )
        goals = [(collection, alias, None)]
        return apply_moves(s, project_id, project, goals, actor=actor, verb="remove", reason=reason)


def _promotion(s: Session, project_id: int, project: str, identity: str) -> list[MoveRow]:
    text = identity.rpartition("@r")[2]
    revision = int(text) if text.isdecimal() and len(text) < 16 else 0
    found = aliases.promotions(s, project_id, project, revision=revision, limit=1)
    if not found or found[0].id != identity:
        recent = "; ".join(str(p) for p in aliases.promotions(s, project_id, project, limit=5))
        raise NotFound(
            f"there is no promotion {identity!r:.200}",
            what="promotion",
            name=identity,
            next_step=f"Recent: {recent or 'none'}.",
        )
    if found[0].verb == "rollback":
        raise Conflict(
            f"{identity} is itself a rollback", field="target", next_step="Promote the version you want instead."
        )
    return aliases.of_revision(s, project_id, revision)


def _undo(s: Session, project_id: int, project: str, moves: Sequence[MoveRow], *, reason: str, actor: str) -> Promotion:
    """Undo moves that are each the newest of their alias not yet undone."""
    for moved in moves:
        top = aliases.stack(s, moved.collection_id, moved.alias, limit=1)
        if top and top[0].number == moved.number:
            continue
        this = promotion_id(project, moved.revision)
        if moved.undone_by is not None:
            other = promotion_id(project, moved.undone_by)
            raise Conflict(
                f"{moved.name}:{moved.alias}: {this} was undone already, by {other}",
                field="target",
                next_step=f"To go further back, roll back {moved.name}:{moved.alias}.",
            )
        other = promotion_id(project, top[0].revision) if top else "a rollback"
        raise Conflict(
            f"{moved.name}:{moved.alias} has moved since {this}, by {other}",
            field="target",
            next_step=f"Roll back {other} first, or roll back each component by itself.",
        )
    goals: list[tuple[CollectionRow, str, int | None]] = []
    for moved in moves:
        collection = projects.find_collection(s, project_id, moved.name)
        _check_goal(s, project, collection, moved.old)
        goals.append((collection, moved.alias, moved.old))
    made = apply_moves(
        s,
        project_id,
        project,
        goals,
        actor=actor,
        verb="rollback",
        reason=reason,
        results=[_served_before(s, project_id, project, c, alias, goal) for c, alias, goal in goals],
        undoes=moves[0].revision,
        stacked=False,
    )
    aliases.mark_undone(s, moves, made.revision)
    return made


def _go_to(
    s: Session,
    project_id: int,
    project: str,
    collection: CollectionRow,
    alias: str,
    stack: Sequence[MoveRow],
    to: Reference,
    *,
    reason: str,
    actor: str,
) -> Promotion:
    """Go to a version that the alias once served: back over the stack to where it was, else a move of its own."""
    goal = versions.find(s, project_id, project, to).version.number
    if aliases.current(s, collection.id, alias).number == goal:
        raise Conflict(f"{collection.name}:{alias} is v{goal} already", field="to", next_step="Nothing has to move.")
    if not aliases.served(s, collection.id, alias, goal):
        raise Refused(
            f"{collection.name}:{alias} never was v{goal}, and a rollback goes to what was served before",
            field="to",
            next_step=f"Promote it: llmartifacts promote {collection.name}:v{goal} --to {alias}.",
        )
    _check_goal(s, project, collection, goal)
    depth = next((i for i, moved in enumerate(stack) if moved.old == goal), None)
    made = apply_moves(
        s,
        project_id,
        project,
        [(collection, alias, goal)],
        actor=actor,
        verb="rollback",
        reason=reason,
        results=[_served_before(s, project_id, project, collection, alias, goal)],
        undoes=None if depth is None else stack[0].revision,
        stacked=depth is None,
    )
    if depth is not None:
        aliases.mark_undone(s, stack[: depth + 1], made.revision)
    return made


def _served_before(
    s: Session, project_id: int, project: str, collection: CollectionRow, alias: str, goal: int | None
) -> GateResult:
    """The record of why no new evidence was asked for: who put the goal there before, and what the gates said then."""
    name = f"{collection.name}:{alias}"
    if goal is None:
        return GateResult(SERVED, SERVED, Verdict.PASS, f"{name} was not there before, and is removed")
    version = f"{collection.name}:v{goal}"
    before = aliases.putting(s, collection.id, alias, goal)
    found = aliases.promotions(s, project_id, project, revision=before, limit=1) if before else []
    if not found:
        return GateResult(SERVED, SERVED, Verdict.PASS, f"{name} was {version} before", subject=version)
    one = found[0]
    told = f"{name} was {version} before: {one.id} by {one.actor}"
    if one.break_glass:
        seen = f"reviewed by {one.reviewed_by}" if one.reviewed_by else "not reviewed yet"
        told += f", which broke the glass ({seen})"
    return GateResult(SERVED, SERVED, Verdict.PASS, told, subject=version, evidence=(one.id, *one.approvals))


def _check_goal(s: Session, project: str, collection: CollectionRow, number: int | None) -> None:
    if number is not None:
        row = versions.by_number(s, project, collection.id, number)
        versions.require_kept(row)
        refuse_withdrawn(s, row)


def _nothing(s: Session, collection: CollectionRow, alias: str) -> Exception:
    if aliases.current(s, collection.id, alias).move == 0:
        return NotFound(f"{collection.name} has no alias {alias!r}", what="alias", name=f"{collection.name}:{alias}")
    return Conflict(
        f"every promotion of {collection.name}:{alias} is undone already",
        field="target",
        next_step=f"Promote the version you want: llmartifacts promote {collection.name}:vN --to {alias}.",
    )
