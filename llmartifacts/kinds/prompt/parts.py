"""From what a caller writes to the config: messages, examples, variables, options. Pure; nothing is parsed yet."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llmartifacts.errors import InvalidManifest, InvalidTemplate, InvalidValue, TooLarge, UnexpectedVariable
from llmartifacts.kinds.prompt.config import MAX_EXAMPLES, MAX_INCLUDES, MAX_MESSAGES, MAX_TEMPLATE, MAX_VARIABLES
from llmartifacts.kinds.prompt.helpers import HELPERS
from llmartifacts.kinds.prompt.places import TEMPLATE_FORMATS, Use
from llmartifacts.kinds.prompt.schema import check_schema
from llmartifacts.records.canonical import plain_json
from llmartifacts.records.names import near_names

EXAMPLES = "examples"
"""Name under which a template finds the examples that are pinned inside."""

JINJA_OPTIONS: Mapping[str, tuple[Any, ...]] = {
    "trim_blocks": (False, True),
    "lstrip_blocks": (False, True),
    "keep_trailing_newline": (False, True),
    "undefined": ("strict", "lenient"),
    "tojson": ("html", "plain"),
}
"""Option of the Jinja2 engine -> its values, the default first."""

JINJA_PRESETS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "transformers": {"trim_blocks": True, "lstrip_blocks": True, "undefined": "lenient", "tojson": "plain"},
}

_FIELD_NAMES = """
model variables partials examples tools tool_choice response_format helpers includes jinja
"""
FIELDS = tuple(_FIELD_NAMES.split())
"""Fields of a prompt beside its template."""

_ROLE = re.compile(r"[^\W_][\w.:-]{0,63}")
_VARIABLE = re.compile(r"\S(?:[^\x00-\x1f\x7f]*\S)?")


def check_fields(given: Mapping[str, Any], known: Iterable[str] = FIELDS, origin: str = "") -> dict[str, Any]:
    """The fields, or a refusal of one that a prompt has not.

    Raises:
        InvalidValue: One is unknown; near names are given.
    """
    names = tuple(known)
    for name in given:
        if name not in names:
            near = near_names(str(name), names)
            raise InvalidValue(
                f"a prompt takes no field {name!r:.60} here",
                field=str(name),
                origin=origin,
                next_step=f"Did you mean {near[0]}?" if near else f"Known: {', '.join(names)}.",
            )
    return dict(given)


def check_format(template_format: Any) -> str:
    """Refuse what is no template format.

    Raises:
        InvalidValue: It is none of the three; it is never guessed.
    """
    if template_format not in TEMPLATE_FORMATS:
        given = "is not given" if template_format is None else f"{template_format!r:.60} is not known"
        raise InvalidValue(
            f"template_format {given}",
            field="template_format",
            next_step=f"Say template_format= one of {', '.join(TEMPLATE_FORMATS)}; it is never guessed.",
        )
    return str(template_format)


def template_text(text: Any, field: str, origin: str = "") -> str:
    """A template's text, checked for type, size and characters.

    Raises:
        InvalidTemplate: It is no text, or holds a lone surrogate.
        TooLarge: It has more than 1,048,576 characters.
    """
    if not isinstance(text, str):
        raise InvalidTemplate(f"a template is text, not a {type(text).__name__}", field=field, origin=origin)
    if len(text) > MAX_TEMPLATE:
        raise TooLarge(
            f"the template has {len(text):,} characters, the limit is {MAX_TEMPLATE:,}", field=field, origin=origin
        )
    if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
        raise InvalidTemplate(
            "the template holds a lone surrogate, which has no UTF-8 form", field=field, origin=origin
        )
    return str.__str__(text)


def messages(given: Any, field: str = "messages", origin: str = "") -> list[dict[str, Any]]:
    """The messages of a chat as the config has them.

    Args:
        given: Each a `(role, template)` pair, `{"role", "template" or "content"}`, or `{"placeholder", "optional"}`.
        field: Name of the field in errors.
        origin: File it came from.

    Raises:
        InvalidValue: A message has another form.
        TooLarge: More than 1,000 messages.
    """
    if not isinstance(given, Sequence) or isinstance(given, str | bytes) or not given:
        raise InvalidValue("a chat is a list of at least one message", field=field, origin=origin)
    if len(given) > MAX_MESSAGES:
        raise TooLarge(f"{len(given):,} messages, the limit is {MAX_MESSAGES:,}", field=field, origin=origin)
    return [_message(message, f"{field}[{i}]", origin) for i, message in enumerate(given)]


def _message(message: Any, field: str, origin: str) -> dict[str, Any]:
    if isinstance(message, tuple | list) and len(message) == 2:
        message = {"role": message[0], "template": message[1]}
    if not isinstance(message, Mapping):
        raise InvalidValue(
            f"a {type(message).__name__} is no message",
            field=field,
            origin=origin,
            next_step='Write ("system", "template"), or {"placeholder": "history", "optional": True}.',
        )
    keys = set(message)
    if "placeholder" in keys:
        name, optional = message["placeholder"], message.get("optional", False)
        if keys - {"placeholder", "optional"} or not isinstance(optional, bool):
            raise InvalidValue("a placeholder has the fields placeholder and optional", field=field, origin=origin)
        check_name(name, f"{field}.placeholder")
        return {"placeholder": name, "optional": optional}
    text = "template" if "template" in keys else "content"
    if keys != {"role", text}:
        raise InvalidValue(
            f"a message has a role and a template, not {sorted(map(str, keys))}", field=field, origin=origin
        )
    if not isinstance(message["role"], str) or not _ROLE.fullmatch(message["role"]):
        raise InvalidValue(f"{message['role']!r:.60} is no role", field=f"{field}.role", origin=origin)
    return {"role": message["role"], "template": template_text(message[text], f"{field}.template", origin)}


def check_name(name: Any, field: str) -> str:
    """Refuse what cannot be a variable's name.

    Raises:
        InvalidValue: It is no printable text of at most 200 characters.
    """
    if not isinstance(name, str) or len(name) > 200 or not _VARIABLE.fullmatch(name):
        raise InvalidValue(f"{name!r:.60} is no name of a variable", field=field)
    return name


def examples(given: Any, chat: bool, origin: str = "") -> dict[str, Any]:
    """Few-shot examples as the config has them.

    Args:
        given: A list of objects, which the template finds as `examples`; or `{"items", "template", "separator"}` for
            a text, `{"items", "messages"}` for a chat.
        chat: Whether the prompt is a chat.
        origin: File it came from.

    Raises:
        InvalidValue: It has another form.
        TooLarge: More than 10,000 examples.
    """
    config = dict(given) if isinstance(given, Mapping) else {"items": given}
    known = {"items", "messages"} if chat else {"items", "template", "separator"}
    if config.keys() - known or (chat and "messages" not in config and "template" in config):
        raise InvalidValue(
            f"examples have the fields {', '.join(sorted(known))}, not {sorted(map(str, config.keys() - known))}",
            field=EXAMPLES,
            origin=origin,
        )
    items = json_value(config.get("items"), f"{EXAMPLES}.items")
    if not isinstance(items, list) or not items or not all(isinstance(item, dict) for item in items):
        raise InvalidValue("examples are a list of at least one object", field=f"{EXAMPLES}.items", origin=origin)
    if len(items) > MAX_EXAMPLES:
        raise TooLarge(f"{len(items):,} examples, the limit is {MAX_EXAMPLES:,}", field=f"{EXAMPLES}.items")
    made: dict[str, Any] = {"items": items}
    if "template" in config:
        made["template"] = template_text(config["template"], f"{EXAMPLES}.template", origin)
        made["separator"] = template_text(config.get("separator", "\n\n"), f"{EXAMPLES}.separator", origin)
    elif "separator" in config:
        raise InvalidValue("a separator needs a template", field=f"{EXAMPLES}.separator", origin=origin)
    if "messages" in config:
        made["messages"] = messages(config["messages"], f"{EXAMPLES}.messages", origin)
        if any("placeholder" in message for message in made["messages"]):
            raise InvalidValue("an example has no placeholder", field=f"{EXAMPLES}.messages", origin=origin)
    return made


def includes(given: Any, template_format: str, origin: str = "") -> dict[str, str]:
    """Mustache partials as the config has them.

    Raises:
        InvalidValue: The format is another, or it is no object of texts.
        TooLarge: More than 100 partials.
    """
    if template_format != "mustache":
        raise InvalidValue(
            f"{template_format} templates include nothing", field="includes", next_step="Use a macro, or one template."
        )
    if not isinstance(given, Mapping):
        raise InvalidValue("includes is an object: name -> template", field="includes", origin=origin)
    if len(given) > MAX_INCLUDES:
        raise TooLarge(f"{len(given)} includes, the limit is {MAX_INCLUDES}", field="includes", origin=origin)
    return {
        check_name(name, "includes"): template_text(text, f"includes.{name}", origin) for name, text in given.items()
    }


def helpers(given: Any) -> frozenset[str]:
    """The helpers that a prompt may use.

    Raises:
        InvalidValue: One is not among the safe helpers; near names are given.
    """
    names = [given] if isinstance(given, str) else list(given) if isinstance(given, Iterable) else [given]
    for name in names:
        if not isinstance(name, str) or name not in HELPERS:
            near = near_names(str(name), HELPERS)
            raise InvalidValue(
                f"no helper is called {name!r:.60}",
                field="helpers",
                next_step=f"Did you mean {near[0]}?" if near else f"Known: {', '.join(sorted(HELPERS))}.",
            )
    return frozenset(names)


def jinja_options(given: Any, template_format: str) -> dict[str, Any]:
    """Options of the Jinja2 engine as the config has them: a preset's name, or an object; defaults are left out.

    Raises:
        InvalidValue: The format is another, or an option or its value is unknown.
    """
    if template_format != "jinja2":
        raise InvalidValue(f"{template_format} templates take no jinja options", field="jinja")
    if isinstance(given, str):
        if given not in JINJA_PRESETS:
            raise InvalidValue(
                f"no jinja preset is called {given!r:.60}",
                field="jinja",
                next_step=f"Known: {', '.join(JINJA_PRESETS)}; or an object of options.",
            )
        given = JINJA_PRESETS[given]
    if not isinstance(given, Mapping):
        raise InvalidValue("jinja is a preset's name or an object of options", field="jinja")
    for key, value in given.items():
        if (
            key not in JINJA_OPTIONS
            or type(value) is not type(JINJA_OPTIONS[key][0])
            or value not in JINJA_OPTIONS[key]
        ):
            known = f"{key} is one of {JINJA_OPTIONS[key]}" if key in JINJA_OPTIONS else ", ".join(JINJA_OPTIONS)
            raise InvalidValue(
                f"the jinja option {key!r:.60}: {value!r:.60} is not known", field="jinja", next_step=f"Known: {known}."
            )
    return {key: value for key, value in given.items() if value != JINJA_OPTIONS[key][0]}


def variables(given: Any, uses: Mapping[str, Use], origin: str = "") -> dict[str, dict[str, Any]]:
    """What the templates use, with what the caller says of it.

    Args:
        given: None, or name -> `{"required"?, "schema"?}`.
        uses: What the templates use.
        origin: File the prompt came from.

    Raises:
        UnexpectedVariable: The templates do not use a name.
        InvalidValue: A description has another form, or its schema is not supported.
        TooLarge: More than 1,000 variables.
    """
    if len(uses) > MAX_VARIABLES:
        raise TooLarge(f"{len(uses):,} variables, the limit is {MAX_VARIABLES:,}", field="variables", origin=origin)
    made: dict[str, dict[str, Any]] = {name: {"required": use.required} for name, use in uses.items()}
    if given is None:
        return made
    if not isinstance(given, Mapping):
        raise InvalidValue('variables is an object: name -> {"required", "schema"}', field="variables", origin=origin)
    for name, told in given.items():
        field = f"variables.{name}"
        if name not in made:
            raise unknown_variable(str(name), made, field, origin)
        if not isinstance(told, Mapping) or set(told) - {"required", "schema"}:
            raise InvalidValue("a variable has the fields required and schema", field=field, origin=origin)
        if "required" in told:
            if not isinstance(told["required"], bool):
                raise InvalidValue("required is true or false", field=f"{field}.required", origin=origin)
            made[name]["required"] = told["required"]
        if told.get("schema") is not None:
            schema = json_value(told["schema"], f"{field}.schema")
            check_schema(schema, f"{field}.schema")
            made[name]["schema"] = schema
    return made


def unknown_variable(name: str, known: Iterable[str], field: str, origin: str = "") -> UnexpectedVariable:
    """The error for a name that the templates do not use."""
    names = sorted(known)
    near = near_names(name, names)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"It uses: {', '.join(names) or 'no variables'}."
    return UnexpectedVariable(
        f"the template uses no variable {name!r:.80}", field=field, origin=origin, variable=name, next_step=hint
    )


def json_value(value: Any, field: str) -> Any:
    """A private copy of a JSON value.

    Raises:
        InvalidValue: It is no JSON; the field is named.
    """
    try:
        return plain_json(value, field=field)
    except InvalidManifest as error:
        raise InvalidValue(error.message, field=error.field, next_step=error.next_step) from None
    except RecursionError:
        raise InvalidValue("nested too deep", field=field) from None
