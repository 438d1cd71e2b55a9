"""`Resolver`: the components of a service, loaded as one consistent, verified, typed set, and kept up to date.

    start   spec -> look up at one revision -> fetch and verify -> check that they fit -> unpack -> Generation
    watch   look up -> the same set? else load it beside the old one -> swap it in whole

A swap is one assignment: whoever took `current` before keeps what they took, whoever takes it after has all of the new.
"""

from __future__ import annotations

import copy
import math
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, overload

from llmartifacts.blobs.cache import BlobCache
from llmartifacts.errors import DeadlineExceeded, InvalidInput, ResolutionError
from llmartifacts.records.forks import renew_after_fork
from llmartifacts.records.lock import FILE_NAME
from llmartifacts.records.reference import Reference
from llmartifacts.registry import Registry
from llmartifacts.runtime.failures import bare, not_swapped, typed
from llmartifacts.runtime.generation import Generation
from llmartifacts.runtime.notices import code_of, in_a_line, reason_of
from llmartifacts.runtime.place import Place
from llmartifacts.runtime.refresh import Refresher
from llmartifacts.runtime.spec import chosen_alias, parse_spec
from llmartifacts.runtime.standing import Standing, log
from llmartifacts.runtime.start import Loaded, Start
from llmartifacts.runtime.state import State, Status
from llmartifacts.runtime.task import Deadline, Task, check_seconds
from llmartifacts.runtime.watcher import Outcome, Watcher

T = TypeVar("T")
OnChange = Callable[[Generation[T], Generation[T] | None], object]
OnMissingAlias = Literal["keep", "fail"]
FALLBACK = "LLMARTIFACTS_FALLBACK"
_FIRST_PAUSE, _LAST_PAUSE = 0.02, 1.0


