"""Fixtures for the blob layer."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmartifacts.blobs.cache import BlobCache
from llmartifacts.blobs.store import BlobStore


@pytest.fixture
def cache(tmp_path: Path) -> BlobCache:
    return BlobCache(tmp_path / "cache")


@pytest.fixture
def store(tmp_path: Path, cache: BlobCache) -> BlobStore:
    return BlobStore.local(tmp_path / "registry" / "blobs", cache=cache)
