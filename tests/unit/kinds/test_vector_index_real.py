"""Five releases of Flask's documentation with their real vectors, and an index that LangChain wrote."""

import itertools
import json

import faiss
import numpy as np
import pytest

from llmartifacts.errors import Incompatible, UnsafeContent
from llmartifacts.kinds.vector_index.config import EmbeddingSpec
from llmartifacts.kinds.vector_index.kind import VectorIndexKind
from llmartifacts.kinds.vector_index.value import VectorIndex
from llmartifacts.testing.kinds import pack

KIND = VectorIndexKind()
VERSIONS = ("1.1.0", "2.0.0", "2.2.0", "2.3.0", "3.1.0")
SPEC = EmbeddingSpec("sentence-transformers/all-MiniLM-L6-v2", 384, normalized=True)


@pytest.fixture(scope="session")
def corpus(shared_data):
    folder = shared_data / "corpora" / "flask_docs"
    every = np.load(folder / "embeddings.npy", allow_pickle=False)
    made = {}
    for version in VERSIONS:
        lines = (folder / f"{version}.chunks.jsonl").read_text(encoding="utf-8").splitlines()
        chunks = [json.loads(line) for line in lines]
        made[version] = chunks, every[[c["row"] for c in chunks]]
    return made


class Recorded:
    """The embedder whose vectors lie in the data: it knows the texts it embedded."""

    def __init__(self, corpus):
        self.known = {}
        for chunks, vectors in corpus.values():
            self.known |= {c["text"]: v for c, v in zip(chunks, vectors, strict=True)}

    def embed_documents(self, texts):
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text):
        return self.known[text].tolist()


class Another(Recorded):
    """An embedder of the same dimension whose space is turned around."""

    def embed_query(self, text):
        return self.known[text][::-1].tolist()


@pytest.fixture(scope="session")
def embedder(corpus):
    return Recorded(corpus)


def resolved(value):
    manifest, files = pack(KIND, value)
    return KIND.unpack(manifest.config, files)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("factory", "options"),
    [
        ("Flat", {}),
        ("IVF16,Flat", {}),
        ("IVF16,Flat", {"nprobe": 5}),
        ("HNSW32", {"ef_search": 48}),
        ("IVF16,SQ8", {"nprobe": 4}),
        ("IDMap2,Flat", {}),
    ],
)
def test_a_langchain_retriever_gives_exactly_what_faiss_alone_gives(
    corpus, embedder, tmp_path, version, factory, options
):
    chunks, vectors = corpus[version]
    value = VectorIndex.from_vectors(vectors, chunks, embedding=SPEC, index=factory, probes="documents", **options)
    manifest, files = pack(KIND, value)
    loaded = KIND.unpack(manifest.config, files)

    plain = faiss.read_index(str(files.as_path("index.faiss")))
    questions = [c["text"] for c in chunks[::45]]
    asked = np.array([embedder.embed_query(q) for q in questions], "f4")
    scores, rows = plain.search(asked, 6)

    hits = loaded.search(asked, 6)
    assert hits.ids.tolist() == [[chunks[r]["id"] for r in line] for line in rows.tolist()]
    assert hits.scores.tobytes() == scores.tobytes()

    store, retriever = loaded.as_vectorstore(embedder), loaded.as_retriever(embedder, search_kwargs={"k": 6})
    for question, line, values in zip(questions, rows.tolist(), scores.tolist(), strict=True):
        expected = [(chunks[r]["id"], chunks[r]["text"], chunks[r]["source"]) for r in line]
        assert [(d.id, d.page_content, d.metadata["source"]) for d in retriever.invoke(question)] == expected
        assert [s for _, s in store.similarity_search_with_score(question, k=6)] == pytest.approx(values, abs=1e-6)


