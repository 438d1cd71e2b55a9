"""A prompt for one item: where its variables come from, and what a LangChain model is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmartifacts.errors import MissingVariable
from llmartifacts.kinds.eval_dataset.value import Item


def is_prompt(value: Any) -> bool:
    """Whether a loaded value is a `Prompt`; told without importing one."""
    return getattr(type(value), "kind", None) == "prompt"


def variables_for(prompt: Any, item: Item) -> dict[str, Any]:
    """The values of a prompt's variables for one item.

    Each variable is taken from the item's input where that is an object with such a key, else from the item's column of
    that name. What is then still missing, if it is one required variable, is the item's input.

    Args:
        prompt: A `Prompt`.
        item: The item.

    Returns:
        Name -> value; optional variables that nothing supplies are left out.

    Raises:
        MissingVariable: A required variable that nothing supplies.
    """
    given = item.input if isinstance(item.input, Mapping) else {}
    found = {}
    for name in prompt.variables:
        if name in given:
            found[name] = given[name]
        elif name in item.columns:
            found[name] = item.columns[name]
    missing = [name for name in prompt.required if name not in found]
    if len(missing) == 1 and not given:
        found[missing.pop()] = item.input
    if missing:
        supplied = sorted({*given, *item.columns})
        raise MissingVariable(
            f"the item {item.id!r:.80} has nothing for the variable {missing[0]!r}",
            variable=missing[0],
            field=f"items.{item.id}",
            next_step=f"Name a column of the dataset like the variable; it has {', '.join(supplied)}.",
        )
    return found


def prompt_value(prompt: Any, item: Item) -> Any:
    """The formatted prompt as LangChain hands it on in `prompt | model`: a `StringPromptValue` or a `ChatPromptValue`.

    It is formatted by the prompt's own engine, so templates that LangChain cannot express work too.

    Raises:
        InvalidInput: As `Prompt.format`.
    """
    from langchain_core.messages import convert_to_messages
    from langchain_core.prompt_values import ChatPromptValue, StringPromptValue

    values = variables_for(prompt, item)
    if not prompt.is_chat:
        return StringPromptValue(text=prompt.render(values))
    return ChatPromptValue(messages=convert_to_messages(prompt.render_messages(values)))


def with_model_settings(runnable: Any, prompt: Any) -> Any:
    """A bare LangChain model with what the prompt is logged with bound to it; any other Runnable as it is.

    Two versions of a prompt may differ in nothing but the temperature; asked without it, both would answer alike.
    """
    from langchain_core.language_models import BaseLanguageModel

    if not isinstance(runnable, BaseLanguageModel):
        return runnable
    settings: dict[str, Any] = dict(prompt.model.parameters) if prompt.model is not None else {}
    for name in ("tools", "tool_choice", "response_format"):
        if (value := getattr(prompt, name)) is not None:
            settings[name] = value
    return runnable.bind(**settings) if settings else runnable


def begins_with_a_prompt(runnable: Any) -> bool:
    """Whether a Runnable is, or a chain begins with, a LangChain prompt template."""
    from langchain_core.prompts import BasePromptTemplate

    return isinstance(getattr(runnable, "first", runnable), BasePromptTemplate)
