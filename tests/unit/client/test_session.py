"""A session asks, tries again where that helps, and ends with an answer or a typed error."""

from __future__ import annotations

import gzip
import io
import os
import socket
import threading
import time
from typing import Any

import pytest

from llmartifacts import errors
from llmartifacts.client.session import HttpSession
from llmartifacts.outbound.surroundings import default_timeout

TOKEN = "lla_0123456789_secret"


def stall(sock: socket.socket, request: Any) -> None:
    """Say nothing, for as long as anybody listens."""
    sock.recv(1)


def dribble(data: bytes, pause: float = 0.05) -> Any:
    """Send a byte at a time."""

    def run(sock: socket.socket, request: Any) -> None:
        for byte in data:
            sock.sendall(bytes([byte]))
            time.sleep(pause)

    return run


def cut(data: bytes) -> Any:
    """Send this, then close."""

    def run(sock: socket.socket, request: Any) -> None:
        if data:
            sock.sendall(data)
        sock.shutdown(socket.SHUT_RDWR)
        raise OSError

    return run


def reset(sock: socket.socket, request: Any) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()
    raise OSError


def test_an_answer_comes_with_its_status_its_headers_and_its_bytes(http: Any) -> None:
    server = http.serve(http.answer(201, b'{"a": 1}', ETag='"r7"'))
    with HttpSession(server.url, TOKEN) as session:
        answer = session.call(
            http.Route(method="POST", path="/projects/{project}/read", writes=True),
            path={"project": "a b/c"},
            query={"ref": ["x:prod", "y@1"], "limit": 3, "all": True, "after": None},
            body=b'{"q": 1}',
        )
    assert (answer.status, answer.json(), answer.headers["etag"]) == (201, {"a": 1}, '"r7"')
    asked = server.requests[0]
    assert asked.line == "POST /api/v1/projects/a%20b%2Fc/read?ref=x%3Aprod&ref=y%401&limit=3&all=true HTTP/1.1"
    assert asked.body == b'{"q": 1}'
    assert asked.header("Authorization") == f"Bearer {TOKEN}"
    assert asked.header("User-Agent").startswith("llmartifacts/")
    assert asked.header("Content-Type") == "application/json"
    assert 16 <= len(asked.header("Idempotency-Key")) <= 128


def test_an_address_below_a_path_is_called_there(http: Any) -> None:
    server = http.serve(http.answer())
    HttpSession(f"{server.url}/registry/", None).call(http.Route())
    assert server.requests[0].line == "GET /registry/api/v1/thing HTTP/1.1"


def test_connections_are_kept_and_used_again(http: Any) -> None:
    server = http.serve(
        http.answer(), http.answer(404, b'{"errors": [{"code": "not_found", "message": "no"}]}'), http.answer()
    )
    with HttpSession(server.url, None) as session:
        session.call(http.Route())
        with pytest.raises(errors.NotFound):
            session.call(http.Route())
        with session.stream(http.Route()) as download:
            assert b"".join(download.chunks()) == b"{}"
        session.send(http.Route(method="PUT"), b"bytes")
        session.call(http.Route())
    assert server.connections == 1


def test_an_unchanged_answer_is_no_error(http: Any) -> None:
    server = http.serve(b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n")
    answer = HttpSession(server.url, None).call(http.Route(), headers={"If-None-Match": "x"})
    assert (answer.status, answer.body) == (304, b"")
    assert server.requests[0].header("If-None-Match") == "x"


def test_an_error_comes_as_its_class_with_its_fields(http: Any) -> None:
    body = (
        b'{"errors": [{"code": "alias_moved", "message": "it moved", "detail": {"alias": "kb:prod", "actual": "v2"}}]}'
    )
    server = http.serve(http.answer(409, body))
    with pytest.raises(errors.AliasMoved, match="it moved") as raised:
        HttpSession(server.url, None).call(http.Route())
    assert (raised.value.alias, raised.value.actual) == ("kb:prod", "v2")
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 500])
def test_a_page_of_something_else_is_told_by_its_status_and_not_shown(status: int, http: Any) -> None:
    server = http.serve(http.answer(status, b"<html>secret-page</html>", kind="text/html"))
    with pytest.raises(errors.Unreachable, match=str(status)) as raised:
        HttpSession(server.url, None).call(http.Route())
    assert "secret-page" not in str(raised.value)


# --- trying again


