"""The socket for codecs: ways to cut a blob into chunks so that the next version shares most of them.

A codec turns a blob into streams of chunks (`encode`) and back (`decode`). Its inverse is tried on every blob before
anything is published, and a codec whose inverse gives other bytes is not used for that blob; so a codec may be clever,
and cannot lose anything. To add one: a file here (or a package with an entry point in `llmartifacts.codecs`), and a
line in `plugins.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from llmartifacts.blobs.chunks.reader import ChunkReader
    from llmartifacts.blobs.chunks.recipe import Encoded, Recipe
    from llmartifacts.blobs.chunks.writer import ChunkWriter

KEEP = 0.5
"""A chunk of the version before is kept whole while at least this part of its rows is alive."""


class Source(Protocol):
    """A blob on its way in."""

    @property
    def head(self) -> bytes:
        """Its first bytes, up to 64 KiB."""

    @property
    def view(self) -> memoryview | None:
        """All of it as bytes, usually a map of a file; None where it can only be read in order."""

    def pieces(self) -> Iterator[Any]:
        """All of it in order, in buffers of at most 1 MiB; from the beginning each time."""


class Codec(ABC):
    """The contract of a codec.

    Attributes:
        name: Its name, as recipes say it.
        version: What it writes; `decode` takes this and every lower one.
        needs_view: Whether `encode` needs all of the blob at once, as a view.
        uses_parent: Whether `encode` does better when it knows an earlier version.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    needs_view: ClassVar[bool] = False
    uses_parent: ClassVar[bool] = False

    @abstractmethod
    def suits(self, head: bytes) -> bool:
        """Whether a blob that begins like this may be one for this codec; must be cheap."""

    @abstractmethod
    def encode(
        self,
        source: Source,
        writer: ChunkWriter,
        reader: ChunkReader,
        parent: Recipe | None = None,
        keep: float = KEEP,
    ) -> Encoded | None:
        """Cut a blob into chunks.

        Args:
            source: The blob; not trusted: any bytes may come.
            writer: Takes the chunks, and knows which are stored already.
            reader: Reads stored chunks, those of the parent for instance.
            parent: Recipe of an earlier version, by any codec, if there is one.
            keep: Keep a parent's chunk whole while at least this part of its rows lives; 1 leaves no dead row.

        Returns:
            The streams; None if the blob is not one for this codec after all.
        """

    @abstractmethod
    def decode(self, recipe: Recipe, reader: ChunkReader) -> Iterator[Any]:
        """The bytes of a blob, in order, in buffers of at most some 32 MiB, with bounded memory.

        Recipe and chunks may be hostile: no more than `recipe.size` bytes are made, and nothing else happens.

        Raises:
            BadForm: They do not make a blob of the recipe's size.
        """

    def parts(self, recipe: Recipe, reader: ChunkReader, content: memoryview) -> Mapping[bytes, Callable[[], Any]]:
        """Where chunks of a blob lie in the blob itself, so that a file at hand can stand in for packs far away.

        Args:
            recipe: The recipe; may be hostile.
            reader: Reads its streams.
            content: The blob; may be anything.

        Returns:
            Id of a chunk -> gives what should be its content; compared by the caller. Any number may be missing.
        """
        return {}
