"""Keeping a registry in order: projects, checks, bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llmartifacts.records.arguments import check_count, check_limit
from llmartifacts.records.audit import AuditEntry, AuditVerification
from llmartifacts.records.backend import Backend, Collected, Migrated, Progress, Stats, Verification
from llmartifacts.records.checkpoint import Checkpoint
from llmartifacts.records.names import check_name
from llmartifacts.records.reference import collection_names
from llmartifacts.records.version import Project


class Upkeep:
    """The verbs of a `Registry` that keep it in order."""

    backend: Backend
    project: str
    actor: str

    def projects(self, *, limit: int | None = None, after: str | None = None) -> list[Project]:
        """Every project, by name; with `limit`, at most so many, with names above `after`."""
        last = None if after is None else check_name(after, field="after")
        return self.backend.projects(limit=check_limit(limit), after=last)

    def create_project(self, name: str) -> Project:
        """Make a project. Raises `Conflict` if it exists."""
        return self.backend.create_project(check_name(name, field="project"), actor=self.actor)

    def verify(self, *, read_data: bool = False) -> Verification:
        """Check that everything the versions need is there; with `read_data`, that every stored byte is right."""
        return self.backend.verify(read_data=read_data)

    def stats(self, name: str | None = None) -> Stats:
        """Bytes, logical and stored; with a name, of that collection and by version. Raises `NotFound`."""
        if name is None:
            return self.backend.stats()
        (bare,), project = collection_names([name], self.project)
        return self.backend.stats(project, bare)

    def gc(self, *, dry_run: bool = False, compact: bool = False) -> Collected:
        """Free what no version needs; nothing is deleted where anything needed cannot be read.

        Args:
            dry_run: Change nothing; the report is the same.
            compact: Also erase removed rows that chunks still carry, and rewrite every pack with something unneeded.

        Raises:
            Damaged: Something needed cannot be read.
        """
        return self.backend.gc(dry_run=dry_run, compact=compact, actor=self.actor)

    def migrate(self, *, dry_run: bool = False, progress: Progress | None = None) -> Migrated:
        """Cut large files that an earlier release stored whole into chunks; may be interrupted and called again."""
        return self.backend.migrate(dry_run=dry_run, progress=progress, actor=self.actor)

    def audit_log(self, *, verb: str | None = None, limit: int = 50, before: int | None = None) -> list[AuditEntry]:
        """The newest audit entries of every project, the newest last; with `before`, those with lower numbers."""
        limit, before = check_count(limit, field="limit"), check_limit(before, field="before")
        return self.backend.audit_log(None, verb=verb, limit=limit, before=before)

    def audit_checkpoint(self) -> Checkpoint:
        """Size and root of the audit now. Raises `Damaged`: an entry was altered or is missing."""
        return self.backend.audit_checkpoint()

    def verify_audit(self, checkpoints: Sequence[tuple[str, Checkpoint]] = ()) -> AuditVerification:
        """Check the whole audit, against checkpoints kept elsewhere too.

        Args:
            checkpoints: Where each was kept, and what it says; `llmartifacts.signing.note.read_checkpoint` reads one.
        """
        return self.backend.verify_audit(checkpoints)

    def export_audit(self) -> Iterator[bytes]:
        """Every audit entry in order, as the bytes that are hashed. Raises `Damaged`."""
        return self.backend.export_audit()
