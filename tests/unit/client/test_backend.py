"""A remote backend asks once for what cannot change, and finds out a server that lies or says nothing sensible."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from llmartifacts.client.backend import RemoteBackend
from llmartifacts.client.session import HttpSession
from llmartifacts.errors import DigestMismatch, GateRefused, InvalidInput, NotFound, TooLarge, Unreachable
from llmartifacts.records.backend import Reading
from llmartifacts.records.digest import digest_of
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.reference import Reference
from llmartifacts.records.version import Collection, Found, Version
from llmartifacts.wire import error_body
from llmartifacts.wire.bodies import reading as bodies
from llmartifacts.wire.bodies.versions import Collection as CollectionBody

AT = datetime(2026, 3, 3, tzinfo=UTC)
MANIFEST = Manifest.build("prompt", {"template": "Hi"})
OTHER = Manifest.build("prompt", {"template": "Bye"})
VERSION = Version("default", "agent", "prompt", 1, MANIFEST.digest, AT, aliases=("prod",))
FOUND = Found(VERSION, MANIFEST, 1)
PROD = Reference.parse("agent:prod")

Http = Any
Backend = Callable[..., tuple[RemoteBackend, Any]]


@pytest.fixture
def backend(http: Http) -> Backend:
    """A backend of a server that gives these answers, one after another, and the server."""

    def make(*answers: bytes) -> tuple[RemoteBackend, Any]:
        server = http.serve(*answers)
        return RemoteBackend(HttpSession(server.url, None, attempts=1)), server

    return make


def reading(http: Http, *items: Any, revision: int = 1, tag: str = '"r1-0123456789abcdef"') -> bytes:
    body: bytes = http.answer(200, bodies.encode_reading(Reading("default", revision, items)), ETag=tag)
    return body


def test_what_has_not_changed_is_not_sent_again(http: Http, backend: Backend) -> None:
    made, server = backend(reading(http, FOUND), http.answer(304, b""))
    first = made.read("default", [PROD])
    assert first.items == (FOUND,)
    assert made.read("default", [PROD]) is first
    assert server.requests[0].line == "GET /api/v1/projects/default/read?ref=agent%3Aprod HTTP/1.1"
    assert server.requests[0].header("If-None-Match") is None
    assert server.requests[1].header("If-None-Match") == '"r1-0123456789abcdef"'


def test_another_question_is_another_answer(http: Http, backend: Backend) -> None:
    made, server = backend(reading(http, FOUND))
    made.read("default", [PROD])
    made.read("default", [Reference.parse("agent:v1")])
    assert server.requests[1].header("If-None-Match") is None


def test_a_server_that_has_seen_nothing_cannot_say_that_nothing_changed(http: Http, backend: Backend) -> None:
    made, _ = backend(http.answer(304, b""))
    with pytest.raises(Unreachable, match="not asked before"):
        made.read("default", [PROD])


def test_many_references_go_in_a_body(http: Http, backend: Backend) -> None:
    wanted = [Reference.parse(f"agent{i}:prod") for i in range(101)]
    items = [replace(FOUND, version=replace(VERSION, name=r.name)) for r in wanted]
    made, server = backend(reading(http, *items))
    assert len(made.read("default", wanted).items) == 101
    assert server.requests[0].line.startswith("POST /api/v1/projects/default/read ")
    assert server.requests[0].header("Idempotency-Key") is None
    assert json.loads(server.requests[0].body)["references"][0] == "agent0:prod"


def test_a_manifest_is_asked_for_once(http: Http, backend: Backend) -> None:
    body = bodies.encode_manifests({MANIFEST.digest: MANIFEST.to_bytes()})
    made, server = backend(http.answer(200, body))
    nothing = digest_of(b"nothing")
    assert made.manifests([MANIFEST.digest, nothing]) == {MANIFEST.digest: MANIFEST}
    assert made.manifests([MANIFEST.digest]) == {MANIFEST.digest: MANIFEST}
    assert len(server.requests) == 1


def test_a_manifest_that_was_too_large_for_the_answer_is_fetched_by_its_digest(http: Http, backend: Backend) -> None:
    large = Manifest.build("prompt", {"template": "x" * 70_000})
    found = Found(replace(VERSION, digest=large.digest), large, 1)
    made, server = backend(reading(http, found), http.answer(200, large.to_bytes()))
    assert made.read("default", [PROD]).items == (found,)
    assert server.requests[1].line == f"GET /api/v1/manifests/{large.digest.replace(':', '%3A')} HTTP/1.1"


@pytest.mark.parametrize("lie", [Found(VERSION, OTHER, 1), Found(replace(VERSION, digest=OTHER.digest), MANIFEST, 1)])
def test_a_manifest_that_is_not_its_digest_is_an_error_in_its_place(lie: Found, http: Http, backend: Backend) -> None:
    made, _ = backend(reading(http, lie))
    (item,) = made.read("default", [PROD]).items
    assert isinstance(item, DigestMismatch)
    assert item.digest == lie.version.digest


@pytest.mark.parametrize(
    ("asked", "lie"),
    [
        (f"agent@{OTHER.digest}", FOUND),
        ("agent:v2", FOUND),
        ("agnet:prod", FOUND),
        ("acme/agent:prod", FOUND),
        ("agent:prod", Found(replace(VERSION, project="acme"), MANIFEST, 1)),
    ],
)
def test_a_version_that_was_not_asked_for_is_an_error_in_its_place(
    asked: str, lie: Found, http: Http, backend: Backend
) -> None:
    made, _ = backend(reading(http, lie))
    (item,) = made.read("default", [Reference.parse(asked)]).items
    assert isinstance(item, DigestMismatch)
    assert "answered" in item.message


def test_large_bytes_that_are_another_manifest_are_found_out(http: Http, backend: Backend) -> None:
    listed = json.dumps({"manifests": [{"digest": MANIFEST.digest, "manifest": None}]}).encode()
    made, _ = backend(http.answer(200, listed), http.answer(200, OTHER.to_bytes()))
    with pytest.raises(DigestMismatch):
        made.manifests([MANIFEST.digest])


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"{}",
        b'{"revision": "1"}',
        b'{"revision": -1}',
        b'{"revision": 1, "revision": 2}',
        b'{"revision": NaN}',
        b"\xff",
        b"",
    ],
)
def test_an_answer_that_is_none_is_a_typed_error(body: bytes, http: Http, backend: Backend) -> None:
    made, _ = backend(http.answer(200, body))
    with pytest.raises(Unreachable):
        made.revision("default")


def test_fields_that_a_newer_server_adds_do_no_harm(http: Http, backend: Backend) -> None:
    made, _ = backend(http.answer(200, b'{"revision": 7, "epoch": {"a": 1}}'))
    assert made.revision("default") == 7


@pytest.mark.parametrize("wrong", [Reading("default", 1, ()), Reading("acme", 1, (FOUND,))])
def test_an_answer_to_another_question_is_refused(wrong: Reading, http: Http, backend: Backend) -> None:
    made, _ = backend(http.answer(200, bodies.encode_reading(wrong)))
    with pytest.raises(Unreachable, match="something else"):
        made.read("default", [PROD])


def test_errors_come_as_their_classes_with_their_fields(http: Http, backend: Backend) -> None:
    refused = GateRefused("no", verdict="FAIL", problems=("eval: worse",), next_step="Measure again.")
    made, _ = backend(http.answer(409, json.dumps(error_body(refused)).encode()))
    with pytest.raises(GateRefused) as caught:
        made.revision("default")
    assert caught.value.details() == refused.details()
    problem = NotFound("no collection", what="collection", name="agnet", near=("agent",))
    made, _ = backend(reading(http, problem))
    (item,) = made.read("default", [Reference.parse("agnet:prod")]).items
    assert isinstance(item, NotFound)
    assert item.details() == problem.details()


def page(http: Http, names: list[str], following: str | None) -> bytes:
    items = [CollectionBody.of(Collection("default", name, "prompt", 1, 1, {"prod": 1}, AT)).plain() for name in names]
    body: bytes = http.answer(200, json.dumps({"items": items, "next": following}).encode())
    return body


def test_pages_are_followed_to_the_end(http: Http, backend: Backend) -> None:
    made, server = backend(page(http, ["a", "b"], "b"), page(http, ["c"], "c"), page(http, [], None))
    assert [c.name for c in made.collections("default", kind="prompt")] == ["a", "b", "c"]
    asked = [r.line.split("?")[1].split(" ")[0] for r in server.requests]
    assert asked == ["kind=prompt&limit=1000", "kind=prompt&limit=1000&after=b", "kind=prompt&limit=1000&after=c"]


def test_no_more_is_asked_for_than_is_wanted(http: Http, backend: Backend) -> None:
    made, server = backend(page(http, ["b", "c"], "c"), page(http, ["d", "e"], "e"))
    assert [c.name for c in made.collections("default", limit=3, after="a")] == ["b", "c", "d"]
    asked = [r.line.split("?")[1].split(" ")[0] for r in server.requests]
    assert asked == ["limit=3&after=a", "limit=1&after=c"]


@pytest.mark.parametrize("second", [["b"], []])
def test_pages_that_lead_nowhere_end(second: list[str], http: Http, backend: Backend) -> None:
    made, _ = backend(page(http, ["a"], "a"), page(http, second, "a"))
    with pytest.raises(Unreachable, match="lead nowhere"):
        made.collections("default")


def test_a_writing_call_carries_a_key_and_no_actor(http: Http, backend: Backend) -> None:
    made, server = backend(http.answer(400, json.dumps(error_body(InvalidInput("no"))).encode()))
    with pytest.raises(InvalidInput):
        made.yank("default", PROD, reason="x", actor="somebody else")
    (request,) = server.requests
    assert len(request.header("Idempotency-Key")) >= 16
    assert b"somebody" not in request.body
    assert json.loads(request.body) == {"reference": "agent:prod", "reason": "x"}


def test_an_export_that_breaks_ends_in_the_servers_own_error(http: Http, backend: Backend) -> None:
    lines = b'{"a":1}\n{"b":2}\n' + json.dumps(error_body(NotFound("gone")), separators=(",", ":")).encode() + b"\n"
    made, _ = backend(http.answer(200, lines, kind="application/jsonl"))
    export = made.export_audit()
    assert [next(export), next(export)] == [b'{"a":1}', b'{"b":2}']
    with pytest.raises(NotFound, match="gone"):
        next(export)


def test_too_large_an_envelope_is_not_sent(http: Http, backend: Backend) -> None:
    made, server = backend(http.answer())
    with pytest.raises(TooLarge):
        made.approve("default", b"x" * (1 << 21), actor="")
    assert server.requests == []


def test_nothing_that_is_no_name_becomes_part_of_an_address(http: Http, backend: Backend) -> None:
    made, server = backend(page(http, [], None))
    made.versions("a/b?c#d", "%2e%2e/x")
    assert server.requests[0].line.startswith("GET /api/v1/projects/a%2Fb%3Fc%23d/collections/%252e%252e%2Fx/versions?")
    with pytest.raises(InvalidInput):
        made.versions("..", "x")
