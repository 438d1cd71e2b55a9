"""Writing a prompt's text, beside the template engine alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jinja2

import llmartifacts as la
from benchmarks.inputs import TEMPLATES
from benchmarks.measure import Bench, Line, Subject, per_call

VALUES: dict[str, Any] = {
    "question": "How do I copy a directory tree?",
    "passages": [
        {"id": f"shutil.{name}", "text": f"{name}: copies a directory tree and returns the destination. " * 8}
        for name in ("copytree", "copy2", "copyfile", "move", "rmtree")
    ],
}
TURN = "{% for fact in facts %}- {{ fact }}\n{% endfor %}{{ question }}"
MESSAGES = [("system", "You help customers of {{ company }}."), ("user", TURN)]
CHAT: dict[str, Any] = {"company": "Acme", "facts": ["Parcels take two days."] * 5, "question": "Where is my parcel?"}
F_STRING = "Answer {question} in {words} words, for {reader}."
FIELDS = {"question": "why?", "words": "20", "reader": "a beginner"}


def measure(bench: Bench) -> Iterator[Line]:
    plain = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)
    source = (TEMPLATES / "rag_answer.j2").read_text(encoding="utf-8")
    prompt, template = la.Prompt(source, template_format="jinja2"), plain.from_string(source)
    if prompt.format(**VALUES) != template.render(**VALUES):
        raise RuntimeError("the two engines wrote different texts")
    note = "values are checked and the template is metered: size, steps, JSON-plain values"
    ours, floor = bench.beside(
        lambda: per_call(lambda: prompt.format(**VALUES)), lambda: per_call(lambda: template.render(**VALUES))
    )
    yield Line("prompt.format, jinja2", ours, floor, "plain Jinja2", note=note)

    chat = la.Prompt(MESSAGES, template_format="jinja2")
    turns = [plain.from_string(text) for _, text in MESSAGES]
    ours, floor = bench.beside(
        lambda: per_call(lambda: chat.format_messages(**CHAT)),
        lambda: per_call(lambda: [turn.render(**CHAT) for turn in turns]),
    )
    yield Line("prompt.format_messages", ours, floor, "plain Jinja2", note=note)

    short = la.Prompt(F_STRING, template_format="f-string")
    ours, floor = bench.beside(
        lambda: per_call(lambda: short.format(**FIELDS)), lambda: per_call(lambda: F_STRING.format(**FIELDS))
    )
    yield Line("prompt.format, f-string", ours, floor, "str.format")

    ours, floor = bench.beside(
        lambda: per_call(lambda: la.Prompt(source, template_format="jinja2")),
        lambda: per_call(lambda: plain.from_string(source)),
    )
    yield Line("Prompt(…), jinja2", ours, floor, "plain Jinja2", note="compiled, and its variables inferred")


SUBJECT = Subject("prompts", "formatting and making prompts", "plain Jinja2, and `str.format`", measure)
