"""Uploads: bytes that come from afar, piece by piece, and are checked before anything knows of them.

    start     which of these blobs are not in the project yet, or lost?
    pieces    by their own SHA-256, in any order, again where a line broke: under `uploads/<id>/` in the blob store
    finish    packs, recipes and small objects are put together, checked to the last bit, and stored
    commit    a version names them (`require_available`), and the upload goes in the same transaction

An upload belongs to an account and a project. What it brought is held until it expires. Pieces go with `finish`; what a
crash leaves is removed by gc.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import time
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from llmartifacts.blobs.base import PIECE, Driver, read_up_to
from llmartifacts.blobs.disk import create_file, sync_data, write_all
from llmartifacts.blobs.failures import storage_errors
from llmartifacts.blobs.forms import RECIPE
from llmartifacts.blobs.scratch import Scratch
from llmartifacts.errors import (
    Conflict,
    InvalidInput,
    InvalidValue,
    NotAllowed,
    NotFound,
    TooLarge,
)
from llmartifacts.metadata import projects, uploads
from llmartifacts.metadata.database import Session
from llmartifacts.metadata.uploads import UploadRow
from llmartifacts.records.digest import Blob, Digest
from llmartifacts.records.times import from_micros
from llmartifacts.versioning import standing
from llmartifacts.versioning.commit import chunks_recorded_in, spare
from llmartifacts.versioning.parts import Parts

PREFIX = "uploads/"
_ID = re.compile(r"[0-9a-f]{32}")
_SHA = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """How much one upload may be.

    Attributes:
        piece: Bytes of a piece.
        sent: Bytes of all pieces.
        pieces: Pieces of one upload, however small.
        made: Bytes of all blobs that are made of them.
        ratio: How many times the bytes sent and those of the parents that may be.
        even: Bytes of blobs that are taken however few were sent for them: files of zeros are ordinary.
        open: Uploads that one account may have open.
        recipe: Bytes of a recipe.
        keep: Seconds until an upload expires that nobody goes on with.
        slowest: Bytes of a blob that are put together in a second, at least; slower ones are given up.
    """

    piece: int = 8 * 1024 * 1024
    sent: int = 256 << 30
    pieces: int = 200_000
    made: int = 1 << 40
    ratio: int = 1000
    even: int = 256 << 20
    open: int = 64
    recipe: int = 64 << 20
    keep: int = 24 * 3600
    slowest: int = 10_000_000


LIMITS = UploadLimits()


@dataclass(frozen=True, slots=True)
class Started:
    """An upload that has begun.

    Attributes:
        id: Its id; empty where there is nothing to send.
        expires_at: When it goes.
        absent: Which of the blobs that were asked for are not in the project, or are lost or damaged in the store.
    """

    id: str
    expires_at: datetime
    absent: tuple[Digest, ...]


@dataclass(frozen=True, slots=True)
class Remaining:
    """How far an upload is.

    Attributes:
        missing: Of the pieces that were asked for, those that are not there.
        blobs: Blobs that are checked and stored.
    """

    missing: tuple[str, ...]
    blobs: tuple[Digest, ...]


@dataclass(frozen=True, slots=True)
class SentPack:
    """A pack in the bytes that were sent.

    Attributes:
        name: Its name.
        offset: Where it begins.
        size: Its bytes.
    """

    name: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class SentBlob:
    """A blob in the bytes that were sent.

    Attributes:
        blob: What it is said to be.
        form: Form of what was sent: raw, compressed, or a recipe; as in keys of the store.
        offset: Where it begins.
        stored: Bytes of what was sent.
    """

    blob: Blob
    form: str
    offset: int
    stored: int


@dataclass(frozen=True, slots=True)
class Sent:
    """What the pieces of an upload are, put one after another in this order.

    Attributes:
        pieces: SHA-256 of each, 64 hexadecimal digits.
        packs: The packs in them.
        blobs: The blobs in them.
        parents: Blobs of the project whose chunks recipes may name.
    """

    pieces: tuple[str, ...]
    packs: tuple[SentPack, ...] = ()
    blobs: tuple[SentBlob, ...] = ()
    parents: tuple[Digest, ...] = ()


# --- the steps


def start(
    parts: Parts, project: str, blobs: Iterable[Digest], *, account: str, limits: UploadLimits = LIMITS
) -> Started:
    """Begin to send blobs; those that a version of the project needs already, and that are stored, are not sent again.

    What is stored is looked at before any transaction: blobs are read and hashed, the smallest first, until that was
    64 MiB; of the others, that they are there, and all of their chunks in packs that are there.

    Raises:
        NotAllowed: The account has too many uploads open.
    """
    wanted = list(dict.fromkeys(blobs))
    with parts.metadata.reading() as s:
        known = uploads.in_project(s, projects.find_project(s, project)[0], wanted)
    stored = standing.sound(parts, known)
    absent = tuple(digest for digest in wanted if digest not in stored)
    with parts.metadata.writing() as s:
        project_id, _ = projects.find_project(s, project)
        expires = s.now() + limits.keep * 1_000_000
        if not absent:
            return Started("", from_micros(expires), ())
        uploads.remove_expired(s)
        if uploads.count_open(s, account) >= limits.open:
            raise NotAllowed(
                f"{account} has {limits.open} uploads open already",
                next_step="Finish them, or wait: an upload that nobody goes on with goes after a day.",
            )
        row = UploadRow(secrets.token_hex(16), project_id, account, expires)
        uploads.insert(s, row)
        return Started(row.id, from_micros(expires), absent)


def put_piece(
    parts: Parts,
    project: str,
    upload_id: str,
    name: str,
    data: bytes | bytearray | memoryview,
    *,
    account: str,
    limits: UploadLimits = LIMITS,
) -> None:
    """Take a piece; taking it again does nothing.

    Args:
        parts: The stores.
        project: Name of the project.
        upload_id: Which upload.
        name: SHA-256 of the piece, 64 hexadecimal digits.
        data: Its bytes.
        account: Who sends it.
        limits: How much may be sent.

    Raises:
        NotFound: There is no such upload of this account in the project.
        InvalidValue: The bytes are others than the name says.
        TooLarge: It is too long, or the upload is.
    """
    if not _SHA.fullmatch(name):
        raise InvalidInput("the name of a piece is its SHA-256, 64 hexadecimal digits", field="piece")
    if not 0 < len(data) <= limits.piece:
        raise TooLarge(f"a piece has 1 to {limits.piece} bytes, not {len(data)}", field="piece")
    with parts.metadata.reading() as s:
        row = _own(s, project, upload_id, account)
    if hashlib.sha256(data).hexdigest() != name:
        raise InvalidValue(
            "the bytes of the piece are not what its name says", field="piece", next_step="Send it again."
        )
    driver = parts.blobs.driver
    key = _key(upload_id, name)
    if driver.size(key) == len(data):
        return
    if row.pieces >= limits.pieces:
        raise TooLarge(f"an upload has at most {limits.pieces} pieces", field="piece", next_step="Send larger ones.")
    if row.sent + len(data) > limits.sent:
        raise TooLarge(f"an upload has at most {limits.sent} bytes", field="piece", next_step="Send less in one.")
    with _files(parts) as new_file:
        file = new_file.new_file()
        with storage_errors("write", file):
            fd = create_file(file)
            try:
                # Not made durable: after a power cut the piece is found to be cut short, and is sent again.
                write_all(fd, data)  # type: ignore[arg-type]
            finally:
                os.close(fd)
        if driver.put_if_absent(key, file):
            with parts.metadata.writing() as s:
                uploads.add_piece(s, upload_id, len(data))


def remaining(
    parts: Parts,
    project: str,
    upload_id: str,
    pieces: Iterable[str],
    *,
    account: str,
    limits: UploadLimits = LIMITS,
) -> Remaining:
    """How far an upload is; asked before pieces are sent, and after a line broke. Raises `NotFound`."""
    with parts.metadata.writing() as s:
        _own(s, project, upload_id, account)
        uploads.extend(s, upload_id, s.now() + limits.keep * 1_000_000)
        held = uploads.held(s, upload_id)
    there = _pieces(parts.blobs.driver, upload_id)
    missing = tuple(name for name in dict.fromkeys(pieces) if name not in there)
    return Remaining(missing, tuple(held))


def finish(
    parts: Parts, project: str, upload_id: str, sent: Sent, *, account: str, limits: UploadLimits = LIMITS
) -> tuple[Digest, ...]:
    """Put together what was sent, check all of it, and store it; doing it again does nothing.

    Returns:
        The blobs that the upload holds now.

    Raises:
        NotFound: There is no such upload, or a parent is not in the project.
        Conflict: Pieces are missing: ask which. Or something that it relies on was removed meanwhile.
        InvalidValue: Something is not what it is said to be; the upload is gone.
        TooLarge: It makes more than it may.
        Damaged: A stored blob that it relies on is damaged.
        NotAllowed: The store is full.
    """
    with parts.metadata.reading() as s:
        row = _own(s, project, upload_id, account)
        held = uploads.held(s, upload_id)
        parents = uploads.in_project(s, row.project_id, sent.parents)
    if sent.blobs and all(held.get(b.blob.digest) == b.blob.size for b in sent.blobs):
        _remove_pieces(parts.blobs.driver, upload_id)  # a crash may have left them
        return tuple(held)
    strange = next((digest for digest in sent.parents if digest not in parents), None)
    if strange is not None:
        raise NotFound(f"{strange} is not in the project {project}", what="blob", name=strange)
    try:
        made = _finished(parts, project, upload_id, sent, parents, account, limits)
    except (InvalidValue, TooLarge):
        abort(parts, project, upload_id, account=account)
        raise
    _remove_pieces(parts.blobs.driver, upload_id)
    return tuple(held | dict.fromkeys(made))


def abort(parts: Parts, project: str, upload_id: str, *, account: str) -> None:
    """Throw an upload away. Raises `NotFound`."""
    with parts.metadata.writing() as s:
        _own(s, project, upload_id, account)
        uploads.remove(s, upload_id)
    _remove_pieces(parts.blobs.driver, upload_id)


def require_available(
    s: Session, project_id: int, upload_id: str | None, account: str, digests: Iterable[Digest]
) -> dict[Digest, int]:
    """Require that a version may name these blobs, and let the upload go that brought them.

    Args:
        s: The transaction that logs the version.
        project_id: Its project.
        upload_id: The upload; None where there is none.
        account: Who logs it.
        digests: What the version needs; for a manifest, `versions.needed`.

    Returns:
        The blobs that the upload did not bring -> their bytes; for `standing.require_stored`.

    Raises:
        NotFound: There is no such upload of this account in the project.
        InvalidValue: A blob is neither in the upload nor in the project. Knowing a digest gives no right to it.
    """
    wanted = list(dict.fromkeys(digests))
    held: dict[Digest, int] = {}
    if upload_id is not None:
        row = uploads.find(s, upload_id) if _ID.fullmatch(upload_id) else None
        if row is None or (row.project_id, row.account) != (project_id, account):
            raise _no_upload(upload_id)
        held = uploads.held(s, upload_id)
    rest = [digest for digest in wanted if digest not in held]
    known = uploads.in_project(s, project_id, rest)
    absent = next((digest for digest in rest if digest not in known), None)
    if absent is not None:
        raise InvalidValue(
            f"the bytes of {absent} were not uploaded, and are in no version of this project",
            field="files",
            next_step="Upload them first.",
        )
    if upload_id is not None:
        uploads.remove(s, upload_id)
    return known


def orphans(parts: Parts) -> list[tuple[str, int]]:
    """Key and bytes of every piece whose upload is finished, thrown away or expired."""
    pieces = list(parts.blobs.driver.list(PREFIX))  # first: what comes after this is of an upload that is found then
    if not pieces:
        return []
    with parts.metadata.reading() as s:
        known = uploads.open_ids(s)
    return [(key, size) for key, size in pieces if key.split("/")[1] not in known]


# --- finish


def _finished(
    parts: Parts,
    project: str,
    upload_id: str,
    sent: Sent,
    parents: dict[Digest, int],
    account: str,
    limits: UploadLimits,
) -> list[Digest]:
    from llmartifacts.versioning.received import FREE, Received

    body = _Body(parts.blobs.driver, upload_id, sent.pieces)
    _check_plan(sent, body.size)
    logical = sum(b.blob.size for b in sent.blobs)
    if logical > min(limits.made, max(limits.even, limits.ratio * (body.sent + sum(parents.values())))):
        raise TooLarge(f"{body.sent} bytes were sent for {logical}, which is more than can be", field="blobs")
    with _files(parts) as files:
        received = Received(parts.blobs, files.new_file, time.monotonic() + 60 + logical / limits.slowest)
        left = logical + FREE
        for pack in sent.packs:
            file = files.new_file()
            body.copy(pack.offset, pack.size, file)
            left -= body.judged(lambda pack=pack, file=file, left=left: received.pack(pack.name, file, left))
        received.allow(Blob(digest, size) for digest, size in parents.items())
        for one in sent.blobs:
            if one.stored > (limits.recipe if one.form == RECIPE else 2 * PIECE):
                raise TooLarge(f"the stored form of {one.blob.digest} is too long", field="blobs")
            data = body.read(one.offset, one.stored)
            if one.form == RECIPE:
                body.judged(lambda one=one, data=data: received.recipe(one.blob, data))
            else:
                body.judged(lambda one=one, data=data: received.small(one.blob, one.form, data))
        received.settle()
        received.place()
        with parts.metadata.writing() as s, chunks_recorded_in(parts, s):
            _own(s, project, upload_id, account)
            uploads.hold(s, upload_id, received.checked.values())
            spare(parts, s, received.checked.values())
            uploads.extend(s, upload_id, s.now() + limits.keep * 1_000_000)
            received.publish()
        return list(received.checked)


def _check_plan(sent: Sent, size: int) -> None:
    """Refuse a plan that would have the same bytes taken again and again: that is work for nothing.

    Args:
        sent: What the pieces are said to be.
        size: Their bytes.
    """
    packs, blobs = {pack.name for pack in sent.packs}, {one.blob.digest for one in sent.blobs}
    if len(packs) < len(sent.packs) or len(blobs) < len(sent.blobs):
        raise InvalidValue("something is named twice", field="packs" if len(packs) < len(sent.packs) else "blobs")
    told = sum(pack.size for pack in sent.packs) + sum(one.stored for one in sent.blobs)
    if told > size:
        raise InvalidValue(f"the pieces have {size} bytes, and are said to hold {told}", field="blobs")


class _Body:
    """The pieces of an upload, one after another.

    Args:
        driver: Where they are.
        upload_id: Of which upload.
        names: Their names, in order.

    Attributes:
        size: Bytes of all of them.
        sent: Bytes that came: of each piece once, however often it is named.

    Raises:
        Conflict: One is not there.
    """

    def __init__(self, driver: Driver, upload_id: str, names: Sequence[str]) -> None:
        self._driver = driver
        self._keys = [_key(upload_id, name) for name in names]
        there = _pieces(driver, upload_id)
        missing = sum(name not in there for name in names)
        if missing:
            raise _pieces_missing(missing)
        self._names = names
        self.sent = sum(there[name] for name in set(names))
        self._ends: list[int] = []
        self.size = 0
        for name in names:
            self.size += there[name]
            self._ends.append(self.size)

    def read(self, offset: int, length: int) -> bytes:
        """A part of it. Raises `InvalidValue` where there is no such part."""
        return b"".join(self._parts(offset, length))

    def copy(self, offset: int, length: int, target: Path) -> None:
        """A part of it into a new file, durable."""
        with storage_errors("write", target):
            fd = create_file(target)
            try:
                for part in self._parts(offset, length):
                    write_all(fd, part)
                sync_data(fd)
            finally:
                os.close(fd)

    def judged(self, check: Any) -> Any:
        """What a check says; where it finds something wrong, pieces that rotted here are told from those that lie."""
        try:
            return check()
        except InvalidValue:
            rotten = [key for key, name in zip(self._keys, self._names, strict=True) if not self._is_right(key, name)]
            for key in rotten:
                self._driver.delete(key)
            if rotten:
                raise _pieces_missing(len(rotten)) from None
            raise

    def _is_right(self, key: str, name: str) -> bool:
        with self._driver.get(key) as stream:
            return hashlib.sha256(read_up_to(stream, LIMITS.piece + 1)).hexdigest() == name

    def _parts(self, offset: int, length: int) -> Iterator[bytes]:
        if offset + length > self.size:
            raise InvalidValue("it is said to lie outside of what was sent", field="offset")
        number = bisect_right(self._ends, offset)
        while length:
            start = offset - (self._ends[number - 1] if number else 0)
            count = min(length, self._ends[number] - offset)
            with self._driver.get(self._keys[number], start, count) as stream:
                data = read_up_to(stream, count)
            if len(data) != count:
                raise _pieces_missing(1)
            yield data
            number, offset, length = number + 1, offset + count, length - count


# --- one upload


def _own(s: Session, project: str, upload_id: str, account: str) -> UploadRow:
    row = uploads.find(s, upload_id) if _ID.fullmatch(upload_id) else None
    if row is None or row.account != account or row.project_id != projects.find_project(s, project)[0]:
        raise _no_upload(upload_id)
    return row


def _no_upload(upload_id: str) -> NotFound:
    return NotFound(
        "there is no such upload",
        what="upload",
        name=upload_id[:64],
        next_step="It was committed, thrown away, or has expired: begin a new one.",
    )


def _pieces_missing(count: int) -> Conflict:
    return Conflict(f"{count} pieces of the upload are missing", field="pieces", next_step="Send them again.")


def _prefix(upload_id: str) -> str:
    return f"{PREFIX}{upload_id}/"


def _key(upload_id: str, name: str) -> str:
    return f"{_prefix(upload_id)}{name}"


def _pieces(driver: Driver, upload_id: str) -> dict[str, int]:
    return {key.rpartition("/")[2]: size for key, size in driver.list(_prefix(upload_id))}


def _remove_pieces(driver: Driver, upload_id: str) -> None:
    for key, _ in list(driver.list(_prefix(upload_id))):
        driver.delete(key)


@contextmanager
def _files(parts: Parts) -> Iterator[Scratch]:
    with storage_errors("write", parts.blobs.scratch):
        scratch = Scratch(parts.blobs.scratch)
    try:
        yield scratch
    finally:
        scratch.close()
