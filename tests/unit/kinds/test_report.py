"""Reports: consistent in themselves, bound to digests, judged from their config alone."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmartifacts.errors import InvalidManifest, InvalidValue, LlmartifactsError, NotFound
from llmartifacts.kinds.report import ItemScore, Metric, Report, ReportKind, current_environment
from llmartifacts.records.digest import digest_of
from llmartifacts.testing.kinds import check_kind, pack

KIND = ReportKind()
INDEX, QUESTIONS, SUITE = digest_of(b"index"), digest_of(b"questions"), digest_of(b"suite")
RECALL = Metric("recall@5", value=0.75, lower=0.2, upper=1.0, n=2)


def report(**changes: Any) -> Report:
    made: dict[str, Any] = {
        "suite": "support-retrieval",
        "targets": {"support-kb:v5": INDEX},
        "dataset": QUESTIONS,
        "metrics": [RECALL, Metric("latency", 20, 10, 30, 2, lo=0, hi=1000, higher_is_better=False)],
        "items": [
            ItemScore("q1", {"recall@5": 1, "latency": 10}, output={"ids": ["a"]}),
            ItemScore("q2", {"recall@5": 0.5, "latency": 30.0}),
            ItemScore("q3", {"recall@5": None}, error="timed out"),
        ],
        "suite_digest": SUITE,
        "environment": {"python": "3.11.7"},
        "seed": 7,
        "started": "2026-03-03T09:00Z",
        "ended": "2026-03-03T10:01:00+01:00",
    }
    return Report(**{**made, **changes})


def refused(**changes: Any) -> LlmartifactsError:
    with pytest.raises(InvalidValue) as caught:
        report(**changes)
    return caught.value


def test_the_kind_keeps_its_contract() -> None:
    others = [
        report(targets={"support-kb:v5": SUITE}),
        report(targets={"support-kb:v6": INDEX}),
        report(baseline=INDEX),
        report(seed=None),
        report(items=()),
        report(started="2026-03-03T09:00:01Z"),
        report(metrics=[replace(RECALL, lower=0.1), report().metrics[1]]),
    ]
    check_kind(KIND, [report(), Report.from_json(report().to_json())], others)


def test_the_config_carries_what_a_gate_reads() -> None:
    config = pack(KIND, report(baseline=INDEX))[0].config
    assert config == {
        "suite": {"name": "support-retrieval", "digest": SUITE},
        "targets": {"support-kb:v5": INDEX},
        "dataset": QUESTIONS,
        "baseline": INDEX,
        "metrics": [
            {
                "name": "recall@5",
                "value": 0.75,
                "lower": 0.2,
                "upper": 1,
                "n": 2,
                "lo": 0,
                "hi": 1,
                "higher_is_better": True,
                "alpha": 0.05,
            },
            {
                "name": "latency",
                "value": 20,
                "lower": 10,
                "upper": 30,
                "n": 2,
                "lo": 0,
                "hi": 1000,
                "higher_is_better": False,
                "alpha": 0.05,
            },
        ],
        "count": 3,
        "environment": {"python": "3.11.7"},
        "seed": 7,
        "started": "2026-03-03T09:00:00.000000Z",
        "ended": "2026-03-03T09:01:00.000000Z",
    }
    assert KIND.summary(config) == (
        "support-retrieval on support-kb:v5; recall@5: 0.75 [0.2, 1], n = 2; latency: 20 [10, 30], n = 2"
    )


def test_a_report_without_items_is_its_config_alone() -> None:
    manifest, files = pack(KIND, report(items=()))
    assert manifest.files == ()
    assert KIND.unpack(manifest.config, files) == report(items=())


def test_a_second_run_with_the_same_numbers_is_another_report() -> None:
    first, second = (pack(KIND, report(started=f"2026-03-03T09:0{i}Z", ended=""))[0] for i in (1, 2))
    assert first.digest != second.digest


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"suite": ""}, "suite"),
        ({"suite": "a\nb"}, "suite"),
        ({"targets": {}}, "targets"),
        ({"targets": {"support-kb:v5": "sha256:abc"}}, "targets.support-kb:v5"),
        ({"dataset": "questions"}, "dataset"),
        ({"baseline": "prod"}, "baseline"),
        ({"suite_digest": 3}, "suite_digest"),
        ({"metrics": []}, "metrics"),
        ({"metrics": [RECALL, RECALL]}, "metrics"),
        ({"metrics": ["recall@5"]}, "metrics"),
        ({"environment": {"python": 3}}, "environment.python"),
        ({"environment": 3}, "environment"),
        ({"seed": 1.5}, "seed"),
        ({"started": "yesterday"}, "started"),
        ({"ended": "2026-03-03T08:00Z"}, "ended"),
        ({"items": [3]}, "items[0]"),
        ({"items": [ItemScore("", {})]}, "items[0].id"),
        ({"items": [ItemScore("a", {}), ItemScore("a", {})]}, "items[1].id"),
        ({"items": [ItemScore("a", {"recall@5": math.nan})]}, "items[0].scores.recall@5"),
        ({"items": [ItemScore("a", {"recall@5": True})]}, "items[0].scores.recall@5"),
        ({"items": [ItemScore("a", {"recall@5": 1.5})]}, "items.a.recall@5"),
        ({"items": [ItemScore("a", {"other": 1})]}, "items.a"),
        ({"items": [ItemScore("a", {}, output=math.nan)]}, "items[0].output"),
    ],
)
def test_a_wrong_part_is_refused_by_its_field(changes: dict[str, Any], field: str) -> None:
    assert refused(**changes).field == field


def test_aggregates_that_are_not_those_of_the_items_are_refused() -> None:
    better = replace(RECALL, value=0.9)
    error = refused(metrics=[better, report().metrics[1]])
    assert error.field == "metrics.recall@5.value"
    assert "0.75" in str(error)
    assert refused(metrics=[replace(RECALL, n=3), report().metrics[1]]).field == "metrics.recall@5.n"
    unmeasured = Metric("recall@5", None, None, None, 0)
    assert refused(metrics=[unmeasured, report().metrics[1]]).field == "metrics.recall@5"


@pytest.mark.parametrize(
    "changes",
    [
        {"value": 1.5, "upper": 2.0},
        {"lower": 0.8},
        {"upper": 0.7},
        {"lower": -0.1},
        {"value": math.nan},
        {"value": None},
        {"lower": None},
        {"n": 0},
        {"n": -1},
        {"n": True},
        {"lo": 1.0},
        {"hi": math.inf},
        {"alpha": 0.5},
        {"name": " "},
        {"higher_is_better": 1},
    ],
)
def test_an_interval_out_of_order_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue) as caught:
        replace(RECALL, **changes)
    assert caught.value.field.startswith("metrics")


def test_a_metric_that_could_not_be_measured_has_no_value() -> None:
    nothing = Metric("recall@5", None, None, None, 0)
    made = report(metrics=[nothing], items=[ItemScore("a", {"recall@5": None}, error="crashed")])
    assert KIND.unpack(*_packed(made)) == made
    assert str(nothing) == "recall@5: not measured"


def _packed(value: Report) -> tuple[Any, Any]:
    manifest, files = pack(KIND, value)
    return manifest.config, files


def test_a_tampered_file_is_refused() -> None:
    config, files = _packed(report())
    lines = files.read("items.jsonl").splitlines(keepends=True)
    for changed, told in (
        (lines[:2], "2 items, the config says 3"),
        ([*lines, lines[0]], "more items"),
        ([lines[0], lines[0], lines[2]], "twice"),
        ([lines[0].replace(b'"recall@5":1', b'"recall@5":0'), *lines[1:]], "the mean of the items"),
        ([lines[0].replace(b'"id"', b'"ID"'), *lines[1:]], "unknown field"),
        ([b"x\n", *lines[1:]], "not JSON"),
        ([b"{}\n", *lines[1:]], "scores"),
    ):
        with pytest.raises(LlmartifactsError) as caught:
            KIND.unpack(config, files.replaced("items.jsonl", b"".join(changed)))
        assert told in str(caught.value)


def test_a_difference_names_metrics_and_items() -> None:
    after = report(
        metrics=[replace(RECALL, value=0.5), report().metrics[1]],
        items=[replace(report().items[0], scores={"recall@5": 0.5, "latency": 10}), *report().items[1:]],
    )
    first, second = pack(KIND, report()), pack(KIND, after)
    found = KIND.diff(first[0], second[0], (first[1], second[1]))
    assert {c.path for c in found.changes} == {"metrics.recall@5.value", "items/q1.scores.recall@5"}
    assert found.numbers == {"recall@5": -0.25, "latency": 0.0, "items_changed": 1}


def test_a_report_is_read_from_a_json_file(tmp_path: Path) -> None:
    place = tmp_path / "report.json"
    place.write_text(json.dumps(report().to_json()))
    assert KIND.read_source([place], {}) == report()
    body = report().to_json()
    for change, field in (
        ({"metrics": [{"name": "a"}]}, "metrics[0].value"),
        ({"dataset": "x"}, "dataset"),
        ({"items": {}}, "items"),
        ({"items": [{"id": "a", "scores": {}, "x": 1}]}, "items[0].x"),
        ({"items": [3], "count": 1}, "items[0]"),
        ({"surplus": 1}, "surplus"),
        ({"count": 7}, "count"),
    ):
        place.write_text(json.dumps({**body, **change}))
        with pytest.raises(InvalidValue) as caught:
            Report.from_file(place)
        assert (caught.value.field, caught.value.origin) == (field, str(place))
    place.write_text("[]")
    with pytest.raises(InvalidValue):
        Report.from_file(place)
    place.write_text("{")
    with pytest.raises(InvalidManifest):
        Report.from_file(place)
    with pytest.raises(NotFound):
        Report.from_file(tmp_path / "none.json")
    with pytest.raises(InvalidValue):
        KIND.read_source([place, place], {})
    with pytest.raises(InvalidValue):
        KIND.read_source([place], {"x": "y"})


def test_metrics_are_found_by_name() -> None:
    assert report().metric("recall@5") == RECALL
    with pytest.raises(NotFound) as caught:
        report().metric("recall@50")
    assert caught.value.near


def test_the_environment_names_versions_and_what_is_absent() -> None:
    found = current_environment("pydantic", "no-such-package")
    assert found.keys() == {"python", "platform", "pydantic", "no-such-package"}
    assert found["no-such-package"] == "absent"
    assert report(environment=found).environment == found
