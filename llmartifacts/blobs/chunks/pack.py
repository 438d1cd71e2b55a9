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
from collections.abc import Callable, Sequence
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import blake3
import numpy as np
import numpy.typing as npt

from llmartifacts.blobs.chunks.behind import Behind
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
        writing: Does the writing, behind the caller; None writes at once. Buffers that were added must then not be
            changed until it has done so.
        syncing: Makes the finished file durable, behind that; None does it at once.
        durable: Whether the file has to survive a power cut at all.
    """

    def __init__(
        self, path: Path, writing: Behind | None = None, syncing: Behind | None = None, *, durable: bool = True
    ) -> None:
        self.path = path
        self._durable = durable
        with storage_errors("write", path):
            self._fd = create_file(path)
        self._writing, self._syncing = writing, syncing
        self._waiting: list[Any] = []
        self.names: list[bytes] = []
        self._rows: list[_Rows] = []
        self._single: list[tuple[int, int, int, int, int]] = []
        self.size = 0
        self._put(HEADER)

    def add(self, name: bytes, data: Any, length: int, form: int) -> tuple[int, int]:
        """Write one chunk; returns its offset and its stored bytes. Its buffer is read by `flush`."""
        if form == RAW and self.size % _ALIGNED:
            self._put(bytes(_ALIGNED - self.size % _ALIGNED))
        offset, stored = self.size, len(data)
        self.names.append(name)
        self._single.append((offset, stored, length, zlib.crc32(data) if form else 0, form))
        self._put(data)
        return offset, stored

    def add_run(self, names: Sequence[bytes], data: Any, lengths: npt.NDArray[np.int64], full: int) -> int:
        """Write raw chunks that lie one after another in a buffer, until the pack is full; returns how many.

        Args:
            names: Their ids.
            data: The buffer.
            lengths: Bytes of each; all but the last a multiple of 8.
            full: Bytes after which the pack takes no more.
        """
        if self.size % _ALIGNED:
            self._put(bytes(_ALIGNED - self.size % _ALIGNED))
        offsets = self.size + np.cumsum(lengths) - lengths
        count = int(np.searchsorted(offsets, full))  # the one that crosses the line is the last
        self.names += names[:count]
        self._collect()
        self._rows.append(_Rows(offsets[:count], lengths[:count]))
        self._put(memoryview(data)[: int(lengths[:count].sum())])
        return count

    def flush(self) -> None:
        """Have written what was added. Without somebody who writes behind, the caller may then reuse its buffers."""
        buffers, self._waiting = self._waiting, []
        if buffers:
            self._do(self._writing, lambda: self._write(buffers))

    def finish(self) -> str:
        """Write the footer and have the file made durable; returns the name of the pack."""
        self._collect()
        footer = np.zeros(len(self.names), FOOTER)
        footer["id"] = np.frombuffer(b"".join(self.names), f"V{ID_BYTES}")
        for part in _Rows._fields:
            footer[part] = np.concatenate([np.zeros(0, np.int64), *(_column(rows, part) for rows in self._rows)])
        self.footer = footer
        raw = footer.tobytes()
        self._put(raw)
        self._put(end_of(raw))
        self.flush()
        self._do(self._writing, lambda: self._do(self._syncing, self._sync))
        return blake3.blake3(raw).hexdigest()

    @property
    def is_closed(self) -> bool:
        """Whether the file was let go of: what was finished is then durable."""
        return self._fd < 0

    def close(self) -> None:
        """Let go of the file; nobody may work on it behind the caller."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def _put(self, data: Any) -> None:
        self._waiting.append(data)
        self.size += len(data)

    def _collect(self) -> None:
        """Put what was added one by one behind what was added before it."""
        if self._single:
            self._rows.append(_Rows(*np.array(self._single, np.int64).T))
            self._single = []

    def _write(self, buffers: Sequence[Any]) -> None:
        with storage_errors("write", self.path):
            for start in range(0, len(buffers), _BATCH):
                _write_vectors(self._fd, buffers[start : start + _BATCH])

    def _sync(self) -> None:
        if self._durable:
            with storage_errors("write", self.path):
                sync_data(self._fd)
        self.close()

    @staticmethod
    def _do(behind: Behind | None, job: Callable[[], None]) -> None:
        if behind is None:
            job()
        else:
            behind.do(job)


class _Rows(NamedTuple):
    """Chunks of a pack, a column each, as in its footer. Those without checksum and form are raw."""

    offset: npt.NDArray[np.int64]
    stored: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64] | None = None
    crc: npt.NDArray[np.int64] | None = None
    form: npt.NDArray[np.int64] | None = None


def _column(rows: _Rows, part: str) -> npt.NDArray[np.int64]:
    found: npt.NDArray[np.int64] | None = getattr(rows, part)
    if found is None:
        return rows.stored if part == "length" else np.zeros(len(rows.stored), np.int64)
    return found


def _write_vectors(fd: int, buffers: Sequence[Any]) -> None:
    left = list(buffers)
    while left:
        done = os.writev(fd, left)
        while left and done >= len(left[0]):
            done -= len(left[0])
            left.pop(0)
        if done:
            left[0] = memoryview(left[0])[done:]


def row(chunk: bytes, offset: int, stored: int, length: int, crc: int, form: int) -> bytes:
    """One row of a footer."""
    made = np.zeros(1, FOOTER)
    made["id"] = np.frombuffer(chunk, f"V{ID_BYTES}")
    for part, value in zip(
        ("offset", "stored", "length", "crc", "form"), (offset, stored, length, crc, form), strict=True
    ):
        made[part] = value
    return made.tobytes()


def end_of(footer: bytes) -> bytes:
    """What follows a footer, to the end of the pack."""
    count = len(footer) // FOOTER.itemsize
    return count.to_bytes(4, "little") + _VERSION.to_bytes(4, "little") + blake3.blake3(footer).digest() + _END


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
    return places_of(pack, footer, [raw[at : at + ID_BYTES] for at in range(0, len(raw), ID_BYTES)])


def places_of(pack: str, footer: Footer, names: Sequence[bytes]) -> dict[bytes, Place]:
    """As `places`, with the ids of the chunks at hand."""
    columns = (footer[name].tolist() for name in ("offset", "stored", "length", "form"))
    make = partial(tuple.__new__, Place)  # three times faster than calling the class, and there are very many
    return dict(zip(names, map(make, zip(repeat(pack), *columns)), strict=True))


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
