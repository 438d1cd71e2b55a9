"""Prompts as LangChain writes them, read without LangChain: nothing is imported, executed or looked up.

Two forms: `dumpd` JSON (`{"lc": 1, "type": "constructor", "id": […], "kwargs": {…}}`), of which exactly the classes
below are known, and the older `save` form (`_type: prompt`, `few_shot` or `chat`). Secrets, output parsers, example
selectors and images are refused by name; they are the application's, not the prompt's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmartifacts.errors import InvalidValue
from llmartifacts.kinds.prompt.parts import EXAMPLES, check_fields, check_format
from llmartifacts.kinds.prompt.value import Prompt

SideFile = Callable[[str], Any]

ROLES: Mapping[str, str] = {"human": "user", "ai": "assistant"}
"""LangChain's word for a role -> the word of most APIs; others stay as they are."""

_PLACES: Mapping[str, str] = {"f-string": "{examples}", "jinja2": "{{ examples }}", "mustache": "{{{examples}}}"}
_IGNORED_NAMES = """
input_variables input_types optional_variables metadata tags name validate_template additional_kwargs
response_metadata id type example
"""
_IGNORED = frozenset(_IGNORED_NAMES.split())
"""Fields that change nothing that is written; the first ones follow from the template."""
_EMPTY: tuple[Any, ...] = (None, [], {}, "", False)


