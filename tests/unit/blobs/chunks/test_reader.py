from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from llmartifacts.blobs.chunks import pack as packs
from llmartifacts.blobs.chunks.entries import MAX_CHUNK, Entries, ids_of
from llmartifacts.blobs.chunks.index import NewPack
from llmartifacts.blobs.chunks.pack import RAW, ZSTD, Place
from llmartifacts.blobs.chunks.reader import decompress
from llmartifacts.blobs.forms import BadForm
from llmartifacts.errors import BlobMissing, Damaged

NOISE = [random.Random(i).randbytes(3000 + 17 * i) for i in range(12)]
TEXT = [(b"line %d of a text\n" % i) * (50 + i) for i in range(12)]


def contents(reader: Any, entries: Entries, **how: Any) -> list[bytes]:
    return [bytes(content) for content in reader.read(entries, **how)]


@pytest.mark.parametrize("kind", ["bench", "mapped"])
def test_chunks_come_out_in_the_order_asked_for(kind: str, request: pytest.FixtureRequest) -> None:
    bench = request.getfixturevalue(kind)
    wanted = [*NOISE, *TEXT]
    entries = np.concatenate([bench.put(*NOISE), bench.put(*TEXT)])
    assert contents(bench.reader(), entries, verify=True) == wanted
    order = random.Random(1).choices(range(len(wanted)), k=100)
    assert contents(bench.reader(), entries[order]) == [wanted[i] for i in order]
    assert contents(bench.reader(), entries[:0]) == []


@pytest.mark.parametrize("seed", range(20))
def test_a_mapped_and_an_unmapped_driver_give_the_same(bench: Any, mapped: Any, seed: int) -> None:
    chance = random.Random(seed)
    wanted = chance.choices([*NOISE, *TEXT], k=chance.randrange(60))
    for one in (bench, mapped):
        one.put(*NOISE)
        one.put(*TEXT)
    entries = bench.put(*wanted)
    assert contents(bench.reader(), entries) == contents(mapped.reader(), entries, verify=True) == wanted


# --- ranges


def test_chunks_that_lie_together_are_fetched_at_once(bench: Any) -> None:
    entries = bench.put(*NOISE)
    bench.driver.asked.clear()
    assert contents(bench.reader(), entries) == NOISE
    assert len(bench.driver.asked) == 1
    assert bench.driver.asked[0][2] < sum(map(len, NOISE)) + 8 * len(NOISE)


@pytest.mark.parametrize("which", [NOISE, TEXT], ids=["raw", "compressed"])
def test_a_blob_is_fetched_with_few_requests(bench: Any, which: list[bytes]) -> None:
    entries = bench.put(*which)
    bench.driver.asked.clear()
    assert b"".join(bytes(part) for part in bench.reader().runs(entries)) == b"".join(which)
    assert len(bench.driver.asked) == 1


@pytest.mark.parametrize("kind", ["bench", "mapped"])
def test_runs_of_chunks_give_the_same_bytes_in_any_order(kind: str, request: pytest.FixtureRequest) -> None:
    bench = request.getfixturevalue(kind)
    aligned = [bytes([i]) * 4096 for i in range(50)]  # neighbours without a gap
    wanted = [*NOISE, *aligned, *TEXT]
    entries = np.concatenate([bench.put(*NOISE), bench.put(*aligned, compress=False), bench.put(*TEXT)])
    for order in ([*range(74)], [*range(74)][::-1], random.Random(3).choices(range(74), k=300), [*range(12, 62)] * 2):
        got = b"".join(bytes(part) for part in bench.reader().runs(entries[order]))
        assert got == b"".join(wanted[i] for i in order)


def test_a_small_gap_is_read_and_a_large_one_is_not(bench: Any) -> None:
    wide = random.Random(0).randbytes(100_000)
    entries = bench.put(NOISE[0], NOISE[1], NOISE[2], wide, NOISE[3])
    bench.driver.asked.clear()
    assert contents(bench.reader(), entries[[0, 2]]) == [NOISE[0], NOISE[2]]
    assert len(bench.driver.asked) == 1
    bench.driver.asked.clear()
    assert contents(bench.reader(), entries[[2, 4]]) == [NOISE[2], NOISE[3]]
    assert len(bench.driver.asked) == 2


