"""An answer is taken for the request that it was made for, and for no other."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any

import pytest

from llmartifacts.client.backend import RemoteBackend
from llmartifacts.client.session import HttpSession
from llmartifacts.errors import Unreachable
from llmartifacts.records.backend import Reading
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.reference import Reference
from llmartifacts.records.version import Found, Version
from llmartifacts.wire.bodies import reading as bodies

MANIFEST = Manifest.build("prompt", {"template": "Hi"})
VERSION = Version("default", "agent", "prompt", 1, MANIFEST.digest, datetime(2026, 3, 3, tzinfo=UTC), aliases=("prod",))
FOUND = Found(VERSION, MANIFEST, 1)
PROD = Reference.parse("agent:prod")
BODY = bodies.encode_reading(Reading("default", 7, (FOUND,)))
TAG = bodies.etag(BODY, 7)
MANY = [Reference.parse(f"agent{number}:prod") for number in range(101)]
MANY_BODY = bodies.encode_reading(
    Reading("default", 7, [Found(dataclasses.replace(VERSION, name=reference.name), MANIFEST, 1) for reference in MANY])
)

Http = Any


def backend(server: Any) -> RemoteBackend:
    return RemoteBackend(HttpSession(server.url, None, attempts=1))


def test_every_request_has_an_id_and_a_name_of_its_own(http: Http) -> None:
    server = http.serve(http.answer(200, BODY, ETag=TAG), http.answer(304, b""), http.answer(200, b'{"revision": 1}'))
    made = backend(server)
    made.read("default", [PROD])
    made.read("default", [PROD])
    made.revision("default")
    ids = [request.header("X-Request-Id") for request in server.requests]
    assert all(ids)
    assert len(set(ids)) == 3
    names = [request.header("Llmartifacts-Request") for request in server.requests[:2]]
    assert all(name is not None and len(name) == 32 for name in names)
    assert len(set(names)) == 2


@pytest.mark.parametrize("what", ["read", "read_many", "revision"])
@pytest.mark.parametrize("told", [{}, {"Llmartifacts_Request": "a" * 32}, {"X_Request_Id": "a" * 32}])
def test_an_answer_for_somebody_else_confirms_nothing(what: str, told: dict[str, str], http: Http) -> None:
    body, references = {
        "read": (BODY, [PROD]),
        "read_many": (MANY_BODY, MANY),
        "revision": (b'{"revision": 7}', []),
    }[what]
    server = http.serve(http.answer(200, body, **told), echo=False)
    with pytest.raises(Unreachable, match="request") as caught:
        backend(server).read("default", references)
    assert caught.value.field == "llmartifacts-request"
    assert "cache" in caught.value.message
    assert "proxy" in caught.value.hint().lower()


def test_an_old_not_modified_confirms_nothing_either(http: Http) -> None:
    first, second = [], []

    def answer(sock: Any, request: Any) -> None:
        number = request.header("Llmartifacts-Request")
        (second if first else first).append(number)
        if not second:
            sock.sendall(http.answer(200, BODY, ETag=TAG, Llmartifacts_Request=number))
        else:
            sock.sendall(http.answer(304, b"", ETag=TAG, Llmartifacts_Request=first[0]))

    made = backend(http.serve(answer))
    assert made.read("default", [PROD]).revision == 7
    with pytest.raises(Unreachable, match="for another request"):
        made.read("default", [PROD])


def test_a_proxy_that_drops_unknown_headers_but_passes_the_request_id_will_do(http: Http) -> None:
    def answer(sock: Any, request: Any) -> None:
        sock.sendall(http.answer(200, BODY, X_Request_Id=request.header("X-Request-Id")))

    assert backend(http.serve(answer)).read("default", [PROD]).items == (FOUND,)


def test_a_proxy_that_replaces_the_request_id_will_do(http: Http) -> None:
    server = http.serve(http.answer(200, BODY, X_Request_Id="made-up-by-a-proxy"))
    assert backend(server).read("default", [PROD]).items == (FOUND,)


def test_a_request_id_does_not_make_up_for_the_name_of_another_request(http: Http) -> None:
    def answer(sock: Any, request: Any) -> None:
        number = request.header("X-Request-Id")
        sock.sendall(http.answer(200, BODY, X_Request_Id=number, Llmartifacts_Request="b" * 32))

    with pytest.raises(Unreachable, match="another request"):
        backend(http.serve(answer)).read("default", [PROD])


def test_neither_goes_along_to_where_a_server_sends_for_bytes(http: Http) -> None:
    elsewhere = http.serve(http.answer(200, b"bytes", kind="application/octet-stream"))
    server = http.serve(http.answer(307, b"", Location=f"{elsewhere.url}/there"))
    session = HttpSession(server.url, None, attempts=1)
    with session.stream(http.Route(), redirects=True) as download:
        assert b"".join(download.chunks()) == b"bytes"
    assert elsewhere.requests[0].header("X-Request-Id") is None
