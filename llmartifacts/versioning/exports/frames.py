"""Frames of an export, written and read; see `records.export`."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from llmartifacts.blobs.disk import create_file, sync_data, sync_folder, write_all
from llmartifacts.blobs.failures import storage_error, storage_errors
from llmartifacts.blobs.scratch import Scratch, sweep
from llmartifacts.errors import Conflict, InvalidInput, NewerFormat, NotFound
from llmartifacts.records.digest import Blob, digest_bytes, digest_from_bytes
from llmartifacts.records.export import (
    FAMILY,
    HEAD,
    MAX_HEADER,
    MAX_SIGNATURE,
    MAX_VERSION,
    PART,
    damaged,
)

if TYPE_CHECKING:
    import zstandard

_LIMITS = {b"H": MAX_HEADER, b"B": 40, b"D": PART + 5, b"V": MAX_VERSION, b"S": MAX_SIGNATURE, b"E": 32}
_PAYS = 15 / 16
_LEVEL = 3


class FrameWriter:
    """Writes an export aside; `finish` gives it its name.

    Args:
        file: Where the export goes; nothing lies there.

    Raises:
        Conflict: There is something already.
        NotAllowed: It cannot be written there, or the place is full.
    """

    def __init__(self, file: Path) -> None:
        self.file = Path(os.path.abspath(file))
        self._root = self.file.parent / f".{self.file.name[:64]}.exporting"
        if not self.file.parent.is_dir():
            raise NotFound(f"there is no folder {self.file.parent}", what="folder", name=str(self.file.parent))
        self._tidy()
        if os.path.lexists(self.file):
            raise Conflict(f"there is a file {self.file} already", field="FILE", next_step="Name another one.")
        self._fd = -1
        self._sum = hashlib.sha256()
        self.size = 0
        with storage_errors("write", self.file):
            self._scratch = Scratch(self._root)
        self._aside = self._scratch.new_file()
        try:
            with storage_errors("write", self.file):
                self._fd = create_file(self._aside)
            self._put(HEAD)
        except BaseException:
            self.close()
            raise

    def new_file(self) -> Path:
        """A path aside, which goes with `close`; nothing lies there."""
        return self._scratch.new_file()

    def frame(self, kind: bytes, body: bytes) -> None:
        """Write one frame."""
        self._put(kind + len(body).to_bytes(8, "little") + body)

    def blob(self, blob: Blob, content: BinaryIO) -> None:
        """Write a file: as many parts as it takes."""
        self.frame(b"B", digest_bytes(blob.digest) + blob.size.to_bytes(8, "little"))
        left = blob.size
        while left:
            data = content.read(min(PART, left))
            if not data:
                raise AssertionError("verified content ended early")
            left -= len(data)
            packed = _compressor().compress(data)
            form, body = (b"\1", packed) if len(packed) <= _PAYS * len(data) else (b"\0", data)
            self.frame(b"D", form + len(data).to_bytes(4, "little") + body)

    def digest(self) -> bytes:
        """SHA-256 of all that was written so far."""
        return self._sum.digest()

    def finish(self) -> None:
        """Write the end, make all of it durable, and give it its name."""
        self.frame(b"E", self.digest())
        with storage_errors("write", self.file):
            sync_data(self._fd)
            os.close(self._fd)
            self._fd = -1
            try:
                os.link(self._aside, self.file)
            except FileExistsError:
                raise Conflict(f"there is a file {self.file} already", field="FILE") from None
            except OSError:  # no hard links here
                os.rename(self._aside, self.file)
            sync_folder(self.file.parent)

    def close(self) -> None:
        """Remove what was not finished."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._scratch.close()
        self._tidy()

    def _tidy(self) -> None:
        """Remove what killed exports left beside the file."""
        sweep(self._root)
        with suppress(OSError):
            self._root.rmdir()

    def _put(self, data: bytes) -> None:
        with storage_errors("write", self.file):
            write_all(self._fd, data)
        self._sum.update(data)
        self.size += len(data)


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame.

    Attributes:
        kind: Its letter.
        body: What is in it.
        before: SHA-256 of all that is before it.
    """

    kind: bytes
    body: bytes
    before: bytes


class FrameReader:
    """An open export, read as often as one likes.

    Args:
        file: The export.

    Raises:
        NotFound: There is no such file.
        InvalidInput: It is no plain file, or no export.
        NewerFormat: It has a form that this release does not know.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.name = str(file)
        try:
            fd = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFound(f"there is no file {file}", what="file", name=str(file)) from None
        except OSError as error:
            raise storage_error(error, "read", file) from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise InvalidInput(f"{file} is no plain file", field="FILE", next_step="Name what export wrote.")
        self._file = open(fd, "rb")  # noqa: SIM115 (`close` closes it)
        with storage_errors("read", file):
            head = self._file.read(len(HEAD))
        if head != HEAD:
            self._file.close()
            if head.startswith(FAMILY) and head[-1:] == b"\n":
                raise NewerFormat("the export has a form that this release does not know", origin=self.name)
            if HEAD.startswith(head):
                raise damaged("it is cut short", self.name)
            raise InvalidInput(f"{file} is no export", field="FILE", next_step="llmartifacts export makes one.")

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def frames(self) -> Iterator[Frame]:
        """Every frame in order, up to the end; that the end is right is checked here.

        Raises:
            Damaged: It is cut short, longer than its end, or not what the end says.
        """
        seen = hashlib.sha256(HEAD)
        with storage_errors("read", self.file):
            self._file.seek(len(HEAD))
            while True:
                before = seen.digest()
                head = self._file.read(9)
                kind, length = head[:1], int.from_bytes(head[1:], "little")
                if len(head) < 9:
                    raise damaged("it is cut short", self.name)
                if length > _LIMITS.get(kind, -1):
                    raise damaged(f"it has a frame {kind!r} of {length} bytes", self.name)
                body = self._file.read(length)
                if len(body) < length:
                    raise damaged("it is cut short", self.name)
                if kind == b"E":
                    if body != before:
                        raise damaged("its bytes are not those that its end speaks of", self.name)
                    if self._file.read(1):
                        raise damaged("it goes on after its end", self.name)
                    yield Frame(kind, body, before)
                    return
                seen.update(head)
                seen.update(body)
                yield Frame(kind, body, before)

    def blob_of(self, frame: Frame) -> Blob:
        """The file that begins with a frame. Raises `Damaged`."""
        if len(frame.body) != 40:
            raise damaged("a file has no digest and size", self.name)
        size = int.from_bytes(frame.body[32:], "little")
        if size > 2**53 - 1:
            raise damaged("a file has a size that is none", self.name)
        return Blob(digest_from_bytes(frame.body[:32]), size)

    def content(self, blob: Blob, frames: Iterator[Frame]) -> Iterator[bytes]:
        """The parts of a file, from the frames that follow; raises after the last unless they are the file.

        Raises:
            Damaged: They are something else.
        """
        import zstandard

        seen, left = hashlib.sha256(), blob.size
        while left:
            frame = next(frames, None)
            if frame is None or frame.kind != b"D" or len(frame.body) <= 5:
                raise damaged(f"{blob.digest} has fewer bytes than it should", self.name)
            form, length = frame.body[0], int.from_bytes(frame.body[1:5], "little")
            if form > 1 or not 0 < length <= min(PART, left):
                raise damaged(f"{blob.digest} has a part that is none", self.name)
            data = frame.body[5:]
            if form:
                try:
                    with _decompressor().stream_reader(data) as reader:
                        data = reader.read(length + 1)
                except zstandard.ZstdError as error:
                    raise damaged(f"{blob.digest} cannot be unpacked: {error}", self.name) from None
            if len(data) != length:
                raise damaged(f"{blob.digest} has a part that is not what it says", self.name)
            seen.update(data)
            left -= length
            yield data
        if seen.digest() != digest_bytes(blob.digest):
            raise damaged(f"{blob.digest} holds something else", self.name)


def _compressor() -> zstandard.ZstdCompressor:
    import zstandard

    return zstandard.ZstdCompressor(level=_LEVEL)


def _decompressor() -> zstandard.ZstdDecompressor:
    import zstandard

    return zstandard.ZstdDecompressor(max_window_size=8 * PART)
