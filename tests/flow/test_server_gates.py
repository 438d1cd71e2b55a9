"""Gates on a server, over HTTP, by people with different roles: what counts as evidence, and who gets past a policy."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests

import llmartifacts as la
from llmartifacts.errors import GateRefused, Incompatible, InvalidValue, NotAllowed
from llmartifacts.governance import promotion_request
from llmartifacts.kinds.report import Metric
from llmartifacts.records.canonical import canonical_bytes
from llmartifacts.records.digest import digest_of
from llmartifacts.records.rights import operator
from llmartifacts.signing.envelope import seal
from llmartifacts.signing.keys import PrivateKey
from llmartifacts.signing.statement import ApprovalStatement
from llmartifacts.testing.server import RunningServer, running_server
from llmartifacts.versioning.accounts import EmbeddedAccounts
from llmartifacts.versioning.embedded import EmbeddedBackend

PEOPLE = {"wendy": "writer", "eve": "evaluator", "pam": "promoter", "pia": "promoter", "alma": "admin", "rob": "reader"}
SUITE = """
name: quality
dataset: questions
target: agent
outputs: {runnable: my_app:answer}
scorers: [{type: equals}]
thresholds: {equals: {at_least: 0.5}}
"""
GATES = """
import os, time
from pathlib import Path
def slow(candidate):
    Path(os.environ["TMPDIR"], "asked").write_text("x")
    while not Path(os.environ["TMPDIR"], "go").exists(): time.sleep(0.01)
    return True
