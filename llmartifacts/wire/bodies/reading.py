"""Readings: any number of references at one revision, with their manifests. The hot path of a server.

A manifest over 64 KiB, or past 8 MiB of one answer, is left out (`null`): `GET /manifests/{digest}` has its bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Annotated

from pydantic import Field

from llmartifacts.errors import LlmartifactsError, TooLarge
from llmartifacts.records import backend as records
from llmartifacts.records import version as versions
from llmartifacts.records.digest import Digest
from llmartifacts.records.manifest import INLINE_BYTES
from llmartifacts.records.times import to_text
from llmartifacts.wire.bodies.base import Count, Many, Model
from llmartifacts.wire.bodies.fields import DigestText, Name
from llmartifacts.wire.bodies.problems import Problem
from llmartifacts.wire.bodies.versions import Manifest, Version
from llmartifacts.wire.errors import error_item

MAX_INLINE = 8 * 1024 * 1024
"""Bytes of all manifests inside one answer."""
MAX_READING = 32 * 1024 * 1024
"""Bytes of a whole answer: messages and tags of a version are no manifest, and many of them are much."""
MAX_DIGESTS = 1_000
"""Manifests that are asked for at once."""


class Found(Model):
    """A version, its manifest, and the move number of the alias it was found by.

    Attributes:
        version: The version.
        manifest: What it is; None where it is too large for the answer.
        move: None if it was found by number or digest.
    """

    version: Version
    manifest: Manifest | None
    move: Count | None = None


class Reading(Model):
    """References read at one revision.

    Attributes:
        project: Name of the project.
        revision: The revision that all of it was read at.
        items: For each reference in order, what was found or why not.
    """

    project: Name
    revision: Count
    items: Many[Found | Problem]


class Digests(Model):
    """Manifests that are asked for."""

    digests: Annotated[Many[DigestText], Field(max_length=MAX_DIGESTS)]


class NamedManifest(Model):
    """A manifest by its digest.

    Attributes:
        digest: Its digest.
        manifest: What it is; None where it is too large for the answer.
    """

    digest: DigestText
    manifest: Manifest | None


class Manifests(Model):
    """Those manifests that are there and may be seen."""

    manifests: Many[NamedManifest]


Item = tuple[versions.Version, bytes | None, int | None] | LlmartifactsError
"""A version, its manifest's bytes (None where they are kept apart), and the move of its alias; or why not."""


def encode_reading(reading: records.Reading) -> bytes:
    """The JSON of a reading: what `Reading` describes, written at once, each manifest's bytes as they are kept."""
    items = (
        item if isinstance(item, LlmartifactsError) else (item.version, item.manifest.to_bytes(), item.move)
        for item in reading.items
    )
    return encode_items(reading.project, reading.revision, items)


def encode_items(project: str, revision: int, items: Iterable[Item]) -> bytes:
    """As `encode_reading`, of items that come one after another.

    Raises:
        TooLarge: The answer is longer than a client reads.
    """
    room = MAX_INLINE
    size = 0
    parts = []
    for item in items:
        if isinstance(item, LlmartifactsError):
            made = _dumps(error_item(item)).encode()
        else:
            version, manifest, move = item
            inline = b"null" if manifest is None or len(manifest) > min(INLINE_BYTES, room) else manifest
            room -= len(inline)
            head = f'{{"version":{_version(version)},"move":{"null" if move is None else move},"manifest":'
            made = b"".join((head.encode(), inline, b"}"))
        size += len(made)
        if size > MAX_READING:
            raise TooLarge(
                f"the answer has more than {MAX_READING:,} bytes",
                field="references",
                next_step="Ask for fewer references at a time.",
            )
        parts.append(made)
    head = f'{{"project":{_dumps(project)},"revision":{revision},"items":['
    return b"".join((head.encode(), b",".join(parts), b"]}"))


def etag(reading: bytes, revision: int) -> str:
    """The entity tag of a reading: `r<revision>-<32 hex digits of the SHA-256 of the body>`, in quotation marks."""
    return f'"r{revision}-{hashlib.sha256(reading).hexdigest()[:32]}"'


def encode_manifests(manifests: Mapping[Digest, bytes | None]) -> bytes:
    """The JSON of `Manifests`, of the bytes of each; None where they are kept apart."""
    room = MAX_INLINE
    parts = []
    for digest, data in manifests.items():
        inline = b"null" if data is None or len(data) > min(INLINE_BYTES, room) else data
        room -= len(inline)
        parts.append(b"".join((f'{{"digest":"{digest}","manifest":'.encode(), inline, b"}")))
    return b'{"manifests":[' + b",".join(parts) + b"]}"


def _version(v: versions.Version) -> str:
    return _dumps(
        {
            "project": v.project,
            "name": v.name,
            "kind": v.kind,
            "number": v.number,
            "digest": v.digest,
            "created_at": to_text(v.created_at),
            "author": v.author,
            "message": v.message,
            "size": v.size,
            "git_commit": v.git_commit,
            "run": v.run,
            "tags": dict(v.tags),
            "aliases": v.aliases,
            "yanked_at": None if v.yanked_at is None else to_text(v.yanked_at),
            "yank_reason": v.yank_reason,
            "removed_at": None if v.removed_at is None else to_text(v.removed_at),
            "removed_by": v.removed_by,
            "remove_reason": v.remove_reason,
            "remove_rule": v.remove_rule,
            "created": v.created,
        }
    )


_dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode
