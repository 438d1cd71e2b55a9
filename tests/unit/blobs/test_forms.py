from __future__ import annotations

import io
import json
import random
import zlib
from contextlib import suppress

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.blobs.forms import FORMS, RAW, ZSTD, BadForm, Reader, encode, form_for, key_of, parse_key
from llmartifacts.records.digest import digest_of

TEXT = b"".join(json.dumps({"id": i, "text": "where is my order"}).encode() + b"\n" for i in range(300))


def content(form: str, stored: bytes, limit: int) -> bytes:
    with Reader(form, io.BytesIO(stored)) as reader:
        return b"".join(reader.pieces(limit))


@pytest.mark.parametrize("form", FORMS)
@given(data=st.binary(max_size=3000))
def test_content_comes_out_of_a_form_as_it_went_in(form: str, data: bytes) -> None:
    assert content(form, encode(form, data), len(data) + 1) == data


@given(pieces=st.lists(st.binary(max_size=2000), max_size=8))
def test_a_frame_that_was_written_piece_by_piece_is_read(pieces: list[bytes]) -> None:
    """As an earlier release stored large text: such a frame does not say how long its content is."""
    stream = zstandard.ZstdCompressor().compressobj()
    frame = b"".join([stream.compress(p) for p in pieces]) + stream.flush()
    trailer = encode(ZSTD, b"")[-12:-4] + zlib.crc32(frame).to_bytes(4, "little")
    assert content(ZSTD, frame + trailer, 20_000) == b"".join(pieces)


@pytest.mark.parametrize(
    ("data", "form"),
    [
        (TEXT, ZSTD),
        (TEXT[:1000], RAW),  # less than a block of the file system
        (bytes(100_000), RAW),  # compresses, but is no text
        (bytes(range(1, 256)) * 3, RAW),
        (TEXT + b"\0", RAW),
        (TEXT * 10 + b"\0", ZSTD),  # only the beginning is looked at
        (b"", RAW),
    ],
)
def test_text_is_compressed_where_that_pays_and_nothing_else(data: bytes, form: str) -> None:
    assert form_for(data) == form


def test_random_letters_stay_raw_because_the_probe_says_so() -> None:
    letters = bytes(33 + (b % 200) for b in random.Random(1).randbytes(20_000))
    assert b"\0" not in letters
    assert form_for(letters) == RAW


def test_every_flipped_bit_of_a_compressed_object_is_noticed() -> None:
    stored = encode(ZSTD, TEXT)
    silent = []
    for bit in range(len(stored) * 8):
        damaged = bytearray(stored)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            if content(ZSTD, bytes(damaged), len(TEXT) + 1) == TEXT:
                silent.append(bit)
        except BadForm:
            pass
    assert silent == []


def test_zstandard_alone_does_not_notice_every_flipped_bit() -> None:
    """Why there is a checksum of the stored bytes: some bits of a frame mean nothing to a decoder."""
    frame, silent = zstandard.ZstdCompressor(level=3).compress(TEXT), 0
    for bit in range(len(frame) * 8):
        damaged = bytearray(frame)
        damaged[bit // 8] ^= 1 << bit % 8
        with suppress(zstandard.ZstdError):
            silent += zstandard.ZstdDecompressor().stream_reader(bytes(damaged)).read(len(TEXT) + 1) == TEXT
    assert silent > 0


@pytest.mark.parametrize("cut", [1, 3, 4, 11, 12, 13, 40])
def test_a_truncated_compressed_object_is_refused(cut: int) -> None:
    with pytest.raises(BadForm):
        content(ZSTD, encode(ZSTD, TEXT)[:-cut], len(TEXT) + 1)


@pytest.mark.parametrize("more", [b"\0", b"x" * 12, b"y" * 500_000])
def test_a_compressed_object_with_something_appended_is_refused(more: bytes) -> None:
    with pytest.raises(BadForm):
        content(ZSTD, encode(ZSTD, TEXT) + more, len(TEXT) + 1)


@pytest.mark.parametrize("stored", [b"", b"x", b"x" * 100, bytes(1000)])
def test_what_was_never_compressed_is_refused(stored: bytes) -> None:
    with pytest.raises(BadForm):
        content(ZSTD, stored, 1000)


def test_a_reader_never_gives_more_than_it_was_asked_for() -> None:
    bomb = encode(ZSTD, bytes(50_000_000))
    assert len(bomb) < 10_000
    assert content(ZSTD, bomb, 1000) == bytes(1000)


def test_a_frame_that_asks_for_a_huge_window_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27, compression_level=1)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    frame = stream.compress(TEXT) + stream.flush()
    with pytest.raises(BadForm):
        content(ZSTD, frame + bytes(12), len(TEXT) + 1)


def test_the_zstd_tool_reads_a_compressed_object() -> None:
    reader = zstandard.ZstdDecompressor().stream_reader(encode(ZSTD, TEXT), read_across_frames=True)
    assert reader.read() == TEXT


@pytest.mark.parametrize("form", FORMS)
def test_a_key_names_the_digest_and_the_form(form: str) -> None:
    digest = digest_of(b"x")
    assert parse_key(key_of(digest, form)) == (digest, form)


@pytest.mark.parametrize(
    "key", ["", "sha256/ab/x", "sha256/00/" + "a" * 64, "sha256/aa/" + "a" * 64 + ".gz", "a/b/c.zst"]
)
def test_a_key_of_something_else_is_no_blob(key: str) -> None:
    assert parse_key(key) is None
