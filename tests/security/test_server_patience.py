"""Those who are slow, many or gone: dropped in time, while others are answered as before."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import requests

import llmartifacts as la
from llmartifacts.metadata.store import MetadataStore
from llmartifacts.testing.server import RunningServer, running_server


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("patient") / "registry"
    la.init(where, actor="ann").close()
    return where


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[RunningServer]:
    limits = {"head_seconds": 1.0, "request_seconds": 2.0, "max_concurrent": 2, "max_waiting": 2, "body_seconds": 3.0}
    with running_server(place, **limits) as running:
        yield running


def _connect(server: RunningServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), 30)


def _until_closed(wire: socket.socket) -> bytes:
    told = b""
    with suppress(ConnectionResetError):
        while part := wire.recv(4096):
            told += part
    return told


def _answers(server: RunningServer) -> bool:
    return requests.get(server.url + "/api/v1/me", headers=server.headers, timeout=30).status_code == 200


def test_a_connection_that_says_nothing_is_closed(server: RunningServer) -> None:
    with _connect(server) as wire:
        assert _until_closed(wire) == b""


def test_a_head_that_comes_a_letter_at_a_time_is_given_up(server: RunningServer) -> None:
    with _connect(server) as wire:
        wire.sendall(b"GET /healthz HT")
        told = _until_closed(wire)
    assert told.startswith(b"HTTP/1.1 408")
    assert b"deadline_exceeded" in told


def test_a_kept_connection_gets_no_more_patience(server: RunningServer) -> None:
    with _connect(server) as wire:
        wire.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert wire.recv(4096).startswith(b"HTTP/1.1 200")
        wire.sendall(b"GET /heal")
        assert b"HTTP/1.1 408" in _until_closed(wire)


def test_hundreds_of_idle_connections_keep_nobody_out(server: RunningServer) -> None:
    wires = [_connect(server) for _ in range(300)]
    try:
        assert _answers(server)
    finally:
        for wire in wires:
            wire.close()
    assert _answers(server)


@pytest.mark.matrix
def test_an_answer_that_nobody_reads_is_given_up(server: RunningServer) -> None:
    config = {"x": "y" * 60_000}
    manifest = {"schema": "llmartifacts/manifest/1", "kind": "strange", "config": config, "files": [], "components": []}
    body = {"drafts": [{"name": "large", "manifest": manifest}], "upload": None}
    logged = requests.post(
        server.url + "/api/v1/projects/default/commit", json=body, headers=server.headers, timeout=30
    )
    assert logged.status_code == 200, logged.text
    path = "/api/v1/projects/default/read?" + "&".join(["ref=large:v1"] * 200)
    whole = requests.get(server.url + path, headers=server.headers, timeout=30).content
    assert len(whole) > 6_000_000
    with socket.socket() as wire:
        wire.settimeout(30)
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wire.connect(("127.0.0.1", server.port))
        wire.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {server.token}\r\n\r\n".encode())
        time.sleep(6)  # twice as long as the server waits
        assert len(_until_closed(wire)) < len(whole)
    assert _answers(server)


def test_work_beyond_its_places_is_refused_at_once_and_done_later(server: RunningServer, place: Path) -> None:
    from llmartifacts import plugins

    store = MetadataStore(plugins.load("metadata", "sqlite")(place / "registry.db"))
    answers: list[requests.Response] = []

    def send(number: int) -> None:
        answers.append(
            requests.post(
                server.url + "/api/v1/projects", json={"name": f"p{number}"}, headers=server.headers, timeout=60
            )
        )

    threads = [threading.Thread(target=send, args=(n,)) for n in range(12)]
    assert _answers(server)
    with store.writing():  # nobody else can write meanwhile
        for one in threads:
            one.start()
        until = time.monotonic() + 20
        while len(answers) < 8 and time.monotonic() < until:
            time.sleep(0.05)
        statuses = {one.status_code for one in answers}
        assert statuses <= {503, 504}, statuses
        assert 503 in statuses
        assert all("Retry-After" in one.headers for one in answers if one.status_code == 503)
        assert requests.get(server.url + "/healthz", timeout=30).status_code == 200
    for one in threads:
        one.join(60)
    store.close()
    until = time.monotonic() + 30
    while not _answers(server) and time.monotonic() < until:
        time.sleep(0.1)
    made = requests.get(server.url + "/api/v1/projects", headers=server.headers, timeout=30).json()["items"]
    told = {one.json()["name"] for one in answers if one.status_code == 201}
    assert told <= {one["name"] for one in made}


def test_a_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    with running_server(tmp_path / "registry", workers=2) as server:
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        if not children.exists():
            pytest.skip("the system does not list the children of a process")
        workers = [
            int(pid)
            for pid in children.read_text().split()
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        assert len(workers) == 2
        import os
        import signal

        os.kill(workers[0], signal.SIGKILL)
        until = time.monotonic() + 30
        while "worker_died" not in server.log_text() and time.monotonic() < until:
            time.sleep(0.1)
        assert "worker_died" in server.log_text()
        for _ in range(20):
            assert requests.get(server.url + "/healthz", timeout=30).status_code == 200
        assert server.stop() == 0
