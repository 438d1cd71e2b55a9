"""A server as fast as before: its rate after thousands of requests that it has to refuse, beside its rate before them.

What is sent is what a stranger or a broken client sends: bodies that are none, too large, too deep, compressed without
end; heads that are none; a thousand ranges; other hosts and cross-site posts; keys of idempotency with another body;
bytes that are not their digest; connections that are opened and left.
"""

from __future__ import annotations

import gzip
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from benchmarks.measure import Absent, Bench, Budget, Figure, Line, Subject
from benchmarks.server_load import Ask, Outcome, load
from benchmarks.server_resolve import CONNECTIONS, asking, fill
from benchmarks.server_setup import Server, postgres, serving, stores

AS_FAST = Budget("0.9 x before", lambda after, before: after >= 0.9 * before, relative=True)
PATIENCE = 30.0
OPEN = 200
"""Connections that are opened at once, with half a request each, and left."""


def hostile(server: Server, token: str) -> list[bytes]:
    """One of each: whole requests, each to be refused, or answered as if nothing had been."""

    def head(method: str, path: str, *more: str, host: str = server.host, bearer: str = token) -> bytes:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", f"Authorization: Bearer {bearer}", "Connection: close"]
        return "".join(f"{line}\r\n" for line in (*lines, *more, "")).encode("latin-1")

    def body(data: bytes, *more: str, path: str = "/api/v1/projects", method: str = "POST") -> bytes:
        return head(method, path, "Content-Type: application/json", f"Content-Length: {len(data)}", *more) + data

    bomb = gzip.compress(bytes(50_000_000))
    digest = "sha256:" + 64 * "0"
    key = "Idempotency-Key: 00000000000000000000000000000001"
    many = ",".join(f"{2 * n}-{2 * n}" for n in range(1_000))
    references = "&".join("ref=agent:prod" for _ in range(400))
    return [
        *(body(data) for data in (b"", b"{", b'{"name": NaN}', b"[" * 100_000, b'{"name": "\\ud800"}', b'"\xff\xfe"')),
        *(body(b'{"name": "' + text + b'"}') for text in (b"../../etc", b"{{ 7*7 }}", b"' or 1=1 --", b"a" * 900_000)),
        body(b'{"digests":[' + b'"a",' * 200_000 + b'"a"]}', path="/api/v1/manifests"),
        body(bomb, "Content-Encoding: gzip"),
        body(b'{"name": "one-more"}', "Origin: https://evil.example"),
        body(b'{"name": "First", "x": 1}', key),
        body(b'{"name": "..", "x": 2}', key),
        body(b"not these", path=f"/api/v1/blobs/{digest}", method="PUT"),
        head("GET", f"/api/v1/blobs/{digest}", f"Range: bytes={many}"),
        head("GET", "/api/v1/projects/default/read?" + references),
        head("GET", "/api/v1/projects/..%2f..%2fetc/read?ref=passwd"),
        head("GET", "/api/v1/me", host="169.254.169.254"),
        head("GET", "/api/v1/me", bearer="lla_" + "0" * 40),
        head("GET", "/api/v1/me", *(f"X-{n}: 1" for n in range(500))),
        head("GET", "/api/v1/me?" + "a" * 60_000),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\0" * 1_000,
    ]


def abuse(server: Server, requests: Sequence[bytes], rounds: int) -> Counter[str]:
    """Send each of them so often; gives how many had which answer. None may be a failure of the server."""
    found: Counter[str] = Counter()
    half = [socket.create_connection(server.address, PATIENCE) for _ in range(OPEN)]
    for one in half:
        one.sendall(b"POST /api/v1/projects HTTP/1.1\r\nContent-Le")
    for _ in range(rounds):
        for request in requests:
            found[_status(server, request)] += 1
    for one in half:
        one.close()
    failed = {status: count for status, count in found.items() if status.startswith("5")}
    if failed or not any(status.startswith("4") for status in found):
        raise RuntimeError(f"it did not refuse: {dict(found)}")
    return found


def _status(server: Server, request: bytes) -> str:
    with socket.create_connection(server.address, PATIENCE) as wire:
        answer = b""
        with suppress(ConnectionError):  # it had read enough
            wire.sendall(request)
            with suppress(OSError):
                wire.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError):
            answer = wire.recv(64)
    return answer[9:12].decode("latin-1") or "closed"


def measure(bench: Bench) -> Iterator[Line | Absent]:
    rounds = bench.size(10, 100)
    with postgres(bench) as database:
        if isinstance(database, Absent):
            yield database
        for store in stores(bench, database, "refusing"):
            with store.open() as registry:
                digests = fill(registry)
            token = store.token()
            before: list[Outcome] = []
            after: list[Outcome] = []
            held: list[tuple[float, float]] = []
            with ExitStack() as stack:
                (server,) = stack.enter_context(serving(store))
                work = asking(server.host, token, digests)
                requests = hostile(server, token)
                abuse(server, requests, 1)  # what is made at its first use is not what is measured
                _asked(bench, server, work)
                for run in range(bench.runs):
                    bench.say(f"refusing over {store.kind}, run {run + 1}")
                    before.append(_asked(bench, server, work))
                    megabytes = _megabytes(server)
                    abuse(server, requests, rounds)
                    held.append((_megabytes(server), megabytes))
                    after.append(_asked(bench, server, work))
            note = (
                f"{rounds * len(requests):,} hostile requests of {len(requests)} sorts between the two, with {OPEN}"
                " connections open that send half a head; none was answered with a failure of the server's own"
            )
            rates = (Figure(tuple(o.rate for o in each), "/s") for each in (after, before))
            yield Line(f"{store.kind}: after refusals", *rates, "before them", AS_FAST, note=note)
            late = (Figure(tuple(o.within(0.99) for o in each)) for each in (after, before))
            yield Line("  its p99", *late, "before them", note=note)
            sizes = (Figure(tuple(pair[n] for pair in held), "MB") for n in (0, 1))
            yield Line("  its memory", *sizes, "before them", note=note)


def _asked(bench: Bench, server: Server, work: list[Ask]) -> Outcome:
    found = load([server.address], work, connections=CONNECTIONS, lasting=bench.size(1, 6))
    if found.failures:
        raise RuntimeError(f"{len(found.failures)} wrong answers, such as {found.failures[0]}")
    return found


def _megabytes(server: Server) -> float:
    """What the server's processes have in memory, all together."""
    pids = [server.process.pid]
    for pid in pids:
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            pids.extend(map(int, children.read_text().split()))
    told = (Path(f"/proc/{pid}/status").read_text() for pid in pids)
    return sum(int(text.partition("VmRSS:")[2].split()[0]) for text in told) * 1024 / 1e6


SUBJECT = Subject(
    "server_refusals",
    "a server's rate after thousands of hostile requests; SQLite and PostgreSQL",
    "the same server before them",
    measure,
)
