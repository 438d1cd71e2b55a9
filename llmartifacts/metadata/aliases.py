"""Aliases, their moves, and promotions.

Moves of an alias form a stack: a promotion puts one on, a rollback takes the top ones off by marking them undone. So
each rollback goes one further back, and history keeps every move.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llmartifacts.metadata.database import Row, Session
from llmartifacts.metadata.projects import ALL, CollectionRow
from llmartifacts.records.digest import digest_from_bytes
from llmartifacts.records.names import LATEST
from llmartifacts.records.policy import GateResult, Verdict
from llmartifacts.records.promotion import HistoryEntry, Move, Promotion, promotion_id
from llmartifacts.records.times import from_micros


@dataclass(frozen=True, slots=True)
class AliasRow:
    """An alias as the database has it; `number` is None where it was removed or never set."""

    number: int | None = None
    move: int = 0


@dataclass(frozen=True, slots=True)
class MoveRow:
    """A move with its ids."""

    collection_id: int
    name: str
    alias: str
    number: int
    revision: int
    old: int | None
    new: int | None
    stacked: bool
    undone_by: int | None


_MOVE = "m.collection_id, c.name, m.alias, m.number, m.revision, m.old, m.new, m.stacked, m.undone_by"


def current(s: Session, collection_id: int, alias: str, *, lock: bool = True) -> AliasRow:
    """What an alias points at now; `lock` it where it may be moved next, which only a write transaction can."""
    row = s.row(
        f"select number, move from alias where collection_id = :c and name = :n {'{lock}' if lock else ''}",
        {"c": collection_id, "n": alias},
    )
    return AliasRow(*row) if row else AliasRow()


def move(
    s: Session,
    collection: CollectionRow,
    alias: str,
    new: int | None,
    *,
    revision: int,
    at: int,
    actor: str,
    stacked: bool = True,
) -> Move:
    """Move an alias; the caller has checked that it may."""
    was = current(s, collection.id, alias)
    number = was.move + 1
    s.run(
        "insert into alias(collection_id, name, number, move, revision) values (:c, :a, :new, :m, :r)"
        " on conflict (collection_id, name) do update"
        " set number = excluded.number, move = excluded.move, revision = excluded.revision",
        {"c": collection.id, "a": alias, "new": new, "m": number, "r": revision},
    )
    if number == 1:  # from now on a list of the alias in the project has this collection
        s.run(
            "insert into alias_holder(project_id, alias, collection, collection_id) values (:p, :a, :n, :c)"
            " on conflict do nothing",
            {"p": collection.project_id, "a": alias, "n": collection.name, "c": collection.id},
        )
    _insert_move(s, collection, alias, number, was.number, new, revision, at, actor, stacked)
    return Move(collection.name, alias, number, was.number, new)


def move_latest(s: Session, collection: CollectionRow, new: int, *, revision: int, at: int, actor: str) -> None:
    """Let `latest` follow a log; it counts its moves but not in the project's revision."""
    if collection.latest == new:
        return
    collection.latest_move += 1
    _insert_move(s, collection, LATEST, collection.latest_move, collection.latest, new, revision, at, actor, False)
    collection.latest = new


def save_head(s: Session, collection: CollectionRow) -> None:
    """Write back what logging changed in a collection."""
    s.run(
        "update collection set head = :h, latest = :l, latest_move = :m where id = :c",
        {"h": collection.head, "l": collection.latest, "m": collection.latest_move, "c": collection.id},
    )


def _insert_move(
    s: Session,
    collection: CollectionRow,
    alias: str,
    number: int,
    old: int | None,
    new: int | None,
    revision: int,
    at: int,
    actor: str,
    stacked: bool,
) -> None:
    s.run(
        "insert into move(collection_id, alias, number, project_id, revision, at, actor, old, new, stacked)"
        " values (:c, :a, :m, :p, :r, :at, :who, :old, :new, :s)",
        {
            "c": collection.id,
            "a": alias,
            "m": number,
            "p": collection.project_id,
            "r": revision,
            "at": at,
            "who": actor,
            "old": old,
            "new": new,
            "s": int(stacked),
        },
    )


def stack(s: Session, collection_id: int, alias: str, limit: int = 1 << 40) -> list[MoveRow]:
    """Moves of an alias that a rollback can undo, newest first."""
    rows = s.rows(
        f"select {_MOVE} from move m join collection c on c.id = m.collection_id where m.collection_id = :c"
        " and m.alias = :a and m.stacked = 1 and m.undone_by is null order by m.number desc limit :limit",
        {"c": collection_id, "a": alias, "limit": limit},
    )
    return [_move_row(r) for r in rows]


