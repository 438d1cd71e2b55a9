"""Versions and projects whose content was removed. Their rows stay, marked: no number or name is ever used again."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from llmartifacts.metadata.database import Session
from llmartifacts.metadata.versions import VersionRow
from llmartifacts.records.digest import Blob, Digest, digest_bytes, digest_from_bytes


def mark(s: Session, rows: Sequence[VersionRow], *, at: int, actor: str, reason: str, rule: str) -> None:
    """Mark versions as removed."""
    s.run_many(
        "update version set removed_at = :at, removed_by = :who, remove_reason = :why, remove_rule = :rule"
        " where id = :v and removed_at is null",
        [{"at": at, "who": actor, "why": reason, "rule": rule, "v": row.id} for row in rows],
    )


def restore(s: Session, version_id: int) -> None:
    """Let a version be there again."""
    s.run(
        "update version set removed_at = null, removed_by = '', remove_reason = '', remove_rule = '' where id = :v",
        {"v": version_id},
    )


def erase(s: Session, digest: Digest, at: int) -> None:
    """Empty a manifest; its digest stays, so that the same content is known if it ever comes again."""
    key = {"d": digest_bytes(digest)}
    s.run("update manifest set body = null, erased_at = :at where digest = :d", {**key, "at": at})
    s.run("delete from content where manifest = :d and blob = :d", key)  # the others are digests, and prove what went


def holders(s: Session, digest: Digest) -> list[int]:
    """Ids of the versions that have some content and were not removed."""
    rows = s.rows(
        "select id from version where digest = :d and removed_at is null order by id", {"d": digest_bytes(digest)}
    )
    return [int(row[0]) for row in rows]


def live(s: Session, project_id: int) -> list[int]:
    """Ids of all versions of a project that were not removed, the oldest first."""
    rows = s.rows(
        "select v.id from version v join collection c on c.id = v.collection_id"
        " where c.project_id = :p and v.removed_at is null order by v.id",
        {"p": project_id},
    )
    return [int(row[0]) for row in rows]


def gone(s: Session, project_id: int) -> list[int]:
    """Ids of all versions of a project that were removed, the oldest first."""
    rows = s.rows(
        "select v.id from version v join collection c on c.id = v.collection_id"
        " where c.project_id = :p and v.removed_at is not null order by v.id",
        {"p": project_id},
    )
    return [int(row[0]) for row in rows]


def digests(s: Session, project_id: int) -> list[Digest]:
    """Digests of all versions that a project ever had, each once, in order."""
    rows = s.rows(
        "select distinct v.digest from version v join collection c on c.id = v.collection_id"
        " where c.project_id = :p order by v.digest",
        {"p": project_id},
    )
    return [digest_from_bytes(row[0]) for row in rows]


def close_project(s: Session, project_id: int, at: int) -> None:
    """Mark a project as removed."""
    s.run("update project set removed_at = :at where id = :p", {"at": at, "p": project_id})


def blobs(s: Session, digest: Digest) -> list[Blob]:
    """What a manifest needs, as far as the database lists it."""
    rows = s.rows("select blob, size from content where manifest = :d order by blob", {"d": digest_bytes(digest)})
    return [Blob(digest_from_bytes(row[0]), int(row[1])) for row in rows]


def needed_by_others(s: Session, blob: Digest, gone: Collection[int]) -> bool:
    """Whether a version that was not removed needs a blob, one with none of some ids."""
    rows = s.rows(
        "select distinct v.id from content x join version v on v.digest = x.manifest"
        " where x.blob = :b and v.removed_at is null",
        {"b": digest_bytes(blob)},
    )
    return any(row[0] not in gone for row in rows)


def of_project(s: Session, project_id: int) -> list[Blob]:
    """What the manifests of all versions that a project ever had need."""
    rows = s.rows(
        "select distinct x.blob, x.size from content x join version v on v.digest = x.manifest"
        " join collection c on c.id = v.collection_id where c.project_id = :p order by x.blob",
        {"p": project_id},
    )
    return [Blob(digest_from_bytes(row[0]), int(row[1])) for row in rows]
