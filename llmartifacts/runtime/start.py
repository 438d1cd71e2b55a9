"""How a service starts: from the registry, else from what it has; always inside its time.

    look up  selection.py  -> Selection       fetch  fetch.py        unpack  load.py   -> the spec's value

The registry's part runs in a thread of its own. Where a stand-in exists (the last-known-good set, else a packaged
lockfile; for a lockfile that was asked for, its own digests), a registry that is silent for 3 s is given up, and one
that only trickles has half of the time before the stand-in is made ready beside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from llmartifacts.blobs.cache import BlobCache
from llmartifacts.connect import keep_answers
from llmartifacts.errors import DeadlineExceeded, LlmartifactsError, ResolutionError
from llmartifacts.records.digest import Blob
from llmartifacts.records.lock import FILE_NAME, Lockfile
from llmartifacts.runtime import known_good, lockfile
from llmartifacts.runtime.failures import Failures, is_final
from llmartifacts.runtime.fetch import CachedBlobs, Tally
from llmartifacts.runtime.generation import Notice
from llmartifacts.runtime.known_good import Asked, KnownGood
from llmartifacts.runtime.load import keep_manifests, load
from llmartifacts.runtime.notices import reason_of, stood_in
from llmartifacts.runtime.place import IDENTITY_SECONDS, Place, identity
from llmartifacts.runtime.revisions import Floor, follow
from llmartifacts.runtime.selection import Selection, complete, confirm, from_lock, look_up
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
    """A started set, before it is numbered.

    Attributes:
        value: The spec's value.
        lock: The exact digests.
        source: Where those came from.
        warnings: What somebody should know.
        why: Why it is not the registry's set of now; None if it is, or if a lockfile was asked for.
        age: Seconds since the registry said that this is the set; None if it never did.
        floor: The newest state of the project that is known here; None if none is.
    """

    value: T
    lock: Lockfile
    source: Source
    warnings: tuple[Notice, ...]
    why: Notice | None = None
    age: float | None = None
    floor: Floor | None = None


@dataclass(frozen=True, slots=True)
class Spare(Generic[T]):
    """Something to start from while the registry cannot be had.

    Attributes:
        what: What it is, for messages.
        load: Loads it.
    """

    what: str
    load: Callable[[], Loaded[T]]


@dataclass(frozen=True)
class Start(Generic[T]):
    """One start of one service.

    Attributes:
        spec: What it wants.
        place: Where the registry is.
        cache: Where bytes are kept.
        deadline: When it must have ended.
        max_stale: Seconds after which a last-known-good set is too old; None takes any.
        fallback: A lockfile, or the folder that was installed with it, to start from where nothing else can be had.
        tally: Counts what is fetched and what is there.
        failures: What is known to have failed so far.
    """

    spec: Spec[T]
    place: Place
    cache: BlobCache
    deadline: Deadline
    max_stale: float | None = None
    fallback: Path | None = None
    tally: Tally = field(default_factory=Tally)
    failures: Failures = field(init=False)
    _begun: list[Task[Loaded[T]]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        object.__setattr__(self, "failures", Failures(self.spec))

    @property
    def doing(self) -> str:
        """What is asked of the registry just now; empty if nothing is known."""
        return " and ".join(filter(None, [task.doing for task in self._begun]))

    # --- from the registry

    def from_registry(self, task: Task[Loaded[T]]) -> Loaded[T]:
        """Start from what the references mean now; else from the last-known-good set; else from the fallback."""
        with task.step("looking for the last-known-good set"):
            known, why = self._recall()
        spares: list[Spare[T]] = []
        if known is not None and not why:
            spares.append(Spare("the last-known-good set", lambda: self._from_known_good(task, known)))
        if self.fallback is not None:
            spares.append(Spare("the fallback", partial(self._from_fallback, task, self.fallback, known)))
        return self._first(lambda inner: self._fresh(inner, known), spares, why)

    def _fresh(self, task: Task[Loaded[T]], known: KnownGood | None) -> Loaded[T]:
        with ExitStack() as stack:
            with task.step("loading what speaks to a registry"):
                self.place.prepare()
            with task.step("opening the registry", silence=SILENCE):
                registry = stack.enter_context(self.place.opened())
                keep_answers(registry, self.cache)
            begun = time.monotonic()
            with task.step("reading the references", silence=SILENCE):
                looked = look_up(registry, self.spec)
                told = follow(looked.lock, floor_of(known), lambda: identity(registry))
                selection = complete(registry, looked, self.spec)
            blobs = CachedBlobs(
                self.cache,
                upstream=registry.backend.blobs,
                watch=_watching(task),
                tally=self.tally,
                outside=lambda: registry.external,
            )
            loaded = self._load(task, selection, blobs, "registry", self.failures)
            lock, name = selection.lock, known.registry if known is not None and told is None else ""
            if blobs.all_kept and not self._is_kept(known, lock):
                with task.step("keeping the set as last known good"):
                    if not name or known is None or known.lock.set_digest != lock.set_digest:
                        name = identity(registry, min(IDENTITY_SECONDS, self.deadline.left / 2)) or name
                    with suppress(LlmartifactsError):  # a read-only cache that holds it all serves this start as well
                        known_good.keep(self.cache.root, self._asked(self.place.locations()[0]), lock, name)
        age = time.monotonic() - begun
        return _with(replace(loaded, age=age, floor=Floor.of(lock, name)), told)

    def _is_kept(self, known: KnownGood | None, lock: Lockfile) -> bool:
        """Whether this very set was written down a moment ago: of many workers that start at once, one writes it."""
        recent = RECENT if self.max_stale is None else min(RECENT, self.max_stale / 10)
        return known is not None and known.lock == lock and known.age() < recent

    def _recall(self) -> tuple[KnownGood | None, str]:
        """The last-known-good set, and why there is none to be started from; empty if there is."""
        try:
            for location in self.place.locations():
                known = known_good.recall(self.cache.root, self._asked(location))
                if known is None:
                    continue
                if self.max_stale is None or known.age() <= self.max_stale:
                    return known, ""
                return (
                    known,
                    f"the last-known-good set is {known.age():.0f} s old, and max_stale is {self.max_stale:g} s",
                )
        except (LlmartifactsError, OSError) as error:
            return None, f"the last-known-good set cannot be used: {error}"
        return None, "no last-known-good set of it is kept here"

    def _asked(self, location: str) -> Asked:
        return Asked(location, self.spec.project(self.place.project), self.spec.wanted)

    # --- from what is here

    def _from_known_good(self, task: Task[Loaded[T]], known: KnownGood) -> Loaded[T]:
        blobs = CachedBlobs(self.cache, tally=self.tally)
        made = self._offline(task, known.lock, blobs, "last-known-good", "the last-known-good set")
        return replace(made, age=known.age(), floor=floor_of(known))

    def _from_fallback(self, task: Task[Loaded[T]], path: Path, known: KnownGood | None) -> Loaded[T]:
        lock, folder, origin = self._locked(task, path)
        blobs = CachedBlobs(self.cache, folder=folder, tally=self.tally)
        return replace(self._offline(task, lock, blobs, "fallback", origin), floor=floor_of(known))

    # --- from a lockfile

    def from_lockfile(self, task: Task[Loaded[T]], path: Path, *, frozen: bool) -> Loaded[T]:
        """Start from the very versions of a lockfile; frozen, without ever touching the registry."""
        lock, folder, origin = self._locked(task, path)

        def offline() -> Loaded[T]:
            blobs = CachedBlobs(self.cache, folder=folder, tally=self.tally)
            return self._offline(task, lock, blobs, "lockfile", origin)

        def fresh(inner: Task[Loaded[T]]) -> Loaded[T]:
            with ExitStack() as stack:
                with inner.step("loading what speaks to a registry"):
                    self.place.prepare()
                with inner.step("opening the registry", silence=SILENCE):
                    registry = stack.enter_context(self.place.opened())
                    keep_answers(registry, self.cache)
                with inner.step("reading the locked versions", silence=SILENCE):
                    selection = confirm(registry, lock, self.spec, origin=origin)
                upstream, watch = registry.backend.blobs, _watching(inner)
                blobs = CachedBlobs(
                    self.cache,
                    folder=folder,
                    upstream=upstream,
                    watch=watch,
                    tally=self.tally,
                    outside=lambda: registry.external,
                )
                return self._load(inner, selection, blobs, "lockfile", self.failures)

        return offline() if frozen else self._first(fresh, [Spare("what is kept here", offline)], "")

    def _locked(self, task: Task[Loaded[T]], path: Path) -> tuple[Lockfile, BlobCache | None, str]:
        """A lockfile, the folder that was installed with it, and its name for messages."""
        with task.step(f"reading {path}"):
            lock = lockfile.read(path)
            if path.is_dir():
                return lock, BlobCache(path, limit="none"), str(path / FILE_NAME)
            beside = path.parent / "sha256"
            return lock, BlobCache(path.parent, limit="none") if beside.is_dir() else None, str(path)

    # --- shared

    def _load(
        self, task: Task[Loaded[T]], selection: Selection, blobs: CachedBlobs, source: Source, failures: Failures
    ) -> Loaded[T]:
        with task.step("keeping the manifests"):
            keep_manifests(blobs, selection, failures)
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

    def _first(self, work: Callable[[Task[Loaded[T]]], Loaded[T]], spares: Sequence[Spare[T]], why: str) -> Loaded[T]:
        """The registry's set if it comes in time, else the first stand-in that can be had, else one error.

        Args:
            work: Loads the registry's set.
            spares: What may stand in, in order.
            why: Why something else cannot, for the message; may be empty.
        """
        fresh = Task(work, "llmartifacts-registry").begin()
        self._begun.append(fresh)
        try:
            if not spares:
                fresh.wait(self.deadline.left)
                return self._outcome(fresh, why)
            fresh.wait(self.deadline.left / 2, heed_silence=True)
            if _decided(fresh):
                return self._outcome(fresh, why)
            failed: dict[str, Exception] = {}
            made = self._spare(spares, failed)
            if made is None:  # the registry may still come
                fresh.wait(self.deadline.left)
                if fresh.ended and fresh.error is None:
                    return fresh.result()
                raise self._all_failed(fresh, failed, why) from list(failed.values())[-1]
            if not fresh.silent:
                fresh.wait(self.deadline.left, heed_silence=True)
            if _decided(fresh):
                return self._outcome(fresh, why)
            return _standing_in(made, stood_in(self._reason(fresh)))
        finally:
            fresh.give_up()

    def _spare(self, spares: Sequence[Spare[T]], failed: dict[str, Exception]) -> Loaded[T] | None:
        for spare in spares:
            try:
                return spare.load()
            except Exception as error:  # noqa: BLE001 - whatever it is, the next one may do
                failed[spare.what] = error
        return None

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

    def _all_failed(self, fresh: Task[Loaded[T]], failed: Mapping[str, Exception], why: str) -> ResolutionError:
        reason = self._reason(fresh)
        first = reason if isinstance(reason, ResolutionError) else self.failures.all(reason)
        told, failures = [first.message], dict(first.failures)
        if reason is not first:
            told.append(reason_of(reason))
        told += [why] if why else []
        for what, error in failed.items():
            second = error if isinstance(error, ResolutionError) else Failures(self.spec).all(error)
            said = next((f"{name}: {inner}" for name, inner in second.failures.items()), second.message)
            told.append(f"{what} cannot stand in: {said}")
            failures |= second.failures
        return ResolutionError("; ".join(told), failures=failures)


def _decided(fresh: Task[Any]) -> bool:
    return fresh.ended and (fresh.error is None or is_final(fresh.error))


def _watching(task: Task[Any]) -> Callable[[Blob], AbstractContextManager[None]]:
    return lambda blob: task.step("fetching files", silence=SILENCE, size=blob.size)


def _with(loaded: Loaded[T], notice: Notice | None) -> Loaded[T]:
    return loaded if notice is None else replace(loaded, warnings=(*loaded.warnings, notice))


def _standing_in(made: Loaded[T], told: Notice) -> Loaded[T]:
    if made.source == "lockfile":  # it is what was asked for, and as good without a registry
        return _with(made, told)
    if made.source == "fallback":
        why = Notice("fallback", f"the packaged set stands in, however old it is: {told.message}")
        return replace(_with(made, told), why=why)
    return replace(_with(made, told), why=told)


def floor_of(known: KnownGood | None) -> Floor | None:
    """The newest state that the last-known-good set shows."""
    return None if known is None else Floor.of(known.lock, known.registry)
