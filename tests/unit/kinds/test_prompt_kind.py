from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmartifacts.errors import (
    InvalidInput,
    InvalidPath,
    InvalidValue,
    NotFound,
    TooLarge,
)
from llmartifacts.kinds.model import ModelSpec
from llmartifacts.kinds.prompt.kind import PromptKind
from llmartifacts.kinds.prompt.value import Prompt
from llmartifacts.records.manifest import Manifest

KIND = PromptKind()
NOTHING: Any = None
MODEL = ModelSpec("openai", "gpt-4-turbo", parameters={"temperature": 0.2})


def jinja(template: Any, **fields: Any) -> Prompt:
    return Prompt(template, template_format="jinja2", **fields)


# --- the kind


def test_the_config_holds_exactly_what_is_there() -> None:
    assert jinja("Hi {{ name }}").to_config() == {
        "type": "text",
        "template_format": "jinja2",
        "template": "Hi {{ name }}",
        "variables": {"name": {"required": True}},
    }


def test_a_config_is_one_manifest_without_files() -> None:
    manifest = Manifest.build("prompt", KIND.pack(jinja("{{ x }}", model=MODEL), NOTHING))
    assert manifest.files == ()
    assert KIND.unpack(Manifest.from_bytes(manifest.to_bytes()).config, NOTHING).format(x=1) == "1"


BASE = {"type": "text", "template_format": "jinja2", "template": "{{ x }}", "variables": {"x": {"required": True}}}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"type": "poem"}, "type"),
        ({"template_format": "erb"}, "template_format"),
        ({"template": None}, "template"),
        ({"template": 3}, "template"),
        ({"messages": [{"role": "user", "template": "x"}]}, "template"),
        ({"type": "chat"}, "messages"),
        ({"type": "chat", "template": None, "messages": [{"role": "user"}]}, "messages[0]"),
        ({"extra": 1}, "extra"),
        ({"variables": {"x": {}}}, "variables.x.required"),
        ({"jinja": {"autoescape": True}}, "jinja.autoescape"),
        ({"template_format": "f-string", "jinja": {}}, "jinja"),
        ({"includes": {"a": "b"}}, "includes"),
        ({"model": {"provider": "x"}}, "model.name"),
        ({"variables": None}, "variables"),
        ({"template": "x" * (2**20 + 1)}, "template"),
        ({"variables": {"x": {"required": True, "schema": None}}}, "variables.x.schema"),
        ({"examples": {"items": []}}, "examples.items"),
        ({"examples": {"items": [{}], "template": "x"}}, "examples"),
        ({"examples": {"items": [{}], "messages": [{"role": "a", "template": "b"}]}}, "examples"),
        ({"examples": {"items": [{}], "template": None}}, "examples.template"),
        (
            {"type": "chat", "template": None, "messages": [{"role": "a", "template": "b", "placeholder": None}]},
            "messages[0]",
        ),
    ],
)
def test_a_config_that_pack_does_not_write_is_refused(change: dict[str, Any], field: str) -> None:
    config = {k: v for k, v in {**BASE, **change}.items() if v is not None}
    assert KIND.check(config)[0].startswith(field)
    with pytest.raises(InvalidValue) as caught:
        KIND.unpack(config, NOTHING)
    assert caught.value.field == f"config.{field}"


@pytest.mark.parametrize(
    "change",
    [
        {"template": "{% if"},
        {"variables": {}},
        {"variables": {"y": {"required": True}}},
        {"helpers": ["choice"]},
        {"template": "{{ x|choice }}"},
        {"partials": {"z": 1}},
        {"examples": {"items": [{"a": 1}]}},
        {"template": "{{ x.__class__ }}"},
        {"variables": {"x": {"required": True, "schema": {"type": "text"}}}},
        {"variables": {"x": {"required": True, "schema": {"items": 3}}}},
    ],
)
def test_a_config_that_lies_about_its_template_is_refused_at_first_use(change: dict[str, Any]) -> None:
    prompt = KIND.unpack({**BASE, **change}, NOTHING)
    with pytest.raises(InvalidInput):
        prompt.format(x=["1"])


