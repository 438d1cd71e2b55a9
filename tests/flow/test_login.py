"""People and programs log in to a running server, through a real login provider, and use what they got."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import rsa

import llmartifacts as la
from llmartifacts import errors
from llmartifacts.cli.main import main
from llmartifacts.testing.server import RunningServer, running_server

PEOPLE = (
    {"sub": "u-ann", "preferred_username": "ann", "groups": ["ml-core"]},
    {"sub": "u-eve", "preferred_username": "ann", "groups": ["ml-core"]},
    {"sub": "u-bob", "preferred_username": "bob", "groups": ["sales"]},
)
PROVIDER = """
from oidc_provider_mock import _app
from oidc_provider_mock.__main__ import run
_app.AuthorizationCodeGrant.TOKEN_ENDPOINT_AUTH_METHODS = ["none"]  # a program on a person's machine has no secret
run()
"""
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    """`oidc-provider-mock`, as a process of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    people = [part for one in PEOPLE for part in ("--user-claims", json.dumps(one))]
    if importlib.util.find_spec("oidc_provider_mock") is None:  # importing it warns
        pytest.skip("LOGIN PROVIDER MISSING: oidc-provider-mock is not installed")
    program = [sys.executable, "-W", "ignore", "-c", PROVIDER]
    with subprocess.Popen(
        [*program, "--port", str(port), *people], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            for _ in range(200):
                try:
                    requests.get(f"http://127.0.0.1:{port}/jwks", timeout=5)
                    break
                except requests.ConnectionError:
                    assert process.poll() is None, "it ended"
                    time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def ci() -> Iterator[str]:
    """A provider of workloads' tokens: two documents, and a key that tests sign with."""
    import http.server

    public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(KEY.public_key()))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found: dict[str, Any] = {"keys": [{**public, "kid": "k", "use": "sig"}]}
            if self.path.endswith("openid-configuration"):
                found = {"issuer": issuer, "jwks_uri": f"{issuer}/keys"}
            body = json.dumps(found).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        issuer = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield issuer
        server.shutdown()


@pytest.fixture(scope="module")
def server(provider: str, ci: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("server")
    config = {
        "providers": [
            {
                "name": "corp",
                "issuer": provider,
                "client_id": "llmartifacts",
                "rules": [{"claims": {"groups": "ml-*"}, "user": "preferred_username", "life": "8h"}],
            },
            {
                "name": "ci",
                "issuer": ci,
                "audience": "https://registry.example.com",
                "rules": [{"claims": {"repository": "acme/agent"}, "account": "ci-agent", "life": "10m"}],
            },
        ]
    }
    (folder / "oidc.yaml").write_text(json.dumps(config))
    with running_server(folder / "registry", oidc=str(folder / "oidc.yaml")) as running:
        yield running


@dataclass
class Ended:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Ended]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMARTIFACTS_CONFIG", str(tmp_path / "config"))
    monkeypatch.setattr("webbrowser.open", lambda _: pytest.fail("a browser was opened"))

    def run(*arguments: str, expect: int | None = 0) -> Ended:
        capsys.readouterr()
        code = main(list(arguments))
        streams = capsys.readouterr()
        assert expect is None or code == expect, (code, streams.out, streams.err)
        assert "Traceback" not in streams.out + streams.err
        return Ended(code, streams.out, streams.err)

    return run