class Resolver(Generic[T]):
    """Loads every component of a service at its start, or says which it could not load; then keeps them up to date.

    Nothing is opened before `start`. Safe to use from several threads: however many start it, it starts once. In a
    child made by fork it goes on serving what it served, with a watcher of its own if there was one.

    Args:
        spec: A frozen dataclass with fields like `agent: Annotated[la.Prompt, "support-agent:prod"]`, or a mapping
            name -> reference. A field that is `| None` with a default may be absent; no other may.
        bundle: Reference of a bundle; the fields of the dataclass are then its roles, of components and of models.
        registry: An open registry, or where it is, as `connect` takes it; None means what `connect()` finds.
        alias: Selector of references that have none; by default `$LLMARTIFACTS_ALIAS`.
        startup_timeout: Seconds that a start may take, over all components.
        max_stale: Seconds after which what the registry has not confirmed again is too old: a last-known-good set is
            not started from, and what is served turns readiness red until a look confirms it; None takes any.
        lockfile: Start from the digests of this file, whatever the aliases mean; or the folder that
            `install(…, directory=…)` made.
        frozen: Never touch the registry; start from the lockfile (by default `llmartifacts.lock`) and what is here.
        fallback: Folder that `install(…, directory=…)` made, or its lockfile, to start from where neither the registry
            nor a last-known-good set can be had; by default `$LLMARTIFACTS_FALLBACK`.
        on_missing_alias: What happens when the registry says, while a set is served, that an alias or a component is
            not there any more: `keep` serves on and is STALE, `fail` turns readiness red.

    Raises:
        InvalidInput: The spec or an argument cannot be used; the field is named.
        InvalidReference: A reference is malformed, or has no selector and there is no alias.

    Example:
        >>> import llmartifacts as la
        >>> registry = la.init("service-registry")
        >>> prompt = la.Prompt("Hello {{ name }}", template_format="jinja2")
        >>> _ = registry.log("greeting", prompt, aliases="prod")
        >>> with la.Resolver({"greeting": "greeting:prod"}, registry=registry) as resolver:
        ...     resolver.current.value["greeting"].format(name="Ada")
        'Hello Ada'

        Kept up to date, and told when there is something new:

        >>> with la.Resolver({"greeting": "greeting:prod"}, registry=registry) as resolver:
        ...     forget = resolver.on_change(lambda new, old: print(f"v{new.lock.components['greeting'].number}"))
        ...     resolver.watch(interval=30)
        ...     _ = registry.log("greeting", la.Prompt("Hi {{ name }}", template_format="jinja2"), aliases="prod")
        ...     resolver.refresh()
        ...     resolver.current.value["greeting"].format(name="Ada")
        ...     str(resolver.state)
        v2
        True
        'Hi Ada'
        'READY'
    """

    @overload
    def __init__(
        self: Resolver[Mapping[str, Any]],
        spec: Mapping[str, str | Reference],
        bundle: None = None,
        /,
        *,
        registry: Registry | str | os.PathLike[str] | None = None,
        alias: str | None = None,
        startup_timeout: float = 60.0,
        max_stale: float | None = None,
        lockfile: str | os.PathLike[str] | None = None,
        frozen: bool = False,
        fallback: str | os.PathLike[str] | None = None,
        on_missing_alias: OnMissingAlias = "keep",
    ) -> None: ...
    @overload
    def __init__(
        self,
        spec: type[T],
        bundle: str | Reference | None = None,
        /,
        *,
        registry: Registry | str | os.PathLike[str] | None = None,
        alias: str | None = None,
        startup_timeout: float = 60.0,
        max_stale: float | None = None,
        lockfile: str | os.PathLike[str] | None = None,
        frozen: bool = False,
        fallback: str | os.PathLike[str] | None = None,
        on_missing_alias: OnMissingAlias = "keep",
    ) -> None: ...

    def __init__(
        self,
        spec: Any,
        bundle: str | Reference | None = None,
        /,
        *,
        registry: Registry | str | os.PathLike[str] | None = None,
        alias: str | None = None,
        startup_timeout: float = 60.0,
        max_stale: float | None = None,
        lockfile: str | os.PathLike[str] | None = None,
        frozen: bool = False,
        fallback: str | os.PathLike[str] | None = None,
        on_missing_alias: OnMissingAlias = "keep",
    ) -> None:
        if on_missing_alias not in ("keep", "fail"):
            raise InvalidInput(
                f"{on_missing_alias!r:.60} is neither 'keep' nor 'fail'",
                field="on_missing_alias",
                next_step="keep serves on and says so; fail turns readiness red.",
            )
        self._spec = parse_spec(spec, bundle, chosen_alias(alias))
        self._place = Place(registry)
        self._seconds = check_seconds(startup_timeout, "startup_timeout")
        self._max_stale = None if max_stale is None else check_seconds(max_stale, "max_stale")
        self._lockfile = Path(lockfile) if lockfile is not None else Path(FILE_NAME) if frozen else None
        self._frozen = frozen
        spare = fallback if fallback is not None else os.environ.get(FALLBACK) or None
        self._fallback = None if spare is None else Path(spare)
        self._red_when_missing = on_missing_alias == "fail"
        self._standing = Standing(self._spec.title, max_stale=self._max_stale, overdue=self._seconds)
        self._lock = threading.Lock()
        self._cache: BlobCache | None = None
        self._running: _Running[T] | None = None
        self._current: Generation[T] | None = None
        self._started = False
        self._count = 0
        self._reached = 0
        self._refresher: Refresher[T] | None = None
        self._watcher: Watcher | None = None
        self._watched: float | None = None
        self._listeners: dict[object, OnChange[T]] = {}
        renew_after_fork(self)

    # --- start

    def start(self, timeout: float | None = None) -> Generation[T]:
        """Load everything, or say what cannot be loaded. Once started, returns what it has.

        From the registry; else from the last-known-good set, every byte of it verified again; else from the fallback.

        Args:
            timeout: Seconds that it may take, over all components; by default the resolver's `startup_timeout`.

        Returns:
            What is served from now on.

        Raises:
            ResolutionError: It cannot start; every component that failed is named with its own error.
        """
        seconds = self._seconds if timeout is None else check_seconds(timeout, "timeout")
        mine = Deadline.after(seconds)
        with self._lock:
            if self._started and self._current is not None:
                return self._current
            running = self._running = self._running or self._begin(mine)
        ended = running.task.wait(min(mine.left, running.deadline.left))
        if (
            not ended and running.deadline is not mine and running.deadline.left > 0
        ):  # begun by somebody with more time, who goes on waiting
            with self._lock:
                if self._started and self._current is not None:
                    return self._current
            raise running.error(mine)
        return self._settle(running, ended=ended)

    def _begin(self, deadline: Deadline) -> _Running[T]:
        # A start that ends by itself says more than one that is cut off, so it is given a little less.
        soft = Deadline(deadline.seconds, deadline.at - min(0.5, deadline.seconds / 20))
        tally = self._standing.tally
        start = Start(self._spec, self._place, self._cached(), soft, self._max_stale, self._fallback, tally)

        def work(task: Task[Loaded[T]]) -> Loaded[T]:
            if self._lockfile is None:
                return start.from_registry(task)
            return start.from_lockfile(task, self._lockfile, frozen=self._frozen)

        return _Running(Task(work, "llmartifacts-start").begin(), start, deadline)

    def _settle(self, running: _Running[T], *, ended: bool) -> Generation[T]:
        """The end of a start, seen by each who waited; the first of them makes it count."""
        before, new = None, None
        with self._lock:
            if self._running is running:
                self._running = None
                running.task.give_up()
                if ended and running.task.error is None:
                    before, new = self._current, self._serve(running.task.result())
                else:
                    self._standing.start_failed(in_a_line(running.error(running.deadline)))
            current = self._current if self._started else None
        if new is not None:
            log.info("%s: serves %s", self._spec.title, new.stamp())
            self._tell(new, before)
        if current is None:
            raise running.error(running.deadline)
        return current

    def _serve(self, loaded: Loaded[T]) -> Generation[T]:
        """Serve what a start loaded; under the lock."""
        self._count += 1
        self._current = new = _numbered(self._count, loaded)
        self._started = True
        self._reached = new.revision
        if self._lockfile is None:
            self._refresher = Refresher(
                self._spec,
                self._place,
                self._cached(),
                loaded.floor,
                max_stale=self._max_stale,
                tally=self._standing.tally,
                begun=self._standing.looks,
            )
            self._watcher = Watcher(self._look, self._ended)
        self._standing.started(loaded.age, loaded.why)
        return new

    def _cached(self) -> BlobCache:
        if self._cache is None:
            self._cache = BlobCache()
        return self._cache

    # --- what is served

    @property
    def current(self) -> Generation[T]:
        """What is served now; take it once per request.

        Raises:
            ResolutionError: It has not started.
        """
        current = self._current
        if current is None:
            raise ResolutionError(
                f"the resolver of {self._spec.title} has not started",
                next_step="Call start() first, or use it as `with resolver:`.",
            )
        return current

    @property
    def state(self) -> State:
        """`NOT_READY`, `READY`, `STALE` or `ERROR`."""
        return self._standing.state

    def status(self) -> Status:
        """State, reason, age and counts; it asks nobody, so a readiness probe may call it as often as it likes."""
        return self._standing.status(self._current)

    # --- keeping up to date

    def watch(self, interval: float = 30.0) -> None:
        """Look at the registry again and again, in a thread of its own, and swap in what its references mean by then.

        A look that finds nothing new is one conditional request, or one read of an embedded registry; processes of
        one host that ask for the same share it. One that fails, or finds a set that cannot be loaded, changes nothing
        but the state. Called again, it changes the interval. A resolver of a lockfile follows nothing, and watches
        nothing.

        Args:
            interval: Seconds between two looks, give or take a tenth; more, where the registry cannot be had.

        Raises:
            ResolutionError: It has not started.
            InvalidInput: The interval is no positive number.
        """
        seconds = check_seconds(interval, "interval")
        with self._lock:
            watcher = self._serving()
        if watcher is not None:
            watcher.watch(seconds, at_once=self.state is not State.READY)

    def refresh(self, timeout: float | None = None) -> bool:
        """Look at the registry once, now. Whoever comes while a look runs waits for that one.

        Args:
            timeout: Seconds to wait for it; by default `startup_timeout`.

        Returns:
            Whether a new generation is served. False for a resolver of a lockfile.

        Raises:
            DeadlineExceeded: It has not ended in time; it goes on, and swaps in what it finds.
            LlmartifactsError: What kept it from seeing, or serving, what the references mean now.
            ResolutionError: The same, by component; or the resolver has not started.
        """
        seconds = self._seconds if timeout is None else check_seconds(timeout, "timeout")
        with self._lock:
            watcher = self._serving()
        if watcher is None:
            return False
        outcome = watcher.ask(seconds)
        if outcome is None and self._watcher is not watcher:
            raise _closed()
        if outcome is None:
            raise DeadlineExceeded(f"the look at the registry has not ended in {seconds:g} s")
        if outcome.error is not None:
            raise copy.copy(outcome.error)
        return outcome.swapped

    def wait_for(self, revision: int, timeout: float | None = None) -> Generation[T]:
        """Wait until what is served is what the references mean at a revision of the project, or at a later one.

        It looks at once, and again until it is so.

        Args:
            revision: The revision, as a promotion tells it.
            timeout: Seconds to wait; None for as long as it takes.

        Returns:
            What is served then.

        Raises:
            DeadlineExceeded: It was not so in time.
            ResolutionError: The resolver has not started.
            InvalidInput: The revision is none, or the timeout is no positive number.
        """
        if isinstance(revision, bool) or not isinstance(revision, int) or revision < 0:
            raise InvalidInput(f"{revision!r:.60} is no revision", field="revision")
        until = None if timeout is None else Deadline.after(check_seconds(timeout, "timeout"))
        pause, why = _FIRST_PAUSE, ""
        while True:
            with self._lock:
                watcher, reached, current = self._serving(), self._reached, self._current
            if current is not None and reached >= revision:
                return current
            if watcher is None:
                raise DeadlineExceeded(f"a lockfile is served, which stays at revision {reached}")
            left = math.inf if until is None else until.left
            if left <= 0:
                raise DeadlineExceeded(f"revision {reached} is served, and not yet {revision}{why}")
            outcome = watcher.ask(min(left, self._seconds))
            why = f": {outcome.error}" if outcome is not None and outcome.error is not None else ""
            if self._reached < revision:
                time.sleep(min(pause, left if until is None else until.left))
                pause = min(2 * pause, _LAST_PAUSE)

    def on_change(self, callback: OnChange[T]) -> Callable[[], None]:
        """Have a function called after each swap, with what is served now and what was served before.

        It is called in the thread that swapped, which is the watcher's for all but the first; what it raises is logged.
        At the first start, what was served before is None.

        Args:
            callback: Takes the new and the old generation. It should keep neither: an old one is released when the
                last who holds it lets go.

        Returns:
            Call it to have the function called no more; also from a finalizer.
        """
        listeners, mark = self._listeners, object()  # no lock: whoever holds it may be who collects the garbage
        listeners[mark] = callback

        def remove() -> None:
            listeners.pop(mark, None)

        return remove

    def close(self) -> None:
        """End it, and its watcher; what it has loaded stays usable."""
        with self._lock:
            refresher, watcher, was = self._refresher, self._watcher, self._started
            self._refresher = self._watcher = None
            self._started = False
        if was:
            self._standing.closed()
        if refresher is not None:
            refresher.give_up()
        if watcher is not None:
            watcher.close()
        if refresher is not None and (watcher is None or not watcher.alive):
            refresher.drop()

    # --- one look, in the watcher's thread

    def _look(self, forced: bool) -> Outcome:
        with self._lock:
            served, refresher, watcher = self._current, self._refresher, self._watcher
        if served is None or refresher is None or watcher is None:
            return Outcome(error=_closed())
        self._standing.look_at_itself()
        try:
            found = refresher.look(served, interval=None if forced else watcher.interval)
        except Exception as error:  # noqa: BLE001 - whatever it is, the old generation is kept, and why is told
            return self._missed(error, refresher)
        new = None
        with self._lock:
            closed = self._refresher is not refresher
            if not closed:
                self._reached = found.revision
                if found.loaded is not None:
                    self._count += 1
                    self._current = new = _numbered(self._count, found.loaded)
        if closed:
            refresher.drop()
            return Outcome(error=_closed())
        now = time.monotonic()
        seconds = None if new is None else now - found.at
        self._standing.confirmed(now - found.at, shared=found.shared, swap_seconds=seconds)
        if new is not None:
            log.info("%s: %s -> %s", self._spec.title, served.stamp(), new.stamp())
            self._tell(new, served)
        return Outcome(swapped=new is not None)

    def _missed(self, error: Exception, refresher: Refresher[T]) -> Outcome:
        if self._refresher is not refresher:
            refresher.drop()
            return Outcome(error=_closed())
        code = code_of(error)
        self._standing.missed(code, reason_of(error), red=code == "alias-missing" and self._red_when_missing)
        return Outcome(
            error=not_swapped(bare(typed(error))), back_off=code in ("registry-unreachable", "registry-refused")
        )

    def _ended(self) -> None:
        """The watcher's thread ends: the registry need not be held open any more."""
        refresher = self._refresher
        if refresher is not None:
            refresher.drop()

    def _serving(self) -> Watcher | None:
        """The watcher, which a resolver of a lockfile has not; under the lock. Raises if it has not started."""
        if not self._started:
            _ = self.current
            raise _closed()
        return self._watcher

    def _tell(self, new: Generation[T], old: Generation[T] | None) -> None:
        for listener in self._listeners.copy().values():
            try:
                listener(new, old)
            except Exception:  # noqa: BLE001 - a stranger's; what is served stands
                log.exception("%s: a callback on change failed", self._spec.title)

    def after_fork(self) -> None:
        """Begin anew in a forked child: with locks, connections and a watcher of its own, serving what was served."""
        self._lock = threading.Lock()
        self._running = None
        self._cache = None if self._cache is None else BlobCache()
        self._standing.renew_lock()
        if self._refresher is not None and self._cache is not None:
            self._refresher.forget(self._cache)
        self._watched = None
        if self._watcher is not None:
            self._watched, self._watcher = self._watcher.interval, Watcher(self._look, self._ended)

    def go_on_after_fork(self) -> None:
        """Watch again in a forked child, if the parent did."""
        if self._watcher is not None and self._watched is not None:
            self._watcher.watch(self._watched, spread=True)

    def __enter__(self) -> Resolver[T]:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        current = self._current
        return f"<Resolver {self._spec.title} {'not started' if current is None else current.stamp()}>"


@dataclass(frozen=True)
class _Running(Generic[T]):
    """A start on its way; several threads may wait for it."""

    task: Task[Loaded[T]]
    start: Start[T]
    deadline: Deadline

    def error(self, deadline: Deadline) -> ResolutionError:
        """Why it failed, for somebody who had so much time."""
        error = self.task.error
        if isinstance(error, ResolutionError):
            return error
        if error is None:
            doing = self.task.doing or self.start.doing
            doing = f" while {doing}" if doing else ""
            error = DeadlineExceeded(f"out of time after {deadline.seconds:g} s{doing}")
        return self.start.failures.so_far(error)


def _closed() -> ResolutionError:
    return ResolutionError("the resolver was closed", next_step="Call start() again.")


def _numbered(number: int, loaded: Loaded[T]) -> Generation[T]:
    return Generation(number, loaded.value, loaded.lock, loaded.source, loaded.warnings)
