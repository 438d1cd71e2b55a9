"""Differences between two versions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llmartifacts.records.manifest import Manifest
from llmartifacts.records.wording import printable


@dataclass(frozen=True, slots=True)
class Change:
    """One difference.

    Attributes:
        path: Where, such as `model.parameters.temperature` or `files/a.bin` or `items/q17`.
        before: Value before; None if it was added.
        after: Value after; None if it was removed.
        op: `added`, `removed` or `changed`.
    """

    path: str
    before: Any
    after: Any
    op: str

    def __str__(self) -> str:
        path = printable(self.path)
        if self.op == "added":
            return f"+ {path}: {_text(self.after)}"
        if self.op == "removed":
            return f"- {path}: {_text(self.before)}"
        return f"~ {path}: {_text(self.before)} -> {_text(self.after)}"


@dataclass(frozen=True, slots=True)
class Diff:
    """All differences between two versions of one kind.

    Attributes:
        kind: The kind.
        before: Reference of the first version.
        after: Reference of the second.
        changes: The differences; empty if the content is the same.
        text: Whatever reads better as text, such as a unified diff of a template; may be empty.
        numbers: Counts and measures, such as `added: 12`.
    """

    kind: str
    before: str
    after: str
    changes: tuple[Change, ...] = ()
    text: str = ""
    numbers: Mapping[str, float] | None = None

    def __bool__(self) -> bool:
        return bool(self.changes or self.text)

    def __str__(self) -> str:
        if not self:
            return "no difference"
        return "\n".join([str(c) for c in self.changes] + ([self.text] if self.text else []))


def diff_json(before: Any, after: Any, path: str = "") -> Iterator[Change]:
    """Differences of two JSON values, by path, in order."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted(before.keys() | after.keys()):
            where = f"{path}.{key}" if path else str(key)
            if key not in before:
                yield Change(where, None, after[key], "added")
            elif key not in after:
                yield Change(where, before[key], None, "removed")
            else:
                yield from diff_json(before[key], after[key], where)
    elif isinstance(before, list | tuple) and isinstance(after, list | tuple):
        for i in range(max(len(before), len(after))):
            where = f"{path}[{i}]"
            if i >= len(before):
                yield Change(where, None, after[i], "added")
            elif i >= len(after):
                yield Change(where, before[i], None, "removed")
            else:
                yield from diff_json(before[i], after[i], where)
    elif before != after or isinstance(before, bool) != isinstance(after, bool):
        yield Change(path, before, after, "changed")


def diff_files(before: Manifest, after: Manifest) -> Iterator[Change]:
    """Differences of two manifests' files, by digest."""
    a = {f.path: f for f in before.files}
    b = {f.path: f for f in after.files}
    for path in sorted(a.keys() | b.keys()):
        old, new = a.get(path), b.get(path)
        if old and new and old.digest != new.digest:
            yield Change(f"files/{path}", f"{old.size} bytes", f"{new.size} bytes", "changed")
        elif old and new and old.url != new.url:
            yield Change(f"files/{path}.url", old.url, new.url, "changed")
        elif old and not new:
            yield Change(f"files/{path}", f"{old.size} bytes", None, "removed")
        elif new and not old:
            yield Change(f"files/{path}", None, f"{new.size} bytes", "added")


def diff_components(before: Manifest, after: Manifest) -> Iterator[Change]:
    """Differences of two bundles' parts, by role."""
    a = {c.role: c.digest for c in before.components}
    b = {c.role: c.digest for c in after.components}
    yield from diff_json(a, b, "components")


def excluding(changes: Iterable[Change], *prefixes: str) -> Iterator[Change]:
    """The changes whose path does not begin with any of the prefixes."""
    return (c for c in changes if not c.path.startswith(prefixes))


def _text(value: Any) -> str:
    # Control characters of what was logged never reach a terminal.
    text = printable(value) if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