def test_one_request_has_a_limit(bench: Any) -> None:
    large = [random.Random(i).randbytes(1 << 20) for i in range(20)]
    entries = bench.put(*large)
    bench.driver.asked.clear()
    assert contents(bench.reader(), entries) == large
    assert 3 <= len(bench.driver.asked) <= 4
    assert max(length for _, _, length in bench.driver.asked) <= 8 << 20


def test_what_lies_in_another_order_is_fetched_piece_by_piece(bench: Any) -> None:
    entries = bench.put(*NOISE)
    bench.driver.asked.clear()
    assert contents(bench.reader(), entries[::-1]) == NOISE[::-1]
    assert len(bench.driver.asked) == len(NOISE)


def test_a_seed_is_asked_before_a_pack_that_is_elsewhere_and_not_before_a_mapped_one(bench: Any, mapped: Any) -> None:
    at_hand = {}
    for one in (bench, mapped):
        entries = one.put(*NOISE)
        at_hand = dict(zip(ids_of(entries), NOISE, strict=True))
    asked: list[bytes] = []

    def seed(name: bytes) -> bytes | None:
        asked.append(name)
        return at_hand[name] if len(asked) < 5 else None

    bench.driver.asked.clear()
    assert contents(bench.reader(seed=seed), entries) == NOISE
    assert len(asked) == len(entries)  # of each, also beside those that have to be fetched
    assert len(bench.driver.asked) == 1
    assert bench.driver.asked[0][1] > sum(map(len, NOISE[:4]))
    asked.clear()
    assert contents(mapped.reader(seed=seed), entries) == NOISE
    assert asked == []


def test_a_seed_of_the_wrong_length_is_refused_and_one_of_wrong_bytes_is_found_where_that_is_asked_for(
    bench: Any,
) -> None:
    entries = bench.put(NOISE[0])
    with pytest.raises(BadForm, match="bytes, not"):
        contents(bench.reader(seed=lambda name: b"short"), entries)
    wrong = bytes(len(NOISE[0]))
    with pytest.raises(BadForm, match="altered"):
        contents(bench.reader(seed=lambda name: wrong), entries, verify=True)


# --- where they lie


@pytest.mark.parametrize("kind", ["bench", "mapped"])
def test_raw_and_compressed_chunks_are_located(kind: str, request: pytest.FixtureRequest) -> None:
    bench = request.getfixturevalue(kind)
    wanted = [*NOISE, *TEXT, *NOISE[:3]]
    entries = np.concatenate([bench.put(*NOISE), bench.put(*TEXT), bench.put(*NOISE[:3])])
    found = bench.reader().locate(entries)
    got = [
        found.views[view][offset : offset + len(content)].tobytes()
        for view, offset, content in zip(found.view.tolist(), found.offset.tolist(), wanted, strict=True)
    ]
    assert got == wanted
    assert len(set(found.view.tolist())) == (1 if kind == "bench" else 2)  # what has no file, or is compressed: a spool
    nothing = bench.reader().locate(entries[:0])
    assert len(nothing.view) == len(nothing.offset) == 0


@pytest.mark.parametrize("kind", ["bench", "mapped"])
@pytest.mark.parametrize("which", [NOISE, TEXT], ids=["raw", "compressed"])
def test_lengths_that_lie_are_refused_wherever_the_chunk_lies(
    kind: str, which: list[bytes], request: pytest.FixtureRequest
) -> None:
    bench = request.getfixturevalue(kind)
    entries = bench.put(*which)
    for lie in (0, 1, len(which[0]) - 1, len(which[0]) + 1, 2**32 - 1):
        lying = entries.copy()
        lying["length"][0] = lie
        for ask in (
            lambda e: contents(bench.reader(), e),
            bench.reader().locate,
            lambda e: list(bench.reader().runs(e)),
        ):
            with pytest.raises(BadForm):
                ask(lying)


# --- hostile places


