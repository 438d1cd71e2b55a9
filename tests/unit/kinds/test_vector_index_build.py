"""Making a vector index: what goes in, what is refused, and that a refusal leaves nothing behind."""

import os
import subprocess
import sys
import tempfile
from types import SimpleNamespace

import faiss
import numpy as np
import pytest
from langchain_core.documents import Document as LangChainDocument
from langchain_core.embeddings import DeterministicFakeEmbedding

from llmartifacts.errors import InvalidReference, InvalidValue, TooLarge, Unreachable, UnsafeContent
from llmartifacts.kinds.vector_index.config import EmbeddingSpec
from llmartifacts.kinds.vector_index.value import VectorIndex
from llmartifacts.records.digest import digest_of

SPEC = EmbeddingSpec("toy", 4)


def rows(count=20, dimension=4, seed=0):
    return np.random.default_rng(seed).standard_normal((count, dimension)).astype("f4")


def unit(matrix):
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


def texts(count=20):
    return [f"text {i}" for i in range(count)]


@pytest.fixture(autouse=True)
def nothing_is_left_behind(tmp_path, monkeypatch):
    """Every test of this file, whatever it does, leaves no file in the place for temporary ones."""
    place = tmp_path / "scratch"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    yield
    assert list(place.iterdir()) == []


def refused(match, field, kind=InvalidValue, **given):
    asked = {"vectors": rows(), "documents": texts(), "embedding": SPEC, **given}
    with pytest.raises(kind, match=match or None) as caught:
        VectorIndex.from_vectors(asked.pop("vectors"), asked.pop("documents"), **asked)
    assert caught.value.field == field
    return caught.value


# --- bad vectors


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_vector_that_is_not_finite_is_refused_by_its_row(bad):
    matrix = rows()
    matrix[17, 2] = bad
    refused("row 17 holds a NaN or an infinity", "vectors[17]", vectors=matrix)


def test_a_number_beyond_float32_is_refused_by_its_row():
    matrix = rows().astype("f8")
    matrix[3, 0] = 1e300
    refused("row 3", "vectors[3]", vectors=matrix)


@pytest.mark.parametrize(
    "vectors",
    [
        np.zeros(4, "f4"),
        np.zeros((2, 2, 2), "f4"),
        np.zeros((0, 4), "f4"),
        np.zeros((4, 0), "f4"),
        [],
        3,
        "vectors",
        None,
        [[1.0, 2.0], [3.0]],
        [["a", "b"]],
        np.zeros((2, 4), bool),
        np.array([[object()]]),
        [[1 + 2j, 0]],
    ],
)
def test_vectors_of_another_shape_or_type_are_refused(vectors):
    refused("", "vectors", vectors=vectors)


def test_vectors_of_another_dimension_are_refused():
    refused("5 components, the embedding says 4", "vectors[0]", vectors=rows(dimension=5))


def test_a_vector_that_is_not_of_unit_length_is_refused_where_the_embedding_is_normalized():
    matrix = unit(rows())
    matrix[7] *= 1.01
    spec = EmbeddingSpec("toy", 4, normalized=True)
    error = refused(r"row 7 has length 1\.01", "vectors[7]", vectors=matrix, embedding=spec)
    assert "normalized=False" in error.hint()


def test_vectors_of_unit_length_to_half_precision_are_taken():
    matrix = unit(rows(500, 384)).astype(np.float16)
    spec = EmbeddingSpec("toy", 384, normalized=True)
    assert VectorIndex.from_vectors(matrix, texts(500), embedding=spec).count == 500


# --- bad documents


def test_the_second_of_two_equal_ids_is_named():
    error = refused(
        "'a' belongs to document 2 and to document 5", "documents[5].id", ids=list("xyabca") + list("ghijklmnopqrst")
    )
    assert error.code == "invalid_value"


@pytest.mark.parametrize(("count", "field"), [(21, "documents[20]"), (19, "vectors[19]")])
def test_another_number_of_documents_than_vectors_is_refused(count, field):
    refused(f"{count} documents for 20 vectors", field, documents=texts(count))


