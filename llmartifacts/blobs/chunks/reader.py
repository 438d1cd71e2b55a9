"""Chunks out of packs: in order, or where they lie, so that rows can be picked without a copy."""

from __future__ import annotations

import io
import mmap
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from operator import ne
from pathlib import Path
from typing import Any, BinaryIO

import blake3
import numpy as np
import numpy.typing as npt

from llmartifacts.blobs.base import Driver, read_up_to
from llmartifacts.blobs.chunks import pack as packs
from llmartifacts.blobs.chunks.entries import MAX_CHUNK, Entries, ids_of, lengths_of
from llmartifacts.blobs.chunks.index import ChunkIndex
from llmartifacts.blobs.chunks.pack import RAW, Place
from llmartifacts.blobs.failures import storage_errors
from llmartifacts.blobs.forms import BadForm
from llmartifacts.errors import BlobMissing, Damaged

Buffer = Any
"""Bytes, or a view of bytes."""
Bytes = npt.NDArray[np.uint8]
Sums = Callable[[Entries, int], bytes | None]

_AT_ONCE = 4096  # chunks looked up together
_SPAN = 8 * 1024 * 1024
_AHEAD = 64 * 1024 * 1024
"""Bytes that a driver without files is asked for at once, in ranges: it may fetch the next while one is worked on."""
_GAP = 64 * 1024
"""Bytes that are read and thrown away rather than asked for separately, where a driver has no files."""


@dataclass(frozen=True, slots=True, eq=False)
class Located:
    """Where the contents of chunks lie, raw.

    Attributes:
        views: Buffers that hold them, one for each pack or spool, as bytes.
        view: For each chunk, which of the buffers.
        offset: For each chunk, where it begins there.
    """

    views: list[Bytes]
    view: npt.NDArray[np.int64]
    offset: npt.NDArray[np.int64]


