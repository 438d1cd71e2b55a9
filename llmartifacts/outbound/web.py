"""`https://`: one request for a URL that somebody else wrote.

No redirect is followed but of hosts that the operator has named, and then the same is asked of where it leads. No
cookie is kept, no credential sent; nothing of an answer that is refused is told. An ETag is not asked for: it is what a
server likes to say, and what counts is the SHA-256 of what comes.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from urllib.parse import urljoin

import requests
from urllib3.exceptions import HTTPError, ProtocolError

from llmartifacts.errors import BlobMissing, DeadlineExceeded, LlmartifactsError, NotAllowed, TooLarge, Unreachable
from llmartifacts.outbound.addresses import REDIRECTS, Allowed
from llmartifacts.outbound.sockets import Meter, MeteredAdapter, causes, look_up, metered
from llmartifacts.outbound.source import PIECE, Opened
from llmartifacts.outbound.surroundings import authorities, proxies, user_agent
from llmartifacts.records.external import Place, https_host

_VERSIONS = ("x-amz-version-id", "x-goog-generation")
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")
_GONE = (404, 410)
_DENIED = (401, 402, 403, 407, 451)
_MOVED = (301, 302, 303, 307, 308)
_HOPS = 5
_ELSEWHERE = f"Log the address that it leads to; or, if its host may send elsewhere, name it in ${REDIRECTS}."
_RIGHT = "Make it readable there, or keep it where this machine may read it: no credential is sent along."


@contextmanager
def opened(place: Place, *, start: int, limit: int, seconds: float, allowed: Allowed) -> Iterator[Opened]:
    """Open what lies at an `https://` URL.

    Args:
        place: The URL.
        start: First byte to read.
        limit: Bytes that it may have in all.
        seconds: Pause after which it is given up; what goes on at 32 KiB a second may go on.
        allowed: Private addresses that it may lead to.

    Raises:
        BlobMissing: There is nothing.
        NotAllowed: It wants a right, leads to a private address, or elsewhere.
        TooLarge: There is more than `limit`.
        Unreachable: It cannot be had; another attempt may help.
        DeadlineExceeded: It came too slowly.
    """
    meter = Meter(seconds, limit=limit, progress=True, allowed=allowed)
    with closing(MeteredAdapter()) as adapter:
        with _typed(place), metered(meter):
            response, moved = _asked(place, start, adapter, meter, allowed)
        with closing(response):  # what a reader raises meanwhile is its own
            found = _read(place, response, start, limit)
            yield replace(found, version="") if moved else found  # a version of another place's


def _asked(
    place: Place, start: int, adapter: MeteredAdapter, meter: Meter, allowed: Allowed
) -> tuple[requests.Response, bool]:
    """The answer for a place: of its own host, or of those that this host sends to, where it may send elsewhere."""
    url, host = place.url, place.host
    for hop in range(_HOPS):
        through = proxies(url)
        if through:
            _judge(host, meter, allowed)
        prepared = requests.Request("GET", url).prepare()
        prepared.headers.update({"User-Agent": user_agent(), "Accept": "*/*", "Accept-Encoding": "identity"})
        if start:
            prepared.headers["Range"] = f"bytes={start}-"
        response = adapter.send(prepared, stream=True, timeout=meter.remaining(), verify=authorities(), proxies=through)
        if response.status_code not in _MOVED or not allowed.redirecting(host):
            return response, hop > 0
        response.close()
        url = urljoin(url, response.headers.get("Location", ""))
        host = https_host(url)
        if not host:
            raise NotAllowed(f"{place} leads to a place that is not looked for")
    raise NotAllowed(f"{place} leads elsewhere more than {_HOPS} times")


def _read(place: Place, response: requests.Response, start: int, limit: int) -> Opened:
    status, headers = response.status_code, response.headers
    if 300 <= status < 400:
        raise NotAllowed(f"{place} leads elsewhere (status {status})", next_step=_ELSEWHERE)
    if status in _GONE:
        raise BlobMissing(f"{place} is gone (status {status})", file=str(place))
    if status in _DENIED:
        raise NotAllowed(f"{place} may not be read from here (status {status})", next_step=_RIGHT)
    if status == 416 and start:
        return Opened(iter(()))  # it has become shorter than what was read of it
    if status not in ((200, 206) if start else (200,)):
        raise Unreachable(f"{place} cannot be had now (status {status})")
    length = headers.get("Content-Length", "").strip()
    if not length.isdigit() and "chunked" not in headers.get("Transfer-Encoding", "").lower():
        raise Unreachable(f"the answer of {place} does not say where it ends, so a part of it could pass for the whole")
    skip, size = start, int(length) if length.isdigit() and len(length) < 19 else None
    if status == 206:
        found = _RANGE.fullmatch(headers.get("Content-Range", "").strip())
        if found is None or int(found[1]) != start:
            raise Unreachable(f"{place} answered with another part than was asked for")
        skip, size = 0, int(found[3]) if found[3] != "*" else None
    if size is not None and size > limit:
        raise _too_large(place, limit)
    version = next((v for name in _VERSIONS if (v := headers.get(name, "").strip())), "")
    return Opened(_pieces(place, response, skip, limit - start + skip), size, version)


def _pieces(place: Place, response: requests.Response, skip: int, limit: int) -> Iterator[bytes]:
    total = 0
    with _typed(place):
        # As they are stored: what a program would decompress is not what somebody hashed.
        for data in iter(lambda: response.raw.read(PIECE, decode_content=False), b""):
            total += len(data)
            if total > limit:
                raise _too_large(place, limit)
            if piece := data[max(0, skip - total + len(data)) :]:
                yield piece


def _judge(host: str, meter: Meter, allowed: Allowed) -> None:
    """Look at where a host leads that a proxy will speak to; where only the proxy knows, it decides."""
    try:
        found = look_up(host, 443, meter.remaining())
    except socket.gaierror:
        return
    for _, address in found:
        allowed.check(host, address[0])


def _too_large(place: Place, limit: int) -> TooLarge:
    return TooLarge(f"{place} has more than the {limit:,} bytes that it may have")


@contextmanager
def _typed(place: Place) -> Iterator[None]:
    late = f"{place} did not come in time"
    try:
        yield
    except TimeoutError:
        raise DeadlineExceeded(late) from None
    except (requests.RequestException, HTTPError, OSError) as error:
        found = list(causes(error))
        for one in found:
            if isinstance(one, LlmartifactsError):
                raise one from None
        if any(isinstance(one, TimeoutError) for one in found):
            raise DeadlineExceeded(late) from None
        what = "broke off" if any(isinstance(one, ProtocolError) for one in found) else "cannot be had"
        if isinstance(error, requests.exceptions.SSLError):
            raise Unreachable(
                f"{place} cannot be had: its certificate is not one that is trusted here",
                next_step="An authority of your own is named in $REQUESTS_CA_BUNDLE.",
            ) from None
        raise Unreachable(f"{place} {what}") from None