@pytest.mark.parametrize(
    ("document", "field"),
    [
        (7, "documents[2].text"),
        (None, "documents[2].text"),
        ({"id": "a"}, "documents[2].text"),
        ({"text": 5}, "documents[2].text"),
        ({"text": "x", "metadata": [1]}, "documents[2].metadata"),
        ({"text": "x", "metadata": {"when": object()}}, "documents[2].metadata.when"),
        ({"text": "x", "metadata": {"score": float("nan")}}, "documents[2].metadata.score"),
        ({"text": "x", "metadata": {"n": 2**60}}, "documents[2].metadata.n"),
        ({"text": "x", "metadata": {"a": 1}, "a": 2}, "documents[2].a"),
        ({"text": "x", "id": 3}, "documents[2].id"),
        ({"text": "x", "id": ""}, "documents[2].id"),
        ({"text": "x", "id": "a\nb"}, "documents[2].id"),
        ("\ud800", "documents[2].text"),
    ],
)
def test_a_bad_document_is_refused_and_named(document, field):
    given = texts()
    given[2] = document
    refused("", field, documents=given)


@pytest.mark.parametrize("documents", ["one text", b"bytes", {"text": "x"}, 5, None])
def test_what_is_no_list_of_documents_is_refused(documents):
    refused("not a list", "documents", documents=documents)


def test_no_document_is_refused():
    refused("there are no documents", "documents", documents=[])


def test_too_few_and_too_many_ids_are_refused():
    refused("fewer ids", "ids[3]", ids=["a", "b", "c"])
    refused("more ids", "ids[20]", ids=[str(i) for i in range(21)])


def test_a_document_of_many_megabytes_is_refused():
    given = texts()
    given[4] = "x" * (1 << 24)
    refused("the limit is", "documents[4]", kind=TooLarge, documents=given)


# --- bad words about it


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("", 4), "embedding.model"),
        ((None, 4), "embedding.model"),
        (("m", 0), "embedding.dimension"),
        (("m", True), "embedding.dimension"),
        (("m", 4.0), "embedding.dimension"),
        (("m", 1 << 17), "embedding.dimension"),
        (("m", 4, "cosine"), "embedding.metric"),
        (("m", 4, "l2", 1), "embedding.normalized"),
    ],
)
def test_a_bad_embedding_spec_names_its_field(arguments, field):
    with pytest.raises(InvalidValue) as caught:
        EmbeddingSpec(*arguments)
    assert caught.value.field == field


def test_chunking_corpus_and_embedding_are_checked():
    refused("not an object", "chunking", chunking="800 characters")
    refused("", "chunking.sizes[1]", chunking={"sizes": [1, float("inf")]})
    refused("", "corpus", kind=InvalidReference, corpus="docs:v1")
    refused("not an EmbeddingSpec", "embedding", embedding="toy")
    refused("probes are texts", "probes", probes=["text"])
    refused("65 probes", "probes", probes={str(i): [1.0] * 4 for i in range(65)})


def test_the_corpus_may_be_a_digest_or_a_version():
    digest = digest_of(b"corpus")
    for corpus in (digest, SimpleNamespace(digest=digest)):
        assert VectorIndex.from_vectors(rows(), texts(), embedding=SPEC, corpus=corpus).corpus == digest


# --- factory strings


@pytest.mark.parametrize(
    ("factory", "match"),
    [
        ("nonsense", "FAISS cannot make 'nonsense' of these vectors: could not parse"),
        ("Flat,", "FAISS cannot make"),
        ("", "no FAISS factory string"),
        (None, "no FAISS factory string"),
        ("Fl\u00e4t", "no FAISS factory string"),
        ("F" * 300, "no FAISS factory string"),
        ("IVF21,Flat", "wants 21 lists for 20 vectors"),
        ("IVF4000000000,Flat", "wants 4000000000 lists"),
        ("IVF0,Flat", "wants 0 lists"),
        ("PQ3", "FAISS cannot make"),
        ("NSG8", r"an index type \(INSf\) that is not opened"),
        ("IVF4,PQ2x4fs", r"an index type \(IwPf\) that is not opened"),
        ("IVF4,RaBitQ", "that is not opened"),
        ("IDMap,NSG8", r"\(INSf\)"),
        ("IMI2x1,Flat", "not implemented for inner prod"),
        ("ITQ4,Flat", "makes a file that is not opened.*transform"),
        ("HNSW8,PQ2x4", "for another metric than inner_product"),
    ],
)
def test_a_factory_string_that_cannot_be_used_is_refused_by_name(factory, match):
    refused(match, "index", index=factory)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"nprobe": 2}, "nprobe"),
        ({"ef_search": 2}, "ef_search"),
        ({"index": "IVF4,Flat", "ef_search": 2}, "ef_search"),
        ({"index": "HNSW8", "nprobe": 2}, "nprobe"),
        ({"index": "IVF4,Flat", "nprobe": 0}, "nprobe"),
        ({"index": "IVF4,Flat", "nprobe": "2"}, "nprobe"),
    ],
)
def test_a_search_parameter_that_does_not_apply_is_refused(options, field):
    refused("", field, **options)


