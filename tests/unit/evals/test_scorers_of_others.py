"""Scorers that run what others wrote: functions, judges; and the entries by which a suite keeps them."""

from __future__ import annotations

import sys

import pytest

import llmartifacts as la
from llmartifacts import plugins
from llmartifacts.errors import InvalidValue, NotFound
from llmartifacts.evals.scorers import make_scorer, make_scorers, scorer_digest
from llmartifacts.evals.scorers.base import Answer
from llmartifacts.evals.scorers.isolated import ScorerFailed
from llmartifacts.evals.scorers.judge import grade_in, reply_text
from llmartifacts.evals.scorers.sources import source_digest
from llmartifacts.kinds.eval_suite import EvalSuite
from llmartifacts.kinds.eval_suite.entries import entry_of, read_scorer
from llmartifacts.records.digest import digest_of
from llmartifacts.testing.scorers import item


def score(kind, output, of=None, **options):
    scorer = plugins.load("scorers", kind)(**options)
    try:
        return scorer.score(of or item(expected="Paris"), Answer(output))
    finally:
        scorer.close()


# --- functions

FUNCTIONS = """
import time
def given(output, item, **more):
    return (output == {"a": 1} and item["input"] == "question" and more == {"x": [1]}) * 1.0
def is_short(output, item): return len(output) < 5
def skip(output, item): return None
def two(output, item): return 2
def nan(output, item): return float("nan")
def text(output, item): return "0.5"
def fails(output, item): raise KeyError("label")
def loops(output, item):
    while output == "loop": pass
    return 1.0
def eats(output, item): return len(bytearray(10**10)) if output == "eat" else 1.0
"""


@pytest.fixture
def functions(tmp_path, monkeypatch):
    (tmp_path / "my_scores.py").write_text(FUNCTIONS)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "my_scores.py"


def function(name, output="text", **options):
    return score("function", output, function=f"my_scores:{name}", **options)


@pytest.mark.usefixtures("functions")
def test_a_function_grades():
    assert function("given", {"a": 1}, arguments={"x": [1]}) == 1
    assert function("is_short", "abc") == 1
    assert function("is_short", "abcdef") == 0
    assert function("skip") is None
    assert function("two", hi=2) == 2


@pytest.mark.usefixtures("functions")
@pytest.mark.parametrize(
    ("name", "error", "told"),
    [
        ("two", ValueError, "not on the scale from 0 to 1"),
        ("nan", ScorerFailed, "exception: "),
        ("text", TypeError, "gave a str, not a number"),
        ("fails", ScorerFailed, "exception: KeyError: 'label'"),
        ("no_such", ScorerFailed, "exception: AttributeError"),
    ],
)
def test_a_function_that_gives_no_score_is_an_error(name, error, told):
    with pytest.raises(error, match=told):
        function(name)


@pytest.mark.usefixtures("functions")
@pytest.mark.parametrize(("name", "bad", "told"), [("loops", "loop", "timeout"), ("eats", "eat", "memory")])
def test_a_function_that_loops_or_eats_memory_ends_as_an_error_and_the_others_go_on(name, bad, told):
    scorer = plugins.load("scorers", "function")(function=f"my_scores:{name}", seconds=0.4, megabytes=500)
    found = []
    for output in ("a", bad, "b"):
        try:
            found.append(scorer.score(item(), Answer(output)))
        except ScorerFailed as error:
            found.append(str(error).partition(":")[0])
    scorer.close()
    assert found == [1, told, 1]


def test_a_changed_function_is_a_changed_scorer_and_the_old_entry_is_refused(functions):
    entry = read_scorer({"type": "function", "function": "my_scores:is_short"})
    assert entry["metric"] == "is_short"
    assert entry["source"] == digest_of(functions.read_bytes())
    make_scorer(entry).close()

    functions.write_text(FUNCTIONS.replace("< 5", "< 6"))
    assert scorer_digest(read_scorer({"type": "function", "function": "my_scores:is_short"})) != scorer_digest(entry)
    with pytest.raises(InvalidValue, match="its source changed") as caught:
        make_scorer(entry)
    assert caught.value.field == "source"


