"""A record beside a cached file that it was hashed, so that the next process need not hash it again.

<hex>.ok    one line, mode 0444: the digest; device, inode, size and times of change of the very file that was hashed;
            when that was; and the SHA-256 of all this, so that a torn or rotten record is none

What is trusted, and nothing else: the kernel's time of change (`ctime`), which every write, truncation and replacement
of a file sets and no call can set back; the clock of this host; root; and that this user's own processes forge no
record. Whoever alters a cached file and leaves the record as it is, is found out: the file is hashed again. A record
that somebody else could have written is not believed, nor one that is older than `FRESH_FOR`.

The record's own time of change says when the file was used last, which the eviction goes by. The cached file itself is
never touched for that: its `ctime` must stay.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time
from contextlib import suppress
from pathlib import Path

from llmartifacts.blobs.disk import FOLDER, READ_FILE, write_all
from llmartifacts.records.digest import Blob, Digest

SUFFIX = ".ok"
FRESH_FOR = 7 * 24 * 3600 * 10**9
"""Nanoseconds that a record holds: disks lose bits without any write, and a hash once a week finds that."""
TICK = 50_000_000
"""Nanoseconds that a file must have been left alone. Its times advance in steps of a few milliseconds, so two changes
within one step look like one."""
USED_EVERY = 60
"""Seconds between two notes that a file was used; more often would write to the disk at each use."""
_LONGEST = 512
_LINE = re.compile(rb"llmartifacts-verified/1 (sha256:[0-9a-f]{64})((?: (?:0|-?[1-9][0-9]{0,19})){6}) ([0-9a-f]{64})\n")

Identity = tuple[int, int, int, int, int]
"""Device, inode, size, mtime and ctime in nanoseconds."""


def identity_of(found: os.stat_result) -> Identity:
    """What tells one state of a file from every other."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


class Record:
    """The record of one cached file.

    Args:
        entry: The cached file.
    """

    def __init__(self, entry: Path) -> None:
        self.path = entry.with_name(entry.name + SUFFIX)

    def vouches(self, blob: Blob, found: os.stat_result) -> bool:
        """Whether an open file, given its `fstat`, is the one that was hashed and found to be that blob.

        Believed only if file, record and the folder of both belong to this user or to root and nobody else may write
        to them; the record is a regular file and no link; it is whole, of this blob and of this state of the file; the
        file had settled when it was hashed; and that was within `FRESH_FOR`.
        """
        if not _ours(found):
            return False
        try:
            line = self._read()
        except OSError:
            return False
        parsed = _parsed(line)
        if parsed is None:
            return False
        *stated, hashed = map(int, parsed[2].split())
        now = time.time_ns()
        return (
            parsed[1].decode() == blob.digest
            and found.st_size == blob.size
            and tuple(stated) == identity_of(found)
            and hashed - found.st_ctime_ns > TICK
            and 0 <= now - hashed < FRESH_FOR
        )

    def whole(self, digest: Digest) -> bool:
        """Whether the record is as it was written, and of that object; true where there is none.

        Whether it is believed is another question: it may be old, or of another state of the file.
        """
        try:
            fd = os.open(self.path, READ_FILE)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        try:
            line = os.read(fd, _LONGEST) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
        except OSError:
            return False
        finally:
            os.close(fd)
        parsed = _parsed(line)
        return parsed is not None and parsed[1].decode() == digest

    def write(self, blob: Blob, identity: Identity, hashed: int) -> None:
        """Write the record anew. Where that is not possible there is none, and the next process hashes the file.

        Args:
            blob: What the file is.
            identity: The file's.
            hashed: When hashing began, in nanoseconds since 1970.
        """
        body = f"llmartifacts-verified/1 {blob.digest} {' '.join(map(str, (*identity, hashed)))} ".encode()
        with suppress(OSError):
            self.remove()
            # Written in place: a reader that sees a part of it finds the checksum wrong.
            fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o444)
            try:
                write_all(fd, body + hashlib.sha256(body).hexdigest().encode() + b"\n")
            finally:
                os.close(fd)

    def used(self) -> None:
        """Note that the file was used now; only where it is, and at most every `USED_EVERY` seconds."""
        with suppress(OSError):
            noted = os.stat(self.path, follow_symlinks=False).st_mtime
            if abs(time.time() - noted) > USED_EVERY:
                os.utime(self.path, follow_symlinks=False)

    def remove(self) -> None:
        """Remove it, if it is there."""
        with suppress(FileNotFoundError):
            os.unlink(self.path)

    def _read(self) -> bytes:
        folder = os.open(self.path.parent, FOLDER)
        try:
            if not _ours(os.fstat(folder)):
                return b""
            fd = os.open(self.path.name, READ_FILE, dir_fd=folder)
        finally:
            os.close(folder)
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or not _ours(found):
                return b""
            return os.read(fd, _LONGEST)
        finally:
            os.close(fd)


def _parsed(line: bytes) -> re.Match[bytes] | None:
    """The parts of a record, or None where it is torn or altered."""
    parsed = _LINE.fullmatch(line)
    if parsed is None or hashlib.sha256(line[: parsed.start(3)]).hexdigest().encode() != parsed[3]:
        return None
    return parsed


def _ours(found: os.stat_result) -> bool:
    """Whether only this user and root can write there."""
    return found.st_uid in (0, os.geteuid()) and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
