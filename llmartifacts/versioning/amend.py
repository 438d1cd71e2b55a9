"""yank and tag: what may still be said of a version once it is logged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llmartifacts.errors import Conflict
from llmartifacts.metadata import aliases, audit, projects, versions
from llmartifacts.records.reference import Reference
from llmartifacts.records.times import to_micros
from llmartifacts.records.version import Version
from llmartifacts.versioning.parts import Parts


def yank(parts: Parts, project: str, reference: Reference, *, reason: str, actor: str) -> Version:
    """Withdraw a version; refused while an alias names it."""
    with parts.metadata.writing() as s:
        project_id, _ = projects.lock_project(s, project)
        row = versions.find(s, project_id, project, reference)
        named = aliases.naming(s, row.collection_id, row.version.number)
        if named:
            raise Conflict(
                f"{row.version} is {', '.join(named)} now",
                field="reference",
                next_step=f"Move it first: llmartifacts rollback {row.version.name}:{named[0]} --reason …",
            )
        if row.version.yanked_at is None:
            versions.yank(s, row.id, reason)
            yanked = versions.by_id(s, project, [row.id])[0].version.yanked_at
            audit.record(
                s,
                project_id,
                project,
                actor=actor,
                verb="yank",
                subject=str(row.version.reference),
                reason=reason,
                yanked_at=None if yanked is None else to_micros(yanked),
            )
        return versions.complete(s, versions.by_id(s, project, [row.id]))[0]


def tag(
    parts: Parts,
    project: str,
    reference: Reference,
    *,
    set: Mapping[str, str],  # noqa: A002
    remove: Sequence[str],
    actor: str,
) -> Version:
    """Set and remove labels of a version."""
    with parts.metadata.writing() as s:
        project_id, _ = projects.find_project(s, project)
        row = versions.find(s, project_id, project, reference)
        versions.set_tags(s, row.id, set, remove)
        audit.record(
            s,
            project_id,
            project,
            actor=actor,
            verb="tag",
            subject=str(row.version.reference),
            set=dict(set),
            remove=list(remove),
        )
        return versions.complete(s, [row])[0]
