"""Every real prompt goes in, comes out of its config, and writes what the plain engine writes.

Data sets rarely come with the prompts, so values are made up from the way a template uses its variables, in several
forms; the plain engine is `jinja2.Environment`, with the helpers that promptsource or transformers give it.
"""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from jinja2 import meta, nodes
from jinja2.sandbox import SandboxedEnvironment

from llmartifacts.errors import InvalidTemplate, InvalidValue, LlmartifactsError
from llmartifacts.kinds.prompt.helpers import FUNCTION_HELPERS
from llmartifacts.kinds.prompt.kind import PromptKind
from llmartifacts.kinds.prompt.value import Prompt
from llmartifacts.records.canonical import canonical_bytes, parse_json

NOW = datetime(2026, 3, 3, 9, 5, 7)
JINJA_GLOBALS = {"range", "dict", "cycler", "joiner", "namespace"}


class NoFiles:
    """The sink of a kind that has no files."""

    def add(self, path: str, source: Any) -> None:
        raise AssertionError(f"a prompt has no files, not {path}")

    add_external = add

    def paths(self) -> list[str]:
        return []


def logged_and_resolved(prompt: Prompt) -> Prompt:
    """The prompt as it comes back from the bytes of its config."""
    kind = PromptKind()
    config = kind.pack(prompt, NoFiles())
    assert kind.check(config) == []
    again = kind.unpack(parse_json(canonical_bytes(config)), NoFiles())
    assert again == prompt
    assert hash(again) == hash(prompt)
    assert kind.summary(config).startswith(("text", "chat"))
    return again


# --- the plain engines


def promptsource_engine() -> jinja2.Environment:
    def most_frequent(items: list[Any]) -> list[Any] | None:
        counts = Counter(items).most_common()
        return [item for item, count in counts if count == counts[0][1]] if items else None

    engine = jinja2.Environment(undefined=jinja2.StrictUndefined)
    engine.globals["zip"] = zip
    # Given the context, as `random` is: the plain engine draws for a constant list once, when it compiles.
    engine.filters["choice"] = jinja2.pass_context(lambda _, items: random.choice(items))
    engine.filters["most_frequent"] = most_frequent
    return engine


