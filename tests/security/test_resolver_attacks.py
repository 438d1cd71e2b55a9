"""What TUF lists as attacks on whoever follows a registry, each by its name, through something hostile in between.

`service` is a real server behind a reverse proxy that changes, keeps or withholds what passes. It claims to answer the
very request that it answers unless a test says otherwise, and knows every entity tag.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import pytest

import llmartifacts as la
from llmartifacts.errors import (
    DeadlineExceeded,
    DigestMismatch,
    LlmartifactsError,
    NotFound,
    ResolutionError,
    TooLarge,
    Unreachable,
    WrongKind,
)
from llmartifacts.runtime import lockfile as lockfiles
from llmartifacts.runtime.resolver import Resolver
from llmartifacts.runtime.state import State
from llmartifacts.wire.bodies.reading import etag

Service = Any
Reply = Any

BOTH = {"agent": "agent:prod", "kb": "kb:prod"}
SOON = 30.0
"""Seconds after which something that happens by itself is taken for lost."""


def resolver(service: Service, **how: Any) -> Resolver[Any]:
    return Resolver(BOTH, registry=service.url, **{"startup_timeout": 20.0, **how})


def numbers(generation: Any) -> dict[str, int]:
    return {name: locked.number for name, locked in generation.lock.components.items()}


def served(generation: Any) -> dict[str, str]:
    """What the bytes themselves say they are."""
    return {name: value.read(f"{name}.txt").decode().split(" of ")[0] for name, value in generation.value.items()}


def is_served(generation: Any, agent: int, kb: int) -> bool:
    assert numbers(generation) == {"agent": agent, "kb": kb}
    assert served(generation) == {"agent": f"agent {agent}", "kb": f"kb {kb}"}
    return True


def eventually(true: Callable[[], bool]) -> None:
    until = time.monotonic() + SOON
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)


def is_read(path: str) -> bool:
    return "/read?" in path


def truth(service: Service) -> Reply:
    """The whole answer of the server to the service's question, as it is now."""
    service.between.twist = None
    with la.connect(service.url) as registry:
        registry.backend.read(service.project, [la.Reference.parse(text) for text in BOTH.values()])
    return service.between.reads()[-1].reply


def answering(reply: Reply) -> Callable[[str, str, Reply], Reply]:
    """Gives that answer to every question for references."""
    return lambda method, path, there: reply if is_read(path) else there


def forged(reply: Reply, change: Callable[[dict[str, Any]], None]) -> Reply:
    """An answer with another body, whose tag is right."""
    told = json.loads(reply.body)
    change(told)
    body = json.dumps(told, separators=(",", ":"), ensure_ascii=False).encode()
    return replace(reply, body=body, headers={**reply.headers, "etag": etag(body, told["revision"])})


def failures(caught: pytest.ExceptionInfo[ResolutionError]) -> dict[str, type[LlmartifactsError]]:
    return {name: type(error) for name, error in caught.value.failures.items()}


# --- rollback: an older state is played, to bring back what was withdrawn


def test_rollback_at_start_the_older_state_is_not_served_where_a_newer_one_is_known(service: Service) -> None:
    old = truth(service)
    service.promote(2)
    assert is_served(resolver(service).start(), 2, 2)
    service.between.twist = answering(old)
    again = resolver(service)
    generation = again.start()
    assert is_served(generation, 2, 2)
    assert generation.source == "last-known-good"
    assert (again.state, again.status().code) == (State.STALE, "revision-went-back")
    assert "older copy" in again.status().reason
    assert "revision-went-back" in generation.stamp()


def test_rollback_at_start_is_an_error_where_the_newer_state_cannot_be_served(service: Service) -> None:
    old = truth(service)
    service.promote(2)
    resolver(service).start()
    shutil.rmtree(service.cache / "sha256")
    service.between.twist = answering(old)
    with pytest.raises(ResolutionError, match="older copy"):
        resolver(service).start()


def test_rollback_while_watching_keeps_the_generation_and_says_so(service: Service) -> None:
    old = truth(service)
    service.promote(2)
    watched = resolver(service)
    with watched:
        before = watched.current
        service.between.twist = answering(old)
        with pytest.raises(LlmartifactsError, match="older copy"):
            watched.refresh()
        assert watched.current is before
        assert (watched.state, watched.status().code) == (State.STALE, "revision-went-back")
        service.between.twist = None
        assert watched.refresh() is False
        assert watched.state is State.READY
        assert is_served(watched.current, 2, 2)