class ChunkReader:
    """Reads chunks. What it hands over has the right length, and is checked further only where that is said.

    Args:
        driver: Where the packs are.
        index: Knows the place of each chunk.
        seed: Chunks that are at hand elsewhere, by id; asked before a pack that is not on this host.
        far: The store is another host's, which checks everything that comes to it: so whoever encodes takes stored
            chunks for what their ids say, and fetches none just to compare it.
        sums: Gives 16 bytes of the BLAKE3 of each row, of so many bytes, in some chunks, where that can be had without
            fetching them.
    """

    def __init__(
        self,
        driver: Driver,
        index: ChunkIndex,
        seed: Callable[[bytes], Buffer | None] | None = None,
        *,
        far: bool = False,
        sums: Sums | None = None,
    ) -> None:
        self.driver = driver
        self.index = index
        self.far = far
        self.sums = sums
        self._seed = seed
        self._maps: dict[str, memoryview | None] = {}
        self._staged: dict[str, Path] = {}
        self._own: dict[bytes, Place] = {}

    # --- where

    def stage(self, pack: str, file: Path) -> None:
        """A pack that is not stored yet, and lies in a file."""
        self._staged[pack] = file
        self._maps.pop(pack, None)  # of a damaged one that is stored under the same name

    def forget(self, pack: str, chunks: Mapping[bytes, Place]) -> None:
        """A pack that will not be stored."""
        self._staged.pop(pack, None)
        self._maps.pop(pack, None)
        for name in chunks:
            self._own.pop(name, None)

    def know(self, chunks: Mapping[bytes, Place]) -> None:
        """Chunks that the index does not have yet."""
        self._own.update(chunks)

    def places(self, ids: Sequence[bytes]) -> list[Place]:
        """The place of each chunk.

        Raises:
            BlobMissing: One is in no pack.
        """
        if self._own:
            with suppress(KeyError):
                return [self._own[name] for name in ids]  # of a blob that is being stored: all of it, mostly
        found = self.find(ids)
        if any(name not in found for name in ids):
            self.index.refresh()
            found = self.find(ids)
        missing = next((name for name in ids if name not in found), None)
        if missing is not None:
            raise BlobMissing(f"the chunk {missing.hex()[:16]} is in no pack of the store")
        return [found[name] for name in ids]

    def find(self, ids: Sequence[bytes]) -> dict[bytes, Place]:
        """Places of those that are known."""
        found = {name: self._own[name] for name in ids if name in self._own} if self._own else {}
        rest = [name for name in ids if name not in found] if found else ids
        return {**self.index.find(rest), **found} if rest else found

    def within_reach(self, ids: Sequence[bytes]) -> list[Place]:
        """The place of each chunk, in packs that are held open from now on where they are files on this host.

        A pack may be rewritten between looking a chunk up and opening the pack: then the chunk is looked up once more.

        Raises:
            BlobMissing: A chunk is in no pack, or a pack is not there.
        """
        places = self.places(ids)
        for pack in dict.fromkeys(place.pack for place in places):
            try:
                self._map(pack)
            except BlobMissing:
                places = self._moved(ids, places, pack)
                for moved in dict.fromkeys(place.pack for place in places):
                    self._map(moved)
                break
        return places

    def _moved(self, ids: Sequence[bytes], places: Sequence[Place], gone: str) -> list[Place]:
        """The places of chunks, some of which were in a pack that is not there any more. Raises `BlobMissing`."""
        self.index.refresh()
        away = [name for name, place in zip(ids, places, strict=True) if place.pack == gone]
        where = self.where(gone)
        missing = BlobMissing(f"the pack {where} is not there, and holds {len(away)} chunks", file=where)
        try:
            found = self.places(ids)
        except BlobMissing as error:
            raise missing from error
        if any(place.pack == gone for place in found):
            raise missing
        return found

    def is_sound(self, pack: str) -> bool:
        """Whether a pack's footer, by which its chunks are found again, and all else between its chunks is right.

        Raises:
            BlobMissing: It is not there.
        """
        key, view = packs.key_of(pack), self._map(pack)
        try:
            if view is None:
                read = packs.reader_of(lambda at, n: self.driver.get(key, at, n))
                packs.read_footer(pack, self.driver.size(key) or 0, read)
                return True  # what is between the chunks is not worth asking for
            footer = packs.read_footer(pack, len(view), lambda at, n: view[at : at + n])
        except BadForm:
            return False
        return packs.gaps_are_zero(footer, lambda at, n: view[at : at + n])

    # --- in order

    def read(self, entries: Entries, *, verify: bool = False) -> Iterator[Buffer]:
        """The content of each chunk, in order.

        Args:
            entries: Which.
            verify: Compare each with its id; else only its length is right.

        Raises:
            BlobMissing: A chunk or its pack is not there.
            BadForm: One has another length, cannot be decompressed, or is not what its id says.
        """
        for start in range(0, len(entries), _AT_ONCE):
            part = entries[start : start + _AT_ONCE]
            ids, lengths = ids_of(part), lengths_of(part).tolist()
            places = self.within_reach(ids)
            for name, length, (place, stored) in zip(ids, lengths, self._stored(ids, places), strict=True):
                content = self._checked(place, stored, length)
                if verify and blake3.blake3(content).digest() != name:
                    raise BadForm(f"a chunk in {self.where(place.pack)} was altered")
                yield content

    def runs(self, entries: Entries) -> Iterator[Buffer]:
        """The contents in order as `read` gives them, neighbours in a pack together: far fewer and larger buffers."""
        for start in range(0, len(entries), _AT_ONCE):
            part = entries[start : start + _AT_ONCE]
            places = self.places(ids_of(part))
            ends = _ends_of_runs(places, lengths_of(part))
            at = rest = 0
            for end in ends:
                view = self._map(places[at].pack) if end - at > 1 else None
                if view is not None:
                    yield from self.read(part[rest:at])
                    rest = end
                    first, last = places[at].offset, places[end - 1].offset + places[end - 1].stored
                    if last > len(view):
                        raise BadForm(f"{self.where(places[at].pack)} is cut short")
                    yield view[first:last]
                at = end
            yield from self.read(part[rest:])  # all of it where packs have no file: many chunks with one request

    def each(self, ids: Sequence[bytes], places: Sequence[Place]) -> Iterator[Buffer | None]:
        """The content of each chunk, unchecked; None for one that cannot be had because it, or its pack, is damaged."""
        at = 0
        while at < len(places):
            try:
                for place, stored in self._stored(ids[at:], places[at:]):
                    try:
                        content = self._content(place, stored)
                    except BadForm:
                        content = None
                    at += 1
                    yield content
            except (BadForm, Damaged):
                at += 1
                yield None

    def chunk(self, name: bytes, place: Place) -> Buffer:
        """The content of one chunk, unchecked. Raises as `read`."""
        return self._content(*next(iter(self._stored([name], [place]))))

    def stored(self, ids: Sequence[bytes]) -> Iterator[tuple[Place, Buffer]]:
        """Place and stored bytes of each chunk, unchecked. Raises as `read`."""
        return self._stored(ids, self.within_reach(ids))

    def let_go(self) -> None:
        """Let go of packs that are held open; they are opened again when something is read from them."""
        self._maps.clear()

    # --- where they lie

    def locate(self, entries: Entries) -> Located:
        """Where the contents lie, so that parts of them can be picked; what is compressed is put into a file first.

        Raises:
            BlobMissing: A chunk or its pack is not there.
            BadForm: One has another length, or cannot be decompressed.
        """
        ids, lengths = ids_of(entries), lengths_of(entries)
        places = [
            place for start in range(0, len(ids), _AT_ONCE) for place in self.within_reach(ids[start:][:_AT_ONCE])
        ]
        names = dict.fromkeys(place.pack for place in places)
        maps = {name: self._map(name) for name in names}
        views: list[Bytes] = []
        number = {}
        for name, found in maps.items():
            if found is not None:
                number[name] = len(views)
                views.append(np.frombuffer(found, np.uint8))
        direct = np.fromiter((p.form == RAW and p.pack in number for p in places), np.bool_, len(places))
        view = np.fromiter((number.get(p.pack, -1) for p in places), np.int64, len(places))
        offset = np.fromiter((p.offset for p in places), np.int64, len(places))
        stored = np.fromiter((p.stored for p in places), np.int64, len(places))
        sizes = np.array([*(len(v) for v in views), 0], np.int64)  # view -1: not direct
        if (direct & (stored != lengths)).any() or (offset + stored > np.where(direct, sizes[view], 1 << 62)).any():
            raise BadForm("a chunk has another length in its pack than in the recipe")
        spooled = np.flatnonzero(~direct)
        if len(spooled):
            ends = np.cumsum(lengths[spooled])
            view[spooled] = len(views)
            offset[spooled] = ends - lengths[spooled]
            views.append(self._spool(entries[spooled], int(ends[-1])))
        return Located(views, view, offset)

    def where(self, pack: str) -> str:
        """Where a pack lies, for messages."""
        return str(self._staged.get(pack) or self.driver.where(packs.key_of(pack)))

    # --- one pack

    def _spool(self, entries: Entries, size: int) -> Bytes:
        """The contents one after another in a file without a name, mapped."""
        with storage_errors("write", self.driver.spool or tempfile.gettempdir()):
            opened = tempfile.TemporaryFile(dir=self.driver.spool)  # noqa: SIM115 - closed below
        with opened as file:
            with storage_errors("write", file.name):
                for content in self._spooled(entries):
                    file.write(content)
                file.flush()
            return np.frombuffer(mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ), np.uint8)

    def _spooled(self, entries: Entries) -> Iterator[Buffer]:
        """As `read`; what was fetched together, and lies there as it is, comes as one buffer."""
        for start in range(0, len(entries), _AT_ONCE):
            part = entries[start : start + _AT_ONCE]
            ids, lengths = ids_of(part), lengths_of(part).tolist()
            at = 0
            for run, parts, whole in self._fetches(ids, self.within_reach(ids)):
                wanted = lengths[at : at + len(run)]
                at += len(run)
                plain = all(place.form == RAW and place.stored == n for place, n in zip(run, wanted, strict=True))
                if plain and whole is not None and len(whole) == sum(wanted):
                    yield whole
                    continue
                for place, stored, length in zip(run, parts, wanted, strict=True):
                    yield self._checked(place, stored, length)

    def _map(self, pack: str) -> memoryview | None:
        """A pack mapped, where it is a file on this host."""
        if pack not in self._maps:
            staged = self._staged.get(pack)
            with ExitStack() as opened:
                if staged is not None:
                    with storage_errors("read", staged):
                        file: BinaryIO | None = opened.enter_context(open(staged, "rb"))
                else:
                    own = self.driver.file(packs.key_of(pack))
                    file = opened.enter_context(own[0]) if own else None
                self._maps[pack] = None
                if file is not None and file.seek(0, 2):
                    self._maps[pack] = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
        return self._maps[pack]

    def _stored(self, ids: Sequence[bytes], places: Sequence[Place]) -> Iterator[tuple[Place, Buffer]]:
        """Place and stored bytes of chunks."""
        for run, parts, _ in self._fetches(ids, places):
            yield from zip(run, parts, strict=True)

    def _fetches(
        self, ids: Sequence[bytes], places: Sequence[Place]
    ) -> Iterator[tuple[Sequence[Place], Sequence[Buffer], Buffer | None]]:
        """Chunks one by one, or, without a file, those that lie close together: places, stored bytes, all of it."""
        at = 0
        while at < len(places):
            place = places[at]
            view = self._map(place.pack)
            if view is not None:
                yield [place], [view[place.offset : place.offset + place.stored]], None
                at += 1
                continue
            runs = self._runs(ids, places, at)
            fetched = self._fetched([places[run.first : run.end] for run in runs if run.seeded is None])
            for run in runs:
                if run.seeded is not None:
                    yield [places[at]], [_Plain(run.seeded)], None
                    at += 1
                    continue
                try:
                    stored, whole = next(fetched)
                except BlobMissing:  # the pack was rewritten meanwhile
                    gone = places[run.first].pack
                    places = [*places[:at], *self._moved(ids[at:], places[at:], gone)]
                    break
                yield places[run.first : run.end], stored, whole
                at = run.end

    def _runs(self, ids: Sequence[bytes], places: Sequence[Place], at: int) -> list[_Run]:
        """What comes next of packs that are not on this host: chunks at hand, and those that are fetched together."""
        runs: list[_Run] = []
        size = 0
        while at < len(places) and size < _AHEAD and self._map(places[at].pack) is None:
            place = places[at]
            if place.stored > MAX_CHUNK or place.length > MAX_CHUNK:
                raise BadForm("a chunk is longer than any")
            size += max(place.stored, place.length)
            seeded = self._seed(ids[at]) if self._seed else None
            last = runs[-1] if runs else None
            if last and seeded is None and last.seeded is None and _together(places[last.first], places[at - 1], place):
                last.end = at + 1
            else:
                runs.append(_Run(at, at + 1, seeded))
            at += 1
        return runs

    def _fetched(self, runs: Sequence[Sequence[Place]]) -> Iterator[tuple[list[Buffer], Buffer]]:
        """The stored bytes of the chunks of each run, and of the run."""
        spans = [(run[0].offset, run[-1].offset + run[-1].stored) for run in runs]
        keys = [packs.key_of(run[0].pack) for run in runs]
        ranges = [(key, start, end - start) for key, (start, end) in zip(keys, spans, strict=True)]
        streams = iter(self.driver.get_each(ranges))
        for run, (start, end) in zip(runs, spans, strict=True):
            with storage_errors("read", self.where(run[0].pack)), next(streams) as stream:
                in_memory = isinstance(stream, io.BytesIO)
                data = memoryview(stream.read(end - start) if in_memory else read_up_to(stream, end - start))
            yield [data[place.offset - start : place.offset - start + place.stored] for place in run], data

    def _checked(self, place: Place, stored: Buffer, length: int) -> Buffer:
        content = self._content(place, stored)
        if len(content) != length:
            raise BadForm(f"a chunk in the pack {place.pack[:16]} has {len(content)} bytes, not {length}")
        return content

    def _content(self, place: Place, stored: Buffer) -> Buffer:
        if isinstance(stored, _Plain):
            return stored.content
        if len(stored) != place.stored:
            raise BadForm(f"{self.where(place.pack)} is cut short")
        return stored if place.form == RAW else decompress(stored, place.length)


