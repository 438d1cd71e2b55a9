"""Values on their way into a template: private copies of plain JSON, so that no method of an object can be called."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from llmartifacts.errors import InvalidValue, TooLarge

MAX_DEPTH = 64
MAX_SIZE = 32 * 1024 * 1024
"""Characters and items of all values of one rendering."""


def plain_value(value: Any, field: str) -> Any:
    """A private copy: None, bool, int, float, str, list, dict with text keys; subclasses become their base.

    Raises:
        InvalidValue: It is something else; the field is named, such as `messages[2].content`.
        TooLarge: It has more than 33,554,432 characters and items.
    """
    return _copy(value, field, 0, [0])


def _copy(value: Any, field: str, depth: int, size: list[int]) -> Any:
    kind = type(value)
    size[0] += 1
    if kind is str:
        size[0] += len(value)
    if size[0] > MAX_SIZE:
        raise TooLarge(f"the values have more than {MAX_SIZE:,} characters and items", field=field)
    if kind is str or value is None or kind is bool or kind is int or kind is float:
        return value
    if depth >= MAX_DEPTH:
        raise InvalidValue(f"nested deeper than {MAX_DEPTH} levels", field=field)
    if isinstance(value, Mapping):
        made = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise InvalidValue(f"the key {key!r:.60} is not text", field=field)
            made[str.__str__(key)] = _copy(item, f"{field}.{key}", depth + 1, size)
        return made
    if isinstance(value, list | tuple):
        return [_copy(item, f"{field}[{i}]", depth + 1, size) for i, item in enumerate(value)]
    if isinstance(value, str | int | float):
        base: Any = str if isinstance(value, str) else int if isinstance(value, int) else float
        return _copy(getattr(base, f"__{base.__name__}__")(value), field, depth, size)
    raise InvalidValue(
        f"a {kind.__name__} cannot be handed to a template",
        field=field,
        next_step="Hand over text, numbers, true, false, null, lists and objects; write other things out as text.",
    )


def is_number(value: Any) -> bool:
    """Whether a JSON value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
