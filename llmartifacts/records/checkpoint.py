"""Checkpoints: size and root of a registry's audit at one moment, as signed text that is kept elsewhere.

    llmartifacts/3f0c5f2b9a1d7e64        origin: which registry
    1042                                 size: how many entries
    CsUYapGGPo4dkMgIAUqom/Xajj7h2…=      root of the Merkle tree over them

    — llmartifacts/3f0c5f2b9a1d7e64 Az3grlgtzPICa5OS8npV…=

Text and keys only; what needs Ed25519 itself is `llmartifacts.signing.note`. Other tools read the same format.
Source: C2SP tlog-checkpoint and signed-note (c2sp.org).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from llmartifacts.errors import InvalidValue, TooLarge
from llmartifacts.records.arguments import shown
from llmartifacts.records.merkle import HASH_BYTES

ED25519 = 1
"""Signature type of Ed25519 over the text."""
KEY_BYTES = 32
SIGNATURE_BYTES = 64
MAX_NOTE = 64 * 1024
"""Bytes of a signed note."""
MAX_SIGNATURES = 64
MAX_SIZE = 2**53 - 1
"""Entries; a checkpoint that speaks of more is none."""

_CONTROL = re.compile("[\x00-\x09\x0b-\x1f]")
_SIGNATURE = "— "
_SIZE = re.compile("0|[1-9][0-9]{0,15}")
_KEY_NAME = re.compile(r"[^\s+]{1,256}")
_KEY_ID = re.compile("[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Size and root of an audit at one moment.

    Attributes:
        origin: Which registry: `llmartifacts/` and 16 hex digits of its first entry's hash.
        size: How many entries.
        root: Root of the Merkle tree over them, 32 bytes.
    """

    origin: str
    size: int
    root: bytes

    def to_text(self) -> str:
        """The text that is signed, with its last line end."""
        return f"{self.origin}\n{self.size}\n{_encoded(self.root)}\n"

    @classmethod
    def from_text(cls, text: str, *, origin: str = "") -> Checkpoint:
        """Read the text of a checkpoint; lines after the third are other tools' own, and ignored.

        Args:
            text: The text, without signatures.
            origin: Where it came from, for messages.

        Raises:
            InvalidValue: It is none; names what is wrong.
        """
        lines = text.split("\n")
        if len(lines) < 4 or lines[-1] or not all(lines[:-1]):
            raise _bad("a checkpoint has three lines or more, each with something on it", "checkpoint", origin)
        name, size, root = lines[:3]
        if not _SIZE.fullmatch(size) or int(size) > MAX_SIZE:
            raise _bad(f"{shown(size)} is no number of entries", "checkpoint.size", origin)
        made = _decoded(root)
        if made is None or len(made) != HASH_BYTES:
            raise _bad(f"{shown(root)} is no root of {HASH_BYTES} bytes in base64", "checkpoint.root", origin)
        return cls(name, int(size), made)


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature of a note.

    Attributes:
        name: Name of the key.
        key_id: Its id, 4 bytes.
        value: What the key made of the text.
    """

    name: str
    key_id: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Note:
    """Text with signatures. Nothing in it counts until one of a known key was checked.

    Attributes:
        text: The text, with its last line end; exactly what is signed.
        signatures: Each of them.
    """

    text: str
    signatures: tuple[Signature, ...]

    def to_text(self) -> str:
        """The note as a file holds it, UTF-8, with line feeds."""
        lines = [f"{_SIGNATURE}{s.name} {_encoded(s.key_id + s.value)}\n" for s in self.signatures]
        return f"{self.text}\n{''.join(lines)}"

    @classmethod
    def from_bytes(cls, data: bytes, *, origin: str = "") -> Note:
        """Take a note apart; no signature is checked.

        Args:
            data: The bytes of the file.
            origin: Where it came from, for messages.

        Raises:
            InvalidValue: It is no note; names what is wrong.
            TooLarge: It has more than 64 KiB or 64 signatures.
        """
        if len(data) > MAX_NOTE:
            raise TooLarge(f"the checkpoint has more than {MAX_NOTE:,} bytes", field="checkpoint", origin=origin)
        try:
            whole = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _bad(f"not UTF-8 at byte {error.start}", "checkpoint", origin) from None
        found = _CONTROL.search(whole)
        if found:
            what = "a carriage return" if found.group() == "\r" else f"the character {found.group()!a}"
            step = "Keep it as it was written, with Unix line ends." if found.group() == "\r" else ""
            raise InvalidValue(
                f"{what} at position {found.start()}", field="checkpoint", origin=origin, next_step=step or _STEP
            )
        text, gap, rest = whole.rpartition("\n\n")
        lines = rest.split("\n")
        if not gap or not text or lines.pop() or not lines:
            raise _bad("a checkpoint ends with an empty line, and a signature on each line after", "checkpoint", origin)
        if len(lines) > MAX_SIGNATURES:
            raise TooLarge(
                f"the checkpoint has {len(lines)} signatures, the limit is {MAX_SIGNATURES}",
                field="checkpoint.signatures",
                origin=origin,
            )
        return cls(f"{text}\n", tuple(_signature(line, i, origin) for i, line in enumerate(lines)))


def _signature(line: str, i: int, origin: str) -> Signature:
    where = f"checkpoint.signatures[{i}]"
    name, space, encoded = line.removeprefix(_SIGNATURE).partition(" ")
    value = _decoded(encoded)
    if not line.startswith(_SIGNATURE) or not space or not _KEY_NAME.fullmatch(name):
        raise _bad("a signature is a dash (U+2014), the key's name, and base64", where, origin)
    if value is None or len(value) <= 4:
        raise _bad(f"{shown(encoded)} is no signature in base64", where, origin)
    return Signature(name, value[:4], value[4:])


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public Ed25519 key and the name that it signs under: `name+id+base64`.

    Attributes:
        name: Name of the key: the origin of the checkpoints that it signs.
        public: The key, 32 bytes.

    Example:
        >>> key = VerifierKey.parse("sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8")
        >>> key.name, key.key_id.hex()
        ('sum.golang.org', '033de0ae')
    """

    name: str
    public: bytes

    @property
    def key_id(self) -> bytes:
        """The key's id in signatures, 4 bytes. It finds the key, and proves nothing."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([ED25519]) + self.public).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{_encoded(bytes([ED25519]) + self.public)}"

    @classmethod
    def named(cls, name: str, public: bytes) -> VerifierKey:
        """A key under a name.

        Raises:
            InvalidValue: The name has spaces or a plus, or the key has not 32 bytes.
        """
        if not _KEY_NAME.fullmatch(name) or _CONTROL.search(name):
            raise InvalidValue(
                f"{shown(name)} is no name of a key", field="key", next_step="Use text without spaces and plus signs."
            )
        if len(public) != KEY_BYTES:
            raise InvalidValue(f"an Ed25519 key has {KEY_BYTES} bytes, this one {len(public)}", field="key")
        return cls(name, public)

    @classmethod
    def parse(cls, text: str, *, field: str = "key", origin: str = "") -> VerifierKey:
        """Read a verifier key.

        Args:
            text: `name+id+base64`.
            field: Name of the value in messages.
            origin: Where it came from.

        Raises:
            InvalidValue: It is none, its id is not its own, or it is no Ed25519 key.
        """
        name, _, rest = text.strip(" \t\n").partition("+")
        key_id, _, encoded = rest.partition("+")
        made = _decoded(encoded)
        if not _KEY_NAME.fullmatch(name) or _CONTROL.search(name) or not _KEY_ID.fullmatch(key_id) or not made:
            raise InvalidValue(f"{shown(text)} is no verifier key", field=field, origin=origin, next_step=_KEY)
        if made[0] != ED25519 or len(made) != 1 + KEY_BYTES:
            raise InvalidValue(
                f"the verifier key is of type {made[0]} with {len(made) - 1} bytes; only Ed25519 (type 1, 32) is known",
                field=field,
                origin=origin,
                next_step=_KEY,
            )
        key = cls(name, made[1:])
        if key.key_id.hex() != key_id:
            raise InvalidValue(
                f"the verifier key says that its id is {key_id}, and it is {key.key_id.hex()}",
                field=field,
                origin=origin,
                next_step="Copy the whole key again.",
            )
        return key


_KEY = "A verifier key is name+8 hex digits+base64, as `audit checkpoint` prints it."
_STEP = "A checkpoint is the text that `audit checkpoint` writes, kept as it is."


def _bad(told: str, field: str, origin: str) -> InvalidValue:
    return InvalidValue(told, field=field, origin=origin, next_step=_STEP)


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decoded(text: str) -> bytes | None:
    """Standard base64 with its padding, and no other spelling of the same bytes."""
    try:
        made = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return made if _encoded(made) == text else None
