"""Keeping few versions, holding some, erasing documents and removing a project: on a directory and over HTTP alike."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts import wire
from llmartifacts.cli.main import main
from llmartifacts.client.backend import RemoteBackend
from llmartifacts.client.session import HttpSession
from llmartifacts.errors import Conflict, NotAllowed, Refused, Removed
from llmartifacts.testing.server import RunningServer, running_server

Cli = Callable[..., str]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("served") / "registry") as made:
        yield made


@pytest.fixture(params=["directory", "http"])
def cli(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Cli:
    """Runs a line in an own folder, with its own project for the names."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("LLMARTIFACTS_CACHE", str(tmp_path / "cache"))
    if request.param == "http":
        server: RunningServer = request.getfixturevalue("server")
        monkeypatch.setenv("LLMARTIFACTS_REGISTRY", server.url)
        monkeypatch.setenv("LLMARTIFACTS_TOKEN", server.token)
    else:
        la.init(tmp_path / "registry", actor="ann").close()
        monkeypatch.setenv("LLMARTIFACTS_REGISTRY", str(tmp_path / "registry"))

    def run(*words: str, expect: int = 0) -> str:
        capsys.readouterr()
        code = main([part for word in words for part in (word.split() if word is words[0] else [word])])
        out, err = capsys.readouterr()
        assert code == expect, (words, code, out, err)
        return out + err

    run("project create story")
    monkeypatch.setenv("LLMARTIFACTS_PROJECT", "story")
    return run


def test_a_whole_story(cli: Cli, tmp_path: Path) -> None:
    for number in range(5):
        Path("a.txt").write_text(f"text {number}\n" * 800)
        cli("log files notes a.txt")
    cli("promote notes:v2 --to prod")
    cli("lock notes=notes:v1 --lease 30d")
    held = json.loads(cli("lease ls --json"))["leases"]
    assert [(one["holder"], len(one["digests"])) for one in held] == [("here/llmartifacts.lock", 1)]
    told = json.loads(cli("gc --keep-last 1 --grace 0 --dry-run --json"))
    assert told["removed"] == ["story/notes:v3", "story/notes:v4"]
    done = json.loads(cli("gc --keep-last 1 --grace 0 --json --reason", "tidy"))
    assert {**told, "dry_run": False} == done
    assert done["freed"] > 0
    assert "removed" in cli("ls notes")
    assert "why      tidy" in cli("show notes:v3")
    assert json.loads(cli("show notes:v3 --json"))["version"]["remove_rule"] == "keep-last 1"
    assert "was removed on" in cli("pull notes:v3 out", expect=wire.NOT_FOUND)
    assert "was removed on" in cli("promote notes:v3 --to prod", expect=wire.NOT_FOUND)
    assert "notes:v3" in cli("lineage notes:v3")
    cli("lock --check --lease 60d")
    assert "holds nothing any more" in cli("lease take here/llmartifacts.lock notes:v1 --for 0")
    assert json.loads(cli("gc --keep-last 1 --grace 0 --json"))["removed"] == ["story/notes:v1"]
    Path("a.txt").write_text("text 2\n" * 800)
    assert "notes:v3" in cli("log files notes a.txt")
    cli("pull notes:v3 out")
    assert Path("out/a.txt").read_text() == "text 2\n" * 800

    for ids in ("abc", "ac"):
        Path("qa.jsonl").write_text("".join(f'{{"id": "{one}", "input": "ask {one}"}}\n' for one in ids))
        cli("log eval_dataset qa qa.jsonl")
    Path("ids.txt").write_text("b\n")
    assert "would go" in cli("erase qa --documents ids.txt --dry-run --reason", "request 1")
    assert "nothing of them is stored any more" in cli("erase qa --documents ids.txt --reason", "request 1")
    assert "qa:latest" in cli("erase qa --document a --reason", "request 2", expect=wire.REFUSED)
    Path("qa.jsonl").write_text("".join(f'{{"id": "{one}", "input": "ask {one}"}}\n' for one in "abc"))
    assert "was erased: request 1" in cli("log eval_dataset qa qa.jsonl", expect=wire.REFUSED)
    assert "all well" in cli("verify --read-data")

    proof = json.loads(cli("project rm story --grace 0 --json --reason", "it ended"))
    assert (proof["project"], proof["reason"], proof["remaining"], proof["waiting"]) == ("story", "it ended", [], [])
    assert set(proof["digests"]) <= set(proof["gone"])
    assert "was removed on" in cli("ls notes", expect=wire.NOT_FOUND)
    assert "story" not in cli("project ls")
    assert "all well" in cli("audit verify")
    again = json.loads(cli("project rm story --grace 0 --json --reason", "it ended"))
    assert (again["list"], again["entry"], again["gone"]) == (proof["list"], proof["entry"], proof["gone"])
    (tmp_path / "done").touch()


@pytest.mark.parametrize("cli", ["directory"], indirect=True)
@pytest.mark.parametrize(
    "line",
    ["gc --collection notes", "gc --reason x", "gc --keep-within soon", "gc --grace -5m", "erase notes --reason x"],
)
def test_a_line_that_says_too_little_is_refused(cli: Cli, line: str) -> None:
    cli(line, expect=wire.WRONG_USE)


# --- rights


def remote(server: RunningServer, name: str, role: str) -> la.Registry:
    """The registry as somebody with a role in a project of their own sees it."""
    accounts: Any = RemoteBackend(HttpSession(server.url, server.token)).accounts
    accounts.create_account(name)
    accounts.grant(name, role, project="shared")
    return opened(server, accounts.create_token(account=name).text)


def opened(server: RunningServer, token: str) -> la.Registry:
    return la.Registry(RemoteBackend(HttpSession(server.url, token)), project="shared", actor="")


def test_a_reader_holds_what_they_read_and_cannot_take_anothers_lease(server: RunningServer) -> None:
    day = timedelta(days=1)
    with opened(server, server.token) as admin:
        admin.create_project("shared")
        for number in range(3):
            admin.log("p", la.Prompt(f"{number}", template_format="f-string"))
        with remote(server, "rita", "reader") as rita, remote(server, "rob", "reader") as rob:
            lease = rita.lease("p:v1", holder="web", length=day)
            assert lease.account == "rita"
            with pytest.raises(NotAllowed, match="somebody else"):
                rob.lease("p:v2", holder="web", length=day)
            assert [one.holder for one in rob.leases()] == ["web"]
            for call in (
                lambda: rita.gc(keep_last=1),
                lambda: rita.erase("p", "x", reason="r"),
                lambda: rita.remove_project("shared", reason="r"),
            ):
                with pytest.raises(NotAllowed):
                    call()
            assert admin.gc(keep_last=1).removed == ("shared/p:v2",)
            with pytest.raises(Removed) as caught:
                rita.resolve("p:v2")
            assert (caught.value.number, caught.value.rule) == (2, "keep-last 1")
            assert rita.resolve("p:v1", la.Prompt).format() == "0"


def test_the_project_of_short_names_is_removed_on_request_only(server: RunningServer) -> None:
    with opened(server, server.token) as admin:
        with suppress(Conflict):
            admin.create_project("default")
        admin.log("default/p", la.Prompt("short", template_format="f-string"))
        with pytest.raises(Refused) as refused:
            admin.remove_project("default", reason="a slip")
        assert "--even-default" in refused.value.hint()
        assert admin.resolve("default/p:v1", la.Prompt).format() == "short"
        proof = admin.remove_project("default", reason="moved", even_default=True)
        assert admin.remove_project("default", reason="moved").entry == proof.entry, "the proof is given anew"
