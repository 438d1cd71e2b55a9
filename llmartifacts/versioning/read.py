"""resolve: references -> versions with verified manifests, all of one moment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llmartifacts.errors import Damaged, LlmartifactsError, NotFound
from llmartifacts.metadata import projects, versions
from llmartifacts.metadata.database import Session
from llmartifacts.records.backend import Reading
from llmartifacts.records.reference import Reference
from llmartifacts.records.version import Found, Version
from llmartifacts.versioning.parts import Parts


def read(parts: Parts, project: str, references: Sequence[Reference]) -> Reading:
    """Look up any number of references at one revision; what is missing or damaged is said in its place."""
    with parts.metadata.reading() as s:
        project_id, revision = projects.find_project(s, project)
        items: list[Found | LlmartifactsError] = []
        for reference in references:
            try:
                items.append(parts.found(s, versions.find(s, project_id, project, reference)))
            except (NotFound, Damaged) as error:
                items.append(error)
        return Reading(project, revision, tuple(items))


Item = tuple[Version, bytes | None, int | None] | LlmartifactsError
"""A version, its manifest's bytes (None for a large one, kept apart), and the move of its alias; or why not."""


def items(s: Session, parts: Parts, project_id: int, project: str, references: Sequence[Reference]) -> Iterator[Item]:
    """As `read`, one after another and not parsed, for whoever hands them on: large manifests are not opened."""
    for reference in references:
        try:
            row = versions.find(s, project_id, project, reference)
            body = None if row.body is None else parts.manifest_bytes(s, row.version.digest, row.body)
            item: Item = (versions.complete(s, [row])[0], body, row.move)
        except (NotFound, Damaged) as error:
            item = error
        yield item
