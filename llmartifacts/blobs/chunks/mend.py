"""A damaged pack made right again, to the very bytes that it had, from good copies of its chunks in other packs.

A chunk that is stored damaged and comes again is written to a new pack; but the damaged pack still claims to hold it,
and an index that is made from the packs alone may believe that one. So it gets the chunk back too: other content that
needs it is whole again, and `verify` has nothing to say any more.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
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


def mend_footer(
    driver: Driver,
    pack: str,
    size: int,
    rows: Sequence[tuple[bytes, int, int, int, int]],
    new_file: Callable[[], Path],
) -> bool:
    """Give a pack its header, its footer and the end after it back, to the bit; replaced as a whole, or not at all.

    The footer may be right and what is around it wrong; else it is made anew from what an index knows of the pack. It
    is the right one if the pack is called after it, so nothing is taken on trust.

    Args:
        driver: Where the packs are.
        pack: Name of the pack.
        size: Bytes that it should have; one that was cut is made as long again.
        rows: Id, offset, stored bytes, bytes and form of chunks in it, as far as they are known.
        new_file: Gives a path for what replaces it.

    Returns:
        Whether it was replaced.

    Raises:
        NotAllowed: There is no room, or the store is read-only.
        Unreachable: The disk fails.
    """
    key = packs.key_of(pack)
    if driver.size(key) is None or not len(HEADER) + packs.TRAILER <= size <= _LARGEST:
        return False
    with storage_errors("read", driver.where(key)):
        found = packs.reader_of(lambda at, length: driver.get(key, at, length))(0, size)
    data = bytearray(found.ljust(size, b"\0"))
    data[: len(HEADER)] = HEADER
    for raw in _footers(data, rows):
        if blake3.blake3(raw).hexdigest() == pack:
            end = packs.end_of(raw)
            data[size - len(end) - len(raw) :] = raw + end
            break
    try:
        packs.read_footer(pack, size, lambda at, length: data[at : at + length])
    except BadForm:
        return False
    if data == found:
        return False
    file = new_file()
    with storage_errors("write", file):
        write_file(file, bytes(data))
    driver.replace(key, file)
    return True


def _footers(data: bytearray, rows: Sequence[tuple[bytes, int, int, int, int]]) -> Iterator[bytes]:
    """What may be the footer of a pack."""
    size = len(data) - packs.TRAILER
    for count in dict.fromkeys((int.from_bytes(data[size : size + 4], "little"), len(rows))):
        length = count * packs.FOOTER.itemsize
        if 0 <= length <= size - len(HEADER):
            yield bytes(data[size - length : size])
    in_order = sorted(rows, key=lambda row: row[1])
    length = len(in_order) * packs.FOOTER.itemsize
    if length <= size - len(HEADER):
        made = bytearray()
        for chunk, offset, stored, content, form in in_order:
            crc = 0 if form == RAW else zlib.crc32(data[offset : offset + stored])
            made += packs.row(chunk, offset, stored, content, crc, form)
        yield bytes(made)


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
