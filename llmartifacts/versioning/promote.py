"""promote = check gates -> move aliases -> audit, in one transaction, all or none.

`promote_in` and `rollback` (beside it) are the only doors through which an alias moves.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmartifacts import plugins
from llmartifacts.errors import AliasMoved, InvalidReference, Yanked
from llmartifacts.gates.base import Candidate, Gate, Moving, judge, require_pass
from llmartifacts.metadata import aliases, audit, graph, projects, versions
from llmartifacts.metadata.database import Session
from llmartifacts.metadata.projects import CollectionRow
from llmartifacts.metadata.versions import VersionRow
from llmartifacts.records.arguments import shown
from llmartifacts.records.backend import PromotionRequest
from llmartifacts.records.digest import Digest
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.names import version_number
from llmartifacts.records.policy import GateResult
from llmartifacts.records.promotion import ChangeVerb, Move, Promotion
from llmartifacts.records.times import from_micros
from llmartifacts.versioning.parts import Parts

ALWAYS = ("compatibility",)
"""Gates that every promotion must pass."""


def promote(parts: Parts, project: str, request: PromotionRequest, *, actor: str) -> Promotion:
    """Move aliases."""
    with parts.metadata.writing() as s:
        project_id, _ = projects.find_project(s, project)
        return promote_in(s, parts, project_id, project, request, actor=actor, verb="promote")


def promote_in(
    s: Session,
    parts: Parts,
    project_id: int,
    project: str,
    request: PromotionRequest,
    *,
    actor: str,
    verb: ChangeVerb,
) -> Promotion:
    """Move aliases inside an open transaction.

    An alias that points at its goal already does not move; if none has to, nothing is recorded and the result has no
    moves and no id.

    Raises:
        AliasMoved: An alias is not what was expected.
        Yanked: A version, or a part of a bundle, was withdrawn.
        GateRefused: A gate did not pass.
    """
    steps: list[tuple[CollectionRow, Moving]] = []
    seen: set[tuple[str, str]] = set()
    for target in request.targets:
        if (target.reference.name, target.alias) in seen:
            raise InvalidReference(
                f"{target.reference.name}:{target.alias} is named twice in one promotion", field="references"
            )
        seen.add((target.reference.name, target.alias))
        row = versions.find(s, project_id, project, target.reference)
        collection = projects.find_collection(s, project_id, target.reference.name)
        refuse_withdrawn(s, row)
        now = aliases.current(s, collection.id, target.alias).number
        _expect(request, collection.name, target.alias, now)
        serving = None if now is None else versions.by_number(s, project, collection.id, now).version
        contains = {role: part[0] for role, part in graph.parts(s, row.id).items()}
        manifest = parts.manifest(s, row.version.digest, row.body)
        steps.append((collection, Moving(target.alias, row.version, manifest, serving, contains)))
    results = _judge(s, parts, project, [m for _, m in steps], request, actor)
    require_pass(results)
    moving = [(c, m) for c, m in steps if m.serving is None or m.serving.number != m.version.number]
    if not moving:
        _, revision = projects.find_project(s, project)
        return Promotion(
            "", project, revision, verb, from_micros(s.now()), actor, request.reason, request.ticket, (), tuple(results)
        )
    goals = [(c, m.alias, m.version.number) for c, m in moving]
    return apply_moves(
        s,
        project_id,
        project,
        goals,
        actor=actor,
        verb=verb,
        reason=request.reason,
        ticket=request.ticket,
        results=results,
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
) -> Promotion:
    """Count one revision, move the aliases, write the audit entry."""
    revision, at, promotion = projects.bump(
        s,
        project_id,
        project,
        actor=actor,
        verb=verb,
        reason=reason,
        ticket=ticket,
        results=aliases.results_text(results),
        undoes=undoes,
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
    )
    return Promotion(
        promotion, project, revision, verb, from_micros(at), actor, reason, ticket, tuple(moves), tuple(results), undone
    )


def _judge(
    s: Session, parts: Parts, project: str, moving: Sequence[Moving], request: PromotionRequest, actor: str
) -> list[GateResult]:
    needed: list[Digest] = [c.digest for m in moving for c in m.manifest.components]
    found: dict[Digest, Manifest | None] = dict.fromkeys(needed)
    found.update(parts.manifests(s, needed))
    candidate = Candidate(project, tuple(moving), found, actor, request.reason, request.ticket, from_micros(s.now()))
    gates: list[Gate] = [plugins.load("gates", name)() for name in ALWAYS]
    return [judge(gate, candidate) for gate in gates]


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


def refuse_withdrawn(s: Session, row: VersionRow) -> None:
    """Refuse a version that was withdrawn, or a bundle with such a part. Raises `Yanked`."""
    if row.version.yanked_at is not None:
        raise Yanked(f"{row.version} was withdrawn: {row.version.yank_reason}", field=str(row.version.reference))
    for role, (name, number, withdrawn) in graph.parts(s, row.id).items():
        if withdrawn:
            raise Yanked(
                f"the part {role!r} of {row.version}, {name}:v{number}, was withdrawn",
                field=str(row.version.reference),
                next_step="Log the bundle anew with another version of that part.",
            )
