"""Folders for bytes on their way in; those of a killed process are found and removed, those of a live one never.

A process holds a `flock` on its folder for as long as it uses it. The kernel lets go of the lock when the process
ends, however it ends, so no process id is written down that another process may have by then.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import weakref
from pathlib import Path

from llmartifacts.blobs.disk import FOLDER, is_at
from llmartifacts.blobs.failures import storage_errors

PREFIX = "stage-"
_OURS = re.compile(r"stage-[0-9a-f]{16}")


class Scratch:
    """One private folder (mode 0700) below `root`, gone after `close`. The root must not be a symbolic link.

    Attributes:
        path: The folder.
    """

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        os.close(os.open(root, FOLDER))
        while True:
            self.path = root / f"{PREFIX}{os.urandom(8).hex()}"
            self.path.mkdir(mode=0o700)
            try:
                self._lock = os.open(self.path, FOLDER)
            except FileNotFoundError:
                continue  # a sweep came between mkdir and here; it cannot once the lock is held
            try:
                if _try_lock(self._lock) and is_at(self._lock, self.path):
                    break
            except OSError:  # a file system without locks
                os.close(self._lock)
                self.path.rmdir()
                raise
            os.close(self._lock)
        self._count = 0
        self._pid = os.getpid()

    def new_file(self) -> Path:
        """A path for the next file; nothing lies there."""
        self._count += 1
        return self.path / str(self._count)

    def close(self) -> None:
        """Remove the folder with all that is in it."""
        if self._lock < 0:
            return
        if os.getpid() == self._pid:  # a forked child has a copy of this object; the folder is its parent's
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)
        self._lock = -1


def sweep(root: Path) -> int:
    """Remove what killed processes left below `root`; returns how many folders. Never fails: it is only tidying.

    A registry may have been prepared by somebody hostile: a root that is a symbolic link is left alone, and so is
    every folder whose name this class has not made.
    """
    swept = 0
    try:
        folder = os.open(root, FOLDER)
    except OSError:
        return 0
    try:
        with os.scandir(folder) as entries:
            found = [e.name for e in entries if _OURS.fullmatch(e.name)]
        for name in found:
            swept += _removed(folder, name)
    except OSError:
        pass
    finally:
        os.close(folder)
    return swept


def _removed(folder: int, name: str) -> bool:
    try:
        lock = os.open(name, FOLDER, dir_fd=folder)
    except OSError:
        return False
    try:
        if _try_lock(lock):
            shutil.rmtree(name, ignore_errors=True, dir_fd=folder)
            return True
    except OSError:  # a file system without locks
        pass
    finally:
        os.close(lock)
    return False


def private_folder(owner: object) -> Path:
    """A temporary folder that is removed with `owner`, or at exit of the process that made it."""
    import tempfile  # 8 ms with `random`; most processes make no such folder

    with storage_errors("write", tempfile.gettempdir()):
        path = tempfile.mkdtemp(prefix="llmartifacts-")
    weakref.finalize(owner, _remove_own, path, os.getpid())
    return Path(path)


def _remove_own(path: str, pid: int) -> None:
    if os.getpid() == pid:  # a forked child ends too, and the folder is its parent's
        shutil.rmtree(path, ignore_errors=True)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN):
            return False
        raise
    return True