def test_search_parameters_are_kept_in_the_file():
    value = VectorIndex.from_vectors(rows(), texts(), embedding=SPEC, index="PCA2,IVF4,Flat", nprobe=3)
    assert value.mapped.layout.nprobe == 3
    value = VectorIndex.from_vectors(rows(), texts(), embedding=SPEC, index="IDMap,HNSW8", ef_search=77)
    assert value.mapped.layout.ef_search == 77


# --- documents as users have them


def test_documents_are_texts_mappings_langchain_documents_or_a_jsonl_file(tmp_path):
    file = tmp_path / "docs.jsonl"
    file.write_text('{"id": "a", "text": "t", "page": 1}\n\n{"page_content": "u", "metadata": {"page": 2}}\n')
    forms = [
        [{"id": "a", "text": "t", "metadata": {"page": 1}}, {"text": "u", "metadata": {"page": 2}}],
        [{"id": "a", "text": "t", "page": 1}, {"page_content": "u", "page": 2, "id": None, "metadata": None}],
        [LangChainDocument("t", id="a", metadata={"page": 1}), LangChainDocument("u", metadata={"page": 2})],
        (d for d in [{"id": "a", "text": "t", "page": 1}, LangChainDocument("u", metadata={"page": 2})]),
        file,
    ]
    made = [VectorIndex.from_vectors(rows(2), form, embedding=SPEC) for form in forms]
    assert [(d.text, d.metadata) for d in made[0].documents] == [("t", {"page": 1}), ("u", {"page": 2})]
    for value in made:
        assert list(value.documents) == list(made[0].documents)
        assert value.fields == ("page",)


def test_a_text_without_an_id_gets_one_of_its_content_that_does_not_depend_on_its_place():
    first = VectorIndex.from_vectors(rows(3), ["a", "b", "a"], embedding=SPEC)
    other = VectorIndex.from_vectors(rows(2), ["b", "a"], embedding=SPEC)
    a, b, again = (d.id for d in first.documents)
    assert again == f"{a}-2"
    assert [d.id for d in other.documents] == [b, a]


def test_a_line_that_is_no_document_is_named(tmp_path):
    file = tmp_path / "docs.jsonl"
    for line, match in (
        ('{"text": 1}', "text"),
        ("{", "not JSON"),
        ('{"text": "a", "text": "b"}', "twice"),
        ("[]", "without a text"),
    ):
        file.write_text('{"text": "fine"}\n' + line + "\n")
        with pytest.raises(InvalidValue, match=match) as caught:
            VectorIndex.from_vectors(rows(2), file, embedding=SPEC)
        assert caught.value.origin == "docs.jsonl, line 2"
    with pytest.raises(InvalidValue, match="cannot be read"):
        VectorIndex.from_vectors(rows(2), tmp_path / "absent.jsonl", embedding=SPEC)


def test_a_document_does_not_change_when_the_callers_does():
    mine = [{"id": "a", "text": "before", "metadata": {"tags": ["x"]}}]
    value = VectorIndex.from_vectors(rows(1), mine, embedding=SPEC)
    mine[0]["metadata"]["tags"].append("y")
    assert value.documents[0].metadata == {"tags": ["x"]}
    value.documents[0].metadata["tags"].append("z")
    assert value.documents[0].metadata == {"tags": ["x"]}


# --- build


def test_build_embeds_the_documents_and_keeps_what_it_was_told():
    embedder = DeterministicFakeEmbedding(size=6)
    value = VectorIndex.build(
        texts(30),
        embeddings=embedder,
        model="fake",
        metric="l2",
        index="IVF4,Flat",
        nprobe=4,
        chunking={"by": "line"},
        batch_size=7,
    )
    assert value.embedding == EmbeddingSpec("fake", 6, "l2")
    found = value.search(embedder.embed_documents(["text 11"]), 1).documents[0][0]
    assert found.text == "text 11"
    assert dict(value.chunking) == {"by": "line"}
    assert [p.side for p in value.probes.file.texts] == ["document"] * 8 + ["query"] * 2


