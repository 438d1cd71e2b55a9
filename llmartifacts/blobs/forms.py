"""The forms in which a blob is stored: raw, compressed by zstandard, or as chunks; the key says which.

    sha256/ab/<hex>        the bytes themselves
    sha256/ab/<hex>.zst    one Zstandard frame (RFC 8878), then a skippable frame with the CRC-32 of the first, so that
                           `zstd -d` reads the file, and every stored bit counts: Zstandard ignores some of its own
                           (8 of the 1,240 bits of a small frame, measured), and a file with a flipped bit is damaged.
    sha256/ab/<hex>.recipe how to make it from chunks; for everything over 1 MiB. See `chunks/`.

Small text is compressed where a probe says that it pays; other small content stays raw.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, BinaryIO

from llmartifacts.blobs.base import PIECE
from llmartifacts.records.digest import Digest

if TYPE_CHECKING:
    import zstandard

RAW = ""
ZSTD = ".zst"
RECIPE = ".recipe"
FORMS = (RAW, ZSTD, RECIPE)
"""In the order in which a reader looks for them."""

_SMALLEST = 4096  # one block of the file system: nothing is gained below
_PROBE = 65_536
_PAYS = 7 / 8
_LEVEL = 3
_MAX_WINDOW = 8 * 1024 * 1024
_TRAILER = b"\x50\x2a\x4d\x18\x04\x00\x00\x00"  # skippable frame, magic 0x184D2A50, 4 bytes of content


def key_of(digest: Digest, form: str) -> str:
    """The key of a blob in one form."""
    return f"sha256/{digest[7:9]}/{digest[7:]}{form}"


def parse_key(key: str) -> tuple[Digest, str] | None:
    """Digest and form of a key, or None if it is no key of a blob."""
    name = key.rpartition("/")[2]
    form = next((f for f in (ZSTD, RECIPE) if name.endswith(f)), RAW)
    digest = Digest("sha256:" + name.removesuffix(form))
    return (digest, form) if len(digest) == 71 and key == key_of(digest, form) else None


def form_for(head: bytes) -> str:
    """The form that suits small content that begins like this (up to 64 KiB are looked at)."""
    probe = head[:_PROBE]
    if len(head) < _SMALLEST or b"\0" in probe:
        return RAW
    return ZSTD if len(_compressor().compress(probe)) <= _PAYS * len(probe) else RAW


def encode(form: str, data: bytes) -> bytes:
    """Small content in its stored form."""
    if form != ZSTD:
        return data
    frame = _compressor().compress(data)
    return frame + _TRAILER + zlib.crc32(frame).to_bytes(4, "little")


class Reader:
    """The content of a stored object: unverified, but never more than is asked for.

    Args:
        form: The form it is stored in.
        stored: The object; closed with this.
    """

    def __init__(self, form: str, stored: BinaryIO) -> None:
        self._stored = stored
        self._frame = _Frame(stored) if form == ZSTD else None

    @cached_property
    def _content(self) -> Any:
        source: Any = self._frame
        return _decompressor().stream_reader(source, read_size=PIECE // 8) if source else self._stored

    def pieces(self, limit: int) -> Iterator[bytes]:
        """The content in pieces of at most 1 MiB, at most `limit` bytes in all.

        Raises:
            BadForm: The object is no whole, undamaged frame.
        """
        left = limit
        while left and (piece := self._read(min(left, PIECE))):
            left -= len(piece)
            yield piece
        if left and self._frame:
            self._frame.check()

    def _read(self, size: int) -> bytes:
        if self._frame is None:
            return self._stored.read(size)
        import zstandard

        try:
            data: bytes = self._content.read(size)
        except zstandard.ZstdError as error:
            raise BadForm(str(error)) from error
        return data

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stored.close()


class BadForm(Exception):
    """The stored form is damaged. Never leaves this layer."""


class _Frame:
    """All of an object but its trailer, as `stream_reader` wants it."""

    def __init__(self, stored: BinaryIO) -> None:
        self._stored = stored
        self._held = b""
        self._crc = 0

    def read(self, size: int) -> bytes:
        tail = len(_TRAILER) + 4
        while piece := self._stored.read(size):
            self._held += piece
            if len(self._held) > tail:
                data, self._held = self._held[:-tail], self._held[-tail:]
                self._crc = zlib.crc32(data, self._crc)
                return data
        return b""

    def check(self) -> None:
        """Raises `BadForm` unless the object ended where its frame did, and undamaged."""
        if self.read(PIECE) or self._held != _TRAILER + self._crc.to_bytes(4, "little"):
            raise BadForm("its checksum is wrong")


def _compressor() -> zstandard.ZstdCompressor:
    import zstandard  # 11 ms; not needed to read or write what is raw

    return zstandard.ZstdCompressor(level=_LEVEL)


def _decompressor() -> zstandard.ZstdDecompressor:
    import zstandard

    return zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
