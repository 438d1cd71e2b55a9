"""Do the trusted keys and the signed statements say what the audit says?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llmartifacts.errors import LlmartifactsError
from llmartifacts.metadata import attestations
from llmartifacts.metadata.attestations import AttestationRow
from llmartifacts.metadata.database import Row, Session
from llmartifacts.records.canonical import parse_json
from llmartifacts.records.digest import digest_of, parse_digest
from llmartifacts.records.reference import Reference
from llmartifacts.records.times import parse_time, to_micros
from llmartifacts.signing.envelope import read_envelope
from llmartifacts.versioning.signed import accounted

_PROJECT = "select id from project where name_key = :p"
_NEAR = (
    "select x.envelope, x.recorded_by from attestation x where x.project_id = :p and x.purpose = 'withdrawal'"
    " and x.alias = :a and x.at = :at"
)


def approved(s: Session, event: Mapping[str, Any]) -> Iterator[str]:
    """One approval that the audit tells of."""
    number, body = int(event["subject"].rpartition("@a")[2]), event["body"]
    row = attestations.get(s, _project(s, event), number)
    if row is None or row.purpose != "approval":
        yield f"{event['subject']} is missing, and the audit tells of it"
        return
    said = (body["alias"], event["actor"], body["statement"], _micros(event))
    stored = (row.alias, row.recorded_by, _statement(row), row.at)
    for name, one, other in zip(("alias", "recorder", "statement", "time"), said, stored, strict=True):
        if one != other:
            yield f"{event['subject']}: the {name} is not what the audit says"
    digests = {subject.rpartition("@")[2] for subject in body["subjects"]}
    if set(attestations.subjects(s, number)) != digests:
        yield f"{event['subject']}: what it is filed under is not what the audit says"


def attested(s: Session, event: Mapping[str, Any]) -> Iterator[str]:
    """One signature under a report that the audit tells of."""
    project, body = _project(s, event), event["body"]
    reference = Reference.parse(event["subject"])
    row = s.row(
        "select v.digest from version v join collection c on c.id = v.collection_id"
        " where c.project_id = :p and c.name_key = :c and v.number = :n",
        {"p": project, "c": reference.name.casefold(), "n": reference.number},
    )
    digest = parse_digest(f"sha256:{bytes(row[0]).hex()}") if row else None
    known = [] if digest is None else attestations.concerning(s, project, "evaluation", "", [digest])
    told = (body["statement"], event["actor"], _micros(event))
    if all((_statement(one), one.recorded_by, one.at) != told for one in known):
        yield f"the signature of {body['person']} under {event['subject']} is missing, and the audit tells of it"


def withdrawn(s: Session, event: Mapping[str, Any]) -> Iterator[str]:
    """One approval that was taken back, as the audit tells."""
    number, project = int(event["subject"].rpartition("@a")[2]), _project(s, event)
    row = attestations.get(s, project, number)
    told = {"withdraws": number, "reason": event["body"]["reason"]}, event["actor"]
    near = [] if row is None else s.rows(_NEAR, {"p": project, "a": row.alias, "at": _micros(event)})
    if all((_read(one), one[1]) != told for one in near):
        yield f"the withdrawal of {event['subject']} is missing, and the audit tells of it"


def keys_disagree(s: Session, told: set[str]) -> Iterator[str]:
    """Trusted keys that are not what the audit tells of them.

    Args:
        s: A transaction.
        told: Id of every key that the audit tells of.
    """
    there = set()
    for key in attestations.keys(s):
        there.add(key.id)
        try:
            accounted(s, key)
        except LlmartifactsError as error:
            yield error.message
    for missing in sorted(told - there):
        yield f"the trusted key {missing[:12]} is missing, and the audit tells of it"


def _project(s: Session, event: Mapping[str, Any]) -> int:
    row = s.row(_PROJECT, {"p": event["project"].casefold()})
    return int(row[0]) if row else 0


def _micros(event: Mapping[str, Any]) -> int:
    return to_micros(parse_time(event["at"], field="audit.at"))


def _statement(row: AttestationRow) -> str:
    """Digest of what an envelope holds; empty where it cannot be read."""
    try:
        return digest_of(read_envelope(row.envelope.encode()).payload)
    except LlmartifactsError:
        return ""


def _read(row: Row) -> Any:
    try:
        return parse_json(row[0], field="withdrawal")
    except (LlmartifactsError, TypeError):
        return None
