"""Inverted files, taken apart and put together."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import blake3
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmartifacts.blobs.chunks import pack as packs
from llmartifacts.blobs.chunks.entries import ENTRY, entries_of
from llmartifacts.blobs.codecs.faiss_ivf import FaissIvfCodec
from llmartifacts.blobs.codecs.faiss_rows import FaissRowsCodec
from llmartifacts.blobs.forms import BadForm
from llmartifacts.errors import BlobMissing

CODEC = FaissIvfCodec()
KINDS = ["sequential", "random", "hashed", "repeated"]
FACTORIES = ["IVF32,Flat", "IVF32,SQ8", "IVF32,PQ8x4", "PCA16,IVF32,Flat", "IVF32_HNSW,Flat"]
COUNT, DIMENSION = 6000, 32


def documents_gone(count: int, share: float) -> Any:
    chosen = np.random.default_rng(3).choice(count // 8, max(1, int(count * share / 8)), replace=False)
    return (chosen[:, None] * 8 + np.arange(8)).ravel()


@pytest.mark.parametrize("ids", KINDS)
@pytest.mark.parametrize("factory", FACTORIES)
def test_versions_come_back_as_they_were(factory: str, ids: str, chunks: Any, make: Any) -> None:
    rows, names = make.vectors(COUNT + 200, DIMENSION), make.identifiers(ids, COUNT + 200)
    made = make.index(factory, rows[:COUNT], names[:COUNT])
    parent = chunks.stored(CODEC, make.file_of(made))
    make.add(made, rows[COUNT : COUNT + 100], names[COUNT : COUNT + 100])
    parent = chunks.stored(CODEC, make.file_of(made), parent)
    gone = names[documents_gone(COUNT, 0.005)] if ids != "repeated" else names[:1]
    made.remove_ids(gone)
    make.add(made, rows[COUNT + 100 :], names[COUNT + 100 :])
    parent = chunks.stored(CODEC, make.file_of(made), parent)
    retrained = make.index(factory, rows[50:], names[50:], train=rows[2000:])
    chunks.stored(CODEC, make.file_of(retrained), parent)


@pytest.mark.parametrize("ids", KINDS[:3])
def test_a_version_costs_what_changed(ids: str, disk: Any, make: Any) -> None:
    count, dimension = 20_000, 384
    rows, names = make.vectors(count + 400, dimension), make.identifiers(ids, count + 400)
    train = rows[:1000]
    made = make.index("IVF20,Flat", rows[:count], names[:count], train=train)
    first = disk.stored(CODEC, make.file_of(made))
    make.add(made, rows[count : count + 200], names[count : count + 200])
    appended = make.file_of(made)
    second = disk.stored(CODEC, appended, first)
    assert disk.added < 0.0125 * len(appended)
    assert second.encoded.dead == 0
    made.remove_ids(names[documents_gone(count, 0.005)])
    make.add(made, rows[count + 200 :], names[count + 200 :])
    changed = make.file_of(made)
    third = disk.stored(CODEC, changed, second)
    assert disk.added < 0.0155 * len(changed)
    assert 0 < third.encoded.dead <= 100 * 4 * dimension
    retrained = make.index("IVF20,Flat", rows[200:], names[200:], train=rows[5000:6000])
    rebuilt = make.file_of(retrained)
    disk.stored(CODEC, rebuilt, third)
    assert disk.added < 0.03 * len(rebuilt)


@pytest.mark.parametrize("factory", ["Flat", "IDMap2,Flat"])
def test_a_second_index_over_the_same_vectors_shares_them(factory: str, chunks: Any, make: Any) -> None:
    rows = make.vectors(10_000, 384)
    names = make.identifiers("random", len(rows)) if factory != "Flat" else None
    flat = chunks.stored(FaissRowsCodec(), make.file_of(make.index(factory, rows, names)))
    inverted = make.file_of(make.index("IVF10,Flat", rows, names, train=rows[:1000]))
    chunks.stored(CODEC, inverted, flat)
    assert chunks.added < 0.012 * len(inverted)


def test_sequential_ids_share_with_a_flat_index_without_being_told(chunks: Any, make: Any) -> None:
    rows = make.vectors(10_000, 384)
    chunks.stored(FaissRowsCodec(), make.file_of(make.index("Flat", rows)))
    inverted = make.file_of(make.index("IVF10,Flat", rows, train=rows[:1000]))
    chunks.stored(CODEC, inverted)
    assert chunks.added < 0.02 * len(inverted)


def test_rows_whose_ids_were_given_anew_are_found_by_content(chunks: Any, make: Any) -> None:
    rows = make.vectors(10_000, 384)
    first = chunks.stored(CODEC, make.file_of(make.index("IVF10,Flat", rows, train=rows[:1000])))
    again = make.file_of(make.index("IVF10,Flat", rows[5:], train=rows[:1000]))
    chunks.stored(CODEC, again, first)
    assert chunks.added < 0.02 * len(again)


def test_keeping_only_whole_chunks_leaves_no_removed_row(chunks: Any, make: Any) -> None:
    rows, names = make.vectors(COUNT, DIMENSION), make.identifiers("random", COUNT)
    made = make.index("IVF16,Flat", rows, names)
    first = chunks.stored(CODEC, make.file_of(made))
    made.remove_ids(names[:3])
    second = chunks.stored(CODEC, make.file_of(made), first)
    secret = [row.tobytes() for row in rows[:3]]
    assert second.encoded.dead == 3 * 4 * DIMENSION
    assert all(row in chunks.content(second, "rows") for row in secret)
    third = chunks.stored(CODEC, make.file_of(made), second, keep=1.0)
    assert third.encoded.dead == 0
    assert not any(row in chunks.content(third, "rows") for row in secret)
    assert chunks.added < 0.2 * len(make.file_of(made))


def test_a_changed_row_under_the_same_id_is_stored_anew(chunks: Any, make: Any) -> None:
    rows = make.vectors(COUNT, DIMENSION)
    first = chunks.stored(CODEC, make.file_of(make.index("IVF16,Flat", rows, train=rows[:2000])))
    changed = rows.copy()
    changed[100:104] += 1
    second = chunks.stored(CODEC, make.file_of(make.index("IVF16,Flat", changed, train=rows[:2000])), first)
    assert second.encoded.dead == 4 * 4 * DIMENSION


def test_a_damaged_chunk_of_the_parent_is_not_kept(disk: Any, make: Any) -> None:
    """A row that is gone cannot be compared: only the chunk's id tells that it was altered."""
    rows = make.vectors(COUNT, DIMENSION)
    made = make.index("IVF16,Flat", rows)
    first = disk.stored(CODEC, make.file_of(made))
    made.remove_ids(np.arange(3))
    place = disk.reader().places([first.encoded.streams["rows"][:1]["id"].tobytes()])[0]
    file = Path(disk.driver.where(packs.key_of(place.pack)))
    file.chmod(0o644)
    with file.open("r+b") as pack:
        pack.seek(place.offset)  # the first row: id 0, now gone
        pack.write(b"\xff" * 8)
    second = disk.put(CODEC, make.file_of(made), first)
    assert second.encoded.streams["rows"][0]["id"].tobytes() != first.encoded.streams["rows"][0]["id"].tobytes()
    assert disk.got(CODEC, second) == make.file_of(made)


