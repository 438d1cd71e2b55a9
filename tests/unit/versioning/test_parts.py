"""Manifests kept in memory: so many bytes and no more, whatever was logged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmartifacts.errors import LlmartifactsError, TooLarge
from llmartifacts.records.backend import Draft, PromotionRequest, Target
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.reference import Reference
from llmartifacts.versioning import parts as module
from llmartifacts.versioning import read
from llmartifacts.versioning.embedded import EmbeddedBackend
from llmartifacts.wire.bodies import reading as bodies
from llmartifacts.wire.bodies.base import read_body


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[EmbeddedBackend]:
    made = EmbeddedBackend.create(tmp_path / "registry", actor="ann")
    yield made
    made.close()


def _log(backend: EmbeddedBackend, name: str, size: int, **more: Any) -> None:
    manifest = Manifest.build("unknown-kind", {"x": name[0] * size})
    backend.commit("default", [Draft(name, manifest, **more)], actor="ann")


def _read(backend: EmbeddedBackend, name: str) -> None:
    (item,) = backend.read("default", [Reference.parse(f"{name}:v1")]).items
    assert not isinstance(item, LlmartifactsError)


def test_manifests_are_remembered_up_to_so_many_bytes(
    backend: EmbeddedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REMEMBERED_BYTES", 40_000)
    for number in range(12):
        name = f"{chr(97 + number)}x"
        _log(backend, name, 9_000)
        _read(backend, name)
    _log(backend, "big", 20_000)
    _read(backend, "big")
    kept = [len(one.to_bytes()) for one in backend.parts._manifests.values()]
    assert len(kept) == 4, kept
    assert backend.parts._held == sum(kept) <= 40_000


def test_a_large_manifest_is_not_opened_for_somebody_far_away(
    backend: EmbeddedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    _log(backend, "large", 100_000)
    _log(backend, "small", 1_000)
    monkeypatch.setattr(Manifest, "from_bytes", None)  # nothing is parsed
    parts = backend.parts
    wanted = [Reference.parse(text) for text in ("large:v1", "small:v1", "none:v1")]
    with parts.metadata.reading() as s:
        project = s.row("select id from project where name = 'default'")
        assert project is not None
        found = list(read.items(s, parts, project[0], "default", wanted))
        body = bodies.encode_items("default", 1, found)
    monkeypatch.undo()
    large, small, none = read_body(bodies.Reading, body).items
    assert isinstance(large, bodies.Found)
    assert large.manifest is None
    assert isinstance(small, bodies.Found)
    assert small.manifest is not None
    assert not isinstance(none, bodies.Found)


def test_an_answer_longer_than_anybody_reads_is_refused(
    backend: EmbeddedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "MAX_READING", 100_000)
    _log(backend, "a", 10, message="m" * 16_000)
    reading = backend.read("default", [Reference.parse("a:v1")] * 10)
    with pytest.raises(TooLarge, match="fewer"):
        bodies.encode_reading(reading)


def test_a_move_of_too_many_large_manifests_is_refused_to_strangers(
    backend: EmbeddedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 25_000)
    _log(backend, "a", 10_000)
    targets = tuple(Target(Reference.parse("a:v1"), f"alias{n}") for n in range(3))
    assert backend.gate("default", PromotionRequest(targets), actor="ann").moves
    guarded = backend.guarded(allowed_gates=())
    with pytest.raises(TooLarge, match="at once"):
        guarded.gate("default", PromotionRequest(targets), actor="ann")
    for name in "bcd":
        _log(backend, name, 10_000)
    digests = [Manifest.build("unknown-kind", {"x": name * 10_000}).digest for name in "bcd"]
    assert len(backend.manifests(digests)) == 3
    with pytest.raises(TooLarge, match="at once"):
        guarded.manifests(digests)
