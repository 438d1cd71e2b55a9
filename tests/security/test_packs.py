"""Hostile and damaged packs and recipes, through a store and through a registry: refused, typed, in little memory."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import blake3
import numpy as np
import pytest
import zstandard

import llmartifacts as la
from llmartifacts import errors
from llmartifacts.blobs.cache import BlobCache
from llmartifacts.blobs.chunks import pack as packs
from llmartifacts.blobs.chunks.entries import entries_of
from llmartifacts.blobs.chunks.pack import FOOTER, HEADER, RAW, ZSTD
from llmartifacts.blobs.forms import RECIPE, key_of
from llmartifacts.blobs.store import BlobStore
from llmartifacts.records.digest import Blob, digest_of

NOISE = random.Random(1).randbytes(3_000_000)
TEXT = b"".join(b'{"id": %d, "text": "order %d"}\n' % (i, i * i) for i in range(60_000))
QUESTIONS = [f'{{"id": "q{i}", "input": "{i**30} orders"}}' for i in range(12_000)]


def crafted_pack(*chunks: tuple[bytes, bytes, int, int]) -> tuple[str, bytes]:
    """A pack under its right name that says anything: id, stored bytes, length and form of each chunk."""
    import zlib

    rows, body = [], bytearray(HEADER)
    for name, stored, length, form in chunks:
        body += bytes(-len(body) % 8 if form == RAW else 0)
        rows.append((name, len(body), len(stored), length, zlib.crc32(stored) if form == ZSTD else 0, form))
        body += stored
    footer = np.array(rows, FOOTER).tobytes()
    name = blake3.blake3(footer).digest()
    return name.hex(), bytes(body) + footer + len(rows).to_bytes(4, "little") + b"\1\0\0\0" + name + b"LLMAPKE\n"


def crafted_recipe(size: int, streams: dict[str, Any], **changed: Any) -> bytes:
    """A recipe with a right sum that says anything."""
    told = [
        {"name": name, "entries": len(e), "stored": len(e), "nodes": False, **changed.get("stream", {})}
        for name, e in streams.items()
    ]
    header = {"codec": "cdc", "version": 1, "size": size, "parent": None, "parameters": {}, "dead": 0, "streams": told}
    header |= {k: v for k, v in changed.items() if k != "stream"}
    raw = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    made = b"LLMARC1\n" + len(raw).to_bytes(4, "little") + raw + b"".join(e.tobytes() for e in streams.values())
    return made + blake3.blake3(made).digest()


def bomb(size: int) -> bytes:
    return zstandard.ZstdCompressor(level=3).compress(bytes(size))


def with_claim(frame: bytes, size: int) -> bytes:
    """A frame whose header says that it has another size."""
    parameters = zstandard.get_frame_parameters(frame)
    assert parameters.content_size > 65_791, "a size field of four bytes"
    at = 5 if frame[4] & 0x20 else 6
    assert int.from_bytes(frame[at : at + 4], "little") == parameters.content_size
    return frame[:at] + size.to_bytes(4, "little") + frame[at + 4 :]


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore.local(tmp_path / "blobs", cache=BlobCache(tmp_path / "cache"))


CLAIMED = Blob(digest_of(b"what nobody has"), 3_000_000)
NAME = blake3.blake3(bytes(1_000_000)).digest()
THREE = entries_of([NAME] * 3, [1_000_000] * 3)


def plant(store: BlobStore, recipe: bytes, *made: tuple[str, bytes], blob: Blob = CLAIMED) -> Path:
    for name, data in made:
        store.driver.replace(packs.key_of(name), data)
    store.driver.replace(key_of(blob.digest, RECIPE), recipe)
    return Path(store.driver.where(key_of(blob.digest, RECIPE)))


def refused(store: BlobStore, blob: Blob = CLAIMED) -> list[errors.LlmartifactsError]:
    found = []
    for call in (store.read, store.open, store.path, store.check):
        with pytest.raises(errors.LlmartifactsError) as caught:
            call(blob)
        assert str(store.driver.where("")) in str(caught.value) + str(getattr(caught.value, "file", ""))
        found.append(caught.value)
    assert not [p for p in store.cache.root.rglob("*") if p.is_file()]
    return found


def test_the_craft_of_this_file_makes_what_can_be_read(store: BlobStore) -> None:
    data = bytes(1_000_000)
    blob = Blob(digest_of(data * 3), 3_000_000)
    for chunk in ((NAME, data, 1_000_000, RAW), (NAME, bomb(1_000_000), 1_000_000, ZSTD)):
        plant(store, crafted_recipe(3_000_000, {"data": THREE}), crafted_pack(chunk), blob=blob)
        fresh = BlobStore.local(store.driver.root, cache=store.cache)  # type: ignore[attr-defined]
        assert fresh.read(blob) == data * 3


def test_a_recipe_of_chunks_that_do_not_exist_is_refused(store: BlobStore) -> None:
    recipe = plant(store, crafted_recipe(3_000_000, {"data": THREE}))
    for error in refused(store):
        assert isinstance(error, errors.BlobMissing)
        assert error.digest == CLAIMED.digest
        assert error.file == str(recipe)
    with pytest.raises(errors.BlobMissing):
        store.check(CLAIMED, read_data=False)


SIZES: dict[str, Callable[[], bytes]] = {
    "recipe too large": lambda: crafted_recipe(3_000_001, {"data": THREE}),
    "recipe too small": lambda: crafted_recipe(2_999_999, {"data": THREE}),
    "recipe huge": lambda: crafted_recipe(2**53 - 1, {"data": THREE}),
    "recipe negative": lambda: crafted_recipe(-1, {"data": THREE}),
    "entries longer": lambda: crafted_recipe(3_000_000, {"data": entries_of([NAME] * 2, [1_500_000] * 2)}),
    "entries shorter": lambda: crafted_recipe(3_000_000, {"data": entries_of([NAME] * 6, [500_000] * 6)}),
    "entries of nothing": lambda: crafted_recipe(3_000_000, {"data": entries_of([NAME] * 3, [0, 0, 3_000_000])}),
    "one too few": lambda: crafted_recipe(3_000_000, {"data": THREE[:2]}),
    "one too many": lambda: crafted_recipe(3_000_000, {"data": entries_of([NAME] * 4, [1_000_000] * 4)}),
    "count lies": lambda: crafted_recipe(3_000_000, {"data": THREE}, stream={"entries": 4}),
    "count huge": lambda: crafted_recipe(3_000_000, {"data": THREE}, stream={"entries": 2**50, "stored": 2**50}),
    "nodes that are none": lambda: crafted_recipe(3_000_000, {"data": THREE}, stream={"nodes": True}),
    "nodes of another count": lambda: crafted_recipe(
        3_000_000, {"data": THREE}, stream={"nodes": True, "entries": 83_334}
    ),
    "no stream": lambda: crafted_recipe(3_000_000, {}),
    "another stream": lambda: crafted_recipe(3_000_000, {"rows": THREE}),
    "no codec": lambda: crafted_recipe(3_000_000, {"data": THREE}).replace(b'"codec"', b'"kodec"'),
    "header of another length": lambda: b"LLMARC1\n\xff\xff\xff\xff" + bytes(100),
}


@pytest.mark.parametrize("lie", SIZES)
def test_a_recipe_with_sizes_that_lie_is_refused(store: BlobStore, lie: str) -> None:
    data = SIZES[lie]()
    if lie in ("no codec", "header of another length"):
        data = data[:-32] + blake3.blake3(data[:-32]).digest()
    recipe = plant(store, data, crafted_pack((NAME, bytes(1_000_000), 1_000_000, RAW)))
    for error in refused(store):
        assert isinstance(error, errors.Damaged)
        assert error.digest == CLAIMED.digest
        assert error.file == str(recipe) or error.file.endswith(".pack")


CHUNKS: dict[str, tuple[bytes, int, int]] = {
    "raw, shorter than told": (bytes(999_999), 1_000_000, RAW),
    "raw, longer than told": (bytes(1_000_001), 1_000_000, RAW),
    "raw, other bytes": (b"x" * 1_000_000, 1_000_000, RAW),
    "form from the future": (bytes(1_000_000), 1_000_000, 7),
    "compressed, no frame": (bytes(1000), 1_000_000, ZSTD),
    "compressed, nothing": (b"", 1_000_000, ZSTD),
    "compressed, shorter than told": (bomb(999_999), 1_000_000, ZSTD),
    "compressed, makes gigabytes": (bomb(3 << 30), 1_000_000, ZSTD),
    "compressed, makes gigabytes and says less": (with_claim(bomb(3 << 30), 1_000_000), 1_000_000, ZSTD),
    "compressed, says gigabytes": (with_claim(bomb(1_000_000), 3 << 30), 1_000_000, ZSTD),
    "compressed, footer says gigabytes": (bomb(3 << 30), 3 << 30, ZSTD),
    "compressed, cut short": (bomb(1_000_000)[:-3], 1_000_000, ZSTD),
}

HEAD = """
import resource, sys
import blake3, hashlib, io, numpy, pyfastcdc, zstandard
from pathlib import Path
import llmartifacts.blobs.chunks.store, llmartifacts.blobs.chunks.encode
from llmartifacts.blobs.codecs import cdc, lines
from llmartifacts.blobs.cache import BlobCache
from llmartifacts.blobs.store import BlobStore
from llmartifacts.errors import *
from llmartifacts.records.digest import Blob, Digest
store = BlobStore.local(sys.argv[1], cache=BlobCache(sys.argv[2]))
data = int(Path("/proc/self/status").read_text().split("VmData:")[1].split()[0]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (data + 100 * 2**20, data + 100 * 2**20))
"""


def in_little_memory(store: BlobStore, blob: Blob) -> list[str]:
    """What each way to read says in a process with 100 MB to spare."""
    code = """
    blob = Blob(Digest(sys.argv[3]), int(sys.argv[4]))
    for call in (store.read, store.open, store.path, store.check):
        try:
            call(blob)
        except Damaged as error:
            assert error.digest == blob.digest and error.file
            print(error.code)
    """
    places = [str(store.driver.where("")), str(store.cache.root)]
    done = subprocess.run(
        [sys.executable, "-c", HEAD + textwrap.dedent(code), *places, blob.digest, str(blob.size)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("kind", CHUNKS)
def test_a_chunk_that_is_not_what_it_claims_is_refused_in_little_memory(store: BlobStore, kind: str) -> None:
    stored, length, form = CHUNKS[kind]
    plant(store, crafted_recipe(3_000_000, {"data": THREE}), crafted_pack((NAME, stored, length, form)))
    assert len(in_little_memory(store, CLAIMED)) == 4
    refused(store)


def test_a_small_chunk_named_over_and_over_is_no_more_than_its_blob_in_memory(store: BlobStore) -> None:
    """Content of 3 GB from a pack of 2 KB goes through, piece by piece; the digest is wrong in the end."""
    sixteen = 16 << 20
    name = blake3.blake3(bytes(sixteen)).digest()
    entries = entries_of([name] * 60, [sixteen] * 60)
    blob = Blob(digest_of(b"a claim"), 60 * sixteen)
    plant(
        store,
        crafted_recipe(blob.size, {"data": entries}),
        crafted_pack((name, bomb(sixteen), sixteen, ZSTD)),
        blob=blob,
    )
    code = """
    blob = Blob(Digest(sys.argv[3]), int(sys.argv[4]))
    for call in (store.path, store.check):
        try:
            call(blob)
        except DigestMismatch as error:
            print(error.code)
    """
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            HEAD + textwrap.dedent(code),
            str(store.driver.where("")),
            str(store.cache.root),
            blob.digest,
            str(blob.size),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 2
    assert not [p for p in store.cache.root.rglob("*") if p.is_file()]


@pytest.mark.parametrize(("codec", "version"), [("cdc", 2), ("tomorrow", 1), ("../cdc", 1), ("", 1), ("x" * 5000, 3)])
def test_a_codec_from_the_future_is_told_apart_from_damage(store: BlobStore, codec: str, version: int) -> None:
    recipe = plant(store, crafted_recipe(3_000_000, {"data": THREE}, codec=codec, version=version))
    for error in refused(store):
        assert isinstance(error, errors.NewerFormat)
        assert error.origin == str(recipe)
        assert "nstall" in error.hint()
        assert len(str(error)) < 1000


@pytest.mark.parametrize("place", ["recipe", "pack"])
@pytest.mark.parametrize("what", ["link", "pipe", "folder"])
def test_no_plain_file_in_the_place_of_a_recipe_or_pack_is_refused(
    store: BlobStore, tmp_path: Path, place: str, what: str
) -> None:
    with store.stage() as staging:
        blob = staging.add(NOISE)
        staging.publish()
    key = key_of(blob.digest, RECIPE) if place == "recipe" else next(store.driver.list("packs/"))[0]
    path = Path(store.driver.where(key))
    path.rename(tmp_path / "aside")
    if what == "link":
        path.symlink_to(tmp_path / "aside")
    elif what == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    fresh = BlobStore.local(store.driver.root, cache=store.cache)  # type: ignore[attr-defined]
    for one in (store, fresh):
        for call in (one.read, one.path, one.check):
            with pytest.raises(errors.Damaged) as caught:
                call(blob)
            assert caught.value.digest == blob.digest
            assert caught.value.file


# --- through a registry


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """To be copied, and never opened."""
    where = tmp_path_factory.mktemp("original") / "registry"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMARTIFACTS_CACHE", str(where.parent / "cache"))
        with la.init(where, actor="tester") as made:
            made.log("files", la.Files({"noise.bin": NOISE, "small.txt": b"a few words"}))
            made.log("questions", la.EvalDataset.from_jsonl(QUESTIONS))
    return where


@pytest.fixture
def registry(original: Path, tmp_path: Path) -> Iterator[la.Registry]:
    shutil.copytree(original, tmp_path / "registry")
    with la.connect(tmp_path / "registry") as opened:
        yield opened


def stored(registry: la.Registry, suffix: str) -> list[Path]:
    found = sorted(Path(registry.backend.location, "blobs").rglob(f"*{suffix}"), key=lambda p: -p.stat().st_size)
    assert found
    return found


def load(name: str, value: object) -> object:
    """Use all of a value."""
    return value.read("noise.bin") if isinstance(value, la.Files) else list(value)  # type: ignore[call-overload]


def use(registry: la.Registry, name: str) -> object:
    return load(name, registry.resolve(f"{name}:v1"))


def altered(path: Path, how: str) -> bytes:
    data = path.read_bytes()
    return {
        "flipped": data[: len(data) // 3] + bytes([data[len(data) // 3] ^ 2]) + data[len(data) // 3 + 1 :],
        "truncated": data[: len(data) // 2],
        "empty": b"",
        "zeros": bytes(len(data)),
    }[how]


@pytest.mark.parametrize(
    ("suffix", "how"),
    [
        *[(".pack", "flipped"), (".recipe", "truncated")],
        *[pytest.param(".pack", how, marks=pytest.mark.matrix) for how in ("truncated", "empty", "zeros", "missing")],
        *[pytest.param(".recipe", how, marks=pytest.mark.matrix) for how in ("flipped", "empty", "zeros", "missing")],
    ],
)
def test_a_damaged_file_is_named_with_the_versions_that_need_it_and_logging_again_mends_it(
    registry: la.Registry, tmp_path: Path, suffix: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, path in enumerate(stored(registry, suffix)):
        good = path.read_bytes()
        bad = None if how == "missing" else altered(path, how)
        path.unlink()
        if bad is not None:
            path.write_bytes(bad)
        monkeypatch.setenv("LLMARTIFACTS_CACHE", str(tmp_path / f"{suffix}{number}"))  # which holds good bytes else
        with la.connect(registry.backend.location) as fresh:
            hurt = []
            for name in ("files", "questions"):
                try:
                    use(fresh, name)
                except errors.Damaged as error:
                    hurt.append(name)
                    told = error
                    assert told.versions == (f"{name}:v1",)
                    assert told.digest
                    assert told.file == str(path) or told.digest[7:] in told.file
            assert hurt
            problems = [p for p in fresh.verify(read_data=True).problems if isinstance(p, errors.Damaged)]
            assert {v for p in problems for v in p.versions} >= {f"{name}:v1" for name in hurt}
            fresh.log("files", la.Files({"noise.bin": NOISE, "small.txt": b"a few words"}))
            fresh.log("questions", la.EvalDataset.from_jsonl(QUESTIONS))
        with la.connect(registry.backend.location) as fresh:
            assert use(fresh, "files") == NOISE
            assert len(use(fresh, "questions")) == len(QUESTIONS)  # type: ignore[arg-type]
            assert fresh.get("files:latest").number == fresh.get("questions:latest").number == 1
        if path.exists():
            path.chmod(0o644)
            path.write_bytes(good)


def test_a_codec_from_the_future_says_to_upgrade(registry: la.Registry) -> None:
    path = next(p for p in stored(registry, ".recipe") if digest_of(NOISE)[7:] in p.name)
    path.unlink()
    path.write_bytes(crafted_recipe(3_000_000, {"data": THREE}, codec="tomorrow"))
    with la.connect(registry.backend.location) as fresh:
        with pytest.raises(errors.NewerFormat) as caught:
            use(fresh, "files")
        assert "tomorrow" in str(caught.value)
        assert "nstall" in caught.value.hint()
        assert len(use(fresh, "questions")) == len(QUESTIONS)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["compressed, makes gigabytes", "compressed, says gigabytes", "raw, other bytes"])
def test_a_hostile_pack_is_refused_by_a_registry(registry: la.Registry, kind: str) -> None:
    blobs = BlobStore.local(Path(registry.backend.location, "blobs"))
    stored_bytes, length, form = CHUNKS[kind]
    blob = Blob(digest_of(NOISE), len(NOISE))
    plant(
        blobs, crafted_recipe(3_000_000, {"data": THREE}), crafted_pack((NAME, stored_bytes, length, form)), blob=blob
    )
    with la.connect(registry.backend.location) as fresh:
        with pytest.raises(errors.Damaged) as caught:
            use(fresh, "files")
        assert caught.value.versions == ("files:v1",)
        assert caught.value.digest == blob.digest
        assert not fresh.verify(read_data=True).ok
        fresh.log("files", la.Files({"noise.bin": NOISE, "small.txt": b"a few words"}))
        assert use(fresh, "files") == NOISE
