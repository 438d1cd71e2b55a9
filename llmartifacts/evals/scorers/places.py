"""Where a scorer finds what it compares: inside the output, and inside the item.

A *field* is a path into the output, such as `answer.label` or `choices[0]` written as `choices.0`; an output that is
text is read as JSON first. An *expected* place is a path into the item: `expected_output`, `input`, `metadata.area`,
or the name of a column.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmartifacts.errors import InvalidManifest
from llmartifacts.kinds.eval_dataset.value import Item
from llmartifacts.records.canonical import parse_json

MAX_OUTPUT = 4 * 1024 * 1024
"""Characters of an output that are read as JSON."""
_FIELDS = ("expected_output", "input", "metadata", "id", "split")


def inside(output: Any, field: str | None) -> Any:
    """What stands at a place of an output; None where there is nothing, or no JSON to look into.

    Args:
        output: Plain JSON; text is read as JSON where a field is named.
        field: Keys and indexes with dots between them; None for the whole output.

    Example:
        >>> inside('{"label": "billing"}', "label"), inside({"a": [1, 2]}, "a.1"), inside("billing", "label")
        ('billing', 2, None)
    """
    if field is None:
        return output
    if isinstance(output, str):
        try:
            output = parse_json(output.strip(), max_bytes=MAX_OUTPUT)
        except InvalidManifest:
            return None
    return _at(output, field)


def wanted(item: Item, place: str) -> Any:
    """What an item holds at a place; None where there is nothing.

    Args:
        item: The item.
        place: A column's own name, else a field of `Item`, each perhaps with a path below it.

    Example:
        >>> item = Item("q1", "2 + 2?", "4", {"area": "sums"}, None, {"answer": "4", "ids": ["a", "b"]})
        >>> wanted(item, "metadata.area"), wanted(item, "ids.0"), wanted(item, "nowhere")
        ('sums', 'a', None)
    """
    if place in item.columns:
        return item.columns[place]
    head, dot, rest = place.partition(".")
    if head in item.columns:
        found = item.columns[head]
    elif head in _FIELDS:
        found = getattr(item, head)
    else:
        return None
    return _at(found, rest) if dot else found


def _at(value: Any, path: str) -> Any:
    for part in path.split("."):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list | tuple) and part.isascii() and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value
