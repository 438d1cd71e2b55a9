"""Versions logged, and how their bytes are stored."""

from __future__ import annotations

from collections.abc import Sequence

from llmartifacts.metadata import projects, versions
from llmartifacts.metadata import uploads as sightings
from llmartifacts.records import rights
from llmartifacts.records.backend import Draft
from llmartifacts.records.digest import Blob, Digest
from llmartifacts.records.rights import Permission
from llmartifacts.server.calls import Call, handler, whole
from llmartifacts.versioning import standing, uploads
from llmartifacts.wire.bodies import moves as m
from llmartifacts.wire.bodies import upkeep as c
from llmartifacts.wire.bodies import versions as v
from llmartifacts.wire.bodies.base import Page

REPORT = "report"


def _aliases(call: Call) -> list[str]:
    return [alias for draft in call.sends(m.Drafts).drafts for alias in draft.aliases]


def _needed(drafts: Sequence[Draft]) -> list[Digest]:
    """What versions would need; their manifests came with them."""
    return [digest for draft in drafts for digest in versions.needed(draft.manifest) if digest != draft.manifest.digest]


def _looked_at(call: Call) -> tuple[list[Draft], set[Digest]]:
    """What is to be logged, and which of the bytes it needs are in the store."""
    drafts = [draft.record() for draft in call.sends(m.Drafts).drafts]
    return drafts, standing.stored(call.backend.parts, call.project, _needed(drafts))


@handler("commit", aliases=_aliases, prepare=_looked_at)
def commit(call: Call) -> m.Versions:
    """Log versions, all or none. Whoever may record evidence only logs reports, and nobody else's count."""
    body = call.sends(m.Drafts)
    drafts, stored = call.prepared
    if any(draft.manifest.kind != REPORT for draft in drafts):
        rights.require(call.caller, Permission.LOG, call.project)
    with call.backend.parts.metadata.writing() as s:  # a part of the unit of work
        project_id, _ = projects.find_project(s, call.project)
        known = uploads.require_available(s, project_id, body.upload, call.actor, _needed(drafts))
        standing.require_stored(call.backend.parts, s, known, stored)
        made = call.backend.commit(
            call.project,
            drafts,
            actor=call.actor,
            vouched=call.caller.may(Permission.EVALUATE, call.project),
            visible=call.caller.sees,
            answers=call.answers,
        )
    return m.Versions.known(versions=tuple([v.Version.of(one) for one in made]))


@handler("storage")
def storage(call: Call) -> Page[c.Storage]:
    """How blobs are stored: of those that a version needs in a project that the caller may see."""
    wanted = [one.record() for one in call.sends(c.Blobs).blobs]
    return whole(call.backend.storage([one for one in wanted if _is_seen(call, one)]), c.Storage.of)


def _is_seen(call: Call, blob: Blob) -> bool:
    if call.caller.sees_all:
        return True
    with call.backend.parts.metadata.reading() as s:
        return any(call.caller.sees(project) for project in sightings.projects_with(s, blob.digest))
