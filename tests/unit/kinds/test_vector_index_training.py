"""What an index learnt: its digest, taking it over into a new index, and saying aloud that it was learnt anew."""

import json
import warnings

import numpy as np
import pytest

import llmartifacts as la
from llmartifacts.errors import Incompatible, InvalidValue, NotFound, WrongKind
from llmartifacts.kinds.vector_index.config import EmbeddingSpec
from llmartifacts.kinds.vector_index.kind import VectorIndexKind
from llmartifacts.kinds.vector_index.training import trained_digest
from llmartifacts.kinds.vector_index.value import VectorIndex
from llmartifacts.records.digest import parse_digest
from llmartifacts.records.manifest import Manifest
from llmartifacts.testing.kinds import pack

KIND = VectorIndexKind()
SPEC = EmbeddingSpec("toy", 16, metric="l2")
LEARNS = [
    "IVF8,Flat",
    "IVF8,SQ8",
    "IVF8,PQ4x4",
    "SQ8",
    "PQ4x4",
    "HNSW8,SQ8",
    "PCA8,Flat",
    "OPQ4_8,IVF8,PQ4x4",
    "RR8,SQ8",
]
LEARNS += ["IVF8_HNSW8,Flat", "IDMap2,IVF8,SQ8,RFlat", "IVF8,PQ4x4,Refine(SQ8)"]
LEARNS_NOTHING = ["Flat", "HNSW8", "IDMap,Flat", "L2norm,Flat", "SQfp16"]


def rows(count=300, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 16)).astype("f4")


def made(vectors=None, index="IVF8,Flat", embedding=SPEC, **more):
    vectors = rows() if vectors is None else vectors
    return VectorIndex.from_vectors(
        vectors, [f"text {i}" for i in range(len(vectors))], embedding=embedding, index=index, **more
    )


# --- the digest


@pytest.mark.parametrize("factory", LEARNS)
def test_the_digest_is_that_of_what_was_learnt_and_of_nothing_else(factory):
    one = made(index=factory)
    digest = trained_digest(one.faiss)
    assert parse_digest(digest)
    assert digest == trained_digest(made(rows()[:50] + 1, index=factory, train_from=one).faiss), "other vectors, frozen"
    assert digest != trained_digest(made(rows(seed=1), index=factory).faiss), "trained anew"
    manifest, files = pack(KIND, one)
    assert manifest.config["index"]["trained"] == digest
    assert trained_digest(KIND.unpack(manifest.config, files).faiss) == digest, "read from the mapped file"


@pytest.mark.parametrize("factory", LEARNS_NOTHING)
def test_an_index_that_learns_nothing_has_no_such_digest(factory):
    one = made(index=factory)
    assert trained_digest(one.faiss) is None
    assert "trained" not in pack(KIND, one)[0].config["index"]


def test_a_manifest_of_before_this_field_still_opens():
    manifest, files = pack(KIND, made())
    config = json.loads(json.dumps(manifest.config))
    del config["index"]["trained"]
    assert KIND.check(config) == []
    assert KIND.unpack(config, files).count == 300
    config["index"]["trained"] = "no digest"
    assert KIND.check(config)[0].startswith("index.trained: ")


# --- train_from


@pytest.mark.parametrize("factory", [*LEARNS, *LEARNS_NOTHING])
def test_the_same_vectors_over_the_same_training_are_the_same_bytes(factory):
    one = made(index=factory)
    again = made(index=factory, train_from=one)
    assert bytes(again.mapped.data) == bytes(one.mapped.data)


def test_how_wide_a_search_looks_is_not_learnt():
    one = made(nprobe=5)
    assert made(train_from=one).mapped.layout.nprobe == 1
    assert made(train_from=one, nprobe=3).mapped.layout.nprobe == 3
    graph = made(index="HNSW8", ef_search=99)
    assert made(index="HNSW8", train_from=graph).mapped.layout.ef_search == 16


def test_fewer_vectors_than_lists_will_do_where_nothing_is_trained():
    with pytest.raises(InvalidValue, match="wants 8 lists for 3 vectors"):
        made(rows(3))
    assert made(rows(3), train_from=made(), nprobe=8).search(rows(3), 1).scores.max() == 0
    with pytest.raises(InvalidValue, match="lists"):
        made(index="IVF99999999,Flat", train_from=made())


