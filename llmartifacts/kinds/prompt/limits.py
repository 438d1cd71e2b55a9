"""What one rendering may use, and the meter that counts it.

A sandbox keeps a template from reaching the host; it does not keep it from running for ever or filling the memory. The
meter does: every loop turn, call, filter and operator of a template counts a step, and whatever could make a large
value is asked before it is made.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn

from llmartifacts.errors import RenderLimitExceeded

MAX_BITS = 14_000
"""Longest integer a template may make, in bits; Python prints no integer of more than 4,300 digits (14,284 bits)."""

_COLLECTIONS: tuple[type, ...] = (list, tuple, set, frozenset, type({}.keys()), type({}.values()), type({}.items()))
_CHECK_EVERY = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """What one rendering may use.

    Attributes:
        output: Characters of the whole text.
        value: Characters of one value inside the template; an item of a list counts as four.
        memory: Bytes of all values made on the way, whether still needed or not.
        steps: Loop turns, calls, filters and operators.
        depth: Macros, blocks, sections or partials inside one another.
        seconds: Wall-clock time.
    """

    output: int = 4 * 1024 * 1024
    value: int = 4 * 1024 * 1024
    memory: int = 256 * 1024 * 1024
    steps: int = 1_000_000
    depth: int = 64
    seconds: float = 5.0


class Meter:
    """Counts what one rendering uses; also its clock and its source of random numbers.

    Args:
        limits: What it may use.
        now: Gives the time that `strftime_now` prints.
        rng: What `choice` and `random` draw from.
    """

    __slots__ = ("_checked", "_deadline", "_depth", "_memory", "_steps", "limits", "now", "rng", "written")

    def __init__(self, limits: Limits, now: Callable[[], datetime] | None = None, rng: Any = None) -> None:
        self.limits = limits
        self.now = now or datetime.now
        self.rng: Any = rng or random
        self._steps = 0
        self._checked = 0
        self._memory = 0
        self._depth = 0
        self.written = 0
        self._deadline = time.monotonic() + limits.seconds

    def tick(self, steps: int = 1) -> None:
        """Count steps."""
        self._steps += steps
        if self._steps - self._checked >= _CHECK_EVERY:
            self._checked = self._steps
            if self._steps > self.limits.steps:
                self.refuse(f"takes more than {self.limits.steps:,} steps")
            self._check_time()

    def each(self, items: Iterable[Any], text: int = 0) -> Iterator[Any]:
        """Hand the items on, one step each; `text` is what one turn writes at least, in characters."""
        for item in items:
            self.tick()
            if text:
                self.charge(text)
            yield item

    def enter(self) -> None:
        """Go one level deeper; the caller calls `leave` afterwards."""
        self._depth += 1
        if self._depth > self.limits.depth:
            self.refuse(f"nests or recurses deeper than {self.limits.depth} levels")
        self.tick()

    def leave(self) -> None:
        """Come back from `enter`."""
        self._depth -= 1

    def room(self, characters: int, items: int = 0) -> None:
        """Ask before a value of this size is made."""
        if characters > self.limits.value:
            self.refuse(f"makes a text of more than {self.limits.value:,} characters")
        if items > self.limits.value // 4:
            self.refuse(f"makes a list of more than {self.limits.value // 4:,} items")

    def charge(self, size: int) -> None:
        """Count bytes of a value that was made."""
        self._memory += size
        if self._memory > self.limits.memory:
            self.refuse(f"makes more than {self.limits.memory:,} bytes of values")
        if size > 4096:
            self._check_time()

    def made(self, value: Any) -> Any:
        """Count a value that was made, and hand it on."""
        if isinstance(value, str | list | tuple | dict):
            self.charge(sys.getsizeof(value))
        return value

    def weigh(self, value: Any) -> int:
        """Size of a whole value in characters, however often a part of it appears; an item counts as four.

        Asked before anything that walks a value in one go (printing, comparing, hashing, JSON), because a list that
        holds one list ten times, which holds another ten times, is small in memory and endless to walk.
        """
        kind = type(value)
        if kind is str:
            return len(value)
        if value is None or kind is bool or kind is float:
            return 1
        limit, size, turns = self.limits.value, 0, 0
        stack: list[Any] = [value]
        while stack:
            item: Any = stack.pop()
            turns += 1
            if isinstance(item, str):
                size += len(item)
            elif isinstance(item, dict):
                size += 8 * len(item)
                stack.extend(item)
                stack.extend(item.values())
            elif isinstance(item, _COLLECTIONS):
                parts: Any = item
                size += 4 * len(parts)
                stack.extend(parts)
            elif isinstance(item, int):
                if item.bit_length() > MAX_BITS:
                    self.refuse(f"makes an integer of more than {MAX_BITS:,} bits")
            else:
                stack.extend(self.inside(item))
            if size > limit:
                self.refuse(f"makes a value of more than {limit:,} characters, an item counting as four")
        self.tick(turns >> 4)
        return size + 1

    def inside(self, item: Any) -> Iterable[Any]:
        """The parts of a value that only one template language knows."""
        return ()

    def refuse(self, what: str) -> NoReturn:
        """Stop the rendering."""
        raise RenderLimitExceeded(
            f"the template {what}",
            next_step="Do less in the template, or pass limits=Limits(…) to render() if the template is trusted.",
        )

    def _check_time(self) -> None:
        if time.monotonic() > self._deadline:
            self.refuse(f"runs longer than {self.limits.seconds:g} seconds")
