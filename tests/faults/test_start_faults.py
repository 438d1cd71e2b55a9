"""A service starts, or follows, while something around it fails: inside its time, and never with a wrong answer.

`service` is a real server behind a reverse proxy that fails as a test says. Times are never compared tightly: a start
that has a budget must have ended by the budget and a generous slack.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts.errors import (
    BlobMissing,
    DeadlineExceeded,
    DigestMismatch,
    LlmartifactsError,
    NotAllowed,
    NotFound,
    ResolutionError,
    Unreachable,
    Yanked,
)
from llmartifacts.runtime import known_good
from llmartifacts.runtime import lockfile as lockfiles
from llmartifacts.runtime.resolver import Resolver
from llmartifacts.runtime.state import State

Service = Any

BOTH = {"agent": "agent:prod", "kb": "kb:prod"}
SLACK = 30.0
BUDGET = 4.0
SHORT = 1.5
"""Of a start that is to end without success: it waits until then."""
DAY = 24 * 3600.0


def resolver(service: Service, wanted: Any = None, **how: Any) -> Resolver[Any]:
    return Resolver(wanted or BOTH, registry=service.url, **{"startup_timeout": 20.0, **how})


def is_served(generation: Any, agent: int, kb: int) -> bool:
    assert {name: c.number for name, c in generation.lock.components.items()} == {"agent": agent, "kb": kb}
    for name, number in (("agent", agent), ("kb", kb)):
        assert generation.value[name].read(f"{name}.txt").startswith(f"{name} {number} of ".encode())
    return True


def eventually(true: Callable[[], bool]) -> None:
    until = time.monotonic() + SLACK
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent registry is given up sooner than after 3 s."""
    monkeypatch.setattr("llmartifacts.runtime.start.SILENCE", 0.5)


# --- the registry fails

Fault = Callable[[socket.socket, threading.Event], None]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n"


def hangs_after_accept(sock: socket.socket, ended: threading.Event) -> None:
    ended.wait(60)


def hangs_after_the_head(sock: socket.socket, ended: threading.Event) -> None:
    sock.sendall(HEAD)
    ended.wait(60)


def one_byte_a_second(sock: socket.socket, ended: threading.Event) -> None:
    sock.sendall(HEAD)
    while not ended.wait(1.0):
        sock.sendall(b" ")


def reset_in_the_body(sock: socket.socket, ended: threading.Event) -> None:
    sock.sendall(HEAD + b'{"project"')
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def closed_in_the_body(sock: socket.socket, ended: threading.Event) -> None:
    sock.sendall(HEAD + b'{"project"')
    sock.shutdown(socket.SHUT_RDWR)


def closed_at_once(sock: socket.socket, ended: threading.Event) -> None:
    sock.shutdown(socket.SHUT_RDWR)


def noise(sock: socket.socket, ended: threading.Event) -> None:
    sock.sendall(bytes(range(256)) * 40)


FAULTS: dict[str, Fault | int] = {
    "503": 503,
    "500": 500,
    **{
        fault.__name__: fault
        for fault in (
            hangs_after_accept,
            hangs_after_the_head,
            one_byte_a_second,
            reset_in_the_body,
            closed_in_the_body,
            closed_at_once,
            noise,
        )
    },
}


def fail(service: Service, name: str, where: Callable[[str], bool] = lambda path: True) -> None:
    """From now on the registry fails like that."""
    fault, between = FAULTS.get(name, 0), service.between
    if name == "refused port":
        between.close()
        return
    made = between.instead(fault) if isinstance(fault, int) else between.instead(200, fault)
    between.answers = lambda method, path: made if where(path) else None


def is_bytes(path: str) -> bool:
    return "/blobs/" in path


@pytest.fixture
def packaged(service: Service, tmp_path: Path) -> Path:
    """A folder as goes into an image, of the first versions."""
    with la.connect(service.url) as registry:
        lock = lockfiles.lock(BOTH, registry=registry)
        lockfiles.install(lock, registry, directory=tmp_path / "image")
    lockfiles.write(lock, tmp_path / "image" / "llmartifacts.lock")
    return tmp_path / "image"


ALL = ["refused port", *FAULTS]
NAMED = ("refused port", "503", "hangs_after_accept", "one_byte_a_second")
EACH = [name if name in NAMED else pytest.param(name, marks=pytest.mark.matrix) for name in ALL]


