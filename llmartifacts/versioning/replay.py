"""Do the records say what the audit says? Every change wrote an audit entry: here each is held against the records.

One pass over the audit, with a look-up or two for each entry and little memory: counts, the newest version of each
collection, the ids of keys. Then the counts must agree, so that nothing is there that no entry tells of. What no entry
tells of is not compared: edges of lineage beyond those of inputs, and what early releases did not write there.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from llmartifacts.errors import LlmartifactsError
from llmartifacts.metadata import attestations, audit
from llmartifacts.metadata.database import Row, Session
from llmartifacts.records.canonical import canonical_bytes, decode_json
from llmartifacts.records.digest import Digest, digest_bytes, digest_from_bytes, digest_of
from llmartifacts.records.promotion import promotion_id
from llmartifacts.records.reference import Reference
from llmartifacts.records.times import from_micros, parse_time, to_micros, to_text
from llmartifacts.versioning import replay_accounts, replay_logs, replay_removals, replay_signed

_VERSION = (
    "select v.digest, v.created_at, v.author, v.message, v.yanked_at, v.yank_reason, v.id, c.latest, v.vouched"
    " from version v"
    " join collection c on c.id = v.collection_id join project p on p.id = c.project_id"
    " where p.name_key = :p and c.name_key = :c and v.number = :n"
)
_PROMOTION = (
    "select x.at, x.actor, x.reason, x.ticket, x.undoes, x.policy, x.break_glass, x.verb, x.approvals, x.results"
    " from promotion x"
    " join project p on p.id = x.project_id"
    " where p.name_key = :p and x.revision = :r"
)
_MOVE = (
    "select m.old, m.new, m.revision, m.stacked from move m join collection c on c.id = m.collection_id"
    " join project p on p.id = c.project_id"
    " where p.name_key = :p and c.name_key = :c and m.alias = :a and m.number = :n"
)
_UNDONE = (
    "select m.undone_by from move m join collection c on c.id = m.collection_id join project p on p.id = c.project_id"
    " where p.name_key = :p and c.name_key = :c and m.alias = :a and m.revision = :undone"
)
_RUN = (
    "select x.name, x.author, x.status, x.error from run x join project p on p.id = x.project_id"
    " where p.name_key = :p and x.id = :r"
)
_USED = (
    "select 1 from run_version x join version v on v.id = x.version_id"
    " where x.run_id = :r and x.relation = 'used' and v.digest = :d"
)
_POLICY = (
    "select x.digest, x.body, x.author, x.message from policy x join project p on p.id = x.project_id"
    " where p.name_key = :p and x.number = :n"
)
_REVIEW = (
    "select x.reviewer, x.reason from review x join project p on p.id = x.project_id"
    " where p.name_key = :p and x.revision = :r"
)
_COUNTS = {
    "projects": "select count(*) from project",
    "runs": "select count(*) from run",
    "versions": "select count(*) from version",
    "withdrawn versions": "select count(*) from version where yanked_at is not null",
    "reports that nobody vouches for": "select count(*) from version where vouched <> 1",
    "promotions": "select count(*) from promotion",
    "moves": "select count(*) from move where alias <> 'latest'",
    "policies": "select count(*) from policy",
    "reviews": "select count(*) from review",
    "signed statements and withdrawals": "select count(*) from attestation",
}

_SAME_TIME = 60_000_000
"""Microseconds by which two times of one transaction may differ."""
Event = Mapping[str, Any]


@dataclass
class _Told:
    """What the audit told so far.

    Attributes:
        counts: How many of what.
        logs: Versions, their tags and the moves of `latest`.
        keys: Ids of the trusted keys.
        accounts: Accounts, grants and tokens.
        removals: Versions and projects that were removed.
        projects: Keys of the projects that entries are of.
    """

    counts: Counter[str] = field(default_factory=Counter)
    logs: replay_logs.LogsTold = field(default_factory=replay_logs.LogsTold)
    keys: set[str] = field(default_factory=set)
    accounts: replay_accounts.AccountsTold = field(default_factory=replay_accounts.AccountsTold)
    removals: replay_removals.RemovalsTold = field(default_factory=replay_removals.RemovalsTold)
    projects: set[str] = field(default_factory=set)


def disagreements(s: Session, *, filing: bool = False) -> Iterator[str]:
    """Where the records are not what the audit says, one readable line each.

    Args:
        s: A transaction.
        filing: Also hold what is recorded beside each entry, by which it is found, against the entry.
    """
    told = _Told()
    for stored in audit.pages(s):
        entries = [(one, _parsed(one.entry)) for one in stored]
        events = [event for _, event in entries if not isinstance(event, Exception)]
        page = replay_logs.Page(s, events, told.logs)
        keys = iter(page.keys)
        for one, event in entries:
            if isinstance(event, Exception):
                yield f"audit entry {one.number} cannot be read: {type(event).__name__}: {event}"
                continue
            if filing and (wrong := _misfiled(one, event)):
                yield f"audit entry {one.number}: {wrong}"
            key = next(keys)
            try:
                told.removals.tell(event)
                if event["project"]:  # on one machine the first log makes a project, and no entry says so by itself
                    told.projects.add(event["project"].casefold())
                if event["verb"] == "log":
                    yield from replay_logs.logged(s, event, key, one.at, page, told.logs)
                    continue
                if event["verb"] == "tag":
                    replay_logs.tagged(event, key, page, told.logs)
                look = _LOOK.get(event["verb"])
                if look is not None:
                    yield from look(s, event, told)
                told.accounts.tell(event)
            except (AttributeError, KeyError, TypeError, ValueError, LlmartifactsError) as error:
                yield f"audit entry {one.number} cannot be read: {type(error).__name__}: {error}"
    yield from replay_logs.disagreements(s, told.logs)
    told.counts["versions"] = told.logs.versions
    told.counts["projects"] = len(told.projects)
    told.counts["reports that nobody vouches for"] = len(told.logs.unvouched)
    try:
        yield from replay_signed.keys_disagree(s, told.keys)
    except LlmartifactsError as error:
        yield error.message
    yield from replay_accounts.disagreements(s, told.accounts)
    yield from replay_removals.disagreements(s, told.removals)
    for what, sql in _COUNTS.items():
        row = s.row(sql)
        if row is None or row[0] != told.counts[what]:
            yield f"there are {row[0] if row else 0} {what}, and the audit tells of {told.counts[what]}"


def _parsed(entry: bytes) -> dict[str, Any] | Exception:
    """One entry as the JSON object that was hashed; or why it is none, or not an entry at all."""
    try:
        event: dict[str, Any] = decode_json(entry.decode())
        if any(type(event[name]) is not str for name in ("project", "at", "actor", "verb", "subject")):
            raise TypeError("a field of an entry is text")
        if type(event["body"]) is not dict:
            raise TypeError("the body of an entry is an object")
        replay_logs.key_of(event)
    except (AttributeError, KeyError, TypeError, ValueError, LlmartifactsError) as error:
        return error
    return event


def _misfiled(stored: audit.StoredEntry, event: Event) -> str:
    """What is recorded beside an entry and is not what it says."""
    recorded = {"project": stored.project, "verb": stored.verb, "subject": stored.subject}
    wrong = [name for name, value in recorded.items() if event[name] != value]
    try:
        same = to_micros(parse_time(event["at"])) == stored.at
    except (OverflowError, ValueError, TypeError, LlmartifactsError):
        same = False
    if not same:
        wrong.append("time")
    return ", ".join(f"its {name} is not what it says" for name in wrong)


def _yanked(s: Session, event: Event, told: _Told) -> Iterator[str]:
    told.counts["withdrawn versions"] += 1
    row = _version(s, event)
    stored = None if row is None else (row[4] is not None, row[5])
    yield from _compared(event["subject"], ("withdrawal", "reason"), (True, event["body"]["reason"]), stored)
    if row is not None and row[4] is not None and row[4] != event["body"].get("yanked_at", row[4]):
        yield f"{event['subject']}: the time of its withdrawal is not what the audit says"


def _moved(s: Session, event: Event, told: _Told) -> Iterator[str]:
    told.counts["promotions"] += 1
    project, subject, body = event["project"], event["subject"], event["body"]
    revision = int(subject.rpartition("@r")[2])
    told.logs.revisions[project.casefold()] = revision
    row = s.row(_PROMOTION, {"p": project.casefold(), "r": revision})
    asked = (body.get("policy"), bool(body.get("break_glass")), event["verb"], body.get("approvals", []))
    said = (event["at"], event["actor"], body["reason"], body["ticket"], body["undoes"], *asked)
    stored = None
    if row is not None:
        undoes = "" if row[4] is None else promotion_id(project, row[4])
        policy = None if row[5] is None else digest_from_bytes(row[5])
        verb = "promote" if row[7] == "log" else row[7]
        approvals = json.loads(row[8])
        stored = (to_text(from_micros(row[0])), row[1], row[2], row[3], undoes, policy, bool(row[6]), verb, approvals)
        if body.get("recorded", "") not in ("", digest_of(row[9].encode())):  # the first releases had none of these
            yield f"{subject}: what the gates said is not what the audit says"
    names = (
        "time",
        "actor",
        "reason",
        "ticket",
        "undone promotion",
        "policy",
        "broken glass",
        "verb",
        "list of approvers",
    )
    yield from _compared(subject, names, said, stored)
    for move in body["moves"]:
        told.counts["moves"] += 1
        where = {"p": project.casefold(), "c": move["name"].casefold(), "a": move["alias"], "n": move["move"]}
        label = f"move {move['move']} of {move['name']}:{move['alias']}"
        goal = (move["old"], move["new"], revision, int(not body["undoes"]))
        yield from _compared(label, ("start", "goal", "revision", "place in the stack"), goal, s.row(_MOVE, where))
        if body["undoes"]:
            undone = s.row(_UNDONE, where | {"undone": int(body["undoes"].rpartition("@r")[2])})
            yield from _compared(f"what {label} undid", ("rollback",), (revision,), undone)


def _policy(s: Session, event: Event, told: _Told) -> Iterator[str]:
    told.counts["policies"] += 1
    body = event["body"]
    number = int(event["subject"].rpartition("@p")[2])
    row = s.row(_POLICY, {"p": event["project"].casefold(), "n": number})
    said = (body["digest"], canonical_bytes(body["body"]).decode(), event["actor"], body["message"])
    stored = None if row is None else (digest_from_bytes(row[0]), *row[1:])
    yield from _compared(f"policy {event['subject']}", ("digest", "content", "author", "message"), said, stored)


def _reviewed(s: Session, event: Event, told: _Told) -> Iterator[str]:
    told.counts["reviews"] += 1
    revision = int(event["subject"].rpartition("@r")[2])
    row = s.row(_REVIEW, {"p": event["project"].casefold(), "r": revision})
    said = (event["actor"], event["body"]["reason"])
    yield from _compared(f"review of {event['subject']}", ("reviewer", "reason"), said, row)


def _signed(s: Session, event: Event, told: _Told) -> Iterator[str]:
    told.counts["signed statements and withdrawals"] += 1
    yield from _SIGNED[event["verb"]](s, event)


def _key(s: Session, event: Event, told: _Told) -> Iterator[str]:
    told.keys.add(event["subject"].removeprefix(attestations.key_subject("")))
    return iter(())


def _project(s: Session, event: Event, told: _Told) -> Iterator[str]:
    told.projects.add(event["subject"].casefold())
    row = s.row("select created_at from project where name = :p", {"p": event["subject"]})
    if row is None:
        yield f"the project {event['subject']} is missing, and the audit tells of it"
    elif abs(row[0] - to_micros(parse_time(event["at"]))) > _SAME_TIME:
        yield f"the project {event['subject']}: the time is not what the audit says"


def _ran(s: Session, event: Event, told: _Told) -> Iterator[str]:
    run, body = event["subject"], event["body"]
    row = s.row(_RUN, {"p": event["project"].casefold(), "r": run})
    if body["status"] == "running":
        told.counts["runs"] += 1
        stored = None if row is None else row[:2]
        yield from _compared(f"the run {run}", ("name", "author"), (body["name"], event["actor"]), stored)
    elif body["status"] == "used":
        digest = Reference.parse(body["used"]).digest
        if digest is None or not _is(s, _USED, r=run, d=digest):
            yield f"the run {run} used {body['used']}, which is not recorded"
    else:
        stored = None if row is None else row[2:]
        yield from _compared(f"the run {run}", ("status", "error"), (body["status"], body["error"]), stored)


_SIGNED: Mapping[str, Callable[[Session, Event], Iterator[str]]] = {
    "approve": replay_signed.approved,
    "attest": replay_signed.attested,
    "withdraw": replay_signed.withdrawn,
}
_LOOK: Mapping[str, Callable[[Session, Event, _Told], Iterator[str]]] = {
    "yank": _yanked,
    "promote": _moved,
    "rollback": _moved,
    "remove": _moved,
    "policy": _policy,
    "review": _reviewed,
    "approve": _signed,
    "attest": _signed,
    "withdraw": _signed,
    "key-trust": _key,
    "key-rotate": _key,
    "project": _project,
    "run": _ran,
}


def _version(s: Session, event: Event) -> Row | None:
    reference = Reference.parse(event["subject"])
    keys = {"p": event["project"].casefold(), "c": reference.name.casefold(), "n": reference.number}
    return s.row(_VERSION, keys)


def _is(s: Session, sql: str, *, d: Digest, **values: Any) -> bool:
    """Whether there is a row about a digest."""
    return s.row(sql, {"d": digest_bytes(d), **values}) is not None


def _compared(
    what: str, names: tuple[str, ...], said: tuple[Any, ...], stored: tuple[Any, ...] | None
) -> Iterator[str]:
    if stored is None:
        yield f"{what} is missing, and the audit tells of it"
        return
    for name, one, other in zip(names, said, stored, strict=True):
        if one != other:
            yield f"{what}: the {name} is not what the audit says"
