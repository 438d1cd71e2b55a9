"""What people without rights, or with a slip of the pen, are told by a server on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llmartifacts import wire
from llmartifacts.cli.main import main
from llmartifacts.records.rights import operator
from llmartifacts.testing.server import RunningServer, running_server
from llmartifacts.versioning.accounts import EmbeddedAccounts
from llmartifacts.versioning.embedded import EmbeddedBackend

As = Callable[..., str]
PEOPLE = {"wendy": "writer", "eve": "evaluator", "pam": "promoter", "alma": "admin", "rob": "reader"}
APP = """
def answer(prompt, item):
    return prompt.format(question=item.input)
"""
SUITE = """
name: echo
dataset: questions
outputs: {runnable: "server_hints_app:answer"}
scorers: [equals]
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hints")


@pytest.fixture(scope="module")
def people(place: Path) -> dict[str, str]:
    """Name -> token; opal administers the registry, and nemo has no rights at all."""
    backend = EmbeddedBackend.create(place / "registry", actor="root")
    backend.create_project("acme", actor="root")
    backend.create_project("secret", actor="root")
    accounts = EmbeddedAccounts(backend.parts, operator("root"))
    for name in (*PEOPLE, "opal", "nemo"):
        accounts.create_account(name)
    accounts.grant("opal", "admin")
    for name, role in PEOPLE.items():
        accounts.grant(name, role, project="acme", aliases=("*", "!prod") if role == "promoter" else ("*",))
    tokens = {name: accounts.create_token(account=name).text for name in (*PEOPLE, "opal", "nemo")}
    backend.close()
    return tokens


@pytest.fixture(scope="module")
def server(place: Path, people: dict[str, str]) -> Iterator[RunningServer]:
    with running_server(place / "registry", folder=place) as running:
        yield running


