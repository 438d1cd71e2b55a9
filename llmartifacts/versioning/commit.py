"""log: drafts -> versions, with their edges, tags, aliases and audit entries, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from llmartifacts.metadata import audit, graph, projects, runs, versions
from llmartifacts.metadata.aliases import move_latest, save_head
from llmartifacts.metadata.database import Session
from llmartifacts.metadata.projects import CollectionRow
from llmartifacts.metadata.versions import VersionRow
from llmartifacts.records.backend import Draft, PromotionRequest, Staging, Target
from llmartifacts.records.names import LATEST
from llmartifacts.records.reference import Reference
from llmartifacts.records.times import from_micros
from llmartifacts.records.version import Version
from llmartifacts.versioning.chunk_index import RecordedIndex
from llmartifacts.versioning.parts import Parts
from llmartifacts.versioning.promote import promote_in


def commit(
    parts: Parts, project: str, drafts: Sequence[Draft], *, actor: str, staging: Staging | None = None
) -> list[Version]:
    """Log versions, all or none.

    The staged bytes are published last, when nothing else can refuse, and before the transaction ends: a crash leaves
    bytes that nobody names, never a version whose bytes are missing.
    """
    with parts.metadata.writing() as s:
        project_id, revision = projects.ensure_project(s, project)
        now = s.now()
        collections: dict[str, CollectionRow] = {}
        made: list[Version] = []
        targets: list[Target] = []
        for draft in drafts:
            collection = collections.get(draft.name)
            if collection is None or collection.kind != draft.manifest.kind:
                collection = projects.ensure_collection(s, project_id, draft.name, draft.manifest.kind, now)
                collections[draft.name] = collection
            row, created = _version(s, project, collection, draft, actor, now)
            move_latest(s, collection, row.version.number, revision=revision, at=now, actor=actor)
            inputs = _describe(s, project_id, project, row, draft)
            audit.record(
                s,
                project_id,
                project,
                actor=actor,
                verb="log",
                subject=str(row.version.reference),
                at=now,
                digest=row.version.digest,
                created=created,
                message=draft.message,
                inputs=inputs,
                tags=dict(draft.tags),
            )
            targets += [Target(Reference(draft.name, project, number=row.version.number), a) for a in draft.aliases]
            made.append(_returned(s, row, draft, created))
        for collection in collections.values():
            save_head(s, collection)
        if targets:
            request = PromotionRequest(tuple(_last_of_each(targets)), drafts[0].message)
            promote_in(s, parts, project_id, project, request, actor=actor, verb="log")
        if staging is not None:
            with chunks_recorded_in(parts, s):
                staging.publish()
        return made if len(made) == 1 else _with_final_aliases(drafts, made)


def chunks_recorded_in(parts: Parts, s: Session) -> AbstractContextManager[None]:
    """What is stored of chunks meanwhile is recorded in this transaction."""
    index = parts.blobs.index
    return index.within(s) if isinstance(index, RecordedIndex) else nullcontext()


def _version(
    s: Session, project: str, collection: CollectionRow, draft: Draft, actor: str, now: int
) -> tuple[VersionRow, bool]:
    known = versions.by_digest(s, project, collection.id, draft.manifest.digest) if collection.head else None
    if known is not None:
        return known, False
    versions.insert_manifest(s, draft.manifest)
    version_id = versions.insert(
        s,
        collection,
        draft.manifest,
        author=actor,
        message=draft.message,
        git_commit=draft.git_commit,
        run=draft.run,
        now=now,
    )
    version = Version(
        project,
        collection.name,
        collection.kind,
        collection.head,
        draft.manifest.digest,
        from_micros(now),
        actor,
        draft.message,
        draft.manifest.size,
        draft.git_commit,
        draft.run,
    )
    return VersionRow(version_id, collection.id, version), True


def _describe(s: Session, project_id: int, project: str, row: VersionRow, draft: Draft) -> list[str]:
    """Edges, tags and the run: all outside identity, so known content may gain them. Returns the inputs, pinned."""
    if draft.tags:
        versions.set_tags(s, row.id, draft.tags)
    pinned = []
    for given in draft.inputs:
        parent = versions.find_anywhere(s, project_id, project, given.reference)
        pinned.append(str(parent.version.pinned))
        if parent.id != row.id:
            graph.add_edge(s, row.id, parent.id, given.relation, given.role)
    if draft.run:
        runs.require_running(s, project_id, project, draft.run)
        runs.attach(s, draft.run, row.id, "produced")
    return pinned


def _returned(s: Session, row: VersionRow, draft: Draft, created: bool) -> Version:
    if created:
        names = tuple(sorted({*draft.aliases, LATEST}))
        return replace(row.version, tags=dict(draft.tags), aliases=names, created=True)
    version = versions.complete(s, [row])[0]
    names = tuple(sorted({*version.aliases, *draft.aliases, LATEST}))
    return replace(version, aliases=names)


def _with_final_aliases(drafts: Sequence[Draft], made: list[Version]) -> list[Version]:
    """In a batch, of several versions of one collection the last that was given an alias has it."""
    holder = {(v.name, a): v.number for d, v in zip(drafts, made, strict=True) for a in (*d.aliases, LATEST)}
    return [
        replace(v, aliases=tuple(a for a in v.aliases if holder.get((v.name, a), v.number) == v.number)) for v in made
    ]


def _last_of_each(targets: Sequence[Target]) -> list[Target]:
    return list({(t.reference.name, t.alias): t for t in targets}.values())
