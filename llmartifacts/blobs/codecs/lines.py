"""`lines`: text in lines, such as JSONL and CSV, cut at line ends, about 16 KiB each.

Whether a chunk ends after a line depends on that line alone (a sum of table values over its bytes), and is the more
likely the longer the line: so chunks have the same mean size whatever the lines, and a line that changes moves no
other cut. Chunks are compressed, where a probe says that it pays.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from llmartifacts.blobs.codecs.stream import StreamCodec

MEAN = 16 * 1024
_LINES = 4
"""Lines in the first 64 KiB that make a text one of lines."""
_NEWLINE = 10
_BLOCK = 1 << 16


class LinesCodec(StreamCodec):
    """The codec `lines`."""

    name: ClassVar[str] = "lines"
    longest: ClassVar[int] = 4 * MEAN

    def suits(self, head: bytes) -> bool:
        """Whether it is text with lines of a sensible length."""
        return b"\0" not in head and head.count(b"\n") >= _LINES * max(1, len(head) // MEAN) // 4

    def cuts(self, data: memoryview) -> list[int]:
        """Where the chunks end."""
        found = np.frombuffer(data, np.uint8)
        ends = np.flatnonzero(found == _NEWLINE) + 1
        if not len(ends) or ends[-1] != len(found):
            ends = np.append(ends, len(found))
        starts = np.concatenate([[0], ends[:-1]])
        marked = _marked(self._sums(found, starts), (ends - starts).astype(np.uint64))
        return self._bounded(found, ends.tolist(), ends[marked].tolist())

    def _sums(self, found: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        """The sum of the table's values over each line, modulo 2^64; in blocks that stay in the processor's cache."""
        made = np.zeros(len(starts), np.uint64)
        buffer = np.empty(min(_BLOCK, len(found)), np.uint64)
        for at in range(0, len(found), _BLOCK):
            block = found[at : at + _BLOCK]
            values = self._table.take(block, out=buffer[: len(block)], mode="clip")
            first, last = np.searchsorted(starts, [at, at + _BLOCK]).tolist()
            within = starts[first:last] - at
            lead = int(within[0]) if len(within) else len(block)
            if lead:  # the line goes on that began in an earlier block
                made[first - 1] += values[:lead].sum()
            if len(within):
                made[first:last] = np.add.reduceat(values, within)
        return made

    def _bounded(self, found: npt.NDArray[np.uint8], ends: list[int], marked: list[int]) -> list[int]:
        """Cuts at marked ends of lines, at least a quarter and at most four times the mean apart."""
        cuts: list[int] = []
        last = done = 0
        while last < ends[-1]:
            at = bisect_left(marked, max(last + MEAN // 4, done + 1))
            if at < len(marked) and marked[at] - last <= self.longest:
                last = marked[at]
                cuts.append(last)
                continue
            after = bisect_right(ends, last + self.longest)
            if after == len(ends):
                cuts.append(ends[-1])
                break
            before = ends[after - 1] if after else 0
            if before > last:
                last = before
                cuts.append(last)
                continue
            done = ends[after]  # the end of one long line
            while done - last > self.longest:
                last += self.longest
                cuts.append(last)
            # What is left counts as a line, for it is one where reading begins anew at the last cut.
            rest = self._table[found[last:done]].sum(keepdims=True)
            if done - last >= MEAN // 4 and bool(_marked(rest, np.array([done - last], np.uint64))[0]):
                last = done
                cuts.append(last)
        return cuts

    @cached_property
    def _table(self) -> npt.NDArray[np.uint64]:
        return _scattered(np.arange(1, 257, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))


def _marked(sums: Any, lengths: Any) -> Any:
    """Whether a chunk may end after lines of these sums and lengths."""
    return _scattered(sums) < lengths * np.uint64((1 << 32) // (MEAN - MEAN // 4))


def _scattered(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """32 well-mixed bits of each number (the finaliser of SplitMix64; Steele, Lea and Flood, 2014)."""
    mixed: Any = values ^ (values >> np.uint64(30))
    mixed = mixed * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(32), np.uint64)
