"""Stored bytes that are not what they claim to be: refused before anyone could parse them, file and digest named."""

from __future__ import annotations

import gc
import io
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from llmartifacts.blobs.cache import BlobCache
from llmartifacts.blobs.chunks import pack as packs_format
from llmartifacts.blobs.chunks.check import check_pack
from llmartifacts.blobs.forms import BadForm
from llmartifacts.blobs.store import BlobStore
from llmartifacts.errors import Damaged, DigestMismatch
from llmartifacts.records.digest import Blob

TEXT = b"".join(b'{"id": %d, "text": "where is my order"}\n' % i for i in range(3000))
CONTENTS = {
    "raw": random.Random(1).randbytes(20_000),
    "compressed": TEXT,
    "raw, as large as can be": random.Random(2).randbytes(1024 * 1024),
    "compressed, as large as can be": (TEXT * 8)[: 1024 * 1024],
}
LARGE = {
    "noise": random.Random(2).randbytes(9 * 1024 * 1024),
    "text": b"".join(b'{"id": %d, "text": "where is my order"}\n' % i for i in range(100_000)),
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
    some = chosen.sample(ends + inside, 48) if blob.size > 1_000_000 else ends + inside
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


def put_large(store: BlobStore, kind: str) -> tuple[Blob, Path, list[Path]]:
    """A large blob, its recipe and its packs, those with its content first."""
    blob, recipe = put(store, LARGE[kind])
    packs = [Path(store.driver.where(key)) for key, _ in store.driver.list("packs/")]
    for pack in packs:
        pack.chmod(0o644)
    assert recipe.suffix == ".recipe"
    assert packs
    return blob, recipe, sorted(packs, key=lambda p: -p.stat().st_size)


def refusal(call: Callable[[Blob], object], blob: Blob) -> Damaged | None:
    try:
        made = call(blob)
    except Damaged as error:
        return error
    if isinstance(made, io.IOBase):
        made.close()
    return None


def flip(path: Path, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(bit // 8)
        byte = file.read(1)[0]
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))


@pytest.mark.parametrize("kind", LARGE)
def test_one_flipped_bit_anywhere_in_a_recipe_is_refused(store: BlobStore, kind: str) -> None:
    blob, recipe, _ = put_large(store, kind)
    bits = 8 * recipe.stat().st_size
    for bit in {*range(8 * 16), *range(bits - 8 * 34, bits), *random.Random(4).sample(range(bits), 100)}:
        flip(recipe, bit)
        with pytest.raises(DigestMismatch) as caught:
            store.read(blob)
        assert (caught.value.file, caught.value.digest) == (str(recipe), blob.digest)
        flip(recipe, bit)
    flip(recipe, 1000)
    refused(store, blob, recipe)
    put(store, LARGE[kind])
    assert store.read(blob) == LARGE[kind]


@pytest.mark.parametrize("kind", ["noise", pytest.param("text", marks=pytest.mark.matrix)])
def test_one_flipped_bit_anywhere_in_a_pack_is_refused_or_found_by_a_check_of_the_pack(
    store: BlobStore, kind: str
) -> None:
    """What no blob needs, such as a footer that is known already, a reader does not read; `verify` does."""
    blob, _, packs = put_large(store, kind)
    chosen = random.Random(5)
    for pack in packs:
        name, size = pack.stem, pack.stat().st_size
        chunks = 8 * (size - 48 - 56 * int.from_bytes(pack.read_bytes()[-48:-44], "little"))
        inside = [*range(64, 72), chunks - 1, *(chosen.randrange(64, chunks) for _ in range(12))]
        outside = [
            *range(0, 64, 3),
            *(chosen.randrange(chunks, 8 * size) for _ in range(24)),
            *range(8 * size - 400, 8 * size, 7),
        ]
        for bit in inside + outside:
            flip(pack, bit)
            with pytest.raises(BadForm):
                check_pack(store.driver, name, size)
            if bit in inside[:4]:
                refused(store, blob, pack)
            error = refusal(store.check, blob)
            if error is None:
                assert bit in outside or _in_a_gap(pack, bit)
            else:
                assert (error.file, error.digest) == (str(pack), blob.digest)
            flip(pack, bit)
            check_pack(store.driver, name, size)
    assert store.read(blob) == LARGE[kind]


def _in_a_gap(pack: Path, bit: int) -> bool:
    data = pack.read_bytes()
    footer = packs_format.read_footer(pack.stem, len(data), lambda at, n: data[at : at + n])
    return not any(
        o <= bit // 8 < o + s for o, s in zip(footer["offset"].tolist(), footer["stored"].tolist(), strict=True)
    )


@pytest.mark.parametrize("kind", LARGE)
def test_a_flipped_bit_in_what_finds_the_chunks_is_refused_by_who_has_no_index_yet(store: BlobStore, kind: str) -> None:
    blob, recipe, packs = put_large(store, kind)
    for bit in (3, 8 * packs[0].stat().st_size - 1, 8 * (packs[0].stat().st_size - 60)):
        flip(packs[0], bit)
        fresh = BlobStore.local(store.driver.root, cache=store.cache)  # type: ignore[attr-defined]
        for call in (fresh.read, fresh.open, fresh.path, fresh.check):
            with pytest.raises(Damaged) as caught:
                call(blob)
            assert caught.value.digest == blob.digest
            assert caught.value.file in (str(recipe), str(packs[0]))
        put(fresh, LARGE[kind])
        assert fresh.read(blob) == LARGE[kind]
        check_pack(fresh.driver, packs[0].stem, packs[0].stat().st_size)


@pytest.mark.parametrize("kind", ["text", pytest.param("noise", marks=pytest.mark.matrix)])
def test_truncated_extended_emptied_and_zeroed_packs_and_recipes_are_refused_and_healed(
    store: BlobStore, kind: str
) -> None:
    blob, recipe, packs = put_large(store, kind)
    for path in (recipe, *packs):
        good = path.read_bytes()
        for damaged in (good[:-1], good[: len(good) // 2], b"", good + b"\0", good + good, bytes(len(good))):
            path.unlink()
            path.write_bytes(damaged)
            for fresh in (store, BlobStore.local(store.driver.root, cache=store.cache)):  # type: ignore[attr-defined]
                for call in (fresh.read, fresh.open, fresh.path, fresh.check):
                    error = refusal(call, blob)
                    if error is None:  # what follows the chunks is read by nobody who knows the pack
                        assert fresh is store
                        assert path is not recipe
                        assert damaged.startswith(good[:-1])
                        shutil.rmtree(store.cache.root, ignore_errors=True)
                    else:
                        assert error.digest == blob.digest
                        assert error.file in (str(recipe), str(path))
            put(store, LARGE[kind])
            assert path.read_bytes() == good
            assert store.path(blob).read_bytes() == LARGE[kind]
            shutil.rmtree(store.cache.root)


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
    gc.collect()
    before = len(os.listdir("/dev/fd"))
    for _ in range(50):
        for call in (store.read, store.check, store.open, store.path):
            try:
                call(blob)
            except DigestMismatch as error:
                errors.append(error)
    assert len(errors) == 200
    assert len(os.listdir("/dev/fd")) <= before, "fewer where another test's were collected meanwhile"
