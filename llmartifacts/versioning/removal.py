"""Versions go, and their rows stay: marked with when, by whom, why and by which rule, and each with an audit entry.

A removed version answers with `Removed`; `ls`, `history` and `lineage` still tell of it, and its number is never used
again. What only it needed is freed by the next `gc`. Logging the same content again brings it back; not where it was
erased: then of its manifest nothing but the digest is left.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from llmartifacts.errors import Refused
from llmartifacts.metadata import audit, removals
from llmartifacts.metadata.database import Session
from llmartifacts.metadata.versions import VersionRow
from llmartifacts.records.audit import AuditEvent
from llmartifacts.records.digest import Digest
from llmartifacts.records.times import from_micros

VERB = "version-remove"
"""Of the audit entries of versions that were removed."""
ERASE = "erase"
"""The rule by which a version goes that must not come back."""


def refuse_erased(row: VersionRow) -> None:
    """Refuse to let a version come back that was erased. Raises `Refused`."""
    version = row.version
    if version.remove_rule == ERASE:
        raise Refused(
            f"this content is {version}, which was erased: {version.remove_reason}",
            field="value",
            next_step="Log it without what had to go.",
        )


def empty(
    s: Session, project_id: int, project: str, rows: Sequence[VersionRow], *, actor: str, reason: str, at: int
) -> None:
    """Empty the manifests of versions that were removed before; who asks has made sure that no other has them."""
    for row in rows:
        removals.erase(s, row.version.digest, at)
        about = {"digest": row.version.digest, "reason": reason}
        subject = str(row.version.reference)
        audit.record(s, project_id, project, actor=actor, verb="version-empty", subject=subject, at=at, **about)


def remove(
    s: Session,
    project_id: int,
    project: str,
    rows: Sequence[VersionRow],
    *,
    actor: str,
    reason: str,
    rule: str,
    at: int,
    emptied: Collection[Digest] = (),
) -> None:
    """Remove versions of a project.

    Args:
        s: A write transaction, which has made sure that nothing holds them.
        project_id: Id of the project.
        project: Its name.
        rows: The versions.
        actor: Who removes them.
        reason: Why.
        rule: By which rule.
        at: When, in microseconds since 1970, UTC.
        emptied: Digests of those whose manifests are emptied too; who asks has made sure that no other version has
            them.
    """
    removals.mark(s, rows, at=at, actor=actor, reason=reason, rule=rule)
    for digest in emptied:
        removals.erase(s, digest, at)
    audit.record_many(
        s,
        [
            (
                project_id,
                AuditEvent(
                    project,
                    from_micros(at),
                    actor,
                    VERB,
                    str(row.version.reference),
                    {
                        "digest": row.version.digest,
                        "reason": reason,
                        "rule": rule,
                        "erased": row.version.digest in emptied,
                    },
                ),
            )
            for row in rows
        ],
    )
