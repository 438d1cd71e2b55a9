"""Bytes on their way to a server: cut and encoded here against what the server has, sent with the version.

A large file is encoded against earlier versions by their recipes alone: a chunk that they name is taken to be there,
and what is new goes into packs. The server looks at all of it again before it keeps anything.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from mmap import mmap
from pathlib import Path
from typing import TYPE_CHECKING

from llmartifacts.blobs.base import PIECE
from llmartifacts.blobs.chunks.encode import AnySource, Known
from llmartifacts.blobs.chunks.entries import Entries, ids_of, lengths_of
from llmartifacts.blobs.chunks.reader import Buffer, ChunkReader
from llmartifacts.blobs.chunks.seed import Nearby, Seed
from llmartifacts.blobs.chunks.store import ChunkStore, Encoding
from llmartifacts.blobs.chunks.writer import ChunkWriter
from llmartifacts.blobs.disk import create_file, write_all
from llmartifacts.blobs.failures import changed_meanwhile, storage_errors
from llmartifacts.blobs.forms import RECIPE, BadForm, encode, form_for, parse_key
from llmartifacts.blobs.staging import BlobStaging, Content
from llmartifacts.client.index import ParentIndex, RemoteIndex
from llmartifacts.client.upload import Part, Upload, Uploads
from llmartifacts.errors import Conflict, Damaged, LlmartifactsError, NotAllowed
from llmartifacts.records.backend import Earlier
from llmartifacts.records.digest import Blob, Digest, digest_of

_KEPT = 256
"""Large files of one log that can be read again, should the server turn out to have lost something."""

if TYPE_CHECKING:
    from llmartifacts.client.blobs import RemoteBlobs
    from llmartifacts.client.driver import HttpDriver


class RemoteStaging(BlobStaging):
    """The `Staging` of a server: `send` takes the place of `publish`.

    Args:
        blobs: What the server has.
        root: Where the scratch folder is made.
        uploads: Sends.
    """

    def __init__(self, blobs: RemoteBlobs, root: Path, uploads: Uploads) -> None:
        self._far = FarStore(blobs)
        super().__init__(blobs.driver, self._far, root)
        self._uploads = uploads
        self._blobs = blobs
        self._earlier: set[Digest] = set()
        self._unsent: dict[Digest, Blob] = {}
        self._sources: dict[Digest, tuple[Content | int | None, int | None]] = {}
        self._small = _Spool(self._new_file)

    def add(self, source: Content, like: Earlier = tuple) -> Blob:
        """Take bytes, as `BlobStaging.add`."""
        start = _start(source)

        def noted() -> Sequence[Blob]:
            found = like()
            self._earlier.update(blob.digest for blob in found)
            return found

        blob = super().add(source, noted)
        if blob.size > PIECE and blob.digest not in self._sources and len(self._sources) < _KEPT:
            self._sources[blob.digest] = _kept(source, start), start
        return blob

    def close(self) -> None:
        """Remove what was staged."""
        for kept, _ in self._sources.values():
            if isinstance(kept, int):
                os.close(kept)
        self._sources.clear()
        self._small.close()
        super().close()

    def publish(self) -> None:
        """Refused: what goes to a server is named by a version there."""
        raise NotAllowed("bytes go to a server with the versions that name them", next_step="Log a version.")

    def send(self, project: str) -> str | None:
        """Send what a project of the server lacks; the server has checked and stored it when this returns.

        Returns:
            The upload, for the versions that are logged next; None where nothing had to be sent.

        Raises:
            Unreachable: The line broke. What was sent by then need not be sent again.
            Conflict: Something that this relies on was removed meanwhile.
            InvalidValue: The server takes it for something else than it is said to be.
        """
        self._send_lost(project)
        if not self._new and not self._small.parts:
            return None
        parts = []
        for key, file in self._new:
            parsed = parse_key(key)
            assert parsed is not None  # noqa: S101 - staged under a key of a blob
            digest, form = parsed
            parts.append(Part(self._known[digest], form, file, 0, file.stat().st_size))
        parts += self._small.parts
        packs = []
        parents: list[Digest] = []
        if self._writer is not None:
            self._writer.finish()
            packs = [(pack.name, pack.file, pack.size) for pack in self._writer.packs]
            if any(part.form == RECIPE for part in parts):
                parents = self._far.parents
        return self._uploads.send(Upload(project, packs, parts, parents))

    def _send_lost(self, project: str) -> None:
        """Stage anew, whole, what the server should have and has lost, and what relies on that."""
        recipes = {parsed[0] for key, _ in self._new if (parsed := parse_key(key)) and parsed[1] == RECIPE}
        asked = dict.fromkeys([*self._unsent, *(self._far.parents if recipes else ())])
        lost = self._uploads.lost(project, list(asked)) if asked else set()
        if not lost:
            return
        anew = {digest for digest in self._unsent if digest in lost}
        if lost & set(self._far.parents):
            anew |= recipes
            self._new = [(key, file) for key, file in self._new if not key.endswith(RECIPE)]
            if self._writer is not None:
                self._writer.close()
                self._writer = None
            self._far = FarStore(self._blobs)
            self._store = self._far
        self._earlier -= anew
        for digest in anew:
            self._known.pop(digest, None)
            self._unsent.pop(digest, None)
            self._add_again(digest)

    def _add_again(self, digest: Digest) -> None:
        kept, start = self._sources.get(digest, (None, None))
        if kept is None:
            raise Conflict(
                f"the server lost {digest}, or a part of it, which earlier versions need too, and the source cannot be"
                " read a second time",
                field="files",
                next_step="Log it from a file: then what is lost is sent anew.",
            )
        if isinstance(kept, int):
            with open(kept, "rb", buffering=0, closefd=False) as stream:
                stream.seek(start or 0)
                made = super().add(stream)
        else:
            made = super().add(kept)
        if made.digest != digest:
            raise changed_meanwhile()

    def _add_bytes(self, data: bytes) -> Blob:
        blob = Blob(digest_of(data), len(data))
        if self._wanted(blob) is not None:
            self._small.add(blob, data)
            self._known[blob.digest] = blob
        return blob

    def _wanted(self, blob: Blob) -> Sequence[str] | None:
        """Everything is new that was not added before; a large one not, if it is in an earlier version."""
        if blob.digest in self._known or blob.digest in self._unsent:
            return None
        if blob.digest in self._earlier and blob.size > PIECE:
            self._unsent[blob.digest] = blob  # `send` asks whether the server still has it
            return None
        return []


class _Spool:
    """Small blobs, all in one file: many files cost a disk more than their bytes do. It need not outlive a power cut.

    Args:
        new_file: Gives the path for it.

    Attributes:
        parts: What lies in it.
    """

    def __init__(self, new_file: Callable[[], Path]) -> None:
        self._new_file = new_file
        self._file: Path | None = None
        self._fd = -1
        self._end = 0
        self.parts: list[Part] = []

    def add(self, blob: Blob, data: bytes) -> None:
        """Take a blob. Raises `NotAllowed` where the disk is full; then it is as it was."""
        form = form_for(data)
        stored = encode(form, data)
        if self._file is None:
            file = self._new_file()
            with storage_errors("write", file):
                self._fd = create_file(file)
            self._file = file
        with storage_errors("write", self._file):
            os.lseek(self._fd, self._end, os.SEEK_SET)  # over what a write left that failed
            write_all(self._fd, stored)
        self.parts.append(Part(blob, form, self._file, self._end, len(stored)))
        self._end += len(stored)

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _start(source: Content) -> int | None:
    """Where a stream stands; None for what is none, or cannot be read twice."""
    try:
        return source.tell() if isinstance(source, io.IOBase) and source.seekable() else None
    except (OSError, ValueError):
        return None


def _kept(source: Content, start: int | None) -> Content | int | None:
    """What gives the same bytes again after the caller has closed it: an open file as another handle."""
    if isinstance(source, bytes | bytearray | memoryview | mmap | Path):
        return source
    if start is None:
        return None
    if isinstance(source, io.BytesIO):
        return memoryview(source.getvalue())[start:]
    try:
        return os.dup(source.fileno())
    except OSError:
        return None


class FarStore:
    """What staging asks of a store, of one that is far away.

    Args:
        blobs: What the server has.
    """

    def __init__(self, blobs: RemoteBlobs) -> None:
        self._blobs = blobs
        driver: HttpDriver = blobs.http
        self._index = ParentIndex(driver.index)
        self.chunks = FarChunks(driver, self._index, blobs._nearby)
        self.parents: list[Digest] = []

    def known(self, blob: Blob) -> Known | None:
        """An earlier version to encode against, if it is stored as chunks."""
        found = self._blobs.known(blob)
        if found is not None and blob.digest not in self.parents:
            self._index.allow(found.recipe.entries())
            self.parents.append(blob.digest)
        return found

    def has(self, blob: Blob) -> bool:
        """Nothing is asked for before it is sent."""
        return False

    def copy(self, blob: Blob, target: Path) -> None:
        """Write the verified bytes into a new file."""
        self._blobs.copy(blob, target)

    def standing(self, blob: Blob) -> tuple[Sequence[str], Sequence[str]]:
        """Nothing is asked for before it is sent."""
        return (), ()


class FarChunks(ChunkStore):
    """Encodes for a server.

    Args:
        driver: Reads what is there.
        index: The chunks that may be relied on.
        nearby: Knows which blobs are at hand.
    """

    def __init__(self, driver: HttpDriver, index: ParentIndex, nearby: Nearby) -> None:
        super().__init__(driver, index)
        self._http = driver
        self._reading: RemoteIndex = driver.index
        self._nearby = nearby
        self._seeds: list[Seed] = []
        self._parents: list[Digest] = []

    def writer(self, new_file: Callable[[], Path]) -> ChunkWriter:
        """A writer for one staging."""
        reader = ChunkReader(self.driver, self.index, self._seeded, far=True, sums=self._sums)
        return ChunkWriter(reader, new_file)

    def encode(self, source: AnySource, writer: ChunkWriter, parents: Sequence[Known]) -> Encoding:
        """Cut a blob into chunks and write the new ones aside."""
        reader = ChunkReader(self.driver, self._reading)
        self._parents = [p.digest for p in parents]
        self._seeds = [Seed(replace(p.recipe, parent=p.digest), reader, self._nearby) for p in parents]
        return super().encode(source, writer, parents)

    def _sums(self, entries: Entries, row: int) -> bytes | None:
        """Sums of rows in chunks of a parent; None where no parent has all of them, or the server does not say."""
        names = ids_of(entries)
        for parent in self._parents:
            with suppress(LlmartifactsError):
                made = self._http.sums(parent, names, row)
                if len(made) == int(lengths_of(entries).sum()) // row * 16:
                    return made
        return None

    def _seeded(self, name: bytes) -> Buffer | None:
        for seed in self._seeds:
            try:
                found = seed(name)
            except (BadForm, Damaged):
                continue
            if found is not None:
                return found
        return None
