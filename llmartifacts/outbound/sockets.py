"""Connections that keep to the time and the bytes of one operation, whatever the other end does.

`requests` limits each wait, not the whole: an answer of one byte a second never ends. Here every read and write of a
socket asks the operation's `Meter` how long it may still take, so name look-up, connecting, TLS, a proxy's answer, the
head and the body share one limit of time and one of bytes.
"""

from __future__ import annotations

import ipaddress
import queue
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from io import BufferedReader, RawIOBase
from typing import Any, cast

import requests.adapters
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.poolmanager import PoolManager, ProxyManager

from llmartifacts.errors import NotAllowed, TooLarge
from llmartifacts.outbound.addresses import Allowed, is_loopback

SLOWEST = 32 * 1024
"""Bytes a second below which a transfer runs out of time."""

_HEAD = 256 * 1024
_CONNECT = 10.0
_SEND = 128 * 1024
_POOL = 32
# A server that is gone without a word is noticed, though an answer may take an hour.
_ALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
        if hasattr(socket, name)
    ),
)
_LOOKUP_FAILED = "the name of the host cannot be looked up"


class OutOfTime(TimeoutError):
    """The time of the operation is over; it is not tried again."""


class Meter:
    """What one operation may still take.

    Args:
        seconds: Time from now.
        limit: Bytes of the body that may come; the head and the framing have an allowance of their own.
        progress: Whether bytes that move earn time: `SLOWEST` bytes a second can go on for ever, and a pause of
            `seconds` ends it.
        ends: Seconds from now after which it is over, progress or not.
        secret: Whether a token is sent along: plain connections are then made to loopback addresses only.
        allowed: Where the connection may lead, for a URL of somebody else; None for one of the operator's own.
    """

    def __init__(
        self,
        seconds: float,
        *,
        limit: int | None = None,
        progress: bool = False,
        ends: float | None = None,
        secret: bool = False,
        allowed: Allowed | None = None,
    ) -> None:
        now = time.monotonic()
        self.secret = secret
        self.allowed = allowed
        self._seconds = seconds
        self._until = now + seconds
        self._ends = None if ends is None else now + ends
        self._progress = progress
        self._limit = limit
        self._taken = 0

    def remaining(self) -> float:
        """Seconds left.

        Raises:
            OutOfTime: There are none.
        """
        until = self._until if self._ends is None else min(self._until, self._ends)
        left = until - time.monotonic()
        if left <= 0:
            raise OutOfTime("out of time")
        return left

    def moved(self, count: int) -> None:
        """Bytes went either way, which earns time."""
        if self._progress:
            self._until = min(self._until + count / SLOWEST, time.monotonic() + self._seconds)

    def came(self, count: int) -> None:
        """Bytes came in.

        Raises:
            TooLarge: They are more than the operation takes.
        """
        self.moved(count)
        self._taken += count
        # Chunked framing of tiny chunks is several times the body; a hundredfold is an attack.
        if self._limit is not None and self._taken > _HEAD + 2 * self._limit:
            raise TooLarge(f"the server sent more than the {self._limit} bytes that an answer may have")

    def anew(self) -> None:
        """Forget what came: another attempt begins."""
        self._taken = 0


_current: ContextVar[Meter | None] = ContextVar("llmartifacts_meter", default=None)


@contextmanager
def metered(meter: Meter) -> Iterator[None]:
    """Let the connections that this thread uses inside keep to a meter."""
    token = _current.set(meter)
    try:
        yield
    finally:
        _current.reset(token)


def _meter() -> Meter:
    meter = _current.get()
    if meter is None:
        raise RuntimeError("a connection was used outside an operation")
    return meter


class _Reader(RawIOBase):
    """Reads a socket, each time for as long as the meter leaves."""

    def __init__(self, owner: MeteredSocket, inner: RawIOBase) -> None:
        self._owner, self._inner = owner, inner

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        self._owner.sock.settimeout(self._owner.meter.remaining())
        count = self._inner.readinto(buffer)
        if count:
            self._owner.meter.came(count)
        return count

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._inner.close()


