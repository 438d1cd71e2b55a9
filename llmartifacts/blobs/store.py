"""The bytes of a registry, by their SHA-256: hashed on the way in, verified on the way out, over any driver.

    in     stage() -> add -> publish       aside and durable first, then named
    out    read, open, path                nothing is handed over before all of it was checked

A blob is one stored file; a form that cuts a large one into chunks is one more entry in `forms.FORMS`, unseen outside.
"""

from __future__ import annotations

import io
import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from llmartifacts import plugins
from llmartifacts.blobs.base import Driver
from llmartifacts.blobs.cache import IN_MEMORY, BlobCache, Sink, reader_of
from llmartifacts.blobs.failures import storage_errors
from llmartifacts.blobs.forms import FORMS, RAW, BadForm, Reader, key_of, parse_key
from llmartifacts.blobs.scratch import sweep
from llmartifacts.blobs.staging import BlobStaging
from llmartifacts.blobs.verify import Sha256, VerifiedFiles
from llmartifacts.errors import BlobMissing, Damaged, DigestMismatch
from llmartifacts.records.digest import Blob, Digest


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """One stored object.

    Attributes:
        digest: SHA-256 of the content that it claims to hold.
        size: Bytes of that content; None where the object is compressed and only its reader can tell.
        stored: Bytes that it takes.
        file: Where it lies.
    """

    digest: Digest
    size: int | None
    stored: int
    file: str


