"""Lineage edges and their closure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llmartifacts.metadata.database import Row, Session
from llmartifacts.records.digest import digest_from_bytes
from llmartifacts.records.lineage import Direction, Edge, Lineage, Node
from llmartifacts.records.names import LATEST
from llmartifacts.records.times import from_micros
from llmartifacts.records.version import Version


def add_edge(s: Session, child: int, parent: int, relation: str, role: str = "") -> None:
    """Add an edge; one that is there already stays."""
    s.run(
        "insert into edge(child, parent, relation, role) values (:c, :p, :r, :role) on conflict do nothing",
        {"c": child, "p": parent, "r": relation, "role": role},
    )


def parts(s: Session, version_id: int) -> dict[str, tuple[str, int, bool]]:
    """Role -> collection name, version number and whether it was withdrawn, of a bundle's parts."""
    rows = s.rows(
        "select e.role, c.name, v.number, v.yanked_at from edge e join version v on v.id = e.parent"
        " join collection c on c.id = v.collection_id where e.child = :v and e.relation = 'contains' order by e.role",
        {"v": version_id},
    )
    return {r[0]: (r[1], r[2], r[3] is not None) for r in rows}


def closure(s: Session, version_id: int, direction: Direction, visible: Callable[[str], bool] | None = None) -> Lineage:
    """Everything that a version came from, or that came of it.

    Where somebody may not see every project, what lies in another, and what is reached through it only, is left out,
    and nothing tells that it is there.
    """
    here, there = ("child", "parent") if direction == "up" else ("parent", "child")
    reach = (
        f"with recursive reach(id) as (select cast(:v as bigint) union select e.{there} from edge e"
        f" join reach r on e.{here} = r.id)"
    )
    rows = s.rows(
        f"{reach} select v.id, p.name, c.name, c.kind, v.number, v.digest, v.run_id, c.latest, v.collection_id"
        " from reach r join version v on v.id = r.id join collection c on c.id = v.collection_id"
        " join project p on p.id = c.project_id order by p.name, c.name, v.number",
        {"v": version_id},
    )
    links = s.rows(
        f"{reach} select e.child, e.parent, e.relation, e.role from edge e"
        f" join reach r on e.{here} = r.id order by e.child, e.relation, e.role, e.parent",
        {"v": version_id},
    )
    if visible is not None:
        seen = {project: visible(project) for project in {row[1] for row in rows}}
        near = _reached(version_id, direction, links, {row[0] for row in rows if seen[row[1]]})
        rows = [row for row in rows if row[0] in near]
        links = [link for link in links if link[0] in near and link[1] in near]
    aliases: dict[int, list[str]] = {}
    for vid, name in s.rows(
        f"{reach} select v.id, a.name from reach r join version v on v.id = r.id"
        " join alias a on a.collection_id = v.collection_id and a.number = v.number order by a.name",
        {"v": version_id},
    ):
        aliases.setdefault(vid, []).append(name)
    labels: dict[int, str] = {}
    nodes: dict[str, Node] = {}
    runs: dict[str, list[str]] = {}
    for vid, project, name, kind, number, digest, run, latest, _ in rows:
        label = str(Version(project, name, kind, number, digest_from_bytes(digest), from_micros(0)).reference)
        named = aliases.get(vid, []) + ([LATEST] if latest == number else [])
        labels[vid] = label
        nodes[label] = Node(label, kind, label, digest_from_bytes(digest), tuple(named))
        if run:
            runs.setdefault(run, []).append(label)
    edges = [Edge(labels[child], labels[parent], relation, role) for child, parent, relation, role in links]
    if direction == "up":
        for run, children in runs.items():
            row = s.row("select name, status from run where id = :r", {"r": run})
            if row:
                nodes[f"run:{run}"] = Node(f"run:{run}", "run", f"{row[0]} {run} ({row[1]})")
                edges += [Edge(child, f"run:{run}", "produced_by") for child in children]
    edges.sort(key=lambda e: (e.child, e.relation, e.role, e.parent))
    return Lineage(labels[version_id], direction, nodes, tuple(edges))


def _reached(start: int, direction: Direction, links: Sequence[Row], allowed: set[int]) -> set[int]:
    """The versions that a walk from one reaches without stepping on any that is not allowed."""
    onward: dict[int, list[int]] = {}
    for child, parent, *_ in links:
        here, there = (child, parent) if direction == "up" else (parent, child)
        onward.setdefault(here, []).append(there)
    found, left = {start}, [start]
    while left:
        for one in onward.get(left.pop(), ()):
            if one in allowed and one not in found:
                found.add(one)
                left.append(one)
    return found
