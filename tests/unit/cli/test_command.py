from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import typer

from llmartifacts.cli.command import CommandGroup, Group, JsonOption, ProjectOption, RegistryOption, command, enter
from llmartifacts.cli.context import Everywhere, Session


@pytest.mark.parametrize("spots", list(itertools.product(range(3), repeat=3)))
def test_the_options_accepted_everywhere_may_stand_anywhere(spots: tuple[int, int, int], tmp_path: Path) -> None:
    seen: list[Everywhere] = []

    @command("probe")
    def probe(session: Session, name: str) -> None:
        """Take part."""
        assert name == "x"
        seen.append(session.options)

    app = typer.Typer(cls=Group)

    @app.callback(invoke_without_command=True)
    def opened(
        ctx: typer.Context, json: JsonOption = False, project: ProjectOption = None, registry: RegistryOption = None
    ) -> None:
        enter(ctx, Everywhere(json, project, registry))

    CommandGroup("noun", "A noun.", "Panel", (probe,)).add_to(app)
    line: list[list[str]] = [[], ["noun"], ["probe"]]
    for spot, option in zip(spots, (["--json"], ["--project", "p"], ["--registry", "r"]), strict=True):
        line[spot] += option
    program: Any = typer.main.get_command(app)
    program.main(args=[*line[0], *line[1], *line[2], "x"], standalone_mode=False)
    assert seen == [Everywhere(True, "p", "r")]


def test_of_two_the_later_wins() -> None:
    assert Everywhere(False, "a", "b").then(Everywhere(False, "c", None)) == Everywhere(False, "c", "b")


def test_without_a_command_the_first_screen_helps(cli: Any) -> None:
    shown = cli().out
    for word in ("promote", "rollback", "demo", "First steps:", "Registry here: none yet"):
        assert word in shown
    assert max(map(len, shown.splitlines())) <= 90
    cli("init")
    assert ".llmartifacts" in cli().out.partition("Registry here:")[2].splitlines()[0]


def test_a_noun_alone_shows_its_commands(cli: Any) -> None:
    assert "List runs." in cli("run").out


@pytest.mark.parametrize("line", [["--json"], ["run", "--json"], ["--json", "run"]])
def test_with_json_no_command_is_an_error_and_not_a_screen(cli: Any, line: list[str]) -> None:
    assert cli(*line, expect=2).error["message"] == "no command was given"


def test_the_version_is_told(cli: Any) -> None:
    from importlib.metadata import version

    assert cli("--version").out == f"llmartifacts {version('llmartifacts')}\n"
    assert cli("--json", "--version").json == {"name": "llmartifacts", "version": version("llmartifacts")}
