"""Searching: what goes in, what comes out, from many threads, while generations change and files go."""

import gc
import itertools
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmartifacts.errors import Damaged, InvalidValue, TooLarge
from llmartifacts.kinds.vector_index.config import EmbeddingSpec
from llmartifacts.kinds.vector_index.kind import VectorIndexKind
from llmartifacts.kinds.vector_index.value import VectorIndex
from llmartifacts.testing.kinds import pack

KIND = VectorIndexKind()


def rows(count, dimension=16, seed=0):
    return np.random.default_rng(seed).standard_normal((count, dimension)).astype("f4")


def index(vectors=None, metric="l2", normalized=False, **options):
    vectors = rows(200) if vectors is None else vectors
    spec = EmbeddingSpec("toy", vectors.shape[1], metric, normalized)
    documents = [{"id": f"d{i}", "text": f"text {i}"} for i in range(len(vectors))]
    return VectorIndex.from_vectors(vectors, documents, embedding=spec, **options)


@pytest.fixture(scope="module")
def flat():
    return index()


# --- what comes out


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 30),
    queries=st.integers(1, 4),
    k=st.integers(1, 40),
    metric=st.sampled_from(["l2", "inner_product"]),
    seed=st.integers(0, 1000),
)
def test_a_flat_search_is_what_a_sort_of_all_scores_gives(count, queries, k, metric, seed):
    vectors, asked = rows(count, 5, seed), rows(queries, 5, seed + 1)
    hits = index(vectors, metric).search(asked, k)
    assert hits.ids.shape == hits.scores.shape == (queries, k)
    assert hits.ids.dtype == object
    assert hits.scores.dtype == np.float32
    wide, query = vectors.astype("f8"), asked.astype("f8")
    exact = query @ wide.T if metric == "inner_product" else ((query[:, None] - wide[None]) ** 2).sum(axis=2)
    for i in range(queries):
        order = np.argsort(-exact[i] if metric == "inner_product" else exact[i], kind="stable")[:k]
        assert hits.ids[i, : len(order)].tolist() == [f"d{r}" for r in order]
        assert hits.scores[i, : len(order)] == pytest.approx(exact[i, order], rel=1e-4, abs=1e-4)
        assert hits.ids[i, len(order) :].tolist() == [None] * (k - len(order))
        assert hits.documents[i][len(order) :] == (None,) * (k - len(order))
        assert [d.id for d in hits.documents[i][: len(order)]] == hits.ids[i, : len(order)].tolist()


@pytest.mark.parametrize(("metric", "worst"), [("l2", 1), ("inner_product", -1)])
@pytest.mark.parametrize("factory", ["Flat", "IVF50,Flat", "HNSW8"])
def test_a_missing_neighbour_has_no_id_and_the_worst_score(metric, worst, factory):
    hits = index(metric=metric, index=factory).search(rows(3, seed=9), 300)
    missing = hits.ids == None  # noqa: E711 - an object array is compared by its elements
    assert missing.any()
    assert (hits.scores[missing] == worst * np.finfo(np.float32).max).all()
    assert np.isfinite(hits.scores).all()


def test_one_vector_is_one_query(flat):
    assert flat.search(rows(1)[0], 2).ids.tolist() == flat.search(rows(1), 2).ids.tolist()
    assert flat.search(rows(1)[0].tolist(), 2).ids[0][0] == "d0"


# --- what is refused


@pytest.mark.parametrize(
    ("vectors", "field"),
    [
        (np.zeros((2, 15), "f4"), "vectors[0]"),
        (np.zeros((0, 16), "f4"), "vectors"),
        (np.zeros((1, 1, 16), "f4"), "vectors"),
        (np.full((3, 16), np.nan, "f4"), "vectors[0]"),
        ([[1.0] * 16, [float("inf")] * 16], "vectors[1]"),
        ([[1.0] * 16, [1.0]], "vectors"),
        ("query text", "vectors"),
        (None, "vectors"),
    ],
)
def test_bad_queries_are_refused_by_row(flat, vectors, field):
    with pytest.raises(InvalidValue) as caught:
        flat.search(vectors, 3)
    assert caught.value.field == field


@pytest.mark.parametrize("k", [0, -1, 1.0, "3", None, True])
def test_k_is_a_whole_number_from_one_on(flat, k):
    with pytest.raises(InvalidValue) as caught:
        flat.search(rows(1), k)
    assert caught.value.field == "k"


def test_an_answer_that_would_fill_the_memory_is_refused(flat):
    with pytest.raises(TooLarge):
        flat.search(rows(1), 10**9)


def test_parameters_are_for_one_call_and_refused_where_they_do_not_apply(flat):
    lists, asked = index(index="PCA8,IVF40,Flat"), rows(20, seed=3)
    one, all_ = lists.search(asked, 5).ids.tolist(), lists.search(asked, 5, nprobe=40).ids.tolist()
    assert one != all_
    assert lists.search(asked, 5).ids.tolist() == one
    graph = index(rows(3000), index="IDMap,HNSW4", ef_search=1)
    assert graph.search(asked, 1).ids.tolist() != graph.search(asked, 1, ef_search=500).ids.tolist()
    refined = index(index="IVF40,SQ8,RFlat")
    assert refined.search(asked, 5, nprobe=40).ids.tolist() != refined.search(asked, 5).ids.tolist()
    for value, options in (
        (flat, {"nprobe": 2}),
        (flat, {"ef_search": 2}),
        (lists, {"ef_search": 2}),
        (graph, {"nprobe": 2}),
        (lists, {"nprobe": 0}),
        (lists, {"nprobe": True}),
    ):
        with pytest.raises(InvalidValue):
            value.search(asked, 5, **options)


