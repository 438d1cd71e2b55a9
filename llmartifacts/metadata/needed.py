"""What versions need, a page at a time, however many there are."""

from __future__ import annotations

from collections.abc import Iterator

from llmartifacts.metadata.database import Row, Session
from llmartifacts.metadata.projects import find_project, missing_collection
from llmartifacts.records.digest import Digest, digest_bytes
from llmartifacts.records.names import DEFAULT_PROJECT
from llmartifacts.records.reference import Reference

PAGE = 1000
_OF_ALL = (
    "(exists (select 1 from version v where v.digest = x.manifest and v.removed_at is null)"
    " or (x.blob = x.manifest and exists (select 1 from version v where v.digest = x.manifest)))"
)
_OF_ONE = (
    "exists (select 1 from version v where v.digest = x.manifest and v.removed_at is null and v.collection_id = :c)"
)


def collection_of(s: Session, project: str, name: str) -> int:
    """The id of a collection. Raises `NotFound`."""
    project_id, _ = find_project(s, project)
    row = s.row("select id from collection where project_id = :p and name = :n", {"p": project_id, "n": name})
    if row is None:
        raise missing_collection(s, project_id, name)
    return int(row[0])


def blobs_after(s: Session, last: bytes, collection: int | None = None) -> list[tuple[bytes, int, int]]:
    """A page of blobs that versions need, by digest: digest, smallest and largest size that any of them says.

    Args:
        s: A transaction.
        last: The last digest of the page before; empty for the first.
        collection: Only what versions of this collection need.
    """
    needed, more = (_OF_ALL, {}) if collection is None else (_OF_ONE, {"c": collection})
    return [
        (row[0], row[1], row[2])
        for row in s.rows(
            f"select x.blob, min(x.size), max(x.size) from content x where x.blob > :last and {needed}"
            " group by x.blob order by x.blob limit :n",
            {"last": last, "n": PAGE, **more},
        )
    ]


def total(s: Session, collection: int | None = None) -> tuple[int, int]:
    """How many versions there are that were not removed, and bytes of all blobs, one that several need counted once."""
    if collection is None:
        versions = s.row("select count(*) from version where removed_at is null")
        size = s.row("select sum(y.size) from (select x.blob, min(x.size) as size from content x group by x.blob) y")
    else:
        versions = s.row(
            "select count(*) from version where removed_at is null and collection_id = :c", {"c": collection}
        )
        size = s.row(
            "select sum(y.size) from (select x.blob, min(x.size) as size from content x"
            f" where {_OF_ONE} group by x.blob) y",
            {"c": collection},
        )
    return int(versions[0]) if versions else 0, int(size[0] or 0) if size else 0


def manifests(s: Session) -> Iterator[list[Row]]:
    """Every manifest that was not erased, by digest, a page at a time: digest, body, size."""
    last = b""
    while page := s.rows(
        "select digest, body, size from manifest where digest > :last and erased_at is null order by digest limit :n",
        {"last": last, "n": PAGE},
    ):
        yield page
        last = page[-1][0]


def listed(s: Session, first: bytes, last: bytes) -> dict[bytes, dict[bytes, int]]:
    """What is listed for manifests from one digest to another: manifest -> blob -> bytes."""
    found: dict[bytes, dict[bytes, int]] = {}
    for manifest, blob, size in s.rows(
        "select manifest, blob, size from content where manifest >= :first and manifest <= :last",
        {"first": first, "last": last},
    ):
        found.setdefault(bytes(manifest), {})[bytes(blob)] = size
    return found


def held(s: Session, first: bytes, last: bytes) -> list[Row]:
    """Digest, size and kind of every version of manifests from one digest to another."""
    return s.rows(
        "select v.digest, v.size, c.kind from version v join collection c on c.id = v.collection_id"
        " where v.digest >= :first and v.digest <= :last",
        {"first": first, "last": last},
    )


def needing(s: Session, blob: Digest, limit: int) -> tuple[tuple[str, ...], int]:
    """The first versions that need a blob, or whose manifest it is, as references; and how many there are."""
    source = (
        " from version v where (v.digest = :d"
        " or (v.removed_at is null and v.digest in (select manifest from content where blob = :d)))"
    )
    key = {"d": digest_bytes(blob)}
    count = s.row(f"select count(*){source}", key)
    rows = s.rows(
        "select p.name, c.name, w.number from (select v.id, v.collection_id, v.number"
        f"{source} order by v.id limit :limit) w join collection c on c.id = w.collection_id"
        " join project p on p.id = c.project_id order by p.name, c.name, w.number",
        {**key, "limit": limit},
    )
    named = (
        str(Reference(name, None if project == DEFAULT_PROJECT else project, number=number))
        for project, name, number in rows
    )
    return tuple(named), int(count[0]) if count else 0
