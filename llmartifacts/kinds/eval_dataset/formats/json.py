"""One JSON document that holds the items somewhere: a list, an object with one list, or SQuAD's nested form.

Sources: BIG-Bench Hard, `{"canary": …, "examples": [{"input", "target"}]}` (github.com/suzgunmirac/BIG-Bench-Hard);
SQuAD, `{"data": [{"title", "paragraphs": [{"context", "qas": [{"id", "question", "answers"}]}]}]}` (Rajpurkar 2018).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llmartifacts.errors import InvalidValue, TooLarge
from llmartifacts.kinds.disk import AnyPath
from llmartifacts.kinds.eval_dataset.rows import json_type, parse_document
from llmartifacts.kinds.eval_dataset.sources import MIB, Limits, Origin, Row, decode, name_of, reading

KEYS = ("examples", "data", "items", "rows", "instances", "questions", "samples", "test_cases")
"""Keys under which the list of items is looked for."""

MAX_BYTES = 512 * MIB
"""A document is parsed whole; beyond this it should be JSON Lines."""


def read(path: AnyPath, limits: Limits) -> Iterator[Row]:
    """The items of a document. What stands beside the list (a version, a canary string) is not read.

    Raises:
        InvalidValue: Not JSON, or no list of objects in it.
        TooLarge: The document has more than 512 MiB.
    """
    name = name_of(path)
    data = bytearray()
    with reading(path, limits) as stream:
        while part := stream.read(MIB):
            data += part
            if len(data) > MAX_BYTES:
                raise TooLarge(
                    f"the document has more than {MAX_BYTES} bytes",
                    field="path",
                    origin=name,
                    next_step="Write it as JSON Lines, which is read line by line.",
                )
    place, found = _find(parse_document(decode(bytes(data), name), name), name)
    if any(isinstance(item, dict) and "paragraphs" in item for item in found):
        yield from _squad(found, place, name)
    else:
        for i, item in enumerate(found):
            yield Row(Origin(name, f"{place}[{i}]"), item)


def _find(document: Any, name: str) -> tuple[str, list[Any]]:
    if isinstance(document, list):
        return "", document
    if not isinstance(document, dict):
        raise InvalidValue(f"the document is {json_type(document)}, not a list of objects", origin=name)
    lists = [key for key in KEYS if isinstance(document.get(key), list)]
    if len(lists) != 1:
        raise InvalidValue(
            f"several lists could be the items: {', '.join(lists)}" if lists else "no list of items is in the document",
            origin=name,
            next_step=f"Give a list, or an object with one list under one of: {', '.join(KEYS)}.",
        )
    return lists[0], document[lists[0]]


def _squad(articles: list[Any], place: str, name: str) -> Iterator[Row]:
    for i, article in enumerate(articles):
        where = f"{place}[{i}]"
        about = _without(article, "paragraphs", where, name)
        for j, paragraph in enumerate(_list(article, "paragraphs", where, name)):
            inside = f"{where}.paragraphs[{j}]"
            context = _without(paragraph, "qas", inside, name)
            for k, question in enumerate(_list(paragraph, "qas", inside, name)):
                origin = Origin(name, f"{inside}.qas[{k}]")
                row = dict(_object(question, str(origin)))
                _join(row, context, "paragraph")
                _join(row, about, "article")
                yield Row(origin, row)


def _join(row: dict[str, Any], outer: Mapping[str, Any], prefix: str) -> None:
    for key, value in outer.items():
        row[f"{prefix}.{key}" if key in row else key] = value


def _without(value: Any, key: str, where: str, name: str) -> dict[str, Any]:
    return {k: v for k, v in _object(value, f"{name}, {where}").items() if k != key}


def _list(value: Any, key: str, where: str, name: str) -> list[Any]:
    found = value.get(key)
    if not isinstance(found, list):
        raise InvalidValue(f"{key} is {json_type(found)}, not a list", field=key, origin=f"{name}, {where}")
    return found


def _object(value: Any, origin: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidValue(f"this is {json_type(value)}, not an object", origin=origin)
    return value
