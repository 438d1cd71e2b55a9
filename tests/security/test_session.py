"""A token goes to its own server only, never in the open to another machine; nothing on the way gets it."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts import errors
from llmartifacts.client.address import Address
from llmartifacts.client.session import HttpSession

TOKEN = "lla_0123456789_secret"


@pytest.mark.parametrize(
    "url",
    [
        "http://registry.example.com",
        "http://127.0.0.1.evil.example",
        "http://localhost.evil.example",
        "http://evil.example/localhost",
        "http://10.0.0.1",
        "http://0.0.0.0:8391",
        "http://[::]",
        "http://[2001:db8::1]",
        "http://[::ffff:8.8.8.8]",
        "http://[fe80::1]",
        "http://localhost.",
        "http://LOCALHOST.example",
    ],
)
def test_a_token_is_not_sent_in_the_open_to_another_machine(url: str) -> None:
    with pytest.raises(errors.NotAllowed, match="open"):
        HttpSession(url, TOKEN)
    HttpSession(url, None)  # without one there is nothing to lose


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost@evil.example",
        "http://localhost:80@evil.example",
        "http://user:secret@127.0.0.1",
        "http://127.0.0.1\\@evil.example",
        "http://127.0.0.1#@evil.example",
        "http://127.0.0.1?@evil.example",
        "http://2130706433",
        "http://0x7f000001",
        "http://0x7f.1",
        "http://127.1",
        "http://0177.0.0.1",
        "http://１２７.0.0.1",
        "http://ⓛocalhost",
        "http://127.0.0.1 .evil.example",
        "http://127.0.0.1\r\n.evil.example",
        "http://127.0.0.1%2eevil.example",
        "http://[127.0.0.1]",
        "http://[::1]evil.example",
        "http://[::1",
        "http://[::1%25eth0]",
        "http://",
        "http:///x",
        "http:127.0.0.1",
        "https://a.example:0",
        "https://a.example:99999",
        "https://a.example:",
        "https://a.example:80x",
        "https://a.example/x/../y",
        "https://a.example//x",
        "https://a.example/?x",
        "https://-a.example",
        "https://a..example",
        "https://" + "a" * 64 + ".example",
        "https://" + "a." * 1500,
        "ftp://a.example",
        "file:///etc/passwd",
        "https+unix://x",
        "a.example",
        "",
    ],
)
def test_an_address_that_could_be_read_in_two_ways_is_refused(url: str) -> None:
    with pytest.raises(errors.InvalidInput):
        HttpSession(url, TOKEN)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://127.0.0.1:8391", "http://127.0.0.1:8391"),
        ("http://127.9.9.9", "http://127.9.9.9:80"),
        ("HTTP://LocalHost:1/", "http://localhost:1"),
        ("http://[::1]:8391/a", "http://[::1]:8391"),
        ("http://[0:0:0:0:0:0:0:1]", "http://[::1]:80"),
        ("https://Registry.Example.com", "https://registry.example.com:443"),
        ("https://10.0.0.1/registry", "https://10.0.0.1:443"),
    ],
)
def test_an_address_has_one_origin_however_it_is_written(url: str, origin: str) -> None:
    HttpSession(url, TOKEN)
    address = Address.parse(url)
    assert address.origin == origin
    assert Address.parse(address.url) == address


@given(st.text(max_size=60) | st.from_regex(r"https?://[a-z0-9.:@\[\]\\/#?%]{0,40}", fullmatch=True))
def test_an_address_is_read_as_itself_or_refused(text: str) -> None:
    try:
        address = Address.parse(text)
    except errors.InvalidInput:
        return
    assert Address.parse(address.url) == address
    assert address.host in text.lower() or ":" in address.host


@pytest.mark.parametrize("token", ["", "a b", "a\r\nX: y", "é", "a\x00", "x" * 20_000])
def test_a_token_that_would_break_a_header_is_refused(token: str) -> None:
    with pytest.raises(errors.InvalidInput, match="token"):
        HttpSession("https://a.example", token)


def test_a_header_that_would_become_two_is_refused() -> None:
    class Route:
        name, method, path, writes, slow = "x", "GET", "/x", False, False

    with pytest.raises(errors.InvalidInput, match="If-None-Match"):
        HttpSession("http://127.0.0.1:9", None).call(Route(), headers={"If-None-Match": "a\r\nX: y"})


def test_a_name_that_says_localhost_and_leads_elsewhere_gets_no_token(
    http: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 80))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: elsewhere)
    with pytest.raises(errors.NotAllowed, match="not on this machine"):
        HttpSession("http://localhost", TOKEN).call(http.Route(), deadline=5)


# --- redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("operation", ["call", "send", "stream"])
def test_a_redirect_is_not_followed(status: int, operation: str, http: Any) -> None:
    other = http.serve(http.answer())
    server = http.serve(http.answer(status, b"", Location=other.url))
    session = HttpSession(server.url, TOKEN)
    with pytest.raises(errors.Unreachable, match=str(status)):
        if operation == "call":
            session.call(http.Route())
        elif operation == "send":
            session.send(http.Route(method="PUT"), b"x")
        else:
            with session.stream(http.Route()):
                pass
    assert other.requests == []


def test_bytes_of_a_blob_may_come_from_elsewhere_and_the_token_stays_behind(http: Any) -> None:
    other = http.serve(http.answer(206, b"bytes", kind="application/octet-stream"))
    server = http.serve(http.answer(307, b"", Location=f"{other.url}/bucket/x?signature=abc"))
    with HttpSession(server.url, TOKEN).stream(
        http.Route(), headers={"Range": "bytes=0-4"}, redirects=True
    ) as download:
        assert b"".join(download.chunks()) == b"bytes"
    (asked,) = other.requests
    assert asked.line == "GET /bucket/x?signature=abc HTTP/1.1"
    assert asked.header("Range") == "bytes=0-4"
    assert asked.header("Authorization") is None
    assert asked.header("Cookie") is None
    assert TOKEN not in asked.head


def test_the_token_does_not_come_back_by_a_second_redirect(http: Any) -> None:
    server = http.serve()
    other = http.serve(http.answer(302, b"", Location=f"{server.url}/api/v1/me"))
    answers = [http.answer(302, b"", Location=other.url), http.answer(200, b"x")]
    server.handler = lambda sock, request: sock.sendall(answers[min(request.number, 2) - 1])
    with HttpSession(server.url, TOKEN).stream(http.Route(), redirects=True) as download:
        list(download.chunks())
    assert [r.header("Authorization") is not None for r in server.requests] == [True, False]


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "http://192.0.2.1/x",
        "http://registry.example.com/x",
        "gopher://x",
        "http://user:secret@127.0.0.1/",
        "",
        "https://",
        "http://[::1",
        "javascript:alert(1)",
    ],
)
def test_a_redirect_to_another_scheme_or_in_the_open_is_refused_and_not_told(location: str, http: Any) -> None:
    server = http.serve(http.answer(302, b"", Location=location))
    with (
        pytest.raises(errors.Unreachable, match="elsewhere") as raised,
        HttpSession(server.url, TOKEN).stream(http.Route(), redirects=True),
    ):
        pass
    assert "secret" not in str(raised.value)


def test_redirects_come_to_an_end(http: Any) -> None:
    server = http.serve()
    server.handler = lambda sock, request: sock.sendall(http.answer(302, b"", Location=f"{server.url}/again"))
    with pytest.raises(errors.Unreachable), HttpSession(server.url, TOKEN).stream(http.Route(), redirects=True):
        pass
    assert len(server.requests) == 4


# --- what lies around


def test_netrc_is_not_read(http: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password secret\ndefault login x password y\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".netrc").write_text(netrc.read_text())
    server = http.serve(http.answer())
    HttpSession(server.url, None).call(http.Route())
    assert server.requests[0].header("Authorization") is None


def test_cookies_are_not_kept(http: Any) -> None:
    server = http.serve(http.answer(Set_Cookie="session=stolen; Path=/"))
    session = HttpSession(server.url, TOKEN)
    session.call(http.Route())
    session.call(http.Route())
    assert server.requests[1].header("Cookie") is None


def test_this_machine_is_never_called_through_a_proxy(http: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy, server = http.serve(http.answer(200, b'"proxy"')), http.serve(http.answer(200, b'"server"'))
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, proxy.url)
    for host in ("127.0.0.1", "localhost"):
        assert HttpSession(f"http://{host}:{server.port}", TOKEN).call(http.Route()).json() == "server"
    assert proxy.requests == []


def test_a_proxy_of_the_environment_is_used_and_sees_no_token(http: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = http.serve(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")
    monkeypatch.setenv("https_proxy", f"http://somebody:word@127.0.0.1:{proxy.port}")
    with pytest.raises(errors.Unreachable, match="proxy"):
        HttpSession("https://registry.example.com", TOKEN, attempts=1).call(http.Route())
    assert proxy.requests[0].line.startswith("CONNECT registry.example.com:443 ")
    assert TOKEN not in proxy.requests[0].head
    monkeypatch.setenv("no_proxy", "example.com")
    with pytest.raises(errors.Unreachable):
        HttpSession("https://registry.example.com", TOKEN, attempts=1).call(http.Route(), deadline=1)
    assert len(proxy.requests) == 1


def test_a_proxy_that_says_one_byte_a_moment_ends_in_time(http: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def slowly(sock: socket.socket, request: Any) -> None:
        for byte in b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100:
            sock.sendall(bytes([byte]))
            over.wait(0.05)

    proxy = http.serve(slowly)
    monkeypatch.setenv("https_proxy", proxy.url)
    with pytest.raises(errors.DeadlineExceeded):
        HttpSession("https://registry.example.com", TOKEN).call(http.Route(), deadline=0.5)


def test_the_token_is_in_no_text_that_is_shown(http: Any) -> None:
    session = HttpSession(http.serve(http.answer(500, b"x", kind="text/plain")).url, TOKEN)
    with pytest.raises(errors.Unreachable) as raised:
        session.call(http.Route())
    assert TOKEN not in f"{session!r} {raised.value!r} {raised.value.details()}"


class Changing:
    """A source whose first token is no longer taken."""

    def __init__(self) -> None:
        self.refused: list[str | None] = []

    def token(self, *, refused: str | None = None) -> str | None:
        self.refused.append(refused)
        return "second" if refused == "first" else "first"


def test_a_token_that_is_refused_is_renewed_once(http: Any) -> None:
    refusal = http.answer(401, b'{"errors": [{"code": "not_allowed", "message": "expired"}]}')
    server = http.serve(refusal, http.answer(200))
    source = Changing()
    assert HttpSession(server.url, source).call(http.Route()).status == 200
    assert [r.header("Authorization") for r in server.requests] == ["Bearer first", "Bearer second"]
    server = http.serve(refusal)
    with pytest.raises(errors.NotAllowed, match="expired"):
        HttpSession(server.url, Changing()).call(http.Route())
    assert len(server.requests) == 2


# --- TLS


@pytest.fixture(scope="module")
def authority(
    tmp_path_factory: pytest.TempPathFactory, make_certificate: Callable[..., tuple[Path, Path]]
) -> tuple[Path, Path, Path]:
    """A certificate for localhost that vouches for itself, its key, and one for another host."""
    folder = tmp_path_factory.mktemp("tls")
    own, public = make_certificate(folder, "localhost", "127.0.0.2")
    other, _ = make_certificate(folder, "other.example", "127.0.0.2")
    return public, own, other


def tls(path: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


def test_tls_is_verified_and_the_bundle_of_the_environment_counts(
    http: Any, authority: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    public, own, other = authority
    server, impostor = http.serve(http.answer(), tls=tls(own)), http.serve(http.answer(), tls=tls(other))
    with pytest.raises(errors.Unreachable, match="certificate"):
        HttpSession(server.url, TOKEN).call(http.Route())
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(public))
    with HttpSession(server.url, TOKEN) as session:
        assert session.call(http.Route()).status == 200
        session.call(http.Route())
    with pytest.raises(errors.Unreachable):
        HttpSession(impostor.url, TOKEN).call(http.Route())
    with pytest.raises(errors.Unreachable):  # the certificate is for localhost, not for this address
        HttpSession(f"https://127.0.0.1:{server.port}", TOKEN).call(http.Route())
    assert [r.header("Authorization") for r in server.requests] == [f"Bearer {TOKEN}"] * 2
    assert impostor.requests == []
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
    with pytest.raises(errors.InvalidInput, match="REQUESTS_CA_BUNDLE"):
        HttpSession(server.url, TOKEN).call(http.Route())


def test_a_handshake_that_never_ends_ends_in_time(http: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(errors.DeadlineExceeded):
        HttpSession(f"https://127.0.0.1:{listener.getsockname()[1]}", TOKEN).call(http.Route(), deadline=0.4)


def test_a_plain_server_is_not_taken_for_one_with_tls(http: Any) -> None:
    server = http.serve(http.answer())
    with pytest.raises(errors.Unreachable):
        HttpSession(f"https://127.0.0.1:{server.port}", TOKEN, attempts=1).call(http.Route(), deadline=1)
    assert all(TOKEN not in r.head for r in server.requests)
