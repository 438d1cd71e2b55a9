r"""The format of packs: many chunks in one immutable file that describes itself.

    header   8 bytes, `LLMAPK1\\n`
    chunks   one after another; one that is not compressed begins at a multiple of 8, zeros before it
    footer   56 bytes for each chunk: id (BLAKE3 of the content), offset (u64), stored bytes (u32), bytes (u32),
             CRC-32 of the stored bytes if they are compressed (u32), form (u32): 0 raw, 1 Zstandard
    trailer  number of chunks (u32), version (u32), BLAKE3 of the footer (32 bytes), `LLMAPKE\\n`

All numbers little-endian. A pack is called after the BLAKE3 of its footer, so a footer that was altered shows, and the
index of chunks can be made anew from the packs alone. Zstandard ignores some bits of a frame, hence the CRC.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import blake3
import numpy as np
import numpy.typing as npt

from llmartifacts.blobs.chunks.entries import ID_BYTES, MAX_CHUNK
from llmartifacts.blobs.disk import create_file, sync_data
from llmartifacts.blobs.failures import storage_errors
from llmartifacts.blobs.forms import BadForm

FULL = 48 * 1024 * 1024
"""Bytes after which the next chunk goes to another pack."""
LEVEL = 3
"""Level at which chunks are compressed."""
MAX_FOOTER = 1 << 28
RAW, ZSTD = 0, 1
HEADER = b"LLMAPK1\n"
_END = b"LLMAPKE\n"
_VERSION = 1
TRAILER = 48
FOOTER = np.dtype(
    [
        ("id", f"V{ID_BYTES}"),
        ("offset", "<u8"),
        ("stored", "<u4"),
        ("length", "<u4"),
        ("crc", "<u4"),
        ("form", "<u4"),
    ]
)
Footer = npt.NDArray[np.void]
_ALIGNED = 8
_BATCH = 512  # buffers for one `writev`; Linux takes 1,024


class Place(NamedTuple):
    """Where a chunk lies.

    Attributes:
        pack: Name of the pack.
        offset: Its first byte in the pack.
        stored: Bytes that it takes there.
        length: Bytes of its content.
        form: `RAW` or `ZSTD`.
    """

    pack: str
    offset: int
    stored: int
    length: int
    form: int


def key_of(pack: str) -> str:
    """The key of a pack in the store."""
    return f"packs/{pack[:2]}/{pack}.pack"


def parse_key(key: str) -> str | None:
    """The name of the pack under a key, or None if it is no pack's key."""
    name = key.rpartition("/")[2].removesuffix(".pack")
    return name if len(name) == 2 * ID_BYTES and key == key_of(name) else None