def test_the_source_is_found_without_running_it(tmp_path, monkeypatch):
    (tmp_path / "pack" / "sub").mkdir(parents=True)
    for place in ("pack/__init__.py", "pack/sub/__init__.py", "pack/sub/code.py"):
        (tmp_path / place).write_text(f"raise SystemExit('{place} was run')")
    monkeypatch.chdir(tmp_path)
    assert source_digest("pack.sub.code:f", field="x") == digest_of((tmp_path / "pack/sub/code.py").read_bytes())
    assert source_digest("pack.sub:f", field="x") == digest_of((tmp_path / "pack/sub/__init__.py").read_bytes())
    assert source_digest("sys:exit", field="x") == ""
    for missing in ("pack.none:f", "none:f", "pack.sub.code.deeper:f"):
        with pytest.raises(InvalidValue, match="there is no module") as caught:
            source_digest(missing, field="function")
        assert caught.value.field == "function"


# --- entries


def test_a_scorer_comes_back_from_its_entry_and_no_other_does():
    entry = read_scorer({"type": "latency", "cap": 5})
    assert entry_of(make_scorer(entry)) == entry
    for field, value in (("definition", 2), ("hi", 10.0), ("higher_is_better", True), ("source", "sha256:" + "0" * 64)):
        with pytest.raises(InvalidValue, match=f"its {field} changed") as caught:
            make_scorer({**entry, field: value})
        assert caught.value.field == field
    with pytest.raises(NotFound) as missing:
        make_scorer({**entry, "type": "latencey"})
    assert missing.value.near == ("latency",)
    with pytest.raises(InvalidValue):
        make_scorer({**entry, "options": {"cup": 5}})
    with pytest.raises(InvalidValue):
        make_scorer({"type": "latency"})


def test_an_entry_survives_a_suite(tmp_path):
    suite = EvalSuite(
        "a",
        "b",
        ["recall@5", {"type": "contains", "any_of": ["x"]}, {"type": "json-schema", "schema": {"items": [1]}}][:2],
    )
    made = make_scorers(suite.scorers)
    assert [s.metric for s in made] == ["recall@5", "contains"]
    assert made[1].score(item(), Answer("x")) == 1


# --- judges

APP = """
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.runnables import RunnableLambda

asked = []
def answers(prompt):
    asked.append(prompt)
    text = prompt if isinstance(prompt, str) else prompt[-1]["content"]
    return replies.get(text, "Fine.\\nscore: 4")
replies = {}
judge = RunnableLambda(answers)
class Fake(FakeListChatModel):
    pass
def structured(prompt):
    return {"score": 3, "style": 5}
grader = RunnableLambda(structured)
broken = 3
def fails(): raise RuntimeError("no key")
"""


