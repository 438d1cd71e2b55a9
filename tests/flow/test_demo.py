"""`llmartifacts demo`: the main job, on real input; it leaves no process and no file behind, however it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

import llmartifacts as la
from llmartifacts.cli.demo import demo as declared
from llmartifacts.cli.demo.screen import Screen
from llmartifacts.cli.demo.service import Service
from llmartifacts.cli.demo.story import Story
from llmartifacts.cli.output import Output
from llmartifacts.cli.starter import FOLDERS, starter
from llmartifacts.errors import LlmartifactsError, NotFound, Unreachable

DEMO = [sys.executable, "-c", "import sys; from llmartifacts.cli.main import main; sys.exit(main())", "demo"]
LINUX = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="NO /proc HERE: processes cannot be listed")


def environment(home: Path, **more: str) -> dict[str, str]:
    """Everything of the user's lies in an empty directory, so that what is written there is seen."""
    places = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "TMPDIR": str(home)}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LLMARTIFACTS_")}
    return {**kept, **places, "PYTHONDONTWRITEBYTECODE": "1", **more}


def demo(home: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DEMO, *arguments],
        cwd=home,
        env=environment(home, **more),
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )


@pytest.mark.slow
def test_the_demo_tells_the_whole_story_and_leaves_nothing_behind(tmp_path: Path) -> None:
    done = demo(tmp_path, "--json")

    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["recall"]["python-kb:v2"] > 1.3 * told["recall"]["python-kb:v1"]
    assert len(told["answers"]) == 3
    assert all("kb=python-kb:v2@" in answer["stamp"] for answer in told["answers"])
    checked = "\n".join(claim for step in told["steps"] for claim in step["checked"])
    for claim in ("answers changed", "byte for byte", "every move is there", "were read and verified"):
        assert claim in checked
    assert not done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.matrix
def test_the_account_is_readable_in_eighty_columns_and_the_registry_can_be_kept(tmp_path: Path) -> None:
    done = demo(tmp_path, "--keep", "story", COLUMNS="80")

    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    too_wide = [line for line in done.stdout.splitlines() if len(line) > 80 and str(tmp_path) not in line]
    assert not too_wide
    for line in ("registry.promote(", "llmartifacts rollback python-kb:prod", "stdlib-retrieval-report:v2 (report)"):
        assert line in done.stdout
    with la.connect(tmp_path / "story" / "registry") as registry:
        assert registry.get("python-kb:prod").number == 2
        assert [entry.verb for entry in registry.history("python-kb:prod")] == [
            *("promote", "rollback", "rollback", "promote", "promote", "promote"),
        ]
        assert registry.verify(read_data=True).ok
    looked = [line.split("$ llmartifacts ")[1] for line in done.stdout.splitlines() if "$ llmartifacts " in line]
    looked = [line for line in looked if line.split()[0] in ("history", "state", "lineage")]
    assert len(looked) == 4
    for line in looked:  # the command lines that it shows say what it says that they say
        program = [*DEMO[:-1], "--registry", "story/registry", *line.split()]
        said = subprocess.run(
            program, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=False
        )
        assert said.returncode == 0, said.stderr
        assert said.stdout.strip()
        if line.startswith("history"):
            shown = re.findall(r"^   ((?:promotion|default@r\d).*)$", done.stdout, re.MULTILINE)
            assert len(shown) == 7
            for told, printed in zip(shown, said.stdout.splitlines(), strict=True):
                assert printed.startswith(told)
        if line.startswith("state"):
            assert re.search(r"python-kb\s+v1\b|python-kb:v1\b", said.stdout)
    assert not re.search("error|Traceback", (tmp_path / "story" / "service.log").read_text(), re.IGNORECASE)


