"""Rows in stored chunks, picked where they lie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from llmartifacts.blobs.forms import BadForm

if TYPE_CHECKING:
    from llmartifacts.blobs.chunks.entries import Entries
    from llmartifacts.blobs.chunks.reader import ChunkReader, Located

Positions = npt.NDArray[np.integer[Any]]


def any_offset(data: Any, row_bytes: int) -> npt.NDArray[np.void]:
    """A buffer as rows that may begin at any byte: entry i is the row that begins at byte i.

    Picking from it copies whole rows, several times faster than rows of small numbers are picked, and checks bounds.
    """
    return np.ndarray((max(0, len(data) - row_bytes + 1),), f"V{row_bytes}", data, strides=(1,))


def rows_in(entries: Entries, row_bytes: int) -> npt.NDArray[np.int64]:
    """How many rows each chunk has.

    Raises:
        BadForm: One is cut inside a row.
    """
    from llmartifacts.blobs.chunks.entries import lengths_of

    counts, rest = np.divmod(lengths_of(entries), row_bytes)
    if rest.any():
        raise BadForm("a chunk of rows ends inside a row")
    return np.asarray(counts, np.int64)


class StoredRows:
    """Rows of chunks, by their position in the stream that the chunks make.

    Args:
        reader: Reads the chunks.
        entries: The chunks.
        row_bytes: Bytes of a row.

    Attributes:
        counts: Rows of each chunk.
        firsts: Position of the first row of each chunk.

    Raises:
        BadForm: A chunk is cut inside a row, or damaged.
        BlobMissing: A chunk is not there.
    """

    def __init__(self, reader: ChunkReader, entries: Entries, row_bytes: int) -> None:
        self.row_bytes = row_bytes
        self.counts = rows_in(entries, row_bytes)
        self.firsts = np.cumsum(self.counts) - self.counts
        self.located: Located = reader.locate(entries)
        self._chunk = np.repeat(np.arange(len(entries), dtype=np.int32), self.counts)

    def __len__(self) -> int:
        return len(self._chunk)

    def pick(self, positions: Positions, width: int = 0) -> npt.NDArray[np.void]:
        """Copies of rows, or of their first `width` bytes, in the order of the positions."""
        width = width or self.row_bytes
        chunk = self._chunk[positions]
        view = self.located.view[chunk]
        at = self.located.offset[chunk] + (positions - self.firsts[chunk]) * self.row_bytes
        if not len(view) or (view == view[0]).all():
            found: npt.NDArray[np.void] = any_offset(self.located.views[int(view[0])] if len(view) else b"", width)[at]
            return found
        made = np.empty(len(at), f"V{width}")
        for number in np.unique(view).tolist():
            here = np.flatnonzero(view == number)
            made[here] = any_offset(self.located.views[number], width)[at[here]]
        return made

    def chunk(self, number: int) -> npt.NDArray[np.uint8]:
        """The content of a chunk."""
        start = int(self.located.offset[number])
        view = self.located.views[int(self.located.view[number])]
        return view[start : start + int(self.counts[number]) * self.row_bytes]

    def let_go(self) -> None:
        """Take what was read out of this process's memory; it comes back when touched."""
        from llmartifacts.blobs.chunks.source import let_go

        for view in self.located.views:
            with memoryview(view.base if view.base is not None else view) as under:  # type: ignore[arg-type]
                let_go(under, 0, len(view))


def equal_rows(one: npt.NDArray[np.void], other: npt.NDArray[np.void]) -> npt.NDArray[np.bool_]:
    """Which rows of two arrays of the same shape are equal."""
    row_bytes = one.dtype.itemsize
    unit = next(n for n in (8, 4, 2, 1) if row_bytes % n == 0)
    parts = [a.view(f"u{unit}").reshape(len(a), row_bytes // unit) for a in (one, other)]
    return np.asarray((parts[0] == parts[1]).all(axis=1), np.bool_)
