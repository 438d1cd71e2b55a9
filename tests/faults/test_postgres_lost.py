"""Servers that restart and connections that are cut, in the middle of everything: every request has exactly one effect.

A request is what a server makes of one: one transaction with the rule, the change, its audit entry, and the answer
kept under the key of the request. Whoever gets no answer sends it again with the same key.
"""

from __future__ import annotations

import hashlib
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from llmartifacts.errors import Busy, Unreachable
from llmartifacts.metadata import idempotency
from llmartifacts.metadata.idempotency import KeptAnswer
from llmartifacts.records.backend import Draft, PromotionRequest, Target
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.reference import Reference
from llmartifacts.versioning.embedded import EmbeddedBackend
from llmartifacts.versioning.team import open_team

REPLICAS = 2
WRITERS = 3
"""Of each replica."""
PAIR = ("left", "right")
"""Two collections whose alias `prod` always moves together, to versions of the same number."""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmartifacts.versioning.judge.ALWAYS", ())


@pytest.fixture
def team(own_postgres: Any, tmp_path: Path, quick: None) -> Iterator[Team]:
    made = Team(own_postgres, own_postgres.new_database(), tmp_path / "blobs")
    yield made
    made.close()


def test_every_request_has_one_effect_though_the_server_restarts(team: Team) -> None:
    with team.at_work() as work:
        for _ in range(3):
            work.wait_for(20)
            team.server.restart()
    team.require_one_effect_each(work)


@pytest.mark.matrix
def test_every_request_has_one_effect_through_twenty_restarts(team: Team) -> None:
    with team.at_work() as work:
        for _ in range(20):
            work.wait_for(30)
            team.server.restart()
    team.require_one_effect_each(work)
    assert work.failures >= 20, "the restarts hit no request"


def test_every_request_has_one_effect_through_two_hundred_cuts(team: Team) -> None:
    with team.at_work() as work:
        lost = 0
        while lost < 200 or work.failures < 50:  # who only waits for his turn does not even notice
            lost += team.cut(work)
    team.require_one_effect_each(work)


def test_a_change_whose_answer_is_lost_at_the_commit_happens_once(team: Team) -> None:
    with proxied(team.url) as (url, lose_commits):
        backend = open_team(url, str(team.blobs), connections=1)
        lose_commits.set()
        with pytest.raises(Unreachable, match="not known"):
            team.request(backend, "key-1")
        assert standing(team.backends[0]) == [2, 2], "it did happen, and only its answer was lost"
        lose_commits.clear()
        assert team.request(backend, "key-1") == b"2", "the second time brings the answer of the first"
        backend.close()
    assert [p.reason for p in team.backends[0].promotions("default")].count("key-1") == 1


@dataclass
class Work:
    """What writers did, and what readers saw."""

    done: dict[str, int] = field(default_factory=dict)
    failures: int = 0
    wrong: list[str] = field(default_factory=list)
    reads: int = 0
    stop: threading.Event = field(default_factory=threading.Event)

    def wait_for(self, more: int) -> None:
        """Until so many more requests are done."""
        target, end = len(self.done) + more, time.monotonic() + 60
        while len(self.done) < target and time.monotonic() < end:
            time.sleep(0.005)


