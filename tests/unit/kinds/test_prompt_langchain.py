from __future__ import annotations

from typing import Any

import pytest
from langchain_core.example_selectors import LengthBasedExampleSelector
from langchain_core.load import dumpd
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import (
    ChatPromptTemplate,
    FewShotChatMessagePromptTemplate,
    FewShotPromptTemplate,
    MessagesPlaceholder,
    PromptTemplate,
)

from llmartifacts.errors import InvalidValue
from llmartifacts.kinds.prompt.langchain_json import from_document
from llmartifacts.kinds.prompt.value import Prompt

ROLES = {"human": "user", "ai": "assistant"}
VALUES = {"q": 'A <b> & "c"', "who": "Ada"}


def written(messages: list[Any]) -> list[tuple[str, Any]]:
    return [(ROLES.get(m.type, getattr(m, "role", m.type)), m.content) for m in messages]


def read(document: Any) -> Prompt:
    def no_file(name: str) -> Any:
        raise AssertionError(name)

    return from_document(document, no_file, {})


@pytest.mark.parametrize(
    ("template", "form"),
    [
        ("Hi {q} {{x}} {who!r:>8}", "f-string"),
        ("Hi {{q}} {{{q}}} {{#who}}{{.}}{{/who}}", "mustache"),
        ("Hi {{ q }} {{ who|upper }}\n", "jinja2"),
    ],
)
def test_a_text_writes_the_same_there_and_here(template: str, form: str) -> None:
    theirs = PromptTemplate.from_template(template, template_format=form)  # type: ignore[arg-type]
    ours = Prompt.from_langchain(theirs)
    assert ours == read(dumpd(theirs))
    assert ours.format(**VALUES) == theirs.format(**VALUES) == ours.to_langchain().format(**VALUES)
    assert Prompt.from_langchain(ours.to_langchain()) == ours


def test_a_chat_writes_the_same_there_and_here() -> None:
    theirs = ChatPromptTemplate.from_messages(
        [
            ("system", "You are {who}."),
            MessagesPlaceholder("history", optional=True),
            SystemMessage("literal {braces}"),
            ("human", "{q}"),
            ("ai", "Hm."),
        ]
    )
    ours = Prompt.from_langchain(theirs)
    assert ours == read(dumpd(theirs))
    assert [m.get("role", "-") for m in ours.messages] == ["system", "-", "system", "user", "assistant"]
    history = [HumanMessage("before"), AIMessage("yes")]
    expected = written(theirs.format_messages(history=history, **VALUES))
    assert [(m["role"], m["content"]) for m in ours.format_messages(history=history, **VALUES)] == expected
    assert written(ours.to_langchain().format_messages(history=history, **VALUES)) == expected
    assert Prompt.from_langchain(ours.to_langchain()) == ours


def test_tool_calls_of_langchain_messages_are_kept() -> None:
    call = {"name": "f", "args": {"a": 1}, "id": "c1", "type": "tool_call"}
    history = [AIMessage("", tool_calls=[call]), ToolMessage("7", tool_call_id="c1")]  # type: ignore[list-item]
    prompt = Prompt([{"placeholder": "history"}], template_format="f-string")
    first, second = prompt.format_messages(history=history)
    assert first["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a": 1}'}
    assert second == {"role": "tool", "tool_call_id": "c1", "content": "7"}


def test_partials_go_there_and_back() -> None:
    theirs = PromptTemplate.from_template("{q} {who}").partial(who="Ada")
    ours = Prompt.from_langchain(theirs)
    assert (ours.required, dict(ours.partials)) == (("q",), {"who": "Ada"})
    assert ours.format(q="x") == theirs.format(q="x") == ours.to_langchain().format(q="x")
    chat = ChatPromptTemplate.from_messages([("human", "{q} {who}")]).partial(who="Ada")
    assert Prompt.from_langchain(chat).format_messages(q="x")[0]["content"] == "x Ada"
    assert Prompt.from_langchain(chat).to_langchain().format_messages(q="x")[0].content == "x Ada"


def test_few_shot_examples_go_there_and_back() -> None:
    theirs = FewShotPromptTemplate(
        examples=[{"a": "hot", "b": "cold"}],
        example_prompt=PromptTemplate.from_template("{a}->{b}"),
        prefix="Antonyms of {who}",
        suffix="{q}->",
        input_variables=["q", "who"],
    )
    ours = Prompt.from_langchain(theirs)
    assert ours.format(**VALUES) == theirs.format(**VALUES) == ours.to_langchain().format(**VALUES)


