"""`Prompt`: a text or chat template with all that changes what it does."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import FrozenInstanceError
from datetime import datetime
from types import MappingProxyType
from typing import Any, ClassVar

from llmartifacts.errors import InvalidValue
from llmartifacts.kinds.model import ModelConfig, ModelSpec
from llmartifacts.kinds.prompt import parts
from llmartifacts.kinds.prompt.engine import Engine
from llmartifacts.kinds.prompt.limits import Limits
from llmartifacts.records.canonical import canonical_bytes

Message = tuple[str, str] | Mapping[str, Any]


class Prompt:
    """A text or chat template, its variables, and what the model is called with. Frozen; equal by content.

    Args:
        template: The template of a text, or the messages of a chat: each a `(role, template)` pair,
            `{"role", "template"}`, or `{"placeholder": "history", "optional": True}` where messages are put in.
        template_format: `jinja2`, `f-string` or `mustache`; never guessed.
        model: The model it is written for, with its parameters.
        variables: What to say of variables beyond what the template says: name -> `{"required", "schema"}`, `schema`
            being JSON Schema (see `schema.py` for the part that is taken). A variable that the template tests with
            `is defined`, gives a default everywhere, or sets itself is optional by itself, and so is what a Mustache
            section asks for.
        partials: Variables whose values are fixed here.
        examples: Few-shot examples, which the template finds as `examples`: a list of objects to loop over, or
            `{"items", "template", "separator"}` for one text, `{"items", "messages"}` for the placeholder `examples`
            of a chat.
        tools: Tool definitions, as the model's API takes them.
        tool_choice: Which tool to call, as the API takes it.
        response_format: The form of the answer, as the API takes it.
        helpers: Safe helpers (see `helpers.py`) that the templates may use; default any, and the ones that are used
            are recorded.
        includes: Mustache only: name -> template of each partial.
        jinja: Jinja2 only: `transformers` renders as transformers renders chat templates; or an object with
            `trim_blocks`, `lstrip_blocks`, `keep_trailing_newline`, `undefined` (`strict`, `lenient`), `tojson`
            (`html`, `plain`). Default: Jinja2's own, with strict undefined.
        origin: The file it was read from, for error messages; not content.

    Raises:
        InvalidTemplate: A template does not parse or asks for what is refused; line and name are given.
        UnexpectedVariable: Something is said of a variable that the template does not use.
        InvalidValue: Another argument cannot be used; the field is named.
        TooLarge: A template has more than 1,048,576 characters.

    Example:
        >>> prompt = Prompt("Hello {{ name }}!", template_format="jinja2")
        >>> prompt.format(name="Ada")
        'Hello Ada!'
        >>> chat = Prompt([("system", "Be brief."), ("user", "{question}")], template_format="f-string")
        >>> chat.format_messages(question="Why?")[1]
        {'role': 'user', 'content': 'Why?'}
    """

    kind: ClassVar[str] = "prompt"

    __slots__ = ("__weakref__", "_bytes", "_config", "_engine_", "origin")

    origin: str
    _config: dict[str, Any]
    _engine_: Engine | None
    _bytes: bytes | None

    def __init__(
        self,
        template: str | Sequence[Message],
        *,
        template_format: str,
        model: ModelSpec | None = None,
        variables: Mapping[str, Mapping[str, Any]] | None = None,
        partials: Mapping[str, Any] | None = None,
        examples: Sequence[Mapping[str, Any]] | Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: str | Mapping[str, Any] | None = None,
        response_format: Mapping[str, Any] | None = None,
        helpers: str | Iterable[str] | None = None,
        includes: Mapping[str, str] | None = None,
        jinja: str | Mapping[str, Any] | None = None,
        origin: str = "",
    ) -> None:
        config: dict[str, Any] = {"template_format": parts.check_format(template_format)}
        chat = not isinstance(template, str)
        config["type"] = "chat" if chat else "text"
        if chat:
            config["messages"] = parts.messages(template, "messages", origin)
        else:
            config["template"] = parts.template_text(template, "template", origin)
        if includes:
            config["includes"] = parts.includes(includes, template_format, origin)
        if jinja is not None and (options := parts.jinja_options(jinja, template_format)):
            config["jinja"] = options
        if examples is not None:
            config["examples"] = parts.examples(examples, chat, origin)
        engine = Engine(config, None if helpers is None else parts.helpers(helpers), origin)
        if partials:
            config["partials"] = engine.check_partials(parts.json_value(dict(partials), "partials"))
        config["variables"] = parts.variables(variables, engine.asked(config), origin)
        if engine.helpers:
            config["helpers"] = sorted(engine.helpers)
        for name, value, form in (
            ("tools", tools, list),
            ("tool_choice", tool_choice, str | dict),
            ("response_format", response_format, dict),
        ):
            if value is not None:
                config[name] = _checked(name, value, form)
        if model is not None:
            config["model"] = _model(model)
        self._set(config, origin, engine)

    def _set(self, config: dict[str, Any], origin: str, engine: Engine | None) -> None:
        for name, value in (("_config", config), ("origin", origin), ("_engine_", engine), ("_bytes", None)):
            object.__setattr__(self, name, value)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, origin: str = "") -> Prompt:
        """A prompt from a config that `PromptKind` has checked; the templates are read at first use."""
        self = cls.__new__(cls)
        self._set(copy.deepcopy(dict(config)), origin, None)
        return self

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], *, template_format: str | None = None, **fields: Any) -> Prompt:
        """Read a prompt from a file.

        Args:
            path: A template (`.j2` is Jinja2, `.mustache` is Mustache, any other suffix needs `template_format`), a
                `.yaml` or `.yml` with the fields of `Prompt`, or a prompt as LangChain writes it (`.json`, `.yaml`).
            template_format: See `Prompt`.
            **fields: Further fields of `Prompt`, such as `model`; they win over those in the file.

        Raises:
            InvalidInput: The file cannot be used; `origin` names it and the line.
            NotFound: It is not there.
        """
        from llmartifacts.kinds.prompt.sources import read_file

        return read_file(path, template_format=template_format, fields=fields)

    @classmethod
    def from_langchain(cls, prompt: Any, **fields: Any) -> Prompt:
        """A prompt from LangChain's `PromptTemplate`, `ChatPromptTemplate` or a few-shot template.

        Args:
            prompt: The LangChain object; none of its methods is called but those that show its fields.
            **fields: Further fields of `Prompt`, such as `model`.

        Raises:
            InvalidValue: It holds what a prompt cannot express (an output parser, images, a partial that is a
                function, an example selector); it is named.
        """
        from llmartifacts.kinds.prompt.langchain import from_object

        return from_object(prompt, fields)

    @classmethod
    def from_langchain_file(cls, path: str | os.PathLike[str], **fields: Any) -> Prompt:
        """A prompt from a file that LangChain wrote: `dumpd` JSON, or `save` JSON or YAML. Nothing of it is run.

        Raises:
            InvalidInput: It is no such file, or holds what a prompt cannot express.
        """
        from llmartifacts.kinds.prompt.sources import read_langchain

        return read_langchain(path, fields)

    def to_langchain(self) -> Any:
        """The prompt as LangChain's `PromptTemplate` or `ChatPromptTemplate`, which writes the same text.

        Raises:
            InvalidValue: LangChain cannot express it (helpers, Jinja2 options, Mustache partials); it is named.
        """
        from llmartifacts.kinds.prompt.langchain import to_object

        return to_object(self)

    # --- rendering

    def format(self, /, **values: Any) -> str:
        """The text, with these values.

        Args:
            **values: JSON-plain values of the variables.

        Raises:
            MissingVariable: One that the template needs is not given; the line is named.
            UnexpectedVariable: One is given that the template does not know.
            InvalidValue: A value is no JSON or breaks its schema; or the prompt is a chat.
            RenderLimitExceeded: The template runs too long or writes too much.
        """
        return self.render(values)

    def format_messages(self, /, **values: Any) -> list[dict[str, Any]]:
        """The messages, with these values: `role` and `content` each; a text is one message of the user.

        Args:
            **values: JSON-plain values of the variables; for a placeholder a list of messages, as dicts with a role,
                as `(role, content)` pairs or as LangChain's messages.

        Raises:
            InvalidInput: As `format`.
        """
        return self.render_messages(values)

    def render(
        self,
        values: Mapping[str, Any],
        *,
        now: datetime | None = None,
        seed: int | None = None,
        limits: Limits | None = None,
    ) -> str:
        """`format`, with what a repeatable rendering needs.

        Args:
            values: Name -> JSON-plain value.
            now: The time that `strftime_now` prints; default the clock of the machine, local time.
            seed: Of `choice` and `random`; default another choice each time.
            limits: What the rendering may use.

        Raises:
            InvalidInput: As `format`.
        """
        if self.is_chat:
            raise InvalidValue("this prompt is a chat", field="type", next_step="Call format_messages().")
        return self.engine.text(self._config, values, now, seed, limits or Limits())

    def render_messages(
        self,
        values: Mapping[str, Any],
        *,
        now: datetime | None = None,
        seed: int | None = None,
        limits: Limits | None = None,
    ) -> list[dict[str, Any]]:
        """`format_messages`, with what a repeatable rendering needs; arguments as `render`."""
        if not self.is_chat:
            return [{"role": "user", "content": self.render(values, now=now, seed=seed, limits=limits)}]
        return self.engine.messages(self._config, values, now, seed, limits or Limits())

    @property
    def engine(self) -> Engine:
        """The templates, read at first use."""
        if self._engine_ is None:
            engine = Engine(self._config, frozenset(self.helpers), self.origin)
            engine.check_config(self._config)
            object.__setattr__(self, "_engine_", engine)
            return engine
        return self._engine_

    # --- what it is

    @property
    def is_chat(self) -> bool:
        """Whether it is a list of messages."""
        return bool(self._config["type"] == "chat")

    @property
    def template(self) -> str:
        """The template of a text.

        Raises:
            InvalidValue: It is a chat.
        """
        if self.is_chat:
            raise InvalidValue("this prompt is a chat", field="type", next_step="Read messages.")
        return str(self._config["template"])

    @property
    def messages(self) -> tuple[Mapping[str, Any], ...]:
        """The messages of a chat: `{"role", "template"}` or `{"placeholder", "optional"}`; of a text, none."""
        return tuple(MappingProxyType(m) for m in self._config.get("messages", ()))

    @property
    def template_format(self) -> str:
        """`jinja2`, `f-string` or `mustache`."""
        return str(self._config["template_format"])

    @property
    def variables(self) -> Mapping[str, Mapping[str, Any]]:
        """What the caller gives: name -> `{"required", "schema"?}`; partials and examples are not among them."""
        return MappingProxyType({k: MappingProxyType(v) for k, v in self._config["variables"].items()})

    @property
    def required(self) -> tuple[str, ...]:
        """Names of the variables that must be given, sorted."""
        return tuple(sorted(name for name, v in self._config["variables"].items() if v["required"]))

    @property
    def partials(self) -> Mapping[str, Any]:
        """Variables whose values are fixed."""
        return MappingProxyType(self._copy("partials") or {})

    @property
    def examples(self) -> Mapping[str, Any] | None:
        """The few-shot examples: `items` and how they are written; None if there are none."""
        return self._copy("examples")  # type: ignore[no-any-return]

    @property
    def tools(self) -> list[dict[str, Any]] | None:
        """Tool definitions; a copy."""
        return self._copy("tools")  # type: ignore[no-any-return]

    @property
    def tool_choice(self) -> str | dict[str, Any] | None:
        """Which tool to call; a copy."""
        return self._copy("tool_choice")  # type: ignore[no-any-return]

    @property
    def response_format(self) -> dict[str, Any] | None:
        """The form of the answer; a copy."""
        return self._copy("response_format")  # type: ignore[no-any-return]

    @property
    def model(self) -> ModelSpec | None:
        """The model it is written for."""
        found = self._config.get("model")
        return None if found is None else ModelSpec.from_config(ModelConfig.model_validate(found))

    @property
    def helpers(self) -> tuple[str, ...]:
        """Names of the safe helpers that the templates use, sorted."""
        return tuple(self._config.get("helpers", ()))

    @property
    def includes(self) -> Mapping[str, str]:
        """Mustache partials."""
        return MappingProxyType(self._config.get("includes", {}))

    @property
    def jinja(self) -> Mapping[str, Any]:
        """Options of the Jinja2 engine that are not its defaults."""
        return MappingProxyType(self._config.get("jinja", {}))

    def to_config(self) -> dict[str, Any]:
        """The config, as manifests keep it; a copy."""
        return copy.deepcopy(self._config)

    def _copy(self, name: str) -> Any:
        return copy.deepcopy(self._config.get(name))

    @property
    def _content(self) -> bytes:
        if self._bytes is None:
            object.__setattr__(self, "_bytes", canonical_bytes(self._config))
        return self._bytes or b""

    def __eq__(self, other: object) -> bool:
        return self._content == other._content if isinstance(other, Prompt) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._content)

    def __setattr__(self, name: str, value: object) -> None:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        raise FrozenInstanceError(f"cannot delete field {name!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self._config, self.origin)

    def __repr__(self) -> str:
        shape = f"{len(self.messages)} messages" if self.is_chat else f"{self.template:.40}"
        names = ", ".join(self._config["variables"])
        return f"Prompt({shape!r}, template_format={self.template_format!r}, variables=[{names}])"


def _rebuild(config: dict[str, Any], origin: str) -> Prompt:
    return Prompt.from_config(config, origin=origin)


def _checked(name: str, value: Any, form: Any) -> Any:
    plain = parts.json_value(value, name)
    if not isinstance(plain, form) or (name == "tools" and not all(isinstance(tool, dict) for tool in plain)):
        expected = {"tools": "a list of objects", "tool_choice": "text or an object"}.get(name, "an object")
        raise InvalidValue(f"{name} is {expected}", field=name)
    return plain


def _model(model: Any) -> dict[str, Any]:
    if not isinstance(model, ModelSpec):
        raise InvalidValue(
            f"model is a ModelSpec, not a {type(model).__name__}",
            field="model",
            next_step='Write ModelSpec(provider="openai", name="gpt-4-turbo").',
        )
    if model.files:
        raise InvalidValue("the model of a prompt has no files", field="model.files", next_step="Put it in a Bundle.")
    return model.to_config()