class BlobStore:
    """Content-addressed bytes; the `BlobBackend` of an embedded registry. Safe to use from several threads.

    Args:
        driver: Where the objects are.
        cache: Where files are made for libraries that map them; by default a temporary one.
        scratch: Folder for bytes on their way in; for a local driver on the same file system as its root.

    Example:
        >>> store = BlobStore.memory()
        >>> with store.stage() as staging:
        ...     blob = staging.add(b"hello")
        ...     staging.publish()
        >>> store.read(blob)
        b'hello'
    """

    def __init__(self, driver: Driver, *, cache: BlobCache | None = None, scratch: Path) -> None:
        self.driver = driver
        self.scratch = scratch
        self.cache = cache or BlobCache.temporary()
        self._verified = VerifiedFiles()

    @classmethod
    def local(
        cls, root: str | os.PathLike[str], *, cache: BlobCache | None = None, scratch: Path | None = None
    ) -> BlobStore:
        """A store in a folder; what killed processes left on their way in is removed.

        Args:
            root: The folder, such as `<registry>/blobs`; made when something is stored.
            cache: Where files are made of compressed content; by default the user's.
            scratch: Folder for bytes on their way in; by default `tmp` beside the root.
        """
        driver = plugins.load("blobs", "local")(root)
        aside = scratch or Path(root).absolute().parent / "tmp"
        sweep(aside)
        return cls(driver, cache=cache or BlobCache(), scratch=aside)

    @classmethod
    def memory(cls) -> BlobStore:
        """A store in memory; files are made in a temporary folder, where one is asked for."""
        cache = BlobCache.temporary()
        return cls(plugins.load("blobs", "memory")(), cache=cache, scratch=cache.root)

    # --- in

    @contextmanager
    def stage(self) -> Iterator[BlobStaging]:
        """Begin to add bytes. Nothing of them is left after the block unless `publish` was called in it."""
        staging = BlobStaging(self.driver, self, self.scratch)
        try:
            yield staging
        finally:
            staging.close()

    def standing(self, blob: Blob) -> tuple[Sequence[str], Sequence[str]]:
        """Keys under which a blob is stored: the good ones and the damaged ones. Reads and hashes what is there."""
        good, damaged = [], []
        for form in FORMS:
            key = key_of(blob.digest, form)
            try:
                if self.driver.size(key) is None:
                    continue
                own = self._own_file(blob) if form == RAW else None
                if own is None:
                    self._check(blob, key, form)
                else:
                    own[0].close()
                good.append(key)
            except BlobMissing:
                continue
            except Damaged:
                damaged.append(key)
        return good, damaged

    def delete(self, digest: Digest) -> bool:
        """Remove a blob; tells whether there was one."""
        found = [self.driver.delete(key_of(digest, form)) for form in FORMS]
        return any(found)

    # --- out

    def read(self, blob: Blob) -> bytes:
        """The bytes, in memory.

        Raises:
            DigestMismatch: What is stored is something else; nothing of it is handed over.
            BlobMissing: It is not stored.
            UnsafeContent: A symbolic link, or no plain file, lies in its place.
        """
        key, form, stored = self._open(blob)
        whole = io.BytesIO()
        for piece in self._pieces(blob, key, form, stored):
            whole.write(piece)
        return whole.getvalue()

    def open(self, blob: Blob) -> BinaryIO:
        """A binary reader over verified bytes; up to 8 MiB are held in memory. Raises as `read`."""
        if blob.size <= IN_MEMORY:
            return io.BytesIO(self.read(blob))
        own = self._own_file(blob)
        if own is not None:
            with own[0] as file:
                return reader_of(file)
        self._cached(blob)
        return self.cache.open(blob)

    def path(self, blob: Blob) -> Path:
        """A read-only file of the verified bytes. Raises as `read`.

        Content that is stored raw on this host is handed over where it lies, without a copy: the file has mode 0444, is
        replaced by `rename` only and never written to, so a map of it stays what it was. All else goes to the cache.
        """
        own = self._own_file(blob)
        if own is not None:
            own[0].close()
            return own[1]
        return self._cached(blob)

    def check(self, blob: Blob, *, read_data: bool = True) -> None:
        """Check what is stored of a blob, with bounded memory and without the cache. Raises as `read`.

        Args:
            blob: Which blob.
            read_data: Read and hash every byte; else only look that something of a fitting length is there.
        """
        key, form, stored = self._open(blob)
        if read_data:
            for _ in self._pieces(blob, key, form, stored):
                pass
            return
        stored.close()
        size = self.driver.size(key)
        if form == RAW and size != blob.size:
            raise self._mismatch(blob, key, f"holds {size} of {blob.size} bytes")

    # --- look

    def has(self, blob: Blob) -> bool:
        """Whether something is stored under the digest; `check` says whether it is right."""
        return self.stored_size(blob) is not None

    def stored_size(self, blob: Blob) -> int | None:
        """Bytes that a blob takes in the store, or None if it is not there."""
        for form in FORMS:
            try:
                size = self.driver.size(key_of(blob.digest, form))
            except Damaged as error:
                raise _of(blob, error) from error
            if size is not None:
                return size
        return None

    def list(self) -> Iterator[StoredBlob]:
        """Every stored object, by digest; files of other names are passed over."""
        for key, stored in self.driver.list("sha256/"):
            parsed = parse_key(key)
            if parsed is not None:
                digest, form = parsed
                yield StoredBlob(digest, stored if form == RAW else None, stored, self.driver.where(key))

    # --- one object

    def _open(self, blob: Blob) -> tuple[str, str, BinaryIO]:
        """Key, form and stored bytes of a blob."""
        for form in FORMS:
            key = key_of(blob.digest, form)
            try:
                return key, form, self.driver.get(key)
            except BlobMissing:
                continue
            except Damaged as error:
                raise _of(blob, error) from error
        raise BlobMissing(
            f"the bytes of {blob.digest} are not in the store",
            digest=blob.digest,
            file=self.driver.where(key_of(blob.digest, RAW)),
        )

    def _content(self, blob: Blob, key: str, form: str, stored: BinaryIO) -> Generator[bytes, None, None]:
        """What an object holds, one byte more than the blob at most; the caller has to find out whether it is right."""
        where = self.driver.where(key)
        with storage_errors("read", where), Reader(form, stored) as reader:
            try:
                yield from reader.pieces(blob.size + 1)
            except BadForm as error:
                raise self._mismatch(blob, key, f"is damaged ({error}) and holds anything") from None

    def _pieces(self, blob: Blob, key: str, form: str, stored: BinaryIO) -> Generator[bytes, None, None]:
        """What an object holds; raises after the last piece unless all of it was right."""
        seen = Sha256()
        with closing(self._content(blob, key, form, stored)) as content:
            for piece in content:
                seen.update(piece)
                if seen.size > blob.size:
                    raise self._mismatch(blob, key, f"holds more than {blob.size} bytes")
                yield piece
        if seen.size < blob.size:
            raise self._mismatch(blob, key, f"holds {seen.size} of {blob.size} bytes")
        if seen.blob != blob:
            raise self._mismatch(blob, key, f"holds {seen.blob.digest}")

    def _check(self, blob: Blob, key: str, form: str) -> None:
        for _ in self._pieces(blob, key, form, self.driver.get(key)):
            pass

    def _own_file(self, blob: Blob) -> tuple[BinaryIO, Path] | None:
        """The driver's own file, opened and verified, and its path; None where it has no such file."""
        key = key_of(blob.digest, RAW)
        try:
            own = self.driver.file(key)
        except BlobMissing:
            return None
        except Damaged as error:
            raise _of(blob, error) from error
        if own is None:
            return None
        file, path = own
        try:
            with storage_errors("read", path):
                if not self._verified.holds(file, blob):
                    raise self._mismatch(blob, key, "holds something else")
        except BaseException:
            file.close()
            raise
        return own

    def _cached(self, blob: Blob) -> Path:
        def fetch(sink: Sink) -> None:
            key, form, stored = self._open(blob)
            with closing(self._content(blob, key, form, stored)) as content:
                for piece in content:
                    sink.write(piece)

        return self.cache.path(blob, fetch, origin=lambda: self._where(blob))

    def _where(self, blob: Blob) -> str:
        keys = [key_of(blob.digest, form) for form in FORMS]
        return self.driver.where(next((key for key in keys if self.driver.size(key) is not None), keys[0]))

    def _mismatch(self, blob: Blob, key: str, what: str) -> DigestMismatch:
        where = self.driver.where(key)
        return DigestMismatch(f"the stored file {where} {what}, not {blob.digest}", digest=blob.digest, file=where)


def _of(blob: Blob, error: Damaged) -> Damaged:
    """A driver's error, with the digest that the driver does not know."""
    return type(error)(error.message, digest=blob.digest, file=error.file, next_step=error.next_step)