def transformers_engine() -> jinja2.Environment:
    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    def tojson(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    # Theirs is the immutable sandbox: there one of the 20 templates fails at `.pop()`, here its helper is `mutation`.
    engine = SandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    engine.filters["tojson"] = tojson
    engine.globals["raise_exception"] = raise_exception
    engine.globals["strftime_now"] = NOW.strftime
    return engine


def outcome(write: Callable[[], str]) -> str | None:
    """What was written, or None if it failed."""
    random.seed(7)
    try:
        return write()
    except (LlmartifactsError, jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError):
        return None


# --- values from the way a template uses its variables


class Shape:
    def __init__(self) -> None:
        self.fields: dict[str, Shape] = {}
        self.item: Shape | None = None
        self.number = False
        self.text = False
        self.key: Any = None

    def field(self, name: str) -> Shape:
        return self.fields.setdefault(name, Shape())

    def each(self) -> Shape:
        self.item = self.item or Shape()
        return self.item

    def value(self, texts: Iterator[str], number: int, length: int = 12) -> Any:
        if self.key is not None:
            return self.key
        if self.fields:
            return {name: shape.value(texts, number, length) for name, shape in self.fields.items()}
        if self.item is not None and not self.text:
            return [self.item.value(texts, number, length) for _ in range(length)]
        return number if self.number else next(texts)


SAME = {
    "list",
    "sort",
    "unique",
    "reverse",
    "selectattr",
    "rejectattr",
    "select",
    "reject",
    "default",
    "trim",
    "string",
}
ONE = {"first", "last", "random", "choice"}
NUMBERS = {"int", "round", "abs", "float"}
TEXT = set(dir(str))
WALKED = (nodes.For, nodes.Assign, nodes.Filter, nodes.Getitem, nodes.Getattr, nodes.Compare, nodes.BinExpr)


def shapes(tree: nodes.Template) -> dict[str, Shape]:
    found: dict[str, Shape] = {}
    tables = {a.target.name: a.node for a in tree.find_all(nodes.Assign) if isinstance(a.target, nodes.Name)}

    def of(node: Any) -> Shape:
        if isinstance(node, nodes.Name):
            return found.setdefault(node.name, Shape())
        if isinstance(node, nodes.Getattr):
            inner = of(node.node)
            if node.attr == "index":
                inner.each()
                return Shape()
            inner.text |= node.attr in TEXT
            return Shape() if inner.text else inner.field(node.attr)
        if isinstance(node, nodes.Getitem):
            inner = of(node.node)
            if isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
                return inner.field(node.arg.value)
            if isinstance(node.arg, nodes.Slice):
                for end in (node.arg.start, node.arg.stop):
                    of(end).number = True
                return inner
            of(node.arg).number = True
            table = tables.get(node.node.name) if isinstance(node.node, nodes.Name) else node.node
            if isinstance(table, nodes.Dict):
                of(node.arg).key = table.items[0].key.value
            return inner.each()
        if isinstance(node, nodes.Filter) and node.node is not None:
            return of_filter(node)
        return Shape()

    def of_filter(node: nodes.Filter) -> Shape:
        inner = of(node.node)
        named = [k.value for k in node.kwargs if k.key == "attribute"]
        named += node.args[:1] if node.name in ("selectattr", "rejectattr") else []
        for name in named:
            if isinstance(name, nodes.Const) and isinstance(name.value, str):
                field = inner.each().field(name.value)
                if node.name == "map":
                    mapped = Shape()
                    mapped.item = field
                    return mapped
        if node.name in NUMBERS:
            inner.number = True
            return inner
        if node.name in ("join", "map"):
            inner.each()
        return inner.each() if node.name in ONE else inner if node.name in SAME else Shape()

    for _ in range(2):
        for node in tree.find_all(WALKED):
            if isinstance(node, nodes.For | nodes.Assign) and isinstance(node.target, nodes.Name):
                source = of(node.iter).each() if isinstance(node, nodes.For) else of(node.node)
                found.setdefault(node.target.name, source)
            elif isinstance(node, nodes.For):
                of(node.iter).each()
            elif isinstance(node, nodes.Compare):
                sides = [node.expr, *(operand.expr for operand in node.ops)]
                if any(isinstance(s, nodes.Const | nodes.Neg) and not is_text(s) for s in sides):
                    for side in sides:
                        of(side).number = True
            elif isinstance(node, nodes.Sub | nodes.Mul | nodes.Div):
                of(node.left).number = of(node.right).number = True
            elif not isinstance(node, nodes.Assign):
                of(node)
    return found


def is_text(node: Any) -> bool:
    return isinstance(getattr(node, "value", None), str)


def contexts(tree: nodes.Template, names: set[str]) -> Iterator[dict[str, Any]]:
    found = shapes(tree)
    forms = (
        (0, 12, ["Ada met Bo", 'a "quote" & <tag>', "naïve 漢字 🦉"]),
        (1, 4, ["Solve a.b = 3: Ada's [SEP] (x), y - z? Ada and Bo met. | True"]),
        (-1, 3, ["0", "yes\n", ""]),
    )
    for number, length, words in forms:
        stream = itertools.cycle(words)
        yield {name: found.get(name, Shape()).value(stream, number, length) for name in sorted(names)}
    people = [{"userId": name, "engagement": n, "text": "hi"} for n, name in enumerate(["Alice", "Bob"])]
    yield {name: people if name in ("evaluation", "thread") else ["a", "b", "c"] for name in names}
    yield dict.fromkeys(names, "A")
    yield dict.fromkeys(names, 1)
    yield {name: ["a", "b", "c", "d", "e"] for name in names}


def compare(prompt: Prompt, text: str, engine: jinja2.Environment, given: Iterator[dict[str, Any]]) -> Counter[str]:
    """Both engines over every context; the two write the same or both fail."""
    template = engine.from_string(text)
    count: Counter[str] = Counter()
    for values in given:
        told = {k: v for k, v in values.items() if k in prompt.variables}
        plain = outcome(lambda told=told: template.render(json.loads(json.dumps(told))))
        ours = outcome(lambda told=told: prompt.render(told, seed=7, now=NOW))
        assert ours == plain, (text, told)
        count["same" if plain is not None else "both fail"] += 1
    return count


def names_agree(prompt: Prompt, text: str, engine: jinja2.Environment) -> set[str]:
    """Variables and helpers of the prompt are what Jinja2 finds undeclared."""
    bare = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"])
    bare.filters = engine.filters
    found = meta.find_undeclared_variables(bare.parse(text))
    assert set(prompt.variables) | (set(prompt.helpers) & FUNCTION_HELPERS) == found
    return found - JINJA_GLOBALS


# --- chat templates

CHATS: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": 'Hello <b>&amp;</b> "you"'}]},
    {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Yes?"},
            {"role": "user", "content": "漢字 🦉\nTwo lines"},
        ],
        "add_generation_prompt": True,
        "enable_thinking": False,
    },
    {
        "messages": [
            {"role": "user", "content": "Weather?"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [
                    {"id": "abcdefghi", "type": "function", "function": {"name": "weather", "arguments": {"in": "Ulm"}}}
                ],
            },
            {"role": "tool", "content": "sunny", "tool_call_id": "abcdefghi", "name": "weather"},
            {"role": "user", "content": "Thanks"},
        ],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "weather",
                    "description": "The weather",
                    "parameters": {
                        "type": "object",
                        "properties": {"in": {"type": "string", "description": "A <place>"}},
                        "required": ["in"],
                    },
                },
            }
        ],
        "add_generation_prompt": True,
    },
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "parts"}]}], "add_generation_prompt": True},
    {"messages": []},
]


