"""Two reports, item by item."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts.errors import Incompatible, InvalidValue, MissingExtra, NotAllowed, NotFound
from llmartifacts.evals.compare import compare_reports, differences
from llmartifacts.evals.evaluate import evaluate
from llmartifacts.evals.plot import draw
from llmartifacts.kinds.eval_dataset.value import Item
from llmartifacts.kinds.eval_suite import EvalSuite
from llmartifacts.records.policy import Verdict

N = 80


def answer(prompt: Any, item: Item) -> str:
    """Wrong for the items that the template names."""
    number = int(item.id[1:])
    if item.id == "q9" and "break" in prompt.template:
        raise ValueError("broken")
    return "wrong" if number < int(prompt.template.split()[0]) else str(item.expected_output)


def suite(**more: Any) -> EvalSuite:
    given: dict[str, Any] = {
        "thresholds": {"equals": {"margin": 0.05}},
        "baseline": "prod",
        "scorers": ["equals", {"type": "latency", "cap": 1000}],
    }
    return EvalSuite("s", "questions", **(given | more))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """To be copied, and never opened."""
    folder = tmp_path_factory.mktemp("original")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMARTIFACTS_CACHE", str(folder / "cache"))
        with la.init(folder / "registry", actor="tester") as made:
            for template in ("2 {{ input }}", "0 {{ input }}", "40 break {{ input }}"):
                made.log("p", la.Prompt(template, template_format="jinja2"))
            rows = [
                {"id": f"q{i}", "input": f"question {i}", "expected_output": f"a{i}", "g": i // 2} for i in range(N)
            ]
            made.log("questions", la.EvalDataset(rows))
            for version in (1, 2, 3):
                evaluate(made, suite(), f"p:v{version}", outputs=answer)
    return folder / "registry"


@pytest.fixture
def registry(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[la.Registry]:
    """`p:v1` is wrong on two items, `p:v2` on none, `p:v3` on forty and breaks on one of them."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(original, tmp_path / "registry")
    with la.connect("registry") as made:
        yield made


def test_metrics_are_compared_and_the_second_is_the_candidate(registry: la.Registry) -> None:
    found = compare_reports(registry, "s-report:v1", "s-report:v2")
    assert (str(found.before), str(found.after), found.targets) == ("s-report:v1", "s-report:v2", ("p:v1", "p:v2"))
    equals, latency = found.metrics
    assert equals.comparison is not None
    assert equals.comparison.delta == pytest.approx(2 / N)
    assert (equals.verdict, equals.is_demanded, latency.is_demanded) == (Verdict.PASS, True, False)
    assert [c.id for c in found.changed] == ["q0", "q1"]
    assert found.unchanged == N - 2
    assert not found.remarks


def test_the_items_that_changed_come_worst_first_with_what_was_asked_and_answered(registry: la.Registry) -> None:
    found = compare_reports(registry, "p:v2", "p:v1")
    worst = found.changed[0]
    assert (worst.id, worst.worst, worst.scores) == ("q0", -1.0, {"equals": (1.0, 0.0)})
    assert (worst.input, worst.before, worst.after, worst.errors) == ("question 0", "a0", "wrong", ("", ""))


def test_an_item_that_failed_lost_all(registry: la.Registry) -> None:
    found = compare_reports(registry, "p:v2", "p:v3")
    assert found.metrics[0].verdict is Verdict.ERROR
    assert len(found.changed) == 40
    assert {c.worst for c in found.changed} == {-1.0}
    broken = next(c for c in found.changed if c.id == "q9")
    assert broken.errors == ("", "ValueError: broken")
    assert broken.scores["equals"] == (1.0, None)


def test_targets_stand_for_their_newest_reports_in_common(registry: la.Registry) -> None:
    evaluate(registry, suite(seed=7), "p:v1", outputs=answer)  # of another suite, and newer
    found = compare_reports(registry, "p:v1", "p:v2")
    assert (str(found.before), str(found.after)) == ("s-report:v1", "s-report:v2")
    evaluate(registry, suite(seed=7), "p:v2", outputs=answer)
    found = compare_reports(registry, "p:v1", "p:v2")
    assert (str(found.before), str(found.after)) == ("s-report:v4", "s-report:v5")
    assert str(compare_reports(registry, "s-report:v1", "p:v2").after) == "s-report:v2"


