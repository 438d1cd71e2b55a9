"""A start with everything at hand: what is known to be right is not read again, nor written down again."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts.blobs import verify
from llmartifacts.blobs.trust import TICK
from llmartifacts.registry import Registry
from llmartifacts.runtime import start as starts
from llmartifacts.runtime.known_good import KnownGood

FILES = {f"part-{n}.txt": b"part %d " % n * 1000 for n in range(6)}
WANTED = {"files": "files:prod"}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMARTIFACTS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def filed(tmp_path: Path, cache: Path) -> Iterator[Registry]:
    """A registry whose `files:prod` a service has started from."""
    with la.init(tmp_path / "files-registry") as registry:
        for number in range(2):
            sources = {}
            for name, content in FILES.items():
                place = tmp_path / f"{number}-{name}"
                place.write_bytes(content + b"%d" % number)
                sources[name] = place
            registry.log("files", la.Files(sources))
        registry.promote(["files:v1"], to="prod", reason="first")
        start(registry)
        yield registry


def start(registry: Registry, **how: Any) -> Any:
    return la.Resolver(WANTED, registry=registry, **how).start()


def record(cache: Path) -> tuple[int, str]:
    (file,) = (cache / "known-good").iterdir()
    return file.stat().st_ino, file.read_text()


def test_a_warm_start_reads_no_cached_file_again_and_starts_no_threads_to_fetch(
    filed: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    time.sleep(2 * TICK / 1e9)
    start(filed)  # hashes what the first one built, and notes it
    hashed: list[Any] = []
    monkeypatch.setattr(verify, "is_blob", lambda file, blob: hashed.append(blob))
    begun: list[str] = []
    begin = threading.Thread.start

    def counted(thread: threading.Thread) -> None:
        begun.append(thread.name)
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", counted)
    served = start(filed).value["files"]
    assert hashed == []
    assert not [name for name in begun if name.rpartition("-")[2].isdigit()], "threads that fetch are numbered"
    for name, content in FILES.items():
        with served.open(name) as stream:
            assert stream.read() == content + b"0"


def test_a_cached_file_that_was_altered_is_fetched_anew_by_a_warm_start(filed: Registry, cache: Path) -> None:
    time.sleep(2 * TICK / 1e9)
    start(filed)
    victim = next(file for file in (cache / "sha256").rglob("*") if file.is_file() and file.stat().st_size > 5000)
    good = victim.read_bytes()
    victim.chmod(0o644)
    victim.write_bytes(good[:-1] + b"?")
    served = start(filed).value["files"]
    contents = []
    for name in FILES:
        with served.open(name) as stream:
            contents.append(stream.read())
    assert contents == [content + b"0" for content in FILES.values()]
    assert victim.read_bytes() == good


def test_the_same_set_is_not_written_down_twice_within_seconds(filed: Registry, cache: Path) -> None:
    before = record(cache)
    start(filed)
    assert record(cache) == before


def test_the_same_set_is_written_down_again_later(
    filed: Registry, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inode, text = record(cache)
    monkeypatch.setattr(starts, "RECENT", 0.0)
    start(filed)
    assert record(cache)[0] != inode
    assert record(cache)[1] != text, "with the time at which the registry last gave it"


def test_a_service_that_counts_in_seconds_has_its_set_written_down_sooner(
    filed: Registry, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = record(cache)
    monkeypatch.setattr(KnownGood, "age", lambda self: 0.5)
    start(filed, max_stale=60)
    assert record(cache) == before
    start(filed, max_stale=2)
    assert record(cache) != before


def test_another_set_is_written_down_at_once(filed: Registry, cache: Path) -> None:
    _, before = record(cache)
    filed.promote(["files:v2"], to="prod", reason="second")
    lock = start(filed).lock
    _, after = record(cache)
    assert after != before
    assert lock.components["files"].digest in after


def test_a_set_whose_record_was_removed_is_written_down_again(filed: Registry, cache: Path) -> None:
    (file,) = (cache / "known-good").iterdir()
    os.unlink(file)
    start(filed)
    assert record(cache)[1]
