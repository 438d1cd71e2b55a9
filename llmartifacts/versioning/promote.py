"""promote = check gates -> move aliases -> audit, in one transaction, all or none.

`apply_moves` is the one door through which an alias moves. Two come to it: `promote_in`, after the gates, and
`rollback` (beside it), which goes only to what the alias served before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from llmartifacts.errors import AliasMoved, InvalidReference
from llmartifacts.gates.base import Answers, require_pass
from llmartifacts.metadata import aliases, audit, projects
from llmartifacts.metadata.database import Session
from llmartifacts.metadata.projects import CollectionRow
from llmartifacts.records.arguments import shown
from llmartifacts.records.backend import PromotionRequest
from llmartifacts.records.digest import Digest, digest_of
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.names import version_number
from llmartifacts.records.policy import GateResult
from llmartifacts.records.promotion import ChangeVerb, Move, Promotion
from llmartifacts.records.times import from_micros
from llmartifacts.versioning import evidence
from llmartifacts.versioning.judge import answering, asked, decide
from llmartifacts.versioning.parts import Parts


def promote(
    parts: Parts, project: str, request: PromotionRequest, *, actor: str, answers: Answers | None = None
) -> Promotion:
    """Move aliases.

    Args:
        parts: The stores.
        project: Name of the project.
        request: The move.
        actor: Who asks.
        answers: What functions of others say of it, as `asked` got it; asked for here where it is None. Whoever has a
            transaction open gives them, and calls by way of `answering`.

    Raises:
        Unanswered: Some of the answers given are missing, since something changed; they are left open.
    """

    def attempt(known: Answers) -> Promotion:
        with parts.metadata.writing() as s:
            project_id, _ = projects.lock_project(s, project)
            return promote_in(s, parts, project_id, project, request, actor=actor, verb="promote", answers=known)

    if answers is not None:
        return attempt(answers)
    return answering(attempt, asked(parts, project, request, actor=actor))


def promote_in(
    s: Session,
    parts: Parts,
    project_id: int,
    project: str,
    request: PromotionRequest,
    *,
    actor: str,
    verb: ChangeVerb,
    answers: Answers | None = None,
    new: Mapping[Digest, Manifest] = MappingProxyType({}),
) -> Promotion:
    """Move aliases inside an open transaction.

    An alias that points at its goal already does not move; if none has to, nothing is recorded and the result has no
    moves and no id.

    Raises:
        AliasMoved: An alias is not what was expected.
        Yanked: A version, or a part of a bundle, was withdrawn.
        GateRefused: A gate did not pass.
    """
    steps = evidence.steps(s, parts, project_id, project, request, new=new)
    for step in steps:
        serving = step.moving.serving
        _expect(request, step.collection.name, step.moving.alias, None if serving is None else serving.number)
    decision = decide(s, parts, project_id, project, steps, request, actor=actor, answers=answers)
    if not decision.break_glass:
        require_pass(decision.results)
    goals = [
        (step.collection, m.alias, m.version.number)
        for step in steps
        if (m := step.moving).serving is None or m.serving.number != m.version.number
    ]
    if not goals:
        _, revision = projects.find_project(s, project)
        at = from_micros(s.now())
        return Promotion("", project, revision, verb, at, actor, request.reason, request.ticket, (), decision.results)
    return apply_moves(
        s,
        project_id,
        project,
        goals,
        actor=actor,
        verb=verb,
        reason=request.reason,
        ticket=request.ticket,
        results=decision.results,
        policy=decision.policy if decision.protected else None,
        approvals=decision.approvals,
        break_glass=decision.break_glass,
    )


def apply_moves(
    s: Session,
    project_id: int,
    project: str,
    goals: Sequence[tuple[CollectionRow, str, int | None]],
    *,
    actor: str,
    verb: ChangeVerb,
    reason: str,
    ticket: str = "",
    results: Sequence[GateResult] = (),
    undoes: int | None = None,
    stacked: bool = True,
    policy: Digest | None = None,
    approvals: Sequence[str] = (),
    break_glass: bool = False,
) -> Promotion:
    """Count one revision, move the aliases, write the audit entry: the one door through which an alias moves."""
    said = aliases.results_text(results)
    revision, at, promotion = projects.bump(
        s,
        project_id,
        project,
        actor=actor,
        verb=verb,
        reason=reason,
        ticket=ticket,
        results=said,
        undoes=undoes,
        policy=policy,
        approvals=approvals,
        break_glass=break_glass,
    )
    moves: list[Move] = [
        aliases.move(s, c, alias, new, revision=revision, at=at, actor=actor, stacked=stacked)
        for c, alias, new in goals
    ]
    undone = "" if undoes is None else f"{project}@r{undoes}"
    audit.record(
        s,
        project_id,
        project,
        actor=actor,
        verb=verb if verb != "log" else "promote",
        subject=promotion,
        at=at,
        reason=reason,
        ticket=ticket,
        undoes=undone,
        moves=[{"name": m.name, "alias": m.alias, "move": m.number, "old": m.old, "new": m.new} for m in moves],
        results=[str(r) for r in results],
        recorded=digest_of(said.encode()),
        policy=policy,
        approvals=list(approvals),
        break_glass=break_glass,
    )
    return Promotion(
        promotion,
        project,
        revision,
        verb,
        from_micros(at),
        actor,
        reason,
        ticket,
        tuple(moves),
        tuple(results),
        undone,
        policy=policy or "",
        approvals=tuple(approvals),
        break_glass=break_glass,
    )


def _expect(request: PromotionRequest, name: str, alias: str, now: int | None) -> None:
    if request.expect is None or name not in request.expect:
        return
    wanted = request.expect[name]
    number = version_number(wanted) if isinstance(wanted, str) else None
    if wanted is not None and number is None:
        raise InvalidReference(
            f"{shown(wanted)} is no version",
            field=f"expect.{name}",
            next_step="Write 'v1', or None for 'it does not exist'.",
        )
    if number != now:
        actual = "" if now is None else f"v{now}"
        raise AliasMoved(
            f"{name}:{alias} is {actual or 'not there'}, not {wanted or 'absent'}",
            alias=f"{name}:{alias}",
            expected=wanted or "",
            actual=actual,
        )
