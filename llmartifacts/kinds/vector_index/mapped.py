"""Files mapped read-only: what FAISS and the documents are read from, so that processes share one copy.

A map stays valid when its file is unlinked or replaced by rename; nobody closes one, it goes with its last reader.
As long as it lives it holds the file by a shared `flock`, so that a cache does not evict what is being searched.
"""

from __future__ import annotations

import errno
import fcntl
import io
import mmap
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from llmartifacts.errors import InvalidValue, UnsafeContent


def map_file(path: Path, *, field: str) -> mmap.mmap:
    """Map a whole regular file, read-only, and hold it.

    Args:
        path: The file. A symbolic link in its last segment is not followed.
        field: The artifact's name for it, in error messages.

    Raises:
        InvalidValue: It is empty, absent or cannot be read.
        UnsafeContent: It is a symbolic link or no regular file.
    """
    try:
        # O_NONBLOCK: opening a named pipe must not wait for a writer.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UnsafeContent("the file is a symbolic link", field=field, file=str(path)) from None
        raise InvalidValue(
            f"the file cannot be read: {error.strerror or error}", field=field, origin=str(path)
        ) from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise UnsafeContent("this is no regular file", field=field, file=str(path))
        if status.st_size == 0:
            raise InvalidValue("the file is empty", field=field, origin=str(path))
        # The lock belongs to this opening of the file, which the map keeps. Without it the map is as good: somebody
        # evicts the file just now, and it stays readable; or the file system has no locks, and nothing is evicted.
        with suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return mmap.mmap(fd, 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
    finally:
        os.close(fd)


def reader(data: memoryview | mmap.mmap | bytes) -> BinaryIO:
    """A new binary stream over mapped bytes; any number may read at once."""
    return cast(BinaryIO, io.BufferedReader(_Reader(memoryview(data)), buffer_size=1 << 20))


class _Reader(io.RawIOBase):
    """Copies out of a buffer; unlike `mmap.read` it keeps a position of its own."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        target = memoryview(buffer).cast("B")
        size = min(len(target), len(self._data) - self._at)
        target[:size] = self._data[self._at : self._at + size]
        self._at += size
        return size
