import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.errors import InvalidInput
from llmartifacts.records.lineage import Edge, Lineage, Node, check_direction


def graph(*edges, root="stack:v1", direction="up", kinds=None, aliases=None):
    names = dict.fromkeys([root, *(n for e in edges for n in (e.child, e.parent))])
    nodes = {n: Node(n, (kinds or {}).get(n, "prompt"), n, aliases=(aliases or {}).get(n, ())) for n in names}
    return Lineage(root, direction, nodes, tuple(edges))


STACK = (
    Edge("stack:v1", "agent:v2", "contains", "prompt"),
    Edge("stack:v1", "kb:v5", "contains", "index"),
    Edge("kb:v5", "docs:v3", "derived_from"),
    Edge("agent:v2", "docs:v3", "derived_from"),
)


def test_the_tree_upwards_names_relations_roles_and_aliases():
    told = graph(*STACK, aliases={"stack:v1": ("prod",)}).to_text()
    assert told == (
        "stack:v1 (prompt) [prod]\n"
        "├─ contains prompt: agent:v2 (prompt)\n"
        "│  └─ derived_from: docs:v3 (prompt)\n"
        "└─ contains index: kb:v5 (prompt)\n"
        "   └─ derived_from: docs:v3 (prompt)"
    )


def test_the_tree_downwards_goes_the_other_way():
    told = graph(*STACK, root="docs:v3", direction="down").to_text()
    assert told.splitlines()[0].startswith("docs:v3")
    assert "source of: kb:v5" in told
    assert "index of: stack:v1" in told
    assert "prompt of: stack:v1" in told


def test_what_was_unfolded_above_is_not_unfolded_again():
    edges = [*STACK, Edge("docs:v3", "raw:v1", "derived_from")]
    told = graph(*edges).to_text()
    assert told.count("raw:v1") == 1
    assert told.count("docs:v3 (prompt) (above)") == 1


def test_a_circle_and_a_long_chain_end():
    assert (
        graph(Edge("a", "b", "derived_from"), Edge("b", "a", "derived_from"), root="a").to_text().count("a (prompt)")
        == 2
    )
    chain = [Edge(f"n{i}", f"n{i + 1}", "derived_from") for i in range(3000)]
    assert graph(*chain, root="n0").to_text().count("\n") == 3000


def test_steps_follow_the_direction():
    up, down = graph(*STACK), graph(*STACK, direction="down")
    assert [n for _, n in up.steps("stack:v1")] == ["agent:v2", "kb:v5"]
    assert [n for _, n in down.steps("docs:v3")] == ["kb:v5", "agent:v2"]


def test_json_keeps_everything():
    lineage = graph(*STACK)
    told = json.loads(json.dumps(lineage.to_dict()))
    assert {n["id"] for n in told["nodes"]} == set(lineage.nodes)
    assert [Edge(**e) for e in told["edges"]] == list(STACK)


def test_a_mermaid_chart_has_every_node_and_edge():
    chart = graph(*STACK).to_mermaid()
    assert chart.startswith("flowchart BT\n")
    assert chart.count("-->") == len(STACK)
    assert '"contains index"' in chart
    assert graph(*STACK, direction="down").to_mermaid().startswith("flowchart TB\n")


@given(st.text(st.characters(codec="utf-8"), max_size=20))
def test_no_text_becomes_markup(text):
    lineage = Lineage("a", "up", {"a": Node("a", text, text)}, ())
    page = lineage.to_html()
    assert page.count("<script") == 0
    chart = lineage.to_mermaid()
    inside = chart[chart.index('["') + 2 : chart.rindex('"]')]
    assert '"' not in inside
    assert "<" not in inside.replace("<br/>", "")


def test_a_page_stands_alone():
    page = graph(*STACK).to_html()
    assert page.startswith("<!doctype html>")
    assert "<script" not in page
    assert "http" not in page
    assert page.count("<tr>") == len(STACK) + 1


def test_a_direction_is_up_or_down():
    assert (check_direction("up"), check_direction("down")) == ("up", "down")
    with pytest.raises(InvalidInput) as caught:
        check_direction("sideways")
    assert caught.value.field == "direction"
