"""Bodies of lineage graphs."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from llmartifacts.records import lineage
from llmartifacts.wire.bodies.base import Body, Many, Query
from llmartifacts.wire.bodies.fields import Ref

Way = Literal["up", "down"]


class Node(Body[lineage.Node]):
    """One version or run of a lineage graph."""

    RECORD: ClassVar[type[Any]] = lineage.Node

    id: str
    kind: str
    label: str
    digest: str = ""
    aliases: Many[str] = ()


class Edge(Body[lineage.Edge]):
    """`child` depends on `parent`."""

    RECORD: ClassVar[type[Any]] = lineage.Edge

    child: str
    parent: str
    relation: Literal["derived_from", "contains", "evaluated_with", "produced_by"]
    role: str = ""


class Lineage(Body[lineage.Lineage]):
    """The whole closure from one version."""

    RECORD: ClassVar[type[Any]] = lineage.Lineage

    root: str
    direction: Way
    nodes: dict[str, Node]
    edges: Many[Edge] = ()


class LineageQuery(Query):
    """Where from, and whether to what it came from (`up`) or to what came of it (`down`)."""

    reference: Ref
    direction: Way = "up"
