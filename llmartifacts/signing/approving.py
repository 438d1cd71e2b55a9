"""Approve, from the approver's side: ask what would move, sign exactly that, hand it in.

The private key stays on this machine: what a backend is given is the signed envelope.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from llmartifacts.errors import Conflict, Damaged, InvalidInput, LlmartifactsError, NotAllowed, NotFound
from llmartifacts.records.approval import Approval, Binding, Subject, TrustedKey, check_roles, same_person
from llmartifacts.records.backend import Backend, PromotionRequest, Target
from llmartifacts.records.reference import Reference
from llmartifacts.records.version import Found
from llmartifacts.signing.envelope import seal
from llmartifacts.signing.key_files import KeyFile, SigningKey, find, load, next_key, read_public_file, take_place
from llmartifacts.signing.keys import PREFIX, PublicKey, parse_public
from llmartifacts.signing.statement import ApprovalStatement, EvaluationStatement, RotationStatement, config_digest


@dataclass(frozen=True, slots=True)
class Rotated:
    """A key that took another's place.

    Attributes:
        key: The new key, as the registry trusts it.
        file: The new key on this machine.
        kept: Where the private half of the old one is kept.
    """

    key: TrustedKey
    file: KeyFile
    kept: Path


def bindings(backend: Backend, project: str, references: Sequence[Reference], to: Sequence[str]) -> list[Binding]:
    """What approvals of a move would be for, as of now: one for each alias.

    Args:
        backend: The registry.
        project: Name of the project.
        references: Versions to move to, each with a selector.
        to: The aliases.

    Raises:
        NotFound: A version does not exist.
    """
    targets = tuple(Target(reference, alias) for alias in to for reference in references)
    return backend.bindings(project, PromotionRequest(targets))


def approve(
    backend: Backend,
    project: str,
    references: Sequence[Reference],
    to: Sequence[str],
    *,
    key: str,
    reason: str = "",
    expires: datetime | None = None,
    actor: str,
) -> list[Approval]:
    """Sign what would move now, and hand it in; one approval for each alias.

    Args:
        backend: The registry.
        project: Name of the project.
        references: Versions to move to, each with a selector.
        to: The aliases.
        key: Name of a key of this machine, or the path of its PEM file.
        reason: Why; kept for good.
        expires: From when on it no longer counts; None for never.
        actor: Who hands it in.

    Raises:
        NotFound: There is no such key, or a version does not exist.
        NotAllowed: The key is not trusted, was revoked, or others may read its file.
        Conflict: Something changed in between; nothing counts that was not looked at.
    """
    signing = load(key)
    person = owner(backend, signing)
    bound = check_asked(bindings(backend, project, references, to), project, references, to)
    return [sign_approval(backend, one, signing, person, reason=reason, expires=expires, actor=actor) for one in bound]


def check_asked(
    bound: list[Binding], project: str, references: Sequence[Reference], to: Sequence[str]
) -> list[Binding]:
    """Check that what a registry hands over to be signed is what was asked for, as far as that can be told here.

    Raises:
        Damaged: It is not; nothing of it should be signed.
    """
    names = sorted(reference.name for reference in references)
    pinned = {r.name: r for r in references}
    fits = [one.alias for one in bound] == list(dict.fromkeys(to)) and all(
        one.project == project and [s.name for s in one.subjects] == names and one.serving.keys() == pinned.keys()
        for one in bound
    )
    for subject in {s for one in bound for s in one.subjects} if fits else ():
        asked = pinned[subject.name]
        fits &= asked.number in (None, subject.number) and asked.digest in (None, subject.digest)
    if not fits:
        told = "; ".join(map(str, bound))
        raise Damaged(
            f"the registry hands over something else to be signed than was asked for: {told:.200}",
            field="references",
            next_step="Sign nothing, and find out who runs the registry.",
        )
    return bound


def sign_approval(
    backend: Backend,
    bound: Binding,
    key: SigningKey,
    person: str,
    *,
    reason: str = "",
    expires: datetime | None = None,
    actor: str,
) -> Approval:
    """Sign one binding that was looked at, and hand it in; raises as `approve`."""
    said = ApprovalStatement(bound, person, reason, datetime.now(UTC), expires)
    return backend.approve(bound.project, seal(said.to_bytes(), key.private), actor=actor)


def sign_report(
    backend: Backend, project: str, reference: Reference, *, key: str, reason: str = "", actor: str
) -> Subject:
    """Sign a report: its digest and that of its config.

    Raises:
        WrongKind: It is no report.
        NotAllowed: As `approve`.
    """
    signing = load(key)
    person = owner(backend, signing)
    item = backend.read(project, [reference]).items[0]
    if isinstance(item, LlmartifactsError):
        raise item
    found: Found = item
    report = Subject(found.version.name, found.version.number, found.version.digest)
    config = config_digest(found.manifest.config)
    said = EvaluationStatement(project, report, config, person, reason, datetime.now(UTC))
    return backend.attest(project, seal(said.to_bytes(), signing.private), actor=actor)


def owner(backend: Backend, key: SigningKey) -> str:
    """Whom the registry trusts a key to speak for.

    Raises:
        NotAllowed: It does not, or no longer.
        Conflict: It trusts it as another person's than its file says.
    """
    public = key.private.public
    known = next((k for k in backend.trusted_keys() if k.id == public.id), None)
    if known is None:
        name = key.file.person or "NAME"
        raise NotAllowed(
            f"the registry does not trust the key {key.file.name}",
            field="key",
            next_step=f"Have it trusted: llmartifacts key trust {public} --person {name!r} --role ROLE.",
        )
    if known.revoked_at is not None:
        raise NotAllowed(
            f"the key {key.file.name} was revoked on {known.revoked_at:%Y-%m-%d}: {known.revoke_reason}",
            field="key",
            next_step="Sign with another key.",
        )
    if key.file.person and same_person(key.file.person) != same_person(known.person):
        raise Conflict(
            f"the key {key.file.name} is {key.file.person}'s here, and the registry trusts it as {known.person}'s",
            field="key",
            next_step="Ask who trusted it as whose: llmartifacts key show, and have it revoked if that is wrong.",
        )
    return known.person


def trust(
    backend: Backend, public: str, *, person: str | None = None, roles: str | Sequence[str] | None = None, actor: str
) -> TrustedKey:
    """Let the registry trust a key.

    Args:
        backend: The registry.
        public: The text of a public key, the path of a file with one, or the name of a key of this machine.
        person: Whose it is; by default whose its file says.
        roles: What the person may speak as; None leaves that as it is.
        actor: Who says so.

    Raises:
        InvalidInput: It is no public key, or nobody says whose it is.
        Conflict: It is trusted as another person's.
    """
    key, told = public_half(public)
    whose = told if person is None else person
    if not whose:
        raise InvalidInput("nobody says whose key it is", field="person", next_step="Name the person: --person ada.")
    wanted = None if roles is None else check_roles(roles)
    return backend.trust_key(key.text, person=whose, roles=wanted, actor=actor)


def public_half(public: str) -> tuple[PublicKey, str]:
    """A public key by its text, a file, or the name of a key of this machine; and whose it says it is, if it does."""
    if isinstance(public, str) and (public.strip().startswith((PREFIX, "-----BEGIN"))):
        return parse_public(public, field="PUBLIC"), ""
    here = find(public)
    return (here.public, here.person) if here is not None else read_public_file(Path(public).expanduser())


def rotate(backend: Backend, name: str, *, actor: str) -> Rotated:
    """Make a new key, let the old one hand over to it, and give it the old one's name; may be interrupted and repeated.

    Raises:
        NotFound: There is no such key.
        NotAllowed: The registry does not trust it.
    """
    old = load(name)
    known = next((k for k in backend.trusted_keys() if k.id == old.private.public.id), None)
    if known is None:
        raise NotAllowed(
            f"the registry does not trust the key {name}",
            field="key",
            next_step="A key that nobody trusts needs no change: make a new one, llmartifacts key create.",
        )
    new = next_key(old)
    said = RotationStatement(known.person, known.id, new.private.public, datetime.now(UTC))
    made = backend.rotate_key(seal(said.to_bytes(), old.private), actor=actor)
    file, kept = take_place(old, new)
    return Rotated(made, file, kept)


def key_id(backend: Backend, which: str) -> TrustedKey:
    """A trusted key by its id, the first digits of that, or the name of a key of this machine.

    Raises:
        NotFound: There is none, or several.
    """
    here = find(which)
    wanted = here.public.id if here is not None else which
    found = [k for k in backend.trusted_keys() if k.id.startswith(wanted)] if len(wanted) >= 8 else []
    if len(found) != 1:
        told = f"{len(found)} trusted keys begin with {which}" if found else f"no trusted key is {which!r:.100}"
        raise NotFound(
            told, what="key", name=which, next_step="`llmartifacts key ls` shows the ids: give 8 digits or more."
        )
    return found[0]
