"""Projects and collections: names, kinds, revisions."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmartifacts.errors import Conflict, InvalidReference, NotFound, Removed, WrongKind
from llmartifacts.metadata.database import Row, Session
from llmartifacts.records.digest import Digest, digest_bytes
from llmartifacts.records.names import near_names
from llmartifacts.records.promotion import promotion_id
from llmartifacts.records.rights import unseen_hint
from llmartifacts.records.times import from_micros, to_text
from llmartifacts.records.version import Collection, Project

ALL = 1 << 40
"""A limit that is none."""
FEW = 400
"""Names that one is compared with, to find the one that was meant."""
_PROJECT = "p.name, p.revision, p.collections, p.created_at"


@dataclass(slots=True)
class CollectionRow:
    """A collection as the database has it; `head`, `latest` and `latest_move` change as versions are logged."""

    id: int
    project_id: int
    name: str
    kind: str
    head: int
    latest: int | None
    latest_move: int


def find_project(
    s: Session, name: str, visible: Callable[[str], bool] | None = None, *, removed: bool = False
) -> tuple[int, int]:
    """Id and revision of a project; with `removed`, also of one that was removed.

    Raises:
        NotFound: There is none; with near names, of those that are `visible`.
        Removed: It was removed.
    """
    row = s.row(
        "select id, revision, removed_at from project where name_key = :k and name = :n",
        {"k": name.casefold(), "n": name},
    )
    if row is None:
        raise missing_project(s, name, visible)
    if row[2] is not None and not removed:
        raise _removed(name, row[2])
    return row[0], row[1]


def removed_at(s: Session, project_id: int) -> int | None:
    """When a project was removed, in microseconds since 1970, UTC; None if it was not."""
    row = s.row("select removed_at from project where id = :p", {"p": project_id})
    return None if row is None or row[0] is None else int(row[0])


def _removed(name: str, at: int) -> Removed:
    return Removed(
        f"the project {name!r} was removed on {from_micros(at):%Y-%m-%d}, with all of its content",
        what="project",
        name=name,
        at=to_text(from_micros(at)),
        next_step="Use another project; the name is not used again. The audit tells who removed it, and why.",
    )


def missing_project(s: Session, name: str, visible: Callable[[str], bool] | None = None) -> NotFound:
    """The error for a project that is not there, or that somebody may not see: then it is the very same."""
    known = _around(s, "project where", {"k": name.casefold()})
    near = near_names(name, [k for k in known if visible is None or visible(k)])
    step = "" if visible is None else unseen_hint(near)
    return NotFound(f"there is no project {name!r}", what="project", name=name, near=near, next_step=step)


def _around(s: Session, source: str, asked: Mapping[str, Any]) -> list[str]:
    """Names that one may have been meant for: all where they are few, else those beside it in their order.

    To compare it with each of 10,000 would take a tenth of a second, and anybody can ask for what is not there.
    """
    few = {**asked, "n": FEW + 1}
    every = s.rows(f"select name from {source} name_key is not null order by name_key limit :n", few)
    if len(every) > FEW:
        half = {**asked, "n": FEW // 2}
        every = s.rows(f"select name from {source} name_key >= :k order by name_key limit :n", half)
        every += s.rows(f"select name from {source} name_key < :k order by name_key desc limit :n", half)
    return [str(r[0]) for r in every]


def lock_project(s: Session, name: str) -> tuple[int, int]:
    """As `find_project`, and whoever changes its aliases or its policy waits until this transaction ends.

    What is read after that, such as the policy, still holds when the aliases move.
    """
    s.row("select id from project where name_key = :k and name = :n {lock}", {"k": name.casefold(), "n": name})
    return find_project(s, name)


def ensure_project(s: Session, name: str) -> tuple[int, int]:
    """Id and revision of a project, which is made if it is not there."""
    row = s.row(
        "select id, revision, removed_at from project where name_key = :k and name = :n {lock}",
        {"k": name.casefold(), "n": name},
    )
    if row is not None and row[2] is not None:
        raise _removed(name, row[2])
    if row is not None:
        return row[0], row[1]
    return insert_project(s, name), 0


def insert_project(s: Session, name: str) -> int:
    """Make a project; returns its id. Raises `Conflict` if it is there, in whatever case."""
    taken = s.row("select name, removed_at from project where name_key = :k", {"k": name.casefold()})
    if taken and taken[1] is not None:
        raise Conflict(
            f"the name {taken[0]!r} was a project's that was removed, and is not used again",
            field="project",
            next_step="Choose another name.",
        )
    if taken:
        raise Conflict(f"there is a project {taken[0]!r} already", field="project", next_step=f"Use {taken[0]}/….")
    row = s.row(
        "insert into project(name, name_key, created_at) values (:n, :k, :at) returning id",
        {"n": name, "k": name.casefold(), "at": s.now()},
    )
    return int(row[0]) if row else 0


def project_record(s: Session, name: str) -> Project:
    """One project. Raises `NotFound`."""
    project_id, _ = find_project(s, name)
    row = s.row(f"select {_PROJECT} from project p where p.id = :p", {"p": project_id})
    return _project(row or (name, 0, 0, 0))


def list_projects(s: Session, limit: int | None = None, after: str | None = None) -> list[Project]:
    """Every project, by name; a page of those with names above one."""
    rows = s.rows(
        f"select {_PROJECT} from project p where p.name > :after and p.removed_at is null order by p.name limit :n",
        {"after": after or "", "n": ALL if limit is None else limit},
    )
    return [_project(r) for r in rows]


def _project(row: Row) -> Project:
    return Project(row[0], row[1], row[2], from_micros(row[3]))


def bump(
    s: Session,
    project_id: int,
    project: str,
    *,
    actor: str,
    verb: str,
    reason: str,
    ticket: str,
    results: str = "[]",
    undoes: int | None = None,
    policy: Digest | None = None,
    approvals: Sequence[str] = (),
    break_glass: bool = False,
) -> tuple[int, int, str]:
    """Count one change of aliases: the new revision, its time, which never goes back, and its id."""
    row = s.row("select revision from project where id = :p {lock}", {"p": project_id})
    revision = int(row[0] if row else 0) + 1
    s.run("update project set revision = :r where id = :p", {"r": revision, "p": project_id})
    at = s.now()
    last = s.row(
        "select at from promotion where project_id = :p and revision = :r", {"p": project_id, "r": revision - 1}
    )
    if last and last[0] >= at:
        at = last[0] + 1
    s.run(
        "insert into promotion(project_id, revision, at, actor, verb, reason, ticket, results, undoes, policy,"
        " approvals, break_glass) values (:p, :r, :at, :a, :v, :why, :t, :res, :u, :policy, :said, :glass)",
        {
            "p": project_id,
            "r": revision,
            "at": at,
            "a": actor,
            "v": verb,
            "why": reason,
            "t": ticket,
            "res": results,
            "u": undoes,
            "policy": None if policy is None else digest_bytes(policy),
            "said": json.dumps(list(approvals)),
            "glass": int(break_glass),
        },
    )
    return revision, at, promotion_id(project, revision)


def find_collection(s: Session, project_id: int, name: str) -> CollectionRow:
    """One collection by its exact name. Raises `NotFound` with near names."""
    row = s.row(
        "select id, project_id, name, kind, head, latest, latest_move from collection"
        " where project_id = :p and name_key = :k and name = :n",
        {"p": project_id, "k": name.casefold(), "n": name},
    )
    if row is None:
        raise missing_collection(s, project_id, name)
    return CollectionRow(*row)


def missing_collection(s: Session, project_id: int, name: str) -> NotFound:
    """The error for a name that is not there, with near names."""
    known = _around(s, "collection where project_id = :p and", {"p": project_id, "k": name.casefold()})
    return NotFound(f"there is no collection {name!r}", what="collection", name=name, near=near_names(name, known))


def ensure_collection(s: Session, project_id: int, name: str, kind: str, now: int) -> CollectionRow:
    """A collection to log into, made if it is not there.

    Raises:
        WrongKind: It has another kind.
        InvalidReference: One exists whose name differs in case only.
    """
    row = s.row(
        "select id, project_id, name, kind, head, latest, latest_move from collection"
        " where project_id = :p and name_key = :k {lock}",
        {"p": project_id, "k": name.casefold()},
    )
    if row is None:
        made = s.row(
            "insert into collection(project_id, name, name_key, kind, created_at)"
            " values (:p, :n, :k, :kind, :at) returning id",
            {"p": project_id, "n": name, "k": name.casefold(), "kind": kind, "at": now},
        )
        s.run("update project set collections = collections + 1 where id = :p", {"p": project_id})
        return CollectionRow(made[0] if made else 0, project_id, name, kind, 0, None, 0)
    found = CollectionRow(*row)
    if found.name != name:
        raise InvalidReference(
            f"{name!r} differs from the collection {found.name!r} in case only",
            field="name",
            next_step=f"Log it as {found.name}, or choose another name.",
        )
    if found.kind != kind:
        raise WrongKind(
            f"{name} holds {found.kind} versions, and this is a {kind}",
            field="value",
            next_step="Log it under another name: a collection has one kind.",
        )
    return found


def list_collections(
    s: Session,
    project_id: int,
    project: str,
    kind: str | None = None,
    limit: int | None = None,
    after: str | None = None,
) -> list[Collection]:
    """Every collection of a project, by name; a page of those with names above one."""
    of_kind = "" if kind is None else " and c.kind = :kind"
    page = f"from collection c where c.project_id = :p{of_kind} and c.name > :after order by c.name limit :n"
    asked = {"p": project_id, "kind": kind, "after": after or "", "n": ALL if limit is None else limit}
    rows = s.rows(f"select c.id, c.name, c.kind, c.head, c.latest, c.created_at {page}", asked)
    aliases: dict[int, dict[str, int]] = {}
    for collection_id, name, number in s.rows(
        f"select a.collection_id, a.name, a.number from (select c.id {page}) x"
        " join alias a on a.collection_id = x.id where a.number is not null order by a.name",
        asked,
    ):
        aliases.setdefault(collection_id, {})[name] = number
    return [Collection(project, r[1], r[2], r[3], r[4], aliases.get(r[0], {}), from_micros(r[5])) for r in rows]
