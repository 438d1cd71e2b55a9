"""Every built-in blob driver keeps the contract, and so does a store over it."""

from __future__ import annotations

import itertools
from pathlib import Path

from llmartifacts.blobs.cache import BlobCache
from llmartifacts.blobs.local import LocalDriver
from llmartifacts.blobs.memory import MemoryDriver
from llmartifacts.blobs.store import BlobStore
from llmartifacts.testing.blobs import check_driver, check_store


def test_the_local_driver_keeps_the_contract(tmp_path: Path) -> None:
    places = itertools.count()
    check_driver(lambda: LocalDriver(tmp_path / str(next(places))))
    check_store(lambda: BlobStore.local(tmp_path / str(next(places)), cache=BlobCache(tmp_path / f"c{next(places)}")))


def test_the_memory_driver_keeps_the_contract() -> None:
    check_driver(MemoryDriver)
    check_store(BlobStore.memory)
