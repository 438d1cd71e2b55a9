"""The index in LangChain's types, and what its embedder is held against."""

import asyncio
import warnings

import numpy as np
import pytest
from langchain_core.documents import Document as LangChainDocument
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import VectorStore
from langchain_core.vectorstores.utils import maximal_marginal_relevance

from llmartifacts.errors import Incompatible, InvalidValue, NotAllowed
from llmartifacts.kinds.vector_index.config import EmbeddingSpec
from llmartifacts.kinds.vector_index.value import EmbedderWarning, VectorIndex

EMBEDDER = DeterministicFakeEmbedding(size=12)
TEXTS = [f"passage {i}" for i in range(40)]
DOCUMENTS = [{"id": f"d{i}", "text": t, "lang": "en" if i % 2 else "de", "n": i} for i, t in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def value():
    return VectorIndex.build(DOCUMENTS, embeddings=EMBEDDER, model="fake", normalize=True)


@pytest.fixture(scope="module")
def store(value):
    return value.as_vectorstore(EMBEDDER)


def test_it_is_langchains_vector_store_and_retriever(value, store):
    assert isinstance(store, VectorStore)
    retriever = value.as_retriever(EMBEDDER, search_kwargs={"k": 3})
    assert isinstance(retriever, BaseRetriever)
    found = retriever.invoke("passage 7")
    assert len(found) == 3
    assert found[0] == LangChainDocument("passage 7", id="d7", metadata={"lang": "en", "n": 7})
    assert store.embeddings is EMBEDDER
    assert asyncio.run(retriever.ainvoke("passage 7")) == found


def test_every_search_agrees_with_the_values_own(value, store):
    vector = EMBEDDER.embed_query("passage 9")
    hits = value.search([vector], 5)
    ids = hits.ids[0].tolist()
    assert [d.id for d in store.similarity_search("passage 9", k=5)] == ids
    assert [d.id for d in store.similarity_search_by_vector(vector, k=5)] == ids
    scored = store.similarity_search_with_score("passage 9", k=5)
    assert [(d.id, s) for d, s in scored] == list(zip(ids, hits.scores[0].tolist(), strict=True))
    relevant = store.similarity_search_with_relevance_scores("passage 9", k=5)
    assert [d.id for d, _ in relevant] == ids
    assert relevant[0][1] == pytest.approx(1, abs=1e-5)


def test_more_than_there_are_gives_what_there_is(store):
    assert len(store.similarity_search("passage 1", k=100)) == 40


def test_a_filter_is_metadata_or_a_function_of_it(store):
    assert {d.metadata["lang"] for d in store.similarity_search("x", k=4, filter={"lang": "de"})} == {"de"}
    some = store.similarity_search("x", k=40, fetch_k=40, filter={"n": [1, 2, 3]})
    assert {d.id for d in some} == {"d1", "d2", "d3"}
    assert store.similarity_search("x", k=4, filter={"absent": 1}) == []
    assert all(d.metadata["n"] > 20 for d in store.similarity_search("x", k=4, filter=lambda m: m["n"] > 20))
    assert len(store.similarity_search("x", k=40, fetch_k=5, filter=lambda m: True)) == 40


def test_marginal_relevance_chooses_as_langchain_does(store):
    vector = EMBEDDER.embed_query("query")
    near = store.similarity_search_by_vector(vector, k=20)
    candidates = [EMBEDDER.embed_query(d.page_content) for d in near]
    for weight in (0.0, 0.3, 0.5, 1.0):
        expected = maximal_marginal_relevance(np.array(vector), candidates, lambda_mult=weight, k=6)
        found = store.max_marginal_relevance_search("query", k=6, lambda_mult=weight)
        assert [d.id for d in found] == [near[i].id for i in expected]
    assert store.max_marginal_relevance_search("query", filter={"absent": 1}) == []
    by_retriever = store.as_retriever(search_type="mmr", search_kwargs={"k": 6, "lambda_mult": 0.3})
    assert len(by_retriever.invoke("query")) == 6


def test_a_score_threshold_is_a_cosine(value, store):
    cosine = value.search([EMBEDDER.embed_query("passage 3")], 40).scores[0]
    for threshold in (0.2, 0.9):
        retriever = store.as_retriever(
            search_type="similarity_score_threshold", search_kwargs={"k": 40, "score_threshold": threshold}
        )
        assert len(retriever.invoke("passage 3")) == int((cosine >= threshold).sum())
    squared = VectorIndex.build(DOCUMENTS, embeddings=EMBEDDER, model="fake", normalize=True, metric="l2")
    found = squared.as_vectorstore(EMBEDDER).similarity_search_with_relevance_scores("passage 3", k=40)
    assert [s for _, s in found] == pytest.approx(np.clip(cosine, 0, 1).tolist(), abs=1e-5)


def test_a_score_threshold_needs_vectors_of_unit_length():
    plain = VectorIndex.build(DOCUMENTS, embeddings=EMBEDDER, model="fake", normalize=False)
    with pytest.raises(InvalidValue, match="unit length"):
        plain.as_vectorstore(EMBEDDER).similarity_search_with_relevance_scores("x")


def test_documents_are_had_by_id(store):
    assert [d.id for d in store.get_by_ids(["d5", "absent", "d1"])] == ["d5", "d1"]


def test_changing_a_found_document_changes_nothing_else(store):
    store.similarity_search("passage 1", k=1)[0].metadata["lang"] = "changed"
    assert store.similarity_search("passage 1", k=1)[0].metadata["lang"] == "en"


def test_an_unknown_option_is_refused(store):
    with pytest.raises(InvalidValue, match="unknown search option 'where'"):
        store.similarity_search("x", where={"a": 1})
    with pytest.raises(InvalidValue, match="nprobe does not apply"):
        store.similarity_search("x", nprobe=3)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.add_texts(["a"]),
        lambda s: s.add_documents([LangChainDocument("a")]),
        lambda s: s.delete(["d1"]),
        lambda s: type(s).from_texts(["a"], EMBEDDER),
        lambda s: type(s).from_documents([LangChainDocument("a")], EMBEDDER),
        lambda s: asyncio.run(s.aadd_texts(["a"])),
        lambda s: asyncio.run(s.aadd_documents([LangChainDocument("a")])),
        lambda s: asyncio.run(s.adelete(["d1"])),
    ],
)
def test_a_version_does_not_change(store, change):
    with pytest.raises(NotAllowed, match="does not change") as caught:
        change(store)
    assert "VectorIndex.build" in caught.value.hint()
    assert len(store.similarity_search("passage 1", k=50)) == 40


