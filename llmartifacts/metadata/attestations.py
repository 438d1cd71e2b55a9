"""Trusted keys, which the whole registry shares, and signed statements, which each project has of its own.

What is stored here is not trusted: whoever reads a statement verifies its signature anew.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from llmartifacts.errors import Damaged
from llmartifacts.metadata.database import Row, Session
from llmartifacts.records.approval import TrustedKey
from llmartifacts.records.digest import Digest, digest_bytes, digest_from_bytes
from llmartifacts.records.times import from_micros

Purpose = Literal["approval", "withdrawal", "evaluation"]
MOST = 1000
"""Statements that are looked at, the newest first."""
ALL = 1 << 31

_KEY = "id, person, roles, public, added_at, added_by, replaces, revoked_at, revoked_by, revoke_reason"
_ATTESTATION = "a.id, a.project_id, a.purpose, a.alias, a.envelope, a.at, a.recorded_by"


@dataclass(frozen=True, slots=True)
class AttestationRow:
    """A signed statement as the database has it.

    Attributes:
        id: Its number.
        project_id: Id of the project.
        purpose: What it is said to be.
        alias: The alias that it is said to be for; empty where that means nothing.
        envelope: The envelope; of a withdrawal, a JSON object.
        at: When it was recorded, microseconds since 1970.
        recorded_by: Who recorded it.
    """

    id: int
    project_id: int
    purpose: str
    alias: str
    envelope: str
    at: int
    recorded_by: str


# --- keys


def insert_key(s: Session, key: TrustedKey, at: int) -> None:
    """Trust a key that is not there yet."""
    s.run(
        "insert into trusted_key(id, person, roles, public, added_at, added_by, replaces)"
        " values (:id, :person, :roles, :public, :at, :by, :replaces)",
        {
            "id": key.id,
            "person": key.person,
            "roles": json.dumps(list(key.roles)),
            "public": key.public,
            "at": at,
            "by": key.added_by,
            "replaces": key.replaces,
        },
    )


def set_roles(s: Session, key: str, roles: Sequence[str]) -> None:
    """Change what the person of a key may speak as."""
    s.run("update trusted_key set roles = :r where id = :id", {"r": json.dumps(list(roles)), "id": key})


def revoke_key(s: Session, key: str, *, at: int, by: str, reason: str) -> None:
    """Revoke a key; the first time counts."""
    s.run(
        "update trusted_key set revoked_at = :at, revoked_by = :by, revoke_reason = :why"
        " where id = :id and revoked_at is null",
        {"at": at, "by": by, "why": reason, "id": key},
    )


def find_key(s: Session, key: str) -> TrustedKey | None:
    """A key by its id. Raises `Damaged` where the row is not what a release writes."""
    row = s.row(f"select {_KEY} from trusted_key where id = :id", {"id": key})
    return None if row is None else _key(row)


def keys(s: Session) -> list[TrustedKey]:
    """Every key, by person, the oldest first."""
    return [_key(r) for r in s.rows(f"select {_KEY} from trusted_key order by person, added_at, id")]


def key_entries(s: Session, key: str) -> list[str]:
    """What the audit says of a key, in order."""
    rows = s.rows(
        "select entry from audit where project_id is null and subject = :s order by id", {"s": key_subject(key)}
    )
    return [str(r[0]) for r in rows]


def key_subject(key: str) -> str:
    """What the audit calls a key."""
    return f"key:{key}"


# --- statements


def insert(
    s: Session,
    project_id: int,
    purpose: Purpose,
    alias: str,
    envelope: str,
    digests: Sequence[Digest],
    *,
    at: int,
    recorded_by: str,
) -> int:
    """Keep a statement about some digests; returns its number."""
    row = s.row(
        "insert into attestation(project_id, purpose, alias, envelope, at, recorded_by)"
        " values (:p, :what, :alias, :e, :at, :by) returning id",
        {"p": project_id, "what": purpose, "alias": alias, "e": envelope, "at": at, "by": recorded_by},
    )
    number = int(row[0]) if row else 0
    s.run_many(
        "insert into attestation_subject(attestation_id, digest) values (:a, :d)",
        [{"a": number, "d": digest_bytes(d)} for d in dict.fromkeys(digests)],
    )
    return number


def concerning(
    s: Session, project_id: int, purpose: Purpose, alias: str, digests: Sequence[Digest], limit: int = MOST
) -> list[AttestationRow]:
    """The newest statements of a project about any of some digests, the oldest of them first."""
    found: dict[int, AttestationRow] = {}
    for digest in dict.fromkeys(digests):
        rows = s.rows(
            f"select {_ATTESTATION} from attestation_subject x join attestation a on a.id = x.attestation_id"
            " where x.digest = :d and a.project_id = :p and a.purpose = :what and a.alias = :alias"
            " order by a.id desc limit :n",
            {"d": digest_bytes(digest), "p": project_id, "what": purpose, "alias": alias, "n": limit},
        )
        found |= {r[0]: _attestation(r) for r in rows}
    return [found[i] for i in sorted(found)[-limit:]]


def known(s: Session, project_id: int, purpose: Purpose, envelope: str, digest: Digest) -> AttestationRow | None:
    """The statement of a project about a digest that is exactly this one, however many came after it."""
    row = s.row(
        f"select {_ATTESTATION} from attestation_subject x join attestation a on a.id = x.attestation_id"
        " where x.digest = :d and a.project_id = :p and a.purpose = :what and a.envelope = :e order by a.id limit 1",
        {"d": digest_bytes(digest), "p": project_id, "what": purpose, "e": envelope},
    )
    return None if row is None else _attestation(row)


def listed(
    s: Session, project_id: int, purpose: Purpose, alias: str, limit: int = MOST, before: int | None = None
) -> list[AttestationRow]:
    """The newest statements of a project for an alias, the newest first; those with lower numbers than one."""
    rows = s.rows(
        f"select {_ATTESTATION} from attestation a where a.project_id = :p and a.purpose = :what"
        " and a.alias = :alias and a.id < :before order by a.id desc limit :n",
        {"p": project_id, "what": purpose, "alias": alias, "n": limit, "before": ALL if before is None else before},
    )
    return [_attestation(r) for r in rows]


def get(s: Session, project_id: int, number: int) -> AttestationRow | None:
    """One statement of a project."""
    row = s.row(
        f"select {_ATTESTATION} from attestation a where a.id = :id and a.project_id = :p",
        {"id": number, "p": project_id},
    )
    return None if row is None else _attestation(row)


def subjects(s: Session, number: int) -> list[Digest]:
    """The digests that a statement is filed under."""
    rows = s.rows("select digest from attestation_subject where attestation_id = :a order by digest", {"a": number})
    return [digest_from_bytes(r[0]) for r in rows]


def project_name(s: Session, project_id: int) -> str:
    """Name of a project that is there."""
    row = s.row("select name from project where id = :p", {"p": project_id})
    return str(row[0]) if row else ""


def _attestation(row: Row) -> AttestationRow:
    """A row; a column of SQLite takes anything, and what no release writes is no envelope and no time."""
    number, project_id, purpose, alias, envelope, at, by = row
    told = envelope if isinstance(envelope, str) else ""
    return AttestationRow(number, project_id, purpose, alias, told, at if isinstance(at, int) else 0, str(by))


def _key(row: Row) -> TrustedKey:
    try:
        roles: Any = json.loads(row[2])
        if not isinstance(roles, list) or not all(isinstance(r, str) for r in roles):
            raise ValueError("no list of text")
        words = [row[i] for i in (0, 1, 3, 5, 6, 8, 9)]
        if not all(isinstance(w, str) for w in words):
            raise ValueError("no text")
        added, revoked = from_micros(row[4]), None if row[7] is None else from_micros(row[7])
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise Damaged(
            f"the trusted key {row[0]!r:.20} was altered in the database: {error}",
            next_step="Restore the database from a backup, or revoke the key and trust another.",
        ) from None
    return TrustedKey(row[0], row[1], tuple(roles), row[3], added, row[5], row[6], revoked, row[8], row[9])
