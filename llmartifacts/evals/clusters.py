"""Which items belong together: questions of one document are no independent evidence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from llmartifacts.errors import InvalidValue
from llmartifacts.kinds.eval_dataset.value import EvalDataset, Item
from llmartifacts.records.canonical import canonical_bytes
from llmartifacts.records.names import did_you_mean


def clusters_of(dataset: EvalDataset, key: str) -> dict[str, str]:
    """Item id -> its cluster.

    Args:
        dataset: The items.
        key: A column, or a key of the metadata. Items with an equal value are one cluster. Where the value is a list
            (the documents that answer a question, say), or an object (document -> grade), items that share one entry
            are one cluster, and so are items that are linked through others. An item without a value is its own.

    Raises:
        InvalidValue: No item has such a column or key.

    Example:
        >>> rows = {"a": ["x", "y"], "b": ["y", "z"], "c": ["w"]}
        >>> dataset = EvalDataset([{"id": i, "input": i, "expected_ids": ids} for i, ids in rows.items()])
        >>> found = clusters_of(dataset, "expected_ids")
        >>> found["a"] == found["b"] != found["c"]
        True
    """
    joined = _Joined()
    seen: set[str] = set()
    for item in dataset:
        seen.update(item.columns, item.metadata)
        joined.join(f"item {item.id}", [f"value {v}" for v in _values(_value(item, key))])
    if key not in seen:
        raise InvalidValue(
            f"no item has {key!r:.80} to be clustered by",
            field="cluster",
            next_step=did_you_mean(key, seen, "Name a column, or a key of the metadata."),
        )
    return {item_id: joined.root(f"item {item_id}") for item_id in dataset.ids}


def _value(item: Item, key: str) -> Any:
    return item.columns[key] if key in item.columns else item.metadata.get(key)


def _values(value: Any) -> Iterable[str]:
    if value is None:
        return []
    many = value if isinstance(value, list | tuple | Mapping) else [value]
    return [canonical_bytes(one).decode() for one in many]


class _Joined:
    """Disjoint sets, joined as items turn out to share something; each is named by its first member."""

    def __init__(self) -> None:
        self._above: dict[str, str] = {}

    def root(self, name: str) -> str:
        path = []
        while (above := self._above.setdefault(name, name)) != name:
            path.append(name)
            name = above
        for passed in path:
            self._above[passed] = name
        return name

    def join(self, first: str, others: Iterable[str]) -> None:
        for other in others:
            a, b = self.root(first), self.root(other)
            if a != b:
                # Whichever item came first names the cluster, so that the name does not depend on what is shared.
                keep, go = (a, b) if a.startswith("item ") and not b.startswith("item ") else (b, a)
                self._above[go] = keep
