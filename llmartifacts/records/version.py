"""A version: one immutable, numbered entry of a collection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from llmartifacts.records.digest import Digest
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.names import DEFAULT_PROJECT
from llmartifacts.records.reference import Reference


@dataclass(frozen=True, slots=True)
class Version:
    """One immutable version.

    Attributes:
        project: Name of its project.
        name: Name of its collection.
        kind: Kind of the collection.
        number: N of `vN`.
        digest: Digest of its manifest.
        created_at: When it was first logged, UTC, by the registry's clock.
        author: Who logged it first.
        message: What was said at the first log.
        size: Logical bytes: the manifest and every file.
        git_commit: Commit of the code that logged it; empty if unknown.
        run: Id of the run that logged it; empty if none.
        tags: Free labels.
        aliases: Aliases that point at it now, `latest` included, sorted.
        yanked_at: When it was withdrawn; None if it was not.
        yank_reason: Why it was withdrawn.
        removed_at: When its content was removed; None if it was not. Its number is never used again.
        removed_by: Who removed it.
        remove_reason: Why it was removed, in their words.
        remove_rule: By which rule, such as `keep-last 10`, `project` or `erase`.
        created: Whether the `log` that returned this made it new.
    """

    project: str
    name: str
    kind: str
    number: int
    digest: Digest
    created_at: datetime
    author: str = ""
    message: str = ""
    size: int = 0
    git_commit: str = ""
    run: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    yanked_at: datetime | None = None
    yank_reason: str = ""
    removed_at: datetime | None = None
    removed_by: str = ""
    remove_reason: str = ""
    remove_rule: str = ""
    created: bool = False

    @property
    def reference(self) -> Reference:
        """`[project/]name:vN`; the project is left out where it is `default`."""
        project = None if self.project == DEFAULT_PROJECT else self.project
        return Reference(self.name, project, number=self.number)

    @property
    def pinned(self) -> Reference:
        """`[project/]name:vN@sha256:…`, which cannot mean anything else."""
        project = None if self.project == DEFAULT_PROJECT else self.project
        return Reference(self.name, project, number=self.number, digest=self.digest)

    def __str__(self) -> str:
        return str(self.reference)


@dataclass(frozen=True, slots=True)
class Found:
    """A version with its verified manifest.

    Attributes:
        version: The version.
        manifest: What it is.
        move: Move number of the alias it was found by; None if by number or digest.
    """

    version: Version
    manifest: Manifest
    move: int | None = None


@dataclass(frozen=True, slots=True)
class Collection:
    """All versions under one name.

    Attributes:
        project: Name of its project.
        name: Its name.
        kind: Its kind, fixed by the first log.
        versions: How many versions it has.
        latest: Number of the version last logged.
        aliases: Alias -> version number, without `latest`.
        created_at: When the first version was logged, UTC.
    """

    project: str
    name: str
    kind: str
    versions: int
    latest: int | None
    aliases: Mapping[str, int]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Project:
    """A namespace.

    Attributes:
        name: Its name.
        revision: How many times its aliases have moved.
        collections: How many collections it has.
        created_at: When it was made, UTC.
    """

    name: str
    revision: int
    collections: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One execution that used and produced versions.

    Attributes:
        id: Its id.
        project: Name of its project.
        name: What it does, such as `build-index`.
        status: `running`, `done` or `failed`.
        parameters: JSON object of what it ran with.
        author: Who ran it.
        git_commit: Commit of its code; empty if unknown.
        started_at: When it began, UTC.
        ended_at: When it ended; None while it runs.
        error: What it failed of.
        used: Versions it read, pinned, in order.
        produced: Versions it logged, pinned, in order.
    """

    id: str
    project: str
    name: str
    status: str
    parameters: Mapping[str, object]
    author: str
    git_commit: str
    started_at: datetime
    ended_at: datetime | None = None
    error: str = ""
    used: tuple[Reference, ...] = ()
    produced: tuple[Reference, ...] = ()
