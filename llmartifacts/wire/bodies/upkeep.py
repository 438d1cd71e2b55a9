"""Bodies of checks, sizes and collections of garbage."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field

from llmartifacts.records import backend, digest, retention
from llmartifacts.records.names import MAX_VERSIONS
from llmartifacts.wire.bodies.base import Body, Count, Many, Model, Query
from llmartifacts.wire.bodies.fields import DigestText, Name
from llmartifacts.wire.bodies.problems import Problem

Seconds = Annotated[int, Field(ge=0, le=6_048_000_000)]
"""A length of time; 10,000 weeks at most."""
Whole = Annotated[int, Field(ge=-(2**53) + 1, le=2**53 - 1)]


class Blob(Body[digest.Blob]):
    """Stored bytes by their address."""

    RECORD: ClassVar[type[Any]] = digest.Blob

    digest: DigestText
    size: Count


class Blobs(Model):
    """Blobs that are asked for."""

    blobs: Annotated[Many[Blob], Field(max_length=100_000)]


class Storage(Body[backend.Storage]):
    """How one blob is stored."""

    RECORD: ClassVar[type[Any]] = backend.Storage

    digest: DigestText
    size: Count
    form: str
    stored: Count
    chunks: Count = 0
    dead: Count = 0


class VersionStats(Body[backend.VersionStats]):
    """Bytes of one version."""

    RECORD: ClassVar[type[Any]] = backend.VersionStats

    number: Annotated[int, Field(ge=1, le=MAX_VERSIONS)]
    logical: Count
    added: Count
    dead: Count
    codecs: dict[str, str]


class CollectionStats(Body[backend.CollectionStats]):
    """Bytes of one collection."""

    RECORD: ClassVar[type[Any]] = backend.CollectionStats

    name: str
    kind: str
    versions: Count
    logical: Count
    stored: Count
    dead: Count = 0
    by_version: Many[VersionStats] = ()


class Stats(Body[backend.Stats]):
    """Bytes of a whole registry, or of one collection."""

    RECORD: ClassVar[type[Any]] = backend.Stats

    collections: Many[CollectionStats]
    logical: Count
    stored: Count
    blobs: Count
    database: Count
    unused: Whole = 0


class Collected(Body[backend.Collected]):
    """What `gc` freed, or would free."""

    RECORD: ClassVar[type[Any]] = backend.Collected

    dry_run: bool
    objects: Count
    chunks: Count
    packs: Count
    written: Count
    recoded: Count
    dead: Count
    before: Count
    after: Count
    left: Count
    condemned: Count = 0
    waiting: Count = 0
    removed: Many[str] = ()


class Migrated(Body[backend.Migrated]):
    """What `migrate` moved to packs, or would move."""

    RECORD: ClassVar[type[Any]] = backend.Migrated

    dry_run: bool
    files: Count
    before: Count
    after: Count | None
    problems: Many[Problem] = ()


class Verification(Body[backend.Verification]):
    """What `verify` found."""

    RECORD: ClassVar[type[Any]] = backend.Verification

    versions: Count
    blobs: Count
    read_data: bool
    problems: Many[Problem] = ()
    packs: Count = 0
    more: Count = 0
    part: str = ""


class VerifyRequest(Model):
    """Whether bytes are read and hashed, of which part, and of which collection; of all, where none is named."""

    read_data: bool = False
    subset: Annotated[str, Field(max_length=20)] = ""
    project: Annotated[str, Field(max_length=128)] = ""
    name: Annotated[str, Field(max_length=128)] = ""


class RetentionRules(Body[retention.Retention]):
    """Which versions of a project are kept; lengths of time are in seconds."""

    RECORD: ClassVar[type[Any]] = retention.Retention

    project: Name
    keep_last: Annotated[int, Field(ge=1, le=MAX_VERSIONS)] | None = None
    keep_within: Seconds | None = None
    collections: Annotated[Many[Name], Field(max_length=retention.MAX_COLLECTIONS)] = ()
    history: Seconds = int(retention.HISTORY.total_seconds())
    reason: Annotated[str, Field(max_length=65_536)] = ""

    @classmethod
    def of(cls, record: retention.Retention) -> Self:
        """The body of some rules."""
        return cls.known(
            project=record.project,
            keep_last=record.keep_last,
            keep_within=None if record.keep_within is None else int(record.keep_within.total_seconds()),
            collections=record.collections,
            history=int(record.history.total_seconds()),
            reason=record.reason,
        )

    def record(self) -> retention.Retention:
        """The rules, checked. Raises `InvalidInput`."""
        return retention.Retention(
            self.project,
            self.keep_last,
            None if self.keep_within is None else timedelta(seconds=self.keep_within),
            tuple(self.collections),
            timedelta(seconds=self.history),
            self.reason,
        )


class CollectRequest(Model):
    """What is removed and swept; whether nothing is changed, and whether dead rows are erased too."""

    dry_run: bool = False
    compact: bool = False
    grace: Annotated[int, Field(ge=0, le=int(retention.MAX_GRACE.total_seconds()))] | None = None
    rules: RetentionRules | None = None


class MigrateRequest(Model):
    """Whether nothing is changed."""

    dry_run: bool = False


class StatsQuery(Query):
    """Of which collection; of all, where none is named."""

    name: Name | None = None
