"""A generation: the numbered, immutable set of components that a process serves."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Generic, TypeVar

from llmartifacts.records.digest import short
from llmartifacts.records.lock import Lockfile
from llmartifacts.runtime import trace
from llmartifacts.runtime.stamp import Source, Stamp, Stamped

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that did not stop a start and that somebody should know.

    Attributes:
        code: Short and stable: `yanked` (a version was withdrawn), `registry-unreachable`, `registry-refused` (it is
            there and takes the token or the right for none) and `newer-set-refused` (why a set that was kept here is
            served), `revision-went-back` (the registry is older than it was), or the id of
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
        source: Where those came from: `registry`, `lockfile`, `last-known-good` or `fallback`.
        warnings: What somebody should know; in the stamp by their codes.
    """

    number: int
    value: T_co
    lock: Lockfile
    source: Source
    warnings: tuple[Notice, ...] = ()
    _memo: dict[str, trace.Value] = field(default_factory=dict, init=False, repr=False, compare=False)

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

    # --- for traces, logs and responses

    @property
    def reasons(self) -> Mapping[str, trace.Reason]:
        """Component name -> why it is at its version: `STATIC`, `STALE` or `FALLBACK`."""
        return trace.reasons(self)

    def trace_attributes(self) -> dict[str, trace.Value]:
        """What a span should say of this generation: flat, plain, yours to change.

        Returns:
            Of each component name, version, digest, kind, alias and reason; one digest of the set; project, revision
            and source; the stamp; and what the conventions of OpenTelemetry and OpenInference have words for. The keys
            are listed in `llmartifacts.runtime.trace`.
        """
        return trace.attributes(self)

    def traced(self, prompt: str | None = None) -> AbstractContextManager[None]:
        """Say that what is done inside is done with this generation.

        Tasks of asyncio and `asyncio.to_thread` carry it along; `llmartifacts.runtime.trace.current()` tells it, and
        the span processor of `llmartifacts.integrations.opentelemetry` puts it on every span.

        Args:
            prompt: Field of the prompt that is used inside; needed only where there are several, and may be nested.

        Raises:
            NotFound: There is no such prompt.

        Example:
            `with generation.traced(): answer(question)`
        """
        return trace.traced(self, prompt)

    def runnable_config(self) -> RunnableConfig:
        """Metadata and tags for LangChain: `chain.invoke(question, config=generation.runnable_config())`."""
        return trace.runnable_config(self)

    def header(self) -> tuple[str, str]:
        """A response header: `("X-LLM-Artifacts", stamp)`."""
        return trace.HEADER, self.stamp()
