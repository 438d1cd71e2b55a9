"""The templates of one prompt, read once, and what they do with values."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Protocol

from llmartifacts.errors import InvalidTemplate, InvalidValue, MissingVariable
from llmartifacts.kinds.prompt.limits import Limits, Meter
from llmartifacts.kinds.prompt.parts import EXAMPLES, unknown_variable
from llmartifacts.kinds.prompt.places import Place, Use
from llmartifacts.kinds.prompt.schema import check_schema, check_value
from llmartifacts.kinds.prompt.values import plain_value


class Template(Protocol):
    """One template of any format."""

    @property
    def uses(self) -> Mapping[str, Use]:
        """Variable -> how it is used."""

    @property
    def helpers(self) -> frozenset[str]:
        """Safe helpers that it uses."""

    def render(self, values: Mapping[str, Any], meter: Meter) -> str:
        """The text, from private JSON-plain values."""


class Engine:
    """Reads every template of a config when made; renders from any thread.

    Args:
        config: The parts of a prompt's config that say what is rendered.
        allowed: Safe helpers that the templates may use; None for any.
        origin: File the prompt came from.

    Raises:
        InvalidTemplate: A template does not parse or asks for what is refused.
    """

    def __init__(self, config: Mapping[str, Any], allowed: frozenset[str] | None, origin: str) -> None:
        self._origin = origin
        self._format = config["template_format"]
        self._read = _reader(config, allowed, origin)
        self._text: Template | None = None if config["type"] == "chat" else self._read(config["template"], "template")
        self._messages = [
            (m["role"], self._read(m["template"], f"messages[{i}].template")) if "role" in m else m
            for i, m in enumerate(config.get("messages", ()))
        ]
        examples = config.get("examples", {})
        self._example = self._read(examples["template"], "examples.template") if "template" in examples else None
        self._example_messages = [
            (m["role"], self._read(m["template"], f"examples.messages[{i}].template"))
            for i, m in enumerate(examples.get("messages", ()))
        ]
        self._check_examples(examples)
        every = [self._text, self._example, *(t for m in self._messages if isinstance(m, tuple) for t in m[1:])]
        every += [t for _, t in self._example_messages]
        self.helpers = frozenset().union(*(t.helpers for t in every if t is not None))

    def uses(self) -> dict[str, Use]:
        """What the templates and placeholders use, in all."""
        uses: dict[str, Use] = {}
        for template in (self._text, *(m[1] for m in self._messages if isinstance(m, tuple))):
            for name, use in template.uses.items() if template is not None else ():
                known = uses.get(name)
                uses[name] = Use(known.line if known else use.line, use.required or bool(known and known.required))
        for i, message in enumerate(self._messages):
            if isinstance(message, dict):
                name = message["placeholder"]
                if name in uses:
                    raise InvalidTemplate(
                        f"{name!r} names a placeholder and something else",
                        field=f"messages[{i}].placeholder",
                        origin=self._origin,
                        variable=name,
                    )
                uses[name] = Use(0, not message["optional"])
        return uses

    def asked(self, config: Mapping[str, Any]) -> dict[str, Use]:
        """What the caller has to give: `uses` without partials and pinned examples.

        Raises:
            InvalidValue: There are examples and no template uses them.
        """
        uses = self.uses()
        if "examples" in config and uses.pop(EXAMPLES, None) is None:
            place = '{"placeholder": "examples"}' if config["type"] == "chat" else "the variable examples"
            raise InvalidValue("the examples have no place in the prompt", field=EXAMPLES, next_step=f"Add {place}.")
        return {name: use for name, use in uses.items() if name not in config.get("partials", {})}

    def check_partials(self, partials: dict[str, Any]) -> dict[str, Any]:
        """The partials, or a refusal of one that no template uses."""
        uses = self.uses()
        for name in partials:
            if name not in uses:
                raise unknown_variable(name, uses, f"partials.{name}", self._origin)
        return partials

    def check_config(self, config: Mapping[str, Any]) -> None:
        """Refuse a config whose variables or helpers are not those of its templates."""
        asked = self.asked(config)
        self.check_partials(config.get("partials", {}))
        for name, told in config["variables"].items():
            if "schema" in told:
                check_schema(told["schema"], f"variables.{name}.schema")
        for what, said, found in (
            ("variables", set(config["variables"]), set(asked)),
            ("helpers", set(config.get("helpers", ())), set(self.helpers)),
        ):
            if said != found:
                raise InvalidTemplate(
                    f"the config's {what} are {sorted(said)}, its templates use {sorted(found)}",
                    field=what,
                    origin=self._origin,
                )

    # --- rendering

    def text(self, config: Mapping[str, Any], values: Mapping[str, Any], now: Any, seed: Any, limits: Limits) -> str:
        """The text of a text prompt."""
        assert self._text is not None  # noqa: S101 - a chat never comes here
        meter = self._meter(now, seed, limits)
        return self._text.render(self._given(config, values, meter), meter)

    def messages(
        self, config: Mapping[str, Any], values: Mapping[str, Any], now: Any, seed: Any, limits: Limits
    ) -> list[dict[str, Any]]:
        """The messages of a chat prompt."""
        meter = self._meter(now, seed, limits)
        given = self._given(config, values, meter)
        made: list[dict[str, Any]] = []
        for message in self._messages:
            if isinstance(message, tuple):
                made.append({"role": message[0], "content": message[1].render(given, meter)})
            elif message["placeholder"] == EXAMPLES and "examples" in config:
                made += self.example_turns(config["examples"], meter)
            else:
                made += _spliced(given.get(message["placeholder"], []), message["placeholder"])
        return made

    def _given(self, config: Mapping[str, Any], values: Mapping[str, Any], meter: Meter) -> dict[str, Any]:
        variables = config["variables"]
        for name in values:
            if name not in variables:
                if name in config.get("partials", {}):
                    raise InvalidValue(f"{name!r} is fixed by the prompt", field=name, origin=self._origin)
                raise unknown_variable(str(name), variables, str(name), self._origin)
        missing = [name for name, told in variables.items() if told["required"] and name not in values]
        if missing:
            line = self.uses()[missing[0]].line or None
            raise MissingVariable(
                f"the template needs {', '.join(map(repr, missing))}",
                field=missing[0],
                origin=Place(origin=self._origin).at(line),
                line=line,
                variable=missing[0],
                next_step=f"Give {', '.join(f'{name}=…' for name in missing)}.",
            )
        given: dict[str, Any] = plain_value(config.get("partials", {}), "partials")
        for name, value in values.items():
            plain = plain_value(_plain_messages(value), name)
            if "schema" in variables[name]:
                check_value(plain, variables[name]["schema"], name)
            given[name] = plain
        if "examples" in config:
            given[EXAMPLES] = self.example_text(config["examples"], meter)
        return given

    def example_text(self, examples: Mapping[str, Any], meter: Meter | None = None) -> Any:
        """What a text's template finds as `examples`: the examples as one text, or as they are."""
        if self._example is None:
            return plain_value(examples["items"], EXAMPLES)
        meter = meter or self._meter(None, None, Limits())
        written = [self._example.render(plain_value(item, EXAMPLES), meter) for item in examples["items"]]
        return str(examples["separator"]).join(written)

    def example_turns(self, examples: Mapping[str, Any], meter: Meter | None = None) -> list[dict[str, Any]]:
        """The examples of a chat as messages."""
        meter = meter or self._meter(None, None, Limits())
        return [
            {"role": role, "content": template.render(plain_value(item, EXAMPLES), meter)}
            for item in examples["items"]
            for role, template in self._example_messages
        ]

    def _check_examples(self, examples: Mapping[str, Any]) -> None:
        templates = [t for t in (self._example, *(t for _, t in self._example_messages)) if t is not None]
        for i, item in enumerate(examples.get("items", ()) if templates else ()):
            for template in templates:
                for name, use in template.uses.items():
                    if use.required and name not in item:
                        raise MissingVariable(
                            f"an example lacks {name!r}",
                            field=f"examples.items[{i}]",
                            origin=Place(origin=self._origin).at(None),
                            line=use.line,
                            variable=name,
                        )

    def _meter(self, now: datetime | None, seed: int | None, limits: Limits) -> Meter:
        clock: Callable[[], datetime] | None = None if now is None else lambda: now
        rng = None if seed is None else random.Random(seed)  # noqa: S311 - chooses words, not keys
        if self._format != "jinja2":
            return Meter(limits, clock, rng)
        from llmartifacts.kinds.prompt.jinja import JinjaMeter

        return JinjaMeter(limits, clock, rng)


