"""What can be asked: projects, collections, versions, history, state, lineage, runs, audit. Nothing here writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from llmartifacts.errors import NotFound
from llmartifacts.metadata import aliases, audit, graph, projects, runs, versions
from llmartifacts.records.lineage import Direction, Lineage
from llmartifacts.records.names import LATEST, near_names
from llmartifacts.records.promotion import HistoryEntry, Promotion, State, StateEntry
from llmartifacts.records.reference import Reference
from llmartifacts.records.times import to_micros
from llmartifacts.records.version import Collection, Project, RunRecord, Version
from llmartifacts.versioning.parts import Parts


def list_projects(parts: Parts) -> list[Project]:
    """Every project, by name."""
    with parts.metadata.reading() as s:
        return projects.list_projects(s)


def list_collections(parts: Parts, project: str, *, kind: str | None = None) -> list[Collection]:
    """Every collection of a project, by name; a project that nobody logged to yet has none."""
    with parts.metadata.reading() as s:
        project_id, _ = projects.find_project(s, project)
        return projects.list_collections(s, project_id, project, kind)


def list_versions(
    parts: Parts,
    project: str,
    name: str,
    *,
    tags: Mapping[str, str] | None = None,
    limit: int | None = None,
    before: int | None = None,
) -> list[Version]:
    """Versions of a collection, newest first."""
    with parts.metadata.reading() as s:
        project_id, _ = projects.find_project(s, project)
        collection = projects.find_collection(s, project_id, name)
        return versions.complete(s, versions.page(s, project, collection, tags or {}, limit, before))


def history(parts: Parts, project: str, reference: Reference, *, limit: int | None = None) -> list[HistoryEntry]:
    """Every move of an alias, newest first."""
    with parts.metadata.reading() as s:
        project_id, _ = projects.find_project(s, project)
        collection = projects.find_collection(s, project_id, reference.name)
        alias = reference.alias or LATEST
        found = aliases.history(s, project, collection, alias, limit)
        if not found:
            known = [
                r[0]
                for r in s.rows("select name from alias where collection_id = :c order by name", {"c": collection.id})
            ]
            raise NotFound(
                f"{reference.name} never had an alias {alias!r}",
                what="alias",
                name=f"{reference.name}:{alias}",
                near=tuple(f"{reference.name}:{n}" for n in near_names(alias, known)),
            )
        return found


def promotions(parts: Parts, project: str, *, limit: int = 20) -> list[Promotion]:
    """The newest promotions of a project, newest first."""
    with parts.metadata.reading() as s:
        project_id, _ = projects.find_project(s, project)
        return aliases.promotions(s, project_id, project, limit=limit)


def state(parts: Parts, project: str, alias: str, *, at: datetime | None = None) -> State:
    """What an alias meant everywhere in a project, at a time."""
    with parts.metadata.reading() as s:
        project_id, revision = projects.find_project(s, project)
        when = None if at is None else to_micros(at)
        if when is not None:
            revision = aliases.revision_at(s, project_id, when)
        entries: dict[str, StateEntry] = {}
        for moved in aliases.standing(s, project_id, project, alias, revision, when):
            collection = projects.find_collection(s, project_id, moved.name)
            row = versions.by_number(s, project, collection.id, moved.new or 0)
            entries[moved.name] = StateEntry(versions.complete(s, [row])[0], moved)
        return State(project, alias, at, revision, entries)


def lineage(parts: Parts, project: str, reference: Reference, direction: Direction) -> Lineage:
    """The whole closure of a version."""
    with parts.metadata.reading() as s:
        project_id, _ = projects.find_project(s, project)
        return graph.closure(s, versions.find(s, project_id, project, reference).id, direction)


def list_runs(parts: Parts, project: str, *, limit: int = 50) -> list[RunRecord]:
    """The newest runs, newest first."""
    with parts.metadata.reading() as s:
        project_id, _ = projects.find_project(s, project)
        return runs.newest(s, project_id, project, limit)


def get_run(parts: Parts, project: str, run: str) -> RunRecord:
    """One run by id."""
    with parts.metadata.reading() as s:
        project_id, _ = projects.find_project(s, project)
        return runs.get(s, project_id, project, run)


def audit_entries(parts: Parts, project: str | None = None, *, limit: int | None = None) -> Iterator[Mapping[str, Any]]:
    """Audit entries in order."""
    last, left = 0, limit
    while left is None or left > 0:
        with parts.metadata.reading() as s:
            project_id = None if project is None else projects.find_project(s, project)[0]
            page = audit.after(s, project_id, last, audit.PAGE if left is None else min(left, audit.PAGE))
        if not page:
            return
        for number, entry, _ in page:
            last = number
            yield audit.parsed(entry)
        left = None if left is None else left - len(page)