@pytest.mark.parametrize("kind", ["bench", "mapped"])
def test_places_that_lie_are_refused_in_little_memory(kind: str, request: pytest.FixtureRequest) -> None:
    bench = request.getfixturevalue(kind)
    entries = bench.put(*NOISE)
    (pack,) = bench.packs()
    size = len(bench.stored(pack))
    name, length = ids_of(entries)[0], len(NOISE[0])
    for place in (
        Place(pack, size + 5, length, length, RAW),
        Place(pack, size - 5, length, length, RAW),
        Place(pack, 2**50, length, length, RAW),
        Place(pack, 8, 2**32 - 1, length, RAW),
        Place(pack, 8, length - 1, length, RAW),
        Place(pack, 8, length, length, ZSTD),
        Place(pack, 8, length, 2**31, ZSTD),
        Place(pack, 8, 0, length, ZSTD),
    ):
        bench.index.add([NewPack(pack, size, {name: place})])
        for ask in (lambda e: contents(bench.reader(), e), bench.reader().locate):
            with pytest.raises((BadForm, Damaged)):
                ask(entries[:1])


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    import zstandard

    bomb = zstandard.ZstdCompressor().compress(bytes(1 << 30))
    assert len(bomb) < 100_000
    for claimed in (1, 1000, MAX_CHUNK, MAX_CHUNK + 1, 1 << 30, 2**32 - 1):
        with pytest.raises(BadForm):
            decompress(bomb, claimed)
    stream = zstandard.ZstdCompressor().compressobj()  # says nothing of its size
    with pytest.raises(BadForm):
        decompress(stream.compress(bytes(1000)) + stream.flush(), 1000)
    with pytest.raises(BadForm):
        decompress(b"nothing of the kind", 1000)


# --- damage


@pytest.mark.parametrize("kind", ["bench", "mapped"])
def test_a_missing_pack_is_named(kind: str, request: pytest.FixtureRequest) -> None:
    bench = request.getfixturevalue(kind)
    entries = bench.put(*NOISE)
    (pack,) = bench.packs()
    where = bench.driver.where(packs.key_of(pack))
    for ask in (lambda e: contents(bench.reader(), e), bench.reader().locate):
        bench.index.refresh()
        data = bench.stored(pack)
        bench.driver.delete(packs.key_of(pack))
        with pytest.raises(BlobMissing) as caught:
            ask(entries)
        assert caught.value.file == where
        bench.driver.put_if_absent(packs.key_of(pack), data)


@pytest.mark.parametrize("kind", ["bench", "mapped"])
def test_a_pack_that_was_rewritten_since_it_was_looked_up_is_found_again(
    kind: str, request: pytest.FixtureRequest
) -> None:
    bench = request.getfixturevalue(kind)
    entries = bench.put(*NOISE)
    (old,) = bench.packs()
    stale = bench.reader()
    places = stale.places(ids_of(entries))
    assert {place.pack for place in places} == {old}
    writer = bench.writer()
    writer.reader.index = type(bench.index)(type(bench.driver)() if kind == "bench" else type(bench.driver)("/nowhere"))
    writer.add(b"".join(NOISE[1:]) + NOISE[0], list(np.cumsum([len(n) for n in [*NOISE[1:], NOISE[0]]])))
    writer.finish()
    for made in writer.packs:
        bench.driver.put_if_absent(packs.key_of(made.name), made.file)
    bench.driver.delete(packs.key_of(old))
    assert contents(stale, entries) == NOISE


@pytest.mark.parametrize("kind", ["bench", "mapped"])
@pytest.mark.parametrize("which", [NOISE, TEXT], ids=["raw", "compressed"])
def test_an_altered_chunk_is_found_where_that_is_asked_for(
    kind: str, which: list[bytes], request: pytest.FixtureRequest
) -> None:
    bench = request.getfixturevalue(kind)
    entries = bench.put(*which)
    (pack,) = bench.packs()
    place = bench.index.find(ids_of(entries))[ids_of(entries)[3]]
    data = bytearray(bench.stored(pack))
    data[place.offset + place.stored // 2] ^= 1
    bench.replace(pack, bytes(data))
    assert contents(bench.reader(), entries[:3], verify=True) == which[:3]
    with pytest.raises(BadForm):
        contents(bench.reader(), entries[3:4], verify=True)
