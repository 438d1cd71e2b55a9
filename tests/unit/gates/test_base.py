from datetime import UTC, datetime

import pytest

from llmartifacts.errors import GateRefused
from llmartifacts.gates.base import AllOf, AnyOf, Candidate, Moving, judge, require_pass
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.policy import GateResult, Verdict
from llmartifacts.records.version import Version
from llmartifacts.wire import exit_code

MANIFEST = Manifest.build("prompt", {})
VERSION = Version("default", "agent", "prompt", 1, MANIFEST.digest, datetime(2026, 1, 1, tzinfo=UTC))
CANDIDATE = Candidate("default", (Moving("prod", VERSION, MANIFEST, None),))


class Says:
    def __init__(self, verdict, name="says"):
        self.name, self.verdict = name, verdict

    def judge(self, candidate):
        return GateResult(
            self.name,
            f"{self.name}-rule",
            self.verdict,
            f"it is {self.verdict}",
            "" if self.verdict == "PASS" else "Do better.",
        )


class Crashes:
    name = "crashes"

    def judge(self, candidate):
        raise ZeroDivisionError("mean of nothing")


class SaysYes:
    name = "yes"

    def judge(self, candidate):
        return True


def test_all_of_passes_only_if_every_gate_passes():
    assert AllOf([Says(Verdict.PASS), Says(Verdict.PASS)]).judge(CANDIDATE).verdict is Verdict.PASS
    for bad in set(Verdict) - {Verdict.PASS}:
        result = AllOf([Says(Verdict.PASS), Says(bad, "bad")]).judge(CANDIDATE)
        assert result.verdict is bad
        assert "bad-rule" in result.message
        assert "says-rule" not in result.message
        assert result.next_step == "Do better."


def test_any_of_passes_if_one_gate_passes_and_then_asks_for_nothing():
    result = AnyOf([Says(Verdict.FAIL), Says(Verdict.PASS, "good")]).judge(CANDIDATE)
    assert (result.verdict, result.next_step) == (Verdict.PASS, "")
    assert "good-rule" in result.message


def test_tampered_evidence_wins_in_both():
    for combined in (AllOf, AnyOf):
        assert combined([Says(Verdict.PASS), Says(Verdict.TAMPERED)]).judge(CANDIDATE).verdict is Verdict.TAMPERED


def test_an_empty_condition_is_an_error_and_never_passes():
    for combined in (AllOf, AnyOf):
        result = combined([]).judge(CANDIDATE)
        assert result.verdict is Verdict.ERROR
        assert "no condition" in result.message
        assert result.next_step


@pytest.mark.parametrize("gate", [Crashes(), SaysYes()])
def test_a_gate_that_crashes_or_answers_with_no_verdict_is_an_error_that_denies(gate):
    for result in (judge(gate, CANDIDATE), AllOf([Says(Verdict.PASS), gate]).judge(CANDIDATE)):
        assert result.verdict is Verdict.ERROR
    assert judge(gate, CANDIDATE).gate == gate.name


def test_gates_nest():
    nested = AllOf([AnyOf([Says(Verdict.FAIL), Says(Verdict.PASS)]), Says(Verdict.PASS)])
    assert nested.judge(CANDIDATE).verdict is Verdict.PASS


def test_require_pass_lists_each_gate_that_did_not_pass():
    results = [Says(v, str(v)).judge(CANDIDATE) for v in (Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE)]
    with pytest.raises(GateRefused) as caught:
        require_pass(results)
    error = caught.value
    assert error.verdict == "INCONCLUSIVE"
    assert [p.partition(" ")[0] for p in error.problems] == ["FAIL", "INCONCLUSIVE"]
    assert "FAIL-rule, INCONCLUSIVE-rule" in error.message
    assert error.hint() == "Do better."
    assert exit_code(error) == 7
    require_pass(results[:1])
    require_pass([])
