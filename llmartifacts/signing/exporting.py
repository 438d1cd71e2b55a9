"""Signatures under exports: a person says that a file is what they exported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from llmartifacts.errors import InvalidValue
from llmartifacts.records.approval import TrustedKey
from llmartifacts.records.audit import check_origin
from llmartifacts.records.digest import Digest
from llmartifacts.records.times import to_text
from llmartifacts.signing.envelope import read_envelope, seal, verify
from llmartifacts.signing.key_files import load
from llmartifacts.signing.keys import parse_public
from llmartifacts.signing.statement import EXPORT, checked_by, read_statement, signer_of, statement_bytes

_SUBJECT = "export"


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signed an export.

    Attributes:
        key: Id of the key, 64 hex digits.
        person: Whose key it is, by the registry that imports; empty where it does not trust the key.
        said: Who signed, as the signature says.
        at: When, UTC, by the clock of whoever signed.
    """

    key: str
    person: str
    said: str
    at: datetime


def sign_export(digest: Digest, origin: str, *, key: str) -> bytes:
    """Sign an export.

    Args:
        digest: SHA-256 of its bytes up to the signature.
        origin: The registry that it is of.
        key: Name of a key of this machine, or path of its file.

    Returns:
        The envelope.

    Raises:
        NotFound: There is no such key.
        NotAllowed: Others may read it.
        InvalidValue: It is none, it says nobody's name, or its passphrase is missing or wrong.
    """
    signing = load(key)
    if not signing.file.person:
        raise InvalidValue(
            f"the key {signing.file.name} says nobody's name", field="key", next_step="Keep its .pub file beside it."
        )
    said = {"registry": origin, "person": signing.file.person, "reason": "", "at": to_text(datetime.now(UTC))}
    return seal(statement_bytes(EXPORT, [(_SUBJECT, digest)], said), signing.private)


def check_signature(
    envelope: bytes, digest: Digest, origin: str, trusted: Sequence[TrustedKey], *, file: str
) -> Signer | None:
    """Who signed an export; None where the key is none that the registry trusts, so that nobody can say.

    Args:
        envelope: The signature.
        digest: SHA-256 of the bytes of the export up to it.
        origin: The registry that the export says it is of.
        trusted: The keys that the registry trusts or trusted.
        file: Where the export lies, for messages.

    Raises:
        InvalidValue: It is no signature, or one of another export.
        Damaged: It is forged.
    """
    read = read_envelope(envelope, origin=file)
    subjects, said = read_statement(read.payload, EXPORT, ("registry", "person", "reason", "at"), file)
    registry = checked_by(check_origin, said["registry"], "registry", file)
    if subjects != [(_SUBJECT, digest)] or registry != origin:
        raise InvalidValue("the signature is that of another export", field="signature", origin=file)
    person, _, at = signer_of(said, file)
    known = next((key for key in trusted if key.id == read.key), None)
    if known is None:
        return None
    verify(read, parse_public(known.public), origin=file)
    return Signer(known.id, "" if known.revoked_at is not None else known.person, person, at)
