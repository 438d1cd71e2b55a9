from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from llmartifacts.errors import (
    InvalidInput,
    InvalidTemplate,
    InvalidValue,
    MissingVariable,
    TooLarge,
    UnexpectedVariable,
)
from llmartifacts.kinds.model import ModelSpec
from llmartifacts.kinds.prompt.kind import PromptKind
from llmartifacts.kinds.prompt.value import Prompt
from llmartifacts.records.canonical import canonical_bytes, parse_json

KIND = PromptKind()
NOTHING: Any = None
MODEL = ModelSpec("openai", "gpt-4-turbo", parameters={"temperature": 0.2})


def jinja(template: Any, **fields: Any) -> Prompt:
    return Prompt(template, template_format="jinja2", **fields)


def again(prompt: Prompt) -> Prompt:
    config = KIND.pack(prompt, NOTHING)
    assert KIND.check(config) == []
    found = KIND.unpack(parse_json(canonical_bytes(config)), NOTHING)
    assert found == prompt
    return found


# --- text and chat


@pytest.mark.parametrize(
    ("template", "form"),
    [("Hello {{ name }}!", "jinja2"), ("Hello {name}!", "f-string"), ("Hello {{name}}!", "mustache")],
)
def test_a_text_is_written_in_each_format(template: str, form: str) -> None:
    prompt = again(Prompt(template, template_format=form))
    assert prompt.format(name="Ada") == "Hello Ada!"
    assert prompt.format_messages(name="Ada") == [{"role": "user", "content": "Hello Ada!"}]
    assert (prompt.required, prompt.template, prompt.template_format) == (("name",), template, form)


def test_a_chat_is_written_message_by_message_with_others_put_in() -> None:
    prompt = again(
        jinja(
            [
                ("system", "You are {{ who }}."),
                {"placeholder": "history", "optional": True},
                {"role": "user", "template": "{{ question }}"},
            ]
        )
    )
    assert prompt.required == ("question", "who")
    assert prompt.variables["history"] == {"required": False}
    assert prompt.format_messages(who="Ada", question="Why?") == [
        {"role": "system", "content": "You are Ada."},
        {"role": "user", "content": "Why?"},
    ]
    history = [("assistant", "{{ not a template }}"), {"role": "tool", "content": "7", "tool_call_id": "x"}]
    told = prompt.format_messages(who="Ada", question="Why?", history=history)
    assert told[1:3] == [{"role": "assistant", "content": "{{ not a template }}"}, history[1]]


def test_a_required_placeholder_that_is_missing_is_named() -> None:
    with pytest.raises(MissingVariable, match="history"):
        jinja([{"placeholder": "history"}]).format_messages()


@pytest.mark.parametrize("history", ["text", [1], [{"content": "x"}], [("a", "b", "c")]])
def test_what_is_no_list_of_messages_is_refused(history: Any) -> None:
    with pytest.raises(InvalidValue) as caught:
        jinja([{"placeholder": "history"}]).format_messages(history=history)
    assert caught.value.field.startswith("history")


def test_a_chat_has_no_text_and_says_what_to_call() -> None:
    with pytest.raises(InvalidValue, match="chat") as caught:
        jinja([("user", "hi")]).format()
    assert "format_messages" in caught.value.hint()


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [("user",)],
        ["user"],
        [("", "x")],
        [("user", 3)],
        [{"role": "user"}],
        [{"role": "user", "template": "a", "extra": 1}],
        [{"placeholder": "x", "optional": "yes"}],
        [{"placeholder": ""}],
        [{"placeholder": "x", "role": "user"}],
        [("user", "{{ x }}"), {"placeholder": "x"}],
        7,
        None,
    ],
)
def test_a_malformed_chat_is_refused(messages: Any) -> None:
    with pytest.raises((InvalidValue, InvalidTemplate)) as caught:
        jinja(messages)
    assert caught.value.field.startswith("messages")


def test_the_format_is_never_guessed() -> None:
    with pytest.raises(TypeError):
        Prompt("x")  # type: ignore[call-arg]
    for form in (None, "jinja", "F-String", 3, ["jinja2"]):
        with pytest.raises(InvalidValue, match="template_format"):
            Prompt("x", template_format=form)  # type: ignore[arg-type]


# --- variables


