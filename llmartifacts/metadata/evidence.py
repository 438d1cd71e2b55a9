"""What gates look at: reports on a version, what it came from, and the aliases that it was."""

from __future__ import annotations

from dataclasses import replace

from llmartifacts.metadata import versions
from llmartifacts.metadata.database import Row, Session
from llmartifacts.metadata.versions import VersionRow
from llmartifacts.records.digest import Digest, digest_bytes, digest_from_bytes
from llmartifacts.records.times import from_micros
from llmartifacts.records.version import Version

PAGE = 100
"""Reports that are read at a time."""
MAX_ANCESTORS = 10_000


def reports_on(
    s: Session, project_id: int, project: str, digest: Digest, before: int = 1 << 62, *, vouched: bool = True
) -> list[VersionRow]:
    """A page of the reports of a project that were logged with this content among their inputs, the newest first.

    One that was logged several times is as old as its first log, and withdrawn if any of them is, though that one may
    have been removed: the same evidence under another name is no new evidence. One that was removed everywhere is none.

    Args:
        s: A transaction.
        project_id: Id of the project.
        project: Its name.
        digest: The content.
        before: Only reports with a lower id; the last id of a page begins the next.
        vouched: Those that somebody who may vouch for evidence logged, under whatever name; or those that nobody such
            did. They are looked for apart, so that however many of the second kind hide none of the first.
    """
    rows = s.rows(
        "with about(digest) as (select distinct r.digest from version v join collection c on c.id = v.collection_id"
        " join edge e on e.parent = v.id join version r on r.id = e.child join collection rc on rc.id = r.collection_id"
        " where v.digest = :d and c.project_id = :p and rc.project_id = :p and rc.kind = 'report')"
        " select min(r.id) from about a join version r on r.digest = a.digest"
        " join collection rc on rc.id = r.collection_id where rc.project_id = :p"
        " group by r.digest having count(r.yanked_at) = 0 and count(r.removed_at) < count(*)"
        " and max(r.vouched) = :v and min(r.id) < :before"
        " order by 1 desc limit :n",
        {"d": digest_bytes(digest), "p": project_id, "before": before, "v": int(vouched), "n": PAGE},
    )
    return versions.by_id(s, project, [row[0] for row in rows])


def ancestors(s: Session, version_id: int) -> list[tuple[Version, str]]:
    """Every version that one came from, with the relation by which it was reached, the newest first."""
    rows = s.rows(
        "with recursive reach(id, relation) as (select e.parent, e.relation from edge e where e.child = :v"
        " union select e.parent, e.relation from edge e join reach r on e.child = r.id)"
        " select p.name, c.name, c.kind, v.number, v.digest, v.created_at, v.author, v.message, v.size, v.git_commit,"
        " v.run_id, v.yanked_at, v.yank_reason, r.relation from reach r join version v on v.id = r.id"
        " join collection c on c.id = v.collection_id join project p on p.id = c.project_id"
        " where r.id <> :v order by r.id desc, r.relation limit :n",
        {"v": version_id, "n": MAX_ANCESTORS},
    )
    return [(_version(r), r[13]) for r in rows]


def contained(s: Session, version_id: int) -> list[Version]:
    """Every part of a bundle, and of bundles in it, however many."""
    rows = s.rows(
        "with recursive part(id) as (select e.parent from edge e where e.child = :v and e.relation = 'contains'"
        " union select e.parent from edge e join part p on e.child = p.id where e.relation = 'contains')"
        " select p.name, c.name, c.kind, v.number, v.digest, v.created_at, v.author, v.message, v.size, v.git_commit,"
        " v.run_id, v.yanked_at, v.yank_reason, 'contains' from part x join version v on v.id = x.id"
        " join collection c on c.id = v.collection_id join project p on p.id = c.project_id order by v.id",
        {"v": version_id},
    )
    return [_version(r) for r in rows]


def _version(r: Row) -> Version:
    project, name, kind, number, digest, at, author, message, size, commit, run, yanked, why, _ = r
    made = Version(
        project, name, kind, number, digest_from_bytes(digest), from_micros(at), author, message, size, commit, run
    )
    return made if yanked is None else replace(made, yanked_at=from_micros(yanked), yank_reason=why)


def stages(s: Session, collection_id: int, number: int) -> frozenset[str]:
    """Aliases that point at a version, or once did."""
    rows = s.rows(
        "select distinct alias from move where collection_id = :c and new = :n", {"c": collection_id, "n": number}
    )
    return frozenset(row[0] for row in rows)


def last_served(s: Session, collection_id: int, alias: str, move: int) -> int | None:
    """Number of the version that an alias pointed at before one of its moves; None if it pointed at none."""
    row = s.row(
        "select old from move where collection_id = :c and alias = :a and number = :m",
        {"c": collection_id, "a": alias, "m": move},
    )
    return None if row is None or row[0] is None else int(row[0])


def run_status(s: Session, run: str) -> str:
    """Status of a run; empty if there is no such run."""
    row = s.row("select status from run where id = :r", {"r": run}) if run else None
    return str(row[0]) if row else ""
