"""Signed checkpoints: made, checked, and refused when anything about them was altered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.errors import Damaged, InvalidValue, LlmartifactsError
from llmartifacts.records.checkpoint import Checkpoint, Note, VerifierKey
from llmartifacts.signing.note import read_checkpoint, sign_checkpoint, sign_note, verifier_key, verify_note

PRIVATE = b"k" * 32
CHECKPOINT = Checkpoint("llmartifacts/0123456789abcdef", 42, bytes(range(32)))
SIGNED = sign_checkpoint(CHECKPOINT, PRIVATE)
STORED = SIGNED.note.to_text().encode()

# The example of the documentation of Go's package golang.org/x/mod/sumdb/note: made by another program.
PETER = VerifierKey.parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
SAYING = """If you think cryptography is the answer to your problem,
then you don't know what your problem is.

— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=
"""


def test_a_note_that_another_program_signed_is_verified() -> None:
    note = Note.from_bytes(SAYING.encode())
    assert verify_note(note, [PETER]) == PETER
    with pytest.raises(Damaged, match="not of this text"):
        verify_note(Note(note.text.replace("answer", "question"), note.signatures), [PETER])


def test_a_signed_checkpoint_is_read_again() -> None:
    assert read_checkpoint(STORED, [SIGNED.key]) == SIGNED
    assert SIGNED.key.name == CHECKPOINT.origin


def test_the_key_may_be_given_as_the_object_of_the_library() -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    assert sign_checkpoint(CHECKPOINT, Ed25519PrivateKey.from_private_bytes(PRIVATE)) == SIGNED


def test_signatures_of_unknown_keys_are_ignored_beside_one_of_a_known_key() -> None:
    other = sign_note(CHECKPOINT.to_text(), "witness.example", b"w" * 32)
    note = Note(SIGNED.note.text, (*other.signatures, *SIGNED.note.signatures))
    assert read_checkpoint(note.to_text().encode(), [SIGNED.key]).checkpoint == CHECKPOINT


def test_a_wrong_signature_of_a_known_key_spoils_the_note_whatever_else_is_on_it() -> None:
    wrong = sign_note("something else\n", CHECKPOINT.origin, PRIVATE)
    note = Note(SIGNED.note.text, (*SIGNED.note.signatures, *wrong.signatures))
    with pytest.raises(Damaged, match="not of this text"):
        read_checkpoint(note.to_text().encode(), [SIGNED.key])


def test_a_checkpoint_signed_by_somebody_else_is_refused_and_the_signer_is_named() -> None:
    forged = sign_checkpoint(CHECKPOINT, b"e" * 32)
    with pytest.raises(Damaged, match=f"not signed by a known key, but by .*{forged.key.key_id.hex()}") as raised:
        read_checkpoint(forged.note.to_text().encode(), [SIGNED.key], origin="kept.txt")
    assert raised.value.file == "kept.txt"
    with pytest.raises(Damaged):
        read_checkpoint(STORED, [])


def test_a_key_of_another_registry_does_not_sign_for_this_one() -> None:
    key = verifier_key("llmartifacts/ffffffffffffffff", PRIVATE)
    note = sign_note(CHECKPOINT.to_text(), key.name, PRIVATE)
    with pytest.raises(InvalidValue, match="is of 'llmartifacts/0123456789abcdef', and the key signs for"):
        read_checkpoint(note.to_text().encode(), [key])


@given(st.integers(0, len(STORED) - 1), st.integers(0, 255))
def test_a_signed_checkpoint_with_any_byte_changed_is_refused(at: int, value: int) -> None:
    changed = STORED[:at] + bytes([value]) + STORED[at + 1 :]
    if changed == STORED:
        return
    with pytest.raises(LlmartifactsError):
        read_checkpoint(changed, [SIGNED.key])


def test_a_signature_of_another_length_is_wrong() -> None:
    (signature,) = SIGNED.note.signatures
    for value in (signature.value[:-1], signature.value + b"\0"):
        note = Note(SIGNED.note.text, (type(signature)(signature.name, signature.key_id, value),))
        with pytest.raises(Damaged, match="not of this text"):
            verify_note(note, [SIGNED.key])


@pytest.mark.parametrize("text", ["", "no line end", "a\r\n", "a\tb\n", "\x1b[2J\n"])
def test_a_text_that_a_note_cannot_hold_is_not_signed(text: str) -> None:
    with pytest.raises(InvalidValue):
        sign_note(text, "a", PRIVATE)


@pytest.mark.parametrize("private", [b"", b"k" * 31, b"k" * 33, "k" * 32])
def test_what_is_no_private_key_is_refused(private: object) -> None:
    with pytest.raises(InvalidValue, match="32 bytes"):
        sign_note("a\n", "a", private)  # type: ignore[arg-type]
