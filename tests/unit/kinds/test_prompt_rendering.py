from __future__ import annotations

import threading
from datetime import datetime
from typing import Any

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.errors import (
    InvalidInput,
    InvalidTemplate,
    InvalidValue,
    MissingVariable,
    RenderLimitExceeded,
    TooLarge,
)
from llmartifacts.kinds.model import ModelSpec
from llmartifacts.kinds.prompt.kind import PromptKind
from llmartifacts.kinds.prompt.limits import Limits
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


# --- typed variables


def test_a_typed_variable_is_held_against_its_schema() -> None:
    schema = {"type": "object", "properties": {"age": {"type": "integer", "minimum": 0}}, "required": ["age"]}
    prompt = again(jinja("{{ user.age }}", variables={"user": {"schema": schema}}))
    assert prompt.format(user={"age": 3}) == "3"
    for value, field in (({"age": -1}, "user.age"), ({"age": "x"}, "user.age"), ({}, "user"), ([], "user")):
        with pytest.raises(InvalidValue) as caught:
            prompt.format(user=value)
        assert caught.value.field == field


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"anyOf": []},
        {"type": "text"},
        {"type": []},
        {"minimum": "1"},
        {"minLength": -1},
        {"pattern": "("},
        {"pattern": r"(a)\1"},
        {"items": 3},
        {"enum": []},
        {"required": "a"},
        {"properties": []},
        {"format": "email"},
        [],
        "x",
    ],
)
def test_a_schema_that_cannot_be_held_to_is_refused_when_made(schema: Any) -> None:
    with pytest.raises(InvalidValue) as caught:
        jinja("{{ x }}", variables={"x": {"schema": schema}})
    assert caught.value.field.startswith("variables.x.schema")


SCHEMAS = [
    {"type": "string", "minLength": 1, "maxLength": 3},
    {"type": ["integer", "null"]},
    {"type": "number", "exclusiveMinimum": 0, "maximum": 2},
    {"type": "boolean"},
    {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2},
    {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False},
    {"enum": ["a", 1, None]},
    {"const": 1},
    {"type": "string", "pattern": "^[a-c]+$"},
    {},
]


@given(
    st.sampled_from(SCHEMAS),
    st.recursive(
        st.none() | st.booleans() | st.integers(-2, 3) | st.sampled_from([0.5, 1.0]) | st.text("abx", max_size=4),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
        max_leaves=4,
    ),
)
def test_schemas_judge_as_the_reference_validator_judges(schema: dict[str, Any], value: Any) -> None:
    import jsonschema

    prompt = jinja("{{ x }}", variables={"x": {"schema": schema}})
    try:
        prompt.format(x=value)
        fits = True
    except InvalidValue:
        fits = False
    assert fits == jsonschema.Draft202012Validator(schema).is_valid(value)


# --- f-string


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="{}"), max_size=5)
        | st.sampled_from(["{{", "}}", "{a}", "{b!r}", "{a:>7}", "{b!s:.2}", "{a!a:^9}"]),
        max_size=8,
    ),
    st.text(max_size=4),
)
def test_an_f_string_writes_what_the_formatter_writes(parts: list[str], value: str) -> None:
    from string import Formatter

    template = "".join(parts)
    prompt = Prompt(template, template_format="f-string")
    values = dict.fromkeys(prompt.variables, value)
    assert prompt.format(**values) == Formatter().format(template, **values)


def test_an_f_string_that_passes_a_limit_or_misses_a_value_names_the_line() -> None:
    prompt = Prompt("a\n{x}", template_format="f-string", variables={"x": {"required": False}})
    with pytest.raises(RenderLimitExceeded) as long:
        prompt.render({"x": "x" * 100}, limits=Limits(output=50))
    with pytest.raises(MissingVariable) as missing:
        prompt.format()
    assert long.value.line == missing.value.line == 2
    assert long.value.field == "template"


def test_an_f_string_value_of_the_wrong_sort_is_named_with_its_line() -> None:
    with pytest.raises(InvalidTemplate, match="n") as caught:
        Prompt("a\nb {n:d}", template_format="f-string").format(n="x")
    assert (caught.value.line, caught.value.variable) == (2, "n")


# --- values, limits, engines


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_value_is_never_read_as_a_template(value: str) -> None:
    for template, form in (("{{ x }}", "jinja2"), ("{x}", "f-string"), ("{{{x}}}", "mustache")):
        assert Prompt(template, template_format=form).format(x=value) == value


