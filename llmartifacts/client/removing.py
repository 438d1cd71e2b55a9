"""What lets go of content for good, and leases, through HTTP."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta

from llmartifacts.client.calls import Calls
from llmartifacts.records.leases import Lease
from llmartifacts.records.reference import Reference
from llmartifacts.records.removal import Erased, RemovedProject
from llmartifacts.wire.bodies import removal
from llmartifacts.wire.bodies.base import Page


class Removing:
    """The part of `RemoteBackend` that keeps `records.removal.Removes`."""

    calls: Calls

    def erase(
        self,
        project: str,
        name: str,
        documents: Collection[str],
        *,
        reason: str,
        dry_run: bool = False,
        actor: str,
    ) -> Erased:
        """Erase every version that holds one of some documents."""
        body = removal.EraseRequest(name=name, documents=tuple(documents), reason=reason, dry_run=dry_run)
        return self.calls.record(removal.Erased, "erase", body=body, path={"project": project})

    def remove_project(
        self,
        project: str,
        *,
        reason: str,
        grace: timedelta | None = None,
        even_default: bool = False,
        actor: str,
    ) -> RemovedProject:
        """Remove a project and all of its content, with proof."""
        body = removal.ProjectRemoval(
            name=project,
            reason=reason,
            grace=None if grace is None else int(grace.total_seconds()),
            even_default=even_default,
        )
        return self.calls.record(removal.RemovedProject, "remove_project", body=body)

    def lease(
        self, project: str, references: Sequence[Reference], *, holder: str, length: timedelta, actor: str
    ) -> Lease:
        """Hold some versions for a time, and no others under that name."""
        body = removal.LeaseRequest(references=tuple(references), holder=holder, length=int(length.total_seconds()))
        return self.calls.record(removal.Lease, "lease", body=body, path={"project": project})

    def leases(self, project: str) -> list[Lease]:
        """Every lease that has not ended, by holder."""
        page = self.calls.ask(Page[removal.Lease], "leases", path={"project": project})
        return [one.record() for one in page.items]