def test_rollback_is_found_by_the_watch_itself(service: Service) -> None:
    old = truth(service)
    service.promote(2)
    with resolver(service) as watched:
        watched.watch(interval=0.05)
        service.between.twist = answering(old)
        eventually(lambda: watched.status().code == "revision-went-back")
        assert is_served(watched.current, 2, 2)
        service.between.twist = None
        eventually(lambda: watched.state is State.READY)


def test_rollback_is_remembered_by_other_processes_and_later_starts(service: Service) -> None:
    old = truth(service)
    with resolver(service) as watched:
        service.promote(2)
        watched.refresh()
    service.between.twist = answering(old)
    assert is_served(resolver(service).start(), 2, 2)


# --- freeze: what was once true is repeated for ever


class Freezing:
    """Keeps the first answer to each address, and gives it to everybody from then on."""

    def __init__(self, service: Service) -> None:
        self._kept: dict[str, Reply] = {}
        service.between.twist = self
        service.between.echo = False
        self.service = service

    def __call__(self, method: str, path: str, there: Reply) -> Reply:
        return self._kept.setdefault(path, there) if is_read(path) else there


def test_freeze_by_something_that_keeps_answers_confirms_nothing(service: Service) -> None:
    Freezing(service)
    with resolver(service) as watched:
        assert is_served(watched.current, 1, 1)
        service.promote(2)
        with pytest.raises(Unreachable, match="cache in between"):
            watched.refresh()
        assert (watched.state, watched.status().code) == (State.STALE, "registry-unreachable")
        assert "another request" in watched.status().reason
        assert is_served(watched.current, 1, 1)
        service.between.twist = None
        assert watched.refresh() is True
        assert is_served(watched.current, 2, 2)
        assert watched.state is State.READY


def test_freeze_by_old_words_that_nothing_changed_confirms_nothing(service: Service) -> None:
    with resolver(service) as watched:
        watched.refresh()
        said = service.between.reads()[-1].reply
        assert said.status == 304
        service.promote(2)
        service.between.echo = False
        service.between.twist = answering(said)
        with pytest.raises(Unreachable, match="cache in between"):
            watched.refresh()
        assert watched.state is State.STALE


def test_freeze_turns_readiness_red_once_it_lasts_longer_than_is_allowed(service: Service) -> None:
    with resolver(service, max_stale=1.0) as watched:
        Freezing(service)._kept.update({service.between.reads()[-1].path: service.between.reads()[-1].reply})
        watched.watch(interval=0.05)
        eventually(lambda: watched.state is State.ERROR)
        status = watched.status()
        assert (status.code, status.ready) == ("too-old", False)
        assert is_served(watched.current, 1, 1), "and it serves on: who is red decides what to do"


def test_freeze_at_start_with_nothing_known_names_every_component(service: Service) -> None:
    old = truth(service)
    service.between.echo = False
    service.between.twist = answering(old)
    with pytest.raises(ResolutionError) as caught:
        resolver(service, startup_timeout=10.0).start()
    assert failures(caught) == {"agent": Unreachable, "kb": Unreachable}


def test_freeze_at_start_is_stale_where_a_set_is_known(service: Service) -> None:
    resolver(service).start()
    Freezing(service)._kept.update({service.between.reads()[-1].path: service.between.reads()[-1].reply})
    again = resolver(service)
    assert again.start().source == "last-known-good"
    assert again.state is State.STALE


# --- mix-and-match: parts that never belonged together


def test_mix_and_match_of_items_of_two_revisions_is_not_served(service: Service) -> None:
    old = json.loads(truth(service).body)
    service.promote(2)
    with resolver(service) as watched:
        assert is_served(watched.current, 2, 2)
        service.promote(3)

        def mix(told: dict[str, Any]) -> None:
            told["items"][1] = old["items"][1]

        service.between.twist = answering(forged(truth(service), mix))
        with pytest.raises(LlmartifactsError):
            watched.refresh()
        assert is_served(watched.current, 2, 2)
        assert watched.status().code == "revision-went-back"
    again = resolver(service)
    assert is_served(again.start(), 2, 2)
    assert again.state is State.STALE


