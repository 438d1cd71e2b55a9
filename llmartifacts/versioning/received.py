"""What came from outside and is to be stored: packs, recipes and small objects, each checked to the last bit.

Nothing of it is believed. A pack must be what its name and its footer say, chunk by chunk. A recipe may name chunks of
the packs that came with it, and of the blobs that whoever sent it may read; it is put together to its end, and must
make the blob that it is said to make. Only then is anything stored.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from mmap import PROT_READ, mmap
from pathlib import Path
from typing import Any

import numpy as np

from llmartifacts.blobs.base import PIECE
from llmartifacts.blobs.chunks import pack as packs
from llmartifacts.blobs.chunks import recipe as recipes
from llmartifacts.blobs.chunks.check import check_view
from llmartifacts.blobs.chunks.encode import codec_named
from llmartifacts.blobs.chunks.entries import ID_BYTES, Entries, ids_of
from llmartifacts.blobs.chunks.index import ChunkIndex, NewPack
from llmartifacts.blobs.chunks.overlay import Overlay
from llmartifacts.blobs.chunks.pack import Footer, Place
from llmartifacts.blobs.chunks.reader import ChunkReader
from llmartifacts.blobs.chunks.recipe import Recipe
from llmartifacts.blobs.chunks.source import Hashing
from llmartifacts.blobs.disk import write_file
from llmartifacts.blobs.failures import storage_errors
from llmartifacts.blobs.forms import RAW, RECIPE, ZSTD, BadForm, Reader, key_of
from llmartifacts.blobs.store import BlobStore
from llmartifacts.errors import BlobMissing, Conflict, Damaged, InvalidValue
from llmartifacts.records.digest import Blob, Digest, digest_of

FREE = 64 * 1024 * 1024
"""Bytes of chunks that an upload may bring beside those of its blobs: nodes, and streams of numbers."""
_ID = f"S{ID_BYTES}"
_LET_GO = 1 << 28
"""Bytes of packs that stay mapped while a blob is put together."""


@dataclass(frozen=True, slots=True)
class ReceivedPack:
    """A pack that came, in a file.

    Attributes:
        name: Its name, as it was said.
        file: Where it lies, on the file system of the store, until it takes the place of a damaged one.
        footer: What is in it.
        size: Its bytes.
    """

    name: str
    file: Path
    footer: Footer
    size: int


@dataclass(frozen=True, slots=True)
class _Object:
    """A small object, or a recipe, checked and in its stored form, in a file."""

    blob: Blob
    key: str
    file: Path
    ids: Entries | None = None


@dataclass
class Received:
    """Checks what came, and stores it.

    Args:
        blobs: The store.
        new_file: Gives paths for files on the file system of the store.
        until: When to give up, by `time.monotonic()`.

    Attributes:
        checked: The blobs that were checked.
    """

    blobs: BlobStore
    new_file: Callable[[], Path]
    until: float = float("inf")
    checked: dict[Digest, Blob] = field(default_factory=dict)
    _packs: list[ReceivedPack] = field(default_factory=list)
    _objects: list[_Object] = field(default_factory=list)
    _settled: list[tuple[Blob, list[str]]] = field(default_factory=list)
    _damaged: list[tuple[Blob, str]] = field(default_factory=list)
    _heals: bool = False

    def __post_init__(self) -> None:
        self._index = _Allowed(self.blobs.index)

    # --- check

    def pack(self, name: str, file: Path, most: int) -> int:
        """Check a pack; its chunks may be named by recipes from then on.

        Args:
            name: The name that it is said to have.
            file: The pack; stays the caller's until `store`.
            most: Bytes that its chunks may have together.

        Returns:
            Bytes that they have.

        Raises:
            InvalidValue: It is something else.
        """
        try:
            with storage_errors("read", file), open(file, "rb") as opened:
                if not opened.seek(0, 2):
                    raise BadForm("it is empty")
                footer = check_view(name, memoryview(mmap(opened.fileno(), 0, prot=PROT_READ)), most).copy()
        except BadForm as error:
            told = f"the pack {name[:16]} is not what was announced: {error}"
            raise InvalidValue(told, field="packs") from None
        size = file.stat().st_size
        self._packs.append(ReceivedPack(name, file, footer, size))
        self._index.bring(name, size, footer)
        self._in_time()
        return int(footer["length"].sum(dtype=np.int64))

    def allow(self, parents: Iterable[Blob]) -> None:
        """Let recipes name the chunks of these blobs too; those that are not stored as chunks are passed over.

        Raises:
            Damaged: One cannot be read.
        """
        for blob in parents:
            recipe = self.blobs.recipe(blob)
            if recipe is not None:
                self._index.allow(recipe.entries())

    def small(self, blob: Blob, form: str, data: bytes) -> None:
        """Check a blob that came whole, in its stored form.

        Raises:
            InvalidValue: It is something else, or larger than what is stored whole.
        """
        if form not in (RAW, ZSTD) or blob.size > PIECE:
            raise _lies(blob, "only up to 1 MiB are sent whole")
        content = io.BytesIO()
        try:
            with Reader(form, io.BytesIO(data)) as reader:
                for piece in reader.pieces(blob.size + 1):
                    content.write(piece)
        except BadForm as error:
            raise _lies(blob, str(error)) from None
        whole = content.getvalue()
        if len(whole) != blob.size or digest_of(whole) != blob.digest:
            raise _lies(blob, f"{len(whole)} bytes of something else came")
        self._keep(blob, form, data)

    def recipe(self, blob: Blob, data: bytes) -> None:
        """Check a blob that came as a recipe, by putting it together.

        Raises:
            InvalidValue: It makes something else, or names a chunk that did not come with it and is in none of the
                blobs that it may rely on.
            Damaged: A stored chunk that it relies on is damaged.
            NewerFormat: Its codec is not known here.
        """
        reader = ChunkReader(self.blobs.driver, self._index)
        for pack in self._packs:
            reader.stage(pack.name, pack.file)
        made: Recipe | None = None
        try:
            made = recipes.read(data, lambda e: b"".join(bytes(c) for c in reader.read(e)), origin="upload")
            found = self._put_together(made, blob, reader)
            if found != blob:
                raise BadForm(f"its recipe makes {found.digest}")
        except BlobMissing as error:
            told = "its recipe names a chunk that did not come with it, nor is in a file that it may rely on"
            raise _lies(blob, told) from error
        except (BadForm, ValueError, LookupError, ArithmeticError, TypeError) as error:  # numbers that lie to a codec
            if made is not None:
                self._require_sound(made, reader)
            told = str(error) if isinstance(error, BadForm) else f"its recipe is malformed ({type(error).__name__})"
            raise _lies(blob, told) from error
        self._keep(blob, RECIPE, data, made.entries())

    def _put_together(self, recipe: Recipe, blob: Blob, reader: ChunkReader) -> Blob:
        """What a recipe makes."""
        if recipe.size != blob.size:
            raise BadForm(f"its recipe makes {recipe.size} of {blob.size} bytes")
        hashing = Hashing()
        done = held = 0
        with closing(hashing.passing(iter(codec_named(recipe.codec, recipe.version).decode(recipe, reader)))) as parts:
            for part in parts:
                done += len(part)
                if done > blob.size:
                    raise BadForm(f"its recipe makes more than {blob.size} bytes")
                if done - held > _LET_GO:
                    held = done
                    reader.let_go()
                self._in_time()
        return hashing.blob()

    def _require_sound(self, recipe: Recipe, reader: ChunkReader) -> None:
        """Say so where it is not the recipe that is wrong, but a stored chunk that it relies on."""
        ids = ids_of(recipe.entries())
        stored = np.fromiter((not self._index.own.find([name]) for name in ids), np.bool_, len(ids))
        try:
            for _ in reader.read(recipe.entries()[stored], verify=True):
                pass
        except BadForm as error:
            raise Damaged(f"something that this upload relies on is damaged: {error}") from error
        except BlobMissing:
            return

    def _keep(self, blob: Blob, form: str, data: bytes, ids: Entries | None = None) -> None:
        file = self.new_file()
        with storage_errors("write", file):
            write_file(file, data)
        self._objects.append(_Object(blob, key_of(blob.digest, form), file, ids))
        self.checked[blob.digest] = blob

    def _in_time(self) -> None:
        if time.monotonic() > self.until:
            raise InvalidValue(
                "it took too long to put the upload together", field="blobs", next_step="Send less in one upload."
            )

    # --- store

    def settle(self) -> None:
        """Find what is stored already, right to the last bit: it is not stored again."""
        left = []
        for made in self._objects:
            good, damaged = self.blobs.standing(made.blob)
            if good and not damaged:
                self._settled.append((made.blob, list(good)))
            else:
                left.append(made)
                self._heals |= bool(damaged)
                self._damaged += [(made.blob, key) for key in damaged if key != made.key]
        self._objects = left
        needed = {name for made in left if made.ids is not None for name in ids_of(made.ids)}
        self._packs = [pack for pack in self._packs if any(name in needed for name in ids_of(pack.footer))]

    def place(self) -> None:
        """Put packs and objects into the store, durable; nothing knows of them yet, and a collection removes them."""
        driver = self.blobs.driver
        new = driver.put_many([(packs.key_of(pack.name), pack.file) for pack in self._packs])
        for pack, stored in zip(self._packs, new, strict=True):
            if not stored and not self.blobs.chunks.is_whole(pack.name, pack.size):
                driver.replace(packs.key_of(pack.name), pack.file)

    def publish(self) -> None:
        """Record them. To be called in a transaction that keeps collections away; what they removed is put back.

        Raises:
            Conflict: Something that this relies on was removed meanwhile.
        """
        driver, index = self.blobs.driver, self.blobs.index
        relied = self._relied()
        if len(index.find(relied)) < len(relied) or not all(self.blobs.has(blob) for blob, _ in self._settled):
            raise _removed()
        driver.settle(key for _, keys in self._settled for key in keys)
        before = self._packs_before() if self._heals else set()
        for pack in self._packs:
            key = packs.key_of(pack.name)
            if driver.size(key) != pack.size:
                if not pack.file.exists():  # it took the place of a damaged one, and a collection removed that
                    raise _removed()
                driver.replace(key, pack.file)
            index.add([NewPack(pack.name, pack.size, packs.places(pack.name, pack.footer))])
        for name in before:  # one of them is damaged: other blobs need its chunks too
            self.blobs.chunks.mend(name, self.new_file)
        new = [(made.key, made.file) for made in self._objects]
        for (key, file), stored in zip(new, driver.put_many(new), strict=True):
            if not stored:
                driver.replace(key, file)  # it was there, and wrong when `settle` looked
        for blob, key in self._damaged:
            if key in self.blobs.standing(blob)[1]:  # again: somebody else may have healed it
                driver.delete(key)  # it would be read first

    def _packs_before(self) -> set[str]:
        """Other packs in which chunks that came are found until now."""
        ids = [name for pack in self._packs for name in ids_of(pack.footer)]
        places = self.blobs.index.find(list(dict.fromkeys(ids))) if ids else {}
        return {place.pack for place in places.values()} - {pack.name for pack in self._packs}

    def _relied(self) -> list[bytes]:
        """Chunks of other blobs that recipes name."""
        own = self._index.own
        names: dict[bytes, None] = {}
        for made in self._objects:
            if made.ids is not None:
                ids = list(dict.fromkeys(ids_of(made.ids)))
                here = own.find(ids)
                names |= dict.fromkeys(name for name in ids if name not in here)
        return list(names)


class _Allowed(ChunkIndex):
    """The chunks that recipes of one upload may name: those that came with it, and those of some blobs.

    Args:
        index: Knows where the latter lie.
    """

    def __init__(self, index: ChunkIndex) -> None:
        self._index = index
        self.own = Overlay()
        self._allowed: Any = np.zeros(0, _ID)

    def bring(self, name: str, size: int, footer: Footer) -> None:
        """A pack that came."""
        self.own = self.own.extended([(name, size, footer)])

    def allow(self, entries: Entries) -> None:
        """Chunks of a blob."""
        ids = np.ascontiguousarray(entries["id"]).view(_ID)
        self._allowed = np.unique(np.concatenate([self._allowed, ids]))

    def find(self, ids: Sequence[bytes]) -> dict[bytes, Place]:
        """Places of those that may be named."""
        found = self.own.find(ids)
        rest = [name for name in ids if name not in found] if len(found) < len(ids) else []
        if rest and len(self._allowed):
            wanted = np.frombuffer(b"".join(rest), _ID)
            at = np.minimum(np.searchsorted(self._allowed, wanted), len(self._allowed) - 1)
            found |= self._index.find([rest[hit] for hit in np.flatnonzero(self._allowed[at] == wanted).tolist()])
        return found

    def add(self, packs: Sequence[NewPack]) -> None:
        """Nothing is added here."""
        raise NotImplementedError

    def remove(self, packs: Iterable[str]) -> None:
        """Nothing is removed here."""
        raise NotImplementedError

    def packs(self) -> dict[str, int]:
        """The packs that came."""
        return dict(self.own.packs)

    def refresh(self) -> None:
        """Look again where others lie."""
        self._index.refresh()


def _lies(blob: Blob, what: str) -> InvalidValue:
    return InvalidValue(f"what was sent as {blob.digest} is something else: {what}", field="blobs")


def _removed() -> Conflict:
    return Conflict(
        "something that this upload relies on was removed meanwhile", next_step="Somebody cleaned up; log it again."
    )
