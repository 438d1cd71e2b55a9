"""How a person gets a token of a login provider (OIDC): with a browser at hand, or with one on another device.

    browser  authorization code with PKCE (S256); the answer comes back to this machine, to a random port, once
    device   a code to type in elsewhere, where the provider offers that

What comes back is the provider's ID token, for the registry to verify and to exchange (`workload.exchange`). Here it is
only seen to be the answer to what was asked: same provider, same client, same nonce.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import http.server
import queue
import re
import secrets
import threading
import time
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from llmartifacts.client.address import Address
from llmartifacts.client.fetch import check_url, fetch
from llmartifacts.client.surroundings import check_token
from llmartifacts.errors import DeadlineExceeded, InvalidInput, LlmartifactsError, NotAllowed, Unreachable
from llmartifacts.records.canonical import parse_json

SECONDS = 300.0
"""Seconds that a person has for it."""
SCOPES = ("openid", "profile", "email")
_MAX_POLLS = 1_000
_CODE_GRANT = "authorization_code"
_DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
_PAGE = (
    "<!doctype html><html lang=en><meta charset=utf-8><title>llmartifacts</title>"
    "<body><p>{text}</p><p>You can close this page.</p></body></html>"
)


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where a login provider is asked.

    Attributes:
        issuer: The provider.
        authorization: Where a browser is sent; empty if nowhere.
        token: Where codes are exchanged.
        device: Where a code for another device is asked for; empty if the provider has none.
        names_itself: Whether its answers always say who it is (RFC 9207).
    """

    issuer: str
    authorization: str
    token: str
    device: str = ""
    names_itself: bool = False


def discover(issuer: str) -> Endpoints:
    """What a login provider says of itself.

    Raises:
        InvalidInput: The issuer is no address, or not https (plain http is for this machine only).
        Unreachable: It cannot be had, or says what cannot be.
    """
    check_url(issuer, field="issuer", loopback=True)
    answer = fetch(issuer.rstrip("/") + "/.well-known/openid-configuration")
    said = answer.json(f"the login provider {issuer}")
    if answer.status != 200 or said.get("issuer") != issuer:
        raise Unreachable(f"the login provider {issuer} does not answer as itself")
    local = Address.parse("{}://{}".format(*urlsplit(issuer)[:2])).on_loopback

    def endpoint(name: str, *, needed: bool = False) -> str:
        url = said.get(name, "")
        if url == "" and not needed:
            return ""
        try:
            return check_url(url, field=name, loopback=local)
        except InvalidInput:
            raise Unreachable(f"the login provider {issuer} names no usable {name}") from None

    return Endpoints(
        issuer,
        endpoint("authorization_endpoint"),
        endpoint("token_endpoint", needed=True),
        endpoint("device_authorization_endpoint"),
        said.get("authorization_response_iss_parameter_supported") is True,
    )


