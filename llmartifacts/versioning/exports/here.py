"""What is here already of what an export holds: asked of the database where it is ours, else of the server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from llmartifacts.errors import InvalidReference, NotFound
from llmartifacts.metadata import projects
from llmartifacts.metadata.database import Session
from llmartifacts.records.backend import Backend
from llmartifacts.records.digest import digest_bytes

_PAGE = 1000


class Here(Protocol):
    """Looks up what is here."""

    def collection(self, project: str, name: str) -> tuple[str, str] | None:
        """Name and kind of a collection whose name is this one but for its case; None if there is none.

        Raises:
            NotFound: There is no such project, and whoever imports cannot make it.
            InvalidReference: The project's name differs from another's in case only.
        """

    def digests(self, project: str, name: str) -> Iterator[bytes]:
        """Digests of the versions of a collection that is here, without those that were removed."""


class HereInDatabase:
    """Of a registry whose database this process has.

    Args:
        s: A transaction of it.
    """

    def __init__(self, s: Session) -> None:
        self._s = s
        self._projects: dict[str, int | None] = {}

    def collection(self, project: str, name: str) -> tuple[str, str] | None:
        """See `Here`."""
        project_id = self._project(project)
        row = self._s.row(
            "select name, kind from collection where project_id = :p and name_key = :k",
            {"p": project_id, "k": name.casefold()},
        )
        return None if row is None else (row[0], row[1])

    def digests(self, project: str, name: str) -> Iterator[bytes]:
        """See `Here`."""
        asked = {"p": self._project(project), "k": name.casefold(), "last": 0, "n": _PAGE}
        while True:
            found = self._s.rows(
                "select v.number, v.digest, v.removed_at from collection c join version v on v.collection_id = c.id"
                " where c.project_id = :p and c.name_key = :k and v.number > :last order by v.number limit :n",
                asked,
            )
            yield from (bytes(row[1]) for row in found if row[2] is None)
            if len(found) < _PAGE:
                return
            asked["last"] = found[-1][0]

    def _project(self, name: str) -> int | None:
        """Id of a project; None where the first log will make it."""
        if name not in self._projects:
            try:
                self._projects[name] = projects.find_project(self._s, name)[0]
            except NotFound:
                row = self._s.row("select name from project where name_key = :k", {"k": name.casefold()})
                if row is not None and row[0] != name:
                    raise InvalidReference(
                        f"the project {name!r} differs from {row[0]!r} in case only",
                        field="project",
                        next_step=f"Import it there: --project {row[0]}.",
                    ) from None
                self._projects[name] = None
        return self._projects[name]


class HereOnServer:
    """Of a registry that a server has.

    Args:
        backend: Asks the server.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._known: dict[str, dict[str, Any]] = {}

    def collection(self, project: str, name: str) -> tuple[str, str] | None:
        """See `Here`."""
        if project not in self._known:
            self._known[project] = {
                one.name.casefold(): (one.name, one.kind) for one in self._backend.collections(project)
            }
        found: tuple[str, str] | None = self._known[project].get(name.casefold())
        return found

    def digests(self, project: str, name: str) -> Iterator[bytes]:
        """See `Here`."""
        before: int | None = None
        while page := self._backend.versions(project, name, limit=_PAGE, before=before):
            yield from (digest_bytes(v.digest) for v in page if v.removed_at is None)
            before = page[-1].number
