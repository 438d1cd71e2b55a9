"""Keeps the cache below its limit: what was used least recently goes first, and nothing that is in use.

Left alone are files that a live process holds (`hold.py`), files used in the last minutes (a path was handed out, and
is about to be opened), and whatever a live builder writes. What a killed builder left is removed.
Any number of processes may come here at once; one works and the others wait for it, but not for long.
"""

from __future__ import annotations

import fcntl
import math
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from llmartifacts.blobs.disk import FOLDER, READ_FILE, is_at
from llmartifacts.blobs.trust import SUFFIX
from llmartifacts.errors import InvalidInput

VARIABLE = "LLMARTIFACTS_CACHE_LIMIT"
DEFAULT_LIMIT = 50 * 10**9
"""Bytes; or half of the cache's file system, where that is less."""
RECENT = 300
"""Seconds for which a file that was used stays in any case."""
_DOWN_TO = 0.95
"""Part of the limit to which a full cache is emptied, so that not every build has to look again."""
_PATIENCE = 2.0
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?(?:([kmgtp])(i?))?b?", re.IGNORECASE)
_FOLDER = re.compile(r"[0-9a-f]{2}")
_NAME = re.compile(r"([0-9a-f]{64})(\.ok|\.part|\.lock)?")


def parse_limit(limit: int | str, *, field: str = "limit") -> float:
    """A limit in bytes; infinite for `none`.

    Args:
        limit: Bytes, or a text such as `20GB` (decimal), `20GiB` (binary), `1500000` or `none`.
        field: What to call it in an error.

    Raises:
        InvalidInput: It is none of these, or not above 0.

    Example:
        >>> parse_limit("1.5GB"), parse_limit("2 KiB"), parse_limit("none")
        (1500000000.0, 2048.0, inf)
    """
    if isinstance(limit, str) and limit.strip().lower() == "none":
        return math.inf
    value = 0.0
    if isinstance(limit, int) and not isinstance(limit, bool):
        value = float(limit)
    elif isinstance(limit, str) and (parsed := _SIZE.fullmatch(limit.strip())):
        number, unit, binary = parsed.groups()
        value = float(number) * (1024 if binary else 1000) ** (" kmgtp".index((unit or " ").lower()))
    if value < 1:
        raise InvalidInput(
            f"{limit!r:.80} is no limit of a cache",
            field=field,
            next_step="Give bytes, or a size such as 20GB or 512MiB; `none` for no limit.",
        )
    return value


def default_limit(root: Path) -> float:
    """`DEFAULT_LIMIT`, or half of the file system of a folder that is there, where that is less."""
    try:
        found = os.statvfs(root)
    except OSError:
        return DEFAULT_LIMIT
    return min(DEFAULT_LIMIT, found.f_frsize * found.f_blocks / 2 or DEFAULT_LIMIT)


class Room:
    """How much may still be built before somebody has to look what lies in a cache.

    Looking reads every name in it, so it is done at the first build of a process, and then each time a part of the
    room that was left has been used up; other processes build too, so only an eighth counts as one's own. A cache may
    be above its limit by about 1 % for a while.
    """

    def __init__(self) -> None:
        self._left = 0.0

    def built(self, root: Path, limit: float, size: int) -> None:
        """After each build: look and evict if it is time. Never fails, for it is only tidying.

        Args:
            root: The cache's folder.
            limit: In bytes.
            size: Bytes that were built.
        """
        self._left -= size
        if self._left > 0:
            return
        with suppress(OSError):
            total = make_room(root, limit)
            self._left = max((limit - total) / 8, limit / 100)


@dataclass(frozen=True, slots=True)
class _Entry:
    path: Path
    size: int
    used: float