def test_another_structure_or_space_is_refused_with_both_named():
    def refused(rule, match, train_from=None, **given):
        with pytest.raises(Incompatible, match=match) as caught:
            made(train_from=train_from or made(), **given)
        assert caught.value.field == "train_from"
        assert caught.value.problems[0].startswith(f"{rule}: ")

    refused("index-structure", "8 lists.* where the new one has .*9 lists", index="IVF9,Flat")
    refused("index-structure", "IndexIVFFlat.*IndexIVFScalarQuantizer", index="IVF8,SQ8")
    refused("index-structure", "IndexIVFFlat.*IndexFlat", index="Flat")
    refused("index-structure", "IndexFlat.*IndexHNSWFlat", index="HNSW8", train_from=made(index="Flat"))
    refused("index-structure", "16 links.*32 links", index="HNSW16", train_from=made(index="HNSW8"))
    refused("index-structure", "pq.M=4.*pq.M=8", index="PQ8x4", train_from=made(index="PQ4x4"))
    refused("index-structure", "qtype", index="SQ4", train_from=made(index="SQ8"))
    refused("index-structure", "IndexPreTransform", index="IVF8,Flat", train_from=made(index="PCA16,IVF8,Flat"))
    refused("index-metric", "'l2'.*'inner_product'", embedding=EmbeddingSpec("toy", 16))
    refused("index-model", "'toy'.*'other'", embedding=EmbeddingSpec("other", 16, metric="l2"))
    refused("index-dimension", "16.*8", vectors=rows()[:, :8], embedding=EmbeddingSpec("toy", 8, metric="l2"))
    with pytest.raises(InvalidValue, match="neither an index nor a reference"):
        made(train_from=7)


def test_build_refuses_another_model_before_anything_is_embedded():
    class Untouched:
        def embed_documents(self, texts):
            raise AssertionError(texts)

        embed_query = embed_documents

    with pytest.raises(Incompatible, match="'other'"):
        VectorIndex.build(["a"], embeddings=Untouched(), model="other", metric="l2", train_from=made())


def test_a_reference_is_looked_up_in_the_registry_that_connect_finds(tmp_path, monkeypatch):
    monkeypatch.delenv("LLMARTIFACTS_REGISTRY", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFound, match=r"there is no \.llmartifacts/"):
        made(train_from="support-kb:prod")
    with la.init() as registry:
        registry.log("support-kb", made(), aliases=["prod"])
        registry.log("notes", la.Prompt("hello", template_format="f-string"))
    assert bytes(made(train_from="support-kb:prod").mapped.data) == bytes(made().mapped.data)
    again = made(rows(seed=5), train_from="support-kb:v1")
    assert trained_digest(again.faiss) == trained_digest(made().faiss)
    with pytest.raises(NotFound, match="v9"):
        made(train_from="support-kb:v9")
    with pytest.raises(WrongKind):
        made(train_from="notes:v1")


# --- said aloud


def packed(value) -> Manifest:
    return pack(KIND, value)[0]


def test_a_quantizer_that_was_trained_anew_is_said_aloud_with_what_it_costs():
    before, after = packed(made()), packed(made(rows(seed=1)))
    (said,) = KIND.remarks(before, after, {"index.faiss": 14_200_000, "documents.jsonl": 5})
    assert said.startswith("the quantizer was trained anew: 14 MB of new bytes are stored")
    assert "train_from" in said
    assert ".updated(...)" in said


def test_it_is_said_when_a_large_index_is_logged_and_not_when_it_was_updated(tmp_path):
    many = rows(20_000)
    first = made(many)
    with la.init(tmp_path / "registry") as registry:
        registry.log("kb", first)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            registry.log("kb", first.updated(add=["one more"], vectors=many[:1]))
        with pytest.warns(UserWarning, match=r"kb:v3: the quantizer was trained anew: .+ of new bytes"):
            registry.log("kb", made(many, seed=9))


def test_nothing_is_said_where_it_was_not_or_where_it_is_another_index():
    first = made()
    for other in (
        first.updated(remove=[first.documents[0].id]),
        made(rows(seed=1), train_from=first),
        made(index="IVF9,Flat"),
        made(index="Flat"),
    ):
        assert KIND.remarks(packed(first), packed(other), {"index.faiss": 1}) == []
    assert KIND.remarks(packed(made(index="Flat")), packed(made(rows(seed=1), index="Flat")), {}) == []


def test_a_version_that_does_not_say_what_it_learnt_is_no_difference():
    (before, old), (after, new) = pack(KIND, made()), pack(KIND, made())
    config = json.loads(json.dumps(before.config))
    del config["index"]["trained"]
    earlier = Manifest(before.kind, config, before.files)
    assert KIND.remarks(earlier, after, {}) == []
    assert not KIND.diff(earlier, after, (old, new))
