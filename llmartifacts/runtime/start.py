"""How a service starts: from the registry, else from what it has; always inside its time.

    look up  selection.py  -> Selection       fetch  fetch.py        unpack  load.py   -> the spec's value

The registry's part runs in a thread of its own. Where a stand-in exists (the last-known-good set; for a lockfile its
own digests), a registry that is silent for 3 s is given up, and one that only trickles has half of the time before
the stand-in is made ready beside it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from llmartifacts.blobs.cache import BlobCache
from llmartifacts.connect import DIRECTORY, connect, find, home_project
from llmartifacts.errors import DeadlineExceeded, LlmartifactsError, NotFound, ResolutionError
from llmartifacts.records.digest import Blob
from llmartifacts.records.lock import FILE_NAME, Lockfile
from llmartifacts.registry import Registry
from llmartifacts.runtime import known_good, lockfile
from llmartifacts.runtime.failures import Failures, is_final
from llmartifacts.runtime.fetch import CachedBlobs
from llmartifacts.runtime.generation import Notice
from llmartifacts.runtime.known_good import Asked, KnownGood
from llmartifacts.runtime.load import load
from llmartifacts.runtime.selection import Selection, ask, confirm, from_lock
from llmartifacts.runtime.spec import Spec
from llmartifacts.runtime.stamp import Source
from llmartifacts.runtime.task import Deadline, Task

T = TypeVar("T")

RECENT = 10.0
"""Seconds within which the same set is not written down once more."""
SILENCE = 3.0
"""Seconds after which a registry that says nothing is given up, where there is a stand-in."""


@dataclass(frozen=True, slots=True)
class Loaded(Generic[T]):
    """A started set, before it is numbered."""

    value: T
    lock: Lockfile
    source: Source
    warnings: tuple[Notice, ...]


@dataclass(frozen=True)
class Place:
    """Where the registry is: an open one, a location, or None for what `connect()` finds."""

    given: Registry | str | os.PathLike[str] | None = None

    @contextmanager
    def opened(self) -> Iterator[Registry]:
        """The registry, open; closed again if it was opened here."""
        if isinstance(self.given, Registry):
            yield self.given
            return
        with connect(self.given) as registry:
            yield registry

    @property
    def project(self) -> str:
        """What names without a prefix mean."""
        if isinstance(self.given, Registry):
            return self.given.project
        return home_project()

    def locations(self) -> list[str]:
        """Where it is, absolute; where it has gone and nobody said where it was, every place it can have been."""
        if isinstance(self.given, Registry):
            return [_absolute(self.given.backend.location)]
        try:
            return [_absolute(find(self.given))]
        except NotFound:
            here = Path.cwd()
            return [_absolute(folder / DIRECTORY) for folder in (here, *here.parents)]


@dataclass(frozen=True)
class Start(Generic[T]):
    """One start of one service.

    Attributes:
        spec: What it wants.
        place: Where the registry is.
        cache: Where bytes are kept.
        deadline: When it must have ended.
        max_stale: Seconds after which a last-known-good set is too old; None takes any.
        failures: What is known to have failed so far.
    """

    spec: Spec[T]
    place: Place
    cache: BlobCache
    deadline: Deadline
    max_stale: float | None = None
    failures: Failures = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "failures", Failures(self.spec))

    # --- from the registry

    def from_registry(self, task: Task[Loaded[T]]) -> Loaded[T]:
        """Start from what the references mean now; else from the last-known-good set."""
        with task.step("looking for the last-known-good set"):
            known, why = self._recall()
        stand_in = None if known is None else lambda: self._from_known_good(task, known)
        return self._first(lambda inner: self._fresh(inner, known), stand_in, why)

    def _fresh(self, task: Task[Loaded[T]], known: KnownGood | None) -> Loaded[T]:
        with ExitStack() as stack:
            with task.step("opening the registry", silence=SILENCE):
                registry = stack.enter_context(self.place.opened())
            with task.step("reading the references", silence=SILENCE):
                selection = ask(registry, self.spec)
            blobs = CachedBlobs(self.cache, upstream=registry.backend.blobs, watch=_watching(task))
            loaded = self._load(task, selection, blobs, "registry", self.failures)
            with task.step("keeping the set as last known good"):
                if blobs.all_kept and not self._is_kept(known, selection.lock):
                    with suppress(LlmartifactsError):  # a read-only cache that holds it all serves this start as well
                        known_good.keep(self.cache.root, self._asked(self.place.locations()[0]), selection.lock)
        return _with(loaded, _went_back(known, selection.lock))

    def _is_kept(self, known: KnownGood | None, lock: Lockfile) -> bool:
        """Whether this very set was written down a moment ago: of many workers that start at once, one writes it."""
        recent = RECENT if self.max_stale is None else min(RECENT, self.max_stale / 10)
        return known is not None and known.lock == lock and known.age() < recent

    def _recall(self) -> tuple[KnownGood | None, str]:
        """The last-known-good set, or why there is none to be used."""
        why = "no last-known-good set of it is kept here"
        try:
            for location in self.place.locations():
                known = known_good.recall(self.cache.root, self._asked(location))
                if known is not None:
                    if self.max_stale is None or known.age() <= self.max_stale:
                        return known, ""
                    return None, (
                        f"the last-known-good set is {known.age():.0f} s old, and max_stale is {self.max_stale:g} s"
                    )
        except (LlmartifactsError, OSError) as error:
            why = f"the last-known-good set cannot be used: {error}"
        return None, why

    def _asked(self, location: str) -> Asked:
        return Asked(location, self.spec.project(self.place.project), self.spec.wanted)

    def _from_known_good(self, task: Task[Loaded[T]], known: KnownGood) -> Loaded[T]:
        return self._offline(task, known.lock, CachedBlobs(self.cache), "last-known-good", "the last-known-good set")

    # --- from a lockfile

    def from_lockfile(self, task: Task[Loaded[T]], path: Path, *, frozen: bool) -> Loaded[T]:
        """Start from the very versions of a lockfile; frozen, without ever touching the registry."""
        with task.step(f"reading {path}"):
            lock = lockfile.read(path)
            folder = BlobCache(path, limit="none") if path.is_dir() else None
            origin = str(path / FILE_NAME if folder else path)

        def offline() -> Loaded[T]:
            return self._offline(task, lock, CachedBlobs(self.cache, folder=folder), "lockfile", origin)

        def fresh(inner: Task[Loaded[T]]) -> Loaded[T]:
            with ExitStack() as stack:
                with inner.step("opening the registry", silence=SILENCE):
                    registry = stack.enter_context(self.place.opened())
                with inner.step("reading the locked versions", silence=SILENCE):
                    selection = confirm(registry, lock, self.spec, origin=origin)
                upstream = registry.backend.blobs
                blobs = CachedBlobs(self.cache, folder=folder, upstream=upstream, watch=_watching(inner))
                return self._load(inner, selection, blobs, "lockfile", self.failures)

        return offline() if frozen else self._first(fresh, offline, "")

    # --- shared

    def _load(
        self, task: Task[Loaded[T]], selection: Selection, blobs: CachedBlobs, source: Source, failures: Failures
    ) -> Loaded[T]:
        with task.step("keeping the manifests"):
            blobs.keep([*selection.manifests.values(), *selection.parts.values()])
        value, notices = load(task, self.spec, selection, blobs, failures)
        blobs.detach()
        return Loaded(value, selection.lock, source, notices)

    def _offline(
        self, task: Task[Loaded[T]], lock: Lockfile, blobs: CachedBlobs, source: Source, origin: str
    ) -> Loaded[T]:
        with task.step(f"reading the manifests of {origin}"):
            selection = from_lock(lock, self.spec, blobs.manifests, origin=origin)
        value, notices = load(task, self.spec, selection, blobs, Failures(self.spec))
        return Loaded(value, lock, source, notices)

    def _first(
        self,
        work: Callable[[Task[Loaded[T]]], Loaded[T]],
        stand_in: Callable[[], Loaded[T]] | None,
        why: str,
    ) -> Loaded[T]:
        """The registry's set if it comes in time, else the stand-in, else one error."""
        fresh = Task(work, "llmartifacts-registry").begin()
        try:
            if stand_in is None:
                fresh.wait(self.deadline.left)
                return self._outcome(fresh, why)
            fresh.wait(self.deadline.left / 2, heed_silence=True)
            if _decided(fresh):
                return self._outcome(fresh, why)
            try:
                spare = stand_in()
            except Exception as failed:  # whatever it is, the registry may still come
                fresh.wait(self.deadline.left)
                if fresh.ended and fresh.error is None:
                    return fresh.result()
                raise self._both_failed(fresh, failed) from failed
            if not fresh.silent:
                fresh.wait(self.deadline.left, heed_silence=True)
            if _decided(fresh):
                return self._outcome(fresh, why)
            return _with(spare, _stood_in(self._reason(fresh)))
        finally:
            fresh.give_up()

    def _outcome(self, fresh: Task[Loaded[T]], why: str) -> Loaded[T]:
        if fresh.ended and fresh.error is None:
            return fresh.result()
        error = self._reason(fresh)
        made, cause = (
            (error, error.__cause__) if isinstance(error, ResolutionError) else (self.failures.all(error), error)
        )
        told = made.message if is_final(made) or not why else f"{made.message}; {why}"
        places = self.place.locations()
        raise replace(made, message=told, origin=places[0] if len(places) == 1 else "") from cause

    def _reason(self, fresh: Task[Loaded[T]]) -> BaseException:
        """Why the registry's set is not there."""
        if fresh.error is not None:
            return fresh.error
        doing = f" while {fresh.doing}" if fresh.doing else ""
        if fresh.silent:
            return DeadlineExceeded(f"the registry was silent for {SILENCE:g} s{doing}")
        return DeadlineExceeded(f"out of time after {self.deadline.seconds:g} s{doing}")

    def _both_failed(self, fresh: Task[Loaded[T]], failed: Exception) -> ResolutionError:
        reason = self._reason(fresh)
        first = reason if isinstance(reason, ResolutionError) else self.failures.all(reason)
        second = failed if isinstance(failed, ResolutionError) else Failures(self.spec).all(failed)
        told = f"{first.message}, and what is kept here cannot stand in"
        return ResolutionError(told, failures={**first.failures, **second.failures})


