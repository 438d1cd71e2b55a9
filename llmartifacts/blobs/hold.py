"""Holds: a cached file that a live process uses is not evicted.

A hold is a shared `flock` on the open file. The kernel keeps it as long as that opening of the file lives: in a
descriptor, a copy of one, or a map; it goes with the last of them, however the process ends. Who evicts takes the
lock exclusively, without waiting, and leaves the file if it cannot.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from pathlib import Path, PosixPath
from typing import Any, BinaryIO
from weakref import WeakValueDictionary

from llmartifacts.blobs.disk import READ_FILE, is_at

MAX_HOLDS = 256
"""Paths that one cache holds at once: each takes a file descriptor, and a process may have no more than 1,024, on some
systems 256. Of more paths the files are only known to be used recently."""
_PAUSE, _TRIES = 0.002, 500


class Hold:
    """Keeps a file open, and with it the lock on it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __del__(self) -> None:
        os.close(self._fd)


class HeldPath(PosixPath):
    """A path whose file is held for as long as this very object lives; else an ordinary path.

    Paths made from it (`parent`, `resolve()`, a copy by `Path(…)`, one that was pickled) hold nothing.
    """

    _hold: Hold | None = None

    def __reduce__(self) -> tuple[type[Path], tuple[str]]:
        return Path, (str(self),)

    def with_segments(self, *segments: Any) -> Path:
        """What `parent` and its like make: plain paths (Python 3.12 and later)."""
        return Path(*segments)


class Holds:
    """The holds of one cache: one for each file, shared by all paths to it."""

    def __init__(self) -> None:
        self._held: WeakValueDictionary[tuple[int, int], Hold] = WeakValueDictionary()
        self._lock = threading.Lock()

    def path(self, path: Path, file: BinaryIO) -> Path:
        """A path that holds its file.

        Args:
            path: Where the file lies.
            file: The file as `open_held` opened it.
        """
        found = os.fstat(file.fileno())
        key = found.st_dev, found.st_ino
        with self._lock:
            hold = self._held.get(key)
            if hold is None:
                if len(self._held) >= MAX_HOLDS:
                    return path
                try:
                    hold = Hold(os.dup(file.fileno()))
                except OSError:  # no descriptor is left
                    return path
                self._held[key] = hold
        made = HeldPath(path)
        made._hold = hold
        return made


def open_held(path: Path) -> BinaryIO:
    """Open the file that lies there, unbuffered, and hold it until it and every copy of its descriptor are closed.

    Who waits at most a second for one that evicts it just now gets the file without a hold, as on a file system that
    has no locks; its bytes stay readable in any case.

    Raises:
        OSError: It is not there, a symbolic link, or cannot be read.
    """
    for left in reversed(range(_TRIES)):
        file = open(os.open(path, READ_FILE), "rb", buffering=0)  # noqa: SIM115 - handed over
        try:
            if (_shared(file) and is_at(file.fileno(), path)) or not left:
                return file
        except OSError:  # a file system without locks
            return file
        file.close()  # evicted or replaced between the opening and the lock
        time.sleep(_PAUSE)
    raise AssertionError  # the last round returns


def _shared(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
