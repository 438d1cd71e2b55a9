"""One connection: requests one after another, early answers, and clients that neither finish nor read."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from llmartifacts.server import protocol
from llmartifacts.server.protocol import bounded

Story = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
LARGE = b"z" * (64 << 20)


async def _answers(scope: Any, receive: Any, send: Any) -> None:
    """`/early` is answered before its body came; `/large` largely; anything else with its body."""
    body, more = b"", scope["path"] != "/early"
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, more = body + message["body"], message["more_body"]
    if scope["path"] == "/large":
        body = LARGE
    length = str(len(body)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    for start in range(0, max(1, len(body)), 1 << 18):
        part = body[start : start + (1 << 18)]
        await send({"type": "http.response.body", "body": part, "more_body": start + (1 << 18) < len(body)})


def tell(story: Story, *, head: float = 5.0, write: float = 5.0, keep_alive: Any = 5) -> None:
    """Tell a story of one client over a real connection; at its end the server has forgotten it."""

    async def whole() -> None:
        config = uvicorn.Config(
            _answers, log_config=None, access_log=False, timeout_keep_alive=keep_alive, lifespan="off"
        )
        config.load()
        state = ServerState()
        made = bounded(head, write)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: made(config, state, {}), "127.0.0.1", 0)
        wire = socket.socket()
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wire.setblocking(False)
        await loop.sock_connect(wire, server.sockets[0].getsockname())
        reader, writer = await asyncio.open_connection(sock=wire, limit=4096)
        try:
            await asyncio.wait_for(story(reader, writer), 20)
            async with asyncio.timeout(10):
                while state.connections:
                    await asyncio.sleep(0.01)
        finally:
            writer.transport.abort()
            server.close()
            await asyncio.sleep(0.01)

    asyncio.run(whole())


def request(path: str, body: bytes = b"", *, length: int | None = None, more: str = "") -> bytes:
    size = len(body) if length is None else length
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n{more}\r\n"
    return head.encode() + body


async def answer(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 100"):
        return head
    assert head.startswith(b"HTTP/1.1 200"), head
    size = int(head.lower().partition(b"content-length: ")[2].split()[0])
    return await reader.readexactly(size)


async def is_closed(reader: asyncio.StreamReader) -> bool:
    try:
        return await reader.read(1) == b""
    except ConnectionError:
        return True


def test_requests_in_a_row_are_answered_in_their_order() -> None:
    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"".join(request("/", b"%d" % n) for n in range(20)))
        assert [await answer(reader) for _ in range(20)] == [b"%d" % n for n in range(20)]
        writer.close()

    tell(story)


def test_a_client_may_ask_whether_to_send_its_body() -> None:
    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            writer.write(request("/", length=3, more="Expect: 100-continue\r\n"))
            assert (await answer(reader)).startswith(b"HTTP/1.1 100")
            writer.write(b"abc")
            assert await answer(reader) == b"abc"
        writer.close()

    tell(story)


def test_who_was_told_no_and_sends_no_body_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "LINGER", 0.1)

    async def story(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        _.write(request("/early", length=3, more="Expect: 100-continue\r\n"))
        assert await answer(reader) == b""
        assert await is_closed(reader)

    tell(story)


def test_a_request_sent_before_the_answer_to_the_one_before_has_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "LINGER", 0.1)

    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(request("/", b"one") + request("/", b"t", length=3))
        assert await answer(reader) == b"one"
        await asyncio.sleep(0.5)
        writer.write(b"wo")
        assert await answer(reader) == b"two"
        writer.close()

    tell(story)


def test_a_request_that_is_answered_may_go_on_while_it_comes_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "LINGER", 0.1)
    monkeypatch.setattr(protocol, "LINGER_RATE", 100)

    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(request("/early", length=1000))
        for _ in range(10):
            writer.write(b"x" * 100)
            await asyncio.sleep(0.05)
        assert await answer(reader) == b""
        writer.write(request("/", b"next"))
        assert await answer(reader) == b"next"
        writer.close()

    tell(story)


@pytest.mark.parametrize(("rate", "most"), [(10_000, 1 << 30), (100, 2000)])
def test_a_request_that_is_answered_does_not_go_on_slowly_or_for_ever(
    monkeypatch: pytest.MonkeyPatch, rate: int, most: int
) -> None:
    monkeypatch.setattr(protocol, "LINGER", 0.1)
    monkeypatch.setattr(protocol, "LINGER_RATE", rate)
    monkeypatch.setattr(protocol, "LINGER_BYTES", most)

    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(request("/early", length=1 << 30))
        assert await answer(reader) == b""
        closing = asyncio.create_task(is_closed(reader))
        while not closing.done():
            writer.write(b"x" * 40)
            await asyncio.sleep(0.02)
        assert closing.result()

    tell(story)


@pytest.mark.parametrize("early", [False, True])
def test_empty_lines_keep_no_connection_open(monkeypatch: pytest.MonkeyPatch, early: bool) -> None:
    monkeypatch.setattr(protocol, "LINGER", 60)

    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(request("/early" if early else "/", length=2) + (b"" if early else b"ab"))
        assert await answer(reader) == (b"" if early else b"ab")
        writer.write(b"ab" if early else b"\r\n")
        assert await is_closed(reader)

    tell(story, keep_alive=0.2)


@pytest.mark.parametrize("more", ["", "Connection: close\r\n"])
def test_an_answer_that_is_never_read_goes_with_its_connection(more: str) -> None:
    async def story(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(request("/large", more=more))

    tell(story, write=0.3)


def test_the_last_bytes_of_an_answer_do_not_keep_a_closed_connection() -> None:
    """Fewer than make a writer wait: nothing but the end of the connection could tell that nobody reads them."""

    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = len(LARGE) - (2 << 20)  # more than the system takes, so that a little is left in the process
        writer.write(request("/large", more="Connection: close\r\n"))
        await reader.readuntil(b"\r\n\r\n")
        while left > 0:
            left -= len(await reader.read(min(left, 65536)))
        writer.transport.pause_reading()  # type: ignore[attr-defined]

    tell(story, write=0.5)
