"""Bytes on their way into a store: hashed and written aside by `add`, given their names by `publish`."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from mmap import PROT_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

from llmartifacts.blobs.base import PIECE, Driver, read_up_to
from llmartifacts.blobs.disk import create_file, write_all, write_file
from llmartifacts.blobs.failures import changed_meanwhile, storage_error, storage_errors
from llmartifacts.blobs.forms import RECIPE, encode, form_for, key_of
from llmartifacts.blobs.lease import Still, held_still
from llmartifacts.blobs.scratch import Scratch
from llmartifacts.errors import Conflict, InvalidInput, NotAllowed, NotFound
from llmartifacts.records.backend import Earlier
from llmartifacts.records.digest import Blob, Digest, digest_of

if TYPE_CHECKING:
    from llmartifacts.blobs.chunks.encode import AnySource, Known
    from llmartifacts.blobs.chunks.store import ChunkStore, Encoding
    from llmartifacts.blobs.chunks.writer import ChunkWriter

Content = bytes | bytearray | memoryview | mmap | Path | BinaryIO
"""What can be added."""


class Stored(Protocol):
    """What staging asks of a store about content that may be there already."""

    @property
    def chunks(self) -> ChunkStore:
        """Where large content goes."""

    def known(self, blob: Blob) -> Known | None:
        """An earlier version to encode against, if it is stored as chunks."""

    def has(self, blob: Blob) -> bool:
        """Whether something is stored under the digest."""

    def copy(self, blob: Blob, target: Path) -> None:
        """Write the verified bytes into a new file."""

    def standing(self, blob: Blob) -> tuple[Sequence[str], Sequence[str]]:
        """Keys under which a blob is stored: the good ones and the damaged ones. Reads and hashes what is there."""


@dataclass(frozen=True, slots=True)
class _Heal:
    blob: Blob
    key: str
    file: Path


class BlobStaging:
    """The `Staging` of a `BlobStore`.

    Content that is stored already is read and hashed where it lies, and staged again only if it is damaged: so logging
    the same content again heals a damaged store, and nothing that relies on stored bytes relies on wrong ones. For
    large content this costs about what writing it again would.

    Args:
        driver: Where `publish` stores.
        store: Knows what is stored already.
        root: Where the scratch folder is made, on the file system of the store, when the first bytes need it.

    Attributes:
        added: Digest of each large blob that is new -> bytes of new chunks and of its recipe.
    """

    def __init__(self, driver: Driver, store: Stored, root: Path) -> None:
        self._driver = driver
        self._store = store
        self._root = root
        self._scratch: Scratch | None = None
        self._known: dict[Digest, Blob] = {}
        self._new: list[tuple[str, Path]] = []
        self._heal: list[_Heal] = []
        self._relied: list[tuple[Blob, Sequence[str]]] = []
        self._writer: ChunkWriter | None = None
        self.added: dict[Digest, int] = {}

    def add(self, source: Content, like: Earlier = tuple) -> Blob:
        """Take bytes, a file or a stream, with bounded memory, and make them durable aside.

        Args:
            source: The bytes; a file is read as it is now, a stream from where it stands to its end. A map must not
                change meanwhile.
            like: Gives stored content of earlier versions, the likeliest first; asked for large content only. What is
                equal is stored once anyway, but the rows of an index are found again by their ids, and for that it
                has to be known which index to look in.

        Returns:
            Their address. `added` says how many bytes of new chunks a large one needs.

        Raises:
            NotFound: There is no such file.
            InvalidInput: It is no plain file, or the stream gives no bytes.
            NotAllowed: The file may not be read, or the store's place is full or read-only.
        """
        if isinstance(source, bytes | bytearray | memoryview | mmap):
            view = memoryview(source).cast("B")
            return self._add_bytes(bytes(view)) if len(view) <= PIECE else self._add_view(view, like)
        with ExitStack() as opened:
            stream = opened.enter_context(_open_source(source)) if isinstance(source, Path) else source
            given = _Given(stream, source if isinstance(source, Path) else None)
            head = given.up_to(PIECE + 1)
            return self._add_bytes(head) if len(head) <= PIECE else self._add_stream(head, given, like)

    def convert(self, blob: Blob, like: Earlier = tuple) -> None:
        """Cut content into chunks that is stored whole; `publish` stores its recipe beside the whole object.

        Args:
            blob: The content.
            like: As in `add`.

        Raises:
            Damaged: What is stored is something else, or not there.
        """
        from llmartifacts.blobs.chunks.source import ViewSource

        file = self._new_file()
        self._store.copy(blob, file)
        with open(file, "rb") as opened:
            data = mmap(opened.fileno(), 0, prot=PROT_READ)  # goes with its last view
        with storage_errors("remove", file):
            file.unlink()
        self._stage_recipe(self._encoded(ViewSource(memoryview(data)), like)[0], ())

    def publish(self) -> None:
        """Make all of it readable; durable when it returns.

        Raises:
            Conflict: Stored bytes that this relies on were removed meanwhile.
            NotAllowed: The store is full or read-only. What was stored by then stays: whole, and named by no version.
        """
        for blob, _ in self._relied:
            if not self._store.has(blob):
                raise _removed(blob.digest)
        self._driver.settle(key for _, keys in self._relied for key in keys)
        if self._writer is not None:
            self._writer.durable()
            self._publish_chunks(self._writer)
        self._driver.put_many(self._new)
        for heal in self._heal:
            self._driver.replace(heal.key, heal.file)
            # Its other form shadows or doubles it; looked at again, for somebody else may have healed that one.
            for key in self._store.standing(heal.blob)[1]:
                if key != heal.key:  # a place that gives wrong bytes at the moment must not cost the right ones
                    self._driver.delete(key)
        self._new, self._heal, self._relied = [], [], []

    def close(self) -> None:
        """Remove what was not published."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._scratch is not None:
            self._scratch.close()
            self._scratch = None

    def _publish_chunks(self, writer: ChunkWriter) -> None:
        """Packs first, then the index: what it names is stored."""
        from llmartifacts.blobs.chunks import pack

        index = self._store.chunks.index
        relied = list(writer.relied)
        places = index.find(relied)
        if len(places) < len(relied):
            raise _removed("a part of it")
        self._driver.settle(dict.fromkeys(pack.key_of(place.pack) for place in places.values()))
        if writer.packs:
            new = self._driver.put_many([(pack.key_of(made.name), made.file) for made in writer.packs])
            for made, stored in zip(writer.packs, new, strict=True):
                if not stored and not self._store.chunks.is_whole(made.name, made.size):
                    self._driver.replace(pack.key_of(made.name), made.file)
            index.add([made.to_index() for made in writer.packs])
            for name in writer.damaged:
                self._store.chunks.mend(name, self._new_file)
        writer.published()

    # --- one source

    def _add_bytes(self, data: bytes) -> Blob:
        blob = Blob(digest_of(data), len(data))
        damaged = self._wanted(blob)
        if damaged is None:
            return blob
        form = form_for(data)
        file = self._new_file()
        with storage_errors("write", file):
            write_file(file, encode(form, data))
        self._stage(blob, form, file, damaged)
        return blob

    def _add_stream(self, head: bytes, given: _Given, like: Earlier) -> Blob:
        """A large file or stream: cut as it is read; mapped or copied first where a codec needs all of it at once."""
        from llmartifacts.blobs.chunks.encode import codecs
        from llmartifacts.blobs.chunks.source import HEAD, PieceSource

        if any(codec.needs_view and codec.suits(head[:HEAD]) for codec in codecs()):
            with given.whole(head) as still:
                if still is not None:
                    blob = self._add_view(memoryview(still.data), like, still.unchanged)
                    given.to_end()
                    return blob
            with open(self._copy(head, given), "rb") as file:
                data = mmap(file.fileno(), 0, prot=PROT_READ)  # goes with its last view
            return self._add_view(memoryview(data), like)
        return self._add_large(PieceSource(head, given.up_to, given.rewind), like)

    def _add_view(self, view: memoryview, like: Earlier, unchanged: Callable[[], bool] = lambda: True) -> Blob:
        from llmartifacts.blobs.chunks.source import Hashing, ViewSource

        if any(blob.size == len(view) for blob in like()):  # the same again, maybe: then there is nothing to cut
            hashing = Hashing()
            hashing.all_of(view)
            blob = hashing.blob()
            if unchanged() and self._wanted(blob) is None:
                return blob
        return self._add_large(ViewSource(view), like, unchanged)

    def _add_large(self, source: AnySource, like: Earlier, unchanged: Callable[[], bool] = lambda: True) -> Blob:
        known = len(self._writer.damaged) if self._writer else 0
        made, undo = self._encoded(source, like)
        if not unchanged():
            undo()
            raise changed_meanwhile()
        damaged = self._wanted(made.blob)
        if damaged is not None:
            self._stage_recipe(made, damaged)
        elif self._writer is None or len(self._writer.damaged) == known:
            undo()  # else its bytes are good, and a pack that holds them has to be written anew all the same
        return made.blob

    def _encoded(self, source: AnySource, like: Earlier) -> tuple[Encoding, Callable[[], None]]:
        """What was made of a large source, and a function that undoes it."""
        if self._writer is None:
            self._writer = self._store.chunks.writer(self._new_file)
        writer, start = self._writer, self._writer.mark()
        try:
            parents = [known for known in map(self._store.known, like()) if known]
            return self._store.chunks.encode(source, writer, parents), lambda: writer.back(start)
        except BaseException:
            writer.back(start)
            raise

    def _stage_recipe(self, made: Encoding, damaged: Sequence[str]) -> None:
        file = self._new_file()
        with storage_errors("write", file):
            write_file(file, made.recipe)
        self._stage(made.blob, RECIPE, file, damaged)
        self.added[made.blob.digest] = made.added + len(made.recipe)

    def _copy(self, head: bytes, given: _Given) -> Path:
        file = self._new_file()
        with storage_errors("write", file):
            fd = create_file(file)
        try:
            while head:
                with storage_errors("write", file):
                    write_all(fd, head)
                head = given.up_to(PIECE)
        finally:
            os.close(fd)
        return file

    def _wanted(self, blob: Blob) -> Sequence[str] | None:
        """None where good bytes are stored or staged already; else the keys of damaged ones."""
        if blob.digest in self._known:
            return None
        good, damaged = self._store.standing(blob)
        if good and not damaged:
            self._known[blob.digest] = blob
            self._relied.append((blob, good))
            return None
        return damaged

    def _stage(self, blob: Blob, form: str, file: Path, damaged: Sequence[str]) -> None:
        key = key_of(blob.digest, form)
        if damaged:
            self._heal.append(_Heal(blob, key, file))
        else:
            self._new.append((key, file))
        self._known[blob.digest] = blob

    def _new_file(self) -> Path:
        if self._scratch is None:
            with storage_errors("write", self._root):
                self._scratch = Scratch(self._root)
        return self._scratch.new_file()


