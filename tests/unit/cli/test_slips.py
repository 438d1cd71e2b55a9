"""What newcomers get wrong on the command line, and whether what they are told is enough to go on."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts import plugins, wire
from llmartifacts.cli.command import _OTHER_WORDS
from llmartifacts.cli.log import SOURCES
from llmartifacts.cli.main import COMMANDS

Cli = Callable[..., Any]


@pytest.fixture
def work(cli: Cli, tmp_path: Path) -> Cli:
    """A registry, a template and a folder."""
    (tmp_path / "agent.j2").write_text("You are {{ role }}.\n\n{{ question }}\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("notes")
    cli("init")
    cli("log", "prompt", "agent", "agent.j2")
    return cli


@pytest.mark.parametrize(
    ("line", "code", "hint"),
    [
        (["log", "agent", "prompt", "agent.j2"], wire.WRONG_USE, "The kind comes first: llmartifacts log prompt NAME"),
        (["log", "agent.j2", "prompt", "agent"], wire.WRONG_USE, "The kind comes first: llmartifacts log prompt NAME"),
        (["log", "dataset", "q", "agent.j2"], wire.NOT_FOUND, "Did you mean eval_dataset? Installed: "),
        (["log", "Prompt", "q", "agent.j2"], wire.NOT_FOUND, "Did you mean prompt? Installed: "),
        (["log", "prompt", "agent", "folder"], wire.WRONG_USE, "Name the file."),
        (["log", "prompt", "agent", "agent.j2", "-m", "shorter", "greeting"], wire.NOT_FOUND, "wants quotes"),
        (["log", "prompt", "agent", "nowhere.xyz"], wire.NOT_FOUND, "The working directory is "),
        (["log", "prompt", "agent", "folder/notes.txt"], wire.WRONG_USE, "-o template_format=… in the shell"),
        (["show", "agent@sha256:0123456789ab"], wire.WRONG_USE, "`llmartifacts show NAME:vN` whole"),
        (["show", "sha256:" + "0" * 64], wire.WRONG_USE, "Write name@sha256:…"),
        (["promote", "agent:v1", "agent:v1", "--to", "prod"], wire.WRONG_USE, "leave one of them out"),
        (["promote", "agent:v1", "--to", "prod", "--expect", "v1"], wire.WRONG_USE, "Write --expect NAME=vN."),
        (
            ["ls", "--registry", "s3://bucket/registry"],
            wire.WRONG_USE,
            "Start a server over it (llmartifacts serve --blobs",
        ),
    ],
)
def test_a_slip_is_answered_with_what_to_write(work: Cli, line: list[str], code: int, hint: str) -> None:
    told = work(*line, expect=code)
    assert hint in told.err.partition("hint: ")[2]
    assert [c["name"] for c in work("ls", "--json").json["collections"]] == ["agent"]


@pytest.mark.parametrize(
    ("line", "meant"),
    [("push x", "log"), ("alias set agent prod", "promote"), ("list", "ls"), ("revert x", "rollback")],
)
def test_a_word_of_another_tool_is_answered_with_ours(work: Cli, line: str, meant: str) -> None:
    assert f"hint: Did you mean llmartifacts {meant}?" in work(*line.split(), expect=wire.WRONG_USE).err
    assert "hint: See llmartifacts project --help." in work("project", "new", expect=wire.WRONG_USE).err


def test_the_words_of_other_tools_lead_to_commands_and_hide_none() -> None:
    commands = {one.name for one in COMMANDS}
    assert {meant.removeprefix("llmartifacts ") for meant in _OTHER_WORDS.values()} <= commands
    assert not _OTHER_WORDS.keys() & commands


@pytest.mark.parametrize("line", [["promote", "agent:v1"], ["rollback", "agent:prod"], ["diff", "agent"]])
def test_wrong_use_is_answered_with_the_usage_and_an_example(work: Cli, line: list[str]) -> None:
    told = work(*line, expect=wire.WRONG_USE).err
    assert f"  usage: llmartifacts {line[0]} " in told
    assert f"  example: llmartifacts {line[0]} " in told


def test_a_wrong_choice_is_told_in_plain_words(work: Cli) -> None:
    told = work("lineage", "agent", "--format", "svg", expect=wire.WRONG_USE).err
    assert "'svg' is not one of 'text', 'mermaid', 'json', 'html'" in told
    assert "Value error" not in told


def test_an_empty_template_is_not_logged(work: Cli, tmp_path: Path) -> None:
    (tmp_path / "empty.j2").write_text(" \n")
    assert "the template is empty" in work("log", "prompt", "agent", "empty.j2", expect=wire.WRONG_USE).err


def test_show_prints_the_template_and_what_else_there_is(work: Cli, tmp_path: Path) -> None:
    assert work("show", "agent").out.endswith("text\nYou are {{ role }}.\n\n{{ question }}\n")
    (tmp_path / "chat.yaml").write_text(
        "template_format: jinja2\n"
        "messages: [{role: system, content: Be brief.}, {role: user, content: '{{ question }}'}]\n"
        "model: {provider: openai, name: gpt-4o, parameters: {temperature: 0.1}}\n"
    )
    work("log", "prompt", "chat", "chat.yaml")
    shown = work("show", "chat").out.partition("\ntext\n")[2]
    assert '"temperature": 0.1' in shown.splitlines()[0]
    assert shown.endswith("\n\n[system]\nBe brief.\n[user]\n{{ question }}\n")
    (tmp_path / "bundle.yaml").write_text(
        "components: {prompt: chat:v1}\nmodels: {llm: {provider: openai, name: gpt-4o, parameters: {top_p: 0.5}}}\n"
    )
    work("log", "bundle", "stack", "bundle.yaml")
    assert "  content  parts: prompt; models: llm openai/gpt-4o\n" in work("show", "stack").out
    assert work("show", "stack").out.endswith('text\nllm: openai/gpt-4o {"top_p": 0.5}\n')


def test_a_template_cannot_act_on_the_terminal(work: Cli, tmp_path: Path) -> None:
    (tmp_path / "evil.j2").write_text("Hello \x1b[31m{{ name }}\n")
    work("log", "prompt", "evil", "evil.j2")
    assert "\x1b" not in work("show", "evil").out


def test_a_long_difference_is_cut_and_says_how_to_see_the_rest(work: Cli, tmp_path: Path) -> None:
    for number in (1, 2):
        lines = (f'{{"id": "{i}", "input": "question {i} {number}"}}\n' for i in range(80))
        (tmp_path / "q.jsonl").write_text("".join(lines))
        work("log", "eval_dataset", "q", "q.jsonl")
    told = work("diff", "q:v1", "q:v2").out
    assert told.count("~ items/") == 50
    assert "and 30 changes more: --limit 80, or --json" in told
    assert work("diff", "q:v1", "q:v2", "--limit", "80").out.count("~ items/") == 80
    assert len(work("diff", "q:v1", "q:v2", "--json").json["changes"]) == 80


def test_a_promotion_that_moves_nothing_says_so_alone(work: Cli) -> None:
    work("promote", "agent:v1", "--to", "prod")
    assert work("promote", "agent:v1", "--to", "prod").out.startswith("nothing had to move\n  PASS compatibility")


def test_the_state_of_an_alias_that_nothing_has_names_those_there_are(work: Cli) -> None:
    work("promote", "agent:v1", "--to", "prod", "--to", "staging")
    assert "its aliases: prod, staging" in work("state", "prd").out


def test_a_warning_of_a_gate_says_how_to_mend_it(work: Cli, tmp_path: Path) -> None:
    (tmp_path / "bundle.yaml").write_text(
        "components: {prompt: agent:v1}\nmodels: {llm: {provider: openai, name: gpt-4o}}\n"
    )
    work("log", "bundle", "stack", "bundle.yaml")
    told = work("promote", "stack:v1", "--to", "prod").out
    assert "with a warning: prompt-variables: nothing gives" in told
    assert "    hint: Name what the caller gives: Bundle(…, inputs=['question', 'role'])." in told


def test_the_first_version_of_a_project_says_so(work: Cli) -> None:
    assert "acm (its first version)" in work("log", "prompt", "acm/agent", "agent.j2").out
    assert "first version" not in work("log", "prompt", "acm/other", "agent.j2").out
    assert "first version" not in work("log", "prompt", "other", "agent.j2").out


def test_withdrawing_a_part_names_the_bundles_that_still_serve_it(work: Cli, tmp_path: Path) -> None:
    (tmp_path / "bundle.yaml").write_text("components: {prompt: agent:v1}\ninputs: [question, role]\n")
    work("log", "bundle", "stack", "bundle.yaml", "--alias", "prod")
    work("log", "bundle", "unused", "bundle.yaml")
    told = work("yank", "agent:v1", "--reason", "leaks").out
    assert "still served: stack:v1 holds it, and is prod" in told
    assert "unused" not in told


def test_help_names_every_kind_and_every_option_that_it_reads(work: Cli) -> None:
    told = {m[1]: m[2] for m in re.finditer(r"^  (\w+)  +(.*(?:\n {10,}.*)*)", SOURCES, re.MULTILINE)}
    assert told.keys() == set(plugins.BUILT_IN["kinds"])
    for kind, text in told.items():
        refused = work("log", kind, "x", "agent.j2", "-o", "no-such=1", expect=wire.WRONG_USE).err
        _, known, listed = refused.partition("hint: Known options: ")
        options = set(listed.strip().rstrip(".").split(", ")) if known else set()
        assert set(re.findall(r"(\w+)=", text)) - {"role"} == options - {"role"}, kind


def test_a_python_caller_is_told_the_type_that_is_wanted(tmp_path: Path) -> None:
    with la.init(tmp_path / "r") as registry:
        made = registry.log("notes", la.Files({"a": b"1"}))
        with pytest.raises(la.LlmartifactsError) as caught:
            registry.log("agent", "Hello {{ name }}")
        assert "la.Prompt.from_file(path)" in caught.value.hint()
        with pytest.raises(la.LlmartifactsError) as caught:
            registry.log("agent", {"a": 1})
        assert "Prompt, " in caught.value.hint()
        for call in (
            lambda: registry.promote(made, to="prod"),  # type: ignore[arg-type]
            lambda: registry.promote([made], to="prod"),  # type: ignore[list-item]
            lambda: registry.get(made),  # type: ignore[arg-type]
        ):
            with pytest.raises(la.LlmartifactsError) as caught:
                call()
            assert caught.value.hint() == "Give its reference: str(version), here 'notes:v1'."


def test_a_new_alias_that_looks_like_another_is_remarked(work: Cli) -> None:
    work("log", "prompt", "hello", "agent.j2")
    work("log", "prompt", "other", "agent.j2")
    assert "note" not in work("promote", "hello:v1", "--to", "staging").out
    told = work("promote", "hello:v1", "--to", "stagin").out
    assert "note: stagin is a new alias; did you mean staging?" in told
    assert "did you mean" not in work("promote", "hello:v1", "--to", "stagin").out  # not new any more
    assert "did you mean stagin or staging?" in work("promote", "other:v1", "--to", "stagign").out
    assert "did you mean" not in work("promote", "other:v1", "--to", "staging").out  # as hello has it
    work("promote", "hello:v1", "--to", "rc-1")
    assert "did you mean" not in work("promote", "hello:v1", "--to", "rc-2").out
    assert work("promote", "hello:v1", "--to", "prod", "--json").json["moves"]


def test_an_alias_that_a_policy_names_is_no_slip(work: Cli, tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("name: p\naliases:\n  prod2x:\n    kinds:\n      '*': [reason]\n")
    work("log", "prompt", "hello", "agent.j2")
    work("policy", "set", "policy.yaml")
    work("promote", "hello:v1", "--to", "prodx")
    assert "did you mean" not in work("promote", "hello:v1", "--to", "prod2x", "--reason", "x").out
