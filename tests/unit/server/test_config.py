"""Settings that do not fit together start nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmartifacts.errors import InvalidInput, LlmartifactsError, NotAllowed
from llmartifacts.server.config import Settings, from_environment, is_loopback


def _settings(**given: Any) -> Settings:
    return Settings(**{"registry": "here", **given})


def test_by_default_this_machine_only_and_with_tokens() -> None:
    settings = _settings().checked()
    assert (settings.host, settings.authenticate) == ("127.0.0.1", True)
    assert settings.origin == "http://127.0.0.1:8391"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.4", "registry.example.org", "127.0.0.1.nip.io", "0"])
def test_nothing_but_loopback_is_served_without_authentication(host: str) -> None:
    with pytest.raises(NotAllowed, match="everybody"):
        _settings(host=host, authenticate=False).checked()
    _settings(host=host).checked()


@pytest.mark.parametrize("more", [{"public_url": "https://a.example"}, {"trusted_hosts": ("a.example",)}])
def test_a_name_of_a_network_is_not_served_without_authentication(more: dict[str, Any]) -> None:
    with pytest.raises(NotAllowed):
        _settings(authenticate=False, **more).checked()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost"])
def test_loopback_may_be_served_without(host: str) -> None:
    assert is_loopback(host)
    _settings(host=host, authenticate=False).checked()


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"port": 65536}, "port"),
        ({"port": -1}, "port"),
        ({"workers": 0}, "workers"),
        ({"workers": 10_000}, "workers"),
        ({"registry": ""}, "registry"),
        ({"database": "postgresql://x/y"}, "blobs"),
        ({"blobs": "/b"}, "database"),
        ({"database": "mysql://x/y", "blobs": "/b"}, "database"),
        ({"log_format": "xml"}, "log_format"),
        ({"tls_cert": "c"}, "tls_key"),
        ({"tls_cert": "nowhere", "tls_key": "nowhere"}, "tls_cert"),
        ({"oidc": "nowhere"}, "oidc"),
        ({"trusted_hosts": ("a b",)}, "trusted_hosts"),
        ({"trusted_hosts": ("a:80",)}, "trusted_hosts"),
        ({"public_url": "registry.example.org"}, "public_url"),
        ({"public_url": "https://u:p@registry.example.org"}, "public_url"),
        ({"public_url": "https://registry.example.org/below"}, "public_url"),
        ({"public_url": "https://registry.example.org:x"}, "public_url"),
        ({"rate": float("nan")}, "rate"),
        ({"request_seconds": 0}, "request_seconds"),
        ({"max_concurrent": 0}, "max_concurrent"),
    ],
)
def test_what_does_not_fit_is_named(given: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        _settings(**given).checked()
    assert refused.value.field == field


def test_it_answers_to_its_own_names_and_to_those_it_was_told() -> None:
    assert _settings(host="0.0.0.0", public_url="https://Reg.Example.org:8443").hosts == {
        "localhost",
        "127.0.0.1",
        "[::1]",
        "reg.example.org",
    }
    assert "db.internal" in _settings(trusted_hosts=("db.internal",)).hosts
    assert "0.0.0.0" not in _settings(host="0.0.0.0").hosts


def test_variables_name_every_setting(tmp_path: Path) -> None:
    given = from_environment(
        {
            "LLMARTIFACTS_SERVE_PORT": "80",
            "LLMARTIFACTS_SERVE_AUTHENTICATE": "no",
            "LLMARTIFACTS_SERVE_TRUSTED_HOSTS": "a.example, b.example",
            "LLMARTIFACTS_SERVE_RATE": "1.5",
            "LLMARTIFACTS_SERVE_BLOBS": str(tmp_path),
            "LLMARTIFACTS_SERVE_HOST": "",
        }
    )
    assert given == {
        "port": 80,
        "authenticate": False,
        "trusted_hosts": ("a.example", "b.example"),
        "rate": 1.5,
        "blobs": str(tmp_path),
    }


@pytest.mark.parametrize(("name", "value"), [("PORT", "eighty"), ("AUTHENTICATE", "maybe"), ("RATE", "fast")])
def test_a_variable_of_the_wrong_form_is_named(name: str, value: str) -> None:
    with pytest.raises(LlmartifactsError) as refused:
        from_environment({f"LLMARTIFACTS_SERVE_{name}": value})
    assert name in refused.value.origin
