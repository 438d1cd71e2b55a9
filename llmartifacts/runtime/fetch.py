"""Verified bytes through the cache, from the registry where there is one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from llmartifacts.blobs.base import PIECE
from llmartifacts.blobs.cache import BlobCache, Sink
from llmartifacts.errors import BlobMissing, Damaged, DigestMismatch, NotAllowed
from llmartifacts.records.backend import BlobSource
from llmartifacts.records.digest import Blob, Digest
from llmartifacts.records.manifest import MAX_BYTES, Descriptor, Manifest
from llmartifacts.runtime.task import SLOW

if TYPE_CHECKING:
    from llmartifacts.external import ExternalFiles
    from llmartifacts.records.external import Wanted

PATIENCE = 2.0
"""Seconds to wait for another process that fetches the same, and what a blob takes at a slow pace besides."""

R = TypeVar("R")
Watch = Callable[[Blob], AbstractContextManager[None]]


def _unwatched(blob: Blob) -> AbstractContextManager[None]:
    return nullcontext()


class Tally:
    """How many blobs were fetched, and how many were there already. Safe to use from several threads."""

    def __init__(self) -> None:
        self.fetched = 0
        self.cached = 0
        self._lock = threading.Lock()

    def add(self, *, fetched: bool) -> None:
        """Count one blob."""
        with self._lock:
            if fetched:
                self.fetched += 1
            else:
                self.cached += 1

    def renew_lock(self) -> None:
        """Have a lock of its own in a child that was forked while another thread may have held this one."""
        self._lock = threading.Lock()


class CachedBlobs:
    """A `BlobSource` over caches, filled from a registry.

    Args:
        cache: Takes what is fetched.
        folder: Looked into first, never written: what `install --to DIR` made.
        upstream: The registry's bytes; None to use the caches only.
        watch: Entered around each fetch from upstream.
        tally: Counts what is fetched and what is there.
        outside: Gives what fetches the files that versions name by URL; None to use the caches only.
    """

    def __init__(
        self,
        cache: BlobCache,
        *,
        folder: BlobCache | None = None,
        upstream: BlobSource | None = None,
        watch: Watch = _unwatched,
        tally: Tally | None = None,
        outside: Callable[[], ExternalFiles] | None = None,
    ) -> None:
        self._places = [cache] if folder is None else [folder, cache]
        self._cache = cache
        self._upstream = upstream
        self._watch = watch
        self._tally = tally or Tally()
        self._outside = outside
        self.all_kept = True
        """Whether all that was fetched lies in the cache itself, not in a private folder because it is read-only."""

    def detach(self) -> None:
        """Let go of the registry: what is there is there."""
        self._upstream = None

    def at_hand(self, blob: Blob) -> bool:
        """Whether a blob lies in the cache and was found to be right before, so that there is nothing to fetch."""
        path = self._cache.at_hand(blob) if len(self._places) == 1 else None
        if path is not None:
            self._tally.add(fetched=False)
            self._note(path)
        return path is not None

    def fetch_file(self, file: Descriptor) -> Path:
        """Have a file of a manifest in a cache, verified, from the registry or from outside; returns its place there.

        Raises:
            BlobMissing: It is nowhere.
            DigestMismatch: It is damaged wherever it is, or what is kept outside was changed.
            NotAllowed: It is kept outside, and may not be read.
            Unreachable: It is kept outside, and cannot be had.
        """
        if file.url is None:
            return self.fetch(file.blob)
        try:
            path = self.path(file.blob)
        except Damaged:
            if self._outside is None:
                raise
        else:
            self._tally.add(fetched=False)
            self._note(path)
            return path
        with self._cache.turn(file.blob, PATIENCE + file.size / SLOW), self._watch(file.blob):
            path = self._outside().fetch(file, self._cache)
        self._tally.add(fetched=True)
        self._note(path)
        return path

    def fetch(self, blob: Blob) -> Path:
        """Have a blob in a cache, verified; returns its file there.

        Raises:
            BlobMissing: It is nowhere.
            DigestMismatch: It is damaged wherever it is.
        """
        if len(self._places) > 1 or self._upstream is None:
            try:
                path = self.path(blob)
            except Damaged:
                if self._upstream is None:
                    raise
            else:
                self._tally.add(fetched=False)
                return path
        found = self._cache.get(blob)
        path, fetched = (found, False) if found else self._fetched(blob)
        self._tally.add(fetched=fetched)
        self._note(path)
        return path

    def _fetched(self, blob: Blob) -> tuple[Path, bool]:
        upstream = self._upstream
        if upstream is None:
            raise BlobMissing(f"{blob.digest} is not cached, and the registry was let go", digest=blob.digest)
        # A lock of its own: a store may build the same file in the same cache, under the cache's lock on the digest.
        with self._cache.turn(blob, PATIENCE + blob.size / SLOW):
            found = self._cache.get(blob)  # another process may have fetched it while we waited
            if found is not None:
                return found, False
            with self._watch(blob), upstream.open(blob) as stream:
                return self._cache.path(blob, lambda sink: _pour(stream, sink)), True

    # --- BlobSource

    def read(self, blob: Blob) -> bytes:
        """The bytes, in memory."""
        return self._first(lambda place: place.read(blob))

    def open(self, blob: Blob) -> BinaryIO:
        """A reader over the verified bytes."""
        return self._first(lambda place: place.open(blob))

    def path(self, blob: Blob) -> Path:
        """A read-only file of the verified bytes."""
        return self._first(lambda place: place.path(blob))

    # --- Outside: what is kept outside lies in the caches with all else, once it is fetched

    def pin(self, files: Sequence[Wanted]) -> list[Descriptor]:
        """Nothing is logged here."""
        raise NotAllowed("what is kept outside is not read here", field="url")

    def prepare(self, files: Sequence[Descriptor]) -> None:
        """They were fetched before."""

    def source(self, file: Descriptor) -> BlobSource:
        """These caches."""
        return self

    # --- manifests

    def keep(self, manifests: Iterable[Manifest]) -> None:
        """Cache manifests as blobs, so that a start needs nothing else."""
        for manifest in manifests:
            data = manifest.to_bytes()
            self._note(self._cache.put(Blob(manifest.digest, len(data)), data))

    def manifests(self, digests: Sequence[Digest]) -> dict[Digest, Manifest]:
        """Cached manifests, verified; one that is not there is left out. Raises `DigestMismatch`."""
        made: dict[Digest, Manifest] = {}
        for digest in digests:
            with suppress(BlobMissing):
                made[digest] = self._first(partial(_manifest, digest=digest))
        return made

    def _first(self, get: Callable[[BlobCache], R]) -> R:
        """From the first place that has it; else the gravest error: damaged rather than missing."""
        errors: list[Damaged] = []
        for place in self._places:
            try:
                return get(place)
            except Damaged as error:
                errors.append(error)
        raise next((e for e in errors if not isinstance(e, BlobMissing)), errors[-1])

    def _note(self, path: Path) -> None:
        if not path.is_relative_to(self._cache.root):
            self.all_kept = False


def _manifest(cache: BlobCache, digest: Digest) -> Manifest:
    # A lockfile names manifests by digest alone; what lies there gives the size, and the hash decides.
    found = cache.find(digest)
    if found is None:
        raise BlobMissing(f"the manifest {digest} is not in {cache.root}", digest=digest)
    if found.size > MAX_BYTES:
        raise DigestMismatch(f"the cached manifest {digest} has {found.size} bytes", digest=digest)
    return Manifest.from_bytes(cache.read(found), expect=digest, origin=str(cache.root))


def _pour(stream: BinaryIO, sink: Sink) -> None:
    while piece := stream.read(PIECE):
        sink.write(piece)
