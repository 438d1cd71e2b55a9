import hashlib
import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from llmartifacts.errors import InvalidManifest
from llmartifacts.records.audit import SCHEMA, AuditEvent, leaf_hash

AT = datetime(2026, 3, 3, 9, 0, tzinfo=UTC)


def event(**changes):
    fields = {
        "project": "default",
        "at": AT,
        "actor": "ada",
        "verb": "promote",
        "subject": "default@r1",
        "body": {"b": 1, "a": 2},
    }
    return AuditEvent(**{**fields, **changes})


def test_an_entry_is_canonical_json_with_its_schema():
    data = event().to_bytes()
    assert json.loads(data)["schema"] == SCHEMA
    assert json.loads(data)["at"] == "2026-03-03T09:00:00.000000Z"
    assert data == event(body={"a": 2, "b": 1}).to_bytes()
    assert data == event(at=AT.astimezone(timezone(timedelta(hours=5)))).to_bytes()


def test_every_field_changes_the_entry():
    changes = [
        {"project": "x"},
        {"at": AT + timedelta(microseconds=1)},
        {"actor": "x"},
        {"verb": "x"},
        {"subject": "x"},
        {"body": {}},
    ]
    assert len({event(**c).to_bytes() for c in [{}, *changes]}) == len(changes) + 1


def test_a_body_that_is_no_json_cannot_be_recorded():
    with pytest.raises(InvalidManifest):
        event(body={"x": object()}).to_bytes()


def test_the_hash_of_a_leaf_is_that_of_rfc6962():
    assert leaf_hash(b"").hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert leaf_hash(b"L123456").hex() == "395aa064aa4c29f7010acfe3f25db9485bbd4b91897b6ad7ad547639252b4d56"
    assert leaf_hash(b"x") == hashlib.sha256(b"\x00x").digest()
