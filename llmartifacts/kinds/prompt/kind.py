"""The kind `prompt`: all of a prompt is in its config, so one row and one round trip hold it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmartifacts.errors import InvalidValue
from llmartifacts.kinds.base import FileSink, FileView, Kind, check_options
from llmartifacts.kinds.model import ModelSpec
from llmartifacts.kinds.prompt.config import MessageConfig, PromptConfig
from llmartifacts.kinds.prompt.value import Prompt
from llmartifacts.records.canonical import parse_json
from llmartifacts.records.diff import Diff, diff_json
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.wording import printable

OPTIONS = ("helpers", "jinja", "model", "parameters", "revision", "template_format")
_SHOWN = frozenset({"type", "template_format", "template", "messages", "variables"})
"""Fields of a config that its summary or its lines show."""


class PromptKind(Kind[Prompt]):
    """Packs prompts into configs and back; templates were read when the prompt was made, or are at first use."""

    name = "prompt"
    value_type = Prompt
    config_model = PromptConfig

    def pack(self, value: Prompt, files: FileSink) -> Mapping[str, Any]:
        """The prompt's config; no files."""
        if not isinstance(value, Prompt):
            raise InvalidValue(f"a {type(value).__name__} is no Prompt", field="value")
        return value._config  # what packs it copies it

    def unpack(self, config: Mapping[str, Any], files: FileView) -> Prompt:
        """The prompt; its templates are read at first use."""
        self._refuse_odd(config)
        return Prompt.from_config(config)

    def check(self, config: Mapping[str, Any]) -> list[str]:
        """Problems of the config's form; the templates themselves are not read."""
        problems = super().check(config)
        if not problems and (problem := _problem(PromptConfig.model_validate(config))):
            problems.append(problem)
        return problems

    def _refuse_odd(self, config: Mapping[str, Any]) -> None:
        parsed = self.parse(config)
        problem = _problem(parsed) if isinstance(parsed, PromptConfig) else ""
        if problem:
            field, _, what = problem.partition(": ")
            raise InvalidValue(f"prompt config: {what}", field=f"config.{field}")

    def diff(self, before: Manifest, after: Manifest, files: tuple[FileView, FileView]) -> Diff:
        """Changed fields, and the templates line by line."""
        old, new = dict(before.config), dict(after.config)
        lines = difflib.unified_diff(_lines(old), _lines(new), "before", "after", lineterm="")
        for config in (old, new):
            config.pop("template", None)
            config.pop("messages", None)
        return Diff(self.name, "", "", tuple(diff_json(old, new)), text="\n".join(lines))

    def summary(self, config: Mapping[str, Any]) -> str:
        """Such as `chat of 2 messages, jinja2, needs question, openai/gpt-4-turbo`."""
        self.parse(config)  # an altered config is a typed error, as everywhere
        messages = config.get("messages") or ()
        shape = f"chat of {len(messages)} message{'s' * (len(messages) != 1)}" if config["type"] == "chat" else "text"
        told = [shape, str(config["template_format"])]
        variables = config.get("variables", {})
        needed = [name for name, v in sorted(variables.items()) if v["required"]]
        may = [f"[{name}]" for name, v in sorted(variables.items()) if not v["required"]]
        told.append(f"needs {', '.join(needed + may)}" if variables else "no variables")
        if config.get("tools"):
            told.append(f"{len(config['tools'])} tools")
        if config.get("model"):
            told.append(f"{config['model']['provider']}/{config['model']['name']}")
        return printable(", ".join(told))

    def text(self, config: Mapping[str, Any]) -> str:
        """The template or the messages; before them whatever else there is, one field a line."""
        self._refuse_odd(config)
        rest = {key: value for key, value in config.items() if key not in _SHOWN}
        lines = [f"{key}: {json.dumps(rest[key], ensure_ascii=False)}" for key in sorted(rest)]
        return "\n".join([*lines, *([""] if lines else []), *_lines(config)])

    def read_source(self, paths: Sequence[Path], options: Mapping[str, str]) -> Prompt:
        """Read one template, YAML or LangChain file.

        Args:
            paths: One file.
            options: `template_format`; `jinja` (a preset); `helpers` (names with commas); `model` (`provider/name`),
                `revision` and `parameters` (a JSON object) of the model.
        """
        check_options(options, OPTIONS)
        if len(paths) != 1:
            raise InvalidValue(f"a prompt is one file, not {len(paths)}", field="paths")
        fields: dict[str, Any] = {}
        if "jinja" in options:
            fields["jinja"] = options["jinja"]
        if "helpers" in options:
            fields["helpers"] = [name.strip() for name in options["helpers"].split(",") if name.strip()]
        model = _model(options)
        if model is not None:
            fields["model"] = model
        return Prompt.from_file(paths[0], template_format=options.get("template_format"), **fields)