def make_room(root: Path, limit: float) -> float:
    """Evict until the cache is below its limit, and remove what killed builders left.

    Args:
        root: The cache's folder.
        limit: In bytes.

    Returns:
        Bytes that are left, held ones included; the limit, if another process is at it or nothing can be seen.
    """
    place = root / "sha256"
    with _alone(place) as alone:
        if not alone:
            return limit
        entries: list[_Entry] = []
        for folder, names in _folders(place):
            for name in {match[1] for match in map(_NAME.fullmatch, names) if match}:
                if f"{name}.lock" in names or f"{name}.part" in names:
                    _sweep(folder / name)
                if name in names:
                    entries += _entry(folder / name, f"{name}{SUFFIX}" in names)
                elif f"{name}{SUFFIX}" in names:
                    _forget(folder / name)
        total = sum(entry.size for entry in entries)
        if total <= limit:
            return total
        now = time.time()
        for entry in sorted(entries, key=lambda entry: entry.used):
            if total <= limit * _DOWN_TO:
                break
            if abs(now - entry.used) >= RECENT and _evicted(entry):
                total -= entry.size
        return total


def objects_in(root: Path) -> Iterator[Path]:
    """The file of every object in a cache, whatever lies there; in no order. Raises `OSError` if it cannot be listed.

    Args:
        root: The cache's folder.
    """
    for folder, names in _folders(root / "sha256"):
        for name in names:
            match = _NAME.fullmatch(name)
            if match is not None and match[2] is None:
                yield folder / name


@contextmanager
def _alone(place: Path) -> Iterator[bool]:
    """Whether this process alone evicts from a folder, for as long as the block takes."""
    try:
        fd = os.open(place, FOLDER)
    except OSError:
        yield False
        return
    try:
        until = time.monotonic() + _PATIENCE
        while not (mine := _locked(fd)) and time.monotonic() < until:
            time.sleep(0.01)
        yield mine
    finally:
        os.close(fd)


def _folders(place: Path) -> Iterator[tuple[Path, frozenset[str]]]:
    with os.scandir(place) as folders:
        found = [f.name for f in folders if _FOLDER.fullmatch(f.name) and f.is_dir(follow_symlinks=False)]
    for folder in found:
        with suppress(OSError), os.scandir(place / folder) as files:
            yield place / folder, frozenset(file.name for file in files if file.name.startswith(folder))


def _entry(path: Path, recorded: bool) -> list[_Entry]:
    try:
        found = path.lstat()
    except OSError:
        return []
    if not stat.S_ISREG(found.st_mode):
        return []
    return [_Entry(path, found.st_size, _used(path, found.st_ctime) if recorded else found.st_ctime)]


def _used(path: Path, built: float) -> float:
    """When a file was used last, in seconds since 1970: its record says so; else when it was built."""
    try:
        return path.with_name(path.name + SUFFIX).lstat().st_mtime
    except OSError:
        return built


def _evicted(entry: _Entry) -> bool:
    """Remove an entry that nobody holds; tells whether it is gone."""
    try:
        fd = os.open(entry.path, READ_FILE)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        if not _locked(fd) or not is_at(fd, entry.path):
            return False
        if _used(entry.path, os.fstat(fd).st_ctime) != entry.used:
            return False  # used while we looked at the others
        with suppress(FileNotFoundError):
            entry.path.with_name(entry.path.name + SUFFIX).unlink()
        entry.path.unlink()
        return True
    except OSError:  # a file system without locks, or that is read-only; or somebody else's file
        return False
    finally:
        os.close(fd)


def _sweep(path: Path) -> None:
    """Remove the part and the lock of a builder that is gone."""
    lock = path.with_name(f"{path.name}.lock")
    with suppress(OSError):
        # Made if it is not there: a part without a lock must not be one that somebody begins just now.
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        try:
            if _locked(fd) and is_at(fd, lock):
                try:
                    path.with_name(f"{path.name}.part").unlink(missing_ok=True)
                finally:
                    lock.unlink()
        finally:
            os.close(fd)


def _forget(path: Path) -> None:
    """Remove a record without its file."""
    with suppress(OSError):
        path.with_name(path.name + SUFFIX).unlink()


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
