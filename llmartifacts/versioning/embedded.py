"""`EmbeddedBackend`: a registry in a directory, without a server.

registry.db          every record (SQLite)          metadata/
registry.db.lock     the writers' queue
blobs/               bytes by digest                blobs/
tmp/                 bytes on their way in
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from llmartifacts import plugins
from llmartifacts.blobs.disk import make_folders, sync_folder
from llmartifacts.blobs.failures import storage_errors
from llmartifacts.blobs.store import BlobStore
from llmartifacts.errors import Conflict, Damaged, NotFound
from llmartifacts.gates.base import Answers
from llmartifacts.metadata import audit, projects
from llmartifacts.metadata.store import MetadataStore
from llmartifacts.records.approval import Approval, Binding, Subject, TrustedKey
from llmartifacts.records.audit import AuditEntry, AuditVerification
from llmartifacts.records.backend import (
    Collected,
    Draft,
    Migrated,
    Progress,
    PromotionRequest,
    Reading,
    Repaired,
    Staging,
    Stats,
    Storage,
    Verification,
)
from llmartifacts.records.checkpoint import Checkpoint
from llmartifacts.records.digest import Blob, Digest
from llmartifacts.records.evidence import RecordedReport
from llmartifacts.records.lineage import Direction, Lineage
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.names import DEFAULT_PROJECT
from llmartifacts.records.policy import Decision, PolicyRecord
from llmartifacts.records.promotion import HistoryEntry, Promotion, State
from llmartifacts.records.proof import ConsistencyProof, InclusionProof
from llmartifacts.records.reference import Reference
from llmartifacts.records.retention import Retention
from llmartifacts.records.version import Collection, Project, RunRecord, Version
from llmartifacts.versioning import (
    amend,
    approve,
    attest,
    auditcheck,
    auditlog,
    evidence,
    judge,
    keys,
    look,
    policy,
    rollback,
    runs,
    stats,
    verify,
)
from llmartifacts.versioning.chunk_index import RecordedIndex
from llmartifacts.versioning.commit import commit
from llmartifacts.versioning.gc import gc
from llmartifacts.versioning.migrate import migrate
from llmartifacts.versioning.parts import Parts
from llmartifacts.versioning.promote import promote
from llmartifacts.versioning.read import read
from llmartifacts.versioning.removing import Removing

if TYPE_CHECKING:
    from llmartifacts.versioning.downloads import Downloads

DATABASE = "registry.db"
Visible = Callable[[str], bool]
"""Whether somebody may see a project, by its name."""
R = TypeVar("R")


class EmbeddedBackend(Removing):
    """The `Backend` over one directory. Safe to use from several threads and processes, and after a fork."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._blobs = _NamingBlobs(parts)

    @classmethod
    def create(cls, path: Path, *, actor: str) -> EmbeddedBackend:
        """Make a registry in a new or empty directory.

        Raises:
            Conflict: There is something at the path already.
            NotAllowed: It cannot be written, or lies on a network file system.
        """
        place = Path(os.path.abspath(path))
        with storage_errors("make", place):
            if is_there(place) and (not place.is_dir() or any(place.iterdir())):
                raise taken(place)
            make_folders(place.parent)
            aside = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name[:64]}."))
        try:
            with storage_errors("make", place):
                aside.chmod(0o755)
            database = plugins.load("metadata", "sqlite")(aside / DATABASE, create=True)
            store = MetadataStore(database, create=True)
            with store.writing() as s:
                project_id = projects.insert_project(s, DEFAULT_PROJECT)
                audit.record(
                    s, project_id, DEFAULT_PROJECT, actor=actor, verb="project", subject=DEFAULT_PROJECT, created=True
                )
            store.close()
            with storage_errors("make", place):
                (aside / "blobs").mkdir()
                (aside / "tmp").mkdir()
                sync_folder(aside)
                give_name(aside, place)
                sync_folder(place.parent)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        return cls.open(place)

    @classmethod
    def open(cls, path: Path, *, compare: bool = True) -> EmbeddedBackend:
        """Open a registry.

        Args:
            path: The directory.
            compare: Hold each page of the database against its checksum; without is for `reseal`.

        Raises:
            NotFound: There is none at the path.
            NewerFormat: It was written by a newer release.
            Damaged: The database is damaged.
        """
        place = Path(os.path.abspath(path))
        with storage_errors("open", place):
            there = is_there(place / DATABASE)
            around = () if there else (place / ".llmartifacts", *place.parents[:2])  # a level too high or too deep
            near = tuple(str(p) for p in around if is_there(p / DATABASE))[:1]
        if not there:
            raise NotFound(
                f"there is no registry at {place}",
                what="registry",
                name=str(place),
                near=near,
                next_step="" if near else f"Make one: llmartifacts init {path}",
            )
        database = plugins.load("metadata", "sqlite")(place / DATABASE, compare=compare)
        try:
            store = MetadataStore(database)
        except BaseException:
            database.close()
            raise
        blobs = BlobStore.local(place / "blobs", index=lambda driver: RecordedIndex(store, driver))
        return cls(Parts(store, blobs, str(place)))

    def guarded(self, *, allowed_gates: Iterable[str] = ()) -> EmbeddedBackend:
        """The same registry for callers who proved who they are, and who are trusted with no more than that.

        Drafts are checked anew, an approval must be the caller's own, projects are not made by logging into them, and
        of the functions that a policy names only some may run.

        Args:
            allowed_gates: Functions that gates of the kind `python` may run, as `package.module:function`.
        """
        return type(self)(replace(self._parts, authenticated=True, allowed_gates=frozenset(allowed_gates)))

    @property
    def parts(self) -> Parts:
        """The stores."""
        return self._parts

    @cached_property
    def downloads(self) -> Downloads:
        """Hands out blobs as they are stored."""
        from llmartifacts.versioning.downloads import Downloads  # and numpy, for those who hand out bytes

        return Downloads(self._parts)

    @property
    def location(self) -> str:
        """The directory."""
        return self._parts.location

    @property
    def blobs(self) -> _NamingBlobs:
        """Where the bytes are."""
        return self._blobs

    def identity(self) -> str:
        """Which registry it is: the origin of its audit."""
        with self._parts.metadata.reading() as s:
            return audit.origin(s)

    def close(self) -> None:
        """Let go of files and connections."""
        self._parts.metadata.close()

    # --- the verbs, one file each

    def commit(
        self,
        project: str,
        drafts: Sequence[Draft],
        *,
        actor: str,
        staging: Staging | None = None,
        vouched: bool = True,
        visible: Visible | None = None,
        answers: Answers | None = None,
    ) -> list[Version]:
        """Log versions, all or none. A server says more of who logs them; see `versioning.commit.commit`."""
        return commit(
            self._parts,
            project,
            drafts,
            actor=actor,
            staging=staging,
            vouched=vouched,
            visible=visible,
            answers=answers,
        )

    def read(self, project: str, references: Sequence[Reference]) -> Reading:
        """Look up any number of references at one revision."""
        return read(self._parts, project, references)

    def manifests(self, digests: Sequence[Digest]) -> dict[Digest, Manifest]:
        """Manifests by digest, verified; one that is not there is left out."""
        with self._parts.metadata.reading() as s:
            return self._parts.manifests(s, digests)

    def revision(self, project: str) -> int:
        """The project's revision now."""
        with self._parts.metadata.reading() as s:
            return projects.find_project(s, project)[1]

    def promote(
        self, project: str, request: PromotionRequest, *, actor: str, answers: Answers | None = None
    ) -> Promotion:
        """Check gates, move aliases, audit: all or none. A server hands `answers` in; see `asked`."""
        return promote(self._parts, project, request, actor=actor, answers=answers)

    def asked(self, project: str, request: PromotionRequest, *, actor: str) -> Answers:
        """What functions of others say of a move: `answers` for one that is made inside a transaction of the caller."""
        return judge.asked(self._parts, project, request, actor=actor)

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
        return rollback.rollback(self._parts, project, target, to=to, whole=whole, reason=reason, actor=actor)

    def remove_alias(self, project: str, reference: Reference, *, reason: str, actor: str) -> Promotion:
        """Remove an alias."""
        return rollback.remove_alias(self._parts, project, reference, reason=reason, actor=actor)

    def gate(self, project: str, request: PromotionRequest, *, actor: str) -> Decision:
        """What the gates would say of a move; nothing moves."""
        return judge.gate(self._parts, project, request, actor=actor)

    def review(self, project: str, promotion: str, *, reason: str, actor: str) -> Promotion:
        """Record that somebody looked at a move that broke the glass."""
        return policy.review(self._parts, project, promotion, reason=reason, actor=actor)

    def evidence(self, project: str, reference: Reference) -> tuple[Version, tuple[RecordedReport, ...]]:
        """A version, and the reports on it, the newest first."""
        return evidence.of_version(self._parts, project, reference)

    def set_policy(self, project: str, body: Mapping[str, Any] | None, *, message: str, actor: str) -> PolicyRecord:
        """Let a policy hold from now on; None takes the last one away."""
        return policy.set_policy(self._parts, project, body, message=message, actor=actor)

    def policies(self, project: str, *, limit: int | None = None, before: int | None = None) -> list[PolicyRecord]:
        """Every policy that was set, the newest first."""
        return policy.policies(self._parts, project, limit=limit, before=before)

    def yank(self, project: str, reference: Reference, *, reason: str, actor: str) -> Version:
        """Withdraw a version."""
        return amend.yank(self._parts, project, reference, reason=reason, actor=actor)

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
        return amend.tag(self._parts, project, reference, set=set, remove=remove, actor=actor)

    # --- approvals

    def bindings(self, project: str, request: PromotionRequest) -> list[Binding]:
        """What approvals of a move must be for, as of now."""
        return approve.bindings(self._parts, project, request)

    def approve(self, project: str, envelope: bytes, *, actor: str) -> Approval:
        """Keep a signed approval of what holds now."""
        return approve.approve(self._parts, project, envelope, actor=actor)

    def approvals(self, project: str, alias: str, *, limit: int = 50, before: str | None = None) -> list[Approval]:
        """The newest approvals for an alias, each verified now."""
        return approve.list_approvals(self._parts, project, alias, limit=limit, before=before)

    def withdraw(self, project: str, approval: str, *, reason: str, actor: str) -> Approval:
        """Take an approval back."""
        return approve.withdraw(self._parts, project, approval, reason=reason, actor=actor)

    def attest(self, project: str, envelope: bytes, *, actor: str) -> Subject:
        """Keep a person's signature under a report."""
        return attest.attest(self._parts, project, envelope, actor=actor)

    def signers(self, project: str, reference: Reference) -> list[tuple[str, tuple[str, ...], str]]:
        """Who signed a report."""
        return attest.report_signers(self._parts, project, reference)

    def trusted_keys(self) -> list[TrustedKey]:
        """Every key that the registry trusts or trusted."""
        return keys.list_keys(self._parts)

    def trust_key(self, public: str, *, person: str, roles: tuple[str, ...] | None, actor: str) -> TrustedKey:
        """Trust a key, or set its roles."""
        return keys.trust(self._parts, public, person=person, roles=roles, actor=actor)

    def rotate_key(self, envelope: bytes, *, actor: str) -> TrustedKey:
        """Let a key hand over to a new one."""
        return keys.rotate(self._parts, envelope, actor=actor)

    def revoke_key(self, key: str, *, reason: str, actor: str) -> TrustedKey:
        """Revoke a key for good."""
        return keys.revoke(self._parts, key, reason=reason, actor=actor)

    # --- look

    def projects(
        self, *, limit: int | None = None, after: str | None = None, visible: Visible | None = None
    ) -> list[Project]:
        """Every project, by name; of those that are visible, where somebody may not see all."""
        return look.list_projects(self._parts, limit=limit, after=after, visible=visible)

    def create_project(self, name: str, *, actor: str) -> Project:
        """Make a project."""
        with self._parts.metadata.writing() as s:
            project_id = projects.insert_project(s, name)
            audit.record(s, project_id, name, actor=actor, verb="project", subject=name, created=True)
            return projects.project_record(s, name)

    def collections(
        self, project: str, *, kind: str | None = None, limit: int | None = None, after: str | None = None
    ) -> list[Collection]:
        """Every collection of a project, by name."""
        return look.list_collections(self._parts, project, kind=kind, limit=limit, after=after)

    def versions(
        self,
        project: str,
        name: str,
        *,
        tags: Mapping[str, str] | None = None,
        limit: int | None = None,
        before: int | None = None,
    ) -> list[Version]:
        """Versions of a collection, newest first."""
        return look.list_versions(self._parts, project, name, tags=tags, limit=limit, before=before)

    def history(
        self, project: str, reference: Reference, *, limit: int | None = None, before: int | None = None
    ) -> list[HistoryEntry]:
        """Every move of one alias, newest first."""
        return look.history(self._parts, project, reference, limit=limit, before=before)

    def promotions(self, project: str, *, limit: int = 20, before: int | None = None) -> list[Promotion]:
        """The newest promotions of a project."""
        return look.promotions(self._parts, project, limit=limit, before=before)

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
        """What an alias meant everywhere in a project, at a time."""
        return look.state(self._parts, project, alias, at=at, limit=limit, after=after, revision=revision)

    def lineage(
        self, project: str, reference: Reference, direction: Direction, *, visible: Visible | None = None
    ) -> Lineage:
        """The whole closure; without what lies in projects that are not visible, or is reached through them only."""
        return look.lineage(self._parts, project, reference, direction, visible=visible)

    def start_run(
        self, project: str, name: str, *, parameters: Mapping[str, Any], actor: str, git_commit: str = ""
    ) -> RunRecord:
        """Begin a run."""
        return runs.start_run(self._parts, project, name, parameters=parameters, actor=actor, git_commit=git_commit)

    def use_in_run(
        self, project: str, run: str, reference: Reference, *, actor: str, visible: Visible | None = None
    ) -> None:
        """Record that a run read a version."""
        runs.use_in_run(self._parts, project, run, reference, actor=actor, visible=visible)

    def end_run(self, project: str, run: str, *, status: str, error: str = "", actor: str) -> RunRecord:
        """End a run."""
        return runs.end_run(self._parts, project, run, status=status, error=error, actor=actor)

    def runs(
        self, project: str, *, limit: int = 50, before: str | None = None, visible: Visible | None = None
    ) -> list[RunRecord]:
        """The newest runs, newest first; what they used of projects that are not visible is left out."""
        return look.list_runs(self._parts, project, limit=limit, before=before, visible=visible)

    def run(self, project: str, run: str, *, visible: Visible | None = None) -> RunRecord:
        """One run by id; what it used of projects that are not visible is left out."""
        return look.get_run(self._parts, project, run, visible=visible)

    def audit(
        self, project: str | None = None, *, limit: int | None = None, after: int = 0
    ) -> Iterator[Mapping[str, Any]]:
        """Audit entries in order."""
        return look.audit_entries(self._parts, project, limit=limit, after=after)

    def audit_log(
        self, project: str | None = None, *, verb: str | None = None, limit: int = 50, before: int | None = None
    ) -> list[AuditEntry]:
        """The newest audit entries, the newest last."""
        return auditlog.log(self._parts, project, verb=verb, limit=limit, before=before)

    def audit_checkpoint(self) -> Checkpoint:
        """Size and root of the whole audit now."""
        return auditlog.checkpoint(self._parts)

    def audit_inclusion(self, index: int, size: int) -> InclusionProof:
        """The proof that an entry, counted from 0, is among the first `size`."""
        return auditlog.inclusion(self._parts, index, size)

    def audit_consistency(self, old: int, new: int) -> ConsistencyProof:
        """The proof that the first `new` entries begin with the first `old`."""
        return auditlog.consistency(self._parts, old, new)

    def verify_audit(self, checkpoints: Sequence[tuple[str, Checkpoint]] = ()) -> AuditVerification:
        """Check the whole audit, against checkpoints kept elsewhere too."""
        return auditcheck.verify_audit(self._parts, checkpoints)

    def export_audit(self) -> Iterator[bytes]:
        """Every audit entry in order, as the bytes that are hashed."""
        return auditlog.export(self._parts)

    def verify(
        self,
        *,
        read_data: bool = False,
        subset: str = "",
        project: str = "",
        name: str = "",
        progress: Progress | None = None,
    ) -> Verification:
        """Check that everything a version needs is there."""
        return verify.verify(
            self._parts, read_data=read_data, subset=subset, project=project, name=name, progress=progress
        )

    def repair(
        self,
        source: object | None = None,
        *,
        dry_run: bool = False,
        read_data: bool = True,
        progress: Progress | None = None,
        actor: str,
    ) -> Repaired:
        """Make damaged and missing bytes right again."""
        from llmartifacts.versioning.repair import other, repair  # its own work is rare

        return repair(
            self._parts,
            actor=actor,
            other=other(source),
            dry_run=dry_run,
            read_data=read_data,
            progress=progress,
        )

    def stats(self, project: str | None = None, name: str | None = None) -> Stats:
        """Bytes, logical and stored; of one collection also by version."""
        return stats.stats(self._parts, project, name)

    def storage(self, blobs: Sequence[Blob]) -> list[Storage]:
        """How each blob is stored."""
        return stats.storage(self._parts, blobs)

    def gc(
        self,
        *,
        dry_run: bool = False,
        compact: bool = False,
        grace: timedelta | None = None,
        rules: Retention | None = None,
        actor: str,
    ) -> Collected:
        """Remove versions that no rule keeps; free what no version needs."""
        return gc(self._parts, actor=actor, dry_run=dry_run, compact=compact, grace=grace, rules=rules)

    def migrate(self, *, dry_run: bool = False, progress: Progress | None = None, actor: str) -> Migrated:
        """Cut large blobs that are stored whole into chunks."""
        return migrate(self._parts, actor=actor, dry_run=dry_run, progress=progress)


