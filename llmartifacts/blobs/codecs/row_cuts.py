"""Where chunks of equal records end: by their content, so that the same rows are cut alike in every file.

Whether a chunk may end after a row depends on the first eight bytes of that row alone. So a row that comes or goes
moves no cut but its own, and the rows of a flat index and of an inverted one make the same chunks where they come in
the same order. Narrow records (list numbers, links of a graph, identifiers) repeat, so there four in a row decide.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

MEAN = 14 * 1024
"""Bytes of a chunk of rows, on average."""
SIDE = 2 * 1024
"""Bytes of a chunk of the small streams beside the rows, on average: each change costs about one such chunk."""
NARROW = 16
"""Rows of fewer bytes are narrow."""
BATCH = 4 * 1024 * 1024
"""Bytes that are cut and stored together."""
_BEFORE = 3  # records before one that take part in its hash, where records are narrow
_HEAD = 8
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_TWIST = np.uint64(0xD6E8FEB86659FD93)

Heads = npt.NDArray[np.uint64]


class Sizes(NamedTuple):
    """How long chunks are, in records: on average, at least (but for the last one), at most."""

    mean: int
    shortest: int
    longest: int


def sizes(row_bytes: int, mean_bytes: int = MEAN) -> Sizes:
    """The lengths of chunks of rows."""
    mean = max(1, mean_bytes // row_bytes)
    return Sizes(mean, max(1, mean // 2), 4 * mean)


def heads(data: Any, start: int, row_bytes: int, count: int) -> Heads:
    """The first eight bytes of rows as numbers (all bytes of a row that has fewer), shape (count,).

    Args:
        data: A buffer of bytes.
        start: Where the first row begins in it.
        row_bytes: Bytes of a row.
        count: How many.
    """
    if row_bytes >= _HEAD:
        return np.ndarray((count,), "<u8", data, start, (row_bytes,)).astype(np.uint64)
    padded = np.zeros((count, _HEAD), np.uint8)
    padded[:, :row_bytes] = np.ndarray((count, row_bytes), np.uint8, data, start)
    return padded.view("<u8").ravel()


def mixed(numbers: Heads) -> Heads:
    """Numbers whose high bits depend on every bit of the given ones."""
    made: Any = numbers ^ _TWIST
    made ^= made >> np.uint64(32)
    made *= _FACTOR
    return np.asarray(made, np.uint64)


def marks(numbers: Heads, size: Sizes, *, narrow: bool = False) -> npt.NDArray[np.int64]:
    """After which records a chunk may end.

    Args:
        numbers: The heads of the records.
        size: The lengths of chunks.
        narrow: Whether the three records before one take part.
    """
    hashes = mixed(numbers)
    if narrow:
        alone = hashes.copy()
        for back in range(1, _BEFORE + 1):
            hashes[back:] += alone[:-back] * np.uint64(2 * back + 1)
    limit = ((1 << 64) - 1) // (size.mean - size.shortest + 1)
    return np.flatnonzero(hashes <= np.uint64(limit))


def ends(marked: npt.NDArray[np.int64], count: int, size: Sizes, *, last: bool = True) -> list[int]:
    """Where chunks end, in records, ascending.

    Args:
        marked: After which records a chunk may end, ascending.
        count: How many records there are.
        size: The lengths of chunks.
        last: Whether no record follows; else the ends are those that hold whatever follows.
    """
    may = (marked + 1).tolist()
    found: list[int] = []
    at = 0
    while True:
        where = bisect_left(may, at + size.shortest)
        end = may[where] if where < len(may) else count + 1
        if end - at > size.longest and count - at > size.longest:
            end = at + size.longest
        if end > count:
            break
        found.append(end)
        at = end
    if last and at < count:
        found.append(count)
    return found


def batches(
    data: Any, start: int, row_bytes: int, count: int, mean_bytes: int = MEAN
) -> Iterator[tuple[int, int, npt.NDArray[np.int64]]]:
    """Cut equal records that lie one after another, front to back.

    Args:
        data: The buffer that holds them.
        start: Where the first begins in it.
        row_bytes: Bytes of a record.
        count: How many.
        mean_bytes: Bytes of a chunk on average.

    Yields:
        Where some chunks begin and end in the buffer, and where each of them ends, counted from there.
    """
    size = sizes(row_bytes, mean_bytes)
    narrow = row_bytes < NARROW
    step = max(BATCH // row_bytes, 4 * size.longest)
    at = 0
    while at < count:
        until = min(count, at + step)
        before = min(_BEFORE, at) if narrow else 0
        found = marks(
            heads(data, start + (at - before) * row_bytes, row_bytes, until - at + before), size, narrow=narrow
        )
        found = found[found >= before] - before
        stops = np.array(ends(found, until - at, size, last=until == count), np.int64)
        begin = start + at * row_bytes
        at += int(stops[-1])
        yield begin, start + at * row_bytes, stops * row_bytes
