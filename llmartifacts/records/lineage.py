"""Lineage: what a version was made from, and what was made from it."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from llmartifacts.errors import InvalidInput
from llmartifacts.records.arguments import shown

Relation = Literal["derived_from", "contains", "evaluated_with", "produced_by"]
Direction = Literal["up", "down"]
_FROM_PARENT: dict[Relation, str] = {
    "derived_from": "source of",
    "contains": "part of",
    "evaluated_with": "used to evaluate",
    "produced_by": "produced",
}


@dataclass(frozen=True, slots=True)
class Node:
    """One version or run of a lineage graph.

    Attributes:
        id: `[project/]name:vN` of a version, or `run:ID`.
        kind: The version's kind, or `run`.
        label: What people read.
        digest: The version's digest; empty for a run.
        aliases: Aliases that point at it now.
    """

    id: str
    kind: str
    label: str
    digest: str = ""
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Edge:
    """`child` depends on `parent`.

    Attributes:
        child: Node id of what came later.
        parent: Node id of what it came from.
        relation: How.
        role: Role in the bundle, for `contains`.
    """

    child: str
    parent: str
    relation: Relation
    role: str = ""

    def told(self, direction: Direction) -> str:
        """The relation as it reads from the child (`up`) or from the parent (`down`).

        Example:
            >>> edge = Edge("stack:v1", "kb:v5", "contains", "index")
            >>> edge.told("up"), edge.told("down")
            ('contains index', 'index of')
        """
        if direction == "up":
            return f"{self.relation} {self.role}".rstrip()
        return f"{self.role} of" if self.role else _FROM_PARENT[self.relation]


@dataclass(frozen=True)
class Lineage:
    """The whole closure from one version, upwards (what it came from) or downwards (what came of it).

    Attributes:
        root: Node id of the version that was asked for.
        direction: `up` or `down`.
        nodes: Node id -> node; the root is among them.
        edges: Every edge between them, in a stable order.
    """

    root: str
    direction: Direction
    nodes: Mapping[str, Node]
    edges: tuple[Edge, ...] = field(default=())

    def steps(self, node: str) -> list[tuple[Edge, str]]:
        """Edges that leave a node in the direction asked for, each with the node it leads to."""
        if self.direction == "up":
            return [(e, e.parent) for e in self.edges if e.child == node]
        return [(e, e.child) for e in self.edges if e.parent == node]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "root": self.root,
            "direction": self.direction,
            "nodes": [
                {"id": n.id, "kind": n.kind, "label": n.label, "digest": n.digest, "aliases": list(n.aliases)}
                for n in self.nodes.values()
            ],
            "edges": [
                {"child": e.child, "parent": e.parent, "relation": e.relation, "role": e.role} for e in self.edges
            ],
        }

    def to_text(self) -> str:
        """A tree; a node met again is named with `(above)` instead of being unfolded twice."""
        lines: list[str] = []
        seen: set[str] = set()
        leaving: dict[str, list[tuple[Edge, str]]] = {}
        for e in self.edges:
            here, there = (e.child, e.parent) if self.direction == "up" else (e.parent, e.child)
            leaving.setdefault(here, []).append((e, there))
        # A stack instead of recursion: a chain of a thousand daily versions is ordinary.
        stack: list[tuple[str, str, str, str]] = [(self.root, "", "", "")]
        while stack:
            node_id, how, lead, follow = stack.pop()
            node = self.nodes[node_id]
            marks = f" [{', '.join(node.aliases)}]" if node.aliases else ""
            again = node_id in seen and bool(leaving.get(node_id))
            lines.append(f"{lead}{how}{node.label} ({node.kind}){marks}{' (above)' if again else ''}")
            if node_id in seen:
                continue
            seen.add(node_id)
            below = leaving.get(node_id, [])
            for i in range(len(below) - 1, -1, -1):
                edge, there = below[i]
                last = i == len(below) - 1
                how = f"{edge.told(self.direction)}: "
                stack.append((there, how, follow + ("└─ " if last else "├─ "), follow + ("   " if last else "│  ")))
        return "\n".join(lines)

    def to_mermaid(self) -> str:
        """A Mermaid flowchart. Source of the format: mermaid.js.org, flowchart syntax."""
        ids = {name: f"n{i}" for i, name in enumerate(self.nodes)}
        lines = ["flowchart BT" if self.direction == "up" else "flowchart TB"]
        lines += [f'  {ids[n.id]}["{html.escape(n.label)}<br/>{html.escape(n.kind)}"]' for n in self.nodes.values()]
        lines += [f'  {ids[e.child]} -- "{e.told("up")}" --> {ids[e.parent]}' for e in self.edges]
        return "\n".join(lines)

    def to_html(self) -> str:
        """One self-contained page: the tree as text and the edges as a table, no script."""
        rows = "".join(
            f"<tr><td>{html.escape(e.child)}</td><td>{html.escape(e.told('up'))}</td>"
            f"<td>{html.escape(e.parent)}</td></tr>"
            for e in self.edges
        )
        title = html.escape(f"Lineage of {self.root} ({self.direction})")
        return (
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
            "<style>body{font:15px system-ui;margin:2em}pre{line-height:1.4}td,th{padding:.2em .8em}</style>"
            f"<h1>{title}</h1><pre>{html.escape(self.to_text())}</pre>"
            f"<table><tr><th>version</th><th>relation</th><th>of</th></tr>{rows}</table></html>\n"
        )


def check_direction(direction: str) -> Direction:
    """Check `up` or `down`.

    Raises:
        InvalidInput: It is neither.
    """
    if direction == "up":
        return "up"
    if direction == "down":
        return "down"
    raise InvalidInput(f"{shown(direction)} is no direction", field="direction", next_step="Use 'up' or 'down'.")
