"""Pack, unpack, diff, summary; and what `unpack` says of artifacts that nobody packed."""

import contextlib
import json

import faiss
import numpy as np
import pytest

from llmartifacts.errors import InvalidValue, LlmartifactsError, UnsafeContent
from llmartifacts.kinds.vector_index.config import EmbeddingSpec
from llmartifacts.kinds.vector_index.kind import VectorIndexKind
from llmartifacts.kinds.vector_index.value import VectorIndex
from llmartifacts.records.digest import digest_of, parse_digest
from llmartifacts.testing.kinds import check_kind, pack

KIND = VectorIndexKind()
SPEC = EmbeddingSpec("toy", 8, normalized=True)


def vectors(count=60, seed=0, dimension=8):
    made = np.random.default_rng(seed).standard_normal((count, dimension)).astype("f4")
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def documents(count=60, **changed):
    made = [{"id": f"d{i}", "text": f"passage {i}", "metadata": {"page": i}} for i in range(count)]
    for key, text in changed.items():
        made[int(key[1:])]["text"] = text
    return made


def index(**more):
    given = {"embedding": SPEC, "probes": "documents", **more}
    return VectorIndex.from_vectors(given.pop("vectors", vectors()), given.pop("documents", documents()), **given)


def test_a_vector_index_keeps_the_contract_of_kinds():
    own = faiss.IndexFlatIP(8)
    own.add(vectors())
    check_kind(
        KIND,
        [
            index(),
            index(vectors=vectors().tolist()),
            VectorIndex.from_faiss(own, documents(), embedding=SPEC, probes="documents"),
        ],
        [
            index(vectors=vectors(seed=1)),
            index(documents=documents(d3="another text")),
            index(embedding=EmbeddingSpec("another", 8, normalized=True)),
            index(embedding=EmbeddingSpec("toy", 8)),
            index(embedding=EmbeddingSpec("toy", 8, metric="l2", normalized=True)),
            index(index="IVF4,Flat"),
            index(index="IVF4,Flat", nprobe=3),
            index(index="HNSW8", ef_search=40),
            index(probes=None),
            index(chunking={"size": 800}),
            index(corpus=digest_of(b"corpus")),
        ],
    )


@pytest.mark.parametrize("factory", ["Flat", "IVF4,Flat", "IVF4,SQ8", "HNSW8", "IDMap,Flat", "PCA4,IVF4,Flat"])
def test_what_is_unpacked_answers_exactly_as_what_was_packed(factory):
    value = index(index=factory)
    manifest, files = pack(KIND, value)
    loaded = KIND.unpack(manifest.config, files)
    asked = vectors(seed=7)
    before, after = value.search(asked, 5), loaded.search(asked, 5)
    assert before.ids.tolist() == after.ids.tolist()
    assert before.scores.tobytes() == after.scores.tobytes()
    assert before.documents == after.documents
    assert (loaded.embedding, loaded.factory, loaded.fields) == (SPEC, factory, ("page",))
    assert loaded.check_embeddings(Same(value)) == []


class Same:
    """An embedder that knows the documents of an index, and their vectors as they went in."""

    def __init__(self, value, made=None):
        self.known = dict(zip((d.text for d in value.documents), vectors() if made is None else made, strict=True))

    def embed_documents(self, texts):
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text):
        return self.known[text].tolist()


def test_the_same_content_gives_the_same_bytes_for_trained_types_too():
    many = vectors(600)
    texts = documents(600)
    for factory in ("IVF8,Flat", "HNSW8", "IVF8,SQ8", "IVF8,PQ4x4"):
        digests = {pack(KIND, index(vectors=many, documents=texts, index=factory))[0].digest for _ in range(2)}
        assert len(digests) == 1, factory
    seeds = {pack(KIND, index(vectors=many, documents=texts, index="IVF8,Flat", seed=s))[0].digest for s in (1, 2)}
    assert len(seeds) == 2, "the seed reaches the training"


def test_the_config_says_what_rules_and_people_read():
    manifest, _ = pack(KIND, index(index="IVF4,Flat", nprobe=2, chunking={"size": 9}, corpus=digest_of(b"")))
    size = manifest.file("index.faiss").size
    trained = manifest.config["index"]["trained"]
    assert parse_digest(trained)
    assert manifest.config == {
        "embedding": {"model": "toy", "dimension": 8, "metric": "inner_product", "normalized": True},
        "index": {
            "factory": "IVF4,Flat",
            "types": ["IwFl", "IwFl/IxFI"],
            "count": 60,
            "dimension": 8,
            "metric": "inner_product",
            "bytes": size,
            "nprobe": 2,
            "trained": trained,
        },
        "documents": {"count": 60, "fields": ["page"]},
        "probes": {"texts": 8, "queries": 8},
        "chunking": {"size": 9},
        "corpus": digest_of(b""),
    }
    assert KIND.summary(manifest.config) == "60 documents, IVF4,Flat, toy (8, cosine)"


# --- diff


