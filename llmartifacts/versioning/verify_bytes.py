"""The bytes of a registry checked: blobs, recipes, packs and the index of chunks. One at a time, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from llmartifacts.blobs.forms import BadForm
from llmartifacts.errors import BlobMissing, Damaged, LlmartifactsError
from llmartifacts.metadata import chunks, needed
from llmartifacts.records.backend import Progress
from llmartifacts.records.digest import Blob, digest_from_bytes
from llmartifacts.records.subset import Subset
from llmartifacts.versioning.chunk_index import RecordedIndex
from llmartifacts.versioning.parts import Parts

if TYPE_CHECKING:
    from llmartifacts.blobs.chunks.pack import Footer

NAMED = 20
"""Versions that an error names at most."""
_MALFORMED = (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError)
"""What a codec raises over a recipe whose checksum is right and whose content is a lie."""
_INDEX = "llmartifacts repair makes the index anew."


class Bytes:
    """Checks stored bytes.

    Args:
        parts: The stores.
        read_data: Read and hash them; else only look that they are there.
        part: Of these, which; None for all.
        size: Bytes of all blobs.
        progress: Told of the bytes done and in all.

    Attributes:
        checked: Blobs that were checked.
        looked: Packs that were checked.
    """

    def __init__(
        self, parts: Parts, read_data: bool, part: Subset | None, size: int, progress: Progress | None
    ) -> None:
        self._parts = parts
        self.read_data = read_data
        self._part = part
        self._progress = progress
        self._done, self._total = 0, size // (part.of if part else 1)
        self.checked = self.looked = 0

    def blobs(self, collection: int | None = None) -> Iterator[LlmartifactsError]:
        """Every blob that a version needs; of one collection, where it is given."""
        for blob in self.needed(collection):
            if isinstance(blob, LlmartifactsError):
                yield blob
                continue
            self.checked += 1
            reads = self._reads(blob.digest)
            error = check_blob(self._parts, blob, reads)
            if error is not None:
                yield error
            if reads:
                self._advance(blob.size)

    def packs(self) -> Iterator[LlmartifactsError]:
        """Every pack, and the index of what is in them; each with the versions that need something in it."""
        stored = dict(stored_packs(self._parts))
        self.looked = len(stored)
        if self.read_data:
            self._total += sum(stored.values()) // (self._part.of if self._part else 1)
        driver, index = self._parts.blobs.driver, self._parts.blobs.index
        found: dict[str, Damaged] = {}
        for name, size in index.packs().items():
            if stored.get(name) != size and index.packs().get(name) == size:  # else gc removed it meanwhile
                from llmartifacts.blobs.chunks.pack import key_of

                where = driver.where(key_of(name))
                what = f"is recorded with {size} bytes and has {stored[name]}" if name in stored else "is missing"
                kind = Damaged if name in stored else BlobMissing
                found[name] = kind(f"the pack {where} {what}", file=where)
        for name, size in stored.items():
            error = self._pack(name, size)
            if error is not None and name not in found:
                found[name] = error
        if found:
            for _, error in versions_of_packs(self._parts, found):
                yield error

    def misplaced(self, name: str, size: int) -> bool:
        """Whether the index says of a pack what its footer does not; not if its footer cannot be read."""
        from llmartifacts.blobs.chunks.survey import read_footer

        try:
            return self._rows_astray(name, read_footer(self._parts.blobs.driver, name, size)) > 0
        except (BadForm, Damaged):
            return False

    def end(self) -> None:
        """All is done."""
        if self._progress is not None and self._total:
            self._progress(self._total, self._total)

    # --- blobs

    def needed(self, collection: int | None = None) -> Iterator[Blob | LlmartifactsError]:
        """Every blob that a version needs, by digest; an error for one of which the database does not say its size."""
        last = b""
        while True:
            with self._parts.metadata.reading() as s:
                page = needed.blobs_after(s, last, collection)
            for raw, low, high in page:
                if type(low) is not int or low < 0 or low != high:
                    digest = digest_from_bytes(raw)
                    yield Damaged(f"the file {digest} is listed with several sizes, or none", digest=digest)
                else:
                    yield Blob(digest_from_bytes(raw), low)
            if not page:
                return
            last = page[-1][0]

    def _reads(self, name: str) -> bool:
        return self.read_data and (self._part is None or name in self._part)

    def _advance(self, size: int) -> None:
        self._done += size
        if self._progress is not None:
            self._progress(min(self._done, self._total), self._total)

    # --- packs

    def _pack(self, name: str, size: int) -> Damaged | None:
        """What is wrong with one pack, or with what the index says of it."""
        from llmartifacts.blobs.chunks.check import check_pack
        from llmartifacts.blobs.chunks.pack import key_of
        from llmartifacts.blobs.chunks.survey import read_footer

        driver = self._parts.blobs.driver
        where = driver.where(key_of(name))
        try:
            if self._reads(name):
                check_pack(driver, name, size)
                self._advance(size)
            wrong = self._rows_astray(name, read_footer(driver, name, size))
        except BadForm as error:
            return Damaged(f"the pack {where} is damaged: {error}", file=where)
        except Damaged as error:
            if driver.size(key_of(name)) is None:  # gc removed it meanwhile
                return None
            return Damaged(f"the pack {where} is damaged: {error.message}", file=where)
        if wrong:
            told = f"the index says of {wrong} chunks of the pack {where} what the pack does not"
            return Damaged(told, file=self._parts.location, next_step=_INDEX)
        return None

    def _rows_astray(self, name: str, footer: Footer) -> int:
        """How many chunks are recorded in a pack and do not lie there, or not so."""
        if not isinstance(self._parts.blobs.index, RecordedIndex):
            return 0
        from llmartifacts.blobs.chunks.pack import places

        with self._parts.metadata.reading() as s:
            rows = chunks.rows_of(s, name)
        lie = places(name, footer)
        return sum(lie[row[0]][1:] != row[1:] if row[0] in lie else True for row in rows)


def check_blob(parts: Parts, blob: Blob, read_data: bool) -> LlmartifactsError | None:
    """What is wrong with a stored blob; None if nothing is."""
    try:
        parts.blobs.check(blob, read_data=read_data)
    except LlmartifactsError as error:
        return error
    except _MALFORMED as error:
        told = f"{blob.digest} cannot be put together: its recipe is no sense ({type(error).__name__})"
        return Damaged(told, digest=blob.digest)
    return None


def stored_packs(parts: Parts) -> Iterator[tuple[str, int]]:
    """Name and bytes of every stored pack."""
    for key, size in parts.blobs.driver.list("packs/"):
        from llmartifacts.blobs.chunks.pack import parse_key  # imports numpy, which a store without packs does without

        name = parse_key(key)
        if name is not None:
            yield name, size


def key_of_pack(name: str) -> str:
    """The key of a pack in the store."""
    from llmartifacts.blobs.chunks.pack import key_of

    return key_of(name)


def versions_of_packs(parts: Parts, found: Mapping[str, Damaged]) -> Iterator[tuple[str, Damaged]]:
    """Each damaged pack, with the versions that need something in it, as far as recipes can be read."""
    if not found:
        return
    from llmartifacts.blobs.chunks.entries import ids_of

    needing: dict[str, dict[str, None]] = {name: {} for name in found}
    counts = dict.fromkeys(found, 0)
    for blob in Bytes(parts, False, None, 0, None).needed():
        if isinstance(blob, LlmartifactsError):
            continue
        try:
            recipe = parts.blobs.recipe(blob)
            ids = ids_of(recipe.entries()) if recipe else []
        except (LlmartifactsError, *_MALFORMED):
            continue
        hit = {place.pack for place in parts.blobs.chunks.index.find(ids).values()} & found.keys() if ids else set()
        if hit:
            with parts.metadata.reading() as s:
                names, count = needed.needing(s, blob.digest, NAMED)
            for name in hit:
                needing[name] |= dict.fromkeys(names)
                counts[name] += count
    for name, error in found.items():
        named = tuple(needing[name])[:NAMED]
        yield name, replace(error, versions=named, needed_by=max(counts[name], len(named)) if named else None)
