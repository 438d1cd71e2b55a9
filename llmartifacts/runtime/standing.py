"""How a resolver stands: its state, why, since when, and what it has done.

Every change of state is one line in the log.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from llmartifacts.runtime.fetch import Tally
from llmartifacts.runtime.generation import Generation, Notice
from llmartifacts.runtime.state import Checks, State, Status

log = logging.getLogger("llmartifacts.resolver")

EACH = 10
"""Of looks that fail one after another, the first is logged, and each tenth."""
_LEVELS = {State.READY: logging.INFO, State.NOT_READY: logging.INFO, State.STALE: logging.WARNING}

Phase = Literal["new", "serving", "failed", "closed"]


@dataclass(frozen=True, slots=True)
class _Trouble:
    """Why what is served is not known to be the newest."""

    code: str
    reason: str
    red: bool = False


class Standing:
    """The state of one resolver. Safe to use from several threads.

    Args:
        title: What the log calls it.
        max_stale: Seconds after which what was not confirmed is an error; None for never.
        overdue: Seconds after which a look that is under way counts as one that got no answer.
        clock: A monotonic clock, in seconds.
    """

    def __init__(
        self,
        title: str,
        *,
        max_stale: float | None = None,
        overdue: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._title = title
        self._max_stale = max_stale
        self._overdue = overdue
        self._clock = clock
        self._lock = threading.Lock()
        self._phase: Phase = "new"
        self._why = ""
        self._trouble: _Trouble | None = None
        self._confirmed: float | None = None
        self._looking: float | None = None
        self._in_row = 0
        self._told: tuple[State, str] = (State.NOT_READY, "not-started")
        self._accounted = clock()
        self._stale = 0.0
        self._made = self._unchanged = self._shared = self._swapped = self._failed = 0
        self._swap_seconds: float | None = None
        self.tally = Tally()

    # --- what happened

    def started(self, age: float | None, why: Notice | None) -> None:
        """It serves.

        Args:
            age: Seconds since the registry said that this is the set; None if it never did.
            why: Why it is not the registry's set of now; None if it is.
        """
        with self._lock:
            self._account()
            self._phase, self._why, self._in_row = "serving", "", 0
            self._confirmed = None if age is None else self._clock() - age
            self._trouble = None if why is None else _Trouble(why.code, why.message)
        self.look_at_itself()

    def start_failed(self, reason: str) -> None:
        """It could not start."""
        with self._lock:
            self._phase, self._why = "failed", reason
        self.look_at_itself()

    def closed(self) -> None:
        """It was closed."""
        with self._lock:
            self._account()
            self._phase, self._looking = "closed", None
        self.look_at_itself()

    def looks(self) -> None:
        """A look of this process begins."""
        with self._lock:
            self._made += 1
            self._looking = self._clock()

    def confirmed(self, age: float, *, shared: bool = False, swap_seconds: float | None = None) -> None:
        """What is served is what the references mean.

        Args:
            age: Seconds since the registry was asked.
            shared: Whether another process asked it.
            swap_seconds: Seconds that it took to load and swap in; None if nothing was swapped.
        """
        with self._lock:
            self._account()
            self._looking, self._trouble, self._in_row = None, None, 0
            self._confirmed = self._clock() - age
            if swap_seconds is not None:
                self._swapped += 1
                self._swap_seconds = swap_seconds
            elif shared:
                self._shared += 1
            else:
                self._unchanged += 1
        self.look_at_itself()

    def missed(self, code: str, reason: str, *, red: bool = False) -> None:
        """A look ended without knowing that what is served is the newest.

        Args:
            code: Why, short.
            reason: Why, in a sentence.
            red: Whether it is not to be served any more.
        """
        with self._lock:
            self._account()
            before = self._trouble
            self._failed += 1
            self._in_row = self._in_row + 1 if before is not None and before.code == code else 1
            self._looking, self._trouble = None, _Trouble(code, reason, red)
            row = self._in_row
        if not self.look_at_itself() and (row == 1 or row % EACH == 0):
            log.warning("%s: %s (%d in a row): %s", self._title, code, row, reason)

    def renew_lock(self) -> None:
        """Have locks of its own in a child that was forked while another thread may have held them."""
        self._lock = threading.Lock()
        self._looking = None
        self.tally.renew_lock()

    # --- what it comes to

    @property
    def state(self) -> State:
        """The state now."""
        self.look_at_itself()
        with self._lock:
            return self._now()[0]

    def status(self, served: Generation[Any] | None) -> Status:
        """All of it.

        Args:
            served: What is served; None before the first.
        """
        self.look_at_itself()
        with self._lock:
            self._account()
            state, code, reason = self._now()
            age = None if self._confirmed is None else max(0.0, self._clock() - self._confirmed)
            checks = Checks(
                self._made,
                self._unchanged,
                self._shared,
                self._swapped,
                self._failed,
                self._swap_seconds,
                self.tally.fetched,
                self.tally.cached,
                self._stale,
            )
        ready = state in (State.READY, State.STALE)
        if served is None:
            return Status(state, ready, code=code, reason=reason, checks=checks)
        return Status(
            state,
            ready,
            served.number,
            served.revision,
            served.source,
            served.stamp(),
            age,
            code,
            reason,
            checks,
        )

    def look_at_itself(self) -> bool:
        """Log a change of state, of which some come with time alone; returns whether there was one."""
        with self._lock:
            state, code, reason = self._now()
            if (state, code) == self._told:
                return False
            changed = state != self._told[0]
            before, self._told = self._told[0], (state, code)
        if not changed:
            return False
        level = _LEVELS.get(state, logging.ERROR)
        log.log(level, "%s: %s -> %s%s", self._title, before, state, f" ({code}): {reason}" if code else "")
        return True

    def _now(self) -> tuple[State, str, str]:
        if self._phase == "new":
            return State.NOT_READY, "not-started", "it has not started"
        if self._phase == "closed":
            return State.NOT_READY, "not-started", "it was closed"
        if self._phase == "failed":
            return State.ERROR, "start-failed", self._why
        now, trouble = self._clock(), self._trouble
        if trouble is not None and trouble.red:
            return State.ERROR, trouble.code, trouble.reason
        if self._max_stale is not None and self._confirmed is not None:
            age = now - self._confirmed
            if age > self._max_stale:
                because = f": {trouble.reason}" if trouble else ""
                told = f"it was confirmed {age:.0f} s ago, and max_stale is {self._max_stale:g} s{because}"
                return State.ERROR, "too-old", told
        if trouble is None and self._looking is not None and now - self._looking > self._overdue:
            told = f"a look at the registry has been under way for {now - self._looking:.0f} s"
            trouble = _Trouble("registry-unreachable", told)
        return (State.READY, "", "") if trouble is None else (State.STALE, trouble.code, trouble.reason)

    def _account(self) -> None:
        """Add the time that was served since the last account in the state that held all that time."""
        now, last = self._clock(), self._accounted
        self._accounted = now
        trouble = self._trouble
        if self._phase != "serving" or trouble is None or trouble.red:
            return
        ends = now
        if self._max_stale is not None and self._confirmed is not None:
            ends = min(now, self._confirmed + self._max_stale)
        self._stale += max(0.0, ends - last)
