"""Runs: executions that used and produced versions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llmartifacts.errors import Conflict, NotAllowed, NotFound
from llmartifacts.metadata.database import Row, Session
from llmartifacts.records.digest import digest_from_bytes
from llmartifacts.records.names import near_names
from llmartifacts.records.reference import Reference
from llmartifacts.records.times import from_micros
from llmartifacts.records.version import RunRecord, Version

_COLUMNS = "id, name, status, parameters, author, git_commit, started_at, ended_at, error"


def insert(
    s: Session, project_id: int, run: str, name: str, parameters: Mapping[str, Any], author: str, git_commit: str
) -> None:
    """Begin a run."""
    s.run(
        "insert into run(id, project_id, name, status, parameters, author, git_commit, started_at)"
        " values (:i, :p, :n, 'running', :x, :a, :g, :at)",
        {
            "i": run,
            "p": project_id,
            "n": name,
            "x": json.dumps(parameters, ensure_ascii=False, sort_keys=True),
            "a": author,
            "g": git_commit,
            "at": s.now(),
        },
    )


def attach(s: Session, run: str, version_id: int, relation: str) -> None:
    """Record that a run `used` or `produced` a version."""
    s.run(
        "insert into run_version(run_id, version_id, relation, position)"
        " values (:r, :v, :how, (select count(*) from run_version where run_id = :r)) on conflict do nothing",
        {"r": run, "v": version_id, "how": relation},
    )


def require_running(s: Session, project_id: int, project: str, run: str, author: str | None = None) -> None:
    """Check that a run is open, and somebody's own where it must be. Raises `NotFound`, `Conflict`, `NotAllowed`."""
    row = s.row("select status, author from run where id = :r and project_id = :p", {"r": run, "p": project_id})
    if row is None:
        raise _missing(s, project_id, run)
    status, owner = row
    if author is not None and owner != author:
        raise NotAllowed(f"the run {run} is {owner}'s", field="run", next_step="Begin a run of your own.")
    if status != "running":
        raise Conflict(f"the run {run} has ended ({status})", field="run", next_step="Begin another run.")


def end(s: Session, run: str, status: str, error: str) -> None:
    """End a run."""
    s.run(
        "update run set status = :s, error = :e, ended_at = :at where id = :r",
        {"s": status, "e": error, "at": s.now(), "r": run},
    )


def get(s: Session, project_id: int, project: str, run: str) -> RunRecord:
    """One run by id. Raises `NotFound`."""
    row = s.row(f"select {_COLUMNS} from run where id = :r and project_id = :p", {"r": run, "p": project_id})
    if row is None:
        raise _missing(s, project_id, run)
    return _record(s, project, row)


def _missing(s: Session, project_id: int, run: str) -> NotFound:
    rows = s.rows("select id from run where project_id = :p order by started_at desc limit 100", {"p": project_id})
    return NotFound(
        f"there is no run {run!r:.200}", what="run", name=run, near=near_names(run, [str(r[0]) for r in rows])
    )


def newest(s: Session, project_id: int, project: str, limit: int, before: str | None = None) -> list[RunRecord]:
    """The newest runs, newest first; those that come after one in this order. Raises `NotFound`."""
    first = (
        None
        if before is None
        else s.row("select started_at from run where id = :r and project_id = :p", {"r": before, "p": project_id})
    )
    if before is not None and first is None:
        raise NotFound(f"there is no run {before!r}", what="run", name=before)
    rows = s.rows(
        f"select {_COLUMNS} from run where project_id = :p and started_at <= :at and (started_at < :at or id > :r)"
        " order by started_at desc, id limit :n",
        {"p": project_id, "n": limit, "at": 1 << 62 if first is None else first[0], "r": before or ""},
    )
    return [_record(s, project, row) for row in rows]


def _record(s: Session, project: str, row: Row) -> RunRecord:
    sides: dict[str, list[Reference]] = {"used": [], "produced": []}
    for relation, owner, name, number, digest in s.rows(
        "select x.relation, p.name, c.name, v.number, v.digest from run_version x join version v on v.id = x.version_id"
        " join collection c on c.id = v.collection_id join project p on p.id = c.project_id"
        " where x.run_id = :r order by x.position",
        {"r": row[0]},
    ):
        pinned = Version(owner, name, "", number, digest_from_bytes(digest), from_micros(0)).pinned
        sides[relation].append(pinned)
    return RunRecord(
        row[0],
        project,
        row[1],
        row[2],
        json.loads(row[3]),
        row[4],
        row[5],
        from_micros(row[6]),
        None if row[7] is None else from_micros(row[7]),
        row[8],
        tuple(sides["used"]),
        tuple(sides["produced"]),
    )
