"""Which registry `serve` serves: the line, then its variables, then what `connect()` finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts.server import run
from llmartifacts.server.config import Settings

TEAM = ("postgresql://db/registry", "/srv/blobs")


@pytest.fixture
def served(cli: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Runs a line as far as the settings of the server; gives those."""
    for name in ("line", "variable", "found"):
        la.init(tmp_path / name, actor="ann").close()
    taken: list[Settings] = []
    monkeypatch.setattr(run, "serve", lambda settings: taken.append(settings) or 0)

    def start(*arguments: str) -> tuple[str, str, str]:
        cli(*arguments)
        settings = taken.pop()
        return Path(settings.registry).name, settings.database, settings.blobs

    return start


def test_what_the_line_names_wins_over_the_variable_of_serve(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMARTIFACTS_SERVE_REGISTRY", "variable")
    monkeypatch.setenv("LLMARTIFACTS_REGISTRY", "found")
    assert served("--registry", "line", "serve") == ("line", "", "")
    assert served("serve") == ("variable", "", "")
    monkeypatch.delenv("LLMARTIFACTS_SERVE_REGISTRY")
    assert served("serve") == ("found", "", "")


def test_a_directory_on_the_line_is_served_where_the_variables_name_a_database(
    served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMARTIFACTS_SERVE_DATABASE", TEAM[0])
    monkeypatch.setenv("LLMARTIFACTS_SERVE_BLOBS", TEAM[1])
    assert served("serve") == ("", *TEAM)
    assert served("--registry", "line", "serve") == ("line", "", "")


def test_a_directory_and_a_database_on_one_line_exclude_each_other(cli: Any, served: Any) -> None:
    told = cli("--registry", "line", "serve", "--database", TEAM[0], "--blobs", TEAM[1], expect=2)
    assert "--registry and --database exclude each other" in told.err


def test_a_server_serves_no_other_server(cli: Any, served: Any) -> None:
    told = cli("--registry", "https://registry.example.org", "serve", expect=2)
    assert "is a server already" in told.err
