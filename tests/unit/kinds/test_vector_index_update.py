"""Updating an index: what stayed keeps its vector and its id, what is new is embedded, the training is frozen."""

import dataclasses
import hashlib
import tempfile
import warnings

import faiss
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document as LangChainDocument

from llmartifacts.errors import Damaged, Incompatible, InvalidReference, InvalidValue, Unreachable
from llmartifacts.kinds.vector_index.config import EmbeddingSpec
from llmartifacts.kinds.vector_index.editing import MAX_ID, new_ids
from llmartifacts.kinds.vector_index.guard import open_index
from llmartifacts.kinds.vector_index.kind import VectorIndexKind
from llmartifacts.kinds.vector_index.training import trained_digest
from llmartifacts.kinds.vector_index.value import EmbedderWarning, VectorIndex
from llmartifacts.records.digest import digest_of
from llmartifacts.testing.kinds import pack

KIND = VectorIndexKind()
D, N = 16, 90
SPEC = EmbeddingSpec("toy", D, metric="l2")

OWN_IDS = ["IVF8,Flat", "IVF8,SQ8", "IVF8,PQ4x4", "IVF8_HNSW8,Flat", "PCA8,IVF8,Flat", "PCA8,IVF8,PQ4x4"]
MAPPED = ["IDMap,Flat", "IDMap2,Flat", "IDMap,IVF8,SQ8", "IDMap,PCA8,Flat", "IDMap2,IVF8,SQ8,RFlat", "IDMap2,HNSW16"]
POSITIONS = ["Flat", "SQ8", "SQfp16", "PQ4x4", "HNSW16", "PCA8,Flat", "RR8,SQ8", "L2norm,Flat", "PCA8,HNSW16"]
REFINED = ["PQ4x4,RFlat", "IVF8,SQ8,RFlat", "IVF8,PQ4x4,Refine(SQ8)"]
EVERY = [*POSITIONS, *OWN_IDS, *MAPPED, *REFINED]


class Toy:
    """An embedder that makes a vector of a text's hash, and remembers what it was asked."""

    def __init__(self, dimension=D, salt=""):
        self.dimension, self.salt, self.asked = dimension, salt, []

    def embed_documents(self, texts):
        self.asked += texts
        return [self.embed(text) for text in texts]

    def embed_query(self, text):
        return self.embed(text)

    def embed(self, text):
        seed = int.from_bytes(hashlib.sha256((self.salt + text).encode()).digest()[:8], "big")
        return np.random.default_rng(seed).standard_normal(self.dimension).astype("f4").tolist()


def doc(name, text="", **metadata):
    return {"id": name, "text": text or f"text of {name}", "metadata": metadata}


def many(count=60, first=0):
    return [doc(f"d{i}") for i in range(first, first + count)]


def built(documents=None, **more):
    return VectorIndex.build(documents or many(), embeddings=Toy(), model="toy", metric="l2", **more)


def ids(value):
    return [d.id for d in value.documents]


def saved(value):
    return bytes(value.mapped.data)


def faiss_ids(value):
    rows = np.arange(value.count) if value.row_ids is None else value.row_ids
    return dict(zip(ids(value), rows.tolist(), strict=True))


