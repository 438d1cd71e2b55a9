"""Bodies of versions, manifests, readings, collections, projects and runs."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from llmartifacts.errors import InvalidManifest
from llmartifacts.records import manifest as manifests
from llmartifacts.records import version as versions
from llmartifacts.records.manifest import MAX_FILES, SCHEMA
from llmartifacts.records.names import MAX_TAG_VALUE, MAX_TAGS, check_tags
from llmartifacts.records.reference import MAX_MANY
from llmartifacts.wire.bodies.base import DEFAULT_PAGE, Body, Count, Many, Model, Query
from llmartifacts.wire.bodies.fields import (
    Commit,
    DigestText,
    Id,
    Name,
    Object,
    QueryCount,
    QueryPage,
    Reason,
    Ref,
    Tags,
    Text,
    Time,
)

TagText = Annotated[str, Field(max_length=128 + 1 + MAX_TAG_VALUE, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}=")]


class Descriptor(Model):
    """One file of a manifest."""

    path: Annotated[str, Field(min_length=1, max_length=1024)]
    digest: DigestText
    size: Count
    url: Annotated[str, Field(min_length=1)] = ""

    @model_serializer(mode="wrap")
    def _without_nothing(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As the canonical form has it: a file of the registry itself has no `url`."""
        made: dict[str, Any] = write(self)
        if not self.url:
            made.pop("url", None)
        return made


class Component(Model):
    """One part of a bundle."""

    role: Name
    kind: Name
    digest: DigestText


class Manifest(Body[manifests.Manifest]):
    """The canonical object of a manifest. Its digest is that of its canonical bytes (RFC 8785)."""

    RECORD: ClassVar[type[Any]] = manifests.Manifest

    schema_: Annotated[Literal["llmartifacts/manifest/1"], Field(alias="schema")]
    kind: Name
    config: Object
    files: Annotated[Many[Descriptor], Field(max_length=MAX_FILES)]
    components: Annotated[Many[Component], Field(max_length=MAX_FILES)]

    @classmethod
    def of(cls, record: manifests.Manifest) -> Self:
        """The body of a manifest."""
        return cls.known(
            schema=SCHEMA,
            kind=record.kind,
            config=dict(record.config),
            files=tuple(
                Descriptor.model_construct(path=f.path, digest=f.digest, size=f.size, url=f.url or "")
                for f in record.files
            ),
            components=tuple(
                Component.model_construct(role=c.role, kind=c.kind, digest=c.digest) for c in record.components
            ),
        )

    def record(self) -> manifests.Manifest:
        """The manifest, with every rule checked.

        Raises:
            InvalidManifest: A rule is broken.
            InvalidPath: A file path is unsafe.
        """
        made = manifests.Manifest.build(
            self.kind,
            self.config,
            [manifests.Descriptor(f.path, f.digest, f.size, f.url or None) for f in self.files],
            [manifests.Component(c.role, c.kind, c.digest) for c in self.components],
        )
        if [f.path for f in made.files] != [f.path for f in self.files]:
            raise InvalidManifest("files are not sorted by path", field="files")
        if [c.role for c in made.components] != [c.role for c in self.components]:
            raise InvalidManifest("components are not sorted by role, each once", field="components")
        return made


class Version(Body[versions.Version]):
    """One immutable version."""

    RECORD: ClassVar[type[Any]] = versions.Version

    project: Name
    name: Name
    kind: Name
    number: Count
    digest: DigestText
    created_at: Time
    author: str = ""
    message: str = ""
    size: Count = 0
    git_commit: str = ""
    run: str = ""
    tags: dict[str, str] = Field(default_factory=dict)
    aliases: Many[str] = ()
    yanked_at: Time | None = None
    yank_reason: str = ""
    removed_at: Time | None = None
    removed_by: str = ""
    remove_reason: str = ""
    remove_rule: str = ""
    created: bool = False


class Collection(Body[versions.Collection]):
    """All versions under one name."""

    RECORD: ClassVar[type[Any]] = versions.Collection

    project: Name
    name: Name
    kind: Name
    versions: Count
    latest: Count | None
    aliases: dict[str, Count]
    created_at: Time


class Project(Body[versions.Project]):
    """A namespace."""

    RECORD: ClassVar[type[Any]] = versions.Project

    name: Name
    revision: Count
    collections: Count
    created_at: Time


class RunRecord(Body[versions.RunRecord]):
    """One execution that used and produced versions."""

    RECORD: ClassVar[type[Any]] = versions.RunRecord

    id: str
    project: Name
    name: str
    status: str
    parameters: Object
    author: str
    git_commit: str
    started_at: Time
    ended_at: Time | None = None
    error: str = ""
    used: Many[Ref] = ()
    produced: Many[Ref] = ()


class Revision(Model):
    """How many times the aliases of a project have moved."""

    revision: Count


class NewProject(Model):
    """A project to make."""

    name: Name


class NamesQuery(Query):
    """A page of things by name: at most so many, with names above one."""

    limit: QueryPage = DEFAULT_PAGE
    after: Name | None = None


class CollectionsQuery(NamesQuery):
    """A page of collections, of one kind."""

    kind: Name | None = None


class NumbersQuery(Query):
    """A page of numbered things, the newest first: at most so many, with numbers below one."""

    limit: QueryPage = DEFAULT_PAGE
    before: QueryCount | None = None


class VersionsQuery(NumbersQuery):
    """A page of versions: those with all of some tags (`key=value`)."""

    tag: Annotated[list[TagText], Field(max_length=MAX_TAGS)] = Field(default_factory=list)

    def tags(self) -> dict[str, str]:
        """The tags as a mapping. Raises `InvalidReference`."""
        return check_tags(dict(one.split("=", 1) for one in self.tag), field="tag")


class IdsQuery(Query):
    """A page of things with ids, the newest first: at most so many, older than one."""

    limit: QueryPage = DEFAULT_PAGE
    before: Id | None = None


class ReferenceQuery(Query):
    """One reference."""

    reference: Ref


class ReferencesQuery(Query):
    """Several references; the parameter is repeated."""

    ref: Annotated[list[Ref], Field(min_length=1, max_length=1000)]


class References(Model):
    """Several references."""

    references: Annotated[Many[Ref], Field(min_length=1, max_length=MAX_MANY)]


class Yank(Model):
    """A version to withdraw."""

    reference: Ref
    reason: Reason


class Tagging(Model):
    """Labels to set and to remove."""

    reference: Ref
    set: Tags = Field(default_factory=dict)
    remove: Annotated[Many[Name], Field(max_length=256)] = ()


class NewRun(Model):
    """A run that begins."""

    name: Name
    parameters: Object = Field(default_factory=dict)
    git_commit: Commit = ""


class Use(Model):
    """A version that a run read."""

    reference: Ref


class RunEnd(Model):
    """How a run ended."""

    status: Literal["done", "failed"]
    error: Text = ""
