"""`Resolver`: the components of a service, loaded as one consistent, verified, typed set.

spec -> look up at one revision -> fetch and verify -> check that they fit -> unpack -> Generation
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

from llmartifacts.blobs.cache import BlobCache
from llmartifacts.errors import DeadlineExceeded, ResolutionError
from llmartifacts.records.lock import FILE_NAME
from llmartifacts.records.reference import Reference
from llmartifacts.registry import Registry
from llmartifacts.runtime.generation import Generation
from llmartifacts.runtime.spec import chosen_alias, parse_spec
from llmartifacts.runtime.start import Loaded, Place, Start
from llmartifacts.runtime.task import Deadline, Task, check_seconds

T = TypeVar("T")


class Resolver(Generic[T]):
    """Loads every component of a service at its start, or says which it could not load.

    Nothing is opened before `start`. Safe to use from several threads: however many start it, it starts once.

    Args:
        spec: A frozen dataclass with fields like `agent: Annotated[la.Prompt, "support-agent:prod"]`, or a mapping
            name -> reference. A field that is `| None` with a default may be absent; no other may.
        bundle: Reference of a bundle; the fields of the dataclass are then its roles, of components and of models.
        registry: An open registry, or where it is, as `connect` takes it; None means what `connect()` finds.
        alias: Selector of references that have none; by default `$LLMARTIFACTS_ALIAS`.
        startup_timeout: Seconds that a start may take, over all components.
        max_stale: Seconds after which a last-known-good set is too old to start from; None takes any.
        lockfile: Start from the digests of this file, whatever the aliases mean; or the folder that
            `install(…, directory=…)` made.
        frozen: Never touch the registry; start from the lockfile (by default `llmartifacts.lock`) and what is here.

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
    ) -> None:
        self._spec = parse_spec(spec, bundle, chosen_alias(alias))
        self._place = Place(registry)
        self._seconds = check_seconds(startup_timeout, "startup_timeout")
        self._max_stale = None if max_stale is None else check_seconds(max_stale, "max_stale")
        self._lockfile = Path(lockfile) if lockfile is not None else Path(FILE_NAME) if frozen else None
        self._frozen = frozen
        self._lock = threading.Lock()
        self._cache: BlobCache | None = None
        self._running: _Running[T] | None = None
        self._current: Generation[T] | None = None
        self._started = False
        self._count = 0

    def start(self) -> Generation[T]:
        """Load everything, or say what cannot be loaded. Once started, returns what it has.

        Returns:
            What is served from now on.

        Raises:
            ResolutionError: It cannot start; every component that failed is named with its own error.
        """
        with self._lock:
            if self._started and self._current is not None:
                return self._current
            running = self._running = self._running or self._begin()
        ended = running.task.wait(running.deadline.left)
        with self._lock:
            if self._running is running:  # the first to see the end
                self._running = None
                running.task.give_up()
                if ended and running.task.error is None:
                    self._count += 1
                    self._current = _numbered(self._count, running.task.result())
                    self._started = True
            if self._started and self._current is not None:
                return self._current
        raise running.error()

    def _begin(self) -> _Running[T]:
        if self._cache is None:
            self._cache = BlobCache()
        # A start that ends by itself says more than one that is cut off, so it is given a little less.
        soft = Deadline.after(self._seconds, spare=min(0.5, self._seconds / 20))
        start = Start(self._spec, self._place, self._cache, soft, self._max_stale)

        def work(task: Task[Loaded[T]]) -> Loaded[T]:
            if self._lockfile is None:
                return start.from_registry(task)
            return start.from_lockfile(task, self._lockfile, frozen=self._frozen)

        return _Running(Task(work, "llmartifacts-start").begin(), start, Deadline.after(self._seconds))

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

    def close(self) -> None:
        """End it; what it has loaded stays usable."""
        with self._lock:
            self._started = False

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

    def error(self) -> ResolutionError:
        """Why it failed."""
        error = self.task.error
        if isinstance(error, ResolutionError):
            return error
        if error is None:
            doing = f" while {self.task.doing}" if self.task.doing else ""
            error = DeadlineExceeded(f"out of time after {self.deadline.seconds:g} s{doing}")
        return self.start.failures.all(error)


def _numbered(number: int, loaded: Loaded[T]) -> Generation[T]:
    return Generation(number, loaded.value, loaded.lock, loaded.source, loaded.warnings)
