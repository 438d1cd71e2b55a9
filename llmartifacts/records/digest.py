"""Digests: `sha256:` and 64 lower-case hex digits.

Example:
    >>> digest_of(b"hello")
    'sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824'
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import NewType

from llmartifacts.errors import InvalidReference
from llmartifacts.records.arguments import shown

Digest = NewType("Digest", str)
"""A checked digest string; made by `digest_of`, `digest_from_hex` or `parse_digest` only."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
SHORT = 12
"""Hex digits shown where a digest is shortened for people."""


@dataclass(frozen=True, slots=True)
class Blob:
    """Stored bytes by their address.

    Attributes:
        digest: SHA-256 of the bytes.
        size: Their number, in bytes.
    """

    digest: Digest
    size: int


def digest_of(data: bytes | bytearray | memoryview) -> Digest:
    """The digest of some bytes."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def digest_from_hex(hexdigest: str) -> Digest:
    """The digest whose hex digits are given, as `hashlib` prints them."""
    return parse_digest(f"sha256:{hexdigest}")


def parse_digest(text: str, *, field: str = "digest") -> Digest:
    """Check a digest that came from outside.

    Raises:
        InvalidReference: It is not `sha256:` and 64 lower-case hex digits.
    """
    if not isinstance(text, str) or not _DIGEST.fullmatch(text):
        raise InvalidReference(
            f"{shown(text)} is not a digest",
            field=field,
            next_step="A digest is 'sha256:' followed by 64 lower-case hex digits; tables show it cut short, and "
            "`llmartifacts show NAME:vN` whole.",
        )
    return Digest(text)


def digest_bytes(digest: Digest) -> bytes:
    """The 32 raw bytes of a digest, as the database keeps it."""
    return bytes.fromhex(digest[7:])


def digest_from_bytes(raw: bytes) -> Digest:
    """The inverse of `digest_bytes`."""
    return Digest("sha256:" + bytes(raw).hex())


def short(digest: Digest) -> str:
    """A digest shortened for people: the first 12 hex digits."""
    return digest[7 : 7 + SHORT]