def _open_source(path: Path) -> BinaryIO:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {path}", what="file", name=str(path)) from error
    except PermissionError as error:
        raise NotAllowed(f"{path} may not be read", origin=str(path)) from error
    except OSError as error:
        raise InvalidInput(f"{path} cannot be opened: {error.strerror}", origin=str(path)) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise InvalidInput(f"{path} is no plain file", origin=str(path), next_step="Give a file, or the bytes.")
    return open(fd, "rb", buffering=0)


class _Given:
    """A source as callers give it: checked to give bytes, in whole pieces however few it gives at a time."""

    def __init__(self, stream: BinaryIO, path: Path | None) -> None:
        self._stream = stream
        self._path = path

    @contextmanager
    def whole(self, head: bytes) -> Iterator[Still | None]:
        """All of the file that this is, mapped and held still; None where it is none, or that cannot be had.

        Args:
            head: What was read of it so far.
        """
        with held_still(self._stream) as still:
            whole = still is not None and self._stream.tell() == len(head) and still.data[: len(head)] == head
            yield still if whole else None

    def to_end(self) -> None:
        """Leave it as it is when it was read."""
        self._stream.seek(0, os.SEEK_END)

    @property
    def rewind(self) -> Callable[[], None] | None:
        """Goes back to the beginning; None for a stream, which is read once."""
        return None if self._path is None else self._to_start

    def _to_start(self) -> None:
        self._stream.seek(0)

    def up_to(self, size: int) -> bytes:
        """The next bytes, fewer than `size` only at the end."""
        return read_up_to(cast(BinaryIO, self), size)

    def read(self, size: int) -> bytes:
        try:
            data: object = self._stream.read(size)
        except OSError as error:
            if self._path is None:
                raise  # the caller's own stream: the caller's own error
            raise storage_error(error, "read", self._path) from error
        if isinstance(data, bytes | bytearray | memoryview):
            return bytes(data)
        raise InvalidInput(
            f"the stream gives {type(data).__name__}, not bytes",
            field="source",
            next_step="Open the file with mode 'rb'.",
        )


def _removed(what: str) -> Conflict:
    return Conflict(
        f"{what} was stored when it was added, and has been removed since",
        next_step="Somebody cleaned up at the same time; log it again.",
    )
