"""Rows as pieces: lines of JSON, cut where the content says so, compressed; and back, believing nothing.

A piece ends where a checksum of its last line says so and not after so many rows: rows that come or go change the piece
that they are in, and those after it stay what they were.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from llmartifacts.errors import Damaged, LlmartifactsError
from llmartifacts.metadata.dump import Column, Table
from llmartifacts.records.backup import MAX_PIECE, Piece
from llmartifacts.records.canonical import decode_json

if TYPE_CHECKING:
    import zstandard

_LEAST = 64 * 1024
_MEAN = 192 * 1024
_MOST = 1024 * 1024
_LEVEL = 3
_WINDOW = 8 * 1024 * 1024
_STEP = "The backup is damaged, or somebody made it up: take another one."

OBJECTS = Table(
    "objects",
    (Column("key", "text", True), Column("size", "number", True), Column("digest", "text", True)),
    ("key",),
    False,
)
"""What is stored: key in the registry's store, bytes there, digest of these bytes."""
PACKS = Table("packs", OBJECTS.columns, OBJECTS.key, False)


def to_lines(table: Table, rows: Iterable[Sequence[Any]]) -> Iterator[bytes]:
    """Rows as lines. Bytes become text of the characters U+0000 to U+00FF: most of them are JSON, and stay readable."""
    binary = [i for i, column in enumerate(table.columns) if column.type == "bytes"]
    encode = _ENCODER.encode
    for row in rows:
        values = list(row)
        for i in binary:
            if values[i] is not None:
                values[i] = values[i].decode("latin-1")
        yield encode(values).encode() + b"\n"


def cut(lines: Iterable[bytes]) -> Iterator[tuple[bytes, int]]:
    """Lines as pieces: the bytes of each, and how many lines."""
    held: list[bytes] = []
    size = 0
    for line in lines:
        held.append(line)
        size += len(line)
        # The longer a line, the likelier it is to be a last one: so the mean is one of bytes.
        if size >= _MOST or (size >= _LEAST and zlib.crc32(line) * _MEAN < len(line) << 32):
            yield b"".join(held), len(held)
            held, size = [], 0
    if held:
        yield b"".join(held), len(held)


def compress(data: bytes) -> bytes:
    """A piece as it is stored."""
    import zstandard

    return zstandard.ZstdCompressor(level=_LEVEL).compress(data)


def decompress(piece: Piece, stored: bytes, origin: str) -> bytes:
    """The lines of a piece whose digest was checked.

    Raises:
        Damaged: It holds something else, or more than it says.
    """
    import zstandard

    def lies(told: str) -> Damaged:
        return Damaged(f"a piece of the backup {told}", digest=piece.digest, file=origin, next_step=_STEP)

    if piece.length > MAX_PIECE:
        raise lies("is larger than any")
    reader = _decompressor().stream_reader(stored)
    try:
        data = bytes(reader.read(piece.length + 1))
    except (zstandard.ZstdError, MemoryError) as error:
        raise lies(f"cannot be unpacked: {error}") from None
    if len(data) != piece.length:
        raise lies(f"does not hold the {piece.length:,} bytes that it should")
    return data


def from_lines(table: Table, piece: Piece, data: bytes, origin: str) -> Iterator[tuple[Any, ...]]:
    """The rows of a piece, each checked against its table.

    Raises:
        Damaged: A line is no row of it.
    """
    binary = [i for i, column in enumerate(table.columns) if column.type == "bytes"]
    lines = data.split(b"\n")
    if lines.pop() or len(lines) != piece.rows:
        raise Damaged(
            f"a piece of {table.name} holds {len(lines):,} rows and should hold {piece.rows:,}",
            digest=piece.digest,
            file=origin,
            next_step=_STEP,
        )
    for line in lines:
        try:
            values = decode_json(line.decode())
            if type(values) is not list:
                raise ValueError("a line is no row")
            if len(values) == len(table.columns):
                for i in binary:
                    if type(values[i]) is str:
                        values[i] = values[i].encode("latin-1")
            wrong = table.check(values)
        except (LlmartifactsError, ValueError) as error:
            wrong = error.message if isinstance(error, LlmartifactsError) else str(error)
        if wrong:
            told = f"a piece of {table.name} holds what is no row of it: {wrong:.200}"
            raise Damaged(told, digest=piece.digest, file=origin, next_step=_STEP)
        yield tuple(values)


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False, allow_nan=False)


def _decompressor() -> zstandard.ZstdDecompressor:
    import zstandard

    return zstandard.ZstdDecompressor(max_window_size=_WINDOW)
