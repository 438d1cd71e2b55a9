"""An embedded registry and short ways to fill it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmartifacts.records.backend import Draft, Input, PromotionRequest, Target
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.promotion import Promotion
from llmartifacts.records.reference import Reference
from llmartifacts.records.version import Version
from llmartifacts.versioning.embedded import EmbeddedBackend


class Short:
    """The embedded backend of the project `default`, in few words."""

    def __init__(self, backend: EmbeddedBackend) -> None:
        self.backend = backend

    def draft(self, name: str, content: str, inputs: tuple[str, ...] = (), **more: Any) -> Draft:
        edges = tuple(Input(Reference.parse(i)) for i in inputs)
        return Draft(name, Manifest.build("unknown-kind", {"content": content}), inputs=edges, **more)

    def log(self, name: str, content: str, inputs: tuple[str, ...] = (), **more: Any) -> Version:
        return self.backend.commit("default", [self.draft(name, content, inputs, **more)], actor="ann")[0]

    def promote(self, *references: str, to: str = "prod", **more: Any) -> Promotion:
        targets = tuple(Target(Reference.parse(r), to) for r in references)
        return self.backend.promote("default", PromotionRequest(targets, **more), actor="bob")

    def rollback(self, target: str, **more: Any) -> Promotion:
        parsed: Any = target if "@r" in target else Reference.parse(target)
        if "to" in more:
            more["to"] = Reference.parse(more["to"])
        return self.backend.rollback("default", parsed, reason="it was worse", actor="cat", **more)

    def at(self, reference: str) -> str:
        """`vN` that a reference means, or `-`."""
        item = self.backend.read("default", [Reference.parse(reference)]).items[0]
        return "-" if isinstance(item, Exception) else f"v{item.version.number}"


@pytest.fixture
def backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedBackend]:
    monkeypatch.setattr("llmartifacts.versioning.promote.ALWAYS", ())
    made = EmbeddedBackend.create(tmp_path / "registry", actor="ann")
    yield made
    made.close()


@pytest.fixture
def short(backend: EmbeddedBackend) -> Short:
    return Short(backend)


@pytest.fixture
def open_again(tmp_path: Path) -> Callable[[], EmbeddedBackend]:
    return lambda: EmbeddedBackend.open(tmp_path / "registry")
