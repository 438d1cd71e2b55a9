"""The story through the installed program, in processes of its own."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmartifacts import wire

Run = Callable[..., subprocess.CompletedProcess[str]]


def command() -> list[str]:
    script = Path(sys.executable).with_name("llmartifacts")
    return [str(script)] if script.exists() else [sys.executable, "-m", "llmartifacts.cli.main"]


def in_folder(folder: Path) -> Run:
    def call(*arguments: str, code: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
        ended = subprocess.run(
            [*command(), *arguments], cwd=folder, env={**os.environ, **env}, capture_output=True, text=True, timeout=60
        )
        assert ended.returncode == code, (ended.stdout, ended.stderr)
        assert "Traceback" not in ended.stdout + ended.stderr
        return ended

    return call


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return in_folder(tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with `agent`, a prompt of two versions, the second in `prod`."""
    folder = tmp_path_factory.mktemp("made")
    call = in_folder(folder)
    call("init")
    for n, text in enumerate(("Hello {{ name }}.", "Hello {{ name }}, how can I help?"), 1):
        (folder / "agent.j2").write_text(text)
        call("log", "prompt", "agent", "agent.j2", "-m", f"greeting {n}")
        call("promote", f"agent:v{n}", "--to", "prod", "--reason", f"greeting {n}")
    return folder


@pytest.fixture
def registry(run: Run, made: Path, tmp_path: Path) -> Run:
    """An own copy of that registry."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return run


def test_a_prompt_goes_to_prod_and_back(registry: Run, tmp_path: Path) -> None:
    def serving() -> int:
        number: int = json.loads(registry("show", "agent:prod", "--json").stdout)["version"]["number"]
        return number

    assert serving() == 2
    assert "how can I help" in registry("diff", "agent:v1", "agent:v2").stdout
    registry("lock", "agent=agent:prod")
    registry("rollback", "agent:prod", "--reason", "too chatty")
    assert serving() == 1
    registry("lock", "--check", code=wire.REFUSED)
    registry("install", "--to", "served")
    assert (tmp_path / "served" / "llmartifacts.lock").is_file()
    assert registry("history", "agent:prod").stdout.count("greeting") == 2
    assert "all well" in registry("verify", "--read-data").stdout


def test_the_registry_and_project_come_from_the_surroundings_too(registry: Run, tmp_path: Path) -> None:
    (tmp_path / "deep" / "down").mkdir(parents=True)
    place = str(tmp_path / ".llmartifacts")
    assert "agent" in registry("ls", LLMARTIFACTS_REGISTRY=place).stdout
    registry("project", "create", "acme")
    assert "agent" not in registry("ls", LLMARTIFACTS_PROJECT="acme").stdout
    assert "agent" in registry("ls", "--project", "default", LLMARTIFACTS_PROJECT="acme").stdout
    registry("--registry", "nowhere", "ls", code=wire.NOT_FOUND)
    registry("ls", LLMARTIFACTS_REGISTRY="https://example.org", code=wire.UNREACHABLE)


def test_errors_go_to_standard_error_and_with_json_to_standard_output(registry: Run) -> None:
    ended = registry("show", "agnet", code=wire.NOT_FOUND)
    assert ended.stdout == ""
    assert "hint: Did you mean agent?" in ended.stderr
    ended = registry("show", "agnet", "--json", code=wire.NOT_FOUND)
    assert json.loads(ended.stdout)["errors"][0]["code"] == "not_found"
    assert ended.stderr == ""
    assert json.loads(registry("--json", "promot", code=wire.WRONG_USE).stdout)["errors"][0]["code"] == "invalid_input"


def test_a_template_that_is_wrong_names_its_line(registry: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.j2").write_text("Hello\n{% if name %}\nno end\n")
    ended = registry("log", "prompt", "bad", "bad.j2", code=wire.WRONG_USE)
    assert "bad.j2" in ended.stderr
    assert "line" in ended.stderr
    assert "bad" not in registry("ls").stdout


def test_a_reader_that_leaves_changes_nothing(registry: Run, tmp_path: Path) -> None:
    for arguments, code in ((("ls",), 0), (("--help",), 0), (("show", "agent", "--json"), 0), (("show", "x"), 3)):
        process = subprocess.Popen(
            [*command(), *arguments], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        told = process.stderr.read()
        process.stderr.close()
        assert process.wait(60) == code
        assert "Broken" not in told
        assert "Traceback" not in told


def test_an_interrupt_ends_with_130_and_no_traceback(registry: Run, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("open('begun', 'w').close()\nimport time\ntime.sleep(60)\n")
    process = subprocess.Popen(
        [*command(), "lock", "slow:Spec"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "begun").exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, told = process.communicate(timeout=60)
    assert process.returncode == wire.INTERRUPTED
    assert (out, told) == ("", "interrupted\n")
    assert not (tmp_path / "llmartifacts.lock").exists()


def on_terminal(arguments: list[str], cwd: Path, columns: int, **env: str) -> str:
    main, side = pty.openpty()
    surroundings = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": "40", **env}
    process = subprocess.Popen([*command(), *arguments], cwd=cwd, stdout=side, stderr=side, env=surroundings)
    os.close(side)
    data = b""
    while True:
        try:
            part = os.read(main, 65536)
        except OSError:  # Linux says so that the other end is closed
            break
        if not part:
            break
        data += part
    os.close(main)
    assert process.wait(60) == 0
    return data.decode().replace("\r\n", "\n")


LINES = ["ls", "ls agent", "history agent:prod", "state prod", "show agent", "stats", ""]


@pytest.mark.parametrize(
    ("line", "columns"),
    [
        *((line, 80) for line in LINES),
        *((line, 120) for line in ("history agent:prod", "show agent")),
        *(pytest.param(line, 120, marks=pytest.mark.matrix) for line in ("ls", "ls agent", "state prod", "stats", "")),
    ],
)
def test_on_a_terminal_everything_fits_and_has_colours(registry: Run, tmp_path: Path, line: str, columns: int) -> None:
    shown = on_terminal(line.split(), tmp_path, columns)
    bare = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    assert shown != bare
    # A path and a whole digest are never cut: whoever copies them needs all of it.
    lines = [x for x in bare.splitlines() if not x.startswith("Registry here") and not re.search("[0-9a-f]{64}", x)]
    assert max(map(len, lines)) <= columns
    if columns == 120 and line:
        assert "…" not in bare
    colourless = on_terminal(line.split(), tmp_path, columns, NO_COLOR="1")
    assert not re.search(r"\x1b\[(?:\d+;)*3[0-7]", colourless)


def test_long_work_shows_progress_on_a_terminal_and_nothing_else(registry: Run, tmp_path: Path) -> None:
    shown = on_terminal(["pull", "agent:v1", "out"], tmp_path, 80)
    assert "pulling agent:v1" in shown
    assert "agent:v1 -> out" in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    assert registry("pull", "agent:v1", "again").stderr == ""


def test_a_shell_can_complete_commands_and_options(run: Run) -> None:
    asked: dict[str, Any] = {"_LLMARTIFACTS_COMPLETE": "complete_bash", "COMP_CWORD": "1"}
    assert run(COMP_WORDS="llmartifacts pro", **asked).stdout.split() == ["promote", "project"]
    asked["COMP_CWORD"] = "2"
    assert "--expect" in run(COMP_WORDS="llmartifacts promote --e", **asked).stdout.split()
