"""Envelopes as an attacker would send them: whatever is changed, it is refused, or says exactly what was signed."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.errors import Damaged, InvalidInput
from llmartifacts.records.approval import Binding, Serving, Subject
from llmartifacts.records.digest import digest_of
from llmartifacts.signing.envelope import MAX_BYTES, read_envelope, seal, verify
from llmartifacts.signing.keys import PrivateKey
from llmartifacts.signing.statement import ApprovalStatement, read_approval

ADA = PrivateKey.generate()
BOUND = Binding(
    "default",
    "prod",
    (Subject("agent", 2, digest_of(b"2")),),
    {"agent": Serving(digest_of(b"1"), 4)},
    registry="llmartifacts/0123456789abcdef",
)
SAID = ApprovalStatement(BOUND, "Ada", "fine", datetime(2026, 3, 3, tzinfo=UTC))
SEALED = seal(SAID.to_bytes(), ADA)


def believed(data: bytes) -> ApprovalStatement | None:
    """What is taken from an envelope; None if it is refused, in a typed way."""
    try:
        sealed = read_envelope(data)
        verify(sealed, ADA.public)
        return read_approval(sealed.payload)
    except (InvalidInput, Damaged):
        return None


def test_the_untouched_envelope_is_believed() -> None:
    assert believed(SEALED) == SAID


@given(st.integers(0, len(SEALED) - 1), st.integers(0, 8), st.binary(max_size=8))
def test_bytes_put_in_or_taken_out_change_nothing_that_is_believed(at: int, gone: int, put: bytes) -> None:
    assert believed(SEALED[:at] + put + SEALED[at + gone :]) in (None, SAID)


payload = json.loads(SAID.to_bytes())
values = st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just([]) | st.just({})


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(p for key, one in inside for p in places(one, (*path, key)))]


@given(st.sampled_from([p for p in places(payload) if p]), values)
def test_no_field_of_the_payload_can_be_exchanged(path: tuple[Any, ...], value: Any) -> None:
    body = json.loads(SAID.to_bytes())
    place = body
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    envelope = json.loads(SEALED)
    envelope["payload"] = base64.b64encode(json.dumps(body).encode()).decode()
    assert believed(json.dumps(envelope).encode()) is None


@pytest.mark.parametrize(
    "bomb",
    [
        b"[" * 200_000,
        b'{"payload":' * 20_000,
        b'{"a":' + b"9" * 500_000 + b"}",
        b'"' + b"\\u0000" * 100_000 + b'"',
        b"{" + b",".join(b'"%d":0' % i for i in range(80_000)) + b"}",
    ],
    ids=["nested lists", "nested objects", "a long number", "escapes", "many keys"],
)
def test_a_bomb_within_the_size_limit_is_refused_in_a_typed_way(bomb: bytes) -> None:
    assert len(bomb) <= MAX_BYTES
    assert believed(bomb) is None
    inside = seal(bomb, ADA) if len(bomb) < MAX_BYTES // 2 else b""
    assert believed(inside) is None, "signed or not"
