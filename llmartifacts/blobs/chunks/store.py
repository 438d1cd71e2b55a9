"""`ChunkStore`: large blobs as chunks, over a driver and an index. What `BlobStore` asks of this package."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmartifacts.blobs.base import Driver
from llmartifacts.blobs.chunks import pack as packs
from llmartifacts.blobs.chunks import recipe as recipes
from llmartifacts.blobs.chunks.check import check_pack
from llmartifacts.blobs.chunks.encode import AnySource, Known, codec_named, encode
from llmartifacts.blobs.chunks.entries import Entries, ids_of
from llmartifacts.blobs.chunks.index import ChunkIndex
from llmartifacts.blobs.chunks.mend import mend
from llmartifacts.blobs.chunks.pack import Place
from llmartifacts.blobs.chunks.reader import ChunkReader
from llmartifacts.blobs.chunks.recipe import Recipe
from llmartifacts.blobs.chunks.seed import Nearby, Seed
from llmartifacts.blobs.chunks.writer import ChunkWriter
from llmartifacts.blobs.forms import BadForm
from llmartifacts.errors import BlobMissing, Damaged
from llmartifacts.records.digest import Blob


@dataclass(frozen=True, slots=True)
class Encoding:
    """A blob that was cut into chunks.

    Attributes:
        blob: Its address.
        recipe: The file of its recipe.
        added: Bytes of new chunks.
    """

    blob: Blob
    recipe: bytes
    added: int


class ChunkStore:
    """Large blobs as chunks.

    Args:
        driver: Where packs and recipes are.
        index: Knows where each chunk lies.
    """

    def __init__(self, driver: Driver, index: ChunkIndex) -> None:
        self.driver = driver
        self.index = index

    # --- in

    def writer(self, new_file: Callable[[], Path]) -> ChunkWriter:
        """A writer for one staging."""
        return ChunkWriter(ChunkReader(self.driver, self.index), new_file)

    def encode(self, source: AnySource, writer: ChunkWriter, parents: Sequence[Known]) -> Encoding:
        """Cut a blob into chunks and write the new ones aside. Raises as `chunks.encode.encode`."""
        start = writer.mark()
        blob, recipe = encode(source, writer, writer.reader, parents)
        return Encoding(blob, self.write_recipe(recipe, writer), writer.mark().added - start.added)

    def mend(self, pack: str, new_file: Callable[[], Path]) -> None:
        """Put what is stored in other packs too back into a damaged one. Raises as `chunks.mend.mend`."""
        mend(self.driver, self.index, pack, new_file)

    def write_recipe(self, recipe: Recipe, writer: ChunkWriter) -> bytes:
        """The file of a recipe; parts of it that are shared between versions go to chunks."""

        def put(entries: Entries, ends: list[int]) -> Entries:
            return writer.add(entries.tobytes(), [end * entries.itemsize for end in ends], compress=False)

        made = recipes.write(recipe, put)
        writer.finish()
        return made

    # --- out

    def recipe(self, data: bytes, *, origin: str, verify: bool = False) -> Recipe:
        """A recipe from its file.

        Raises:
            BadForm: It is damaged.
            BlobMissing: Chunks of it are not there.
            NewerFormat: A newer release wrote it.
        """
        reader = ChunkReader(self.driver, self.index)
        return recipes.read(data, lambda e: b"".join(bytes(c) for c in reader.read(e, verify=verify)), origin=origin)

    def content(self, recipe: Recipe, nearby: Nearby | None = None) -> Iterator[Any]:
        """The bytes of a blob in order, not verified. Raises as `recipe`.

        Args:
            recipe: The recipe.
            nearby: Knows which other blobs are at hand, for packs that are not on this host.
        """
        codec = codec_named(recipe.codec, recipe.version)
        seed = Seed(recipe, ChunkReader(self.driver, self.index), nearby) if nearby else None
        return codec.decode(recipe, ChunkReader(self.driver, self.index, seed))

    # --- look

    def check_places(self, recipe: Recipe) -> None:
        """Check without reading that every chunk is in a pack, and every pack long enough. Raises `BlobMissing`."""
        reader = ChunkReader(self.driver, self.index)
        ends: dict[str, int] = {}
        for place in reader.within_reach(ids_of(recipe.entries())):
            ends[place.pack] = max(ends.get(place.pack, 0), place.offset + place.stored)
        for pack, end in ends.items():
            size = self.driver.size(packs.key_of(pack))
            if size is None or size < end + packs.TRAILER:
                where = reader.where(pack)
                raise BlobMissing(f"the pack {where} is {'missing' if size is None else 'cut short'}", file=where)

    def blame(self, recipe: Recipe) -> tuple[str, str] | None:
        """The pack that is damaged, of those that a blob needs, and what is wrong with it; None if none is."""
        reader = ChunkReader(self.driver, self.index)
        entries = recipe.entries()
        for number in range(len(entries)):
            try:
                for _ in reader.read(entries[number : number + 1], verify=True):
                    pass
            except BadForm as error:
                place = reader.places(ids_of(entries[number : number + 1]))[0]
                return reader.where(place.pack), str(error)
            except Damaged as error:
                return error.file, error.message
        return None

    def is_whole(self, pack: str, size: int) -> bool:
        """Whether a stored pack is right to the last bit; reads all of it."""
        try:
            if self.driver.size(packs.key_of(pack)) != size:
                return False
            check_pack(self.driver, pack, size)
        except (BadForm, Damaged):
            return False
        return True

    def places(self, recipe: Recipe) -> dict[bytes, Place]:
        """Id -> place of every chunk of a blob. Raises `BlobMissing`."""
        ids = list(dict.fromkeys(ids_of(recipe.entries())))
        return dict(zip(ids, ChunkReader(self.driver, self.index).places(ids), strict=True))
