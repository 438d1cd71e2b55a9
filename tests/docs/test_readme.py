"""The README is executed: Python blocks in order in one session, console blocks by the shell, their output compared."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import types
from dataclasses import dataclass
from pathlib import Path

import pytest

FENCE = re.compile(r"^```(\w+)(?: ([\w-]+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass
class Block:
    language: str
    mark: str
    text: str
    line: int


def _blocks(path: Path) -> list[Block]:
    text = path.read_text(encoding="utf-8")
    return [Block(m[1], m[2] or "", m[3], text[: m.start()].count("\n") + 2) for m in FENCE.finditer(text)]


def _matches(shown: str, printed: str) -> bool:
    """Whether output is what the README shows; `…` stands for anything on one line, a line `…` for any lines."""
    pattern = ""
    for line in shown.rstrip("\n").split("\n"):
        pattern += r"(?:.*\n)*?" if line.strip() == "…" else re.escape(line.rstrip()).replace("…", ".*") + r"[ \t]*\n"
    return re.fullmatch(pattern, printed.rstrip("\n") + "\n") is not None


def _run_console(block: Block, place: Path) -> None:
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "110",
        "NO_COLOR": "1",
        "TERM": "dumb",
    }
    for step in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, shown = step.partition("\n")
        done = subprocess.run(command, shell=True, cwd=place, env=environment, capture_output=True, text=True)
        printed = done.stdout + done.stderr
        wanted = int(block.mark.removeprefix("exit-")) if block.mark.startswith("exit-") else 0
        assert done.returncode == wanted, f"README line {block.line}: {command}\n{printed}"
        if shown.strip():
            assert _matches(shown, printed), f"README line {block.line}: {command}\n--- printed\n{printed}"


@pytest.mark.slow
def test_every_block_of_the_readme_does_what_it_says(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "templates").symlink_to(repository / "templates")
    session = types.ModuleType("readme")
    monkeypatch.setitem(sys.modules, "readme", session)  # dataclasses look their module up
    ran = 0
    for block in _blocks(repository / "README.md"):
        if block.mark == "not-run":
            continue
        if block.language == "python":
            exec(compile("\n" * (block.line - 1) + block.text, "README.md", "exec"), session.__dict__)
            ran += 1
        elif block.language == "console":
            _run_console(block, tmp_path)
            ran += 1
    assert ran >= 5


def test_the_readme_names_the_two_commands_that_need_nothing_but_python_and_make(repository: Path) -> None:
    text = (repository / "README.md").read_text(encoding="utf-8")
    assert "make demo" in text
    assert "make test" in text


def test_what_is_not_run_is_marked_with_a_reason(repository: Path) -> None:
    text = (repository / "README.md").read_text(encoding="utf-8")
    for block in _blocks(repository / "README.md"):
        if block.mark == "not-run":
            before = text[: text.index(block.text)].rstrip().splitlines()[-2:]
            assert any("<!--" in line for line in before), (
                f"README line {block.line}: say in a comment why it is not run"
            )