def test_build_notes_whether_the_vectors_have_unit_length_and_scales_them_if_asked():
    embedder = DeterministicFakeEmbedding(size=6)
    assert not VectorIndex.build(["a", "b"], embeddings=embedder, model="m").embedding.normalized
    scaled = VectorIndex.build(["a", "b"], embeddings=embedder, model="m", normalize=True)
    assert scaled.embedding.normalized
    assert scaled.search(embedder.embed_query("a"), 1).scores[0][0] == pytest.approx(1, abs=1e-6)

    class Unit(DeterministicFakeEmbedding):
        def embed_query(self, text):
            return unit(np.array([super().embed_query(text)]))[0].tolist()

        def embed_documents(self, batch):
            return [self.embed_query(text) for text in batch]

    assert VectorIndex.build(["a", "b"], embeddings=Unit(size=6), model="m").embedding.normalized
    assert not VectorIndex.build(["a"], embeddings=Unit(size=6), model="m", normalize=False).embedding.normalized


class Broken:
    def __init__(self, answer):
        self.answer = answer

    def embed_documents(self, batch):
        return self.answer(batch)

    def embed_query(self, text):
        return self.answer([text])[0]


def boom(_):
    raise ConnectionError("no route to host")


@pytest.mark.parametrize(
    ("answer", "kind", "match"),
    [
        (boom, Unreachable, "documents 0 to 19: ConnectionError: no route"),
        (lambda batch: [[1.0, float("nan")] for _ in batch], InvalidValue, "answer for documents 0 to 19.*NaN"),
        (lambda batch: [[1.0, 2.0]], InvalidValue, "gave 1 vectors for documents 0 to 19"),
        (lambda batch: [[1.0] * (1 + i % 2) for i, _ in enumerate(batch)], InvalidValue, "different lengths"),
        (lambda batch: None, InvalidValue, "answer for documents"),
    ],
)
def test_an_embedder_that_fails_is_a_typed_error(answer, kind, match):
    with pytest.raises(kind, match=match):
        VectorIndex.build(texts(), embeddings=Broken(answer), model="m")


def test_a_bad_recipe_is_refused_after_one_batch_not_after_a_night():
    calls = []

    def count(batch):
        calls.append(len(batch))
        return [[1.0, 2.0] for _ in batch]

    with pytest.raises(InvalidValue, match="nonsense"):
        VectorIndex.build(texts(), embeddings=Broken(count), model="m", index="nonsense", batch_size=5)
    assert calls == [5]
    with pytest.raises(InvalidValue, match="needs the name of its model"):
        VectorIndex.build(texts(), embeddings=Broken(count), model="")
    with pytest.raises(InvalidValue, match="no embedder"):
        VectorIndex.build(texts(), embeddings=object(), model="m")
    assert calls == [5]


# --- from_faiss


def flat(metric=faiss.METRIC_L2, matrix=None):
    made = faiss.IndexFlat(4, metric)
    made.add(rows() if matrix is None else matrix)
    return made


L2 = EmbeddingSpec("toy", 4, "l2")


def test_from_faiss_takes_an_index_or_its_file_and_a_later_change_does_not_reach_it(tmp_path):
    mine = flat()
    file = tmp_path / "index.faiss"
    faiss.write_index(mine, str(file))
    for given in (mine, file, str(file), tmp_path):
        value = VectorIndex.from_faiss(given, texts(), embedding=L2)
        assert value.search(rows()[3], 1).documents[0][0].text == "text 3"
    file.write_bytes(b"")
    mine.reset()
    assert value.search(rows()[3], 1).documents[0][0].text == "text 3"
    assert value.factory == "Flat"


@pytest.mark.parametrize(
    ("spec", "field"), [(EmbeddingSpec("m", 5, "l2"), "embedding.dimension"), (SPEC, "embedding.metric")]
)
def test_an_index_of_another_dimension_or_metric_than_its_embedding_is_refused(spec, field):
    with pytest.raises(InvalidValue) as caught:
        VectorIndex.from_faiss(flat(), texts(), embedding=spec)
    assert caught.value.field == field


def test_from_faiss_finds_nan_and_wrong_lengths_inside_the_index():
    matrix = rows()
    matrix[5, 1] = np.nan
    with pytest.raises(InvalidValue, match="position 5"):
        VectorIndex.from_faiss(flat(matrix=matrix), texts(), embedding=L2)
    with pytest.raises(InvalidValue, match="normalized"):
        VectorIndex.from_faiss(flat(), texts(), embedding=EmbeddingSpec("m", 4, "l2", normalized=True))
    lists = faiss.index_factory(4, "IVF2,Flat")
    lists.train(rows())
    lists.add(rows())
    with pytest.raises(InvalidValue, match="normalized"):
        VectorIndex.from_faiss(lists, texts(), embedding=EmbeddingSpec("m", 4, "l2", normalized=True))