# --- unit length


def test_a_query_of_another_length_is_scaled_where_the_embedding_is_normalized_and_others_are_untouched():
    vectors = rows(50)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    value = index(vectors, "inner_product", normalized=True)
    exact = value.search(vectors[:5], 3)
    scaled = value.search(vectors[:5] * 7, 3)
    assert scaled.ids.tolist() == exact.ids.tolist()
    assert scaled.scores == pytest.approx(exact.scores, abs=1e-6)
    plain = index(vectors, "inner_product")
    assert plain.search(vectors[:5], 3).scores.tobytes() == exact.scores.tobytes()
    assert plain.search(vectors[:5] * 7, 3).scores == pytest.approx(exact.scores * 7, rel=1e-5)
    with pytest.raises(InvalidValue, match="no direction") as caught:
        value.search(np.stack([vectors[0], vectors[0] * 0]), 3)
    assert caught.value.field == "vectors[1]"


# --- an index that lies


def test_an_id_that_no_document_has_is_damage_and_not_a_crash():
    value = index(index="IVF4,Flat")
    manifest, files = pack(KIND, value)
    body = bytearray(files.read("index.faiss"))
    lists = value.mapped.layout.lists[0]
    at = lists.offset
    for size in lists.sizes:
        at += size * lists.code_bytes
        body[at : at + 8 * size] = np.arange(10**6, 10**6 + size, dtype="<i8").tobytes()
        at += 8 * size
    with pytest.raises(Damaged, match="to which no document belongs"):
        KIND.unpack(manifest.config, files.replaced("index.faiss", bytes(body)))


# --- threads, generations, files


@pytest.mark.parametrize("factory", ["Flat", "IVF8,Flat", "HNSW16"])
def test_searches_from_many_threads_give_the_serial_answers(factory):
    value = index(rows(2000), index=factory)
    asked = [rows(1, seed=s) for s in range(40)]
    options = [{"nprobe": 1 + s % 8} if "IVF" in factory else {} for s in range(40)]
    serial = [value.search(q, 5, **o).ids.tolist() for q, o in zip(asked, options, strict=True)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            found = list(pool.map(lambda i: value.search(asked[i], 5, **options[i]).ids.tolist(), range(40)))
            assert found == serial


@pytest.mark.parametrize("factory", ["Flat", "IVF8,Flat", "HNSW16"])
def test_a_search_stays_right_while_generations_are_swapped_under_it(factory, tmp_path):
    """One local reference per search, one assignment per swap; nobody closes a map."""
    packed = []
    for seed in (0, 1):
        value = index(rows(500, seed=seed), index=factory)
        manifest, files = pack(KIND, value)
        answers = value.search(rows(20, seed=7), 3)
        packed.append((manifest.config, files, answers.ids.tolist()))
    assert packed[0][2] != packed[1][2]
    current = [(KIND.unpack(*packed[0][:2]), packed[0][2])]
    stop, wrong, searches = threading.Event(), [], itertools.count()

    def serve():
        while not stop.is_set():
            value, expected = current[0]
            if value.search(rows(20, seed=7), 3).ids.tolist() != expected:
                wrong.append(expected)
            next(searches)

    threads = [threading.Thread(target=serve) for _ in range(3)]
    for thread in threads:
        thread.start()
    for swap in range(30):
        config, files, expected = packed[swap % 2]
        current[0] = (KIND.unpack(config, files), expected)
        if swap % 10 == 0:  # a collection looks at all that the test run holds
            gc.collect()
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert next(searches) > 3


def test_unlinking_and_renaming_over_a_mapped_file_is_harmless(tmp_path):
    value = index(rows(500), index="IVF8,Flat")
    manifest, files = pack(KIND, value)
    for name in files.paths():
        (tmp_path / name).write_bytes(files.read(name))

    class Folder(type(files)):
        def as_path(self, path):
            return tmp_path / path

    view = Folder()
    view.content, view.descriptors = files.content, files.descriptors
    loaded = KIND.unpack(manifest.config, view)
    before = loaded.search(rows(9, seed=4), 4)
    (tmp_path / "index.faiss").unlink()
    (tmp_path / "index.faiss").write_bytes(b"junk")
    (tmp_path / "other").write_bytes(b"more junk")
    os.replace(tmp_path / "other", tmp_path / "documents.jsonl")
    after = loaded.search(rows(9, seed=4), 4)
    assert before.ids.tolist() == after.ids.tolist()
    assert before.documents == after.documents


def test_a_map_goes_with_the_last_reference_to_its_index():
    def maps():
        with open("/proc/self/maps") as table:
            return sum("index.faiss" in line for line in table)

    if not os.path.exists("/proc/self/maps"):
        pytest.skip("NO /proc/self/maps HERE: maps cannot be counted")
    gc.collect()
    before = maps()
    value = index(rows(300), index="IVF4,Flat")
    inner = value.faiss.quantizer
    assert maps() == before + 1
    del value
    gc.collect()
    assert maps() == before + 1, "the inner index keeps the outer one and its map"
    assert inner.ntotal == 4
    del inner
    gc.collect()
    assert maps() == before