@pytest.mark.parametrize(
    ("template", "required", "optional"),
    [
        ("{{ a }}{{ b.c }}{{ d['e'] }}", {"a", "b", "d"}, set()),
        ("{% if a is defined %}{{ a }}{% endif %}", set(), {"a"}),
        ("{% if a is not defined %}x{% endif %}{{ b }}", {"b"}, {"a"}),
        ("{{ a|default('x') }}{{ a|d('y') }}", set(), {"a"}),
        ("{{ a|default('x') }}{{ a }}", {"a"}, set()),
        ("{% set a = 1 %}{{ a }}", set(), set()),
        ("{% if b %}{% set a = 1 %}{% endif %}{{ a }}", {"b"}, {"a"}),
        ("{% for x in xs %}{{ x }}{% endfor %}", {"xs"}, set()),
        ("{% for x in xs %}{% endfor %}{{ x }}", {"x", "xs"}, set()),
        ("{% macro m(p) %}{{ p }}{{ q }}{% endmacro %}{{ m(1) }}", {"q"}, set()),
        ("{{ range(3) }}{% set n = namespace(v=1) %}{{ n.v }}", set(), set()),
        ("{% set n.v = 1 %}", {"n"}, set()),
        ("{{ zip }}", {"zip"}, set()),
        ("{# {{ a }} #}{% raw %}{{ b }}{% endraw %}", set(), set()),
    ],
)
def test_variables_are_found_in_the_syntax_tree(template: str, required: set[str], optional: set[str]) -> None:
    prompt = jinja(template)
    assert set(prompt.required) == required
    assert set(prompt.variables) == required | optional


def test_a_missing_variable_is_named_with_its_line_and_file(tmp_path: Path) -> None:
    file = tmp_path / "a.j2"
    file.write_text("Hello\n\n{{ name }} {{ other }}")
    with pytest.raises(MissingVariable, match="'name', 'other'") as caught:
        Prompt.from_file(file).format()
    assert (caught.value.variable, caught.value.line) == ("name", 3)
    assert caught.value.origin == f"{file}, line 3"
    assert "name=…" in caught.value.hint()


def test_an_unknown_variable_is_refused_with_a_near_name() -> None:
    with pytest.raises(UnexpectedVariable) as caught:
        jinja("{{ question }}").format(question="?", qestion="?")
    assert caught.value.variable == "qestion"
    assert "question" in caught.value.hint()


def test_a_field_that_is_not_there_is_named_with_its_line() -> None:
    with pytest.raises(MissingVariable, match="author") as caught:
        jinja("{{ book.title }}\n{{ book.author }}").format(book={"title": "x"})
    assert (caught.value.variable, caught.value.line) == ("author", 2)


def test_an_optional_variable_that_the_template_reads_unasked_is_named_when_it_is_missing() -> None:
    with pytest.raises(MissingVariable) as caught:
        jinja("{% if false and a is defined %}{% endif %}\n\n{{ a }}").format()
    assert (caught.value.variable, caught.value.line) == ("a", 3)


def test_a_variable_may_have_any_name_even_self() -> None:
    prompt = Prompt("{self} {values}", template_format="f-string")
    assert prompt.format(self="a", values="b") == "a b"


def test_the_caller_may_say_that_a_variable_is_optional() -> None:
    prompt = again(Prompt("Hi{{name}}", template_format="mustache", variables={"name": {"required": False}}))
    assert prompt.format() == "Hi"
    with pytest.raises(UnexpectedVariable, match="nmae"):
        jinja("{{ name }}", variables={"nmae": {"required": True}})


def test_mustache_sections_make_their_variables_optional() -> None:
    prompt = Prompt("{{a}}{{#b}}{{c}}{{/b}}{{^d}}x{{/d}}", template_format="mustache")
    assert prompt.required == ("a",)
    assert set(prompt.variables) == {"a", "b", "c", "d"}


# --- malformed templates


@pytest.mark.parametrize(
    ("template", "line", "variable"),
    [
        ("a\n{% if %}", 2, ""),
        ("{{ a ", 1, ""),
        ("\n\n{% endfor %}", 3, ""),
        ("a\n{{ x|uper }}", 2, "uper"),
        ("{% if x is strng %}{% endif %}", 1, "strng"),
        ("\n{% include 'x' %}", 2, "include"),
        ("\n{% break %}", 2, ""),
        ("{% block a %}{% endblock %}\n{% block a %}{% endblock %}", 2, ""),
        ("\n{{ x.__class__ }}", 2, "__class__"),
    ],
)
def test_a_malformed_template_is_refused_when_made_with_its_line(template: str, line: int, variable: str) -> None:
    with pytest.raises(InvalidTemplate) as caught:
        jinja([("system", "fine"), ("user", template)], origin="chat.yaml")
    assert caught.value.line == line
    assert caught.value.variable == variable
    assert caught.value.field == "messages[1].template"
    assert caught.value.origin == f"chat.yaml, line {line}"