def test_mix_and_match_of_another_version_under_a_moves_own_number_is_not_served(service: Service) -> None:
    with resolver(service) as watched:
        service.promote(2, "kb")
        newer = json.loads(truth(service).body)

        def mix(told: dict[str, Any]) -> None:
            told["items"][1] = {**newer["items"][1], "move": told["items"][1]["move"] - 1}

        service.between.twist = answering(forged(truth(service), mix))
        with pytest.raises(LlmartifactsError):
            watched.refresh()
        assert is_served(watched.current, 1, 1)


def test_mix_and_match_of_a_manifest_of_another_version_is_found_out(service: Service) -> None:
    service.promote(2)
    newer = json.loads(truth(service).body)
    service.registry.rollback("kb:prod", whole=True, reason="worse")

    def mix(told: dict[str, Any]) -> None:
        told["items"][1]["manifest"] = newer["items"][1]["manifest"]

    service.between.twist = answering(forged(truth(service), mix))
    with pytest.raises(ResolutionError) as caught:
        resolver(service).start()
    assert failures(caught) == {"kb": DigestMismatch}
    service.between.twist = None
    assert is_served(resolver(service).start(), 1, 1)


def test_mix_and_match_of_a_large_manifest_of_another_version_is_found_out(service: Service) -> None:
    for number in (1, 2):
        many = {f"{n:05}-{'x' * 60}.txt": b"%d" % number for n in range(600)}
        service.registry.log("many", la.Files(many))
    service.registry.promote("many:v1", to="prod", reason="first")
    other = service.registry.get("many:v2").digest

    def twist(method: str, path: str, there: Reply) -> Reply:
        return service.between._fetch("GET", f"/api/v1/manifests/{other}", {}, b"") if "/manifests/" in path else there

    service.between.twist = twist
    with pytest.raises(ResolutionError) as caught:
        Resolver({"many": "many:prod"}, registry=service.url).start()
    assert failures(caught) == {"many": DigestMismatch}


def test_mix_and_match_of_a_part_of_another_set_is_found_out(service: Service) -> None:
    for number in (1, 2):
        parts = {"agent": f"agent:v{number}", "kb": f"kb:v{number}"}
        service.registry.log("stack", la.Bundle(components=parts))
    service.registry.promote("stack:v1", to="prod", reason="first")
    mine, other = (service.registry.find(f"kb:v{number}").manifest for number in (1, 2))

    def twist(method: str, path: str, there: Reply) -> Reply:
        if not path.endswith("/manifests"):
            return there
        told = json.loads(there.body)
        for item in told["manifests"]:
            if item["digest"] == mine.digest:
                item["manifest"] = json.loads(other.to_bytes())
        return replace(there, body=json.dumps(told).encode())

    service.between.twist = twist
    with pytest.raises(ResolutionError) as caught:
        Resolver({"stack": "stack:prod"}, registry=service.url).start()
    assert failures(caught) == {"stack": DigestMismatch}


def test_mix_and_match_inside_a_bundle_is_found_out(service: Service) -> None:
    for number in (1, 2):
        service.registry.log("stack", la.Bundle(components={"kb": f"kb:v{number}"}))
    service.registry.promote("stack:v1", to="prod", reason="first")
    wanted = {"stack": "stack:prod"}
    swapped = service.registry.get("kb:v2").digest

    def twist(method: str, path: str, there: Reply) -> Reply:
        if not is_read(path) or there.status != 200:
            return there

        def mix(told: dict[str, Any]) -> None:
            told["items"][0]["manifest"]["components"][0]["digest"] = swapped

        return forged(there, mix)

    service.between.twist = twist
    with pytest.raises(ResolutionError) as caught:
        Resolver(wanted, registry=service.url).start()
    assert failures(caught) == {"stack": DigestMismatch}


# --- wrong artifact: another thing than was asked for


