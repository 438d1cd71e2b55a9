"""Bytes: uploads piece by piece, and blobs as they are stored.

What may be read is what a version needs in a project that the caller may read. A blob is handed out as its content, or,
to who accepts `STORED`, in the form in which it is stored; large ones as a recipe and the chunks that it names.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from llmartifacts.blobs.forms import RAW, RECIPE, ZSTD
from llmartifacts.errors import InvalidInput
from llmartifacts.records.digest import Blob, parse_digest
from llmartifacts.server.calls import Answer, Call, Header, Turned, handler
from llmartifacts.versioning import downloads, uploads
from llmartifacts.versioning.uploads import Sent, SentBlob, SentPack
from llmartifacts.wire.bodies import transfer as t
from llmartifacts.wire.transfer import DESCRIBED, FORM_HEADER, RANGE_THERE, STORED, parse_ranges

_FORMS = {"raw": RAW, "zstd": ZSTD, "recipe": RECIPE}
_NAMES = {form: name for name, form in _FORMS.items()}
_FOREVER: Header = (b"cache-control", b"private, max-age=31536000, immutable")
_AGAIN: Header = (b"cache-control", b"private, no-cache")

Part = Callable[[int, int], Iterator[bytes]]
"""First byte and end -> the bytes between."""
Elsewhere = Callable[[int, int], "tuple[str, int, int] | None"]


# --- up


@handler("begin_upload")
def begin_upload(call: Call) -> t.Upload:
    """Begin an upload."""
    started = uploads.start(call.backend.parts, call.project, call.sends(t.Begin).blobs, account=call.actor)
    return t.Upload.known(
        id=started.id or None,
        expires_at=started.expires_at,
        piece_size=uploads.LIMITS.piece,
        absent=started.absent,
    )


@handler("put_piece")
def put_piece(call: Call) -> None:
    """Take a piece."""
    uploads.put_piece(
        call.backend.parts, call.project, call.path["id"], call.path["sha256"], call.raw, account=call.actor
    )


@handler("missing_pieces")
def missing_pieces(call: Call) -> t.Missing:
    """Say which pieces are not there yet."""
    names = call.sends(t.Pieces).pieces
    found = uploads.remaining(call.backend.parts, call.project, call.path["id"], names, account=call.actor)
    return t.Missing.known(missing=found.missing, blobs=found.blobs)


@handler("finish_upload")
def finish_upload(call: Call) -> t.Finished:
    """Put together and verify what was sent."""
    body = call.sends(t.Finish)
    sent = Sent(
        body.pieces,
        tuple(SentPack(pack.name, pack.offset, pack.size) for pack in body.packs),
        tuple(SentBlob(Blob(b.digest, b.size), _FORMS[b.form], b.offset, b.stored) for b in body.blobs),
        body.parents,
    )
    made = uploads.finish(call.backend.parts, call.project, call.path["id"], sent, account=call.actor)
    return t.Finished.known(blobs=made)


@handler("abort_upload")
def abort_upload(call: Call) -> None:
    """Throw an upload away."""
    uploads.abort(call.backend.parts, call.project, call.path["id"], account=call.actor)


# --- down


@handler("blob")
def blob(call: Call) -> Answer:
    """A blob: its content, or, to who accepts that, what is stored of it."""
    found = _visible(call)
    hands = call.backend.downloads
    if STORED not in call.headers.get("accept", ""):
        form, _ = downloads.stored_form(call.backend.parts, found)
        etag = (b"etag", f'"{found.digest}"'.encode())
        if call.headers.get("if-none-match") == f'"{found.digest}"':
            return Answer(status=304, headers=(etag, _FOREVER))

        def there(start: int, end: int) -> tuple[str, int, int] | None:
            return hands.object_elsewhere(found, form, start, end) if form == RAW else None

        def content(start: int, end: int) -> Iterator[bytes]:
            return hands.content(found, start, end - start)

        return _ranged(call, found.size, content, there, (etag, _FOREVER))
    form, size = downloads.stored_form(call.backend.parts, found)
    if form == RECIPE:
        return _described(call, found)
    headers = ((FORM_HEADER, _NAMES[form].encode()), (b"vary", b"accept"), _AGAIN)
    whole = hands.object_elsewhere(found, form, 0, size)
    if whole is not None:
        return _moved(whole, headers)
    length = (b"content-length", str(size).encode())
    return Answer(hands.object(found, form), headers=(*headers, length), media_type=STORED)


@handler("recipe")
def recipe(call: Call) -> Answer:
    """The recipe of a large blob, and the table of its chunks."""
    return _described(call, _visible(call))


@handler("chunks")
def chunks(call: Call) -> Answer:
    """Chunks of a blob: ranges of what they make one after another, in the order of its table."""
    found = _visible(call)
    hands = call.backend.downloads
    tag = call.headers.get("if-match", "").strip('"') or None
    virtual = hands.virtual(found, tag)

    def content(start: int, end: int) -> Iterator[bytes]:
        return hands.chunks(found, virtual, start, end)

    def there(start: int, end: int) -> tuple[str, int, int] | None:
        return hands.elsewhere(virtual, start, end)

    return _ranged(call, virtual.size, content, there, ((b"etag", f'"{virtual.tag}"'.encode()), _AGAIN))


@handler("sums")
def sums(call: Call) -> Answer:
    """Sums of the rows in some chunks of a blob."""
    found = _visible(call)
    body = call.sends(t.Sums)
    return Answer(call.backend.downloads.sums(found, [bytes.fromhex(name) for name in body.chunks], body.row))


def _visible(call: Call) -> Blob:
    digest = parse_digest(call.path["digest"])
    return downloads.visible(call.backend.parts, digest, call.caller.sees)


def _described(call: Call, found: Blob) -> Answer:
    from llmartifacts.blobs.chunks import table

    made = call.backend.downloads.described(found)
    headers = ((FORM_HEADER, b"recipe"), (b"etag", f'"{made.object.tag}"'.encode()), (b"vary", b"accept"), _AGAIN)
    return Answer(table.write(made.recipe, made.head, made.rows), headers=headers, media_type=DESCRIBED)


def _ranged(call: Call, size: int, part: Part, elsewhere: Elsewhere, headers: tuple[Header, ...]) -> Answer:
    """All of something, a range of it, or several."""
    headers = ((b"accept-ranges", b"bytes"), *headers)
    wanted = call.headers.get("range")
    try:
        ranges = None if wanted is None else parse_ranges(wanted, size)
    except InvalidInput as error:
        if error.field != "range":
            raise
        raise Turned(416, error, ((b"content-range", f"bytes */{size}".encode()),), "range") from None
    if ranges is None:
        if size and (whole := elsewhere(0, size)):
            return _moved(whole, headers)
        return Answer(part(0, size), headers=(*headers, _length(size)))
    if len(ranges) == 1:
        start, end = ranges[0]
        if moved := elsewhere(start, end):
            return _moved(moved, headers)
        told = (b"content-range", f"bytes {start}-{end - 1}/{size}".encode())
        return Answer(part(start, end), 206, (*headers, told, _length(end - start)))
    boundary = secrets.token_hex(16)
    heads = [
        f"\r\n--{boundary}\r\ncontent-range: bytes {start}-{end - 1}/{size}\r\n\r\n".encode() for start, end in ranges
    ]
    last = f"\r\n--{boundary}--\r\n".encode()
    length = sum(map(len, heads)) + sum(end - start for start, end in ranges) + len(last)
    media = f"multipart/byteranges; boundary={boundary}"
    return Answer(_several(ranges, heads, last, part), 206, (*headers, _length(length)), media)


def _several(ranges: Sequence[tuple[int, int]], heads: Sequence[bytes], last: bytes, part: Part) -> Iterator[bytes]:
    for (start, end), head in zip(ranges, heads, strict=True):
        yield head
        yield from part(start, end)
    yield last


def _moved(there: tuple[str, int, int], headers: tuple[Header, ...]) -> Answer:
    url, first, last = there
    told = (RANGE_THERE.lower().encode(), f"bytes={first}-{last}".encode())
    kept: tuple[Any, ...] = tuple(header for header in headers if header[0] != b"cache-control")
    return Answer(b"", 307, (*kept, (b"location", url.encode()), told, (b"cache-control", b"no-store")))


def _length(size: int) -> Header:
    return (b"content-length", str(size).encode())
