"""Evidence is bound to content: what lets an alias move today does not count once a bound thing is another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

import llmartifacts as la
from llmartifacts.errors import GateRefused
from llmartifacts.metadata import sqlite_pages
from llmartifacts.records.canonical import canonical_bytes
from llmartifacts.signing import key_files

ITEMS = [{"id": f"q{i}", "input": f"{i} + {i}", "expected_output": str(2 * i)} for i in range(80)]
POLICY = {"name": "production", "aliases": {"prod": {"kinds": {"prompt": [{"eval": {"suite": "adding"}}]}}}}


def prompt(text: str) -> la.Prompt:
    return la.Prompt(text + " {{ input }}", template_format="jinja2")


def answer(value: Any, item: Any) -> str:
    """A model that is right, unless the prompt hurries it: then every third answer is wrong."""
    number = int(item.input.split()[0])
    return "?" if "hurry" in value.format(input="") and number % 3 == 0 else str(2 * number)


def suite(**changes: Any) -> la.EvalSuite:
    given: dict[str, Any] = {"scorers": ["equals"], "thresholds": {"equals": {"margin": 0.05}}, **changes}
    return la.EvalSuite("adding", "sums", **given)


@pytest.fixture
def registry(tmp_path: Path) -> Any:
    """`agent:v1` is prod, `agent:v2` is as good and was measured, `agent:v3` is worse and was measured."""
    with la.init(tmp_path / "registry") as made:
        made.log("sums", la.EvalDataset(ITEMS))
        made.log("agent", prompt("Add."), aliases="prod")
        made.log("agent", prompt("Please add."))
        made.log("agent", prompt("Add, hurry."))
        for version in ("agent:v2", "agent:v3"):
            la.evaluate(made, suite(), version, outputs=answer)
        made.set_policy(POLICY)
        yield made


def refusal(registry: la.Registry, reference: str = "agent:v2") -> GateRefused:
    with pytest.raises(GateRefused) as caught:
        registry.promote(reference, to="prod")
    return caught.value


def test_the_measured_version_moves_and_its_report_is_on_record(registry: la.Registry) -> None:
    made = registry.promote("agent:v2", to="prod")
    judged = next(r for r in made.results if r.gate == "eval")
    assert judged.evidence[0].startswith("adding-report:v1@sha256:")
    assert made.policy == registry.policy().digest  # type: ignore[union-attr]
    assert registry.history("agent:prod")[0].results == made.results


def test_the_worse_version_is_refused_and_nothing_moved(registry: la.Registry) -> None:
    error = refusal(registry, "agent:v3")
    assert error.verdict == "FAIL"
    assert "worse, and by more than 0.05" in error.problems[0]
    assert registry.get("agent:prod").number == 1


def test_a_version_that_nobody_measured_is_inconclusive_and_the_command_is_told(registry: la.Registry) -> None:
    registry.log("agent", prompt("Add slowly."))
    error = refusal(registry, "agent:v4")
    assert error.verdict == "INCONCLUSIVE"
    assert "llmartifacts eval run adding --target agent:v4 --baseline agent:prod" in error.hint()


def _new_dataset(registry: la.Registry) -> None:
    registry.log("sums", la.EvalDataset([*ITEMS, {"id": "more", "input": "100 + 100", "expected_output": "200"}]))


def _new_suite(registry: la.Registry) -> None:
    registry.log("adding", suite(thresholds={"equals": {"margin": 0.04}}))


def _new_scorer(registry: la.Registry) -> None:
    registry.log("adding", suite(scorers=[{"type": "equals", "ignore_case": True}]))


def _new_baseline(registry: la.Registry) -> None:
    registry.remove_policy(message="for a moment")
    registry.log("agent", prompt("Sum."), aliases="prod")
    registry.set_policy(POLICY)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_new_dataset, "the dataset has changed since: sums:latest is sums:v2"),
        (_new_suite, "the suite has changed since: adding:latest is adding:v2"),
        (_new_scorer, "the suite has changed since"),
        (_new_baseline, "and the baseline is agent:v4"),
    ],
)
def test_when_a_bound_thing_is_another_the_report_no_longer_counts_and_the_message_says_which(
    registry: la.Registry, change: Callable[[la.Registry], None], told: str
) -> None:
    assert registry.gate("agent:v2", to="prod").verdict == "PASS"
    change(registry)
    error = refusal(registry)
    assert error.verdict == "INCONCLUSIVE"
    assert told in error.problems[0]
    la.evaluate(registry, suite() if change is not _new_suite else "adding", "agent:v2", outputs=answer)
    if change is not _new_scorer:  # that one logged the old scorer again, as the newest suite
        assert registry.promote("agent:v2", to="prod").moves


def test_a_move_of_another_alias_or_of_latest_voids_nothing(registry: la.Registry) -> None:
    registry.promote("agent:v3", to="staging")
    registry.log("agent", prompt("Something else."))
    registry.log("unrelated", prompt("x"), aliases="prod-like")
    assert registry.gate("agent:v2", to="prod").verdict == "PASS"


def test_a_report_whose_bytes_were_altered_is_tampered(registry: la.Registry, tmp_path: Path) -> None:
    digest = registry.get("adding-report:v2").digest
    found = registry.find("adding-report:v2").manifest
    body = {**found.config, "metrics": registry.find("adding-report:v1").manifest.config["metrics"]}
    forged = canonical_bytes(
        {"schema": "llmartifacts/manifest/1", "kind": "report", "config": body, "files": [], "components": []}
    )
    registry.close()
    database = apsw.Connection(str(tmp_path / "registry" / "registry.db"), vfs=sqlite_pages.vfs())
    database.execute("update manifest set body = ? where digest = ?", (forged, bytes.fromhex(digest[7:])))
    database.close()
    with la.connect(tmp_path / "registry") as opened, pytest.raises(GateRefused) as caught:
        opened.promote("agent:v3", to="prod")
    assert caught.value.verdict == "TAMPERED"
    assert "adding-report:v2" in caught.value.problems[0]


def test_where_signed_reports_are_asked_for_a_made_up_one_does_not_count(
    registry: la.Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMARTIFACTS_KEYS", str(tmp_path / "keys"))
    gate = {"eval": {"suite": "adding", "signed_by": "evaluator"}}
    registry.set_policy({"name": "production", "aliases": {"prod": {"kinds": {"prompt": [gate]}}}})
    assert "nobody with the role evaluator signed it" in refusal(registry).problems[0]
    for person, role in (("eve", "reader"), ("ada", "evaluator")):
        made = key_files.create(person, person)
        registry.trust_key(made.public.text, person=person, roles=[role])
    registry.sign_report("adding-report:v1", key="eve")
    assert "eve: has not that role" in refusal(registry).problems[0]
    registry.sign_report("adding-report:v1", key="ada")
    assert registry.promote("agent:v2", to="prod").moves


def test_going_back_to_nothing_and_forth_again_asks_no_comparison_of_a_version_with_itself(
    registry: la.Registry,
) -> None:
    registry.rollback("agent:prod", reason="the first release was too early")
    la.evaluate(registry, suite(), "agent:v1", baseline="none", outputs=answer)
    assert registry.promote("agent:v1", to="prod").moves
    registry.rollback("agent:prod", reason="once more")
    error = refusal(registry, "agent:v3")  # what was served last is still what it must not be worse than
    assert error.verdict == "FAIL"
    assert "against agent:v1" in error.problems[0]


def test_a_new_alias_that_looks_like_a_protected_one_is_told(registry: la.Registry) -> None:
    found = registry.gate("agent:v3", to="prd")
    assert found.verdict == "PASS"
    assert [r.next_step for r in found.results if r.gate == "policy"] == ["Did you mean prod?"]


def test_too_few_items_are_inconclusive_and_it_is_told_how_many_are_needed(registry: la.Registry) -> None:
    registry.log("sums", la.EvalDataset(ITEMS[:20]))
    la.evaluate(registry, suite(), "agent:v2", outputs=answer)
    error = refusal(registry)
    assert error.verdict == "INCONCLUSIVE"
    assert "20 independent items are too few, 60 are needed" in error.problems[0]
    assert "at least 40 items" in error.hint()


SCORERS = """
def crashes(output, item): raise KeyError("label")
def nan(output, item): return float("nan")
def loops(output, item):
    while True: pass
