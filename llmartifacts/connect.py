"""`connect(location)`: a `Registry` over the embedded backend (a directory) or the remote one (an HTTP address)."""

from __future__ import annotations

import getpass
import os
from pathlib import Path

from llmartifacts.errors import NotFound, Unreachable
from llmartifacts.records.names import DEFAULT_PROJECT, check_name
from llmartifacts.registry import Registry

DIRECTORY = ".llmartifacts"
_INIT_HINT = "Make one here with `llmartifacts init`, or set LLMARTIFACTS_REGISTRY."


def connect(
    location: str | os.PathLike[str] | None = None, *, project: str | None = None, actor: str | None = None
) -> Registry:
    """Open a registry.

    Args:
        location: A directory (embedded) or `https://…` (remote). By default `$LLMARTIFACTS_REGISTRY`, else the nearest
            `.llmartifacts/` upward from the working directory.
        project: Project that names without a prefix mean; by default `$LLMARTIFACTS_PROJECT`, else `default`.
        actor: Who acts, for the audit; by default `$LLMARTIFACTS_ACTOR`, else the login name.

    Raises:
        NotFound: There is no registry; says how to make one.
        NewerFormat: It was written by a newer release.
        NotAllowed: It cannot be read, or lies on a network file system.
    """
    where = find(location)
    name = home_project(project)
    if where.startswith(("http://", "https://")):
        raise Unreachable(
            f"{where} is a remote registry, and this release has the embedded one only",
            field="location",
            next_step="Give the path of a registry directory.",
        )
    from llmartifacts.versioning.embedded import EmbeddedBackend

    return Registry(EmbeddedBackend.open(Path(where)), project=name, actor=actor or who(), git_commit=git_commit)


def init(path: str | os.PathLike[str] = DIRECTORY, *, project: str | None = None, actor: str | None = None) -> Registry:
    """Make an embedded registry and open it.

    Args:
        path: The directory to make; it must not exist, or be empty.
        project: As in `connect`.
        actor: As in `connect`.

    Raises:
        Conflict: There is something at the path already.
        NotAllowed: The directory cannot be written, or lies on a network file system.
    """
    from llmartifacts.versioning.embedded import EmbeddedBackend

    EmbeddedBackend.create(Path(path), actor=actor or who()).close()
    return connect(path, project=project, actor=actor)


def find(location: str | os.PathLike[str] | None = None) -> str:
    """Where the registry is, as `connect` decides it.

    Raises:
        NotFound: There is none.
    """
    given = location if location is not None else os.environ.get("LLMARTIFACTS_REGISTRY")
    if given:
        return os.fspath(given)
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / DIRECTORY).is_dir():
            return str(folder / DIRECTORY)
    raise NotFound(
        f"there is no {DIRECTORY}/ in {here} or above it", what="registry", name=DIRECTORY, next_step=_INIT_HINT
    )


def home_project(project: str | None = None) -> str:
    """The project that names without a prefix mean: the one given, else `$LLMARTIFACTS_PROJECT`, else `default`.

    Raises:
        InvalidReference: It is no name.
    """
    return check_name(project or os.environ.get("LLMARTIFACTS_PROJECT") or DEFAULT_PROJECT, field="project")


def who() -> str:
    """Who acts: `$LLMARTIFACTS_ACTOR`, else the login name. Embedded, names are self-declared."""
    named = os.environ.get("LLMARTIFACTS_ACTOR")
    if named:
        return named
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return f"uid-{os.getuid()}"


def git_commit(start: Path | None = None) -> str:
    """The commit checked out in the working directory, read from `.git` without starting git; else empty."""
    here = start or Path.cwd()
    for folder in (here, *here.parents):
        git = folder / ".git"
        try:
            if git.is_file():  # a worktree or submodule: `gitdir: PATH`
                git = folder / git.read_text().partition("gitdir:")[2].strip()
            head = (git / "HEAD").read_text().strip()
        except OSError:
            continue
        return _commit_of(git, head)
    return ""


def _commit_of(git: Path, head: str) -> str:
    if not head.startswith("ref:"):
        return head if _is_commit(head) else ""
    name = head[4:].strip()
    try:
        common = git / (git / "commondir").read_text().strip()
    except OSError:
        common = git
    for base in (git, common):
        try:
            commit = (base / name).read_text().strip()
        except OSError:
            continue
        return commit if _is_commit(commit) else ""
    try:
        for line in (common / "packed-refs").read_text().splitlines():
            commit, _, ref = line.partition(" ")
            if ref == name and _is_commit(commit):
                return commit
    except OSError:
        pass
    return ""


def _is_commit(text: str) -> bool:
    return len(text) in (40, 64) and all(c in "0123456789abcdef" for c in text)