def test_wrong_artifact_of_another_kind_is_refused_before_a_byte_of_it_is_fetched(service: Service) -> None:
    prompt = la.Prompt("Hi {{ x }}", template_format="jinja2")
    service.registry.log("words", prompt, aliases="prod")
    with la.connect(service.url) as registry:
        registry.backend.read(service.project, [la.Reference.parse("words:prod")])
    item = json.loads(service.between.reads()[-1].reply.body)["items"][0]

    def mix(told: dict[str, Any]) -> None:
        told["items"][1] = {**item, "version": {**item["version"], "name": "kb"}}

    service.between.twist = answering(forged(truth(service), mix))
    service.between.asked.clear()

    @dataclass(frozen=True)
    class Support:
        agent: Annotated[la.Files, "agent:prod"]
        kb: Annotated[la.Files, "kb:prod"]

    with pytest.raises(ResolutionError) as caught:
        Resolver(Support, registry=service.url).start()
    assert failures(caught) == {"kb": WrongKind}
    assert not [one for one in service.between.asked if "/blobs/" in one.path]


@pytest.mark.parametrize("lie", ["collection", "project", "exchanged"])
def test_wrong_artifact_of_another_collection_is_refused(lie: str, service: Service) -> None:
    def mix(told: dict[str, Any]) -> None:
        if lie == "collection":
            told["items"][1] = told["items"][0]
        elif lie == "project":
            told["items"][1]["version"]["project"] = "another"
        else:
            told["items"].reverse()

    service.between.twist = answering(forged(truth(service), mix))
    with pytest.raises(ResolutionError) as caught:
        resolver(service).start()
    assert failures(caught)["kb"] is DigestMismatch
    assert not (service.cache / "known-good").exists()


def test_wrong_artifact_with_another_digest_than_a_lockfile_has_is_refused(service: Service, tmp_path: Path) -> None:
    with la.connect(service.url) as registry:
        lockfiles.write(lockfiles.lock(BOTH, registry=registry), tmp_path / "llmartifacts.lock")
    service.promote(2)
    with la.connect(service.url) as registry:
        asked = [la.Reference.parse(f"{name}:v2") for name in BOTH]
        registry.backend.read(service.project, asked)
    other = service.between.reads()[-1].reply
    service.between.twist = answering(other)
    with pytest.raises(ResolutionError) as caught:
        resolver(service, lockfile=tmp_path / "llmartifacts.lock").start()
    assert set(failures(caught).values()) <= {DigestMismatch, la.errors.BlobMissing}