def never(candidate): return True
"""
As = Callable[[str], la.Registry]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gates")


@pytest.fixture(scope="module")
def people(place: Path) -> dict[str, str]:
    """Name -> token."""
    backend = EmbeddedBackend.create(place / "registry", actor="root")
    backend.create_project("acme", actor="root")
    accounts, tokens = EmbeddedAccounts(backend.parts, operator("root")), {}
    for name, role in PEOPLE.items():
        accounts.create_account(name)
        accounts.grant(name, role, project="acme")
        tokens[name] = accounts.create_token(account=name).text
    accounts.create_account("opal")
    accounts.grant("opal", "admin")
    tokens["opal"] = accounts.create_token(account="opal").text
    backend.close()
    return tokens


@pytest.fixture(scope="module")
def server(place: Path, people: dict[str, str]) -> Iterator[RunningServer]:
    with pytest.MonkeyPatch.context() as patch:
        (place / "team_gates.py").write_text(GATES)
        patch.setenv("PYTHONPATH", str(place))
        patch.setenv("TMPDIR", str(place))
        with running_server(place / "registry", folder=place, allow_gates=["team_gates:slow"]) as running:
            yield running


@pytest.fixture
def acting(server: RunningServer, people: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[As]:
    """`acting("wendy")`: a registry over HTTP, as she has it."""
    opened: list[la.Registry] = []

    def connect(name: str) -> la.Registry:
        monkeypatch.setenv("LLMARTIFACTS_TOKEN", people[name])
        registry = la.connect(server.url, project="acme")
        _ = registry.backend.projects()  # the token is read now
        opened.append(registry)
        return registry

    yield connect
    for registry in opened:
        registry.close()


def policy(*gates: Any, alias: str) -> dict[str, Any]:
    return {"name": "p", "aliases": {alias: {"kinds": {"*": list(gates)}}}}


def report(registry: la.Registry, target: str) -> la.Report:
    suite, data = registry.get("quality"), registry.get("questions")
    scorer = registry.find("quality").manifest.config["scorers"][0]
    metric = Metric("equals", 0.9, 0.85, 0.95, 400, scorer=digest_of(canonical_bytes(scorer)))
    on = {target: registry.get(target).digest}
    return la.Report("quality", on, data.digest, [metric], suite_digest=suite.digest)


def test_only_an_evaluators_report_opens_an_alias(acting: As, tmp_path: Path) -> None:
    wendy, eve, pam, alma = (acting(name) for name in ("wendy", "eve", "pam", "alma"))
    (tmp_path / "quality.yaml").write_text(SUITE)
    wendy.log("questions", la.EvalDataset([{"id": "1", "input": "a", "expected_output": "b"}]))
    wendy.log("quality", la.EvalSuite.from_file(tmp_path / "quality.yaml"))
    wendy.log("agent", la.Prompt("Hello {{ name }}", template_format="jinja2"))
    alma.set_policy(policy({"eval": {"suite": "quality"}}, alias="prod"))
    made = report(wendy, "agent:v1")
    inputs = ["agent:v1", "questions:v1", "quality:v1"]
    wendy.log("quality-report", made, inputs=inputs)
    with pytest.raises(GateRefused, match="wendy logged it") as caught:
        pam.promote("agent:v1", to="prod")
    assert caught.value.verdict == "INCONCLUSIVE"
    assert "Let an evaluator" in caught.value.hint()
    assert [r.vouched for r in pam.evidence("agent:v1")[1]] == [False]
    again = eve.log("quality-report", made, inputs=inputs)
    assert (again.number, again.created) == (1, False)
    assert pam.promote("agent:v1", to="prod").moves
    with pytest.raises(GateRefused):
        pam.promote(wendy.log("agent", la.Prompt("Hi {{ name }}", template_format="jinja2")).reference, to="prod")


def test_nobody_approves_as_somebody_else(acting: As) -> None:
    wendy, pam, pia, opal = (acting(name) for name in ("wendy", "pam", "pia", "opal"))
    version = wendy.log("approved", la.Prompt("Hello {{ name }}", template_format="jinja2"))
    key = PrivateKey.generate()
    with pytest.raises(NotAllowed):
        acting("alma").trust_key(key.public.text, person="pia")  # keys are the whole registry's
    opal.trust_key(key.public.text, person="pia")
    _, request = promotion_request(str(version.reference), "canary", "acme")
    (bound,) = pam.backend.bindings("acme", request)
    signed = seal(ApprovalStatement(bound, "pia", "fine", datetime.now(UTC)).to_bytes(), key)
    with pytest.raises(NotAllowed, match="is pia's, and pam hands it in"):
        pam.backend.approve("acme", signed, actor="pia")
    assert pam.approvals("canary") == []
    assert pia.backend.approve("acme", signed, actor="pia").person == "pia"
    assert [a.person for a in pam.approvals("canary")] == ["pia"]


def test_a_function_that_is_not_allowed_is_refused_when_the_policy_is_set(acting: As) -> None:
    with pytest.raises(InvalidValue, match="does not allow team_gates:never") as caught:
        acting("alma").set_policy(policy({"python": {"function": "team_gates:never"}}, alias="beta"))
    assert "--allow-gate" in caught.value.hint()


def test_while_a_function_is_asked_others_write(acting: As, place: Path) -> None:
    wendy, pam, alma = (acting(name) for name in ("wendy", "pam", "alma"))
    wendy.log("slow", la.Prompt("Hello {{ name }}", template_format="jinja2"))
    alma.set_policy(policy({"python": {"function": "team_gates:slow", "seconds": 30}}, alias="gamma"))
    moved: list[Any] = []
    mover = threading.Thread(target=lambda: moved.append(pam.promote("slow:v1", to="gamma", reason="now")))
    mover.start()
    until = time.monotonic() + 20
    while not (place / "asked").exists() and time.monotonic() < until:
        time.sleep(0.01)
    assert (place / "asked").exists()
    assert wendy.log("slow", la.Prompt("Bye {{ name }}", template_format="jinja2")).number == 2
    assert moved == []
    (place / "go").write_text("x")
    mover.join(30)
    assert [m.new for m in moved[0].moves] == [1]


def test_a_bundle_that_does_not_fit_is_refused_by_the_server_too(acting: As) -> None:
    wendy = acting("wendy")
    wendy.log("part", la.Prompt("Hello {{ stranger }}", template_format="jinja2"))
    with pytest.raises(Incompatible, match="stranger"):
        wendy.log("stack", la.Bundle(components={"prompt": "part:v1"}, inputs=["name"]))


def test_a_preview_is_rendered_by_whoever_may_read(server: RunningServer, people: dict[str, str], acting: As) -> None:
    acting("wendy").log("shown", la.Prompt("Hello {{ name }}!", template_format="jinja2"))
    acting("wendy").log(
        "evil", la.Prompt("{% for a in range(99999) %}" * 2 + "{% endfor %}" * 2, template_format="jinja2")
    )

    def ask(reference: str, **variables: Any) -> requests.Response:
        return requests.post(
            f"{server.url}/api/v1/projects/acme/preview",
            json={"reference": reference, "variables": variables},
            headers={"Authorization": f"Bearer {people['rob']}"},
            timeout=30,
        )

    assert ask("shown:v1", name="Ada").json()["text"] == "Hello Ada!"
    stopped = ask("evil:v1")
    assert (stopped.status_code, stopped.json()["errors"][0]["code"]) == (422, "render_limit_exceeded")
    assert ask("shown:v1").json()["errors"][0]["code"] == "missing_variable"
    assert ask("shown:v1", name="Bob").json()["text"] == "Hello Bob!"


def test_whoever_may_only_read_asks_the_gates_and_moves_nothing(acting: As) -> None:
    acting("wendy").log("free", la.Prompt("Hello {{ name }}", template_format="jinja2"))
    rob = acting("rob")
    assert rob.gate("free:v1", to="canary").verdict == "PASS"
    with pytest.raises(NotAllowed):
        rob.promote("free:v1", to="canary")
    assert dict(rob.state("canary")) == {}
