"""Bytes on the wire that two readers could take differently, or that hold a connection for nothing."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
import requests

from llmartifacts.server import protocol
from llmartifacts.testing.server import RunningServer, running_server

PROJECTS = "/api/v1/projects"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("wire") / "registry", rate_address=0, rate_failures=0) as running:
        yield running


@pytest.fixture
def wire(server: RunningServer) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), 30) as made:
        made.settimeout(30)
        yield made


def _head(more: str, *, host: str = "127.0.0.1") -> bytes:
    return f"POST {PROJECTS} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n{more}\r\n".encode()


def _chunked(body: bytes, after: bytes) -> bytes:
    return _head("Transfer-Encoding: chunked\r\n") + b"%x\r\n%b\r\n0\r\n%b\r\n" % (len(body), body, after)


def _status(wire: socket.socket) -> int:
    answer = http.client.HTTPResponse(wire)
    answer.begin()
    answer.read()
    return answer.status


def test_what_follows_a_body_is_no_header(server: RunningServer, wire: socket.socket) -> None:
    wire.sendall(_chunked(b'{"name":"trailer"}', f"Authorization: Bearer {server.token}\r\n".encode()))
    assert _status(wire) == 401
    made = requests.get(server.url + PROJECTS, headers=server.headers, timeout=30).json()["items"]
    assert "trailer" not in [one["name"] for one in made]


@pytest.mark.parametrize("part", [b"y" * 65_536, b"X: y\r\n" * 10_000])
def test_what_follows_a_body_has_an_end(wire: socket.socket, part: bytes) -> None:
    wire.sendall(_chunked(b"{}", b"X: ")[:-2])
    _status(wire)
    sent = 0
    with suppress(ConnectionError):
        while sent < 64 << 20:
            wire.sendall(part)
            sent += len(part)
    assert sent < 64 << 20


def test_the_length_of_a_chunk_has_an_end(server: RunningServer, wire: socket.socket) -> None:
    wire.sendall(_head(f"Transfer-Encoding: chunked\r\nAuthorization: Bearer {server.token}\r\n") + b"2;")
    sent = 0
    with suppress(ConnectionError):
        while sent < 64 << 20:
            wire.sendall(b"x" * 65_536)
            sent += 65_536
    assert sent < 64 << 20


@pytest.mark.matrix
def test_a_request_that_is_answered_does_not_go_on_for_ever(wire: socket.socket) -> None:
    wire.sendall(_head("Content-Length: 100000\r\n"))
    assert _status(wire) == 401
    until = time.monotonic() + 4 * protocol.LINGER
    with suppress(ConnectionError):
        while time.monotonic() < until:
            wire.sendall(b"x")
            time.sleep(0.25)
    assert time.monotonic() < until


def test_a_request_that_is_answered_early_and_comes_soon_is_followed_by_others(
    server: RunningServer, wire: socket.socket
) -> None:
    wire.sendall(_head("Content-Length: 10\r\n"))
    assert _status(wire) == 401
    wire.sendall(b"x" * 10 + f"GET /api/v1/info HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
    assert _status(wire) == 200


@pytest.mark.parametrize("host", ["127.0.0.1:1@evil.example", "127.0.0.1:80:evil", "127.0.0.1/evil", "[::1]evil"])
def test_a_host_that_only_begins_like_its_own_is_none(server: RunningServer, wire: socket.socket, host: str) -> None:
    wire.sendall(f"GET /api/v1/info HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert _status(wire) == 400
