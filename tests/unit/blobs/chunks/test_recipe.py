from __future__ import annotations

import json
import random
from typing import Any

import blake3
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmartifacts.blobs.chunks import recipe as recipes
from llmartifacts.blobs.chunks.entries import ENTRY, Entries, entries_of, ids_of
from llmartifacts.blobs.chunks.recipe import Encoded, Recipe
from llmartifacts.blobs.forms import BadForm
from llmartifacts.errors import NewerFormat
from llmartifacts.records.digest import digest_of


class Nodes:
    """Chunks of entries, in memory."""

    def __init__(self) -> None:
        self.held: dict[bytes, bytes] = {}

    def put(self, entries: Entries, ends: list[int]) -> Entries:
        raw = entries.tobytes()
        stops = [end * ENTRY.itemsize for end in ends]
        parts = [raw[a:b] for a, b in zip([0, *stops[:-1]], stops, strict=True)]
        names = [blake3.blake3(part).digest() for part in parts]
        self.held.update(zip(names, parts, strict=True))
        return entries_of(names, [len(part) for part in parts])

    def get(self, entries: Entries) -> bytes:
        return b"".join(self.held[name] for name in ids_of(entries))


def some_entries(count: int, seed: int = 1) -> Entries:
    chance = random.Random(seed)
    return entries_of([chance.randbytes(32) for _ in range(count)], [chance.randrange(1, 70_000) for _ in range(count)])


def same(one: Recipe, other: Recipe) -> bool:
    plain = [(r.codec, r.version, r.size, r.parent, dict(r.encoded.parameters), r.encoded.dead) for r in (one, other)]
    streams = [{n: e.tobytes() for n, e in r.encoded.streams.items()} for r in (one, other)]
    return plain[0] == plain[1] and streams[0] == streams[1]


@settings(deadline=None)
@given(
    counts=st.dictionaries(st.text(max_size=9), st.sampled_from([0, 1, 30, 256, 257, 700]), max_size=4),
    parameters=st.dictionaries(st.text(max_size=9), st.integers(0, 2**53 - 1) | st.text(max_size=9), max_size=4),
    size=st.integers(0, 2**53 - 1),
    has_parent=st.booleans(),
)
def test_a_recipe_comes_out_as_it_went_in(
    counts: dict[str, int], parameters: dict[str, int | str], size: int, has_parent: bool
) -> None:
    nodes = Nodes()
    streams = {name: some_entries(count, seed) for seed, (name, count) in enumerate(counts.items())}
    recipe = Recipe("cdc", 3, size, Encoded(parameters, streams, 5), digest_of(b"before") if has_parent else None)
    back = recipes.read(recipes.write(recipe, nodes.put), nodes.get)
    assert same(recipe, back)
    assert set(ids_of(back.nodes)) == nodes.held.keys()
    assert len(back.entries()) == sum(counts.values()) + len(back.nodes)


def test_long_streams_go_to_nodes_that_two_versions_share() -> None:
    nodes = Nodes()
    first = some_entries(20_000)
    changed = np.concatenate([first[:9000], some_entries(3, 2), first[9000:], some_entries(200, 3)])
    one = recipes.write(Recipe("cdc", 1, 1, Encoded({}, {"data": first})), nodes.put)
    before = len(nodes.held)
    recipes.write(Recipe("cdc", 1, 1, Encoded({}, {"data": changed})), nodes.put)
    assert before > 300
    assert len(nodes.held) - before < 20
    assert len(one) < 20_000 * 36 / 20


def test_what_decides_where_a_node_ends_cannot_make_one_long() -> None:
    nodes = Nodes()
    for first_byte in (0, 1):  # a mark everywhere, and none
        entries = entries_of([bytes([first_byte]) + bytes(31)] * 5000, [7] * 5000)
        recipe = Recipe("cdc", 1, 35_000, Encoded({}, {"data": entries}))
        assert same(recipes.read(recipes.write(recipe, nodes.put), nodes.get), recipe)
    assert max(map(len, nodes.held.values())) <= 128 * ENTRY.itemsize


def small() -> bytes:
    return recipes.write(Recipe("cdc", 1, 70, Encoded({"a": 1}, {"data": some_entries(3)})), Nodes().put)


def test_every_flipped_bit_of_a_recipe_is_refused() -> None:
    good = small()
    for bit in range(8 * len(good)):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadForm):
            recipes.read(bytes(bad), Nodes().get)


