"""Reading an index from files, as `llmartifacts log vector_index NAME SOURCE…` does."""

import json

import faiss
import numpy as np
import pytest

from llmartifacts.errors import InvalidValue, UnsafeContent
from llmartifacts.kinds.vector_index.config import EmbeddingSpec
from llmartifacts.kinds.vector_index.kind import VectorIndexKind
from llmartifacts.testing.kinds import pack

KIND = VectorIndexKind()
MODEL = {"model": "m"}


def rows(count=30, dimension=8):
    made = np.random.default_rng(0).standard_normal((count, dimension)).astype("f4")
    return made / np.linalg.norm(made, axis=1, keepdims=True)


@pytest.fixture
def folder(tmp_path):
    """Documents, and room for an index or vectors."""
    lines = (json.dumps({"id": f"d{i}", "text": f"text {i}", "metadata": {"n": i}}) for i in range(30))
    (tmp_path / "documents.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "README.md").write_text("not a part of it")
    return tmp_path


def with_index(folder, metric=faiss.METRIC_INNER_PRODUCT, factory="Flat"):
    index = faiss.index_factory(8, factory, metric)
    index.train(rows())
    index.add(rows())
    faiss.write_index(index, str(folder / "index.faiss"))
    return folder


def with_vectors(folder, vectors=None):
    np.save(folder / "vectors.npy", rows() if vectors is None else vectors)
    return folder


def refused(paths, options, match=None, kind=InvalidValue):
    with pytest.raises(kind, match=match) as caught:
        KIND.read_source(paths, options)
    return caught.value


def test_a_folder_with_an_index_and_documents_is_read(folder):
    value = KIND.read_source([with_index(folder)], MODEL)
    assert value.embedding == EmbeddingSpec("m", 8, "inner_product", normalized=True)
    assert value.search(rows()[4], 1).ids.tolist() == [["d4"]]
    squared = KIND.read_source([with_index(folder, faiss.METRIC_L2, "IVF4,Flat")], MODEL)
    assert squared.embedding == EmbeddingSpec("m", 8, "l2", normalized=True)
    codes = KIND.read_source([with_index(folder, factory="SQ8")], MODEL)
    assert codes.embedding.normalized is False, "what cannot be read from codes is not claimed"


def test_a_folder_with_vectors_and_documents_is_indexed(folder):
    value = KIND.read_source(
        [with_vectors(folder)], {**MODEL, "index": "IVF4,Flat", "metric": "l2", "probes": "documents"}
    )
    assert (value.factory, value.embedding.metric, value.embedding.normalized) == ("IVF4,Flat", "l2", True)
    assert len(value.probes.file.texts) == 8
    tuned = KIND.read_source([folder], {**MODEL, "index": "IVF4,Flat", "nprobe": "3"})
    assert tuned.mapped.layout.nprobe == 3
    for text in ("three", "-1", "", "9" * 20):
        assert refused([folder], {**MODEL, "index": "IVF4,Flat", "nprobe": text}).field == "nprobe"
    plain = KIND.read_source([with_vectors(folder, 2 * rows())], MODEL)
    assert (plain.factory, plain.embedding.normalized) == ("Flat", False)


def test_the_files_may_have_any_names(folder):
    with_index(folder)
    index, documents = folder / "kb.faiss", folder / "passages.jsonl"
    (folder / "index.faiss").rename(index)
    (folder / "documents.jsonl").rename(documents)
    assert KIND.read_source([documents, index], MODEL).count == 30


def test_a_version_that_was_pulled_can_be_logged_again(folder, tmp_path_factory):
    value = KIND.read_source([with_index(folder)], {**MODEL, "probes": "documents"})
    manifest, files = pack(KIND, value)
    pulled = tmp_path_factory.mktemp("pulled")
    for path in files.paths():
        (pulled / path).write_bytes(files.read(path))
    again = KIND.read_source([pulled], {**MODEL, "probes": "documents"})
    assert pack(KIND, again)[0].digest == manifest.digest


def test_a_link_to_an_index_is_followed_for_the_user(folder, tmp_path_factory):
    """Model caches keep files as links to their contents."""
    elsewhere = tmp_path_factory.mktemp("links")
    with_index(folder)
    for name in ("index.faiss", "documents.jsonl"):
        (elsewhere / name).symlink_to(folder / name)
    assert KIND.read_source([elsewhere], MODEL).count == 30


def test_the_model_is_asked_for(folder):
    error = refused([with_index(folder)], {}, "which embedder")
    assert error.field == "model"
    assert "--option model=" in error.hint()


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"dimension": "9"}, "dimension"),
        ({"dimension": "eight"}, "dimension"),
        ({"metric": "cosine"}, "metric"),
        ({"metric": "l2"}, "embedding.metric"),
        ({"normalized": "yes"}, "normalized"),
        ({"probes": "all"}, "probes"),
        ({"index": "Flat"}, "index"),
        ({"nprobe": "4"}, "nprobe"),
        ({"ef_search": "4"}, "ef_search"),
        ({"chunk": "1"}, "chunk"),
    ],
)
def test_a_bad_option_is_named(folder, options, field):
    with_index(folder)
    paths = [folder / "index.faiss", folder / "documents.jsonl"]
    assert refused(paths, {**MODEL, **options}).field == field
    assert refused([folder], {**MODEL, **options}).field == field


def test_claiming_unit_length_for_vectors_without_it_is_refused(folder):
    refused([with_vectors(folder, 2 * rows())], {**MODEL, "normalized": "true"}, "row 0 has length 2")
    assert KIND.read_source([with_vectors(folder)], {**MODEL, "normalized": "false"}).embedding.normalized is False


def test_what_is_missing_or_too_many_is_said(folder):
    refused([folder], MODEL, "neither an index nor vectors")
    refused([folder / "absent"], MODEL, "no such file")
    refused([folder / "README.md"], MODEL, "of no known type")
    with_vectors(with_index(folder))
    refused([folder], MODEL, "both an index and vectors")
    (folder / "vectors.npy").unlink()
    (folder / "second.jsonl").write_text("{}")
    refused([folder], MODEL, "2 .jsonl files")
    (folder / "second.jsonl").unlink()
    (folder / "documents.jsonl").unlink()
    assert '"text"' in refused([folder], MODEL, "the documents are missing").hint()


def test_damaged_files_are_named(folder):
    (folder / "index.faiss").write_bytes(b"junk")
    refused([folder], MODEL, "not a FAISS index", UnsafeContent)
    (folder / "index.faiss").unlink()
    for body in (b"", b"junk", b"\x93NUMPY\x01\x00", b"\x93NUMPY" + bytes(200)):
        (folder / "vectors.npy").write_bytes(body)
        assert refused([folder], MODEL, "vectors.npy").field == "vectors"
    np.save(folder / "vectors.npy", np.full((30, 8), np.nan))
    assert refused([folder], MODEL, "row 0").origin == "vectors.npy"
    np.save(folder / "vectors.npy", rows(29))
    refused([folder], MODEL, "30 documents for 29 vectors")
