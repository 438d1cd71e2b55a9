"""`gate`, `evidence`, `review`, `policy` and `promote --break-glass` as people type them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import llmartifacts as la
from llmartifacts import plugins, wire
from llmartifacts.gates.base import Candidate
from llmartifacts.kinds.report import Metric
from llmartifacts.records.backend import Draft, Input
from llmartifacts.records.digest import digest_of
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.policy import GateResult, Verdict

Cli = Callable[..., Any]
POLICY = """name: production
aliases:
  prod:
    reason: true
    break_glass: {people: [ada]}
    kinds:
      '*':
      - ticket: {pattern: 'CHG-[0-9]+'}
"""


@pytest.fixture
def guarded(story: Cli, tmp_path: Path) -> Cli:
    """The story, and a policy that protects prod."""
    story("promote", "kb:v1", "--to", "prod", "--reason", "back")
    (tmp_path / "policy.yaml").write_text(POLICY)
    story("policy", "set", "policy.yaml", "-m", "two eyes")
    return story


# --- gate


def test_gate_tells_every_rule_its_verdict_and_what_to_do_and_moves_nothing(guarded: Cli) -> None:
    told = guarded("gate", "kb:v2", "--to", "prod", "--ticket", "7", expect=wire.INCONCLUSIVE).out
    assert told.startswith("kb:prod v1 -> v2\n")
    assert "protects prod" in told
    for line in ("INCONCLUSIVE reason", "FAIL         ticket", "'7' is no such ticket", "--reason", "2 rules denied"):
        assert line in told
    assert guarded("show", "kb:prod", "--json").json["version"]["number"] == 1
    passed = guarded("gate", "kb:v2", "--to", "prod", "--ticket", "CHG-7", "--reason", "x").out
    assert "PASS: it may move" in passed
    assert "evidence: CHG-7" in passed


def test_gate_as_json_says_what_the_text_says(guarded: Cli) -> None:
    line = ["gate", "kb:v2", "docs:v1", "--to", "prod", "--ticket", "7"]
    told = guarded(*line, expect=wire.INCONCLUSIVE).out
    found = guarded(*line, "--json", expect=wire.INCONCLUSIVE).json
    assert found["verdict"] == "INCONCLUSIVE"
    assert found["protected"] == ["prod"]
    for move in found["moves"]:
        assert move in told
    flat = " ".join(told.split())
    for result in found["results"]:
        for key in ("rule", "verdict", "message"):
            assert result[key] in flat
        if result["verdict"] != "PASS":
            assert result["next_step"] in flat


def test_without_a_policy_and_for_a_free_alias_gate_says_so(story: Cli, guarded: Cli) -> None:
    assert "does not protect this alias" in guarded("gate", "kb:v2", "--to", "free").out
    guarded("policy", "rm", "--reason", "over")
    assert "no policy holds" in guarded("gate", "kb:v2", "--to", "prod").out


@pytest.mark.parametrize(
    ("verdict", "code"),
    [("PASS", 0), ("FAIL", 1), ("INCONCLUSIVE", 7), ("ERROR", 8), ("TAMPERED", 5)],
)
def test_each_verdict_has_its_exit_code_in_gate_and_in_promote(
    guarded: Cli, monkeypatch: pytest.MonkeyPatch, verdict: str, code: int
) -> None:
    class Says:
        name = "ticket"

        def judge(self, candidate: Candidate) -> GateResult:
            return GateResult("ticket", "ticket", Verdict(verdict), "so it is")

    monkeypatch.setitem(plugins._LOADED, ("gates", "ticket"), lambda **_: Says())
    line = ["kb:v2", "--to", "prod", "--reason", "x"]
    assert guarded("gate", *line, "--json", expect=code).json["verdict"] == verdict
    ended = guarded("promote", *line, "--json", expect=code)
    assert code == 0 or ended.error["detail"]["verdict"] == verdict


def test_gate_writes_junit_and_markdown_for_ci(guarded: Cli, tmp_path: Path) -> None:
    line = ["gate", "kb:v2", "--to", "prod", "--ticket", "7", "--junit", "gate.xml", "--markdown", "gate.md"]
    guarded(*line, expect=wire.INCONCLUSIVE)
    suite = ElementTree.parse(tmp_path / "gate.xml").getroot()
    assert len(list(suite.iter("failure"))) == 1
    assert len(list(suite.iter("error"))) == 1
    assert "INCONCLUSIVE" in (tmp_path / "gate.md").read_text()


def test_what_cannot_be_moved_at_all_is_told_before_the_gates(guarded: Cli) -> None:
    assert guarded("gate", "kb:v9", "--to", "prod", expect=wire.NOT_FOUND)
    assert guarded("gate", "kb:v2", "--to", "Prod", expect=wire.WRONG_USE)
    assert guarded("gate", "kb:v1", "kb:v2", "--to", "prod", expect=wire.WRONG_USE)


# --- break glass, review


def test_glass_is_broken_by_whom_the_policy_names_shown_in_history_and_reviewed_by_somebody_else(
    guarded: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ["promote", "kb:v2", "--to", "prod", "--reason", "prod answers nothing"]
    refused = guarded(*line, expect=wire.INCONCLUSIVE).err
    assert "ticket" in refused
    told = guarded(*line, "--break-glass", expect=wire.INCONCLUSIVE).err
    assert "tester may not break the glass on prod" in told
    monkeypatch.setenv("LLMARTIFACTS_ACTOR", "ada")
    dry = guarded("gate", *line[1:], "--break-glass").out
    assert "the glass is broken, and somebody must review it" in dry
    done = guarded(*line, "--break-glass").out
    assert "broke the glass, not reviewed yet" in done
    promotion = done.split()[0]
    assert "broke the glass, not reviewed" in guarded("history", "kb:prod").out
    assert "cannot review it" in guarded("review", promotion, "--reason", "fine", expect=wire.REFUSED).err
    monkeypatch.setenv("LLMARTIFACTS_ACTOR", "bob")
    assert guarded("review", promotion, "--reason", "it was down").out == f"{promotion} reviewed by bob: it was down\n"
    assert "broke the glass, reviewed by bob" in guarded("history", "kb:prod").out
    assert guarded("review", promotion, "--reason", "again", expect=wire.CONFLICT)
    assert guarded("review", "default@r99", "--reason", "again", expect=wire.NOT_FOUND)
    (entry, *_) = guarded("history", "kb:prod", "--json").json["history"]
    assert (entry["break_glass"], entry["reviewed_by"]) == (True, "bob")


# --- evidence


def test_evidence_lists_the_reports_on_exactly_this_version(guarded: Cli) -> None:
    assert "no report was logged with it" in guarded("evidence", "kb:v2").out
    with la.connect() as registry:
        metric = Metric("recall@5", 0.75, 0.7, 0.8, 200)
        made = la.Report("support", {"kb:v2": registry.get("kb:v2").digest}, digest_of(b"questions"), [metric])
        registry.log("support-report", made, inputs="kb:v2")
    told = guarded("evidence", "kb:v2").out
    assert "support-report:v1" in told
    assert "recall@5 0.75" in told
    found = guarded("evidence", "kb:v2", "--json").json
    (report,) = found["reports"]
    assert report["report"].startswith("support-report:v1@sha256:")
    assert report["metrics"]["recall@5"]["value"] == 0.75
    assert (report["signers"], report["problem"], report["suite"]) == ([], "", "support")
    assert guarded("evidence", "kb:v1", "--json").json["reports"] == []


def test_evidence_says_of_a_report_that_it_does_not_count_and_who_logged_it(guarded: Cli) -> None:
    with la.connect() as registry:
        metric = Metric("recall@5", 0.75, 0.7, 0.8, 200)
        made = la.Report("support", {"kb:v2": registry.get("kb:v2").digest}, digest_of(b"questions"), [metric])
        registry.log("support-report", made, inputs="kb:v2")
        backend: Any = registry.backend
        with backend.parts.metadata.writing() as s:
            s.run("update version set vouched = 0, author = 'wendy' where id = (select max(id) from version)")
    assert "no: wendy" in guarded("evidence", "kb:v2").out
    assert guarded("evidence", "kb:v2", "--json").json["reports"][0]["counts"] is False


# --- policy


def test_policy_set_show_history_and_rm(guarded: Cli, tmp_path: Path) -> None:
    shown = guarded("policy", "show").out
    assert "# default@p1" in shown
    assert "by tester: two eyes" in shown
    assert "pattern: CHG-[0-9]+" in shown
    (tmp_path / "again.yaml").write_text(shown)
    assert guarded("policy", "set", "again.yaml").out == "the policy 1 says that already\n"
    (tmp_path / "other.yaml").write_text(POLICY.replace("prod:", "eu:"))
    assert "holds now, and protects eu" in guarded("policy", "set", "other.yaml").out
    assert "prod" in guarded("policy", "show", "--number", "1").out
    assert guarded("policy", "show", "--number", "9", expect=wire.NOT_FOUND)
    assert guarded("policy", "rm", expect=wire.WRONG_USE)
    assert "no alias is protected now" in guarded("policy", "rm", "--reason", "the project is over").out
    assert guarded("policy", "rm", "--reason", "again", expect=wire.CONFLICT)
    assert "no policy holds" in guarded("policy", "show", expect=wire.NOT_FOUND).err
    listed = guarded("policy", "history", "--json").json["policies"]
    assert [(p["number"], p["message"]) for p in listed] == [(3, "the project is over"), (2, ""), (1, "two eyes")]
    for text in ("default@p3", "nothing", "two eyes", "production"):
        assert text in guarded("policy", "history").out


def test_policy_check_needs_no_registry_and_tells_the_line(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY)
    assert "production reads well, and protects prod" in cli("policy", "check", "policy.yaml").out
    assert cli("policy", "check", "policy.yaml", "--json").json["aliases"] == ["prod"]
    (tmp_path / "bad.yaml").write_text(POLICY.replace("- ticket", "- tickte"))
    ended = cli("policy", "check", "bad.yaml", expect=wire.WRONG_USE)
    assert "bad.yaml, line 8" in ended.err
    assert "Did you mean ticket?" in ended.err
    error = cli("policy", "check", "bad.yaml", "--json", expect=wire.WRONG_USE).error
    assert error["detail"]["field"] == "aliases.prod.kinds.*[0]"
    assert cli("policy", "check", "none.yaml", expect=wire.NOT_FOUND)
    assert cli("policy", "check", tmp_path, expect=None).code in (wire.WRONG_USE, wire.NOT_FOUND)


def test_a_policy_can_be_set_before_anything_is_logged(cli: Cli, tmp_path: Path) -> None:
    cli("init")
    (tmp_path / "policy.yaml").write_text(POLICY)
    assert "holds now" in cli("policy", "set", "policy.yaml").out
    assert "acme@p1" in cli("policy", "set", "policy.yaml", "--project", "acme").out
    assert "no policy was ever set" not in cli("policy", "history", "--project", "acme").out


# --- hostile text

ESCAPES = "\x1b[2J\x1b]0;owned\x07\u202e"


def test_escapes_in_names_reasons_and_tickets_reach_no_terminal(guarded: Cli, tmp_path: Path) -> None:
    body = {"name": f"p{ESCAPES}", "description": ESCAPES, "aliases": {"prod": {"kinds": {"*": ["ticket"]}}}}
    (tmp_path / "evil.yaml").write_text(json.dumps(body))
    lines = [
        ["policy", "check", "evil.yaml"],
        ["policy", "set", "evil.yaml"],
        ["policy", "set", "evil.yaml", "-m", ESCAPES],
        ["policy", "show"],
        ["policy", "history"],
        ["gate", "kb:v2", "--to", "prod", "--ticket", f"T{ESCAPES}"],
        ["gate", "kb:v2", "--to", "prod", "--reason", ESCAPES],
        ["review", f"default@r1{ESCAPES}", "--reason", "x"],
        ["review", "default@r1", "--reason", ESCAPES],
        ["evidence", f"kb{ESCAPES}"],
        ["promote", "kb:v2", "--to", "prod", "--reason", ESCAPES, "--break-glass"],
    ]
    for line in lines:
        for more in ([], ["--json"]):
            ended = guarded(*line, *more, expect=None)
            assert ended.code != wire.BUG, (line, ended)
            for active in ("\x1b", "\x07", "\u202e"):
                assert active not in ended.out + ended.err, line


def test_a_report_that_no_release_would_write_is_shown_harmlessly(guarded: Cli) -> None:
    with la.connect() as registry:
        on = registry.get("kb:v2")
        metric = {"name": f"m{ESCAPES}", "value": 0.75, "lower": 0.7, "upper": 0.8, "n": 9, "lo": 0.0, "hi": 1.0}
        config = {
            "suite": {"name": f"s{ESCAPES}"},
            "targets": {"kb:v2": on.digest},
            "dataset": f"sha256:{ESCAPES}",
            "metrics": [{**metric, "alpha": 0.05, "higher_is_better": True}],
        }
        drafts = [
            Draft("r", Manifest.build("report", body), inputs=(Input(on.reference, "evaluated_with"),))
            for body in (config, {**config, "metrics": [metric, metric]})
        ]
        registry.backend.commit("default", drafts, actor="eve")
    told = guarded("evidence", "kb:v2").out
    assert "r:v1" in told
    assert "appears twice" in told
    for active in ("\x1b", "\x07", "\u202e"):
        assert active not in told