def _decided(fresh: Task[Any]) -> bool:
    return fresh.ended and (fresh.error is None or is_final(fresh.error))


def _watching(task: Task[Any]) -> Callable[[Blob], AbstractContextManager[None]]:
    return lambda blob: task.step("fetching files", silence=SILENCE, size=blob.size)


def _with(loaded: Loaded[T], notice: Notice | None) -> Loaded[T]:
    return loaded if notice is None else replace(loaded, warnings=(*loaded.warnings, notice))


def _stood_in(reason: BaseException) -> Notice:
    if isinstance(reason, ResolutionError):
        told = "; ".join(f"{name}: {error}" for name, error in reason.failures.items())
        return Notice("newer-set-refused", f"the registry's set cannot be served: {told}")
    return Notice("registry-unreachable", f"the registry cannot be had: {reason}")


def _went_back(known: KnownGood | None, lock: Lockfile) -> Notice | None:
    if known is None or lock.revision >= known.lock.revision:
        return None
    told = f"the registry is at revision {lock.revision}, and was at {known.lock.revision}: an older copy of it?"
    return Notice("revision-went-back", told)


def _absolute(location: str | os.PathLike[str]) -> str:
    text = os.fspath(location)
    return text if text.startswith(("http://", "https://")) else os.path.abspath(text)
