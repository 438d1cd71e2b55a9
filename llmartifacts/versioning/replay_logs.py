"""Do versions, their tags and the moves of `latest` say what the audit says of each log? A page of entries at a time.

A registry has a million of them: so what a page is compared with is asked for in three statements, whatever its length.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from llmartifacts.metadata.database import Row, Session
from llmartifacts.records.digest import digest_bytes, digest_from_bytes
from llmartifacts.records.reference import Reference

Event = Mapping[str, Any]
T = TypeVar("T")
Key = tuple[str, str, int]
"""Keys of project and collection, and number of a version."""
_VERSIONS = (
    " select a.i, v.id, v.collection_id, v.digest, v.created_at, v.author, v.message, v.vouched, c.latest,"
    " v.git_commit, v.run_id, c.created_at"
    " from asked a cross join project p cross join collection c cross join version v where p.name_key = a.p"
    " and c.project_id = p.id and c.name_key = a.c and v.collection_id = c.id and v.number = a.n"
)
_NEXT = (
    "select p.name_key, c.name_key, v.number, 0, v.id, v.collection_id, v.digest, v.created_at, v.author, v.message,"
    " v.vouched, c.latest, v.git_commit, v.run_id, c.created_at from version v join collection c"
    " on c.id = v.collection_id join project p on p.id = c.project_id where v.id > :last order by v.id limit :count"
)
_MOVES = (
    " select m.collection_id, m.number, m.old, m.new, m.revision, m.at, m.actor, m.stacked, m.undone_by"
    " from asked a cross join move m where m.collection_id = a.c and m.alias = 'latest' and m.number = a.n"
)
_TAGS = "select version_id, name, value from tag where version_id >= :low and version_id <= :high"
_TAGS_OF = "select version_id, name, value from tag where version_id = :low"
_INPUT = "select 1 from edge e join version v on v.id = e.parent where e.child = :id and v.digest = :d"
_COMPARED = ("digest", "time", "author", "message", "Git commit", "run")
_SPAN = 20
"""Rows of tags that are read for one that is wanted, at most."""
_TOGETHER = 500
"""Versions that one statement asks for."""


@dataclass
class LogsTold:
    """What the entries of `log` and `tag` told so far.

    Attributes:
        versions: How many versions they made.
        latest: Keys of project and collection -> number of the version logged last, and of moves of `latest`.
        moves: How many moves of `latest` there were.
        revisions: Key of a project -> its revision.
        unvouched: Keys and references of the reports that nobody vouches for.
        labels: Version, with how it is called -> its tags, of those whose tags were not what their first entry says.
        tags: How many tags the other versions have; None where an entry of an early release does not say.
        last: Id of the last version that was read in the order in which they were made.
    """

    versions: int = 0
    latest: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    moves: int = 0
    revisions: dict[str, int] = field(default_factory=dict)
    unvouched: dict[Key, str] = field(default_factory=dict)
    labels: dict[Key, dict[str, str]] = field(default_factory=dict)
    tags: int | None = 0
    last: int = 0


class Page:
    """What the entries of one page are compared with.

    Args:
        s: A transaction.
        events: The entries, parsed.
    """

    def __init__(self, s: Session, events: Sequence[Event], told: LogsTold) -> None:
        self._s = s
        self.keys = [key_of(event) for event in events]
        made = sum(event["verb"] == "log" and event["body"].get("created") is True for event in events)
        self._rows = _next(s, told, made)
        asked = dict.fromkeys(key for key in self.keys if key is not None and key not in self._rows)
        self._rows |= _found(s, list(asked))
        ids = [row[1] for row in self._rows.values()]
        self._tags: dict[int, dict[str, str]] = {}
        self._tagged = range(0)
        if ids and max(ids) - min(ids) <= _SPAN * len(ids):
            self._tagged = range(min(ids), max(ids) + 1)
            for version, name, value in s.rows(_TAGS, {"low": min(ids), "high": max(ids)}):
                self._tags.setdefault(version, {})[name] = value
        self._moves: dict[tuple[int, int], Row] = {}
        self._expect_moves(events, told)

    def row(self, key: Key | None) -> Row | None:
        """What is recorded of a version."""
        return None if key is None else self._rows.get(key)

    def tags(self, version: int) -> dict[str, str]:
        """The tags of a version."""
        if version in self._tagged:
            return self._tags.get(version, {})
        return {name: value for _, name, value in self._s.rows(_TAGS_OF, {"low": version})}

    def _expect_moves(self, events: Sequence[Event], told: LogsTold) -> None:
        """Ask for the moves of `latest` that the entries will be compared with."""
        newest: dict[tuple[str, str], tuple[int, int]] = {}
        asked = []
        for key, event in zip(self.keys, events, strict=True):
            row = self.row(key)
            if key is None or row is None or event["verb"] != "log":
                continue
            last, moves = newest.get(key[:2]) or told.latest.get(key[:2], (0, 0))
            if last != key[2]:
                newest[key[:2]] = (key[2], moves + 1)
                asked.append(f"({int(row[2])}, {moves + 1})")
        for some in _batches(asked):
            for row in self._s.rows(f"with asked(c, n) as (values {', '.join(some)}){_MOVES}"):
                self._moves[row[0], row[1]] = row[2:]

    def move(self, collection: int, number: int) -> Row | None:
        """One move of `latest`."""
        return self._moves.get((collection, number))


def key_of(event: Event) -> Key | None:
    """Which version an entry of `log` or `tag` is about; None for others."""
    if event["verb"] not in ("log", "tag"):
        return None
    name, _, number = event["subject"].rpartition(":v")
    if not number.isdigit():
        reference = Reference.parse(event["subject"])
        return (event["project"].casefold(), reference.name.casefold(), reference.number or 0)
    return (event["project"].casefold(), name.rpartition("/")[2].casefold(), int(number))


def logged(s: Session, event: Event, key: Key | None, at: int, page: Page, told: LogsTold) -> Iterator[str]:
    """One entry of `log` against the records.

    Args:
        s: A transaction.
        event: The entry, parsed.
        key: Which version it is about.
        at: Its time, microseconds since 1970.
        page: What is recorded.
        told: What the entries told so far; changed.

    Raises:
        KeyError: It has not what it should.
    """
    if key is None:
        return
    body, subject = event["body"], event["subject"]
    row, home = page.row(key), key[:2]
    if body["created"]:
        told.versions += 1
    if row is None:
        yield f"{subject} is missing, and the audit tells of it"
        told.latest[home] = (key[2], told.latest.get(home, (0, 0))[1] + 1)
        return
    _, version, collection, raw, created_at, author, message, _, _, git_commit, run, begun = row
    newest, moves = told.latest.get(home, (0, 0))
    if not moves and begun != at:
        yield f"the time of the collection {home[1]} is not that of its first version"
    if newest != key[2]:
        told.latest[home] = (key[2], moves + 1)
        told.moves += 1
        goal = (newest or None, key[2], told.revisions.get(key[0], 0), at, event["actor"], 0, None)
        move = page.move(collection, moves + 1)
        if move != goal:
            how = "is missing" if move is None else "is not what the audit says"
            yield f"move {moves + 1} of {subject.rpartition(':')[0]}:latest {how}"
    if body.get("vouched", True):
        told.unvouched.pop(key, None)
    elif body["created"]:
        told.unvouched[key] = subject
    if body["inputs"]:
        yield from _inputs(s, event, key, version)
    if body["created"]:
        more = (body.get("git_commit", git_commit), body.get("run", run))  # an early release did not say
        said = (body["digest"], at, event["actor"], body["message"], *more)
        stored = (digest_from_bytes(raw), created_at, author, message, git_commit, run)
        if said != stored:
            for name, one, other in zip(_COMPARED, said, stored, strict=True):
                if one != other:
                    yield f"{subject}: the {name} is not what the audit says"
    _label(told, key, page.tags(version), body.get("tags"), created=body["created"])


def tagged(event: Event, key: Key | None, page: Page, told: LogsTold) -> None:
    """One entry of `tag`."""
    body = event["body"]
    row = page.row(key)
    if key is not None and row is not None:
        _label(told, key, page.tags(row[1]), body["set"], body["remove"])


def disagreements(s: Session, told: LogsTold) -> Iterator[str]:
    """What shows only once all entries were told, one readable line each."""
    for some in _batches([(*home, newest) for home, (newest, _) in told.latest.items()]):
        found = _found(s, some)
        for key in some:
            if key not in found or found[key][8] != key[2]:
                yield f"{key[1]}:latest is not v{key[2]}, and the audit tells that it was logged last"
    for some in _batches(sorted(told.unvouched)):
        for key, row in _found(s, some).items():
            if row[7] != 0:
                yield f"{told.unvouched[key]} counts as evidence, and the audit tells of nobody who vouches for it"
    relabelled = 0
    for some in _batches(sorted(told.labels)):
        for key, row in _found(s, some).items():
            stored = {name: value for _, name, value in s.rows(_TAGS_OF, {"low": row[1]})}
            relabelled += len(stored)
            if stored != told.labels[key]:
                yield f"{key[1]}:v{key[2]}: the tags are not what the audit says"
    counts = {"moves of latest": ("select count(*) from move where alias = 'latest'", told.moves)}
    if told.tags is not None:
        counts["tags"] = ("select count(*) from tag", told.tags + relabelled)
    for what, (sql, said) in counts.items():
        there = (s.row(sql) or (0,))[0]
        if there != said:
            yield f"there are {there} {what}, and the audit tells of {said}"


def _label(
    told: LogsTold,
    key: Key,
    stored: Mapping[str, str],
    given: Mapping[str, str] | None,
    remove: Sequence[str] = (),
    *,
    created: bool = False,
) -> None:
    """Take what an entry says of tags.

    Mostly the tags are what the first entry of their version says, and then they are counted and forgotten. Those of
    the other versions are kept, and compared once all is told.
    """
    if given is None:
        told.tags = None
        return
    if created:
        if stored == given:
            if told.tags is not None:
                told.tags += len(given)
        else:
            told.labels[key] = dict(given)
        return
    if not given and not remove:
        return
    if key not in told.labels:
        if told.tags is not None:
            told.tags -= len(stored)
        told.labels[key] = dict(stored)
    kept = {name: value for name, value in told.labels[key].items() if name not in remove}
    told.labels[key] = {**kept, **given}


def _inputs(s: Session, event: Event, key: Key, version: int) -> Iterator[str]:
    for one in map(Reference.parse, event["body"]["inputs"]):
        itself = (one.name.casefold(), one.number, one.digest) == (key[1], key[2], event["body"]["digest"])
        if itself:
            continue
        if one.digest is None or s.row(_INPUT, {"id": version, "d": digest_bytes(one.digest)}) is None:
            yield f"{event['subject']}: its input {one} is not recorded, and the audit tells of it"


def _found(s: Session, keys: Sequence[Key]) -> dict[Key, Row]:
    found: dict[Key, Row] = {}
    for some in _batches(keys):
        values = ", ".join(f"({i}, :p{i}, :c{i}, :n{i})" for i in range(len(some)))
        asked = {f"{letter}{i}": key[at] for i, key in enumerate(some) for at, letter in enumerate("pcn")}
        for row in s.rows(f"with asked(i, p, c, n) as (values {values}){_VERSIONS}", asked):
            found[some[row[0]]] = row
    return found


def _next(s: Session, told: LogsTold, count: int) -> dict[Key, Row]:
    """As many versions as some entries made, in the order in which they were made: those that they made, that is."""
    rows = s.rows(_NEXT, {"last": told.last, "count": count}) if count else []
    if rows:
        told.last = rows[-1][4]
    return {(row[0], row[1], row[2]): row[3:] for row in rows}


def _batches(keys: Sequence[T]) -> Iterator[Sequence[T]]:
    for at in range(0, len(keys), _TOGETHER):
        yield keys[at : at + _TOGETHER]