class Team:
    """Two replicas over one PostgreSQL, and requests to them."""

    def __init__(self, server: Any, url: str, blobs: Path) -> None:
        self.server, self.url, self.blobs = server, url, blobs
        self.backends = [open_team(url, str(blobs), connections=6) for _ in range(REPLICAS)]
        for name in PAIR:
            for number in range(1, 4):
                draft = Draft(name, Manifest.build("unknown-kind", {"content": f"{name} {number}"}))
                self.backends[0].commit("default", [draft], actor="ann")
        self.request(self.backends[0], "first")

    def close(self) -> None:
        for backend in self.backends:
            backend.close()

    def request(self, backend: EmbeddedBackend, key: str) -> bytes:
        """Move both aliases to the next version, once for a key. The answer is the number of that version."""
        body = hashlib.sha256(key.encode()).digest()
        with backend._parts.metadata.writing() as s:
            kept = idempotency.begin(s, "ann", key, body)
            if kept is not None:
                return kept.body
            number = 1 + (standing(backend) or [0])[0] % 3
            targets = tuple(Target(Reference.parse(f"{name}:v{number}"), "prod") for name in PAIR)
            backend.promote("default", PromotionRequest(targets, reason=key), actor="ann")
            answer = KeptAnswer(200, str(number).encode())
            idempotency.keep(s, "ann", key, body, answer)
        return answer.body

    def cut(self, work: Work) -> int:
        """Cut the connections that are in a transaction just now, whatever they do; how many that were."""
        time.sleep(random.uniform(0, 0.01))
        with psycopg.connect(self.url, autocommit=True) as admin:
            rows = admin.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()"
                " and pid <> pg_backend_pid() and state <> 'idle'"
            ).fetchall()
        work.wait_for(2)
        return len(rows)

    @contextmanager
    def at_work(self) -> Iterator[Work]:
        """Writers and readers of every replica; at the end each writer has the answer to its last request."""
        work = Work()
        with ThreadPoolExecutor(REPLICAS * (WRITERS + 1)) as pool:
            running = [
                pool.submit(self._write if number < WRITERS else self._read, backend, f"{replica}-{number}", work)
                for replica, backend in enumerate(self.backends)
                for number in range(WRITERS + 1)
            ]
            try:
                yield work
                work.wait_for(20)
            finally:
                work.stop.set()
            for each in running:
                each.result(timeout=120)

    def _write(self, backend: EmbeddedBackend, name: str, work: Work) -> None:
        for step in range(1_000_000):
            if work.stop.is_set():
                return
            key = f"writer-{name}-{step}"
            answer = insist(lambda: self.request(backend, key), work)  # noqa: B023 (called at once)
            work.done[key] = int(answer)

    def _read(self, backend: EmbeddedBackend, name: str, work: Work) -> None:
        last = 0
        while not work.stop.is_set():
            with suppress(Unreachable, Busy):
                read = backend.read("default", [Reference.parse(f"{each}:prod") for each in PAIR])
                numbers = [item if isinstance(item, Exception) else item.version.number for item in read.items]
                work.reads += 1
                if len(set(numbers)) > 1:
                    work.wrong.append(f"a reader saw {numbers} at revision {read.revision}")
                if read.revision < last:
                    work.wrong.append(f"a reader of {name} saw revision {read.revision} after {last}")
                last = read.revision

    def require_one_effect_each(self, work: Work) -> None:
        assert work.wrong == []
        assert work.reads > 20
        backend = self.backends[0]
        history = backend.history("default", Reference.parse("left:prod"))
        moved = [(entry.reason, entry.new) for entry in history]
        assert sorted(moved) == sorted([*work.done.items(), ("first", 1)]), "each request moved the aliases once"
        assert [entry.move for entry in history] == list(range(len(moved), 0, -1)), "no move is lost or doubled"
        with backend._parts.metadata.reading() as s:
            assert s.row("select count(*) from idempotency") == (len(moved),)
        checked = backend.verify_audit()
        assert checked.problems == ()
        assert checked.size == 1 + 2 * 3 + len(moved)
        assert backend.verify().problems == (), "the records say what the audit says"


def standing(backend: EmbeddedBackend) -> list[int]:
    """What both aliases point at, of one moment; nothing if nowhere yet."""
    read = backend.read("default", [Reference.parse(f"{each}:prod") for each in PAIR])
    return [item.version.number for item in read.items if not isinstance(item, Exception)]


def insist(call: Callable[[], bytes], work: Work) -> bytes:
    """Send a request until it is answered, as a client does."""
    end = time.monotonic() + 60
    while True:
        try:
            return call()
        except (Unreachable, Busy):
            work.failures += 1
            if time.monotonic() > end:
                raise
            time.sleep(0.01)


@contextmanager
def proxied(url: str) -> Iterator[tuple[str, threading.Event]]:
    """A way to a server on which, while the event is set, the answer to a commit is lost with its connection."""
    head, _, tail = url.rpartition("@")
    address, _, database = tail.partition("/")
    host, _, port = address.partition(":")
    lose = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=relay, args=(listener.accept()[0],), daemon=True).start()

    def relay(near: socket.socket) -> None:
        far = socket.create_connection((host, int(port)))
        losing = threading.Event()

        def back() -> None:
            with suppress(OSError):
                while data := far.recv(65536):
                    if losing.is_set():
                        break  # the answer has come: it was committed
                    near.sendall(data)
            for each in (near, far):
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

        answering = threading.Thread(target=back, daemon=True)
        answering.start()
        with suppress(OSError):
            while data := near.recv(65536):
                if lose.is_set() and b"commit\0" in data:
                    losing.set()
                far.sendall(data)
        with suppress(OSError):
            far.shutdown(socket.SHUT_RDWR)
        answering.join()
        near.close()
        far.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"{head}@127.0.0.1:{listener.getsockname()[1]}/{database}", lose
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
