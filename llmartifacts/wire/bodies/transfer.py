"""Bodies of uploads.

What is sent is one row of bytes, cut into pieces: packs of chunks, recipes, and small blobs beside each other, so that
ten thousand small files are a few pieces. `finish` says what lies where in it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from llmartifacts.wire.bodies.base import Count, Many, Model
from llmartifacts.wire.bodies.fields import DigestText, Time

MAX_PIECE = 8 * 1024 * 1024
"""Bytes of one piece of an upload."""
MAX_PIECES = 200_000
MAX_ENTRIES = 200_000
"""Packs or blobs of one upload."""
MAX_CHUNKS = 8192
"""Chunks of one question for sums."""
UploadId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$", max_length=32)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$", max_length=64)]
"""A SHA-256, or a BLAKE3, as 64 hex digits."""


class Begin(Model):
    """Blobs that a version is to name."""

    blobs: Annotated[Many[DigestText], Field(max_length=MAX_ENTRIES)]


class Upload(Model):
    """An upload that has begun.

    Attributes:
        id: Its id; null where the project has all of the blobs.
        expires_at: When it is thrown away unless it is gone on with.
        piece_size: Bytes that a piece may have.
        absent: Those of the blobs that have to be sent.
    """

    id: UploadId | None
    expires_at: Time
    piece_size: Count
    absent: Many[DigestText]


class Pieces(Model):
    """Pieces that a client has, by their SHA-256."""

    pieces: Annotated[Many[Sha256], Field(max_length=MAX_PIECES)]


class Missing(Model):
    """How far an upload is.

    Attributes:
        missing: Those of the pieces that the server has not.
        blobs: Blobs of the upload that are verified and stored.
    """

    missing: Many[Sha256]
    blobs: Many[DigestText]


class UploadPack(Model):
    """A pack in what was sent.

    Attributes:
        name: Its name, 64 hex digits.
        offset: Where it begins.
        size: Its bytes.
    """

    name: Sha256
    offset: Count
    size: Count


class UploadBlob(Model):
    """A blob in what was sent.

    Attributes:
        digest: Digest of the whole.
        size: Its bytes.
        form: `raw`, `zstd`, or `recipe` where its recipe was sent.
        offset: Where what was sent of it begins.
        stored: Bytes of that.
    """

    digest: DigestText
    size: Count
    form: Literal["raw", "zstd", "recipe"]
    offset: Count
    stored: Count


class Finish(Model):
    """What an upload consists of.

    Attributes:
        pieces: The pieces, in the order in which they make what is sent; one may come several times.
        packs: The packs in it.
        blobs: The blobs in it.
        parents: Blobs of the project whose chunks recipes may name, besides those of the packs.
    """

    pieces: Annotated[Many[Sha256], Field(max_length=MAX_PIECES)]
    packs: Annotated[Many[UploadPack], Field(max_length=MAX_ENTRIES)] = ()
    blobs: Annotated[Many[UploadBlob], Field(max_length=MAX_ENTRIES)] = ()
    parents: Annotated[Many[DigestText], Field(max_length=1_000)] = ()


class Sums(Model):
    """Chunks of a blob whose rows somebody wants to compare, without fetching them.

    Attributes:
        row: Bytes of a row.
        chunks: Ids of the chunks, 64 hex digits each.
    """

    row: Annotated[int, Field(ge=1, le=1 << 20)]
    chunks: Annotated[Many[Sha256], Field(max_length=MAX_CHUNKS)]


class Finished(Model):
    """The blobs that were put together and verified."""

    blobs: Many[DigestText]
