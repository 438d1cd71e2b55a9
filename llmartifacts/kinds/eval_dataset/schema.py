"""What the columns of a dataset hold, inferred over all items. It is part of a version's config."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from llmartifacts.kinds.eval_dataset.rows import ID, is_name, json_type

MAX_DISTINCT = 1_000
MAX_VALUES = 20
MAX_VALUE_LENGTH = 64
MAX_PROPERTIES = 100
_SCALARS = frozenset({str, int, float, bool})


@dataclass(frozen=True, slots=True)
class Column:
    """What one column holds.

    Attributes:
        types: JSON Schema word (`string`, `integer`, `number`, `boolean`, `array`, `object`) -> number of values.
        present: Number of items that have a value.
        null: Number of items where it is null or absent.
        distinct: Number of different values; None beyond 1,000, or where some are arrays or objects.
        values: The different values, sorted, where there are at most 20 and none is longer than 64 characters.
        properties: Names that every object in the column has, sorted, at most 100; None where there is no object.
    """

    types: Mapping[str, int]
    present: int
    null: int
    distinct: int | None = None
    values: tuple[Any, ...] | None = None
    properties: tuple[str, ...] | None = None

    def to_config(self) -> dict[str, Any]:
        """Plain JSON, as manifests keep it; what is not known is left out."""
        made: dict[str, Any] = {"types": dict(self.types), "present": self.present, "null": self.null}
        if self.distinct is not None:
            made["distinct"] = self.distinct
        if self.values is not None:
            made["values"] = list(self.values)
        if self.properties is not None:
            made["properties"] = list(self.properties)
        return made

    def __str__(self) -> str:
        types = " or ".join(sorted(self.types))
        return f"{types}, {self.null} null" if self.null else types


def infer(rows: Iterable[Mapping[str, Any]]) -> dict[str, Column]:
    """The columns of some rows, by name, sorted; `id` is left out, since every item has one.

    Args:
        rows: JSON-plain rows without null columns.
    """
    total = 0
    types: dict[str, Counter[str]] = {}
    seen: dict[str, set[Any] | None] = {}
    properties: dict[str, set[str]] = {}
    for row in rows:
        total += 1
        for name, value in row.items():
            if name == ID:
                continue
            types.setdefault(name, Counter())[json_type(value)] += 1
            if type(value) is dict:
                properties[name] = properties[name] & value.keys() if name in properties else set(value)
            values = seen.setdefault(name, set())
            if values is None:
                continue
            if type(value) not in _SCALARS:
                seen[name] = None
            else:
                values.add((json_type(value), value))  # True is 1 for a set, and not for people
                if len(values) > MAX_DISTINCT:
                    seen[name] = None
    return {name: _column(types[name], seen[name], properties.get(name), total) for name in sorted(types)}


def _column(types: Counter[str], seen: set[Any] | None, properties: set[str] | None, total: int) -> Column:
    present = types.total()
    kinds = dict(sorted(types.items()))
    if seen is None:
        names = None if properties is None else tuple(sorted(filter(is_name, properties))[:MAX_PROPERTIES])
        return Column(kinds, present, total - present, properties=names)
    values = None
    if len(seen) <= MAX_VALUES and all(len(v) <= MAX_VALUE_LENGTH for k, v in seen if k == "string"):
        values = tuple(v for _, v in sorted(seen))
    return Column(kinds, present, total - present, len(seen), values)
