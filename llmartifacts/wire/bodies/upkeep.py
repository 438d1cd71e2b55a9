"""Bodies of checks, sizes and collections of garbage."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from llmartifacts.records import backend, digest
from llmartifacts.records.names import MAX_VERSIONS
from llmartifacts.wire.bodies.base import Body, Count, Many, Model, Query
from llmartifacts.wire.bodies.fields import DigestText, Name
from llmartifacts.wire.bodies.problems import Problem

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


class VerifyRequest(Model):
    """Whether every byte is read and hashed."""

    read_data: bool = False


class CollectRequest(Model):
    """Whether nothing is changed, and whether dead rows are erased too."""

    dry_run: bool = False
    compact: bool = False


class MigrateRequest(Model):
    """Whether nothing is changed."""

    dry_run: bool = False


class StatsQuery(Query):
    """Of which collection; of all, where none is named."""

    name: Name | None = None
