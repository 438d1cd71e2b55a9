"""The command line and a service over the registry of a server, as over a directory: the same words, the same codes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest

import llmartifacts as la
from llmartifacts import errors, wire
from llmartifacts.cli.main import main
from llmartifacts.client.backend import RemoteBackend
from llmartifacts.client.session import HttpSession
from llmartifacts.signing import key_files
from llmartifacts.testing.server import RunningServer, running_server

APP = """
def answer(prompt, item):
    return prompt.format(question=item.input)
"""
SUITE = """
name: echo
dataset: questions
outputs: {runnable: "remote_registry_app:answer"}
scorers: [equals]
thresholds:
  equals: {margin: 0.05}
"""

Cli = Callable[..., str]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with running_server(tmp_path / "registry") as made:
        yield made


@pytest.fixture
def cli(
    server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Cli:
    """Runs a line in an own directory, with the server for a registry."""
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(place)
    monkeypatch.setenv("LLMARTIFACTS_REGISTRY", server.url)
    monkeypatch.setenv("LLMARTIFACTS_TOKEN", server.token)
    monkeypatch.setenv("LLMARTIFACTS_KEYS", str(tmp_path / "keys"))

    def run(line: str, expect: int = 0) -> str:
        capsys.readouterr()
        code = main(line.split())
        out, err = capsys.readouterr()
        assert code == expect, (line, code, out, err)
        return out + err

    return run


def account(server: RunningServer, name: str, role: str) -> str:
    """Token of a new account with a role in the project `default`."""
    accounts = RemoteBackend(HttpSession(server.url, server.token)).accounts
    accounts.create_account(name)
    accounts.grant(name, role, project="default")
    return accounts.create_token(account=name).text


@pytest.mark.matrix
def test_a_whole_story_on_the_command_line(cli: Cli, server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("agent.j2").write_text("{{ question }}")
    Path("better.j2").write_text("{{ question }}{# better #}")
    Path("worse.j2").write_text("no {{ question }}")
    Path("remote_registry_app.py").write_text(APP)
    Path("suite.yaml").write_text(SUITE)
    rows = [{"id": f"q{i}", "input": f"echo {i}", "expected_output": f"echo {i}"} for i in range(80)]
    Path("questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("data").mkdir()
    Path("data/large.bin").write_bytes(bytes(range(256)) * 8_000)

    for source in ("agent.j2", "better.j2", "worse.j2"):
        assert "new" in cli(f"log prompt agent {source} -m first")
    cli("log eval_dataset questions questions.jsonl")
    cli("log files data data --input agent:v1")
    assert [c["name"] for c in json.loads(cli("ls --json"))["collections"]] == ["agent", "data", "questions"]
    assert "logged" in cli("show agent:v1")
    assert "better" in cli("diff agent:v1 agent:v2")
    cli("pull data:v1 out")
    assert Path("out/large.bin").read_bytes() == Path("data/large.bin").read_bytes()
    assert "agent:prod  - -> v1" in cli("promote agent:v1 data:v1 --to prod --reason first")

    assert cli("eval run suite.yaml --target agent:v2").rstrip().endswith("PASS")
    assert "FAIL" in cli("eval run suite.yaml --target agent:v3", wire.REFUSED)
    assert "echo-report" in cli("evidence agent:v2")
    Path("policy.yaml").write_text(
        "name: strict\naliases:\n  prod:\n    kinds:\n      prompt:\n"
        "        - eval: {suite: echo}\n        - approvals: {count: 1}\n"
    )
    cli("policy set policy.yaml")
    assert "llmartifacts approve agent:v2 --to prod" in cli("gate agent:v2 --to prod", wire.INCONCLUSIVE)
    cli("promote agent:v2 --to prod", wire.INCONCLUSIVE)
    key_files.create("bobs", "bob")
    cli("key trust bobs --person bob --role lead")
    assert "admin hands it in" in cli("approve agent:v2 --to prod --key bobs", wire.NOT_ALLOWED)
    with monkeypatch.context() as patched:
        patched.setenv("LLMARTIFACTS_TOKEN", account(server, "bob", "promoter"))
        assert "signing, as bob" in cli("approve agent:v2 --to prod --key bobs")
        assert "may not log" in cli("log prompt agent worse.j2", wire.NOT_ALLOWED)
    assert "agent:prod  v1 -> v2" in cli("promote agent:v2 --to prod")
    assert "2 rules denied" in cli("gate agent:v3 --to prod", wire.INCONCLUSIVE)

    assert "promote" in cli("history agent:prod")
    assert json.loads(cli("state prod --json"))["revision"] == 2
    assert "v2 -> v1" in cli("rollback agent:prod --reason worse")
    cli("tag agent:v2 seen=yes")
    cli("yank agent:v3 --reason worse")
    assert "agent:v1" in cli("lineage data:v1 --up")
    cli("lock agent=agent:prod data=data:v1")
    assert "nothing moved" in cli("lock --check agent=agent:prod data=data:v1")
    cli("install --to deployed")
    with la.Resolver({"agent": "agent:prod", "data": "data:v1"}, lockfile="deployed", frozen=True) as resolver:
        assert resolver.start().value["agent"].format(question="x") == "x"

    assert "all well" in cli("verify --read-data")
    assert "all well" in cli("audit verify")
    assert "policy" in cli("audit log")
    cli("stats")
    cli("stats data")
    cli("gc --dry-run")
    cli("migrate --dry-run")
    assert "acme" in cli("project create acme") + cli("project ls")
    assert "there is no collection 'nothing'" in cli("ls nothing", wire.NOT_FOUND)
    assert "lla_" not in server.log_text()


def test_what_a_server_cannot_be_asked_is_refused_with_what_to_do(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMARTIFACTS_TOKEN", "")
    assert "llmartifacts login" in cli("ls", wire.NOT_ALLOWED)
    monkeypatch.setenv("LLMARTIFACTS_REGISTRY", "http://127.0.0.1:9")
    monkeypatch.setenv("LLMARTIFACTS_TIMEOUT", "1")
    assert "cannot be had" in cli("ls", wire.UNREACHABLE)
    monkeypatch.setenv("LLMARTIFACTS_REGISTRY", "http://registry.example")
    assert "https://" in cli("ls", wire.NOT_ALLOWED)


@dataclass(frozen=True)
class Support:
    agent: Annotated[la.Prompt, "agent:prod"]
    data: Annotated[la.Files, "data:prod"]


def test_a_service_starts_from_a_server_and_goes_on_without_it(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMARTIFACTS_TOKEN", server.token)
    monkeypatch.setenv("LLMARTIFACTS_TIMEOUT", "5")
    with la.connect(server.url) as registry:
        registry.log("agent", la.Prompt("Hi {{ name }}", template_format="jinja2"))
        registry.log("data", la.Files({"large.bin": bytes(range(256)) * 8_000, "small.txt": b"x"}))
        registry.promote(["agent:v1", "data:v1"], to="prod")

    def started() -> tuple[la.Generation[Support], Any]:
        with la.Resolver(Support, registry=server.url) as resolver:
            return resolver.start(), resolver

    generation, _ = started()
    assert generation.value.agent.format(name="Ada") == "Hi Ada"
    assert generation.value.data.read("large.bin") == bytes(range(256)) * 8_000
    assert generation.revision == 1
    assert ";registry;" in generation.stamp()
    server.kill()
    again, _ = started()
    assert again.value.data.read("small.txt") == b"x"
    assert "last-known-good" in again.stamp()
    with pytest.raises(errors.ResolutionError) as caught:
        la.Resolver({"new": "new:prod"}, registry=server.url, startup_timeout=5).start()
    assert isinstance(caught.value.failures["new"], errors.Unreachable)
