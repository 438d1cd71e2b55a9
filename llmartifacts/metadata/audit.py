"""The audit's entries: one for every change, in the change's own transaction."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llmartifacts.metadata.database import Session
from llmartifacts.records.audit import AuditEvent, leaf_hash
from llmartifacts.records.canonical import parse_json
from llmartifacts.records.times import from_micros, to_micros

PAGE = 1000


def record(
    s: Session,
    project_id: int | None,
    project: str,
    *,
    actor: str,
    verb: str,
    subject: str,
    at: int | None = None,
    **body: Any,
) -> None:
    """Write one entry; if it cannot be written, the change fails with it."""
    event = AuditEvent(project, from_micros(s.now() if at is None else at), actor, verb, subject, body)
    entry = event.to_bytes()
    s.run(
        "insert into audit(project_id, at, verb, subject, entry, leaf) values (:p, :at, :v, :s, :e, :l)",
        {
            "p": project_id,
            "at": to_micros(event.at),
            "v": verb,
            "s": subject,
            "e": entry.decode(),
            "l": leaf_hash(entry),
        },
    )


def after(s: Session, project_id: int | None, last: int, limit: int = PAGE) -> list[tuple[int, str, bytes]]:
    """A page of entries after an id, in order: id, entry, leaf hash."""
    rows = s.rows(
        "select id, entry, leaf from audit where id > :last and (cast(:p as bigint) is null or project_id = :p)"
        " order by id limit :n",
        {"last": last, "p": project_id, "n": limit},
    )
    return [(r[0], r[1], bytes(r[2])) for r in rows]


def entries(s: Session) -> Iterator[tuple[int, str, bytes]]:
    """Every entry, in order: id, entry, leaf hash."""
    last = 0
    while page := after(s, None, last):
        yield from page
        last = page[-1][0]


def damaged(s: Session) -> Iterator[str]:
    """Entries whose leaf hash is not theirs, one readable line each."""
    for number, entry, leaf in entries(s):
        if leaf_hash(entry.encode()) != leaf:
            yield f"audit entry {number} was altered"


def parsed(entry: str) -> dict[str, Any]:
    """One entry as the JSON object that was hashed."""
    made: dict[str, Any] = parse_json(entry, field="audit")
    return made
