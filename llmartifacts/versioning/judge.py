"""check gates: what a policy says of a move, in the transaction that would make it, or in one that only looks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from llmartifacts import plugins
from llmartifacts.gates.base import Answers, Candidate, Moving, Unanswered, judge
from llmartifacts.gates.policy import Policy, within
from llmartifacts.metadata import policies, projects
from llmartifacts.metadata.database import Session
from llmartifacts.metadata.evidence import contained, stages
from llmartifacts.records.approval import Approval
from llmartifacts.records.backend import PromotionRequest
from llmartifacts.records.digest import Digest
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.names import near_names
from llmartifacts.records.policy import Decision, GateResult, PolicyRecord, Verdict, all_of
from llmartifacts.records.times import from_micros
from llmartifacts.records.version import Version
from llmartifacts.records.wording import counted, printable
from llmartifacts.versioning import approve, evidence
from llmartifacts.versioning.evidence import Step
from llmartifacts.versioning.parts import Parts

ALWAYS = ("compatibility",)
"""Gates that every promotion must pass, whatever the policy says."""
BREAK_GLASS = "break-glass"
MOST_TRIES = 4
"""How often functions of others are asked about one move; more only where what they are asked about keeps changing."""
R = TypeVar("R")


def answering(attempt: Callable[[Answers], R], answers: Answers | None = None) -> R:
    """Try something that gates decide, and try it again with the answers of others that it lacked.

    The functions of others run between the attempts. A server gives an attempt that is a whole unit of work, so that
    no transaction of it is open meanwhile.

    Args:
        attempt: Takes the answers; raises `Unanswered`, having changed nothing, where one is missing.
        answers: Those that are known already.

    Raises:
        Unanswered: What is asked about kept changing.
    """
    known = Answers() if answers is None else answers
    for _ in range(MOST_TRIES):
        try:
            return attempt(known)
        except Unanswered:
            known.ask()
    return attempt(known)


def gate(parts: Parts, project: str, request: PromotionRequest, *, actor: str) -> Decision:
    """What the gates would say; nothing moves. Raises as a promotion does: `NotFound`, `Yanked`, `InvalidReference`."""

    def attempt(answers: Answers) -> Decision:
        with parts.metadata.reading() as s:
            project_id, _ = projects.find_project(s, project)
            steps = evidence.steps(s, parts, project_id, project, request, lock=False)
            return decide(s, parts, project_id, project, steps, request, actor=actor, answers=answers)

    return answering(attempt)


def asked(parts: Parts, project: str, request: PromotionRequest, *, actor: str) -> Answers:
    """What functions of others say of a move, asked while nobody waits; empty where the policy names none.

    A move takes it along, in whatever transaction it is part of. Raises as `gate`.
    """
    answers = Answers()
    with parts.metadata.reading() as s:
        project_id, _ = projects.find_project(s, project)
        record = policies.current(s, project_id, project)
        policy = None if record is None else _read(record)
        if isinstance(policy, Policy) and policy.is_slow:
            steps = evidence.steps(s, parts, project_id, project, request, lock=False)
            with suppress(Unanswered):
                decide(s, parts, project_id, project, steps, request, actor=actor, answers=answers)
    answers.ask()
    return answers


def decide(
    s: Session,
    parts: Parts,
    project_id: int,
    project: str,
    steps: Sequence[Step],
    request: PromotionRequest,
    *,
    actor: str,
    answers: Answers | None = None,
) -> Decision:
    """Ask every gate that the move must pass.

    Raises:
        Unanswered: `answers` lacks some that a gate needs; they are left open in it.
    """
    moving = tuple(step.moving for step in steps)
    candidate = Candidate(
        project,
        moving,
        _parts_of(s, parts, steps),
        actor,
        request.reason,
        request.ticket,
        from_micros(s.now()),
        answers={} if answers is None else answers,
        allowed=parts.allowed_gates,
    )
    results = [judge(plugins.load("gates", name)(), candidate) for name in ALWAYS]
    fits = all(r.verdict is Verdict.PASS for r in results)
    record = policies.current(s, project_id, project)
    protected: tuple[str, ...] = ()
    said: tuple[str, ...] = ()
    if record is not None:
        found, protected, known = _by_policy(s, parts, project_id, project, record, steps, candidate)
        passed = {e for r in found if r.verdict is Verdict.PASS for e in r.evidence}
        said = tuple(dict.fromkeys(a.person for a in known if a.id in passed))
        results += found
    if answers is not None and answers.open:
        raise Unanswered(f"{counted(len(answers.open), 'function')} of a gate must be asked first", field="policy")
    verdict = all_of([r.verdict for r in results])
    broken = False
    if request.break_glass and verdict is not Verdict.PASS and record is not None and protected:
        refusal = _why_not_break(s, record, protected, request, actor, verdict, fits)
        broken = refusal is None
        results += [] if refusal is None else [refusal]
    told = tuple(f"{m.version.name}:{m.alias} {_told(m.serving)} -> {_told(m.version)}" for m in moving)
    return Decision(
        verdict,
        tuple(results),
        told,
        None if record is None else record.digest,
        0 if record is None else record.number,
        protected,
        said,
        broken,
    )


def _by_policy(
    s: Session,
    parts: Parts,
    project_id: int,
    project: str,
    record: PolicyRecord,
    steps: Sequence[Step],
    candidate: Candidate,
) -> tuple[list[GateResult], tuple[str, ...], list[Approval]]:
    """What the policy's gates say, the protected aliases among those moving, and the approvals that they looked at."""
    policy = _read(record)
    if isinstance(policy, GateResult):
        return [policy], tuple(sorted({p.moving.alias for p in steps})), []
    under = [step for step in steps if policy.rules(step.moving.alias) is not None]
    protected = tuple(sorted({p.moving.alias for p in under}))
    concerned = [step for step in under if step.moving.moves]
    results: list[GateResult] = [_stays(step.moving) for step in under if not step.moving.moves]
    results += _mistyped({step.moving.alias for step in steps if not step.moving.move}, policy)
    if not concerned:
        return results, protected, []
    gates = list(within(g for p in concerned for g in policy.gates(p.moving.alias, p.moving.version.kind)))
    moving = tuple(_filled(s, parts, project_id, project, p) if p in concerned else p.moving for p in steps)
    bindings = evidence.bindings(s, project, moving, record.digest)
    suites = evidence.suites_now(s, parts, project_id, project, gates)
    about = replace(candidate, moving=moving, suites=suites, policy=record.digest)
    looked: list[Approval] = []
    for alias in dict.fromkeys(p.moving.alias for p in concerned):
        binding = bindings[alias]
        known = approve.approvals(s, project_id, project, alias, [subject.digest for subject in binding.subjects])
        looked += known
        asked = replace(about, binding=binding, approvals=tuple(known))
        results += [r for m in moving if m.alias == alias and m.moves for r in policy.judge(asked, m)]
    return list(dict.fromkeys(results)), protected, looked


