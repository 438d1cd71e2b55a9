"""The gate `dataset-pinned`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from llmartifacts.errors import InvalidValue
from llmartifacts.gates.base import Candidate, SuiteNow, judge
from llmartifacts.gates.dataset import DatasetPinnedGate
from llmartifacts.records.digest import digest_of
from llmartifacts.records.evidence import SuiteFacts
from llmartifacts.records.policy import GateResult, Verdict
from llmartifacts.records.version import Version

AT = datetime(2026, 1, 1, tzinfo=UTC)
SUITE = Version("default", "support", "eval_suite", 1, digest_of(b"suite"), AT)
DATA = Version("default", "questions", "eval_dataset", 3, digest_of(b"data"), AT)


def ask(names: str, wanted: str | None = None, **changed: Any) -> GateResult:
    gate = DatasetPinnedGate(suite="support", **({} if wanted is None else {"dataset": wanted}))
    now = SuiteNow(
        **{"reference": gate.suite, "version": SUITE, "facts": SuiteFacts("support", names), "dataset": DATA} | changed
    )
    return judge(gate, Candidate("default", (), suites={gate.suite: now}))


def test_a_dataset_by_version_or_digest_is_pinned_and_one_by_alias_may_move() -> None:
    for pinned in ("questions:v3", f"questions@{DATA.digest}", f"questions:v3@{DATA.digest}"):
        found = ask(pinned)
        assert found.verdict is Verdict.PASS
        assert found.evidence == (str(DATA.pinned),)
    for moves in ("questions:latest", "questions:prod", "questions", "not a reference"):
        found = ask(moves)
        assert found.verdict is Verdict.FAIL
        assert found.next_step == "Write questions:v3 in the suite."


def test_where_the_policy_names_the_dataset_it_must_be_that_one() -> None:
    for same in ("questions:v3", f"questions@{DATA.digest}"):
        assert ask("questions:v3", same).verdict is Verdict.PASS
    for other in ("questions:v2", "others:v3", f"questions@{SUITE.digest}"):
        found = ask("questions:v3", other)
        assert (found.verdict, "the policy wants" in found.message) == (Verdict.FAIL, True)


@pytest.mark.parametrize(
    "lacking",
    [{"version": None}, {"dataset": None}, {"problem": "withdrawn"}, {"facts": SuiteFacts(problem="bad")}],
)
def test_without_a_suite_and_its_dataset_nothing_passes(lacking: dict[str, Any]) -> None:
    assert ask("questions:v3", **lacking).verdict is Verdict.INCONCLUSIVE


def test_an_altered_suite_is_tampered_with() -> None:
    assert ask("questions:v3", version=None, problem="altered", tampered=True).verdict is Verdict.TAMPERED


def test_a_suite_that_nobody_looked_up_does_not_pass() -> None:
    assert judge(DatasetPinnedGate(suite="support"), Candidate("default", ())).verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    "options", [{}, {"suite": "a b"}, {"suite": "s", "dataset": "d:latest"}, {"suite": "s", "dataset": "d"}, {"x": 1}]
)
def test_options_that_cannot_be_taken_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue):
        DatasetPinnedGate(**options)
