"""A report must not say more than was measured: slips, outages and odd scorers that could pass for evidence."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts.errors import NotFound
from llmartifacts.evals.compare import compare_reports
from llmartifacts.evals.evaluate import evaluate_logged
from llmartifacts.integrations.hashing import HashingEmbeddings
from llmartifacts.kinds.eval_dataset.value import Item
from llmartifacts.kinds.eval_suite import EvalSuite
from llmartifacts.records.policy import Verdict

N = 80
APP = """
from llmartifacts.integrations.hashing import HashingEmbeddings
one = HashingEmbeddings(32)
def known(output, item):
    return None if output == "?" else float(output == item["expected_output"])
"""


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[la.Registry]:
    """`bot`: v1 serves, v2 is the candidate."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evidence_app.py").write_text(APP)
    monkeypatch.delitem(sys.modules, "evidence_app", raising=False)
    with la.init("registry") as made:
        for text in ("good", "new"):
            made.log("bot", la.Prompt(text, template_format="jinja2"))
        made.log(
            "questions", la.EvalDataset([{"id": f"q{i}", "input": f"{i}", "expected_output": f"{i}"} for i in range(N)])
        )
        made.promote("bot:v1", to="prod", reason="first")
        yield made


def suite(*scorers: Any, **more: Any) -> EvalSuite:
    scorers = scorers or ("equals",)
    name = scorers[0] if isinstance(scorers[0], str) else scorers[0].get("metric", scorers[0]["type"])
    return EvalSuite("s", "questions", list(scorers), **({"thresholds": {name: {"margin": 0.05}}} | more))


def is_new(prompt: Any) -> bool:
    return bool(prompt.template == "new")


def right(prompt: Any, item: Item) -> str:
    return str(item.input)


# --- the baseline's bad day


def test_a_baseline_that_was_down_makes_no_target_look_good(registry: la.Registry) -> None:
    def outage(prompt: Any, item: Item) -> str:
        if is_new(prompt):
            return "wrong"
        raise ConnectionError("down")

    made = evaluate_logged(registry, suite(on_error="worst"), "bot:v2", outputs=outage)
    assert made.report.metric("equals").comparison is None
    assert made.verdict is Verdict.INCONCLUSIVE
    assert "the baseline did not answer 80 items, left out of the comparison" in made.remarks
    assert evaluate_logged(registry, suite(), "bot:v2", outputs=outage).verdict is Verdict.ERROR


def test_items_that_only_the_baseline_missed_are_left_out_and_the_others_compared(registry: la.Registry) -> None:
    def flaky(prompt: Any, item: Item) -> str:
        if not is_new(prompt) and item.id in ("q1", "q2"):
            raise ConnectionError("down")
        return str(item.input)

    made = evaluate_logged(registry, suite(on_error="worst"), "bot:v2", outputs=flaky)
    comparison = made.report.metric("equals").comparison
    assert comparison is not None
    assert (comparison.n, comparison.delta, made.verdict) == (N - 2, 0.0, Verdict.PASS)


def test_what_a_recorded_baseline_missed_is_left_out_too(registry: la.Registry) -> None:
    one = suite(on_error="worst")
    before = {f"q{i}": f"{i}" for i in range(N - 10)}
    evaluate_logged(registry, one, "bot:v1", outputs=before)
    made = evaluate_logged(registry, one, "bot:v2", outputs={f"q{i}": f"{i}" for i in range(N)})
    comparison = made.report.metric("equals").comparison
    assert comparison is not None
    assert (comparison.n, comparison.delta) == (N - 10, 0.0)


def test_comparing_two_reports_leaves_out_what_the_first_missed(registry: la.Registry) -> None:
    def outage(prompt: Any, item: Item) -> str:
        if not is_new(prompt) and int(item.input) < 30:
            raise ConnectionError("down")
        return "wrong" if is_new(prompt) and int(item.input) >= 60 else str(item.input)

    one = suite(on_error="worst")
    for version in ("bot:v1", "bot:v2"):
        evaluate_logged(registry, one, version, outputs=outage, baseline="none")
    found = compare_reports(registry, "bot:v1", "bot:v2")
    comparison = found.metrics[0].comparison
    assert comparison is not None
    assert (comparison.n, comparison.delta) == (N - 30, -0.4)
    assert found.remarks == ("s-report:v1 has no answer to 30 items, left out of the comparison",)


