"""The bytes of a registry, by their SHA-256: hashed on the way in, verified on the way out, over any driver.

    in     stage() -> add -> publish       aside and durable first, then named
    out    read, open, path                nothing is handed over before all of it was checked

A small blob is one stored file; a large one is a recipe and chunks in packs (`chunks/`), unseen outside.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from llmartifacts import plugins
from llmartifacts.blobs.base import Driver, read_up_to
from llmartifacts.blobs.cache import IN_MEMORY, BlobCache, Sink, reader_of
from llmartifacts.blobs.chunks.index import ChunkIndex, PackIndex
from llmartifacts.blobs.disk import create_file
from llmartifacts.blobs.failures import storage_errors
from llmartifacts.blobs.forms import FORMS, RAW, RECIPE, BadForm, Reader, key_of, parse_key
from llmartifacts.blobs.scratch import sweep
from llmartifacts.blobs.staging import BlobStaging
from llmartifacts.blobs.verify import Sha256, VerifiedFiles
from llmartifacts.errors import BlobMissing, Damaged, DigestMismatch, NewerFormat, NotAllowed, Unreachable
from llmartifacts.records.digest import Blob, Digest

if TYPE_CHECKING:
    from llmartifacts.blobs.chunks.encode import Known
    from llmartifacts.blobs.chunks.recipe import Recipe
    from llmartifacts.blobs.chunks.store import ChunkStore

MAX_RECIPE = 1 << 28
"""Bytes of a recipe's own file."""
MakeIndex = Callable[[Driver], ChunkIndex]


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
        index: Makes the index of chunks; by default one in memory, from the packs.

    Example:
        >>> store = BlobStore.memory()
        >>> with store.stage() as staging:
        ...     blob = staging.add(b"hello")
        ...     staging.publish()
        >>> store.read(blob)
        b'hello'
    """

    def __init__(
        self, driver: Driver, *, cache: BlobCache | None = None, scratch: Path, index: MakeIndex | None = None
    ) -> None:
        self.driver = driver
        self.index = (index or PackIndex)(driver)
        self.scratch = scratch
        self.cache = cache or BlobCache.temporary()
        self._verified = VerifiedFiles()

    @cached_property
    def chunks(self) -> ChunkStore:
        """Large blobs."""
        from llmartifacts.blobs.chunks.store import ChunkStore  # imports numpy; small blobs do without

        return ChunkStore(self.driver, self.index)

    @classmethod
    def local(
        cls,
        root: str | os.PathLike[str],
        *,
        cache: BlobCache | None = None,
        scratch: Path | None = None,
        index: MakeIndex | None = None,
    ) -> BlobStore:
        """A store in a folder; what killed processes left on their way in is removed.

        Args:
            root: The folder, such as `<registry>/blobs`; made when something is stored.
            cache: Where files are made of compressed content; by default the user's.
            scratch: Folder for bytes on their way in; by default `tmp` beside the root.
            index: As in the class.
        """
        driver = plugins.load("blobs", "local")(root)
        aside = scratch or Path(root).absolute().parent / "tmp"
        sweep(aside)
        return cls(driver, cache=cache or BlobCache(), scratch=aside, index=index)

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
        """Remove a blob; tells whether there was one. Chunks that only it needs stay until they are collected."""
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
        replaced by `rename` only and never written to, so a map of it stays what it was. All else, and so everything
        large, is made in the cache, once for all processes.
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
        if form == RECIPE:
            with self._chunk_errors(blob, key):
                try:
                    self.chunks.check_places(self._recipe(blob, key, stored))
                except BlobMissing as first:  # as in `_assembled`
                    with _second_try(first):
                        self.chunks.check_places(self._recipe(blob, key, self.driver.get(key)))
            return
        stored.close()
        size = self.driver.size(key)
        if form == RAW and size != blob.size:
            raise self._mismatch(blob, key, f"holds {size} of {blob.size} bytes")

    def copy(self, blob: Blob, target: Path) -> None:
        """Write the verified bytes into a new file; nothing is left of it where they are wrong. Raises as `read`."""
        key, form, stored = self._open(blob)
        try:
            with storage_errors("write", target), open(create_file(target), "wb") as file:
                for piece in self._pieces(blob, key, form, stored):
                    file.write(piece)
        except BaseException:
            target.unlink(missing_ok=True)
            raise

    # --- look

    def has(self, blob: Blob) -> bool:
        """Whether something is stored under the digest; `check` says whether it is right."""
        return self.stored_size(blob) is not None

    def stored_size(self, blob: Blob) -> int | None:
        """Bytes of the object that a blob is stored as, or None if it is not there; of a recipe, without its chunks."""
        return next((size for _, size in self.forms(blob)), None)

    def forms(self, blob: Blob) -> Iterator[tuple[str, int]]:
        """Form and bytes of each object that a blob is stored as, the one that is read first."""
        for form in FORMS:
            try:
                size = self.driver.size(key_of(blob.digest, form))
            except Damaged as error:
                raise _of(blob, error) from error
            if size is not None:
                yield form, size

    def recipe(self, blob: Blob) -> Recipe | None:
        """How a blob is put together from chunks, or None where it is no large one. Raises as `read`."""
        key, form, stored = self._open(blob)
        if form != RECIPE:
            stored.close()
            return None
        with self._chunk_errors(blob, key):
            return self._recipe(blob, key, stored)

    def known(self, blob: Blob) -> Known | None:
        """An earlier version to encode against, or None where it is not there, not large, or damaged."""
        from llmartifacts.blobs.chunks.encode import Known

        try:
            recipe = self.recipe(blob)
        except (Damaged, NewerFormat):
            return None
        return Known(blob.digest, recipe) if recipe else None

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
        if form == RECIPE:
            yield from self._assembled(blob, key, stored)
            return
        with storage_errors("read", where), Reader(form, stored) as reader:
            try:
                yield from reader.pieces(blob.size + 1)
            except BadForm as error:
                raise self._mismatch(blob, key, f"is damaged ({error}) and holds anything") from None

    def _assembled(self, blob: Blob, key: str, stored: BinaryIO) -> Generator[bytes, None, None]:
        done = 0
        with self._chunk_errors(blob, key), storage_errors("read", self.driver.where(key)):
            try:
                for part in self.chunks.content(self._recipe(blob, key, stored), self._nearby):
                    yield part
                    done += len(part)
                return
            except BlobMissing as error:  # gc may have put another recipe in its place, which makes the same bytes
                first = error
            with _second_try(first):
                for part in self.chunks.content(self._recipe(blob, key, self.driver.get(key)), self._nearby):
                    if done < len(part):
                        yield part[done:] if done else part
                    done = max(0, done - len(part))

    def _nearby(self, digest: Digest) -> tuple[Recipe, memoryview | None] | None:
        """The recipe of a blob, and its cached file."""
        recipe = self._recipe_of(key_of(digest, RECIPE))
        blob = self.cache.find(digest)
        data = self.cache.peek(blob) if blob and recipe else None
        return (recipe, memoryview(data) if data else None) if recipe else None

    def _recipe_of(self, key: str) -> Recipe | None:
        """The recipe under a key; None where there is none that can be used."""
        try:
            with self.driver.get(key) as stored, storage_errors("read", self.driver.where(key)):
                return self.chunks.recipe(read_up_to(stored, MAX_RECIPE), origin=self.driver.where(key))
        except (BadForm, Damaged, NewerFormat):
            return None

    def _recipe(self, blob: Blob, key: str, stored: BinaryIO) -> Recipe:
        with stored, storage_errors("read", self.driver.where(key)):
            data = read_up_to(stored, MAX_RECIPE)
        recipe = self.chunks.recipe(data, origin=self.driver.where(key))
        if recipe.size != blob.size:
            raise BadForm(f"its recipe makes {recipe.size} of {blob.size} bytes")
        return recipe

    @contextmanager
    def _chunk_errors(self, blob: Blob, key: str) -> Iterator[None]:
        """What goes wrong with chunks, told of the blob."""
        where = self.driver.where(key)
        try:
            yield
        except BadForm as error:
            raise self._mismatch(blob, key, f"is damaged ({error}) and holds anything") from None
        except NewerFormat as error:
            raise replace(error, origin=error.origin or where) from None
        except Damaged as error:
            if error.digest:
                raise
            told = f"{blob.digest} cannot be put together: {error.message}"
            raise type(error)(told, digest=blob.digest, file=error.file or where, next_step=error.next_step) from error

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

        try:
            return self.cache.path(blob, fetch, origin=lambda: self._where(blob))
        except DigestMismatch:
            key = key_of(blob.digest, RECIPE)
            if self.driver.size(key) is None:
                raise
            raise self._mismatch(blob, key, "makes something else") from None

    def _where(self, blob: Blob) -> str:
        keys = [key_of(blob.digest, form) for form in FORMS]
        return self.driver.where(next((key for key in keys if self.driver.size(key) is not None), keys[0]))

    def _mismatch(self, blob: Blob, key: str, what: str) -> DigestMismatch:
        where = self.driver.where(key)
        if key.endswith(RECIPE):
            blamed = self._blamed(blob, key)
            if blamed is not None:
                told = f"the pack {blamed[0]}, which holds a part of {blob.digest}, is damaged: {blamed[1]}"
                return DigestMismatch(told, digest=blob.digest, file=blamed[0])
        return DigestMismatch(f"the stored file {where} {what}, not {blob.digest}", digest=blob.digest, file=where)

    def _blamed(self, blob: Blob, key: str) -> tuple[str, str] | None:
        """The pack that makes a blob come out wrong, and what is wrong with it; None where it is the recipe itself."""
        try:
            recipe = self._recipe_of(key)
            with storage_errors("read", self.driver.where(key)):
                return self.chunks.blame(recipe) if recipe else None
        except (BadForm, Damaged, NewerFormat, NotAllowed, Unreachable):  # it cannot be looked into just now
            return None


@contextmanager
def _second_try(first: BlobMissing) -> Iterator[None]:
    """What was missing at first is said if it is missing again: by then an index has forgotten which pack it was."""
    try:
        yield
    except BlobMissing as error:
        raise error if error.file else first from None


def _of(blob: Blob, error: Damaged) -> Damaged:
    """A driver's error, with the digest that the driver does not know."""
    return type(error)(error.message, digest=blob.digest, file=error.file, next_step=error.next_step)