def of_revision(s: Session, project_id: int, revision: int) -> list[MoveRow]:
    """The moves of one promotion, by name."""
    return of_revisions(s, project_id, revision, revision).get(revision, [])


def of_revisions(s: Session, project_id: int, low: int, high: int) -> dict[int, list[MoveRow]]:
    """Revision -> the moves of its promotion, by name; from one revision to another."""
    rows = s.rows(
        f"select {_MOVE} from move m join collection c on c.id = m.collection_id where m.project_id = :p"
        " and m.revision between :low and :high and m.alias <> 'latest' order by c.name, m.alias",
        {"p": project_id, "low": low, "high": high},
    )
    made: dict[int, list[MoveRow]] = {}
    for row in map(_move_row, rows):
        made.setdefault(row.revision, []).append(row)
    return made


def served(s: Session, collection_id: int, alias: str, number: int) -> bool:
    """Whether an alias ever pointed at a version."""
    found = s.row(
        "select 1 from move where collection_id = :c and alias = :a and new = :n limit 1",
        {"c": collection_id, "a": alias, "n": number},
    )
    return found is not None


def putting(s: Session, collection_id: int, alias: str, number: int) -> int:
    """Revision of the newest move, no rollback, that let an alias point at a version; 0 if none did."""
    row = s.row(
        "select max(m.revision) from move m join promotion p on p.project_id = m.project_id and p.revision = m.revision"
        " where m.collection_id = :c and m.alias = :a and m.new = :n and p.verb <> 'rollback'",
        {"c": collection_id, "a": alias, "n": number},
    )
    return int(row[0] or 0) if row else 0


def mark_undone(s: Session, moves: Sequence[MoveRow], revision: int) -> None:
    """Take moves off the stack."""
    s.run_many(
        "update move set undone_by = :r where collection_id = :c and alias = :a and number = :n",
        [{"r": revision, "c": m.collection_id, "a": m.alias, "n": m.number} for m in moves],
    )


def naming(s: Session, collection_id: int, number: int) -> list[str]:
    """Aliases that point at a version, `latest` left out."""
    rows = s.rows(
        "select name from alias where collection_id = :c and number = :n order by name",
        {"c": collection_id, "n": number},
    )
    return [r[0] for r in rows]


def history(
    s: Session,
    project: str,
    collection: CollectionRow,
    alias: str,
    limit: int | None,
    before: int | None = None,
) -> list[HistoryEntry]:
    """Every move of an alias, newest first; a page of those with lower numbers."""
    rows = s.rows(
        "select m.number, m.revision, m.at, m.actor, m.old, m.new, m.undone_by, p.verb, p.reason, p.ticket, p.results,"
        " v.message, p.approvals, p.break_glass, w.reviewer from move m"
        " left join promotion p on p.project_id = m.project_id and p.revision = m.revision and m.alias <> 'latest'"
        " left join review w on w.project_id = p.project_id and w.revision = p.revision"
        " left join version v on v.collection_id = m.collection_id and v.number = m.new and m.alias = 'latest'"
        " where m.collection_id = :c and m.alias = :a and m.number < :before order by m.number desc limit :limit",
        {
            "c": collection.id,
            "a": alias,
            "limit": ALL if limit is None else limit,
            "before": ALL if before is None else before,
        },
    )
    return [_entry(project, collection.name, alias, r) for r in rows]


def _entry(project: str, name: str, alias: str, r: Row) -> HistoryEntry:
    moved = r[7] is not None
    return HistoryEntry(
        name,
        alias,
        r[1],
        r[0],
        from_micros(r[2]),
        r[3],
        r[7] if moved else "log",
        (r[8] if moved else r[11]) or "",
        r[9] or "",
        r[4],
        r[5],
        promotion_id(project, r[1]) if moved else "",
        parse_results(r[10]) if moved else (),
        tuple(json.loads(r[12])) if moved else (),
        "" if r[6] is None else promotion_id(project, r[6]),
        bool(r[13]),
        r[14] or "",
    )