def test_flat_search_is_that_of_an_index_that_only_faiss_ever_saw(corpus):
    chunks, vectors = corpus["3.1.0"]
    for metric, plain in (("inner_product", faiss.IndexFlatIP(384)), ("l2", faiss.IndexFlatL2(384))):
        spec = EmbeddingSpec(SPEC.model, 384, metric, normalized=True)
        plain.add(vectors)
        scores, rows = plain.search(vectors[:200], 10)
        hits = resolved(VectorIndex.from_vectors(vectors, chunks, embedding=spec)).search(vectors[:200], 10)
        assert hits.ids.tolist() == [[chunks[r]["id"] for r in line] for line in rows.tolist()]
        assert hits.scores.tobytes() == scores.tobytes()


def test_the_text_probes_take_the_right_embedder_and_refuse_another_of_the_same_dimension(corpus, embedder):
    chunks, vectors = corpus["2.2.0"]
    value = resolved(VectorIndex.from_vectors(vectors, chunks, embedding=SPEC, probes="documents"))
    assert value.check_embeddings(embedder) == []
    for make in (value.as_retriever, value.as_vectorstore):
        with pytest.raises(Incompatible, match="gives another vector for") as caught:
            make(Another(corpus))
        (problem,) = caught.value.problems
        assert problem.startswith("embedder-probes: ")
        assert SPEC.model in caught.value.hint()


def test_the_text_probes_take_the_same_embedder_at_half_precision(corpus, embedder):
    class Half(Recorded):
        def embed_query(self, text):
            return self.known[text].astype(np.float16).astype(float).tolist()

    chunks, vectors = corpus["1.1.0"]
    value = VectorIndex.from_vectors(vectors, chunks, embedding=SPEC, probes="documents")
    assert value.check_embeddings(Half(corpus)) == []


def test_headings_find_their_own_passages(corpus):
    """Known-item retrieval: a passage's own vector, slightly moved, finds the passage."""
    chunks, vectors = corpus["3.1.0"]
    value = resolved(VectorIndex.from_vectors(vectors, chunks, embedding=SPEC, index="HNSW32", ef_search=64))
    moved = vectors + np.random.default_rng(0).normal(0, 0.01, vectors.shape).astype("f4")
    found = value.search(moved, 1).documents
    right = sum(hit.text == chunk["text"] for (hit,), chunk in zip(found, chunks, strict=True))
    assert right / len(chunks) > 0.95


def test_the_difference_of_two_releases_is_that_of_their_passages(corpus):
    packed = {}
    for version in ("2.3.0", "3.1.0"):
        chunks, vectors = corpus[version]
        plain = [{"id": c["id"], "text": c["text"]} for c in chunks]
        packed[version] = pack(KIND, VectorIndex.from_vectors(vectors, plain, embedding=SPEC))
    (before, old), (after, new) = packed.values()
    texts = [{c["id"]: c["text"] for c in corpus[v][0]} for v in packed]
    found = KIND.diff(before, after, (old, new))
    assert found.numbers == {
        "documents_added": len(texts[1].keys() - texts[0].keys()),
        "documents_removed": len(texts[0].keys() - texts[1].keys()),
        "documents_changed": sum(texts[0][k] != texts[1][k] for k in texts[0].keys() & texts[1].keys()),
        "overlap@5": pytest.approx(0.7875),
        "overlap_queries": 16,
    }
    assert all(found.numbers.values())


# --- from release to release


FACTORIES = [
    ("Flat", {}),
    ("IDMap2,Flat", {}),
    ("IVF16,Flat", {"nprobe": 16}),
    ("IVF16,Flat", {"nprobe": 4}),
    ("IVF16,SQ8", {"nprobe": 4}),
    ("PCA64,IVF16,Flat", {"nprobe": 4}),
]


def change(before, after):
    """What a nightly job knows: the passages of now, and the ids that are gone."""
    here = {c["id"] for c in after}
    return {"add": after, "remove": [c["id"] for c in before if c["id"] not in here]}