class MeteredSocket:
    """A connected socket, plain or TLS, that keeps to the meter of whoever uses it."""

    def __init__(self, sock: Any, meter: Meter) -> None:
        self.sock = sock
        self.meter = meter

    def makefile(self, mode: str = "rb", *_: Any, **__: Any) -> BufferedReader:
        """A reader, as `http.client` asks for one."""
        return BufferedReader(_Reader(self, self.sock.makefile("rb", buffering=0)), 65_536)

    def sendall(self, data: Any) -> None:
        """Send all of it, a piece at a time."""
        view = memoryview(data).cast("B")
        while view:
            self.sock.settimeout(self.meter.remaining())
            sent = self.sock.send(view[:_SEND])
            self.meter.moved(sent)
            view = view[sent:]

    def settimeout(self, seconds: float | None) -> None:
        """Nothing: the meter decides."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sock, name)


class _Metered(HTTPConnection):
    """What both sorts of connection have in common."""

    def _new_conn(self) -> socket.socket:
        meter = _meter()
        failed: OSError | None = None
        for family, address in self._addresses(meter):
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                for option in (*(self.socket_options or ()), *_ALIVE):
                    sock.setsockopt(*option)
                sock.settimeout(min(_CONNECT, meter.remaining()))
                sock.connect(address)
                self._judge(meter, sock.getpeername())
                sock.settimeout(meter.remaining())  # a handshake that follows ends in time
            except (OutOfTime, NotAllowed):
                sock.close()
                raise
            except OSError as error:
                sock.close()
                failed = error
                continue
            return sock
        if isinstance(failed, TimeoutError):
            raise ConnectTimeoutError(self, "connecting took too long") from failed
        raise NewConnectionError(self, str(failed) if failed else _LOOKUP_FAILED) from failed

    def _addresses(self, meter: Meter) -> list[tuple[socket.AddressFamily, Any]]:
        host, port = self._dns_host.strip("[]"), self.port
        plain = self.default_port == HTTPConnection.default_port and self.proxy is None
        try:
            found = look_up(host, port, meter.remaining())
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        # A name may say localhost and lead elsewhere; what counts is where the token would go.
        if plain and meter.secret and not all(is_loopback(address[0].partition("%")[0]) for _, address in found):
            raise NotAllowed(
                f"{host} is not on this machine, so a token would travel in the open",
                next_step="Use https:// for a server elsewhere.",
            )
        for _, address in found:
            self._judge(meter, address)
        return found

    def _judge(self, meter: Meter, address: Any) -> None:
        """Refuse an address that a URL of others must not lead to; through a proxy, the proxy decides."""
        if meter.allowed is not None and self.proxy is None:
            meter.allowed.check(self._dns_host, address[0])

    def _tunnel(self) -> None:
        raw, self.sock = self.sock, cast(Any, MeteredSocket(self.sock, _meter()))
        wrapped = self.sock
        super()._tunnel()
        if self.sock is wrapped:
            raw.settimeout(_meter().remaining())
            self.sock = raw

    def connect(self) -> None:
        super().connect()
        self.sock = cast(Any, MeteredSocket(self.sock, _meter()))

    def request(self, *args: Any, **kwargs: Any) -> None:
        if isinstance(self.sock, MeteredSocket):
            self.sock.meter = _meter()
        super().request(*args, **kwargs)


class MeteredHTTP(_Metered):
    """A plain connection that keeps to the meter."""


class MeteredHTTPS(_Metered, HTTPSConnection):
    """A TLS connection that keeps to the meter."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = MeteredHTTP


class _PoolTLS(HTTPSConnectionPool):
    ConnectionCls = MeteredHTTPS


_POOLS = {"http": _Pool, "https": _PoolTLS}


class MeteredAdapter(requests.adapters.HTTPAdapter):
    """The adapter of `requests` over such connections, kept alive in a pool; it never tries again by itself."""

    def __init__(self) -> None:
        super().__init__(pool_connections=8, pool_maxsize=_POOL, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """The pools for direct connections."""
        super().init_poolmanager(*args, **kwargs)
        manager: PoolManager = self.poolmanager
        manager.pool_classes_by_scheme = dict(_POOLS)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """The pools for connections through a proxy."""
        manager = super().proxy_manager_for(*args, **kwargs)
        if isinstance(manager, ProxyManager):
            manager.pool_classes_by_scheme = dict(_POOLS)
        return manager


def look_up(host: str, port: int, seconds: float) -> list[tuple[socket.AddressFamily, Any]]:
    """The addresses of a host, within a time: the system's own look-up knows none.

    Raises:
        socket.gaierror: There are none.
        OutOfTime: It took too long.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    if address is not None:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        return [(family, (host, port) if address.version == 4 else (host, port, 0, 0))]
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True, name="llmartifacts-lookup").start()
    try:
        found = answers.get(timeout=seconds)
    except queue.Empty:
        raise OutOfTime(f"looking up {host} took too long") from None
    if isinstance(found, socket.gaierror):
        raise found
    if isinstance(found, Exception):
        raise socket.gaierror(socket.EAI_NONAME, _LOOKUP_FAILED) from found
    return [(family, address) for family, _, _, _, address in found]


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came of, as far as `requests` and `urllib3` keep it."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        one = waiting.pop(0)
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [getattr(one, "reason", None), one.__cause__, one.__context__]
        waiting += [arg for arg in one.args if isinstance(arg, BaseException)]
