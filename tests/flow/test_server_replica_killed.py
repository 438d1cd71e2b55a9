"""Two replicas over PostgreSQL; one is killed under load: no wrong answer, no write lost, none done twice."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path

import pytest

import llmartifacts as la
from llmartifacts.errors import LlmartifactsError
from llmartifacts.testing.server import running_server

WRITERS = 3
READERS = 2
LOGS = 30
"""Versions of each writer; a replica dies after a third of them."""


class Balancer:
    """Gives each connection to the next replica that takes it, and knows nothing of what passes."""

    def __init__(self, ports: list[int]) -> None:
        self._ports = ports
        self._turn = count()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            start = next(self._turn)
            for offset in range(len(self._ports)):
                with suppress(OSError):
                    replica = socket.create_connection(("127.0.0.1", self._ports[(start + offset) % len(self._ports)]))
                    for one, other in ((client, replica), (replica, client)):
                        threading.Thread(target=_copy, args=(one, other), daemon=True).start()
                    break
            else:
                client.close()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for one in (source, target):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()


@contextmanager
def _balanced(ports: list[int]) -> Iterator[Balancer]:
    made = Balancer(ports)
    try:
        yield made
    finally:
        made.close()


def _prompt(text: str) -> la.Prompt:
    return la.Prompt(text, template_format="jinja2")


@pytest.mark.matrix
def test_a_replica_is_killed_and_nobody_notices(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(running_server(database=postgres_url, blobs=tmp_path / "blobs", folder=tmp_path / name))
            for name in ("one", "two")
        )
        balancer = stack.enter_context(_balanced([first.port, second.port]))
        monkeypatch.setenv("LLMARTIFACTS_TOKEN", first.token or second.token)
        numbers: dict[int, list[int]] = {}
        wrong: list[str] = []
        reads = count()
        third, done = threading.Event(), threading.Event()

        def write(number: int) -> None:
            made = numbers[number] = []
            with la.connect(balancer.url) as registry:
                for turn in range(LOGS):
                    try:
                        version = registry.log(f"agent-{number}", _prompt(f"{number}/{turn}"), aliases="prod")
                    except LlmartifactsError as error:
                        wrong.append(f"writer {number}, {turn}: {error!r}")
                        return
                    made.append(version.number)
                    if turn == LOGS // 3:
                        third.set()

        def read(number: int) -> None:
            newest = [0] * WRITERS
            with la.connect(balancer.url) as registry:
                while not done.is_set():
                    for which in range(WRITERS):
                        known = len(numbers.get(which, ()))
                        if not known:
                            continue
                        try:
                            told = registry.resolve(f"agent-{which}:prod", la.Prompt).template
                        except LlmartifactsError as error:
                            wrong.append(f"reader {number}: {error!r}")
                            return
                        writer, _, turn = str(told).partition("/")
                        if int(writer) != which or int(turn) < max(known - 1, newest[which]):
                            wrong.append(f"reader {number}: {told} after {known} writes, {newest[which]} read")
                        newest[which] = int(turn)
                        next(reads)

        writers = [threading.Thread(target=write, args=(n,)) for n in range(WRITERS)]
        readers = [threading.Thread(target=read, args=(n,)) for n in range(READERS)]
        for thread in (*writers, *readers):
            thread.start()
        assert third.wait(60)
        first.kill()
        for thread in writers:
            thread.join(120)
        done.set()
        for thread in readers:
            thread.join(60)

        assert wrong == []
        assert next(reads) > 20
        assert numbers == {n: list(range(1, LOGS + 1)) for n in range(WRITERS)}  # each write once, in order
        with la.connect(second.url) as registry:
            for number in range(WRITERS):
                moves = registry.history(f"agent-{number}:prod")
                assert [move.new for move in moves] == list(range(LOGS, 0, -1))
            assert registry.backend.verify_audit().ok
