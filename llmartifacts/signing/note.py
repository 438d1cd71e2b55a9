"""Signed notes: Ed25519 signatures of checkpoints, made and checked.

Source: C2SP signed-note (c2sp.org); RFC 8032 (Ed25519).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmartifacts.errors import Damaged, InvalidValue
from llmartifacts.records.arguments import shown
from llmartifacts.records.checkpoint import KEY_BYTES, SIGNATURE_BYTES, Checkpoint, Note, Signature, VerifierKey

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    PrivateKey = Ed25519PrivateKey | bytes
    """The key, or its 32 raw bytes."""


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint whose signature was checked.

    Attributes:
        checkpoint: What it says.
        note: The text and its signatures.
        key: The key whose signature was checked.
    """

    checkpoint: Checkpoint
    note: Note
    key: VerifierKey


def verifier_key(name: str, private: PrivateKey) -> VerifierKey:
    """The public half of a private key, under a name.

    Raises:
        InvalidValue: The name has spaces or a plus, or the key is no Ed25519 key.
    """
    return VerifierKey.named(name, _loaded(private).public_key().public_bytes_raw())


def sign_note(text: str, name: str, private: PrivateKey) -> Note:
    """Sign a text.

    Args:
        text: What is signed; ends with a line feed.
        name: Name of the key; of a checkpoint, its origin.
        private: The key.

    Raises:
        InvalidValue: The text, the name or the key cannot be used.
    """
    if not text.endswith("\n"):
        raise InvalidValue("the text of a note ends with a line feed", field="text")
    key = verifier_key(name, private)
    note = Note(text, (Signature(name, key.key_id, _loaded(private).sign(text.encode())),))
    if Note.from_bytes(note.to_text().encode()) != note:
        raise InvalidValue("the text of a note is lines of printable text", field="text")
    return note


def sign_checkpoint(checkpoint: Checkpoint, private: PrivateKey) -> SignedCheckpoint:
    """Sign a checkpoint, under its origin's name. Raises as `sign_note`."""
    note = sign_note(checkpoint.to_text(), checkpoint.origin, private)
    return SignedCheckpoint(checkpoint, note, verifier_key(checkpoint.origin, private))


def verify_note(note: Note, keys: Sequence[VerifierKey], *, origin: str = "") -> VerifierKey:
    """Check a note's signatures; those of unknown keys are ignored, a wrong one of a known key spoils the note.

    Args:
        note: The note.
        keys: The known keys.
        origin: Where the note came from, for messages.

    Returns:
        A known key that signed it.

    Raises:
        Damaged: A known key's signature is not of this text, or no known key signed it.
    """
    known = {(key.name, key.key_id): key for key in keys}
    signed: VerifierKey | None = None
    for signature in note.signatures:
        key = known.get((signature.name, signature.key_id))
        if key is None:
            continue
        if not _is_signature(key, signature.value, note.text.encode()):
            raise Damaged(
                f"the signature of {shown(key.name)} is not of this text",
                file=origin,
                next_step="The checkpoint was altered, or the key is another's: fetch both from where they are kept.",
            )
        signed = signed or key
    if signed is None:
        by = ", ".join(f"{shown(s.name, 80)} ({s.key_id.hex()})" for s in note.signatures[:3])
        raise Damaged(
            f"the checkpoint is not signed by a known key, but by {by}",
            file=origin,
            next_step="Give the verifier key that `audit checkpoint` printed when it was made.",
        )
    return signed


def read_checkpoint(data: bytes, keys: Sequence[VerifierKey], *, origin: str = "") -> SignedCheckpoint:
    """Read a signed checkpoint; what it says is read only once its signature was checked.

    Args:
        data: Bytes of the note.
        keys: The known keys.
        origin: Where it came from, for messages.

    Raises:
        InvalidValue: It is no signed checkpoint, or signed under a name that is not its origin.
        TooLarge: It has more than 64 KiB or 64 signatures.
        Damaged: It is not signed by a known key, or was altered.
    """
    note = Note.from_bytes(data, origin=origin)
    key = verify_note(note, keys, origin=origin)
    checkpoint = Checkpoint.from_text(note.text, origin=origin)
    if checkpoint.origin != key.name:
        raise InvalidValue(
            f"the checkpoint is of {shown(checkpoint.origin)}, and the key signs for {shown(key.name)}",
            field="key",
            origin=origin,
            next_step="Give the verifier key of that registry.",
        )
    return SignedCheckpoint(checkpoint, note, key)


def _is_signature(key: VerifierKey, signature: bytes, text: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if len(signature) != SIGNATURE_BYTES:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(key.public).verify(signature, text)
    except (InvalidSignature, ValueError):
        return False
    return True


def _loaded(private: PrivateKey) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if isinstance(private, Ed25519PrivateKey):
        return private
    if not isinstance(private, bytes) or len(private) != KEY_BYTES:
        raise InvalidValue(f"an Ed25519 key has {KEY_BYTES} bytes", field="key")
    return Ed25519PrivateKey.from_private_bytes(private)
