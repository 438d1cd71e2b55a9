"""The config of a prompt: all that changes what it does, as plain JSON. A prompt has no files.

| key | what |
| --- | --- |
| `type` | `text` or `chat` |
| `template_format` | `jinja2`, `f-string` or `mustache` |
| `template` | the template of a text |
| `messages` | of a chat: `{"role", "template"}` or `{"placeholder", "optional"}`, in order |
| `variables` | name -> `{"required", "schema"?}`; what the caller gives, so without partials and examples |
| `partials` | name -> value fixed when logged |
| `examples` | `{"items", "template"? or "messages"?, "separator"?}` |
| `tools`, `tool_choice`, `response_format` | as the model's API takes them |
| `model` | `ModelSpec.to_config()` |
| `helpers` | names of the safe helpers that the templates use, sorted |
| `includes` | Mustache: name -> partial template |
| `jinja` | options of the Jinja2 engine that are not its defaults |

An optional key without content is left out, so that identity does not depend on who wrote it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from llmartifacts.kinds.base import Config
from llmartifacts.kinds.model import ModelConfig

MAX_TEMPLATE = 1024 * 1024
"""Characters of one template."""
MAX_MESSAGES = 1000
MAX_VARIABLES = 1000
MAX_EXAMPLES = 10_000
MAX_INCLUDES = 100


class MessageConfig(Config):
    """One message of a chat: a role with a template, or a place where messages are put in."""

    role: str | None = None
    template: str | None = Field(default=None, max_length=MAX_TEMPLATE)
    placeholder: str | None = None
    optional: bool | None = None


class VariableConfig(Config):
    """One variable.

    Attributes:
        required: Whether the caller must give it.
        schema_: `schema` in JSON: JSON Schema that its value must fit.
    """

    required: bool
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")


class ExamplesConfig(Config):
    """Few-shot examples, pinned.

    Attributes:
        items: The values of each example.
        template: How one is written, in the prompt's own format.
        messages: How one is written in a chat.
        separator: What stands between two texts.
    """

    items: list[dict[str, Any]] = Field(min_length=1, max_length=MAX_EXAMPLES)
    template: str | None = Field(default=None, max_length=MAX_TEMPLATE)
    messages: list[MessageConfig] | None = Field(default=None, min_length=1, max_length=MAX_MESSAGES)
    separator: str | None = Field(default=None, max_length=MAX_TEMPLATE)


class JinjaConfig(Config):
    """Options of the Jinja2 engine that are not its defaults."""

    trim_blocks: bool = False
    lstrip_blocks: bool = False
    keep_trailing_newline: bool = False
    undefined: Literal["strict", "lenient"] = "strict"
    tojson: Literal["html", "plain"] = "html"


class PromptConfig(Config):
    """A prompt inside a manifest; see the table above."""

    type: Literal["text", "chat"]
    template_format: Literal["jinja2", "f-string", "mustache"]
    template: str | None = Field(default=None, max_length=MAX_TEMPLATE)
    messages: list[MessageConfig] | None = Field(default=None, min_length=1, max_length=MAX_MESSAGES)
    variables: dict[str, VariableConfig] = Field(max_length=MAX_VARIABLES)
    partials: dict[str, Any] = Field(default_factory=dict)
    examples: ExamplesConfig | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    model: ModelConfig | None = None
    helpers: list[str] = Field(default_factory=list)
    includes: dict[str, Annotated[str, Field(max_length=MAX_TEMPLATE)]] = Field(
        default_factory=dict, max_length=MAX_INCLUDES
    )
    jinja: JinjaConfig | None = None
