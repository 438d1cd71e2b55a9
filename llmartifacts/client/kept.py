"""Answers that outlive a process: the next one asks whether they still hold, and is told so in a few bytes.

    <cache>/answers/<sha256 of server, project and references>.json      the body, byte for byte; mode 0600

What lies there is believed by nobody. The entity tag is computed from the bytes anew before it is sent, so that the
server decides whether they are what it would say now; an altered file has a tag that the server does not know, and
gets the whole answer. What is taken from a file is held against its digests like what comes through the wire.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from llmartifacts.errors import LlmartifactsError
from llmartifacts.records.canonical import canonical_bytes
from llmartifacts.records.digest import Digest
from llmartifacts.records.manifest import MAX_BYTES, Manifest

if TYPE_CHECKING:
    from llmartifacts.blobs.cache import BlobCache

FOLDER = "answers"
MAX_ANSWER = 4 * 1024 * 1024
"""Bytes of an answer that is kept; a longer one is asked for anew."""
MAX_ANSWERS = 64
"""Answers that are kept; those written or used longest ago go first."""
_OTHERS_WRITE = 0o022
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Kept:
    """Answers of one server in a folder of the cache, and the manifests that lie in the cache itself.

    Nothing here fails: what cannot be read is not there, and what cannot be written is not kept.

    Args:
        cache: The cache.
        server: The server's address.
    """

    def __init__(self, cache: BlobCache, server: str) -> None:
        self._cache = cache
        self._server = server

    def recall(self, project: str, references: Sequence[str]) -> bytes | None:
        """The body of the answer that was kept; None if there is none to be read."""
        folder = self._folder()
        if folder is None:
            return None
        name = self._name(project, references)
        try:
            fd = os.open(name, _READ, dir_fd=folder)
            try:
                if not _own(os.fstat(fd), stat.S_IFREG):
                    return None
                with open(fd, "rb", closefd=False) as file:
                    body = file.read(MAX_ANSWER + 1)
            finally:
                os.close(fd)
            with suppress(OSError):  # a cache that cannot be written is read all the same
                os.utime(name, dir_fd=folder, follow_symlinks=False)
            return body if 0 < len(body) <= MAX_ANSWER else None
        except OSError:
            return None
        finally:
            os.close(folder)

    def keep(self, project: str, references: Sequence[str], body: bytes) -> None:
        """Keep the body of an answer in the place of the one before, whole or not at all."""
        if len(body) > MAX_ANSWER:
            return
        with suppress(OSError):
            (self._cache.root / FOLDER).mkdir(0o700, parents=True, exist_ok=True)
        folder = self._folder()
        if folder is None:
            return
        aside = f".{secrets.token_hex(8)}"
        try:
            # Not made durable: what a power cut leaves of it has another tag, and is asked for anew.
            fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
            with open(fd, "wb") as file:
                file.write(body)
            os.rename(aside, self._name(project, references), src_dir_fd=folder, dst_dir_fd=folder)
            _make_room(folder)
        except OSError:
            with suppress(OSError):
                os.unlink(aside, dir_fd=folder)
        finally:
            os.close(folder)

    def manifest(self, digest: Digest) -> Manifest | None:
        """A manifest that lies in the cache, verified; None if there is none, or another."""
        try:
            found = self._cache.find(digest)
            if found is None or found.size > MAX_BYTES:
                return None
            return Manifest.from_bytes(self._cache.read(found), expect=digest, origin=str(self._cache.root))
        except (LlmartifactsError, OSError):
            return None

    def _folder(self) -> int | None:
        """The folder, open; None where there is none of this user's own."""
        try:
            fd = os.open(self._cache.root / FOLDER, _FOLDER)
        except OSError:
            return None
        if _own(os.fstat(fd), stat.S_IFDIR):
            return fd
        os.close(fd)
        return None

    def _name(self, project: str, references: Sequence[str]) -> str:
        asked = {"server": self._server, "project": project, "references": list(references)}
        return f"{hashlib.sha256(canonical_bytes(asked)).hexdigest()}.json"


def _own(found: os.stat_result, kind: int) -> bool:
    """Whether a file or folder is of its kind, of this user or root, and nobody else's to write."""
    ours = found.st_uid in (os.geteuid(), 0) and not found.st_mode & _OTHERS_WRITE
    return ours and stat.S_IFMT(found.st_mode) == kind


def _make_room(folder: int) -> None:
    """Remove the oldest answers beyond the limit, and what killed processes left."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries]
    if len(names) <= MAX_ANSWERS:
        return
    ages: list[tuple[float, str]] = []
    for name in names:
        with suppress(OSError):
            ages.append((os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime, name))
    for _, name in sorted(ages)[: len(names) - MAX_ANSWERS]:
        with suppress(OSError):
            os.unlink(name, dir_fd=folder)