def test_all_chat_templates_go_in_and_write_what_transformers_writes(shared_data: Path) -> None:
    engine, total = transformers_engine(), Counter[str]()
    files = sorted((shared_data / "prompts" / "chat_templates").iterdir())
    assert len(files) == 20
    for file in files:
        text = file.read_text()
        prompt = logged_and_resolved(Prompt.from_file(file, template_format="jinja2", jinja="transformers"))
        names_agree(prompt, text, engine)
        given = [{"bos_token": "<s>", "eos_token": "</s>", "tools": None, **chat} for chat in CHATS]
        count = compare(prompt, text, engine, iter(given))
        assert count["same"] >= 2, (file.name, count)
        total += count
    assert total == {"same": 75, "both fail": 25}


def test_all_chat_templates_write_what_plain_jinja_writes_by_its_own_defaults(shared_data: Path) -> None:
    for file in sorted((shared_data / "prompts" / "chat_templates").iterdir()):
        text = file.read_text()
        engine = jinja2.Environment(undefined=jinja2.StrictUndefined, extensions=["jinja2.ext.loopcontrols"])
        engine.globals.update(transformers_engine().globals)
        prompt = logged_and_resolved(Prompt(text, template_format="jinja2"))
        plain = {"bos_token": "<s>", "eos_token": "</s>", "tools": [], "documents": [], "enable_thinking": True}
        given = [{**plain, "add_generation_prompt": True, **chat} for chat in CHATS]
        compare(prompt, text, engine, iter(given))


def test_a_chat_template_says_which_helpers_it_needs(shared_data: Path) -> None:
    used: Counter[str] = Counter()
    for file in (shared_data / "prompts" / "chat_templates").iterdir():
        prompt = Prompt.from_file(file, template_format="jinja2", jinja="transformers")
        used.update(prompt.helpers)
    assert used == {"tojson": 18, "raise_exception": 6, "strftime_now": 4, "mutation": 1}


# --- promptsource


class PromptsourceLoader(yaml.SafeLoader):
    """Reads the project's own tags as plain mappings."""


PromptsourceLoader.add_multi_constructor("!Template", lambda loader, _, node: loader.construct_mapping(node, deep=True))


def promptsource(shared_data: Path) -> list[str]:
    texts = []
    for file in sorted((shared_data / "prompts" / "promptsource").rglob("templates.yaml")):
        found = yaml.load(file.read_text(), PromptsourceLoader)["templates"]
        texts += [template["jinja"] for template in found.values()]
    return texts


