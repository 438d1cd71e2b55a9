"""Asks a server as fast as it answers: kept-alive connections over bare sockets, in processes of their own.

A request costs the asker some ten microseconds, so that what is measured is the server. Every answer is looked at: a
status that is not 200, or a body without what it has to hold, is a failure, whatever its time.
"""

from __future__ import annotations

import multiprocessing
import selectors
import socket
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

PATIENCE = 60.0
ENOUGH = 20
"""Units of work that each process of askers waits for, however long it takes."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request, and what its answer has to hold.

    Attributes:
        request: Every byte of it.
        wanted: Each has to be in the body.
    """

    request: bytes
    wanted: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was answered.

    Attributes:
        times: Seconds of each unit of work that was answered rightly, the shortest first.
        failures: What went wrong instead, one line each.
        seconds: How long all of it took.
    """

    times: tuple[float, ...]
    failures: tuple[str, ...]
    seconds: float

    @property
    def rate(self) -> float:
        """Units of work a second."""
        return len(self.times) / self.seconds

    def within(self, share: float) -> float:
        """Seconds that such a share of the answers stayed within."""
        if not self.times:
            raise RuntimeError(f"nothing was answered: {self.failures[:3]}")
        return self.times[min(len(self.times) - 1, int(len(self.times) * share))]


def get(path: str, host: str, token: str = "", wanted: tuple[bytes, ...] = ()) -> Ask:
    """A GET request over a connection that is kept.

    Args:
        path: With its query.
        host: As the server knows itself, `127.0.0.1:8391`.
        token: Of the account that asks; none where it is empty.
        wanted: What the body has to hold.
    """
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "Accept: application/json"]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    return Ask("\r\n".join([*lines, "", ""]).encode("ascii"), wanted)


def load(
    addresses: Sequence[tuple[str, int]], work: Sequence[Ask], *, connections: int, lasting: float, processes: int = 1
) -> Outcome:
    """Let connections do a piece of work again and again.

    Args:
        addresses: Host and port of each server; the connections are dealt out over them.
        work: Requests that are one after another one unit of work.
        connections: How many, all together; each waits for its answer before it asks again.
        lasting: Seconds to go on for.
        processes: How many of the askers.
    """
    share = [len(range(n, connections, processes)) for n in range(processes)]
    return _in_processes(_steady, [(list(addresses), list(work), n, lasting) for n in share if n])


def burst(address: tuple[str, int], work: Sequence[Ask], *, clients: int, processes: int = 2) -> Outcome:
    """Let as many clients as are said come at the same moment, each by a connection of its own, and do the work once.

    The time of each is from the moment when all began to its last byte, the connection included.
    """
    share = [len(range(n, clients, processes)) for n in range(processes)]
    return _in_processes(_at_once, [(address, list(work), n) for n in share if n])


def _in_processes(target: Any, arguments: Sequence[tuple[Any, ...]]) -> Outcome:
    spawn = multiprocessing.get_context("spawn")
    barrier, told = spawn.Barrier(len(arguments)), spawn.Queue()
    workers = [spawn.Process(target=_told, args=(target, one, barrier, told)) for one in arguments]
    for worker in workers:
        worker.start()
    found = [told.get(timeout=600) for _ in workers]
    for worker in workers:
        worker.join()
    broken = [one for one in found if isinstance(one, str)]
    if broken:
        raise RuntimeError(f"an asking process failed: {broken[0]}")
    times = sorted(t for one in found for t in one.times)
    return Outcome(tuple(times), tuple(f for one in found for f in one.failures), max(one.seconds for one in found))


def _told(target: Any, arguments: tuple[Any, ...], barrier: Any, told: Any) -> None:
    try:
        told.put(target(*arguments, barrier))
    except BaseException as error:  # noqa: BLE001 - whoever waits has to hear of it
        barrier.abort()
        told.put(f"{type(error).__name__}: {error}")


@dataclass(eq=False)
class _Connection:
    """One connection that does the work, request by request."""

    work: Sequence[Ask]
    socket: socket.socket
    at: int = 0
    began: float = 0.0
    length: int = -1
    received: bytearray = field(default_factory=bytearray)
    problem: str = ""

    def ask(self) -> None:
        """Send the request whose turn it is."""
        self.received.clear()
        self.length = -1
        self.socket.sendall(self.work[self.at].request)

    def hear(self) -> bool:
        """Take what has come; whether that ended the unit of work. A problem is kept, and ends it too."""
        piece = self.socket.recv(1 << 18)
        if not piece:
            self.problem = "the connection was closed"
            return True
        self.received += piece
        if self.length < 0:
            end = self.received.find(b"\r\n\r\n")
            if end < 0:
                return False
            self.length = end + 4 + _content_length(bytes(self.received[:end]))
        if len(self.received) < self.length:
            return False
        self.problem = self._wrong()
        self.at += 1
        if self.problem or self.at == len(self.work):
            self.at = 0
            return True
        self.ask()
        return False

    def _wrong(self) -> str:
        head = bytes(self.received[:200]).partition(b"\r\n")[0].decode("latin-1")
        if head.split(" ")[1:2] != ["200"]:
            body = bytes(self.received).partition(b"\r\n\r\n")[2]
            return f"{head}: {body[:200].decode('utf-8', 'replace')}"
        lacking = [w for w in self.work[self.at].wanted if w not in self.received]
        return f"an answer without {lacking[0].decode('utf-8', 'replace')}" if lacking else ""


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    raise RuntimeError(f"an answer that does not tell its length: {head[:200]!r}")


def _connect(address: tuple[str, int]) -> socket.socket:
    made = socket.create_connection(address, timeout=PATIENCE)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def _steady(
    addresses: Sequence[tuple[str, int]], work: Sequence[Ask], connections: int, lasting: float, barrier: Any
) -> Outcome:
    selector = selectors.DefaultSelector()
    made = [_Connection(work, _connect(addresses[n % len(addresses)])) for n in range(connections)]
    for one in made:
        selector.register(one.socket, selectors.EVENT_READ, one)
    barrier.wait(timeout=PATIENCE)
    begin = time.perf_counter()
    for one in made:
        one.began = time.perf_counter()
        one.ask()
    times: list[float] = []
    failures: list[str] = []
    while (now := time.perf_counter()) < begin + lasting or (len(times) < ENOUGH and now < begin + PATIENCE):
        for key, _ in selector.select(max(0.0, begin + lasting - now) or 1.0):
            one = key.data
            if not one.hear():
                continue
            ended = time.perf_counter()
            if one.problem:
                failures.append(one.problem)
                if len(failures) > 100:
                    raise RuntimeError(f"more than 100 failures, such as {failures[0]}")
            else:
                times.append(ended - one.began)
            one.began = ended
            one.ask()
    seconds = time.perf_counter() - begin
    for one in made:
        one.socket.close()
    return Outcome(tuple(times), tuple(failures), seconds)


def _at_once(address: tuple[str, int], work: Sequence[Ask], clients: int, barrier: Any) -> Outcome:
    selector = selectors.DefaultSelector()
    barrier.wait(timeout=PATIENCE)
    begin = time.perf_counter()
    failures: list[str] = []
    waiting = 0
    for _ in range(clients):
        fresh = socket.socket()
        fresh.setblocking(False)
        fresh.connect_ex(address)
        selector.register(fresh, selectors.EVENT_WRITE, _Connection(work, fresh))
        waiting += 1
    times: deque[float] = deque()
    while waiting:
        ready = selector.select(PATIENCE)
        if not ready:
            failures += ["no answer within a minute"] * waiting
            break
        for key, _ in ready:
            one = key.data
            try:
                if key.events == selectors.EVENT_WRITE:  # connected, or refused
                    problem = one.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if problem:
                        raise OSError(problem, "not connected")
                    one.ask()
                    selector.modify(one.socket, selectors.EVENT_READ, one)
                    continue
                if not one.hear():
                    continue
            except OSError as error:
                one.problem = f"{type(error).__name__}: {error}"
            if one.problem:
                failures.append(one.problem)
            else:
                times.append(time.perf_counter() - begin)
            selector.unregister(one.socket)
            one.socket.close()
            waiting -= 1
    return Outcome(tuple(sorted(times)), tuple(failures), time.perf_counter() - begin)
