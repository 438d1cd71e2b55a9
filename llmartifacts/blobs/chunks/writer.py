"""New chunks into packs that lie aside until they are published; chunks that are stored already are relied on.

Every chunk that is relied on was read and compared with the new bytes. One that is stored damaged is stored anew, and
found in the new pack from then on: so logging the same content again mends a store.

Packs are written, and made durable, in two threads behind the one that cuts and hashes. What goes wrong there is raised
by the next call here. `finish` waits until packs can be read, `durable` until they survive a power cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import blake3
import numpy as np
import numpy.typing as npt

from llmartifacts.blobs.chunks.behind import Behind
from llmartifacts.blobs.chunks.entries import Entries, empty, entries_of, ids_of
from llmartifacts.blobs.chunks.index import NewPack
from llmartifacts.blobs.chunks.pack import FULL, LEVEL, RAW, ZSTD, PackWriter, Place, places_of
from llmartifacts.blobs.chunks.reader import Buffer, ChunkReader
from llmartifacts.blobs.failures import storage_errors
from llmartifacts.errors import Damaged

_PROBE = 64 * 1024
_PAYS = 3 / 4  # rows of 8-bit codes shrink by an eighth: they are better left raw, and picked where they lie
_WORD = 8
"""Raw chunks of whole words lie without a gap, so that many are written as one buffer."""


@dataclass
class StagedPack:
    """A finished pack that lies aside.

    Attributes:
        name: Its name.
        file: Where it lies.
        size: Its bytes.
        chunks: Id -> place of every chunk in it.
    """

    name: str
    file: Path
    size: int
    chunks: dict[bytes, Place] = field(repr=False)

    def to_index(self) -> NewPack:
        """As the index takes it."""
        return NewPack(self.name, self.size, self.chunks)


class Mark(NamedTuple):
    """A point in the work of a writer.

    Attributes:
        packs: How many packs there were.
        relied: On what it relied.
        added: Bytes that it had added.
    """

    packs: int
    relied: frozenset[bytes]
    added: int


class ChunkWriter:
    """Takes the chunks of one staging.

    Args:
        reader: Reads what is stored; is told of new packs, so that a codec's inverse can be tried before anything is
            published.
        new_file: Gives a path for the next pack.

    Attributes:
        packs: Finished packs, in order.
        relied: Ids of stored chunks that were relied on.
        added: Bytes that were written so far: what this staging adds to the store.
        damaged: Stored packs in which something was not as it should be; the chunks concerned were written anew.
    """

    def __init__(self, reader: ChunkReader, new_file: Callable[[], Path]) -> None:
        self.reader = reader
        self._new_file = new_file
        self._open: PackWriter | None = None
        self._writing, self._syncing = Behind("llmartifacts-write"), Behind("llmartifacts-sync")
        self._finished: list[PackWriter] = []
        self._own: set[bytes] = set()
        self.packs: list[StagedPack] = []
        self.relied: set[bytes] = set()
        self.added = 0
        self.damaged: set[str] = set()
        self._sound: dict[str, bool] = {}

    def add(self, data: Buffer, ends: Sequence[int] | npt.NDArray[np.int64], *, compress: bool = True) -> Entries:
        """Store content as chunks.

        Args:
            data: The content; it is not needed any more when this returns. One that can be written to is copied.
            ends: Where each chunk ends, ascending; the last is the length of the content.
            compress: Compress where a probe says that it pays.

        Returns:
            An entry for each chunk, in order.
        """
        stops = ends.tolist() if isinstance(ends, np.ndarray) else list(ends)
        if not stops:
            return empty()
        view = memoryview(data).cast("B")
        if not view.readonly:  # it may be used again before the thread behind has written it
            view = memoryview(bytes(view))
        starts = [0, *stops[:-1]]
        pieces = [view[start:stop] for start, stop in zip(starts, stops, strict=True)]
        made_of = blake3.blake3
        ids = [made_of(piece).digest() for piece in pieces]
        lengths = np.diff(np.array([0, *stops]))
        fresh = self._unknown(ids, pieces)
        if fresh:
            packer = _packer(fresh) if compress else None
            if packer is None and len(fresh) == len(ids) and not (lengths[:-1] % _WORD).any():
                self._write_run(ids, view, lengths)
            else:
                for name, piece in fresh.items():
                    self._write(name, piece, packer)
            if self._open:
                self._open.flush()
        return entries_of(ids, lengths)

    def rely(self, entries: Entries) -> None:
        """Rely on stored chunks that the caller has compared itself."""
        self.relied.update(name for name in ids_of(entries) if name not in self._own)

    def finish(self) -> None:
        """Complete the pack that is being written; everything that was added can be read when this returns."""
        self._complete()
        self._writing.wait()

    def durable(self) -> None:
        """Wait until all finished packs survive a power cut."""
        self._writing.wait()
        self._syncing.wait()

    def mark(self) -> Mark:
        """A point to go back to; completes the open pack."""
        self.finish()
        return Mark(len(self.packs), frozenset(self.relied), self.added)

    def back(self, mark: Mark) -> None:
        """Forget all that was added since a mark; also where adding it failed half-way."""
        self._writing.end()
        self._syncing.idle()  # what was there before the mark is made durable all the same
        kept = {pack.file for pack in self.packs[: mark.packs]}
        if all(pack.is_closed for pack in self._finished if pack.path in kept):
            self._syncing.end()  # and what failed goes; else `durable` still has to say that it did
        self._throw_away()
        self.relied, self.added = set(mark.relied), mark.added
        for pack in self.packs[mark.packs :]:
            with storage_errors("remove", pack.file):
                pack.file.unlink(missing_ok=True)
            self._own.difference_update(pack.chunks)
            self.reader.forget(pack.name, pack.chunks)
        del self.packs[mark.packs :]

    def published(self) -> None:
        """Begin anew: all packs so far are stored and in the index, and damaged ones mended."""
        for pack in self.damaged:
            self.reader.forget(pack, {})
        self.packs, self.relied, self.damaged, self._sound = [], set(), set(), {}

    def close(self) -> None:
        """Throw the open pack away, and end the threads."""
        self._writing.end()
        self._syncing.end()
        self._throw_away()

    def _throw_away(self) -> None:
        """The open pack, and the files of others that were not made durable; nobody works on them any more."""
        if self._open is not None:
            pack, self._open = self._open, None
            self._own.difference_update(pack.names)
            pack.close()
            with suppress(OSError):  # the scratch folder goes as a whole anyway
                pack.path.unlink(missing_ok=True)
        for pack in self._finished:
            pack.close()
        self._finished = []

    def _unknown(self, ids: Sequence[bytes], pieces: Sequence[Buffer]) -> dict[bytes, Buffer]:
        """Those that have to be written; all others are stored, and were compared, or written already."""
        wanted = {name: piece for name, piece in zip(ids, pieces, strict=True) if name not in self._own}
        places = self.reader.index.find(list(wanted))
        if self.reader.far:
            self.relied.update(places)
            return {name: piece for name, piece in wanted.items() if name not in places}
        known = {name: place for name, place in places.items() if name not in self.relied}
        in_order = sorted(known, key=lambda name: known[name][:2])  # so that few requests fetch them
        contents = self.reader.each(in_order, [known[name] for name in in_order])
        for name, content in zip(in_order, contents, strict=True):
            place = known[name]
            if content is None or not self._is_sound(place.pack) or not same_bytes(content, wanted[name]):
                self.damaged.add(place.pack)
                del places[name]
        self.relied.update(places)
        return {name: piece for name, piece in wanted.items() if name not in places}

    def _is_sound(self, pack: str) -> bool:
        """Whether the chunks of a pack can be found again by its footer."""
        if pack not in self._sound:
            try:
                self._sound[pack] = self.reader.is_sound(pack)
            except Damaged:
                self._sound[pack] = False
        return self._sound[pack]

    def _write(self, name: bytes, piece: Buffer, packer: Any) -> None:
        data, form = piece, RAW
        if packer is not None:
            packed = packer.compress(piece)
            if len(packed) <= _PAYS * len(piece):
                data, form = packed, ZSTD
        self._pack().add(name, data, len(piece), form)
        self._own.add(name)

    def _write_run(self, names: Sequence[bytes], data: memoryview, lengths: npt.NDArray[np.int64]) -> None:
        """Chunks that are all new and lie one after another, without looking at each."""
        begin = at = 0
        while begin < len(names):
            count = self._pack().add_run(names[begin:], data[at:], lengths[begin:], FULL)
            self._own.update(names[begin : begin + count])
            at += int(lengths[begin : begin + count].sum())
            begin += count

    def _pack(self) -> PackWriter:
        """The pack that takes the next chunk."""
        if self._open is not None and self._open.size >= FULL:
            self._open.flush()
            self._complete()
        if self._open is None:
            # Packs for another host are sent from here, and are of no use after a power cut.
            self._open = PackWriter(self._new_file(), self._writing, self._syncing, durable=not self.reader.far)
        return self._open

    def _complete(self) -> None:
        if self._open is None:
            return
        pack = self._open
        name = pack.finish()
        self._open = None
        self._finished = [*(p for p in self._finished if not p.is_closed), pack]
        chunks = places_of(name, pack.footer, pack.names)
        self.packs.append(StagedPack(name, pack.path, pack.size, chunks))
        self.added += pack.size
        self.reader.stage(name, pack.path)
        self.reader.know(chunks)


def same_bytes(one: Buffer, other: Buffer) -> bool:
    """Whether two buffers are equal; several times faster than `==` of views."""
    return len(one) == len(other) and bool(np.array_equal(np.frombuffer(one, np.uint8), np.frombuffer(other, np.uint8)))


def _packer(fresh: dict[bytes, Buffer]) -> Any:
    """A compressor, or None where a probe of the new bytes says that it does not pay."""
    sample = bytearray()
    step = max(1, len(fresh) // 16)
    for number, piece in enumerate(fresh.values()):
        if number % step == 0:
            sample += piece[: _PROBE // 8]
            if len(sample) >= _PROBE:
                break
    import zstandard

    packer = zstandard.ZstdCompressor(level=LEVEL)
    return packer if len(packer.compress(bytes(sample))) <= _PAYS * len(sample) else None
