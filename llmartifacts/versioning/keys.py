"""Trusted keys: trust, rotate, revoke. The whole registry shares them; every change is audited."""

from __future__ import annotations

import re
from typing import Any

from llmartifacts.errors import Conflict, Damaged, InvalidInput, NotFound, Refused
from llmartifacts.metadata import attestations, audit
from llmartifacts.metadata.database import Session
from llmartifacts.records.approval import TrustedKey, check_person, check_roles, same_person
from llmartifacts.records.canonical import parse_json
from llmartifacts.records.times import from_micros
from llmartifacts.signing.envelope import read_envelope
from llmartifacts.signing.keys import parse_public
from llmartifacts.signing.statement import read_rotation
from llmartifacts.versioning.parts import Parts
from llmartifacts.versioning.signed import good, revoked, signer

ROTATED = "rotated"
_PREFIX = re.compile(r"[0-9a-f]{8,64}")


def trust(parts: Parts, public: str, *, person: str, roles: tuple[str, ...] | None, actor: str) -> TrustedKey:
    """Trust a key to speak for a person; of a key that is trusted already, set the roles. None leaves them as they are.

    Raises:
        Conflict: It is trusted as another person's.
        Refused: It was revoked; that is for good.
    """
    key = parse_public(public)
    owner = check_person(person)
    given = None if roles is None else check_roles(roles)
    with parts.metadata.writing() as s:
        known = attestations.find_key(s, key.id)
        wanted = given if given is not None else () if known is None else known.roles
        if known is None:
            made = TrustedKey(key.id, owner, wanted, key.text, from_micros(s.now()), actor)
            attestations.insert_key(s, made, s.now())
        else:
            _check_known(known, owner)
            if known.roles == wanted:
                return known
            attestations.set_roles(s, known.id, wanted)
        was = [] if known is None else list(known.roles)
        _record(s, "key-trust", key.id, actor, person=owner, roles=list(wanted), had=was, public=key.text)
        return _there(s, key.id)


def rotate(parts: Parts, envelope: bytes, *, actor: str) -> TrustedKey:
    """Let a key hand over to a new one of the same person, with the same roles; the old one is revoked.

    Args:
        parts: The stores.
        envelope: The statement of the change, signed with the old key.
        actor: Who asks.

    Raises:
        NotAllowed: The old key is not trusted, or one of the two was revoked otherwise.
        Damaged: The signature is forged, or the statement speaks of others than it should.
        Conflict: The new key is there already.
    """
    sealed = read_envelope(envelope)
    with parts.metadata.writing() as s:
        old = signer(s, sealed)
        said = read_rotation(sealed.payload)
        if said.replaces != old.id or same_person(said.person) != same_person(old.person):
            raise Damaged("the statement speaks of another key or person than the one that signs it", field="envelope")
        new = attestations.find_key(s, said.public.id)
        if new is not None and new.replaces == old.id:
            return good(new)  # a change that was interrupted after it was recorded
        if old.revoked_at is not None:
            raise revoked(old)
        if new is not None:
            raise Conflict(
                f"the key {new.short} is trusted already, as {new.person}'s",
                field="public",
                next_step="Make a new key.",
            )
        at = s.now()
        made = TrustedKey(said.public.id, old.person, old.roles, said.public.text, from_micros(at), actor, old.id)
        attestations.insert_key(s, made, at)
        attestations.revoke_key(s, old.id, at=at, by=actor, reason=ROTATED)
        _record(s, "key-revoke", old.id, actor, person=old.person, reason=ROTATED)
        _record(
            s,
            "key-rotate",
            made.id,
            actor,
            person=made.person,
            roles=list(made.roles),
            public=made.public,
            replaces=old.id,
            envelope=parse_json(sealed.to_bytes()),
        )
        return _there(s, made.id)


def revoke(parts: Parts, key: str, *, reason: str, actor: str) -> TrustedKey:
    """Revoke a key, by its id or by the first 8 or more digits; all that it signed is void, before and after."""
    with parts.metadata.writing() as s:
        found = by_prefix(s, key)
        if found.revoked_at is not None:
            return found
        attestations.revoke_key(s, found.id, at=s.now(), by=actor, reason=reason)
        _record(s, "key-revoke", found.id, actor, person=found.person, reason=reason)
        return _there(s, found.id)


def list_keys(parts: Parts) -> list[TrustedKey]:
    """Every key, revoked ones too, by person."""
    with parts.metadata.reading() as s:
        return attestations.keys(s)


def by_prefix(s: Session, text: str) -> TrustedKey:
    """The key whose id is, or begins with, some hex digits. Raises `NotFound`, `InvalidInput`."""
    if not isinstance(text, str) or not _PREFIX.fullmatch(text):
        raise InvalidInput(
            f"{text!r:.100} is no key id",
            field="key",
            next_step="Give the id that `llmartifacts key ls` shows: 8 hex digits or more.",
        )
    found = [k for k in attestations.keys(s) if k.id.startswith(text)]
    if not found:
        raise NotFound(
            f"no trusted key has the id {text}",
            what="key",
            name=text,
            next_step="`llmartifacts key ls` shows the trusted ones.",
        )
    if len(found) > 1:
        raise InvalidInput(f"{len(found)} keys begin with {text}", field="key", next_step="Give more digits.")
    return found[0]


def _check_known(known: TrustedKey, owner: str) -> None:
    if known.revoked_at is not None:
        raise Refused(
            f"the key {known.short} was revoked: {known.revoke_reason}",
            field="public",
            next_step="A revoked key stays revoked; make a new one: llmartifacts key create NAME --person NAME.",
        )
    if same_person(known.person) != same_person(owner):
        raise Conflict(
            f"the key {known.short} is trusted as {known.person}'s, and cannot be {owner}'s too",
            field="person",
            next_step="Each person signs with a key of their own.",
        )


def _there(s: Session, key: str) -> TrustedKey:
    found = attestations.find_key(s, key)
    if found is None:
        raise Damaged(f"the key {key[:12]} is missing in the database")
    return found


def _record(s: Session, verb: str, key: str, actor: str, **body: Any) -> None:
    audit.record(s, None, "", actor=actor, verb=verb, subject=attestations.key_subject(key), **body)
