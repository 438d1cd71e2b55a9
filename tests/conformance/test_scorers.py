"""Every built-in scorer keeps the contract of scorers."""

from __future__ import annotations

from typing import Any

import pytest

from llmartifacts import plugins
from llmartifacts.errors import InvalidInput
from llmartifacts.evals.scorers.base import Answer, Options, OptionScorer
from llmartifacts.kinds.eval_dataset.value import Item
from llmartifacts.testing.scorers import Example, check_scorer, item

HASHING = "llmartifacts.integrations.hashing:HashingEmbeddings"
CAPITAL = item(expected="Paris")
SUM = item(expected="3 + 4 = 7\n#### 7")
DOCUMENTS = item(expected_ids=["a", "b"])


def says(output: Any, score: float | None, of: Item = CAPITAL, **more: Any) -> Example:
    return Example(of, Answer(output, **more), score)


@pytest.fixture(autouse=True)
def _app(tmp_path, monkeypatch):
    (tmp_path / "app_of_test.py").write_text(
        "from langchain_core.messages import AIMessage\n"
        "from langchain_core.runnables import RunnableLambda\n"
        "judge = RunnableLambda(lambda asked: AIMessage('It is short.\\nscore: ' + str(min(5, len(str(asked))))))\n"
    )
    (tmp_path / "scoring_of_test.py").write_text(
        "def words(output, item, most=10):\n"
        "    if item['expected_output'] is None:\n"
        "        return None\n"
        "    return min(most, len(output.split())) / most\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


CASES: dict[str, dict[str, Any]] = {
    "equals": {
        "options": {},
        "examples": [says("Paris\n", 1), says("paris", 0), says("Paris", None, item()), says(None, 0)],
        "others": [{"ignore_case": True}, {"trim": False}, {"whitespace": True}, {"nfc": False}, {"field": "a"}],
        "refused": [{"ignore_case": "yes"}, {"field": ""}, {"expected": 3}],
    },
    "contains": {
        "options": {"any_of": ["Paris", "Lutetia"]},
        "examples": [says("It is Paris.", 1), says("It is Rome.", 0), says(None, 0)],
        "others": [{"all_of": ["Paris"]}, {}, {"require": "any"}, {"any_of": ["Paris"]}],
        "refused": [{"any_of": []}, {"any_of": [""]}, {"all_of": [" "]}, {"require": "some"}],
    },
    "regex": {
        "options": {"pattern": "P.ris"},
        "examples": [says("It is Paris", 1), says("It is Rome", 0), says(None, 0)],
        "others": [{"pattern": "P.ris", "match": "fullmatch"}, {"pattern": "Paris"}],
        "refused": [{}, {"pattern": "("}, {"pattern": "a", "match": "find"}, {"pattern": "a", "seconds": 0}],
    },
    "json-schema": {
        "options": {"schema": {"type": "object", "required": ["label"]}},
        "examples": [says('{"label": 1}', 1), says({"label": 1}, 1), says("{}", 0), says("label", 0), says("", 0)],
        "others": [{"schema": {"type": "object"}}, {"schema": {"type": "object"}, "field": "a"}],
        "refused": [{}, {"schema": {}}, {"schema": {"type": "objekt"}}, {"schema": {"pattern": "("}}],
    },
    "numeric": {
        "options": {"extract": "gsm8k", "absolute": 0.5},
        "examples": [says("so 7.5", 1, SUM), says("#### 8, not 7", 0, SUM), says("seven", 0, SUM), says(7, 1, SUM)],
        "others": [{"extract": "last"}, {"absolute": 1}, {"relative": 0.1}],
        "refused": [{"absolute": -1}, {"relative": 2}, {"extract": "first"}, {"absolute": "1"}, {"absolute": True}],
    },
    "squad_f1": {
        "options": {},
        "examples": [says("in Paris", 2 / 3), says("the Paris!", 1), says("Rome", 0), says(None, 0)],
        "others": [{"field": "a"}, {"expected": "answers"}],
        "refused": [{"expected": ""}],
    },
    "squad_em": {
        "options": {},
        "examples": [says("in Paris", 0), says("the  paris!", 1), says("", 0), says("Paris", None, item())],
        "others": [{"field": "a"}],
    },
    "similarity": {
        "options": {"embeddings": HASHING, "arguments": {"dimension": 64}},
        "examples": [says("Paris", 1), says("", 0), says("Paris", None, item())],
        "others": [{"embeddings": HASHING}, {"embeddings": HASHING, "scale": "cosine"}],
        "refused": [{}, {"embeddings": "no_such_module_here:x"}, {"embeddings": HASHING, "scale": "both"}],
    },
    "judge": {
        "options": {"model": "app_of_test:judge", "prompt": "{{ output }}", "lo": 1, "hi": 5},
        "examples": [says("abc", 3), says("abcdefg", 5)],
        "others": [
            {"model": "app_of_test:judge", "prompt": "{{ output }}!", "lo": 1, "hi": 5},
            {"model": "app_of_test:judge", "prompt": "{{ output }}", "lo": 0, "hi": 5},
            {"model": "app_of_test:judge", "prompt": "judge-prompt:v2", "lo": 0, "hi": 5},
        ],
        "refused": [
            {},
            {"model": "app_of_test:judge", "prompt": "{{ output }}", "lo": 5, "hi": 1},
            {"model": "app_of_test:judge", "prompt": "grade {{ input }}", "lo": 1, "hi": 5},
            {"model": "app_of_test:judge", "prompt": "judge-prompt:prod", "lo": 1, "hi": 5},
            {"model": "app_of_test:judge", "prompt": "{{ output", "lo": 1, "hi": 5},
            {"model": "app_of_test:judge", "prompt": "{{ output }}", "lo": 1, "hi": 5, "variables": {"x": "output"}},
        ],
    },
    "function": {
        "options": {"function": "scoring_of_test:words"},
        "examples": [says("one two", 0.2), says("one", None, item())],
        "others": [
            {"function": "scoring_of_test:words", "arguments": {"most": 5}},
            {"function": "scoring_of_test:words", "hi": 2},
            {"function": "scoring_of_test:words", "higher_is_better": False},
        ],
        "refused": [{}, {"function": "words"}, {"function": "scoring_of_test:words", "lo": 1, "hi": 1}],
    },
    "recall": {
        "options": {"k": 2},
        "examples": [says(["a", "x", "b"], 0.5, DOCUMENTS), says([], 0, DOCUMENTS), says(["a"], None, item())],
        "others": [{"k": 3}, {"k": 2, "whole": True}, {"k": 2, "labels": "gold"}],
        "refused": [{}, {"k": 0}, {"k": "2"}, {"k": True}, {"k": 2, "whole": 1}],
    },
    "precision": {"options": {"k": 4}, "examples": [says(["a", None, "b"], 0.5, DOCUMENTS)], "others": [{"k": 3}]},
    "hit": {"options": {"k": 1}, "examples": [says(["a"], 1, DOCUMENTS), says([None, "a"], 0, DOCUMENTS)]},
    "mrr": {"options": {}, "examples": [says(["x", "b"], 0.5, DOCUMENTS)], "others": [{"k": 1}]},
    "map": {"options": {}, "examples": [says(["x", "b"], 0.25, DOCUMENTS)], "others": [{"k": 1}]},
    "ndcg": {"options": {"k": 10}, "examples": [says(["a", "b"], 1, DOCUMENTS), says(None, 0, DOCUMENTS)]},
    "overlap": {
        "options": {"k": 2},
        "examples": [
            Example(item(), Answer(["a", "b"]), 0.5, Answer(["b", "c"])),
            Example(item(), Answer(["a"]), None),
            Example(item(), Answer(["a"]), None, Answer(error="it crashed")),
            Example(item(), Answer([]), 1, Answer(None)),
        ],
        "others": [{"k": 1}, {"k": 2, "whole": True}],
        "refused": [{}, {"k": 2, "labels": "a"}],
    },
    "latency": {
        "options": {},
        "examples": [says("", 0.25, seconds=0.25), says("", 10, seconds=11), says(None, 0, seconds=0)],
        "others": [{"cap": 5}],
        "refused": [{"cap": 0}, {"cap": float("inf")}, {"cap": "10"}],
    },
}


def test_every_built_in_scorer_is_checked_here():
    assert CASES.keys() == plugins.BUILT_IN["scorers"].keys()


@pytest.mark.parametrize("name", CASES)
def test_a_scorer_keeps_the_contract(name):
    scorer = plugins.load("scorers", name)
    assert scorer.type == name
    check_scorer(scorer, **CASES[name])


class Vague(OptionScorer[Options]):
    """A scorer that breaks a promise at the wish of a test."""

    type = "vague"
    given_scores: list[Any] = [0.5]  # noqa: RUF012

    def score(self, item, answer, baseline=None):
        return self.given_scores[len(str(answer.output)) % len(self.given_scores)]


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ({"given_scores": [float("nan")]}, "no finite number"),
        ({"given_scores": [2.0]}, "off the scale"),
        ({"given_scores": ["0.5"]}, "no finite number"),
        ({"given_scores": [0.5, float("nan")]}, "the output"),
        ({"given_scores": [0.25]}, "not 0.5"),
        ({"given_scores": [None]}, "not 0.5"),
        ({"lo": 1.0}, "is empty"),
        ({"definition": 0}, "counts from 1"),
        ({"metric": ""}, "no name"),
        ({"own_metric": lambda self: ""}, "no name"),
        ({"options": lambda self: {"a": 1}}, "no_such_option|Extra|there is no field"),
    ],
)
def test_a_scorer_that_breaks_a_promise_is_found(broken, told):
    made = type("Broken", (Vague,), {k: v for k, v in broken.items() if k != "metric"})
    if "metric" in broken:
        made.own_metric = lambda self: broken["metric"]
    with pytest.raises((AssertionError, InvalidInput), match=told.replace("counts", "count")):
        check_scorer(made, {}, [Example(item(), Answer("ab"), 0.5)])


def test_options_that_behave_otherwise_need_an_identity_of_their_own():
    with pytest.raises(AssertionError, match="has the identity of the options"):
        check_scorer(Vague, {}, [Example(item(), Answer("ab"), 0.5)], others=[{}])