@pytest.mark.parametrize("key", ["messages", "examples", "tools", "response_format", "model", "jinja"])
def test_a_null_is_refused_because_what_is_absent_is_left_out(key: str) -> None:
    assert KIND.check({**BASE, key: None}) == [f"{key}: null; what is absent is left out"]


def test_a_diff_shows_lines_of_the_template_and_fields() -> None:
    old = Manifest.build("prompt", jinja("Hello {{ name }}\nBye", model=MODEL).to_config())
    other = ModelSpec("openai", "gpt-4-turbo", parameters={"temperature": 0.9})
    new = Manifest.build("prompt", jinja("Hi {{ name }}\nBye", model=other).to_config())
    diff = KIND.diff(old, new, (NOTHING, NOTHING))
    assert [str(c) for c in diff.changes] == ["~ model.parameters.temperature: 0.2 -> 0.9"]
    assert "-Hello {{ name }}\n+Hi {{ name }}\n Bye" in diff.text
    assert not KIND.diff(old, old, (NOTHING, NOTHING))


def test_a_diff_of_chats_shows_roles_and_placeholders() -> None:
    old = Manifest.build("prompt", jinja([("system", "a"), {"placeholder": "h"}]).to_config())
    new = Manifest.build("prompt", jinja([("user", "a"), {"placeholder": "h", "optional": True}]).to_config())
    text = KIND.diff(old, new, (NOTHING, NOTHING)).text
    assert "-[system]\n+[user]" in text
    assert "+[messages of h (optional)]" in text


def test_a_summary_is_one_line() -> None:
    prompt = jinja([("user", "{{ q }}{{ z|d(1) }}")], model=MODEL, tools=[{"a": 1}])
    assert KIND.summary(prompt.to_config()) == "chat of 1 message, jinja2, needs q, [z], 1 tools, openai/gpt-4-turbo"
    assert KIND.summary(Prompt("x", template_format="mustache").to_config()) == "text, mustache, no variables"


# --- files


def test_a_suffix_says_the_format_or_it_has_to_be_said(tmp_path: Path) -> None:
    for name in ("a.j2", "b.mustache", "c.txt"):
        (tmp_path / name).write_text("Hi {{ name }}")
    assert Prompt.from_file(tmp_path / "a.j2", model=MODEL) == jinja("Hi {{ name }}", model=MODEL)
    assert Prompt.from_file(str(tmp_path / "b.mustache")).template_format == "mustache"
    assert Prompt.from_file(tmp_path / "c.txt", template_format="jinja2") == jinja("Hi {{ name }}")
    with pytest.raises(InvalidValue) as caught:
        Prompt.from_file(tmp_path / "c.txt")
    assert "template_format" in caught.value.hint()


def test_a_yaml_has_the_fields_of_a_prompt(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        "template_format: jinja2\n"
        "messages:\n"
        "  - role: system\n"
        "    template: You are {{ who }}.\n"
        "  - placeholder: history\n"
        "    optional: true\n"
        "  - [user, '{{ q }}']\n"
        "model: {provider: openai, name: gpt-4-turbo, parameters: {temperature: 0.2}}\n"
        "partials: {who: Ada}\n"
        "response_format: {type: json_object}\n"
        "variables: {q: {schema: {type: string}}}\n"
    )
    assert Prompt.from_file(file) == jinja(
        [("system", "You are {{ who }}."), {"placeholder": "history", "optional": True}, ("user", "{{ q }}")],
        model=MODEL,
        partials={"who": "Ada"},
        response_format={"type": "json_object"},
        variables={"q": {"schema": {"type": "string"}}},
    )


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("[]", ""),
        ("template_format: jinja2", "template"),
        ("template: x", "template_format"),
        ("template: x\ntemplate_format: jinja2\nmesages: []", "mesages"),
        ("template: x\nmessages: []\ntemplate_format: jinja2", "template"),
        ("template: x\ntemplate_format: jinja2\nmodel: {provider: a, nam: b}", "model"),
        ("template: x\ntemplate_format: jinja2\nmodel: gpt", "model"),
        ("template: [", ""),
        ("template: !!python/object/apply:os.system [id]", ""),
        ("template: '{{ x|nope }}'\ntemplate_format: jinja2", "template"),
    ],
)
def test_a_yaml_that_is_no_prompt_names_the_field_and_the_file(tmp_path: Path, text: str, field: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text)
    with pytest.raises(InvalidInput) as caught:
        Prompt.from_file(file)
    assert caught.value.field == field
    assert caught.value.origin.startswith(str(file))


