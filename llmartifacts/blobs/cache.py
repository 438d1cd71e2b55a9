"""Whole blobs as files of this user, for libraries that map files and for starts without the registry.

<root>/sha256/ab/<hex>         mode 0444; built beside and renamed, never rewritten: a mapped file that shrinks
                               kills the process that maps it
<root>/sha256/ab/<hex>.ok      that it was hashed, and when it was used last: `trust.py`
<root>/sha256/ab/<hex>.part    being built, under a `flock` on <hex>.lock; a killed builder's lock is free again, and
                               its part is thrown away
<root>/fetching/ab/<hex>.lock  held while it is asked for, so that of many who start at once one fetches it

What was used least recently is evicted (`eviction.py`), but nothing that a live process holds (`hold.py`).
"""

from __future__ import annotations

import errno
import fcntl
import io
import math
import mmap
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeVar

from llmartifacts.blobs.base import PIECE, read_up_to
from llmartifacts.blobs.disk import create_file, is_at, sync_data, sync_folder, write_all
from llmartifacts.blobs.eviction import VARIABLE, Room, default_limit, parse_limit
from llmartifacts.blobs.failures import READ_ONLY, storage_error, storage_errors
from llmartifacts.blobs.forms import RAW, key_of
from llmartifacts.blobs.hold import Holds, open_held
from llmartifacts.blobs.scratch import private_folder
from llmartifacts.blobs.trust import Record
from llmartifacts.blobs.verify import Sha256, VerifiedFiles
from llmartifacts.errors import BlobMissing, Damaged, DigestMismatch, LlmartifactsError
from llmartifacts.records.digest import Blob, Digest, digest_of

if TYPE_CHECKING:
    from llmartifacts.blobs.chunks.behind import Behind

T = TypeVar("T")
_UNUSABLE = READ_ONLY | {errno.ENOTDIR, errno.EEXIST, errno.ELOOP}
"""A cache that cannot be written, or where something else than a folder lies: a service starts all the same."""
_POLL = 0.01
_ROUNDS = 5
"""How often a file is built that somebody removes by hand before it is handed over."""
IN_MEMORY = 8 * 1024 * 1024
"""Bytes up to which an opened blob is held in memory. Of a larger file the builder itself notes that it was hashed;
a smaller one is hashed by whoever opens it next, in a few milliseconds, which costs less than to wait for its times."""


class Sink(Protocol):
    """Where a builder writes a blob's bytes."""

    def write(self, data: bytes, /) -> Any:
        """Take the next bytes."""


Fetch = Callable[[Sink], object]
"""Writes all bytes of a blob into a sink; they are verified there."""


