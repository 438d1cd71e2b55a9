"""Real inputs that nobody here wrote, through the whole registry, compared with the originals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest

import llmartifacts as la
from llmartifacts import errors

FLASK = ("1.1.0", "2.0.0", "2.2.0", "2.3.0", "3.1.0")


@pytest.fixture
def registry(tmp_path: Path) -> la.Registry:
    return la.init(tmp_path / "registry")


class ByText:
    """Embeddings that look a text up among vectors that are known."""

    def __init__(self, vectors: dict[str, Any]) -> None:
        self.vectors = vectors

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(t) for t in texts]

    def embed_query(self, text: str) -> list[float]:
        return [float(x) for x in self.vectors[text]]


@dataclass(frozen=True)
class Flask:
    version: str
    chunks: list[dict[str, Any]]
    vectors: Any


@pytest.fixture(scope="session")
def flask(shared_data: Path) -> list[Flask]:
    import numpy as np

    base = shared_data / "corpora" / "flask_docs"
    everything = np.load(base / "embeddings.npy", allow_pickle=False)
    made = []
    for version in FLASK:
        lines = (base / f"{version}.chunks.jsonl").read_text(encoding="utf-8").splitlines()
        chunks = [json.loads(line) for line in lines]
        made.append(Flask(version, chunks, everything[[c["row"] for c in chunks]]))
    return made


def _index(docs: Flask, **more: Any) -> la.VectorIndex:
    documents = [
        {"id": c["id"], "text": c["text"], "metadata": {"source": c["source"], "heading": c["heading"]}}
        for c in docs.chunks
    ]
    spec = la.EmbeddingSpec("sentence-transformers/all-MiniLM-L6-v2", dimension=384, normalized=True)
    return la.VectorIndex.from_vectors(docs.vectors, documents, embedding=spec, probes="documents", **more)


def _exact(docs: Flask, query: Any, k: int) -> tuple[list[str], list[float]]:
    import faiss
    import numpy as np

    flat = faiss.IndexFlatIP(384)
    flat.add(docs.vectors)
    scores, rows = flat.search(np.ascontiguousarray(query[None, :]), k)
    return [docs.chunks[r]["id"] for r in rows[0]], [float(s) for s in scores[0]]


def test_five_releases_of_a_documentation_become_five_versions_and_prod_moves_and_rolls_back(
    registry: la.Registry, flask: list[Flask]
) -> None:
    for docs in flask:
        source = registry.log("flask-docs", la.Files({"release.txt": docs.version.encode()}))
        registry.log("flask-kb", _index(docs), inputs=str(source), tags={"release": docs.version})
    assert [v.number for v in registry.versions("flask-kb")] == [5, 4, 3, 2, 1]
    assert registry.log("flask-kb", _index(flask[2])).number == 3, "the same index again is the same version"

    served = []
    for number in (1, 2, 3, 4, 5):
        registry.promote(f"flask-kb:v{number}", to="prod", reason=f"release {number}")
        served.append(_served(registry, flask[number - 1]))
    assert served == sorted(served)
    for number in (4, 3, 2, 1):
        registry.rollback("flask-kb:prod", reason="back")
        assert _served(registry, flask[number - 1]) == number


def _served(registry: la.Registry, docs: Flask) -> int:
    """Number of the version that `prod` serves, once its retriever was seen to answer as FAISS alone does."""
    index = registry.resolve("flask-kb:prod", la.VectorIndex)
    rows = range(0, len(docs.chunks), 97)
    embeddings = ByText({f"query {r}": docs.vectors[r] for r in rows} | {c["text"]: v for c, v in _texts(docs)})
    retriever = index.as_retriever(embeddings, search_kwargs={"k": 7})
    store = index.as_vectorstore(embeddings)
    for row in rows:
        ids, scores = _exact(docs, docs.vectors[row], 7)
        found = retriever.invoke(f"query {row}")
        assert [d.id for d in found] == ids
        scored = store.similarity_search_with_score(f"query {row}", k=7)
        assert [float(s) for _, s in scored] == pytest.approx(scores, abs=1e-6)
        assert found[0].page_content == docs.chunks[[c["id"] for c in docs.chunks].index(ids[0])]["text"]
    return registry.get("flask-kb:prod").number


def _texts(docs: Flask) -> Sequence[tuple[dict[str, Any], Any]]:
    return list(zip(docs.chunks, docs.vectors, strict=True))


@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.matrix)])
def test_every_real_template_is_logged_and_comes_back_the_same(
    registry: la.Registry, shared_data: Path, step: int
) -> None:
    chat = sorted((shared_data / "prompts" / "chat_templates").glob("*.jinja"))
    lines = (shared_data / "prompts" / "promptsource.flat.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1102
    lines = lines[::step]
    texts = [("chat", file.read_text(encoding="utf-8")) for file in chat]
    texts += [("promptsource", json.loads(line)["jinja"]) for line in lines]
    prompts = [(name, la.Prompt(text, template_format="jinja2")) for name, text in texts]
    assert len(prompts) == 20 + len(lines)
    versions = registry.log_many(prompts)
    assert registry.verify(read_data=True).ok
    with la.connect(registry.backend.location) as fresh:
        for (name, prompt), version in zip(prompts, versions, strict=True):
            if version.number % 50 == 1 or name == "chat":
                back = fresh.resolve(f"{name}:v{version.number}", la.Prompt)
                assert back == prompt
    distinct = {json.loads(line)["jinja"] for line in lines}
    assert registry.get("promptsource").number <= len(lines)
    assert len(registry.versions("promptsource")) == len(distinct), "the same template is one version"


@pytest.mark.parametrize("which", ["multimodal-decoder-with-input-ids", "marian-batch", "engine/dummy-decoder"])
def test_a_real_onnx_bundle_is_logged_resolved_and_an_altered_file_is_named(
    registry: la.Registry, shared_data: Path, which: str
) -> None:
    folder = shared_data / "bundles" / "onnxruntime_genai" / which
    paths = sorted(p for p in folder.rglob("*") if p.is_file())
    model = la.ModelSpec("onnxruntime", which, files={p.relative_to(folder).as_posix(): p for p in paths})
    registry.log("model", la.Bundle(models={"llm": model}), aliases="prod")
    bundle = registry.resolve("model:prod", la.Bundle)
    for path in paths:
        name = path.relative_to(folder).as_posix()
        assert Path(bundle.models["llm"].files[name]).read_bytes() == path.read_bytes()

    manifest = registry.find("model:prod").manifest
    victim = next(f for f in manifest.files if f.path.endswith(".onnx"))
    stored = next(
        p for p in Path(registry.backend.location, "blobs").rglob("*") if victim.digest[7:] in p.name and p.is_file()
    )
    stored.chmod(0o644)
    stored.write_bytes(stored.read_bytes()[:-1] + b"\0")
    with la.connect(registry.backend.location) as fresh, pytest.raises(errors.Damaged) as caught:
        for path in fresh.resolve("model:prod", la.Bundle).models["llm"].files.values():
            Path(path).read_bytes()
    assert victim.path in str(caught.value)
    assert caught.value.versions == ("model:v1",)
    stored.unlink()
    with la.connect(registry.backend.location) as fresh, pytest.raises(errors.BlobMissing):
        fresh.resolve("model:prod", la.Bundle)


def test_an_index_of_another_dimension_is_refused_by_the_rule_and_another_embedder_by_its_probes(
    registry: la.Registry, flask: list[Flask], shared_data: Path
) -> None:
    docs = flask[0]
    registry.log("kb", _index(docs))
    wrong = la.ModelSpec(
        "sentence-transformers", "sentence-transformers/all-MiniLM-L6-v2", parameters={"dimension": 768}
    )
    with pytest.raises(errors.Incompatible, match="384"):
        registry.log("stack", la.Bundle(components={"index": "kb:v1"}, models={"embedder": wrong}))
    assert [c.name for c in registry.collections()] == ["kb"]

    texts = {c["text"]: v for c, v in _texts(docs)}
    other = {t: [*v[1:], v[0]] for t, v in texts.items()}  # the same dimension, another space
    loaded = registry.resolve("kb:v1", la.VectorIndex)
    loaded.as_retriever(ByText(texts))
    with pytest.raises(errors.Incompatible, match="another vector"):
        loaded.as_retriever(ByText(other))


def test_a_service_starts_from_real_components_and_names_them(registry: la.Registry, flask: list[Flask]) -> None:
    registry.log("agent", la.Prompt("{{ context }} {{ question }}", template_format="jinja2"))
    registry.log("kb", _index(flask[4]))
    registry.promote(["agent:v1", "kb:v1"], to="prod")

    @dataclass(frozen=True)
    class Support:
        agent: Annotated[la.Prompt, "agent:prod"]
        kb: Annotated[la.VectorIndex, "kb:prod"]

    with la.Resolver(Support, registry=registry) as resolver:
        generation = resolver.current
        hits = generation.value.kb.search(flask[4].vectors[:2], k=3)
        assert hits.ids[0][0] == _exact(flask[4], flask[4].vectors[0], 1)[0][0]
        assert "agent:v1" in generation.stamp()
        assert "kb:v1" in generation.stamp()
