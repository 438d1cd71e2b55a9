"""A registry with something of everything, made once and copied."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts.errors import LlmartifactsError
from llmartifacts.kinds.report import Metric
from llmartifacts.records.backend import Backend, PromotionRequest
from llmartifacts.records.digest import digest_of
from llmartifacts.records.reference import Reference
from llmartifacts.signing import approving, key_files


def _prompt(text: str = "Hi {{ x }}") -> la.Prompt:
    return la.Prompt(text, template_format="jinja2")


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """To be copied, and never opened."""
    where = tmp_path_factory.mktemp("original") / "registry"
    with la.init(where, actor="ann") as registry:
        registry.log("a", _prompt(), aliases="prod", tags={"k": "v"}, message="first")
        registry.log("a", _prompt("other"), inputs="a:v1")
        registry.log("a", _prompt("bad"))
        registry.log("f", la.Files({"x": b"x" * 5000}))
        registry.log("set", la.Bundle(components={"p": "a:v1", "f": "f:v1"}), aliases="prod")
        registry.promote("a:v2", to="prod", reason="better", ticket="CHG-1")
        registry.rollback("a:prod", reason="worse")
        registry.yank("a:v3", reason="leaks")
        with registry.run("job", parameters={"n": 1}) as run:
            run.use("a:v1")
            run.log("out", _prompt("out"))
    return where


@pytest.fixture
def place(original: Path, tmp_path: Path) -> Path:
    """A registry of one's own."""
    shutil.copytree(original, tmp_path / "registry")
    return tmp_path / "registry"


@pytest.fixture
def registry(place: Path) -> Iterator[la.Registry]:
    """That registry, open."""
    with la.connect(place) as opened:
        yield opened


# --- everything that can be called


class Recorded:
    """Something whose public functions are called; remembers which."""

    def __init__(self, behind: Any) -> None:
        self.behind = behind
        self.called: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        self.called.add(name)
        return getattr(self.behind, name)


def _public(one: Any) -> set[str]:
    return {name for name in dir(one) if not name.startswith("_") and callable(getattr(one, name))}


def _exercise(registry: Any, backend: Any, tmp_path: Path) -> None:
    """Call everything that a registry and its backend have, most of it so that it does something."""
    prompt = la.Prompt("Hi {{ x }}", template_format="jinja2")
    registry.create_project("acme")
    registry.log("a", prompt, aliases="staging", tags={"k": "v"})
    registry.log_many(
        [("a", la.Prompt("two", template_format="jinja2")), ("f", la.Files({"x": b"x"}))], aliases=["staging", "prod"]
    )
    registry.promote("a:v1", to="prod", reason="first", expect={"a": "v2"})
    registry.promote(["a:v2", "f:v1"], to=["prod", "eu"], reason="both")
    registry.rollback("a:prod", reason="worse")
    registry.rollback("a:prod", to="v1", reason="further") if registry.get("a:prod").number != 1 else None
    registry.promote(["a:v2", "f:v1"], to="us", reason="both again")
    registry.rollback("f:us", whole=True, reason="all of it")
    registry.promote("f:v1", to="gone")
    registry.remove_alias("f:gone", reason="over")
    registry.set_policy({"name": "p", "aliases": {"prod": {"kinds": {"*": ["ticket"]}, "break_glass": True}}})
    registry.policy(), registry.policies(), registry.gate("a:v2", "prod"), registry.evidence("a:v1")
    goal = "a:v2" if registry.get("a:prod").number == 1 else "a:v1"
    for denied in (
        lambda: registry.promote(goal, to="prod"),
        lambda: registry.log("a", la.Prompt("three", template_format="jinja2"), aliases="prod"),
        lambda: registry.remove_alias("a:prod", reason="no"),
        lambda: registry.review("default@r1", reason="mine"),
    ):
        with pytest.raises(LlmartifactsError):
            denied()
    registry.promote(goal, to="prod", reason="fire", break_glass=True)
    backend.review("default", registry.promotions()[0].id, reason="seen", actor="zoe")
    registry.remove_policy(message="over")

    key_files.create("ada", "ada")
    registry.trust_key("ada", roles="lead")
    registry.keys(), registry.approve(goal, "staging", key="ada", reason="fine")
    registry.withdraw(registry.approvals("staging")[0].id, reason="not fine")
    report = la.Report("s", {"a:v1": registry.get("a:v1").digest}, digest_of(b"q"), [Metric("m", 1.0, 0.9, 1.0, 9)])
    registry.log("r", report, inputs="a:v1")
    registry.sign_report("r:v1", key="ada")
    approving.rotate(backend, "ada", actor="ada")
    registry.revoke_key(registry.keys()[-1].id, reason="lost")

    with registry.run("job") as run:
        run.use("a:v1")
        run.log("out", prompt)
    registry.runs(), registry.get_run(registry.runs()[0].id), registry.lineage("r:v1"), registry.diff("a:v1", "a:v2")
    registry.find("a"), registry.get("a"), registry.read("a:v1"), registry.resolve("a:v1"), registry.versions("a")
    registry.load(registry.find("a").manifest), registry.pull("f", tmp_path / "out"), registry.collections()
    registry.history("a:prod"), registry.promotions(), registry.state("prod"), registry.projects(), registry.stats()
    registry.tag("a:v1", set={"x": "y"}, remove="k"), registry.verify(read_data=True)
    registry.log("y", prompt)
    registry.yank("y:v1", reason="leaks")
    registry.audit_log(), registry.audit_checkpoint(), list(registry.export_audit()), registry.verify_audit()
    registry.gc(dry_run=True), registry.gc(compact=True), registry.migrate()
    registry.repair(), registry.check_external(), registry.backup(str(tmp_path / "backup"))
    registry.export(tmp_path / "export.llma", "a")
    backend.create_project("other", actor="ann")
    registry.import_file(tmp_path / "export.llma", project="other")
    registry.lease("a:v1", holder="web", length=timedelta(days=1)), registry.leases()
    registry.log("h", la.Files({"text": b"held"})), registry.log("h", la.Files({"text": b"newer"}))
    registry.gc(keep_last=1, collections="h", grace=timedelta(hours=1))
    second = la.Report("s", {"a:v1": registry.get("a:v1").digest}, digest_of(b"z"), [Metric("m", 1.0, 0.9, 1.0, 9)])
    registry.log("r", second, inputs="a:v1")
    registry.erase("r", "nothing", reason="asked")
    backend.create_project("short", actor="ann")
    registry.log("short/a", prompt, aliases="prod")
    registry.remove_project("short", reason="over")

    digests = [registry.get("a:v1").digest]
    list(backend.audit()), backend.audit_consistency(1, 2), backend.audit_inclusion(0, 2), backend.manifests(digests)
    (
        backend.identity(),
        backend.revision("default"),
        backend.signers("default", Reference.parse("r:v1")),
        backend.storage([]),
    )
    backend.bindings("default", PromotionRequest(()))


@pytest.fixture
def exercise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[la.Registry], None]:
    """Calls everything that a registry and its backend have; fails where something new is not among it."""
    monkeypatch.setenv("LLMARTIFACTS_KEYS", str(tmp_path / "keys"))

    def call(registry: la.Registry) -> None:
        backend = Recorded(registry.backend)
        registry.backend = backend  # type: ignore[assignment]
        recorded = Recorded(registry)
        _exercise(recorded, backend, tmp_path)
        assert _public(la.Registry) - recorded.called == {"close"}
        assert _public(Backend) - backend.called == {"close"}

    return call
