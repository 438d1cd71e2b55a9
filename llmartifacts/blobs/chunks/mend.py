"""A damaged pack made right again, to the very bytes that it had, from good copies of its chunks in other packs.

A chunk that is stored damaged and comes again is written to a new pack; but the damaged pack still claims to hold it,
and an index that is made from the packs alone may believe that one. So it gets the chunk back too: other content that
needs it is whole again, and `verify` has nothing to say any more.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import blake3
import zstandard

from llmartifacts.blobs.base import Driver
from llmartifacts.blobs.chunks import pack as packs
from llmartifacts.blobs.chunks.check import chunk_error, rows_of
from llmartifacts.blobs.chunks.index import ChunkIndex
from llmartifacts.blobs.chunks.pack import FULL, HEADER, LEVEL, RAW
from llmartifacts.blobs.chunks.reader import ChunkReader
from llmartifacts.blobs.disk import write_file
from llmartifacts.blobs.failures import storage_errors
from llmartifacts.blobs.forms import BadForm
from llmartifacts.errors import Damaged

_LARGEST = 4 * FULL
"""Bytes of the largest pack that is taken into memory; what this release writes is well below."""


def mend(driver: Driver, index: ChunkIndex, pack: str, new_file: Callable[[], Path]) -> None:
    """Put good copies of its chunks into a stored pack, as far as there are any; replaced as a whole, or not at all.

    One whose footer is damaged stays as it is: nothing can be found by it, and it harms nobody.

    Args:
        driver: Where the packs are.
        index: Knows the good copies.
        pack: Name of the pack.
        new_file: Gives a path for what replaces it.

    Raises:
        NotAllowed: There is no room, or the store is read-only.
        Unreachable: The disk fails.
    """
    key = packs.key_of(pack)
    size = driver.size(key)
    if size is None or size > _LARGEST:
        return
    with storage_errors("read", driver.where(key)):
        found = packs.reader_of(lambda at, length: driver.get(key, at, length))(0, size)
    data = bytearray(found)
    data[: len(HEADER)] = HEADER
    try:
        footer = packs.read_footer(pack, len(data), lambda at, length: data[at : at + length])
    except BadForm:
        return
    reader = ChunkReader(driver, index)
    end = len(HEADER)
    for chunk, offset, stored, length, crc, form in rows_of(footer):
        data[end:offset] = bytes(offset - end)
        end = offset + stored
        if chunk_error(data[offset:end], chunk, length, crc, form) is None:
            continue
        copy = _copy(reader, chunk, pack)
        if copy is not None and form != RAW:
            copy = zstandard.ZstdCompressor(level=LEVEL).compress(copy)
        if copy is not None and len(copy) == stored and (form == RAW or zlib.crc32(copy) == crc):
            data[offset:end] = copy
    if data != found:
        file = new_file()
        with storage_errors("write", file):
            write_file(file, bytes(data))
        driver.replace(key, file)


def _copy(reader: ChunkReader, chunk: bytes, beside: str) -> bytes | None:
    """The content of a chunk in another pack, if it is right there."""
    place = reader.index.find([chunk]).get(chunk)
    if place is None or place.pack == beside:
        return None
    try:
        content = bytes(reader.chunk(chunk, place))
    except (BadForm, Damaged):
        return None
    return content if blake3.blake3(content).digest() == chunk else None
