"""Prompts to and from LangChain's objects. LangChain is imported when one of these functions is called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmartifacts.errors import InvalidValue
from llmartifacts.kinds.prompt.helpers import MUTATION
from llmartifacts.kinds.prompt.langchain_json import Reader
from llmartifacts.kinds.prompt.parts import EXAMPLES
from llmartifacts.kinds.prompt.value import Prompt

_SHARED_HELPERS = frozenset({"random", "tojson", MUTATION})
"""Helpers that LangChain's Jinja2 has too."""


def from_object(prompt: Any, fields: Mapping[str, Any]) -> Prompt:
    """A prompt from a LangChain object; see `Prompt.from_langchain`."""
    from langchain_core.prompts import ChatPromptTemplate, FewShotPromptTemplate, PromptTemplate

    reader = Reader(None, f"a LangChain {type(prompt).__name__}")
    if isinstance(prompt, PromptTemplate):
        return reader.prompt(reader.string(_fields(prompt)), fields)
    if isinstance(prompt, FewShotPromptTemplate):
        told = _fields(prompt)
        return reader.prompt(reader.few_shot(told, _fields(told.pop("example_prompt"))), fields)
    if isinstance(prompt, ChatPromptTemplate):
        if prompt.output_parser is not None:
            reader.string(_fields(prompt) | {"template": ""})
        turns = [turn for message in prompt.messages for turn in _turns(message, reader)]
        reader.fix_partials(prompt.partial_variables, turns)
        return reader.prompt(reader.settled(turns), fields)
    raise reader.refuse(
        "it is no prompt that can be logged",
        "prompt",
        "Known: PromptTemplate, ChatPromptTemplate, FewShotPromptTemplate, FewShotChatMessagePromptTemplate.",
    )


def _turns(message: Any, reader: Reader) -> list[dict[str, Any]]:
    from langchain_core.messages import BaseMessage
    from langchain_core.prompts import (
        AIMessagePromptTemplate,
        ChatMessagePromptTemplate,
        ChatPromptTemplate,
        FewShotChatMessagePromptTemplate,
        HumanMessagePromptTemplate,
        MessagesPlaceholder,
        PromptTemplate,
        SystemMessagePromptTemplate,
    )

    if isinstance(message, MessagesPlaceholder):
        return [reader.placeholder(_fields(message))]
    if isinstance(message, BaseMessage):
        return [reader.literal(getattr(message, "role", message.type), message.content)]
    if isinstance(message, ChatPromptTemplate):
        return [turn for inner in message.messages for turn in _turns(inner, reader)]
    if isinstance(message, FewShotChatMessagePromptTemplate):
        if message.example_selector is not None:
            raise reader.refuse("an example selector is code of the application", "example_selector")
        return [reader.chat_examples(message.examples, _turns(message.example_prompt, reader))]
    roles = {SystemMessagePromptTemplate: "system", HumanMessagePromptTemplate: "user"}
    roles[AIMessagePromptTemplate] = "assistant"
    role = message.role if isinstance(message, ChatMessagePromptTemplate) else roles.get(type(message))
    inner = getattr(message, "prompt", None)
    if isinstance(inner, list) and len(inner) == 1:
        inner = inner[0]
    if role is None or not isinstance(inner, PromptTemplate):
        raise reader.refuse(f"a {type(message).__name__} is no message of one text", "messages")
    return [reader.turn(role, _fields(inner))]


def _fields(thing: Any) -> dict[str, Any]:
    """Fields of a pydantic object by name, its parts as they are."""
    return {name: getattr(thing, name) for name in type(thing).model_fields}


def to_object(prompt: Prompt) -> Any:
    """LangChain's object for a prompt; see `Prompt.to_langchain`."""
    from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder, PromptTemplate

    _check_expressible(prompt)
    fixed: dict[str, Any] = dict(prompt.partials)
    examples = prompt.examples

    def text(template: str) -> Any:
        return PromptTemplate.from_template(template, template_format=prompt.template_format)  # type: ignore[arg-type]

    try:
        if not prompt.is_chat:
            if examples is not None:
                fixed[EXAMPLES] = prompt.engine.example_text(examples)
            made = text(prompt.template)
            return made.partial(**fixed) if fixed else made
        turns: list[Any] = []
        for message in prompt.messages:
            if "placeholder" not in message:
                turns.append(_message_template(message["role"], text(message["template"])))
            elif examples is not None and message["placeholder"] == EXAMPLES:
                turns += [_message(turn["role"], turn["content"]) for turn in prompt.engine.example_turns(examples)]
            else:
                turns.append(MessagesPlaceholder(message["placeholder"], optional=message["optional"]))
        chat = ChatPromptTemplate(messages=turns)
        return chat.partial(**fixed) if fixed else chat
    except (ValueError, SyntaxError) as error:
        raise InvalidValue(f"LangChain does not take the template: {error}", field="template") from None
    except Exception as error:
        if type(error).__module__.startswith("jinja2"):
            raise InvalidValue(f"LangChain does not take the template: {error}", field="template") from None
        raise


def _check_expressible(prompt: Prompt) -> None:
    helpers = set(prompt.helpers) - _SHARED_HELPERS
    options = {name for name, value in prompt.jinja.items() if (name, value) != ("undefined", "lenient")}
    for what, names in (("the helpers", helpers), ("the jinja options", options), ("the includes", prompt.includes)):
        if names:
            raise InvalidValue(
                f"LangChain has not {what} {', '.join(sorted(names))}",
                field=what.split()[-1],
                next_step="Call format() or format_messages() and hand LangChain the result.",
            )


def _message_template(role: str, text: Any) -> Any:
    from langchain_core.prompts import (
        AIMessagePromptTemplate,
        ChatMessagePromptTemplate,
        HumanMessagePromptTemplate,
        SystemMessagePromptTemplate,
    )

    known: dict[str, Any] = {"system": SystemMessagePromptTemplate}
    known |= dict.fromkeys(("user", "human"), HumanMessagePromptTemplate)
    known |= dict.fromkeys(("assistant", "ai"), AIMessagePromptTemplate)
    return known[role](prompt=text) if role in known else ChatMessagePromptTemplate(role=role, prompt=text)


def _message(role: str, content: str) -> Any:
    from langchain_core.messages import AIMessage, ChatMessage, HumanMessage, SystemMessage

    known: dict[str, Any] = {"system": SystemMessage, "user": HumanMessage, "human": HumanMessage}
    known |= dict.fromkeys(("assistant", "ai"), AIMessage)
    return known[role](content=content) if role in known else ChatMessage(role=role, content=content)


def plain_messages(messages: Sequence[Any]) -> list[Any]:
    """LangChain's messages as most APIs write them, tool calls included; others stay as they are."""
    from langchain_core.messages import BaseMessage, convert_to_openai_messages

    return [convert_to_openai_messages(m) if isinstance(m, BaseMessage) else m for m in messages]
