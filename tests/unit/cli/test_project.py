"""project on the command line: what guards the project that names without one mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts import wire

Cli = Any


@pytest.fixture
def kept(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """A note in the project that names without one mean."""
    monkeypatch.setenv("LLMARTIFACTS_CACHE", str(tmp_path / "cache"))
    cli("init")
    with la.connect(tmp_path / ".llmartifacts") as registry:
        registry.log("notes", la.Files({"notes.txt": b"a note"}))
    return cli


def test_the_project_of_short_names_is_not_removed_by_a_slip(kept: Cli) -> None:
    error = kept("project", "rm", "default", "--reason", "a slip", "--json", expect=wire.REFUSED).error
    assert error["code"] == "refused"
    assert "--even-default" in error["detail"]["hint"]
    assert "notes" in kept("ls").out
    kept("project", "rm", "other", "--reason", "a slip", expect=wire.NOT_FOUND)


def test_it_is_removed_where_that_is_said_and_others_go_on(kept: Cli) -> None:
    proof = kept("project", "rm", "default", "--reason", "moved", "--even-default", "--json").json
    assert proof["versions"] == 1
    again = kept("project", "rm", "default", "--reason", "moved", "--json").json
    assert again["entry"] == proof["entry"], "of what is removed the proof is given anew without more ado"
    kept("ls", expect=wire.NOT_FOUND)
    kept("project", "create", "acme")
    assert kept("ls", "--project", "acme", "--json").json["collections"] == []
    assert kept("audit", "verify").out