def _mistyped(new: set[str], policy: Policy) -> list[GateResult]:
    """A word about aliases that are not there yet, are free, and look like one that is protected."""
    made = []
    for alias in sorted(new):
        near = near_names(alias, policy.protected) if policy.rules(alias) is None else ()
        if near:
            told = f"{alias} is a new alias, and the policy does not protect it"
            made.append(GateResult("policy", "policy", Verdict.PASS, told, f"Did you mean {' or '.join(near)}?"))
    return made


def _read(record: PolicyRecord) -> Policy | GateResult:
    """The policy, checked anew; why it denies, whatever it says, where it cannot be read or is not what was set."""
    name, step = f"the policy {record.number} of {record.project}", "Set it anew: llmartifacts policy set FILE."
    try:
        policy = Policy.of(record.body)
    except Exception as error:  # noqa: BLE001 - a stranger's gate may fail in any way
        told = printable(f"{name} cannot be read: {error}")[:1000]
        return GateResult("policy", "policy", Verdict.ERROR, told, step)
    if policy.digest != record.digest:
        told = f"{name} is not the one that was set: its digest is another"
        return GateResult("policy", "policy", Verdict.TAMPERED, told, f"Find out who changed it. {step}")
    return policy


def is_protected(record: PolicyRecord, alias: str) -> bool:
    """Whether a policy names an alias; one that cannot be read names every one."""
    policy = _read(record)
    return isinstance(policy, GateResult) or policy.rules(alias) is not None


def _stays(moving: Moving) -> GateResult:
    told = f"{moving.alias} serves {moving.version} already: it does not move"
    return GateResult("policy", "served-already", Verdict.PASS, told, subject=str(moving.version))


def _filled(s: Session, parts: Parts, project_id: int, project: str, step: Step) -> Moving:
    version = step.moving.version
    return replace(
        step.moving,
        stages=stages(s, step.collection.id, version.number),
        trail=evidence.trail(s, step.row),
        parts=tuple(contained(s, step.row.id)),
        reports=evidence.reports(s, parts, project_id, project, version.digest),
    )


def _why_not_break(
    s: Session,
    record: PolicyRecord,
    protected: Sequence[str],
    request: PromotionRequest,
    actor: str,
    worst: Verdict,
    fits: bool,
) -> GateResult | None:
    """Why the glass may not be broken; None if it may."""

    def no(told: str, step: str = "") -> GateResult:
        return GateResult(BREAK_GLASS, BREAK_GLASS, Verdict.FAIL, told, step)

    if not request.reason.strip():
        return no("breaking the glass needs a reason", "Say why: --reason …")
    if not fits:
        return no("what does not fit together is not moved, whatever the reason", "Mend the components.")
    if worst is Verdict.TAMPERED:
        return no("evidence was tampered with, and nobody may pass over that", "Find out who did that.")
    policy = _read(record)
    if isinstance(policy, GateResult):
        return no("nobody knows who may: the policy cannot be read", policy.next_step)
    roles = approve.roles_of(s, actor)
    closed = [alias for alias in protected if not policy.may_break_glass(alias, actor, roles)]
    if closed:
        return no(
            f"{actor} may not break the glass on {', '.join(closed)}", "The policy says who may, under break_glass."
        )
    return None


def _parts_of(s: Session, parts: Parts, steps: Sequence[Step]) -> dict[Digest, Manifest | None]:
    needed: list[Digest] = [c.digest for step in steps for c in step.moving.manifest.components]
    found: dict[Digest, Manifest | None] = dict.fromkeys(needed)
    found.update(parts.manifests(s, needed))
    return found


def _told(version: Version | None) -> str:
    return "nothing" if version is None else f"v{version.number}"