def test_an_unknown_filter_offers_near_names() -> None:
    with pytest.raises(InvalidTemplate) as caught:
        jinja("{{ x|uper }}")
    assert "upper" in caught.value.hint()


def test_a_template_that_fails_while_it_is_written_names_the_line() -> None:
    with pytest.raises(InvalidTemplate, match="ZeroDivisionError") as caught:
        jinja("a\n{% for i in xs %}\n{{ 1 / i }}{% endfor %}").format(xs=[1, 0])
    assert caught.value.line == 3


def test_a_template_of_a_megabyte_goes_in_and_a_longer_one_does_not() -> None:
    assert len(jinja("x" * 2**20).format()) == 2**20
    with pytest.raises(TooLarge):
        jinja("x" * (2**20 + 1))


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(InvalidTemplate, match="surrogate"):
        jinja("\ud800")


# --- helpers


def test_a_template_says_which_helpers_it_needs_and_they_may_be_forbidden() -> None:
    template = (
        "{{ strftime_now('%Y') }}{{ xs|choice }}\n{% set _ = xs.append(1) %}{{ raise_exception('no') }}{{ xs|tojson }}"
    )
    prompt = again(jinja(template))
    assert prompt.helpers == ("choice", "mutation", "raise_exception", "strftime_now", "tojson")
    with pytest.raises(InvalidTemplate, match="mutation") as caught:
        jinja(template, helpers=[h for h in prompt.helpers if h != "mutation"])
    assert (caught.value.line, caught.value.variable) == (2, "mutation")
    with pytest.raises(InvalidValue, match="strftime") as wrong:
        jinja("x", helpers="strftime")
    assert "strftime_now" in wrong.value.hint()


def test_time_and_chance_come_from_arguments() -> None:
    prompt = jinja("{{ strftime_now('%d %B %Y') }} {{ xs|choice }} {{ xs|random }}")
    values = {"xs": list(range(1000))}
    now = datetime(2026, 3, 3)
    assert prompt.render(values, now=now, seed=1) == prompt.render(values, now=now, seed=1)
    assert prompt.render(values, now=now, seed=1).startswith("03 March 2026 ")
    assert prompt.render(values, now=now, seed=1) != prompt.render(values, now=now, seed=2)


def test_raise_exception_says_what_the_template_says() -> None:
    with pytest.raises(InvalidTemplate, match="roles must alternate") as caught:
        jinja("\n{{ raise_exception('roles must alternate') }}").format()
    assert (caught.value.line, caught.value.variable) == (2, "raise_exception")


def test_tojson_is_html_safe_by_default_and_plain_as_in_transformers() -> None:
    value = {"b": "<é>", "a": 1}
    assert jinja("{{ x|tojson }}").format(x=value) == r'{"a": 1, "b": "\u003c\u00e9\u003e"}'
    assert jinja("{{ x|tojson }}", jinja="transformers").format(x=value) == '{"b": "<é>", "a": 1}'
    with pytest.raises(InvalidTemplate, match="ensure_ascii"):
        jinja("{{ x|tojson(ensure_ascii=False) }}").format(x=value)


def test_the_jinja_options_are_content_and_defaults_are_left_out() -> None:
    template = "{% if true %}\n  a\n  {% endif %}\nb"
    trimmed = again(jinja(template, jinja={"trim_blocks": True, "lstrip_blocks": True, "undefined": "strict"}))
    assert trimmed.format() == "  a\nb"
    assert trimmed.to_config()["jinja"] == {"trim_blocks": True, "lstrip_blocks": True}
    assert trimmed != jinja(template)
    assert jinja(template, jinja={"trim_blocks": False}) == jinja(template, jinja="default") == jinja(template)
    assert jinja("a\n", jinja={"keep_trailing_newline": True}).format() == "a\n"


@pytest.mark.parametrize("options", ["hf", {"trim": True}, {"trim_blocks": 1}, {"undefined": "loose"}, 3])
def test_an_unknown_jinja_option_is_refused(options: Any) -> None:
    with pytest.raises(InvalidValue) as caught:
        jinja("x", jinja=options)
    assert caught.value.field == "jinja"
    with pytest.raises(InvalidValue):
        Prompt("x", template_format="f-string", jinja="transformers")


def test_lenient_templates_print_nothing_for_what_is_not_there() -> None:
    prompt = again(jinja("{% if tools and not quiet %}T{% endif %}{{ m.name }}!", jinja={"undefined": "lenient"}))
    assert prompt.required == ("m",)
    assert prompt.format(m={}) == "!"


# --- partials, examples, tools, model


