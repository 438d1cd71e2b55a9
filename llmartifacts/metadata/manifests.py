"""Which projects have a version with some manifest: who may read one of them may have the manifest."""

from __future__ import annotations

from llmartifacts.metadata.database import Session
from llmartifacts.records.digest import Digest, digest_bytes


def projects_with(s: Session, digest: Digest) -> list[str]:
    """Names of the projects with a version of this content."""
    rows = s.rows(
        "select distinct p.name from version v join collection c on c.id = v.collection_id"
        " join project p on p.id = c.project_id where v.digest = :d",
        {"d": digest_bytes(digest)},
    )
    return [row[0] for row in rows]
