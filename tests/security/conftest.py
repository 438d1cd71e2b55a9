"""A registry with something of everything, made once and copied."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import llmartifacts as la


def _prompt(text: str = "Hi {{ x }}") -> la.Prompt:
    return la.Prompt(text, template_format="jinja2")


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """To be copied, and never opened."""
    where = tmp_path_factory.mktemp("original") / "registry"
    with la.init(where, actor="ann") as registry:
        registry.log("a", _prompt(), aliases="prod", tags={"k": "v"}, message="first")
        registry.log("a", _prompt("other"), inputs="a:v1")
        registry.log("a", _prompt("bad"))
        registry.log("f", la.Files({"x": b"x" * 5000}))
        registry.log("set", la.Bundle(components={"p": "a:v1", "f": "f:v1"}), aliases="prod")
        registry.promote("a:v2", to="prod", reason="better", ticket="CHG-1")
        registry.rollback("a:prod", reason="worse")
        registry.yank("a:v3", reason="leaks")
        with registry.run("job", parameters={"n": 1}) as run:
            run.use("a:v1")
            run.log("out", _prompt("out"))
    return where


@pytest.fixture
def place(original: Path, tmp_path: Path) -> Path:
    """A registry of one's own."""
    shutil.copytree(original, tmp_path / "registry")
    return tmp_path / "registry"


@pytest.fixture
def registry(place: Path) -> Iterator[la.Registry]:
    """That registry, open."""
    with la.connect(place) as opened:
        yield opened
