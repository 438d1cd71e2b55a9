"""Bodies of what moves aliases: drafts, promotions, rollbacks, gates, policies, history, state."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, Strict

from llmartifacts.records import backend, policy, promotion
from llmartifacts.records.names import MAX_VERSIONS
from llmartifacts.records.policy import Verdict
from llmartifacts.records.reference import MAX_MANY
from llmartifacts.wire.bodies.base import Body, Count, Many, Model
from llmartifacts.wire.bodies.fields import (
    LINE_PATTERN,
    MAX_REFERENCE,
    Alias,
    AnyAlias,
    Commit,
    DigestText,
    Id,
    Line,
    Name,
    Object,
    QueryCount,
    Reason,
    Ref,
    RunId,
    Tags,
    Text,
    Time,
)
from llmartifacts.wire.bodies.versions import Manifest, NamesQuery, NumbersQuery, Version

Outcome = Annotated[Verdict, Strict(False)]
Number = Annotated[int, Field(ge=1, le=MAX_VERSIONS)]


class Input(Body[backend.Input]):
    """One lineage edge that a log adds."""

    RECORD: ClassVar[type[Any]] = backend.Input

    reference: Ref
    relation: Literal["derived_from", "contains", "evaluated_with"] = "derived_from"
    role: Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,127})?$", max_length=128)] = ""


class Draft(Body[backend.Draft]):
    """One version about to be logged."""

    RECORD: ClassVar[type[Any]] = backend.Draft

    name: Name
    manifest: Manifest
    message: Text = ""
    tags: Tags = Field(default_factory=dict)
    aliases: Annotated[Many[Alias], Field(max_length=MAX_MANY)] = ()
    inputs: Annotated[Many[Input], Field(max_length=2 * MAX_MANY)] = ()
    git_commit: Commit = ""
    run: RunId = ""


class Drafts(Model):
    """Versions to log, all or none.

    Attributes:
        drafts: The versions.
        upload: The upload that has their new files; None where all of them are there already.
    """

    drafts: Annotated[Many[Draft], Field(max_length=MAX_MANY)]
    upload: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = None


class Versions(Model):
    """Versions that were logged, in the order of their drafts."""

    versions: Many[Version]


class Target(Body[backend.Target]):
    """One alias to move."""

    RECORD: ClassVar[type[Any]] = backend.Target

    reference: Ref
    alias: Alias


class PromotionRequest(Body[backend.PromotionRequest]):
    """A move that somebody asks for."""

    RECORD: ClassVar[type[Any]] = backend.PromotionRequest

    targets: Annotated[Many[Target], Field(min_length=1, max_length=MAX_MANY)]
    reason: Text = ""
    ticket: Line = ""
    expect: Annotated[dict[Name, Annotated[str, Field(max_length=128)] | None], Field(max_length=MAX_MANY)] | None = (
        None
    )
    break_glass: bool = False


class Move(Body[promotion.Move]):
    """One alias going from one version to another."""

    RECORD: ClassVar[type[Any]] = promotion.Move

    name: Name
    alias: AnyAlias
    number: Count
    old: Number | None
    new: Number | None


class GateResult(Body[policy.GateResult]):
    """One gate's answer."""

    RECORD: ClassVar[type[Any]] = policy.GateResult

    gate: str
    rule: str
    verdict: Outcome
    message: str
    next_step: str = ""
    subject: str = ""
    evidence: Many[str] = ()


class Promotion(Body[promotion.Promotion]):
    """One atomic change of aliases."""

    RECORD: ClassVar[type[Any]] = promotion.Promotion

    id: str
    project: Name
    revision: Count
    verb: Literal["log", "promote", "rollback", "remove"]
    at: Time
    actor: str
    reason: str
    ticket: str
    moves: Many[Move]
    results: Many[GateResult] = ()
    undoes: str = ""
    undone_by: str = ""
    policy: str = ""
    approvals: Many[str] = ()
    break_glass: bool = False
    reviewed_by: str = ""
    review: str = ""


class HistoryEntry(Body[promotion.HistoryEntry]):
    """One move of one alias as history shows it."""

    RECORD: ClassVar[type[Any]] = promotion.HistoryEntry

    name: Name
    alias: AnyAlias
    revision: Count
    move: Count
    at: Time
    actor: str
    verb: str
    reason: str
    ticket: str
    old: Number | None
    new: Number | None
    promotion: str = ""
    results: Many[GateResult] = ()
    approvals: Many[str] = ()
    undone_by: str = ""
    break_glass: bool = False
    reviewed_by: str = ""


class StateEntry(Body[promotion.StateEntry]):
    """What an alias meant at some time."""

    RECORD: ClassVar[type[Any]] = promotion.StateEntry

    version: Version
    move: HistoryEntry


class State(Body[promotion.State]):
    """Every component that an alias names, at one time."""

    RECORD: ClassVar[type[Any]] = promotion.State

    project: Name
    alias: AnyAlias
    at: Time | None
    revision: Count
    entries: dict[str, StateEntry] = Field(default_factory=dict)


class Decision(Body[policy.Decision]):
    """What the gates say of a move."""

    RECORD: ClassVar[type[Any]] = policy.Decision

    verdict: Outcome
    results: Many[GateResult]
    moves: Many[str] = ()
    policy: DigestText | None = None
    policy_number: Count = 0
    protected: Many[str] = ()
    approvals: Many[str] = ()
    break_glass: bool = False
    may_move: bool = True
    refusal: str = ""


class PolicyRecord(Body[policy.PolicyRecord]):
    """One policy of a project, as it was set."""

    RECORD: ClassVar[type[Any]] = policy.PolicyRecord

    project: Name
    number: Count
    digest: DigestText
    body: Object
    at: Time
    author: str
    message: str = ""


class Rollback(Model):
    """What to undo.

    Attributes:
        target: `name:alias`, or the id of a promotion, such as `default@r12`.
        to: The version to go to; None walks back over the newest promotion not yet undone.
        whole: Whether all that moved with it goes back too.
        reason: Why.
    """

    target: Annotated[str, Field(min_length=1, max_length=MAX_REFERENCE, pattern=LINE_PATTERN)]
    to: Ref | None = None
    whole: bool = False
    reason: Reason


class AliasRemoval(Model):
    """An alias to remove."""

    reference: Ref
    reason: Text = ""


class Review(Model):
    """That somebody looked at a move that broke the glass."""

    promotion: Id
    reason: Reason


class NewPolicy(Model):
    """A policy to let hold; None takes the last one away."""

    policy: Object | None
    message: Text = ""


class HistoryQuery(NumbersQuery):
    """A page of the moves of one alias, the newest first; `before` is a move number."""

    reference: Ref


class StateQuery(NamesQuery):
    """What an alias meant, at a time; a page of collections, of the revision that the first page named."""

    alias: AnyAlias
    at: Time | None = None
    revision: QueryCount | None = None
