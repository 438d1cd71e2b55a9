"""Tables of chunks, virtual objects and ranges: what one end writes, the other understands, and refuses what lies."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import blake3
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.blobs.chunks import table
from llmartifacts.blobs.chunks.entries import entries_of, ids_of
from llmartifacts.blobs.chunks.recipe import Encoded, Recipe
from llmartifacts.blobs.forms import BadForm
from llmartifacts.client.driver import _groups, _parts
from llmartifacts.client.index import ParentIndex, RemoteIndex
from llmartifacts.errors import InvalidInput
from llmartifacts.records.digest import digest_of
from llmartifacts.versioning.downloads import VirtualObject, _joined
from llmartifacts.wire.transfer import MAX_RANGES, parse_ranges

Chunks = list[tuple[int, int, bool]]
chunk_lists = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 50), st.booleans()), min_size=1, max_size=40)


def name(number: int) -> bytes:
    return blake3.blake3(str(number).encode()).digest()


def rows_of(lengths: Sequence[int]) -> table.Rows:
    rows = np.zeros(len(lengths), table.ROW)
    rows["id"] = np.frombuffer(b"".join(name(n) for n in range(len(lengths))), "V32")
    rows["stored"] = rows["length"] = lengths
    return rows


@given(st.binary(max_size=100), st.lists(st.integers(0, 1 << 24), max_size=20), st.data())
def test_a_table_comes_back_as_it_was(recipe: bytes, lengths: list[int], data: st.DataObject) -> None:
    rows = rows_of(lengths)
    head = data.draw(st.integers(0, len(rows)))
    back = table.read(table.write(recipe, head, rows))
    assert back[:2] == (recipe, head)
    assert back[2].tobytes() == rows.tobytes()
    assert table.tag_of(back[2]) == table.tag_of(rows)


@given(st.binary(max_size=300))
def test_any_other_bytes_are_refused_or_a_table(data: bytes) -> None:
    try:
        recipe, head, rows = table.read(data)
    except BadForm:
        return
    assert table.write(recipe, head, rows) == data


@pytest.mark.parametrize(
    ("column", "value"), [("form", 2), ("length", (1 << 24) + 1), ("stored", (1 << 24) + 1), ("stored", 6)]
)
def test_a_table_with_a_number_that_is_none_is_refused(column: str, value: int) -> None:
    rows = rows_of([5, 5])
    rows[column][1] = value
    with pytest.raises(BadForm):
        table.read(table.write(b"recipe", 0, rows))


def test_the_head_of_a_recipe_is_all_but_its_largest_stream() -> None:
    def entries(*numbers: int, length: int = 10) -> table.Entries:
        return entries_of([name(n) for n in numbers], [length] * len(numbers))

    streams = {"ids": entries(3, 4, 3), "rows": entries(5, 6, 4, 5, length=1000), "lists": entries(7)}
    recipe = Recipe("faiss-ivf", 1, 1, Encoded({}, streams), nodes=entries(1, 2))
    found, head = table.order_of(recipe)
    assert ids_of(found) == [name(n) for n in (1, 2, 3, 4, 7, 5, 6)]
    assert head == 5


@given(chunk_lists, st.data())
def test_a_range_of_a_virtual_object_is_what_lies_there(chunks: Chunks, data: st.DataObject) -> None:
    packs: dict[int, bytearray] = {}
    pack, offset, whole = [], [], bytearray()
    rows = rows_of([length for _, length, _ in chunks])
    rows["form"] = [int(compressed) for *_, compressed in chunks]
    for number, (which, length, compressed) in enumerate(chunks):
        body = packs.setdefault(which, bytearray(b"header.."))
        for into in (body, whole):
            into += bytes(0 if compressed else -len(into) % 8)
        pack.append(which)
        offset.append(len(body))
        body += bytes([number + 1]) * length
        whole += bytes([number + 1]) * length
    starts = table.starts_of(rows)
    assert [whole[at] for at in starts.tolist()] == list(range(1, len(chunks) + 1))
    stored = rows["stored"].astype(np.int64)
    names = [f"{n}" for n in range(4)]
    made = VirtualObject("tag", names, np.array(pack, np.int32), np.array(offset, np.int64), starts, stored)
    assert made.size == len(whole)
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, len(whole)))
    spans = made.spans(start, end)
    assert b"".join(bytes(packs[int(p)][at : at + n]) if p else bytes(n) for p, at, n in spans) == whole[start:end]
    assert all(length > 0 for *_, length in spans)
    if all(which == chunks[0][0] for which, *_ in chunks):
        assert len(made.spans(0, len(whole))) == 1
    read = bytearray()
    for which_pack, begin, parts in _joined(spans):
        at = begin
        for skipped, length in parts:
            at += skipped
            read += packs[int(which_pack)][at : at + length] if which_pack else bytes(length)
            at += length
    assert read == whole[start:end]


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=5))
def test_ranges_are_understood_or_refused(given_: list[tuple[int, int]]) -> None:
    header = "bytes=" + ", ".join(f"{a}-{b}" for a, b in given_)
    try:
        found = parse_ranges(header, 60)
    except InvalidInput:
        assert any(a > b or a >= 60 for a, b in given_) or sum(min(b, 59) - a + 1 for a, b in given_) > 60
    else:
        assert found == [(a, min(b, 59) + 1) for a, b in given_]


@pytest.mark.parametrize(
    "header",
    ["bytes=", "bytes=-", "bytes=a-b", "bytes=1-2,", "bytes=5-3", "bytes=--5", "bytes=1 - 2x", "bytes=" + "9" * 40],
)
def test_a_malformed_range_is_refused(header: str) -> None:
    with pytest.raises(InvalidInput):
        parse_ranges(header, 100)


def test_another_unit_means_all_of_it() -> None:
    assert parse_ranges("items=0-5", 100) is None


def test_more_ranges_than_there_can_be_are_refused() -> None:
    assert len(parse_ranges("bytes=" + ",".join(["0-0"] * MAX_RANGES), 10_000) or []) == MAX_RANGES
    with pytest.raises(InvalidInput):
        parse_ranges("bytes=" + ",".join(["0-0"] * (MAX_RANGES + 1)), 10_000)


def multipart(parts: list[tuple[int, int]], content: bytes, boundary: str = "b0undary") -> bytes:
    made = b"".join(
        f"\r\n--{boundary}\r\ncontent-range: bytes {a}-{b - 1}/{len(content)}\r\n\r\n".encode() + content[a:b]
        for a, b in parts
    )
    return made + f"\r\n--{boundary}--\r\n".encode()


CONTENT = bytes(range(256)) * 4


@given(st.lists(st.integers(0, 1024), min_size=2, max_size=12, unique=True))
def test_an_answer_with_several_ranges_is_taken_apart(points: list[int]) -> None:
    points.sort()
    wanted = list(pairwise(points))[::2]
    found = _parts(multipart(wanted, CONTENT), "multipart/byteranges; boundary=b0undary", wanted)
    assert found is not None
    assert [bytes(part) for part in found] == [CONTENT[a:b] for a, b in wanted]


def test_an_answer_with_other_ranges_than_were_asked_for_is_refused() -> None:
    media = "multipart/byteranges; boundary=b0undary"
    wanted = [(0, 10), (20, 30)]
    good = multipart(wanted, CONTENT)
    assert _parts(good, media, wanted) is not None
    assert _parts(good, "application/octet-stream", wanted) is None
    assert _parts(good[:-40], media, wanted) is None
    assert _parts(good, media, [(0, 10), (20, 31)]) is None
    assert _parts(good, media, [(20, 30), (0, 10)]) is None
    assert _parts(multipart(wanted, CONTENT, "other"), media, wanted) is None


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 10), st.integers(1, 9 << 20)), max_size=200))
def test_ranges_that_are_asked_for_together_are_in_order_and_bounded(given_: list[tuple[str, int, int]]) -> None:
    groups = list(_groups(given_))
    assert [one for group in groups for one in group] == given_
    for group in groups:
        assert len({key for key, *_ in group}) == 1
        assert len(group) <= 64
        assert len(group) == 1 or sum(length for *_, length in group) <= 8 << 20
        ends = [start + length for _, start, length in group]
        assert all(start >= end for (_, start, _), end in zip(group[1:], ends, strict=False))


def test_an_index_finds_chunks_in_the_tables_that_it_was_told() -> None:
    index, digest = RemoteIndex(), digest_of(b"x")
    index.add_table(digest, rows_of([3, 4, 5]))
    found = index.find([name(1), name(99)])
    assert list(found) == [name(1)]
    assert (found[name(1)].pack, found[name(1)].offset, found[name(1)].stored) == (digest[7:], 8, 4)
    index.forget(digest[7:])
    assert index.find([name(1)]) == {}


def test_only_chunks_of_parents_are_relied_on() -> None:
    index = RemoteIndex()
    index.add_table(digest_of(b"parent"), rows_of([3, 4, 5]))
    parents = ParentIndex(index)
    assert parents.find([name(0)]) == {}
    parents.allow(entries_of([name(0), name(7)], [3, 1]))
    assert set(parents.find([name(0), name(1), name(7)])) == {name(0), name(7)}
