"""Uploads: what was sent and verified, and no version names yet. Held for project and account until they expire."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llmartifacts.metadata.database import Session
from llmartifacts.records.digest import Blob, Digest, digest_bytes, digest_from_bytes

_AT_ONCE = 32_768


@dataclass(frozen=True, slots=True)
class UploadRow:
    """An upload.

    Attributes:
        id: Its id.
        project_id: The project that it is for.
        account: Who sends it.
        expires_at: When it goes, in microseconds since 1970, UTC.
        pieces: Pieces that came.
        sent: Their bytes.
    """

    id: str
    project_id: int
    account: str
    expires_at: int
    pieces: int = 0
    sent: int = 0


def insert(s: Session, upload: UploadRow) -> None:
    """Record a new upload."""
    s.run(
        "insert into upload(id, project_id, account, created_at, expires_at) values (:id, :p, :a, :now, :e)",
        {"id": upload.id, "p": upload.project_id, "a": upload.account, "now": s.now(), "e": upload.expires_at},
    )


def find(s: Session, upload_id: str) -> UploadRow | None:
    """One upload that has not expired."""
    row = s.row(
        "select id, project_id, account, expires_at, pieces, sent from upload where id = :id and expires_at > :now",
        {"id": upload_id, "now": s.now()},
    )
    return None if row is None else UploadRow(*row)


def add_piece(s: Session, upload_id: str, size: int) -> None:
    """Count a piece of an upload that came, and its bytes."""
    s.run("update upload set pieces = pieces + 1, sent = sent + :n where id = :id", {"n": size, "id": upload_id})


def count_open(s: Session, account: str) -> int:
    """How many uploads of an account have not expired."""
    row = s.row("select count(*) from upload where account = :a and expires_at > :now", {"a": account, "now": s.now()})
    return int(row[0]) if row else 0


def extend(s: Session, upload_id: str, expires_at: int) -> None:
    """Let an upload expire later."""
    s.run("update upload set expires_at = :e where id = :id and expires_at < :e", {"id": upload_id, "e": expires_at})


def hold(s: Session, upload_id: str, blobs: Iterable[Blob]) -> None:
    """Record blobs that an upload brought, verified and stored."""
    s.run_many(
        "insert into upload_blob(upload_id, blob, size) values (:u, :b, :n) on conflict do nothing",
        [{"u": upload_id, "b": digest_bytes(blob.digest), "n": blob.size} for blob in blobs],
    )


def held(s: Session, upload_id: str) -> dict[Digest, int]:
    """The blobs that an upload brought -> their bytes."""
    rows = s.rows("select blob, size from upload_blob where upload_id = :u", {"u": upload_id})
    return {digest_from_bytes(row[0]): int(row[1]) for row in rows}


def remove(s: Session, upload_id: str) -> None:
    """Forget an upload; what it brought is not held by it any more."""
    s.run("delete from upload_blob where upload_id = :u", {"u": upload_id})
    s.run("delete from upload where id = :u", {"u": upload_id})


def remove_holding(s: Session, project_id: int, blobs: Sequence[Digest] | None = None) -> None:
    """Forget the uploads into a project; with `blobs`, those that hold one of them."""
    found = [row[0] for row in s.rows("select id from upload where project_id = :p", {"p": project_id})]
    gone = None if blobs is None else set(blobs)
    for one in found:
        if gone is None or gone & held(s, one).keys():
            remove(s, one)


def remove_expired(s: Session) -> None:
    """Forget every upload that has expired."""
    now = {"now": s.now()}
    s.run("delete from upload_blob where upload_id in (select id from upload where expires_at <= :now)", now)
    s.run("delete from upload where expires_at <= :now", now)


def open_ids(s: Session) -> set[str]:
    """The ids of all uploads that have not expired."""
    return {row[0] for row in s.rows("select id from upload where expires_at > :now", {"now": s.now()})}


def all_held(s: Session) -> list[Blob]:
    """Every blob that an upload holds that has not expired."""
    rows = s.rows(
        "select distinct b.blob, b.size from upload_blob b join upload u on u.id = b.upload_id"
        " where u.expires_at > :now order by b.blob",
        {"now": s.now()},
    )
    return [Blob(digest_from_bytes(row[0]), int(row[1])) for row in rows]


def in_project(s: Session, project_id: int, digests: Sequence[Digest]) -> dict[Digest, int]:
    """Of some blobs, those that a version in a project needs -> their bytes."""
    found: dict[Digest, int] = {}
    for start in range(0, len(digests), _AT_ONCE):
        part = sorted({digest_bytes(digest) for digest in digests[start : start + _AT_ONCE]})
        if not part:
            continue
        rows = s.rows(
            # As in `chunks.find`: the ids come as one value, and lead.
            "with recursive n(i) as (select 0 union all select n.i + 1 from n where n.i + 1 < :count),"
            " w(blob) as (select substr(:ids, n.i * 32 + 1, 32) from n)"
            " select w.blob, (select max(x.size) from content x join version v on v.digest = x.manifest"
            " join collection c on c.id = v.collection_id where x.blob = w.blob and c.project_id = :p"
            " and v.removed_at is null) from w",
            {"ids": b"".join(part), "count": len(part), "p": project_id},
        )
        found |= {digest_from_bytes(row[0]): int(row[1]) for row in rows if row[1] is not None}
    return found


def projects_with(s: Session, digest: Digest) -> dict[str, int]:
    """The projects in which some version needs a blob -> the blob's bytes."""
    rows = s.rows(
        "select p.name, max(x.size) from content x join version v on v.digest = x.manifest"
        " join collection c on c.id = v.collection_id join project p on p.id = c.project_id"
        " where x.blob = :b and (v.removed_at is null or x.blob = x.manifest) group by p.name",
        {"b": digest_bytes(digest)},
    )
    return {row[0]: int(row[1]) for row in rows}