def test_a_parent_that_is_not_there_is_no_hindrance(chunks: Any, make: Any) -> None:
    data = make.file_of(make.index("IVF16,Flat", make.vectors(COUNT, DIMENSION)))
    first = chunks.stored(CODEC, data)
    lost = dict(first.encoded.streams)
    lost["rows"] = lost["rows"].copy()
    lost["rows"]["id"][0] = np.void(b"\x01" * 32)
    parent = replace(first, encoded=replace(first.encoded, streams=lost))
    chunks.stored(CODEC, data, parent)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_small_history_comes_back(make: Any, data: Any) -> None:
    factory = data.draw(st.sampled_from(["IVF3,Flat", "IVF2,SQ8", "IVF3,SQ4", "IVF2,PQ2x2"]))
    dimension = data.draw(st.sampled_from([2, 6, 10]))
    train = make.vectors(60, dimension)
    made = make.index(factory, train[:0], train=train)
    with tempfile.TemporaryDirectory() as folder:
        store, parent = make.store(folder), None
        for step in range(data.draw(st.integers(1, 4))):
            new = data.draw(st.lists(st.integers(-3, 30), max_size=40))
            make.add(made, make.vectors(len(new), dimension, seed=step), np.array(new, np.int64))
            gone = data.draw(st.lists(st.integers(-3, 30), max_size=4))
            made.remove_ids(np.array(gone, np.int64))
            keep = data.draw(st.sampled_from([0.0, 0.5, 1.0]))
            if made.ntotal == 0:
                assert store.put(CODEC, make.file_of(made), parent, keep) is None
                continue
            parent = store.stored(CODEC, make.file_of(made), parent, keep)
            assert keep < 1 or parent.encoded.dead == 0


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(["dead", "order", "lists", "ids", "rows", "rest"]),
    kind=st.sampled_from(["alter", "cut", "longer", "huge", "gone", "number", "size"]),
    places=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=4),
    key=st.sampled_from(["code_bytes", "offset", "lists"]),
    number=st.sampled_from([-1, 0, 1, 7, 1 << 16, (1 << 16) + 1, 1 << 31, 1 << 52, "many"]),
)
def test_a_hostile_recipe_gives_other_bytes_or_is_refused(
    hostile: Any, name: str, kind: str, places: list[tuple[int, int]], key: str, number: Any
) -> None:
    store, recipe, parts = hostile.store, hostile.recipe, hostile.parts
    streams = dict(parts)
    content = bytearray(streams.pop(name))
    parameters, size = dict(recipe.encoded.parameters), recipe.size
    where, value = places[0]
    if kind == "alter":
        for at, byte in places:
            content[at % len(content)] = byte
    elif kind == "cut":
        del content[where % len(content) :]
    elif kind == "longer":
        content += bytes(value + 1)
    elif kind == "huge":
        at = where % len(content) // 4 * 4
        content[at : at + 4] = b"\xff\xff\xff\xff"
    elif kind == "number":
        parameters[key] = number
    elif kind == "size":
        size = {0: 0, 1: 1, 2: size - 1, 3: size + 1}.get(value % 5, 1 << 40)
    if kind != "gone":
        streams[name] = bytes(content)
    made = {key: store.chunk(value) for key, value in streams.items()}
    bad = replace(recipe, size=size, encoded=replace(recipe.encoded, parameters=parameters, streams=made))
    total = 0
    try:
        for part in CODEC.decode(bad, store):
            total += len(part)
            assert total <= size
    except (BadForm, BlobMissing):
        return
    assert total == size


