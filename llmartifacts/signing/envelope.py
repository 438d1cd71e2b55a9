"""Envelopes: a payload, its type, and one Ed25519 signature over both.

Source: DSSE 1.0 (Dead Simple Signing Envelope), protocol and envelope; in-toto attestation framework (payload type).
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any

from llmartifacts.errors import Damaged, InvalidValue, TooLarge
from llmartifacts.records.arguments import shown
from llmartifacts.records.canonical import canonical_bytes, parse_json
from llmartifacts.signing.keys import PrivateKey, PublicKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_BYTES = 1 << 20
"""Bytes of an envelope: 1 MiB."""
SIGNATURE_BYTES = 64


@dataclass(frozen=True, slots=True)
class Envelope:
    """An envelope as it was read; nothing of it is verified yet.

    Attributes:
        payload: What is signed.
        payload_type: What that is.
        key: Id of the key that the signature is said to be of.
        signature: 64 bytes.
    """

    payload: bytes
    payload_type: str
    key: str
    signature: bytes

    def to_bytes(self) -> bytes:
        """The envelope as canonical JSON: one byte string for one envelope."""
        made = {"keyid": self.key, "sig": base64.b64encode(self.signature).decode()}
        return canonical_bytes(
            {
                "payload": base64.b64encode(self.payload).decode(),
                "payloadType": self.payload_type,
                "signatures": [made],
            },
            field="envelope",
        )


def seal(payload: bytes, key: PrivateKey) -> bytes:
    """Sign a statement.

    Args:
        payload: The statement, in JSON.
        key: Who signs.

    Returns:
        The envelope, in canonical JSON.

    Raises:
        TooLarge: It would be over 1 MiB.
    """
    from securesystemslib import dsse
    from securesystemslib.signer import CryptoSigner, SSlibKey  # type: ignore[attr-defined]

    private = key.crypto()
    made = dsse.Envelope(payload, PAYLOAD_TYPE, {})
    signed = made.sign(CryptoSigner(private, SSlibKey.from_crypto(private.public_key(), keyid=key.public.id)))
    data = Envelope(payload, PAYLOAD_TYPE, key.public.id, bytes.fromhex(signed.signature)).to_bytes()
    _refuse_large(data)
    return data


def read_envelope(data: bytes, *, origin: str = "") -> Envelope:
    """Read an envelope strictly. Its signature is not verified here.

    Args:
        data: JSON, at most 1 MiB.
        origin: Where it came from, for messages.

    Raises:
        InvalidManifest: It is no JSON, or has duplicate keys.
        InvalidValue: It is no DSSE envelope with one signature, or its payload is of another type.
        TooLarge: It is over 1 MiB.
    """
    _refuse_large(data, origin)
    body = parse_json(data, field="envelope", origin=origin, max_bytes=MAX_BYTES)
    fields = check_fields(body, ("payload", "payloadType", "signatures"), "envelope", origin)
    kind = fields["payloadType"]
    if kind != PAYLOAD_TYPE:
        raise InvalidValue(
            f"the payload is said to be {shown(kind, 80)}, and a statement is {PAYLOAD_TYPE}",
            field="payloadType",
            origin=origin,
        )
    signatures = fields["signatures"]
    if not isinstance(signatures, list) or len(signatures) != 1:
        raise InvalidValue("an envelope carries exactly one signature", field="signatures", origin=origin)
    signed = check_fields(signatures[0], ("keyid", "sig"), "signatures[0]", origin)
    key = signed["keyid"]
    if not isinstance(key, str) or len(key) != 64 or not set(key) <= set("0123456789abcdef"):
        raise InvalidValue(f"{shown(key)} is no key id", field="signatures[0].keyid", origin=origin)
    signature = _decoded(signed["sig"], "signatures[0].sig", origin)
    if len(signature) != SIGNATURE_BYTES:
        raise InvalidValue(
            f"the signature has {len(signature)} bytes, not {SIGNATURE_BYTES}",
            field="signatures[0].sig",
            origin=origin,
        )
    return Envelope(_decoded(fields["payload"], "payload", origin), PAYLOAD_TYPE, key, signature)


def verify(envelope: Envelope, key: PublicKey, *, origin: str = "") -> None:
    """Check that a key signed an envelope.

    Raises:
        Damaged: It did not: the signature is forged, or the payload was altered.
    """
    from securesystemslib import dsse
    from securesystemslib.exceptions import VerificationError
    from securesystemslib.signer import Signature, SSlibKey  # type: ignore[attr-defined]

    signature = Signature(envelope.key, envelope.signature.hex())
    public = SSlibKey(key.id, "ed25519", "ed25519", {"public": key.raw.hex()})
    made = dsse.Envelope(envelope.payload, envelope.payload_type, {envelope.key: signature})
    try:
        made.verify([public], 1)
    except VerificationError:
        raise Damaged(
            f"the signature does not fit the key {key.id[:12]}: it is forged, or what it is over was altered",
            field="envelope",
            origin=origin,
            next_step="Have it signed anew.",
        ) from None


def check_fields(value: Any, wanted: tuple[str, ...], field: str, origin: str = "") -> dict[str, Any]:
    """Check that a JSON value is an object with exactly these keys.

    Raises:
        InvalidValue: It is another thing, lacks one, or has one more; names it.
    """
    if not isinstance(value, dict):
        raise InvalidValue(f"{field} is no object", field=field, origin=origin)
    for key in wanted:
        if key not in value:
            raise InvalidValue(f"{field} has no {key!r}", field=f"{field}.{key}", origin=origin)
    for key in value:
        if key not in wanted:
            raise InvalidValue(f"{field} has {key!r:.60}, which nothing is known of", field=field, origin=origin)
    return value


def _refuse_large(data: bytes, origin: str = "") -> None:
    if not isinstance(data, bytes):
        raise InvalidValue("an envelope is bytes", field="envelope", origin=origin)
    if len(data) > MAX_BYTES:
        raise TooLarge(
            f"the envelope has {len(data):,} bytes, the limit is {MAX_BYTES:,}", field="envelope", origin=origin
        )


def _decoded(text: Any, field: str, origin: str) -> bytes:
    """Standard base64 in its one form: what decodes to the same bytes and reads otherwise is refused."""
    try:
        raw = base64.b64decode(text, validate=True) if isinstance(text, str) else None
    except (binascii.Error, ValueError):
        raw = None
    if raw is None or base64.b64encode(raw).decode() != text:
        raise InvalidValue(f"{field} is not base64", field=field, origin=origin)
    return raw
