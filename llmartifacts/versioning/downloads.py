"""Blobs as they are handed out: in their stored form, and the chunks of large ones as one virtual object.

Whoever may read a project may read what its versions need, and nothing else: knowing a digest, or the id of a chunk,
gives no right. What one may not see is answered as what is not there.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import numpy.typing as npt

from llmartifacts.blobs.base import PIECE, read_up_to
from llmartifacts.blobs.forms import RECIPE, BadForm, key_of
from llmartifacts.errors import BlobMissing, Conflict, Damaged, InvalidValue, NotFound, TooLarge
from llmartifacts.metadata import uploads
from llmartifacts.records.digest import Blob, Digest
from llmartifacts.versioning.parts import Parts

if TYPE_CHECKING:
    from llmartifacts.blobs.chunks.recipe import Recipe
    from llmartifacts.blobs.chunks.table import Rows

_REMEMBERED = 4_000_000
"""Chunks of which it is remembered where they lie: 24 bytes each."""
_GAP = 64 * 1024
"""Bytes that are read and thrown away rather than asked for separately."""
_AT_ONCE = 32_768
_SIGNED = PIECE
"""Bytes from which on a store that signs addresses is asked to serve a range itself."""
_SECONDS = 300
_MOST_SUMS = 1 << 21


def visible(parts: Parts, digest: Digest, sees: Callable[[str], bool]) -> Blob:
    """A blob that some version of a project needs that may be read.

    Args:
        parts: The stores.
        digest: Which blob.
        sees: Whether a project may be read.

    Raises:
        NotFound: There is none; said the same way whether it is there or not.
    """
    with parts.metadata.reading() as s:
        found = uploads.projects_with(s, digest)
    size = next((size for project, size in found.items() if sees(project)), None)
    if size is None:
        raise NotFound(f"there is no blob {digest}", what="blob", name=digest)
    return Blob(digest, size)


def stored_form(parts: Parts, blob: Blob) -> tuple[str, int]:
    """Form and bytes of the object that a blob is stored as. Raises `BlobMissing`."""
    for form, size in parts.blobs.forms(blob):
        return form, size
    raise BlobMissing(f"the bytes of {blob.digest} are not in the store", digest=blob.digest)


@dataclass(frozen=True, slots=True, eq=False)
class Described:
    """How a large blob is put together.

    Attributes:
        recipe: The file of its recipe.
        head: How many chunks, the first of the table, are needed to understand the rest.
        rows: The table of its chunks.
        object: Where they lie.
    """

    recipe: bytes
    head: int
    rows: Rows
    object: VirtualObject


class VirtualObject:
    """The chunks of one blob, each once, in their stored form, one after another.

    Args:
        tag: Tells it from every other.
        packs: Names of packs.
        pack: For each chunk, which of them.
        offset: For each chunk, where it lies there.
        starts: For each chunk, where it begins in this object.
        stored: For each chunk, its bytes.
    """

    def __init__(
        self,
        tag: str,
        packs: list[str],
        pack: npt.NDArray[np.int32],
        offset: npt.NDArray[np.int64],
        starts: npt.NDArray[np.int64],
        stored: npt.NDArray[np.int64],
    ) -> None:
        self.tag = tag
        self._packs, self._pack, self._offset, self._starts = packs, pack, offset, starts
        self._ends = starts + stored

    def __len__(self) -> int:
        return len(self._ends)

    @property
    def size(self) -> int:
        """Its bytes."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def spans(self, start: int, end: int) -> list[tuple[str, int, int]]:
        """Where a range of it lies: name of a pack, first byte, bytes; in order. Without a name, zeros."""
        first = int(np.searchsorted(self._ends, start, side="right"))
        last = int(np.searchsorted(self._starts, end, side="left"))
        starts, ends = self._starts[first:last], self._ends[first:last]
        offset, pack = self._offset[first:last], self._pack[first:last]
        apart = np.flatnonzero((pack[1:] != pack[:-1]) | (np.diff(offset) != np.diff(starts))) + 1
        bounds = [0, *apart.tolist(), len(starts)] if len(starts) else [0]
        found = []
        at = start
        for a, b in pairwise(bounds):
            begin, stop = int(starts[a]), min(end, int(ends[b - 1]))
            if begin > at:
                found.append(("", 0, begin - at))
                at = begin
            if stop > at:
                found.append((self._packs[int(pack[a])], int(offset[a]) + at - begin, stop - at))
                at = stop
        if at < end:
            found.append(("", 0, end - at))
        return found


class Pieces(Iterator[bytes]):
    """A stream in pieces of at most 1 MiB; closed at its end, or by `close`.

    Args:
        stream: The stream.
        length: Bytes to take; None for all.
    """

    def __init__(self, stream: BinaryIO, length: int | None = None) -> None:
        self._stream = stream
        self._left = length

    def __next__(self) -> bytes:
        size = PIECE if self._left is None else min(PIECE, self._left)
        piece = self._stream.read(size) if size else b""
        if not piece:
            self.close()
            raise StopIteration
        if self._left is not None:
            self._left -= len(piece)
        return piece

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()


