"""Answers on their way out: bodies and errors as ASGI messages, in the one form that the design gives errors."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from llmartifacts.errors import Busy, LlmartifactsError, Unreachable
from llmartifacts.server.bodies import Gone
from llmartifacts.server.calls import Header, Turned
from llmartifacts.server.limits import retry_after
from llmartifacts.wire.errors import error_body, http_status

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
JSON: Header = (b"content-type", b"application/json")
AGAIN_SECONDS = 1.0
SLICE = 256 * 1024
"""Bytes of an answer that wait in a connection."""
SEND_SECONDS, SEND_RATE = 60.0, 64 * 1024
"""How long an answer of several slices may take: some time, and more for each byte a second."""
_STORE = "(the registry)"


async def send_bytes(send: Send, status: int, body: bytes, headers: tuple[Header, ...], *, head: bool = False) -> None:
    """Send a whole answer; to `HEAD` without its body.

    A large one goes slice by slice, as the client takes them: whoever does not read it holds a slice, and not for ever.

    Raises:
        Gone: The client takes too long.
    """
    length: tuple[Header, ...] = () if status in (204, 304) else ((b"content-length", str(len(body)).encode()),)
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *length]})
    if head or len(body) <= SLICE:
        await send({"type": "http.response.body", "body": b"" if head else body})
        return
    try:
        async with asyncio.timeout(SEND_SECONDS + len(body) / SEND_RATE):
            for start in range(0, len(body), SLICE):
                part = body[start : start + SLICE]
                await send({"type": "http.response.body", "body": part, "more_body": start + SLICE < len(body)})
    except TimeoutError:
        raise Gone from None


async def send_error(send: Send, error: LlmartifactsError, *, head: bool = False) -> None:
    """Send an error with the status that the table gives it."""
    again: tuple[Header, ...] = ()
    if isinstance(error, (Busy, Unreachable)):
        again = ((b"retry-after", retry_after(AGAIN_SECONDS)),)
    await send_bytes(send, http_status(error), error_bytes(error), (JSON, *again), head=head)


async def send_turned(send: Send, turned: Turned, *, head: bool = False) -> None:
    """Send an error with a status of its own."""
    await send_bytes(send, turned.status, error_bytes(turned.error), (JSON, *turned.headers), head=head)


def error_bytes(error: LlmartifactsError) -> bytes:
    """The JSON of an error."""
    return json.dumps(error_body(error), ensure_ascii=False, default=str).encode("utf-8", "replace")


def without_places(error: LlmartifactsError, places: Sequence[str]) -> LlmartifactsError:
    """An error that names no place on the server's own disk: those are for its log.

    Args:
        error: The error.
        places: Folders of the server, such as that of its registry.
    """

    def told(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        for place in places:
            value = value.replace(place, _STORE)
        return value

    changed = {f.name: told(getattr(error, f.name)) for f in dataclasses.fields(error)}
    if all(changed[f.name] == getattr(error, f.name) for f in dataclasses.fields(error)):
        return error
    return dataclasses.replace(error, **changed)
