"""Hostile stores: keys that climb, links, devices, bombs. Every input may be hostile, the stored files too."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from llmartifacts.blobs.cache import BlobCache
from llmartifacts.blobs.forms import ZSTD, encode, key_of
from llmartifacts.blobs.local import LocalDriver
from llmartifacts.blobs.store import BlobStore
from llmartifacts.errors import BlobMissing, DigestMismatch, InvalidPath, UnsafeContent
from llmartifacts.records.digest import Blob, digest_of
from llmartifacts.testing.blobs import HOSTILE_KEYS

SECRET = b"root:secret"
BLOB = Blob(digest_of(SECRET), len(SECRET))


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore.local(tmp_path / "registry" / "blobs", cache=BlobCache(tmp_path / "cache"))


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / BLOB.digest[7:]).write_bytes(SECRET)
    return folder


def place_of(store: BlobStore, blob: Blob) -> Path:
    return Path(store.driver.where(key_of(blob.digest, "")))


@pytest.mark.parametrize("key", HOSTILE_KEYS)
def test_a_key_that_climbs_or_hides_writes_and_reads_nothing(tmp_path: Path, key: str) -> None:
    driver = LocalDriver(tmp_path / "a" / "blobs")
    for call in (driver.get, driver.size, driver.delete, driver.file):
        with pytest.raises(InvalidPath):
            call(key)
    with pytest.raises(InvalidPath):
        driver.put_if_absent(key, b"x")
    assert not list(tmp_path.iterdir())


def test_a_link_in_the_place_of_a_blob_is_refused_even_if_it_leads_to_the_right_bytes(
    store: BlobStore, outside: Path
) -> None:
    place = place_of(store, BLOB)
    place.parent.mkdir(parents=True)
    place.symlink_to(outside / place.name)
    for call in (store.read, store.open, store.path, store.check, store.stored_size):
        with pytest.raises(UnsafeContent) as caught:
            call(BLOB)
        assert caught.value.file == str(place)
        assert caught.value.digest == BLOB.digest


@pytest.mark.parametrize("depth", [1, 2])
def test_a_link_in_the_place_of_a_folder_is_refused_for_reading_writing_and_deleting(
    store: BlobStore, outside: Path, depth: int
) -> None:
    place = place_of(store, BLOB)
    link = place.parents[depth - 1]
    link.parent.mkdir(parents=True, exist_ok=True)
    if depth == 2:
        (outside / place.parent.name).mkdir()
        (outside / place.name).rename(outside / place.parent.name / place.name)
    link.symlink_to(outside)
    for call in (store.read, store.open, store.path, store.check):
        with pytest.raises(UnsafeContent):
            call(BLOB)
    with pytest.raises(UnsafeContent):
        store.delete(BLOB.digest)
    with store.stage() as staging, pytest.raises(UnsafeContent):
        staging.add(SECRET)
        staging.publish()
    assert [p.read_bytes() for p in outside.rglob("*") if p.is_file()] == [SECRET]
    assert list(store.list()) == []


def test_a_pipe_in_the_place_of_a_blob_is_refused_and_nobody_waits_for_it(store: BlobStore) -> None:
    place = place_of(store, BLOB)
    place.parent.mkdir(parents=True)
    os.mkfifo(place)
    for call in (store.read, store.open, store.path, store.check):
        with pytest.raises(UnsafeContent):
            call(BLOB)


def test_a_pipe_in_the_cache_is_not_waited_for(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path)
    place = tmp_path / key_of(BLOB.digest, "")
    place.parent.mkdir(parents=True)
    os.mkfifo(place)
    assert cache.get(BLOB) is None
    with pytest.raises(DigestMismatch):
        cache.read(BLOB)
    assert cache.put(BLOB, SECRET).read_bytes() == SECRET


def test_a_store_that_is_not_there_has_nothing(tmp_path: Path) -> None:
    with pytest.raises(BlobMissing):
        BlobStore.local(tmp_path / "nothing").read(BLOB)
    assert not list(tmp_path.iterdir())


def in_child(code: str, *args: str, megabytes: int) -> str:
    """Run code in a process that may use so much anonymous memory beyond what it has after its imports.

    Packs and cached files are mapped: their pages belong to the page cache, which the kernel takes back.
    """
    head = f"""
    import os, resource, sys
    import zstandard, hashlib, io
    import blake3, numpy, pyfastcdc
    from pathlib import Path
    import llmartifacts.blobs.chunks.store
    from llmartifacts.blobs.codecs import cdc, lines
    from llmartifacts.blobs.chunks import encode as encoding
    from llmartifacts.blobs.cache import BlobCache
    from llmartifacts.blobs.store import BlobStore
    from llmartifacts.blobs.forms import *
    from llmartifacts.errors import *
    from llmartifacts.records.digest import Blob, Digest
    data = int(Path("/proc/self/status").read_text().split("VmData:")[1].split()[0]) * 1024
    limit = data + {megabytes} * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(code), *args],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("claimed", [1000, 2**50])
