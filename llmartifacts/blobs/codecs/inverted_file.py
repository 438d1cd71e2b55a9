"""The rows of a FAISS index with inverted lists, where they lie in its file."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from llmartifacts.blobs.codecs import ivf_streams as streams
from llmartifacts.blobs.codecs import row_cuts
from llmartifacts.blobs.codecs.ivf_streams import Ids, Index, ListNumbers
from llmartifacts.blobs.codecs.stored_rows import any_offset

if TYPE_CHECKING:
    from llmartifacts.formats.faiss import Lists

ID_BYTES = 8
MAX_REORDERED = 1 << 31
"""Bytes of the largest file whose rows are stored in another order than its own."""


class InvertedFile:
    """The rows of an index with inverted lists, numbered in the order of the file.

    Args:
        view: The index.
        lists: Where its lists are.

    Attributes:
        offset: Bytes before the lists.
        end: Where the lists end.
        code_bytes: Bytes of a row.
        count: How many rows.
        firsts: The first row of each list, and the number of rows.
        lists: The list of each row.
        ids: The id of each row.
    """

    def __init__(self, view: memoryview, lists: Lists) -> None:
        self.view = view
        self.offset, self.code_bytes = lists.offset, lists.code_bytes
        sizes = np.array(lists.sizes, np.int64)
        self.firsts = np.concatenate([[0], np.cumsum(sizes)])
        self.count = int(self.firsts[-1])
        self.end = self.offset + self.count * (self.code_bytes + ID_BYTES)
        form = f"<u{streams.list_width(len(sizes))}"
        self.lists: ListNumbers = np.repeat(np.arange(len(sizes), dtype=form), sizes)
        self.ids: Ids = self._read_ids(sizes)
        self._rows = any_offset(view, self.code_bytes)

    def _read_ids(self, sizes: npt.NDArray[np.int64]) -> Ids:
        ids = np.empty(self.count * ID_BYTES, np.uint8)
        raw = np.frombuffer(self.view, np.uint8)
        ends = self.offset + self.firsts[1:] * (self.code_bytes + ID_BYTES)
        full = np.flatnonzero(sizes)
        for first, size, end in zip(self.firsts[full].tolist(), sizes[full].tolist(), ends[full].tolist(), strict=True):
            ids[first * ID_BYTES : (first + size) * ID_BYTES] = raw[end - size * ID_BYTES : end]
        return ids.view("<i8")

    def pick(self, rows: Index, width: int = 0) -> npt.NDArray[np.void]:
        """Copies of rows, or of their first `width` bytes."""
        at = self.offset + rows.astype(np.int64) * self.code_bytes + self.firsts[self.lists[rows]] * ID_BYTES
        found: npt.NDArray[np.void] = (any_offset(self.view, width) if width else self._rows)[at]
        return found

    def heads(self) -> row_cuts.Heads:
        """The first bytes of each row, as numbers."""
        width = min(ID_BYTES, self.code_bytes)
        made = np.empty(self.count, np.uint64)
        for start in range(0, self.count, 1 << 16):
            part = self.pick(np.arange(start, min(self.count, start + (1 << 16))), width)
            made[start : start + len(part)] = row_cuts.heads(part.view(np.uint8), 0, width, len(part))
        return made

    @cached_property
    def unique(self) -> bool:
        """Whether no id repeats."""
        ids = np.sort(self.ids)
        return not (ids[1:] == ids[:-1]).any()

    @cached_property
    def by_arrival(self) -> bool:
        """Whether ids tell the order in which vectors came: they are unique, and most numbers between them are ids.

        Not asked of a file that may not fit into memory: to pick its rows in another order would read all over it.
        """
        if self.count * self.code_bytes > MAX_REORDERED:
            return False
        spread = int(self.ids.max()) - int(self.ids.min())
        return spread < 2 * self.count and self.unique

    def let_go(self) -> None:
        """Take what was read out of this process's memory; it comes back when touched."""
        from llmartifacts.blobs.chunks.source import let_go

        let_go(self.view, self.offset, self.end)
