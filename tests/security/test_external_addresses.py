"""A version that names a URL leads nobody's machine to where it should not go."""

from __future__ import annotations

import hashlib
import socket
from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts import errors
from llmartifacts.registry import Registry

CONTENT = b"weights"
DIGEST = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return la.init(tmp_path / "registry")


def files(registry: Registry, url: str) -> la.Files:
    registry.log("weights", la.Files.from_references({"w": la.External(url, DIGEST, len(CONTENT))}))
    return registry.resolve("weights:latest", la.Files)


def moved(to: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} Moved\r\nLocation: {to}\r\nContent-Length: 6\r\n\r\nsecret".encode()


def named(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Lets names mean other addresses, at the first look-up and at the next; returns the hosts that were asked for."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def look_up(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        if host == "localhost":
            return real(host, port, *rest, **more)
        asked.append(host)
        found = answers[min(len(asked), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/w",
        "https://[::1]/w",
        "https://[::ffff:127.0.0.1]/w",
        "https://169.254.169.254/latest/meta-data",
        "https://[fd00:ec2::254]/latest",
        "https://10.0.0.1/w",
        "https://0.0.0.0/w",
        "https://[64:ff9b::a9fe:a9fe]/w",
        "https://localhost/w",
    ],
)
def test_an_address_of_a_private_network_is_refused_before_it_is_spoken_to(
    registry: Registry, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(*_: Any) -> None:
        raise AssertionError("it was spoken to")

    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises(errors.NotAllowed, match="private"):
        files(registry, url).read("w")


@pytest.mark.parametrize("answers", [["127.0.0.1"], ["93.184.216.34", "127.0.0.1"], ["169.254.169.254"]])
def test_a_name_that_means_a_private_address_is_refused(
    registry: Registry, web: Any, answers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    named(monkeypatch, answers)
    with pytest.raises(errors.NotAllowed, match="private") as caught:
        files(registry, f"https://rebound.example:{web.server.port}/w").read("w")
    assert not any(address in f"{caught.value!r}{caught.value.hint()}" for address in answers)
    assert web.server.connections == 0


def test_a_name_is_looked_up_once_so_that_it_cannot_change_its_mind(
    registry: Registry, web: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmartifacts.external.ATTEMPTS", 1)
    spoken: list[Any] = []

    def connect(self: socket.socket, address: Any) -> None:
        spoken.append(address[0])
        raise ConnectionRefusedError

    asked = named(monkeypatch, ["93.184.216.34"], ["127.0.0.1"])
    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises(errors.Unreachable):
        files(registry, f"https://rebound.example:{web.server.port}/w").read("w")
    assert (asked, spoken) == (["rebound.example"], ["93.184.216.34"])


def test_the_address_of_the_connection_counts_not_that_of_the_name(
    registry: Registry, web: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.socket.connect
    named(monkeypatch, ["93.184.216.34"])
    # As where a packet filter of the machine leads connections elsewhere.
    monkeypatch.setattr(socket.socket, "connect", lambda self, address: real(self, ("127.0.0.1", web.server.port)))
    with pytest.raises(errors.NotAllowed, match="private"):
        files(registry, f"https://rebound.example:{web.server.port}/w").read("w")
    assert web.asked == []


# --- redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(registry: Registry, web: Any, status: int) -> None:
    web.files["other"] = CONTENT
    web.oddly["w"] = moved(web.url("other"), status)
    with pytest.raises(errors.NotAllowed, match="elsewhere") as caught:
        files(registry, web.url("w")).read("w")
    assert "LLMARTIFACTS_FOLLOW_REDIRECTS" in caught.value.hint()
    assert web.asked == ["GET /w"]


def test_a_host_that_may_send_elsewhere_is_followed_and_what_comes_is_verified(
    registry: Registry, web: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMARTIFACTS_FOLLOW_REDIRECTS", "localhost")
    web.files["other"], web.versions["other"] = CONTENT, "v1"
    web.oddly["w"] = moved("/other?X-Amz-Signature=abc")
    registry.log("weights", la.Files.from_references(web.url("w")))
    file = registry.find("weights").manifest.file("w")
    assert file is not None
    assert file.url == web.url("w")  # neither the signature nor the version of another place is kept
    assert registry.resolve("weights:v1").read("w") == CONTENT
    web.files["other"] = b"another"
    assert not registry.check_external("weights").ok


@pytest.mark.parametrize(
    "to",
    [
        "https://169.254.169.254/latest",
        "https://127.0.0.1/w",
        "http://example.org/w",
        "file:///etc/passwd",
        "https://u:p@example.org/w",
        "https://2130706433/w",
        "//[::1]/w",
        "",
    ],
)
def test_where_it_may_lead_it_leads_nowhere_else_than_a_url_may(
    registry: Registry, web: Any, to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMARTIFACTS_FOLLOW_REDIRECTS", "localhost")
    web.oddly["w"] = moved(to)
    with pytest.raises(errors.NotAllowed) as caught:
        files(registry, web.url("w")).read("w")
    assert "secret" not in repr(caught.value)
    assert len(web.asked) <= 5


# --- proxies


def test_a_proxy_is_not_asked_for_a_private_address(
    registry: Registry, http: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = http.serve(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", echo=False)
    monkeypatch.setattr("llmartifacts.external.ATTEMPTS", 1)
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    with pytest.raises(errors.NotAllowed, match="private"):
        files(registry, "https://169.254.169.254/latest").read("w")
    assert proxy.requests == []
    named(monkeypatch, ["93.184.216.34"])
    with pytest.raises(errors.Unreachable):
        files(registry, "https://files.example/w").read("w")
    assert [r.line.split()[:2] for r in proxy.requests] == [["CONNECT", "files.example:443"]]


# --- what is told


def test_an_error_tells_nothing_of_the_query_which_may_be_a_key(registry: Registry, web: Any) -> None:
    with pytest.raises(errors.BlobMissing) as caught:
        files(registry, web.url("w?customer=hush")).read("w")
    assert "hush" not in f"{caught.value!r}{caught.value.hint()}{caught.value.details()}"
