"""Who signed an envelope: the trusted key, found by its id, and held against what the audit tells of it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from llmartifacts.errors import Damaged, InvalidInput, InvalidValue, NotAllowed, Refused
from llmartifacts.metadata import attestations, audit
from llmartifacts.metadata.database import Session
from llmartifacts.records.approval import SKEW, TrustedKey, same_person
from llmartifacts.records.arguments import shown
from llmartifacts.records.times import to_text
from llmartifacts.signing.envelope import Envelope, verify
from llmartifacts.signing.keys import PublicKey, parse_public


def signer(s: Session, sealed: Envelope) -> TrustedKey:
    """The trusted key that signed an envelope, found by its id; revoked ones too.

    Raises:
        NotAllowed: The registry trusts no key of that id.
        Damaged: The signature is forged, or the stored key is not the one that the audit tells of.
    """
    known = attestations.find_key(s, sealed.key)
    if known is None:
        raise NotAllowed(
            f"the registry does not trust the key {sealed.key[:12]}",
            field="envelope",
            next_step="Have it trusted: llmartifacts key trust PUBLIC --person NAME --role ROLE.",
        )
    verify(sealed, public_key(known))
    return accounted(s, known)


def good(key: TrustedKey) -> TrustedKey:
    """A key that was not revoked. Raises `NotAllowed`."""
    if key.revoked_at is not None:
        raise revoked(key)
    return key


def accounted(s: Session, key: TrustedKey) -> TrustedKey:
    """A key whose person, roles and state are those that the audit tells of.

    So whoever would slip in a key, or a role, has to forge the audit too, which a checkpoint kept elsewhere shows.

    Raises:
        Damaged: They are others.
    """
    told = _told(s, key.id)
    found = {
        "person": key.person,
        "roles": list(key.roles),
        "public": key.public,
        "added_by": key.added_by,
        "replaces": key.replaces,
        "revoked": (key.revoked_by, key.revoke_reason) if key.revoked_at is not None else None,
    }
    if told != found:
        raise Damaged(
            f"the trusted key {key.short} of {key.person} is not what the audit tells of it",
            next_step="See what is wrong with `llmartifacts audit verify`; revoke the key, and trust another.",
        )
    return key


def _told(s: Session, key: str) -> dict[str, Any]:
    """What the audit tells of a key; empty if that cannot be read."""
    told: dict[str, Any] = {}
    try:
        for entry in map(audit.parsed, attestations.key_entries(s, key)):
            body = entry["body"]
            if entry["verb"] == "key-revoke":
                told["revoked"] = told.get("revoked") or (entry["actor"], body["reason"])
            elif entry["verb"] in ("key-trust", "key-rotate"):
                first = {"person": body["person"], "added_by": entry["actor"], "replaces": body.get("replaces", "")}
                told = first | {"revoked": None} | told
                told |= {"roles": body["roles"], "public": body["public"]}
    except (InvalidInput, KeyError, TypeError):
        return {}
    return told


def public_key(key: TrustedKey) -> PublicKey:
    """The public key of a row. Raises `Damaged` where it is another than its id says."""
    try:
        public = parse_public(key.public)
    except InvalidInput:
        public = None
    if public is None or public.id != key.id:
        raise Damaged(
            f"the trusted key {key.short} of {key.person} was altered in the database",
            next_step="Revoke it, and trust another.",
        )
    return public


def revoked(key: TrustedKey) -> NotAllowed:
    """The error for a key that was revoked."""
    day = f"{key.revoked_at:%Y-%m-%d}" if key.revoked_at else "once"
    return NotAllowed(
        f"the key {key.short} of {key.person} was revoked on {day}: {key.revoke_reason}",
        field="key",
        next_step="Sign with another trusted key.",
    )


def check_signer(key: TrustedKey, claimed: str) -> None:
    """Check that a statement speaks for the person whose key signed it. Raises `Damaged`."""
    if same_person(key.person) != same_person(claimed):
        raise Damaged(
            f"the statement speaks for {shown(claimed, 60)}, and the key {key.short} is {key.person}'s",
            field="person",
            next_step="Sign it with a key of that person.",
        )


def check_times(at: datetime, expires: datetime | None, now: datetime) -> None:
    """Check when something was signed. Raises `InvalidValue`: in the future; `Refused`: it has expired."""
    if at > now + SKEW:
        raise InvalidValue(
            f"it was signed at {to_text(at)}, and it is {to_text(now)} now",
            field="at",
            next_step="Set the clock of the machine that signs.",
        )
    if expires is not None and expires <= now:
        raise Refused(f"the approval expired on {to_text(expires)}", field="expires", next_step="Sign anew.")