def _model(options: Mapping[str, str]) -> ModelSpec | None:
    if "model" not in options:
        for key in ("revision", "parameters"):
            if key in options:
                raise InvalidValue(f"{key} is of a model, and no model is given", field=key, next_step="Add model=….")
        return None
    provider, _, name = options["model"].partition("/")
    if not provider or not name:
        raise InvalidValue("model is provider/name", field="model", next_step="For example openai/gpt-4-turbo.")
    parameters = parse_json(options.get("parameters", "{}"), field="parameters")
    if not isinstance(parameters, dict):
        raise InvalidValue("parameters is a JSON object", field="parameters")
    return ModelSpec(provider, name, options.get("revision"), parameters)


def _problem(config: PromptConfig) -> str:
    """What the model's types cannot say, as `field: what`; empty if all is well."""
    chat = config.type == "chat"
    if chat and (not config.messages or config.template is not None):
        return "messages: a chat has messages and no template"
    if not chat and (config.template is None or config.messages is not None):
        return "template: a text has a template and no messages"
    if config.jinja is not None and config.template_format != "jinja2":
        return "jinja: only jinja2 templates have these options"
    if config.includes and config.template_format != "mustache":
        return "includes: only mustache templates include others"
    for field, part in (("", config), ("examples.", config.examples)):
        for name in part.model_fields_set if part is not None else ():
            if getattr(part, name) is None:
                return f"{field}{name}: null; what is absent is left out"
    for name, variable in config.variables.items():
        if "schema_" in variable.model_fields_set and variable.schema_ is None:
            return f"variables.{name}.schema: null; what is absent is left out"
    examples = config.examples
    if examples is not None:
        if (examples.template is None) != (examples.separator is None) or (examples.template and examples.messages):
            return "examples: they have a template and a separator, or messages, or neither"
        if (examples.messages and not chat) or (examples.template is not None and chat):
            return "examples: a text has a template for them, a chat has messages"
    return _message_problem("messages", config.messages, places=True) or _message_problem(
        "examples.messages", examples.messages if examples is not None else None, places=False
    )


def _message_problem(field: str, messages: Sequence[MessageConfig] | None, *, places: bool) -> str:
    for i, message in enumerate(messages or ()):
        given = message.model_fields_set
        turn = given == {"role", "template"} and message.role is not None and message.template is not None
        place = given == {"placeholder", "optional"} and message.placeholder and message.optional is not None
        if not turn and not (place and places):
            return f"{field}[{i}]: a message is a role and a template, or a placeholder"
    return ""


def _lines(config: Mapping[str, Any]) -> list[str]:
    if config["type"] == "text":
        return str(config["template"]).split("\n")
    lines: list[str] = []
    for message in config["messages"]:
        if "placeholder" in message:
            optional = " (optional)" if message["optional"] else ""
            lines.append(f"[messages of {message['placeholder']}{optional}]")
        else:
            lines += [f"[{message['role']}]", *str(message["template"]).split("\n")]
    return lines