def test_a_recipe_cut_short_or_followed_by_something_is_refused() -> None:
    good = small()
    for bad in (*(good[:n] for n in range(0, len(good), 3)), good + b"\0", good * 2):
        with pytest.raises(BadForm):
            recipes.read(bad, Nodes().get)


def signed(header: Any, body: bytes = b"", head: bytes = b"LLMARC1\n", length: int | None = None) -> bytes:
    """A recipe that says anything, with a right sum."""
    raw = header if isinstance(header, bytes) else json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    made = head + (len(raw) if length is None else length).to_bytes(4, "little") + raw + body
    return made + blake3.blake3(made).digest()


def header(**changed: Any) -> dict[str, Any]:
    plain = {"codec": "cdc", "version": 1, "size": 10, "parent": None, "parameters": {}, "dead": 0, "streams": []}
    return {**plain, **changed}


def stream(**changed: Any) -> dict[str, Any]:
    return {"name": "data", "entries": 1, "stored": 1, "nodes": False, **changed}


ENTRY_OF_TEN = entries_of([bytes(32)], [10]).tobytes()


def test_the_plain_header_of_the_next_test_is_read() -> None:
    assert recipes.read(signed(header(streams=[stream()]), ENTRY_OF_TEN), Nodes().get).size == 10


NO_PARENTS: list[Any] = [7, "sha256:", "md5:" + "0" * 32, []]
NO_PARAMETERS: list[Any] = [None, [], "x", 3]
NO_STREAMS: list[Any] = [None, 3, "abc", [None], [[]], [{}], {"a": 1}]


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"[]",
        b"7",
        b"null",
        b"{}",
        b"{",
        b"\xff",
        b'{"codec":"cdc","codec":"cdc"}',
        b"[" * 10_000,
        *({k: v for k, v in header().items() if k != gone} for gone in header()),
        *(
            header(**{name: value})
            for name in ("size", "version", "dead")
            for value in (-1, 2**53, 1.5, "1", None, True)
        ),
        *(header(parent=value) for value in NO_PARENTS),
        *(header(parameters=value) for value in NO_PARAMETERS),
        *(header(streams=value) for value in NO_STREAMS),
        *(header(streams=[stream(**{n: v})]) for n in ("entries", "stored") for v in (-1, 2, 2**60, "1", None, True)),
        header(streams=[stream(entries=0, stored=0)] * 17),
        header(streams=[stream(nodes=True, entries=2**40)]),
        header(streams=[stream(nodes=True, entries=3)]),
        header(streams=[stream(nodes=True, entries=7_000_000)] * 2),
        header(streams=[]),
    ],
    ids=repr,
)
def test_a_hostile_header_is_refused(bad: Any) -> None:
    def no_nodes(entries: Entries) -> bytes:
        raise AssertionError("nodes were read although their sizes are wrong")

    with pytest.raises(BadForm):
        recipes.read(signed(bad, ENTRY_OF_TEN), no_nodes)


@pytest.mark.parametrize("length", [0, 1, 2**31, 2**32 - 1])
def test_a_header_whose_length_lies_is_refused(length: int) -> None:
    with pytest.raises(BadForm):
        recipes.read(signed(header(), length=length), Nodes().get)


def test_nodes_that_hold_something_else_than_was_said_are_refused() -> None:
    body = entries_of([bytes(32)], [36]).tobytes()
    data = signed(header(streams=[stream(nodes=True, entries=1)]), body)
    for content in (b"", bytes(72)):
        with pytest.raises(BadForm):
            recipes.read(data, lambda entries, content=content: content)  # type: ignore[misc]
    assert len(recipes.read(data, lambda entries: ENTRY_OF_TEN).encoded.streams["data"]) == 1


def test_nodes_of_all_streams_together_have_a_limit() -> None:
    """Sixteen streams that name one node over and over are no way to fill the memory."""
    count = (1 << 24) // ENTRY.itemsize
    node = entries_of([bytes(32)], [count * ENTRY.itemsize]).tobytes() * 16
    many = [stream(name=str(i), nodes=True, entries=16 * count, stored=16) for i in range(2)]

    def never(entries: Entries) -> bytes:
        raise AssertionError("nodes were read")

    with pytest.raises(BadForm, match="more chunks"):
        recipes.read(signed(header(streams=many), node * 2), never)


def test_a_form_from_the_future_is_told_apart_from_damage() -> None:
    with pytest.raises(NewerFormat) as caught:
        recipes.read(signed({}, head=b"LLMARC2\n"), Nodes().get, origin="here")
    assert caught.value.origin == "here"
    assert caught.value.hint()