# --- scores on one side only


def test_a_scorer_that_finds_nothing_in_bad_answers_does_not_leave_them_out(registry: la.Registry) -> None:
    def evasive(prompt: Any, item: Item) -> str:
        return "?" if is_new(prompt) and int(item.input) < 10 else str(item.input)

    scorer = {"type": "function", "function": "evidence_app:known"}
    made = evaluate_logged(registry, suite(scorer | {"metric": "known"}), "bot:v2", outputs=evasive)
    assert made.report.metric("known").errors == 10
    assert made.verdict is Verdict.ERROR
    assert "known: no score, where the baseline has one" in made.report.items[0].error


# --- which baseline


def test_an_alias_that_is_misspelt_is_no_first_version(registry: la.Registry) -> None:
    with pytest.raises(NotFound) as caught:
        evaluate_logged(registry, suite(), "bot:v2", outputs=right, baseline="prdo")
    assert "bot:prod" in caught.value.hint()
    first = evaluate_logged(registry, suite(), "bot:v2", outputs=right, baseline="canary")
    assert first.report.baseline is None
    assert "bot:canary does not exist yet" in first.uncompared


def test_the_record_that_the_baseline_was_evaluated_with_is_remarked_on(registry: la.Registry) -> None:
    record = {f"q{i}": f"{i}" for i in range(N)}
    assert not evaluate_logged(registry, suite(), "bot:v1", outputs=record).remarks
    again = evaluate_logged(registry, suite(), "bot:v2", outputs=record)
    assert "this is the very record that s-report:v1 was made of" in again.remarks[0]
    assert not evaluate_logged(registry, suite(), "bot:v2", outputs=record | {"q0": "other"}).remarks


# --- times


def test_a_record_without_times_says_nothing_of_the_latency(registry: la.Registry) -> None:
    one = suite("latency", thresholds={"latency": {"at_most": 1.0}})
    made = evaluate_logged(registry, one, "bot:v2", outputs={f"q{i}": f"{i}" for i in range(N)})
    assert made.verdict is Verdict.ERROR
    assert "it is not recorded how long the answer took" in made.report.items[0].error
    lines = [json.dumps({"id": f"q{i}", "output": "x", "seconds": 0.5}) for i in range(N)]
    Path("timed.jsonl").write_text("\n".join(lines))
    timed = evaluate_logged(registry, one, "bot:v2", outputs="timed.jsonl")
    assert timed.verdict is Verdict.PASS
    assert timed.report.metric("latency").value == pytest.approx(0.5)


def test_times_of_earlier_runs_are_remarked_on(registry: la.Registry) -> None:
    one = suite("latency", thresholds={"latency": {"at_most": 1.0}}, baseline=None)
    assert not evaluate_logged(registry, one, "bot:v2", outputs=right).remarks
    (told,) = evaluate_logged(registry, one, "bot:v2", outputs=right).remarks
    assert told.startswith("80 times of the latency were taken in earlier runs")
    assert not evaluate_logged(registry, one, "bot:v2", outputs=right, cache=False).remarks


# --- the embedder of an index


def test_an_embedder_that_an_index_cannot_check_is_remarked_on(registry: la.Registry) -> None:
    embeddings = HashingEmbeddings(32)
    vectors = embeddings.embed_documents([f"text {i}" for i in range(9)])
    spec = la.EmbeddingSpec(embeddings.model, 32, "inner_product", normalized=False)
    registry.log("kb", la.VectorIndex.from_vectors(vectors, [f"text {i}" for i in range(9)], embedding=spec))
    one = suite("latency", thresholds={}, outputs={"retrieve": {"embeddings": "evidence_app:one"}})
    (told,) = evaluate_logged(registry, one, "kb:v1").remarks
    assert told == "the index has no text probes, so its embedder was not checked"