class Loose:
    """Chunks by their content, as a reader gives them; a stand-in for a store that somebody else wrote."""

    def __init__(self) -> None:
        self.contents: dict[bytes, bytes] = {}

    def chunk(self, content: bytes) -> Any:
        name = blake3.blake3(content).digest()
        self.contents[name] = content
        return entries_of([name], [len(content)]) if content else np.zeros(0, ENTRY)

    def read(self, entries: Any) -> Any:
        return (self.contents[entry["id"].tobytes()] for entry in entries)

    def locate(self, entries: Any) -> Any:
        from llmartifacts.blobs.chunks.reader import Located

        views = [np.frombuffer(self.contents[entry["id"].tobytes()], np.uint8) for entry in entries]
        return Located(views, np.arange(len(views)), np.zeros(len(views), np.int64))


class Victim:
    """A good recipe, the contents of its streams, and where to put others. Its `repr` is short, for reports."""

    def __init__(self, recipe: Any, parts: dict[str, bytes]) -> None:
        self.store, self.recipe, self.parts = Loose(), recipe, parts


@pytest.fixture(scope="module")
def hostile(make: Any, tmp_path_factory: Any) -> Any:
    """A recipe with dead rows and an order of its own."""
    store = make.store(tmp_path_factory.mktemp("hostile"))
    rows, names = make.vectors(400, 8), make.identifiers("random", 400)
    made = make.index("IVF5,Flat", rows, names)
    first = store.stored(CODEC, make.file_of(made))
    made.remove_ids(names[::40])
    recipe = store.stored(CODEC, make.file_of(made), first)
    assert {"dead", "order", "lists", "ids", "rows", "rest"} == set(recipe.encoded.streams)
    return Victim(recipe, {name: store.content(recipe, name) for name in recipe.encoded.streams})
