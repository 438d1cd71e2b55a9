"""Where each chunk lies: packs, and the chunks in them.

Derived from the packs' footers, and large: a registry has millions of rows, and a thousand are looked up for every
16 MB of an index. So ids go to the database as one value, sorted, thousands at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

from llmartifacts.metadata.database import Session

ID_BYTES = 32
"""Bytes of the id of a chunk, and of the name of a pack."""
Numbers: TypeAlias = tuple[int, int, int, int]
"""Of a chunk in a pack: its first byte, bytes that it takes, bytes of its content, form."""
_AT_ONCE = 32_768
_FORMS = 2


class PackRow(NamedTuple):
    """A pack.

    Attributes:
        name: Its name, 64 hexadecimal digits.
        size: Bytes of the file.
        created_at: When it was recorded, in microseconds since 1970, UTC.
    """

    name: str
    size: int
    created_at: int


def find(s: Session, ids: Sequence[bytes]) -> Iterator[tuple[bytes, str, int, int, int, int]]:
    """Id, name of the pack and the four numbers of every chunk that is recorded, in no particular order.

    Args:
        s: A transaction.
        ids: Ids of 32 bytes.

    Raises:
        ValueError: The database holds what no release writes.
    """
    names: dict[int, str] = {}
    for start in range(0, len(ids), _AT_ONCE):
        part = sorted(ids[start : start + _AT_ONCE])  # neighbours lie in one page
        joined = b"".join(part)
        if len(joined) != ID_BYTES * len(part):
            raise ValueError("an id of a chunk has 32 bytes")
        # Each id is cut from the one value by its number; `left join`, so that the ids lead and never the table.
        rows = s.rows(
            "with recursive n(i) as (select 0 union all select n.i + 1 from n where n.i + 1 < :count)"
            " select k.id, k.pack, cast(k.place_offset as bigint), cast(k.stored as bigint), cast(k.length as bigint),"
            " cast(k.form as bigint) from n left join chunk k on k.id = substr(:ids, n.i * 32 + 1, 32)"
            " where k.id is not null",
            {"ids": joined, "count": len(part)},
        )
        for number in {row[1] for row in rows} - names.keys():
            names[number] = _name(s.row("select name from pack where id = :id", {"id": number}))
        for name, number, offset, stored, length, form in rows:
            if offset < 0 or stored < 0 or length < 0 or not 0 <= form < _FORMS:
                raise ValueError("a chunk is recorded with a number that it cannot have")
            yield name, names[number], offset, stored, length, form


def record(s: Session, pack: PackRow, chunks: Iterable[tuple[bytes, Numbers]]) -> None:
    """Record a pack; a chunk that is known already is from now on found in this one.

    Args:
        s: A write transaction.
        pack: The pack; one of that name is taken as the same.
        chunks: Id and numbers of every chunk in it.
    """
    row = s.row(
        "insert into pack(name, size, created_at) values (:name, :size, :now)"
        " on conflict(name) do update set size = excluded.size returning id",
        {"name": bytes.fromhex(pack.name), "size": pack.size, "now": pack.created_at},
    )
    number = row[0] if row else None
    s.run_many(
        "insert into chunk(id, pack, place_offset, stored, length, form)"
        " values (:id, :pack, :offset, :stored, :length, :form) on conflict(id) do update set pack = excluded.pack,"
        " place_offset = excluded.place_offset, stored = excluded.stored, length = excluded.length,"
        " form = excluded.form",
        [
            {"id": name, "pack": number, "offset": offset, "stored": stored, "length": length, "form": form}
            for name, (offset, stored, length, form) in sorted(chunks)  # in the order of the table: far fewer pages
        ],
    )


def forget(s: Session, names: Iterable[str]) -> None:
    """Remove packs and every chunk that is found in them; those that are not recorded are passed over."""
    keys = [{"name": bytes.fromhex(name)} for name in names]
    s.run_many("delete from chunk where pack = (select p.id from pack p where p.name = :name)", keys)
    s.run_many("delete from pack where name = :name", keys)


def clear(s: Session) -> None:
    """Remove everything."""
    s.run("delete from chunk")
    s.run("delete from pack")


def packs(s: Session) -> list[PackRow]:
    """Every pack, in the order in which they were recorded."""
    rows = s.rows("select name, size, created_at from pack order by id")
    return [PackRow(_name(row), int(row[1]), int(row[2])) for row in rows]


def rows_of(s: Session, pack: str) -> list[tuple[bytes, int, int, int, int]]:
    """Id and the four numbers of every chunk that is found in a pack."""
    rows = s.rows(
        "select k.id, k.place_offset, k.stored, k.length, k.form from chunk k"
        " where k.pack = (select p.id from pack p where p.name = :name)",
        {"name": bytes.fromhex(pack)},
    )
    return [(bytes(row[0]), row[1], row[2], row[3], row[4]) for row in rows]


def problems(s: Session) -> Iterator[str]:
    """What is wrong among packs and chunks, one readable line each."""
    for sql, told in _INVARIANTS:
        for row in s.rows(sql, {"forms": _FORMS} if ":forms" in sql else {}):
            yield told.format(*(v.hex()[:16] if isinstance(v, bytes) else v for v in row))


def _name(row: Sequence[object] | None) -> str:
    name = row[0] if row else None
    if not isinstance(name, bytes) or len(name) != ID_BYTES:
        raise ValueError("a chunk is recorded in no pack, or in one without a proper name")
    return name.hex()


_INVARIANTS = (
    (
        "select count(*) from pack p where length(p.name) <> 32 or p.size < 0 having count(*) > 0",
        "{0} packs are recorded with no proper name or size",
    ),
    (
        "select count(*) from chunk k where length(k.id) <> 32 having count(*) > 0",
        "{0} chunks are recorded with no proper id",
    ),
    (
        "select count(*) from chunk k left join pack p on p.id = k.pack where p.id is null having count(*) > 0",
        "{0} chunks are recorded in packs that are not",
    ),
    (
        "select p.name, count(*) from chunk k join pack p on p.id = k.pack where k.place_offset < 0 or k.stored < 0"
        " or k.length < 0 or k.place_offset + k.stored > p.size group by p.name order by p.name",
        "{1} chunks are recorded outside of the pack {0} that should hold them",
    ),
    (
        "select p.name, count(*) from chunk k join pack p on p.id = k.pack where k.form < 0 or k.form >= :forms"
        " or (k.form = 0 and k.stored <> k.length) group by p.name order by p.name",
        "{1} chunks in the pack {0} are recorded in a form that they cannot have",
    ),
)
"""What holds among the rows, each as a query for what breaks it and how to say so."""
