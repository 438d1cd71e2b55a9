"""Whole blobs as files of this user, for libraries that map files and for starts without the registry.

<root>/sha256/ab/<hex>         mode 0444; built beside and renamed, never rewritten: a mapped file that shrinks
                               kills the process that maps it
<root>/sha256/ab/<hex>.part    being built, under a `flock` on <hex>.lock; a killed builder's lock is free again, and
                               its part is thrown away
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

from llmartifacts.blobs.base import PIECE, read_up_to
from llmartifacts.blobs.disk import READ_FILE, create_file, is_at, sync_data, sync_folder, write_all
from llmartifacts.blobs.failures import READ_ONLY, storage_error, storage_errors
from llmartifacts.blobs.forms import RAW, key_of
from llmartifacts.blobs.scratch import private_folder
from llmartifacts.blobs.verify import Sha256, VerifiedFiles
from llmartifacts.errors import BlobMissing, Damaged, DigestMismatch
from llmartifacts.records.digest import Blob, Digest, digest_of

T = TypeVar("T")
_UNUSABLE = READ_ONLY | {errno.ENOTDIR, errno.EEXIST, errno.ELOOP}
"""A cache that cannot be written, or where something else than a folder lies: a service starts all the same."""
IN_MEMORY = 8 * 1024 * 1024
"""Bytes up to which an opened blob is held in memory."""


class Sink(Protocol):
    """Where a builder writes a blob's bytes."""

    def write(self, data: bytes, /) -> Any:
        """Take the next bytes."""


Fetch = Callable[[Sink], object]
"""Writes all bytes of a blob into a sink; they are verified there."""


class BlobCache:
    """Verified files by digest, shared by the processes of one user; a `BlobSource` of what is in it.

    A file is hashed when a process first opens it, and again whenever it is not the very file that was hashed. One that
    is damaged is built anew. Of any number of processes that want the same blob, one builds it and the others wait.
    Where the cache cannot be written, what is in it is used and the rest goes to a private temporary folder.

    Args:
        root: Its folder; by default `$LLMARTIFACTS_CACHE`, else `llmartifacts` in the user's cache folder. Made when
            something is first put in.
    """

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        self._given = root
        self._verified = VerifiedFiles()
        self._private: Path | None = None
        self._private_lock = threading.Lock()

    @classmethod
    def temporary(cls) -> BlobCache:
        """A cache that is gone with its owner."""
        cache = cls()
        cache.root = private_folder(cache)
        return cache

    @cached_property
    def root(self) -> Path:
        """Its folder."""
        return Path(self._given).absolute() if self._given is not None else default_root()

    # --- what is there

    def read(self, blob: Blob) -> bytes:
        """The bytes, in memory. Raises `BlobMissing`, or `DigestMismatch` if the cached file is damaged."""

        def verified(file: BinaryIO) -> bytes | None:
            data = read_up_to(file, blob.size + 1)
            return data if len(data) == blob.size and digest_of(data) == blob.digest else None

        return self._find(blob, verified)[0]

    def open(self, blob: Blob) -> BinaryIO:
        """A binary reader over verified bytes. Raises as `read`."""
        if blob.size <= IN_MEMORY:
            return io.BytesIO(self.read(blob))
        return self._find(blob, lambda file: reader_of(file) if self._verified.holds(file, blob) else None)[0]

    def path(self, blob: Blob, fetch: Fetch | None = None, *, origin: Callable[[], str] = str) -> Path:
        """A read-only file of the verified bytes.

        Args:
            blob: Which bytes.
            fetch: Writes the bytes where they are not cached; None to use the cache only.
            origin: Says where `fetch` has them from; asked only if they are wrong.

        Raises:
            BlobMissing: They are not cached, and there is no `fetch`.
            DigestMismatch: The cached file is damaged and there is no `fetch`, or `fetch` wrote something else.
            NotAllowed: The disk is full.
            Unreachable: The disk fails.
        """
        if fetch is None:
            return self._find(blob, lambda file: self._verified.holds(file, blob) or None)[1]
        found = self.get(blob)
        if found is not None:
            return found
        try:
            return self._build(self.root, blob, fetch, origin)
        except _ReadOnly:
            pass
        try:
            return self._build(self._private_root(), blob, fetch, origin)
        except _ReadOnly as error:
            raise storage_error(error.refused, "write", self._private_root()) from error.refused

    def get(self, blob: Blob) -> Path | None:
        """The cached file, verified, or None where there is none or it is damaged."""
        try:
            return self.path(blob)
        except Damaged:
            return None

    def find(self, digest: Digest) -> Blob | None:
        """What lies in the cache under a digest, with its size there; verified when it is read. None if nothing."""
        for root in filter(None, (self.root, self._private)):
            with suppress(OSError):
                return Blob(digest, (root / key_of(digest, RAW)).lstat().st_size)
        return None

    def put(self, blob: Blob, source: bytes | Path | BinaryIO) -> Path:
        """Cache a blob from its bytes; returns the file. Raises `DigestMismatch` if they are others."""

        def fetch(sink: Sink) -> None:
            if isinstance(source, bytes):
                sink.write(source)
                return
            with ExitStack() as opened:
                stream = opened.enter_context(open(source, "rb")) if isinstance(source, Path) else source
                while piece := stream.read(PIECE):
                    sink.write(piece)

        return self.path(blob, fetch, origin=lambda: str(source) if isinstance(source, Path) else "")

    def _find(self, blob: Blob, verified: Callable[[BinaryIO], T | None]) -> tuple[T, Path]:
        """What `verified` makes of the cached file, and its path. Raises as `read`; None from `verified` is damage."""
        damaged: Path | None = None
        for root in (self.root, self._private):
            if root is None:
                continue
            entry = _entry(root, blob)
            try:
                with open(os.open(entry, READ_FILE), "rb", buffering=0) as file:
                    made = verified(file)
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                continue
            except OSError as error:
                if error.errno not in (errno.ELOOP, errno.EIO):
                    raise storage_error(error, "read", entry) from error
                made = None
            if made is not None:
                return made, entry
            damaged = entry
        if damaged is not None:
            raise DigestMismatch(
                f"the cached file {damaged} is not {blob.digest}",
                digest=blob.digest,
                file=str(damaged),
                next_step="Connect to the registry once, so that it is fetched anew; or remove the file.",
            )
        raise BlobMissing(
            f"{blob.digest} is not in the cache {self.root}",
            digest=blob.digest,
            next_step="Connect to the registry once, so that it is fetched.",
        )

    # --- build

    def _build(self, root: Path, blob: Blob, fetch: Fetch, origin: Callable[[], str]) -> Path:
        entry = _entry(root, blob)
        with _locked(entry.with_name(f"{entry.name}.lock")):
            found = self.get(blob)  # another process may have built it while we waited
            if found is not None:
                return found
            part = entry.with_name(f"{entry.name}.part")
            try:
                with storage_errors("write", part):
                    part.unlink(missing_ok=True)  # what a killed builder left
                    fd = create_file(part)
                with open(fd, "wb", buffering=0):
                    sink = _VerifyingSink(fd, part, blob, origin)
                    fetch(sink)
                    sink.finish()
                    with storage_errors("write", part):
                        sync_data(fd)
                with storage_errors("write", entry):
                    os.rename(part, entry)
                    sync_folder(entry.parent)
            except BaseException:
                with suppress(OSError):
                    part.unlink()
                raise
        return entry

    def _private_root(self) -> Path:
        with self._private_lock:
            if self._private is None:
                self._private = private_folder(self)
            return self._private


