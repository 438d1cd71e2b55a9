"""Bodies of what lets go of content for good, and of leases."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from llmartifacts.records import leases, removal, retention
from llmartifacts.wire.bodies.base import Body, Count, Many, Model
from llmartifacts.wire.bodies.fields import DigestText, Name, Reason, Ref, Time

GraceSeconds = Annotated[int, Field(ge=0, le=int(retention.MAX_GRACE.total_seconds()))]
"""A grace period."""


class Erased(Body[removal.Erased]):
    """What an erasure did, or would do."""

    RECORD: ClassVar[type[Any]] = removal.Erased

    dry_run: bool
    name: str
    found: Count
    versions: Many[str]
    bundles: Many[str]
    searched: Count
    remaining: Many[DigestText] = ()
    holders: Many[str] = ()
    freed: Count = 0


class EraseRequest(Model):
    """The collection, and the ids of the documents or items that go."""

    name: Name
    documents: Annotated[
        Many[Annotated[str, Field(min_length=1, max_length=removal.MAX_ID)]],
        Field(min_length=1, max_length=removal.MAX_DOCUMENTS),
    ]
    reason: Reason
    dry_run: bool = False


class RemovedProject(Body[removal.RemovedProject]):
    """The proof that a project was removed."""

    RECORD: ClassVar[type[Any]] = removal.RemovedProject

    project: Name
    registry: str
    removed_at: Time
    removed_by: str
    reason: str
    entry: Count
    versions: Count
    list: DigestText
    digests: Many[DigestText]
    gone: Many[DigestText]
    remaining: Many[DigestText]
    waiting: Many[DigestText] = ()
    freed: Count = 0


class ProjectRemoval(Model):
    """The project, why it goes, how long what nothing needs stays, and whether `default` may be meant."""

    name: Name
    reason: Reason
    grace: GraceSeconds | None = None
    even_default: bool = False


class Lease(Body[leases.Lease]):
    """What one holder holds."""

    RECORD: ClassVar[type[Any]] = leases.Lease

    project: Name
    holder: str
    digests: Many[DigestText]
    until: Time
    at: Time
    account: str


class LeaseRequest(Model):
    """What to hold, under which name, and for how many seconds from now; 0 lets go."""

    references: Annotated[Many[Ref], Field(min_length=1, max_length=leases.MAX_HELD)]
    holder: Annotated[str, Field(min_length=1, max_length=256)]
    length: Annotated[int, Field(ge=0, le=int(leases.MAX_LEASE.total_seconds()))]