def test_fields_said_beside_a_file_win_and_unknown_ones_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("template: 'Hi {x}'\n")
    (tmp_path / "a.j2").write_text("Hi")
    (tmp_path / "a.json").write_text('{"_type": "prompt", "template": "Hi {x}"}')
    said = Prompt.from_file(tmp_path / "a.yaml", template_format="f-string", model=MODEL)
    assert said == Prompt("Hi {x}", template_format="f-string", model=MODEL)
    assert Prompt.from_file(tmp_path / "a.json", model=MODEL) == said
    assert Prompt.from_file(tmp_path / "a.json", template_format="mustache").template.startswith('{"_type"')
    for name, field in (("a.yaml", "modell"), ("a.j2", "template"), ("a.j2", "colour"), ("a.json", "messages")):
        with pytest.raises(InvalidValue) as caught:
            Prompt.from_file(tmp_path / name, **{field: "x"})
        assert caught.value.field == field


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "greeting.j2").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidValue, match="UTF-8"):
        Prompt.from_file(tmp_path / "greeting.j2")
    with pytest.raises(NotFound) as caught:
        Prompt.from_file(tmp_path / "greting.j2")
    assert caught.value.near == ("greeting.j2",)
    with pytest.raises(InvalidInput):
        Prompt.from_file(tmp_path, template_format="jinja2")


def test_a_file_of_many_megabytes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.j2").write_bytes(b"x" * (5 * 2**20))
    with pytest.raises(TooLarge):
        Prompt.from_file(tmp_path / "a.j2")


@pytest.mark.parametrize("side", ["/etc/hostname.txt", "../secret.txt", "link.txt", "a.py", "folder/../../x.txt"])
def test_a_langchain_file_names_no_file_elsewhere(tmp_path: Path, side: str) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    folder = tmp_path / "prompts"
    folder.mkdir()
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "a.py").write_text("x")
    file = folder / "p.yaml"
    file.write_text(f"_type: prompt\ntemplate_path: {side}\n")
    with pytest.raises((InvalidPath, InvalidValue)) as caught:
        Prompt.from_file(file)
    assert caught.value.origin == str(file)


def test_a_source_is_read_with_options(tmp_path: Path) -> None:
    file = tmp_path / "a.jinja"
    file.write_text("{{ x|tojson }}\n")
    options = {
        "template_format": "jinja2",
        "jinja": "transformers",
        "helpers": "tojson, choice",
        "model": "openai/gpt-4-turbo",
        "parameters": '{"temperature": 0.2}',
    }
    assert KIND.read_source([file], options) == jinja("{{ x|tojson }}\n", jinja="transformers", model=MODEL)
    for wrong in ({"colour": "red"}, {"model": "gpt"}, {"revision": "1"}, {"model": "a/b", "parameters": "[]"}):
        with pytest.raises(InvalidInput):
            KIND.read_source([file], {"template_format": "jinja2", **wrong})
    with pytest.raises(InvalidValue, match="one file"):
        KIND.read_source([file, file], {})


def test_unpacking_a_prompt_imports_no_template_engine_and_no_langchain() -> None:
    code = """
import sys
from llmartifacts.kinds.prompt.kind import PromptKind
config = {"type": "text", "template_format": "jinja2", "template": "{{ x }}", "variables": {"x": {"required": True}}}
prompt = PromptKind().unpack(config, None)
loaded = {name.partition(".")[0] for name in sys.modules}
assert not loaded & {"jinja2", "langchain_core", "numpy", "faiss", "yaml", "jsonschema"}, loaded
assert prompt.format(x=1) == "1"
loaded = {name.partition(".")[0] for name in sys.modules}
assert not loaded & {"langchain_core", "numpy", "faiss", "yaml", "jsonschema"}, loaded
"""
    subprocess.run([sys.executable, "-c", code], check=True)
