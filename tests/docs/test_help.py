"""Help is true: every command and option is explained, every example is a line that the program takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from llmartifacts import wire
from llmartifacts.cli.command import CommandGroup
from llmartifacts.cli.main import COMMANDS, build, main
from llmartifacts.cli.welcome import FIRST_STEPS

PROGRAM: Any = typer.main.get_command(build())
DESIGNED = {
    *("demo", "init", "log", "ls", "show", "diff", "pull", "promote", "rollback", "history", "state", "yank"),
    *("alias", "tag", "lineage", "run", "lock", "install", "verify", "repair", "gc", "stats", "migrate", "project"),
    *("eval", "dataset", "policy", "gate", "evidence", "approve", "key", "review", "audit"),
    *("backup", "restore", "export", "import"),
    *("erase", "lease"),
    *("serve", "login", "logout", "user", "team", "grant", "token"),
}
WIDTH = 80


def commands(group: Any = PROGRAM, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, one in group.commands.items():
        yield (*path, name), one
        if hasattr(one, "commands"):
            yield from commands(one, (*path, name))


EVERY = list(commands())
EXAMPLES = [
    example
    for one in COMMANDS
    for command in (one.commands if isinstance(one, CommandGroup) else (one,))
    for example in command.examples
]


def parse(line: str) -> None:
    """Read a command line as the program would, without doing anything. Raises if it would be refused."""
    words = shlex.split(line.partition(" > ")[0])
    assert words, "an empty line"
    group, parent = PROGRAM, PROGRAM.make_context("llmartifacts", words, resilient_parsing=True)
    while hasattr(group, "commands"):
        words = words[next(i for i, w in enumerate(words) if not w.startswith("-")) :]
        name, group, words = group.resolve_command(parent, words)
        if hasattr(group, "commands"):
            parent = group.make_context(name, list(words), parent=parent, resilient_parsing=True)
    group.make_context(name, words, parent=parent)


def test_the_commands_are_those_of_the_design() -> None:
    assert set(PROGRAM.commands) == DESIGNED


@pytest.mark.parametrize(("path", "command"), EVERY, ids=[" ".join(path) for path, _ in EVERY])
def test_every_command_and_option_is_explained_in_help(
    path: tuple[str, ...], command: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    assert main([*path, "--help"]) == 0
    shown = capsys.readouterr().out
    assert command.help.strip().split("\n")[0].rstrip(".")[:40] in shown
    for param in command.params:
        assert param.help, f"{path}: {param.name} is not explained"
        assert all(opt in shown for opt in param.opts if opt.startswith("--"))
        assert param.help.endswith((".", "…")) or " or " in param.help, param.help
    for option in ("--json", "--project", "--registry"):
        assert option in shown
    if not hasattr(command, "commands"):
        assert "Examples" in shown
        assert "With --json" in shown
    assert max(map(len, shown.splitlines())) <= WIDTH


@pytest.mark.parametrize("example", [*EXAMPLES, *(step for step, _ in FIRST_STEPS)])
def test_every_example_is_a_line_that_the_program_takes(example: str) -> None:
    parse(example)
    assert len(f"  llmartifacts {example}") <= WIDTH - 2, "would wrap in a narrow terminal"


@pytest.mark.parametrize("line", ["rollback kb:prod", "ls --frobnicate", "frobnicate", "promote kb:v1"])
def test_a_line_that_the_program_refuses_is_seen(line: str) -> None:
    with pytest.raises(Exception, match=r"Missing|No such|there is no"):
        parse(line)


def test_the_exit_codes_in_help_are_those_of_the_table() -> None:
    told = PROGRAM.epilog.partition("[bold]Exit codes[/bold]")[2].partition("With --json")[0]
    codes = {getattr(wire, name) for name in dir(wire) if name.isupper() and isinstance(getattr(wire, name), int)}
    assert {int(n) for n in re.findall(r"\b\d+\b", told)} == codes


def test_every_command_named_in_a_hint_exists(repository: Path) -> None:
    named = {
        (path.name, word)
        for path in (repository / "llmartifacts").rglob("*.py")
        for word in re.findall(r"`llmartifacts ([a-z]+)\b", path.read_text())
    }
    assert named
    assert sorted(n for n in named if n[1] not in PROGRAM.commands) == []


def test_every_command_line_of_the_readme_is_one_that_the_program_takes(repository: Path) -> None:
    text = (repository / "README.md").read_text()
    blocks = re.findall(r"^```(?:sh|bash|console|shell)\n(.*?)^```", text, re.S | re.M)
    lines = re.findall(r"^(?:\$ )?llmartifacts +(.+?)(?: +#.*)?$", "\n".join(blocks).replace("\\\n", " "), re.M)
    for line in lines:
        parse(re.split(r" [|&]", line)[0])
