"""Registries with something of everything in them, and what they hold, row by row."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts.metadata import dump
from llmartifacts.records.backup import BackupRecord
from llmartifacts.records.manifest import INLINE_BYTES
from llmartifacts.registry import Registry
from llmartifacts.versioning.backups.place import BackupPlace
from llmartifacts.versioning.backups.take import backup
from llmartifacts.versioning.embedded import EmbeddedBackend

sys.modules["backup_helpers"] = sys.modules[__name__]  # tests beside this import what is here by that name
Rows = dict[str, list[tuple[Any, ...]]]


def rows_of(backend: EmbeddedBackend) -> Rows:
    """Every row of every table that a backup keeps."""
    with backend.parts.metadata.reading() as s:
        return {table.name: list(dump.rows(s, table)) for table in dump.kept()}


def parts_of(registry: Registry) -> Any:
    backend: Any = registry.backend
    return backend.parts


def fill(registry: Registry) -> None:
    """Text, a large file in chunks, a manifest that is kept as a file, edges, tags, moves, a run, a policy."""
    registry.log("docs", la.Files({"a.txt": b"words " * 2000, "b.bin": os.urandom(40)}), tags={"ticket": "CHG-1"})
    registry.log("index", la.Files({"big.bin": os.urandom(1_500_000)}), inputs=["docs:v1"], message="first")
    registry.log("many", la.Files({f"folder/{i:04}.txt": f"file {i % 3}".encode() for i in range(700)}))
    assert len(registry.find("many:v1").manifest.to_bytes()) > INLINE_BYTES
    with registry.run("build", parameters={"n": 1}) as run:
        run.log("docs", la.Files({"a.txt": b"other words"}))
    registry.promote(["docs:v1", "index:v1"], to="prod", reason="ready")
    registry.promote("docs:v2", to="prod", reason="better")
    registry.rollback("docs:prod", reason="it was not")
    registry.create_project("acme")


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a registry, `source`, and the place of a backup of it, `backups`; to be copied, not used."""
    folder = tmp_path_factory.mktemp("original")
    with la.init(folder / "source") as registry:
        fill(registry)
        backup(parts_of(registry), str(folder / "backups"))
    return folder


@pytest.fixture
def source(original: Path, tmp_path: Path) -> Iterator[Registry]:
    """An embedded registry with something of everything."""
    shutil.copytree(original / "source", tmp_path / "source")
    with la.connect(tmp_path / "source") as registry:
        yield registry


@pytest.fixture
def place(tmp_path: Path) -> str:
    """Where backups go; nothing is there yet."""
    return str(tmp_path / "backups")


@pytest.fixture
def taken(original: Path, place: str) -> BackupRecord:
    """A backup of `source`, at `place`."""
    shutil.copytree(original / "backups", place)
    return BackupPlace.open(place).record(1)
