"""Bodies of the audit: entries, checkpoints, proofs, and what a check found."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, StringConstraints

from llmartifacts.records import audit, checkpoint, proof
from llmartifacts.wire.bodies.base import DEFAULT_PAGE, Body, Count, Many, Model, Query
from llmartifacts.wire.bodies.fields import Line, Name, Object, QueryCount, QueryPage, Time
from llmartifacts.wire.bodies.problems import Problem
from llmartifacts.wire.bodies.versions import NumbersQuery

Hex = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$", max_length=64)]
"""A hash of 32 bytes, 64 hex digits."""
MAX_CHECKPOINTS = 1_000


class AuditEvent(Body[audit.AuditEvent]):
    """One recorded change."""

    RECORD: ClassVar[type[Any]] = audit.AuditEvent

    project: str
    at: Time
    actor: str
    verb: str
    subject: str
    body: Object


class AuditEntry(Body[audit.AuditEntry]):
    """One entry as it is stored."""

    RECORD: ClassVar[type[Any]] = audit.AuditEntry

    number: Count
    event: AuditEvent | None
    leaf: str
    damaged: str = ""


class CheckpointFinding(Body[audit.CheckpointFinding]):
    """What one checkpoint, kept elsewhere, says of the audit."""

    RECORD: ClassVar[type[Any]] = audit.CheckpointFinding

    source: str
    size: Count
    root: str
    ok: bool


class AuditVerification(Body[audit.AuditVerification]):
    """What a check of the whole audit found."""

    RECORD: ClassVar[type[Any]] = audit.AuditVerification

    origin: str
    size: Count
    root: str
    proven: Count = 0
    first_wrong: Count | None = None
    checkpoints: Many[CheckpointFinding] = ()
    problems: Many[Problem] = ()


class Checkpoint(Body[checkpoint.Checkpoint]):
    """Size and root of an audit at one moment; the root as 64 hex digits."""

    RECORD: ClassVar[type[Any]] = checkpoint.Checkpoint

    origin: Line
    size: Count
    root: Hex

    @classmethod
    def of(cls, record: checkpoint.Checkpoint) -> Self:
        """The body of a checkpoint."""
        return cls.known(origin=record.origin, size=record.size, root=record.root.hex())

    def record(self) -> checkpoint.Checkpoint:
        """The checkpoint."""
        return checkpoint.Checkpoint(self.origin, self.size, bytes.fromhex(self.root))


class KeptCheckpoint(Model):
    """A checkpoint that was kept elsewhere, its signature checked by whoever sends it.

    Attributes:
        source: Where it was kept, for messages.
        checkpoint: What it says.
    """

    source: Annotated[str, Field(max_length=4096)]
    checkpoint: Checkpoint


class AuditCheck(Model):
    """Checkpoints that the audit is checked against."""

    checkpoints: Annotated[Many[KeptCheckpoint], Field(max_length=MAX_CHECKPOINTS)] = ()


class InclusionProof(Body[proof.InclusionProof]):
    """That an entry is among the first of the audit; hashes as hex digits, the entry as its text."""

    RECORD: ClassVar[type[Any]] = proof.InclusionProof

    entry: str
    index: Count
    size: Count
    path: Annotated[Many[Hex], Field(max_length=proof.MAX_STEPS)]

    @classmethod
    def of(cls, record: proof.InclusionProof) -> Self:
        """The body of a proof."""
        path = tuple(step.hex() for step in record.path)
        return cls.known(entry=record.entry.decode(), index=record.index, size=record.size, path=path)

    def record(self) -> proof.InclusionProof:
        """The proof."""
        path = tuple(bytes.fromhex(step) for step in self.path)
        return proof.InclusionProof(self.entry.encode(), self.index, self.size, path)


class ConsistencyProof(Body[proof.ConsistencyProof]):
    """That the audit of one size begins with that of a smaller one."""

    RECORD: ClassVar[type[Any]] = proof.ConsistencyProof

    old: Count
    new: Count
    path: Annotated[Many[Hex], Field(max_length=proof.MAX_STEPS)]

    @classmethod
    def of(cls, record: proof.ConsistencyProof) -> Self:
        """The body of a proof."""
        return cls.known(old=record.old, new=record.new, path=tuple(step.hex() for step in record.path))

    def record(self) -> proof.ConsistencyProof:
        """The proof."""
        return proof.ConsistencyProof(self.old, self.new, tuple(bytes.fromhex(step) for step in self.path))


class AuditPage(Model):
    """Audit entries in order, as the objects that were hashed.

    Attributes:
        items: The entries.
        next: What `after` must say for the page that follows; None where this is the last.
    """

    items: Many[Object]
    next: Count | None = None


class AuditQuery(Query):
    """A page of entries in order, those with numbers above one."""

    limit: QueryPage = DEFAULT_PAGE
    after: QueryCount = 0


class AuditLogQuery(NumbersQuery):
    """A page of the newest entries, of one verb, of one project."""

    verb: Line | None = None
    project: Name | None = None


class InclusionQuery(Query):
    """Which entry, counted from 0, and among how many."""

    index: QueryCount
    size: QueryCount


class ConsistencyQuery(Query):
    """The smaller size and the larger."""

    old: QueryCount
    new: QueryCount
