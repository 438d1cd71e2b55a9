"""The gates `ticket`, `reason` and `stage`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from llmartifacts.errors import InvalidValue
from llmartifacts.gates.base import Candidate, Gate, Moving, judge
from llmartifacts.gates.words import ReasonGate, StageGate, TicketGate
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.policy import GateResult, Verdict
from llmartifacts.records.version import Version

MANIFEST = Manifest.build("prompt", {})


def ask(gate: Gate, *stages: str, **more: Any) -> GateResult:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    one = Moving("prod", Version("default", "a", "prompt", 2, MANIFEST.digest, at), MANIFEST, None)
    return judge(gate, Candidate("default", (Moving(*_fields(one), stages=frozenset(stages)),), **more))


def _fields(one: Moving) -> tuple[Any, ...]:
    return one.alias, one.version, one.manifest, one.serving


def test_a_ticket_must_match_the_whole_pattern() -> None:
    gate = TicketGate(pattern="CHG-[0-9]+")
    assert ask(gate, ticket="CHG-1042").verdict is Verdict.PASS
    assert ask(gate, ticket="CHG-1042").evidence == ("CHG-1042",)
    for bad in ("CHG-", "xCHG-1", "CHG-1 ", "CHG-1\n", "CHG-" + "1" * 300):
        assert ask(gate, ticket=bad).verdict is Verdict.FAIL
    missing = ask(gate)
    assert missing.verdict is Verdict.INCONCLUSIVE
    assert missing.next_step == "Name one that matches CHG-[0-9]+: --ticket …"


def test_without_a_pattern_any_ticket_will_do() -> None:
    assert ask(TicketGate(), ticket="x").verdict is Verdict.PASS
    assert ask(TicketGate(), ticket=" ").verdict is Verdict.FAIL


def test_a_pattern_that_takes_for_ever_is_ended_and_denies() -> None:
    found = ask(TicketGate(pattern="(a+)+b"), ticket="a" * 60)
    assert found.verdict is Verdict.ERROR
    assert "could not be tried" in found.message


@pytest.mark.parametrize("pattern", ["(CHG|INC)-([0-9]+){1,3}", r"(x)\1+", "a*b*c*d*e*"])
def test_a_pattern_that_could_take_long_is_tried_all_the_same(pattern: str) -> None:
    gate = TicketGate(pattern=pattern)
    good = {"(CHG|INC)-([0-9]+){1,3}": "INC-77", r"(x)\1+": "xxx", "a*b*c*d*e*": "abcde"}[pattern]
    assert ask(gate, ticket=good).verdict is Verdict.PASS
    assert ask(gate, ticket="nothing like it").verdict is Verdict.FAIL


def test_a_reason_is_more_than_spaces() -> None:
    assert ask(ReasonGate(), reason="better").verdict is Verdict.PASS
    for empty in ("", " \n\t"):
        assert ask(ReasonGate(), reason=empty).verdict is Verdict.INCONCLUSIVE


def test_a_stage_is_an_alias_that_the_version_has_or_had() -> None:
    gate = StageGate(after="staging")
    assert ask(gate, "staging", "dev").verdict is Verdict.PASS
    missing = ask(gate, "dev")
    assert missing.verdict is Verdict.INCONCLUSIVE
    assert missing.message == "staging never served a:v2"
    assert missing.next_step == "Promote it there first: llmartifacts promote a:v2 --to staging."


@pytest.mark.parametrize("after", ["", "latest", "v1", "Prod", None, 3, "a b"])
def test_a_stage_is_no_version_and_not_latest_which_everything_was_once(after: Any) -> None:
    with pytest.raises(InvalidValue):
        StageGate(after=after)


@pytest.mark.parametrize("gate", [TicketGate, ReasonGate, StageGate])
def test_unknown_options_are_refused(gate: Any) -> None:
    with pytest.raises(InvalidValue, match="unknown option"):
        gate(after="staging", patern="x")
