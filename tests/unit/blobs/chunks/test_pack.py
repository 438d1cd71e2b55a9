from __future__ import annotations

import random
import zlib
from pathlib import Path
from typing import Any

import blake3
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmartifacts.blobs.chunks import pack as packs
from llmartifacts.blobs.chunks.check import check_pack
from llmartifacts.blobs.chunks.entries import MAX_CHUNK
from llmartifacts.blobs.chunks.pack import FOOTER, HEADER, RAW, ZSTD, PackWriter, key_of, parse_key
from llmartifacts.blobs.forms import BadForm
from llmartifacts.blobs.memory import MemoryDriver


def written(path: Path, contents: list[tuple[bytes, bool]]) -> tuple[str, bytes]:
    """A pack of contents, each with whether to compress it: its name and its bytes."""
    import zstandard

    writer = PackWriter(path)
    for content, compress in contents:
        data = zstandard.ZstdCompressor(level=3).compress(content) if compress else content
        writer.add(blake3.blake3(content).digest(), data, len(content), ZSTD if compress else RAW)
    name = writer.finish()
    data = path.read_bytes()
    assert len(data) == writer.size
    path.unlink()
    return name, data


def footer_of(name: str, data: bytes) -> Any:
    return packs.read_footer(name, len(data), lambda at, n: data[at : at + n])


def is_right(name: str, data: bytes) -> bool:
    driver = MemoryDriver()
    driver.put_if_absent(key_of(name), data)
    try:
        check_pack(driver, name, len(data))
    except BadForm:
        return False
    return True


def crafted(rows: list[tuple[bytes, int, int, int, int, int]], body: bytes) -> tuple[str, bytes]:
    """A pack whose footer says what it is told to say, under its right name."""
    footer = np.array(rows, FOOTER).tobytes()
    digest = blake3.blake3(footer).digest()
    end = len(rows).to_bytes(4, "little") + (1).to_bytes(4, "little") + digest + b"LLMAPKE\n"
    return digest.hex(), HEADER + body + footer + end


CHUNKS = st.lists(st.tuples(st.binary(min_size=1, max_size=300), st.booleans()), max_size=20)


@settings(deadline=None)
@given(contents=CHUNKS)
def test_what_goes_into_a_pack_comes_out(contents: list[tuple[bytes, bool]], tmp_path_factory: Any) -> None:
    name, data = written(tmp_path_factory.mktemp("pack") / "new", contents)
    footer = footer_of(name, data)
    assert len(footer) == len(contents)
    for (content, compress), (chunk, offset, stored, length, crc, form) in zip(contents, footer.tolist(), strict=True):
        assert chunk == blake3.blake3(content).digest()
        assert length == len(content)
        assert form == (ZSTD if compress else RAW)
        if not compress:
            assert offset % 8 == 0
            assert data[offset : offset + stored] == content
        else:
            assert crc == zlib.crc32(data[offset : offset + stored])
    assert is_right(name, data)
    places = packs.places(name, footer)
    assert places.keys() == {blake3.blake3(content).digest() for content, _ in contents}


SOME = [(b"some text, twice some text " * 20, True), (b"odd length", False), (b"\0" * 9, False), (b"tail" * 30, True)]


def test_every_altered_bit_of_a_pack_is_found(tmp_path: Path) -> None:
    name, data = written(tmp_path / "new", SOME)
    silent = []
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        if is_right(name, bytes(damaged)):
            silent.append(bit)
    assert is_right(name, data)
    assert silent == []


def test_a_pack_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    name, data = written(tmp_path / "new", SOME)
    for length in range(len(data)):
        with pytest.raises(BadForm):
            footer_of(name, data[:length])


def test_a_pack_is_the_same_whenever_it_is_written(tmp_path: Path) -> None:
    assert written(tmp_path / "one", SOME) == written(tmp_path / "two", SOME)


def test_a_pack_under_another_name_is_refused(tmp_path: Path) -> None:
    name, data = written(tmp_path / "new", SOME)
    other, _ = written(tmp_path / "new", SOME[1:])
    footer_of(name, data)
    with pytest.raises(BadForm, match="altered"):
        footer_of(other, data)


def test_bytes_between_chunks_that_are_not_zero_are_found(tmp_path: Path) -> None:
    name, data = written(tmp_path / "new", [(b"abc", False), (b"def", False)])
    footer = footer_of(name, data)
    assert data[11:16] == bytes(5)
    assert packs.gaps_are_zero(footer, lambda at, n: data[at : at + n])
    altered = data[:13] + b"x" + data[14:]
    assert not packs.gaps_are_zero(footer_of(name, altered), lambda at, n: altered[at : at + n])


ID = bytes(32)


@pytest.mark.parametrize(
    ("rows", "body"),
    [
        ([(ID, 8, 5, 6, 0, RAW)], b"12345"),  # a raw chunk that says it is longer than it is
        ([(ID, 8, 5, 5, 0, RAW)], b"1234"),  # more than there is
        ([(ID, 8, 4, 4, 0, RAW)], b"12345"),  # less
        ([(ID, 16, 5, 5, 0, RAW)], b"12345678abcde"),  # room for something hidden before it
        ([(ID, 8, 5, 5, 0, RAW), (ID, 8, 5, 5, 0, RAW)], b"12345"),  # one over the other
        ([(ID, 13, 5, 5, 0, RAW), (ID, 8, 5, 5, 0, RAW)], b"1234567890"),  # in another order
        ([(ID, 2**64 - 8, 5, 5, 0, RAW)], b"12345"),
        ([(ID, 8, 5, MAX_CHUNK + 1, 0, ZSTD)], b"12345"),
        ([(ID, 8, 2**32 - 1, 5, 0, RAW)], b"12345"),
        ([(ID, 8, 5, 5, 0, 2)], b"12345"),  # a form from the future
    ],
)
def test_a_footer_that_lies_is_refused(rows: list[tuple[bytes, int, int, int, int, int]], body: bytes) -> None:
    name, data = crafted(rows, body)
    with pytest.raises(BadForm):
        footer_of(name, data)


def test_a_count_that_lies_is_refused_without_reading_so_much() -> None:
    name, data = crafted([(ID, 8, 5, 5, 0, RAW)], b"12345")
    footer_of(name, data)
    lying = data[:-48] + (2**32 - 1).to_bytes(4, "little") + data[-44:]
    asked = []

    def read(at: int, n: int) -> bytes:
        asked.append(n)
        return lying[at : at + n]

    with pytest.raises(BadForm, match="longer than the file"):
        packs.read_footer(name, len(lying), read)
    assert max(asked) < 100


def test_a_pack_of_a_later_version_is_refused() -> None:
    name, data = crafted([(ID, 8, 5, 5, 0, RAW)], b"12345")
    with pytest.raises(BadForm, match="known version"):
        footer_of(name, data[:-44] + (2).to_bytes(4, "little") + data[-40:])


def test_noise_is_no_pack() -> None:
    chance = random.Random(1)
    for _ in range(200):
        data = chance.randbytes(chance.randrange(300))
        with pytest.raises(BadForm):
            footer_of("0" * 64, data)


def test_a_key_names_a_pack() -> None:
    name = "ab" * 32
    assert parse_key(key_of(name)) == name
    for wrong in ("packs/ab/x.pack", f"packs/cd/{name}.pack", f"packs/ab/{name}", f"sha256/ab/{name}"):
        assert parse_key(wrong) is None
