"""verify sees whatever is wrong with packs and recipes, and names the versions concerned."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from llmartifacts.blobs.chunks import pack as packs
from llmartifacts.errors import BlobMissing, Damaged

MB = 1 << 20
Shelf = Any


def noise(seed: int, size: int = MB + MB // 4) -> bytes:
    return random.Random(seed).randbytes(size)


LINES = b"".join(b'{"id": %d, "text": "where is my order %d"}\n' % (i, i * i) for i in range(30_000))


@pytest.fixture
def full(shelf: Shelf) -> Shelf:
    """Two versions, the second of which is compressed text; two packs."""
    shelf.log("kb", noise(1))
    shelf.log("lines", LINES + b"\n")
    return shelf


def pack_of(shelf: Shelf, reference: str) -> Path:
    blobs = shelf.parts.blobs
    recipe = blobs.recipe(shelf.registry.find(reference).manifest.files[0].blob)
    (name,) = {place.pack for place in blobs.chunks.places(recipe).values()}
    path = shelf.place / "blobs" / packs.key_of(name)
    path.chmod(0o644)
    return path


def test_all_is_well_says_how_much_was_looked_at(full: Shelf) -> None:
    for read_data in (False, True):
        found = full.registry.verify(read_data=read_data)
        assert (found.ok, found.versions, found.blobs, found.packs) == (True, 2, 2, 2)


@pytest.mark.parametrize("reference", ["kb:v1", "lines:v1"])
def test_each_flipped_bit_in_a_pack_shows(full: Shelf, reference: str) -> None:
    path = pack_of(full, reference)
    good = path.read_bytes()
    footer = packs.read_footer(path.stem, len(good), lambda at, n: good[at : at + n])
    chosen = random.Random(1)
    ends = (footer["offset"] + footer["stored"]).tolist()
    gaps = [end for end, start in zip(ends, footer["offset"].tolist()[1:], strict=False) if end < start][:2]
    first = len(good) - packs.TRAILER - footer.nbytes
    bits = [8 * at + chosen.randrange(8) for at in (0, 5, *gaps, first, first + 33, first + 41, first + 45, first + 55)]
    bits += [8 * at + chosen.randrange(8) for at in range(len(good) - packs.TRAILER, len(good), 7)]
    bits += [chosen.randrange(8 * len(good)) for _ in range(12)]
    for bit in bits:
        with path.open("r+b") as file:
            file.seek(bit // 8)
            file.write(bytes([good[bit // 8] ^ 1 << bit % 8]))
        found = full.registry.verify(read_data=True)
        told = [p for p in found.problems if isinstance(p, Damaged) and p.file == str(path)]
        assert told, (bit, found.problems)
        assert all(p.versions == (reference,) for p in told), bit
        with path.open("r+b") as file:
            file.seek(bit // 8)
            file.write(good[bit // 8 : bit // 8 + 1])
    assert full.registry.verify(read_data=True).ok


def test_a_flipped_bit_that_no_version_needs_shows_too(full: Shelf) -> None:
    path = pack_of(full, "kb:v1")
    full.forget("kb:v1")
    data = bytearray(path.read_bytes())
    data[5000] ^= 4
    path.write_bytes(data)
    told = [p for p in full.registry.verify(read_data=True).problems if "pack" in str(p)]
    assert [p.versions for p in told if isinstance(p, Damaged)] == [()]


@pytest.mark.parametrize("read_data", [False, True])
@pytest.mark.parametrize("harm", ["missing", "short", "empty"])
def test_a_pack_that_is_missing_or_short_shows_without_reading(full: Shelf, harm: str, read_data: bool) -> None:
    path = pack_of(full, "kb:v1")
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: -packs.TRAILER - 1] if harm == "short" else b"")
    problems = full.registry.verify(read_data=read_data).problems
    assert problems
    assert {p.versions for p in problems if isinstance(p, Damaged)} == {("kb:v1",)}
    assert any(p.file == str(path) for p in problems if isinstance(p, Damaged))


def test_a_lost_index_is_made_anew_from_the_packs_and_a_wrong_one_shows(full: Shelf) -> None:
    with full.parts.metadata.writing() as s:
        s.run("update chunk set place_offset = place_offset + 100000000")
    assert any("outside of the pack" in str(p) for p in full.registry.verify().problems)
    with full.parts.metadata.writing() as s:
        s.run("delete from chunk")
        s.run("delete from pack")
    assert full.registry.verify(read_data=True).ok
    for name in full.files("packs"):
        (full.place / "blobs" / name).unlink()
    found = full.registry.verify()
    assert [type(p) for p in found.problems] == [BlobMissing, BlobMissing]
