"""Sends what was staged: one row of bytes, cut into pieces that are called after their SHA-256.

Pieces go over several connections at once. Which upload they belong to is written down beside the cache, so that
whoever sends the same again after a line broke, or a process died, sends only what is missing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from llmartifacts.blobs.base import PIECE, read_up_to
from llmartifacts.blobs.disk import READ_FILE
from llmartifacts.blobs.failures import storage_errors
from llmartifacts.blobs.forms import RAW, RECIPE, ZSTD
from llmartifacts.client.calls import Calls
from llmartifacts.errors import Conflict, InvalidInput, LlmartifactsError, NotFound, Unreachable
from llmartifacts.records.backend import Progress
from llmartifacts.records.digest import Blob, Digest
from llmartifacts.wire.bodies import transfer as t
from llmartifacts.wire.routes import BY_NAME

_AT_ONCE = 4
"""Pieces that are under way at once."""
_ROUNDS = 4
_SECONDS_PER_BYTE = 1 / 5_000_000
"""Of blobs that a server has to put together; beside the time of any slow call."""
_NAMES = {RAW: "raw", ZSTD: "zstd", RECIPE: "recipe"}


@dataclass(frozen=True, slots=True)
class Part:
    """A blob to send.

    Attributes:
        blob: Which blob.
        form: Its form in the file, as in keys of a store.
        file: What is sent of it is in this file.
        offset: From here on.
        stored: So many bytes.
    """

    blob: Blob
    form: str
    file: Path
    offset: int
    stored: int


@dataclass(frozen=True, slots=True)
class Upload:
    """What is to be sent.

    Attributes:
        project: The project.
        packs: Name, file and bytes of each pack.
        parts: The blobs.
        parents: Blobs whose chunks recipes name.
    """

    project: str
    packs: Sequence[tuple[str, Path, int]]
    parts: Sequence[Part]
    parents: Sequence[Digest]


@dataclass(frozen=True, slots=True)
class _Slice:
    file: Path
    offset: int
    size: int


@dataclass
class _Row:
    """The row of bytes: pieces, and what lies where."""

    piece_size: int
    pieces: list[list[_Slice]] = field(default_factory=list)
    packs: list[t.UploadPack] = field(default_factory=list)
    blobs: list[t.UploadBlob] = field(default_factory=list)
    size: int = 0
    _room: int = 0

    def add(self, file: Path, size: int, *, offset: int = 0, begin: bool = False) -> int:
        """A part of a file; returns where it begins. `begin`: in a piece of its own, whatever was before."""
        start, at = self.size, offset
        if begin:
            self._room = 0
        while at < offset + size:
            if not self._room:
                self.pieces.append([])
                self._room = self.piece_size
            count = min(self._room, offset + size - at)
            self._append(self.pieces[-1], _Slice(file, at, count))
            at, self._room = at + count, self._room - count
        self.size += size
        return start

    @staticmethod
    def _append(piece: list[_Slice], more: _Slice) -> None:
        """What follows in the same file is read with what is before it."""
        last = piece[-1] if piece else None
        if last is not None and last.file == more.file and last.offset + last.size == more.offset:
            piece[-1] = _Slice(last.file, last.offset, last.size + more.size)
        else:
            piece.append(more)


class Uploads:
    """Sends to one server.

    Args:
        calls: The calls of the server.
        folder: Where unfinished uploads are written down.
        progress: Told the bytes that are sent and those in all.
    """

    def __init__(self, calls: Calls, folder: Callable[[], Path], progress: Progress | None = None) -> None:
        self._calls = calls
        self._folder = folder
        self.progress = progress

    def send(self, upload: Upload) -> str | None:
        """Send it; returns its id, None where there was nothing to send. Raises as `RemoteStaging.send`."""
        note = self._folder() / f"{self._name(upload)}.json"
        for _ in range(_ROUNDS):
            noted = self._noted(note)
            try:
                if noted is not None:
                    return self._go_on(upload, *noted)
                begun = self._begin(upload, note)
                return None if begun is None else self._go_on(upload, *begun, fresh=True)
            except NotFound as error:
                if error.what != "upload":
                    raise
                _forget(note)  # it was committed, or has expired
            except Unreachable:
                raise
            except KeyboardInterrupt as stop:
                if self._noted(note) is not None:
                    stop.add_note("What was sent is kept: the same command goes on where this one was.")
                raise
            except LlmartifactsError:
                self._abort(upload, self._noted(note))
                _forget(note)
                raise
        raise Conflict("the upload was thrown away again and again", next_step="Try again.")

    def lost(self, project: str, digests: Sequence[Digest]) -> set[Digest]:
        """Of some blobs, those that the server has to be sent again: they are in no version, or not stored any more."""
        body = t.Begin.known(blobs=tuple(digests))
        begun = self._calls.ask(t.Upload, "begin_upload", body=body, path={"project": project})
        if begun.id is not None:  # it was only a question
            with suppress(LlmartifactsError):
                self._calls.tell("abort_upload", path={"project": project, "id": begun.id})
        return set(begun.absent)

    # --- steps

    def _begin(self, upload: Upload, note: Path) -> tuple[str, int, set[Digest]] | None:
        body = t.Begin.known(blobs=tuple(part.blob.digest for part in upload.parts))
        begun = self._calls.ask(t.Upload, "begin_upload", body=body, path={"project": upload.project})
        if begun.id is None or not begun.absent:
            return None
        absent = set(begun.absent)
        with suppress(OSError):
            note.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            aside = note.with_name(f".{os.urandom(8).hex()}")
            told = {"id": begun.id, "piece_size": begun.piece_size, "absent": sorted(absent)}
            aside.write_text(json.dumps(told), "utf-8")
            os.replace(aside, note)
        return begun.id, begun.piece_size, absent

    def _go_on(
        self, upload: Upload, upload_id: str, piece_size: int, absent: set[Digest], *, fresh: bool = False
    ) -> str:
        path = {"project": upload.project, "id": upload_id}
        row = _row(upload, piece_size, absent)
        wanted = {blob.digest for blob in row.blobs}
        with ThreadPoolExecutor(_AT_ONCE, "llmartifacts-send") as pool:
            if fresh:
                names = self._put(pool, path, row, None)
            else:
                names = list(pool.map(_named, row.pieces))
                self._send_missing(pool, path, row, names, wanted)
            for _ in range(_ROUNDS):
                try:
                    self._finish(path, row, names, upload.parents)
                    return upload_id
                except Conflict as error:
                    if error.field != "pieces":
                        raise
                self._send_missing(pool, path, row, names, wanted)
        raise Conflict("the server lost pieces of the upload again and again", next_step="Try again.")

    def _send_missing(
        self, pool: ThreadPoolExecutor, path: dict[str, str], row: _Row, names: list[str], wanted: set[Digest]
    ) -> None:
        body = t.Pieces.known(pieces=tuple(dict.fromkeys(names)))
        told = self._calls.ask(t.Missing, "missing_pieces", body=body, path=path)
        if not wanted <= set(told.blobs):
            self._put(pool, path, row, {name: names.index(name) for name in told.missing if name in set(names)})

    def _put(self, pool: ThreadPoolExecutor, path: dict[str, str], row: _Row, only: dict[str, int] | None) -> list[str]:
        """Send pieces, all or some; returns the names of those."""
        names = [""] * len(row.pieces)
        numbers = range(len(row.pieces)) if only is None else sorted(only.values())
        total = sum(s.size for number in numbers for s in row.pieces[number])
        done = 0

        def one(number: int) -> tuple[int, int]:
            data = _read(row.pieces[number])
            names[number] = hashlib.sha256(data).hexdigest()
            self._calls.session.send(BY_NAME["put_piece"], data, path={**path, "sha256": names[number]})
            return number, len(data)

        work = [pool.submit(one, number) for number in numbers]
        try:
            for made in as_completed(work):
                done += made.result()[1]
                if self.progress is not None:
                    self.progress(done, total)
        except BaseException:
            for waiting in work:
                waiting.cancel()
            raise
        return names

    def _finish(self, path: dict[str, str], row: _Row, names: list[str], parents: Sequence[Digest]) -> None:
        body = t.Finish.known(
            pieces=tuple(names), packs=tuple(row.packs), blobs=tuple(row.blobs), parents=tuple(parents)
        )
        route = BY_NAME["finish_upload"]
        session = self._calls.session
        given = session.timeout * 10 + sum(blob.size for blob in row.blobs) * _SECONDS_PER_BYTE
        self._calls.read(t.Finished, route.name, session.call(route, path=path, body=body.to_bytes(), deadline=given))

    # --- what was begun

    def _abort(self, upload: Upload, noted: tuple[str, int, set[Digest]] | None) -> None:
        if noted is not None:
            with suppress(LlmartifactsError):
                self._calls.tell("abort_upload", path={"project": upload.project, "id": noted[0]})

    def _name(self, upload: Upload) -> str:
        """Under which an upload is written down: the same for the same content, server and project."""
        told = [self._calls.session.address.origin, upload.project, *sorted(p.blob.digest for p in upload.parts)]
        return hashlib.sha256("\n".join(told).encode()).hexdigest()

    @staticmethod
    def _noted(note: Path) -> tuple[str, int, set[Digest]] | None:
        try:
            told = json.loads(note.read_bytes())
            made = t.Upload.model_validate(
                {
                    "expires_at": "2000-01-01T00:00:00.000000Z",
                    "piece_size": told["piece_size"],
                    "id": told["id"],
                    "absent": told["absent"],
                }
            )
        except (OSError, ValueError, LookupError, TypeError, LlmartifactsError):
            return None
        if made.id is None or not 0 < made.piece_size <= t.MAX_PIECE:
            return None
        return made.id, made.piece_size, set(made.absent)


def _row(upload: Upload, piece_size: int, absent: set[Digest]) -> _Row:
    row = _Row(min(piece_size, t.MAX_PIECE) or PIECE)
    parts = [part for part in upload.parts if part.blob.digest in absent]
    if any(part.form == RECIPE for part in parts):
        for name, file, size in upload.packs:
            offset = row.add(file, size, begin=True)
            row.packs.append(t.UploadPack.known(name=name, offset=offset, size=size))
    for number, part in enumerate(parts):
        offset = row.add(part.file, part.stored, offset=part.offset, begin=not number)
        row.blobs.append(
            t.UploadBlob.known(
                digest=part.blob.digest, size=part.blob.size, form=_NAMES[part.form], offset=offset, stored=part.stored
            )
        )
    return row


def _read(piece: Sequence[_Slice]) -> bytes:
    """The bytes of a piece."""
    return b"".join(_slices(piece))


def _slices(piece: Sequence[_Slice]) -> Iterator[bytes]:
    for one in piece:
        with storage_errors("read", one.file), open(os.open(one.file, READ_FILE), "rb", buffering=0) as file:
            file.seek(one.offset)
            data = read_up_to(file, one.size)
        if len(data) != one.size:
            raise InvalidInput(f"{one.file} became shorter while it was sent", field="source")
        yield data


def _named(piece: Sequence[_Slice]) -> str:
    return hashlib.sha256(_read(piece)).hexdigest()


def _forget(note: Path) -> None:
    with suppress(OSError):
        note.unlink()
