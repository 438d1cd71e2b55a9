"""What codecs share that keep a blob as one stream of chunks, read in order and joined again."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from llmartifacts.blobs.codecs.base import KEEP, Codec, Source
from llmartifacts.blobs.forms import BadForm

if TYPE_CHECKING:
    from llmartifacts.blobs.chunks.reader import ChunkReader
    from llmartifacts.blobs.chunks.recipe import Encoded, Recipe
    from llmartifacts.blobs.chunks.writer import ChunkWriter

DATA = "data"
BATCH = 4 * 1024 * 1024
"""Bytes that are cut and stored together."""


class StreamCodec(Codec):
    """A codec that only cuts.

    Attributes:
        longest: Bytes of its longest chunk; a cut within so many bytes of what has been read so far may move when more
            is read.
    """

    longest: ClassVar[int]

    @abstractmethod
    def cuts(self, data: memoryview) -> Sequence[int]:
        """Where the chunks of some bytes end, ascending, the last at the end; depends on nothing before them."""

    def encode(
        self,
        source: Source,
        writer: ChunkWriter,
        reader: ChunkReader,
        parent: Recipe | None = None,
        keep: float = KEEP,
    ) -> Encoded | None:
        """Cut a blob, with bounded memory."""
        from llmartifacts.blobs.chunks.recipe import Encoded

        parts = []
        held = bytearray()
        for piece in source.pieces():
            held += piece
            if len(held) >= BATCH:
                whole = bytes(held)
                ends = [end for end in self.cuts(memoryview(whole)) if end <= len(whole) - self.longest]
                if ends:
                    parts.append(writer.add(memoryview(whole)[: ends[-1]], ends))
                    held = bytearray(memoryview(whole)[ends[-1] :])
        if held:
            parts.append(writer.add(bytes(held), self.cuts(memoryview(bytes(held)))))
        return Encoded({}, {DATA: np.concatenate(parts)}) if parts else None

    def decode(self, recipe: Recipe, reader: ChunkReader) -> Iterator[Any]:
        """The chunks in order."""
        return joined(recipe, reader)

    def parts(self, recipe: Recipe, reader: ChunkReader, content: memoryview) -> Mapping[bytes, Callable[[], Any]]:
        """Every chunk, where it lies."""
        return joined_parts(recipe, content)


def joined(recipe: Recipe, reader: ChunkReader) -> Iterator[Any]:
    """The stream `data` of a recipe.

    Raises:
        BadForm: There is none, or it has another size than the blob.
    """
    from llmartifacts.blobs.chunks.entries import bytes_of

    entries = recipe.encoded.streams.get(DATA)
    if entries is None or bytes_of(entries) != recipe.size:
        raise BadForm("its recipe has chunks of another size than it says")
    return reader.runs(entries)


def joined_parts(recipe: Recipe, content: memoryview) -> Mapping[bytes, Callable[[], Any]]:
    """Where the chunks of the stream `data` lie in the blob."""
    from llmartifacts.blobs.chunks.entries import ids_of, lengths_of

    entries = recipe.encoded.streams[DATA]
    ends = np.cumsum(lengths_of(entries)).tolist()
    starts = [0, *ends[:-1]]
    return {
        name: partial(content.__getitem__, slice(start, end))
        for name, start, end in zip(ids_of(entries), starts, ends, strict=True)
    }