def test_few_shot_messages_go_there_and_back() -> None:
    shots = FewShotChatMessagePromptTemplate(
        examples=[{"a": "2+2", "b": "4"}, {"a": "{x}", "b": "5"}],
        example_prompt=ChatPromptTemplate.from_messages([("human", "{a}"), ("ai", "{b}")]),
    )
    theirs = ChatPromptTemplate.from_messages([("system", "s"), shots, ("human", "{q}")])
    ours = Prompt.from_langchain(theirs)
    expected = written(theirs.format_messages(q="?"))
    assert [(m["role"], m["content"]) for m in ours.format_messages(q="?")] == expected
    assert written(ours.to_langchain().format_messages(q="?")) == expected


@pytest.mark.parametrize(
    ("theirs", "what"),
    [
        (PromptTemplate.from_template("{q}", output_parser=StrOutputParser()), "output parser"),
        (PromptTemplate.from_template("{q} {now}").partial(now=lambda: "now"), "function"),
        (ChatPromptTemplate.from_messages([("human", [{"type": "image_url", "image_url": "{u}"}])]), "one text"),
        (ChatPromptTemplate.from_messages([MessagesPlaceholder("h", n_messages=1)]), "cuts"),
        (
            FewShotPromptTemplate(
                examples=[{"a": "{"}],
                example_prompt=PromptTemplate.from_template("{a}"),
                suffix="",
                input_variables=[],
                template_format="jinja2",
            ),
            "format of its own",
        ),
        (
            FewShotPromptTemplate(
                examples=[{"a": "{b}"}],
                example_prompt=PromptTemplate.from_template("{a}"),
                suffix="",
                input_variables=[],
            ),
            "braces",
        ),
        (
            FewShotPromptTemplate(
                example_selector=LengthBasedExampleSelector(
                    examples=[], example_prompt=PromptTemplate.from_template("{a}")
                ),
                example_prompt=PromptTemplate.from_template("{a}"),
                suffix="",
                input_variables=[],
            ),
            "example_selector",
        ),
        ("text", "no prompt"),
    ],
)
def test_what_a_prompt_cannot_express_is_refused_by_name(theirs: Any, what: str) -> None:
    with pytest.raises(InvalidValue, match=what):
        Prompt.from_langchain(theirs)


@pytest.mark.parametrize(
    "prompt",
    [
        Prompt("{{ strftime_now('%Y') }}", template_format="jinja2"),
        Prompt("{{ x|choice }}", template_format="jinja2"),
        Prompt("x", template_format="jinja2", jinja="transformers"),
        Prompt("{{>a}}", template_format="mustache", includes={"a": "b"}),
        Prompt("{% for i in x %}{% break %}{% endfor %}", template_format="jinja2"),
    ],
)
def test_what_langchain_cannot_express_is_refused(prompt: Prompt) -> None:
    with pytest.raises(InvalidValue, match="LangChain"):
        prompt.to_langchain()


TEXT = {"lc": 1, "type": "constructor", "id": ["langchain", "prompts", "prompt", "PromptTemplate"]}


@pytest.mark.parametrize(
    "document",
    [
        {"lc": 1, "type": "secret", "id": ["OPENAI_API_KEY"]},
        {"lc": 1, "type": "not_implemented", "id": ["langchain", "x"], "repr": "x"},
        {"lc": 2, **{k: v for k, v in TEXT.items() if k != "lc"}, "kwargs": {"template": "x"}},
        {**TEXT, "kwargs": None},
        {**TEXT, "id": ["os", "system"], "kwargs": {"command": "id"}},
        {**TEXT, "id": ["langchain", "chat_models", "openai", "ChatOpenAI"], "kwargs": {}},
        {**TEXT, "id": "PromptTemplate", "kwargs": {"template": "x"}},
        {**TEXT, "kwargs": {"template": {"lc": 1, "type": "secret", "id": ["HOME"]}}},
        {
            **TEXT,
            "kwargs": {"template": "{a}", "partial_variables": {"a": {"lc": 1, "type": "secret", "id": ["HOME"]}}},
        },
        {**TEXT, "kwargs": {"template": "x", "template_format": "python"}},
        {**TEXT, "kwargs": {"template": "x", "callbacks": ["x"]}},
        {"_type": "chat", "messages": []},
        {"_type": 3},
        {"_type": "few_shot", "examples": "x"},
        {"_type": "few_shot", "example_prompt": {"_type": "few_shot"}},
        {"_type": "prompt", "template": 3},
        {"lc": 1, "type": "constructor", "id": ["langchain", "prompts", "chat", "ChatPromptTemplate"], "kwargs": {}},
    ],
)
def test_a_foreign_or_malformed_document_is_refused(document: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "secret-home")
    with pytest.raises(InvalidValue) as caught:
        read(document)
    assert "secret-home" not in str(caught.value)