class Reader:
    """Collects the fields of one prompt.

    Args:
        side: Reads a side file, for the older form.
        origin: File it came from.
    """

    def __init__(self, side: SideFile | None, origin: str) -> None:
        self._side = side
        self._origin = origin
        self._format: str | None = None
        self._partials: dict[str, Any] = {}
        self._examples: dict[str, Any] | None = None

    def prompt(self, template: Any, extra: Mapping[str, Any]) -> Prompt:
        """The prompt from what was collected; `extra` fields win."""
        form = self._format or "f-string"
        made: dict[str, Any] = {"partials": self._partials or None, "examples": self._examples, **check_fields(extra)}
        if form == "jinja2":
            made.setdefault("jinja", {"undefined": "lenient"})  # LangChain prints nothing for an undefined name
        return Prompt(template, template_format=form, origin=self._origin, **made)

    def refuse(self, what: str, field: str = "", next_step: str = "") -> InvalidValue:
        """The error for what a prompt cannot express."""
        return InvalidValue(what, field=field, origin=self._origin, next_step=next_step)

    def string(self, fields: Mapping[str, Any]) -> str:
        """The template of a `PromptTemplate`."""
        self._only(fields, {"template", "template_format", "partial_variables", "template_path", "output_parser"})
        self._no_parser(fields)
        text = self._text(fields, "template")
        self._say_format(fields.get("template_format", "f-string"))
        self._fix(fields.get("partial_variables") or {})
        return text

    def few_shot(self, fields: Mapping[str, Any], example: Mapping[str, Any]) -> str:
        """The template of a `FewShotPromptTemplate`; the examples are pinned."""
        known = {"examples", "example_prompt", "example_prompt_path", "example_separator", "template_format"}
        self._only(
            fields, known | {"prefix", "suffix", "prefix_path", "suffix_path", "partial_variables", "output_parser"}
        )
        self._no_parser(fields)
        form = check_format(fields.get("template_format", "f-string"))
        separator = fields.get("example_separator", "\n\n")
        self._say_format(form)
        self._fix(fields.get("partial_variables") or {})
        inner = Reader(self._side, self._origin)
        template = inner.string(example)
        if inner._partials or inner._format != form:
            raise self.refuse("the example prompt has partials or a format of its own", "example_prompt")
        items = fields.get("examples")
        if isinstance(items, str) and self._side is not None:
            items = self._side(items)
        self._examples = {"items": items, "template": template, "separator": separator}
        self._plain_examples(form)
        pieces = [self._text(fields, "prefix", ""), _PLACES[form], self._text(fields, "suffix", "")]
        return str(separator).join(piece for piece in pieces if piece)

    def _plain_examples(self, form: str) -> None:
        """LangChain formats an example's text a second time; a prompt here does not, so the two must agree."""
        given = self._examples or {}
        alone = Prompt(_PLACES[form], template_format=form, examples=given, origin=self._origin)
        if any(brace in alone.render({}) + str(given["separator"]) for brace in "{}"):
            raise self.refuse(
                "the examples hold braces, which LangChain would format once more", EXAMPLES, "Remove the braces."
            )

    def turn(self, role: Any, prompt: Any) -> dict[str, Any]:
        """A message with a role and a `PromptTemplate`'s fields."""
        if not isinstance(prompt, Mapping):
            raise self.refuse("a message has more than one part (text and images)", "messages")
        return {"role": ROLES.get(str(role), role), "template": self.string(prompt)}

    def literal(self, role: Any, content: Any) -> dict[str, Any]:
        """A message that is text already: written so that it renders as itself."""
        if not isinstance(content, str):
            raise self.refuse("a message has more than one part (text and images)", "messages")
        return {"role": ROLES.get(str(role), role), "literal": content}

    def placeholder(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """A `MessagesPlaceholder`."""
        self._only(fields, {"variable_name", "optional", "n_messages"})
        if fields.get("n_messages") is not None:
            raise self.refuse("a placeholder that cuts its messages is not supported", "n_messages")
        return {"placeholder": fields.get("variable_name"), "optional": bool(fields.get("optional", False))}

    def chat_examples(self, items: Any, turns: Sequence[Any]) -> dict[str, Any]:
        """A `FewShotChatMessagePromptTemplate`: its place, with the examples pinned."""
        if self._examples is not None:
            raise self.refuse("there is more than one set of examples", EXAMPLES)
        self._examples = {"items": items, "messages": self.settled(turns)}
        return {"placeholder": EXAMPLES, "optional": False}

    def settled(self, turns: Sequence[Any]) -> list[dict[str, Any]]:
        """The messages, literal ones written in the format of the others."""
        form = self._format = self._format or "f-string"
        made = []
        for turn in turns:
            if "literal" in turn:
                text = turn["literal"]
                if form == "f-string":
                    text = text.replace("{", "{{").replace("}", "}}")
                elif any(mark in text for mark in ("{{", "{%", "{#")) or (
                    form == "jinja2" and "\r" in text + text[-1:]
                ):
                    raise self.refuse(f"a message's text would be read as {form}", "messages")
                elif form == "jinja2" and text.endswith("\n"):
                    text += "\n"  # Jinja2 drops one
                turn = {"role": turn["role"], "template": text}
            made.append(turn)
        return made

    def fix_partials(self, partials: Mapping[str, Any], turns: Sequence[Mapping[str, Any]]) -> None:
        """Add partials of a chat, without the empty lists that LangChain gives to optional placeholders."""
        places = {turn.get("placeholder") for turn in turns}
        self._fix({name: value for name, value in partials.items() if not (name in places and value == [])})

    def _fix(self, partials: Any) -> None:
        if not isinstance(partials, Mapping):
            raise self.refuse("partial_variables is no object", "partial_variables")
        for name, value in partials.items():
            if callable(value) or (isinstance(value, Mapping) and "lc" in value):
                raise self.refuse(
                    f"the partial {name!r} is a function or an object",
                    f"partials.{name}",
                    "Give its value when formatting, or fix it as text.",
                )
            if name in self._partials and self._partials[name] != value:
                raise self.refuse(f"the partial {name!r} has two values", f"partials.{name}")
            self._partials[name] = value

    def _say_format(self, form: Any) -> None:
        form = check_format(form)
        if self._format is not None and self._format != form:
            raise self.refuse(f"its templates have two formats, {self._format} and {form}", "template_format")
        self._format = form

    def _no_parser(self, fields: Mapping[str, Any]) -> None:
        parser = fields.get("output_parser")
        if parser is None or (isinstance(parser, Mapping) and parser.get("_type") == "default"):
            return
        name = type(parser).__name__
        if isinstance(parser, Mapping):
            name = ".".join(map(str, parser.get("id", ()))) or str(parser.get("_type", "without a name"))
        raise self.refuse(
            f"it holds an output parser ({name:.120}), which is code of the application",
            "output_parser",
            "Keep the parser in the application, and log the prompt without it.",
        )

    def _text(self, fields: Mapping[str, Any], name: str, default: str | None = None) -> str:
        text = fields.get(name, default)
        if f"{name}_path" in fields and self._side is not None:
            if name in fields:
                raise self.refuse(f"both {name} and {name}_path are given", name)
            text = self._side(fields[f"{name}_path"])
        if not isinstance(text, str):
            raise self.refuse(f"it has no {name}", name)
        return text

    def _only(self, fields: Mapping[str, Any], known: set[str]) -> None:
        for name, value in fields.items():
            if name not in known and name not in _IGNORED and not any(value is e or value == e for e in _EMPTY):
                raise self.refuse(f"the field {name!r:.60} is not known here", str(name))


def from_document(document: Mapping[str, Any], side: SideFile, extra: Mapping[str, Any], origin: str = "") -> Prompt:
    """A prompt from either form.

    Args:
        document: Parsed JSON or YAML, its depth and size checked.
        side: Reads a side file that the older form names.
        extra: Further fields of `Prompt`.
        origin: File it came from.

    Raises:
        InvalidValue: It holds what a prompt cannot express; it is named.
    """
    if "lc" in document:
        return _Constructed(origin).read(document, extra)
    return _saved(document, side, extra, origin)


# --- the older form


def _saved(document: Mapping[str, Any], side: SideFile, extra: Mapping[str, Any], origin: str) -> Prompt:
    reader = Reader(side, origin)
    fields = dict(document)
    form = fields.pop("_type", "prompt")
    if form == "prompt":
        return reader.prompt(reader.string(fields), extra)
    if form == "few_shot":
        example = fields.get("example_prompt")
        if "example_prompt_path" in fields:
            if example is not None:
                raise reader.refuse("both example_prompt and example_prompt_path are given", "example_prompt")
            example = side(fields["example_prompt_path"])
        if not isinstance(example, Mapping) or example.get("_type", "prompt") != "prompt":
            raise reader.refuse("the example prompt is no prompt", "example_prompt")
        inner = {name: value for name, value in example.items() if name != "_type"}
        return reader.prompt(reader.few_shot(fields, inner), extra)
    raise reader.refuse(f"the type {form!r:.60} is not known", "_type", "Known: prompt, few_shot; or dumpd JSON.")


# --- dumpd JSON

_TURNS: Mapping[str, str] = {
    "SystemMessagePromptTemplate": "system",
    "HumanMessagePromptTemplate": "user",
    "AIMessagePromptTemplate": "assistant",
}
_LITERALS: Mapping[str, str] = {"SystemMessage": "system", "HumanMessage": "user", "AIMessage": "assistant"}
_CLASSES: Mapping[tuple[str, ...], str] = {
    ("langchain", "prompts", "prompt", "PromptTemplate"): "text",
    ("langchain_core", "prompts", "prompt", "PromptTemplate"): "text",
    **{
        (package, "prompts", "chat", name): kind
        for package in ("langchain", "langchain_core")
        for name, kind in {
            "ChatPromptTemplate": "chat",
            "ChatMessagePromptTemplate": "turn",
            "MessagesPlaceholder": "placeholder",
            **dict.fromkeys(_TURNS, "turn"),
        }.items()
    },
    **{("langchain", "schema", "messages", name): "literal" for name in (*_LITERALS, "ChatMessage")},
}
"""Every class that is read; anything else is refused by name."""


class _Constructed:
    def __init__(self, origin: str) -> None:
        self._reader = Reader(None, origin)

    def read(self, document: Mapping[str, Any], extra: Mapping[str, Any]) -> Prompt:
        kind, _, fields = self._open(document, "")
        reader = self._reader
        if kind == "text":
            return reader.prompt(reader.string(fields), extra)
        if kind != "chat":
            raise reader.refuse(f"a {document['id'][-1]} alone is no prompt", "id")
        turns = fields.get("messages")
        if not isinstance(turns, list):
            raise reader.refuse("a chat has a list of messages", "messages")
        made = [self._turn(turn, f"messages[{i}]") for i, turn in enumerate(turns)]
        reader.fix_partials(fields.get("partial_variables") or {}, made)
        return reader.prompt(reader.settled(made), extra)

    def _turn(self, document: Any, field: str) -> dict[str, Any]:
        kind, name, fields = self._open(document, field)
        reader = self._reader
        if kind == "placeholder":
            return reader.placeholder(fields)
        if kind == "literal":
            return reader.literal(_LITERALS.get(name) or fields.get("role"), fields.get("content"))
        if kind != "turn":
            raise reader.refuse(f"a {name} is no message", field)
        prompt = fields.get("prompt")
        if not isinstance(prompt, Mapping):
            raise reader.refuse("a message has more than one part (text and images)", field)
        inner, inner_name, inner_fields = self._open(prompt, f"{field}.prompt")
        if inner != "text":
            raise reader.refuse(f"a {inner_name} is no text of a message", f"{field}.prompt")
        return reader.turn(_TURNS.get(name) or fields.get("role"), inner_fields)

    def _open(self, document: Any, field: str) -> tuple[str, str, Mapping[str, Any]]:
        """Kind, class and fields of one object."""
        if not isinstance(document, Mapping) or document.get("lc") != 1:
            raise self._reader.refuse("it is no object of LangChain's (lc: 1)", field)
        path = document.get("id")
        name = ".".join(map(str, path)) if isinstance(path, list) else ""
        if document.get("type") != "constructor":
            raise self._reader.refuse(f"a {document.get('type')!s:.40} ({name:.120}) is refused", field)
        kind = _CLASSES.get(tuple(map(str, path or ())))
        fields = document.get("kwargs")
        if kind is None or not isinstance(fields, Mapping):
            raise self._reader.refuse(
                f"the class {name:.120} is not among those that are read",
                field or "id",
                "Read: PromptTemplate, ChatPromptTemplate, its message templates, messages and MessagesPlaceholder.",
            )
        return kind, name.rpartition(".")[2], fields
