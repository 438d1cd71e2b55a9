"""What `cdc` and `lines` share: any bytes come back, however they come in, and a small edit costs little."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmartifacts.blobs.chunks.entries import bytes_of, entries_of, ids_of, lengths_of
from llmartifacts.blobs.chunks.recipe import Encoded, Recipe
from llmartifacts.blobs.codecs.cdc import CdcCodec
from llmartifacts.blobs.codecs.lines import LinesCodec
from llmartifacts.blobs.codecs.stream import DATA, StreamCodec, joined
from llmartifacts.blobs.forms import BadForm

CODECS = [CdcCodec, LinesCodec]
NOISE = random.Random(1).randbytes(9_000_000)
TEXT = b"".join(b'{"id": %d, "text": "order %d"}\n' % (i, i * i) for i in range(200_000))
LONG_LINES = b"".join(
    random.Random(i).randbytes(random.Random(i).choice([10, 900, 70_000, 400_000])).replace(b"\n", b"x") + b"\n"
    for i in range(60)
)
ONE_LINE = random.Random(2).randbytes(6_000_000).replace(b"\n", b"x")
BIG = {"noise": NOISE, "text": TEXT, "long lines": LONG_LINES, "one line": ONE_LINE, "empty lines": b"\n" * 5_000_000}


class Pieces:
    """A source that gives pieces of any size."""

    view = None

    def __init__(self, data: bytes, size: int) -> None:
        self._data, self._size = data, size

    @property
    def head(self) -> bytes:
        return self._data[: 1 << 16]

    def pieces(self) -> Iterator[bytes]:
        for at in range(0, len(self._data), self._size):
            yield self._data[at : at + self._size]


def ends_of(codec: StreamCodec, data: bytes) -> list[int]:
    ends = list(codec.cuts(memoryview(data)))
    assert ends == sorted(set(ends))
    assert ends[-1] == len(data)
    assert ends[0] > 0
    return ends


def stored(chunks: Any, codec: StreamCodec, data: bytes, size: int = 1 << 20) -> Recipe:
    """Encode from pieces and publish; its inverse is tried."""
    from llmartifacts.blobs.chunks import pack as packs
    from llmartifacts.blobs.chunks.writer import ChunkWriter

    writer = ChunkWriter(chunks.reader(), lambda: chunks._scratch / f"{next(chunks._numbers)}.pack")
    encoded = codec.encode(Pieces(data, size), writer, writer.reader)
    assert encoded is not None
    writer.finish()
    for pack in writer.packs:
        chunks.driver.put_if_absent(packs.key_of(pack.name), pack.file)
    chunks.index.add([pack.to_index() for pack in writer.packs])
    chunks.added = writer.added
    recipe = Recipe(codec.name, codec.version, len(data), encoded)
    assert b"".join(bytes(part) for part in codec.decode(recipe, chunks.reader())) == data
    return recipe


@pytest.mark.parametrize("kind", CODECS, ids=lambda c: c.name)
@settings(deadline=None, max_examples=60)
@given(
    data=st.one_of(
        st.binary(min_size=1, max_size=3000),
        st.lists(st.binary(max_size=50), max_size=40).map(b"\n".join).filter(bool),
        st.tuples(st.binary(min_size=1, max_size=9), st.integers(1, 60_000)).map(lambda t: t[0] * t[1]),
    )
)
@example(data=b"\n")
@example(data=b"\n" * 100_000)
@example(data=b"x" * 1_000_000)
@example(data=b"x" * 1_000_000 + b"\n" + b"y")
@example(data=bytes(300_000))
def test_cuts_go_up_to_the_end_and_no_chunk_is_too_long(kind: type[StreamCodec], data: bytes) -> None:
    codec = kind()
    ends = ends_of(codec, data)
    lengths = [end - start for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    assert max(lengths) <= codec.longest


@pytest.mark.parametrize("kind", CODECS, ids=lambda c: c.name)
@pytest.mark.parametrize("data", BIG.values(), ids=BIG)
def test_what_goes_in_comes_out_and_cuts_do_not_depend_on_the_pieces(
    chunks: Any, kind: type[StreamCodec], data: bytes
) -> None:
    codec = kind()
    first = stored(chunks, codec, data)
    for size in (300_001, 1_234_567, 5_000_000, len(data)):
        again = stored(chunks, codec, data, size)
        assert again.encoded.streams[DATA].tobytes() == first.encoded.streams[DATA].tobytes()
        assert chunks.added == 0
    assert lengths_of(first.encoded.streams[DATA]).max() <= codec.longest


@pytest.mark.parametrize(
    ("kind", "name"), [(CdcCodec, "noise"), (CdcCodec, "text"), (LinesCodec, "text"), (LinesCodec, "long lines")]
)
@pytest.mark.parametrize("edit", ["insert", "remove", "change", "prepend", "append"])
def test_a_small_edit_changes_few_chunks(chunks: Any, kind: type[StreamCodec], name: str, edit: str) -> None:
    data = BIG[name]
    middle = data.index(b"\n", len(data) // 2) + 1
    edited = {
        "insert": data[:middle] + b"something new\n" + data[middle:],
        "remove": data[:middle] + data[middle + 40 :],
        "change": data[:middle] + b"#####" + data[middle + 5 :],
        "prepend": b"a first line\n" + data,
        "append": data + b"a last line\n",
    }[edit]
    before = set(ids_of(stored(chunks, kind(), data).encoded.streams[DATA]))
    after = ids_of(stored(chunks, kind(), edited).encoded.streams[DATA])
    assert len(set(after) - before) <= 4
    assert len(after) > 30


def test_both_together_take_any_bytes() -> None:
    for head in (b"", b"\0", b"x" * 65536, b"a\n" * 9, NOISE[:65536]):
        assert CdcCodec().suits(head)


@pytest.mark.parametrize(
    ("head", "suits"),
    [
        (TEXT[:65536], True),
        (b"a,b,c\n1,2,3\n" * 5000, True),
        (b"one line\n" + b"x" * 60_000, False),
        (b"x" * 65_536, False),
        (b"", False),
        (b"a\0b\n" * 10_000, False),
        (("zwölf Zeilen\n" * 5000).encode(), True),
        (("zwölf Zeilen\n" * 5000).encode("latin-1"), True),
    ],
)
def test_lines_takes_text_with_lines_of_a_sensible_length(head: bytes, suits: bool) -> None:
    assert LinesCodec().suits(head[:65536]) is suits


def test_lines_cuts_at_the_ends_of_lines_and_about_as_large_as_it_says() -> None:
    ends = ends_of(LinesCodec(), TEXT)
    assert {TEXT[end - 1 : end] for end in ends} == {b"\n"}
    assert 10_000 < len(TEXT) / len(ends) < 30_000


def test_lines_of_any_length_make_chunks_of_the_same_size() -> None:
    for length in (4, 20, 500, 4000):
        chance = random.Random(length)
        data = b"".join(chance.randbytes(length).replace(b"\n", b"x") + b"\n" for _ in range(2_000_000 // (length + 1)))
        mean = len(data) / len(ends_of(LinesCodec(), data))
        assert 8_000 < mean < 40_000, f"lines of {length} bytes make chunks of {mean}"


def test_lines_without_a_last_newline_lose_nothing(chunks: Any) -> None:
    for data in (TEXT[:-1], TEXT + b"tail", b"only one"):
        stored(chunks, LinesCodec(), data)


def test_cdc_makes_chunks_of_the_size_that_it_says() -> None:
    assert 40_000 < len(NOISE) / len(ends_of(CdcCodec(), NOISE)) < 100_000


@pytest.mark.parametrize("kind", CODECS, ids=lambda c: c.name)
def test_nothing_is_no_blob_for_it(chunks: Any, kind: type[StreamCodec]) -> None:
    assert kind().encode(Pieces(b"", 10), None, None) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "streams",
    [{}, {"other": entries_of([bytes(32)], [10])}, {DATA: entries_of([bytes(32)], [9])}, {DATA: entries_of([], [])}],
)
def test_a_recipe_whose_chunks_have_another_size_than_the_blob_is_refused_before_anything_is_read(streams: Any) -> None:
    recipe = Recipe("cdc", 1, 10, Encoded({}, streams))
    with pytest.raises(BadForm, match="another size"):
        joined(recipe, None)  # type: ignore[arg-type]
    assert bytes_of(entries_of([bytes(32)], [10])) == 10