def with_browser(
    endpoints: Endpoints,
    client_id: str,
    scopes: Sequence[str] = (),
    *,
    show: Callable[[str], None],
    browse: Callable[[str], Any] = webbrowser.open,
    seconds: float = SECONDS,
) -> str:
    """Let a person log in with the browser of this machine; gives the ID token.

    Args:
        endpoints: The provider.
        client_id: Id of the registry there.
        scopes: What to ask for; by default `SCOPES`.
        show: Is told the address to open, where no browser opens by itself.
        browse: Opens an address.
        seconds: Time for the person.

    Raises:
        NotAllowed: The person or the provider refused, or something else answered.
        DeadlineExceeded: Nobody logged in in time.
        Unreachable: The provider cannot be had, or offers no such login.
    """
    if not endpoints.authorization:
        raise Unreachable(f"{endpoints.issuer} offers no login with a browser", next_step="Try --device.")
    state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
    with _Listener(state, endpoints) as listener:
        asked = {
            "response_type": "code",
            "client_id": client_id,
            "redirect_uri": listener.address,
            "scope": _scope(scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": _challenge(verifier),
            "code_challenge_method": "S256",
        }
        url = endpoints.authorization + ("&" if "?" in endpoints.authorization else "?") + urlencode(asked)
        show(url)
        with contextlib.suppress(webbrowser.Error, OSError):
            browse(url)
        code = listener.code(seconds)
        redirect = listener.address
    form = {
        "grant_type": _CODE_GRANT,
        "code": code,
        "redirect_uri": redirect,
        "client_id": client_id,
        "code_verifier": verifier,
    }
    answer = fetch(endpoints.token, form=form)
    said = answer.json(f"the login provider {endpoints.issuer}")
    if answer.status != 200:
        raise _refused(endpoints, said.get("error"))
    return _id_token(said, endpoints, client_id, nonce)


def with_device(
    endpoints: Endpoints,
    client_id: str,
    scopes: Sequence[str] = (),
    *,
    show: Callable[[str, str], None],
    sleep: Callable[[float], Any] = time.sleep,
) -> str:
    """Let a person log in on another device; gives the ID token.

    Args:
        endpoints: The provider.
        client_id: As for `with_browser`.
        scopes: As for `with_browser`.
        show: Is told the address to open there, and the code to type in.
        sleep: Waits some seconds.

    Raises:
        LlmartifactsError: As for `with_browser`.
    """
    if not endpoints.device:
        raise Unreachable(
            f"{endpoints.issuer} offers no login on another device",
            next_step="Leave out --device, or paste a token: --token-stdin.",
        )
    who = f"the login provider {endpoints.issuer}"
    answer = fetch(endpoints.device, form={"client_id": client_id, "scope": _scope(scopes)})
    said = answer.json(who)
    if answer.status != 200:
        raise _refused(endpoints, said.get("error"))
    device, user, where = (said.get(k) for k in ("device_code", "user_code", "verification_uri"))
    if not (isinstance(device, str) and isinstance(user, str) and isinstance(where, str) and device and user):
        raise Unreachable(f"{who} gave no code")
    check_url(where, field="verification_uri", loopback=True)
    interval = _number(said.get("interval"), 5.0, most=60.0)
    ends = time.monotonic() + _number(said.get("expires_in"), SECONDS, most=1_800.0)
    show(where, user[:64])
    form = {"grant_type": _DEVICE_GRANT, "device_code": device, "client_id": client_id}
    for _ in range(_MAX_POLLS):
        sleep(interval)
        if time.monotonic() >= ends:
            break
        answer = fetch(endpoints.token, form=form)
        said = answer.json(who)
        if answer.status == 200:
            return _id_token(said, endpoints, client_id, None)
        error = said.get("error")
        if error == "slow_down":
            interval = min(interval + 5, 60.0)
        elif error == "expired_token":
            break
        elif error != "authorization_pending":
            raise _refused(endpoints, error)
    raise DeadlineExceeded("nobody logged in in time", next_step="Try again: llmartifacts login URL --device.")


# --- the answer that a browser brings


class _Listener:
    """Waits on a random port of this machine for one answer with the right state; others are turned away."""

    def __init__(self, state: str, endpoints: Endpoints) -> None:
        self._state = state
        self._endpoints = endpoints
        self._answers: queue.SimpleQueue[Mapping[str, str]] = queue.SimpleQueue()
        self._taken = threading.Lock()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            timeout = 10.0
            server_version, sys_version = "llmartifacts", ""

            def do_GET(self) -> None:
                status, text = outer._answered(self.path, self.headers.get("Host", ""))
                page = _PAGE.format(text=text).encode()
                self.send_response(status)
                for name, value in (
                    ("Content-Type", "text/html; charset=utf-8"),
                    ("Content-Length", str(len(page))),
                    ("Cache-Control", "no-store"),
                    ("Content-Security-Policy", "default-src 'none'"),
                    ("Referrer-Policy", "no-referrer"),
                    ("X-Content-Type-Options", "nosniff"),
                    ("Connection", "close"),
                ):
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(page)

            def log_message(self, *_: Any) -> None:
                """Nothing: an address holds the code."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False  # a browser keeps connections that it never uses
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}/callback"

    def __enter__(self) -> _Listener:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def code(self, seconds: float) -> str:
        """The code that the provider gave.

        Raises:
            NotAllowed: It gave none.
            DeadlineExceeded: No answer came.
        """
        try:
            answer = self._answers.get(timeout=seconds)
        except queue.Empty:
            raise DeadlineExceeded("nobody logged in in time", next_step="Try again: llmartifacts login URL.") from None
        if "error" in answer:
            raise _refused(self._endpoints, answer["error"])
        return answer["code"]

    def _answered(self, path: str, host: str) -> tuple[int, str]:
        """Take a request for the answer, or turn it away: status and text of the page."""
        parts = urlsplit(path)
        if parts.path != "/callback" or not self.address.startswith(f"http://{host}/"):
            return 404, "There is nothing here."
        try:
            fields = parse_qs(parts.query, keep_blank_values=True, strict_parsing=True, max_num_fields=32)
        except ValueError:
            fields = {}
        single = {name: values[0] for name, values in fields.items() if len(values) == 1}
        given = single.get("state", "")
        if not hmac.compare_digest(given.encode(), self._state.encode()):
            return 400, "This is not the answer to a login that was begun here."
        issuer = single.get("iss")
        if len(single) != len(fields) or (issuer is None and self._endpoints.names_itself):
            return 400, "This answer cannot be understood."
        if issuer is not None and issuer != self._endpoints.issuer:
            return 400, "This is the answer of another login provider."
        if not single.get("code") and not single.get("error"):
            return 400, "This answer cannot be understood."
        if not self._taken.acquire(blocking=False):
            return 400, "This login is over."
        self._answers.put(single)
        if "error" in single:
            return 200, "You are not logged in."
        return 200, "Go back to the terminal; llmartifacts has what it needs."


# --- small things


def _challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def _scope(scopes: Sequence[str]) -> str:
    wanted = list(scopes or SCOPES)
    return " ".join(dict.fromkeys(["openid", *wanted]))


def _id_token(said: Mapping[str, Any], endpoints: Endpoints, client_id: str, nonce: str | None) -> str:
    """The ID token of an answer, if it is the answer to this login; its signature is for the registry to verify."""
    token = said.get("id_token")
    try:
        claims = _claims(token)
    except (ValueError, TypeError, LlmartifactsError):
        raise Unreachable(f"the login provider {endpoints.issuer} gave no ID token") from None
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if claims.get("iss") != endpoints.issuer or client_id not in audiences:
        raise NotAllowed("the login provider gave a token of another provider, or for somebody else")
    if nonce is not None and not hmac.compare_digest(str(claims.get("nonce", "")).encode(), nonce.encode()):
        raise NotAllowed("the login provider gave a token that answers another login")
    return str(token)


def _claims(token: Any) -> dict[str, Any]:
    if not isinstance(token, str):
        raise TypeError
    _, payload, _ = check_token(token).split(".")
    claims = parse_json(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    if not isinstance(claims, dict):
        raise TypeError
    return claims


def _refused(endpoints: Endpoints, error: object) -> NotAllowed:
    why = error if isinstance(error, str) and re.fullmatch(r"[a-z0-9_]{1,60}", error) else "no reason given"
    return NotAllowed(f"the login provider {endpoints.issuer} refused: {why}")


def _number(value: object, default: float, *, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        return default
    return min(float(value), most)
