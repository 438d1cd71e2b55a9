"""A generation: the numbered, immutable set of components that a process serves."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Generic, TypeVar

from llmartifacts.records.digest import short
from llmartifacts.records.lock import Lockfile
from llmartifacts.runtime.stamp import Source, Stamp, Stamped

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that did not stop a start and that somebody should know.

    Attributes:
        code: Short and stable: `yanked` (a version was withdrawn), `registry-unreachable` and `newer-set-refused` (why
            a set that was kept here is served), `revision-went-back` (the registry is older than it was), or the id of
            a compatibility rule.
        message: What it is, one sentence.
        field: Field that it is about; empty for the whole set.
    """

    code: str
    message: str
    field: str = ""

    def __str__(self) -> str:
        return f"{self.code}{' ' + self.field if self.field else ''}: {self.message}"


@dataclass(frozen=True, slots=True)
class Generation(Generic[T_co]):
    """What a process serves, swapped whole.

    Attributes:
        number: Counts the generations of one resolver, from 1.
        value: The components: the spec's dataclass, or a read-only mapping.
        lock: The exact digests.
        source: Where those came from: `registry`, `lockfile` or `last-known-good`.
        warnings: What somebody should know; in the stamp by their codes.
    """

    number: int
    value: T_co
    lock: Lockfile
    source: Source
    warnings: tuple[Notice, ...] = ()

    @property
    def revision(self) -> int:
        """The project's revision that all components were read at."""
        return self.lock.revision

    def stamp(self) -> str:
        """One ASCII line that names the exact versions; see `llmartifacts.runtime.stamp` for its grammar.

        Example:
            `la1;default@r42;set=9f86d081884c;registry;agent=support-agent:v3@0123456789ab`
        """
        components = {n: Stamped(c.name, c.number, short(c.digest)) for n, c in self.lock.components.items()}
        return str(
            Stamp(
                self.lock.project,
                self.lock.revision,
                short(self.lock.set_digest),
                self.source,
                MappingProxyType(components),
                warnings=tuple((w.code, w.field) for w in self.warnings),
            )
        )