# --- embedders


class Changed(Embeddings):
    """The right embedder but for one of its methods."""

    def __init__(self, documents=None, query=None):
        self.documents, self.query = documents, query

    def embed_documents(self, texts):
        made = EMBEDDER.embed_documents(texts)
        return self.documents(made) if self.documents else made

    def embed_query(self, text):
        made = EMBEDDER.embed_query(text)
        return self.query(made) if self.query else made


def refused(value, embedder, rule):
    with pytest.raises(Incompatible) as caught:
        value.check_embeddings(embedder)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{rule}: ")
    assert "fake" in caught.value.hint()


def test_the_right_embedder_passes_whatever_the_length_of_its_vectors(value):
    assert value.check_embeddings(EMBEDDER) == []
    assert (
        value.check_embeddings(Changed(lambda m: [[3 * x for x in v] for v in m], lambda v: [3 * x for x in v])) == []
    )


def test_another_embedder_of_the_same_dimension_is_refused(value):
    refused(value, Changed(lambda m: [v[::-1] for v in m]), "embedder-probes")


def test_one_that_embeds_queries_otherwise_is_refused(value):
    refused(value, Changed(query=lambda v: v[1:] + v[:1]), "embedder-probes")


@pytest.mark.parametrize(
    "documents",
    [
        lambda m: m[:-1],
        lambda m: [[float("nan")] * 12 for _ in m],
        lambda m: [None for _ in m],
        lambda m: [v[: 1 + i] for i, v in enumerate(m)],
        lambda m: [[0.0] * 12 for _ in m],
    ],
)
def test_an_embedder_that_gives_no_vectors_is_refused(value, documents):
    refused(value, Changed(documents), "embedder-probes")


def test_an_embedder_of_another_dimension_is_refused_by_the_rule(value):
    refused(value, DeterministicFakeEmbedding(size=13), "index-dimension")
    bare = VectorIndex.from_vectors([[1.0, 2.0]], ["a"], embedding=EmbeddingSpec("fake", 2))
    refused(bare, EMBEDDER, "index-dimension")


def test_an_embedder_that_cannot_be_reached_is_a_warning_and_not_a_failure(value):
    def gone(_):
        raise ConnectionError("no route to host")

    (warning,) = value.check_embeddings(Changed(gone))
    assert "was not checked, it raised ConnectionError: no route to host" in warning
    with pytest.warns(EmbedderWarning, match="no route to host"):
        store = value.as_vectorstore(Changed(gone))
    assert store.similarity_search("passage 7", k=1)[0].id == "d7"


def test_an_index_without_text_probes_says_that_nothing_was_checked():
    bare = VectorIndex.from_vectors(np.eye(12, dtype="f4"), TEXTS[:12], embedding=EmbeddingSpec("fake", 12))
    with pytest.warns(EmbedderWarning, match="no text probes"):
        bare.as_retriever(EMBEDDER)


def test_probes_may_be_texts_of_the_users_own():
    own = {t: EMBEDDER.embed_query(t) for t in ("alpha", "beta")}
    vectors = np.array(EMBEDDER.embed_documents([f"title\n{t}" for t in TEXTS]))
    value = VectorIndex.from_vectors(vectors, TEXTS, embedding=EmbeddingSpec("fake", 12), probes=own)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value.as_retriever(EMBEDDER)
    refused(value, Changed(lambda m: [v[::-1] for v in m]), "embedder-probes")


def test_the_tolerance_of_the_probes_is_the_users_and_is_kept():
    def noisy(vectors):
        return [[x * (1 + (0.06 if i % 2 else -0.06)) for i, x in enumerate(v)] for v in vectors]

    strict = VectorIndex.build(DOCUMENTS, embeddings=EMBEDDER, model="fake", probe_tolerance=0.01)
    loose = VectorIndex.build(DOCUMENTS, embeddings=EMBEDDER, model="fake", probe_tolerance=0.2)
    refused(strict, Changed(noisy), "embedder-probes")
    assert loose.check_embeddings(Changed(noisy)) == []
    for tolerance in (0, 1, -1, True, "0.1", float("nan")):
        with pytest.raises(InvalidValue) as caught:
            VectorIndex.build(["a"], embeddings=EMBEDDER, model="fake", probe_tolerance=tolerance)
        assert caught.value.field == "probe_tolerance"