@pytest.mark.parametrize(
    ("factory", "options"),
    [
        pytest.param(*one, marks=[pytest.mark.matrix] if number in (1, 2, 4) else [])
        for number, one in enumerate(FACTORIES)
    ],
)
def test_release_after_release_answers_as_one_built_whole_over_the_same_training(corpus, embedder, factory, options):
    chunks, vectors = corpus[VERSIONS[0]]
    first = value = VectorIndex.from_vectors(
        vectors, chunks, embedding=SPEC, index=factory, probes="documents", **options
    )
    for earlier, later in itertools.pairwise(VERSIONS):
        (before, _), (after, vectors) = corpus[earlier], corpus[later]
        value = resolved(value.updated(**change(before, after), embeddings=embedder))
        assert {d.id: d.text for d in value.documents} == {c["id"]: c["text"] for c in after}
        whole = VectorIndex.from_vectors(vectors, after, embedding=SPEC, index=factory, train_from=first, **options)
        asked = vectors[::20]
        found, expected = value.search(asked, 10), whole.search(asked, 10)
        assert found.scores == pytest.approx(expected.scores, abs=2e-6)
        for ours, theirs, scores in zip(found.ids, expected.ids, expected.scores, strict=True):
            sure = [i for i in range(10) if scores[i] - scores[-1] > 1e-5]  # the last place may be shared
            assert {ours[i] for i in sure} == {theirs[i] for i in sure}
        assert value.check_embeddings(embedder) == []


def test_only_new_and_rewritten_passages_are_embedded(corpus, embedder):
    asked = []

    class Counting(Recorded):
        def embed_documents(self, texts):
            asked.extend(texts)
            return super().embed_documents(texts)

    (before, vectors), (after, _) = corpus["2.3.0"], corpus["3.1.0"]
    value = VectorIndex.from_vectors(vectors, before, embedding=SPEC, probes="documents")
    value.updated(**change(before, after), embeddings=Counting(corpus))
    known = {c["id"]: c["text"] for c in before}
    fresh = [c["text"] for c in after if known.get(c["id"]) != c["text"]]
    assert asked == [*(p.text for p in value.probes.file.texts), *fresh]
    assert 0 < len(fresh) < len(after) / 2


# --- the index that LangChain wrote


@pytest.fixture
def langchain_folder(shared_data):
    return shared_data / "indexes" / "langchain_faiss_flask_docs_3.1.0"


def test_an_index_that_langchain_wrote_goes_in_with_its_documents_as_jsonl(corpus, langchain_folder, tmp_path):
    chunks, vectors = corpus["3.1.0"]
    chosen = [(c, v) for c, v in zip(chunks, vectors, strict=True) if c["id"].startswith("docs/patterns/")]
    assert len(chosen) == 164
    (tmp_path / "documents.jsonl").write_text("".join(json.dumps(c) + "\n" for c, _ in chosen), encoding="utf-8")
    spec = EmbeddingSpec(SPEC.model, 384, "l2", normalized=True)
    for documents in (tmp_path / "documents.jsonl", [c for c, _ in chosen]):
        value = resolved(VectorIndex.from_faiss(langchain_folder, documents, embedding=spec, probes="documents"))
        assert value.count == 164
        hits = value.search(np.array([v for _, v in chosen]), 1)
        assert [d.text for (d,) in hits.documents] == [c["text"] for c, _ in chosen]
        assert hits.scores.max() < 1e-5


def test_its_pickle_is_refused_with_what_to_do_instead(langchain_folder):
    spec = EmbeddingSpec(SPEC.model, 384, "l2", normalized=True)
    for given, documents in (
        (langchain_folder, None),
        (langchain_folder / "index.faiss", None),
        (langchain_folder, langchain_folder / "index.pkl"),
    ):
        with pytest.raises(UnsafeContent, match="is a pickle") as caught:
            VectorIndex.from_faiss(given, documents, embedding=spec)
        assert caught.value.file.endswith("index.pkl")
        assert '{"id": "…", "text": "…", "metadata": {…}}' in caught.value.hint()