PIECES = [
    "text\n",
    "{{ a }}",
    "{{ a|upper }}",
    "{{ 'x' * 3 }}",
    "{{ 2 ** 5 // 3 % 4 - 1 }}",
    "{{ a ~ b ~ 1 }}",
    "{{ a[1:] }}",
    "{{ b == a }}",
    "{{ 1 < 2 < 3 }}",
    "{{ b is string }}",
    "{{ [a, b]|join('-') }}",
    "{% for x in c %}{{ loop.index }}{{ x }}{{ loop.last }}{% else %}none{% endfor %}",
    "{% for x in c if x > 1 %}{{ loop.length }}{% endfor %}",
    "{{ c|sum }}{{ c|max }}{{ c|map('string')|list }}",
    "{% for x in c recursive %}{{ x }}{% if loop.depth < 3 %}{{ loop(c) }}{% endif %}{% endfor %}",
    "{% set n = namespace(v=0) %}{% for x in c %}{% set n.v = n.v + x %}{% endfor %}{{ n.v }}",
    "{% macro m(p, q=2) %}<{{ p }}{{ q }}{{ varargs }}>{% endmacro %}{{ m(a) }}{{ m(1, 2, 3) }}",
    "{% filter upper %}a{{ a }}{% endfilter %}",
    "{% set s %}b{{ b }}{% endset %}{{ s|length }}{{ s }}",
    "{{ '%s-%03d'|format(a, 7) }}{{ '%5.2f' % 1.5 }}{{ '{:>4}{!r}'.format(1, a) }}",
    "{% call(x) m2() %}[{{ x }}]{% endcall %}{% macro m2() %}{{ caller(3) }}{% endmacro %}",
    "{{ d.k }}{{ d['k'] }}{{ d.items()|list }}{{ d|dictsort }}{{ d.get('z', 'none') }}{{ d|tojson }}",
    "{% autoescape true %}{{ a }}{{ '<b>' }}{{ a ~ '<' }}{% endautoescape %}",
    "{{ cycler('a', 'b').next() }}",
    "{% block body %}{{ a }}{% endblock %}{{ self.body() }}",
    "{{ 'a b c'.split() }}{{ a.center(9) }}|",
    "{{ c|batch(2, 0)|list }}{{ c|slice(2)|list }}{{ a|indent(2) }}{{ 3.14159|round(2) }}{{ a|truncate(3) }}",
    "{% with z = 1 %}{{ z }}{% endwith %}",
    "{{ [3, 1]|sort|first }}{{ 'x'.replace('x', a) }}{{ a|replace('a', 'b') }}",
    "{{ c|groupby('real')|list }}",
    "{{ (1, 'a') }}{{ {'a': [1, 2.5, none, true]} }}{{ 1e20 }}{{ -c[0] }}",
]


@given(
    st.lists(st.sampled_from(PIECES), max_size=6),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
)
def test_the_metered_engine_writes_what_the_plain_engine_writes(parts: list[str], a: str) -> None:
    template = "".join(parts)
    if template.count("{% block") > 1:
        return
    values = {"a": a, "b": "<b>", "c": [1, 2, 3], "d": {"k": "v & w"}}
    plain = jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(template)
    prompt = jinja(template)
    told = {k: v for k, v in values.items() if k in prompt.variables}
    try:
        expected = plain.render(**told)
    except (jinja2.TemplateError, TypeError, ValueError, ZeroDivisionError, IndexError):
        with pytest.raises(InvalidTemplate):
            prompt.format(**told)
    else:
        assert prompt.format(**told) == expected


def test_break_and_continue_are_there() -> None:
    text = (
        "{% for i in range(9) %}{% if i == 1 %}{% continue %}{% elif i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}"
    )
    assert jinja(text).format() == "023"


def test_what_has_no_fixed_text_is_not_printed() -> None:
    with pytest.raises(InvalidTemplate, match="cannot be printed") as caught:
        jinja("\n{{ xs|map('upper') }}").format(xs=["a"])
    assert caught.value.line == 2


def test_the_limits_of_a_trusted_template_can_be_raised_and_lowered() -> None:
    prompt = jinja("{{ 'x' * n }}")
    assert len(prompt.render({"n": 5_000_000}, limits=Limits(output=6_000_000, value=6_000_000))) == 5_000_000
    for limits in (Limits(output=9), Limits(value=9), Limits(memory=30), Limits(steps=0, seconds=5)):
        with pytest.raises(RenderLimitExceeded) as caught:
            jinja("{% for i in range(200) %}{{ 'x' * n }}{% endfor %}").render({"n": 10}, limits=limits)
        assert caught.value.line == 1
    with pytest.raises(RenderLimitExceeded, match="seconds"):
        jinja("{% for i in range(1000) %}{% endfor %}").render({}, limits=Limits(seconds=-1))


@pytest.mark.parametrize("value", [{1, 2}, b"x", object(), datetime(2026, 1, 1), {1: 2}, lambda: 1, [[[object()]]]])
def test_a_value_that_is_no_json_is_refused_by_name(value: Any) -> None:
    with pytest.raises(InvalidValue) as caught:
        jinja("{{ x }}").format(x=value)
    assert caught.value.field.startswith("x")


def test_subclasses_of_plain_values_become_plain() -> None:
    class Loud(str):
        def upper(self) -> str:
            raise AssertionError

    assert jinja("{{ x|upper }}{{ x.upper() }}").format(x=Loud("a")) == "AA"
    assert jinja("{{ x }}").format(x=(1, 2)) == "[1, 2]"


def test_a_value_that_holds_itself_or_is_too_large_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InvalidInput):
        jinja("{{ x }}").format(x=loop)
    wide: Any = ["x" * 1000] * 1000
    for _ in range(3):
        wide = [wide] * 10
    with pytest.raises(TooLarge):
        jinja("{{ x }}").format(x=wide)


def test_one_prompt_renders_in_many_threads() -> None:
    config = KIND.pack(jinja("{% for i in range(50) %}{{ x }}{{ i }}{% endfor %}"), NOTHING)
    prompt = KIND.unpack(config, NOTHING)
    barrier, wrong = threading.Barrier(8), []

    def work(n: int) -> None:
        barrier.wait()
        expected = "".join(f"{n}{i}" for i in range(50))
        wrong.extend(n for _ in range(20) if prompt.format(x=n) != expected)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
