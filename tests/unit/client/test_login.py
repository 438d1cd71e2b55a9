"""A person logs in with a provider: by a browser that answers once, or by a code; and a program with its own token."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import requests

from llmartifacts import errors
from llmartifacts.client import login, workload
from llmartifacts.client.address import Address

CLIENT = "registry"


def b64(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


class Provider:
    """A provider made by hand, which checks what a careful one checks."""

    def __init__(self, http: Any) -> None:
        self.http = http
        self.server = http.serve()
        self.server.handler = self.handle
        self.issuer = self.server.url
        self.said: dict[str, Any] = {}
        self.claims: dict[str, Any] = {}
        self.asked: dict[str, str] = {}
        self.pending: list[str] = []
        self.interval: Any = 1

    def handle(self, sock: socket.socket, request: Any) -> None:
        path = request.line.split()[1]
        form = {k: v[0] for k, v in parse_qs(request.body.decode()).items()}
        if path.endswith("/openid-configuration"):
            found = {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "device_authorization_endpoint": f"{self.issuer}/device",
                **self.said,
            }
            return self.answer(sock, 200, {k: v for k, v in found.items() if v is not None})
        if path == "/device":
            codes = {"device_code": "d", "user_code": "ABCD-EFGH", "verification_uri": f"{self.issuer}/activate"}
            return self.answer(sock, 200, {**codes, "interval": self.interval, "expires_in": 600})
        if "device_code" in form:
            if self.pending:
                return self.answer(sock, 400, {"error": self.pending.pop(0)})
            return self.answer(sock, 200, {"id_token": self.token()})
        made = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=")
        right = (
            made.decode() == self.asked["code_challenge"]
            and form["redirect_uri"] == self.asked["redirect_uri"]
            and (form["code"], form["client_id"]) == ("the-code", CLIENT)
        )
        if not right:
            return self.answer(sock, 400, {"error": "invalid_grant"})
        return self.answer(sock, 200, {"id_token": self.token()})

    def answer(self, sock: socket.socket, status: int, value: object) -> None:
        sock.sendall(self.http.answer(status, json.dumps(value).encode()))

    def token(self) -> str:
        claims = {"iss": self.issuer, "aud": CLIENT, "sub": "u", "nonce": self.asked.get("nonce"), **self.claims}
        return f"{b64({'alg': 'RS256'})}.{b64(claims)}.c2ln"

    def browser(self, *answers: dict[str, Any], **first: Any) -> Callable[[str], None]:
        """A browser whose person agrees at once; `answers` are further visits before, `first` changes the right one."""

        def browse(url: str) -> None:
            self.asked = {k: v[0] for k, v in parse_qs(urlsplit(url).query).items()}

            def go() -> None:
                for one in (*answers, {}):
                    fields = {"code": "the-code", "state": self.asked["state"], **first, **one}
                    query = urlencode({k: v for k, v in fields.items() if v is not None}, doseq=True)
                    self.pages.append(requests.get(f"{self.asked['redirect_uri']}?{query}", timeout=10))

            self.pages: list[requests.Response] = []
            threading.Thread(target=go, daemon=True).start()

        return browse

    def log_in(self, browse: Callable[[str], None], seconds: float = 10) -> str:
        return login.with_browser(
            login.discover(self.issuer), CLIENT, show=lambda _: None, browse=browse, seconds=seconds
        )


@pytest.fixture
def provider(http: Any) -> Provider:
    return Provider(http)


def test_a_browser_brings_a_token(provider: Provider) -> None:
    token = provider.log_in(provider.browser())
    assert token == provider.token()
    asked = provider.asked
    assert asked["code_challenge_method"] == "S256"
    assert asked["scope"].split() == ["openid", "profile", "email"]
    assert min(len(asked[name]) for name in ("state", "nonce", "code_challenge")) >= 43
    assert asked["redirect_uri"].startswith("http://127.0.0.1:")


def test_every_login_has_its_own_secrets(provider: Provider) -> None:
    provider.log_in(provider.browser())
    first = dict(provider.asked)
    provider.log_in(provider.browser())
    for name in ("state", "nonce", "code_challenge"):
        assert provider.asked[name] != first[name]


def test_answers_that_belong_to_no_login_are_turned_away_and_the_right_one_still_counts(provider: Provider) -> None:
    wrong = [
        {"state": "guessed"},
        {"state": None},
        {"code": None},
        {"code": ["the-code", "another"]},
        {"iss": "https://evil.example"},
    ]
    assert provider.log_in(provider.browser(*wrong))
    assert [page.status_code for page in provider.pages[: len(wrong)]] == [400] * len(wrong)


def test_a_page_tells_no_secret_and_is_not_kept(provider: Provider) -> None:
    provider.log_in(provider.browser(iss=provider.issuer))
    for _ in range(100):
        if provider.pages:
            break
        threading.Event().wait(0.05)
    (page,) = provider.pages
    assert "close this page" in page.text
    assert "the-code" not in page.text
    assert page.headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]


def test_the_port_is_closed_afterwards(provider: Provider) -> None:
    provider.log_in(provider.browser())
    port = urlsplit(provider.asked["redirect_uri"]).port
    with pytest.raises(OSError, match="refused"), socket.create_connection(("127.0.0.1", port), 5):
        pass


def test_other_paths_and_hosts_find_nothing(provider: Provider) -> None:
    found: list[int] = []

    def browse(url: str) -> None:
        provider.asked = {k: v[0] for k, v in parse_qs(urlsplit(url).query).items()}
        base, state = provider.asked["redirect_uri"], provider.asked["state"]
        query = f"?code=the-code&state={state}"
        found.append(requests.get(base.replace("/callback", "/favicon.ico"), timeout=5).status_code)
        found.append(requests.get(base + query, headers={"Host": "evil.example"}, timeout=5).status_code)
        found.append(requests.post(base + query, timeout=5).status_code)

    with pytest.raises(errors.DeadlineExceeded):
        provider.log_in(browse, seconds=0.5)
    assert found == [404, 404, 501]


def test_who_refuses_is_not_logged_in(provider: Provider) -> None:
    with pytest.raises(errors.NotAllowed, match="access_denied"):
        provider.log_in(provider.browser(code=None, error="access_denied"))
    with pytest.raises(errors.NotAllowed, match="no reason"):
        provider.log_in(provider.browser(code=None, error="<script>alert(1)</script>"))


def test_a_code_of_another_login_is_worth_nothing(provider: Provider) -> None:
    with pytest.raises(errors.NotAllowed, match="invalid_grant"):
        provider.log_in(provider.browser(code="stolen"))


@pytest.mark.parametrize(
    "claims",
    [{"nonce": "other"}, {"nonce": None}, {"iss": "https://evil.example"}, {"aud": "other"}, {"aud": ["other"]}],
)
def test_a_token_that_answers_something_else_is_refused(claims: dict[str, Any], provider: Provider) -> None:
    provider.claims = claims
    with pytest.raises(errors.NotAllowed):
        provider.log_in(provider.browser())


def test_a_provider_that_names_itself_must_do_so(provider: Provider) -> None:
    provider.said = {"authorization_response_iss_parameter_supported": True}
    assert provider.log_in(provider.browser({"iss": None}, iss=provider.issuer))
    assert provider.pages[0].status_code == 400


@pytest.mark.parametrize(
    "said",
    [
        {"issuer": "https://evil.example"},
        {"token_endpoint": None},
        {"token_endpoint": "http://192.0.2.1/token"},
        {"token_endpoint": "file:///etc/passwd"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": "http://login.example.com/authorize"},
        {"device_authorization_endpoint": 7},
    ],
)
def test_a_discovery_document_that_leads_astray_is_refused(said: dict[str, Any], provider: Provider) -> None:
    provider.said = said
    with pytest.raises(errors.Unreachable):
        login.discover(provider.issuer)


@pytest.mark.parametrize("issuer", ["http://login.example.com", "ftp://x", "", "https://a@b.example", "localhost"])
def test_an_issuer_in_the_open_is_refused(issuer: str) -> None:
    with pytest.raises(errors.InvalidInput):
        login.discover(issuer)


def test_a_code_is_typed_in_elsewhere(provider: Provider) -> None:
    provider.pending = ["authorization_pending", "slow_down", "authorization_pending"]
    waits: list[float] = []
    shown: list[tuple[str, str]] = []
    token = login.with_device(
        login.discover(provider.issuer), CLIENT, show=lambda *told: shown.append(told), sleep=waits.append
    )
    assert token == provider.token()
    assert shown == [(f"{provider.issuer}/activate", "ABCD-EFGH")]
    assert waits == [1, 1, 6, 6]


@pytest.mark.parametrize(
    ("said", "error"),
    [("access_denied", errors.NotAllowed), ("expired_token", errors.DeadlineExceeded), ("x" * 99, errors.NotAllowed)],
)
def test_a_device_that_is_refused_is_told(said: str, error: type[Exception], provider: Provider) -> None:
    provider.pending = [said]
    with pytest.raises(error):
        login.with_device(login.discover(provider.issuer), CLIENT, show=lambda *_: None, sleep=lambda _: None)


def test_a_provider_that_never_ends_is_not_asked_for_ever(provider: Provider) -> None:
    provider.pending, provider.interval = ["authorization_pending"] * 5000, -1
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) > 3:
            provider.pending = ["expired_token"]

    with pytest.raises(errors.DeadlineExceeded):
        login.with_device(login.discover(provider.issuer), CLIENT, show=lambda *_: None, sleep=sleep)
    assert set(waits) == {5.0}


def test_a_provider_without_codes_says_what_else_there_is(provider: Provider) -> None:
    provider.said = {"device_authorization_endpoint": None}
    with pytest.raises(errors.Unreachable, match="another device"):
        login.with_device(login.discover(provider.issuer), CLIENT, show=lambda *_: None)


# --- programs


@pytest.fixture(autouse=True)
def _no_workload(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (workload.GITHUB_URL, workload.GITHUB_TOKEN):
        monkeypatch.delenv(name, raising=False)


def test_a_program_has_its_token_from_a_variable_or_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(errors.NotFound, match="no token"):
        workload.identity_token()
    file = tmp_path / "token"
    monkeypatch.setenv("LLMARTIFACTS_ID_TOKEN_FILE", str(file))
    with pytest.raises(errors.NotFound, match="cannot be read"):
        workload.identity_token()
    file.write_text("a.b.c\n")
    assert workload.identity_token() == "a.b.c"
    file.write_text("d.e.f\n")
    assert workload.identity_token() == "d.e.f"  # read anew
    monkeypatch.setenv("LLMARTIFACTS_ID_TOKEN", "g.h.i")
    assert workload.identity_token() == "g.h.i"
    for wrong in ("one", "a.b", "a b.c.d", "a.b.c.d"):
        monkeypatch.setenv("LLMARTIFACTS_ID_TOKEN", wrong)
        with pytest.raises(errors.InvalidInput):
            workload.identity_token()


def test_a_github_job_asks_for_a_token_for_the_server(http: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server = http.serve(http.answer(200, b'{"value": "a.b.c"}'))
    monkeypatch.setenv(workload.GITHUB_URL, f"{server.url}/token?api-version=2")
    monkeypatch.setenv(workload.GITHUB_TOKEN, "request-secret")
    assert workload.identity_token("https://registry.example.com/x y") == "a.b.c"
    (asked,) = server.requests
    assert asked.line.split()[1] == "/token?api-version=2&audience=https%3A%2F%2Fregistry.example.com%2Fx%20y"
    assert asked.header("Authorization") == "Bearer request-secret"
    monkeypatch.setenv(workload.GITHUB_URL, "http://192.0.2.1/token")
    with pytest.raises(errors.InvalidInput, match="https"):
        workload.identity_token("x")


@pytest.mark.parametrize(("status", "body"), [(403, b"{}"), (200, b"{}"), (200, b'{"value": 7}'), (200, b"[]")])
def test_a_github_that_gives_nothing_is_told(
    status: int, body: bytes, http: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(workload.GITHUB_URL, http.serve(http.answer(status, body)).url)
    monkeypatch.setenv(workload.GITHUB_TOKEN, "request-secret")
    with pytest.raises(errors.Unreachable):
        workload.identity_token()


def new_token(text: str, minutes: int) -> bytes:
    info = {
        "id": "0123456789",
        "account": "ci",
        "label": "",
        "scope": {},
        "created_at": "2026-01-01T00:00:00.000000Z",
        "created_by": "ci",
        "expires_at": f"2026-01-01T00:{minutes:02}:00.000000Z",
    }
    return json.dumps({"text": text, "info": info}).encode()


def test_a_workload_renews_its_token_before_it_ends(http: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server = http.serve(*(http.answer(200, new_token(f"lla_{n}", 10)) for n in range(4)))
    monkeypatch.setenv("LLMARTIFACTS_ID_TOKEN", "a.b.c")
    source = workload.Workload(Address.parse(server.url))
    assert source.token() == "lla_0"
    assert source.token() == "lla_0"
    assert source.token(refused="lla_0") == "lla_1"
    source._renew_at = 0.0
    assert source.token() == "lla_2"
    assert [json.loads(r.body)["token"] for r in server.requests] == ["a.b.c"] * 3
    assert all(r.header("Authorization") is None for r in server.requests)