@pytest.fixture(autouse=True)
def one_thread():
    """Threads of FAISS wait for each other actively, which is slow where the processor is busy."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(before)


@pytest.fixture(autouse=True)
def nothing_is_left_behind(tmp_path_factory, monkeypatch):
    place = tmp_path_factory.mktemp("scratch")
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    yield
    assert [p.name for p in place.iterdir() if not p.name.startswith("llmartifacts-testing")] == []


# --- what is embedded


def test_only_what_is_new_or_has_another_text_is_embedded():
    kb, toy = built(), Toy()
    add = [doc("d0"), doc("d1", "rewritten"), doc("d2", page=9), doc("new")]
    later = kb.updated(add=add, remove="d3", embeddings=toy)
    checked = [p.text for p in kb.probes.file.texts if p.side == "document"]
    assert toy.asked == [*checked, "rewritten", "text of new"]
    assert ids(later) == ["d0", "d2", *(f"d{i}" for i in range(4, 60)), "d1", "new"]
    assert later.documents[1].metadata == {"page": 9}
    assert later.fields == ("page",)
    for name, text in (("d1", "rewritten"), ("new", "text of new"), ("d2", "text of d2"), ("d40", "text of d40")):
        hits = later.search(toy.embed(text), 1)
        assert (hits.ids[0][0], hits.documents[0][0].text) == (name, text)
    assert kb.count == 60, "the version before stays what it was"
    assert ids(kb)[3] == "d3"


def test_an_embedder_is_not_asked_where_nothing_is_new():
    kb, toy = built(), Toy()
    later = kb.updated(remove=["d1", "d2"], add=[doc("d5"), doc("d6", colour="red")], embeddings=toy)
    assert toy.asked == []
    assert ids(later) == [f"d{i}" for i in range(60) if i not in (1, 2)]


@pytest.mark.parametrize("given", [{}, {"add": []}, {"remove": []}, {"remove": None}, {"add": many(5)}])
def test_where_nothing_differs_it_is_the_same_index(given):
    kb = built(chunking={"size": 9}, corpus=digest_of(b"a"))
    assert kb.updated(**given) is kb


def test_metadata_alone_changes_the_documents_and_not_a_byte_of_the_index():
    kb = built(index="IVF4,Flat")
    later = kb.updated(add=[doc("d7", page=1)])
    assert saved(later) == saved(kb)
    assert ids(later) == ids(kb)
    assert later.documents[7].metadata == {"page": 1}
    for one, other in ((1, 1.0), (1, True)):
        kb = built([doc("a", n=one), doc("b")])
        assert type(kb.updated(add=[doc("a", n=other)]).documents[0].metadata["n"]) is type(other)


def test_an_id_in_both_is_replaced_even_if_its_text_is_the_same():
    kb = built()
    vector = np.full((1, D), 7, "f4")
    assert kb.updated(add=[doc("d4")], vectors=vector) is kb, "the same text keeps its vector"
    later = kb.updated(add=[doc("d4")], remove="d4", vectors=vector)
    assert later.search(vector, 1).ids.tolist() == [["d4"]]
    assert later.search(vector, 1).scores[0][0] == 0
    assert ids(later)[-1] == "d4"


def test_vectors_may_be_given_row_by_row_for_what_is_added():
    kb, vectors = built(), np.eye(D, dtype="f4")[:3]
    later = kb.updated(add=[doc("d0"), doc("d1", "else"), doc("x")], vectors=vectors)
    assert later.search(vectors[1:], 1).ids.tolist() == [["d1"], ["x"]]
    assert later.search(Toy().embed("text of d0"), 1).scores[0][0] < 1e-6


def test_the_forms_of_documents_are_those_of_build(tmp_path):
    kb = built()
    (tmp_path / "more.jsonl").write_text('{"id": "x", "text": "one"}\n{"id": "y", "text": "two"}\n')
    for add, names in (
        (["one", "two"], None),
        ([LangChainDocument(id="x", page_content="one"), LangChainDocument(id="y", page_content="two")], ["x", "y"]),
        (tmp_path / "more.jsonl", ["x", "y"]),
        ((text for text in ("one", "two")), None),
    ):
        later = kb.updated(add=add, embeddings=Toy())
        assert [d.text for d in later.documents[-2:]] == ["one", "two"]
        assert names is None or ids(later)[-2:] == names
    assert ids(kb.updated(add=["one"], ids=["mine"], embeddings=Toy()))[-1] == "mine"
    texts = built(["one", "two"])
    assert ids(texts.updated(add=["two", "three"], embeddings=Toy()))[:2] == ids(texts), "the same text, the same id"


# --- chunking and corpus


def test_chunking_stays_and_a_corpus_that_is_no_longer_true_does_not():
    kb = built(chunking={"size": 9}, corpus=digest_of(b"a"))
    later = kb.updated(remove="d1")
    assert (later.chunking, later.corpus) == ({"size": 9}, None)
    later = kb.updated(remove="d1", chunking={"size": 8}, corpus=digest_of(b"b"))
    assert (later.chunking, later.corpus) == ({"size": 8}, digest_of(b"b"))
    later = kb.updated(chunking={"size": 8})
    assert (later.chunking, later.corpus) == ({"size": 8}, digest_of(b"a"))
    assert kb.updated(corpus=digest_of(b"b")).corpus == digest_of(b"b")
    with pytest.raises(InvalidReference):
        kb.updated(corpus="no digest")


# --- ids, order, bytes


def base(factory, _cache={}):  # noqa: B006 - trained once
    if factory not in _cache:
        rows = np.random.default_rng(0).standard_normal((N, D)).astype("f4")
        texts = many(N)
        wide = {"nprobe": 8} if "IVF" in factory else {"ef_search": 400} if "HNSW" in factory else {}
        _cache[factory] = VectorIndex.from_vectors(rows, texts, embedding=SPEC, index=factory, **wide), rows
    return _cache[factory]


@pytest.mark.parametrize("factory", EVERY)
def test_the_same_change_gives_the_same_bytes_and_keeps_what_was_learnt(factory):
    kb, rows = base(factory)
    change = {"remove": [f"d{i}" for i in range(0, N, 7)], "add": many(20, N), "vectors": rows[:20] + 1}
    one, two = (pack(KIND, kb.updated(**change))[0] for _ in range(2))
    assert one.digest == two.digest
    assert one.config["index"].get("trained") == pack(KIND, kb)[0].config["index"].get("trained")


@pytest.mark.parametrize("factory", ["Flat", "SQ8", "SQfp16", "PQ4x4", "L2norm,Flat", "PQ4x4,RFlat"])
def test_where_ids_are_positions_it_is_byte_for_byte_the_index_built_of_what_is_there(factory):
    kb, rows = base(factory)
    later = kb.updated(remove=["d0", "d7", "d88"], add=[doc("d3", "else"), doc("x")], vectors=rows[:2] + 1)
    left = [i for i in range(N) if i not in (0, 3, 7, 88)]
    matrix = np.concatenate([rows[left], rows[:2] + 1])
    whole = VectorIndex.from_vectors(matrix, list(later.documents), embedding=SPEC, index=factory, train_from=kb)
    assert saved(later) == saved(whole)
    asked = rows[::9]
    found, expected = later.search(asked, 7), whole.search(asked, 7)
    assert found.ids.tolist() == expected.ids.tolist()
    assert found.scores.tobytes() == expected.scores.tobytes()


@pytest.mark.parametrize("factory", [*OWN_IDS, *MAPPED])
def test_ids_of_faiss_stay_and_new_ones_were_never_used(factory):
    kb, rows = base(factory)
    later = kb.updated(remove=["d5", "d89"], add=[doc("d7", "else"), doc("x")], vectors=rows[:2])
    before, after = faiss_ids(kb), faiss_ids(later)
    stayed = [name for name in ids(later) if name not in ("d7", "x")]
    assert {name: after[name] for name in stayed} == {name: before[name] for name in stayed}
    assert not {after["d7"], after["x"]} & set(before.values())


def test_ids_of_a_users_own_stay_too_whatever_order_and_size_they_have():
    index = faiss.IndexIDMap2(faiss.IndexFlatL2(4))
    rows = np.eye(4, dtype="f4")
    index.add_with_ids(rows[:3], np.array([MAX_ID - 1, 5, 77]))
    kb = VectorIndex.from_faiss(index, [doc("a"), doc("b"), doc("c")], embedding=EmbeddingSpec("toy", 4, metric="l2"))
    later = kb.updated(add=[doc("x")], vectors=rows[3:], remove="b")
    assert faiss_ids(later) == {"a": MAX_ID - 1, "c": 77, "x": MAX_ID}
    again = later.updated(add=[doc("y")], vectors=rows[1:2])
    assert faiss_ids(again) == {**faiss_ids(later), "y": 0}, "no room above: the first gap"
    assert again.search(rows, 1).ids.tolist() == [["a"], ["y"], ["c"], ["x"]]


def test_positions_in_another_order_than_the_documents_move_up_each_for_itself():
    rows = np.eye(5, dtype="f4")
    index = faiss.IndexFlatL2(5)
    index.add(rows)
    kb = VectorIndex.from_faiss(
        index, [doc(c) for c in "edcba"], embedding=EmbeddingSpec("toy", 5, metric="l2"), faiss_ids=[4, 3, 2, 1, 0]
    )
    later = kb.updated(remove=["b", "e"], add=[doc("x")], vectors=rows[1:2])
    assert ids(later) == ["d", "c", "a", "x"]
    assert later.search(rows[[0, 2, 3, 1]], 1).ids.tolist() == [["a"], ["c"], ["d"], ["x"]]


@given(st.sets(st.integers(0, 40)), st.integers(0, 10), st.booleans())
def test_new_ids_are_as_many_as_wanted_different_and_free(taken, count, full):
    taken = np.array(sorted(taken | ({MAX_ID} if full else set())), np.int64)
    found = new_ids(taken, count)
    assert len(set(found.tolist()) - set(taken.tolist())) == count == len(found)
    assert (found >= 0).all()


@pytest.mark.parametrize("form", [faiss.DirectMap.Array, faiss.DirectMap.Hashtable])
def test_a_direct_map_stays_one(form):
    rows = np.random.default_rng(0).standard_normal((50, 4)).astype("f4")
    index = faiss.index_factory(4, "IVF2,Flat")
    index.train(rows)
    index.add(rows)
    index.set_direct_map_type(form)
    kb = VectorIndex.from_faiss(index, many(50), embedding=EmbeddingSpec("toy", 4, metric="l2"))
    later = kb.updated(remove="d3", add=[doc("x")], vectors=rows[:1] + 1)
    assert later.faiss.direct_map.type == faiss.DirectMap.Hashtable
    assert np.array_equal(later.faiss.reconstruct(later.row_ids[-1].item()), rows[0] + 1)
    assert kb.updated(add=[doc("x")], vectors=rows[:1]).faiss.direct_map.type == form


# --- against a model


steps = st.lists(
    st.lists(
        st.tuples(st.sampled_from(["add", "remove", "replace", "retitle", "again"]), st.integers(0, 200)), max_size=12
    ),
    min_size=1,
    max_size=4,
)


@pytest.mark.parametrize("factory", EVERY)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps)
def test_any_sequence_of_changes_agrees_with_a_model_of_documents_and_vectors(factory, steps):
    first, rows = base(factory)
    value, toy = first, Toy()
    model = {f"d{i}": (f"text of d{i}", {}, rows[i]) for i in range(N)}
    for number, step in enumerate(steps):
        add, remove = {}, set()
        names = list(model)
        for what, which in step:
            name = f"s{number}-{which}" if what == "add" else names[which % len(names)]
            if name in add or name in remove:
                continue
            if what == "remove":
                remove.add(name)
            else:
                text, metadata, _ = model.get(name, ("", {}, None))
                text = f"{name} in step {number}" if what in ("add", "replace") else text
                metadata = {"step": number} if what == "retitle" else metadata
                add[name] = text, metadata, np.array(toy.embed(text), "f4")
        vectors = np.array([v for _, _, v in add.values()], "f4") if add else None
        given = [{"id": name, "text": t, "metadata": m} for name, (t, m, _) in add.items()]
        value = value.updated(add=given, remove=remove, vectors=vectors)
        kept = {}
        for name, (text, metadata, vector) in model.items():
            if name not in remove and (name not in add or add[name][0] == text):
                kept[name] = text, add.get(name, (text, metadata))[1], vector
        model = kept | {name: v for name, v in add.items() if name not in kept}

    assert [(d.id, d.text, d.metadata) for d in value.documents] == [(k, t, m) for k, (t, m, _) in model.items()]
    manifest, files = pack(KIND, value)
    loaded = KIND.unpack(manifest.config, files)  # asks its probes
    matrix = np.array([v for _, _, v in model.values()])
    frozen = VectorIndex.from_vectors(
        matrix,
        [{"id": name, "text": t} for name, (t, _, _) in model.items()],
        embedding=SPEC,
        index=factory,
        train_from=first,
        **({"nprobe": 8} if "IVF" in factory else {"ef_search": 400} if "HNSW" in factory else {}),
    )
    assert trained_digest(value.faiss) == trained_digest(first.faiss) == trained_digest(frozen.faiss)
    queries = np.concatenate([matrix[-3:], rows[:2] + 0.5])
    for query in queries:
        found, expected = (told(index, list(model), query) for index in (loaded, frozen))
        graph = "HNSW16" in factory
        assert found.keys() <= model.keys()
        assert len(found) >= len(model) * (0.95 if graph else 1)
        assert all(found[name] == pytest.approx(expected[name], rel=1e-3, abs=1e-3) for name in found & expected.keys())
        if loaded.mapped.layout.vectors is not None:
            exact = dict(zip(model, ((matrix - query) ** 2).sum(axis=1), strict=True))
            assert all(found[name] == pytest.approx(exact[name], rel=1e-3, abs=1e-3) for name in found)


def told(index, names, query):
    rows, scores = index.nearest_rows(query[None], index.count)
    return {names[row]: score for row, score in zip(rows[0].tolist(), scores[0].tolist(), strict=True) if row >= 0}


# --- probes


def test_probes_of_texts_that_stay_stay_and_those_of_others_are_replaced():
    kb, toy = built(), Toy()
    assert kb.updated(add=[doc("x")], embeddings=toy).probes.file.texts == kb.probes.file.texts
    went = {p.text for p in kb.probes.file.texts[:3]}
    gone = [d.id for d in kb.documents if d.text in went]
    for embedder in (toy, None):
        later = kb.updated(remove=gone, add=[doc("x")] if embedder else None, embeddings=embedder)
        texts = [p.text for p in later.probes.file.texts]
        assert not went & set(texts)
        assert texts[:5] == [p.text for p in kb.probes.file.texts if p.text not in went and p.side == "document"][:5]
        assert sum(p.side == "document" for p in later.probes.file.texts) == 8
        assert set(texts) <= {d.text for d in later.documents}
        assert later.check_embeddings(Toy()) == []
        with pytest.raises(Incompatible):
            later.check_embeddings(Toy(salt="other"))


def test_a_probe_that_is_no_document_stays():
    rows, toy = np.eye(4, dtype="f4"), Toy(4)
    spec = EmbeddingSpec("toy", 4)
    kb = VectorIndex.from_vectors(rows, many(4), embedding=spec, probes={"a question": toy.embed("a question")})
    assert [p.text for p in kb.updated(remove="d1").probes.file.texts] == ["a question"]


@pytest.mark.parametrize("factory", ["Flat", "IVF4,Flat", "HNSW8"])
def test_no_probe_keeps_the_vector_of_a_document_that_went(factory):
    kb = built(index=factory)
    first = kb.search(kb.probes.query_vectors, 1)
    assert first.scores.max() < 1e-5, "the queries are vectors of documents"
    later = kb.updated(remove=[name for (name,) in first.ids[:4]])
    assert len(later.probes.query_vectors) == 8
    assert later.search(later.probes.query_vectors, 1).scores.max() < 1e-5
    assert later.probes.query_vectors[:4].tobytes() == kb.probes.query_vectors[4:].tobytes()


# --- what is refused


def refused(match, field, kind=InvalidValue, kb=None, **given):
    toy = Toy()
    with pytest.raises(kind, match=match) as caught:
        (kb or built()).updated(**{"embeddings": toy, **given})
    assert caught.value.field == field
    assert toy.asked == []
    return caught.value


def test_an_id_that_is_not_there_cannot_be_removed():
    error = refused("no document has the id 'd600', and 1 more", "remove", remove=["d600", "d7", "nope"])
    assert "d60" in error.hint() or "d6" in error.hint()
    refused("no document has the id 'new'", "remove", remove="new", add=[doc("new")])


def test_nothing_may_be_left_over_with_nothing():
    error = refused("nothing would be left", "remove", remove=[f"d{i}" for i in range(60)])
    assert "yank" in error.hint()


@pytest.mark.parametrize(
    ("given", "match", "field"),
    [
        ({"add": [doc("x"), doc("x", "else")]}, "'x' belongs to document 0 and to document 1", "add[1].id"),
        ({"add": "one text"}, "one str, not a list", "add"),
        ({"add": [doc("x"), 7]}, "no document", "add[1].text"),
        ({"add": ["a"], "ids": ["b", "c"]}, "more ids", "ids[1]"),
        ({"ids": ["b"]}, "no documents", "ids"),
        ({"remove": [7]}, "7 is no document id", "remove[0]"),
        ({"remove": 7}, "not a list", "remove"),
        ({"remove": b"d1"}, "not a list", "remove"),
        ({"add": [doc("x")], "embeddings": None}, "nothing embeds them", "embeddings"),
        ({"add": [doc("x")], "embeddings": "no"}, "is no embedder", "embeddings"),
        ({"add": [doc("x")], "vectors": [[0.0] * D]}, "vectors and an embedder", "vectors"),
        ({"vectors": [[0.0] * D], "embeddings": None}, "no documents", "vectors"),
        ({"add": [doc("x")], "vectors": [[0.0] * 3], "embeddings": None}, "3 components", "vectors[0]"),
        ({"add": [doc("x")], "vectors": [[0.0] * D] * 2, "embeddings": None}, "1 documents for 2", "vectors[1]"),
        ({"add": [doc("d1")], "vectors": [[0.0] * D] * 2, "embeddings": None}, "1 documents for 2", "vectors[1]"),
        ({"add": [doc("x")], "vectors": [[np.nan] * D], "embeddings": None}, "a NaN", "vectors[0]"),
        ({"chunking": 7}, "not an object", "chunking"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_embedded(given, match, field):
    refused(match, field, **given)


def test_another_embedder_is_refused_and_one_that_cannot_be_checked_is_a_warning():
    kb = built()
    with pytest.raises(Incompatible, match="gives another vector"):
        kb.updated(add=[doc("x")], embeddings=Toy(salt="other"))
    with pytest.raises(Incompatible, match="dimension 3"):
        kb.updated(add=[doc("x")], embeddings=Toy(3))
    bare = VectorIndex.from_vectors(np.eye(D, dtype="f4"), many(D), embedding=SPEC)
    with pytest.warns(EmbedderWarning, match="no text probes") as caught:
        bare.updated(add=[doc("x")], embeddings=Toy())
    assert caught[0].filename == __file__


def test_an_embedder_that_fails_halfway_leaves_nothing_behind():
    class Failing(Toy):
        def embed_documents(self, texts):
            if "text of x" in texts:
                raise ConnectionError("gone")
            return super().embed_documents(texts)

    with pytest.raises(Unreachable, match="gone"):
        built().updated(add=[doc("x")], embeddings=Failing())


def test_vectors_of_a_normalized_space_have_unit_length_or_are_brought_to_it():
    kb = built(normalize=True)
    with pytest.raises(InvalidValue, match="row 0 has length 4"):
        kb.updated(add=[doc("x")], vectors=np.ones((1, D)))
    later = kb.updated(add=[doc("x")], embeddings=Toy())
    assert np.linalg.norm(later.faiss.reconstruct(60)) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("factory", ["HNSW8,SQ8", "HNSW8,PQ4x4"])
def test_a_graph_over_codes_takes_more_and_says_why_it_gives_nothing_up(factory):
    kb, rows = base(factory)
    error = refused("has no removal", "remove", kb=kb, remove="d1", add=[doc("new")])
    assert "train_from" in error.hint()
    refused("has no removal", "remove", kb=kb, add=[doc("d1", "another text")])
    later = kb.updated(add=[doc("x")], vectors=rows[:1] + 3)
    assert later.search(rows[:1] + 3, 1).ids.tolist() == [["x"]]


@pytest.mark.parametrize("factory", ["Flat", "IVF8,Flat", "IDMap,Flat", "IVF8,SQ8,RFlat"])
def test_ids_that_are_not_those_of_the_index_are_refused(factory):
    kb, _ = base(factory)
    for lie in (np.arange(N) + 1, np.zeros(N, np.int64), np.arange(N) - 1):
        with pytest.raises(Damaged, match="not those of the index"):
            dataclasses.replace(kb, row_ids=lie.astype(np.int64)).updated(remove="d1")


@pytest.mark.parametrize("lie", [-5, 90, 1 << 62])
def test_lists_below_an_id_map_that_name_what_is_not_there_are_refused(lie, tmp_path):
    index = base("IDMap,IVF8,SQ8")[0].writable_copy()
    inner = faiss.downcast_index(index.index)
    number = next(i for i in range(8) if inner.invlists.list_size(i))
    faiss.rev_swig_ptr(inner.invlists.get_ids(number), 1)[0] = lie
    faiss.write_index(index, str(tmp_path / "index.faiss"))
    kb = dataclasses.replace(base("IDMap,IVF8,SQ8")[0], mapped=open_index(tmp_path / "index.faiss"))
    with pytest.raises(Damaged, match="names a vector that is not there"):
        kb.updated(remove=["d1", "d2"])


def test_no_warning_is_given_where_all_is_well():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        built(index="IVF4,SQ8").updated(add=[doc("x")], remove="d1", embeddings=Toy())
