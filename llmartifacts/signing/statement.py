"""Statements: what is signed, as in-toto Statement v1. An approval, an evaluation, a key that takes another's place.

Source: in-toto attestation framework, Statement v1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from llmartifacts.errors import InvalidReference, InvalidValue, LlmartifactsError
from llmartifacts.records.approval import Binding, Serving, Subject, check_person
from llmartifacts.records.arguments import check_text, shown
from llmartifacts.records.audit import check_origin
from llmartifacts.records.canonical import MAX_INTEGER, canonical_bytes, parse_json
from llmartifacts.records.digest import Digest, digest_of, parse_digest
from llmartifacts.records.names import check_alias, check_name
from llmartifacts.records.reference import Reference
from llmartifacts.records.times import parse_time, to_text
from llmartifacts.signing.envelope import MAX_BYTES, check_fields
from llmartifacts.signing.keys import PublicKey, parse_public

STATEMENT = "https://in-toto.io/Statement/v1"
APPROVAL = "urn:llmartifacts:approval:1"
EVALUATION = "urn:llmartifacts:evaluation:1"
ROTATION = "urn:llmartifacts:key-rotation:1"
EXPORT = "urn:llmartifacts:export:1"
_WHAT = {APPROVAL: "an approval", EVALUATION: "an evaluation", ROTATION: "a change of keys", EXPORT: "an export"}


@dataclass(frozen=True, slots=True)
class ApprovalStatement:
    """A person's yes.

    Attributes:
        binding: What it is for.
        person: Who says it.
        reason: Why; may be empty.
        at: When, UTC, by the clock of whoever signs.
        expires: From when on it no longer counts; None for never.
    """

    binding: Binding
    person: str
    reason: str
    at: datetime
    expires: datetime | None = None

    def to_bytes(self) -> bytes:
        """The statement in canonical JSON."""
        bound = self.binding
        predicate = {
            "registry": bound.registry,
            "project": bound.project,
            "alias": bound.alias,
            "serving": {name: {"digest": s.digest, "move": s.move} for name, s in bound.serving.items()},
            "policy": bound.policy,
            "person": self.person,
            "reason": self.reason,
            "at": to_text(self.at),
            "expires": None if self.expires is None else to_text(self.expires),
        }
        return statement_bytes(APPROVAL, [(str(s), s.digest) for s in bound.subjects], predicate)


@dataclass(frozen=True, slots=True)
class EvaluationStatement:
    """A person vouches for a report.

    Attributes:
        project: Name of the project.
        report: The version of the report.
        config: Digest of its config, in canonical JSON.
        person: Who vouches.
        reason: Why; may be empty.
        at: When, UTC, by the clock of whoever signs.
    """

    project: str
    report: Subject
    config: Digest
    person: str
    reason: str
    at: datetime

    def to_bytes(self) -> bytes:
        """The statement in canonical JSON."""
        predicate = {
            "project": self.project,
            "config": self.config,
            "person": self.person,
            "reason": self.reason,
            "at": to_text(self.at),
        }
        return statement_bytes(EVALUATION, [(str(self.report), self.report.digest)], predicate)


@dataclass(frozen=True, slots=True)
class RotationStatement:
    """A key hands over to another one of the same person.

    Attributes:
        person: Whose keys they are.
        replaces: Id of the key that signs this, and is revoked with it.
        public: The new key.
        at: When, UTC, by the clock of whoever signs.
    """

    person: str
    replaces: str
    public: PublicKey
    at: datetime

    def to_bytes(self) -> bytes:
        """The statement in canonical JSON."""
        predicate = {
            "person": self.person,
            "replaces": self.replaces,
            "public": self.public.text,
            "at": to_text(self.at),
        }
        return statement_bytes(ROTATION, [("key", Digest(f"sha256:{self.public.id}"))], predicate)


def read_approval(payload: bytes, *, origin: str = "") -> ApprovalStatement:
    """Read an approval strictly.

    Raises:
        InvalidInput: It is no approval, or a part of it cannot be; names the field.
    """
    subjects, said = read_statement(payload, APPROVAL, _APPROVAL_FIELDS, origin)
    serving = said["serving"]
    named = [_subject(name, digest, origin) for name, digest in subjects]
    if not isinstance(serving, dict) or serving.keys() != {s.name for s in named} or len(serving) != len(named):
        raise InvalidValue("serving names exactly the collections of the subjects", field="serving", origin=origin)
    binding = Binding(
        checked_by(check_name, said["project"], "project", origin),
        checked_by(check_alias, said["alias"], "alias", origin),
        tuple(sorted(named, key=lambda s: s.name)),
        {name: _serving(value, name, origin) for name, value in sorted(serving.items())},
        None if said["policy"] is None else checked_by(parse_digest, said["policy"], "policy", origin),
        checked_by(check_origin, said["registry"], "registry", origin),
    )
    expires = None if said["expires"] is None else _time(said["expires"], "expires", origin)
    return ApprovalStatement(binding, *signer_of(said, origin), expires)


def read_evaluation(payload: bytes, *, origin: str = "") -> EvaluationStatement:
    """Read an evaluation strictly. Raises as `read_approval`."""
    subjects, said = read_statement(payload, EVALUATION, ("project", "config", "person", "reason", "at"), origin)
    if len(subjects) != 1:
        raise InvalidValue("an evaluation is of one report", field="subject", origin=origin)
    return EvaluationStatement(
        checked_by(check_name, said["project"], "project", origin),
        _subject(*subjects[0], origin),
        checked_by(parse_digest, said["config"], "config", origin),
        *signer_of(said, origin),
    )


def read_rotation(payload: bytes, *, origin: str = "") -> RotationStatement:
    """Read the change of a key strictly. Raises as `read_approval`."""
    subjects, said = read_statement(payload, ROTATION, ("person", "replaces", "public", "at"), origin)
    public = checked_by(parse_public, said["public"], "public", origin)
    if subjects != [("key", f"sha256:{public.id}")]:
        raise InvalidValue("the subject is not the new key", field="subject", origin=origin)
    replaces = said["replaces"]
    if not isinstance(replaces, str):
        raise InvalidValue("replaces is no key id", field="replaces", origin=origin)
    person = checked_by(check_person, said["person"], "person", origin)
    return RotationStatement(person, replaces, public, _time(said["at"], "at", origin))


def config_digest(config: Mapping[str, Any]) -> Digest:
    """The digest of a config in canonical JSON."""
    return digest_of(canonical_bytes(dict(config)))


_APPROVAL_FIELDS = ("registry", "project", "alias", "serving", "policy", "person", "reason", "at", "expires")


def statement_bytes(kind: str, subjects: Sequence[tuple[str, Digest]], predicate: dict[str, Any]) -> bytes:
    """A statement of some kind in canonical JSON: what it is about, each with its digest, and what it says."""
    body = {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": digest.removeprefix("sha256:")}} for name, digest in subjects],
        "predicateType": kind,
        "predicate": predicate,
    }
    return canonical_bytes(body, field="statement", max_bytes=MAX_BYTES)


def read_statement(
    payload: bytes, kind: str, fields: tuple[str, ...], origin: str
) -> tuple[list[tuple[str, Digest]], dict[str, Any]]:
    """Subjects and predicate of a statement of one kind, each with exactly the fields it has. Raises `InvalidInput`."""
    body = parse_json(payload, field="statement", origin=origin, max_bytes=MAX_BYTES)
    top = check_fields(body, ("_type", "subject", "predicateType", "predicate"), "statement", origin)
    if top["_type"] != STATEMENT:
        raise InvalidValue(f"{shown(top['_type'], 80)} is not {STATEMENT}", field="_type", origin=origin)
    if top["predicateType"] != kind:
        told = f"{_WHAT[kind]} is {kind}, and this is {shown(top['predicateType'], 80)}"
        raise InvalidValue(told, field="predicateType", origin=origin)
    if not isinstance(top["subject"], list) or not top["subject"]:
        raise InvalidValue("the statement is about nothing", field="subject", origin=origin)
    subjects = []
    for i, one in enumerate(top["subject"]):
        field = f"subject[{i}]"
        named = check_fields(one, ("name", "digest"), field, origin)
        digest = check_fields(named["digest"], ("sha256",), f"{field}.digest", origin)["sha256"]
        if not isinstance(named["name"], str):
            raise InvalidValue(f"{field} has no name", field=f"{field}.name", origin=origin)
        subjects.append((named["name"], checked_by(parse_digest, f"sha256:{digest}", f"{field}.digest", origin)))
    return subjects, check_fields(top["predicate"], fields, "predicate", origin)


def _subject(name: str, digest: Digest, origin: str) -> Subject:
    parsed: Reference = checked_by(Reference.parse, name, "subject", origin)
    if parsed.number is None or str(parsed) != name or parsed.project is not None or parsed.digest is not None:
        raise InvalidValue(f"{shown(name)} is not name:vN", field="subject", origin=origin)
    return Subject(parsed.name, parsed.number, digest)


def _serving(value: Any, name: str, origin: str) -> Serving:
    field = f"serving.{name}"
    said = check_fields(value, ("digest", "move"), field, origin)
    move = said["move"]
    if type(move) is not int or not 0 <= move <= MAX_INTEGER:
        raise InvalidValue(f"{shown(move)} is no move number", field=f"{field}.move", origin=origin)
    digest = said["digest"]
    return Serving(None if digest is None else checked_by(parse_digest, digest, f"{field}.digest", origin), move)


def signer_of(said: dict[str, Any], origin: str) -> tuple[str, str, datetime]:
    """Who signs, why, and when, of a predicate that was read. Raises `InvalidInput`."""
    person = checked_by(check_person, said["person"], "person", origin)
    return person, checked_by(check_text, said["reason"], "reason", origin), _time(said["at"], "at", origin)


def _time(value: Any, field: str, origin: str) -> datetime:
    made: datetime = checked_by(parse_time, value if isinstance(value, str) else None, field, origin)
    if to_text(made) != value:
        raise InvalidValue(f"{shown(value, 60)} is not a time in UTC with microseconds", field=field, origin=origin)
    return made


def checked_by(check: Any, value: Any, field: str, origin: str) -> Any:
    """What a validator makes of a value; where it refuses it, so does this, and says where the value came from."""
    try:
        return check(value, field=field)
    except LlmartifactsError as error:
        kind = InvalidReference if isinstance(error, InvalidReference) else InvalidValue
        raise kind.of(error, origin=origin) from None
