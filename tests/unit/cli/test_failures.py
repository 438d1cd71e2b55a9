from __future__ import annotations

import errno
import inspect
import json
from typing import Any

import pytest

from llmartifacts import errors, wire
from llmartifacts.cli import main as entry
from llmartifacts.cli.failures import as_error, tell
from llmartifacts.cli.output import Output
from llmartifacts.errors import Incompatible, InvalidTemplate, LlmartifactsError, NotFound, ResolutionError

EVERY_ERROR = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, LlmartifactsError)]


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(arguments: list[str]) -> int:
        raise error

    monkeypatch.setattr(entry, "_run", fail)


@pytest.mark.parametrize("kind", EVERY_ERROR, ids=lambda c: c.code)
def test_every_error_ends_with_its_exit_code_message_and_hint(
    kind: type[LlmartifactsError], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = kind("what happened", field="template", origin="a.j2, line 3", next_step="Do this.")
    raising(monkeypatch, error)
    assert entry.main(["ls"]) == wire.exit_code(error)
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err.startswith("error: what happened\n  field: template\n  origin: a.j2, line 3\n")
    assert "  hint: Do this.\n" in streams.err


@pytest.mark.parametrize("kind", EVERY_ERROR, ids=lambda c: c.code)
def test_with_json_every_error_is_the_body_that_the_server_sends(
    kind: type[LlmartifactsError], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = kind("what happened", field="f")
    raising(monkeypatch, error)
    assert entry.main(["ls", "--json"]) == wire.exit_code(error)
    streams = capsys.readouterr()
    assert json.loads(streams.out) == json.loads(json.dumps(wire.error_body(error)))
    assert streams.err == ""


def test_a_bug_is_one_line_and_how_to_see_more(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(monkeypatch, KeyError("oops"))
    assert entry.main(["ls"]) == wire.BUG
    told = capsys.readouterr().err
    assert told.startswith("error: unexpected KeyError: 'oops'\n")
    assert "LLMARTIFACTS_DEBUG=1" in told
    assert "Traceback" not in told


def test_whoever_asks_gets_the_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    raising(monkeypatch, KeyError("oops"))
    monkeypatch.setenv("LLMARTIFACTS_DEBUG", "1")
    assert entry.main(["ls"]) == wire.BUG
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_an_interrupt_ends_quietly_with_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(monkeypatch, KeyboardInterrupt())
    assert entry.main(["ls"]) == wire.INTERRUPTED
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file", "a.txt"), wire.NOT_FOUND),
        (PermissionError(errno.EACCES, "Permission denied", "a.txt"), wire.NOT_ALLOWED),
        (OSError(errno.EROFS, "Read-only file system", "a.txt"), wire.NOT_ALLOWED),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "a"), wire.WRONG_USE),
        (OSError(errno.ENOSPC, "No space left on device"), wire.UNREACHABLE),
        (OSError("made by hand"), wire.BUG),
    ],
)
def test_what_the_system_refuses_is_no_bug(error: OSError, code: int) -> None:
    made = as_error(error)
    assert wire.exit_code(made) == code
    assert made.hint() or isinstance(made, NotFound)


def told(error: LlmartifactsError, capsys: pytest.CaptureFixture[str]) -> str:
    tell(error, Output())
    return capsys.readouterr().err


def test_every_broken_rule_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    error = Incompatible("they do not fit", problems=("index-dimension: 384, not 768", "index-metric: l2, not cosine"))
    assert told(error, capsys) == (
        "error: they do not fit\n  problems:\n  - index-dimension: 384, not 768\n  - index-metric: l2, not cosine\n"
    )


def test_every_component_that_failed_is_listed_with_its_hint(capsys: pytest.CaptureFixture[str]) -> None:
    error = ResolutionError("cannot start", failures={"agent": NotFound("no agent", near=("agents",))})
    text = told(error, capsys)
    assert "  agent: no agent\n    hint: Did you mean agents?\n" in text


def test_what_the_message_says_already_is_not_said_twice(capsys: pytest.CaptureFixture[str]) -> None:
    error = InvalidTemplate("line 3: 'x' is unknown", line=3, variable="x")
    assert told(error, capsys) == "error: line 3: 'x' is unknown\n"
    assert "  line: 3\n" in told(InvalidTemplate("'x' is unknown", line=3, variable="x"), capsys)


def test_an_error_of_hostile_text_is_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    text = told(NotFound("no \x1b[2Jx\nerror: forged", field="\x07", near=("\x9b1m",)), capsys)
    assert text == "error: no \\x1b[2Jx error: forged\n  field: \\x07\n  hint: Did you mean \\x9b1m?\n"


@pytest.mark.parametrize(
    ("line", "field", "hint"),
    [
        (["promot"], "command", "Did you mean promote or project?"),
        (["run", "shw"], "command", "Did you mean show?"),
        (["frobnicate"], "command", "See llmartifacts --help."),
        (["ls", "--jsn"], "--jsn", "Did you mean --json?"),
        (["ls", "--limit", "x"], "--limit", "See llmartifacts ls --help."),
        (["ls", "--limit", "0"], "--limit", "See llmartifacts ls --help."),
        (["ls", "--limit"], "--limit", "See llmartifacts"),
        (["show"], "REF", "See llmartifacts show --help."),
        (["show", "a", "b"], "", "See llmartifacts show --help."),
        (["yank", "a:v1"], "--reason", "See llmartifacts yank --help."),
        (["yank", "a:v1", "--reason", " "], "--reason", "See llmartifacts yank --help."),
        (["lineage", "a", "--format", "pdf"], "--format", "See llmartifacts lineage --help."),
        (["lineage", "a", "--up", "--down"], "--down", "Give one of them."),
        (["rollback", "a:b", "--whole", "--to", "v1", "--reason", "r"], "--to", "Give one of them."),
        (["rollback", "p@r1", "--to", "v1", "--reason", "r"], "--to", "Leave out --to."),
        (["promote", "a:v1", "--to", "b", "--expect", "v1"], "--expect", "Write --expect NAME=vN."),
        (["ls", "a", "--kind", "prompt"], "--kind", "Leave out the name."),
        (["ls", "--before", "v1"], "NAME", "Name the collection."),
        (["ls", "a", "--before", "prod"], "--before", "Write it like v12."),
        (["ls", "a:prod"], "NAME", "For one version: llmartifacts show a:prod."),
        (["log", "files", "a:prod", "x"], "NAME", "Write the name alone; an alias goes into --alias prod."),
        (["init", "https://example.org"], "path", "Name a path."),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else "",
)
def test_wrong_use_names_the_argument_and_says_what_to_do(cli: Any, line: list[str], field: str, hint: str) -> None:
    text = cli(*line, expect=wire.WRONG_USE)
    assert text.out == ""
    assert text.err.startswith("error: ")
    assert f"  hint: {hint}" in text.err
    error = cli("--json", *line, expect=wire.WRONG_USE).error
    assert error["detail"].get("field", "") == field
    assert error["detail"]["hint"].startswith(hint)


def test_a_usage_error_shows_how_the_command_is_used(cli: Any) -> None:
    assert "  usage: llmartifacts show [OPTIONS] " in cli("show", expect=2).err
