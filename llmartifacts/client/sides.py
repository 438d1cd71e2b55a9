"""What is kept of large blobs beside the cache: recipes, and the small chunks that are needed to understand them.

<cache>/recipes/<hex>.recipe    the recipe, as the server gave it
<cache>/recipes/<hex>.pack      its head, an ordinary pack: nodes, and streams of ids and lists

With them, and the cached blob itself, the next version is fetched, or sent, without asking for anything of this one
again. They are some thousandths of the blob, are checked when they are read, and may be removed at any time.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import blake3

from llmartifacts.blobs.base import read_up_to
from llmartifacts.blobs.cache import BlobCache
from llmartifacts.blobs.chunks.check import check_view
from llmartifacts.blobs.chunks.entries import ids_of
from llmartifacts.blobs.chunks.pack import RAW, TRAILER, PackWriter, Place
from llmartifacts.blobs.chunks.reader import ChunkReader, decompress
from llmartifacts.blobs.chunks.recipe import MAX_BYTES
from llmartifacts.blobs.disk import READ_FILE, create_file, write_all
from llmartifacts.blobs.failures import storage_errors
from llmartifacts.blobs.forms import BadForm
from llmartifacts.client.index import RemoteIndex
from llmartifacts.errors import Damaged, LlmartifactsError
from llmartifacts.records.digest import Digest, digest_from_hex
from llmartifacts.records.forks import renew_after_fork

if TYPE_CHECKING:
    from llmartifacts.blobs.base import Driver
    from llmartifacts.blobs.chunks.table import Rows

_MOST = 128 * 1024 * 1024
"""Bytes of a head that is kept; a larger one is read where it is."""
_KEPT = 512
"""Blobs of which something is kept; then what is no more in the cache goes."""


class Sides:
    """Recipes and heads of large blobs, in files. Safe to use from several threads and processes.

    Args:
        cache: The cache that it belongs to.
        index: Told of the packs.
    """

    def __init__(self, cache: BlobCache, index: RemoteIndex) -> None:
        self._cache = cache
        self._index = index
        self._lock = threading.Lock()
        self._recipes: dict[Digest, bytes | None] = {}
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Have a lock of its own in a forked child: another thread may have been reading a recipe."""
        self._lock = threading.Lock()

    @property
    def root(self) -> Path:
        """Where they are."""
        return self._cache.root / "recipes"

    def recipe(self, digest: Digest) -> bytes | None:
        """The file of a recipe whose head is here, known to the index from then on; None where it is not."""
        with self._lock:
            if digest not in self._recipes:
                self._recipes[digest] = self._load(digest)
            return self._recipes[digest]

    def keep(self, digest: Digest, recipe: bytes, head: Rows, driver: Driver) -> None:
        """Fetch the head of a blob, as far as it is not here, and keep it. Nothing goes wrong where that cannot be."""
        if self.recipe(digest) == recipe or int(head["stored"].sum()) > _MOST:
            return
        with suppress(OSError, LlmartifactsError, BadForm):
            self.root.mkdir(parents=True, exist_ok=True)
            self._write(digest, recipe, head, driver)
            with self._lock:
                self._recipes.pop(digest, None)
            self.recipe(digest)
            self._tidy()

    # --- files

    def _load(self, digest: Digest) -> bytes | None:
        pack = self.root / f"{digest[7:]}.pack"
        try:
            with open(os.open(self.root / f"{digest[7:]}.recipe", READ_FILE), "rb") as file:
                recipe = read_up_to(file, MAX_BYTES)
            with open(os.open(pack, READ_FILE), "rb") as file:
                view = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
            if len(recipe) < 32 or blake3.blake3(recipe[:-32]).digest() != recipe[-32:]:
                return None
            name = bytes(view[-TRAILER + 8 : -TRAILER + 40]).hex()
            self._index.add_side(name, pack, check_view(name, view, 16 * _MOST).copy())
        except (OSError, ValueError, BadForm):
            return None
        return recipe

    def _write(self, digest: Digest, recipe: bytes, head: Rows, driver: Driver) -> None:
        names = ids_of(head)
        part = self.root / f".{os.urandom(8).hex()}"
        try:
            writer = PackWriter(part, durable=False)
            try:
                for at in range(0, len(names), 4096):
                    self._add(writer, names[at : at + 4096], driver)
                writer.finish()
            finally:
                writer.close()
            with storage_errors("write", part):
                os.replace(part, self.root / f"{digest[7:]}.pack")
                fd = create_file(part)
                try:
                    write_all(fd, recipe)
                finally:
                    os.close(fd)
                os.replace(part, self.root / f"{digest[7:]}.recipe")
        finally:
            part.unlink(missing_ok=True)

    def _add(self, writer: PackWriter, names: Sequence[bytes], driver: Driver) -> None:
        reader = ChunkReader(driver, self._index)
        for name, (place, stored) in zip(names, reader.stored(names), strict=True):
            content = stored if place.form == RAW else decompress(stored, place.length)
            if blake3.blake3(content).digest() != name:
                self._forget(place)
                raise Damaged(f"a chunk from {reader.where(place.pack)} is not what its id says")
            writer.add(name, bytes(stored), len(content), place.form)
        writer.flush()

    def _forget(self, place: Place) -> None:
        if self._index.side(place.pack) is not None:
            self._index.forget(place.pack)

    def _tidy(self) -> None:
        """Remove what belongs to blobs that the cache has no more, where there is a lot."""
        found = list(self.root.glob("*.recipe"))
        if len(found) <= _KEPT:
            return
        for path in found:
            with suppress(LlmartifactsError, OSError):
                if self._cache.find(digest_from_hex(path.stem)) is None:
                    path.unlink()
                    path.with_suffix(".pack").unlink(missing_ok=True)
