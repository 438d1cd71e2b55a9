"""One look at the registry: is what is served still what the references mean? If not, load what they mean now.

The registry stays open between looks. Everything of a new set is fetched, verified, checked and unpacked beside the one
that is served; nothing here touches what is served.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from llmartifacts.blobs.cache import BlobCache
from llmartifacts.connect import keep_answers
from llmartifacts.errors import LlmartifactsError
from llmartifacts.records.lock import Lockfile
from llmartifacts.registry import Registry
from llmartifacts.runtime import known_good
from llmartifacts.runtime.failures import Failures, bare, typed
from llmartifacts.runtime.fetch import CachedBlobs, Tally
from llmartifacts.runtime.generation import Generation, Notice
from llmartifacts.runtime.known_good import Asked
from llmartifacts.runtime.load import keep_manifests, load, loaded_values
from llmartifacts.runtime.looks import Seen, SharedLooks, told
from llmartifacts.runtime.notices import code_of, lasting
from llmartifacts.runtime.place import Held, Place, identity
from llmartifacts.runtime.revisions import Floor, follow
from llmartifacts.runtime.selection import LookedUp, complete, look_up
from llmartifacts.runtime.spec import Spec
from llmartifacts.runtime.start import Loaded
from llmartifacts.runtime.task import Task

T = TypeVar("T")

YOUNG = 0.8
"""Part of an interval within which the look of another process is as good as one of one's own."""
PATIENCE = 2.0
"""Seconds at most to wait for another process that looks just now."""
REFUSED_FOR = 600.0
"""Seconds that a set which could not be loaded is not tried again, while the registry's revision stays the same."""
KEEP_EVERY = 600.0
"""Seconds after which the same last-known-good set is written down again, with the time of the last look."""


@dataclass(frozen=True, slots=True)
class Found(Generic[T]):
    """What a look found.

    Attributes:
        revision: The project's revision.
        at: When the registry was asked, by the monotonic clock.
        loaded: What is to be served from now on; None if what is served is right.
        shared: Whether another process asked the registry.
    """

    revision: int
    at: float
    loaded: Loaded[T] | None = None
    shared: bool = False


@dataclass(frozen=True, slots=True)
class _RefusedSet:
    """A set that could not be loaded."""

    set_digest: str
    revision: int
    until: float
    error: LlmartifactsError


