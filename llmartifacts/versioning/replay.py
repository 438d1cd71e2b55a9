"""Do the records say what the audit says? Every change wrote an audit entry: here each is held against the records.

One pass over the audit, with a look-up for each entry and no more memory than one entry takes; then the counts must
agree, so that nothing is there that no entry tells of. Free labels and lineage edges are not compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from llmartifacts.errors import LlmartifactsError
from llmartifacts.metadata import audit
from llmartifacts.metadata.database import Row, Session
from llmartifacts.records.digest import digest_from_bytes
from llmartifacts.records.promotion import promotion_id
from llmartifacts.records.reference import Reference
from llmartifacts.records.times import from_micros, to_text

_VERSION = (
    "select v.digest, v.created_at, v.author, v.message, v.yanked_at, v.yank_reason from version v"
    " join collection c on c.id = v.collection_id join project p on p.id = c.project_id"
    " where p.name_key = :p and c.name_key = :c and v.number = :n"
)
_PROMOTION = (
    "select x.at, x.actor, x.reason, x.ticket, x.undoes from promotion x join project p on p.id = x.project_id"
    " where p.name_key = :p and x.revision = :r"
)
_MOVE = (
    "select m.old, m.new, m.revision from move m join collection c on c.id = m.collection_id"
    " join project p on p.id = c.project_id"
    " where p.name_key = :p and c.name_key = :c and m.alias = :a and m.number = :n"
)
_COUNTS = {
    "versions": "select count(*) from version",
    "withdrawn versions": "select count(*) from version where yanked_at is not null",
    "promotions": "select count(*) from promotion",
    "moves": "select count(*) from move where alias <> 'latest'",
}

Event = Mapping[str, Any]


def disagreements(s: Session) -> Iterator[str]:
    """Where the records are not what the audit says, one readable line each."""
    told: Counter[str] = Counter()
    for number, entry, _ in audit.entries(s):
        try:
            event = audit.parsed(entry)
            look = _LOOK.get(event["verb"])
            if look is not None:
                yield from look(s, event, told)
        except (AttributeError, KeyError, TypeError, ValueError, LlmartifactsError) as error:
            yield f"audit entry {number} cannot be read: {type(error).__name__}: {error}"
    for what, sql in _COUNTS.items():
        row = s.row(sql)
        if row is None or row[0] != told[what]:
            yield f"there are {row[0] if row else 0} {what}, and the audit tells of {told[what]}"


def _logged(s: Session, event: Event, told: Counter[str]) -> Iterator[str]:
    if not event["body"]["created"]:
        return
    told["versions"] += 1
    row = _version(s, event)
    said = (event["body"]["digest"], event["at"], event["actor"], event["body"]["message"])
    stored = None if row is None else (digest_from_bytes(row[0]), to_text(from_micros(row[1])), row[2], row[3])
    yield from _compared(event["subject"], ("digest", "time", "author", "message"), said, stored)


def _yanked(s: Session, event: Event, told: Counter[str]) -> Iterator[str]:
    told["withdrawn versions"] += 1
    row = _version(s, event)
    stored = None if row is None else (row[4] is not None, row[5])
    yield from _compared(event["subject"], ("withdrawal", "reason"), (True, event["body"]["reason"]), stored)


def _moved(s: Session, event: Event, told: Counter[str]) -> Iterator[str]:
    told["promotions"] += 1
    project, subject, body = event["project"], event["subject"], event["body"]
    revision = int(subject.rpartition("@r")[2])
    row = s.row(_PROMOTION, {"p": project.casefold(), "r": revision})
    said = (event["at"], event["actor"], body["reason"], body["ticket"], body["undoes"])
    stored = None
    if row is not None:
        undoes = "" if row[4] is None else promotion_id(project, row[4])
        stored = (to_text(from_micros(row[0])), row[1], row[2], row[3], undoes)
    yield from _compared(subject, ("time", "actor", "reason", "ticket", "undone promotion"), said, stored)
    for move in body["moves"]:
        told["moves"] += 1
        where = {"p": project.casefold(), "c": move["name"].casefold(), "a": move["alias"], "n": move["move"]}
        label = f"move {move['move']} of {move['name']}:{move['alias']}"
        goal = (move["old"], move["new"], revision)
        yield from _compared(label, ("start", "goal", "revision"), goal, s.row(_MOVE, where))


_LOOK: Mapping[str, Callable[[Session, Event, Counter[str]], Iterator[str]]] = {
    "log": _logged,
    "yank": _yanked,
    "promote": _moved,
    "rollback": _moved,
    "remove": _moved,
}


def _version(s: Session, event: Event) -> Row | None:
    reference = Reference.parse(event["subject"])
    keys = {"p": event["project"].casefold(), "c": reference.name.casefold(), "n": reference.number}
    return s.row(_VERSION, keys)


def _compared(
    what: str, names: tuple[str, ...], said: tuple[Any, ...], stored: tuple[Any, ...] | None
) -> Iterator[str]:
    if stored is None:
        yield f"{what} is missing, and the audit tells of it"
        return
    for name, one, other in zip(names, said, stored, strict=True):
        if one != other:
            yield f"{what}: the {name} is not what the audit says"
