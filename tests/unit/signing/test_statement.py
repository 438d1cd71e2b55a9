"""Statements: in-toto v1 out, and strictly the same in."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.errors import InvalidInput
from llmartifacts.records.approval import Binding, Serving, Subject
from llmartifacts.records.digest import digest_of
from llmartifacts.signing.keys import PrivateKey
from llmartifacts.signing.statement import (
    ApprovalStatement,
    EvaluationStatement,
    RotationStatement,
    read_approval,
    read_evaluation,
    read_rotation,
)

AT = datetime(2026, 3, 3, 9, 0, 0, 1, tzinfo=UTC)
DIGEST = digest_of(b"agent 2")
BOUND = Binding(
    "default",
    "prod",
    (Subject("agent", 2, DIGEST), Subject("kb", 5, digest_of(b"kb 5"))),
    {"agent": Serving(digest_of(b"agent 1"), 4), "kb": Serving(None, 0)},
    digest_of(b"policy"),
    "llmartifacts/0123456789abcdef",
)
SAID = ApprovalStatement(BOUND, "Ada", "read the report\nand the diff", AT, None)


def test_it_is_an_in_toto_statement_as_the_framework_wants_it() -> None:
    body = json.loads(SAID.to_bytes())
    assert body["_type"] == "https://in-toto.io/Statement/v1"
    assert body["predicateType"] == "urn:llmartifacts:approval:1"
    assert body["subject"][0] == {"name": "agent:v2", "digest": {"sha256": DIGEST.removeprefix("sha256:")}}
    assert body["predicate"]["serving"]["kb"] == {"digest": None, "move": 0}
    assert body["predicate"]["at"] == "2026-03-03T09:00:00.000001Z"
    assert body["predicate"].keys() == {
        *("registry", "project", "alias", "serving", "policy", "person", "reason", "at", "expires"),
    }


digests = st.binary(max_size=3).map(digest_of)
names = st.from_regex(r"[a-z][a-z0-9._-]{0,9}", fullmatch=True).filter(lambda n: n != "sha256")
times = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1)).map(lambda t: t.replace(tzinfo=UTC))
origins = st.from_regex(r"llmartifacts/[0-9a-f]{16}", fullmatch=True)
lines = st.text(st.characters(categories=("L", "N")), min_size=1, max_size=20)


@st.composite
def statements(draw: st.DrawFn) -> ApprovalStatement:
    of = sorted(draw(st.sets(names, min_size=1, max_size=4)))
    subjects = tuple(Subject(n, draw(st.integers(1, 999_999_999)), draw(digests)) for n in of)
    serving = {n: Serving(draw(st.none() | digests), draw(st.integers(0, 2**53 - 1))) for n in of}
    alias = draw(st.sampled_from(["prod", "staging", "v1a"]))
    bound = Binding(draw(names), alias, subjects, serving, draw(st.none() | digests), draw(origins))
    person = draw(lines).strip() or "a"
    reason = draw(st.text(st.characters(categories=("L", "N", "P", "Zs"))))
    return ApprovalStatement(bound, person, reason, draw(times), draw(st.none() | times))


@given(statements())
def test_what_is_written_is_read_back(said: ApprovalStatement) -> None:
    read = read_approval(said.to_bytes())
    assert read.to_bytes() == replace(said, person=read.person).to_bytes()
    assert (read.binding, read.reason, read.at, read.expires) == (said.binding, said.reason, said.at, said.expires)


def with_(path: str, value: Any) -> bytes:
    """The statement with one part of it replaced; `...` takes it out."""
    body: Any = json.loads(SAID.to_bytes())
    place, *keys = body, *path.split("/")
    for key in keys[:-1]:
        place = place[int(key) if key.isdigit() else key]
    last: Any = int(keys[-1]) if keys[-1].isdigit() else keys[-1]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return json.dumps(body).encode()


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("_type", "https://in-toto.io/Statement/v0.1", "_type"),
        ("predicateType", "urn:llmartifacts:evaluation:1", "predicateType"),
        ("predicateType", "urn:llmartifacts:approval:2", "predicateType"),
        ("subject", [], "subject"),
        ("subject", {}, "subject"),
        ("subject/0/name", "agent:prod", "subject"),
        ("subject/0/name", "agent", "subject"),
        ("subject/0/name", "acme/agent:v2", "subject"),
        ("subject/0/name", "agent:v02", "subject"),
        ("subject/0/name", 7, "subject[0].name"),
        ("subject/0/digest/sha256", "00", "subject[0].digest"),
        ("subject/0/digest", {"sha1": "00"}, "subject[0].digest.sha256"),
        ("subject/0/digest/sha512", "00", "subject[0].digest"),
        ("subject/1/name", "agent:v3", "serving"),
        ("predicate/project", "", "project"),
        ("predicate/project", None, "project"),
        ("predicate/alias", "latest", "alias"),
        ("predicate/alias", "v2", "alias"),
        ("predicate/serving/docs", {"digest": None, "move": 0}, "serving"),
        ("predicate/serving/kb", ..., "serving"),
        ("predicate/serving", [], "serving"),
        ("predicate/serving/kb/move", -1, "serving.kb.move"),
        ("predicate/serving/kb/move", True, "serving.kb.move"),
        ("predicate/serving/kb/move", 1.5, "serving.kb.move"),
        ("predicate/serving/kb/digest", "sha256:x", "serving.kb.digest"),
        ("predicate/policy", "none", "policy"),
        ("predicate/policy", ..., "predicate.policy"),
        ("predicate/person", "  ", "person"),
        ("predicate/person", "a\nb", "person"),
        ("predicate/reason", "\x1b[2J", "reason"),
        ("predicate/reason", None, "reason"),
        ("predicate/at", "2026-03-03", "at"),
        ("predicate/at", "2026-03-03T09:00:00.000001+01:00", "at"),
        ("predicate/at", 0, "at"),
        ("predicate/expires", "never", "expires"),
        ("predicate/roles", ["ml-lead"], "predicate"),
    ],
)
def test_what_is_no_approval_names_the_field(path: str, value: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_approval(with_(path, value), origin="default@a1")
    assert (caught.value.field, caught.value.origin) == (field, "default@a1")


def test_duplicate_keys_in_the_payload_are_refused() -> None:
    twice = SAID.to_bytes().replace(b'"alias":"prod"', b'"alias":"dev","alias":"prod"')
    with pytest.raises(InvalidInput, match="appears twice"):
        read_approval(twice)


def test_one_kind_of_statement_is_never_read_as_another(ada: PrivateKey) -> None:
    report = EvaluationStatement("default", Subject("report", 3, DIGEST), digest_of(b"{}"), "Ada", "", AT)
    rotation = RotationStatement("Ada", "0" * 64, ada.public, AT)
    readers = {read_approval: SAID, read_evaluation: report, read_rotation: rotation}
    for reader, own in readers.items():
        for said in readers.values():
            if said is own:
                assert reader(said.to_bytes()).to_bytes() == said.to_bytes()
            else:
                with pytest.raises(InvalidInput):
                    reader(said.to_bytes())


def test_the_subject_of_a_rotation_is_the_new_key(ada: PrivateKey, eve: PrivateKey) -> None:
    said = RotationStatement("Ada", "0" * 64, ada.public, AT).to_bytes()
    with pytest.raises(InvalidInput) as caught:
        read_rotation(said.replace(ada.public.text.encode(), eve.public.text.encode()))
    assert caught.value.field == "subject"


@given(
    st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda c: st.lists(c) | st.dictionaries(st.text(), c))
)
def test_any_other_json_is_refused_in_a_typed_way(value: Any) -> None:
    for reader in (read_approval, read_evaluation, read_rotation):
        with pytest.raises(InvalidInput):
            reader(json.dumps(value).encode())
