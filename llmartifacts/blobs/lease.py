"""A file of somebody else's, mapped instead of copied, where the kernel keeps everybody from changing it meanwhile.

A map of a file that is cut short kills the process that reads it. Linux gives the owner of a file a *lease* on it, if
nobody has it open for writing: whoever then wants to write to it, or to cut it, waits in `open` until the lease is let
go of, or until `lease-break-time` (45 s) has passed. So only files are mapped that are done with long before. Where
there is no lease (another owner, a writer, a network, another system), the file is copied as ever.
"""

from __future__ import annotations

import fcntl
import io
import os
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from mmap import PROT_READ, mmap
from pathlib import Path
from typing import Any

LARGEST = 1 << 30
"""Bytes of the largest file that is mapped: some seconds of work."""
_PATIENCE = 30
_BREAK_TIME = Path("/proc/sys/fs/lease-break-time")


@dataclass(frozen=True)
class Still:
    """A file that nobody can change for the moment.

    Attributes:
        data: All of it, mapped.
    """

    data: mmap
    _fd: int
    _before: os.stat_result

    def unchanged(self) -> bool:
        """Whether it is what it was when it was mapped; asked once everything has been read."""
        found = os.fstat(self._fd)
        return _state(found) == _state(self._before)


@contextmanager
def held_still(stream: Any) -> Iterator[Still | None]:
    """Map all of a file, and keep it from being changed inside the block; None where that cannot be had.

    Args:
        stream: A file opened for reading, at whatever place; anything else gives None, also what only has a file below
            it: what `gzip` gives is not what lies there.
    """
    fd = _fd_of(stream)
    if fd is None or not _take(fd):
        yield None
        return
    try:
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode) or not 0 < before.st_size <= LARGEST:
            yield None
        else:
            yield Still(mmap(fd, 0, prot=PROT_READ), fd, before)
    finally:
        with suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
            fcntl.fcntl(fd, fcntl.F_SETSIG, 0)


def _take(fd: int) -> bool:
    try:
        if int(_BREAK_TIME.read_text()) < _PATIENCE:
            return False
        # The signal that somebody waits: one that is ignored unless asked for; the default would end the process.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except (OSError, ValueError, AttributeError):  # AttributeError: not Linux
        return False
    return True


def _fd_of(stream: Any) -> int | None:
    raw = stream.raw if type(stream) is io.BufferedReader and not stream.closed else stream
    return raw.fileno() if type(raw) is io.FileIO and not raw.closed else None


def _state(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns
