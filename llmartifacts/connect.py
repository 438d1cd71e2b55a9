"""`connect(location)`: a `Registry` over the embedded backend (a directory) or the remote one (an HTTP address)."""

from __future__ import annotations

import errno
import getpass
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from llmartifacts.errors import InvalidInput, NotFound
from llmartifacts.records.arguments import check_line, check_place, shown
from llmartifacts.records.names import DEFAULT_PROJECT, check_name
from llmartifacts.registry import Registry

if TYPE_CHECKING:
    from llmartifacts.blobs.cache import BlobCache
    from llmartifacts.client.backend import RemoteBackend

V = TypeVar("V")
DIRECTORY = ".llmartifacts"
_PACKED_REFS = 16 * 1024 * 1024
_STORES = frozenset({"postgresql", "postgres", "s3", "gs", "gcs", "az", "azure", "abfs"})
_INIT_HINT = "Make one here with `llmartifacts init`, or set LLMARTIFACTS_REGISTRY."


def connect(
    location: str | os.PathLike[str] | None = None, *, project: str | None = None, actor: str | None = None
) -> Registry:
    """Open a registry.

    Args:
        location: A directory (embedded) or `https://…` (remote; `http://` on this machine). By default
            `$LLMARTIFACTS_REGISTRY`, else the nearest `.llmartifacts/` upward from the working directory.
        project: Project that names without a prefix mean; by default `$LLMARTIFACTS_PROJECT`, else `default`.
        actor: Who acts, for the audit; by default `$LLMARTIFACTS_ACTOR`, else the login name. A server knows by the
            token who acts (`$LLMARTIFACTS_TOKEN`, else what `llmartifacts login` wrote), and takes nobody's word.

    Raises:
        NotFound: There is no registry; says how to make one. A server is not asked before it is needed.
        NewerFormat: It was written by a newer release.
        NotAllowed: It cannot be read, lies on a network file system, or would be spoken to in the open.
        InvalidInput: The address is none, or `actor` was given for a server.
    """
    where = find(location)
    name = home_project(project)
    if "://" in where:
        return _remote(where, name, actor)
    from llmartifacts.versioning.embedded import EmbeddedBackend

    acting = who(actor)
    return Registry(EmbeddedBackend.open(Path(where)), project=name, actor=acting, git_commit=git_commit)


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

    place, acting = check_place(path, field="location"), who(actor)
    if "://" in place:
        raise InvalidInput(
            "a server's registry is made where the server is, and this is an address",
            field="location",
            next_step="Name a directory, or connect to the server.",
        )
    home_project(project)  # refused before anything is made
    EmbeddedBackend.create(Path(place), actor=acting).close()
    return connect(place, project=project, actor=acting)


def resolve_reference(reference: str, type: type[V]) -> V:  # noqa: A002 - as `Registry.resolve` calls it
    """The value that a reference names in the registry that `connect()` finds, for values made of earlier versions.

    Args:
        reference: Alias, version or digest, such as `support-kb:prod`.
        type: Class that the value must have.

    Raises:
        NotFound: There is no registry, or no such version.
        WrongKind: The value is not of that class.
    """
    with connect() as registry:
        return registry.resolve(reference, type)


def keep_answers(registry: Registry, cache: BlobCache) -> None:
    """Let what a server answers outlive this process, so that the next one is sent only what has changed.

    Args:
        registry: An open registry; for an embedded one, nothing is done.
        cache: Where its answers are kept, and manifests looked for.
    """
    keep = getattr(registry.backend, "keep_answers", None)
    if keep is not None:
        keep(cache)


class _RemoteRegistry(Registry):
    """The registry of a server. Who acts is whose token it is; the server is asked for the name when it is wanted."""

    def __init__(self, backend: RemoteBackend, *, project: str) -> None:
        super().__init__(backend, project=project, actor="", git_commit=git_commit)
        del self.actor
        self._who = backend.who

    def __getattr__(self, name: str) -> str:
        if name != "actor":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        self.actor = self._who()
        return self.actor


def _remote(address: str, project: str, actor: str | None) -> Registry:
    scheme = address.partition("://")[0].lower()
    if scheme not in ("http", "https"):
        stored = "--database" if scheme in ("postgresql", "postgres") else "--blobs"
        raise InvalidInput(
            f"a registry is a directory or the address of a server, and this is one of {shown(scheme, 20)}",
            field="location",
            next_step=f"Start a server over it (llmartifacts serve {stored} …), and give its https:// address here."
            if scheme in _STORES
            else "Write the path of a directory, or https://registry.example.com.",
        )
    if actor is not None:
        raise InvalidInput(
            "a server knows by the token who acts, so nobody is named here",
            field="actor",
            next_step="Leave actor out; to act as somebody else, use their token.",
        )
    from llmartifacts.client.backend import RemoteBackend

    return _RemoteRegistry(RemoteBackend.open(address), project=project)


def find(location: str | os.PathLike[str] | None = None) -> str:
    """Where the registry is, as `connect` decides it.

    Raises:
        NotFound: There is none.
        InvalidInput: The location is no path.
    """
    given = location if location is not None else os.environ.get("LLMARTIFACTS_REGISTRY") or None
    if isinstance(given, str) and "://" in given:
        return given  # an address, which `connect` reads: it may hold secrets, and is not told
    if given is not None:
        return check_place(given, field="location")
    here = _working_directory()
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


def who(named: str | None = None) -> str:
    """Who acts: the one named, else `$LLMARTIFACTS_ACTOR`, else the login name. Embedded, names are self-declared.

    Raises:
        InvalidInput: It is no printable text of at most 256 characters.
    """
    given = named or os.environ.get("LLMARTIFACTS_ACTOR")
    if not given:
        try:
            given = getpass.getuser()
        except (OSError, KeyError):
            given = f"uid-{os.getuid()}"
    return check_line(given, field="actor")


def git_commit(start: Path | None = None) -> str:
    """The commit checked out in the working directory, read from `.git` without starting git; else empty."""
    try:
        here = start or Path.cwd()
        for folder in (here, *here.parents):
            git = folder / ".git"
            if not git.exists():
                continue
            if git.is_file():  # a worktree or submodule: `gitdir: PATH`
                git = folder / _text(git).partition("gitdir:")[2].strip()
            return _commit_of(git, _text(git / "HEAD").strip())
    except (OSError, ValueError):  # a repository of somebody else, or a broken one; it says nothing of the content
        pass
    return ""


def _commit_of(git: Path, head: str) -> str:
    if not head.startswith("ref:"):
        return head if _is_commit(head) else ""
    name = head[4:].strip()
    if not name.startswith("refs/") or ".." in name:
        return ""
    try:
        common = git / _text(git / "commondir").strip()
    except OSError:
        common = git
    for base in (git, common):
        try:
            commit = _text(base / name).strip()
        except OSError:
            continue
        return commit if _is_commit(commit) else ""
    for line in _text(common / "packed-refs", _PACKED_REFS).splitlines():
        commit, _, ref = line.partition(" ")
        if ref == name and _is_commit(commit):
            return commit
    return ""


def _text(path: Path, limit: int = 4096) -> str:
    """The beginning of a plain file; a pipe or a device, which could be read for ever, is none."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "no plain file", str(path))
        return file.read(limit).decode("utf-8", "replace")


def _working_directory() -> Path:
    try:
        return Path.cwd()
    except OSError as error:
        raise NotFound(
            "the working directory is gone", what="registry", name=DIRECTORY, next_step="Change to one that is there."
        ) from error


def _is_commit(text: str) -> bool:
    return len(text) in (40, 64) and all(c in "0123456789abcdef" for c in text)
