"""Nothing moves to `prod` without the right people's signed yes to exactly that; each refusal names its reason."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts.errors import GateRefused
from llmartifacts.signing import approving, key_files
from llmartifacts.wire import exit_code


def policy(name: str = "production", **approvals: Any) -> dict[str, Any]:
    return {"name": name, "aliases": {"prod": {"kinds": {"*": [{"approvals": approvals}]}}}}


def prompt(text: str) -> la.Prompt:
    return la.Prompt(text, template_format="jinja2")


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[la.Registry]:
    """Two prompts of two versions; `agent:v1` serves; Ada and Bob may approve; two of them must."""
    monkeypatch.setenv("LLMARTIFACTS_KEYS", str(tmp_path / "keys"))
    with la.init(tmp_path / "registry") as made:
        monkeypatch.setattr(made, "actor", "zoe")
        for n in (1, 2):
            made.log("agent", prompt(f"agent {n}"))
            made.log("judge", prompt(f"judge {n}"))
        made.promote("agent:v1", "prod")
        for name, person in (("ada", "Ada"), ("ada-home", "Ada"), ("bob", "Bob"), ("zoe", "Zoe")):
            key_files.create(name, person)
            approving.trust(made.backend, name, roles="ml-lead" if person == "Ada" else None, actor="root")
        made.set_policy(policy(count=2, roles=["ml-lead"]))
        yield made


def refused(registry: la.Registry, *references: str) -> GateRefused:
    with pytest.raises(GateRefused) as caught:
        registry.promote(list(references), "prod")
    assert "approvals" in caught.value.message, "the rule is named"
    assert registry.get("agent:prod").number == 1
    return caught.value


def test_two_people_say_yes_and_it_moves_and_history_keeps_who(registry: la.Registry) -> None:
    assert "0 of 2 approvals for agent:v2 -> prod" in refused(registry, "agent:v2").message
    registry.approve("agent:v2", to="prod", key="ada", reason="read the report")
    assert "1 of 2 approvals" in refused(registry, "agent:v2").message
    registry.approve("agent:v2", to="prod", key="bob")
    registry.promote("agent:v2", "prod")
    newest = registry.history("agent:prod")[0]
    assert newest.new == 2
    assert {name.casefold() for name in newest.approvals} == {"ada", "bob"}


def test_what_was_approved_once_is_not_approved_for_ever(registry: la.Registry) -> None:
    """Approved, moved, rolled back: the old approvals are for what the alias was before it moved."""
    for key in ("ada", "bob"):
        registry.approve("agent:v2", to="prod", key=key)
    registry.promote("agent:v2", "prod")
    registry.rollback("agent:prod", reason="worse")
    error = refused(registry, "agent:v2")
    assert "prod of agent has moved since (move 1, now 3)" in error.message


def test_the_author_cannot_approve_and_is_told_so(registry: la.Registry) -> None:
    registry.approve("agent:v2", to="prod", key="zoe")
    registry.approve("agent:v2", to="prod", key="ada")
    assert "by Zoe does not count: Zoe is the author of agent:v2" in refused(registry, "agent:v2").message


def test_one_person_with_two_keys_is_one_person(registry: la.Registry) -> None:
    registry.approve("agent:v2", to="prod", key="ada")
    registry.approve("agent:v2", to="prod", key="ada-home")
    assert "the same person" in refused(registry, "agent:v2").message


def test_an_expired_approval_does_not_count(registry: la.Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.approve("agent:v2", to="prod", key="ada", expires="2099-01-01")
    registry.approve("agent:v2", to="prod", key="bob")
    real = time.time_ns
    monkeypatch.setattr("llmartifacts.metadata.sqlite.time.time_ns", lambda: real() + 100 * 365 * 86400 * 10**9)
    assert "it expired on 2099-01-01T00:00:00" in refused(registry, "agent:v2").message


def test_a_changed_policy_voids_what_was_approved_under_another(registry: la.Registry) -> None:
    for key in ("ada", "bob"):
        registry.approve("agent:v2", to="prod", key=key)
    registry.set_policy(policy(count=1))
    assert "the policy has changed since" in refused(registry, "agent:v2").message
    registry.approve("agent:v2", to="prod", key="bob")
    registry.promote("agent:v2", "prod")


def test_a_move_of_another_alias_or_of_latest_voids_nothing(registry: la.Registry) -> None:
    for key in ("ada", "bob"):
        registry.approve("agent:v2", to="prod", key=key)
    registry.promote("agent:v1", "staging")
    registry.promote("agent:v2", "canary")
    registry.log("agent", prompt("agent 3"))
    registry.log("judge", prompt("judge 3"), aliases="staging")
    registry.promote("agent:v2", "prod")
    assert registry.get("agent:prod").number == 2


def test_it_is_for_the_set_that_was_approved(registry: la.Registry) -> None:
    for key in ("ada", "bob"):
        registry.approve(["agent:v2", "judge:v2"], to="prod", key=key)
    assert "covers judge:v2 too, which does not move" in refused(registry, "agent:v2").message
    assert "judge is v1 now, the approval is for v2" in refused(registry, "agent:v2", "judge:v1").message
    registry.promote(["agent:v2", "judge:v2"], "prod")


def test_a_revoked_key_takes_its_approvals_with_it(registry: la.Registry) -> None:
    for key in ("ada", "bob"):
        registry.approve("agent:v2", to="prod", key=key)
    lost = next(k for k in registry.backend.trusted_keys() if k.person == "Bob")
    registry.backend.revoke_key(lost.id, reason="lost", actor="root")
    assert "of Bob was revoked on" in refused(registry, "agent:v2").message


def test_a_withdrawn_approval_does_not_count(registry: la.Registry) -> None:
    registry.approve("agent:v2", to="prod", key="ada")
    (made,) = registry.approve("agent:v2", to="prod", key="bob")
    registry.backend.withdraw("default", made.id, reason="overlooked a failure", actor="Bob")
    assert "Bob withdrew it: overlooked a failure" in refused(registry, "agent:v2").message


def test_a_forged_approval_is_found_and_stops_everything(registry: la.Registry) -> None:
    for key in ("ada", "bob"):
        registry.approve("agent:v2", to="prod", key=key)
    backend: Any = registry.backend
    with backend._parts.metadata.writing() as s:
        (number, text) = s.row("select id, envelope from attestation order by id limit 1")
        envelope = json.loads(text)
        other = json.loads(s.row("select envelope from attestation order by id desc limit 1")[0])
        envelope["payload"] = other["payload"]
        s.run("update attestation set envelope = :e where id = :i", {"e": json.dumps(envelope), "i": number})
    error = refused(registry, "agent:v2")
    assert error.verdict == "TAMPERED"
    assert exit_code(error) == 5
    assert f"default@a{number} by Ada is forged or was altered" in error.message
    backend.withdraw("default", f"default@a{number}", reason="forged", actor="root")
    registry.approve("agent:v2", to="prod", key="ada")
    registry.promote("agent:v2", "prod")


def test_logging_straight_to_a_protected_alias_needs_the_same_approvals_and_logs_nothing(registry: la.Registry) -> None:
    with pytest.raises(GateRefused):
        registry.log("agent", prompt("agent 3"), aliases="prod")
    assert [v.number for v in registry.versions("agent")] == [2, 1]


def test_the_author_of_a_part_cannot_approve_the_bundle(registry: la.Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "actor", "yan")
    registry.log("stack", la.Bundle(components={"agent": "agent:v2"}))
    registry.approve("stack:v1", to="prod", key="zoe")
    registry.approve("stack:v1", to="prod", key="ada")
    with pytest.raises(GateRefused, match="Zoe is the author of agent:v2"):
        registry.promote("stack:v1", "prod")
    registry.approve("stack:v1", to="prod", key="bob")
    registry.promote("stack:v1", "prod")


def test_the_author_of_what_a_bundle_held_before_may_approve_the_next_one(
    registry: la.Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "actor", "yan")
    registry.log("stack", la.Bundle(components={"agent": "agent:v2"}))
    registry.log("other", prompt("by somebody else"))
    registry.log("stack", la.Bundle(components={"agent": "other:v1"}), inputs="stack:v1")
    registry.approve("stack:v2", to="prod", key="zoe")
    registry.approve("stack:v2", to="prod", key="ada")
    registry.promote("stack:v2", "prod")
