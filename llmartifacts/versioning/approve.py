"""approve = check what was signed and by whom -> check that it is what holds now -> keep, in one transaction.

Stored statements are not trusted: each use verifies them anew, and one that was altered is found, and told of.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from llmartifacts.errors import (
    Conflict,
    InvalidReference,
    LlmartifactsError,
    NotAllowed,
    NotFound,
    Refused,
    Yanked,
)
from llmartifacts.metadata import aliases, attestations, audit, policies, projects, versions
from llmartifacts.metadata.attestations import AttestationRow
from llmartifacts.metadata.database import Session
from llmartifacts.records.approval import (
    Approval,
    Binding,
    Serving,
    Subject,
    TrustedKey,
    approval_id,
    approval_number,
    bind,
    mismatches,
    same_person,
)
from llmartifacts.records.backend import PromotionRequest, Target
from llmartifacts.records.canonical import canonical_bytes, parse_json
from llmartifacts.records.digest import Digest, digest_of
from llmartifacts.records.policy import Verdict
from llmartifacts.records.reference import Reference
from llmartifacts.records.times import from_micros, to_text
from llmartifacts.signing.envelope import Envelope, read_envelope
from llmartifacts.signing.statement import read_approval
from llmartifacts.versioning.parts import Parts
from llmartifacts.versioning.signed import accounted, check_signer, check_times, good, revoked, signer


def binding(s: Session, parts: Parts, project: str, request: PromotionRequest, policy: Digest | None) -> list[Binding]:
    """What an approval of a move must be for, as of now: one for each alias.

    Args:
        s: The transaction that decides.
        parts: The stores.
        project: Name of the project.
        request: The move.
        policy: Digest of the policy in force; None if there is none.

    Raises:
        NotFound: A version does not exist.
        InvalidReference: One collection is named twice for one alias.
    """
    project_id, _ = projects.find_project(s, project)
    moving: dict[tuple[str, str], tuple[str, Subject, Serving]] = {}
    for target in request.targets:
        row = versions.find(s, project_id, project, target.reference)
        key = row.version.name, target.alias
        if key in moving:
            raise InvalidReference(
                f"{':'.join(key)} is named twice in one promotion",
                field="references",
                next_step="An alias points at one version: leave one of them out.",
            )
        serving = _serving(s, project, row.collection_id, target.alias)
        moving[key] = (target.alias, Subject.of(row.version), serving)
    return list(bind(audit.origin(s), project, policy, moving.values()).values())


def bindings(parts: Parts, project: str, request: PromotionRequest) -> list[Binding]:
    """As `binding`, in a transaction of its own, with the policy in force."""
    with parts.metadata.reading() as s:
        project_id, _ = projects.find_project(s, project)
        return binding(s, parts, project, request, _policy(s, project_id, project))


def approve(parts: Parts, project: str, envelope: bytes, *, actor: str) -> Approval:
    """Keep an approval, if it is signed with a trusted key and is for what holds now.

    The same envelope again gives the same approval.

    Raises:
        InvalidInput: It is no approval.
        NotAllowed: The key is not trusted, or was revoked; or, where who acts had to prove it, is somebody else's.
        Damaged: The signature is forged, or the statement speaks for another person than the key.
        NotFound: A version does not exist.
        Yanked: A version was withdrawn.
        Conflict: What it is for is not what holds now; the message says what changed. Or it was withdrawn.
        Refused: It has expired, or is for another project.
    """
    sealed = read_envelope(envelope)
    with parts.metadata.writing() as s:
        project_id, _ = projects.lock_project(s, project)  # no move is decided meanwhile
        key = good(signer(s, sealed))
        said = read_approval(sealed.payload)
        check_signer(key, said.person)
        if parts.authenticated and same_person(key.person) != same_person(actor):
            raise NotAllowed(
                f"the key {key.short} is {key.person}'s, and {actor} hands it in",
                field="envelope",
                next_step=f"{key.person} approves it: signed in, with this key.",
            )
        at = s.now()
        check_times(said.at, said.expires, from_micros(at))
        bound = said.binding
        if bound.project != project:
            raise Refused(f"the approval is for the project {bound.project}, not for {project}", field="project")
        text = sealed.to_bytes().decode()
        digests = [b.digest for b in bound.subjects]
        row = attestations.known(s, project_id, "approval", text, digests[0])
        if row is not None:
            found = _opened(s, row, project, _withdrawals(s, project_id, bound.alias, digests))
            if found.problem:
                raise Conflict(f"this very approval is recorded already: {found.problem}", next_step="Sign anew.")
            return found
        for told in _yanked(s, project_id, project, bound):
            raise Yanked(told, field="envelope")
        changed = mismatches(bound, _now(s, parts, project, bound))
        if changed:
            raise Conflict(
                f"what was signed is not what holds now: {'; '.join(changed)}",
                field="envelope",
                next_step="Look at it again, and approve it anew.",
            )
        number = attestations.insert(s, project_id, "approval", bound.alias, text, digests, at=at, recorded_by=actor)
        audit.record(
            s,
            project_id,
            project,
            actor=actor,
            verb="approve",
            subject=approval_id(project, number),
            at=at,
            alias=bound.alias,
            subjects=[f"{b}@{b.digest}" for b in bound.subjects],
            person=key.person,
            key=key.id,
            reason=said.reason,
            statement=digest_of(sealed.payload),
        )
        return _sound(approval_id(project, number), said.binding, key, said.reason, said.at, said.expires, at)


def approvals(s: Session, project_id: int, project: str, alias: str, digests: Sequence[Digest]) -> list[Approval]:
    """Every stored approval for an alias that concerns any of some digests, each verified anew, the oldest first.

    An altered one has the verdict TAMPERED, one that is void says why; of more than 1,000 the newest are looked at.
    """
    withdrawn = _withdrawals(s, project_id, alias, digests)
    rows = attestations.concerning(s, project_id, "approval", alias, digests)
    return [_opened(s, row, project, withdrawn) for row in rows]


def list_approvals(
    parts: Parts, project: str, alias: str, *, limit: int = 50, before: str | None = None
) -> list[Approval]:
    """The newest approvals for an alias, the newest first; one that does not hold any more says why.

    Args:
        parts: The stores.
        project: Name of the project.
        alias: The alias.
        limit: At most so many.
        before: Id of an approval; only those recorded before it.

    Raises:
        InvalidInput: `before` is no id of an approval of this project.
    """
    last = None if before is None else approval_number(before, project)
    with parts.metadata.reading() as s:
        project_id, _ = projects.find_project(s, project)
        rows = attestations.listed(s, project_id, "approval", alias, limit, last)
        return [_standing(s, parts, project_id, project, row) for row in rows]


def withdraw(parts: Parts, project: str, approval: str, *, reason: str, actor: str) -> Approval:
    """Take an approval back; it stays on record, and never counts again.

    Args:
        parts: The stores.
        project: Name of the project.
        approval: Its id.
        reason: Why.
        actor: Who asks.

    Raises:
        NotFound: There is no such approval.
    """
    number = approval_number(approval, project)
    with parts.metadata.writing() as s:
        project_id, _ = projects.lock_project(s, project)
        row = attestations.get(s, project_id, number)
        if row is None or row.purpose != "approval":
            raise NotFound(
                f"there is no approval {approval_id(project, number)}",
                what="approval",
                name=approval_id(project, number),
                next_step="`llmartifacts approve --list --to ALIAS` shows them.",
            )
        digests = attestations.subjects(s, number)
        withdrawn = _withdrawals(s, project_id, row.alias, digests)
        if number not in withdrawn:
            at = s.now()
            body = canonical_bytes({"withdraws": number, "reason": reason}).decode()
            attestations.insert(s, project_id, "withdrawal", row.alias, body, digests, at=at, recorded_by=actor)
            identity = approval_id(project, number)
            audit.record(s, project_id, project, actor=actor, verb="withdraw", subject=identity, at=at, reason=reason)
            withdrawn = {number: f"{actor} withdrew it: {reason}"}
        return _opened(s, row, project, withdrawn)


def roles_of(s: Session, person: str) -> tuple[str, ...]:
    """What a person may speak as: the roles of their keys that are not revoked, sorted. Raises `Damaged`."""
    own = (k for k in attestations.keys(s) if k.revoked_at is None and same_person(k.person) == same_person(person))
    return tuple(sorted({role for key in own for role in accounted(s, key).roles}))


# --- helpers


def _standing(s: Session, parts: Parts, project_id: int, project: str, row: AttestationRow) -> Approval:
    found = _opened(s, row, project, _withdrawals(s, project_id, row.alias, attestations.subjects(s, row.id)))
    if found.problem or found.binding is None:
        return found
    if found.expires is not None and found.expires <= from_micros(s.now()):
        told = [f"it expired on {to_text(found.expires)}"]
    else:
        try:
            told = [*_yanked(s, project_id, project, found.binding)]
            told += mismatches(found.binding, _now(s, parts, project, found.binding))
        except NotFound as error:
            told = [error.message]
    return replace(found, problem="; ".join(told), verdict=Verdict.INCONCLUSIVE) if told else found


def _yanked(s: Session, project_id: int, project: str, bound: Binding) -> Iterator[str]:
    """The versions that an approval is for and that were withdrawn. Raises `NotFound`."""
    for subject in bound.subjects:
        reference = Reference(subject.name, number=subject.number, digest=subject.digest)
        version = versions.find(s, project_id, project, reference).version
        if version.yanked_at is not None:
            yield f"{version} was withdrawn: {version.yank_reason}"


def _now(s: Session, parts: Parts, project: str, bound: Binding) -> Binding:
    """What an approval of the same versions for the same alias would have to be for now."""
    targets = tuple(Target(Reference(b.name, number=b.number, digest=b.digest), bound.alias) for b in bound.subjects)
    project_id, _ = projects.find_project(s, project)
    return binding(s, parts, project, PromotionRequest(targets), _policy(s, project_id, project))[0]


def _policy(s: Session, project_id: int, project: str) -> Digest | None:
    found = policies.current(s, project_id, project)
    return None if found is None else found.digest


def _serving(s: Session, project: str, collection_id: int, alias: str) -> Serving:
    now = aliases.current(s, collection_id, alias, lock=False)
    if now.number is None:
        return Serving(None, now.move)
    return Serving(versions.by_number(s, project, collection_id, now.number).version.digest, now.move)


def _withdrawals(s: Session, project_id: int, alias: str, digests: Sequence[Digest]) -> dict[int, str]:
    """Number of each approval that was taken back -> who did it, and why; however many there are."""
    found: dict[int, str] = {}
    for row in attestations.concerning(s, project_id, "withdrawal", alias, digests, attestations.ALL):
        try:
            body = parse_json(row.envelope, field="withdrawal")
            number, reason = body["withdraws"], body["reason"]
        except (LlmartifactsError, KeyError, TypeError):
            continue  # nothing says which one
        if type(number) is int:
            found.setdefault(number, f"{row.recorded_by} withdrew it: {reason}")
    return found


def _opened(s: Session, row: AttestationRow, project: str, withdrawn: Mapping[int, str]) -> Approval:
    """One stored approval, verified now. Raises nothing for one that is merely bad."""
    identity = approval_id(project, row.id)
    recorded = from_micros(row.at)
    try:
        sealed = read_envelope(row.envelope.encode(), origin=identity)
        key = signer(s, sealed)
        said = read_approval(sealed.payload, origin=identity)
        check_signer(key, said.person)
    except LlmartifactsError as error:
        if row.id in withdrawn:
            return Approval(identity, None, "", "", (), problem=withdrawn[row.id], verdict=Verdict.INCONCLUSIVE)
        person, signed_by = _claimed(s, row)
        return Approval(
            identity,
            None,
            person,
            signed_by,
            problem=error.message,
            verdict=Verdict.TAMPERED,
            recorded_at=recorded,
        )
    made = _sound(identity, said.binding, key, said.reason, said.at, said.expires, row.at)
    void = withdrawn.get(row.id) or (revoked(key).message if key.revoked_at is not None else "")
    return replace(made, problem=void, verdict=Verdict.INCONCLUSIVE) if void else made


def _claimed(s: Session, row: AttestationRow) -> tuple[str, str]:
    """Whose key a bad envelope names, for the message; empty where that cannot be told."""
    try:
        sealed: Envelope = read_envelope(row.envelope.encode())
        key = attestations.find_key(s, sealed.key)
    except LlmartifactsError:
        return "", ""
    return ("", sealed.key) if key is None else (key.person, sealed.key)


def _sound(
    identity: str,
    bound: Binding,
    key: TrustedKey,
    reason: str,
    at: datetime,
    expires: datetime | None,
    recorded: int,
) -> Approval:
    return Approval(
        identity, bound, key.person, key.id, key.roles, reason, at, expires, recorded_at=from_micros(recorded)
    )