@pytest.mark.slow
@pytest.mark.parametrize("fault", EACH)
def test_with_nothing_else_it_ends_in_time_with_one_error_that_names_all(fault: str, service: Service) -> None:
    fail(service, fault)
    begun = time.monotonic()
    with pytest.raises(ResolutionError) as caught:
        resolver(service, startup_timeout=SHORT).start()
    assert time.monotonic() - begun < SHORT + SLACK
    assert list(caught.value.failures) == ["agent", "kb"]
    for error in caught.value.failures.values():
        assert isinstance(error, Unreachable | DeadlineExceeded) or error.code in ("unreachable", "unavailable"), error
    assert "agent" in str(caught.value)
    assert "kb" in str(caught.value)


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("fault", EACH)
def test_with_a_last_known_good_set_it_starts_from_that(fault: str, service: Service) -> None:
    resolver(service).start()
    fail(service, fault)
    begun = time.monotonic()
    again = resolver(service, startup_timeout=2 * BUDGET)
    assert is_served(again.start(), 1, 1)
    assert time.monotonic() - begun < 2 * BUDGET + SLACK
    assert again.current.source == "last-known-good"
    assert (again.state, again.status().ready) == (State.STALE, True)
    assert again.status().reason


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("fault", EACH)
def test_with_a_packaged_set_only_it_starts_from_that(fault: str, service: Service, packaged: Path) -> None:
    service.promote(2)
    fail(service, fault)
    begun = time.monotonic()
    again = resolver(service, startup_timeout=2 * BUDGET, fallback=packaged)
    assert is_served(again.start(), 1, 1)
    assert time.monotonic() - begun < 2 * BUDGET + SLACK
    assert again.current.source == "fallback"
    assert (again.state, again.status().ready) == (State.STALE, True)


@pytest.mark.matrix
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_registry_that_fails_while_bytes_are_fetched_gives_way_too(fault: str, service: Service) -> None:
    resolver(service).start()
    service.promote(2)
    fail(service, fault, is_bytes)
    again = resolver(service, startup_timeout=2 * BUDGET)
    assert is_served(again.start(), 1, 1)
    assert again.current.source == "last-known-good"
    assert again.state is State.STALE
    service.between.answers = None
    assert again.refresh() is True
    assert is_served(again.current, 2, 2)
    assert again.state is State.READY
    again.close()


@pytest.mark.usefixtures("impatient")
def test_what_neither_registry_nor_disk_can_give_is_one_error_with_both_reasons(
    service: Service, packaged: Path
) -> None:
    resolver(service).start()
    for place in (service.cache, packaged):
        for file in (place / "sha256").rglob("*"):
            if file.is_file() and len(file.name) == 64:
                file.chmod(0o644)
                file.write_bytes(b"?" * file.stat().st_size)
    fail(service, "refused port")
    with pytest.raises(ResolutionError) as caught:
        resolver(service, startup_timeout=BUDGET, fallback=packaged).start()
    assert list(caught.value.failures) == ["agent", "kb"]
    assert all(isinstance(error, DigestMismatch) for error in caught.value.failures.values())
    assert "cannot be had" in str(caught.value) or "cannot stand in" in str(caught.value)


@pytest.mark.matrix
@pytest.mark.parametrize("fault", ALL)
def test_while_watching_what_is_served_stays_and_it_is_said(fault: str, service: Service) -> None:
    with resolver(service, startup_timeout=BUDGET) as watched:
        before = watched.current
        fail(service, fault)
        with pytest.raises(LlmartifactsError):
            watched.refresh(timeout=2.0)
        assert watched.current is before
        assert watched.status().ready
        if fault != "refused port":
            service.between.answers = None
            watched.watch(interval=0.05)
            eventually(lambda: watched.state is State.READY)


# --- the disk fails


def mounted(place: Path, *options: str) -> None:
    done = subprocess.run(["mount", *options, str(place)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"MOUNTING IS NOT ALLOWED here, so no disk is filled: {done.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache on a disk of 1 MiB."""
    if os.geteuid():
        pytest.skip("ONLY ROOT MAY MOUNT, so no disk is filled")
    place = tmp_path / "small"
    place.mkdir()
    mounted(place, "-t", "tmpfs", "-o", "size=1m", "none")
    monkeypatch.setenv("LLMARTIFACTS_CACHE", str(place / "cache"))
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], capture_output=True, check=False)


