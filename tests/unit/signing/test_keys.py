"""Public keys as text, private keys as PEM, and keys that are refused."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.errors import InvalidValue
from llmartifacts.signing.keys import PrivateKey, PublicKey, parse_public


def test_the_text_of_a_key_is_read_back(ada: PrivateKey) -> None:
    assert parse_public(ada.public.text) == ada.public
    assert parse_public(f"  {ada.public.text} ada lovelace\n") == ada.public
    assert parse_public(ada.public.text.encode()) == ada.public
    assert len(ada.public.text) == len("ed25519:") + 44


def test_the_id_is_the_hash_of_the_der_form_as_other_tools_compute_it(ada: PrivateKey) -> None:
    der = Ed25519PublicKey.from_public_bytes(ada.public.raw).public_bytes(
        form.Encoding.DER, form.PublicFormat.SubjectPublicKeyInfo
    )
    assert ada.public.id == hashlib.sha256(der).hexdigest()


def test_a_pem_of_a_public_key_is_read(ada: PrivateKey) -> None:
    pem = Ed25519PublicKey.from_public_bytes(ada.public.raw).public_bytes(
        form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo
    )
    assert parse_public(pem) == ada.public


def test_a_private_key_survives_its_file_with_and_without_a_passphrase(ada: PrivateKey) -> None:
    assert PrivateKey.from_pem(ada.to_pem()).public == ada.public
    locked = ada.to_pem("a long one")
    assert PrivateKey.from_pem(locked, "a long one").public == ada.public
    with pytest.raises(InvalidValue, match="locked with a passphrase"):
        PrivateKey.from_pem(locked)
    with pytest.raises(InvalidValue, match="passphrase is wrong"):
        PrivateKey.from_pem(locked, "another")


def test_a_private_key_never_shows_itself(ada: PrivateKey) -> None:
    secret = ada.crypto().private_bytes_raw().hex()
    assert secret not in repr(ada) + str(ada)
    assert repr(ada) == f"<PrivateKey {ada.public.id[:12]}>"


def test_a_private_key_given_as_a_public_one_is_refused_and_not_repeated(ada: PrivateKey) -> None:
    pem = ada.to_pem().decode()
    with pytest.raises(InvalidValue) as caught:
        parse_public(pem)
    assert "private key" in str(caught.value)
    assert pem.splitlines()[1] not in str(caught.value)


def test_a_key_of_another_algorithm_is_refused() -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    pem = other.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    with pytest.raises(InvalidValue, match="not an Ed25519 key"):
        PrivateKey.from_pem(pem)
    public = other.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(InvalidValue):
        parse_public(public)


SMALL_ORDER = [
    "00" * 32,
    "01" + "00" * 31,
    "01" + "00" * 30 + "80",
    "ec" + "ff" * 30 + "7f",
    "ec" + "ff" * 31,
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "ed" + "ff" * 30 + "7f",  # not canonical: p
    "ee" + "ff" * 30 + "7f",  # p + 1
]


@pytest.mark.parametrize("raw", SMALL_ORDER)
def test_a_key_under_which_anybody_can_sign_is_refused(raw: str) -> None:
    with pytest.raises(InvalidValue, match="anybody"):
        parse_public(PublicKey(bytes.fromhex(raw)).text)


def test_such_a_key_would_indeed_take_a_signature_that_nobody_made() -> None:
    identity = Ed25519PublicKey.from_public_bytes(bytes.fromhex(SMALL_ORDER[1]))
    identity.verify(bytes.fromhex("01" + "00" * 63), b"whatever anybody likes")


@given(st.text() | st.binary(max_size=100).map(lambda b: "ed25519:" + b.hex()))
def test_whatever_else_is_given_is_refused_in_a_typed_way(text: str) -> None:
    with pytest.raises(InvalidValue):
        parse_public(text)


@pytest.mark.parametrize("text", ["", "ed25519:", "ssh-ed25519 AAAA", "ed25519:" + "A" * 5000, "ed25519:AA==", 7])
def test_what_is_no_key_says_what_one_looks_like(text: object) -> None:
    with pytest.raises(InvalidValue) as caught:
        parse_public(text)  # type: ignore[arg-type]
    assert "ed25519:" in caught.value.hint()


def test_base64_in_another_spelling_is_refused(ada: PrivateKey) -> None:
    """The last character carries two bits that mean nothing; a second text for one key would be a second name."""
    text = ada.public.text
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = text[:-2] + alphabet[alphabet.index(text[-2]) ^ 1] + "="
    with pytest.raises(InvalidValue):
        parse_public(other)


def test_neither_importing_nor_connecting_loads_cryptography() -> None:
    code = (
        "import sys, llmartifacts, llmartifacts.connect, llmartifacts.versioning.embedded;"
        "import llmartifacts.gates.approvals, llmartifacts.signing.approving;"
        "sys.exit(str([m for m in sys.modules if m.split('.')[0] in ('cryptography', 'securesystemslib')] or ''))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stderr.strip() == ""