class Refresher(Generic[T]):
    """Looks for one resolver; one at a time.

    Args:
        spec: What the service wants.
        place: Where the registry is.
        cache: Where bytes are kept.
        floor: The newest state known here; None if none is.
        max_stale: As the resolver has it.
        tally: Counts what is fetched and what is there.
        begun: Called when the registry is about to be asked.
    """

    def __init__(
        self,
        spec: Spec[T],
        place: Place,
        cache: BlobCache,
        floor: Floor | None,
        *,
        max_stale: float | None = None,
        tally: Tally | None = None,
        begun: Callable[[], None] = lambda: None,
    ) -> None:
        self._spec = spec
        self._place = place
        self._cache = cache
        self._held = Held(place)
        self._tally = tally or Tally()
        self._begun = begun
        self._keep_every = KEEP_EVERY if max_stale is None else min(KEEP_EVERY, max_stale / 10)
        self._kept: tuple[Lockfile, float] | None = None
        self._refused: _RefusedSet | None = None
        self._unnamed = False
        self._task: Task[Any] | None = None
        self._alone = threading.Lock()
        self.floor = floor

    def look(self, served: Generation[T], *, interval: float | None = None) -> Found[T]:
        """Look once.

        Args:
            served: What is served.
            interval: Seconds between looks, of which other processes may make some; None to ask the registry in any
                case.

        Raises:
            LlmartifactsError: It could not be seen, or what was found cannot be served.
        """
        with self._alone:
            self._task = Task(lambda _: None, "llmartifacts-look")
            try:
                if interval is None or served.source != "registry":
                    return self._own(served, self._task)
                shared = SharedLooks(self._cache.root, self._asked())
                with shared.turn(YOUNG * interval, min(interval, PATIENCE)) as seen:
                    if seen is not None and self._agrees(seen, served):
                        return self._shared(seen, served)
                    return self._own(served, self._task)
            finally:
                self._task = None

    def give_up(self) -> None:
        """Let a look that is under way end at its next step, without a result."""
        task = self._task
        if task is not None:
            task.give_up()

    def drop(self) -> None:
        """Close the registry; the next look opens it anew."""
        with self._alone:
            self._held.drop()

    def forget(self, cache: BlobCache) -> None:
        """Begin anew in a forked child: with locks, a registry and a cache of its own."""
        self._alone = threading.Lock()
        self._task = None
        self._held.forget()
        self._cache = cache

    # --- what others saw

    def _agrees(self, seen: Seen, served: Generation[T]) -> bool:
        known = self.floor is None or seen.revision >= self.floor.revision
        return known and seen.set_digest == served.lock.set_digest and seen.told == told(served.warnings)

    def _shared(self, seen: Seen, served: Generation[T]) -> Found[T]:
        self.floor = Floor(seen.revision) if self.floor is None else replace(self.floor, revision=seen.revision)
        return Found(seen.revision, seen.at, shared=True)

    # --- one's own look

    def _own(self, served: Generation[T], task: Task[Any]) -> Found[T]:
        at = time.monotonic()
        self._begun()
        try:
            registry = self._held.registry()
            keep_answers(registry, self._cache)
            looked = look_up(registry, self._spec)
            notice = follow(looked.lock, self.floor, lambda: identity(registry))
            looked.failures.refuse()
            loaded = self._what_changed(registry, looked, served, notice, task)
        except Exception as error:
            if code_of(error) in ("registry-unreachable", "registry-refused"):
                with suppress(Exception):
                    self._held.drop()
            raise
        set_digest = looked.lock.set_digest
        warnings = served.warnings if loaded is None else loaded.warnings
        SharedLooks(self._cache.root, self._asked()).note(Seen(set_digest, told(warnings), looked.lock.revision, at))
        return Found(looked.lock.revision, at, loaded)

    def _what_changed(
        self,
        registry: Registry,
        looked: LookedUp,
        served: Generation[T],
        notice: Notice | None,
        task: Task[Any],
    ) -> Loaded[T] | None:
        lock = looked.lock
        same = lock.set_digest == served.lock.set_digest
        floor = Floor.of(lock, self._name(registry, anew=not same or notice is not None))
        if not same:
            made, all_kept = self._load(registry, looked, served, task)
        else:  # nothing is loaded again; what is said of it may be new
            made, all_kept = Loaded(served.value, lock, "registry", (*lasting(served.warnings), *looked.notices)), True
        self.floor, self._refused = floor, None
        if all_kept:
            self._keep(lock, floor.registry, in_any_case=notice is not None)
        if notice is not None:
            made = Loaded(made.value, lock, "registry", (*made.warnings, notice))
        elif same and served.source == "registry" and told(looked.notices) == told(served.warnings):
            return None
        return made

    def _load(
        self, registry: Registry, looked: LookedUp, served: Generation[T], task: Task[Any]
    ) -> tuple[Loaded[T], bool]:
        """Load the new set, and whether all of it lies in the cache; one that cannot be loaded is remembered."""
        lock, now = looked.lock, time.monotonic()
        refused = self._refused
        if (
            refused is not None
            and (refused.set_digest, refused.revision) == (lock.set_digest, lock.revision)
            and now < refused.until
        ):
            raise bare(refused.error)
        try:
            selection = complete(registry, looked, self._spec)
            blobs = CachedBlobs(
                self._cache,
                upstream=registry.backend.blobs,
                watch=lambda _: task.step("fetching files"),
                tally=self._tally,
                outside=lambda: registry.external,
            )
            keep_manifests(blobs, selection, Failures(self._spec))
            known = loaded_values(self._spec, served.lock, served.value)
            value, notices = load(task, self._spec, selection, blobs, Failures(self._spec), known)
            blobs.detach()
        except Exception as error:
            if code_of(error) == "newer-set-refused":
                self._refused = _RefusedSet(lock.set_digest, lock.revision, now + REFUSED_FOR, bare(typed(error)))
            raise
        return Loaded(value, lock, "registry", notices), blobs.all_kept

    def _name(self, registry: Registry, *, anew: bool) -> str:
        """Which registry it is; asked for a new set, and once where it is not known."""
        known = self.floor.registry if self.floor is not None else ""
        if anew or not (known or self._unnamed):
            known = identity(registry) or known
            self._unnamed = not known
        return known

    # --- last known good

    def _keep(self, lock: Lockfile, registry: str, *, in_any_case: bool) -> None:
        """Write it down: at once if it is another one, else now and then, with the time of the last look."""
        now = time.monotonic()
        if self._kept is not None and self._kept[0] == lock and now - self._kept[1] < self._keep_every:
            return
        self._kept = lock, now
        asked, root = self._asked(), self._cache.root
        with suppress(LlmartifactsError, OSError):  # a read-only cache; or no record that can be read: written anew
            known = known_good.recall(root, asked)
            if known is not None and not in_any_case:
                newer = known.lock.revision > lock.revision and known.registry == registry
                if newer or (known.lock == lock and known.age() < self._keep_every):
                    return
        with suppress(LlmartifactsError, OSError):
            known_good.keep(root, asked, lock, registry)

    def _asked(self) -> Asked:
        return Asked(self._place.locations()[0], self._spec.project(self._place.project), self._spec.wanted)
