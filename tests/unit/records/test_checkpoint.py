"""Checkpoints, signed notes and verifier keys as text: what is read, and what is refused."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.errors import InvalidValue, TooLarge
from llmartifacts.records.checkpoint import MAX_NOTE, MAX_SIZE, Checkpoint, Note, Signature, VerifierKey

ROOT = bytes(range(32))
ENCODED = base64.b64encode(ROOT).decode()
TEXT = f"llmartifacts/0123456789abcdef\n42\n{ENCODED}\n"
MARK = base64.b64encode(b"\1\2\3\4" + bytes(64)).decode()
NOTE = f"{TEXT}\n— llmartifacts/0123456789abcdef {MARK}\n"
# The key of Go's checksum database, as its documentation gives it.
GO = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"


def test_a_checkpoint_is_three_lines() -> None:
    made = Checkpoint("llmartifacts/0123456789abcdef", 42, ROOT)
    assert made.to_text() == TEXT
    assert Checkpoint.from_text(TEXT) == made


def test_lines_that_other_tools_add_are_ignored() -> None:
    assert Checkpoint.from_text(f"{TEXT}something else\n") == Checkpoint.from_text(TEXT)


@given(st.integers(0, MAX_SIZE), st.binary(min_size=32, max_size=32))
def test_every_checkpoint_is_read_as_it_was_written(size: int, root: bytes) -> None:
    made = Checkpoint("llmartifacts/0123456789abcdef", size, root)
    assert Checkpoint.from_text(made.to_text()) == made


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("", "checkpoint"),
        ("a\n1\n", "checkpoint"),
        (f"\n42\n{ENCODED}\n", "checkpoint"),
        (f"a\n42\n{ENCODED}", "checkpoint"),
        (f"a\n42\n{ENCODED}\n\n", "checkpoint"),
        (f"a\n042\n{ENCODED}\n", "checkpoint.size"),
        (f"a\n-1\n{ENCODED}\n", "checkpoint.size"),
        (f"a\n+1\n{ENCODED}\n", "checkpoint.size"),
        (f"a\n1e3\n{ENCODED}\n", "checkpoint.size"),
        (f"a\n٣\n{ENCODED}\n", "checkpoint.size"),
        (f"a\n{2**53}\n{ENCODED}\n", "checkpoint.size"),
        (f"a\n{'9' * 5000}\n{ENCODED}\n", "checkpoint.size"),
        ("a\n42\nnot base64\n", "checkpoint.root"),
        (f"a\n42\n{base64.b64encode(bytes(31)).decode()}\n", "checkpoint.root"),
        (f"a\n42\n{ENCODED.rstrip('=')}\n", "checkpoint.root"),
        (f"a\n42\n {ENCODED}\n", "checkpoint.root"),
    ],
)
def test_what_is_no_checkpoint_is_refused_with_the_line_that_is_wrong(text: str, field: str) -> None:
    with pytest.raises(InvalidValue) as raised:
        Checkpoint.from_text(text, origin="kept.txt")
    assert (raised.value.field, raised.value.origin) == (field, "kept.txt")
    assert raised.value.hint()


def test_a_note_is_taken_apart_into_its_text_and_its_signatures() -> None:
    note = Note.from_bytes(NOTE.encode())
    assert note == Note(TEXT, (Signature("llmartifacts/0123456789abcdef", b"\1\2\3\4", bytes(64)),))
    assert note.to_text() == NOTE


def test_a_note_may_have_several_signatures_and_empty_lines_in_its_text() -> None:
    note = Note.from_bytes(f"one\n\ntwo\n\n— a {MARK}\n— b {MARK}\n".encode())
    assert note.text == "one\n\ntwo\n"
    assert [s.name for s in note.signatures] == ["a", "b"]


def test_sixteen_signatures_are_read_and_very_many_are_not() -> None:
    def signed(count: int) -> bytes:
        return f"{TEXT}\n{f'— a {MARK}{chr(10)}' * count}".encode()

    assert len(Note.from_bytes(signed(16)).signatures) == 16
    with pytest.raises(TooLarge, match="65 signatures"):
        Note.from_bytes(signed(65))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "ends with an empty line"),
        (TEXT.encode(), "ends with an empty line"),
        (f"{TEXT}\n".encode(), "ends with an empty line"),
        (NOTE.rstrip("\n").encode(), "ends with an empty line"),
        (f"\n\n— a {MARK}\n".encode(), "ends with an empty line"),
        (NOTE.replace("\n", "\r\n").encode(), "a carriage return"),
        (NOTE.replace("42", "4\x1b[2J2").encode(), r"'\\x1b'"),
        (NOTE.replace("42", "4\t2").encode(), r"'\\t'"),
        (NOTE.encode("utf-16"), "not UTF-8"),
        (b"\xff\xfe" + NOTE.encode(), "not UTF-8"),
        (NOTE.replace("—", "-").encode(), "dash"),
        (NOTE.replace("— ", "—").encode(), "dash"),
        (f"{TEXT}\n— a+b {MARK}\n".encode(), "dash"),
        (f"{TEXT}\n— a\u00a0b {MARK}\n".encode(), "dash"),
        (f"{TEXT}\n—  {MARK}\n".encode(), "dash"),
        (f"{TEXT}\n— a\n".encode(), "dash"),
        (f"{TEXT}\n— a ????\n".encode(), "no signature in base64"),
        (f"{TEXT}\n— a AAAA\n".encode(), "no signature in base64"),
        (f"{TEXT}\n— a {MARK} \n".encode(), "no signature in base64"),
    ],
)
def test_what_is_no_signed_note_is_refused(data: bytes, told: str) -> None:
    with pytest.raises(InvalidValue, match=told) as raised:
        Note.from_bytes(data, origin="kept.txt")
    assert raised.value.origin == "kept.txt"
    assert raised.value.field.startswith("checkpoint")


def test_a_huge_file_is_refused_before_it_is_read() -> None:
    with pytest.raises(TooLarge, match="65,536"):
        Note.from_bytes(b"a" * (MAX_NOTE + 1))


@given(st.binary(max_size=300))
def test_bytes_of_any_sort_are_a_note_or_a_typed_error(data: bytes) -> None:
    for given_bytes in (data, TEXT.encode() + data, NOTE.encode() + data):
        try:
            note = Note.from_bytes(given_bytes)
        except (InvalidValue, TooLarge):
            continue
        assert note.to_text().encode() == given_bytes


def test_a_verifier_key_is_the_one_that_other_tools_read() -> None:
    key = VerifierKey.parse(GO)
    assert (key.name, key.key_id.hex(), str(key)) == ("sum.golang.org", "033de0ae", GO)
    assert VerifierKey.parse(f"  {GO}\n") == key
    assert VerifierKey.named(key.name, key.public) == key


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no verifier key"),
        ("sum.golang.org", "no verifier key"),
        (GO.replace("033de0ae", "033de0a"), "no verifier key"),
        (GO.replace("033de0ae", "033DE0AE"), "no verifier key"),
        (GO.replace("sum.golang", "sum golang"), "no verifier key"),
        (GO[:-1], "no verifier key"),
        (GO.replace("sum.golang", "sun.golang"), "its id is 033de0ae, and it is"),
        (GO.replace("033de0ae", "00000000"), "its id is 00000000"),
        (GO.replace("+Ac4z", "+As4z"), "of type 2"),
        ("a+00000000+AQ==", "with 0 bytes"),
        ("\x1b[2J+00000000+AQ==", "no verifier key"),
    ],
)
def test_what_is_no_verifier_key_is_refused(text: str, told: str) -> None:
    with pytest.raises(InvalidValue, match=told) as raised:
        VerifierKey.parse(text, origin="verifier.key")
    assert raised.value.field == "key"
    assert "\x1b" not in str(raised.value)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "a\x1bb", "x" * 257])
def test_a_key_cannot_have_a_name_that_a_note_cannot_hold(name: str) -> None:
    with pytest.raises(InvalidValue, match="no name of a key"):
        VerifierKey.named(name, bytes(32))


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(InvalidValue, match="32 bytes, this one 31"):
        VerifierKey.named("a", bytes(31))
