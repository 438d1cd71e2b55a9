"""Are these bytes what they claim to be? Streaming, with bounded memory; nothing is believed before the last byte."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from typing import BinaryIO

from llmartifacts.blobs.base import PIECE
from llmartifacts.records.digest import Blob, Digest, digest_from_hex

_REMEMBERED = 65_536
_TICK = 50_000_000  # nanoseconds

Identity = tuple[int, int, int, int, int]


class Sha256:
    """Counts and hashes what passes through."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.size = 0

    def update(self, data: bytes) -> None:
        """Take some bytes."""
        self._hash.update(data)
        self.size += len(data)

    @property
    def blob(self) -> Blob:
        """The address of all bytes so far."""
        return Blob(digest_from_hex(self._hash.hexdigest()), self.size)


def is_blob(stream: BinaryIO, blob: Blob) -> bool:
    """Read a stream to its end, but never more than one byte beyond `blob.size`, and compare."""
    seen = Sha256()
    while data := stream.read(min(PIECE, blob.size + 1 - seen.size)):
        seen.update(data)
        if seen.size > blob.size:
            return False
    return seen.size == blob.size and seen.blob == blob


class VerifiedFiles:
    """Files on this host that this process has hashed, so that a warm one does not hash them again.

    A file is known by device, inode, size, and times of change. The files concerned have mode 0444 and are replaced by
    `rename`, never written to; whoever does write to one changes its times, and it is hashed again.
    """

    def __init__(self) -> None:
        self._known: dict[Digest, Identity] = {}

    def holds(self, file: BinaryIO, blob: Blob) -> bool:
        """Whether an open file is exactly that blob; leaves it at its beginning."""
        before = os.fstat(file.fileno())
        if not stat.S_ISREG(before.st_mode) or before.st_size != blob.size:
            return False
        identity = _identity(before)
        if self._known.get(blob.digest) == identity:
            return True
        if not is_blob(file, blob) or _identity(os.fstat(file.fileno())) != identity:
            return False
        file.seek(0)
        # Times advance in ticks of a few milliseconds: a file changed just now could change again within the tick.
        if time.time_ns() - before.st_ctime_ns > _TICK:
            if len(self._known) >= _REMEMBERED:
                self._known.pop(next(iter(self._known)), None)
            self._known[blob.digest] = identity
        return True


def _identity(found: os.stat_result) -> Identity:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
