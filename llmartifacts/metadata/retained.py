"""What decides which versions are kept, as ids: all of one project, and none that was removed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from llmartifacts.metadata.database import Session
from llmartifacts.records.digest import Digest, digest_bytes

_HERE = "join collection c on c.id = v.collection_id where c.project_id = :p and v.removed_at is null"


def newest_first(s: Session, project_id: int, collections: Iterable[int] | None) -> Iterator[list[tuple[int, int]]]:
    """For each collection, or each of some, id and time of every version, the newest first."""
    ids = collections
    if ids is None:
        ids = [r[0] for r in s.rows("select id from collection where project_id = :p order by id", {"p": project_id})]
    for collection in ids:
        rows = s.rows(
            "select id, created_at from version where collection_id = :c and removed_at is null order by number desc",
            {"c": collection},
        )
        yield [(row[0], row[1]) for row in rows]


def named(s: Session, project_id: int, since: int) -> set[int]:
    """What an alias names, or named since a time; and what `latest` names."""
    rows = s.rows(
        "select v.id from alias a join version v on v.collection_id = a.collection_id and v.number = a.number"
        f" {_HERE} union select v.id from move m join version v on v.collection_id = m.collection_id"
        f" and (v.number = m.new or v.number = m.old) {_HERE} and m.project_id = :p and m.alias <> 'latest'"
        f" and m.at >= :at union select v.id from version v {_HERE} and v.number = c.latest",
        {"p": project_id, "at": since},
    )
    return {row[0] for row in rows}


def results(s: Session, project_id: int, since: int) -> list[str]:
    """What the gates said of each move since a time, and of the last one of each alias that names something."""
    rows = s.rows(
        "select p.results from promotion p where p.project_id = :p and p.results <> '[]' and (p.at >= :at"
        " or p.revision in (select a.revision from alias a join collection c on c.id = a.collection_id"
        " where c.project_id = :p and a.number is not null))",
        {"p": project_id, "at": since},
    )
    return [row[0] for row in rows]


def contained(s: Session, project_id: int) -> list[tuple[int, int]]:
    """Each bundle with each of its parts."""
    rows = s.rows(
        f"select e.child, e.parent from edge e join version v on v.id = e.child {_HERE} and e.relation = 'contains'",
        {"p": project_id},
    )
    return [(row[0], row[1]) for row in rows]


def parents(s: Session, version_id: int) -> set[int]:
    """What a version was logged with."""
    return {row[0] for row in s.rows("select parent from edge where child = :v", {"v": version_id})}


def of_digests(s: Session, project_id: int, digests: Iterable[Digest]) -> set[int]:
    """Every version with one of some contents."""
    found: set[int] = set()
    for digest in digests:
        asked = {"p": project_id, "d": digest_bytes(digest)}
        found |= {row[0] for row in s.rows(f"select v.id from version v {_HERE} and v.digest = :d", asked)}
    return found
