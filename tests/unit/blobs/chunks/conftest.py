"""Packs and chunks without a store around them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from llmartifacts.blobs.base import Driver, Source
from llmartifacts.blobs.chunks import pack as packs
from llmartifacts.blobs.chunks.index import ChunkIndex, PackIndex
from llmartifacts.blobs.chunks.reader import ChunkReader
from llmartifacts.blobs.chunks.writer import ChunkWriter
from llmartifacts.blobs.local import LocalDriver
from llmartifacts.blobs.memory import MemoryDriver


class CountingDriver(MemoryDriver):
    """Remembers which ranges were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, int, int | None]] = []

    def get(self, key: str, start: int = 0, length: int | None = None) -> BinaryIO:
        self.asked.append((key, start, length))
        return super().get(key, start, length)


class Bench:
    """A driver, an index over it, and a place for packs on their way in."""

    def __init__(self, driver: Driver, scratch: Path) -> None:
        self.driver = driver
        self.index: ChunkIndex = PackIndex(driver)
        self.scratch = scratch
        self._numbers = itertools.count()

    def new_file(self) -> Path:
        return self.scratch / f"{next(self._numbers)}.pack"

    def reader(self, **more: Any) -> ChunkReader:
        return ChunkReader(self.driver, self.index, **more)

    def writer(self) -> ChunkWriter:
        return ChunkWriter(self.reader(), self.new_file)

    def publish(self, writer: ChunkWriter) -> list[str]:
        """Store what was written; the names of the packs."""
        writer.finish()
        writer.durable()
        names = [pack.name for pack in writer.packs]
        for pack in writer.packs:
            self.driver.put_if_absent(packs.key_of(pack.name), pack.file)
        self.index.add([pack.to_index() for pack in writer.packs])
        writer.published()
        return names

    def put(self, *contents: bytes, compress: bool = True) -> Any:
        """Store contents as a chunk each; their entries."""
        writer = self.writer()
        made = writer.add(b"".join(contents), list(itertools.accumulate(map(len, contents))), compress=compress)
        self.publish(writer)
        return made

    def stored(self, pack: str) -> bytes:
        with self.driver.get(packs.key_of(pack)) as stream:
            return stream.read()

    def replace(self, pack: str, data: Source) -> None:
        self.driver.replace(packs.key_of(pack), data)

    def packs(self) -> list[str]:
        return [key.rpartition("/")[2].removesuffix(".pack") for key, _ in self.driver.list("packs/")]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Over a driver in memory that counts, and has no files."""
    (tmp_path / "scratch").mkdir()
    return Bench(CountingDriver(), tmp_path / "scratch")


@pytest.fixture
def mapped(tmp_path: Path) -> Bench:
    """Over files on this host, which are mapped."""
    (tmp_path / "aside").mkdir()
    return Bench(LocalDriver(tmp_path / "blobs"), tmp_path / "aside")
