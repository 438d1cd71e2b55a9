"""What a `Registry` stands on: the embedded backend (versioning) and the remote one (client) both keep this contract.

A backend knows records and bytes, never kinds' values: packing and unpacking happen on the caller's side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from llmartifacts.errors import LlmartifactsError
from llmartifacts.records.approval import Approval, Binding, Subject, TrustedKey
from llmartifacts.records.audit import AuditEntry, AuditVerification
from llmartifacts.records.checkpoint import Checkpoint
from llmartifacts.records.digest import Blob, Digest
from llmartifacts.records.evidence import RecordedReport
from llmartifacts.records.lineage import Direction, Lineage, Relation
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.policy import Decision, PolicyRecord
from llmartifacts.records.promotion import HistoryEntry, Promotion, State
from llmartifacts.records.proof import ConsistencyProof, InclusionProof
from llmartifacts.records.reference import Reference
from llmartifacts.records.removal import Removes
from llmartifacts.records.retention import Retention
from llmartifacts.records.verification import Repaired as Repaired
from llmartifacts.records.verification import Verification as Verification
from llmartifacts.records.version import Collection, Found, Project, RunRecord, Version

Content = bytes | memoryview | Path | BinaryIO
"""What can be stored: bytes, a view of a map, a file, or a stream."""
Earlier = Callable[[], Sequence[Blob]]


class BlobSource(Protocol):
    """Verified bytes by digest. Nothing is handed over before all of it was checked."""

    def read(self, blob: Blob) -> bytes:
        """The bytes, in memory. Raises `DigestMismatch`, `BlobMissing`."""

    def open(self, blob: Blob) -> BinaryIO:
        """A binary reader over verified bytes. Raises as `read`."""

    def path(self, blob: Blob) -> Path:
        """A read-only file of the verified bytes. Raises as `read`."""


class Staging(Protocol):
    """Bytes on their way in: invisible until `publish`, gone without a trace if that never comes."""

    @property
    def added(self) -> Mapping[Digest, int]:
        """Digest of each large blob that was new -> bytes that it adds to what is stored."""

    def add(self, source: Content, like: Earlier = tuple) -> Blob:
        """Take bytes, a file or a stream, and make them durable in a place aside; returns their address.

        Args:
            source: The bytes. A map must not change meanwhile.
            like: Gives the same file of earlier versions, the likeliest first; asked for large ones only.
        """

    def publish(self) -> None:
        """Make all of it readable, at the cost of renames only."""


class BlobBackend(BlobSource, Protocol):
    """Where a registry keeps bytes."""

    def stage(self) -> AbstractContextManager[Staging]:
        """Begin to add bytes."""


@dataclass(frozen=True, slots=True)
class Input:
    """One lineage edge that a log adds.

    Attributes:
        reference: The parent; pinned when logged.
        relation: `derived_from`, `contains` or `evaluated_with`.
        role: Role in the bundle, for `contains`.
    """

    reference: Reference
    relation: Relation = "derived_from"
    role: str = ""


@dataclass(frozen=True, slots=True)
class Draft:
    """One version about to be logged.

    Attributes:
        name: Name of the collection.
        manifest: What it is.
        message: What to say of it.
        tags: Free labels.
        aliases: Aliases to move to it in the same transaction.
        inputs: Lineage edges.
        git_commit: Commit of the code that logs it; empty if unknown.
        run: Id of the run it belongs to; empty if none.
    """

    name: str
    manifest: Manifest
    message: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    inputs: tuple[Input, ...] = ()
    git_commit: str = ""
    run: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """One alias to move.

    Attributes:
        reference: The version to move it to.
        alias: The alias.
    """

    reference: Reference
    alias: str


@dataclass(frozen=True, slots=True)
class PromotionRequest:
    """A move that somebody asks for.

    Attributes:
        targets: What to move where.
        reason: Why.
        ticket: Ticket of the change.
        expect: Collection name -> `vN` that its alias must point at now; None: it must not exist.
        break_glass: Whether to move although a gate denies, where the policy lets the one who asks do so.
    """

    targets: tuple[Target, ...]
    reason: str = ""
    ticket: str = ""
    expect: Mapping[str, str | None] | None = None
    break_glass: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """Any number of references read at one revision.

    Attributes:
        project: Name of the project.
        revision: The revision that all of it was read at.
        items: For each reference in order, what was found or why not.
    """

    project: str
    revision: int
    items: tuple[Found | LlmartifactsError, ...]


@dataclass(frozen=True, slots=True)
class Storage:
    """How one blob is stored.

    Attributes:
        digest: Of its content.
        size: Bytes of its content.
        form: `raw`, `zstd`, or the codec that cut it into chunks; `missing` or `damaged` where it cannot be read.
        stored: Bytes that it takes: its object, and every chunk that it needs, those shared with others too.
        chunks: How many distinct chunks it needs.
        dead: Bytes of removed rows that its chunks still carry.
    """

    digest: Digest
    size: int
    form: str
    stored: int
    chunks: int = 0
    dead: int = 0


@dataclass(frozen=True, slots=True)
class VersionStats:
    """Bytes of one version.

    Attributes:
        number: Its number.
        logical: Bytes of its content.
        added: Bytes that are stored for it and that no earlier version of the collection needs.
        dead: Bytes of removed rows that its chunks still carry.
        codecs: Path of each file -> how it is stored, as `Storage.form` says it.
    """

    number: int
    logical: int
    added: int
    dead: int
    codecs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class CollectionStats:
    """Bytes of one collection.

    Attributes:
        name: Its name.
        kind: Its kind.
        versions: How many versions.
        logical: Sum of the versions' sizes, in bytes.
        stored: Bytes held for them, each distinct object and chunk once.
        dead: Bytes of removed rows that the newest version still carries in its chunks.
        by_version: Each version, the oldest first, where one collection was asked for.
    """

    name: str
    kind: str
    versions: int
    logical: int
    stored: int
    dead: int = 0
    by_version: tuple[VersionStats, ...] = ()


@dataclass(frozen=True, slots=True)
class Stats:
    """Bytes of a whole registry.

    Attributes:
        collections: By collection; only one, where one was asked for.
        logical: Sum of all versions' sizes, in bytes.
        stored: Bytes that really lie in the store: objects, packs and the manifests in the database.
        blobs: How many blobs the versions need.
        database: Bytes of the metadata.
        unused: Of what is stored, bytes that no version needs. `gc` frees them; those in packs that are more than half
            in use only with `compact`.
    """

    collections: tuple[CollectionStats, ...]
    logical: int
    stored: int
    blobs: int
    database: int
    unused: int = 0


@dataclass(frozen=True, slots=True)
class Collected:
    """What `gc` freed, or would free.

    Attributes:
        dry_run: Whether nothing was changed.
        objects: How many stored objects went.
        chunks: How many chunks went.
        packs: How many packs went, those included that were rewritten.
        written: How many packs were written in their place.
        recoded: How many blobs were encoded anew, without their dead rows.
        dead: Bytes of dead rows that went with that.
        before: Bytes stored before: objects and packs.
        after: Bytes stored after.
        left: Of those, bytes in packs that no version needs, and that stay until more of their pack is unneeded.
        condemned: How many objects and packs nothing needs, and that stay until their grace period is over.
        waiting: Their bytes.
        removed: References of the versions that no rule kept.
    """

    dry_run: bool
    objects: int
    chunks: int
    packs: int
    written: int
    recoded: int
    dead: int
    before: int
    after: int
    left: int
    condemned: int = 0
    waiting: int = 0
    removed: tuple[str, ...] = ()

    @property
    def freed(self) -> int:
        """Bytes that are stored no more; negative where `compact` took versions apart that shared rows."""
        return self.before - self.after


@dataclass(frozen=True, slots=True)
class Migrated:
    """What `migrate` moved to packs, or would move.

    Attributes:
        dry_run: Whether nothing was changed.
        files: How many blobs were cut into chunks.
        before: Bytes that they took before.
        after: Bytes that were stored for them instead; None where nothing was done: that shows only by doing it.
        problems: What could not be moved, and stays as it was.
    """

    dry_run: bool
    files: int
    before: int
    after: int | None
    problems: tuple[LlmartifactsError, ...] = ()


Progress = Callable[[int, int], None]
"""Takes the bytes done and the bytes in all."""


class Backend(Removes, Protocol):
    """The verbs of a registry on records and bytes. Every change writes its audit event in the same transaction.

    `project` is a project's name; `actor` is who asks. Errors are those of `llmartifacts.errors`.
    """

    @property
    def location(self) -> str:
        """Where it is, as `connect` takes it."""

    @property
    def blobs(self) -> BlobBackend:
        """Where it keeps bytes."""

    def identity(self) -> str:
        """Which registry it is, wherever it lies: the same for every copy of it, another for one made anew."""

    def close(self) -> None:
        """Let go of files and connections."""

    # --- log

    def commit(
        self, project: str, drafts: Sequence[Draft], *, actor: str, staging: Staging | None = None
    ) -> list[Version]:
        """Log versions, all or none; publishes the staged bytes once nothing else can refuse."""

    # --- resolve

    def read(self, project: str, references: Sequence[Reference]) -> Reading:
        """Look up any number of references at one revision."""

    def manifests(self, digests: Sequence[Digest]) -> dict[Digest, Manifest]:
        """Manifests by digest, verified; one that is not there is left out. Raises `DigestMismatch`."""

    def revision(self, project: str) -> int:
        """The project's revision now."""

    # --- promote, rollback

    def promote(self, project: str, request: PromotionRequest, *, actor: str) -> Promotion:
        """Check gates, move aliases, audit: all or none."""

    def rollback(
        self,
        project: str,
        target: Reference | str,
        *,
        to: Reference | None = None,
        whole: bool = False,
        reason: str,
        actor: str,
    ) -> Promotion:
        """Undo the newest promotion not yet undone of an alias, or one promotion by id."""

    def remove_alias(self, project: str, reference: Reference, *, reason: str, actor: str) -> Promotion:
        """Remove an alias."""

    def gate(self, project: str, request: PromotionRequest, *, actor: str) -> Decision:
        """What the gates would say of a move; nothing moves."""

    def review(self, project: str, promotion: str, *, reason: str, actor: str) -> Promotion:
        """Record that somebody looked at a move that broke the glass."""

    def evidence(self, project: str, reference: Reference) -> tuple[Version, tuple[RecordedReport, ...]]:
        """A version, and the reports on it, the newest first."""

    def set_policy(self, project: str, body: Mapping[str, Any] | None, *, message: str, actor: str) -> PolicyRecord:
        """Let a policy hold from now on; None takes the last one away."""

    def policies(self, project: str, *, limit: int | None = None, before: int | None = None) -> list[PolicyRecord]:
        """Every policy that was set, the newest first; the first one holds. `before` is a policy's number."""

    def yank(self, project: str, reference: Reference, *, reason: str, actor: str) -> Version:
        """Withdraw a version; refused while an alias names it."""

    def tag(
        self,
        project: str,
        reference: Reference,
        *,
        set: Mapping[str, str],  # noqa: A002
        remove: Sequence[str],
        actor: str,
    ) -> Version:
        """Set and remove labels of a version."""

    # --- approvals

    def bindings(self, project: str, request: PromotionRequest) -> list[Binding]:
        """What approvals of a move must be for, as of now: one for each alias."""

    def approve(self, project: str, envelope: bytes, *, actor: str) -> Approval:
        """Keep a signed approval of what holds now. Raises `NotAllowed`, `Damaged`, `Conflict`, `Refused`."""

    def approvals(self, project: str, alias: str, *, limit: int = 50, before: str | None = None) -> list[Approval]:
        """The newest approvals for an alias, newest first, each verified now; why one does not hold any more.

        `before` is an approval's id. Raises `NotFound`, `InvalidInput`.
        """

    def withdraw(self, project: str, approval: str, *, reason: str, actor: str) -> Approval:
        """Take an approval back. Raises `NotFound`."""

    def attest(self, project: str, envelope: bytes, *, actor: str) -> Subject:
        """Keep a person's signature under a report. Raises as `approve`, and `WrongKind`."""

    def signers(self, project: str, reference: Reference) -> list[tuple[str, tuple[str, ...], str]]:
        """Who signed a report: person, roles, and why it does not count."""

    def trusted_keys(self) -> list[TrustedKey]:
        """Every key that the registry trusts or trusted, by person."""

    def trust_key(self, public: str, *, person: str, roles: tuple[str, ...] | None, actor: str) -> TrustedKey:
        """Trust a key, or set its roles; None leaves them. Raises `Conflict`: it is another person's."""

    def rotate_key(self, envelope: bytes, *, actor: str) -> TrustedKey:
        """Let a key hand over to a new one, which the envelope names; the old one is revoked."""

    def revoke_key(self, key: str, *, reason: str, actor: str) -> TrustedKey:
        """Revoke a key for good. Raises `NotFound`."""

    # --- look
    #
    # Each list is a page of at most `limit`; None is all of it, which a remote backend fetches page by page. What
    # `after` or `before` names need not be there any more where it is a name or a number; the page goes on beyond it.

    def projects(self, *, limit: int | None = None, after: str | None = None) -> list[Project]:
        """Every project, by name; a page of `limit` projects with names above `after`."""

    def create_project(self, name: str, *, actor: str) -> Project:
        """Make a project. Raises `Conflict` if it exists."""

    def collections(
        self, project: str, *, kind: str | None = None, limit: int | None = None, after: str | None = None
    ) -> list[Collection]:
        """Every collection of a project, by name; a page of `limit` collections with names above `after`."""

    def versions(
        self,
        project: str,
        name: str,
        *,
        tags: Mapping[str, str] | None = None,
        limit: int | None = None,
        before: int | None = None,
    ) -> list[Version]:
        """Versions of a collection, newest first; a page of `limit` versions with numbers below `before`."""

    def history(
        self, project: str, reference: Reference, *, limit: int | None = None, before: int | None = None
    ) -> list[HistoryEntry]:
        """Every move of one alias, newest first; a page of `limit` moves with numbers below `before`."""

    def promotions(self, project: str, *, limit: int = 20, before: int | None = None) -> list[Promotion]:
        """The newest promotions of a project, newest first, with revisions below `before`."""

    def state(
        self,
        project: str,
        alias: str,
        *,
        at: datetime | None = None,
        limit: int | None = None,
        after: str | None = None,
        revision: int | None = None,
    ) -> State:
        """What an alias meant everywhere in a project, at a time; a page of `limit` collections above the name `after`.

        `revision` is what the first page said, so that the next ones are of the same moment; `latest` follows logs,
        which no revision counts, and takes none.
        """

    def lineage(self, project: str, reference: Reference, direction: Direction) -> Lineage:
        """The whole closure."""

    # --- runs

    def start_run(
        self, project: str, name: str, *, parameters: Mapping[str, Any], actor: str, git_commit: str = ""
    ) -> RunRecord:
        """Begin a run."""

    def use_in_run(self, project: str, run: str, reference: Reference, *, actor: str) -> None:
        """Record that a run read a version."""

    def end_run(self, project: str, run: str, *, status: str, error: str = "", actor: str) -> RunRecord:
        """End a run as `done` or `failed`."""

    def runs(self, project: str, *, limit: int = 50, before: str | None = None) -> list[RunRecord]:
        """The newest runs, newest first; those that come after the run with the id `before`. Raises `NotFound`."""

    def run(self, project: str, run: str) -> RunRecord:
        """One run by id. Raises `NotFound`."""

    # --- upkeep

    def audit(
        self, project: str | None = None, *, limit: int | None = None, after: int = 0
    ) -> Iterator[Mapping[str, Any]]:
        """Audit entries in order, as the JSON objects that were hashed; those with numbers above `after`."""

    def audit_log(
        self, project: str | None = None, *, verb: str | None = None, limit: int = 50, before: int | None = None
    ) -> list[AuditEntry]:
        """The newest audit entries with numbers below `before`, the newest last."""

    def audit_checkpoint(self) -> Checkpoint:
        """Size and root of the whole audit now. Raises `Damaged`: an entry was altered or is missing."""

    def audit_inclusion(self, index: int, size: int) -> InclusionProof:
        """The proof that an entry, counted from 0, is among the first `size`. Raises `InvalidInput`, `Damaged`."""

    def audit_consistency(self, old: int, new: int) -> ConsistencyProof:
        """The proof that the first `new` entries begin with the first `old`. Raises `InvalidInput`, `Damaged`."""

    def verify_audit(self, checkpoints: Sequence[tuple[str, Checkpoint]] = ()) -> AuditVerification:
        """Check the whole audit, against checkpoints kept elsewhere too: where each was kept, and what it says."""

    def export_audit(self) -> Iterator[bytes]:
        """Every audit entry in order, as the bytes that are hashed. Raises `Damaged`."""

    def verify(
        self,
        *,
        read_data: bool = False,
        subset: str = "",
        project: str = "",
        name: str = "",
        progress: Progress | None = None,
    ) -> Verification:
        """Check that everything a version needs is there; with `read_data`, that every byte is right.

        With `subset` (`3/20`, `5%`, `50G`) only a part is read; with `name`, the bytes of one collection are checked.
        """

    def repair(
        self,
        source: object | None = None,
        *,
        dry_run: bool = False,
        read_data: bool = True,
        progress: Progress | None = None,
        actor: str,
    ) -> Repaired:
        """Make damaged and missing bytes right again, from another registry or place of bytes where one is given."""

    def stats(self, project: str | None = None, name: str | None = None) -> Stats:
        """Bytes, logical and stored; of one collection also by version. Raises `NotFound`."""

    def storage(self, blobs: Sequence[Blob]) -> list[Storage]:
        """How each blob is stored."""

    def gc(
        self,
        *,
        dry_run: bool = False,
        compact: bool = False,
        grace: timedelta | None = None,
        rules: Retention | None = None,
        actor: str,
    ) -> Collected:
        """Remove versions that no rule keeps; free what no version needs, with `compact` also rows of no content."""

    def migrate(self, *, dry_run: bool = False, progress: Progress | None = None, actor: str) -> Migrated:
        """Cut large blobs that are stored whole into chunks."""
