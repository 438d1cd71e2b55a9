"""What a runnable gives back, as plain JSON that is scored, cached and kept in the report."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from llmartifacts.errors import InvalidValue, LlmartifactsError
from llmartifacts.records.canonical import check_json

_DEPTH = 32


def plain_output(value: Any) -> Any:
    """An output as JSON.

    - text, numbers, lists and mappings stay what they are; tuples and sets become lists;
    - a message of LangChain becomes its text; with tool calls, `{"content", "tool_calls"}`;
    - a document (of LangChain, or of an index) becomes its id, so that a retriever's answer is scored like an index;
    - the hits of a search of one query become the list of ids;
    - a pydantic object and a dataclass become objects, an array and a number of numpy lists and numbers.

    Raises:
        InvalidValue: It holds anything else, or NaN; the place is named.
    """
    made = _plain(value, "output", 0)
    try:
        check_json(made, field="output")
    except LlmartifactsError as error:
        raise InvalidValue.of(error) from None
    return made


def _plain(value: Any, where: str, depth: int) -> Any:
    if value is None or type(value) in (str, int, float, bool):
        return value
    if depth > _DEPTH:
        raise InvalidValue(f"nested deeper than {_DEPTH} levels", field=where)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Mapping):
        return {_key(k, where): _plain(v, f"{where}.{k}", depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        many = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
        return [_plain(v, f"{where}[{i}]", depth + 1) for i, v in enumerate(many)]
    found = _of_langchain(value) if _looks_like_langchain(value) else _MISSING
    if found is not _MISSING:
        return _plain(found, where, depth + 1)
    return _plain(_known(value, where), where, depth + 1)


_MISSING: Any = object()


def _known(value: Any, where: str) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if type(value).__module__.partition(".")[0] == "numpy":
        return value.tolist()
    if type(value).__name__ == "SearchHits" and len(value) == 1:
        return list(value.ids[0])
    if type(value).__name__ == "Document" and isinstance(getattr(value, "id", None), str):
        return value.id
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    raise InvalidValue(
        f"a {type(value).__name__} is no output",
        field=where,
        next_step="Return text, numbers, lists or mappings; for an index the ids found, best first.",
    )


def _looks_like_langchain(value: Any) -> bool:
    return any(c.__module__.startswith("langchain_core.") for c in type(value).__mro__)


def _of_langchain(value: Any) -> Any:
    from langchain_core.documents import Document
    from langchain_core.messages import BaseMessage
    from langchain_core.outputs import ChatGeneration
    from langchain_core.prompt_values import PromptValue

    if isinstance(value, ChatGeneration):
        value = value.message
    if isinstance(value, BaseMessage):
        text = str(value.text)  # the text of a message whose content is a list of blocks, too
        calls = [{"name": c["name"], "args": c["args"]} for c in getattr(value, "tool_calls", ())]
        return {"content": text, "tool_calls": calls} if calls else text
    if isinstance(value, Document):
        found = value.id if value.id is not None else value.metadata.get("id")
        if not isinstance(found, str):
            raise InvalidValue("a document without an id", field="output", next_step="Give the documents ids.")
        return found
    if isinstance(value, PromptValue):
        return value.to_string()
    return _MISSING


def _key(key: Any, where: str) -> str:
    if not isinstance(key, str):
        raise InvalidValue(f"the key {key!r:.40} is not text", field=where)
    return str(key)