@pytest.mark.parametrize("how", ["another blob", "one bit", "cut", "longer", "nothing"])
def test_wrong_artifact_of_other_bytes_is_refused_and_leaves_nothing_behind(how: str, service: Service) -> None:
    mine = service.registry.find("kb:v1").manifest.files[0].digest
    other = service.registry.find("kb:v2").manifest.files[0].digest

    def twist(method: str, path: str, there: Reply) -> Reply:
        if mine.replace(":", "%3A") not in path:
            return there
        body = bytearray(there.body)
        if how == "another blob":
            return service.between._fetch("GET", f"/api/v1/blobs/{other}", {"accept": "*/*"}, b"")
        if how == "one bit":
            body[len(body) // 2] ^= 1
        return replace(there, body={"cut": body[:-1], "longer": body + b"!", "nothing": b""}.get(how, bytes(body)))

    service.between.twist = twist
    with pytest.raises(ResolutionError) as caught:
        resolver(service, startup_timeout=10.0).start()
    assert list(caught.value.failures) == ["kb"]
    assert not list(service.cache.rglob(f"*{mine[7:]}*")), "neither the file nor a part of it"
    assert not (service.cache / "known-good").exists()
    service.between.twist = None
    assert is_served(resolver(service).start(), 1, 1)


# --- endless data: an answer that does not end

Raw = Callable[[socket.socket, threading.Event], None]


def _head(kind: str = "application/json", more: str = "", length: str = "Transfer-Encoding: chunked") -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{length}\r\n{more}\r\n".encode()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def endless(sock: socket.socket, ended: threading.Event) -> None:
    """As fast as it goes."""
    sock.sendall(_head())
    piece = _chunk(b" " * 65536)
    while not ended.is_set():
        sock.sendall(piece)


def endless_when_inflated(sock: socket.socket, ended: threading.Event) -> None:
    """A little that becomes much: 64 MiB of blanks for each 64 KiB."""
    sock.sendall(_head(more="Content-Encoding: gzip\r\n"))
    piece = gzip.compress(b" " * (64 << 20))
    while not ended.is_set():
        sock.sendall(_chunk(piece))


def trickling(sock: socket.socket, ended: threading.Event) -> None:
    """A byte, and after a while another one, for ever."""
    sock.sendall(_head())
    while not ended.wait(0.2):
        sock.sendall(_chunk(b" "))


def trickling_head(sock: socket.socket, ended: threading.Event) -> None:
    """A head that does not end."""
    sock.sendall(b"HTTP/1.1 200 OK\r\n")
    while not ended.wait(0.05):
        sock.sendall(b"X-More: and more\r\n")


def claiming_much(sock: socket.socket, ended: threading.Event) -> None:
    """A length that nobody has."""
    sock.sendall(_head(length=f"Content-Length: {10**15}"))
    while not ended.is_set():
        sock.sendall(b" " * 65536)


ENDLESS: list[Raw] = [endless, endless_when_inflated, trickling, trickling_head, claiming_much]


def endlessly(service: Service, raw: Raw, where: str) -> None:
    def answers(method: str, path: str) -> Reply | None:
        from_here = is_read(path) if where == "references" else "/blobs/" in path
        return service.between.instead(200, raw) if from_here else None

    service.between.answers = answers


@pytest.mark.slow
@pytest.mark.parametrize("where", ["references", "bytes"])
@pytest.mark.parametrize("raw", ENDLESS, ids=lambda raw: raw.__name__)
def test_endless_data_ends_with_a_typed_error_inside_the_budget(raw: Raw, where: str, service: Service) -> None:
    endlessly(service, raw, where)
    begun = time.monotonic()
    with pytest.raises(ResolutionError) as caught:
        resolver(service, startup_timeout=1.0).start()
    assert time.monotonic() - begun < 1.0 + SOON
    assert list(caught.value.failures) == ["agent", "kb"]
    assert set(failures(caught).values()) <= {
        TooLarge,
        DeadlineExceeded,
        Unreachable,
        DigestMismatch,
        la.errors.Damaged,
    }
    left = [file for file in service.cache.rglob("*") if file.is_file() and file.stat().st_size > 1 << 20]
    assert not left


@pytest.mark.slow
@pytest.mark.parametrize("where", ["references", "bytes"])
@pytest.mark.parametrize("raw", ENDLESS, ids=lambda raw: raw.__name__)
def test_endless_data_gives_way_to_what_is_known(
    raw: Raw, where: str, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmartifacts.runtime.start.SILENCE", 0.5)
    resolver(service).start()
    service.promote(2)
    endlessly(service, raw, where)
    again = resolver(service, startup_timeout=6.0)
    assert is_served(again.start(), 1, 1)
    assert again.current.source == "last-known-good"
    assert again.state is State.STALE


def test_endless_data_while_watching_keeps_the_generation_and_ends(service: Service) -> None:
    with resolver(service) as watched:
        service.promote(2)
        endlessly(service, trickling, "bytes")
        with pytest.raises(DeadlineExceeded):
            watched.refresh(timeout=1.0)
        assert is_served(watched.current, 1, 1)


# --- fast-forward, and the way back from it


def forward(service: Service, revision: int) -> None:
    def change(told: dict[str, Any]) -> None:
        told["revision"] = revision

    service.between.twist = answering(forged(truth(service), change))


FAR = 2**53 - 1


def test_fast_forward_is_recovered_from_where_an_operator_says_so(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward(service, FAR)
    assert resolver(service).start().revision == FAR
    service.between.twist = None
    service.promote(2)
    now = service.registry.backend.revision(service.project)
    stuck = resolver(service)
    assert is_served(stuck.start(), 1, 1)
    assert (stuck.state, stuck.status().code) == (State.STALE, "revision-went-back")
    assert f"LLMARTIFACTS_ACCEPT_REVISION={service.project}@r{now}" in _hint(stuck)
    monkeypatch.setenv("LLMARTIFACTS_ACCEPT_REVISION", f"{service.project}@r{now}")
    free = resolver(service)
    assert is_served(free.start(), 2, 2)
    assert free.state is State.READY
    assert [w.code for w in free.current.warnings] == ["revision-went-back"]
    monkeypatch.delenv("LLMARTIFACTS_ACCEPT_REVISION")
    after = resolver(service)
    assert is_served(after.start(), 2, 2), "the record was written anew: said once is enough"
    assert after.state is State.READY
    assert not after.current.warnings


def _hint(stuck: Any) -> str:
    with pytest.raises(LlmartifactsError) as caught:
        stuck.refresh()
    return str(caught.value.hint())


def test_fast_forward_is_recovered_from_while_watching(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    forward(service, FAR)
    with resolver(service) as watched:
        service.between.twist = None
        service.promote(2)
        with pytest.raises(LlmartifactsError, match="older copy"):
            watched.refresh()
        now = service.registry.backend.revision(service.project)
        monkeypatch.setenv("LLMARTIFACTS_ACCEPT_REVISION", f"{service.project}@r{now}")
        assert watched.refresh() is True
        assert is_served(watched.current, 2, 2)
        monkeypatch.delenv("LLMARTIFACTS_ACCEPT_REVISION")
        service.promote(3)
        assert watched.refresh() is True
        assert is_served(watched.current, 3, 3)


@pytest.mark.parametrize("said", ["other@r1", "{project}@r999999", "{project}", "@r1", "{project}@r-1", "*@r1", "r1"])
def test_fast_forward_recovery_takes_no_word_for_another_project_or_a_later_revision(
    said: str, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward(service, FAR)
    resolver(service).start()
    service.between.twist = None
    service.promote(2)
    monkeypatch.setenv("LLMARTIFACTS_ACCEPT_REVISION", said.format(project=service.project))
    again = resolver(service)
    assert is_served(again.start(), 1, 1)
    assert again.state is State.STALE


@pytest.mark.parametrize("revision", [2**53, 10**30, -1, 1.5, "9", None, True])
def test_fast_forward_beyond_every_number_is_no_answer(revision: Any, service: Service) -> None:
    def change(told: dict[str, Any]) -> None:
        told["revision"] = revision

    service.between.twist = answering(forged(truth(service), change))
    with pytest.raises(ResolutionError) as caught:
        resolver(service, startup_timeout=10.0).start()
    assert failures(caught) == {"agent": Unreachable, "kb": Unreachable}
    assert not (service.cache / "known-good").exists()


# --- tampered cache: what lies on this host's disk was altered


def blob_file(service: Service, reference: str = "kb:v1") -> Path:
    digest = service.registry.find(reference).manifest.files[0].digest[7:]
    return Path(service.cache / "sha256" / digest[:2] / digest)


def rewrite(file: Path, data: bytes) -> None:
    file.chmod(0o644)
    file.write_bytes(data)


def the_file(folder: Path) -> Path:
    (file,) = [file for file in folder.iterdir() if file.suffix == ".json"]
    return file


def gone(service: Service) -> None:
    """The registry cannot be had."""
    service.between.answers = lambda method, path: service.between.instead(500)


def test_tampered_cache_bytes_are_fetched_anew(service: Service) -> None:
    resolver(service).start()
    good = blob_file(service).read_bytes()
    rewrite(blob_file(service), good.replace(b"kb 1", b"kb 9"))
    assert is_served(resolver(service).start(), 1, 1)
    assert blob_file(service).read_bytes() == good


@pytest.mark.parametrize("plant", ["bytes", "other blob", "link", "folder", "pipe"])
def test_tampered_cache_bytes_are_never_served_with_the_registry_gone(
    plant: str, service: Service, tmp_path: Path
) -> None:
    resolver(service).start()
    file = blob_file(service)
    good = file.read_bytes()
    (tmp_path / "outside").write_bytes(good)
    if plant == "bytes":
        rewrite(file, good.replace(b"kb 1", b"kb 9"))
    elif plant == "other blob":
        rewrite(file, blob_file(service, "agent:v1").read_bytes())
    else:
        file.unlink()
        {"link": lambda: file.symlink_to(tmp_path / "outside"), "folder": file.mkdir, "pipe": lambda: os.mkfifo(file)}[
            plant
        ]()
    gone(service)
    with pytest.raises(ResolutionError) as caught:
        resolver(service, startup_timeout=10.0).start()
    assert issubclass(failures(caught)["kb"], la.errors.Damaged)
    assert str(file) in str(caught.value) or "sha256" in str(caught.value)


@pytest.mark.parametrize(("field", "digit"), [("version", b"1"), ("revision", b"1"), ("size", b"1"), ("move", b"1")])
def test_tampered_cache_record_with_one_digit_changed_is_not_believed(
    field: str, digit: bytes, service: Service
) -> None:
    resolver(service).start()
    gone(service)
    record = the_file(service.cache / "known-good")
    good = record.read_bytes()
    at = good.index(digit, good.index(b'"lock"') + good[good.index(b'"lock"') :].index(b'"%b"' % field.encode()))
    rewrite(record, good[:at] + b"3" + good[at + 1 :])
    with pytest.raises(ResolutionError):
        resolver(service, startup_timeout=10.0).start()
    rewrite(record, good)
    assert is_served(resolver(service).start(), 1, 1)


def test_tampered_cache_record_that_names_another_version_of_the_same_size_is_not_believed(service: Service) -> None:
    resolver(service).start()
    service.promote(2)
    resolver(service).start()
    gone(service)
    record = the_file(service.cache / "known-good")
    one, two = (service.registry.get(f"kb:v{number}").digest for number in (1, 2))
    rewrite(record, record.read_bytes().replace(two.encode(), one.encode()))
    with pytest.raises(ResolutionError):
        resolver(service, startup_timeout=10.0).start()


@pytest.mark.parametrize("folder", ["known-good", "answers", "looks"])
@pytest.mark.parametrize("plant", ["link", "pipe", "folder", "noise", "empty", "endless"])
def test_tampered_cache_records_do_no_harm_while_the_registry_is_there(
    plant: str, folder: str, service: Service, tmp_path: Path
) -> None:
    with resolver(service) as first:
        first.watch(interval=0.05)
        eventually(lambda: first.status().checks.unchanged > 0)
    file = the_file(service.cache / folder)
    outside = tmp_path / "outside"
    outside.write_bytes(file.read_bytes())
    before = outside.read_bytes()
    file.unlink()
    {
        "link": lambda: file.symlink_to(outside),
        "pipe": lambda: os.mkfifo(file),
        "folder": file.mkdir,
        "noise": lambda: file.write_bytes(bytes(range(256)) * 20),
        "empty": file.touch,
        "endless": lambda: os.truncate(os.open(file, os.O_RDWR | os.O_CREAT), 1 << 40),
    }[plant]()
    service.promote(2)
    with resolver(service) as again:
        assert is_served(again.current, 2, 2)
        assert again.state is State.READY
        again.watch(interval=0.05)
        service.promote(3)
        eventually(lambda: numbers(again.current) == {"agent": 3, "kb": 3})
    assert outside.read_bytes() == before, "nothing was written through a link"


def test_tampered_cache_answer_of_an_older_state_is_not_taken_for_now(service: Service) -> None:
    resolver(service).start()
    kept = the_file(service.cache / "answers")
    old = kept.read_bytes()
    service.promote(2)
    assert is_served(resolver(service).start(), 2, 2)
    rewrite(kept, old)
    assert is_served(resolver(service).start(), 2, 2)
    assert service.between.reads()[-1].status == 200


def test_tampered_cache_answer_that_names_another_version_is_not_taken(service: Service) -> None:
    resolver(service).start()
    service.promote(2)
    resolver(service).start()
    kept = the_file(service.cache / "answers")
    one, two = (service.registry.get(f"kb:v{number}").digest for number in (1, 2))
    rewrite(kept, kept.read_bytes().replace(two.encode(), one.encode()))
    assert is_served(resolver(service).start(), 2, 2)


def test_a_registry_that_says_there_is_nothing_is_believed_and_nothing_old_is_served(service: Service) -> None:
    """Not an attack that can be told from the truth: whoever removes an alias wants nobody to start from it."""
    resolver(service).start()
    with la.connect(service.url) as registry:
        registry.backend.remove_alias(service.project, la.Reference.parse("kb:prod"), reason="off", actor="tester")
    with pytest.raises(ResolutionError) as caught:
        resolver(service).start()
    assert failures(caught) == {"kb": NotFound}
