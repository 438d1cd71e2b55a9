"""What can be asked: projects, collections, versions, history, state, lineage, runs, audit. Nothing here writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from llmartifacts.errors import NotFound
from llmartifacts.metadata import aliases, audit, graph, projects, runs, versions
from llmartifacts.records.lineage import Direction, Lineage
from llmartifacts.records.names import DEFAULT_PROJECT, LATEST, near_names
from llmartifacts.records.promotion import HistoryEntry, Promotion, State, StateEntry
from llmartifacts.records.reference import Reference
from llmartifacts.records.times import to_micros
from llmartifacts.records.version import Collection, Project, RunRecord, Version
from llmartifacts.versioning.parts import Parts

PAGE = 200
"""Projects that are looked at together."""


def list_projects(
    parts: Parts,
    *,
    limit: int | None = None,
    after: str | None = None,
    visible: Callable[[str], bool] | None = None,
) -> list[Project]:
    """Projects by name, above one; where somebody may not see all of them, those that are visible."""
    found: list[Project] = []
    with parts.metadata.reading() as s:
        while limit is None or len(found) < limit:
            page = projects.list_projects(s, PAGE if visible else limit, after)
            seen = [p for p in page if visible is None or visible(p.name)]
            found += seen if limit is None else seen[: limit - len(found)]
            if visible is None or len(page) < PAGE:
                break
            after = page[-1].name
    return found


def list_collections(
    parts: Parts,
    project: str,
    *,
    kind: str | None = None,
    limit: int | None = None,
    after: str | None = None,
) -> list[Collection]:
    """Collections of a project by name, above one; a project that nobody logged to yet has none."""
    with parts.metadata.reading() as s:
        project_id, _ = projects.find_project(s, project)
        return projects.list_collections(s, project_id, project, kind, limit, after)


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


def history(
    parts: Parts, project: str, reference: Reference, *, limit: int | None = None, before: int | None = None
) -> list[HistoryEntry]:
    """Moves of an alias, newest first, with numbers below one."""
    with parts.metadata.reading() as s:
        project_id, _ = projects.find_project(s, project)
        collection = projects.find_collection(s, project_id, reference.name)
        alias = reference.alias or LATEST
        found = aliases.history(s, project, collection, alias, limit, before)
        if not found and (before is None or not aliases.history(s, project, collection, alias, 1)):
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


def promotions(parts: Parts, project: str, *, limit: int = 20, before: int | None = None) -> list[Promotion]:
    """The newest promotions of a project, newest first, with revisions below one."""
    with parts.metadata.reading() as s:
        project_id, _ = projects.find_project(s, project)
        return aliases.promotions(s, project_id, project, limit=limit, before=before)


def state(
    parts: Parts,
    project: str,
    alias: str,
    *,
    at: datetime | None = None,
    limit: int | None = None,
    after: str | None = None,
    revision: int | None = None,
) -> State:
    """What an alias meant everywhere in a project, at a time, or at a revision; collections by name, above one."""
    with parts.metadata.reading() as s:
        project_id, now = projects.find_project(s, project)
        when = None if at is None else to_micros(at)
        if when is not None:
            now = aliases.revision_at(s, project_id, when)
        shown = now if revision is None else min(now, revision)
        moves = aliases.standing(s, project_id, project, alias, shown, when, limit, after)
        rows = versions.by_numbers(s, project, [(collection, moved.new or 0) for moved, collection in moves])
        whole = versions.complete(s, rows)
        entries = {moved.name: StateEntry(version, moved) for (moved, _), version in zip(moves, whole, strict=True)}
        return State(project, alias, at, shown, entries)


def lineage(
    parts: Parts,
    project: str,
    reference: Reference,
    direction: Direction,
    *,
    visible: Callable[[str], bool] | None = None,
) -> Lineage:
    """The whole closure of a version, through projects that are visible."""
    with parts.metadata.reading() as s:
        project_id, _ = projects.find_project(s, project)
        row = versions.find(s, project_id, project, reference, removed=True)
        return graph.closure(s, row.id, direction, visible)


def list_runs(
    parts: Parts,
    project: str,
    *,
    limit: int = 50,
    before: str | None = None,
    visible: Callable[[str], bool] | None = None,
) -> list[RunRecord]:
    """The newest runs, newest first; those that come after one. Raises `NotFound`."""
    with parts.metadata.reading() as s:
        project_id, _ = projects.find_project(s, project)
        return [_seen(one, visible) for one in runs.newest(s, project_id, project, limit, before)]


def get_run(parts: Parts, project: str, run: str, *, visible: Callable[[str], bool] | None = None) -> RunRecord:
    """One run by id."""
    with parts.metadata.reading() as s:
        project_id, _ = projects.find_project(s, project)
        return _seen(runs.get(s, project_id, project, run), visible)


def _seen(run: RunRecord, visible: Callable[[str], bool] | None) -> RunRecord:
    """A run without what it used of projects that are not visible."""
    if visible is None:
        return run
    return replace(run, used=tuple(r for r in run.used if visible(r.project or DEFAULT_PROJECT)))


def audit_entries(
    parts: Parts, project: str | None = None, *, limit: int | None = None, after: int = 0
) -> Iterator[Mapping[str, Any]]:
    """Audit entries in order, with numbers above one."""
    last, left = after, limit
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
