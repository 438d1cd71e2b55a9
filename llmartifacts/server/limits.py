"""How much one client may take, and how much this process takes on: rates, places to work, bytes of bodies.

All of it counts within one process, with the monotonic clock, in the event loop's thread only.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from llmartifacts.errors import Busy

if TYPE_CHECKING:
    from collections.abc import Iterator

REMEMBERED = 20_000
"""Accounts and addresses that one limit keeps account of; those longest unseen are forgotten."""


class Rate:
    """A token bucket for each of many names: `rate` a second, and four seconds' worth at once.

    Args:
        rate: Tokens a second; 0 for no limit.
        burst: Tokens that a full bucket holds; by default four seconds' worth.
        clock: The time in seconds.
    """

    def __init__(self, rate: float, burst: float | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate = rate
        self.burst = max(1.0, rate * 4 if burst is None else burst)
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str, amount: float = 1.0) -> float:
        """Take a token; gives 0, or the seconds until there is one."""
        if not self.rate:
            return 0.0
        now = self._clock()
        left = self._left(name, now)
        if left < amount:
            return (amount - left) / self.rate
        self._keep(name, left - amount, now)
        return 0.0

    def owing(self, name: str) -> float:
        """Seconds until there is a token, taking none."""
        if not self.rate:
            return 0.0
        left = self._left(name, self._clock())
        return 0.0 if left >= 1 else (1 - left) / self.rate

    def _left(self, name: str, now: float) -> float:
        had = self._buckets.get(name)
        return self.burst if had is None else min(self.burst, had[0] + (now - had[1]) * self.rate)

    def _keep(self, name: str, left: float, now: float) -> None:
        self._buckets[name] = (left, now)
        self._buckets.move_to_end(name)
        while len(self._buckets) > REMEMBERED:
            self._buckets.popitem(last=False)


class Room:
    """Places for work. Who finds none waits for a moment in a short queue, and is refused where that is full.

    Nobody has more than three quarters of the places, or of the queue: who asks for much leaves some to the others.

    Args:
        places: Works at once.
        waiting: Length of the queue.
        seconds: How long one waits.
    """

    def __init__(self, places: int, waiting: int, seconds: float = 2.0) -> None:
        self.places = places
        self.free = places
        self.each = places - places // 4
        self._waiting = waiting
        self._each_waiting = waiting - waiting // 4
        self._seconds = seconds
        self._held: Counter[str] = Counter()
        self._waits: Counter[str] = Counter()
        self._queue: deque[tuple[str, asyncio.Future[None]]] = deque()

    async def enter(self, who: str = "") -> None:
        """Take a place. Whoever did must `leave`.

        Args:
            who: Whose work it is.

        Raises:
            Busy: There was none in time.
        """
        if self.free and self._held[who] < self.each:  # then nobody who waits could have it
            self._take(who)
            return
        if len(self._queue) >= self._waiting or self._waits[who] >= self._each_waiting:
            raise _full()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (who, turn)
        self._queue.append(entry)
        self._waits[who] += 1
        try:
            await asyncio.wait_for(turn, self._seconds)
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.leave(who)  # the place came in the very moment
            elif entry in self._queue:
                self._queue.remove(entry)
            if isinstance(error, TimeoutError):
                raise _full() from None
            raise
        finally:
            _less(self._waits, who)

    def leave(self, who: str = "") -> None:
        """Give a place back, to the first who waits and may have one more."""
        self.free += 1
        _less(self._held, who)
        for entry in list(self._queue):
            waiting, turn = entry
            if turn.done():
                self._queue.remove(entry)
            elif self._held[waiting] < self.each:
                self._queue.remove(entry)
                self._take(waiting)
                turn.set_result(None)
                return

    def _take(self, who: str) -> None:
        self.free -= 1
        self._held[who] += 1

    @asynccontextmanager
    async def place(self, who: str = "") -> AsyncIterator[None]:
        """A place for the time of a block. Raises as `enter`."""
        await self.enter(who)
        try:
            yield
        finally:
            self.leave(who)


def _less(counts: Counter[str], who: str, count: int = 1) -> None:
    """Count less, and keep nothing of those who have none."""
    counts[who] -= count
    if counts[who] <= 0:
        del counts[who]


class Bytes:
    """Memory for bodies that are being read, of all requests together; nobody has more than three quarters of it.

    Args:
        total: Bytes.
    """

    def __init__(self, total: int) -> None:
        self.left = total
        self.each = total - total // 4
        self._held: Counter[str] = Counter()

    @contextmanager
    def hold(self, who: str = "") -> Iterator[Callable[[int], None]]:
        """Gives a function that takes more bytes, all of them given back at the end; it raises `Busy`.

        Args:
            who: Whose body it is.
        """
        held = 0

        def more(count: int) -> None:
            nonlocal held
            if count > self.left or self._held[who] + count > self.each:
                raise Busy("the server is reading as much as it can", next_step="Try again in a moment.")
            self.left -= count
            self._held[who] += count
            held += count

        try:
            yield more
        finally:
            self.left += held
            _less(self._held, who, held)


def retry_after(seconds: float) -> bytes:
    """The value of `Retry-After`."""
    return str(max(1, math.ceil(min(seconds, 3600)))).encode()


def _full() -> Busy:
    return Busy("the server has as much work as it can do", next_step="Try again in a moment.")
