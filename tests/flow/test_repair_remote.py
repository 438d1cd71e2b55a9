"""A damaged registry is mended from a server that has the same content, cut into other packs."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import llmartifacts as la
from llmartifacts.blobs.store import BlobStore
from llmartifacts.testing.server import running_server
from llmartifacts.versioning.embedded import EmbeddedBackend

LARGE = random.Random(1).randbytes(1_300_000)
OTHER = random.Random(2).randbytes(2_100_000)


def fill(registry: la.Registry) -> None:
    registry.log("notes", la.Files({"notes.txt": b"a note " * 2000, "noise.bin": LARGE[:70_000]}))
    registry.log("weights", la.Files({"weights.bin": LARGE}))


def harm(place: Path) -> None:
    """Of every second stored file a bit is flipped, and the others are lost."""
    for number, file in enumerate(sorted(p for p in (place / "blobs").rglob("*") if p.is_file())):
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 4
        file.unlink()
        if number % 2:
            file.write_bytes(data)


def test_everything_comes_from_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMARTIFACTS_CACHE", str(tmp_path / "cache"))
    there = tmp_path / "there"
    with la.init(there) as registry:
        registry.log("weights", la.Files({"weights.bin": OTHER + LARGE[:100_000]}))  # so that its packs are others
        fill(registry)
    with la.init(tmp_path / "here") as registry:
        fill(registry)
    harm(tmp_path / "here")
    with running_server(there) as running:
        monkeypatch.setenv("LLMARTIFACTS_TOKEN", running.token)
        with la.connect(running.url) as source, la.connect(tmp_path / "here") as registry:
            assert not registry.verify(read_data=True).ok
            done = registry.repair(source)
            assert (done.problems, done.blobs) == ((), 3)
            (entry,) = registry.audit_log(verb="repair", limit=1)
            assert entry.event.actor == registry.actor
    with la.connect(tmp_path / "here") as registry:
        assert registry.verify(read_data=True).ok
        assert registry.resolve("weights:v1", la.Files).read("weights.bin") == LARGE


def test_everything_comes_from_a_store_of_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an object store is: a driver without files of its own."""
    monkeypatch.setenv("LLMARTIFACTS_CACHE", str(tmp_path / "cache"))
    store = BlobStore.memory()
    with store.stage() as staging:
        for content in (b"a note " * 2000, LARGE[:70_000], LARGE):
            staging.add(content)
        staging.publish()
    with la.init(tmp_path / "here") as registry:
        fill(registry)
    harm(tmp_path / "here")
    with la.connect(tmp_path / "here") as registry:
        assert isinstance(registry.backend, EmbeddedBackend)
        done = registry.repair(store)
        assert (done.problems, done.blobs) == ((), 3)
        assert registry.verify(read_data=True).ok