@pytest.fixture
def admin(cli: Cli, server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Commands of the administrator; leaves no credentials behind."""

    def run(*arguments: str, expect: int | None = 0) -> Ended:
        with monkeypatch.context() as patch:
            patch.setenv("LLMARTIFACTS_TOKEN", server.token)
            return cli(*arguments, "--registry", server.url, expect=expect)

    return run


def person(sub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a browser open in which that person agrees."""

    def browse(url: str) -> bool:
        def agree() -> None:
            requests.post(url, data={"sub": sub}, timeout=10)  # and follows the redirect to this machine

        threading.Thread(target=agree, daemon=True).start()
        return True

    monkeypatch.setattr("webbrowser.open", browse)


def job(ci: str, **changed: Any) -> str:
    claims = {
        "iss": ci,
        "aud": "https://registry.example.com",
        "sub": "repo:acme/agent",
        "iat": time.time(),
        "exp": time.time() + 300,
        "repository": "acme/agent",
        **changed,
    }
    return jwt.encode(claims, KEY, algorithm="RS256", headers={"kid": "k"})


def test_a_person_logs_in_with_a_browser_and_uses_the_registry(
    cli: Cli, admin: Cli, server: RunningServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    person("u-ann", monkeypatch)
    ended = cli("login", server.url, "--provider", "corp", "--json").json
    assert (ended["server"], ended["account"]) == (server.url, "ann")
    kept = tmp_path / "config" / "credentials.json"
    assert ended["path"] == str(kept)
    assert kept.stat().st_mode & 0o777 == 0o600
    me = cli("user", "whoami", "--registry", server.url, "--json").json
    assert (me["name"], me["token_id"], me["grants"]) == ("ann", ended["token_id"], [])
    cli("project", "create", "acme", "--registry", server.url, expect=9)  # nobody gave her anything yet
    cli("ls", "--project", "acme", "--registry", server.url, expect=3)
    admin("project", "create", "acme")
    admin("grant", "add", "ann", "writer", "--project", "acme")
    time.sleep(3.5)  # who somebody is, and with which rights, is remembered for three seconds
    with la.connect(server.url, project="acme") as registry:
        assert registry.log("docs", la.Files({"a.txt": b"text"})).number == 1
    assert cli("logout", server.url, "--revoke", "--json").json["revoked"] is True
    cli("ls", "--project", "acme", "--registry", server.url, expect=9)
    assert ended["token_id"] not in kept.read_text()


def test_another_person_of_the_same_name_gets_nothing(
    cli: Cli, server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    person("u-ann", monkeypatch)
    cli("login", server.url)
    cli("logout", server.url)
    person("u-eve", monkeypatch)
    assert "taken" in cli("login", server.url, expect=9).err
    person("u-bob", monkeypatch)
    assert "no rule" in cli("login", server.url, expect=9).err
    cli("logout", server.url, expect=3)


def test_a_token_is_pasted_and_a_wrong_one_is_not_kept(
    cli: Cli, admin: Cli, server: RunningServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import io

    admin("user", "add", "web", "--service")
    token = admin("token", "create", "--account", "web", "--label", "deploy").out
    monkeypatch.setattr("sys.stdin", io.StringIO(token))
    assert "as web" in cli("login", server.url, "--token-stdin").out
    assert token.strip() in (tmp_path / "config" / "credentials.json").read_text()
    cli("logout", server.url)
    forged = re.sub(r"_[0-9A-Za-z]{32}_", "_" + "0" * 32 + "_", token)
    for wrong in (forged, "", "two words\n"):
        monkeypatch.setattr("sys.stdin", io.StringIO(wrong))
        ended = cli("login", server.url, "--token-stdin", expect=None)
        assert ended.code in (2, 9)
    assert "0" * 32 not in (tmp_path / "config" / "credentials.json").read_text()


@pytest.mark.matrix
def test_a_program_logs_in_with_its_own_token(
    cli: Cli, admin: Cli, server: RunningServer, ci: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if "ci-agent" not in admin("user", "ls").out:
        admin("user", "add", "ci-agent", "--service")
    admin("project", "create", "jobs", expect=None)
    admin("grant", "add", "ci-agent", "writer", "--project", "jobs")
    monkeypatch.setenv("LLMARTIFACTS_ID_TOKEN", job(ci))
    ended = cli("login", server.url, "--workload", "--print")
    assert re.fullmatch(r"lla_\w{10}_\w{32}_\w{6}\n", ended.out)
    assert not (tmp_path / "config").exists()
    monkeypatch.setenv("LLMARTIFACTS_ID_TOKEN", job(ci, repository="evil/agent"))
    cli("login", server.url, "--workload", expect=9)
    monkeypatch.delenv("LLMARTIFACTS_ID_TOKEN")
    file = tmp_path / "id-token"
    file.write_text(job(ci))
    monkeypatch.setenv("LLMARTIFACTS_ID_TOKEN_FILE", str(file))
    with la.connect(server.url, project="jobs") as registry:  # by itself, with no login before
        assert registry.log("built", la.Files({"a.txt": os.urandom(8)})).number >= 1
        tokens = admin("token", "ls", "--account", "ci-agent", "--json").json["tokens"]
        admin("token", "revoke", tokens[0]["id"])
        time.sleep(5)  # a token that is revoked may be good for as long
        registry.log("built", la.Files({"a.txt": os.urandom(8)}))  # renewed by itself


def test_everything_about_people_works_over_http_as_on_files(admin: Cli, server: RunningServer) -> None:
    admin("user", "add", "carl")
    admin("team", "add", "leads")
    assert admin("team", "add-member", "leads", "carl", "--json").json["account"]["members"] == ["carl"]
    admin("project", "create", "team-project")
    where = ("--project", "team-project")
    grant = admin("grant", "add", "leads", "promoter", *where, "--alias", "!prod", "--json").json["grant"]
    assert "promoter" in admin("user", "show", "carl").out
    assert [g["id"] for g in admin("grant", "ls", *where, "--json").json["grants"]] == [grant["id"]]
    admin("alias", "protect", "prod", *where)
    assert "admin only" in admin("alias", "protect", *where).out
    token = admin("token", "create", "--account", "carl", "--read-only", "--days", "3").out.strip()
    as_carl = {"Authorization": f"Bearer {token}"}
    assert requests.get(f"{server.url}/api/v1/me", headers=as_carl, timeout=10).json()["name"] == "carl"
    listed = admin("token", "ls", "--account", "carl", "--json").json["tokens"]
    assert admin("token", "revoke", listed[0]["id"], "--json").json["token"]["revoked_at"]
    admin("grant", "revoke", str(grant["id"]), *where)
    assert admin("team", "remove-member", "leads", "carl", "--json").json["removed"] == "carl"
    assert admin("user", "disable", "carl", "--json").json["account"]["disabled_at"]
    assert "carl" in admin("user", "ls").out
    admin("user", "disable", "admin", expect=1)  # the last who administers


def test_tokens_are_in_no_log(cli: Cli, admin: Cli, server: RunningServer, ci: str) -> None:
    text = admin("token", "create", "--label", "seen").out.strip()
    identity = job(ci)
    requests.post(f"{server.url}/api/v1/auth/exchange", json={"token": identity}, timeout=10)
    log = server.log_text()
    assert "/auth/exchange" in log
    for secret in (text.split("_")[2], server.token.split("_")[2], identity.split(".")[1], identity.split(".")[2]):
        assert secret not in log


def test_a_login_in_the_open_is_refused_before_anything_is_asked(cli: Cli) -> None:
    for url in ("http://registry.example.com", "http://localhost@evil.example", "registry.example.com", "./here"):
        assert cli("login", url, "--token-stdin", expect=None).code in (2, 9)
    with pytest.raises(errors.NotAllowed):
        la.connect("http://registry.example.com")
