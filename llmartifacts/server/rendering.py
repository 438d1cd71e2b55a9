"""What the process behind a preview runs: one prompt, rendered. It is given no registry, and imports none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from llmartifacts.errors import LlmartifactsError
from llmartifacts.kinds.base import FileView
from llmartifacts.kinds.prompt.kind import PromptKind
from llmartifacts.kinds.prompt.limits import Limits
from llmartifacts.wire.errors import error_item

OUTPUT = 1024 * 1024
"""Characters of a preview."""
LIMITS = Limits(output=OUTPUT, value=OUTPUT, memory=64 * OUTPUT, steps=250_000, seconds=2.0)


def render(config: Mapping[str, Any], variables: Mapping[str, Any]) -> dict[str, Any]:
    """Render a prompt.

    Args:
        config: Config of a `prompt`, which nobody has looked at yet.
        variables: Name -> JSON-plain value.

    Returns:
        `{"text"}`, or `{"messages": [{"role", "content"}]}`, or `{"error"}`, as the wire has errors.
    """
    try:
        prompt = PromptKind().unpack(config, cast(FileView, None))  # all of a prompt is in its config
        if config["type"] == "text":
            return {"text": prompt.render(variables, limits=LIMITS)}
        found = prompt.render_messages(variables, limits=LIMITS)
        return {"messages": [{"role": str(m["role"]), "content": _text(m.get("content"))} for m in found]}
    except LlmartifactsError as error:
        return {"error": error_item(error)}


def _text(content: Any) -> str:
    """What a message says; a part that is no text is named in square brackets."""
    if isinstance(content, list):
        return "".join(map(_text, content))
    if isinstance(content, Mapping):
        said = content.get("text")
        return said if isinstance(said, str) else f"[{content.get('type', 'part')}]"
    return "" if content is None else str(content)