@dataclass(slots=True)
class _Run:
    """Chunks that are fetched together, or one that is at hand."""

    first: int
    end: int
    seeded: Buffer | None


@dataclass(frozen=True, slots=True)
class _Plain:
    """Content that came from elsewhere and is not in stored form."""

    content: Buffer


def decompress(stored: Buffer, length: int) -> bytes:
    """The content of a compressed chunk; never more than it is said to have.

    Raises:
        BadForm: It is no frame of that length.
    """
    import zstandard

    if not 0 < length <= MAX_CHUNK:
        raise BadForm("a chunk is longer than any")
    try:
        if zstandard.frame_content_size(stored) != length:
            raise BadForm("a compressed chunk has another length than it should")
        content: bytes = zstandard.ZstdDecompressor().decompress(stored, max_output_size=length)
    except zstandard.ZstdError as error:
        raise BadForm(f"a compressed chunk is damaged ({error})") from None
    return content


def _ends_of_runs(places: Sequence[Place], lengths: npt.NDArray[np.int64]) -> Iterator[int]:
    """Where runs of raw chunks end that lie without a gap in one pack; any other chunk is a run of its own."""
    packs_, *columns = zip(*places, strict=True)
    offset, stored, _, form = (np.array(column, np.int64) for column in columns)
    plain = (form == RAW) & (stored == lengths)
    ends = offset + stored
    apart = np.fromiter(map(ne, packs_, packs_[1:]), np.bool_, len(places) - 1)
    apart |= (offset[1:] != ends[:-1]) | ~plain[1:] | ~plain[:-1]
    begin = 0
    for end in [*(np.flatnonzero(apart) + 1).tolist(), len(places)]:
        while end - begin > 1:
            fit = int(np.searchsorted(ends[begin:end], offset[begin] + _SPAN, "right"))
            begin += max(fit, 1)
            yield begin
            if begin >= end:
                break
        if begin < end:
            begin = end
            yield end


def _together(first: Place, before: Place, place: Place) -> bool:
    follows = place.pack == before.pack and 0 <= place.offset - (before.offset + before.stored) <= _GAP
    return follows and place.offset + place.stored - first.offset <= _SPAN
