"""A project goes by request, with proof of what is stored nowhere any more.

In one transaction its aliases go, all of its versions are removed, the manifests that no other project has are emptied,
and the audit says how many versions there were and the digest of the list of their digests. Then gc frees their bytes.
The row of the project stays, marked, so that the audit can be held against it and nobody takes the name for another.
"""

from __future__ import annotations

from datetime import timedelta

from llmartifacts.errors import Refused
from llmartifacts.metadata import audit, projects, removals, uploads, versions
from llmartifacts.metadata.database import Session
from llmartifacts.records.digest import Digest, parse_digest
from llmartifacts.records.names import DEFAULT_PROJECT
from llmartifacts.records.removal import RemovedProject
from llmartifacts.records.times import parse_time
from llmartifacts.versioning.gc import gc
from llmartifacts.versioning.parts import Parts
from llmartifacts.versioning.promote import apply_moves
from llmartifacts.versioning.removal import empty, remove
from llmartifacts.versioning.replay_removals import list_digest

VERB = "project-remove"
RULE = "project"
"""The rule by which its versions go."""


def remove_project(
    parts: Parts,
    project: str,
    *,
    reason: str,
    actor: str,
    grace: timedelta | None = None,
    even_default: bool = False,
) -> RemovedProject:
    """Remove a project; of one that was removed, free what waited and give the proof anew.

    Args:
        parts: The stores.
        project: Its name.
        reason: Why; kept for good.
        actor: Who asks.
        grace: As in `gc`.
        even_default: Remove it also where it is the one that names without a project mean.

    Raises:
        NotFound: There is no such project.
        Refused: It is the one that names without a project mean; nothing was changed.
        Damaged: Something that others need cannot be read; the project is removed, and nothing was freed.
    """
    with parts.metadata.writing() as s:
        project_id, _ = projects.find_project(s, project, removed=True)
        goes = projects.removed_at(s, project_id) is None
        if goes and project == DEFAULT_PROJECT and not even_default:
            raise _needed_by_short_names()
        blobs = removals.of_project(s, project_id)
        uploads.remove_holding(s, project_id)
        if goes:
            _remove(s, project_id, project, reason=reason, actor=actor)
    done = gc(parts, actor=actor, compact=True, grace=grace)
    parts.metadata.database.scrub()
    proof = _proof(parts, project_id, project, max(done.freed, 0))
    parts.forget(proof.gone)
    gone = set(proof.gone)
    for blob in blobs:
        if blob.digest in gone:
            parts.blobs.cache.remove(blob)
    return proof


def _needed_by_short_names() -> Refused:
    return Refused(
        f"names without a project mean the project {DEFAULT_PROJECT!r}, and a removed name is not used again",
        field="project",
        next_step="Remove versions of its collections by rules (llmartifacts gc --help), or documents (llmartifacts"
        " erase). To remove it for good, say so (--even-default, even_default=True); from then on everybody names"
        " another project: --project, $LLMARTIFACTS_PROJECT.",
    )


def _remove(s: Session, project_id: int, project: str, *, reason: str, actor: str) -> None:
    projects.lock_project(s, project)
    goals = [
        (projects.find_collection(s, project_id, name), alias, None)
        for name, alias in s.rows(
            "select c.name, a.name from alias a join collection c on c.id = a.collection_id"
            " where c.project_id = :p and a.number is not null order by c.name, a.name",
            {"p": project_id},
        )
    ]
    if goals:
        apply_moves(s, project_id, project, goals, actor=actor, verb="remove", reason=reason)
    rows = versions.by_id(s, project, removals.live(s, project_id))
    before = versions.by_id(s, project, removals.gone(s, project_id))
    at = s.now()
    digests = removals.digests(s, project_id)
    removals.mark(s, rows, at=at, actor=actor, reason=reason, rule=RULE)  # so that none of them holds a manifest
    emptied = frozenset(
        digest
        for digest in digests
        if not removals.holders(s, digest) and versions.manifest_body(s, digest) is not None
    )
    remove(s, project_id, project, rows, actor=actor, reason=reason, rule=RULE, at=at, emptied=emptied)
    done = {row.version.digest for row in rows}
    earlier = {row.version.digest: row for row in before}
    left = [row for digest, row in earlier.items() if digest in emptied - done]
    empty(s, project_id, project, left, actor=actor, reason=reason, at=at)
    removals.close_project(s, project_id, at)
    audit.record(
        s,
        project_id,
        project,
        actor=actor,
        verb=VERB,
        subject=project,
        at=at,
        reason=reason,
        versions=len(rows) + len(before),
        aliases=len(goals),
        blobs=len(removals.of_project(s, project_id)),
        list=list_digest(s, project_id),
    )


def _proof(parts: Parts, project_id: int, project: str, freed: int) -> RemovedProject:
    gone: list[Digest] = []
    remaining: list[Digest] = []
    waiting: list[Digest] = []
    with parts.metadata.reading() as s:
        entry = audit.newest(s, project_id, VERB, 1)[0]
        event = audit.parsed(entry.entry.decode())
        digests = removals.digests(s, project_id)
        count = s.row(
            "select count(*) from version v join collection c on c.id = v.collection_id where c.project_id = :p",
            {"p": project_id},
        )
        for digest in digests:
            (gone if versions.manifest_body(s, digest) is None else remaining).append(digest)
        unneeded = []
        for blob in removals.of_project(s, project_id):
            if removals.needed_by_others(s, blob.digest, ()):
                remaining.append(blob.digest)
            else:
                unneeded.append(blob)
        origin = audit.origin(s)
    for blob in unneeded:
        (waiting if parts.blobs.has(blob) else gone).append(blob.digest)
    return RemovedProject(
        project,
        origin,
        parse_time(event["at"]),
        event["actor"],
        event["body"]["reason"],
        entry.number,
        int(count[0]) if count else 0,
        parse_digest(event["body"]["list"]),
        tuple(digests),
        tuple(sorted(gone)),
        tuple(sorted(remaining)),
        tuple(sorted(waiting)),
        freed,
    )
