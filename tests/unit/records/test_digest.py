import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.errors import InvalidReference
from llmartifacts.records.digest import (
    Blob,
    digest_bytes,
    digest_from_bytes,
    digest_from_hex,
    digest_of,
    parse_digest,
    short,
)


@given(st.binary(max_size=200))
def test_a_digest_is_the_sha256_of_the_bytes_and_keeps_its_value_in_every_form(data):
    digest = digest_of(data)
    assert digest == "sha256:" + hashlib.sha256(data).hexdigest()
    assert parse_digest(digest) == digest_from_hex(digest[7:]) == digest_from_bytes(digest_bytes(digest)) == digest
    assert digest_of(bytearray(data)) == digest_of(memoryview(data)) == digest
    assert len(digest_bytes(digest)) == 32
    assert short(digest) == digest[7:19]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 65,
        "sha256:" + "A" * 64,
        "sha256:" + "g" * 64,
        "a" * 64,
        "sha1:" + "a" * 64,
        "SHA256:" + "a" * 64,
        "sha256:" + "a" * 64 + "\n",
        " sha256:" + "a" * 64,
        None,
        7,
        b"sha256:" + b"a" * 64,
    ],
)
def test_whatever_else_is_no_digest_and_the_field_is_named(text):
    with pytest.raises(InvalidReference) as caught:
        parse_digest(text, field="files[0].digest")
    assert caught.value.field == "files[0].digest"


def test_hex_that_is_no_sha256_is_refused():
    with pytest.raises(InvalidReference):
        digest_from_hex("abc")


def test_a_blob_is_its_address_and_size():
    assert Blob(digest_of(b"x"), 1) == Blob(digest_of(b"x"), 1)
    assert {Blob(digest_of(b"x"), 1)} == {Blob(digest_of(b"x"), 1)}
