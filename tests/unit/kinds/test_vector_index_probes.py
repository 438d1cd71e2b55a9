"""Probes: the same on every machine, ties allowed, and wrong answers seen."""

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.errors import InvalidValue
from llmartifacts.kinds.vector_index.config import EmbeddingSpec
from llmartifacts.kinds.vector_index.kind import VectorIndexKind
from llmartifacts.kinds.vector_index.probes import (
    WINDOW_ROWS,
    Probes,
    QueryProbe,
    check_queries,
    furthest,
    made_up_queries,
    same_neighbours,
    spread,
)
from llmartifacts.kinds.vector_index.value import VectorIndex
from llmartifacts.testing.kinds import pack

KIND = VectorIndexKind()


def rows(count, dimension=8, seed=0):
    return np.random.default_rng(seed).standard_normal((count, dimension)).astype("f4")


def index(vectors, metric="l2", **options):
    spec = EmbeddingSpec("toy", vectors.shape[1], metric)
    return VectorIndex.from_vectors(vectors, [str(i) for i in range(len(vectors))], embedding=spec, **options)


@given(st.integers(0, 50), st.integers(1, 200))
def test_a_spread_is_of_different_numbers_in_order(count, total):
    found = spread(count, total)
    assert len(found) == min(count, total)
    assert found == sorted(set(found))
    assert all(0 <= i < total for i in found)


def test_probes_come_back_from_their_files():
    value = index(rows(100), probes="documents")
    files = value.probes.to_files()
    again = Probes.from_files(files["probes.json"], files["probes.f32"], 8)
    assert again.file == value.probes.file
    assert np.array_equal(again.text_vectors, value.probes.text_vectors)
    assert np.array_equal(again.query_vectors, value.probes.query_vectors)
    check_queries(value.nearest_rows, again)


@pytest.mark.parametrize(
    ("body", "vectors"),
    [
        (b"{", b""),
        (b"[]", b""),
        (b'{"tolerance":0.1,"texts":[{"text":"a"}]}', b""),
        (b'{"tolerance":0.1,"texts":[{"text":"a"}]}', bytes(31)),
        (b'{"tolerance":0.1,"texts":[{"text":"a"}]}', np.full(8, np.nan, "<f4").tobytes()),
        (b'{"tolerance":2}', b""),
        (b'{"tolerance":0.1,"texts":[{"text":"a","side":"both"}]}', bytes(32)),
        (b'{"tolerance":0.1,"queries":[{"rows":[-1],"scores":[1]}]}', bytes(32)),
        (b'{"tolerance":0.1,"queries":[{"rows":[1.5],"scores":[1]}]}', bytes(32)),
    ],
)
def test_malformed_probes_are_refused_in_a_typed_way(body, vectors):
    from llmartifacts.errors import InvalidInput

    with pytest.raises(InvalidInput):
        Probes.from_files(body, vectors, 8)


@pytest.mark.parametrize("metric", ["l2", "inner_product"])
@pytest.mark.parametrize("factory", ["Flat", "IVF4,Flat", "HNSW8", "SQ8", "IVF4,SQ8", "PCA4,Flat"])
def test_the_expected_answers_do_not_depend_on_the_number_of_threads(factory, metric):
    before = faiss.omp_get_max_threads()
    found = []
    try:
        for threads in (1, 2, 1):
            faiss.omp_set_num_threads(threads)
            found.append(index(rows(900, 96), metric, index=factory).probes.to_files())
    finally:
        faiss.omp_set_num_threads(before)
    assert found[0] == found[1] == found[2]


def test_expected_scores_are_rounded_exact_ones():
    vectors = rows(200, 24)
    value = index(vectors, "inner_product")
    for probe, query in zip(value.probes.file.queries, value.probes.query_vectors, strict=True):
        exact = vectors[list(probe.rows)].astype("f8") @ query.astype("f8")
        assert probe.scores == tuple(float(f"{s:.4g}") for s in exact)


