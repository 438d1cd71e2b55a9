"""A store of chunks without a registry around it: what a codec needs, and what its tests ask about."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from llmartifacts.blobs.base import Driver
from llmartifacts.blobs.chunks import pack as packs
from llmartifacts.blobs.chunks.index import PackIndex
from llmartifacts.blobs.chunks.reader import ChunkReader
from llmartifacts.blobs.chunks.recipe import Recipe
from llmartifacts.blobs.chunks.source import ViewSource
from llmartifacts.blobs.chunks.writer import ChunkWriter
from llmartifacts.blobs.codecs.base import KEEP, Codec
from llmartifacts.blobs.local import LocalDriver
from llmartifacts.blobs.memory import MemoryDriver


class Store:
    """Packs in a driver, and their index."""

    def __init__(self, driver: Driver, scratch: Path) -> None:
        self.driver = driver
        self.index = PackIndex(driver)
        self._scratch = scratch
        self._numbers = itertools.count()
        self.added = 0

    def reader(self) -> ChunkReader:
        return ChunkReader(self.driver, self.index)

    def put(self, codec: Codec, data: bytes, parent: Recipe | None = None, keep: float = KEEP) -> Recipe | None:
        """Encode and publish; `added` is what this one added, in bytes."""
        writer = ChunkWriter(self.reader(), lambda: self._scratch / f"{next(self._numbers)}.pack")
        encoded = codec.encode(ViewSource(memoryview(data)), writer, writer.reader, parent, keep)
        writer.finish()
        if encoded is None:
            return None
        for pack in writer.packs:
            self.driver.put_if_absent(packs.key_of(pack.name), pack.file)
            self.index.add([pack.to_index()])
        self.added = writer.added
        return Recipe(codec.name, codec.version, len(data), encoded)

    def stored(self, codec: Codec, data: bytes, parent: Recipe | None = None, keep: float = KEEP) -> Recipe:
        """The same for data that the codec must take; its inverse is tried."""
        recipe = self.put(codec, data, parent, keep)
        assert recipe is not None, "the codec did not take its own kind of file"
        assert self.got(codec, recipe) == data
        return recipe

    def got(self, codec: Codec, recipe: Recipe) -> bytes:
        return b"".join(bytes(part) for part in codec.decode(recipe, self.reader()))

    def content(self, recipe: Recipe, stream: str) -> bytes:
        return b"".join(bytes(part) for part in self.reader().read(recipe.encoded.streams[stream]))


def vectors(count: int, dimension: int, seed: int = 0) -> Any:
    """Float32 vectors, shape (count, dimension)."""
    return np.random.default_rng(seed).standard_normal((count, dimension), dtype=np.float32)


def identifiers(kind: str, count: int) -> Any:
    """Ids of some kind: `sequential`, `random`, `hashed` or `repeated`."""
    if kind == "sequential":
        return np.arange(count, dtype=np.int64)
    if kind == "repeated":
        return np.arange(count, dtype=np.int64) % 50
    if kind == "hashed":
        import hashlib

        hashes = (hashlib.blake2b(f"page-{i // 8}#{i % 8}".encode(), digest_size=8).digest() for i in range(count))
        return np.array([int.from_bytes(h, "little") >> 1 for h in hashes], np.int64)
    return np.random.default_rng(7).permutation(1 << 20)[:count].astype(np.int64) * 8_796_093_022_207


def index(factory: str, rows: Any, ids: Any = None, *, train: Any = None, metric: int = 1) -> Any:
    """A FAISS index with rows in it."""
    import faiss

    faiss.omp_set_num_threads(1)
    made = faiss.index_factory(rows.shape[1], factory, metric)
    made.train(rows if train is None else train)
    add(made, rows, ids)
    return made


def add(made: Any, rows: Any, ids: Any = None) -> None:
    """Add rows, with ids where there are some."""
    if len(rows) and ids is not None:
        made.add_with_ids(rows, ids)
    elif len(rows):
        made.add(rows)


def file_of(made: Any) -> bytes:
    """The file of an index."""
    import faiss

    data: bytes = faiss.serialize_index(made).tobytes()
    return data


@pytest.fixture
def chunks(tmp_path: Path) -> Store:
    """A store of chunks in memory."""
    return Store(MemoryDriver(), tmp_path)


@pytest.fixture
def disk(tmp_path: Path) -> Store:
    """A store of chunks in a directory."""
    (tmp_path / "scratch").mkdir()
    return Store(LocalDriver(tmp_path / "blobs"), tmp_path / "scratch")


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """Ways to make indexes and stores: `vectors`, `identifiers`, `index`, `add`, `file_of`, `store`."""
    return SimpleNamespace(
        vectors=vectors,
        identifiers=identifiers,
        index=index,
        add=add,
        file_of=file_of,
        store=lambda folder: Store(MemoryDriver(), Path(folder)),
    )