def _reader(config: Mapping[str, Any], allowed: frozenset[str] | None, origin: str) -> Callable[[str, str], Any]:
    """Reads one template of the prompt's format; each engine is imported when it is needed."""
    form = config["template_format"]
    if form == "jinja2":
        from llmartifacts.kinds.prompt.jinja import JinjaTemplate

        return lambda text, field: JinjaTemplate(text, Place(field, origin), config.get("jinja", {}), allowed)
    if form == "mustache":
        from llmartifacts.kinds.prompt.mustache import MustacheTemplate

        return lambda text, field: MustacheTemplate(text, Place(field, origin), config.get("includes"))
    from llmartifacts.kinds.prompt.fstring import FStringTemplate

    return lambda text, field: FStringTemplate(text, Place(field, origin))


def _plain_messages(value: Any) -> Any:
    """LangChain's messages as dicts with a role; anything else as it is."""
    if isinstance(value, list | tuple) and any(type(v).__module__.startswith("langchain_core.messages") for v in value):
        from llmartifacts.kinds.prompt.langchain import plain_messages

        return plain_messages(value)
    return value


def _spliced(value: Any, name: str) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise InvalidValue("a placeholder takes a list of messages", field=name)
    made = []
    for i, message in enumerate(value):
        if isinstance(message, list) and len(message) == 2:
            message = {"role": message[0], "content": message[1]}
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise InvalidValue(
                "a message is an object with a role and a content, or a (role, content) pair", field=f"{name}[{i}]"
            )
        made.append(message)
    return made