def test_a_large_flat_index_is_probed_in_windows_that_hold_the_probes_own_vector():
    value = index(rows(3 * WINDOW_ROWS, 4))
    asked = value.probes.file.queries
    assert len(asked) == 8
    for probe in asked:
        low, high = probe.window
        assert 0 <= low < high <= value.count
        assert high - low == WINDOW_ROWS
        assert all(low <= row < high for row in probe.rows)
        assert probe.scores[0] == 0
    manifest, files = pack(KIND, value)
    KIND.unpack(manifest.config, files)


def test_an_index_of_codes_only_is_probed_with_made_up_queries_the_same_everywhere():
    codes = faiss.index_factory(8, "IVF4,SQ8")
    codes.train(rows(200))
    codes.add(rows(200))
    value = VectorIndex.from_faiss(codes, [str(i) for i in range(200)], embedding=EmbeddingSpec("toy", 8, "l2"))
    assert np.array_equal(value.probes.query_vectors, made_up_queries(8, 8))
    assert made_up_queries(1, 3).tolist() == made_up_queries(4, 3)[:1].tolist()
    assert np.abs(made_up_queries(50, 50)).max() <= 1


# --- what is the same, and what is not


PROBE = QueryProbe(rows=(4, 7, 2, 9), scores=(0.0, 1.0, 1.0, 2.0))


@pytest.mark.parametrize(
    ("found", "scores", "same"),
    [
        ((4, 7, 2, 9), (0.0, 1.0, 1.0, 2.0), True),
        ((4, 2, 7, 9), (0.0, 1.0, 1.0, 2.0), True),  # a tie in another order
        ((4, 7, 2, 8), (0.0, 1.0, 1.0, 2.0), True),  # another one as near as the last
        ((4, 7, 2, 9), (1e-4, 1.0001, 0.9999, 2.0001), True),  # rounding
        ((7, 4, 2, 9), (0.0, 1.0, 1.0, 2.0), False),
        ((4, 7, 9, 2), (0.0, 1.0, 1.0, 2.0), False),
        ((4, 7, 8, 9), (0.0, 1.0, 1.0, 2.0), False),
        ((4, 7, 2, 9), (0.0, 1.0, 1.1, 2.0), False),
        ((4, 7, 2), (0.0, 1.0, 1.0), False),
        ((4, 7, 7, 9), (0.0, 1.0, 1.0, 2.0), False),
        ((), (), False),
    ],
)
def test_neighbours_are_compared_with_ties_allowed_and_scores_to_a_tolerance(found, scores, same):
    assert same_neighbours(PROBE, found, scores, size=1.0) is same


@pytest.mark.parametrize("metric", ["l2", "inner_product"])
def test_duplicate_vectors_are_ties_and_pass(metric):
    value = index(np.repeat(rows(5), 20, axis=0), metric)
    manifest, files = pack(KIND, value)
    KIND.unpack(manifest.config, files)
    zeros = index(np.zeros((30, 8), "f4"), metric)
    manifest, files = pack(KIND, zeros)
    KIND.unpack(manifest.config, files)


@pytest.mark.parametrize("factory", ["Flat", "IVF4,Flat", "HNSW8", "SQ8", "IDMap,Flat"])
def test_vectors_that_changed_in_the_file_are_seen(factory):
    value = index(rows(300), index=factory)
    other = index(rows(300, seed=1), index=factory)
    with pytest.raises(InvalidValue, match="other neighbours"):
        check_queries(other.nearest_rows, value.probes)


def test_how_far_an_embedder_is_off_is_relative_to_the_length_of_vectors():
    expected = np.array([[1, 0], [0, 200]], "f4")
    assert furthest(expected, expected) == (0, 0.0)
    assert furthest(expected, np.array([[1, 0], [0, 198]], "f4")) == (1, pytest.approx(0.01))
    assert furthest(expected, np.array([[-1, 0], [0, 200]], "f4")) == (0, pytest.approx(2.0))
    assert furthest(np.zeros((1, 2), "f4"), np.zeros((1, 2), "f4")) == (0, 0.0)