def is_there(path: Path) -> bool:
    """Whether something is there under a name, also a link that leads nowhere."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def taken(place: Path) -> Conflict:
    """The error for a place that is not free for a registry."""
    if is_there(place / DATABASE):
        told, step = "a registry", "Use it as it is, or name another directory for a second one."
    else:
        told, step = "something", "Name another directory."
    return Conflict(f"there is {told} at {place} already", field="location", next_step=step)


def give_name(aside: Path, place: Path) -> None:
    """Let a registry that was made aside appear in its place. Raises `Conflict` where it is not free any more."""
    try:
        aside.rename(place)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise taken(place) from error  # somebody else was first
        raise


class _NamingBlobs:
    """The blob store, whose errors also name the versions that need the bytes."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def stage(self) -> AbstractContextManager[Staging]:
        """Begin to add bytes. Raises `NotFound` where the registry is gone: nothing of it is made anew."""
        with self._parts.metadata.reading():
            return self._parts.blobs.stage()

    def read(self, blob: Blob) -> bytes:
        """The verified bytes, in memory."""
        return self._named(self._parts.blobs.read, blob)

    def open(self, blob: Blob) -> BinaryIO:
        """A reader over the verified bytes."""
        return self._named(self._parts.blobs.open, blob)

    def path(self, blob: Blob) -> Path:
        """A read-only file of the verified bytes."""
        return self._named(self._parts.blobs.path, blob)

    def _named(self, get: Callable[[Blob], R], blob: Blob) -> R:
        try:
            return get(blob)
        except Damaged as error:
            with self._parts.metadata.reading() as s:
                raise replace(error, versions=self._parts.needing(s, blob.digest)) from error
