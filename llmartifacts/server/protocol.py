"""HTTP on the wire, by uvicorn's parser, with bounds that it does not have: heads of requests in time and in size.

A client that opens connections and says nothing, or a header an hour, would hold them for ever; one that sends a header
without end would fill the memory before the application hears of it.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from llmartifacts.errors import DeadlineExceeded, InvalidInput, LlmartifactsError
from llmartifacts.server.answers import error_bytes

HEAD_BYTES = 128 * 1024
"""Bytes of a head: the address and all headers."""
_LINES = {400: b"400 Bad Request", 408: b"408 Request Timeout", 431: b"431 Request Header Fields Too Large"}


class BoundedProtocol(HttpToolsProtocol):
    """One connection.

    Attributes:
        head_seconds: How long the head of a request may take, from the opening of the connection or its first byte.
    """

    head_seconds: ClassVar[float] = 15.0

    def connection_made(self, transport: Any) -> None:
        """A client has come."""
        super().connection_made(transport)
        self._head_bytes = self._came = 0
        self._in_head = True
        self._timer: asyncio.TimerHandle | None = None
        self._begin_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone."""
        self._end_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Some bytes have come."""
        self._came = len(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES + len(data):  # a body may have come with the last of it
                self._refuse(431, InvalidInput("the head of the request is too long", field="headers"))
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._begin_head()

    def on_headers_complete(self) -> None:
        """Its head is there."""
        self._end_head()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """What came is not HTTP."""
        self._refuse(400, InvalidInput("that was not a request that can be read", field="request"), told=msg)

    def _begin_head(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self.head_seconds, self._late)
        if not self._in_head:
            self._head_bytes = self._came  # some of it may have been the end of the request before
        self._in_head = True

    def _end_head(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._in_head = False

    def _late(self) -> None:
        self._timer = None
        if self._head_bytes:
            self._refuse(408, DeadlineExceeded("the request did not come in time", field="request"))
        elif not self.transport.is_closing():
            self.transport.close()

    def _refuse(self, status: int, error: LlmartifactsError, *, told: str = "") -> None:
        del told  # the parser's words; the client has ours
        if self.transport.is_closing():
            return
        body = error_bytes(error)
        head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.transport.write(head % (_LINES[status], len(body)) + body)
        self.transport.close()


def bounded(head_seconds: float) -> type[BoundedProtocol]:
    """The protocol with a time of its own for heads."""
    return type("BoundedProtocol", (BoundedProtocol,), {"head_seconds": head_seconds})