def fill(disk: Path) -> Path:
    """Leave not one block."""
    rest = disk / "rest"
    with contextlib.suppress(OSError), open(rest, "wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    return rest


def large(service: Service, number: int, size: int = 400_000) -> None:
    service.registry.log("kb", la.Files({"kb.txt": f"kb {number} of large ".encode() + os.urandom(size)}))


def halves(folder: Path) -> list[Path]:
    return [
        p for p in folder.rglob("*") if p.is_file() and p.name.endswith((".part", ".lock")) and "looks" not in p.parts
    ]


def test_a_disk_that_is_full_under_an_empty_cache_is_a_typed_error(service: Service, small_disk: Path) -> None:
    rest = fill(small_disk)
    with pytest.raises(ResolutionError) as caught:
        resolver(service).start()
    assert caught.value.failures
    for error in caught.value.failures.values():
        assert isinstance(error, NotAllowed)
        assert "full" in error.message
    rest.unlink()
    assert is_served(resolver(service).start(), 1, 1)
    assert not halves(small_disk)


def test_a_disk_that_fills_up_while_a_newer_set_is_fetched_leaves_the_known_one(
    service: Service, small_disk: Path
) -> None:
    resolver(service).start()
    large(service, 4, 2_000_000)
    service.registry.promote("kb:v4", to="prod", reason="does not fit on the disk")
    again = resolver(service)
    assert is_served(again.start(), 1, 1)
    assert again.current.source == "last-known-good"
    assert again.state is State.STALE
    assert "full" in again.status().reason
    assert not halves(small_disk)


def test_a_disk_that_fills_up_while_watched_keeps_the_generation_until_there_is_room(
    service: Service, small_disk: Path
) -> None:
    with resolver(service) as watched:
        before = watched.current
        large(service, 4)
        service.registry.promote("kb:v4", to="prod", reason="more")
        rest = fill(small_disk)
        with pytest.raises(LlmartifactsError, match="full"):
            watched.refresh()
        assert watched.current is before
        assert (watched.state, watched.status().ready) == (State.STALE, True)
        assert "full" in watched.status().reason
        rest.unlink()
        service.promote(2, "agent")
        assert watched.refresh() is True
        assert watched.current.lock.components["kb"].number == 4
        assert watched.state is State.READY


def test_with_all_at_hand_a_full_disk_keeps_nothing_from_starting(service: Service, small_disk: Path) -> None:
    resolver(service).start()
    fill(small_disk)
    again = resolver(service)
    assert is_served(again.start(), 1, 1)
    assert again.current.source == "registry"
    assert again.state is State.READY


def test_a_cache_that_is_mounted_read_only_serves_what_it_has(service: Service, small_disk: Path) -> None:
    resolver(service).start()
    before = sorted(small_disk.rglob("*"))
    mounted(small_disk, "-o", "remount,ro")
    with resolver(service) as watched:
        assert is_served(watched.current, 1, 1)
        assert watched.state is State.READY
        service.promote(2)
        assert watched.refresh() is True
        assert is_served(watched.current, 2, 2)
    assert sorted(small_disk.rglob("*")) == before
    fail(service, "refused port")
    assert is_served(resolver(service).start(), 1, 1), "what was kept when it could be written"


def test_an_empty_cache_that_is_mounted_read_only_starts_from_the_registry(service: Service, small_disk: Path) -> None:
    mounted(small_disk, "-o", "remount,ro")
    generation = resolver(service).start()
    assert is_served(generation, 1, 1)
    assert generation.source == "registry"
    assert list(small_disk.iterdir()) == []


def test_a_disk_that_fails_to_read_is_a_typed_error_and_fetched_anew(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver(service).start()
    digest = service.registry.find("kb:v1").manifest.files[0].digest[7:]
    real, bad = os.open, [True]

    def failing(path: Any, *rest: Any, **named: Any) -> int:
        if bad and str(path).endswith(digest):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return real(path, *rest, **named)

    monkeypatch.setattr(os, "open", failing)
    generation = resolver(service, startup_timeout=BUDGET).start()
    with pytest.raises(DigestMismatch):
        generation.value["kb"].read("kb.txt")
    bad.clear()
    assert is_served(generation, 1, 1), "it was fetched anew"


# --- the clock is wrong


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the date of this process wrong by some seconds; the monotonic clock goes on, as a kernel's does."""
    real, real_ns = time.time, time.time_ns

    def shift(seconds: float) -> None:
        class Shifted(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> Any:
                return datetime.fromtimestamp(real(), UTC).astimezone(tz) + timedelta(seconds=seconds)

        monkeypatch.setattr(time, "time", lambda: real() + seconds)
        monkeypatch.setattr(time, "time_ns", lambda: real_ns() + int(seconds * 1e9))
        monkeypatch.setattr(known_good, "datetime", Shifted)

    return shift


@pytest.mark.parametrize("off", [DAY, -DAY], ids=["ahead", "behind"])
def test_a_clock_that_is_a_day_off_changes_nothing_of_what_is_served(
    off: float, service: Service, clock: Callable[[float], None]
) -> None:
    resolver(service).start()
    clock(off)
    with resolver(service, max_stale=3600.0) as watched:
        assert is_served(watched.current, 1, 1)
        assert watched.state is State.READY
        age = watched.status().age
        assert age is not None
        assert 0 <= age < 3600
        service.promote(2)
        assert watched.refresh() is True
        assert is_served(watched.current, 2, 2)
        clock(0)
        service.promote(3)
        assert watched.refresh() is True
        assert is_served(watched.current, 3, 3)
        age = watched.status().age
        assert age is not None
        assert 0 <= age < 3600


@pytest.mark.parametrize("off", [DAY, -DAY], ids=["ahead", "behind"])
def test_a_clock_that_jumps_a_day_while_watched_makes_nothing_old_and_nothing_young(
    off: float, service: Service, clock: Callable[[float], None]
) -> None:
    with resolver(service, max_stale=3600.0) as watched:
        clock(off)
        assert watched.state is State.READY
        assert watched.refresh() is False
        assert watched.state is State.READY


@pytest.mark.parametrize("off", [DAY, -DAY], ids=["ahead", "behind"])
def test_a_known_set_whose_age_a_wrong_clock_hides_counts_as_old(
    off: float, service: Service, clock: Callable[[float], None]
) -> None:
    resolver(service).start()
    fail(service, "refused port")
    clock(off)
    with pytest.raises(ResolutionError, match="max_stale"):
        resolver(service, max_stale=3600.0, startup_timeout=SHORT).start()
    generation = resolver(service, startup_timeout=BUDGET).start()
    assert is_served(generation, 1, 1), "without a limit of age, its age does not matter"


# --- a lockfile edited by hand


def edited(service: Service, place: Path, edit: Callable[[dict[str, Any]], None]) -> Path:
    with la.connect(service.url) as registry:
        body = json.loads(lockfiles.lock(BOTH, registry=registry).to_text())
    edit(body)
    file = place / "llmartifacts.lock"
    file.write_text(json.dumps(body))
    return file


def _set(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def edit(body: dict[str, Any]) -> None:
        body["components"]["kb"][name] = value

    return edit


EDITS: dict[str, Callable[[dict[str, Any]], None]] = {
    "another digest": _set("digest", "sha256:" + "0" * 64),
    "another kind": _set("kind", "prompt"),
    "another size": _set("size", 1),
    "another alias": _set("reference", "kb:staging"),
    "another collection": _set("reference", "agent:prod"),
    "another version": _set("version", "v2"),
    "another move": _set("move", 2),
    "another revision": lambda body: body.update(revision=1000),
    "another project": lambda body: body.update(project="elsewhere"),
    "a component less": lambda body: body["components"].pop("kb"),
    "a component more": lambda body: body["components"].update(more=body["components"]["kb"]),
}


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("edit", EDITS)
def test_a_lockfile_edited_by_hand_starts_nothing(edit: str, frozen: bool, service: Service, tmp_path: Path) -> None:
    resolver(service).start()
    file = edited(service, tmp_path, EDITS[edit])
    with pytest.raises(ResolutionError) as caught:
        resolver(service, lockfile=file, frozen=frozen).start()
    assert caught.value.failures
    told = str(caught.value)
    assert "kb" in told or "lockfile" in told


def test_a_lockfile_whose_version_was_edited_is_found_out_by_the_registry(service: Service, tmp_path: Path) -> None:
    def edit(body: dict[str, Any]) -> None:
        body["components"]["kb"]["version"] = "v3"
        del body["check"]

    file = edited(service, tmp_path, edit)
    with pytest.raises(ResolutionError) as caught:
        resolver(service, lockfile=file).start()
    assert list(caught.value.failures) == ["kb"]


@pytest.mark.parametrize("text", ["", "{", "null", "\x00", "<<<<<<< ours\n"])
def test_a_lockfile_that_is_none_any_more_starts_nothing(text: str, service: Service, tmp_path: Path) -> None:
    (tmp_path / "llmartifacts.lock").write_text(text)
    with pytest.raises(ResolutionError) as caught:
        resolver(service, lockfile=tmp_path / "llmartifacts.lock", frozen=True).start()
    assert list(caught.value.failures) == ["agent", "kb"]


# --- what a service follows changes under it


def remove_alias(service: Service, reference: str) -> None:
    asked = la.Reference.parse(reference)
    service.registry.backend.remove_alias(service.project, asked, reason="gone", actor="tester")


@pytest.mark.parametrize(("choice", "state", "ready"), [("keep", State.STALE, True), ("fail", State.ERROR, False)])
def test_an_alias_that_vanished_is_kept_or_fails_as_was_chosen_and_is_said(
    choice: Any, state: State, ready: bool, service: Service
) -> None:
    with resolver(service, on_missing_alias=choice) as watched:
        before = watched.current
        remove_alias(service, "kb:prod")
        with pytest.raises(LlmartifactsError) as caught:
            watched.refresh()
        assert "kb" in str(caught.value)
        assert watched.current is before
        status = watched.status()
        assert (status.state, status.ready, status.code) == (state, ready, "alias-missing")
        assert "kb" in status.reason
        service.promote(2, "kb")
        assert watched.refresh() is True
        assert is_served(watched.current, 1, 2)
        assert watched.state is State.READY


def test_a_start_from_an_alias_that_vanished_is_an_error_whatever_is_kept_here(
    service: Service, packaged: Path
) -> None:
    resolver(service).start()
    remove_alias(service, "kb:prod")
    with pytest.raises(ResolutionError) as caught:
        resolver(service, fallback=packaged, on_missing_alias="keep").start()
    assert list(caught.value.failures) == ["kb"]
    assert isinstance(caught.value.failures["kb"], NotFound)


def test_a_version_withdrawn_while_it_is_served_by_number_is_said(service: Service) -> None:
    with resolver(service, {"kb": "kb:v2", "agent": "agent:prod"}) as watched:
        before = watched.current
        service.registry.yank("kb:v2", reason="wrong corpus")
        with pytest.raises(ResolutionError) as caught:
            watched.refresh()
        assert isinstance(caught.value.failures["kb"], Yanked)
        assert watched.current is before, "requests go on being answered"
        assert watched.state in (State.STALE, State.ERROR)
        assert "wrong corpus" in watched.status().reason
    with pytest.raises(ResolutionError):
        resolver(service, {"kb": "kb:v2", "agent": "agent:prod"}).start()


def test_a_version_withdrawn_while_it_is_served_by_digest_is_in_the_stamp(service: Service) -> None:
    digest = service.registry.get("kb:v2").digest
    with resolver(service, {"kb": f"kb@{digest}"}) as watched:
        assert "yanked" not in watched.current.stamp()
        service.registry.yank("kb:v2", reason="wrong corpus")
        watched.refresh()
        assert "yanked.kb" in watched.current.stamp()
        assert watched.current.value["kb"].read("kb.txt").startswith(b"kb 2")


def test_two_components_that_do_not_fit_are_not_swapped_in(service: Service) -> None:
    service.registry.log("stack", la.Bundle(components={"kb": "kb:v1"}), aliases="prod")
    with resolver(service, {"stack": "stack:prod", "kb": "kb:prod"}) as watched:
        before = watched.current
        service.promote(2, "kb")
        with pytest.raises(ResolutionError, match="another version of kb"):
            watched.refresh()
        assert watched.current is before
        status = watched.status()
        assert (status.state, status.ready, status.code) == (State.STALE, True, "newer-set-refused")
        assert "another version of kb" in status.reason
        service.registry.log("stack", la.Bundle(components={"kb": "kb:v2"}), aliases="prod")
        assert watched.refresh() is True
        assert watched.current.lock.components["kb"].number == 2
        assert watched.state is State.READY


def test_two_components_that_do_not_fit_start_the_known_set_or_nothing(service: Service, tmp_path: Path) -> None:
    service.registry.log("stack", la.Bundle(components={"kb": "kb:v1"}), aliases="prod")
    wanted = {"stack": "stack:prod", "kb": "kb:prod"}
    resolver(service, wanted).start()
    service.promote(2, "kb")
    again = resolver(service, wanted)
    assert again.start().lock.components["kb"].number == 1
    assert (again.state, again.status().code) == (State.STALE, "newer-set-refused")
    os.rename(service.cache, tmp_path / "moved")
    with pytest.raises(ResolutionError) as caught:
        resolver(service, wanted).start()
    assert set(caught.value.failures) == {"stack", "kb"}


def test_bytes_that_the_registry_lost_are_a_typed_error_and_keep_what_is_served(service: Service) -> None:
    with resolver(service) as watched:
        before = watched.current
        service.promote(2)
        service.between.answers = lambda method, path: service.between.instead(404) if is_bytes(path) else None
        with pytest.raises(ResolutionError) as caught:
            watched.refresh()
        assert all(isinstance(error, BlobMissing | Unreachable) for error in caught.value.failures.values())
        assert watched.current is before
        assert watched.state is State.STALE
