"""`HttpDriver`: the blobs of a server as objects under keys: a download is verified by the lines of every store.

sha256/ab/<hex>…          one request, whatever the form; a recipe brings the table of its chunks
packs/ab/<hex>.pack       the virtual object of that blob, in ranges: several in one request, several requests ahead
"""

from __future__ import annotations

import io
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from llmartifacts.blobs.base import PIECE, Driver, Source, read_up_to
from llmartifacts.blobs.chunks import pack as packs
from llmartifacts.blobs.chunks import table as tables
from llmartifacts.blobs.disk import READ_FILE
from llmartifacts.blobs.forms import FORMS, RAW, RECIPE, ZSTD, BadForm, parse_key
from llmartifacts.client.index import RemoteIndex
from llmartifacts.client.session import HttpSession
from llmartifacts.client.sides import Sides
from llmartifacts.errors import BlobMissing, Conflict, Damaged, InvalidInput, NotAllowed, NotFound, Unreachable
from llmartifacts.records.digest import Digest, digest_from_hex
from llmartifacts.wire.bodies.transfer import MAX_CHUNKS, Sums
from llmartifacts.wire.routes import BY_NAME
from llmartifacts.wire.transfer import DESCRIBED, FORM_HEADER, STORED

_REQUEST = 8 * 1024 * 1024
"""Bytes of ranges that are asked for in one request."""
_RANGES = 64
_AHEAD = 4
"""Requests that are under way at once."""
_MAX_TABLE = 1 << 29
_MAX_SMALL = 1 << 23
_FORM = {"raw": RAW, "zstd": ZSTD, "recipe": RECIPE}
_FORM_HEADER = FORM_HEADER.decode()
_BOUNDARY = re.compile(r"multipart/byteranges; *boundary=\"?([0-9A-Za-z'()+_,./:=?-]{1,70})\"?")
_CONTENT_RANGE = re.compile(rb"bytes ([0-9]{1,18})-([0-9]{1,18})/(?:[0-9]+|\*)")

Range = tuple[str, int, int]
Fetched = list[Any]
"""The bytes of ranges, or views of them."""


