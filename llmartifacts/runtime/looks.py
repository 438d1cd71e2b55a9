"""Looks that the processes of one host share, so that of many workers one asks the registry.

    <cache>/looks/<sha256 of location, project and references>.json    what the last look found, and when
    <cache>/looks/<the same>.lock                                      held by the process that looks just now

The record can say one thing only: that what this process serves was still what the references mean, a moment ago. If it
says anything else, the process asks the registry itself; so nobody who can write there can make a service load
anything. The time is the host's monotonic clock, which no change of the date moves.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from llmartifacts.errors import LlmartifactsError
from llmartifacts.records.canonical import canonical_bytes, parse_json
from llmartifacts.records.digest import digest_of
from llmartifacts.runtime.generation import Notice
from llmartifacts.runtime.known_good import Asked

SCHEMA = "llmartifacts/look/1"
FOLDER = "looks"
POLL = 0.05
"""Seconds between two attempts to take the lock."""
_MAX_BYTES = 64 * 1024
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_OPEN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look found.

    Attributes:
        set_digest: Digest of the whole set.
        told: Of what somebody should know of it, see `told`.
        revision: The project's revision.
        at: When the registry was asked, by the monotonic clock.
    """

    set_digest: str
    told: str
    revision: int
    at: float


def told(notices: Iterable[Notice]) -> str:
    """A digest of withdrawals: a set with another one is another thing to serve."""
    return digest_of(canonical_bytes(sorted([n.field, n.message] for n in notices if n.code == "yanked")))


class SharedLooks:
    """Looks of this host's processes that ask for the same. What cannot be shared is looked at alone.

    Args:
        root: The cache's folder.
        asked: What is asked for.
    """

    def __init__(self, root: Path, asked: Asked) -> None:
        self._asked = asked.body()
        self._path = root / FOLDER / asked.path(root).name
        self._boot = _boot()

    @contextmanager
    def turn(self, within: float, patience: float) -> Iterator[Seen | None]:
        """This process's turn to look, or the look of another one.

        Args:
            within: Seconds; a younger look of another process is taken.
            patience: Seconds to wait for a process that looks just now.

        Yields:
            The look; None if this process is to look itself.
        """
        seen = self.recent(within)
        if seen is not None or not self._boot:
            yield seen
            return
        fd = self._open_lock()
        held = False
        try:
            until = time.monotonic() + patience
            while fd is not None and not (held := _taken(fd)):
                seen = self.recent(within)
                if seen is not None or time.monotonic() >= until:
                    break
                time.sleep(POLL)
            yield seen or (self.recent(within) if held else None)
        finally:
            if fd is not None:
                if held:  # a forked child may have a copy of it, and closing alone would leave it locked
                    fcntl.flock(fd, fcntl.LOCK_UN)
                os.close(fd)

    def recent(self, within: float) -> Seen | None:
        """The last look of any process, if it is young enough and can be believed."""
        if not self._boot:
            return None
        with suppress(LlmartifactsError, OSError, TypeError, KeyError):
            seen = self._seen(parse_json(self._read(), field="look", max_bytes=_MAX_BYTES))
            return seen if seen is not None and 0 <= time.monotonic() - seen.at < within else None
        return None

    def _read(self) -> bytes:
        fd = os.open(self._path, os.O_RDONLY | _OPEN)
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or not _ours(found):
                return b""
            return os.read(fd, _MAX_BYTES + 1)
        finally:
            os.close(fd)

    def note(self, seen: Seen) -> None:
        """Tell the others what was found."""
        if not self._boot:
            return
        body: dict[str, object] = {
            "schema": SCHEMA,
            "asked": self._asked,
            "boot": self._boot,
            "set": seen.set_digest,
            "told": seen.told,
            "revision": seen.revision,
            "at": round(seen.at * 1e6),
        }
        body["check"] = digest_of(canonical_bytes(body))
        with suppress(OSError):  # a read-only cache: everybody looks alone
            self._write(json.dumps(body, sort_keys=True).encode())

    def _write(self, data: bytes) -> None:
        # Over what is there, which whoever reads it meanwhile finds out by its checksum: file systems flush a file that
        # is truncated or that replaces another, and that takes longer than the look itself.
        fd = self._open(self._path, os.O_RDWR)
        try:
            found = os.fstat(fd)
            if stat.S_ISREG(found.st_mode) and _ours(found) and found.st_size <= _MAX_BYTES:
                os.pwrite(fd, data.ljust(found.st_size - 1) + b"\n", 0)
                return
        finally:
            os.close(fd)
        self._path.unlink()

    def _seen(self, body: object) -> Seen | None:
        if not isinstance(body, dict) or body["schema"] != SCHEMA or body["asked"] != self._asked:
            return None
        if body.pop("check") != digest_of(canonical_bytes(body)):
            return None
        at, revision = body["at"], body["revision"]
        if body["boot"] != self._boot or type(at) is not int or type(revision) is not int:
            return None
        return Seen(str(body["set"]), str(body["told"]), revision, at / 1e6)

    def _open_lock(self) -> int | None:
        try:
            return self._open(self._path.with_suffix(".lock"), os.O_RDWR)
        except OSError:
            return None

    def _open(self, path: Path, how: int) -> int:
        try:
            return os.open(path, how | os.O_CREAT | _OPEN, 0o644)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(path, how | os.O_CREAT | _OPEN, 0o644)


def _taken(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return False
    return True


def _ours(found: os.stat_result) -> bool:
    return found.st_uid in (0, os.geteuid()) and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


@cache
def _boot() -> str:
    """What tells this host's run from every other, so that a monotonic clock means the same; empty if unknown."""
    try:
        return _BOOT.read_text().strip()[:64]
    except (OSError, UnicodeDecodeError):
        return ""