@pytest.mark.matrix
def test_all_promptsource_prompts_go_in_and_write_what_plain_jinja_writes(shared_data: Path) -> None:
    texts = promptsource(shared_data)
    flat = [json.loads(line) for line in (shared_data / "prompts" / "promptsource.flat.jsonl").read_text().splitlines()]
    assert len(texts) == len(flat) == 1102
    assert Counter(texts) == Counter(row["jinja"] for row in flat)
    engine, outcomes, helpers, written = promptsource_engine(), Counter[str](), Counter[str](), 0
    for text in texts:
        prompt = logged_and_resolved(Prompt(text, template_format="jinja2"))
        names = names_agree(prompt, text, engine)
        helpers.update(prompt.helpers)
        count = compare(prompt, text, engine, contexts(engine.parse(text), names))
        outcomes += count
        written += count["same"] > 0
    assert helpers == {"choice": 114, "mutation": 55, "random": 9, "zip": 15}
    assert written == 1102
    assert outcomes["same"] > 4000


# --- lm-eval


class LmEvalLoader(yaml.SafeLoader):
    """Reads `!function` as text."""


LmEvalLoader.add_constructor("!function", lambda loader, node: None)


def test_all_lm_eval_templates_go_in_and_write_what_plain_jinja_writes(shared_data: Path) -> None:
    engine, count, written = jinja2.Environment(undefined=jinja2.StrictUndefined), Counter[str](), 0
    for file in sorted((shared_data / "prompts" / "lm_eval").rglob("*")):
        if not file.is_file():
            continue
        task = yaml.load(file.read_text(), LmEvalLoader)
        for key in ("doc_to_text", "doc_to_target", "doc_to_choice", "description"):
            text = task.get(key) if isinstance(task, dict) else None
            if not isinstance(text, str) or not ("{{" in text or "{%" in text):
                continue
            prompt = logged_and_resolved(Prompt(text, template_format="jinja2"))
            names = names_agree(prompt, text, engine)
            written += compare(prompt, text, engine, contexts(engine.parse(text), names))["same"] > 0
            count[key] += 1
    facts = json.loads((shared_data / "facts.json").read_text())["lm_eval"]
    assert count == {key: facts[f"{key}_jinja"] for key in count}
    assert written == count.total() == 170


# --- LangChain


@pytest.mark.filterwarnings("ignore:.*is in beta")
def test_all_serialised_langchain_prompts_go_in_or_say_why_not(shared_data: Path) -> None:
    from langchain_core.load import load

    counts: dict[str, Counter[str]] = {}
    told: set[bool] = set()
    for folder in ("lc_serialized", "legacy", "core_fixtures"):
        count = counts[folder] = Counter()
        for file in sorted((shared_data / "prompts" / "langchain" / folder).rglob("*")):
            if not file.is_file():
                continue
            try:
                prompt = logged_and_resolved(Prompt.from_langchain_file(file))
            except LlmartifactsError as error:
                count[type(error).__name__] += 1
                told.add(error.origin.startswith(str(file)))
                continue
            count["in"] += 1
            values = {name: f"«{name} & more»" for name in prompt.variables}
            if folder == "lc_serialized":
                theirs = load(json.loads(file.read_text()), allowed_objects="core")
                if prompt.is_chat:
                    said = [(m.type, m.content) for m in theirs.format_messages(**values)]
                    ours = [(m["role"], m["content"]) for m in prompt.format_messages(**values)]
                    roles = {"human": "user", "ai": "assistant"}
                    assert ours == [(roles.get(role, role), text) for role, text in said]
                else:
                    assert prompt.format(**values) == theirs.format(**values)
    assert counts == {
        "lc_serialized": {"in": 68, "InvalidValue": 1},  # one holds an output parser
        "legacy": {"in": 62, "InvalidValue": 1},  # the same one
        # in: prompts, few-shot prompts, side files. Refused: 4 texts and 2 lists of examples that are no prompts, one
        # without a template, one with a field nobody knows, one with an output parser, and the two injections.
        "core_fixtures": {"in": 10, "InvalidValue": 9, "InvalidTemplate": 2},
    }
    assert told == {True}


