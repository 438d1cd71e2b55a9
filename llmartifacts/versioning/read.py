"""resolve: references -> versions with verified manifests, all of one moment."""

from __future__ import annotations

from collections.abc import Sequence

from llmartifacts.errors import Damaged, LlmartifactsError, NotFound
from llmartifacts.metadata import projects, versions
from llmartifacts.records.backend import Reading
from llmartifacts.records.reference import Reference
from llmartifacts.records.version import Found
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
