"""Plain files done right: opened without surprises, written whole, durable."""

from __future__ import annotations

import fcntl
import os
import sys
from contextlib import suppress
from pathlib import Path

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""Flags to open a folder that must not be a symbolic link."""
READ_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Flags to open a stored file; without `O_NONBLOCK`, a planted FIFO would make us wait for a writer for ever."""


def create_file(path: Path) -> int:
    """Open a new file of mode 0444 (less the umask) for writing; never one that is there."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)


def write_file(path: Path, data: bytes) -> None:
    """Write a new file, whole and durable, or leave none."""
    fd = create_file(path)
    try:
        write_all(fd, data)
        sync_data(fd)
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Write every byte; a single `write` may stop early on a disk that fills up."""
    done = os.write(fd, data)
    while done < len(data):
        done += os.write(fd, memoryview(data)[done:])


def sync_data(fd: int) -> None:
    """Make a file's bytes survive a power cut."""
    if sys.platform == "darwin":
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # fsync alone leaves them in the drive's cache there
    else:
        os.fdatasync(fd)


def sync_folder(path: Path) -> None:
    """Make the names in a folder survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folders(path: Path) -> None:
    """Make a folder and those above it that are missing, so that their names survive a power cut."""
    missing = [place for place in (path, *path.parents) if not place.is_dir()]
    for place in reversed(missing):
        place.mkdir(exist_ok=True)
        sync_folder(place.parent)


def is_at(fd: int, path: Path) -> bool:
    """Whether an open file or folder is still the one under its path."""
    try:
        return os.path.samestat(os.fstat(fd), path.lstat())
    except FileNotFoundError:
        return False
