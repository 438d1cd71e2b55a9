"""Stored bytes that are not what they claim to be: refused before anyone could parse them, file and digest named."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from llmartifacts.blobs.cache import BlobCache
from llmartifacts.blobs.store import BlobStore
from llmartifacts.errors import DigestMismatch
from llmartifacts.records.digest import Blob

TEXT = b"".join(b'{"id": %d, "text": "where is my order"}\n' % i for i in range(3000))
CONTENTS = {
    "raw": random.Random(1).randbytes(20_000),
    "compressed": TEXT,
    "raw, not in memory": random.Random(2).randbytes(9 * 1024 * 1024),
    "compressed, not in memory": TEXT * 80,
}


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore.local(tmp_path / "blobs", cache=BlobCache(tmp_path / "cache"))


def put(store: BlobStore, data: bytes) -> tuple[Blob, Path]:
    with store.stage() as staging:
        blob = staging.add(data)
        staging.publish()
    path = Path(next(s.file for s in store.list() if s.digest == blob.digest))
    path.chmod(0o644)
    return blob, path


def refused(store: BlobStore, blob: Blob, path: Path) -> None:
    for call in (store.read, store.open, store.path, store.check):
        with pytest.raises(DigestMismatch) as caught:
            call(blob)
        assert caught.value.file == str(path)
        assert caught.value.digest == blob.digest
        assert str(path) in str(caught.value)
        assert "log the same content again" in caught.value.hint()
    assert store.standing(blob)[0] == []
    assert not list(store.cache.root.rglob("*.part"))


@pytest.mark.parametrize("kind", CONTENTS)
def test_one_flipped_bit_anywhere_is_refused(store: BlobStore, kind: str) -> None:
    blob, path = put(store, CONTENTS[kind])
    good = path.read_bytes()
    assert ("compressed" in kind) == (path.suffix == ".zst")
    chosen = random.Random(3)
    ends = [*range(8 * 16), *range(8 * (len(good) - 16), 8 * len(good))]  # headers, checksums, the last byte
    inside = [chosen.randrange(8 * len(good)) for _ in range(100)]
    some = chosen.sample(ends + inside, 24) if blob.size > 1_000_000 else ends + inside
    for bit in some:
        with path.open("r+b") as file:
            file.seek(bit // 8)
            file.write(bytes([good[bit // 8] ^ 1 << bit % 8]))
        refused(store, blob, path)
        with path.open("r+b") as file:
            file.seek(bit // 8)
            file.write(good[bit // 8 : bit // 8 + 1])
    assert store.read(blob) == CONTENTS[kind]


@pytest.mark.parametrize("kind", CONTENTS)
def test_truncated_extended_emptied_and_zeroed_files_are_refused_and_healed(store: BlobStore, kind: str) -> None:
    blob, path = put(store, CONTENTS[kind])
    good = path.read_bytes()
    page = 4096
    for damaged in (
        good[:-1],
        good[: len(good) // 2],
        b"",
        good + b"\0",
        good + good,
        bytes(len(good)),  # a file system that lost the bytes in a crash and kept the length
        good[:page].ljust(len(good), b"\0"),
        good[: (len(good) - 1) // page * page].ljust(len(good), b"\0"),
    ):
        if damaged == good:
            continue
        os.truncate(path, 0)
        path.write_bytes(damaged)
        refused(store, blob, path)
    put(store, CONTENTS[kind])
    assert path.read_bytes() == good
    assert store.path(blob).read_bytes() == CONTENTS[kind]


def test_bytes_of_another_blob_are_refused(store: BlobStore) -> None:
    first, path = put(store, b"a" * 100)
    _, other = put(store, b"b" * 100)
    path.unlink()
    other.rename(path)
    refused(store, first, path)


def test_collecting_many_damaged_files_keeps_none_of_them_open(store: BlobStore) -> None:
    """`verify` keeps the errors; they must not keep files open."""
    blob, path = put(store, TEXT)
    path.write_bytes(path.read_bytes()[:-1])
    errors = []
    before = len(os.listdir("/dev/fd"))
    for _ in range(50):
        for call in (store.read, store.check, store.open, store.path):
            try:
                call(blob)
            except DigestMismatch as error:
                errors.append(error)
    assert len(errors) == 200
    assert len(os.listdir("/dev/fd")) == before
