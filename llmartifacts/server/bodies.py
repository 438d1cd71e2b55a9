"""Bodies of requests on their way in: bounded in bytes and in time, whatever their headers say."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from llmartifacts.errors import DeadlineExceeded, InvalidInput, TooLarge
from llmartifacts.server.calls import Turned
from llmartifacts.server.config import Settings

Receive = Callable[[], Awaitable[Any]]
PATIENCE = 5.0
"""Seconds before the rate of a body is looked at."""


class Gone(Exception):
    """The client left in the middle of its request; there is nobody to answer."""


def announced(headers: Mapping[str, str]) -> int | None:
    """The length that a request says its body has; None where it says none.

    Raises:
        Turned: It is no number.
    """
    text = headers.get("content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise Turned(400, InvalidInput("the length of the body is no number", field="content-length"))
    return int(text)


async def read_all(
    receive: Receive, limit: int, length: int | None, settings: Settings, hold: Callable[[int], None]
) -> bytes:
    """The whole body.

    Args:
        receive: Of the server's interface.
        limit: Bytes at most.
        length: What the request announced.
        settings: How long it may take, and how slow it may be.
        hold: Told of the bytes that are kept in memory.

    Raises:
        TooLarge: It is longer than the limit.
        Turned: It came too slowly.
        Gone: The client left.
    """
    if length is not None and length > limit:
        raise _too_large(limit, length)
    parts: list[bytes] = []
    size = 0
    began = time.monotonic()
    while True:
        message = await _next(receive, settings, time.monotonic() - began, size)
        if message["type"] == "http.disconnect":
            raise Gone
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise _too_large(limit, size)
        if part:
            hold(len(part))
            parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def _next(receive: Receive, settings: Settings, gone_by: float, size: int) -> Any:
    """The next part of a body, while it comes fast enough."""
    left = settings.body_seconds - gone_by
    if settings.body_rate:  # the time that what has come so far earns, and a little more
        left = min(left, PATIENCE + size / settings.body_rate - gone_by)
    if left > 0:
        try:
            async with asyncio.timeout(left):
                return await receive()
        except TimeoutError:
            pass
    raise Turned(
        408,
        DeadlineExceeded("the body came too slowly", field="body", next_step="Send it again, faster."),
        ((b"connection", b"close"),),
        "slow_body",
    )


def _too_large(limit: int, size: int) -> TooLarge:
    return TooLarge(f"the body has {size:,} bytes or more, the limit is {limit:,}", field="body")