class PackWriter:
    """Writes one pack into a new file.

    Args:
        path: The file; nothing lies there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with storage_errors("write", path):
            self._fd = create_file(path)
        self._waiting: list[Any] = []
        self._rows: list[tuple[bytes, int, int, int, int, int]] = []
        self.size = 0
        self._put(HEADER)

    def add(self, name: bytes, data: Any, length: int, form: int) -> tuple[int, int]:
        """Write one chunk; returns its offset and its stored bytes. The buffer is read before `flush` returns."""
        if form == RAW and self.size % _ALIGNED:
            self._put(bytes(_ALIGNED - self.size % _ALIGNED))
        offset, stored = self.size, len(data)
        self._rows.append((name, offset, stored, length, zlib.crc32(data) if form else 0, form))
        self._put(data)
        return offset, stored

    def flush(self) -> None:
        """Hand over to the kernel what was added; the caller may then reuse its buffers."""
        if not self._waiting:
            return
        with storage_errors("write", self.path):
            for start in range(0, len(self._waiting), _BATCH):
                _write_vectors(self._fd, self._waiting[start : start + _BATCH])
        self._waiting = []

    def finish(self) -> str:
        """Write the footer and make the file durable; returns the name of the pack."""
        footer = np.array(self._rows, FOOTER).tobytes()
        digest = blake3.blake3(footer).digest()
        self._put(footer)
        self._put(len(self._rows).to_bytes(4, "little") + _VERSION.to_bytes(4, "little") + digest + _END)
        self.flush()
        with storage_errors("write", self.path):
            sync_data(self._fd)
        self.close()
        return digest.hex()

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _put(self, data: Any) -> None:
        self._waiting.append(data)
        self.size += len(data)


def _write_vectors(fd: int, buffers: Sequence[Any]) -> None:
    left = list(buffers)
    while left:
        done = os.writev(fd, left)
        while left and done >= len(left[0]):
            done -= len(left[0])
            left.pop(0)
        if done:
            left[0] = memoryview(left[0])[done:]


def read_footer(pack: str, size: int, read: Any) -> Footer:
    """The footer of a pack, checked.

    Args:
        pack: Name of the pack.
        size: Bytes of the file.
        read: (start, length) -> bytes of the file.

    Raises:
        BadForm: It is not what its name says, or not well formed.
    """
    if size < len(HEADER) + TRAILER:
        raise BadForm("it is cut short")
    if bytes(read(0, len(HEADER))) != HEADER:
        raise BadForm("it does not begin as a pack does")
    trailer = bytes(read(size - TRAILER, TRAILER))
    count, version = int.from_bytes(trailer[:4], "little"), int.from_bytes(trailer[4:8], "little")
    if trailer[-8:] != _END or version != _VERSION:
        raise BadForm("it does not end as a pack of a known version does")
    length = count * FOOTER.itemsize
    if length > min(size - len(HEADER) - TRAILER, MAX_FOOTER):
        raise BadForm("its footer is longer than the file")
    raw = bytes(read(size - TRAILER - length, length))
    if len(raw) != length or trailer[8:40] != blake3.blake3(raw).digest() or trailer[8:40].hex() != pack:
        raise BadForm("its footer was altered")
    footer = np.frombuffer(raw, FOOTER)
    ends = footer["offset"] + footer["stored"]
    starts = np.concatenate([[len(HEADER)], ends[:-1]]).astype(np.uint64)
    gaps = footer["offset"] - starts  # unsigned: one that is negative is huge
    last = int(ends[-1]) if count else len(HEADER)
    lies = (gaps >= _ALIGNED) | (footer["length"] > MAX_CHUNK) | (footer["stored"] > MAX_CHUNK)
    lies |= (footer["form"] > ZSTD) | ((footer["form"] == RAW) & (footer["stored"] != footer["length"]))
    if lies.any() or last != size - TRAILER - length:
        raise BadForm("its footer does not describe it")
    return footer


def gaps_are_zero(footer: Footer, read: Any) -> bool:
    """Whether the bytes between chunks are what a writer leaves there."""
    at = len(HEADER)
    for offset, stored in zip(footer["offset"].tolist(), footer["stored"].tolist(), strict=True):
        if offset > at and any(read(at, offset - at)):
            return False
        at = offset + stored
    return True


def places(pack: str, footer: Footer) -> dict[bytes, Place]:
    """Id -> place of every chunk of a pack."""
    raw = np.ascontiguousarray(footer["id"]).tobytes()
    columns = (footer[name].tolist() for name in ("offset", "stored", "length", "form"))
    return {
        raw[i * ID_BYTES : (i + 1) * ID_BYTES]: Place(pack, *numbers)
        for i, numbers in enumerate(zip(*columns, strict=True))
    }


def reader_of(open_range: Any) -> Any:
    """(start, length) -> bytes, from a function that opens a range as a stream."""

    def read(start: int, length: int) -> bytes:
        stream: BinaryIO
        with open_range(start, length) as stream:
            parts = []
            while length and (part := stream.read(length)):
                parts.append(part)
                length -= len(part)
        return b"".join(parts)

    return read