def standing(
    s: Session,
    project_id: int,
    project: str,
    alias: str,
    revision: int,
    at: int | None,
    limit: int | None = None,
    after: str | None = None,
) -> list[tuple[HistoryEntry, int]]:
    """For each collection, by name, the move that put an alias where it was at a revision, and the collection's id.

    Of `latest` it is the one at a time. Collections that ever had the alias are walked along an index, so many at a
    time as are asked for, however many others there are.
    """
    latest = alias == LATEST
    bound = "x.at <= :at" if latest else "x.revision <= :r"
    walked = (
        "select c.name as name, c.id as id from collection c"
        " where c.project_id = :p and c.name > :after order by c.name"
        if latest
        else "select c.collection as name, c.collection_id as id from alias_holder c"
        " where c.project_id = :p and c.alias = :a and c.collection > :after order by c.collection"
    )
    sql = (
        "select m.number, m.revision, m.at, m.actor, m.old, m.new, m.undone_by, p.verb, p.reason, p.ticket, p.results,"
        f" v.message, p.approvals, p.break_glass, w.reviewer, c.name, c.id from ({walked} limit :n) c"
        " left join move m on m.collection_id = c.id and m.alias = :a and m.number ="
        f" (select max(x.number) from move x where x.collection_id = c.id and x.alias = :a and {bound})"
        " left join promotion p on p.project_id = m.project_id and p.revision = m.revision and m.alias <> 'latest'"
        " left join review w on w.project_id = p.project_id and w.revision = p.revision"
        " left join version v on v.collection_id = m.collection_id and v.number = m.new and m.alias = 'latest'"
        " order by c.name"
    )
    asked: dict[str, Any] = {"p": project_id, "a": alias, "r": revision, "at": 1 << 62 if at is None else at}
    found: list[tuple[HistoryEntry, int]] = []
    while limit is None or len(found) < limit:
        many = ALL if limit is None else limit
        rows = s.rows(sql, {**asked, "after": after or "", "n": many})
        there = [(_entry(project, r[15], alias, r), int(r[16])) for r in rows if r[5] is not None]
        found += there if limit is None else there[: limit - len(found)]
        if len(rows) < many:
            break
        after = rows[-1][15]
    return found


def revision_at(s: Session, project_id: int, at: int) -> int:
    """The project's revision at a time."""
    row = s.row(  # times grow with the revisions
        "select revision from promotion where project_id = :p and at <= :at order by at desc limit 1",
        {"p": project_id, "at": at},
    )
    return int(row[0]) if row else 0


def promotions(
    s: Session,
    project_id: int,
    project: str,
    *,
    limit: int = 20,
    revision: int | None = None,
    before: int | None = None,
) -> list[Promotion]:
    """The newest promotions, newest first, or those of revisions below one; or the one of a revision."""
    which = "p.revision < :r" if revision is None else "p.revision = :r"
    bound = revision if revision is not None else ALL if before is None else before
    rows = s.rows(
        "select p.revision, p.at, p.actor, p.verb, p.reason, p.ticket, p.results, p.undoes, p.policy, p.approvals,"
        " p.break_glass, w.reviewer, w.reason from promotion p"
        " left join review w on w.project_id = p.project_id and w.revision = p.revision"
        f" where p.project_id = :p and {which} order by p.revision desc limit :limit",
        {"p": project_id, "r": bound, "limit": limit},
    )
    moved = of_revisions(s, project_id, rows[-1][0], rows[0][0]) if rows else {}
    made = []
    for r in rows:
        moves = moved.get(r[0], [])
        undone = {m.undone_by for m in moves}
        by = undone.pop() if len(undone) == 1 else None
        made.append(
            Promotion(
                promotion_id(project, r[0]),
                project,
                r[0],
                r[3],
                from_micros(r[1]),
                r[2],
                r[4],
                r[5],
                tuple(Move(m.name, m.alias, m.number, m.old, m.new) for m in moves),
                parse_results(r[6]),
                "" if r[7] is None else promotion_id(project, r[7]),
                "" if by is None else promotion_id(project, by),
                "" if r[8] is None else digest_from_bytes(r[8]),
                tuple(json.loads(r[9])),
                bool(r[10]),
                r[11] or "",
                r[12] or "",
            )
        )
    return made


def results_text(results: Sequence[GateResult]) -> str:
    """Gate results as the database keeps them."""
    rows = [[r.gate, r.rule, r.verdict.value, r.message, r.next_step, r.subject, list(r.evidence)] for r in results]
    return json.dumps(rows, ensure_ascii=False)


def parse_results(text: str) -> tuple[GateResult, ...]:
    """The inverse of `results_text`; the first releases kept neither subject nor evidence."""
    return tuple(
        GateResult(g, rule, Verdict(v), m, n, *more[:1], *map(tuple, more[1:]))
        for g, rule, v, m, n, *more in json.loads(text)
    )


def _move_row(r: Row) -> MoveRow:
    return MoveRow(r[0], r[1], r[2], r[3], r[4], r[5], r[6], bool(r[7]), r[8])
