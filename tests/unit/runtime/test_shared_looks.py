"""Processes of one host that ask for the same share looks; none of them believes more than that nothing changed."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts.errors import Unreachable
from llmartifacts.records.canonical import canonical_bytes
from llmartifacts.records.digest import digest_of
from llmartifacts.records.reference import Reference
from llmartifacts.registry import Registry
from llmartifacts.runtime.generation import Notice
from llmartifacts.runtime.known_good import Asked
from llmartifacts.runtime.looks import Seen, SharedLooks, told
from llmartifacts.runtime.resolver import Resolver
from llmartifacts.runtime.state import State

BOTH = {"agent": "agent:prod", "kb": "kb:prod"}
ASKED = Asked("/srv/registry", "default", {"kb": Reference.parse("kb:prod")})
LONG = 3600.0


def seen(at: float | None = None, **changes: Any) -> Seen:
    values = {"set_digest": "sha256:" + "0" * 64, "told": told(()), "revision": 7, **changes}
    return Seen(at=time.monotonic() if at is None else at, **values)


@pytest.fixture
def looks(tmp_path: Path) -> SharedLooks:
    made = SharedLooks(tmp_path, ASKED)
    if not made._boot:
        pytest.skip("this system does not say which run of it this is, so nothing is shared")
    return made


def record(root: Path) -> Path:
    (file,) = (root / "looks").glob("*.json")
    return file


# --- the record


def test_a_look_is_told_to_whoever_asks_for_the_same(looks: SharedLooks, tmp_path: Path):
    assert looks.recent(LONG) is None
    one = seen()
    looks.note(one)
    found = SharedLooks(tmp_path, ASKED).recent(LONG)
    assert found is not None
    assert (found.set_digest, found.told, found.revision) == (one.set_digest, one.told, one.revision)
    assert found.at == pytest.approx(one.at, abs=1e-5)
    other = Asked("/srv/registry", "default", {"kb": Reference.parse("kb:staging")})
    assert SharedLooks(tmp_path, other).recent(LONG) is None


def test_an_old_look_is_none_and_neither_is_one_of_the_future(looks: SharedLooks):
    looks.note(seen(time.monotonic() - 10))
    assert looks.recent(5) is None
    assert looks.recent(60) is not None
    looks.note(seen(time.monotonic() + 1000))
    assert looks.recent(LONG) is None


@pytest.mark.parametrize("field", ["schema", "asked", "boot", "set", "told", "revision", "at"])
@pytest.mark.parametrize("value", [None, "x", [], {}])
def test_a_record_that_says_something_else_is_none(looks: SharedLooks, tmp_path: Path, field: str, value: Any):
    looks.note(seen())
    body = json.loads(record(tmp_path).read_text())
    body[field] = value
    write(record(tmp_path), body)
    found = looks.recent(LONG)
    assert found is None or (field in ("set", "told") and found != seen()), "a set that nobody serves agrees with none"


def write(file: Path, body: dict[str, Any]) -> None:
    """A record that somebody made up, with a checksum that is right."""
    rest = {name: value for name, value in body.items() if name != "check"}
    file.write_text(json.dumps({**rest, "check": digest_of(canonical_bytes(rest))}))


def test_a_torn_record_is_none(looks: SharedLooks, tmp_path: Path):
    looks.note(seen())
    file = record(tmp_path)
    file.write_text(file.read_text().replace('"revision": 7', '"revision": 8'))
    assert looks.recent(LONG) is None
    looks.note(seen(revision=9))
    assert looks.recent(LONG) is not None, "the next look is written over it"


def test_a_shorter_record_is_written_over_a_longer_one(looks: SharedLooks):
    for revision in (10**12, 7):
        looks.note(seen(revision=revision))
        found = looks.recent(LONG)
        assert found is not None
        assert found.revision == revision


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff" * 100, b'{"a": ' * 5000, b"x" * 1_000_000])
def test_a_record_that_is_none_at_all_is_none(looks: SharedLooks, tmp_path: Path, content: bytes):
    looks.note(seen())
    record(tmp_path).write_bytes(content)
    assert looks.recent(LONG) is None


def test_a_record_that_others_could_have_written_is_not_believed(looks: SharedLooks, tmp_path: Path):
    looks.note(seen())
    record(tmp_path).chmod(0o666)
    assert looks.recent(LONG) is None


def test_a_link_a_pipe_or_a_folder_in_its_place_is_not_opened(looks: SharedLooks, tmp_path: Path):
    looks.note(seen())
    file = record(tmp_path)
    file.rename(tmp_path / "elsewhere.json")
    file.symlink_to(tmp_path / "elsewhere.json")
    assert looks.recent(LONG) is None
    file.unlink()
    os.mkfifo(file)
    assert looks.recent(LONG) is None
    looks.note(seen())
    looks.note(seen())
    assert looks.recent(LONG) is not None, "a pipe is put aside"
    file.unlink()
    file.mkdir()
    open_before = len(os.listdir("/proc/self/fd"))
    looks.note(seen())
    assert looks.recent(LONG) is None
    with looks.turn(LONG, 0.0) as found:
        assert found is None
    assert len(os.listdir("/proc/self/fd")) == open_before


def test_withdrawals_are_part_of_what_is_compared():
    assert told(()) == told([Notice("index-dimension", "of the components", "kb")])
    assert told(()) != told([Notice("yanked", "kb:v1 was withdrawn: wrong", "kb")])


# --- turns


def test_while_one_process_looks_the_others_wait_for_it_and_take_what_it_found(
    looks: SharedLooks, tmp_path: Path, until
):
    got: list[Seen | None] = []
    with looks.turn(LONG, 1.0) as mine:
        assert mine is None

        def other() -> None:
            with SharedLooks(tmp_path, ASKED).turn(LONG, 30.0) as found:
                got.append(found)

        thread = threading.Thread(target=other)
        thread.start()
        looks.note(seen())
        thread.join()
    assert got[0] is not None


def test_one_that_hangs_is_not_waited_for_longer_than_a_moment(looks: SharedLooks, tmp_path: Path):
    with looks.turn(LONG, 1.0), SharedLooks(tmp_path, ASKED).turn(LONG, 0.1) as found:
        assert found is None


def test_a_turn_that_ended_is_free_though_a_copy_of_its_lock_is_open_elsewhere(
    looks: SharedLooks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    copies: list[int] = []
    real = fcntl.flock

    def copied(fd: int, how: int) -> None:
        real(fd, how)
        if how & fcntl.LOCK_EX:
            copies.append(os.dup(fd))  # as a forked child has one

    monkeypatch.setattr("fcntl.flock", copied)
    with looks.turn(LONG, 0.0) as first:
        assert first is None
    lock = record_lock(tmp_path)
    fd = os.open(lock, os.O_RDWR)
    real(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    for one in (fd, *copies):
        os.close(one)


def record_lock(root: Path) -> Path:
    (file,) = (root / "looks").glob("*.lock")
    return file


def test_where_nothing_can_be_written_everybody_looks_alone(tmp_path: Path):
    (tmp_path / "looks").write_text("no folder")
    looks = SharedLooks(tmp_path, ASKED)
    with looks.turn(LONG, 1.0) as found:
        assert found is None
    looks.note(seen())
    assert looks.recent(LONG) is None


# --- resolvers


@pytest.fixture
def two(cache: Path, gated: Registry) -> Iterator[tuple[Resolver[Any], Resolver[Any]]]:
    with Resolver(BOTH, registry=gated) as one, Resolver(BOTH, registry=gated) as other:
        yield one, other


def look(resolver: Resolver[Any], interval: float = LONG) -> None:
    """A look as the watcher makes it, in this thread."""
    resolver._watcher.interval = interval
    resolver._look(forced=False)


def test_of_two_that_watch_the_same_one_asks(two: tuple[Resolver[Any], Resolver[Any]], gate):
    gate.calls.clear()
    for resolver in two:
        look(resolver)
    assert gate.calls.count("read") == 1
    first, second = (resolver.status().checks for resolver in two)
    assert (first.made, first.unchanged, first.shared) == (1, 1, 0)
    assert (second.made, second.unchanged, second.shared) == (0, 0, 1)
    assert two[1].status().age is not None


def test_who_is_told_to_look_now_looks_itself(two: tuple[Resolver[Any], Resolver[Any]], gate):
    look(two[0])
    gate.calls.clear()
    two[1].refresh()
    assert gate.calls == ["read"]


def test_when_another_found_something_new_one_asks_oneself_and_loads_from_the_cache(
    two: tuple[Resolver[Any], Resolver[Any]], registry: Registry, gate
):
    registry.promote("kb:v2", to="prod", reason="second")
    look(two[0])
    gate.calls.clear()
    look(two[1])
    assert two[1].current.lock == two[0].current.lock
    assert gate.calls.count("read") == 1
    assert "blobs.open" not in gate.calls


def test_a_forged_look_makes_nobody_load_anything(two: tuple[Resolver[Any], Resolver[Any]], cache: Path, gate):
    look(two[0])
    (file,) = (cache / "looks").glob("*.json")
    body = json.loads(file.read_text())
    body["set"] = "sha256:" + "f" * 64
    body["revision"] = 10_000
    write(file, body)
    gate.calls.clear()
    before = two[1].current
    look(two[1])
    assert gate.calls == ["read", "identity"] or gate.calls == ["read"]
    assert two[1].current is before
    assert two[1].state is State.READY


def test_a_look_of_another_does_not_hide_that_one_s_own_set_only_stood_in(cache: Path, gated: Registry, gate):
    with Resolver(BOTH, registry=gated) as one:
        gate.error = Unreachable("connection refused")
        with Resolver(BOTH, registry=gated) as other:
            assert other.current.source == "last-known-good"
            gate.error = None
            look(one)
            look(other)
            assert (other.current.source, other.state) == ("registry", State.READY)


WORKER = """
import sys, time
import llmartifacts as la
with la.Resolver({"agent": "agent:prod", "kb": "kb:prod"}, registry=sys.argv[1]) as resolver:
    resolver.watch(float(sys.argv[2]))
    print("started", flush=True)
    sys.stdin.readline()
    checks = resolver.status().checks
    print(checks.made, checks.shared, resolver.status().state, resolver.current.stamp(), flush=True)
"""


@pytest.mark.matrix
def test_eight_processes_that_watch_share_looks_and_agree_in_the_end(cache: Path, registry: Registry):
    location = registry.backend.location
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, location, "0.5"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "LLMARTIFACTS_CACHE": str(cache)},
        )
        for _ in range(8)
    ]
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "started\n"
        registry.promote(["agent:v2", "kb:v2"], to="prod", reason="second")
        time.sleep(4)
        said = [worker.communicate("\n", timeout=60)[0].split() for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert {line[2] for line in said} == {"READY"}
    assert {line[3] for line in said} == {Resolver(BOTH, registry=la.connect(location)).start().stamp()}
    assert sum(int(line[1]) for line in said) > 0
