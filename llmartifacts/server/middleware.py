"""What every request passes, outermost first: seen and counted, the right host, no other site's, safe headers."""

from __future__ import annotations

import re
import secrets
import time
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from llmartifacts.errors import InvalidInput, LlmartifactsError, NotAllowed
from llmartifacts.server.answers import Receive, Scope, Send, send_error, send_turned
from llmartifacts.server.bodies import Gone
from llmartifacts.server.calls import Header, Turned
from llmartifacts.server.logs import without_tokens
from llmartifacts.server.state import State
from llmartifacts.wire.freshness import ECHO

App = Callable[[Scope, Receive, Send], Awaitable[None]]
MAX_TARGET = 72 * 1024
MAX_HEADERS = 100
MAX_HEADER_BYTES = 32 * 1024
QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
"""Paths that any host name may ask for, and that are not logged when all is well: probes know an address only."""
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_HOST = re.compile(r"([^:@/\\?#\[\]]+|\[[0-9a-f:.%]+\])(?::[0-9]*)?")
_ECHO = ECHO.encode()
_ID = re.compile(rb"[A-Za-z0-9._-]{8,64}")
_OWN_SITES = frozenset({b"same-origin", b"none"})


class Observe:
    """Gives each request an id, answers what went wrong beyond a handler, writes one line and counts it."""

    def __init__(self, app: App, state: State) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1000})
                return
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        number, echo = _request_ids(scope)
        scope["llmartifacts.id"] = number.decode()
        status = received = sent = 0
        state = self._state

        async def receiving() -> Any:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def sending(message: Any) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].append((b"x-request-id", number))
                if echo:
                    message["headers"].append((_ECHO, echo))
            else:
                sent += len(message.get("body", b""))
            await send(message)

        state.metrics.in_progress += 1
        try:
            await self._app(scope, receiving, sending)
        except Gone:
            status = status or 499
        except Exception as error:  # the client gets an answer, whatever it is, and the log the trace
            state.log.event(
                "failed", "error", id=scope["llmartifacts.id"], traceback=without_tokens(traceback.format_exc())
            )
            if not status:
                await send_error(sending, _unexpected(error))
            else:
                raise  # half an answer: the connection ends, so that nobody takes it for a whole one
        finally:
            state.metrics.in_progress -= 1
            took = time.perf_counter() - began
            route = scope.get("llmartifacts.route", "")
            method = scope["method"] if scope["method"] in _METHODS else "OTHER"
            state.metrics.answered(method, route or "none", status, took, received, sent)
            if scope["path"] not in QUIET or status >= 400:
                state.log.event(
                    "request",
                    "error" if status >= 500 and status not in (503, 504) else "info",
                    id=scope["llmartifacts.id"],
                    method=method,
                    route=route,
                    status=status,
                    ms=round(took * 1000, 2),
                    account=scope.get("llmartifacts.account"),
                    address=(scope.get("client") or ("",))[0],
                    received=received,
                    sent=sent,
                )


class Guard:
    """Turns away what is not meant for this server, and adds the headers that keep browsers from mistakes."""

    def __init__(self, app: App, state: State) -> None:
        self._app = app
        settings = state.settings
        self._hosts = settings.hosts
        self._wild = tuple(host[1:] for host in self._hosts if host.startswith("*."))
        self._public = settings.public_url.rstrip("/").lower().encode()
        self._scheme = settings.scheme
        self._headers: list[Header] = [
            (b"x-content-type-options", b"nosniff"),
            (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
            (b"referrer-policy", b"no-referrer"),
            (b"cross-origin-resource-policy", b"same-origin"),
        ]
        if settings.origin.startswith("https://"):
            self._headers.append((b"strict-transport-security", b"max-age=31536000"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        added = self._headers

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = message["headers"]
                headers += added
                if not any(name == b"cache-control" for name, _ in headers):
                    headers.append((b"cache-control", b"no-store"))
            await send(message)

        try:
            self._check(scope)
        except Turned as turned:
            await send_turned(sending, turned, head=scope["method"] == "HEAD")
            return
        await self._app(scope, receive, sending)

    def _check(self, scope: Scope) -> None:
        host = origin = site = None
        size = 0
        headers = scope["headers"]
        for name, value in headers:
            size += len(name) + len(value)
            if name == b"host":
                if host is not None:
                    raise Turned(400, InvalidInput("the request has two hosts", field="host"), reason="host")
                host = value
            elif name == b"origin":
                origin = value
            elif name == b"sec-fetch-site":
                site = value
        if len(headers) > MAX_HEADERS or size > MAX_HEADER_BYTES:
            raise Turned(431, InvalidInput("the headers are too many or too long", field="headers"), reason="headers")
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > MAX_TARGET:
            raise Turned(414, InvalidInput("the address is too long", field="path"), reason="path")
        if scope["path"] not in QUIET and not self._answers(host):
            raise Turned(
                400,
                InvalidInput(
                    "this server does not answer to that host name",
                    field="host",
                    next_step="Whoever runs it can allow the name: llmartifacts serve --trusted-host NAME.",
                ),
                reason="host",
            )
        if scope["method"] not in _SAFE and not self._own_site(origin, site, host):
            error = NotAllowed("the request comes from another site", field="origin")
            raise Turned(403, error, reason="cross_site")

    def _answers(self, host: bytes | None) -> bool:
        if host is None:
            return False
        name = _without_port(host.decode("latin-1").lower())
        return name in self._hosts or bool(self._wild and name.endswith(self._wild))

    def _own_site(self, origin: bytes | None, site: bytes | None, host: bytes | None) -> bool:
        """Whether a change is asked for by no web page, or by one of this server."""
        if site is not None and site not in _OWN_SITES:
            return False
        if origin is None:
            return True
        own = f"{self._scheme}://".encode() + (host or b"").lower()
        return origin.lower() in (own, self._public) and origin != b""


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})


def _request_ids(scope: Scope) -> tuple[bytes, bytes]:
    """The id of a request, made up where it has none, and what its answer repeats; empty where that is nothing."""
    number = echo = b""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and not number and _ID.fullmatch(value):
            number = value
        elif name == _ECHO and _ID.fullmatch(value):
            echo = value
    return number or secrets.token_hex(8).encode(), echo


def _without_port(host: str) -> str:
    found = _HOST.fullmatch(host)
    return "" if found is None else found[1].rstrip(".")


def _unexpected(error: Exception) -> LlmartifactsError:
    """What a client is told of a mistake in this program: that there was one, and nothing of it."""
    return LlmartifactsError(
        f"the server failed in a way it should not ({type(error).__name__})",
        next_step="Tell whoever runs it the request id of this answer; their log has more.",
    )
