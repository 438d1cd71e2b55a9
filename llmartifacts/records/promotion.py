"""Promotions: atomic moves of one or more aliases, each with its results, reason and place in history."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from llmartifacts.records.policy import GateResult
from llmartifacts.records.version import Version

ChangeVerb = Literal["log", "promote", "rollback", "remove"]


@dataclass(frozen=True, slots=True)
class Move:
    """One alias going from one version to another.

    Attributes:
        name: Name of the collection.
        alias: The alias.
        number: The alias's own move number, from 1.
        old: Version number before; None if the alias did not exist.
        new: Version number after; None if the alias was removed.
    """

    name: str
    alias: str
    number: int
    old: int | None
    new: int | None

    def __str__(self) -> str:
        return f"{self.name}:{self.alias} {_v(self.old)} -> {_v(self.new)}"


@dataclass(frozen=True, slots=True)
class Promotion:
    """One atomic change of aliases: by promote, rollback, `log(aliases=…)` or removal.

    Attributes:
        id: `PROJECT@rN`, unique; `rollback` takes it.
        project: Name of the project.
        revision: The project's revision that this change made.
        verb: `promote`, `rollback`, `log` or `remove`.
        at: When, UTC, by the registry's clock.
        actor: Who.
        reason: Why.
        ticket: Ticket of the change; empty if none.
        moves: What moved.
        results: Gate results at the time.
        undoes: Id of the promotion that a rollback undid; empty otherwise.
        undone_by: Id of the rollback that undid this one; empty if none did.
        policy: Digest of the policy that was asked; empty if there was none.
        approvals: Who approved.
        break_glass: Whether it was moved although a gate denied.
        reviewed_by: Who looked at that afterwards; empty if nobody has.
        review: What they said.
    """

    id: str
    project: str
    revision: int
    verb: ChangeVerb
    at: datetime
    actor: str
    reason: str
    ticket: str
    moves: tuple[Move, ...]
    results: tuple[GateResult, ...] = ()
    undoes: str = ""
    undone_by: str = ""
    policy: str = ""
    approvals: tuple[str, ...] = ()
    break_glass: bool = False
    reviewed_by: str = ""
    review: str = ""

    def __str__(self) -> str:
        return f"{self.id} {self.verb}: {'; '.join(map(str, self.moves)) or 'nothing to move'}"


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One move of one alias as history shows it.

    Attributes:
        name: Name of the collection.
        alias: The alias.
        revision: Project revision after the move.
        move: The alias's own move number.
        at: When, UTC.
        actor: Who.
        verb: `log`, `promote`, `rollback` or `remove`.
        reason: Why.
        ticket: Ticket of the change; empty if none.
        old: Version number before; None if the alias did not exist.
        new: Version number after; None if it was removed.
        promotion: Id of the promotion; empty for `latest`, which moves by itself.
        results: Gate results at the time.
        approvals: Who approved.
        undone_by: Id of the rollback that undid it; empty if none did.
        break_glass: Whether it was moved although a gate denied.
        reviewed_by: Who looked at that afterwards; empty if nobody has.
    """

    name: str
    alias: str
    revision: int
    move: int
    at: datetime
    actor: str
    verb: str
    reason: str
    ticket: str
    old: int | None
    new: int | None
    promotion: str = ""
    results: tuple[GateResult, ...] = ()
    approvals: tuple[str, ...] = ()
    undone_by: str = ""
    break_glass: bool = False
    reviewed_by: str = ""

    def __str__(self) -> str:
        return f"r{self.revision} {self.verb} {self.name}:{self.alias} {_v(self.old)} -> {_v(self.new)} by {self.actor}"


@dataclass(frozen=True, slots=True)
class StateEntry:
    """What an alias meant at some time.

    Attributes:
        version: The version it pointed at.
        move: The move that put it there.
    """

    version: Version
    move: HistoryEntry


@dataclass(frozen=True)
class State(Mapping[str, StateEntry]):
    """Every component an alias names, at one time: a mapping from collection name to `StateEntry`.

    Attributes:
        project: Name of the project.
        alias: The alias.
        at: The time asked for; None for now.
        revision: The project's revision at that time.
        entries: Collection name -> what the alias meant there.
    """

    project: str
    alias: str
    at: datetime | None
    revision: int
    entries: Mapping[str, StateEntry] = field(default_factory=dict)

    def __getitem__(self, name: str) -> StateEntry:
        return self.entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


def promotion_id(project: str, revision: int) -> str:
    """The id of the change that made a revision."""
    return f"{project}@r{revision}"


def _v(number: int | None) -> str:
    return f"v{number}" if number is not None else "nothing"
