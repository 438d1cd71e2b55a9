"""What makes outputs: functions, factories and LangChain's Runnables, on prompts and on other values."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pydantic
import pytest
from langchain_core.documents import Document
from langchain_core.language_models.fake_chat_models import FakeListChatModel, ParrotFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.prompt_values import ChatPromptValue, StringPromptValue
from langchain_core.runnables import RunnableLambda

import llmartifacts as la
from llmartifacts.errors import InvalidInput, InvalidValue, MissingVariable, NotFound
from llmartifacts.evals.answers import plain_output
from llmartifacts.evals.importing import distributions
from llmartifacts.evals.prompting import prompt_value, variables_for
from llmartifacts.evals.targets import Called, Invoked, Maker, identity_of, maker_of, maker_of_name
from llmartifacts.kinds.eval_dataset.value import EvalDataset, Item

TEXT = la.Prompt("Answer: {{ question }}", template_format="jinja2")
CHAT = la.Prompt([("system", "Be {tone}."), ("user", "{question}")], template_format="f-string")


def item(**columns: Any) -> Item:
    return EvalDataset([{"id": "q1", **columns}])[0]


def make(thing: Any) -> Maker:
    return maker_of(thing, None, "app:thing")


def output(thing: Any, value: Any, one: Item, seed: int = 0, repeat: int = 0) -> Any:
    maker = make(thing)
    maker.prepare(value, [one])
    (answer,) = maker.answer(value, [one], seed, repeat)
    assert answer.seconds >= 0
    return answer.output


class Heard(FakeListChatModel):
    """A chat model that tells what it was asked and with which settings."""

    responses: list[str] = pydantic.Field(default=["-"])

    def _generate(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
        told = {"messages": [[m.type, m.content] for m in messages], "settings": kwargs}
        return ChatResult(generations=[ChatGeneration(message=AIMessage(json.dumps(told)))])


# --- functions and factories


def test_a_function_is_called_with_the_value_and_the_item() -> None:
    found = output(lambda prompt, it: prompt.format(question=it.input), TEXT, item(input="why?"))
    assert found == "Answer: why?"


def test_a_function_that_takes_a_seed_gets_it() -> None:
    def seeded(value: Any, it: Item, *, seed: int) -> int:
        return seed

    assert make(seeded).takes_seed
    assert output(seeded, None, item(input="x"), seed=5) == 5
    assert not make(lambda value, it: 1).takes_seed


def test_a_factory_is_called_once_for_a_value_and_may_give_a_function_of_the_item() -> None:
    made: list[Any] = []

    def factory(value: Any) -> Any:
        made.append(value)
        return lambda it: f"{value} {it.input}"

    maker = make(factory)
    maker.prepare("a", [item(input="x")])
    maker.prepare("b", [item(input="x")])
    answers = [maker.answer(v, [item(input=i)], 0, 0)[0].output for v in ("a", "b") for i in "xy"]
    assert answers == ["a x", "a y", "b x", "b y"]
    assert made == ["a", "b"]


def test_a_factory_of_a_chain_over_a_prompt_is_invoked_with_the_prompts_variables() -> None:
    def chain(prompt: la.Prompt) -> Any:
        return prompt.to_langchain() | ParrotFakeChatModel() | StrOutputParser()

    assert output(chain, TEXT, item(input="why?")) == "Answer: why?"
    assert output(chain, CHAT, item(input={"question": "why?", "tone": "kind"})) == "why?"


def test_a_factory_of_a_chain_over_a_bundle_is_invoked_with_the_input_as_it_is() -> None:
    bundle = la.Bundle(models={"llm": la.ModelSpec("fake", "parrot")})
    assert output(lambda b: RunnableLambda(lambda x: [x, b.roles]), bundle, item(input={"a": 1})) == [{"a": 1}, ["llm"]]


@pytest.mark.parametrize(
    ("factory", "word"), [(lambda value: 3, "returned a int"), (lambda value: 1 / 0, "ZeroDivisionError")]
)
def test_a_factory_that_gives_nothing_is_refused_before_anything_runs(factory: Any, word: str) -> None:
    with pytest.raises(InvalidValue, match=word) as caught:
        make(factory).prepare("v", [item(input="x")])
    assert caught.value.field == "outputs.runnable"


def test_a_function_of_another_shape_is_refused() -> None:
    with pytest.raises(InvalidValue, match="takes 3 arguments"):
        make(lambda a, b, c: 1)
    with pytest.raises(InvalidValue, match="takes 0 arguments"):
        make(lambda: 1)
    with pytest.raises(InvalidValue, match="gives no outputs"):
        make("text")


def test_a_function_that_gives_nothing_is_an_error_of_its_item() -> None:
    with pytest.raises(InvalidValue, match="None"):
        output(lambda value, it: None, None, item(input="x"))


# --- Runnables


def test_a_chat_model_stands_after_the_prompt_and_its_answer_is_text() -> None:
    told = json.loads(output(Heard(), CHAT, item(input="why?", tone="kind")))
    assert told["messages"] == [["system", "Be kind."], ["human", "why?"]]
    assert told["settings"] == {}
    assert json.loads(output(Heard(), TEXT, item(input="why?")))["messages"] == [["human", "Answer: why?"]]


def test_a_bare_model_gets_what_the_prompt_is_logged_with_and_a_chain_does_not() -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    prompt = la.Prompt(
        "Answer: {{ question }}",
        template_format="jinja2",
        model=la.ModelSpec("fake", "m", parameters={"temperature": 0.7}),
        tools=[tool],
        tool_choice="auto",
        response_format={"type": "json_object"},
    )
    settings = json.loads(output(Heard(), prompt, item(input="why?")))["settings"]
    assert settings == {
        "temperature": 0.7,
        "tools": [tool],
        "tool_choice": "auto",
        "response_format": {"type": "json_object"},
    }
    assert json.loads(output(Heard() | StrOutputParser(), prompt, item(input="why?")))["settings"] == {}


def test_a_template_that_langchain_cannot_express_works_too() -> None:
    prompt = la.Prompt(
        "{{ question | tojson }} {{ raise_exception('no') if question == 'x' }}", template_format="jinja2"
    )
    with pytest.raises(InvalidValue):
        prompt.to_langchain()
    assert json.loads(output(Heard(), prompt, item(input="why?")))["messages"] == [["human", '"why?" ']]


def test_a_runnable_on_another_value_is_given_the_value_and_the_item() -> None:
    bundle = la.Bundle(models={"llm": la.ModelSpec("fake", "parrot")})
    answer = RunnableLambda(lambda x: f"{x['value'].roles[0]} {x['item'].input}")
    assert output(answer, bundle, item(input="why?")) == "llm why?"


def test_a_chain_with_a_prompt_of_its_own_is_refused_for_a_prompt() -> None:
    chain = CHAT.to_langchain() | Heard()
    for own in (chain, CHAT.to_langchain()):
        with pytest.raises(InvalidValue, match="a prompt of its own"):
            make(own).prepare(TEXT, [item(input="x")])
    make(chain).prepare(la.Bundle(models={"llm": la.ModelSpec("fake", "m")}), [item(input="x")])


def test_tracers_of_a_runnable_see_the_item_and_the_seed() -> None:
    seen: list[Any] = []

    def look(given: Any, config: Any) -> str:
        seen.append((config["metadata"], config["configurable"]))
        return "x"

    output(RunnableLambda(look), TEXT, item(input="x"), seed=9, repeat=2)
    metadata, configurable = seen[0]
    assert {k: metadata[k] for k in ("item", "repeat", "seed")} == {"item": "q1", "repeat": 2, "seed": 9}
    assert configurable["seed"] == 9


def test_whatever_can_be_invoked_will_do() -> None:
    class Model:
        def invoke(self, given: Any) -> str:
            return given.to_string().upper()

    assert output(Model(), TEXT, item(input="why?")) == "ANSWER: WHY?"


# --- variables


def test_variables_come_from_the_input_then_from_columns_then_the_input_is_the_one_that_is_missing() -> None:
    one = item(input={"question": "a"}, tone="kind", question="not this")
    assert variables_for(CHAT, one) == {"question": "a", "tone": "kind"}
    assert variables_for(CHAT, item(input="a", tone="kind")) == {"question": "a", "tone": "kind"}
    assert variables_for(TEXT, item(question="a")) == {"question": "a"}
    optional = la.Prompt("{{ q }}{% if more is defined %}{{ more }}{% endif %}", template_format="jinja2")
    assert variables_for(optional, item(input="a")) == {"q": "a"}


def test_a_variable_that_nothing_supplies_is_told_before_anything_runs() -> None:
    with pytest.raises(MissingVariable) as caught:
        make(Heard()).prepare(CHAT, [item(input={"question": "a"})])
    assert caught.value.variable == "tone"
    assert "question" in caught.value.hint()
    with pytest.raises(MissingVariable):
        variables_for(CHAT, item(input="a"))


def test_the_formatted_prompt_is_what_langchain_hands_on() -> None:
    assert isinstance(prompt_value(TEXT, item(input="a")), StringPromptValue)
    made = prompt_value(CHAT, item(input="a", tone="kind"))
    assert isinstance(made, ChatPromptValue)
    assert made == CHAT.to_langchain().invoke({"question": "a", "tone": "kind"})


# --- names


def test_a_module_of_the_working_directory_is_found(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "targets_app.py").write_text(
        "class Inner:\n    @staticmethod\n    def answer(value, item):\n        return 1\n"
    )
    monkeypatch.chdir(tmp_path)
    maker = maker_of_name("targets_app:Inner.answer")
    assert maker.identity is not None
    assert maker.identity["runnable"] == "targets_app:Inner.answer"
    assert len(maker.identity["source"]) == 64


@pytest.mark.parametrize(
    ("name", "error", "word"),
    [
        ("nowhere_at_all:f", NotFound, "no module"),
        ("json:dumsp", NotFound, "dumsp"),
        ("json", InvalidInput, "names no object"),
        ("json:", InvalidInput, "names no object"),
        (":f", InvalidInput, "names no object"),
        ("targets_broken:f", InvalidInput, "cannot be imported"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused(
    name: str, error: type[Exception], word: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "targets_broken.py").write_text("raise RuntimeError('x')")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=word):
        maker_of_name(name)


def test_only_a_plain_function_of_a_module_is_known_by_itself() -> None:
    assert identity_of(output) is not None
    bound = 3
    assert identity_of(lambda v, i: 1) is None
    assert identity_of(lambda v, i: bound) is None
    assert identity_of(Heard()) is None
    assert identity_of(Called(lambda v, i: 1, None, "x").answer) is None
    assert Invoked(Heard(), None, "x").identity is None


# --- outputs as JSON


@dataclass
class Pair:
    a: int
    b: Any


class Model(pydantic.BaseModel):
    text: str


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("text", "text"),
        ({"a": (1, 2)}, {"a": [1, 2]}),
        ({3, 1}, [1, 3]),
        (AIMessage("hi"), "hi"),
        (AIMessage([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), "ab"),
        (
            AIMessage("", tool_calls=[{"name": "look", "args": {"q": 1}, "id": "1"}]),
            {"content": "", "tool_calls": [{"name": "look", "args": {"q": 1}}]},
        ),
        ([Document("x", id="d1"), Document("y", metadata={"id": "d2"})], ["d1", "d2"]),
        (Pair(1, Model(text="x")), {"a": 1, "b": {"text": "x"}}),
        (np.array([1, 2]), [1, 2]),
        (np.float64(0.5), 0.5),
        ({"x": np.float32(0.5)}, {"x": 0.5}),
    ],
)
def test_an_output_becomes_plain_json(given: Any, expected: Any) -> None:
    assert plain_output(given) == expected


@pytest.mark.parametrize("given", [object(), float("nan"), {1: 2}, b"bytes", "\ud800", [Document("x")], 2**60])
def test_what_is_no_json_is_refused(given: Any) -> None:
    with pytest.raises(InvalidValue):
        plain_output(given)


def test_what_contains_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(InvalidValue, match="nested"):
        plain_output(endless)


def test_the_hits_of_one_query_are_ids() -> None:
    space = la.EmbeddingSpec("toy", 2, metric="l2")
    kb = la.VectorIndex.from_vectors([[0, 0], [3, 4]], ["here", "there"], embedding=space, ids=["a", "b"])
    assert plain_output(kb.search([3, 3], k=2)) == ["b", "a"]
    found: Sequence[Any] = [kb.documents[0], kb.documents[1]]
    assert plain_output(found) == ["a", "b"]


def test_the_packages_of_a_chain_are_those_of_its_parts() -> None:
    chain = TEXT.to_langchain() | Heard().bind(temperature=0) | StrOutputParser()
    assert distributions(chain) == ["langchain-core"]
    assert distributions("yaml.loader:Loader", np.zeros(1), output) == ["PyYAML", "numpy"]
    assert distributions("nowhere:x", 3) == []


# --- what cached outputs depend on


def test_outputs_depend_on_the_module_that_puts_a_chain_together_and_on_what_it_imports(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    names = ("behind_app", "behind_helper", "behind_deep")

    def source(**changed: str) -> str:
        texts = {
            "behind_app": "from langchain_core.runnables import RunnableLambda\nfrom behind_helper import reply\n"
            "chain = RunnableLambda(reply)\nanswer = lambda value, item: reply(item)\n",
            "behind_helper": "import behind_deep\ndef reply(x):\n    return behind_deep.WORD\n",
            "behind_deep": "WORD = 'a'\n",
        }
        for name, text in (texts | changed).items():
            (tmp_path / f"{name}.py").write_text(text)
        for name in names:
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        found = {maker_of_name(f"behind_app:{name}").identity["source"] for name in ("chain", "answer")}  # type: ignore[index]
        return "".join(sorted(found))

    first = source()
    assert source() == first
    assert source(behind_deep="WORD = 'b'\n") != first
    assert source(behind_helper="def reply(x):\n    return 'c'\n") != first
    assert source() == first
