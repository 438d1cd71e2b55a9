"""The gate `python`: a function of the team's own, in a process of its own."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from llmartifacts.errors import InvalidValue
from llmartifacts.gates.base import Answers, Candidate, Moving, judge
from llmartifacts.gates.python import PythonGate, as_json
from llmartifacts.records.canonical import canonical_bytes
from llmartifacts.records.evidence import RecordedReport, ReportFacts
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.policy import GateResult
from llmartifacts.records.version import Version

MANIFEST = Manifest.build("prompt", {"template": "Hi"})
VERSION = Version("default", "agent", "prompt", 2, MANIFEST.digest, datetime(2026, 1, 1, tzinfo=UTC), author="ann")
ONE = Moving("prod", VERSION, MANIFEST, None)
FUNCTIONS = """
import os, sys, time
def yes(candidate): return True
def no(candidate): return False
def by_author(candidate):
    mine = candidate["subject"]["author"] == "ann" and candidate["subject"]["config"]["template"] == "Hi"
    return {"verdict": "PASS" if mine else "FAIL", "message": candidate["subject"]["name"]}
def tampered(candidate): return {"verdict": "TAMPERED", "message": "no", "next_step": "Ask ann."}
def prints(candidate): print('{"verdict": "PASS"}'); sys.stdout.flush(); return False
def crashes(candidate): raise ValueError("\\x1b[2J broken")
def exits(candidate): os._exit(0)
def loops(candidate): time.sleep(60)
def eats(candidate): return len(bytearray(900_000_000)) > 0
def nonsense(candidate): return {"verdict": "MAYBE"}
def unhashable(candidate): return {"verdict": []}
def one(candidate): return 1
def nothing(candidate): return None
def long(candidate): return {"verdict": "FAIL", "message": "x" * 100000}
"""


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "team_gates.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(str(tmp_path))


def ask(function: str, **options: Any) -> GateResult:
    gate = PythonGate(function=f"team_gates:{function}", **options)
    return judge(gate, Candidate("default", (ONE,), subject=ONE))


@pytest.mark.parametrize(
    ("function", "verdict", "told"),
    [
        ("yes", "PASS", "team_gates:yes says yes"),
        ("no", "FAIL", "team_gates:no says no"),
        ("by_author", "PASS", "agent"),
        ("tampered", "TAMPERED", "no"),
        ("prints", "FAIL", "says no"),
        ("crashes", "ERROR", "ValueError"),
        ("exits", "ERROR", "could not answer (crash)"),
        ("nonsense", "ERROR", "neither true nor false nor a verdict"),
        ("unhashable", "ERROR", ""),
        ("one", "ERROR", "answered '1'"),
        ("nothing", "ERROR", "answered 'None'"),
        ("absent", "ERROR", "could not answer"),
        ("long", "FAIL", "xxx"),
    ],
)
@pytest.mark.usefixtures("functions")
def test_a_function_answers_or_it_is_an_error(function: str, verdict: str, told: str) -> None:
    found = ask(function)
    assert (found.verdict, told in found.message) == (verdict, True), found.message
    assert found.message.isprintable()
    assert len(found.message) <= 1001


@pytest.mark.usefixtures("functions")
def test_one_that_loops_or_eats_memory_is_ended() -> None:
    assert "(timeout)" in ask("loops", seconds=0.3).message
    assert "(memory)" in ask("eats", megabytes=256).message


def test_what_it_gets_is_plain_json() -> None:
    body = as_json(Candidate("default", (ONE,), actor="bob", at=datetime(2026, 1, 1, tzinfo=UTC), subject=ONE))
    assert canonical_bytes(body)
    assert body["subject"]["digest"] == VERSION.digest
    assert body["subject"]["serving"] is None
    assert as_json(Candidate("default", (ONE,)))["subject"] is None


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"function": "team_gates"},
        {"function": "team_gates:"},
        {"function": ":yes"},
        {"function": "a:b:c"},
        {"function": "a b:c"},
        {"function": "../x:y"},
        {"function": "m:f", "seconds": 0},
        {"function": "m:f", "seconds": 61},
        {"function": "m:f", "seconds": True},
        {"function": "m:f", "megabytes": 1},
        {"function": "m:f", "timeout": 1},
    ],
)
def test_options_that_cannot_be_taken_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue):
        PythonGate(**options)


@pytest.mark.usefixtures("functions")
def test_only_functions_that_are_allowed_are_run() -> None:
    gate = PythonGate(function="team_gates:yes")
    for allowed, verdict in ((frozenset({"team_gates:yes"}), "PASS"), (frozenset({"team_gates:no"}), "ERROR")):
        found = judge(gate, Candidate("default", (ONE,), subject=ONE, allowed=allowed))
        assert found.verdict == verdict
    assert "does not allow team_gates:yes: nobody ran it" in found.message


@pytest.mark.usefixtures("functions")
def test_a_question_is_left_open_where_nobody_may_wait_and_answered_once_it_was_asked() -> None:
    gate, answers = PythonGate(function="team_gates:yes"), Answers()
    assert judge(gate, Candidate("default", (ONE,), subject=ONE, answers=answers)).verdict == "ERROR"
    assert len(answers.open) == 1
    answers.ask()
    later = Candidate("default", (ONE,), subject=ONE, answers=answers, at=datetime(2026, 2, 2, tzinfo=UTC))
    assert judge(gate, later).verdict == "PASS"
    assert answers.open == {}
    changed = replace(later, reason="another")
    assert judge(gate, changed).verdict == "ERROR"
    assert len(answers.open) == 1


def test_a_function_sees_only_reports_that_count() -> None:
    reports = [
        RecordedReport(replace(VERSION, name=name), ReportFacts(), vouched=name == "good") for name in ("good", "bad")
    ]
    said = as_json(Candidate("default", (replace(ONE, reports=tuple(reports)),)))
    assert [r["version"] for r in said["moving"][0]["reports"]] == ["good:v2"]