@pytest.mark.parametrize("first", ["429", "502", "503", "504", "reset", "closed", "half head", "half body"])
def test_what_may_pass_is_tried_again_under_the_same_key(first: str, http: Any) -> None:
    made = {
        "reset": reset,
        "closed": cut(b""),
        "half head": cut(b"HTTP/1.1 200 OK\r\nContent-Le"),
        "half body": cut(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"),
    }
    fails = made.get(first) or http.answer(int(first), b"try later", kind="text/plain")
    server = http.serve(fails, fails, http.answer(200, b"[]"))
    answer = HttpSession(server.url, None).call(http.Route(method="POST", writes=True), body=b'{"n": 1}')
    assert answer.body == b"[]"
    assert [r.body for r in server.requests] == [b'{"n": 1}'] * 3
    assert len({r.header("Idempotency-Key") for r in server.requests}) == 1


def test_a_key_that_is_given_is_the_one_that_is_sent(http: Any) -> None:
    server = http.serve(http.answer())
    HttpSession(server.url, None).call(http.Route(method="POST"), idempotency_key="k" * 20)
    assert server.requests[0].header("Idempotency-Key") == "k" * 20


@pytest.mark.parametrize("status", [400, 403, 409, 500, 501])
def test_what_will_not_pass_is_not_tried_again(status: int, http: Any) -> None:
    server = http.serve(http.answer(status, b'{"errors": [{"code": "error", "message": "no"}]}'))
    with pytest.raises(errors.LlmartifactsError, match="no"):
        HttpSession(server.url, None).call(http.Route())
    assert len(server.requests) == 1


def test_attempts_end_with_what_the_last_one_said(http: Any) -> None:
    server = http.serve(http.answer(503, b'{"errors": [{"code": "busy", "message": "locked"}]}'))
    with pytest.raises(errors.Busy, match="locked"):
        HttpSession(server.url, None, attempts=3).call(http.Route())
    assert len(server.requests) == 3


def test_a_wait_that_is_asked_for_is_kept(http: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("llmartifacts.client.session.time.sleep", waits.append)
    server = http.serve(http.answer(429, Retry_After="7"), http.answer(200))
    HttpSession(server.url, None).call(http.Route())
    assert waits == [7.0]


@pytest.mark.parametrize("asked", ["3600", "Sun, 01 Jan 2090 00:00:00 GMT"])
def test_a_wait_beyond_the_deadline_ends_at_once_with_the_reason(asked: str, http: Any) -> None:
    body = b'{"errors": [{"code": "busy", "message": "too many"}]}'
    server = http.serve(http.answer(429, body, Retry_After=asked))
    with pytest.raises(errors.Busy, match="too many"):
        HttpSession(server.url, None).call(http.Route())
    assert len(server.requests) == 1


@pytest.mark.parametrize("asked", ["", "soon", "-5", "1e9", "9" * 400, "²"])
def test_a_wait_that_cannot_be_read_is_none(asked: str, http: Any) -> None:
    raw = f"HTTP/1.1 503 X\r\nRetry-After: {asked}\r\nContent-Length: 0\r\n\r\n".encode()
    server = http.serve(raw, http.answer(200))
    assert HttpSession(server.url, None).call(http.Route()).status == 200


def test_nobody_there_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(errors.Unreachable, match="connection refused"):
        HttpSession(f"http://127.0.0.1:{port}", None, attempts=2).call(Nowhere())
    with pytest.raises(errors.Unreachable):
        HttpSession("https://nobody.invalid", None, attempts=1).call(Nowhere())


class Nowhere:
    name, method, path, writes, slow = "thing", "GET", "/thing", False, False


# --- time


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 4000\r\n\r\n"


@pytest.mark.parametrize(
    "behaviour",
    [
        stall,
        dribble(HEAD),
        dribble(HEAD + b" " * 4000),
        dribble(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
        lambda sock, request: (sock.sendall(HEAD), sock.recv(1)),
    ],
    ids=["silence", "a slow head", "a slow body", "endless preliminaries", "half a body, then silence"],
)
def test_no_server_keeps_a_caller_beyond_the_deadline(behaviour: Any, http: Any) -> None:
    server = http.serve(behaviour)
    with pytest.raises(errors.DeadlineExceeded):
        HttpSession(server.url, None).call(http.Route(), deadline=0.4)
    assert len(server.requests) == 1


def test_a_server_that_never_takes_the_body_ends_in_time(http: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(errors.DeadlineExceeded):
            HttpSession(url, None, timeout=0.4).send(http.Route(method="PUT"), b"x" * 30_000_000)


def test_a_slow_download_ends_where_it_stops_and_goes_on_where_it_moves(http: Any) -> None:
    def moving(sock: socket.socket, request: Any) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 640000\r\n\r\n")
        for _ in range(10):
            sock.sendall(b"x" * 64_000)
            time.sleep(0.1)

    server = http.serve(
        moving, lambda sock, request: (sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"), sock.recv(1))
    )
    session = HttpSession(server.url, None, timeout=0.5)
    with session.stream(http.Route()) as download:  # twice the session's time, and always moving
        assert sum(map(len, download.chunks())) == 640_000
    with session.stream(http.Route()) as download, pytest.raises(errors.DeadlineExceeded):
        list(download.chunks())


def test_a_download_keeps_to_a_deadline_though_it_moves(http: Any) -> None:
    def endless(sock: socket.socket, request: Any) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")
        while True:
            sock.sendall(b"x" * 10_000)
            time.sleep(0.01)

    server = http.serve(endless)
    with (
        HttpSession(server.url, None).stream(http.Route(), deadline=0.4) as download,
        pytest.raises(errors.DeadlineExceeded),
    ):
        list(download.chunks())


def test_a_look_up_that_hangs_ends_in_time(http: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(20))
    with pytest.raises(errors.DeadlineExceeded):
        HttpSession("https://registry.example.com", None).call(http.Route(), deadline=0.3)
    over.set()


def test_the_time_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_timeout() == 30
    monkeypatch.setenv("LLMARTIFACTS_TIMEOUT", "2.5")
    assert HttpSession("https://a.example", None).timeout == 2.5
    for wrong in ("soon", "0", "-1", "nan", "inf", "1e9"):
        monkeypatch.setenv("LLMARTIFACTS_TIMEOUT", wrong)
        with pytest.raises(errors.InvalidInput, match="LLMARTIFACTS_TIMEOUT"):
            HttpSession("https://a.example", None)


# --- bytes


def test_an_answer_is_decompressed(http: Any) -> None:
    server = http.serve(http.answer(200, gzip.compress(b'{"a": 1}'), Content_Encoding="gzip"))
    assert HttpSession(server.url, None).call(http.Route()).json() == {"a": 1}


@pytest.mark.parametrize("form", ["length", "chunked", "gzip", "gzip error"])
def test_an_answer_that_is_too_large_is_given_up(form: str, http: Any) -> None:
    bomb = gzip.compress(b"0" * 50_000_000)
    body = b"0" * 3_000_000
    sent = {
        "length": http.answer(200, body),
        "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\n0\r\n" * 500_000,
        "gzip": http.answer(200, bomb, Content_Encoding="gzip"),
        "gzip error": http.answer(400, bomb, Content_Encoding="gzip"),
    }
    server = http.serve(sent[form])
    with pytest.raises((errors.TooLarge, errors.Unreachable)):
        HttpSession(server.url, None).call(http.Route(), limit=100_000)
    assert len(server.requests) == 1


def test_framing_without_an_end_is_given_up(http: Any) -> None:
    def endless(sock: socket.socket, request: Any) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;")
        while True:
            sock.sendall(b"x" * 100_000)

    server = http.serve(endless)
    with pytest.raises((errors.TooLarge, errors.Unreachable)):
        HttpSession(server.url, None, attempts=1).call(http.Route(), limit=1000, deadline=5)


@pytest.mark.parametrize("encoding", ["br", "zstd", "deflate", "gzip, gzip"])
def test_an_encoding_that_was_not_asked_for_is_refused(encoding: str, http: Any) -> None:
    server = http.serve(http.answer(200, b"xx", Content_Encoding=encoding))
    with pytest.raises(errors.Unreachable, match="encoding"):
        HttpSession(server.url, None).call(http.Route())


@pytest.mark.parametrize("body", [gzip.compress(b"{}" * 500, mtime=0)[:-9], b"no gzip at all"], ids=["cut", "none"])
def test_a_damaged_compression_is_told(body: bytes, http: Any) -> None:
    server = http.serve(http.answer(200, body, Content_Encoding="gzip"))
    with pytest.raises(errors.Unreachable):
        HttpSession(server.url, None, attempts=1).call(http.Route())


@pytest.mark.parametrize("size", [1, 3_000_000])
@pytest.mark.parametrize("more", [gzip.compress(b" " * 50_000, mtime=0), b"x"], ids=["another", "rubbish"])
def test_what_follows_the_end_of_a_compression_is_refused_and_not_collected(size: int, more: bytes, http: Any) -> None:
    body = gzip.compress(b" " * size, mtime=0) + more
    server = http.serve(http.answer(200, body, Content_Encoding="gzip"))
    with pytest.raises(errors.Unreachable, match="goes on after its end"):
        HttpSession(server.url, None, attempts=1).call(http.Route(), limit=10_000_000)


@pytest.mark.parametrize("body", [b"", b"{", b'{"a": 1, "a": 2}', b"NaN", b"\xff", b"[" * 100_000])
def test_json_that_is_none_is_told(body: bytes, http: Any) -> None:
    server = http.serve(http.answer(200, body))
    with pytest.raises(errors.Unreachable, match="cannot be read"):
        HttpSession(server.url, None).call(http.Route()).json()


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nContent-Length: 20\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
    ],
)
def test_an_answer_that_is_no_http_is_typed(raw: bytes, http: Any) -> None:
    server = http.serve(cut(raw))
    with pytest.raises(errors.LlmartifactsError):
        HttpSession(server.url, None, attempts=1).call(http.Route(), deadline=5).json()


def test_a_download_that_breaks_off_is_told(http: Any) -> None:
    server = http.serve(cut(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"))
    with (
        HttpSession(server.url, None).stream(http.Route()) as download,
        pytest.raises(errors.Unreachable, match="middle"),
    ):
        list(download.chunks())
    assert len(server.requests) == 1


def test_an_upload_is_sent_again_from_where_it_began(http: Any) -> None:
    server = http.serve(reset, http.answer(503, b"", kind="text/plain"), http.answer(200))
    file = io.BytesIO(b"skipped" + b"x" * 300_000)
    file.seek(7)
    HttpSession(server.url, TOKEN).send(http.Route(method="PUT", writes=True), file)
    assert [r.body for r in server.requests] == [b"x" * 300_000] * 3
    assert {r.header("Content-Length") for r in server.requests} == {"300000"}


def test_an_upload_that_cannot_be_rewound_is_refused(http: Any) -> None:
    read, write = os.pipe()
    os.close(write)
    with open(read, "rb") as pipe, pytest.raises(errors.InvalidInput, match="rewound"):
        HttpSession("http://127.0.0.1:9", None).send(http.Route(method="PUT"), pipe)


def test_a_file_that_shrinks_meanwhile_is_told(http: Any) -> None:
    class Shrinking(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return b""

    server = http.serve(http.answer())
    with pytest.raises(errors.InvalidInput, match="shorter"):
        HttpSession(server.url, None).send(http.Route(method="PUT"), Shrinking(b"x" * 100))


@pytest.mark.parametrize("value", ["", ".", "..", "a\nb"])
def test_what_would_change_the_path_is_refused(value: str, http: Any) -> None:
    with pytest.raises(errors.InvalidInput):
        HttpSession("http://127.0.0.1:9", None).call(http.Route(path="/projects/{project}/x"), path={"project": value})


# --- processes and threads


def test_threads_share_a_session(http: Any) -> None:
    def echo(sock: socket.socket, request: Any) -> None:
        sock.sendall(http.answer(200, request.line.split()[1].encode()))

    server = http.serve(echo)
    wrong: list[object] = []
    with HttpSession(server.url, TOKEN) as session:

        def ask(me: int) -> None:
            for n in range(20):
                body = session.call(http.Route(path="/{me}"), path={"me": f"{me}-{n}"}).body
                if body != f"/api/v1/{me}-{n}".encode():
                    wrong.append(body)

        threads = [threading.Thread(target=ask, args=(me,)) for me in range(8)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    assert wrong == []
    assert len(server.requests) == 160


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_made_by_fork_has_connections_of_its_own(http: Any) -> None:
    server = http.serve(http.answer(200, b"1"))
    session = HttpSession(server.url, None)
    session.call(http.Route())
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if session.call(http.Route(), deadline=10).body == b"1" else 1)
        except BaseException:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    session.call(http.Route())
    assert server.connections == 2
    assert [r.connection for r in server.requests] == [1, 2, 1]
