"""Which items belong together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.errors import InvalidValue
from llmartifacts.evals.clusters import clusters_of
from llmartifacts.kinds.eval_dataset.value import EvalDataset


def grouped(dataset: EvalDataset, key: str) -> set[frozenset[str]]:
    found = clusters_of(dataset, key)
    assert list(found) == list(dataset.ids)
    return {frozenset(i for i in found if found[i] == cluster) for cluster in found.values()}


def test_items_with_an_equal_value_are_one_cluster_and_items_without_one_are_their_own() -> None:
    dataset = EvalDataset(
        [
            {"id": "a", "input": "x", "document": "d1"},
            {"id": "b", "input": "x", "document": "d2"},
            {"id": "c", "input": "x", "document": "d1"},
            {"id": "d", "input": "x"},
            {"id": "e", "input": "x"},
        ]
    )
    assert grouped(dataset, "document") == {frozenset("ac"), frozenset("b"), frozenset("d"), frozenset("e")}


def test_a_key_of_the_metadata_serves_as_well() -> None:
    dataset = EvalDataset([{"id": i, "input": "x", "metadata": {"doc": n}} for i, n in (("a", 1), ("b", 1), ("c", 2))])
    assert grouped(dataset, "doc") == {frozenset("ab"), frozenset("c")}


def test_items_that_share_a_label_are_one_cluster_and_so_are_those_linked_through_others() -> None:
    labels = {"a": ["1", "2"], "b": ["2", "3"], "c": ["3"], "d": ["4"], "e": {"4": 1, "9": 2}, "f": []}
    dataset = EvalDataset([{"id": i, "input": "x", "ids": found} for i, found in labels.items()])
    assert grouped(dataset, "ids") == {frozenset("abc"), frozenset("de"), frozenset("f")}


def test_a_number_and_its_text_are_not_the_same() -> None:
    dataset = EvalDataset([{"id": "a", "input": "x", "doc": 1}, {"id": "b", "input": "x", "doc": "1"}])
    assert len(grouped(dataset, "doc")) == 2


def test_a_key_that_no_item_has_is_refused_with_a_near_one() -> None:
    with pytest.raises(InvalidValue) as caught:
        clusters_of(EvalDataset([{"id": "a", "input": "x", "document_id": "d"}]), "documentid")
    assert "document_id" in caught.value.hint()
    assert caught.value.field == "cluster"


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=3), min_size=1, max_size=12))
def test_clusters_are_the_connected_components(labels: list[list[str]]) -> None:
    dataset = EvalDataset([{"id": f"i{n}", "input": "x", "ids": found} for n, found in enumerate(labels)])
    # Slow and plain: grow each item's set until nothing joins it any more.
    expected = set()
    for n, _ in enumerate(labels):
        members, seen = {n}, set(labels[n])
        while more := {m for m, other in enumerate(labels) if m not in members and seen & set(other)}:
            members |= more
            seen |= {label for m in more for label in labels[m]}
        expected.add(frozenset(f"i{m}" for m in members))
    assert grouped(dataset, "ids") == expected