def test_a_decompression_bomb_is_refused_in_little_memory(store: BlobStore, claimed: int) -> None:
    digest = digest_of(b"something small")
    bomb = encode(ZSTD, bytes(2_000_000_000 // 8)) if claimed == 1000 else encode(ZSTD, bytes(100_000))
    store.driver.put_if_absent(key_of(digest, ZSTD), bomb)
    code = """
    store = BlobStore.local(sys.argv[1], cache=BlobCache(sys.argv[2]))
    blob = Blob(Digest(sys.argv[3]), int(sys.argv[4]))
    for call in (store.read, store.open, store.path, store.check):
        try:
            call(blob)
        except DigestMismatch as error:
            assert error.digest == blob.digest and error.file.endswith(".zst")
            print("refused")
    """
    root = store.driver.root  # type: ignore[attr-defined]
    said = in_child(code, str(root), str(store.cache.root), digest, str(claimed), megabytes=64)
    assert said.split() == ["refused"] * 4
    assert not [p for p in store.cache.root.rglob("*") if p.is_file()]


@pytest.mark.matrix
@pytest.mark.parametrize("kind", ["noise", "text"])
def test_six_hundred_megabytes_go_in_and_out_in_200_megabytes_of_memory(tmp_path: Path, kind: str) -> None:
    code = """
    import random
    size = 600 * 2**20
    base = Path(sys.argv[1])
    chance = random.Random(1)
    with open(base / "source", "wb") as file:
        number = 0
        while file.tell() < size:
            if sys.argv[2] == "noise":
                file.write(chance.randbytes(2**20))
            else:
                lines = (b'{"id": %d, "text": "order %d"}\\n' % (i, i * i) for i in range(number, number + 30_000))
                file.write(b"".join(lines))
                number += 30_000
        size = file.tell()
    store = BlobStore.local(base / "blobs", cache=BlobCache(base / "cache"))
    blobs = []
    for source in (base / "source", open(base / "source", "rb")):
        with store.stage() as staging:
            blobs.append(staging.add(source))
            staging.publish()
    source.close()
    blob = blobs[0]
    assert blobs[1] == blob and blob.size == size
    store.check(blob)
    for out in (store.open(blob), open(store.path(blob), "rb"), open(store.cache.put(blob, base / "source"), "rb")):
        with out:
            assert hashlib.file_digest(out, "sha256").hexdigest() == blob.digest[7:]
    packs = [size for _, size in store.driver.list("packs/")]
    assert max(packs) < 64 * 2**20
    assert store.recipe(blob).codec == ("cdc" if sys.argv[2] == "noise" else "lines")
    print(sum(packs) / size)
    """
    part = float(in_child(code, str(tmp_path), kind, megabytes=200))
    assert part < (0.5 if kind == "text" else 1.02)
