"""The file of the version before stands in for packs that are far away."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import faiss
import numpy as np
import pytest

from llmartifacts.blobs.cache import BlobCache
from llmartifacts.blobs.memory import MemoryDriver
from llmartifacts.blobs.store import BlobStore
from llmartifacts.records.digest import Blob


class Far(MemoryDriver):
    """A driver without files, which counts what is fetched from packs."""

    fetched = 0

    def get(self, key: str, start: int = 0, length: int | None = None) -> BinaryIO:
        if key.startswith("packs/"):
            self.fetched += (self.size(key) or 0) if length is None else length
        return super().get(key, start, length)


@pytest.fixture
def far(tmp_path: Path) -> BlobStore:
    return BlobStore(Far(), cache=BlobCache(tmp_path / "cache"), scratch=tmp_path / "scratch")


def put(store: BlobStore, data: bytes, like: Callable[[], Sequence[Blob]] = tuple) -> Blob:
    with store.stage() as staging:
        blob = staging.add(data, like)
        staging.publish()
    return blob


def fetched(store: BlobStore, blob: Blob) -> tuple[int, bytes]:
    """Bytes that making the file took from packs, and the file's."""
    driver: Any = store.driver
    before = driver.fetched
    data = store.path(blob).read_bytes()
    return driver.fetched - before, data


def noise(size: int) -> tuple[bytes, bytes]:
    data = random.Random(5).randbytes(size)
    return data, data[: size // 3] + b"something new" + data[size // 3 :]


def text(size: int) -> tuple[bytes, bytes]:
    lines = [b'{"id": %d, "text": "%x"}\n' % (n, random.Random(n).getrandbits(400)) for n in range(size // 130)]
    return b"".join(lines), b"".join([*lines[:99], b'{"id": "new"}\n', *lines[99:]])


def index(factory: str) -> tuple[bytes, bytes]:
    vectors = np.random.default_rng(5).standard_normal((12_000, 64)).astype("f4")
    made: Any = faiss.index_factory(64, factory)
    made.train(vectors[:4000])
    if "IVF" in factory:
        ids = np.random.default_rng(6).integers(1, 1 << 62, len(vectors) + 100)
        made.add_with_ids(vectors, ids[:-100])
        before = faiss.serialize_index(made).tobytes()
        made.add_with_ids(vectors[:100] + 1, ids[-100:])
    else:
        made.add(vectors)
        before = faiss.serialize_index(made).tobytes()
        made.add(vectors[:100] + 1)
    return before, faiss.serialize_index(made).tobytes()


VERSIONS = {
    "cdc": lambda: noise(6_000_000),
    "lines": lambda: text(6_000_000),
    "faiss-rows": lambda: index("Flat"),
    "faiss-ivf": lambda: index("IVF64,Flat"),
}


@pytest.mark.parametrize("codec", VERSIONS)
def test_of_a_new_version_only_what_is_new_is_fetched_where_the_one_before_is_cached(
    codec: str, far: BlobStore
) -> None:
    old, new = VERSIONS[codec]()
    first = put(far, old)
    second = put(far, new, lambda: [first])
    recipe = far.recipe(second)
    assert recipe is not None
    assert recipe.codec == codec
    whole, data = fetched(far, first)
    assert data == old
    part, data = fetched(far, second)
    assert data == new
    assert part < whole / 8


def test_without_the_version_before_everything_is_fetched(far: BlobStore) -> None:
    old, new = VERSIONS["cdc"]()
    first = put(far, old)
    second = put(far, new, lambda: [first])
    whole, data = fetched(far, second)
    assert data == new
    assert whole >= len(new)


def test_a_cached_file_that_was_altered_is_no_seed(far: BlobStore) -> None:
    old, new = VERSIONS["cdc"]()
    first = put(far, old)
    second = put(far, new, lambda: [first])
    file = far.path(first)
    file.chmod(0o600)
    with file.open("r+b") as opened:
        opened.seek(1000)
        opened.write(b"altered")
    assert fetched(far, second)[1] == new


@pytest.mark.parametrize("codec", VERSIONS)
def test_a_seed_that_lies_costs_a_fetch_and_nothing_else(
    codec: str, far: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = VERSIONS[codec]()
    first = put(far, old)
    second = put(far, new, lambda: [first])
    known = far.recipe(first)
    lie = random.Random(7).randbytes(len(old))
    monkeypatch.setattr(BlobStore, "_nearby", lambda self, digest: (known, memoryview(lie)))
    assert fetched(far, second)[1] == new


def test_seeds_are_looked_for_several_versions_back(far: BlobStore) -> None:
    old, new = VERSIONS["cdc"]()
    first = put(far, old)
    far.path(first)
    middle = put(far, new, lambda: [first])
    last = put(far, new + b"and more", lambda: [middle])
    part, data = fetched(far, last)
    assert data == new + b"and more"
    assert part < len(new) / 8


def test_of_chunks_side_by_side_in_a_pack_only_those_are_fetched_that_the_seed_lacks(far: BlobStore) -> None:
    data, _ = noise(8_000_000)
    first = put(far, data)
    second = put(far, data[:2_000_000] + data[4_000_000:], lambda: [first])
    far.path(second)
    part, found = fetched(far, put(far, data + b"", lambda: [second]))
    assert found == data
    assert part >= len(data)  # it is the first one: without a parent there is no seed
    third = put(far, data[:7_000_000], lambda: [second])
    part, found = fetched(far, third)
    assert found == data[:7_000_000]
    assert 2_000_000 <= part < 2_600_000