@pytest.mark.matrix
def test_without_fastapi_the_standard_library_serves_and_the_demo_says_how_to_get_it(tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text("import sys\nsys.modules['fastapi'] = None\n")
    done = demo(tmp_path, PYTHONPATH=str(blocked))

    assert done.returncode == 0, done.stderr
    assert "http.server served it" in done.stdout
    assert "pip install 'llmartifacts[service]'" in done.stdout
    assert "byte for byte" in done.stdout


@pytest.mark.matrix
def test_a_rollback_that_restores_nothing_ends_the_demo_with_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(la.Registry, "rollback", lambda *args, **kwargs: None)

    with pytest.raises(LlmartifactsError, match="it does not hold") as caught:
        Story(tmp_path, Screen(Output(json=True)), plain=True).tell()

    assert "step 7" in caught.value.origin


@LINUX
@pytest.mark.slow
@pytest.mark.parametrize(
    "end", [signal.SIGINT, *(pytest.param(s, marks=pytest.mark.matrix) for s in (signal.SIGTERM, signal.SIGKILL))]
)
def test_however_the_demo_is_ended_no_process_stays(end: signal.Signals, tmp_path: Path) -> None:
    with subprocess.Popen(
        DEMO,
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            until(lambda: children(process.pid), "the service was not started")
            service = children(process.pid)[0]
            process.send_signal(end)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    until(lambda: not alive(service), "the service outlived the demo")

    assert "Traceback" not in errors
    if end is signal.SIGINT:
        assert process.returncode == 130
        assert "interrupted" in errors
        assert list(tmp_path.iterdir()) == []


def test_a_directory_that_holds_something_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    done = demo(tmp_path, "--keep", ".")

    assert done.returncode == 4
    assert "is not an empty directory" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_a_service_that_cannot_start_is_reported_with_what_it_said_and_does_not_stay(tmp_path: Path) -> None:
    script = tmp_path / "serve.py"
    script.write_text("import sys\nsys.exit('no kitchen, no dinner')\n")

    with pytest.raises(Unreachable, match="no kitchen, no dinner"), Service(script, {}, tmp_path / "log"):
        pytest.fail("it started")


def test_a_service_that_never_comes_up_is_given_up_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmartifacts.cli.demo.service.START_SECONDS", 0.5)
    script = tmp_path / "serve.py"
    script.write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setattr("llmartifacts.cli.demo.service.STOP_SECONDS", 0.2)
    service = Service(script, {}, tmp_path / "log")

    with pytest.raises(la.errors.DeadlineExceeded), service:
        pytest.fail("it started")

    with pytest.raises(ProcessLookupError):
        os.kill(service.pid, 0)


def test_the_users_registry_and_settings_do_not_reach_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMARTIFACTS_ALIAS", "staging")
    monkeypatch.setenv("LLMARTIFACTS_PROJECT", "mine")
    script = tmp_path / "serve.py"
    script.write_text(
        "import os, sys\nsys.exit(repr(sorted(n + '=' + v for n, v in os.environ.items() if n.startswith('LLM'))))\n"
    )

    with (
        pytest.raises(Unreachable, match=re.escape("['LLMARTIFACTS_REGISTRY=here']")),
        Service(script, {"LLMARTIFACTS_REGISTRY": "here"}, tmp_path / "log"),
    ):
        pytest.fail("it started")


def test_starter_content_is_there_and_what_is_not_is_named() -> None:
    for folder in FOLDERS:
        assert any(starter(folder).iterdir())

    with pytest.raises(NotFound, match="no starter content 'recipes'"):
        starter("recipes")


def test_starter_content_is_found_in_a_wheel_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "site-packages" / "llmartifacts" / "cli" / "starter.py"
    there = inside.parent.parent / "starter" / "templates"
    there.mkdir(parents=True)
    monkeypatch.setattr("llmartifacts.cli.starter.__file__", str(inside))

    assert starter("templates") == there
    (tmp_path / "site-packages" / "examples").mkdir()  # somebody else's
    with pytest.raises(NotFound):
        starter("examples")


def test_demo_is_a_command_with_help() -> None:
    app = typer.Typer()
    declared.add_to(app)

    assert [one.name for one in app.registered_commands] == ["demo"]


def until(holds: Callable[[], object], told: str) -> None:
    for _ in range(1200):
        if holds():
            return
        time.sleep(0.05)
    pytest.fail(told)


def children(parent: int) -> list[int]:
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                stat = (place / "stat").read_text()
                command = (place / "cmdline").read_bytes()
            except OSError:
                continue
            if int(stat.rpartition(")")[2].split()[1]) == parent and b"serve.py" in command:
                found.append(int(place.name))
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