def test_reports_of_other_suites_datasets_or_scorers_are_refused_with_every_reason(registry: la.Registry) -> None:
    evaluate(registry, suite(seed=7), "p:v1", outputs=answer)
    with pytest.raises(Incompatible) as caught:
        compare_reports(registry, "s-report:v1", "s-report:v4")
    assert caught.value.problems[0].startswith("suite: ")
    rows = list(registry.resolve("questions:v1", la.EvalDataset).rows())[:70]
    registry.log("questions", la.EvalDataset(rows))
    evaluate(registry, suite(), "p:v1", outputs=answer)
    with pytest.raises(Incompatible) as caught:
        compare_reports(registry, "s-report:v1", "s-report:v5")
    assert [p.partition(":")[0] for p in caught.value.problems] == ["dataset"]
    evaluate(registry, suite(scorers=["equals", "contains"]), "p:v1", outputs=answer)
    with pytest.raises(Incompatible) as caught:
        compare_reports(registry, "s-report:v1", "s-report:v6")
    assert [p.partition(":")[0] for p in caught.value.problems] == ["suite", "dataset", "scorer", "scorer"]


def test_a_report_that_names_another_scorer_under_the_same_metric_is_refused(registry: la.Registry) -> None:
    config = registry.find("s-report:v1").manifest.config
    forged = {**config, "metrics": [dict(m) for m in config["metrics"]]}
    forged["metrics"][0]["scorer"] = "sha256:" + "0" * 64
    assert differences(config, config) == []
    assert differences(config, forged) == ["scorer: equals was scored by other scorers"]
    forged["metrics"][0] = {**config["metrics"][0], "hi": 2.0}
    assert differences(config, forged) == ["scorer: equals was scored by other scorers"]


def test_clusters_of_the_suite_are_clusters_of_the_comparison(registry: la.Registry) -> None:
    for version in (1, 2):
        evaluate(registry, suite(cluster="g"), f"p:v{version}", outputs=answer)
    comparison = compare_reports(registry, "p:v1", "p:v2").metrics[0].comparison
    assert comparison is not None
    assert comparison.n == N // 2


def test_what_was_never_evaluated_has_no_report(registry: la.Registry) -> None:
    registry.log("p", la.Prompt("9 {{ input }}", template_format="jinja2"))
    with pytest.raises(NotFound, match="no report is on p:v4") as caught:
        compare_reports(registry, "p:v1", "p:v4")
    assert "eval run" in caught.value.hint()


def test_a_report_that_was_logged_by_hand_is_compared_as_far_as_it_goes(registry: la.Registry) -> None:
    report = registry.resolve("s-report:v1", la.Report)
    registry.log("by-hand", report, inputs=["p:v1"])
    found = compare_reports(registry, "s-report:v2", "by-hand:v1")
    assert len(found.remarks) == 2
    assert found.changed[0].input is None
    assert found.metrics[0].verdict is Verdict.INCONCLUSIVE


# --- the picture


@pytest.mark.parametrize(("suffix", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_the_intervals_are_drawn_and_the_same_comparison_gives_the_same_file(
    registry: la.Registry, tmp_path: Path, suffix: str, magic: bytes
) -> None:
    pytest.importorskip("matplotlib", reason="MATPLOTLIB MISSING: plots are not tested")
    found = compare_reports(registry, "p:v2", "p:v1")
    paths = [tmp_path / f"{n}.{suffix}" for n in "ab"]
    for path in paths:
        draw(found, path)
    first, second = (p.read_bytes() for p in paths)
    assert first.startswith(magic)
    if suffix == "png":
        assert first == second
    else:
        assert b"equals" in first or b"glyph" in first or b"<path" in first


def test_without_matplotlib_the_extra_is_named(registry: la.Registry, tmp_path: Path, monkeypatch: Any) -> None:
    import sys

    found = compare_reports(registry, "p:v2", "p:v1")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtra) as caught:
        draw(found, tmp_path / "a.png")
    assert caught.value.extra == "plots"
    assert not (tmp_path / "a.png").exists()


def test_a_picture_that_cannot_be_written_or_has_nothing_to_show_is_refused(
    registry: la.Registry, tmp_path: Path
) -> None:
    import dataclasses

    pytest.importorskip("matplotlib", reason="MATPLOTLIB MISSING: plots are not tested")
    found = compare_reports(registry, "p:v2", "p:v1")
    with pytest.raises(NotAllowed):
        draw(found, tmp_path / "nowhere" / "a.png")
    with pytest.raises(InvalidValue):
        draw(dataclasses.replace(found, metrics=()), tmp_path / "a.png")


def test_a_report_whose_config_does_not_read_well_is_no_report_to_compare() -> None:
    found = differences({"suite": 3}, {})
    assert [p.partition(":")[0] for p in found] == ["report", "report"]
    assert "KeyError" in found[1]
