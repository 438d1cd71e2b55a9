"""The command line as its users have it: a line in, an exit code and two streams out."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
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
from llmartifacts.records.removal import RemovedProject
from llmartifacts.records.version import Project, RunRecord, Version
from llmartifacts.versioning.reseal import Resealed


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
    *(Decision, PolicyRecord, RemovedProject, Resealed),
)
RECORDS = {r.__name__: r for r in _RECORDS}


def promised(shape: str) -> list[set[str]]:
    """The keys that a command's help promises for `--json`; several sets where it depends on the arguments."""
    first, _, rest = shape.partition(";")
    record = RECORDS.get(re.match(r"\w*", shape).group())  # type: ignore[union-attr]
    if record is not None:
        extra = {"reference"} if record is Version else set()
        own = {f.name for f in dataclasses.fields(record)} | extra | set(re.findall(r'"(\w+)"', first))
        named = [RECORDS[name] for name in re.findall(r"; (\w+)", shape) if name in RECORDS]
        others = [{f.name for f in dataclasses.fields(one)} | {"ok"} for one in named]
        return [own, *others, *_braced(rest)]
    return _braced(shape)


def _braced(shape: str) -> list[set[str]]:
    made: list[set[str]] = []
    depth = 0
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


@pytest.fixture(scope="session")
def original_story(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `story` copies, with the sources that its versions were logged from."""
    folder = tmp_path_factory.mktemp("story")
    with pytest.MonkeyPatch.context() as patch:
        for name in [n for n in os.environ if n.startswith("LLMARTIFACTS_")]:
            patch.delenv(name)
        for name in ("CACHE", "CONFIG"):
            patch.setenv(f"LLMARTIFACTS_{name}", str(tmp_path_factory.mktemp(name.lower())))
        patch.setenv("LLMARTIFACTS_ACTOR", "tester")
        patch.chdir(folder)

        def run(*line: str) -> None:
            assert main(list(line)) == 0, line

        run("init")
        (folder / "source").mkdir()
        for n in (1, 2):
            (folder / "source" / "docs.txt").write_text(f"documents {n}\n")
            (folder / "source" / "kb.txt").write_text(f"index {n}\n")
            docs, kb = (str(folder / "source" / f"{name}.txt") for name in ("docs", "kb"))
            run("log", "files", "docs", docs, "--message", f"state {n}")
            run("log", "files", "kb", kb, "--input", f"docs:v{n}", "--tag", f"state={n}", "--alias", "staging")
            run("promote", f"docs:v{n}", f"kb:v{n}", "--to", "prod", "--reason", f"state {n}", "--ticket", f"CHG-{n}")
    return folder


@pytest.fixture
def story(original_story: Path, cli: Cli, tmp_path: Path) -> Cli:
    """A registry with `docs` (v1, v2), `kb` (v1, v2, each derived from docs) and two promotions of both to `prod`."""
    shutil.copytree(original_story, tmp_path, dirs_exist_ok=True)
    return cli
