"""One request and its answer: `HttpSession`, over `requests`.

    call    a question with a short answer, whole
    stream  an answer of any size, in pieces
    send    raw bytes of any size, up

Each ends within its time, whatever the other end does; is tried again where that can help, with the same idempotency
key; and ends with the answer or a typed error. A token goes to its own server only, and in the open to loopback only.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol, TypeVar
from urllib.parse import quote, urlencode, urljoin, urlsplit

import requests
from requests.cookies import RequestsCookieJar
from urllib3.exceptions import HTTPError

from llmartifacts.client.address import Address
from llmartifacts.client.answers import (
    MAX_ANSWER,
    MAX_ERROR,
    Answer,
    Download,
    lower,
    pieces,
    retry_after,
    strange,
)
from llmartifacts.client.refused import explained, nobody_there
from llmartifacts.client.rewindable import Rewindable
from llmartifacts.client.surroundings import check_token
from llmartifacts.errors import DeadlineExceeded, InvalidInput, LlmartifactsError, NotAllowed, TooLarge, Unreachable
from llmartifacts.outbound.sockets import SLOWEST, Meter, MeteredAdapter, OutOfTime, causes, metered
from llmartifacts.outbound.surroundings import TIMEOUT, authorities, default_timeout, proxies, seconds, user_agent
from llmartifacts.wire import error_from_body
from llmartifacts.wire.freshness import REQUEST_ID
from llmartifacts.wire.transfer import RANGE_THERE

T = TypeVar("T")
BASE = "/api/v1"
SLOW = 3_600.0
"""Seconds that a slow route may take, such as one that verifies everything."""
ATTEMPTS = 5
_BASE_WAIT, _MAX_WAIT = 0.1, 5.0
_REDIRECTS = 3
_TRY_AGAIN = frozenset({429, 502, 503, 504})
_MOVED = frozenset({301, 302, 303, 307, 308})

Value = str | int | float | bool | None


class Route(Protocol):
    """What a session needs to know of a route of `llmartifacts.wire.routes`."""

    @property
    def name(self) -> str:
        """Its name, for messages."""

    @property
    def method(self) -> str:
        """`GET`, `POST` and so on."""

    @property
    def path(self) -> str:
        """Path below `/api/v1`, with `{names}` to fill in."""

    @property
    def writes(self) -> bool:
        """Whether it changes something, so that a key says when it is asked again."""

    @property
    def slow(self) -> bool:
        """Whether an answer may take long."""


class TokenSource(Protocol):
    """Where a token comes from that changes while the session lives."""

    def token(self, *, refused: str | None = None) -> str | None:
        """The token to send; `refused` is one that the server did not take."""


class HttpSession:
    """Requests to one server, over connections that are kept.

    Safe to use from several threads; a process made by fork makes connections of its own.

    Args:
        base_url: The server's address, such as `https://registry.example.com`.
        token: Token to send, or where it comes from; None to send none.
        timeout: Seconds that an operation may take; by default `$LLMARTIFACTS_TIMEOUT`, else 30. Transfers may take
            longer, as long as they go on.
        attempts: How often an operation is tried.

    Raises:
        InvalidInput: The address, the token or the time is none.
        NotAllowed: The token would travel in the open to another machine.

    Example:
        >>> HttpSession("https://registry.example.com", None).address.origin
        'https://registry.example.com:443'
    """

    def __init__(
        self,
        base_url: str,
        token: str | TokenSource | None,
        *,
        timeout: float | None = None,
        attempts: int = ATTEMPTS,
    ) -> None:
        self.address = Address.parse(base_url)
        self.timeout = seconds(timeout) if timeout is not None else default_timeout()
        self._attempts = max(1, attempts)
        self._source = token
        if token is not None:
            if not self.address.private:
                raise NotAllowed(
                    f"a token is not sent to {self.address} in the open",
                    field="location",
                    next_step="Use https:// for a server on another machine.",
                )
            if isinstance(token, str):
                check_token(token)
        self._made: _Process | None = None

    def __repr__(self) -> str:
        return f"HttpSession({self.address.url!r})"

    def __enter__(self) -> HttpSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; a later operation opens new ones."""
        made, self._made = self._made, None
        if made is not None and made.pid == os.getpid():
            made.session.close()

    # --- the three operations

    def call(
        self,
        route: Route,
        *,
        path: Mapping[str, str] | None = None,
        query: Mapping[str, Value | Sequence[Value]] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        deadline: float | None = None,
        idempotency_key: str | None = None,
        limit: int = MAX_ANSWER,
        head: bool = False,
    ) -> Answer:
        """Ask, and read the answer whole.

        Args:
            route: The route.
            path: Values of the names in its path.
            query: Values of its query; a list is repeated, None is left out.
            body: JSON document to send.
            headers: Further headers, such as `If-None-Match`.
            deadline: Seconds from now in which it must be done; by default the session's, and more for a large body
                or a slow route.
            idempotency_key: Key under which a writing route takes effect once; made up by default.
            limit: Bytes that the answer may have, decompressed.
            head: Whether only the headers are wanted.

        Raises:
            LlmartifactsError: What the server says, as the class that it names.
            Unreachable: There is no server, or something else answers.
            DeadlineExceeded: There was no whole answer in time.
        """
        ordinary = max(self.timeout, SLOW) if route.slow else self.timeout
        time_given = seconds(deadline) if deadline is not None else ordinary + len(body or b"") / SLOWEST
        meter = Meter(time_given, limit=limit, secret=self._source is not None)
        given = {"Accept": "application/json", **(headers or {})}
        if body is not None:
            given.setdefault("Content-Type", "application/json")
        asked = _Asked(
            route, self._url(route, path, query), self._headers(route, given, idempotency_key), body, head=head
        )

        def read(response: requests.Response) -> Answer:
            whole = b"".join(pieces(response, limit))
            if whole and "html" in response.headers.get("Content-Type", ""):
                raise strange(response.status_code, self.address)
            return Answer(response.status_code, lower(response.headers), whole)

        return self._operate(asked, meter, read)

    @contextlib.contextmanager
    def stream(
        self,
        route: Route,
        *,
        path: Mapping[str, str] | None = None,
        query: Mapping[str, Value | Sequence[Value]] | None = None,
        headers: Mapping[str, str] | None = None,
        deadline: float | None = None,
        limit: int | None = None,
        redirects: bool = False,
    ) -> Iterator[Download]:
        """Ask, and read the answer in pieces; it is tried again until its first byte, not after.

        Args:
            route: The route.
            path: As for `call`.
            query: As for `call`.
            headers: Further headers, such as `Range`.
            deadline: Seconds from now in which all of it must be there; by default it may take as long as it goes on: a
                pause of the session's time, or less than `SLOWEST` bytes a second, ends it.
            limit: Bytes that the body may have; any number by default.
            redirects: Whether the server may send elsewhere, as for the bytes of a blob. The token stays behind.

        Yields:
            The answer. Leaving early closes the connection.

        Raises:
            LlmartifactsError: As for `call`.
        """
        ends = None if deadline is None else seconds(deadline)
        first = self.timeout if ends is None else min(self.timeout, ends)
        meter = Meter(first, limit=limit, progress=True, ends=ends, secret=self._source is not None)
        given = {"Accept": "*/*", **(headers or {})}
        asked = _Asked(route, self._url(route, path, query), self._headers(route, given, None), None, redirects)
        response = self._operate(asked, meter, lambda opened: opened, keep=True)
        try:
            yield Download(response.status_code, lower(response.headers), self._guarded(response, limit))
        finally:
            response.close()

    def send(
        self,
        route: Route,
        body: bytes | BinaryIO,
        *,
        path: Mapping[str, str] | None = None,
        query: Mapping[str, Value | Sequence[Value]] | None = None,
        headers: Mapping[str, str] | None = None,
        deadline: float | None = None,
        idempotency_key: str | None = None,
        limit: int = MAX_ANSWER,
    ) -> Answer:
        """Send raw bytes.

        Args:
            route: The route.
            body: The bytes, or a binary file that can be rewound: it is sent from where it stands to its end.
            path: As for `call`.
            query: As for `call`.
            headers: Further headers.
            deadline: As for `stream`.
            idempotency_key: As for `call`.
            limit: As for `call`.

        Raises:
            InvalidInput: The file cannot be rewound.
            LlmartifactsError: As for `call`.
        """
        ends = None if deadline is None else seconds(deadline)
        first = self.timeout if ends is None else min(self.timeout, ends)
        meter = Meter(first, limit=limit, progress=True, ends=ends, secret=self._source is not None)
        given = {"Accept": "application/json", "Content-Type": "application/octet-stream", **(headers or {})}
        content = body if isinstance(body, bytes) else Rewindable(body)
        asked = _Asked(route, self._url(route, path, query), self._headers(route, given, idempotency_key), content)

        def read(response: requests.Response) -> Answer:
            return Answer(response.status_code, lower(response.headers), b"".join(pieces(response, limit)))

        return self._operate(asked, meter, read)

    # --- one operation: attempts, each a request and its answer

    def _operate(self, asked: _Asked, meter: Meter, read: Callable[[requests.Response], T], *, keep: bool = False) -> T:
        """Try until there is an answer, no time, or no use."""
        token = self._token()
        renewed = False
        attempt = 0
        while True:
            attempt += 1
            meter.anew()
            wait: float | None = None
            try:
                with metered(meter):
                    outcome = self._attempt(asked, meter, token, read, keep=keep)
            except OutOfTime:
                raise self._late(asked) from None
            except TimeoutError as error:
                failure: LlmartifactsError = self._late(asked)
                failure.__cause__ = error
            except (requests.RequestException, HTTPError, OSError) as error:
                failure, again = self._broken(error, asked, meter)
                if not again:
                    raise failure from None
            else:
                if not isinstance(outcome, _Failed):
                    return outcome
                failure, wait = outcome.error, outcome.wait
                if outcome.status == 401 and not renewed and not isinstance(self._source, str | None):
                    renewed, attempt = True, attempt - 1
                    fresh = self._token(refused=token)
                    if fresh != token:
                        token = fresh
                        continue
                if outcome.status not in _TRY_AGAIN:
                    raise failure
            if attempt >= self._attempts:
                raise failure
            self._pause(attempt, wait, meter, failure)

    def _attempt(
        self, asked: _Asked, meter: Meter, token: str | None, read: Callable[[requests.Response], T], *, keep: bool
    ) -> T | _Failed:
        url, hops = asked.url, 0
        headers = asked.headers if token is None else {**asked.headers, "Authorization": f"Bearer {token}"}
        while True:
            response = self._request(asked.method, url, headers, asked.body, meter)
            kept = False
            try:
                if 200 <= response.status_code < 300 or response.status_code == 304:
                    made = read(response)
                    kept = keep
                    return made
                if response.status_code not in _MOVED:
                    return self._failed(response, token)
                if not asked.redirects or hops >= _REDIRECTS:
                    raise strange(response.status_code, self.address)
                url, hops = self._elsewhere(url, response.headers.get("Location", "")), hops + 1
                headers = {k: v for k, v in asked.headers.items() if k in ("Accept", "Range", "User-Agent")}
                headers["Accept-Encoding"] = "identity"
                if there := response.headers.get(RANGE_THERE):  # what was asked for has another place there
                    headers["Range"] = there
            finally:
                if not kept:
                    response.close()

    def _request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | Rewindable | None, meter: Meter
    ) -> requests.Response:
        prepared = requests.Request(method, url).prepare()
        prepared.headers.update(headers)
        if body is not None:
            prepared.body = body if isinstance(body, bytes) else body.rewound()  # type: ignore[assignment]
            prepared.headers["Content-Length"] = str(len(body))
        elif method in ("POST", "PUT", "PATCH"):
            prepared.headers["Content-Length"] = "0"
        left = meter.remaining()
        return self._process().session.send(
            prepared,
            stream=True,
            allow_redirects=False,
            timeout=(left, left),
            verify=authorities(),
            proxies=proxies(url),
        )

    def _process(self) -> _Process:
        """This process's connections; a child made by fork leaves its parent's alone."""
        made = self._made
        if made is None or made.pid != os.getpid():
            session = _Bare()
            session.trust_env = False  # no .netrc; proxies and authorities are looked up here
            session.headers.clear()
            session.cookies = _NoCookies()
            adapter = MeteredAdapter()
            session.mount("https://", adapter)
            session.mount("http://", adapter)
            self._made = made = _Process(os.getpid(), session, threading.Lock())
        return made

    # --- how it ends

    def _failed(self, response: requests.Response, token: str | None) -> _Failed:
        """The error that an answer tells of."""
        status = response.status_code
        wait = retry_after(response.headers.get("Retry-After", ""))
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if not (kind == "application/json" or kind.endswith("+json")):
            return _Failed(strange(status, self.address), status, wait)
        try:
            told = json.loads(b"".join(pieces(response, MAX_ERROR)))
        except (ValueError, RecursionError, TooLarge):
            return _Failed(strange(status, self.address), status, wait)
        return _Failed(explained(error_from_body(status, told), status, self.address, token), status, wait)

    def _late(self, asked: _Asked) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"{self.address} did not answer {asked.route.name!r} in time",
            next_step=f"See whether the server is well; ${TIMEOUT} gives it more seconds.",
        )

    def _broken(self, error: Exception, asked: _Asked, meter: Meter) -> tuple[LlmartifactsError, bool]:
        """The typed error of a connection that failed, and whether another attempt may help."""
        found = list(causes(error))
        if any(isinstance(one, OutOfTime) for one in found):
            return self._late(asked), False
        for one in found:
            if isinstance(one, LlmartifactsError):
                return one, False
        if isinstance(error, requests.exceptions.SSLError):
            said = next((text for c in found if (text := getattr(c, "verify_message", ""))), "")
            return Unreachable(
                f"{self.address} is not who it says, or does not speak TLS{f': {said}' if said else ''}",
                next_step="$REQUESTS_CA_BUNDLE names the file of your own authority's certificate.",
            ), not said
        useless = (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, requests.exceptions.InvalidHeader)
        if isinstance(error, useless):
            return Unreachable(f"{self.address} cannot be called: {type(error).__name__}"), False
        if isinstance(error, requests.exceptions.ProxyError):
            return Unreachable(f"the proxy on the way to {self.address} cannot be had"), True
        if any(isinstance(one, TimeoutError) for one in found):
            return self._late(asked), True
        said = next((c.strerror for c in found if isinstance(c, OSError) and c.errno and c.strerror), "")
        return Unreachable(
            f"{self.address} cannot be had: {said.lower() if said else 'the connection broke off'}",
            next_step=nobody_there(self.address),
        ), True

    def _pause(self, attempt: int, wanted: float | None, meter: Meter, failure: LlmartifactsError) -> None:
        """Wait before the next attempt; where there is no time for that, say now what went wrong."""
        most = min(_MAX_WAIT, _BASE_WAIT * 2**attempt)
        wait = random.uniform(most / 4, most)  # noqa: S311 - only spreads attempts in time
        if wanted is not None:
            wait = max(wait, wanted)
        try:
            left = meter.remaining()
        except OutOfTime:
            raise failure from None
        if wait >= left:
            raise failure
        time.sleep(wait)

    def _guarded(self, response: requests.Response, limit: int | None) -> Iterator[bytes]:
        """The pieces of a download, with typed errors."""
        try:
            yield from pieces(response, limit)
        except TimeoutError as error:
            raise DeadlineExceeded(f"{self.address} stopped sending") from error
        except (requests.RequestException, HTTPError, OSError) as error:
            for one in causes(error):
                if isinstance(one, LlmartifactsError):
                    raise one from None
                if isinstance(one, TimeoutError):
                    raise DeadlineExceeded(f"{self.address} stopped sending") from error
            raise Unreachable(f"{self.address} broke off in the middle of an answer") from error

    # --- what is sent

    def _url(
        self, route: Route, path: Mapping[str, str] | None, query: Mapping[str, Value | Sequence[Value]] | None
    ) -> str:
        filled = route.path
        for name, value in (path or {}).items():
            if value in ("", ".", "..") or any(ord(c) < 32 for c in value):
                raise InvalidInput(f"{value!r} cannot stand in an address", field=name)
            filled = filled.replace("{" + name + "}", quote(value, safe=""))
        if "{" in filled:
            raise InvalidInput(f"{route.name} wants more names: {filled}", field="path")
        pairs = [
            (key, _plain(one))
            for key, value in (query or {}).items()
            for one in ([value] if isinstance(value, str | int | float | None) else value)
            if one is not None
        ]
        return self.address.url + BASE + filled + (f"?{urlencode(pairs)}" if pairs else "")

    def _headers(self, route: Route, given: Mapping[str, str], key: str | None) -> dict[str, str]:
        own = {"User-Agent": user_agent(), "Accept-Encoding": "gzip", REQUEST_ID: secrets.token_hex(8)}
        headers = {**own, **given}
        if "Range" in headers or headers["Accept"] == "*/*":
            headers["Accept-Encoding"] = "identity"
        if route.writes or key is not None:
            headers["Idempotency-Key"] = key if key is not None else secrets.token_urlsafe(24)
        for name, value in headers.items():
            if not value.isascii() or not value.isprintable():
                raise InvalidInput(f"the header {name} has characters that cannot be sent", field=name)
        return headers

    def _token(self, *, refused: str | None = None) -> str | None:
        if isinstance(self._source, str | None):
            return self._source
        with self._process().lock:
            token = self._source.token(refused=refused)
        return None if token is None else check_token(token)

    def _elsewhere(self, base: str, location: str) -> str:
        """Where a redirect leads, if it may be followed; never told, for a signed address is a secret."""
        try:
            target = urljoin(base, location)
            parts = urlsplit(target)
            address = Address.parse(f"{parts.scheme}://{parts.netloc}")
        except (ValueError, LlmartifactsError):
            raise Unreachable(f"{self.address} sends elsewhere, to no address that can be called") from None
        local = address.scheme == "http" and address.on_loopback and self.address.on_loopback
        if not location or not (address.scheme == "https" or local):
            raise Unreachable(f"{self.address} sends elsewhere, to an address that is not https")
        return target


@dataclass(frozen=True, slots=True)
class _Process:
    """What one process has of a session."""

    pid: int
    session: requests.Session
    lock: threading.Lock


@dataclass(frozen=True, slots=True)
class _Asked:
    """One operation: what is sent, each time it is tried."""

    route: Route
    url: str
    headers: Mapping[str, str]
    body: bytes | Rewindable | None
    redirects: bool = False
    head: bool = False

    @property
    def method(self) -> str:
        return "HEAD" if self.head else self.route.method


@dataclass(frozen=True, slots=True)
class _Failed:
    """An answer that is an error."""

    error: LlmartifactsError
    status: int
    wait: float | None


class _Bare(requests.Session):
    """A session that looks at no redirect: `requests` would read its body whole, and follow or prepare for it."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """None, whatever the answer says."""


class _NoCookies(RequestsCookieJar):
    """Keeps nothing: a session is no browser, and threads share it."""

    def extract_cookies(self, *_: Any) -> None:
        """Keep nothing."""

    def set_cookie(self, *_: Any, **__: Any) -> None:
        """Keep nothing."""


def _plain(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
