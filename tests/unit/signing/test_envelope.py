"""Envelopes: what is refused before anything in it is believed."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib import dsse
from securesystemslib.signer import SSlibKey

from llmartifacts.errors import Damaged, InvalidInput, InvalidManifest, InvalidValue, TooLarge
from llmartifacts.signing.envelope import MAX_BYTES, Envelope, read_envelope, seal, verify
from llmartifacts.signing.keys import PrivateKey

PAYLOAD = b'{"said": "yes"}'


def changed(envelope: bytes, **fields: Any) -> bytes:
    return json.dumps({**json.loads(envelope), **fields}).encode()


def signature(envelope: bytes) -> dict[str, str]:
    (one,) = json.loads(envelope)["signatures"]
    return dict(one)


def test_what_was_sealed_is_read_and_verified(ada: PrivateKey) -> None:
    sealed = seal(PAYLOAD, ada)
    read = read_envelope(sealed)
    assert (read.payload, read.key) == (PAYLOAD, ada.public.id)
    verify(read, ada.public)
    assert read.to_bytes() == sealed


def test_other_tools_verify_it_as_dsse(ada: PrivateKey) -> None:
    read = dsse.Envelope.from_dict(json.loads(seal(PAYLOAD, ada)))
    key = SSlibKey(ada.public.id, "ed25519", "ed25519", {"public": ada.public.raw.hex()})
    assert read.verify([key], 1)
    assert read.pae() == b"DSSEv1 28 application/vnd.in-toto+json 15 " + PAYLOAD


def test_a_tampered_payload_does_not_fit_its_signature(ada: PrivateKey) -> None:
    sealed = changed(seal(PAYLOAD, ada), payload=base64.b64encode(b'{"said": "no"}').decode())
    with pytest.raises(Damaged, match="forged, or what it is over was altered"):
        verify(read_envelope(sealed), ada.public)


def test_a_signature_of_another_key_under_this_keys_id_is_forged(ada: PrivateKey, eve: PrivateKey) -> None:
    theirs = signature(seal(PAYLOAD, eve))
    sealed = changed(seal(PAYLOAD, ada), signatures=[{"keyid": ada.public.id, "sig": theirs["sig"]}])
    with pytest.raises(Damaged):
        verify(read_envelope(sealed), ada.public)


def test_a_signature_counts_for_the_key_it_names_only(ada: PrivateKey, eve: PrivateKey) -> None:
    with pytest.raises(Damaged):
        verify(read_envelope(seal(PAYLOAD, ada)), eve.public)
    renamed = changed(seal(PAYLOAD, ada), signatures=[{**signature(seal(PAYLOAD, ada)), "keyid": eve.public.id}])
    for key in (ada, eve):
        with pytest.raises(Damaged):
            verify(read_envelope(renamed), key.public)


def test_the_type_of_the_payload_is_signed_too(ada: PrivateKey) -> None:
    read = read_envelope(seal(PAYLOAD, ada))
    with pytest.raises(Damaged):
        verify(Envelope(read.payload, "text/plain", read.key, read.signature), ada.public)


@given(st.integers(0, 63), st.integers(1, 255))
def test_any_bit_of_a_signature_matters(ada: PrivateKey, place: int, mask: int) -> None:
    read = read_envelope(seal(PAYLOAD, ada))
    other = bytearray(read.signature)
    other[place] ^= mask
    with pytest.raises(Damaged):
        verify(Envelope(read.payload, read.payload_type, read.key, bytes(other)), ada.public)


def test_a_payload_of_another_type_is_refused(ada: PrivateKey) -> None:
    with pytest.raises(InvalidValue) as caught:
        read_envelope(changed(seal(PAYLOAD, ada), payloadType="application/json"))
    assert caught.value.field == "payloadType"


def test_a_huge_envelope_is_refused_unread(ada: PrivateKey) -> None:
    with pytest.raises(TooLarge):
        read_envelope(b"{" * (MAX_BYTES + 1))
    with pytest.raises(TooLarge):
        seal(b"x" * MAX_BYTES, ada)


def test_duplicate_keys_are_refused(ada: PrivateKey) -> None:
    twice = seal(PAYLOAD, ada).replace(b'{"payload":', b'{"payload":"bm8=","payload":', 1)
    with pytest.raises(InvalidManifest, match="appears twice"):
        read_envelope(twice)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"signatures": []}, "signatures"),
        ({"signatures": "x"}, "signatures"),
        ({"signatures": [{"keyid": "0" * 64, "sig": "AA=="}] * 2}, "signatures"),
        ({"signatures": [{"keyid": "0" * 64}]}, "signatures[0].sig"),
        ({"signatures": [{"keyid": "0" * 63, "sig": "AA=="}]}, "signatures[0].keyid"),
        ({"signatures": [{"keyid": "G" * 64, "sig": "AA=="}]}, "signatures[0].keyid"),
        ({"signatures": [{"keyid": None, "sig": "AA=="}]}, "signatures[0].keyid"),
        ({"signatures": [{"keyid": "0" * 64, "sig": "AA=="}]}, "signatures[0].sig"),
        ({"signatures": [{"keyid": "0" * 64, "sig": "no!"}]}, "signatures[0].sig"),
        ({"signatures": [{"keyid": "0" * 64, "sig": "AA==", "cert": ""}]}, "signatures[0]"),
        ({"payload": "no!"}, "payload"),
        ({"payload": "aGk"}, "payload"),
        ({"payload": "aGl="}, "payload"),
        ({"payload": "aG k="}, "payload"),
        ({"payload": 7}, "payload"),
        ({"extra": 1}, "envelope"),
    ],
)
def test_what_is_no_envelope_names_the_field(ada: PrivateKey, fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        read_envelope(changed(seal(PAYLOAD, ada), **fields), origin="default@a1")
    assert (caught.value.field, caught.value.origin) == (field, "default@a1")


@given(st.binary(max_size=300) | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(str).map(str.encode))
def test_whatever_else_is_given_is_refused_in_a_typed_way(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        read_envelope(data)
