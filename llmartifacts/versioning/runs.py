"""Runs: begun, used, ended."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any

from llmartifacts.errors import InvalidInput, TooLarge
from llmartifacts.metadata import audit, projects, runs, versions
from llmartifacts.records.canonical import canonical_bytes, plain_json
from llmartifacts.records.reference import Reference
from llmartifacts.records.version import RunRecord
from llmartifacts.versioning.parts import Parts

MAX_PARAMETERS = 256 * 1024
"""Bytes of a run's parameters."""


def start_run(
    parts: Parts, project: str, name: str, *, parameters: Mapping[str, Any], actor: str, git_commit: str = ""
) -> RunRecord:
    """Begin a run."""
    plain = plain_json(parameters, field="parameters")
    size = len(canonical_bytes(plain, field="parameters"))
    if size > MAX_PARAMETERS:
        raise TooLarge(
            f"the parameters take {size} bytes, the limit is {MAX_PARAMETERS}",
            field="parameters",
            next_step="Log what is large as files, and use that version in the run.",
        )
    run = secrets.token_hex(8)
    with parts.metadata.writing() as s:
        project_id, _ = parts.home(s, project)
        runs.insert(s, project_id, run, name, plain, actor, git_commit)
        audit.record(
            s, project_id, project, actor=actor, verb="run", subject=run, name=name, status="running", parameters=plain
        )
        return runs.get(s, project_id, project, run)


def use_in_run(
    parts: Parts,
    project: str,
    run: str,
    reference: Reference,
    *,
    actor: str,
    visible: Callable[[str], bool] | None = None,
) -> None:
    """Record that a run read a version, in a project that is visible."""
    with parts.metadata.writing() as s:
        project_id, _ = projects.find_project(s, project)
        runs.require_running(s, project_id, project, run, author=actor if parts.authenticated else None)
        row = versions.find_anywhere(s, project_id, project, reference, visible)
        runs.attach(s, run, row.id, "used")
        audit.record(
            s, project_id, project, actor=actor, verb="run", subject=run, status="used", used=str(row.version.pinned)
        )


def end_run(parts: Parts, project: str, run: str, *, status: str, error: str = "", actor: str) -> RunRecord:
    """End a run as `done` or `failed`."""
    if status not in ("done", "failed"):
        raise InvalidInput(f"{status!r} is no way to end a run", field="status", next_step="Use 'done' or 'failed'.")
    with parts.metadata.writing() as s:
        project_id, _ = projects.find_project(s, project)
        runs.require_running(s, project_id, project, run, author=actor if parts.authenticated else None)
        runs.end(s, run, status, error)
        audit.record(s, project_id, project, actor=actor, verb="run", subject=run, status=status, error=error)
        return runs.get(s, project_id, project, run)
