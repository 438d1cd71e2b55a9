"""Every built-in blob driver keeps the contract, and so does a store over it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from llmartifacts.blobs.cache import BlobCache
from llmartifacts.blobs.local import LocalDriver
from llmartifacts.blobs.memory import MemoryDriver
from llmartifacts.blobs.object_store import ObjectStoreDriver
from llmartifacts.blobs.store import BlobStore
from llmartifacts.testing.blobs import check_driver, check_store


def test_the_local_driver_keeps_the_contract(tmp_path: Path) -> None:
    places = itertools.count()
    check_driver(lambda: LocalDriver(tmp_path / str(next(places))))
    check_store(lambda: BlobStore.local(tmp_path / str(next(places)), cache=BlobCache(tmp_path / f"c{next(places)}")))


def test_the_memory_driver_keeps_the_contract() -> None:
    check_driver(MemoryDriver)
    check_store(BlobStore.memory)


@pytest.mark.slow
@pytest.mark.matrix
@pytest.mark.xdist_group("s3")
@pytest.mark.usefixtures("s3_environment")
def test_the_object_store_driver_keeps_the_contract_on_a_real_server(s3_server: Any, tmp_path: Path) -> None:
    places = itertools.count()
    bucket = s3_server.new_bucket()

    def driver() -> ObjectStoreDriver:
        return ObjectStoreDriver(s3_server.url(bucket, f"place-{next(places)}"))

    check_driver(driver)
    check_store(lambda: BlobStore(driver(), scratch=tmp_path / "scratch"))