def test_partials_are_fixed_and_no_longer_asked_for() -> None:
    prompt = again(jinja("{{ a }} {{ b }}", partials={"a": {"x": [1]}}))
    assert prompt.required == ("b",)
    assert prompt.format(b=2) == "{'x': [1]} 2"
    with pytest.raises(InvalidValue, match="fixed"):
        prompt.format(a=1, b=2)
    with pytest.raises(UnexpectedVariable, match="'c'"):
        jinja("{{ a }}", partials={"c": 1})


def test_examples_are_pinned_and_written_by_their_own_template() -> None:
    prompt = again(
        Prompt(
            "Antonyms:\n{examples}\n{word} ->",
            template_format="f-string",
            examples={
                "items": [{"a": "hot", "b": "{cold}"}, {"a": "up", "b": "down"}],
                "template": "{a} -> {b}",
                "separator": "\n",
            },
        )
    )
    assert prompt.required == ("word",)
    assert prompt.format(word="big") == "Antonyms:\nhot -> {cold}\nup -> down\nbig ->"


def test_a_template_may_loop_over_examples_itself() -> None:
    prompt = again(jinja("{% for e in examples %}{{ e.q }};{% endfor %}", examples=[{"q": "a"}, {"q": "b"}]))
    assert prompt.variables == {}
    assert prompt.format() == "a;b;"


def test_examples_of_a_chat_are_messages() -> None:
    prompt = again(
        jinja(
            [("system", "s"), {"placeholder": "examples"}, ("user", "{{ q }}")],
            examples={"items": [{"q": "1", "a": "2"}], "messages": [("user", "{{ q }}"), ("assistant", "{{ a }}")]},
        )
    )
    assert [m["content"] for m in prompt.format_messages(q="3")] == ["s", "1", "2", "3"]


@pytest.mark.parametrize(
    "examples",
    [
        [],
        [1],
        "x",
        {"items": [{}], "other": 1},
        {"items": [{"b": 1}], "template": "{{ a }}"},
        {"items": [{}], "separator": ","},
    ],
)
def test_examples_that_do_not_fit_are_refused(examples: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        jinja("{{ examples }}", examples=examples)
    assert caught.value.field.startswith("examples")


def test_examples_without_a_place_are_refused() -> None:
    with pytest.raises(InvalidValue, match="no place"):
        jinja("{{ x }}", examples=[{"a": 1}])


def test_tools_response_format_and_model_are_content() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    fields = {"tools": [tool], "tool_choice": "auto", "response_format": {"type": "json_object"}, "model": MODEL}
    prompt = again(jinja("x", **fields))
    assert (prompt.tools, prompt.tool_choice, prompt.response_format, prompt.model) == (
        [tool],
        "auto",
        {"type": "json_object"},
        MODEL,
    )
    assert len({prompt, jinja("x"), *(jinja("x", **{k: v}) for k, v in fields.items())}) == 6


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tools", {"a": 1}),
        ("tools", ["x"]),
        ("tool_choice", 3),
        ("response_format", "json"),
        ("tools", [{"x": object()}]),
    ],
)
def test_a_wrong_tool_or_format_is_named(name: str, value: Any) -> None:
    with pytest.raises(InvalidValue) as caught:
        jinja("x", **{name: value})
    assert caught.value.field.startswith(name)


def test_the_model_of_a_prompt_has_no_files_and_is_a_model(tmp_path: Path) -> None:
    for model in (ModelSpec("a", "b", files={"x": tmp_path / "x"}), {"provider": "a", "name": "b"}):
        with pytest.raises(InvalidValue) as caught:
            jinja("x", model=model)
        assert caught.value.field.startswith("model")


# --- a frozen value


def test_a_prompt_is_frozen_equal_by_content_and_goes_through_pickle() -> None:
    prompt = jinja("{{ x }}", tools=[{"a": 1}], origin="a.j2")
    assert prompt == jinja("{{ x }}", tools=[{"a": 1}])
    assert prompt != jinja("{{ y }}", tools=[{"a": 1}])
    assert prompt != "{{ x }}"
    copy = pickle.loads(pickle.dumps(prompt))
    assert copy == prompt
    assert copy.format(x=1) == "1"
    for name in ("template", "_config"):
        with pytest.raises(FrozenInstanceError):
            setattr(prompt, name, "y")
    prompt.tools.append({})  # type: ignore[union-attr]
    prompt.to_config()["template"] = "other"
    assert prompt == copy
    assert "x" in repr(prompt)


def test_what_was_handed_over_may_change_afterwards() -> None:
    tools = [{"a": 1}]
    prompt = jinja("x", tools=tools)
    tools[0]["a"] = 2
    assert prompt.tools == [{"a": 1}]
