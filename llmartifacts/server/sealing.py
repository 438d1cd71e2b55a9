"""Answers that hold a secret, kept so that only whoever has the secret that they asked with can read them again."""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_NONCE = 12


def seal(secret: str, body: bytes) -> bytes:
    """Encrypt an answer (AES-256-GCM).

    Args:
        secret: What the caller asked with; random, and kept nowhere here.
        body: The answer.
    """
    nonce = os.urandom(_NONCE)
    return nonce + AESGCM(_key(secret)).encrypt(nonce, body, None)


def unseal(secret: str, sealed: bytes) -> bytes | None:
    """Decrypt an answer; None where it was sealed with another secret, or altered."""
    try:
        return AESGCM(_key(secret)).decrypt(sealed[:_NONCE], sealed[_NONCE:], None)
    except (InvalidTag, ValueError):
        return None


def _key(secret: str) -> bytes:
    return HKDF(SHA256(), 32, None, b"llmartifacts/sealed-answer/1").derive(secret.encode())
