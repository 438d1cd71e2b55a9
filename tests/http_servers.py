"""Servers that answer as a test says, over real sockets."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest


@dataclass(frozen=True)
class Route:
    name: str = "thing"
    method: str = "GET"
    path: str = "/thing"
    writes: bool = False
    slow: bool = False


@dataclass
class Request:
    """A request as it came, byte for byte."""

    head: str
    body: bytes
    connection: int
    number: int

    @property
    def line(self) -> str:
        return self.head.splitlines()[0]

    def header(self, name: str) -> str | None:
        for line in self.head.splitlines()[1:]:
            key, _, value = line.partition(":")
            if key.strip().lower() == name.lower():
                return value.strip()
        return None


Handler = Callable[[socket.socket, Request], None]


@dataclass
class Server:
    """A server in a thread; `requests` is what it was asked, in order."""

    handler: Handler
    tls: ssl.SSLContext | None = None
    requests: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.ended = threading.Event()
        self._open: list[socket.socket] = []
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{'localhost' if self.tls else '127.0.0.1'}:{self.port}"

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.connections += 1
                self._open.append(sock)
                threading.Thread(target=self._serve, args=(sock, self.connections), daemon=True).start()

    def _serve(self, sock: socket.socket, connection: int) -> None:
        with contextlib.suppress(OSError, ValueError):
            if self.tls is not None:
                sock = self.tls.wrap_socket(sock, server_side=True)
                self._open.append(sock)
            file = sock.makefile("rb")
            while True:
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    line = file.readline()
                    if not line:
                        return
                    head += line
                request = Request(head.decode("latin-1"), b"", connection, len(self.requests) + 1)
                self.requests.append(request)
                if request.header("Expect-Nothing") is None:
                    request.body = file.read(int(request.header("Content-Length") or 0))
                self.handler(sock, request)
        with contextlib.suppress(OSError):
            sock.close()

    def close(self) -> None:
        self.ended.set()
        for sock in [self._listener, *self._open]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


def answer(status: int = 200, body: bytes = b"{}", *, kind: str = "application/json", **headers: str) -> bytes:
    """An answer's bytes; a header's name is written with underscores."""
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def echoed(answer: bytes, request: Request) -> bytes:
    """An answer that says which request it is for."""
    number = request.header("Llmartifacts-Request")
    if number is None or not answer.startswith(b"HTTP/1.1 "):
        return answer
    line, end, rest = answer.partition(b"\r\n")
    return line + end + f"Llmartifacts-Request: {number}\r\n".encode() + rest


class Http:
    """What the tests of sessions use: servers, answers, routes."""

    Route, answer = Route, staticmethod(answer)

    def __init__(self) -> None:
        self.started: list[Server] = []

    def serve(self, *answers: bytes | Handler, tls: ssl.SSLContext | None = None, echo: bool = True) -> Server:
        """Start a server: given the bytes of its answers (the last one again and again), or handlers.

        Bytes repeat the name of the request, as a registry's answers do, unless `echo` is false.
        """

        def handle(sock: socket.socket, request: Request) -> None:
            one = answers[min(request.number, len(answers)) - 1]
            if isinstance(one, bytes):
                sock.sendall(echoed(one, request) if echo else one)
            else:
                one(sock, request)

        self.started.append(Server(handle, tls))
        return self.started[-1]


@pytest.fixture
def http(monkeypatch: pytest.MonkeyPatch) -> Iterator[Http]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    made = Http()
    yield made
    for one in made.started:
        one.close()
