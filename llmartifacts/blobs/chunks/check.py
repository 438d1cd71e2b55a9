"""A whole pack checked: every bit of it counts."""

from __future__ import annotations

import mmap
import zlib
from collections.abc import Iterator

import blake3
import numpy as np

from llmartifacts.blobs.base import Driver
from llmartifacts.blobs.chunks import pack as packs
from llmartifacts.blobs.chunks.entries import ids_of
from llmartifacts.blobs.chunks.pack import RAW, Footer
from llmartifacts.blobs.chunks.reader import Buffer, decompress
from llmartifacts.blobs.failures import storage_errors
from llmartifacts.blobs.forms import BadForm


def check_pack(driver: Driver, name: str, size: int) -> None:
    """Read a stored pack and compare all of it with what it says of itself.

    Raises:
        BadForm: Something in it was altered.
        Damaged: It is not there, or no plain file.
        Unreachable: It cannot be read.
    """
    key = packs.key_of(name)
    with storage_errors("read", driver.where(key)):
        check_view(name, _whole(driver, key, size))


def check_view(name: str, view: memoryview, most: int | None = None) -> Footer:
    """Compare all of a pack with what it says of itself.

    Args:
        name: Its name.
        view: Its bytes.
        most: Bytes that its chunks may have together; None for any number.

    Returns:
        Its footer.

    Raises:
        BadForm: Something in it was altered, or its chunks have more bytes than that.
    """

    def read(start: int, length: int) -> memoryview:
        return view[start : start + length]

    footer = packs.read_footer(name, len(view), read)
    if most is not None and int(footer["length"].sum(dtype=np.int64)) > most:
        raise BadForm(f"its chunks have more than {most} bytes")
    if not packs.gaps_are_zero(footer, read):
        raise BadForm("there is something between its chunks")
    for chunk, offset, stored, length, crc, form in rows_of(footer):
        wrong = chunk_error(read(offset, stored), chunk, length, crc, form)
        if wrong is not None:
            raise BadForm(wrong)
    return footer


def rows_of(footer: Footer) -> Iterator[tuple[bytes, int, int, int, int, int]]:
    """Id, offset, stored bytes, bytes, CRC and form of every chunk, in the order of the pack."""
    columns = (footer[part].tolist() for part in ("offset", "stored", "length", "crc", "form"))
    return zip(ids_of(footer), *columns, strict=True)


def chunk_error(data: Buffer, chunk: bytes, length: int, crc: int, form: int) -> str | None:
    """What is wrong with the stored bytes of a chunk; None if nothing is."""
    if crc != (0 if form == RAW else zlib.crc32(data)):
        return f"the checksum of the chunk {chunk.hex()[:16]} is wrong"
    try:
        content = data if form == RAW else decompress(data, length)
    except BadForm as error:
        return f"the chunk {chunk.hex()[:16]}: {error}"
    if len(content) != length or blake3.blake3(content).digest() != chunk:
        return f"the chunk {chunk.hex()[:16]} was altered"
    return None


def _whole(driver: Driver, key: str, size: int) -> memoryview:
    """A pack, mapped where it is a file on this host; else in memory, for it is not large."""
    own = driver.file(key)
    if own is None:
        return memoryview(packs.reader_of(lambda at, length: driver.get(key, at, length))(0, size))
    with own[0] as file:
        if not file.seek(0, 2):
            raise BadForm("it is empty")
        return memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
