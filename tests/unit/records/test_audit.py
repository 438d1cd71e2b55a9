import hashlib
import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.errors import InvalidManifest
from llmartifacts.records.audit import SCHEMA, AuditEvent, origin_of
from llmartifacts.records.merkle import leaf_hash

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


@given(
    st.builds(
        AuditEvent,
        st.text(max_size=20),
        st.datetimes(min_value=datetime(1970, 1, 2), timezones=st.just(UTC)),
        *[st.text(max_size=20)] * 3,
        st.dictionaries(st.text(max_size=5), st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=9)),
    )
)
def test_an_entry_is_read_as_it_was_written_and_takes_one_line(written):
    data = written.to_bytes()
    assert b"\n" not in data
    assert AuditEvent.from_bytes(data) == written
    assert AuditEvent.from_bytes(data.decode()) == written


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "llmartifacts/audit/2"},
        {"at": "yesterday"},
        {"at": 3},
        {"actor": None},
        {"body": []},
        {"more": 1},
        {"verb": ...},
    ],
)
def test_what_no_release_writes_is_no_entry(change):
    said = {**json.loads(event().to_bytes()), **change}
    data = json.dumps({name: value for name, value in said.items() if value is not ...})
    with pytest.raises(InvalidManifest) as raised:
        AuditEvent.from_bytes(data, origin="entry 7")
    assert raised.value.origin == "entry 7"


@pytest.mark.parametrize("data", [b"", b"[]", b"7", b"\xff", b'{"a":1,"a":2}'])
def test_other_json_is_no_entry(data):
    with pytest.raises(InvalidManifest):
        AuditEvent.from_bytes(data)


def test_a_registry_is_known_by_the_hash_of_its_first_entry():
    assert origin_of(leaf_hash(b"")) == "llmartifacts/6e340b9cffb37a98"


def test_a_body_that_is_no_json_cannot_be_recorded():
    with pytest.raises(InvalidManifest):
        event(body={"x": object()}).to_bytes()


def test_the_hash_of_a_leaf_is_that_of_rfc6962():
    assert leaf_hash(b"").hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert leaf_hash(b"L123456").hex() == "395aa064aa4c29f7010acfe3f25db9485bbd4b91897b6ad7ad547639252b4d56"
    assert leaf_hash(b"x") == hashlib.sha256(b"\x00x").digest()
