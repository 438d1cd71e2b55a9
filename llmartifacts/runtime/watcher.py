"""The one thread of a resolver that looks at the registry: at intervals, and when it is asked to.

One thread does every look, so two looks never run beside each other, and whoever asks while one runs waits for that
one. It keeps no resolver alive: between two looks it knows it by a weak reference only.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass

from llmartifacts.errors import LlmartifactsError

log = logging.getLogger("llmartifacts.resolver")

JITTER = 0.1
MOST_INTERVALS = 10
MOST_SECONDS = 300.0
IDLE = 5.0
"""Seconds after which a thread that nobody asks, and that has no interval, ends; the next who asks starts another."""
_JOIN = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a look ended.

    Attributes:
        swapped: Whether it brought a new generation.
        error: What kept it from that; None if nothing did.
        back_off: Whether the next one is to wait longer: the registry could not be had.
    """

    swapped: bool = False
    error: LlmartifactsError | None = None
    back_off: bool = False


def pause(interval: float, failures: int, draw: Callable[[], float] = random.random) -> float:
    """Seconds from one look to the next.

    Args:
        interval: Seconds between two looks that succeed; spread by a tenth, so that many processes do not ask at once.
        failures: How many failed one after another; each doubles it, up to ten intervals or five minutes.
        draw: Gives numbers from 0 to 1.
    """
    spread = 1 + JITTER * (2 * draw() - 1)
    if not failures:
        return interval * spread
    most = min(MOST_INTERVALS * interval, max(MOST_SECONDS, interval))
    return min(interval * 2.0 ** min(failures, 30), most) * (1 - draw() / 4)


class Watcher:
    """Looks, one after another, in a daemon thread that begins when it is first needed.

    Args:
        look: Bound method that looks, told whether somebody asked for it; must raise nothing. Held weakly.
        ended: Bound method called in the thread when it ends. Held weakly.
        draw: Gives numbers from 0 to 1.
    """

    def __init__(
        self, look: Callable[[bool], Outcome], ended: Callable[[], None], draw: Callable[[], float] = random.random
    ) -> None:
        self._look = weakref.WeakMethod(look)
        self._ended = weakref.WeakMethod(ended)
        self._draw = draw
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self.interval: float | None = None
        self._due = math.inf
        self._asked = self._forced = False
        self._closed = False
        self._begun = self._done = self._failures = 0
        self._last = Outcome()

    def watch(self, interval: float, *, at_once: bool = False, spread: bool = False) -> None:
        """Look at intervals from now on.

        Args:
            interval: Seconds.
            at_once: The first one now, not after an interval.
            spread: The first one at any time within an interval.
        """
        with self._changed:
            if self._closed:
                return
            self.interval = interval
            first = 0.0 if at_once else interval * self._draw() if spread else pause(interval, 0, self._draw)
            self._due = time.monotonic() + first
            self._ensure()
            self._changed.notify_all()

    def ask(self, timeout: float | None) -> Outcome | None:
        """Look now; whoever comes while a look runs waits for that one.

        Args:
            timeout: Seconds to wait; None for as long as it takes.

        Returns:
            How it ended; None if it did not in time, or was closed.
        """
        if threading.current_thread() is self._thread:  # a callback asks: its own look is over but for it
            look = self._look()
            return None if look is None else look(True)
        with self._changed:
            if self._closed:
                return None
            running = self._begun > self._done
            mine = self._begun if running else self._begun + 1
            if not running:
                self._asked = True
            self._ensure()
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._done >= mine or self._closed, timeout)
            return self._last if self._done >= mine else None

    def close(self) -> None:
        """End the thread; one that hangs in a look is left behind."""
        with self._changed:
            self._closed = True
            self.interval, thread = None, self._thread
            self._changed.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join(_JOIN)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        thread = self._thread
        return thread is not None and thread.is_alive()

    # --- the thread

    def _ensure(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="llmartifacts-watch", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        try:
            while self._wait():
                if not self._one():
                    break
        finally:
            ended = self._ended()
            if ended is not None:
                ended()

    def _wait(self) -> bool:
        """Sleep until a look is due; False if the thread is to end."""
        with self._changed:
            idle = time.monotonic() + IDLE
            while not self._closed and self._look() is not None:
                now = time.monotonic()
                if self._asked or now >= self._due:
                    self._begun += 1
                    self._forced, self._asked = self._asked, False
                    return True
                if self.interval is None and now >= idle:
                    self._thread = None  # under the lock: whoever asks next starts another
                    return False
                self._changed.wait(min(self._due, idle if self.interval is None else now + IDLE) - now)
            return False

    def _one(self) -> bool:
        """Look once; False if nobody is there any more for whom to look."""
        look = self._look()
        if look is None:
            return False
        try:
            outcome = look(self._forced)
        except BaseException:  # one that ended the thread would leave everybody waiting
            log.exception("a look at the registry ended in an unexpected error")
            outcome = Outcome(back_off=True)
        del look
        with self._changed:
            self._failures = self._failures + 1 if outcome.back_off else 0
            self._last, self._done = outcome, self._begun
            if self.interval is not None:
                self._due = time.monotonic() + pause(self.interval, self._failures, self._draw)
            self._changed.notify_all()
        return True