def eats(output, item): return float(len(bytearray(10**11)))
"""


@pytest.mark.parametrize("name", ["crashes", "nan", "loops", "eats"])
def test_a_scorer_that_crashes_or_gives_nan_or_loops_or_eats_memory_denies_with_error(
    registry: la.Registry, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad_scores.py").write_text(SCORERS)
    monkeypatch.chdir(tmp_path)
    registry.log("sums", la.EvalDataset(ITEMS[:3]))
    bad = {"type": "function", "metric": "bad", "function": f"bad_scores:{name}", "seconds": 0.3}
    demanded = {"bad": {"at_least": 0.5, "min_samples": 1}}
    la.evaluate(registry, suite(scorers=[bad], thresholds=demanded), "agent:v2", outputs=answer)
    error = refusal(registry)
    assert error.verdict == "ERROR"
    assert "bad could not be computed for 3 items" in error.problems[0]


def test_a_model_that_crashes_denies_with_error(registry: la.Registry) -> None:
    def broken(value: Any, item: Any) -> str:
        if item.id == "q7":
            raise RuntimeError("the model is gone")
        return answer(value, item)

    registry.log("agent", prompt("Add, my friend."))
    la.evaluate(registry, suite(), "agent:v4", outputs=broken)
    error = refusal(registry, "agent:v4")
    assert error.verdict == "ERROR"
    assert "could not be computed for 1 items" in error.problems[0]


def test_logging_with_a_protected_alias_is_refused_too_and_nothing_is_logged(registry: la.Registry) -> None:
    with pytest.raises(GateRefused):
        registry.log("agent", prompt("Straight to prod."), aliases=["prod"])
    assert registry.get("agent").number == 3