class HttpDriver(Driver):
    """Reads the blobs of a server that this session may read; nothing is stored through it.

    Args:
        session: The connections.
        index: Told of the chunks of each blob that is asked for.
        sides: Keeps what is needed again of large blobs.
    """

    def __init__(self, session: HttpSession, index: RemoteIndex, sides: Sides) -> None:
        self.index = index
        self._session = session
        self._sides = sides
        self._local = threading.local()
        self.received: Callable[[int], None] | None = None

    # --- read

    def get(self, key: str, start: int = 0, length: int | None = None) -> BinaryIO:
        """Open an object, or a range of one, for reading."""
        parsed = parse_key(key)
        if parsed is not None:
            stream = self._object(*parsed)
            if start or length is not None:
                with stream:
                    read_up_to(stream, start)
                    return io.BytesIO(read_up_to(stream, sys.maxsize if length is None else length))
            return stream
        name = packs.parse_key(key)
        if name is None or length is None:
            raise BlobMissing(f"there is no object {key}", file=self.where(key))
        return io.BytesIO(self._ranges(name, [(key, start, length)])[0])

    def get_each(self, ranges: Sequence[Range]) -> Iterator[BinaryIO]:
        """Open ranges of virtual objects in order; those that come next are fetched meanwhile."""
        groups = list(_groups(ranges))
        if len(groups) < 2:
            for group in groups:
                yield from map(io.BytesIO, self._group(group))
            return
        pool = ThreadPoolExecutor(_AHEAD, "llmartifacts-fetch")
        try:
            waiting: list[Future[Fetched]] = [pool.submit(self._group, group) for group in groups[:_AHEAD]]
            for number in range(len(groups)):
                parts = waiting.pop(0).result()
                if number + _AHEAD < len(groups):
                    waiting.append(pool.submit(self._group, groups[number + _AHEAD]))
                while parts:
                    yield io.BytesIO(parts.pop(0))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def file(self, key: str) -> tuple[BinaryIO, Path] | None:
        """A small pack that is kept here; None for all else."""
        name = packs.parse_key(key)
        path = self.index.side(name) if name else None
        if name is None or path is None:
            return None
        try:
            return open(path, "rb", buffering=0, opener=lambda p, _: os.open(p, READ_FILE)), path
        except OSError:
            self.index.forget(name)
            raise BlobMissing(f"there is no file {path}", file=str(path)) from None

    def size(self, key: str) -> int | None:
        """Bytes of an object, or None."""
        parsed = parse_key(key)
        if parsed is None:
            name = packs.parse_key(key)
            return self.index.packs().get(name) if name else None
        digest, form = parsed
        kept = self._kept(digest)
        if kept is not None:
            return len(kept[1]) if kept[0] == form else None
        try:
            answer = self._session.call(BY_NAME["blob"], path={"digest": digest}, headers={"Accept": STORED}, head=True)
        except NotFound:
            return None
        if _FORM.get(answer.headers.get(_FORM_HEADER, "")) != form:
            return None
        told = answer.headers.get("content-length", "")
        return int(told) if told.isascii() and told.isdigit() and len(told) < 18 else 0

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """A server does not say what it holds."""
        return iter(())

    def where(self, key: str) -> str:
        """The server and the blob, for messages."""
        name = key.rpartition("/")[2].partition(".")[0]
        return f"{self._session.address.url} (sha256:{name})"

    def sums(self, digest: Digest, names: Sequence[bytes], row: int) -> bytes:
        """The first 16 bytes of the BLAKE3 of each row in some chunks of a blob; they are not fetched.

        Args:
            digest: The blob.
            names: Ids of chunks.
            row: Bytes of a row.
        """
        made = b""
        for at in range(0, len(names), MAX_CHUNKS):
            body = Sums.known(row=row, chunks=tuple(name.hex() for name in names[at : at + MAX_CHUNKS]))
            made += self._session.call(BY_NAME["sums"], path={"digest": digest}, body=body.to_bytes()).body
        return made

    # --- write

    def put_if_absent(self, key: str, source: Source) -> bool:
        """Refused."""
        _refuse()

    def replace(self, key: str, source: Source) -> None:
        """Refused."""
        _refuse()

    def delete(self, key: str) -> bool:
        """Refused."""
        _refuse()

    # --- objects

    def kept(self, digest: Digest) -> bool:
        """Whether the recipe of a large blob, and what is needed to understand it, is here."""
        return self._sides.recipe(digest) is not None

    def _object(self, digest: Digest, form: str) -> BinaryIO:
        """A stored object. Which form it has shows with the first one that is asked for; it is kept for the others."""
        kept = None if form == RAW else self._kept(digest)
        if kept is None:
            recipe = self._sides.recipe(digest) if form == RECIPE else None
            if recipe is not None:
                return io.BytesIO(recipe)  # asked for alone: what is at hand of an earlier version
            found = self._fetched(digest)
            if not isinstance(found, tuple):
                if form == RAW:
                    return found
                found.close()
                found = RAW, b""
            kept = found
        self._local.kept = (digest, *kept) if form not in (kept[0], FORMS[-1]) else None
        if form != kept[0]:
            where = self.where(digest[7:])
            raise BlobMissing(f"{where} has no such form", digest=digest, file=where)
        return io.BytesIO(kept[1])

    def _kept(self, digest: Digest) -> tuple[str, bytes] | None:
        kept: tuple[str, str, bytes] | None = getattr(self._local, "kept", None)
        return None if kept is None or kept[0] != digest else kept[1:]

    def _fetched(self, digest: Digest) -> tuple[str, bytes] | BinaryIO:
        """Form and bytes of an object, or a stream where it is stored as it is. No known form where there is none."""
        with ExitStack() as opened:
            try:
                download = opened.enter_context(
                    self._session.stream(
                        BY_NAME["blob"], path={"digest": digest}, headers={"Accept": STORED}, redirects=True
                    )
                )
            except NotFound:
                return "absent", b""
            form = _FORM.get(download.headers.get(_FORM_HEADER, "raw"))
            described = download.headers.get("content-type", "") == DESCRIBED
            if form is None or (form == RECIPE) != described:
                raise Unreachable(f"{self._session.address} answers in a form that is not known here")
            if form == RAW:
                return io.BufferedReader(_Stream(self._counted(download.chunks()), opened.pop_all()), PIECE)
            limit = _MAX_TABLE if form == RECIPE else _MAX_SMALL
            data = _up_to(self._counted(download.chunks()), limit)
        if len(data) > limit:
            raise Damaged(f"what the server sends of {digest} is longer than it can be", digest=digest)
        if form != RECIPE:
            return form, data
        try:
            recipe, head, rows = tables.read(data)
        except BadForm as error:
            raise Damaged(f"what the server says of {digest} is damaged: {error}", digest=digest) from None
        self.index.add_table(digest, rows)
        self._sides.keep(digest, recipe, rows[:head], self)
        return form, recipe

    def _counted(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The same; whoever shows progress is told of each."""
        told = self.received
        if told is None:
            return chunks
        return (chunk for chunk in chunks if told(len(chunk)) is None)

    # --- virtual objects

    def _group(self, group: Sequence[Range]) -> Fetched:
        name = packs.parse_key(group[0][0])
        assert name is not None  # noqa: S101 - only chunks are read in ranges
        return self._ranges(name, group)

    def _ranges(self, name: str, ranges: Sequence[Range]) -> Fetched:
        """Ranges of one virtual object, with one request."""
        table = self.index.table(name)
        digest = digest_from_hex(name)
        if table is None:
            raise BlobMissing(f"the chunks of {digest} have to be asked for again", digest=digest)
        wanted = [(start, start + length) for _, start, length in ranges if length]
        total = sum(end - start for start, end in wanted)
        told = ",".join(f"{start}-{end - 1}" for start, end in wanted)
        try:
            with self._session.stream(
                BY_NAME["chunks"],
                path={"digest": digest},
                headers={"Range": f"bytes={told}", "If-Match": f'"{table.tag}"'},
                limit=total + 256 * len(wanted),
                redirects=True,
            ) as download:
                status, headers = download.status, download.headers
                data = b"".join(self._counted(download.chunks()))
        except (Conflict, NotFound):  # stored anew meanwhile: what is asked for again is right
            self.index.forget(name)
            raise BlobMissing(f"the chunks of {digest} were stored anew meanwhile", digest=digest) from None
        except InvalidInput as error:
            raise Damaged(f"the server has no such chunks of {digest}: {error.message}", digest=digest) from None
        if len(wanted) == 1:
            parts = [data] if status == 206 and len(data) == total else None
        else:
            parts = _parts(data, headers.get("content-type", ""), wanted) if status == 206 else None
        if parts is None:
            raise Damaged(f"the server sent other bytes of {digest} than it was asked for", digest=digest)
        given = iter(parts)
        return [next(given) if length else b"" for _, _, length in ranges]


def _parts(data: bytes, media: str, wanted: Sequence[tuple[int, int]]) -> list[Any] | None:
    """The parts of an answer with several ranges; None where they are not those that were wanted."""
    named = _BOUNDARY.fullmatch(media)
    if named is None:
        return None
    mark = b"--" + named[1].encode()
    view, at = memoryview(data), 0
    found: list[Any] = []
    for start, end in wanted:
        head = data.find(mark, at, at + 2 + len(mark))
        until = data.find(b"\r\n\r\n", head, head + 1024)
        if head < 0 or until < 0:
            return None
        told = _CONTENT_RANGE.search(data, head, until)
        at = until + 4
        if told is None or (int(told[1]), int(told[2]) + 1) != (start, end) or at + end - start > len(data):
            return None
        found.append(view[at : at + end - start])
        at += end - start
    return found


def _groups(ranges: Sequence[Range]) -> Iterator[list[Range]]:
    """Ranges that are asked for together: of one object, ascending, and neither many nor large."""
    group: list[Range] = []
    size = 0
    for one in ranges:
        key, start, length = one
        last = group[-1] if group else None
        if last and (key != last[0] or size + length > _REQUEST or len(group) >= _RANGES or start < last[1] + last[2]):
            yield group
            group, size = [], 0
        group.append(one)
        size += length
    if group:
        yield group


def _up_to(pieces: Iterator[bytes], limit: int) -> bytes:
    """What comes, until it is more than a limit."""
    whole = io.BytesIO()
    for piece in pieces:
        whole.write(piece)
        if whole.tell() > limit:
            break
    return whole.getvalue()


class _Stream(io.RawIOBase):
    """An answer that is read while it comes.

    Args:
        pieces: Its bytes.
        opened: What is closed with it.
    """

    def __init__(self, pieces: Iterator[bytes], opened: ExitStack) -> None:
        self._pieces = pieces
        self._opened = opened
        self._held = memoryview(b"")

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as what came goes."""
        if not self._held:
            self._held = memoryview(next(self._pieces, b""))
        count = min(len(buffer), len(self._held))
        buffer[:count] = self._held[:count]
        self._held = self._held[count:]
        return count

    def close(self) -> None:
        """Break off what still comes."""
        self._opened.close()
        super().close()


def _refuse() -> NoReturn:
    raise NotAllowed("bytes go to a server with the versions that name them", next_step="Log a version.")
