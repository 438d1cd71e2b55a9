"""What lets go of content for good, as verbs of the embedded backend; and leases, which hold it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta

from llmartifacts.records.leases import Lease
from llmartifacts.records.reference import Reference
from llmartifacts.records.removal import Erased, RemovedProject
from llmartifacts.versioning.parts import Parts


class Removing:
    """The part of `EmbeddedBackend` that keeps `records.removal.Removes`."""

    _parts: Parts

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
        from llmartifacts.versioning.erasure import erase  # and packing, for those who erase

        return erase(self._parts, project, name, documents, reason=reason, dry_run=dry_run, actor=actor)

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
        from llmartifacts.versioning.project_removal import remove_project

        return remove_project(self._parts, project, reason=reason, grace=grace, even_default=even_default, actor=actor)

    def lease(
        self, project: str, references: Sequence[Reference], *, holder: str, length: timedelta, actor: str
    ) -> Lease:
        """Hold some versions for a time, and no others under that name."""
        from llmartifacts.versioning.lease import lease

        return lease(self._parts, project, references, holder=holder, length=length, actor=actor)

    def leases(self, project: str) -> list[Lease]:
        """Every lease that has not ended, by holder."""
        from llmartifacts.versioning.lease import list_leases

        return list_leases(self._parts, project)
