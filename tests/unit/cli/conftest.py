"""The command line as its users have it: a line in, an exit code and two streams out."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llmartifacts.cli.command import Command
from llmartifacts.cli.main import COMMANDS, main
from llmartifacts.records.backend import Collected, Migrated, Repaired, Stats, Verification
from llmartifacts.records.diff import Diff
from llmartifacts.records.policy import Decision, PolicyRecord
from llmartifacts.records.promotion import Promotion, State
from llmartifacts.records.version import Project, RunRecord, Version


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, Any]:
        (one,) = self.json["errors"]
        return one


Cli = Callable[..., Ended]
_RECORDS = (
    *(Version, Promotion, Diff, State, RunRecord, Project, Stats, Verification, Repaired, Collected, Migrated),
    *(Decision, PolicyRecord),
)
RECORDS = {r.__name__: r for r in _RECORDS}


def promised(shape: str) -> list[set[str]]:
    """The keys that a command's help promises for `--json`; several sets where it depends on the arguments."""
    first = shape.partition(";")[0]
    record = RECORDS.get(re.match(r"\w*", shape).group())  # type: ignore[union-attr]
    if record is not None:
        extra = {"reference"} if record is Version else set()
        return [{f.name for f in dataclasses.fields(record)} | extra | set(re.findall(r'"(\w+)"', first))]
    made, depth = [], 0
    for token in re.findall(r'[{}\[\]]|"\w+"', shape):
        if token == "{" and depth == 0:
            made.append(set())
        depth += (token in "{[") - (token in "}]")
        if token[0] == '"' and depth == 1:
            made[-1].add(token[1:-1])
    return made


def keep_promise(arguments: list[str], document: dict[str, Any]) -> None:
    """Check a document against the help of the command that printed it."""
    top = {one.name: one for one in COMMANDS}
    words = [a for a in arguments if not a.startswith("-")]
    while words and words[0] not in top:
        del words[0]
    if words:
        one = top[words[0]]
        command = one if isinstance(one, Command) else next(c for c in one.commands if c.name == words[1])
        assert document.keys() in promised(command.shape), (words[:2], document.keys())


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs one command line in an own directory."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path, expect: int | None = 0) -> Ended:
        capsys.readouterr()
        code = main([str(a) for a in arguments])
        streams = capsys.readouterr()
        ended = Ended(code, streams.out, streams.err)
        assert "Traceback" not in ended.out + ended.err
        assert expect is None or code == expect, (code, ended.out, ended.err)
        if code == 0 and "--json" in arguments:
            keep_promise([str(a) for a in arguments], ended.json)
        return ended

    return run


@pytest.fixture
def log(cli: Cli, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Logs text as a `files` version and returns its record."""

    def run(name: str, text: str, *options: str) -> dict[str, Any]:
        source = tmp_path / "source" / f"{name.rpartition('/')[2]}.txt"
        source.parent.mkdir(exist_ok=True)
        source.write_text(text)
        made: dict[str, Any] = cli("log", "files", name, source, *options, "--json").json
        return made

    return run


@pytest.fixture
def story(cli: Cli, log: Callable[..., dict[str, Any]]) -> Cli:
    """A registry with `docs` (v1, v2), `kb` (v1, v2, each derived from docs) and two promotions of both to `prod`."""
    cli("init")
    for n in (1, 2):
        log("docs", f"documents {n}\n", "--message", f"state {n}")
        log("kb", f"index {n}\n", "--input", f"docs:v{n}", "--tag", f"state={n}", "--alias", "staging")
        cli("promote", f"docs:v{n}", f"kb:v{n}", "--to", "prod", "--reason", f"state {n}", "--ticket", f"CHG-{n}")
    return cli
