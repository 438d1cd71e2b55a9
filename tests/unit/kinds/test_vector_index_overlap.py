"""How alike two indexes answer, as their diff says it."""

import numpy as np
import pytest

from llmartifacts.kinds.vector_index.config import EmbeddingSpec
from llmartifacts.kinds.vector_index.kind import VectorIndexKind
from llmartifacts.kinds.vector_index.value import VectorIndex
from llmartifacts.testing.kinds import pack

KIND = VectorIndexKind()
SPEC = EmbeddingSpec("toy", 8, metric="l2")


def rows(count=60, seed=0, dimension=8):
    return np.random.default_rng(seed).standard_normal((count, dimension)).astype("f4")


def made(vectors=None, index="Flat", embedding=SPEC, names=None, **more):
    vectors = rows() if vectors is None else vectors
    texts = [{"id": n, "text": f"text {n}"} for n in names or [f"d{i}" for i in range(len(vectors))]]
    return VectorIndex.from_vectors(vectors, texts, embedding=embedding, index=index, **more)


def diff(before, after):
    (one, old), (two, new) = pack(KIND, before), pack(KIND, after)
    return KIND.diff(one, two, (old, new))


def by_hand(before, after):
    """Both indexes flat: the five nearest documents by distance, for the probes of both."""
    asked = {q.tobytes(): q for v in (before, after) for q in v.probes.query_vectors}
    shares = []
    for query in asked.values():
        near = []
        for value in (before, after):
            matrix = np.array([value.faiss.reconstruct(i) for i in range(value.count)])
            order = np.argsort(((matrix - query) ** 2).sum(axis=1))[:5]
            near.append({value.documents[i].id for i in order.tolist()})
        shares.append(len(near[0] & near[1]) / max(map(len, near)))
    return np.mean(shares), len(shares)


def test_it_is_the_share_of_the_five_nearest_that_both_give_to_the_probes_of_both():
    first = made()
    others = [
        first.updated(remove=["d1", "d2", "d30", "d31", "d32"]),
        first.updated(add=[{"id": f"n{i}", "text": "new"} for i in range(30)], vectors=rows(30, seed=4)),
        made(rows(seed=2)),
        made(names=[f"e{i}" for i in range(60)]),
        made(rows()[:3]),
    ]
    for other in others:
        found = diff(first, other).numbers
        mean, queries = by_hand(first, other)
        assert (found["overlap@5"], found["overlap_queries"]) == (pytest.approx(mean, abs=1e-6), queries)
    assert diff(first, others[3]).numbers["overlap@5"] == 0


def test_an_approximate_index_of_the_same_vectors_overlaps_as_far_as_it_is_right():
    exact, lists = made(), made(index="IVF8,Flat", nprobe=8)
    assert diff(exact, lists).numbers["overlap@5"] == 1
    assert diff(exact, made(index="IVF8,Flat", nprobe=1)).numbers["overlap@5"] < 1


def test_equal_indexes_are_not_asked():
    assert not diff(made(), made())
    assert "overlap@5" not in diff(made(), made(chunking={"size": 9})).numbers


@pytest.mark.parametrize(
    ("embedding", "dimension", "told"),
    [
        (EmbeddingSpec("toy", 8), 8, "metric l2 and inner_product"),
        (EmbeddingSpec("toy", 4, metric="l2"), 4, "dimension 8 and 4"),
        (EmbeddingSpec("other", 8, metric="l2"), 8, "model toy and other"),
        (EmbeddingSpec("a\nb\x1b", 8, metric="l2"), 8, r"model toy and a\nb\x1b"),
    ],
)
def test_where_the_spaces_differ_it_says_so_instead(embedding, dimension, told):
    found = diff(made(), made(rows(dimension=dimension, seed=1), embedding=embedding))
    assert found.text == f"overlap@5 was not measured: the spaces differ: {told}"
    assert "overlap@5" not in found.numbers


def test_a_retrained_quantizer_is_a_change_of_what_was_learnt_and_is_said():
    found = diff(made(index="IVF4,Flat"), made(index="IVF4,Flat", seed=7))
    assert "index.trained" in {c.path for c in found.changes}
    assert found.text == "the quantizer was trained anew"
    first = made(index="IVF4,Flat")
    found = diff(first, first.updated(remove="d3"))
    assert "index.trained" not in {c.path for c in found.changes}
    assert found.text == ""