@pytest.fixture
def acting(
    server: RunningServer,
    people: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> As:
    """`acting("ann", "ls")`: a line as she types it; what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("LLMARTIFACTS_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("LLMARTIFACTS_REGISTRY", server.url)
    monkeypatch.setenv("LLMARTIFACTS_PROJECT", "acme")

    def run(name: str, line: str, expect: int = 0) -> str:
        monkeypatch.setenv("LLMARTIFACTS_TOKEN", people.get(name, name))
        capsys.readouterr()
        code = main(line.split())
        out, err = capsys.readouterr()
        assert code == expect, (line, code, out, err)
        return " ".join((out + err).split()) if "--json" not in line else out

    return run


def test_no_rights_do_not_read_as_an_empty_registry(acting: As) -> None:
    told = acting("nemo", "project ls")
    assert "no projects that you may see" in told
    assert "llmartifacts user whoami" in told
    assert "the first log makes one" not in told
    shown = acting("nemo", "user whoami")
    assert "no roles yet; an administrator gives them: llmartifacts grant add nemo ROLE" in shown


def test_a_project_that_one_may_not_see_is_worded_as_one_that_is_not_there(acting: As) -> None:
    for name in ("rob", "nemo"):
        unseen = acting(name, "ls --project secret", wire.NOT_FOUND)
        absent = acting(name, "ls --project absent", wire.NOT_FOUND)
        assert unseen.replace("secret", "absent") == absent
        assert "llmartifacts user whoami, and ask an administrator" in unseen
    assert "Did you mean acme?" in acting("rob", "ls --project acne", wire.NOT_FOUND)


def test_nobody_is_told_to_ask_for_all_rights(acting: As) -> None:
    for line in ("user ls", "user disable eve", "grant ls --everywhere", "project create other", "gc"):
        told = acting("pam", line, wire.NOT_ALLOWED)
        assert "pam may not administer the whole registry" in told
        assert "ask one to run this very command" in told
        assert "--everywhere" not in told
    told = acting("pam", "grant ls", wire.NOT_ALLOWED)
    assert "pam may not administer acme" in told


def test_the_number_of_a_grant_is_enough_to_take_it_back(acting: As) -> None:
    of_secret = json.loads(acting("opal", "grant add rob reader --project secret --json"))["grant"]["id"]
    acting("alma", f"grant revoke {of_secret}", wire.NOT_FOUND)
    of_acme = json.loads(acting("opal", "grant add rob evaluator --project acme --json"))["grant"]["id"]
    acting("rob", f"grant revoke {of_acme}", wire.NOT_ALLOWED)
    assert f"grant {of_acme} of rob, evaluator of acme, revoked" in acting("alma", f"grant revoke {of_acme}")
    assert f"grant {of_secret} of rob, reader of secret, revoked" in acting("opal", f"grant revoke {of_secret}")


def test_a_grant_elsewhere_is_said_to_be_there_to_those_who_may_know(acting: As) -> None:
    everywhere = next(
        g for g in json.loads(acting("opal", "grant ls --everywhere --json"))["grants"] if not g["project"]
    )
    number = everywhere["id"]
    told = acting("opal", f"grant revoke {number} --project acme", wire.NOT_FOUND)
    assert f"there is no grant {number} in acme" in told
    assert f"Grant {number} is admin of every project, of opal: llmartifacts grant revoke {number} --everywhere" in told
    told = acting("alma", f"grant revoke {number}", wire.NOT_FOUND)
    assert "opal" not in told
    assert acting("alma", "grant revoke 9999", wire.NOT_FOUND).replace("9999", str(number)) == told


def test_what_is_not_there_comes_with_a_next_step(acting: As) -> None:
    assert "llmartifacts user add makes one" in acting("opal", "user show zed", wire.NOT_FOUND)
    assert "Did you mean wendy?" in acting("opal", "user show wendi", wire.NOT_FOUND)
    told = acting("alma", "grant add zed reader", wire.NOT_FOUND)
    assert "An administrator of the registry sees all names" in told
    assert "token ls --all" in acting("rob", "token revoke 0123456789", wire.NOT_FOUND)


@pytest.mark.parametrize("days", [0, 500])
def test_a_life_of_a_token_is_refused_as_on_ones_own_files(days: int, acting: As) -> None:
    error = json.loads(acting("rob", f"token create --days {days} --json", wire.WRONG_USE))["errors"][0]
    assert error["message"] == f"{days} is no life of a token"
    assert error["detail"]["field"] == "days"
    assert "1 to 366" in error["detail"]["hint"]


def test_a_refused_token_is_said_to_come_from_the_environment(acting: As, people: dict[str, str], server) -> None:
    acting("opal", f"token revoke {people['nemo'].split('_')[1]}")
    wrong = people["rob"][:-1] + ("0" if people["rob"][-1] != "0" else "1")
    told = acting(wrong, "ls", wire.NOT_ALLOWED)
    assert "its checksum is wrong" in told
    assert "It came from $LLMARTIFACTS_TOKEN" in told
    assert f"llmartifacts login {server.url}" in told


def test_the_dry_run_says_whether_you_may_move_it(acting: As) -> None:
    Path("agent.j2").write_text("Hello {{ name }}")
    acting("wendy", "log prompt agent agent.j2")
    assert "PASS: it may move" in acting("pam", "gate agent:v1 --to staging")
    assert json.loads(acting("pam", "gate agent:v1 --to staging --json"))["may_move"] is True

    told = acting("pam", "gate agent:v1 --to prod", wire.NOT_ALLOWED)
    assert "PASS: the gates let it move" in told
    assert "you may not move it: pam may not move the alias 'prod' of acme" in told
    found = json.loads(acting("rob", "gate agent:v1 --to staging --json", wire.NOT_ALLOWED))
    assert (found["verdict"], found["may_move"]) == ("PASS", False)
    assert "llmartifacts grant add rob promoter --project acme --alias staging" in found["refusal"]

    Path("policy.yaml").write_text("name: p\naliases: {prod: {kinds: {'*': [{approvals: {count: 1}}]}}}\n")
    acting("alma", "policy set policy.yaml")
    assert "you may not move it" in acting("rob", "gate agent:v1 --to prod", wire.INCONCLUSIVE)
    assert "you may not" not in acting("alma", "gate agent:v1 --to prod", wire.INCONCLUSIVE)


def test_an_evaluator_runs_the_file_of_a_suite_that_a_writer_logged(acting: As) -> None:
    Path("server_hints_app.py").write_text(APP)
    Path("echo.j2").write_text("{{ question }}")
    Path("suite.yaml").write_text(SUITE)
    Path("questions.jsonl").write_text('{"id": "1", "input": "a", "expected_output": "a"}\n')
    acting("wendy", "log prompt echoing echo.j2")
    acting("wendy", "log eval_dataset questions questions.jsonl")
    told = acting("eve", "eval run suite.yaml --target echoing:v1", wire.NOT_ALLOWED)
    assert "eve may not write in acme" in told
    assert "llmartifacts log eval_suite echo FILE" in told
    assert "llmartifacts eval run echo --target echoing:v1" in told

    acting("wendy", "log eval_suite echo suite.yaml")
    found = json.loads(acting("eve", "eval run suite.yaml --target echoing:v1 --json"))
    assert found["suite"]["number"] == 1
    assert found["report"]["author"] == "eve"
