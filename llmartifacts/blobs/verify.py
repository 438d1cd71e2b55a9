"""Are these bytes what they claim to be? Streaming, with bounded memory; nothing is believed before the last byte."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from typing import BinaryIO

from llmartifacts.blobs.base import PIECE
from llmartifacts.blobs.trust import TICK, Identity, Record, identity_of
from llmartifacts.records.digest import Blob, Digest, digest_from_hex

_REMEMBERED = 65_536


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
    """Files on this host that were hashed, so that a warm process does not hash them again.

    A file is known by device, inode, size, and times of change. The files concerned have mode 0444 and are replaced by
    `rename`, never written to; whoever does write to one changes its times, and it is hashed again. With a `Record`
    the next process knows of it as well; what is trusted then, `trust.py` says.
    """

    def __init__(self) -> None:
        self._known: dict[Digest, Identity] = {}

    def holds(self, file: BinaryIO, blob: Blob, record: Record | None = None) -> bool:
        """Whether an open file is exactly that blob; leaves it at its beginning.

        Args:
            file: The file, at its beginning.
            blob: What it should be.
            record: What earlier processes noted; asked first, and written once the file was hashed.
        """
        began = time.time_ns()
        before = os.fstat(file.fileno())
        if not stat.S_ISREG(before.st_mode) or before.st_size != blob.size:
            return False
        identity = identity_of(before)
        if self._is_known(blob, before, record):
            return True
        if not is_blob(file, blob) or identity_of(os.fstat(file.fileno())) != identity:
            return False
        file.seek(0)
        if began - before.st_ctime_ns > TICK:  # else it could have changed while it was read, and look the same
            self._remember(blob, identity)
            if record is not None:
                record.write(blob, identity, began)
        return True

    def knows(self, file: BinaryIO, blob: Blob, record: Record) -> bool:
        """Whether an open file was found to be that blob before; reads nothing of it."""
        found = os.fstat(file.fileno())
        return stat.S_ISREG(found.st_mode) and found.st_size == blob.size and self._is_known(blob, found, record)

    def _is_known(self, blob: Blob, found: os.stat_result, record: Record | None) -> bool:
        identity = identity_of(found)
        if self._known.get(blob.digest) == identity:
            return True
        if record is None or not record.vouches(blob, found):
            return False
        self._remember(blob, identity)
        return True

    def built(self, fd: int, blob: Blob, written: os.stat_result, record: Record) -> None:
        """Know a file that was hashed while this process wrote it, and record it; waits until it has settled.

        It was this process's alone until it got its name, and has not been written to since: size and time of writing
        are those after the last byte, and nothing else has changed it for a tick.

        Args:
            fd: The file, renamed since.
            blob: What was written.
            written: Its `fstat` after the last byte.
            record: Where to note it.
        """
        named = os.fstat(fd)
        wait = named.st_ctime_ns + TICK - time.time_ns()
        if 0 <= wait <= TICK:
            time.sleep(wait / 1e9 + 0.001)
        now, identity = time.time_ns(), identity_of(os.fstat(fd))
        same = identity == identity_of(named) and identity[:4] == identity_of(written)[:4]
        if same and now - named.st_ctime_ns > TICK:
            self._remember(blob, identity)
            record.write(blob, identity, now)

    def _remember(self, blob: Blob, identity: Identity) -> None:
        if len(self._known) >= _REMEMBERED:
            self._known.pop(next(iter(self._known)), None)
        self._known[blob.digest] = identity