def test_the_two_serialised_forms_of_one_langchain_prompt_are_one_prompt(shared_data: Path) -> None:
    compared = 0
    for saved in sorted((shared_data / "prompts" / "langchain" / "legacy").iterdir()):
        dumped = shared_data / "prompts" / "langchain" / "lc_serialized" / f"{saved.stem}.json"
        if "MAP_RERANK" not in saved.name:
            assert Prompt.from_langchain_file(saved) == Prompt.from_langchain_file(dumped)
            compared += 1
    assert compared == 62


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_the_injection_prompt_is_refused_when_read(shared_data: Path, suffix: str) -> None:
    file = shared_data / "prompts" / "langchain" / "core_fixtures" / "examples" / f"jinja_injection_prompt.{suffix}"
    with pytest.raises(InvalidTemplate, match="not for templates") as caught:
        Prompt.from_file(file)
    assert caught.value.line == 1
    assert str(file) in caught.value.origin


def test_a_few_shot_prompt_with_side_files_writes_what_langchain_writes(shared_data: Path) -> None:
    from langchain_core.prompts import FewShotPromptTemplate, PromptTemplate

    folder = shared_data / "prompts" / "langchain" / "core_fixtures" / "examples"
    theirs = FewShotPromptTemplate(
        examples=json.loads((folder / "examples.json").read_text()),
        example_prompt=PromptTemplate.from_template("Input: {input}\nOutput: {output}"),
        prefix="Write antonyms for the following words.",
        suffix="Input: {adjective}\nOutput:",
        input_variables=["adjective"],
    )
    names = ("few_shot_prompt.json", "few_shot_prompt.yaml", "few_shot_prompt_yaml_examples.yaml")
    names += ("few_shot_prompt_example_prompt.json", "few_shot_prompt_examples_in.json")
    prompts = {Prompt.from_file(folder / name) for name in names} | {Prompt.from_langchain(theirs)}
    assert len(prompts) == 1
    assert prompts.pop().format(adjective="big") == theirs.format(adjective="big")


# --- Mustache


class MustacheLoader(yaml.SafeLoader):
    """Reads `!code` (a lambda in many languages) as a function."""


MustacheLoader.add_constructor("!code", lambda loader, node: len)


def test_every_case_of_the_mustache_specification_passes_or_is_refused(shared_data: Path) -> None:
    counts: dict[str, Counter[str]] = {}
    for file in sorted((shared_data / "prompts" / "mustache_spec").glob("*.yml")):
        count = counts[file.stem] = Counter()
        for case in yaml.load(file.read_text(), MustacheLoader)["tests"]:
            count[mustache_case(case)] += 1
    assert counts == {
        "comments": {"passed": 12},
        "delimiters": {"passed": 14},
        "interpolation": {"passed": 37, "InvalidTemplate": 5},  # {{.}} outside a section: values have names
        "inverted": {"passed": 22},
        "partials": {"passed": 12},
        "sections": {"passed": 33, "InvalidTemplate": 1},  # the same
        "~dynamic-names": {"passed": 19, "InvalidTemplate": 2},  # a name of a name
        "~inheritance": {"InvalidTemplate": 27},  # an optional module
        "~lambdas": {"InvalidValue": 10},  # a function is no JSON
    }


def mustache_case(case: Mapping[str, Any]) -> str:
    try:
        prompt = Prompt(case["template"], template_format="mustache", includes=case.get("partials"))
        # The specification prints nothing for a name that is not there; a prompt has to be told that it may be absent.
        prompt = logged_and_resolved(
            Prompt(
                case["template"],
                template_format="mustache",
                includes=case.get("partials"),
                variables={name: {"required": False} for name in prompt.variables},
            )
        )
        text = prompt.format(**{k: v for k, v in case["data"].items() if k in prompt.variables})
    except (InvalidTemplate, InvalidValue) as error:
        return type(error).__name__
    assert text == case["expected"], case
    return "passed"
