"""Chunks from a file that is at hand: the one before, of which the next version shares most.

Where packs are far away, a cached file saves fetching them. What it gives is compared with the chunk's id before it is
used, so a file that was altered, or a recipe that lies, costs a fetch and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import blake3

from llmartifacts.blobs.chunks.encode import codec_named
from llmartifacts.blobs.chunks.reader import Buffer, ChunkReader
from llmartifacts.blobs.chunks.recipe import Recipe
from llmartifacts.blobs.forms import BadForm
from llmartifacts.errors import LlmartifactsError
from llmartifacts.records.digest import Digest

Nearby = Callable[[Digest], "tuple[Recipe, memoryview | None] | None"]
"""Digest of a blob -> its recipe, and its bytes where those are at hand; None where it is not stored as chunks."""
MAX_STEPS = 8
"""Versions back that are looked for."""


class Seed:
    """Gives chunks of a blob out of an earlier version that is at hand; looked for when the first is asked for.

    Args:
        recipe: Of the blob that is wanted.
        reader: Reads the small streams of the earlier one.
        nearby: Knows what is at hand.
    """

    def __init__(self, recipe: Recipe, reader: ChunkReader, nearby: Nearby) -> None:
        self._recipe = recipe
        self._reader = reader
        self._nearby = nearby
        self._parts: Mapping[bytes, Callable[[], Buffer]] | None = None

    def __call__(self, name: bytes) -> Buffer | None:
        """The content of a chunk, or None where it has to be fetched."""
        if self._parts is None:
            self._parts = {}  # what is read to find the parts is not looked for in them
            self._parts = self._look()
        part = self._parts.get(name)
        if part is None:
            return None
        content = part()
        return content if blake3.blake3(content).digest() == name else None

    def _look(self) -> Mapping[bytes, Callable[[], Buffer]]:
        parent = self._recipe.parent
        for _ in range(MAX_STEPS):
            found = self._nearby(parent) if parent else None
            if found is None:
                return {}
            recipe, content = found
            if content is not None and len(content) == recipe.size:
                try:
                    return codec_named(recipe.codec, recipe.version).parts(recipe, self._reader, content)
                except (BadForm, LlmartifactsError):
                    return {}
            parent = recipe.parent
        return {}
