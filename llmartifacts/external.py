"""External files: content that a version names by URL and SHA-256, and that is kept where it is.

pin     URL -> read once, hashed -> URL, digest and size, which the manifest keeps
fetch   descriptor -> read when it is wanted -> verified into the cache by its digest -> a file as any other
check   descriptor -> read and hashed -> whether it is still what it was

A server never does any of this: it keeps the descriptors, and whoever reads the version fetches.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, TypeVar
from urllib.parse import quote

from llmartifacts.blobs.cache import BlobCache, Sink
from llmartifacts.blobs.eviction import parse_limit
from llmartifacts.blobs.verify import Sha256
from llmartifacts.errors import (
    BlobMissing,
    Damaged,
    DeadlineExceeded,
    DigestMismatch,
    InvalidValue,
    LlmartifactsError,
    NotAllowed,
    NotFound,
    TooLarge,
    Unreachable,
)
from llmartifacts.outbound import local, web
from llmartifacts.outbound.addresses import Allowed
from llmartifacts.outbound.source import Opened
from llmartifacts.outbound.surroundings import default_timeout
from llmartifacts.records.arguments import shown
from llmartifacts.records.backend import BlobSource
from llmartifacts.records.digest import Blob, Digest
from llmartifacts.records.external import ExternalCheck, ExternalFile, Place, Wanted, parse_place, pinned_url
from llmartifacts.records.manifest import MAX_FILES, Descriptor

T = TypeVar("T")
Item = TypeVar("Item", Wanted, Descriptor)
LIMIT = "LLMARTIFACTS_EXTERNAL_LIMIT"
DEFAULT_LIMIT = "100GB"
ATTEMPTS = 3
_PLAIN = "/-_.~!$&()*+,;=:@"
THREADS = 8
NAMED = 20
"""Versions that a finding names at most."""
_PAUSE = 0.5
_CHANGED = (
    "Put back what was logged (a version of the bucket, a backup), or log the collection again: that makes a new"
    " version of what is there now."
)
_GONE = "Put it back there, or log the collection again with the address where it is now."


class ExternalFiles:
    """Reads what is kept outside. Safe to use from several threads, and after a fork.

    Args:
        cache: Where what was fetched is kept; by default the user's.
        local: Whether `file://` may be read at all: never where somebody else's server says what to read.
        roots: Folders below which `file://` may be read; by default those of `$LLMARTIFACTS_FILE_ROOTS`.
        allowed: Private hosts that `https://` may lead to; by default those of `$LLMARTIFACTS_ALLOW_HOSTS`.
        seconds: Pause after which a transfer is given up; by default `$LLMARTIFACTS_TIMEOUT`, else 30.
        came: Told how many bytes came, as they come, in whatever thread.
    """

    def __init__(
        self,
        cache: BlobCache | None = None,
        *,
        local: bool = False,
        roots: Sequence[str | os.PathLike[str]] | None = None,
        allowed: Allowed | None = None,
        seconds: float | None = None,
        came: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._given = cache
        self._local = local
        self._roots = roots
        self._allowed = allowed
        self._seconds = seconds
        self._came = came

    @cached_property
    def cache(self) -> BlobCache:
        """Where what was fetched is kept."""
        return BlobCache() if self._given is None else self._given

    # --- pin

    def pin(self, files: Sequence[Wanted]) -> list[Descriptor]:
        """What lies at URLs now, pinned: by SHA-256 and size, and by the version where their store keeps versions.

        Each is read once, several at a time, and not kept. Where digest and size are given, nothing is read.

        Args:
            files: Paths and places.

        Raises:
            InvalidValue: A URL cannot be used.
            DigestMismatch: Something is not what its `digest` and `size` say.
            BlobMissing: There is nothing.
            NotAllowed: It may not be read.
            TooLarge: It has more bytes than `$LLMARTIFACTS_EXTERNAL_LIMIT`, 100 GB where that is not set.
            Unreachable: It cannot be had, or not in time.
        """
        return _together(files, self._pinned)

    def _pinned(self, file: Wanted) -> Descriptor:
        place, digest, size = self._place(file.url), file.digest, file.size
        if digest is not None and size is not None:
            return Descriptor(file.path, digest, size, file.url)
        limit = int(min(parse_limit(os.environ.get(LIMIT) or DEFAULT_LIMIT, field=LIMIT), 2**53 - 1))
        version, found = _again(lambda: self._hashed(place, limit))
        if (digest or found.digest, found.size if size is None else size) != (found.digest, found.size):
            told = f"{place} has the digest {found.digest} and {found.size:,} bytes, not what was given for it"
            raise DigestMismatch(
                told, digest=digest or found.digest, file=str(place), next_step="See which of the two is wrong."
            )
        return Descriptor(file.path, found.digest, found.size, self._at_version(place, version, found))

    def _at_version(self, place: Place, version: str, blob: Blob) -> str:
        """The URL of the very version that was read, where it can be read under that."""
        url = pinned_url(place.url, version)
        if url == place.url:
            return url
        try:  # reading versions may want a right of its own
            with self._opened(parse_place(url), 0, blob.size) as found:
                return url if found.size in (None, blob.size) else place.url
        except LlmartifactsError:
            return place.url

    def below(self, url: str) -> dict[str, str]:
        """Everything that lies below a prefix of a bucket now, for `Files.from_references`.

        Args:
            url: `s3://bucket/prefix/`, with the slash at its end; `s3://bucket/` for all of it.

        Returns:
            Path below the prefix -> URL; sorted.

        Raises:
            InvalidValue: It is no such URL.
            NotFound: Nothing lies there.
            TooLarge: There are more objects than a version may have files.
            LlmartifactsError: The bucket cannot be read.
        """
        if not isinstance(url, str) or not url.endswith("/") or not url.startswith("s3://"):
            raise InvalidValue(f"{shown(url)} is no s3://bucket/prefix/", field="url")
        inside = parse_place(url + "x")
        place = replace(inside, url=url, key=inside.key[:-1])
        from llmartifacts.blobs.objects.credentials import from_shared_file
        from llmartifacts.outbound import buckets

        credentials = from_shared_file(os.environ)
        keys = _again(lambda: buckets.keys_below(place, most=MAX_FILES, seconds=self._pause(), credentials=credentials))
        if not keys:
            raise NotFound(f"nothing lies below {place}", what="object", name=url)
        return {key[len(place.key) :]: f"s3://{place.host}/{quote(key, safe=_PLAIN)}" for key in keys}

    # --- fetch

    def prepare(self, files: Sequence[Descriptor]) -> None:
        """Fetch several files at a time, each to be read soon. Raises as `source`."""
        _together(files, self.fetch)

    def source(self, file: Descriptor) -> BlobSource:
        """The verified bytes of a file that is kept outside, fetched where they are not cached.

        Raises:
            DigestMismatch: What lies there is not what was logged.
            BlobMissing: Nothing lies there.
            NotAllowed: It may not be read, or is not looked for: a private address, a folder that is not open.
            Unreachable: It cannot be had, or not in time.
        """
        return _Held(self.cache, self.fetch(file))

    def fetch(self, file: Descriptor, into: BlobCache | None = None) -> Path:
        """Have a file that is kept outside in the cache, verified; returns it there. Raises as `source`.

        Args:
            file: Its descriptor.
            into: Another cache than the user's own.
        """
        cache = self.cache if into is None else into
        found = cache.get(file.blob)
        if found is not None:
            return found
        place = self._place(file.url)
        try:
            return cache.path(file.blob, lambda sink: self._pour(place, file, sink), origin=lambda: str(place))
        except BlobMissing as error:
            raise gone(file, place, error) from None
        except (DigestMismatch, TooLarge):
            raise changed(file, place) from None

    def _pour(self, place: Place, file: Descriptor, sink: Sink) -> None:
        for piece in self._stream(place, file):
            sink.write(piece)  # what fails here is the cache, which is not tried again

    def _stream(self, place: Place, file: Descriptor) -> Iterator[bytes]:
        """All of a file; what broke off is gone on with where it stopped, and the hash decides."""
        done, failed = 0, 0
        while True:
            try:
                with self._opened(place, done, file.size) as found:
                    if found.size not in (None, file.size):
                        raise changed(file, place)
                    for piece in found.pieces:
                        done += len(piece)
                        self._came(len(piece))
                        yield piece
                    return
            except DeadlineExceeded:
                raise
            except Unreachable:
                failed += 1
                if failed >= ATTEMPTS:
                    raise
            if done >= file.size > 0:
                return
            time.sleep(_PAUSE * failed)

    # --- check

    def check(self, file: Descriptor) -> LlmartifactsError | None:
        """Read a file that is kept outside and say what is wrong with it; None if it is what was logged."""
        try:
            place = self._place(file.url)
            try:
                _, found = _again(lambda: self._hashed(place, file.size))
            except BlobMissing as error:
                return gone(file, place, error)
            except TooLarge:
                return changed(file, place)
        except LlmartifactsError as error:
            return error
        return None if found == file.blob else changed(file, place)

    def check_all(self, files: Iterable[tuple[Descriptor, Sequence[str]]]) -> ExternalCheck:
        """Check files that are kept outside, each place and content once.

        Args:
            files: Descriptors, each with references of versions that name it.
        """
        known: dict[tuple[str, Digest, int], tuple[Descriptor, dict[str, None]]] = {}
        for file, named in files:
            if file.url is not None:
                _, versions = known.setdefault((file.url, file.digest, file.size), (file, {}))
                versions |= dict.fromkeys(named[: NAMED - len(versions)])
        made = []
        found = sorted(known.items())
        errors = _together([file for _, (file, _) in found], self.check)
        for ((url, digest, size), (file, versions)), error in zip(found, errors, strict=True):
            if isinstance(error, Damaged):
                error = replace(error, versions=tuple(versions))
            made.append(ExternalFile(file.path, url, digest, size, tuple(versions), error))
        return ExternalCheck(tuple(made))

    # --- places

    def _place(self, url: object) -> Place:
        place = parse_place(url)
        if place.scheme == "file" and not self._local:
            raise NotAllowed(
                f"{place} names a file of one machine, and the registry is on another",
                next_step="Keep it at https:// or s3://, or log the file itself.",
            )
        return place

    def _opened(self, place: Place, start: int, limit: int) -> AbstractContextManager[Opened]:
        if place.scheme == "file":
            roots = local.roots_from_environment() if self._roots is None else local.check_roots(self._roots)
            return local.opened(place, start=start, limit=limit, roots=roots)
        seconds = self._pause()
        if place.scheme == "s3":
            from llmartifacts.blobs.objects.credentials import from_shared_file
            from llmartifacts.outbound import buckets

            credentials = from_shared_file(os.environ)
            return buckets.opened(place, start=start, limit=limit, seconds=seconds, credentials=credentials)
        allowed = Allowed.from_environment() if self._allowed is None else self._allowed
        return web.opened(place, start=start, limit=limit, seconds=seconds, allowed=allowed)

    def _pause(self) -> float:
        return default_timeout() if self._seconds is None else self._seconds

    def _hashed(self, place: Place, limit: int) -> tuple[str, Blob]:
        seen = Sha256()
        with self._opened(place, 0, limit) as found:
            for piece in found.pieces:
                seen.update(piece)
                self._came(len(piece))
            if found.size not in (None, seen.size):
                raise Unreachable(f"{place} ended after {seen.size:,} of {found.size:,} bytes")
            return found.version, seen.blob


class _Held:
    """What is cached, held while it is read."""

    def __init__(self, cache: BlobCache, path: Path) -> None:
        self._cache = cache
        self._path = path

    def read(self, blob: Blob) -> bytes:
        return self._cache.read(blob)

    def open(self, blob: Blob) -> BinaryIO:
        return self._cache.open(blob)

    def path(self, blob: Blob) -> Path:
        return self._path


def changed(file: Descriptor, place: Place) -> DigestMismatch:
    """The error of a place where something else lies than was logged."""
    return DigestMismatch(
        f"{file.path}: what lies at {place} is not what was logged, {file.digest} of {file.size:,} bytes",
        digest=file.digest,
        file=str(place),
        next_step=_CHANGED,
    )


def gone(file: Descriptor, place: Place, error: Damaged) -> BlobMissing:
    """The error of a place where nothing lies any more."""
    return BlobMissing(f"{file.path}: {error.message}", digest=file.digest, file=str(place), next_step=_GONE)


def _again(do: Callable[[], T]) -> T:
    """Do something from its beginning, a second and a third time where another attempt may help."""
    for failed in range(1, ATTEMPTS):
        try:
            return do()
        except DeadlineExceeded:
            raise
        except Unreachable:
            time.sleep(_PAUSE * failed)
    return do()


def _together(items: Sequence[Item], work: Callable[[Item], T]) -> list[T]:
    """Do something with several items, a few at a time, in threads that keep nobody from ending; results in order.

    Raises:
        Exception: The first that was raised; what was under way by then ends first.
    """
    if len(items) < 2:
        return [work(item) for item in items]
    left, lock = iter(enumerate(items)), threading.Lock()
    made: dict[int, T] = {}
    errors: list[BaseException] = []

    def run() -> None:
        while not errors:
            with lock:
                i, item = next(left, (-1, None))
            if item is None:
                return
            try:
                made[i] = work(item)
            except BaseException as error:  # noqa: BLE001 - raised again below, in the thread that asked
                errors.append(error)

    helpers = [
        threading.Thread(target=run, name=f"llmartifacts-external-{i}", daemon=True)
        for i in range(min(THREADS, len(items)) - 1)
    ]
    for helper in helpers:
        helper.start()
    run()
    for helper in helpers:
        helper.join()
    if errors:
        raise errors[0]
    return [made[i] for i in range(len(items))]
