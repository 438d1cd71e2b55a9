"""`faiss-rows`: FAISS files that are arrays of equal rows (Flat, IDMap, HNSW, PQ, SQ), cut between rows.

One stream, the file as it is. Rows are cut by content (`row_cuts`), so a version shares all rows that stayed; what lies
between the arrays (headers, small tables) makes chunks of its own, so that a header that changes touches no row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from llmartifacts.blobs.codecs import row_cuts
from llmartifacts.blobs.codecs.base import KEEP, Codec, Source
from llmartifacts.blobs.codecs.stream import DATA, joined, joined_parts
from llmartifacts.errors import UnsafeContent
from llmartifacts.formats import faiss

if TYPE_CHECKING:
    from llmartifacts.blobs.chunks.entries import Entries
    from llmartifacts.blobs.chunks.reader import ChunkReader
    from llmartifacts.blobs.chunks.recipe import Encoded, Recipe
    from llmartifacts.blobs.chunks.writer import ChunkWriter

_WORD = 4  # what lies between arrays is cut between words
_BETWEEN = 4 * 1024
_ID = 8


class FaissRowsCodec(Codec):
    """The codec `faiss-rows`."""

    name: ClassVar[str] = "faiss-rows"
    needs_view: ClassVar[bool] = True

    def suits(self, head: bytes) -> bool:
        """Whether it begins as a FAISS index that can be opened."""
        return is_index(head)

    def encode(
        self,
        source: Source,
        writer: ChunkWriter,
        reader: ChunkReader,
        parent: Recipe | None = None,
        keep: float = KEEP,
    ) -> Encoded | None:
        """Cut an index that has no inverted lists; needs no parent, and leaves no dead row."""
        from llmartifacts.blobs.chunks.recipe import Encoded

        layout = None if source.view is None else layout_of(source.view)
        if source.view is None or layout is None or layout.lists:
            return None
        data = store(source.view, 0, len(source.view), layout.blocks, writer)
        return Encoded(_where_rows_are(layout), {DATA: data})

    def decode(self, recipe: Recipe, reader: ChunkReader) -> Iterator[Any]:
        """The chunks in order."""
        return joined(recipe, reader)

    def parts(self, recipe: Recipe, reader: ChunkReader, content: memoryview) -> Mapping[bytes, Callable[[], Any]]:
        """Every chunk, where it lies."""
        return joined_parts(recipe, content)


def is_index(head: bytes) -> bool:
    """Whether bytes begin with the tag of an index type that may be opened."""
    return head[:4].decode("ascii", "replace") in faiss.ALLOWED


def layout_of(view: memoryview) -> faiss.Layout | None:
    """What an index holds; None if it is none that may be opened."""
    try:
        return faiss.walk(view)
    except UnsafeContent:
        return None


def store(view: memoryview, start: int, end: int, blocks: Sequence[faiss.Rows], writer: ChunkWriter) -> Entries:
    """Store a part of an index, cut between the rows of its arrays.

    Args:
        view: The index.
        start: Where the part begins.
        end: Where it ends; no array lies across.
        blocks: The arrays of the index.
        writer: Takes the chunks.
    """
    from llmartifacts.blobs.chunks.entries import empty
    from llmartifacts.blobs.chunks.source import let_go

    parts = [empty()]
    gone = start
    for first, last, ends in _pieces(view, start, end, blocks):
        parts.append(writer.add(view[first:last], ends))
        if last - gone >= 8 * row_cuts.BATCH:
            let_go(view, gone, last)
            gone = last
    let_go(view, gone, end)
    return np.concatenate(parts)


def _pieces(view: memoryview, start: int, end: int, blocks: Sequence[faiss.Rows]) -> Iterator[tuple[int, int, Any]]:
    """Where some chunks begin and end, and the end of each counted from there."""
    at = start
    for block in sorted(blocks, key=lambda block: block.offset):
        length = block.row_bytes * block.count
        if not start <= block.offset <= end or not length:
            continue
        yield from _between(view, at, block.offset)
        mean = row_cuts.SIDE if block.row_bytes == _ID else row_cuts.MEAN
        yield from row_cuts.batches(view, block.offset, block.row_bytes, block.count, mean)
        at = block.offset + length
    yield from _between(view, at, end)


def _between(view: memoryview, start: int, end: int) -> Iterator[tuple[int, int, Any]]:
    words = (end - start) // _WORD
    yield from row_cuts.batches(view, start, _WORD, words, _BETWEEN)
    rest = start + words * _WORD
    if rest < end:
        yield rest, end, [end - rest]


def _where_rows_are(layout: faiss.Layout) -> dict[str, int | str]:
    """Where the vectors or their codes are, and their ids, for another index over the same vectors."""
    kept = [block for block in layout.blocks if block.count == layout.count and block.row_bytes > _ID]
    if not kept:
        return {}
    rows = layout.vectors if isinstance(layout.vectors, faiss.Rows) else max(kept, key=lambda block: block.row_bytes)
    found: dict[str, int | str] = {"rows_at": rows.offset, "row_bytes": rows.row_bytes, "rows": rows.count}
    if isinstance(layout.ids, faiss.Rows):
        found["ids_at"] = layout.ids.offset
    return found
