"""What a server says when it starts, and what keeps it from starting."""

from __future__ import annotations

import errno
import io
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from llmartifacts.cli.main import main
from llmartifacts.errors import Conflict, InvalidInput, NotAllowed
from llmartifacts.server import run
from llmartifacts.server.config import Settings
from llmartifacts.versioning.embedded import EmbeddedBackend

EVERYWHERE = "0.0.0.0"


@pytest.fixture
def registry(tmp_path: Path) -> str:
    EmbeddedBackend.create(tmp_path / "registry", actor="tester").close()
    return str(tmp_path / "registry")


@pytest.fixture
def begins(registry: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Starts a server up to where it would answer; gives what it printed, and the lines of its log by event."""
    monkeypatch.setattr(run, "_work", lambda *_: 0)

    def begin(**given: Any) -> tuple[str, dict[str, dict[str, Any]]]:
        out = io.StringIO()
        assert run.serve(Settings(registry=registry, port=0, **{"log_format": "json", **given}), out=out) == 0
        lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
        return out.getvalue(), {line["event"]: line for line in lines}

    return begin


def test_a_taken_port_is_a_conflict(registry: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(Conflict, match="in use") as caught:
            run.serve(Settings(registry=registry, port=port))
        assert caught.value.field == "port"
        assert main(["--registry", registry, "serve", "--port", str(port)]) == 4


def test_a_port_that_is_not_this_users_is_not_allowed(registry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: socket.socket, address: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(NotAllowed, match="Permission denied"):
        run.serve(Settings(registry=registry, port=443))


@pytest.mark.parametrize("host", ["192.0.2.1", "no..host"])
def test_a_host_that_is_no_address_of_this_machine_is_wrong_use(registry: str, host: str) -> None:
    with pytest.raises(InvalidInput, match="cannot listen") as caught:
        run.serve(Settings(registry=registry, port=0, host=host))
    assert caught.value.field == "host"


def test_without_tls_on_a_network_it_starts_and_warns(begins: Any) -> None:
    _, log = begins(host=EVERYWHERE)
    warned = log["tokens_in_the_open"]
    assert warned["level"] == "warning"
    assert "--tls-cert" in warned["next_step"]
    assert "--public-url" in warned["next_step"]


@pytest.mark.parametrize(
    "given", [{}, {"host": "localhost"}, {"host": EVERYWHERE, "public_url": "https://registry.example.org"}]
)
def test_on_loopback_or_behind_a_proxy_that_ends_tls_it_does_not_warn(begins: Any, given: dict[str, Any]) -> None:
    assert "tokens_in_the_open" not in begins(**given)[1]


def test_a_public_address_without_tls_is_warned_of_too(begins: Any) -> None:
    assert "tokens_in_the_open" in begins(host=EVERYWHERE, public_url="http://registry.example.org")[1]


def test_its_log_has_the_address_that_it_listens_on_beside_the_public_one(begins: Any) -> None:
    told = begins(host="127.0.0.1", public_url="https://registry.example.org")[1]["listening"]
    assert told["address"].startswith("http://127.0.0.1:")
    assert told["public"] == "https://registry.example.org"
    assert "public" not in begins(host="127.0.0.1")[1]["listening"]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({"host": EVERYWHERE}, "http://127.0.0.1:"),
        ({"host": "127.0.0.1"}, "http://127.0.0.1:"),
        ({"host": EVERYWHERE, "public_url": "https://registry.example.org"}, "https://registry.example.org"),
    ],
)
def test_where_to_log_in_is_an_address_that_a_client_can_use(begins: Any, given: dict[str, Any], shown: str) -> None:
    printed, _ = begins(**given)
    assert json.loads(printed)["origin"].startswith(shown)


def test_with_a_certificate_the_first_name_of_the_server_is_where_to_log_in() -> None:
    named = Settings(
        registry="r", host=EVERYWHERE, tls_cert="c", tls_key="k", trusted_hosts=("*.example.org", "reg.example.org")
    )
    assert run._login_address(named) == "https://reg.example.org:8391"
    assert run._login_address(Settings(registry="r", host="::")) == "http://[::1]:8391"
