"""What goes for good: erased documents, removed projects; and what is held against it: leases."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from llmartifacts.errors import InvalidInput
from llmartifacts.records.arguments import shown
from llmartifacts.records.digest import Digest
from llmartifacts.records.leases import Lease
from llmartifacts.records.reference import Reference

MAX_DOCUMENTS = 100_000
"""Documents that one erasure takes."""
MAX_ID = 1024
"""Characters of a document's id."""


def check_document(value: object) -> str:
    """Check the id of a document. Raises `InvalidInput`."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID:
        raise InvalidInput(
            f"{shown(value)} is no id of a document", field="documents", next_step="Give the ids, one by one."
        )
    return str(value)


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure did, or would do.

    Attributes:
        dry_run: Whether nothing was changed.
        name: `[project/]name` of the collection.
        found: How many of the documents some version held.
        versions: References of the versions that held one of them, and went.
        bundles: References of the bundles that contained one of those, and went with it.
        searched: How many versions were searched.
        remaining: Digests of files and manifests of those versions that versions of other names hold too: they stay
            for these.
        holders: The versions that hold them, as far as they may be told of.
        freed: Bytes that are stored no more.
    """

    dry_run: bool
    name: str
    found: int
    versions: tuple[str, ...]
    bundles: tuple[str, ...]
    searched: int
    remaining: tuple[Digest, ...] = ()
    holders: tuple[str, ...] = ()
    freed: int = 0

    @property
    def complete(self) -> bool:
        """Whether no document of those versions is stored any more."""
        return not self.remaining


@dataclass(frozen=True, slots=True)
class RemovedProject:
    """The proof that a project was removed. `llmartifacts audit verify` checks the entry that it names.

    Attributes:
        project: Its name, which is not used again.
        registry: Which registry it was in: the origin of its audit.
        removed_at: When it was removed, UTC.
        removed_by: Who removed it.
        reason: Why.
        entry: Number of the audit entry that tells of it.
        versions: How many versions it ever had.
        list: SHA-256 of the list of their digests, sorted, as canonical JSON; the audit entry has it too.
        digests: That list.
        gone: Digests of the files and manifests that are stored nowhere now.
        remaining: Those that stay, since versions of other projects need them.
        waiting: Those that nothing needs and that are still stored: their grace period is not over.
        freed: Bytes that this call freed.
    """

    project: str
    registry: str
    removed_at: datetime
    removed_by: str
    reason: str
    entry: int
    versions: int
    list: Digest
    digests: tuple[Digest, ...]
    gone: tuple[Digest, ...]
    remaining: tuple[Digest, ...]
    waiting: tuple[Digest, ...] = ()
    freed: int = 0


class Removes(Protocol):
    """The verbs of a backend that hold content, and that let it go."""

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
        """Erase every version that holds one of some documents. Raises `Refused`, `WrongKind`, `NotFound`."""

    def remove_project(
        self,
        project: str,
        *,
        reason: str,
        grace: timedelta | None = None,
        even_default: bool = False,
        actor: str,
    ) -> RemovedProject:
        """Remove a project and all of its content; of one that is removed, free what waited, and prove it anew.

        The one that names without a project mean is refused (`Refused`) unless `even_default` is set.
        """

    def lease(
        self, project: str, references: Sequence[Reference], *, holder: str, length: timedelta, actor: str
    ) -> Lease:
        """Hold some versions for a time, and no others under that name; for no time at all, let go of them."""

    def leases(self, project: str) -> list[Lease]:
        """Every lease that has not ended, by holder."""
