"""Answers of a server: read within limits, and what a broken one means."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import requests
from urllib3.exceptions import ProtocolError

from llmartifacts.client.address import Address
from llmartifacts.errors import LlmartifactsError, TooLarge, Unreachable
from llmartifacts.records.canonical import parse_json

MAX_ANSWER = 128 * 1024 * 1024
MAX_ERROR = 1024 * 1024
PIECE = 256 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that was read whole.

    Attributes:
        status: HTTP status: 200 to 299, or 304.
        headers: Its headers, names in lower case.
        body: Its bytes, decompressed.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON, parsed strictly.

        Raises:
            Unreachable: It is none: this is no server of this package, or it is broken.
        """
        try:
            return parse_json(self.body)
        except LlmartifactsError as error:
            raise Unreachable(f"the server's answer cannot be read: {error.message}") from None


class Download:
    """An answer that is read in pieces.

    Attributes:
        status: HTTP status: 200 to 299, or 304.
        headers: Its headers, names in lower case.
    """

    def __init__(self, status: int, headers: Mapping[str, str], chunks: Iterator[bytes]) -> None:
        self.status = status
        self.headers = headers
        self._chunks = chunks

    def chunks(self) -> Iterator[bytes]:
        """The body, at most `PIECE` bytes at a time; once.

        Raises:
            Unreachable: It ended before its end.
            DeadlineExceeded: It stopped coming, or came too slowly.
            TooLarge: It is longer than allowed.
        """
        return self._chunks


def pieces(response: requests.Response, limit: int | None) -> Iterator[bytes]:
    """The body, decompressed, at most `limit` bytes of it.

    Raises:
        TooLarge: It is longer.
        Unreachable: It is compressed in another way, or wrongly.
        ProtocolError: It ends early, or may have.
    """
    bare = response.request.method == "HEAD" or response.status_code in (204, 304)
    framed = "Content-Length" in response.headers or "chunked" in response.headers.get("Transfer-Encoding", "").lower()
    if not bare and not framed:  # a head that was cut looks like this, and so would a body
        raise ProtocolError("an answer that does not say where it ends")
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower() or "identity"
    if encoding not in ("identity", "gzip"):
        raise Unreachable(f"the server answered in the encoding {encoding[:20]!r}, which was not asked for")
    inflate = zlib.decompressobj(16 + zlib.MAX_WBITS) if encoding == "gzip" else None
    total = 0
    for raw in iter(lambda: response.raw.read(PIECE, decode_content=False), b""):
        data = raw
        while data:
            if inflate is None:
                piece, data = data, b""
            else:
                try:
                    piece = inflate.decompress(data, PIECE)
                except zlib.error:
                    raise Unreachable("the server's answer is not compressed as it says") from None
                if inflate.eof and (inflate.unused_data or inflate.unconsumed_tail):  # zlib would collect it for ever
                    raise Unreachable("the server's answer goes on after its end")
                data = inflate.unconsumed_tail
            total += len(piece)
            if limit is not None and total > limit:
                raise TooLarge(f"the server's answer has more than the {limit} bytes that it may have")
            if piece:
                yield piece
    if inflate is not None and not inflate.eof and not bare:
        raise ProtocolError("an answer that ends early")


def strange(status: int, address: Address) -> Unreachable:
    """The error where something else than a registry answers; what it said is not shown."""
    return Unreachable(
        f"{address} answered {status}, and not as a registry does",
        next_step="See whether the address is right, and whether a proxy or a login page answers in its place.",
    )


def retry_after(text: str) -> float | None:
    """Seconds that a server asks to wait; None if it does not, or not understandably."""
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def lower(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers by their names in lower case."""
    return {name.lower(): value for name, value in headers.items()}
