"""Work that may hang: done in a daemon thread, watched from outside, given up when its time is over.

A thread stuck in a system call cannot be stopped, so nobody waits for it longer than the deadline; it ends by itself
at the next step it would begin.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from llmartifacts.errors import DeadlineExceeded, InvalidInput

R = TypeVar("R")
Item = TypeVar("Item")

THREADS = 4
SLOW = 20e6
"""Bytes a second; a source slower than this, while it fetches one file, counts as silent."""
_LOOK = 0.25
"""Seconds between two looks at steps that began meanwhile."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point in time that nothing may pass.

    Attributes:
        seconds: The budget it was made of.
        at: The point, by the monotonic clock.
    """

    seconds: float
    at: float

    @classmethod
    def after(cls, seconds: float, *, spare: float = 0.0) -> Deadline:
        """The point some seconds from now, less what is to be spared of them."""
        return cls(seconds, time.monotonic() + seconds - spare)

    @property
    def left(self) -> float:
        """Seconds left; 0 once it has passed."""
        return max(0.0, self.at - time.monotonic())


def check_seconds(value: float, field: str) -> float:
    """Check a duration.

    Raises:
        InvalidInput: It is no positive, finite number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InvalidInput(f"{value!r:.60} is no positive number of seconds", field=field)
    return float(value)


class Task(Generic[R]):
    """One piece of work in a daemon thread of its own.

    Args:
        work: Called with the task, so that it can tell its steps.
        name: Name of the thread.
    """

    def __init__(self, work: Callable[[Task[R]], R], name: str) -> None:
        self._work: Callable[[Task[R]], R] | None = work
        self.name = name
        self._changed = threading.Condition()
        self._steps: dict[object, tuple[str, float]] = {}
        self._ended = False
        self._given_up = False
        self._result: R | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def begin(self) -> Task[R]:
        """Start the thread."""
        self._thread.start()
        return self

    def _run(self) -> None:
        work, self._work = self._work, None  # what it has at hand goes with its end
        try:
            result, error = work(self) if work is not None else None, None
        except BaseException as raised:  # noqa: BLE001 - handed to whoever waits
            result, error = None, raised
        with self._changed:
            if not self._given_up:
                self._result, self._error, self._ended = result, error, True
            del result, work
            self._changed.notify_all()

    # --- from inside

    @contextmanager
    def step(self, doing: str, *, silence: float = math.inf, size: int = 0) -> Iterator[None]:
        """One step of the work.

        Args:
            doing: What it is, for messages.
            silence: Seconds after which the other side counts as silent; endless for work done here.
            size: Bytes that the other side has to send in this step; a slow one gets the time that they take.

        Raises:
            DeadlineExceeded: The task was given up meanwhile.
        """
        if self._given_up:
            raise DeadlineExceeded(f"given up before {doing}")
        mark = object()
        with self._changed:
            self._steps[mark] = (doing, time.monotonic() + silence + size / SLOW)
        try:
            yield
        finally:
            with self._changed:
                del self._steps[mark]

    # --- from outside

    @property
    def ended(self) -> bool:
        """Whether it has returned or raised, before anybody gave it up."""
        return self._ended

    @property
    def over(self) -> bool:
        """Whether it has ended or was given up."""
        return self._ended or self._given_up

    @property
    def error(self) -> BaseException | None:
        """What it raised; None if it returned, or has not ended."""
        return self._error

    @property
    def doing(self) -> str:
        """What it does just now; empty if nothing is known."""
        with self._changed:
            return " and ".join(sorted({doing for doing, _ in self._steps.values()}))

    def wait(self, seconds: float, *, heed_silence: bool = False) -> bool:
        """Wait for its end.

        Args:
            seconds: At most so long.
            heed_silence: Not any longer once the other side is silent.

        Returns:
            Whether it has ended.
        """
        until = time.monotonic() + seconds
        with self._changed:
            while not self.over:
                now = time.monotonic()
                quiet = self._quiet_at() if heed_silence else math.inf
                if now >= until or now >= quiet:
                    break
                self._changed.wait(min(until - now, quiet - now, _LOOK))
            return self._ended

    def _quiet_at(self) -> float:
        return max((quiet for _, quiet in self._steps.values()), default=math.inf)

    @property
    def silent(self) -> bool:
        """Whether the other side has kept it waiting for too long."""
        with self._changed:
            return not self.over and time.monotonic() >= self._quiet_at()

    def give_up(self) -> None:
        """Stop caring: it ends at its next step, and its result is dropped."""
        with self._changed:
            self._given_up = True
            self._changed.notify_all()

    def result(self) -> R:
        """What it returned, handed over once; raises what it raised. Only once it has ended."""
        if self._error is not None:
            raise self._error
        made, self._result = self._result, None
        return made  # type: ignore[return-value] # None only if R is


class _NoMore:
    pass


_NO_MORE = _NoMore()


def each(task: Task[Any], items: Sequence[Item], work: Callable[[Item], None]) -> None:
    """Do one task's work on several items, a few at a time; the first error is raised once all have ended.

    Daemon threads of their own: an executor's would keep the interpreter from ending while one of them hangs.
    """
    left = iter(items)
    lock = threading.Lock()
    errors: list[BaseException] = []

    def run() -> None:
        while not (task.over or errors):
            with lock:
                item = next(left, _NO_MORE)
            if isinstance(item, _NoMore):
                return
            try:
                work(item)
            except BaseException as error:  # noqa: BLE001 - raised again below, in the thread that asked
                errors.append(error)

    count = min(THREADS, len(items)) - 1
    helpers = [threading.Thread(target=run, name=f"{task.name}-{i}", daemon=True) for i in range(count)]
    for helper in helpers:
        helper.start()
    run()
    for helper in helpers:
        helper.join()
    if errors:
        raise errors[0]
