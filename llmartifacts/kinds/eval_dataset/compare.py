"""Item-level differences of two datasets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmartifacts.records.diff import Change, diff_json

if TYPE_CHECKING:
    from llmartifacts.kinds.eval_dataset.value import EvalDataset, Item


@dataclass(frozen=True, slots=True)
class ItemChange:
    """One item that both have, with other content.

    Attributes:
        before: The item in the first dataset.
        after: The item in the second.
        columns: Names of the columns that differ, sorted.
    """

    before: Item
    after: Item
    columns: tuple[str, ...]

    @property
    def id(self) -> str:
        """The item's id."""
        return self.after.id


@dataclass(frozen=True, slots=True)
class ItemDiff:
    """Differences of two datasets, items matched by id.

    Attributes:
        added: Items that only the second has, in its order.
        removed: Items that only the first has, in its order.
        changed: Items that both have, with other content, in the second's order.
        unchanged: Number of items that both have as they are.
        reordered: The items that both have stand in another order.
        fields: What changed in which column is which field.
    """

    added: tuple[Item, ...]
    removed: tuple[Item, ...]
    changed: tuple[ItemChange, ...]
    unchanged: int
    reordered: bool
    fields: tuple[Change, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed or self.reordered or self.fields)

    def __str__(self) -> str:
        told = f"{len(self.added)} added, {len(self.removed)} removed, {len(self.changed)} changed"
        return f"{told}, {self.unchanged} unchanged{', reordered' if self.reordered else ''}"

    def changes(self) -> Iterator[Change]:
        """Every difference by its path: `fields.input`, `items`, `items/ID`, `items/ID.column`."""
        yield from self.fields
        if self.reordered:
            yield Change("items", "one order", "another order", "changed")
        for item in self.removed:
            yield Change(f"items/{item.id}", dict(item.columns), None, "removed")
        for item in self.added:
            yield Change(f"items/{item.id}", None, dict(item.columns), "added")
        for change in self.changed:
            yield from diff_json(dict(change.before.columns), dict(change.after.columns), f"items/{change.id}")


def compare(before: EvalDataset, after: EvalDataset) -> ItemDiff:
    """Compare two datasets item by item; see `ItemDiff`."""
    changed = []
    unchanged = 0
    for i in after.ids:
        if i in before:
            if before.line(i) == after.line(i):
                unchanged += 1
            else:
                changed.append(_change(before[i], after[i]))
    return ItemDiff(
        added=tuple(after[i] for i in after.ids if i not in before),
        removed=tuple(before[i] for i in before.ids if i not in after),
        changed=tuple(changed),
        unchanged=unchanged,
        reordered=[i for i in before.ids if i in after] != [i for i in after.ids if i in before],
        fields=tuple(diff_json(before.fields, after.fields, "fields")),
    )


def _change(before: Item, after: Item) -> ItemChange:
    # diff_json, not `!=`: True is 1 for Python, and not for JSON.
    names = before.columns.keys() | after.columns.keys()
    differ = (
        n for n in sorted(names) if n not in before.columns or n not in after.columns or _differs(n, before, after)
    )
    return ItemChange(before, after, tuple(differ))


def _differs(name: str, before: Item, after: Item) -> bool:
    return any(True for _ in diff_json(before.columns[name], after.columns[name]))