class Downloads:
    """Hands out what is stored. Safe to use from several threads.

    Args:
        parts: The stores.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._objects: OrderedDict[Digest, VirtualObject] = OrderedDict()
        self._lock = threading.Lock()

    def object(self, blob: Blob, form: str, start: int = 0, length: int | None = None) -> Pieces:
        """A stored object in pieces. Raises `BlobMissing` at once where it is not there."""
        return Pieces(self._parts.blobs.driver.get(key_of(blob.digest, form), start, length))

    def content(self, blob: Blob, start: int, length: int) -> Pieces:
        """A part of a blob's content; all of it was verified before. Raises as `BlobStore.read`."""
        stream = self._parts.blobs.open(blob)
        stream.seek(start)
        return Pieces(stream, length)

    def described(self, blob: Blob) -> Described:
        """Recipe and table of a blob that is stored as chunks.

        Raises:
            NotFound: It is stored whole.
            Damaged: It cannot be put together.
        """
        from llmartifacts.blobs.chunks.table import ROW, order_of, starts_of, tag_of

        blobs = self._parts.blobs
        if stored_form(self._parts, blob)[0] != RECIPE:
            raise NotFound(f"{blob.digest} is stored whole", what="recipe", name=blob.digest)
        data, recipe = self._recipe(blob)
        entries, head = order_of(recipe)
        raw = np.ascontiguousarray(entries["id"]).tobytes()
        ids = [raw[at : at + 32] for at in range(0, len(raw), 32)]
        rows = np.zeros(len(ids), ROW)
        rows["id"] = entries["id"]
        pack, offset = np.zeros(len(ids), np.int32), np.zeros(len(ids), np.int64)
        packs: dict[str, int] = {}
        refreshed = False
        for begin in range(0, len(ids), _AT_ONCE):
            part = ids[begin : begin + _AT_ONCE]
            found = blobs.index.find(part)
            if len(found) < len(part) and not refreshed:
                blobs.index.refresh()
                refreshed, found = True, blobs.index.find(part)
            missing = next((name for name in part if name not in found), None)
            if missing is not None:
                told = f"{blob.digest} cannot be put together: the chunk {missing.hex()[:16]} is in no pack"
                raise BlobMissing(told, digest=blob.digest)
            places = [found[name] for name in part]
            end = begin + len(part)
            pack[begin:end] = [packs.setdefault(place.pack, len(packs)) for place in places]
            offset[begin:end] = [place.offset for place in places]
            for name in ("stored", "length", "form"):
                rows[name][begin:end] = [getattr(place, name) for place in places]
        stored = rows["stored"].astype(np.int64)
        made = VirtualObject(tag_of(rows), list(packs), pack, offset, starts_of(rows), stored)
        self._remember(blob.digest, made)
        return Described(data, head, rows, made)

    def virtual(self, blob: Blob, tag: str | None) -> VirtualObject:
        """The virtual object of a blob.

        Args:
            blob: Which blob.
            tag: The tag of the object that is meant; None takes what there is.

        Raises:
            Conflict: It is another by now: ask for the table again.
        """
        with self._lock:
            found = self._objects.get(blob.digest)
            if found is not None:
                self._objects.move_to_end(blob.digest)
        if found is None or (tag is not None and found.tag != tag):
            found = self.described(blob).object
        if tag is not None and found.tag != tag:
            raise _another(blob)
        return found

    def chunks(self, blob: Blob, found: VirtualObject, start: int, end: int) -> Iterator[bytes]:
        """A range of a virtual object in pieces of at most 1 MiB.

        Raises:
            Conflict: Its packs were rewritten: ask for the table again. At once, or after some pieces.
        """
        pieces = self._pieces(blob, found, start, end)
        first = next(pieces, b"")  # so that what is gone is said before an answer begins

        def all_of() -> Iterator[bytes]:
            if first:
                yield first
            yield from pieces

        return all_of()

    def sums(self, blob: Blob, names: Sequence[bytes], row: int) -> bytes:
        """The first 16 bytes of the BLAKE3 of each row in some chunks of a blob, in order.

        Args:
            blob: Which blob.
            names: Ids of chunks.
            row: Bytes of a row.

        Raises:
            NotFound: A chunk is none of this blob's.
            InvalidValue: One is cut inside a row.
            Damaged: One cannot be read.
        """
        import blake3

        from llmartifacts.blobs.chunks.entries import ID_BYTES, entries_of
        from llmartifacts.blobs.chunks.reader import ChunkReader

        recipe = self._recipe(blob)[1]
        own = recipe.entries()
        lengths = dict(
            zip(np.ascontiguousarray(own["id"]).view(f"S{ID_BYTES}").tolist(), own["length"].tolist(), strict=True)
        )
        keys = [name.rstrip(b"\0") for name in names]  # numpy drops zeros at the end
        if any(key not in lengths for key in keys):
            raise NotFound(f"a chunk is none of {blob.digest}", what="chunk")
        sizes = [lengths[key] for key in keys]
        if any(size % row for size in sizes):
            raise InvalidValue("a chunk is cut inside a row of that size", field="row")
        if sum(sizes) // row > _MOST_SUMS:
            raise TooLarge("these chunks have more rows than can be asked for at once", field="chunks")
        reader = ChunkReader(self._parts.blobs.driver, self._parts.blobs.index)
        made = bytearray()
        try:
            for content in reader.read(entries_of(names, sizes), verify=True):
                view = memoryview(content).cast("B")
                for at in range(0, len(view), row):
                    made += blake3.blake3(view[at : at + row]).digest(16)
        except BadForm as error:
            raise Damaged(f"a part of {blob.digest} is damaged: {error}", digest=blob.digest) from None
        return bytes(made)

    def elsewhere(self, found: VirtualObject, start: int, end: int) -> tuple[str, int, int] | None:
        """Where the store itself serves a range: an address that needs no credentials, first and last byte there."""
        from llmartifacts.blobs.chunks.pack import key_of as key_of_pack

        spans = found.spans(start, end) if end - start >= _SIGNED else []
        if len(spans) != 1 or not spans[0][0]:
            return None
        pack, offset, length = spans[0]
        url = self._parts.blobs.driver.signed(key_of_pack(pack), offset, length, _SECONDS)
        return None if url is None else (url, offset, offset + length - 1)

    def object_elsewhere(self, blob: Blob, form: str, start: int, end: int) -> tuple[str, int, int] | None:
        """As `elsewhere`, for a stored object."""
        if end - start < _SIGNED:
            return None
        url = self._parts.blobs.driver.signed(key_of(blob.digest, form), start, end - start, _SECONDS)
        return None if url is None else (url, start, end - 1)

    def _pieces(self, blob: Blob, found: VirtualObject, start: int, end: int) -> Iterator[bytes]:
        from llmartifacts.blobs.chunks.pack import key_of as key_of_pack

        driver = self._parts.blobs.driver
        try:
            for pack, offset, spans in _joined(found.spans(start, end)):
                if not pack:
                    yield bytes(sum(length for _, length in spans))
                    continue
                with driver.get(key_of_pack(pack), offset) as stream:
                    for skipped, length in spans:
                        read_up_to(stream, skipped)
                        while length:
                            piece = stream.read(min(length, PIECE))
                            if not piece:
                                raise Damaged(
                                    f"a pack that holds a part of {blob.digest} is cut short", digest=blob.digest
                                )
                            length -= len(piece)
                            yield piece
        except BlobMissing as error:
            with self._lock:
                self._objects.pop(blob.digest, None)
            raise _another(blob) from error

    def _recipe(self, blob: Blob) -> tuple[bytes, Recipe]:
        from llmartifacts.blobs.store import MAX_RECIPE

        key = key_of(blob.digest, RECIPE)
        driver = self._parts.blobs.driver
        with driver.get(key) as stream:
            data = read_up_to(stream, MAX_RECIPE)
        try:
            recipe = self._parts.blobs.chunks.recipe(data, origin=driver.where(key))
        except BadForm as error:
            told = f"{blob.digest} cannot be put together: {error}"
            raise Damaged(told, digest=blob.digest, file=driver.where(key)) from None
        return data, recipe

    def _remember(self, digest: Digest, made: VirtualObject) -> None:
        with self._lock:
            self._objects[digest] = made
            self._objects.move_to_end(digest)
            while len(self._objects) > 1 and sum(map(len, self._objects.values())) > _REMEMBERED:
                self._objects.popitem(last=False)


def _joined(spans: list[tuple[str, int, int]]) -> Iterator[tuple[str, int, list[tuple[int, int]]]]:
    """Spans that lie close together in a pack, as one: its name, the first byte, and bytes to skip and to take."""
    at = 0
    while at < len(spans):
        pack, offset, length = spans[at]
        taken, end = [(0, length)], offset + length
        at += 1
        while at < len(spans) and pack and spans[at][0] == pack and 0 <= spans[at][1] - end <= _GAP:
            taken.append((spans[at][1] - end, spans[at][2]))
            end = spans[at][1] + spans[at][2]
            at += 1
        yield pack, offset, taken


def _another(blob: Blob) -> Conflict:
    return Conflict(
        f"the chunks of {blob.digest} were stored anew meanwhile", field="table", next_step="Ask for its table again."
    )
