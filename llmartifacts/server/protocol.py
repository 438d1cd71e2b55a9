"""HTTP on the wire, by uvicorn's parser, with bounds that it does not have: heads of requests in time and in size.

A client that opens connections and says nothing, or a header an hour, would hold them for ever; one that sends a header
without end would fill the memory before the application hears of it; one that does not read what it asked for would
hold the answer, also after the application has given it up; and what follows a body as further headers would be taken
for headers of the request, past whatever looked at those.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from llmartifacts.errors import DeadlineExceeded, InvalidInput, LlmartifactsError
from llmartifacts.server.answers import error_bytes

HEAD_BYTES = 128 * 1024
"""Bytes of a head: the address and all headers; and of what a request has in a row beside its body."""
LINGER = 5.0
"""Seconds that the rest of a request may take that was answered before it was all there; again as many while it comes
at `LINGER_RATE`: whoever is in the middle of sending reads the answer only after that."""
LINGER_RATE, LINGER_BYTES = 64 * 1024, 16 * 1024 * 1024
"""Bytes a second, and in all, that are read of such a request."""
_LINES = {400: b"400 Bad Request", 408: b"408 Request Timeout", 431: b"431 Request Header Fields Too Large"}


class BoundedProtocol(HttpToolsProtocol):
    """One connection.

    Attributes:
        head_seconds: How long the head of a request may take, from the opening of the connection or its first byte.
        write_seconds: How long a client may leave unread what was written to it.
    """

    head_seconds: ClassVar[float] = 15.0
    write_seconds: ClassVar[float] = 120.0

    def connection_made(self, transport: Any) -> None:
        """A client has come."""
        super().connection_made(transport)
        self._head_bytes = self._came = 0
        self._in_head = True
        self._timer: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._lingering: asyncio.TimerHandle | None = None
        self._lingered = self._expected = 0
        self._in_message = False
        self._begin_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone."""
        self._end_head()
        self._taken()
        self._end_linger()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """It does not read as fast as it is written to."""
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(self.write_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """It has read most of it."""
        if not self.transport.is_closing():  # then the rest, however little, has to go in time
            self._taken()
        super().resume_writing()

    def _taken(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def data_received(self, data: bytes) -> None:
        """Some bytes have come."""
        self._came = len(data)
        if self._in_head or self._in_message:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES + len(data):  # a body may have come with the last of it
                self._refuse(431, InvalidInput("the head of the request is too long", field="headers"))
                return
        super().data_received(data)
        if not self._in_message and self.cycle is not None and self.cycle.response_complete:
            self._idle()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._in_message = True
        self._begin_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        """One of its headers; or something that follows its body in that form, which is none."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Its head is there."""
        self._end_head()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of its body."""
        self._head_bytes = 0
        self._lingered += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """All of it is there."""
        self._in_message = False
        self._end_linger()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """It is answered: the client has to take that, and what of the request is not there yet has to come soon."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._leave()
        elif self.cycle.response_complete and self._in_message and not self._in_head and self._lingering is None:
            self._lingered = self._expected = 0
            self._linger()

    def timeout_keep_alive_handler(self) -> None:
        """No other request came."""
        self._close()

    def send_400_response(self, msg: str) -> None:
        """What came is not HTTP."""
        self._refuse(400, InvalidInput("that was not a request that can be read", field="request"), told=msg)

    def _idle(self) -> None:
        """Wait for another request. What is no part of one, such as an empty line, does not keep a connection open."""
        if self.timeout_keep_alive_task is None and not self.transport.is_closing():
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _close(self) -> None:
        """End it, once the client has taken what was written, and in any case."""
        if not self.transport.is_closing():
            self.transport.close()
        self._leave()

    def _leave(self) -> None:
        if self._unread is None:
            self._unread = self.loop.call_later(self.write_seconds, self.transport.abort)

    def _linger(self) -> None:
        """Wait for the rest of a request that is answered, as long as it comes."""
        if not self._expected <= self._lingered <= LINGER_BYTES:
            self._close()
            return
        self._expected += int(LINGER * LINGER_RATE)
        self._lingering = self.loop.call_later(LINGER, self._linger)

    def _end_linger(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None

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
        else:
            self._close()

    def _refuse(self, status: int, error: LlmartifactsError, *, told: str = "") -> None:
        del told  # the parser's words; the client has ours
        if self.transport.is_closing():
            return
        body = error_bytes(error)
        head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.transport.write(head % (_LINES[status], len(body)) + body)
        self._close()


def bounded(head_seconds: float, write_seconds: float) -> type[BoundedProtocol]:
    """The protocol with times of its own."""
    return type("BoundedProtocol", (BoundedProtocol,), {"head_seconds": head_seconds, "write_seconds": write_seconds})
