"""Ed25519 keys: the public half as one line of text with an id, the private half that signs.

The id is the SHA-256 of the DER SubjectPublicKeyInfo, which `openssl pkey -pubin -outform DER | sha256sum` gives too.

Source: RFC 8032 (Ed25519), RFC 8410 (its forms in PKIX).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmartifacts.errors import InvalidValue
from llmartifacts.records.arguments import shown

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PREFIX = "ed25519:"
KEY_BYTES = 32
MAX_KEY_TEXT = 4096
MAX_PASSPHRASE = 1023
"""Bytes; what OpenSSL takes."""

_DER = bytes.fromhex("302a300506032b6570032100")  # RFC 8410, section 4: all that comes before the 32 bytes
_PRIME = 2**255 - 19
_TORSION = int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little")
_SMALL_ORDER = frozenset({0, 1, _PRIME - 1, _TORSION, _PRIME - _TORSION})
"""y of every point whose order divides 8: under such a key, signatures can be made by anybody."""
_FORM = "A public key is 'ed25519:' and 44 characters of base64, as `llmartifacts key create` prints it, or PEM."


@dataclass(frozen=True, slots=True)
class PublicKey:
    """The public half of an Ed25519 key.

    Attributes:
        raw: Its 32 bytes.
    """

    raw: bytes

    @property
    def id(self) -> str:
        """SHA-256 of its DER form, 64 hex digits."""
        return hashlib.sha256(_DER + self.raw).hexdigest()

    @property
    def text(self) -> str:
        """The key on one line: `ed25519:` and base64."""
        return PREFIX + base64.b64encode(self.raw).decode()

    def __str__(self) -> str:
        return self.text


class PrivateKey:
    """An Ed25519 key that signs. It shows its public half only.

    Args:
        key: The key of `cryptography`.
    """

    __slots__ = ("_key", "public")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = PublicKey(key.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> PrivateKey:
        """Make a new key."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, data: bytes, passphrase: str = "", *, origin: str = "") -> PrivateKey:
        """Read a PEM file in the form PKCS8.

        Args:
            data: Its bytes.
            passphrase: What it is locked with; empty if it is not.
            origin: Where it came from, for messages.

        Raises:
            InvalidValue: It is no Ed25519 key, or the passphrase is missing or wrong.
        """
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        locked = b"ENCRYPTED" in data
        if locked and not passphrase:
            raise InvalidValue("the key is locked with a passphrase", field="key", origin=origin, next_step=_LOCKED)
        try:
            key = load_pem_private_key(data, passphrase.encode(errors="surrogateescape") if locked else None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            told = "the passphrase is wrong, or the file is damaged" if locked else "the file holds no private key"
            raise InvalidValue(told, field="key", origin=origin, next_step=_LOCKED if locked else _PEM) from None
        if not isinstance(key, Ed25519PrivateKey):
            raise InvalidValue("the key is not an Ed25519 key", field="key", origin=origin, next_step=_PEM)
        return cls(key)

    def to_pem(self, passphrase: str = "") -> bytes:
        """The key as a PEM file in the form PKCS8, locked if a passphrase is given.

        Raises:
            InvalidValue: The passphrase has more than 1,023 bytes.
        """
        from cryptography.hazmat.primitives import serialization as form

        lock: form.KeySerializationEncryption = form.NoEncryption()
        if passphrase:
            secret = passphrase.encode(errors="surrogateescape")
            if len(secret) > MAX_PASSPHRASE:
                raise InvalidValue(
                    f"the passphrase has {len(secret):,} bytes, the limit is {MAX_PASSPHRASE:,}",
                    field="passphrase",
                    next_step="Set $LLMARTIFACTS_KEY_PASSPHRASE to a shorter one.",
                )
            lock = form.BestAvailableEncryption(secret)
        return self._key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, lock)

    def crypto(self) -> Ed25519PrivateKey:
        """The key as `cryptography` has it."""
        return self._key

    def __repr__(self) -> str:
        return f"<PrivateKey {self.public.id[:12]}>"


def parse_public(text: str | bytes, *, field: str = "public", origin: str = "") -> PublicKey:
    """Read a public key: the text that `key create` prints, what follows it left out, or PEM.

    Raises:
        InvalidValue: It is neither, not an Ed25519 key, or one under which anybody can sign.

    Example:
        >>> parse_public("ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo= ada").id[:12]
        '06e3fd8fda29'
    """
    if isinstance(text, bytes):
        text = text[: MAX_KEY_TEXT + 1].decode("utf-8", "replace")
    if not isinstance(text, str) or len(text) > MAX_KEY_TEXT:
        raise InvalidValue("that is no public key", field=field, origin=origin, next_step=_FORM)
    line = text.strip()
    raw = _from_pem(line) if line.startswith("-----BEGIN") else _from_line(line)
    if raw is None:
        told = "a private key; keep it to yourself" if "PRIVATE KEY" in line else f"{shown(line, 60)} is no public key"
        raise InvalidValue(told, field=field, origin=origin, next_step=_FORM)
    y = int.from_bytes(raw, "little") & ((1 << 255) - 1)
    if y >= _PRIME or y in _SMALL_ORDER:
        raise InvalidValue(
            "anybody can make signatures that fit this public key",
            field=field,
            origin=origin,
            next_step="Make a key with `llmartifacts key create NAME --person NAME`.",
        )
    return PublicKey(raw)


def _from_line(line: str) -> bytes | None:
    word = line.split(maxsplit=1)[0] if line else ""
    try:
        raw = base64.b64decode(word.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return None
    fits = len(raw) == KEY_BYTES and word == PREFIX + base64.b64encode(raw).decode()
    return raw if fits else None


def _from_pem(text: str) -> bytes | None:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key.public_bytes_raw() if isinstance(key, Ed25519PublicKey) else None


_LOCKED = "Set $LLMARTIFACTS_KEY_PASSPHRASE to the passphrase that the key was made with."
_PEM = "Use a PEM file that `llmartifacts key create` made, or an Ed25519 key in the form PKCS8."
