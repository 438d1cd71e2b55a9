"""A real server, and something between it and its clients that counts, changes, keeps or withholds what passes."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import llmartifacts as la
from llmartifacts.registry import Registry
from llmartifacts.testing.server import RunningServer, running_server

ECHOES = ("llmartifacts-request", "x-request-id")
_HOP = {"connection", "transfer-encoding", "content-length", "date", "server", "keep-alive"}


Raw = Callable[[socket.socket, threading.Event], None]
"""Answers over the socket itself, until the test ends."""


@dataclass(frozen=True)
class Reply:
    """An answer, names of headers in lower case. `raw` says it over the socket instead."""

    status: int
    headers: dict[str, str]
    body: bytes
    raw: Raw | None = None


@dataclass(frozen=True)
class Asked:
    """A request as it came, and the status that it was answered with."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    reply: Reply

    @property
    def status(self) -> int:
        return self.reply.status


Twist = Callable[[str, str, Reply], Reply]
"""Method, path and the server's answer -> what the client is sent."""


@dataclass
class Between:
    """A reverse proxy before one server; `asked` is what passed, in order, and `twist` changes it.

    Attributes:
        port: Its port.
        asked: What passed.
        twist: Changes answers; None passes them on.
        echo: Whether a changed answer claims to be for the request that it answers, as a hostile one would.
        answers: Answers without asking the server, where it gives something.
    """

    server: str
    asked: list[Asked] = field(default_factory=list)
    twist: Twist | None = None
    answers: Callable[[str, str], Reply | None] | None = None
    echo: bool = True
    ended: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one(self) -> None:
                with contextlib.suppress(OSError):
                    outer._pass(self)

            do_GET = do_POST = do_PUT = do_HEAD = handle_one

            def log_message(self, *_: object) -> None:
                """Nothing."""

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *_: object) -> None:
                """A client that went away is none."""

        self._listener = Quiet(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.server_address[1]}"

    def instead(self, status: int, raw: Raw | None = None) -> Reply:
        """An answer of its own."""
        return Reply(status, {}, b"", raw)

    def reads(self) -> list[Asked]:
        """The questions for references that passed."""
        return [one for one in self.asked if "/read?" in one.path or one.path.endswith("/read")]

    def _pass(self, handler: BaseHTTPRequestHandler) -> None:
        headers = {name.lower(): value for name, value in handler.headers.items()}
        body = handler.rfile.read(int(headers.get("content-length", 0)))
        method, path = handler.command, handler.path
        reply = self.answers(method, path) if self.answers is not None else None
        if reply is None:
            reply = self._fetch(method, path, headers, body)
            if self.twist is not None:
                reply = self.twist(method, path, reply)
        if self.echo:
            given = {name: headers[name] for name in ECHOES if name in headers}
            reply = replace(reply, headers={**reply.headers, **given})
        self.asked.append(Asked(method, path, headers, body, reply))
        if reply.raw is not None:
            handler.close_connection = True
            reply.raw(handler.connection, self.ended)
            return
        handler.send_response_only(reply.status)
        for name, value in reply.headers.items():
            if name not in _HOP:
                handler.send_header(name, value)
        if reply.status not in (204, 304):
            length = reply.headers.get("content-length", "0") if method == "HEAD" else str(len(reply.body))
            handler.send_header("content-length", length)
        handler.end_headers()
        if method != "HEAD":
            handler.wfile.write(reply.body)

    def _fetch(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Reply:
        there = urlsplit(self.server)
        connection = http.client.HTTPConnection(there.hostname or "", there.port, timeout=30)
        try:
            sent = {name: value for name, value in headers.items() if name not in _HOP}
            connection.request(method, path, body or None, {**sent, "accept-encoding": "identity"})
            response = connection.getresponse()
            data = response.read()
            return Reply(response.status, {n.lower(): v for n, v in response.getheaders()}, data)
        finally:
            connection.close()

    def close(self) -> None:
        self.ended.set()
        self._listener.shutdown()
        self._listener.server_close()


@dataclass
class Service:
    """A registry with `agent` and `kb`, two versions each, of which `prod` is the first, behind `between`."""

    registry: Registry
    between: Between
    cache: Path
    project: str

    @property
    def url(self) -> str:
        return self.between.url

    def promote(self, number: int, *names: str) -> None:
        """Move `prod` of these (or both) to a version."""
        moved = [f"{name}:v{number}" for name in names or ("agent", "kb")]
        self.registry.promote(moved, to="prod", reason=f"to {number}")


_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def plain_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningServer, Path]]:
    """A server of this session that asks for no token, and its registry's directory."""
    place = tmp_path_factory.mktemp("plain-server") / "registry"
    with running_server(place, authenticate=False) as server:
        yield server, place


@pytest.fixture
def service(
    plain_server: tuple[RunningServer, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Service]:
    server, place = plain_server
    project = f"p{next(_numbers)}"
    monkeypatch.setenv("LLMARTIFACTS_PROJECT", project)
    monkeypatch.setenv("LLMARTIFACTS_CACHE", str(tmp_path / "cache"))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    between = Between(server.url)
    with la.connect(place, project=project) as registry:
        for name in ("agent", "kb"):
            for number in (1, 2, 3):
                registry.log(name, la.Files({f"{name}.txt": f"{name} {number} of {project} ".encode() * 100}))
        registry.promote(["agent:v1", "kb:v1"], to="prod", reason="first")
        try:
            yield Service(registry, between, tmp_path / "cache", project)
        finally:
            between.close()
