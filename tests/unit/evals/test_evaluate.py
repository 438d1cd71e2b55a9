"""A suite on a target, to a report: what is asked, compared, recorded and refused."""

from __future__ import annotations

import importlib
import json
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts.errors import InvalidInput, InvalidValue, NotFound, WrongKind
from llmartifacts.evals.compare import compare_reports
from llmartifacts.evals.evaluate import Evaluation, evaluate, evaluate_logged
from llmartifacts.kinds.eval_dataset.value import Item
from llmartifacts.kinds.eval_suite import EvalSuite
from llmartifacts.records.policy import Verdict

N = 80
APP = """
calls = []
def answer(prompt, item):
    calls.append(item.id)
    return prompt.format(question=item.input)
"""
SUITE = """
name: echo
description: Does it echo?
dataset: questions
outputs: {runnable: "evaluate_app:answer"}
scorers: [equals, {type: contains, metric: polite, any_of: [please]}]
thresholds:
  equals: {margin: 0.05}
"""


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[la.Registry]:
    """Prompts: v1 echoes, v2 echoes politely (never equal), v3 echoes in other words of the same text."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evaluate_app.py").write_text(APP)
    monkeypatch.delitem(sys.modules, "evaluate_app", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "suite.yaml").write_text(SUITE)
    with la.init("registry") as made:
        for template in ("{{ question }}", "{{ question }} please", "{{ question }}{# the same #}"):
            made.log("echo-prompt", la.Prompt(template, template_format="jinja2"))
        rows = [
            {"id": f"q{i}", "input": f"echo {i}", "expected_output": f"echo {i}", "group": i // 2} for i in range(N)
        ]
        made.log("questions", la.EvalDataset(rows).with_splits({"dev": 0.25, "test": 0.75}))
        yield made


def suite(**more: Any) -> EvalSuite:
    given: dict[str, Any] = {"scorers": ["equals"], "thresholds": {"equals": {"margin": 0.05}}}
    return EvalSuite("echo", "questions", **(given | more))


def echo(prompt: Any, item: Item) -> str:
    """A plain function of a module, so that its outputs are kept."""
    CALLS[item.id] += 1
    return str(prompt.format(question=item.input))


CALLS: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    CALLS.clear()


def promote(registry: la.Registry, reference: str) -> None:
    registry.promote(reference, to="prod", reason="test")


# --- what is recorded


def test_a_suites_file_and_its_report_are_logged_with_all_that_took_part(registry: la.Registry) -> None:
    promote(registry, "echo-prompt:v1")
    made = evaluate_logged(registry, "suite.yaml", "echo-prompt:v2")
    assert str(made.version) == "echo-report:v1"
    assert str(made.suite_version) == "echo:v1"
    report = registry.resolve("echo-report:v1", la.Report)
    assert report == made.report
    assert report.targets == {"echo-prompt:v2": registry.get("echo-prompt:v2").digest}
    assert report.suite_digest == registry.get("echo:v1").digest
    assert report.dataset == registry.get("questions:v1").digest
    assert report.baseline == registry.get("echo-prompt:v1").digest
    assert [m.scorer for m in report.metrics] == [made.suite.scorer_digest(m.name) for m in report.metrics]
    assert report.environment["outputs"] == "evaluate_app:answer"
    assert "llmartifacts" in report.environment
    assert report.started <= report.ended
    parents = {n.label for n in registry.lineage("echo-report:v1", "up").nodes.values()}
    assert parents >= {"echo-prompt:v2", "echo-prompt:v1", "questions:v1", "echo:v1"}
    assert [i.id for i in report.items] == [f"q{i}" for i in range(N)]
    assert report.items[0].output == "echo 0 please"


def test_the_same_suite_again_is_the_same_version_and_a_new_report(registry: la.Registry) -> None:
    first = evaluate_logged(registry, "suite.yaml", "echo-prompt:v1")
    second = evaluate_logged(registry, "suite.yaml", "echo-prompt:v1")
    third = evaluate_logged(registry, "echo", "echo-prompt:v1")
    assert str(first.suite_version) == str(second.suite_version) == str(third.suite_version) == "echo:v1"
    assert [str(x.version) for x in (first, second, third)] == [f"echo-report:v{n}" for n in (1, 2, 3)]


def test_without_logging_nothing_is_written_and_the_report_is_the_same(registry: la.Registry) -> None:
    before = {c.name for c in registry.collections()}
    made = evaluate_logged(registry, "suite.yaml", "echo-prompt:v1", log=False)
    assert (made.version, made.suite_version) == (None, None)
    assert {c.name for c in registry.collections()} == before
    logged = evaluate_logged(registry, "suite.yaml", "echo-prompt:v1")
    assert made.report.suite_digest == logged.report.suite_digest == registry.get("echo:v1").digest


def test_python_gets_the_report(registry: la.Registry) -> None:
    report = evaluate(registry, suite(), "echo-prompt:v1", outputs=echo)
    assert isinstance(report, la.Report)
    assert report.metric("equals").value == 1.0


def test_everything_stays_in_the_project_of_the_target(registry: la.Registry) -> None:
    registry.create_project("team")
    registry.log("team/echo-prompt", la.Prompt("{{ question }}", template_format="jinja2"))
    registry.log("team/questions", la.EvalDataset([{"id": "q", "input": "x", "expected_output": "x"}]))
    one = EvalSuite("echo", "team/questions", ["equals"])
    made = evaluate_logged(registry, one, "team/echo-prompt:v1", outputs=echo)
    assert made.version is not None
    assert made.version.project == "team"
    with la.connect("registry", project="team") as team:
        again = evaluate_logged(team, "echo", "echo-prompt:v1", outputs=echo)
        assert str(again.version) == "team/echo-report:v2"
        assert compare_reports(team, "echo-report:v1", "echo-prompt:v1").unchanged == 1


def test_an_item_of_a_split_only_is_asked(registry: la.Registry) -> None:
    report = evaluate(registry, suite(split="dev"), "echo-prompt:v1", outputs=echo)
    assert (
        len(report.items) == len(registry.resolve("questions:v1", la.EvalDataset).split("dev")) == sum(CALLS.values())
    )


# --- the baseline


def test_the_first_version_has_nothing_to_be_worse_than(registry: la.Registry) -> None:
    made = evaluate_logged(registry, suite(), "echo-prompt:v1", outputs=echo)
    assert made.baseline is None
    assert made.report.baseline is None
    assert made.report.metric("equals").comparison is None
    assert "echo-prompt:prod does not exist yet" in made.uncompared
    assert made.verdict is Verdict.PASS


def test_the_baseline_is_what_the_alias_serves_now_and_the_same_text_is_not_worse(registry: la.Registry) -> None:
    promote(registry, "echo-prompt:v1")
    made = evaluate_logged(registry, suite(), "echo-prompt:v3", outputs=echo)
    assert str(made.baseline) == "echo-prompt:v1"
    found = made.report.metric("equals").comparison
    assert found is not None
    assert (found.delta, found.n) == (0.0, N)
    assert made.verdict is Verdict.PASS


def test_a_worse_version_fails(registry: la.Registry) -> None:
    promote(registry, "echo-prompt:v1")
    made = evaluate_logged(registry, suite(), "echo-prompt:v2", outputs=echo)
    assert made.verdict is Verdict.FAIL
    assert made.report.metric("equals").value == 0.0


def test_the_baseline_itself_is_not_compared_with_itself(registry: la.Registry) -> None:
    promote(registry, "echo-prompt:v1")
    made = evaluate_logged(registry, suite(), "echo-prompt:v1", outputs=echo)
    assert made.uncompared == "echo-prompt:v1 is the baseline itself"
    assert sum(CALLS.values()) == N


@pytest.mark.parametrize(("named", "expected"), [("echo-prompt:v2", "echo-prompt:v2"), ("none", None), ("prod", None)])
def test_the_baseline_may_be_named_with_the_call(registry: la.Registry, named: str, expected: str | None) -> None:
    made = evaluate_logged(registry, suite(), "echo-prompt:v1", baseline=named, outputs=echo)
    assert (None if made.baseline is None else str(made.baseline)) == expected


def test_a_baseline_that_is_not_there_is_an_error_unless_it_is_an_alias(registry: la.Registry) -> None:
    with pytest.raises(NotFound):
        evaluate(registry, suite(), "echo-prompt:v1", baseline="echo-prompt:v9", outputs=echo)
    with pytest.raises(WrongKind, match="baseline"):
        evaluate(registry, suite(), "echo-prompt:v1", baseline="questions:v1", outputs=echo)
    assert not CALLS


# --- the cache


def test_the_baselines_outputs_come_from_the_cache_and_suites_share_them(registry: la.Registry) -> None:
    evaluate(registry, suite(), "echo-prompt:v1", outputs=echo)
    promote(registry, "echo-prompt:v1")
    made = evaluate_logged(registry, suite(), "echo-prompt:v2", outputs=echo)
    assert (made.asked, made.reused) == (N, N)
    other = EvalSuite("other", "questions", [{"type": "contains", "any_of": ["echo"]}], baseline="none")
    made = evaluate_logged(registry, other, "echo-prompt:v2", outputs=echo)
    assert (made.asked, made.reused) == (0, N)
    assert set(CALLS.values()) == {2}


def test_without_the_cache_everything_is_asked_anew(registry: la.Registry) -> None:
    for cache in (True, False, True):
        evaluate(registry, suite(), "echo-prompt:v1", outputs=echo, cache=cache)
    assert set(CALLS.values()) == {2}


def test_an_item_that_changed_is_asked_and_the_others_are_not(registry: la.Registry) -> None:
    evaluate(registry, suite(), "echo-prompt:v1", outputs=echo)
    rows = list(registry.resolve("questions:v1", la.EvalDataset).rows())
    rows[3]["input"] = "another question"
    registry.log("questions", la.EvalDataset(rows))
    made = evaluate_logged(registry, suite(), "echo-prompt:v1", outputs=echo)
    assert (made.asked, made.reused) == (1, N - 1)


def test_a_changed_function_is_asked_again_once_it_is_loaded(registry: la.Registry, tmp_path: Path) -> None:
    asked = [evaluate_logged(registry, "suite.yaml", "echo-prompt:v1").asked for _ in range(2)]
    assert asked == [N, 0]
    (tmp_path / "evaluate_app.py").write_text(APP + "\n# changed\n")
    # What runs in this process is still what was loaded, and must not be taken for what the file says now.
    assert evaluate_logged(registry, "suite.yaml", "echo-prompt:v1").asked == 0
    del sys.modules["evaluate_app"]
    asked = [evaluate_logged(registry, "suite.yaml", "echo-prompt:v1").asked for _ in range(2)]
    assert asked == [N, 0]
    (tmp_path / "evaluate_app.py").write_text(APP + "\n# changed again\n")
    importlib.reload(sys.modules["evaluate_app"])
    assert evaluate_logged(registry, "suite.yaml", "echo-prompt:v1").asked == N


def test_a_function_with_something_bound_to_it_is_kept_only_under_a_name(registry: la.Registry) -> None:
    calls: list[str] = []

    def bound(prompt: Any, item: Item) -> str:
        calls.append(item.id)
        return item.input

    for _ in range(2):
        evaluate(registry, suite(), "echo-prompt:v1", outputs=bound)
    assert len(calls) == 2 * N
    for _ in range(2):
        evaluate(registry, suite(), "echo-prompt:v1", outputs=bound, cache="mine")
    assert len(calls) == 3 * N


@pytest.mark.parametrize("cache", [True, False])
def test_what_is_interrupted_while_the_baseline_is_asked_asks_nothing_twice(registry: la.Registry, cache: bool) -> None:
    promote(registry, "echo-prompt:v1")

    def interrupt(label: str, done: int, total: int) -> None:
        if label == "asking echo-prompt:v1" and done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(registry, suite(), "echo-prompt:v3", outputs=echo, cache=cache, progress=interrupt, concurrency=1)
    assert "echo-report" not in {c.name for c in registry.collections()}
    made = evaluate_logged(registry, suite(), "echo-prompt:v3", outputs=echo, cache=cache)
    assert made.reused >= N + 5
    assert sum(CALLS.values()) == 2 * N
    assert bool(made.remarks) is not cache


# --- outputs


def test_recorded_outputs_are_compared_with_those_of_the_baselines_own_report(
    registry: la.Registry, tmp_path: Path
) -> None:
    file = tmp_path / "outputs.jsonl"

    def record(words: Callable[[int], str]) -> None:
        file.write_text("".join(json.dumps({"id": f"q{i}", "output": words(i)}) + "\n" for i in range(N)))

    one = suite(outputs={"recorded": "outputs.jsonl"}, scorers=["equals", "contains"])
    record(lambda i: f"echo {i}")
    evaluate(registry, one, "echo-prompt:v1")
    promote(registry, "echo-prompt:v1")
    record(lambda i: f"echo {i}" if i % 2 else "no")
    made = evaluate_logged(registry, one, "echo-prompt:v2")
    assert str(made.baseline) == "echo-prompt:v1"
    found = made.report.metric("equals").comparison
    assert found is not None
    assert (found.delta, made.verdict) == (-0.5, Verdict.FAIL)
    assert made.report.environment["outputs"].startswith("recorded sha256:")


def test_without_a_report_on_the_baseline_recorded_outputs_are_not_compared_and_that_is_said(
    registry: la.Registry,
) -> None:
    promote(registry, "echo-prompt:v1")
    made = evaluate_logged(registry, suite(), "echo-prompt:v2", outputs={f"q{i}": f"echo {i}" for i in range(N)})
    assert made.report.metric("equals").comparison is None
    assert "no report of this suite on the baseline echo-prompt:v1" in made.uncompared
    assert made.verdict is Verdict.INCONCLUSIVE


def test_outputs_may_be_recorded_in_the_registry(registry: la.Registry) -> None:
    lines = "".join(json.dumps({"id": f"q{i}", "output": f"echo {i}"}) + "\n" for i in range(N))
    registry.log("answers", la.Files({"run/outputs.jsonl": lines.encode(), "notes.txt": b"x"}))
    one = suite(outputs={"recorded": "answers:v1"})
    assert evaluate(registry, one, "echo-prompt:v1").metric("equals").value == 1.0
    registry.log("many", la.Files({"a.jsonl": b"", "b.jsonl": b""}))
    with pytest.raises(InvalidInput, match="2 files"):
        evaluate(registry, suite(outputs={"recorded": "many:v1"}), "echo-prompt:v1")


def test_an_item_that_fails_is_an_error_that_no_verdict_passes(registry: la.Registry) -> None:
    def fails_once(prompt: Any, item: Item) -> str:
        if item.id == "q7":
            raise TimeoutError("the model is busy")
        return item.input

    made = evaluate_logged(registry, suite(), "echo-prompt:v1", outputs=fails_once)
    assert made.report.metric("equals").errors == 1
    assert made.report.items[7].error == "TimeoutError: the model is busy"
    assert made.verdict is Verdict.ERROR
    counted = evaluate_logged(registry, suite(on_error="worst"), "echo-prompt:v1", outputs=fails_once)
    assert counted.report.metric("equals").errors == 0
    assert counted.report.metric("equals").value == pytest.approx(1 - 1 / N)
    assert counted.verdict is Verdict.PASS


def test_a_target_that_always_fails_still_gives_a_report(registry: la.Registry) -> None:
    def fails(prompt: Any, item: Item) -> str:
        raise ValueError("no")

    made = evaluate_logged(registry, suite(), "echo-prompt:v1", outputs=fails)
    assert made.report.metric("equals").value is None
    assert made.report.metric("equals").errors == N
    assert made.verdict is Verdict.ERROR
    assert made.version is not None


def test_an_item_that_the_baseline_fails_is_no_comparison_and_denies(registry: la.Registry) -> None:
    promote(registry, "echo-prompt:v2")

    def fails_for_v2(prompt: Any, item: Item) -> str:
        if item.id == "q7" and "please" in prompt.template:
            raise ValueError("no")
        return item.input

    made = evaluate_logged(registry, suite(), "echo-prompt:v1", outputs=fails_for_v2)
    metric = made.report.metric("equals")
    assert metric.comparison is not None
    assert (metric.n, metric.comparison.n, metric.errors) == (N, N - 1, 1)
    assert made.verdict is Verdict.ERROR


def test_repeats_are_averaged_and_asking_more_often_is_another_suite(registry: la.Registry) -> None:
    def noisy(prompt: Any, item: Item, seed: int) -> str:
        return item.input if seed % 2 == 0 else "wrong"

    made = evaluate_logged(registry, suite(seed=10), "echo-prompt:v1", outputs=noisy, repeats=4)
    assert made.report.metric("equals").value == 0.5
    assert made.report.metric("equals").n == N
    assert made.report.items[0].output == ["echo 0", "wrong", "echo 0", "wrong"]
    assert (made.suite.repeats, made.suite.name) == (4, "echo-x4")
    plain = evaluate_logged(registry, suite(seed=10), "echo-prompt:v1", outputs=noisy)
    assert plain.report.suite_digest != made.report.suite_digest
    assert plain.report.metric("equals").value == 1.0


def test_asking_more_often_once_leaves_the_suite_that_gates_ask_for_as_it_is(registry: la.Registry) -> None:
    evaluate(registry, "suite.yaml", "echo-prompt:v1")
    made = evaluate_logged(registry, "suite.yaml", "echo-prompt:v1", repeats=2)
    assert (str(made.suite_version), str(made.version)) == ("echo-x2:v1", "echo-x2-report:v1")
    assert registry.get("echo").number == 1


def test_clusters_are_what_is_counted(registry: la.Registry) -> None:
    promote(registry, "echo-prompt:v1")
    metric = evaluate(registry, suite(cluster="group"), "echo-prompt:v3", outputs=echo).metric("equals")
    assert metric.comparison is not None
    assert metric.n == metric.comparison.n == N // 2


def test_several_metrics_with_a_margin_share_the_probability_of_a_wrong_fail(registry: la.Registry) -> None:
    promote(registry, "echo-prompt:v1")
    limits = {"equals": {"margin": 0.05}, "contains": {"margin": 0.05}, "polite": {"at_least": 0.1}}
    scorers = ["equals", "contains", {"type": "contains", "metric": "polite", "any_of": ["please"]}]
    report = evaluate(registry, suite(scorers=scorers, thresholds=limits), "echo-prompt:v2", outputs=echo)
    assert [m.comparison.metrics for m in report.metrics if m.comparison] == [2, 2, 2]


def test_progress_is_told(registry: la.Registry) -> None:
    promote(registry, "echo-prompt:v1")
    seen: list[tuple[str, int, int]] = []
    evaluate(registry, suite(), "echo-prompt:v2", outputs=echo, progress=lambda *told: seen.append(told))
    assert {label for label, _, _ in seen} == {"asking echo-prompt:v2", "asking echo-prompt:v1"}
    assert seen[-1][1:] == (N, N)


# --- what is refused before anything is asked


@pytest.mark.parametrize(
    ("given", "target", "error", "word"),
    [
        ({"dataset": "nowhere"}, "echo-prompt:v1", NotFound, "nowhere"),
        ({"dataset": "echo-prompt"}, "echo-prompt:v1", WrongKind, "not an eval_dataset"),
        ({"split": "nowhere"}, "echo-prompt:v1", NotFound, "split"),
        ({}, "echo-prompt:v9", NotFound, "v9"),
        ({}, "nobody", NotFound, "nobody"),
        ({}, None, InvalidInput, "no target"),
        ({"cluster": "nothing"}, "echo-prompt:v1", InvalidValue, "clustered"),
        ({"outputs": {"runnable": "nowhere_at_all:f"}}, "echo-prompt:v1", NotFound, "no module"),
        ({"outputs": {"recorded": "nowhere.jsonl"}}, "echo-prompt:v1", NotFound, "nowhere.jsonl"),
        ({"outputs": {"retrieve": {"column": "input"}}}, "echo-prompt:v1", WrongKind, "cannot be searched"),
        ({}, "echo-prompt:v1", InvalidInput, "how outputs are made"),
    ],
)
def test_what_is_wrong_with_a_call_is_told_before_anything_is_asked(
    registry: la.Registry, given: dict[str, Any], target: str | None, error: type[Exception], word: str
) -> None:
    fields = {"name": "bad", "dataset": "questions", "scorers": ["equals"], **given}
    before = {c.name for c in registry.collections()}
    outputs = None if "outputs" in given or word == "how outputs are made" else echo
    with pytest.raises(error, match=word):
        evaluate(registry, EvalSuite(**fields), target, outputs=outputs)
    assert not CALLS
    assert {c.name for c in registry.collections()} == before


def test_a_name_that_is_taken_by_another_kind_is_refused_before_anything_is_asked(registry: la.Registry) -> None:
    for name in ("questions", "echo-prompt"):
        with pytest.raises(WrongKind, match="collection"):
            evaluate(registry, EvalSuite(name, "questions", ["equals"]), "echo-prompt:v1", outputs=echo)
    assert not CALLS


@pytest.mark.parametrize("more", [{"concurrency": 0}, {"concurrency": 1000}, {"repeats": 0}, {"repeats": True}])
def test_conditions_that_make_no_sense_are_refused(registry: la.Registry, more: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        evaluate(registry, suite(), "echo-prompt:v1", outputs=echo, **more)
    assert not CALLS


def test_a_suite_that_is_none_is_refused(registry: la.Registry, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        evaluate(registry, "nowhere.yaml", "echo-prompt:v1")
    with pytest.raises(WrongKind, match="not an eval_suite"):
        evaluate(registry, "questions", "echo-prompt:v1")


def test_a_hanging_runnable_ends_as_an_error_of_its_item(registry: la.Registry) -> None:
    forever = threading.Event()

    def hangs(prompt: Any, item: Item) -> str:
        if item.id == "q5":
            forever.wait()
        return item.input

    made: Evaluation = evaluate_logged(registry, suite(timeout=0.3), "echo-prompt:v1", outputs=hangs)
    assert made.report.items[5].error == "no answer within 0.3 s"
    assert made.report.metric("equals").n == N - 1
    forever.set()