class _VerifyingSink:
    """Writes into a file, and refuses whatever is not the blob."""

    def __init__(self, fd: int, path: Path, blob: Blob, origin: Callable[[], str]) -> None:
        self._fd, self._path, self._blob, self._origin = fd, path, blob, origin
        self._seen = Sha256()

    def write(self, data: bytes) -> int:
        """Take the next bytes."""
        self._seen.update(data)
        if self._seen.size > self._blob.size:
            raise self._mismatch(f"is longer than its {self._blob.size} bytes")
        with storage_errors("write", self._path):
            write_all(self._fd, data)
        return len(data)

    def finish(self) -> None:
        """Raises `DigestMismatch` unless all of the blob was written."""
        if self._seen.size < self._blob.size:
            raise self._mismatch(f"has {self._seen.size} of its {self._blob.size} bytes")
        if self._seen.blob != self._blob:
            raise self._mismatch(f"has the digest {self._seen.blob.digest}")

    def _mismatch(self, what: str) -> DigestMismatch:
        origin, digest = self._origin(), self._blob.digest
        return DigestMismatch(f"{origin or 'what was fetched'}, stored as {digest}, {what}", digest=digest, file=origin)


class _ReadOnly(Exception):
    """The cache cannot be written. Never leaves this file."""

    def __init__(self, refused: OSError) -> None:
        self.refused = refused


@contextmanager
def _locked(lock: Path) -> Iterator[None]:
    """Hold a lock file, which is removed at the end; whoever waited for it finds it gone, and makes another."""
    while True:
        with storage_errors("write", lock):
            try:
                lock.parent.mkdir(parents=True, exist_ok=True)
                fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            except OSError as error:
                if error.errno in _UNUSABLE:
                    raise _ReadOnly(error) from error
                raise
        try:
            with storage_errors("lock", lock):
                fcntl.flock(fd, fcntl.LOCK_EX)
            if is_at(fd, lock):
                try:
                    yield
                finally:
                    with suppress(OSError):
                        lock.unlink()
                return
        finally:
            os.close(fd)


def default_root() -> Path:
    """`$LLMARTIFACTS_CACHE`, else `llmartifacts` in the user's cache folder."""
    named = os.environ.get("LLMARTIFACTS_CACHE")
    if named:
        return Path(named).absolute()
    import platformdirs

    return platformdirs.user_cache_path("llmartifacts", appauthor=False)


def reader_of(file: BinaryIO) -> BinaryIO:
    """A buffered reader of its own over an open file."""
    return io.BufferedReader(io.FileIO(os.dup(file.fileno()), "rb"))


def _entry(root: Path, blob: Blob) -> Path:
    return root / key_of(blob.digest, RAW)
