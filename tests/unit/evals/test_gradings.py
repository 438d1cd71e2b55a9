"""Scorers that are slow: functions in processes with limits, and judges that ask a model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts.errors import InvalidValue, NotFound, WrongKind
from llmartifacts.evals import gradings
from llmartifacts.evals.evaluate import Evaluation, evaluate_logged
from llmartifacts.kinds.eval_suite import EvalSuite
from llmartifacts.records.policy import Verdict

N = 6
APP = """
import time
from langchain_core.language_models.fake_chat_models import FakeListChatModel

class Judging(FakeListChatModel):
    responses: list = ["score: 3"]
    def _call(self, messages, stop=None, run_manager=None, **kwargs):
        with open("asked.txt", "a") as file:
            file.write(messages[-1].content.replace("\\n", " ") + "\\n")
        if "q1" in messages[-1].content:
            return "I would rather not."
        return "score: 4"

judge = Judging()

def answer(prompt, item):
    return item.input

def grade(output, item):
    if output == "loop":
        while True:
            pass
    return len(output) / 10
"""


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[la.Registry]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gradings_app.py").write_text(APP)
    monkeypatch.syspath_prepend(str(tmp_path))
    with la.init("registry") as made:
        made.log("p", la.Prompt("{{ input }}", template_format="jinja2"))
        made.log("questions", la.EvalDataset([{"id": f"q{i}", "input": f"abc{i}"} for i in range(N)]))
        made.log("judging", la.Prompt("Grade {{ id }}: {{ output }}", template_format="jinja2"))
        yield made


def run(registry: la.Registry, *scorers: Any, **more: Any) -> Evaluation:
    suite = EvalSuite("s", "questions", list(scorers), outputs={"runnable": "gradings_app:answer"}, baseline="none")
    return evaluate_logged(registry, suite, "p:v1", **more)


def asked() -> list[str]:
    file = Path("asked.txt")
    return file.read_text().splitlines() if file.exists() else []


JUDGE = {"type": "judge", "model": "gradings_app:judge", "prompt": "judging:v1", "lo": 1, "hi": 5}


def test_a_judge_grades_by_a_prompt_of_this_registry_and_what_it_says_is_kept(registry: la.Registry) -> None:
    metric = run(registry, JUDGE).report.metric("judge")
    assert (metric.value, metric.n, metric.errors) == (4.0, N - 1, 1)
    assert sorted(asked()) == [f"Grade q{i}: abc{i}" for i in range(N)]
    again = run(registry, JUDGE)
    assert again.report.metric("judge") == metric
    assert sorted(asked())[:3] == ["Grade q0: abc0", "Grade q1: abc1", "Grade q1: abc1"]  # an error is asked again
    assert len(asked()) == N + 1


def test_a_judge_is_asked_anew_without_the_cache_and_by_another_prompt(registry: la.Registry) -> None:
    run(registry, JUDGE)
    run(registry, JUDGE, cache=False)
    assert len(asked()) == 2 * N
    registry.log("judging", la.Prompt("Grade better {{ id }}: {{ output }}", template_format="jinja2"))
    run(registry, JUDGE | {"prompt": "judging:v2"})
    assert len(asked()) == 3 * N


def test_several_grades_of_one_reply_cost_one_question(registry: la.Registry) -> None:
    made = run(registry, JUDGE, JUDGE | {"metric": "again", "lo": 0})
    assert made.report.metric("again").value == 4.0
    assert asked().count("Grade q0: abc0") == 1


def test_a_function_that_loops_is_an_error_of_its_item_and_the_run_ends(registry: la.Registry) -> None:
    rows = [{"id": f"q{i}", "input": "loop" if i == 2 else "abcde"} for i in range(N)]
    registry.log("questions", la.EvalDataset(rows))
    function = {"type": "function", "function": "gradings_app:grade", "seconds": 1}
    made = run(registry, function)
    metric = made.report.metric("grade")
    assert (metric.value, metric.n, metric.errors) == (0.5, N - 1, 1)
    assert made.report.items[2].error.startswith("grade: ScorerFailed: timeout")
    suite = EvalSuite(
        "s",
        "questions",
        [function],
        outputs={"runnable": "gradings_app:answer"},
        thresholds={"grade": {"at_least": 0.1}},
    )
    assert evaluate_logged(registry, suite, "p:v1").verdict is Verdict.ERROR


def test_a_scorer_that_fails_every_time_is_given_up(registry: la.Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradings, "GIVEN_UP", 2)
    registry.log("questions", la.EvalDataset([{"id": f"q1{i}", "input": "x"} for i in range(20)]))
    made = run(registry, JUDGE, concurrency=1)
    assert made.report.metric("judge").errors == 20
    assert len(asked()) == 2
    assert "not scored: 2 answers before it" in made.report.items[-1].error


def test_a_scorer_whose_source_changed_since_the_suite_was_logged_is_refused(
    registry: la.Registry, tmp_path: Path
) -> None:
    run(registry, {"type": "function", "function": "gradings_app:grade"})
    (tmp_path / "gradings_app.py").write_text(APP + "# changed\n")
    with pytest.raises(InvalidValue, match="source changed"):
        evaluate_logged(registry, "s:v1", "p:v1")


@pytest.mark.parametrize(
    ("change", "error", "word"),
    [
        ({"prompt": "judging:v9"}, NotFound, "v9"),
        ({"prompt": "questions:v1"}, WrongKind, "not a prompt"),
        ({"model": "gradings_app:nobody"}, NotFound, "nobody"),
    ],
)
def test_what_a_judge_names_must_be_there_before_anything_is_asked(
    registry: la.Registry, change: dict[str, str], error: type[Exception], word: str
) -> None:
    def never(prompt: Any, item: Any) -> str:
        raise AssertionError("it was asked")

    suite = EvalSuite("s", "questions", [JUDGE | change], baseline="none")
    with pytest.raises(error, match=word):
        evaluate_logged(registry, suite, "p:v1", outputs=never)
