"""The benchmarks of the server measure what they say, and hold every answer against the right one."""

from __future__ import annotations

import importlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
KINDS = ("SQLite", "PostgreSQL")
LINES = {
    "server_starts": [f"{kind}: {name}" for kind in KINDS for name in ("answered", "half of them", "99 of 100", "all")],
    "server_moves": [
        *("moves, all together", "two replicas: moves kept", "two replicas: answers"),
        *("one killed: moves kept", "one killed: answers"),
    ],
    "server_refusals": [
        *("SQLite: after refusals", "  its p99", "  its memory"),
        *("PostgreSQL: after refusals", "  its p99", "  its memory"),
    ],
    "server_transfer": [
        *("log v1", "log v2", "v2, bytes sent", "v3, bytes sent"),
        *("resolve v1, empty cache", "resolve v2, v1 cached", "v2, bytes received"),
    ],
}


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for the processes that ask


def load(module: str) -> Any:
    return importlib.import_module(f"benchmarks.{module}")


def run(*names: str, folder: Path) -> dict[str, Any]:
    told = folder / "told.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *names, "--runs", "1", "--json", str(told)],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(told.read_text())["subjects"]
    return found


@pytest.mark.matrix
@pytest.mark.parametrize("name", sorted(LINES))
def test_each_subject_has_a_line_for_everything_that_it_measures(name: str, tmp_path: Path) -> None:
    (measured,) = run(name, folder=tmp_path).values()
    if any("absent" in line for line in measured):
        pytest.skip(f"NOT MEASURED: {measured}")
    assert [line["name"] for line in measured] == LINES[name]
    for line in measured:  # the figures that are not times are promises
        if line["name"].endswith(("answered", "moves kept", "answers")):
            assert line["ours"]["samples"] == [100.0], line


@pytest.mark.matrix
@pytest.mark.parametrize("name", ["server_resolve", "server_scale"])
def test_the_longer_subjects_are_measured_too(name: str, tmp_path: Path) -> None:
    (measured,) = run(name, folder=tmp_path).values()
    assert len(measured) >= 12
    assert all(line["ours"]["samples"][0] > 0 for line in measured if "ours" in line)


ANSWERS = {
    b"/right": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nright",
    b"/wrong": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwrong",
    b"/busy": b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy",
    b"/gone": b"",
}


@pytest.fixture
def answering() -> Iterator[tuple[str, int]]:
    """A server that answers by the path, a byte at a time as the network may."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=64)

    def answer(client: socket.socket) -> None:
        with client, suppress(OSError):
            while request := client.recv(4096):
                made = ANSWERS[request.split(b" ")[1]]
                if not made:
                    return
                client.sendall(made[:30])
                client.sendall(made[30:])

    def accept() -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listening.getsockname()
    listening.close()


def test_a_load_counts_what_was_answered_rightly(answering: tuple[str, int]) -> None:
    load_of = load("server_load")
    work = [load_of.get("/right", "here", "token", (b"right",))] * 2
    found = load_of.load([answering], work, connections=3, lasting=0.2, processes=2)
    assert not found.failures
    assert len(found.times) >= 2 * load_of.ENOUGH
    assert list(found.times) == sorted(found.times)
    assert found.within(0.5) <= found.within(0.99) <= found.times[-1]


@pytest.mark.parametrize(
    ("path", "problem"),
    [("/wrong", "an answer without right"), ("/busy", "503 Service Unavailable: busy"), ("/gone", "was closed")],
)
def test_a_wrong_answer_is_a_failure_and_no_fast_one(path: str, problem: str, answering: tuple[str, int]) -> None:
    load_of = load("server_load")
    found = load_of.burst(answering, [load_of.get(path, "here", wanted=(b"right",))], clients=5)
    assert not found.times
    assert len(found.failures) == 5
    assert all(problem in failure for failure in found.failures)


def test_a_burst_connects_each_client_by_itself(answering: tuple[str, int]) -> None:
    load_of = load("server_load")
    found = load_of.burst(answering, [load_of.get("/right", "here", wanted=(b"right",))], clients=40)
    assert len(found.times) == 40
    assert not found.failures


def test_servers_that_nobody_runs_are_failures_too() -> None:
    load_of = load("server_load")
    port = load("server_setup").free_port()
    found = load_of.burst(("127.0.0.1", port), [load_of.get("/", "here")], clients=3)
    assert len(found.failures) == 3
    with pytest.raises(RuntimeError, match="nothing was answered"):
        found.within(0.5)


def test_a_balancer_passes_over_a_server_that_is_gone(answering: tuple[str, int]) -> None:
    load_of, setup = load("server_load"), load("server_setup")
    process = type("Gone", (), {"pid": 0})()
    servers = [setup.Server(setup.free_port(), process), setup.Server(answering[1], process)]
    with setup.balanced(servers) as address:
        found = load_of.burst(address, [load_of.get("/right", "here", wanted=(b"right",))], clients=6)
    assert len(found.times) == 6


@pytest.mark.parametrize(
    ("confirmed", "there", "lost", "doubled"),
    [((5, 7), [(5, "0.0"), (7, "0.1")], 0, 0), ((5, 7), [(5, "0.0")], 1, 0), ((5,), [(5, "0.0"), (6, "0.0")], 0, 1)],
)
def test_a_move_that_is_not_there_is_lost_and_one_that_is_there_twice_was_done_twice(
    confirmed: tuple[int, ...], there: list[tuple[int, str]], lost: int, doubled: int
) -> None:
    moves = load("server_moves")

    class Registry:
        def __enter__(self) -> Any:
            return self

        def __exit__(self, *error: object) -> None: ...

        def history(self, reference: str) -> list[Any]:
            return [type("Entry", (), {"revision": r, "reason": why})() for r, why in [*there, (1, "first")]]

    store = type("Store", (), {"open": lambda self: Registry()})()
    told = [moves.Told(0, confirmed, (), (), 1.0), moves.Told(-1, (10,), ("a wrong one",), (), 1.0)]
    found = moves._judged(store, told, 2)
    assert (found.lost, found.doubled, found.wrong, found.answers) == (lost, doubled, 1, 10)
    assert (found.kept == 100) == (lost + doubled == 0)
    assert found.right == 90
