"""Reading objects in ranges: which ones are asked for together, and an object as a stream of ranges.

A range is one request of bounded size that is checked as a whole and tried again as a whole. So no connection is kept
while somebody thinks, and what breaks off costs one range.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any, BinaryIO

PART = 8 * 1024 * 1024
"""Bytes that one request asks for, where more are to be read."""
_GAP = 512 * 1024
"""Bytes between two ranges that are fetched and thrown away rather than asked for separately."""
_AHEAD = 48 * 1024 * 1024
"""Bytes that are fetched or at hand, and not read yet."""
_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Part:
    """What one request brought.

    Attributes:
        data: Bytes.
        total: Bytes of the whole object.
        tag: The store's tag of the object; another one means another object.
    """

    data: bytes
    total: int
    tag: str


Fetch = Callable[[str, int, int], Part]
"""(key, first byte, bytes at most) -> what there is."""


@dataclass(slots=True)
class _Together:
    """Ranges of one object that one request brings: key, first byte, end, and where each lies."""

    key: str
    start: int
    end: int
    ranges: list[tuple[int, int]] = field(default_factory=list)


def together(ranges: Sequence[tuple[str, int, int]]) -> Iterator[_Together]:
    """Ranges, in order, as requests: those that lie close to each other in one object are one.

    Args:
        ranges: Key, first byte and bytes of each.
    """
    made: _Together | None = None
    for key, start, length in ranges:
        end = start + length
        if (
            made is not None
            and key == made.key
            and 0 <= start - made.end <= _GAP
            and end - made.start <= PART
            and length
            and made.end > made.start
        ):
            made.end = end
            made.ranges.append((start, end))
            continue
        if made is not None:
            yield made
        made = _Together(key, start, end, [(start, end)])
    if made is not None:
        yield made


def fetch_each(ranges: Sequence[tuple[str, int, int]], fetch: Fetch, pool: Executor) -> Iterator[BinaryIO]:
    """Ranges in order, each as a stream in memory; those that come next are fetched meanwhile.

    Args:
        ranges: Key, first byte and bytes of each.
        fetch: One request.
        pool: Where the requests run.
    """
    groups = deque(together(ranges))
    under_way: deque[tuple[_Together, Future[Part]]] = deque()
    size = 0
    try:
        while groups or under_way:
            while groups and (
                not under_way or (len(under_way) < _AT_ONCE and size + groups[0].end - groups[0].start <= _AHEAD)
            ):
                one = groups.popleft()
                size += one.end - one.start
                under_way.append((one, pool.submit(fetch, one.key, one.start, one.end - one.start)))
            one, future = under_way.popleft()
            data = future.result().data
            size -= one.end - one.start
            del future
            if len(one.ranges) == 1:
                yield io.BytesIO(data)
                continue
            view = memoryview(data)
            for start, end in one.ranges:
                yield io.BytesIO(view[start - one.start : end - one.start])
    finally:
        for _, future in under_way:
            future.cancel()


class ObjectStream(io.RawIOBase):
    """A range of an object, read part by part; the next one is fetched while one is read.

    Args:
        key: Which object.
        first: What was fetched of it.
        start: First byte of that.
        end: End of the range; behind the object's end gives what there is.
        fetch: One request.
        pool: Where the next one runs.
        changed: Raises what is to be told of an object that is another one by now.
    """

    def __init__(
        self, key: str, first: Part, start: int, end: int, fetch: Fetch, pool: Executor, changed: Callable[[], Any]
    ) -> None:
        self._key = key
        self._tag, self._total = first.tag, first.total
        self._data = memoryview(first.data)
        self._at = start + len(first.data)
        self._end = min(end, first.total)
        self._fetch = fetch
        self._pool = pool
        self._changed = changed
        self._next: Future[Part] | None = None
        self._look_ahead()

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as what was fetched goes."""
        if not self._data and self._next is not None:
            part = self._next.result()
            if (part.tag, part.total) != (self._tag, self._total):
                self._next = None
                self._changed()
            self._data = memoryview(part.data)
            self._at += len(part.data)
            self._look_ahead()
        count = min(len(self._data), len(buffer))
        buffer[:count] = self._data[:count]
        self._data = self._data[count:]
        return count

    def close(self) -> None:
        """Fetch no more."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        self._data = memoryview(b"")
        super().close()

    def _look_ahead(self) -> None:
        left = self._end - self._at
        self._next = self._pool.submit(self._fetch, self._key, self._at, min(left, PART)) if left > 0 else None
