"""`eval run` and `eval compare` on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import llmartifacts as la
from llmartifacts import wire

Cli = Callable[..., Any]
N = 80
APP = """
def answer(prompt, item):
    if "break" in prompt.template and item.id == "q3":
        raise RuntimeError("the model is down")
    return prompt.format(question=item.input)
"""
SUITE = """
name: echo
dataset: questions
outputs: {runnable: "cli_evals_app:answer"}
scorers: [equals]
thresholds:
  equals: {margin: 0.05}
"""


@pytest.fixture
def place(cli: Cli, tmp_path: Path) -> Path:
    """`agent`: v1 echoes, v2 never, v3 as v1 in other words, v4 breaks on one item."""
    cli("init")
    (tmp_path / "cli_evals_app.py").write_text(APP)
    (tmp_path / "suite.yaml").write_text(SUITE)
    with la.connect(tmp_path / ".llmartifacts") as registry:
        for template in (
            "{{ question }}",
            "no {{ question }}",
            "{{ question }}{# same #}",
            "{{ question }}{# break #}",
        ):
            registry.log("agent", la.Prompt(template, template_format="jinja2"))
        rows = [{"id": f"q{i}", "input": f"echo {i}", "expected_output": f"echo {i}"} for i in range(N)]
        registry.log("questions", la.EvalDataset(rows))
        registry.promote("agent:v1", to="prod", reason="first")
    return tmp_path


def test_a_version_that_is_not_worse_ends_with_0(place: Path, cli: Cli) -> None:
    ended = cli("eval", "run", "suite.yaml", "--target", "agent:v3")
    assert "echo on agent:v3, against agent:v1, 80 items of questions:v1" in ended.out
    assert "PASS  equals, margin 0.05: not worse" in ended.out
    assert "logged echo-report:v1" in ended.out
    assert ended.out.rstrip().endswith("PASS")


def test_a_worse_version_ends_with_1_and_names_the_items(place: Path, cli: Cli) -> None:
    ended = cli("eval", "run", "suite.yaml", "--target", "agent:v2", expect=wire.REFUSED)
    assert "FAIL  equals, margin 0.05: proven worse than the baseline" in ended.out
    assert "-1.000 [-1.000, -0.9" in ended.out
    assert "80 items lost, 0 gained" in ended.out
    assert "q0" in ended.out
    assert "llmartifacts eval compare agent:v1 agent:v2" in ended.out


def test_too_few_items_end_with_7_and_say_how_many_are_needed(place: Path, cli: Cli) -> None:
    (place / "suite.yaml").write_text(SUITE.replace("margin: 0.05", "margin: 0.05, min_samples: 100"))
    ended = cli("eval", "run", "suite.yaml", "--target", "agent:v3", expect=wire.INCONCLUSIVE)
    assert "80 independent items are too few, 100 are needed" in ended.out
    assert "Add 20 items" in ended.out


def test_an_item_that_fails_ends_with_8_and_is_named(place: Path, cli: Cli) -> None:
    ended = cli("eval", "run", "suite.yaml", "--target", "agent:v4", expect=wire.GATE_ERROR)
    assert "1 item failed:" in ended.out
    assert "q3  RuntimeError: the model is down" in ended.out


def test_json_says_the_same_as_the_text(place: Path, cli: Cli) -> None:
    ended = cli("eval", "run", "suite.yaml", "--target", "agent:v2", "--json", expect=wire.REFUSED)
    found = ended.json
    assert found["verdict"] == "FAIL"
    assert [(r["metric"], r["rule"], r["verdict"]) for r in found["rulings"]] == [("equals", "margin 0.05", "FAIL")]
    assert found["metrics"][0]["comparison"]["delta"] == -1.0
    assert found["report"]["reference"] == "echo-report:v1"
    assert found["baseline"]["reference"] == "agent:v1"
    assert (found["asked"], found["reused"], found["failed"]) == (2 * N, 0, [])
    passed = cli("eval", "run", "echo", "--target", "agent:v3", "--json").json
    assert passed["verdict"] == "PASS"
    broken = cli("eval", "run", "echo", "--target", "agent:v4", "--json", expect=wire.GATE_ERROR).json
    assert broken["failed"] == [{"id": "q3", "error": "RuntimeError: the model is down"}]


def test_the_first_version_of_all_is_told_that_there_is_nothing_to_compare_with(place: Path, cli: Cli) -> None:
    ended = cli("eval", "run", "suite.yaml", "--target", "agent:v1", "--baseline", "canary")
    assert "not compared: agent:canary does not exist yet" in ended.out
    ended = cli("eval", "run", "suite.yaml", "--target", "agent:v1", "--baseline", "none")
    assert "not compared: no comparison was asked for" in ended.out
    ended = cli("eval", "run", "suite.yaml", "--target", "agent:v1")
    assert "agent:v1 is the baseline itself" in ended.out


def test_options_are_obeyed(place: Path, cli: Cli) -> None:
    cli("eval", "run", "suite.yaml", "--target", "agent:v3", "--no-log")
    assert "echo" not in cli("ls").out
    ended = cli(
        "eval", "run", "suite.yaml", "--target", "agent:v3", "--repeats", "2", "--concurrency", "1", "--json"
    ).json
    assert (ended["asked"], ended["reused"]) == (2 * N, 2 * N)
    again = cli("eval", "run", "suite.yaml", "--target", "agent:v3", "--no-cache", "--json").json
    assert (again["asked"], again["reused"]) == (2 * N, 0)


def test_recorded_outputs_are_scored(place: Path, cli: Cli) -> None:
    lines = [json.dumps({"id": f"q{i}", "output": f"echo {i}" if i else "?"}) for i in range(N)]
    (place / "out.jsonl").write_text("\n".join(lines))
    line = ["eval", "run", "suite.yaml", "--target", "agent:v3", "--outputs", "out.jsonl", "--json"]
    found = cli(*line, expect=wire.INCONCLUSIVE).json
    assert found["metrics"][0]["value"] == 1 - 1 / N
    assert "no report of this suite on the baseline" in found["uncompared"]
    missing = cli("eval", "run", "suite.yaml", "--target", "agent:v3", "--outputs", "ot.jsonl", "--json", expect=3)
    assert missing.error["detail"]["near"] == ["out.jsonl"]


def test_junit_and_markdown_are_written(place: Path, cli: Cli) -> None:
    files = ["--junit", "report.xml", "--markdown", "summary.md"]
    cli("eval", "run", "suite.yaml", "--target", "agent:v2", *files, expect=wire.REFUSED)
    top = ElementTree.parse(place / "report.xml").getroot()
    failure = top.find("testsuite/testcase/failure")
    assert failure is not None
    assert "q0: equals 1 -> 0" in (failure.text or "")
    text = (place / "summary.md").read_text()
    assert text.startswith("### ❌ FAIL: echo on agent:v2")
    assert "echo-report:v1" in text
    cli("eval", "run", "suite.yaml", "--target", "agent:v3", "--junit", "nowhere/a.xml", expect=wire.WRONG_USE)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["suit.yaml", "--target", "agent:v1"], 3, "suite.yaml"),
        (["suite.yaml", "--target", "agnt:v1"], 3, "agent"),
        (["suite.yaml"], 2, "no target is named"),
        (["questions", "--target", "agent:v1"], 2, "not an eval_suite"),
        (["bad.yaml", "--target", "agent:v1"], 2, "line 3"),
    ],
)
def test_mistakes_are_told_before_anything_runs(place: Path, cli: Cli, words: list[str], code: int, said: str) -> None:
    (place / "bad.yaml").write_text("name: a\ndataset: questions\nscorers: [equls]\n")
    ended = cli("eval", "run", *words, expect=code)
    assert said in ended.err
    assert "echo" not in cli("ls").out


def test_two_versions_are_compared_with_the_interval_and_the_items(place: Path, cli: Cli) -> None:
    for version in (1, 2):
        cli("eval", "run", "suite.yaml", "--target", f"agent:v{version}", expect=None)
    ended = cli("eval", "compare", "agent:v1", "agent:v2", "-n", "2")
    assert "echo: agent:v2 against agent:v1" in ended.out
    assert "equals  1.000 -> 0.000  FAIL" in ended.out
    assert "┊ -0.050 margin" in ended.out
    assert "80 items changed, worst first:" in ended.out
    assert "asked  echo 0" in ended.out
    assert "is     no echo 0" in ended.out
    assert "and 78 more" in ended.out
    found = cli("eval", "compare", "agent:v2", "agent:v1", "--json").json
    assert found["metrics"][0]["verdict"] == "PASS"
    assert (len(found["changed"]), found["unchanged"]) == (N, 0)
    assert "no item scores otherwise" in cli("eval", "compare", "echo-report:v1", "echo-report:v1").out


def test_a_picture_is_drawn(place: Path, cli: Cli) -> None:
    pytest.importorskip("matplotlib", reason="MATPLOTLIB MISSING: plots are not tested")
    for version in (1, 2):
        cli("eval", "run", "suite.yaml", "--target", f"agent:v{version}", expect=None)
    assert "drawn: a.png" in cli("eval", "compare", "agent:v1", "agent:v2", "--plot", "a.png").out
    assert (place / "a.png").read_bytes().startswith(b"\x89PNG")
    cli("eval", "compare", "agent:v1", "agent:v2", "--plot", "a.pdf", expect=wire.WRONG_USE)


def test_reports_that_do_not_fit_are_refused_with_the_reason(place: Path, cli: Cli) -> None:
    cli("eval", "run", "suite.yaml", "--target", "agent:v1")
    (place / "suite.yaml").write_text(SUITE + "seed: 7\n")
    cli("eval", "run", "suite.yaml", "--target", "agent:v1")
    ended = cli("eval", "compare", "echo-report:v1", "echo-report:v2", expect=wire.REFUSED)
    assert "suite: they are of other suites" in ended.err
