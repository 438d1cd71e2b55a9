"""Leases: what somebody holds by its digest until a time, whatever the retention rules say."""

from __future__ import annotations

from collections.abc import Sequence

from llmartifacts.metadata.database import Session
from llmartifacts.records.digest import Digest, digest_bytes, digest_from_bytes
from llmartifacts.records.leases import Lease
from llmartifacts.records.times import from_micros


def put(
    s: Session, project_id: int, digests: Sequence[Digest], holder: str, *, until: int, at: int, account: str
) -> None:
    """Let a holder hold some versions until a time, and no others that it held before."""
    s.run("delete from lease where project_id = :p and holder = :h", {"p": project_id, "h": holder})
    s.run_many(
        "insert into lease(project_id, digest, holder, until, at, account) values (:p, :d, :h, :until, :at, :a)",
        [
            {"p": project_id, "d": digest_bytes(d), "h": holder, "until": until, "at": at, "a": account}
            for d in dict.fromkeys(digests)
        ],
    )


def account_of(s: Session, project_id: int, holder: str) -> str | None:
    """Whose a holder is; None where nothing is held under that name."""
    row = s.row(
        "select account from lease where project_id = :p and holder = :h and until > :now limit 1",
        {"p": project_id, "h": holder, "now": s.now()},
    )
    return None if row is None else str(row[0])


def count_of(s: Session, account: str) -> int:
    """How many versions an account holds, in all projects."""
    row = s.row("select count(*) from lease where account = :a and until > :now", {"a": account, "now": s.now()})
    return int(row[0]) if row else 0


def digests(s: Session, project_id: int) -> list[Digest]:
    """Digests of all that is held in a project now."""
    rows = s.rows(
        "select distinct digest from lease where project_id = :p and until > :now order by digest",
        {"p": project_id, "now": s.now()},
    )
    return [digest_from_bytes(row[0]) for row in rows]


def of_project(s: Session, project_id: int, project: str) -> list[Lease]:
    """Every lease of a project that has not ended, by holder."""
    rows = s.rows(
        "select holder, digest, until, at, account from lease where project_id = :p and until > :now"
        " order by holder, digest",
        {"p": project_id, "now": s.now()},
    )
    made: dict[str, Lease] = {}
    for holder, raw, until, at, account in rows:
        digest = digest_from_bytes(raw)
        known = made.get(holder)
        held = (*(known.digests if known else ()), digest)
        made[holder] = Lease(project, holder, held, from_micros(until), from_micros(at), account)
    return list(made.values())


def remove_ended(s: Session) -> None:
    """Forget every lease that has ended."""
    s.run("delete from lease where until <= :now", {"now": s.now()})