def test_a_diff_speaks_of_documents_by_id_and_of_parameters_by_field():
    before, old = pack(KIND, index())
    changed = documents(d3="rewritten")
    changed[4]["metadata"] = {"page": 99}
    changed = [*changed[:10], *changed[11:], {"id": "new", "text": "fresh"}]
    after, new = pack(KIND, index(documents=changed, index="HNSW8"))
    found = KIND.diff(before, after, (old, new))
    told = {c.path: (c.op, c.before, c.after) for c in found.changes}
    assert told["documents/d3"] == ("changed", "passage 3", "rewritten")
    assert told["documents/d4/metadata"] == ("changed", {"page": 4}, {"page": 99})
    assert told["documents/d10"] == ("removed", "passage 10", None)
    assert told["documents/new"] == ("added", None, "fresh")
    assert told["index.factory"] == ("changed", "Flat", "HNSW8")
    assert {k: v for k, v in found.numbers.items() if k.startswith("documents_")} == {
        "documents_added": 1,
        "documents_removed": 1,
        "documents_changed": 2,
    }
    assert "files/documents.jsonl" not in told


def test_vectors_that_change_alone_are_a_difference():
    before, old = pack(KIND, index())
    after, new = pack(KIND, index(vectors=vectors(seed=3), probes=None))
    found = KIND.diff(before, after, (old, new))
    assert "files/index.faiss" in {c.path for c in found.changes}
    assert not any(c.path.startswith("documents/") for c in found.changes)


def test_documents_that_only_change_places_are_a_difference():
    before, old = pack(KIND, index())
    after, new = pack(KIND, index(documents=documents()[::-1], vectors=vectors()[::-1]))
    found = KIND.diff(before, after, (old, new))
    assert found.numbers["documents_moved"] == 60
    assert found


# --- artifacts that nobody packed


@pytest.fixture
def packed():
    return pack(KIND, index(index="IVF4,Flat"))


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("index.faiss", "files.index.faiss"),
        ("documents.jsonl", "files.documents.jsonl"),
        ("documents.lengths", "files.documents.lengths"),
        ("probes.json", "files.probes.json"),
        ("probes.f32", "files.probes.f32"),
    ],
)
def test_a_missing_file_is_named(packed, path, field):
    manifest, files = packed
    with pytest.raises(InvalidValue, match="missing") as caught:
        KIND.unpack(manifest.config, files.replaced(path, None))
    assert caught.value.field == field


def test_a_file_too_many_is_named(packed):
    manifest, files = packed
    with pytest.raises(InvalidValue, match=r"index\.pkl is unknown"):
        KIND.unpack(manifest.config, files.replaced("index.pkl", b"\x80\x04."))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("types", ["IxFI"]),
        ("count", 61),
        ("dimension", 9),
        ("metric", "l2"),
        ("bytes", 1),
        ("nprobe", 7),
        ("ef_search", 16),
    ],
)
def test_an_index_that_is_not_what_its_manifest_says_is_refused(packed, key, value):
    manifest, files = packed
    config = json.loads(json.dumps(manifest.config))
    config["index"][key] = value
    if key in ("dimension", "metric"):
        config["embedding"][key] = value
    if key == "count":
        config["documents"]["count"] = value
    with pytest.raises(InvalidValue, match="the manifest says") as caught:
        KIND.unpack(config, files)
    assert caught.value.field == f"config.index.{key}"


def test_a_config_that_contradicts_itself_is_refused(packed):
    manifest, _ = packed
    for part, key, value in (("embedding", "dimension", 9), ("embedding", "metric", "l2"), ("documents", "count", 2)):
        config = {**manifest.config, part: {**manifest.config[part], key: value}}
        assert KIND.check(config), (part, key)


def test_another_index_of_the_same_shape_fails_the_query_probes(packed):
    manifest, files = packed
    other = pack(KIND, index(index="IVF4,Flat", vectors=vectors(seed=5)))[1].read("index.faiss")
    with pytest.raises(InvalidValue, match="other neighbours than when it was logged") as caught:
        KIND.unpack(manifest.config, files.replaced("index.faiss", other))
    assert caught.value.field.startswith("probes.json.queries[")


def test_documents_of_another_number_are_refused(packed):
    manifest, files = packed
    lines = files.read("documents.jsonl").splitlines(keepends=True)[:-1]
    sizes = b"".join(len(line).to_bytes(4, "little") for line in lines)
    cut = files.replaced("documents.jsonl", b"".join(lines)).replaced("documents.lengths", sizes)
    with pytest.raises(InvalidValue, match="59 documents, not 60"):
        KIND.unpack(manifest.config, cut)


@pytest.mark.parametrize("window", [[0, 2**40], [5, 5], [60, 3]])
def test_hostile_probes_are_refused_in_a_typed_way(packed, window):
    manifest, files = packed
    body = json.loads(files.read("probes.json"))
    body["queries"][0]["window"] = window
    with contextlib.suppress(LlmartifactsError):
        KIND.unpack(manifest.config, files.replaced("probes.json", json.dumps(body).encode()))
    body["queries"] = body["queries"] * 20
    with pytest.raises(InvalidValue, match="malformed"):
        KIND.unpack(manifest.config, files.replaced("probes.json", json.dumps(body).encode()))


def test_a_pickle_in_the_place_of_the_index_is_never_parsed_by_faiss(packed):
    manifest, files = packed
    with pytest.raises(UnsafeContent, match="not a FAISS index that can be opened safely"):
        KIND.unpack(manifest.config, files.replaced("index.faiss", b"\x80\x04\x95" + bytes(400)))