def test_what_is_no_index_is_refused(tmp_path):
    for given, match in (
        (object(), "is no FAISS index"),
        (tmp_path / "absent.faiss", "there is no index file"),
        (tmp_path, "there is no index file"),
        (faiss.IndexFlatL2(4), "the index is empty"),
    ):
        with pytest.raises(InvalidValue, match=match):
            VectorIndex.from_faiss(given, texts(), embedding=L2)
    (tmp_path / "junk.faiss").write_bytes(b"not an index")
    with pytest.raises(UnsafeContent):
        VectorIndex.from_faiss(tmp_path / "junk.faiss", texts(), embedding=L2)
    with pytest.raises(InvalidValue, match="needs its documents"):
        VectorIndex.from_faiss(flat(), embedding=L2)


def test_an_id_map_gives_the_documents_their_order_and_a_search_finds_them():
    ids = np.random.default_rng(1).integers(0, 2**62, 20)
    for factory in ("IDMap,Flat", "IDMap2,Flat", "IDMap,HNSW8"):
        mine = faiss.index_factory(4, factory)
        mine.add_with_ids(rows(), ids)
        value = VectorIndex.from_faiss(mine, texts(), embedding=L2)
        assert [d.text for (d,) in value.search(rows(), 1).documents] == texts()


def test_lists_with_ids_of_their_own_need_the_ids_of_the_documents():
    ids = np.random.default_rng(1).integers(0, 2**62, 20)
    mine = faiss.index_factory(4, "IVF3,Flat")
    mine.train(rows())
    mine.add_with_ids(rows(), ids)
    with pytest.raises(InvalidValue, match="ids of its own") as caught:
        VectorIndex.from_faiss(mine, texts(), embedding=L2)
    assert caught.value.field == "faiss_ids"
    value = VectorIndex.from_faiss(mine, texts(), embedding=L2, faiss_ids=ids.tolist())
    assert [d.text for (d,) in value.search(rows(), 1, nprobe=3).documents] == texts()
    for wrong in (ids[:-1], np.arange(20), ["a"] * 20, [2**70] * 20):
        with pytest.raises(InvalidValue) as caught:
            VectorIndex.from_faiss(mine, texts(), embedding=L2, faiss_ids=wrong)
        assert caught.value.field == "faiss_ids"


def test_ids_that_come_twice_inside_the_index_are_refused():
    mine = faiss.index_factory(4, "IDMap,Flat")
    mine.add_with_ids(rows(), np.array([*range(19), 3]))
    with pytest.raises(InvalidValue, match="the id 3 twice"):
        VectorIndex.from_faiss(mine, texts(), embedding=L2)


def test_documents_probes_are_read_from_an_index_that_keeps_its_vectors():
    for factory in ("Flat", "IVF3,Flat", "IDMap,Flat", "HNSW8", "IVF3,SQ8,RFlat"):
        mine = faiss.index_factory(4, factory)
        mine.train(rows())
        mine.add_with_ids(rows(), np.arange(20) + 5) if "IDMap" in factory else mine.add(rows())
        value = VectorIndex.from_faiss(mine, texts(), embedding=L2, probes="documents")
        known = dict(zip(texts(), rows(), strict=True))
        for probe, vector in zip(value.probes.file.texts, value.probes.text_vectors, strict=True):
            assert np.array_equal(vector, known[probe.text]), factory
    codes = faiss.index_factory(4, "SQ8")
    codes.train(rows())
    codes.add(rows())
    with pytest.raises(InvalidValue, match="keeps no vectors") as caught:
        VectorIndex.from_faiss(codes, texts(), embedding=L2, probes="documents")
    assert caught.value.field == "probes"
    own = {"one": [1.0, 0, 0, 0]}
    assert VectorIndex.from_faiss(codes, texts(), embedding=L2, probes=own).probes.file.texts[0].text == "one"


def test_importing_the_classes_imports_no_heavy_library():
    code = (
        "import sys; from llmartifacts.kinds.vector_index import config, kind, value\n"
        "assert not {'numpy', 'faiss', 'langchain_core'} & set(sys.modules), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONWARNINGS": "error"})