class BlobCache:
    """Verified files by digest, shared by the processes of one user; a `BlobSource` of what is in it.

    A file is hashed once, and again whenever it is not the very file that was hashed, or a week has passed; on what
    other processes noted, `trust.py` says what is believed. One that is damaged is built anew. Of any number of
    processes that want the same blob, one builds it and the others wait. Where the cache cannot be written, what is in
    it is used and the rest goes to a private temporary folder.

    After a build, files are evicted until the cache is below its limit: those used least recently first; never one
    that a process has open or mapped or whose path (`path`, `get`, `put`) it still keeps, never one used in the last
    five minutes. So a cache may be above its limit while more than that is in use.

    Args:
        root: Its folder; by default `$LLMARTIFACTS_CACHE`, else `llmartifacts` in the user's cache folder. Made when
            something is first put in.
        limit: In bytes, or as `20GB`, or `none`; by default `$LLMARTIFACTS_CACHE_LIMIT`, else 50 GB, or half of its
            file system where that is less.

    Raises:
        InvalidInput: The limit is none; or that of the variable.
    """

    def __init__(self, root: str | os.PathLike[str] | None = None, limit: int | str | None = None) -> None:
        self._given = root
        named = os.environ.get(VARIABLE)
        self._limit = parse_limit(limit) if limit is not None else parse_limit(named, field=VARIABLE) if named else None
        self._room = Room()
        self._holds = Holds()
        self._verified = VerifiedFiles()
        self._private: Path | None = None
        self._private_lock = threading.Lock()

    @classmethod
    def temporary(cls) -> BlobCache:
        """A cache that is gone with its owner, without a limit."""
        cache = cls(limit="none")
        cache.root = private_folder(cache)
        return cache

    @cached_property
    def root(self) -> Path:
        """Its folder."""
        return Path(self._given).absolute() if self._given is not None else default_root()

    @property
    def limit(self) -> float:
        """Bytes that it may take; infinite if there is no limit."""
        return default_limit(self.root) if self._limit is None else self._limit

    # --- what is there

    def read(self, blob: Blob) -> bytes:
        """The bytes, in memory. Raises `BlobMissing`, or `DigestMismatch` if the cached file is damaged."""

        def whole(file: BinaryIO, entry: Path) -> bytes | None:
            data = read_up_to(file, blob.size + 1)
            if len(data) != blob.size or digest_of(data) != blob.digest:
                return None
            Record(entry).used()
            return data

        return self._find(blob, whole)

    def open(self, blob: Blob) -> BinaryIO:
        """A binary reader over verified bytes; the file is held until it is closed. Raises as `read`."""
        if blob.size <= IN_MEMORY:
            return io.BytesIO(self.read(blob))
        return self._find(blob, lambda file, entry: reader_of(file) if self._holds_blob(file, entry, blob) else None)

    def peek(self, blob: Blob) -> mmap.mmap | None:
        """The bytes as a read-only map, held as long as it lives; None where they are not cached whole and right.

        For what would be nice to have, such as the file of the version before, of which most can be taken over: it
        fetches nothing, and a damaged file is as good as none.
        """

        def mapped(file: BinaryIO, entry: Path) -> mmap.mmap | None:
            if not blob.size or not self._holds_blob(file, entry, blob):
                return None
            return mmap.mmap(file.fileno(), 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)

        try:
            return self._find(blob, mapped)
        except LlmartifactsError:
            return None

    def path(self, blob: Blob, fetch: Fetch | None = None, *, origin: Callable[[], str] = str) -> Path:
        """A read-only file of the verified bytes, held as long as the very object that is returned lives.

        At most 256 are held at once; of more, as of a path of which only a copy or its text is kept, the file stays
        for five minutes, and for as long as it is open in a way that holds it (see `hold.py`).

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
            return self._find(
                blob, lambda file, entry: self._holds.path(entry, file) if self._holds_blob(file, entry, blob) else None
            )
        found = self.get(blob)
        if found is not None:
            return found
        try:
            made = self._build(self.root, blob, fetch, origin)
        except _ReadOnly:
            pass
        else:
            self._room.built(self.root, self.limit, blob.size)
            return made
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

    def at_hand(self, blob: Blob) -> Path | None:
        """As `get`, but only where the file is known to be right without reading it; else None, whatever is there."""

        def known(file: BinaryIO, entry: Path) -> Path | None:
            record = Record(entry)
            if not self._verified.knows(file, blob, record):
                return None
            record.used()
            return self._holds.path(entry, file)

        try:
            return self._find(blob, known)
        except Damaged:
            return None

    @contextmanager
    def turn(self, blob: Blob, patience: float) -> Iterator[None]:
        """This process's turn, and this thread's, to ask somebody for a blob, while the others wait.

        Args:
            blob: What is asked for.
            patience: Seconds to wait for those whose turn it is: one of them may have stopped for good.
        """
        entry = _entry(self.root, blob)
        lock = self.root / "fetching" / entry.parent.name / f"{entry.name}.lock"
        with ExitStack() as stack:
            with suppress(_ReadOnly, _StillHeld):  # where nothing can be kept, everybody asks
                stack.enter_context(_locked(lock, patience))
            yield

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

    def remove(self, blob: Blob) -> None:
        """Remove a blob; whoever has its file open keeps reading it."""
        for root in filter(None, (self.root, self._private)):
            with suppress(OSError):
                _entry(root, blob).unlink()

    def _holds_blob(self, file: BinaryIO, entry: Path, blob: Blob) -> bool:
        record = Record(entry)
        if not self._verified.holds(file, blob, record):
            return False
        record.used()
        return True

    def _find(self, blob: Blob, use: Callable[[BinaryIO, Path], T | None]) -> T:
        """What `use` makes of the cached file, open and held, and its path. Raises as `read`.

        Args:
            blob: Which bytes.
            use: Verifies them; None from it is damage.
        """
        damaged: Path | None = None
        for root in (self.root, self._private):
            if root is None:
                continue
            entry = _entry(root, blob)
            try:
                with open_held(entry) as file:
                    made = use(file, entry)
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                continue
            except OSError as error:
                if error.errno not in (errno.ELOOP, errno.EIO):
                    raise storage_error(error, "read", entry) from error
                made = None
            if made is not None:
                return made
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
        for _ in range(_ROUNDS):
            with _locked(entry.with_name(f"{entry.name}.lock")):
                found = self.get(blob)  # another process may have built it while we waited
                if found is not None:
                    return found
                file = self._write(entry, blob, fetch, origin)
                if file is None:
                    return entry
                with file:
                    if is_at(file.fileno(), entry):
                        return self._holds.path(entry, file)
        gone = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(entry))
        raise storage_error(gone, "open", entry)

    def _write(self, entry: Path, blob: Blob, fetch: Fetch, origin: Callable[[], str]) -> BinaryIO | None:
        """Build a file; returns it opened and held, None where it cannot be read, under a strict umask for instance."""
        part, record = entry.with_name(f"{entry.name}.part"), Record(entry)
        try:
            with storage_errors("write", part):
                record.remove()
                part.unlink(missing_ok=True)  # what a killed builder left
                fd = create_file(part)
            with open(fd, "wb", buffering=0):
                sink = _VerifyingSink(fd, part, blob, origin)
                fetch(sink)
                sink.finish()
                with storage_errors("write", part):
                    sync_data(fd)
                written = os.fstat(fd)
                held: BinaryIO | None = None
                with suppress(OSError):
                    held = open_held(part)  # before it has its name, so that nobody evicts it before it is opened
                with storage_errors("write", entry):
                    os.rename(part, entry)
                    sync_folder(entry.parent)
                if blob.size > IN_MEMORY:
                    self._verified.built(fd, blob, written, record)
                return held
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise

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
        self._size = 0
        self._beside: Behind | None = None
        if blob.size > IN_MEMORY:  # hashing lets others run; of little it costs less than a thread
            from llmartifacts.blobs.chunks.behind import Behind

            self._beside = Behind("llmartifacts-hash", waiting=1)  # a chunk may have 16 MiB

    def write(self, data: bytes) -> int:
        """Take the next bytes; who gives them does not change them any more."""
        self._size += len(data)
        if self._beside is None:
            self._seen.update(data)
        else:
            self._beside.do(partial(self._seen.update, data))
        if self._size > self._blob.size:
            raise self._mismatch(f"is longer than its {self._blob.size} bytes")
        with storage_errors("write", self._path):
            write_all(self._fd, data)
        return len(data)

    def finish(self) -> None:
        """Raises `DigestMismatch` unless all of the blob was written."""
        if self._beside is not None:
            self._beside.wait()
            self._beside.end()
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


class _StillHeld(Exception):
    """Whose turn it is has not ended in time. Never leaves this file."""


@contextmanager
def _locked(lock: Path, patience: float = math.inf) -> Iterator[None]:
    """Hold a lock file, which is removed at the end; whoever waited for it finds it gone, and makes another."""
    until = time.monotonic() + patience
    while True:
        with storage_errors("write", lock):
            try:
                _make_folder(lock.parent)
                fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            except OSError as error:
                if error.errno in _UNUSABLE:
                    raise _ReadOnly(error) from error
                raise
        try:
            with storage_errors("lock", lock):
                _lock(fd, until)
            if is_at(fd, lock):
                try:
                    yield
                finally:
                    with suppress(OSError):
                        lock.unlink()
                return
        finally:
            os.close(fd)


def _lock(fd: int, until: float) -> None:
    if until == math.inf:
        fcntl.flock(fd, fcntl.LOCK_EX)
        return
    while True:  # flock takes no timeout
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise _StillHeld from None
            time.sleep(_POLL)
        else:
            return


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, which nobody else may write to, whatever the umask: see `trust.py`."""
    for place in (*reversed(folder.parents[:2]), folder):
        place.mkdir(0o755, parents=True, exist_ok=True)


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