@pytest.fixture
def app(tmp_path, monkeypatch):
    (tmp_path / "judging_app.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    yield lambda: sys.modules["judging_app"]
    sys.modules.pop("judging_app", None)


def judged(output, of=None, **options):
    given = {"model": "judging_app:judge", "prompt": "Grade {{ output }}", "lo": 1, "hi": 5, **options}
    return score("judge", output, of, **given)


def test_a_judge_sees_what_the_prompt_asks_for(app):
    assert (
        judged("ten", item("q1", "3 + 7?", "10"), prompt="{{ input }} {{ expected_output }} {{ output }} {{ id }}") == 4
    )
    assert app().asked.pop() == "3 + 7? 10 ten q1"
    judged(
        {"text": "ten"}, item("q1", "3 + 7?"), prompt="{{ a }} of {{ q }}", variables={"a": "output.text", "q": "input"}
    )
    assert app().asked.pop() == "ten of 3 + 7?"
    judged(None, item(), prompt="[{{ output }}]{% if expected_output is defined %} {{ expected_output }}{% endif %}")
    assert app().asked.pop() == "[]"
    judged("x", prompt=[{"role": "system", "content": "Be strict."}, {"role": "user", "content": "{{ output }}"}])
    assert app().asked.pop() == [{"role": "system", "content": "Be strict."}, {"role": "user", "content": "x"}]
    with pytest.raises(la.errors.MissingVariable):
        judged("x", item(), prompt="{{ output }} {{ expected_output }}")


@pytest.mark.usefixtures("app")
def test_a_judge_may_be_any_model_of_langchain():
    assert judged("x", model="judging_app:Fake", arguments={"responses": ["score: 2"]}) == 2
    assert judged("x", model="judging_app:grader") == 3
    assert judged("x", model="judging_app:grader", grade="style") == 5
    for model, told in (("broken", "no invoke"), ("fails", "no key"), ("none", "no 'none'")):
        with pytest.raises(la.LlmartifactsError, match=told):
            judged("x", model=f"judging_app:{model}")


@pytest.mark.parametrize(
    ("reply", "grade"),
    [
        ("score: 3", 3),
        ("  Score : 3.5 ", 3.5),
        ("It is 5 of 5, nearly.\nscore: 4\nThanks.", 4),
        ("score: 4\r\n", 4),
        ('{"score": 2, "why": "score: 5"}', 2),
        ({"score": 1}, 1),
    ],
)
def test_a_grade_is_read_strictly(reply, grade):
    assert grade_in(reply, "score", 1, 5) == grade


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "4",
        "score 4",
        "score: four",
        "score: 4/5",
        "the score: 4",
        "score: 4\nscore: 4",
        "score: 6",
        "score: 0.5",
        "score: nan",
        "**score: 4**",
        '{"score": "4"}',
        '{"score": true}',
        '{"score": null}',
        '{"grade": 4}',
        '{"score": 4, "score": 5}',
        '{"score": 4',
        '```json\n{"score": 4}\n```',
        {"score": 6},
        {},
        ["score: 4"],
    ],
)
def test_any_other_reply_is_an_error(reply):
    with pytest.raises((ValueError, TypeError)):
        grade_in(reply, "score", 1, 5)


def test_the_text_of_a_reply_is_found_in_what_models_give():
    from langchain_core.messages import AIMessage

    assert reply_text(AIMessage("a")) == "a"
    assert reply_text(AIMessage([{"type": "text", "text": "a"}, {"type": "image"}, "b"])) == "ab"
    assert reply_text({"score": 1}) == {"score": 1}
    with pytest.raises(TypeError):
        reply_text(3)


def test_several_grades_of_one_reply_cost_one_call_for_each_answer(app):
    common = {"type": "judge", "model": "judging_app:judge", "prompt": "{{ output }}", "lo": 1, "hi": 5}
    suite = EvalSuite(
        "a", "b", [{**common}, {**common, "grade": "style"}, {**common, "metric": "other", "prompt": "!{{ output }}"}]
    )
    first, second, other = make_scorers(suite.scorers)
    answers = [Answer("x"), Answer("x")]  # two repeats that happen to be equal
    first.score(item(), answers[0])
    app().replies["x"] = '{"score": 2, "style": 5}'
    assert first.score(item(), answers[0]) == 4  # not asked again
    assert first.score(item(), answers[1]) == 2
    assert second.score(item(), answers[1]) == 5
    assert other.score(item(), answers[1]) == 4
    assert app().asked == ["x", "x", "!x"]


def test_the_prompt_of_a_judge_may_be_pinned_in_a_registry(app, tmp_path, monkeypatch):
    monkeypatch.setenv("LLMARTIFACTS_REGISTRY", str(tmp_path / "registry"))
    with la.init(tmp_path / "registry") as registry:
        registry.log("judge-prompt", la.Prompt("Grade: {{ answer }}", template_format="jinja2"))
        registry.log("judge-prompt", la.Prompt("Grade: nothing", template_format="jinja2"))
        assert judged("x", prompt="judge-prompt:v1", variables={"answer": "output"}) == 4
        assert app().asked == ["Grade: x"]
        with pytest.raises(InvalidValue, match="every answer would look the same"):
            judged("x", prompt="judge-prompt:v2")
        judge = plugins.load("scorers", "judge")(
            model="judging_app:judge", prompt="judge-prompt:v1", variables={"answer": "output"}, lo=1, hi=5
        )
        judge.resolve = registry.resolve
        monkeypatch.delenv("LLMARTIFACTS_REGISTRY")
        assert judge.score(item(), Answer("y")) == 4
