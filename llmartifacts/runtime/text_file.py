"""Small text files: read with a limit, written whole or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from llmartifacts.blobs.failures import storage_error, storage_errors
from llmartifacts.errors import UnsafeContent


def read_bounded(path: Path, limit: int, *, follow: bool) -> bytes:
    """All bytes of a plain file, at most one beyond the limit, so that a parser can refuse what is too large.

    Args:
        path: The file.
        limit: Bytes.
        follow: Whether it may be a symbolic link, as files are that an orchestrator mounts.

    Raises:
        FileNotFoundError: There is no such file.
        UnsafeContent: It is a link, and none is followed; or no plain file.
        LlmartifactsError: It cannot be read.
    """
    try:
        # Without O_NONBLOCK, a pipe that somebody put there would hold the caller for ever.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise storage_error(error, "read", path) from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise UnsafeContent(f"{path} is no plain file", file=str(path), next_step="Remove it, or name another.")
        with storage_errors("read", path), open(fd, "rb", closefd=False) as file:
            return file.read(limit + 1)
    finally:
        os.close(fd)


def write_atomically(path: Path, text: str) -> None:
    """Write a text file, durable before it replaces the one that was there.

    Raises:
        NotAllowed: The place is read-only, full or somebody else's.
    """
    with storage_errors("write", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        fd, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with open(fd, "w", encoding="utf-8", newline="\n") as out:
                out.write(text)
                out.flush()
                os.fsync(out.fileno())
            os.chmod(aside, 0o644)
            os.replace(aside, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(aside)
            raise
