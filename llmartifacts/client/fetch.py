"""One plain request to an address that is no route of a server: a login provider's, a build machine's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

import requests
from urllib3.exceptions import HTTPError

from llmartifacts.client.address import Address
from llmartifacts.client.answers import lower, pieces
from llmartifacts.errors import DeadlineExceeded, InvalidInput, LlmartifactsError, Unreachable
from llmartifacts.outbound.sockets import Meter, MeteredAdapter, OutOfTime, causes, metered
from llmartifacts.outbound.surroundings import authorities, proxies, user_agent
from llmartifacts.records.canonical import parse_json

SECONDS = 10.0
MAX_BYTES = 1024 * 1024
MAX_URL = 8_192


@dataclass(frozen=True, slots=True, repr=False)
class Fetched:
    """An answer.

    Attributes:
        status: HTTP status, whatever it is.
        headers: Its headers, names in lower case.
        body: Its bytes, decompressed.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self, what: str) -> dict[str, Any]:
        """The body as a JSON object, parsed strictly.

        Args:
            what: What answered, for messages.

        Raises:
            Unreachable: It is none.
        """
        try:
            value = parse_json(self.body)
        except LlmartifactsError:
            value = None
        if not isinstance(value, dict):
            raise Unreachable(f"{what} answered {self.status}, and no JSON object")
        return value


def check_url(url: str, *, field: str, loopback: bool) -> str:
    """An address that may be fetched: `https`, or `http` to loopback where that is allowed.

    Raises:
        InvalidInput: It is none.
    """
    if not isinstance(url, str) or not 0 < len(url) <= MAX_URL or not url.isascii() or "\\" in url:
        raise InvalidInput("it is no address", field=field)
    scheme, _, rest = url.partition("://")
    authority = rest.partition("/")[0].partition("?")[0].partition("#")[0]
    address = Address.parse(f"{scheme}://{authority}", field=field)
    if any(c <= " " or c == "\x7f" for c in url) or "#" in url:
        raise InvalidInput("it is no plain address", field=field)
    if address.scheme != "https" and not (loopback and address.on_loopback):
        raise InvalidInput(f"{address} is not https", field=field, next_step="Plain http is for this machine only.")
    return url


def fetch(
    url: str,
    *,
    form: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    seconds: float = SECONDS,
    limit: int = MAX_BYTES,
) -> Fetched:
    """Get an address, or send a form there. No redirect is followed, nothing is tried again, no cookie kept.

    Args:
        url: The address, checked by `check_url` where it comes from elsewhere.
        form: Fields to send; None to get.
        headers: Further headers; an `Authorization` goes over TLS or to loopback only.
        seconds: Time for all of it.
        limit: Bytes that the answer may have.

    Raises:
        Unreachable: There is no answer.
        DeadlineExceeded: Not in time.
        TooLarge: It is too long.
    """
    host = urlsplit(url).hostname or ""
    check_url(url, field="url", loopback=True)
    meter = Meter(seconds, limit=limit, secret=True)
    prepared = requests.Request("GET" if form is None else "POST", url).prepare()
    prepared.headers.update({"User-Agent": user_agent(), "Accept": "application/json", "Accept-Encoding": "gzip"})
    prepared.headers.update(headers or {})
    if form is not None:
        prepared.body = urlencode(form).encode()
        prepared.headers["Content-Type"] = "application/x-www-form-urlencoded"
        prepared.headers["Content-Length"] = str(len(prepared.body))
    adapter = MeteredAdapter()
    try:
        with metered(meter):
            response = adapter.send(
                prepared, stream=True, timeout=meter.remaining(), verify=authorities(), proxies=proxies(url)
            )
            try:
                return Fetched(response.status_code, lower(response.headers), b"".join(pieces(response, limit)))
            finally:
                response.close()
    except OutOfTime:
        raise DeadlineExceeded(f"{host} did not answer in time") from None
    except (requests.RequestException, HTTPError, OSError) as error:
        for one in causes(error):
            if isinstance(one, LlmartifactsError):
                raise one from None
            if isinstance(one, TimeoutError):
                raise DeadlineExceeded(f"{host} did not answer in time") from error
        raise Unreachable(f"{host} cannot be had: {type(error).__name__}") from error
    finally:
        adapter.close()
