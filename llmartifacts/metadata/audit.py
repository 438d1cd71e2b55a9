"""The audit's entries: one for every change, in the change's own transaction.

Their numbers have no gaps and are in the order in which the changes were committed: only so does the tree over them
only ever grow. That holds because writers come one at a time: SQLite has one, and on PostgreSQL every write transaction
begins with an advisory lock that it keeps until it is committed. A database that let two in would have the second of
them fail, since both take the same number; it never lets an entry slip in below one that is already there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from llmartifacts.errors import LlmartifactsError
from llmartifacts.metadata.database import Row, Session
from llmartifacts.records.audit import AuditEvent, origin_of
from llmartifacts.records.canonical import parse_json
from llmartifacts.records.merkle import leaf_hash
from llmartifacts.records.times import from_micros, to_micros

PAGE = 1000
_COLUMNS = "a.id, a.entry, a.leaf, coalesce(p.name, ''), a.project_id, a.at, a.verb, a.subject"
_FROM = "from audit a left join project p on p.id = a.project_id"


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """An entry and what is recorded beside it.

    Attributes:
        number: Its number, from 1.
        entry: The entry, canonical JSON.
        leaf: Recorded hash of its leaf.
        project: Name of the project that it is filed under; empty for none.
        at: Recorded time, microseconds since 1970.
        verb: Recorded verb.
        subject: Recorded subject.
    """

    number: int
    entry: bytes
    leaf: bytes
    project: str
    at: int
    verb: str
    subject: str

    @property
    def altered(self) -> bool:
        """Whether the entry is not the one whose hash was recorded."""
        return leaf_hash(self.entry) != self.leaf

    @property
    def misfiled(self) -> str:
        """What is recorded beside the entry and is not what it says; empty if all is as it says."""
        try:
            event = AuditEvent.from_bytes(self.entry)
        except LlmartifactsError as error:
            return error.message
        said = {"project": event.project, "time": to_micros(event.at), "verb": event.verb, "subject": event.subject}
        recorded = {"project": self.project, "time": self.at, "verb": self.verb, "subject": self.subject}
        return ", ".join(f"its {name} is not what it says" for name in said if said[name] != recorded[name])


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
    record_many(s, [(project_id, event)])


def record_many(s: Session, events: list[tuple[int | None, AuditEvent]]) -> None:
    """Write entries, in order.

    Args:
        s: A write transaction.
        events: Each with the id of its project.
    """
    rows = []
    for project_id, event in events:
        entry = event.to_bytes()
        rows.append(
            {
                "p": project_id,
                "at": to_micros(event.at),
                "v": event.verb,
                "s": event.subject,
                "e": entry.decode(),
                "l": leaf_hash(entry),
            }
        )
    s.run_many(
        "insert into audit(id, project_id, at, verb, subject, entry, leaf)"
        " values ((select coalesce(max(id), 0) + 1 from audit), :p, :at, :v, :s, :e, :l)",
        rows,
    )


def origin(s: Session) -> str:
    """The identity of the registry, by its first entry as it is now; empty if there is none."""
    row = s.row("select entry from audit where id = 1")
    return origin_of(leaf_hash(_bytes(row[0]))) if row else ""


def after(s: Session, project_id: int | None, last: int, limit: int = PAGE) -> list[tuple[int, str, bytes]]:
    """A page of entries after a number, in order: number, entry, leaf hash."""
    of_project = "" if project_id is None else " and project_id = :p"
    rows = s.rows(
        f"select id, entry, leaf from audit where id > :last{of_project} order by id limit :n",
        {"last": last, "p": project_id, "n": limit},
    )
    return [(r[0], r[1], _bytes(r[2])) for r in rows]


def stored_after(s: Session, last: int, limit: int = PAGE) -> list[StoredEntry]:
    """A page of entries after a number, in order, with everything that is recorded of them."""
    return [
        _stored(r)
        for r in s.rows(
            f"select {_COLUMNS} {_FROM} where a.id > :last order by a.id limit :n", {"last": last, "n": limit}
        )
    ]


def newest(
    s: Session, project_id: int | None, verb: str | None, limit: int, before: int | None = None
) -> list[StoredEntry]:
    """The newest entries below a number, of one project and of one verb where they are given, the newest last.

    Entries of `log` are many, and lie close together; the others have indices of their own, which `log` costs nothing.
    """
    wanted = "" if project_id is None else " and a.project_id = :p"
    if verb is not None:
        wanted += " and a.verb = :v" + ("" if verb == "log" else " and a.verb <> 'log'")
    rows = s.rows(
        f"select {_COLUMNS} {_FROM} where a.id < :before{wanted} order by a.id desc limit :n",
        {"p": project_id, "v": verb, "n": limit, "before": 1 << 62 if before is None else before},
    )
    return [_stored(r) for r in reversed(rows)]


def stored(s: Session) -> Iterator[StoredEntry]:
    """Every entry, in order, with everything that is recorded of it."""
    for page in pages(s):
        yield from page


def pages(s: Session) -> Iterator[list[StoredEntry]]:
    """Every entry as `stored` gives them, a page at a time."""
    last = 0
    while page := stored_after(s, last):
        yield page
        last = page[-1].number


def entries(s: Session) -> Iterator[tuple[int, str, bytes]]:
    """Every entry, in order: number, entry, leaf hash."""
    last = 0
    while page := after(s, None, last):
        yield from page
        last = page[-1][0]


def damaged(s: Session) -> Iterator[str]:
    """Entries whose leaf hash is not theirs, and numbers without an entry, one readable line each."""
    last = 0
    for number, entry, leaf in entries(s):
        if number != last + 1:
            yield f"audit {gap_told(last + 1, number - 1)}"
        if leaf_hash(entry.encode()) != leaf:
            yield f"audit entry {number} was altered: its hash is not the recorded one"
        last = number


def gap_told(low: int, high: int) -> str:
    """A gap between numbers, from the first that is missing to the last, in words."""
    if high < low:
        return f"entry {low} is out of order"
    return f"entry {low} is missing" if low == high else f"entries {low} to {high} are missing"


def parsed(entry: str) -> dict[str, Any]:
    """One entry as the JSON object that was hashed."""
    made: dict[str, Any] = parse_json(entry, field="audit")
    return made


def _stored(row: Row) -> StoredEntry:
    number, entry, leaf, project, project_id, at, verb, subject = row
    if project_id is not None and not project:
        project = f"#{project_id}"  # no such project, and no name of one
    return StoredEntry(number, _bytes(entry), _bytes(leaf), project, at, verb, subject)


def _bytes(value: Any) -> bytes:
    """Text or bytes; a column of SQLite takes anything, and what no release writes is no entry and no hash."""
    if isinstance(value, str):
        return value.encode()
    return bytes(value) if isinstance(value, bytes | memoryview | bytearray) else b""
