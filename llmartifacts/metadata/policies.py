"""Policies of a project, and what people said afterwards of moves that broke the glass."""

from __future__ import annotations

import json
from typing import Any

from llmartifacts.metadata.database import Row, Session
from llmartifacts.records.canonical import canonical_bytes
from llmartifacts.records.digest import Digest, digest_bytes, digest_from_bytes, digest_of
from llmartifacts.records.policy import PolicyRecord
from llmartifacts.records.times import from_micros

NONE = digest_of(canonical_bytes({}))
"""Digest of no policy at all."""
_COLUMNS = "number, digest, body, at, author, message"


def current(s: Session, project_id: int, project: str) -> PolicyRecord | None:
    """The policy that holds; None if there is none. Emptied behind the registry's back, it is there, and denies."""
    found = newest(s, project_id, project, limit=1)
    return found[0] if found and (found[0].body or found[0].digest != NONE) else None


def newest(
    s: Session, project_id: int, project: str, limit: int = 1 << 40, before: int | None = None
) -> list[PolicyRecord]:
    """Every policy that was set, the newest first; those with lower numbers than one."""
    rows = s.rows(
        f"select {_COLUMNS} from policy where project_id = :p and number < :before order by number desc limit :n",
        {"p": project_id, "n": limit, "before": 1 << 40 if before is None else before},
    )
    return [_record(project, row) for row in rows]


def by_number(s: Session, project_id: int, project: str, number: int) -> PolicyRecord | None:
    """One policy by its number."""
    row = s.row(f"select {_COLUMNS} from policy where project_id = :p and number = :n", {"p": project_id, "n": number})
    return None if row is None else _record(project, row)


def insert(
    s: Session, project_id: int, project: str, body: object, digest: Digest, *, author: str, message: str
) -> int:
    """Let a policy hold from now on; an empty body takes the last one away. Returns its number."""
    row = s.row("select coalesce(max(number), 0) + 1 from policy where project_id = :p", {"p": project_id})
    number = int(row[0]) if row else 1
    s.run(
        "insert into policy(project_id, number, digest, body, at, author, message)"
        " values (:p, :n, :d, :b, :at, :a, :m)",
        {
            "p": project_id,
            "n": number,
            "d": digest_bytes(digest),
            "b": canonical_bytes(body).decode(),
            "at": s.now(),
            "a": author,
            "m": message,
        },
    )
    return number


def review(s: Session, project_id: int, revision: int, *, reviewer: str, reason: str) -> None:
    """Record that somebody looked at a move that broke the glass."""
    s.run(
        "insert into review(project_id, revision, at, reviewer, reason) values (:p, :r, :at, :w, :why)",
        {"p": project_id, "r": revision, "at": s.now(), "w": reviewer, "why": reason},
    )


def _record(project: str, row: Row) -> PolicyRecord:
    number, digest, body, at, author, message = row
    return PolicyRecord(project, number, digest_from_bytes(digest), _body(body), from_micros(at), author, message)


def _body(text: str) -> dict[str, Any]:
    """What a policy says. One that cannot be read is no empty one: an empty one lets everything pass."""
    try:
        made = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        made = None
    return made if isinstance(made, dict) else {"unreadable": str(text)[:200]}
