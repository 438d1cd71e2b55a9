import pytest

import llmartifacts as la
from llmartifacts.errors import (
    Damaged,
    Incompatible,
    Refused,
)
from llmartifacts.kinds.bundle import Bundle
from llmartifacts.kinds.files import Files
from llmartifacts.kinds.model import ModelSpec

LLM = ModelSpec("openai", "gpt-4-turbo")
COMPLETE = {
    "multimodal-decoder-with-input-ids": {"dummy_embedding.onnx", "dummy_text.onnx", "dummy_vision.onnx"},
    "marian-batch": {"decoder.onnx", "encoder.onnx"},
    "engine/dummy-decoder": {"decoder.onnx"},
}


@pytest.fixture
def registry(tmp_path):
    with la.init(tmp_path / "registry") as opened:
        yield opened


@pytest.mark.parametrize("name", COMPLETE)
def test_a_real_onnx_bundle_is_logged_and_resolved_and_logged_again_is_the_same_version(shared_data, registry, name):
    folder = shared_data / "bundles" / "onnxruntime_genai" / name
    first = registry.log("model", Bundle.from_folder(folder))
    again = registry.log("model", Bundle.from_folder(folder))
    assert (first.digest, again.created) == (again.digest, False)
    files = registry.resolve("model:v1", Bundle).model_files("llm")
    assert {path: files.read(path) for path in files} == {path: (folder / path).read_bytes() for path in files}
    assert registry.log("copy", registry.resolve("model:v1", Bundle)).digest == first.digest


@pytest.mark.parametrize("name", COMPLETE)
def test_one_altered_byte_of_a_stored_onnx_file_is_refused_when_resolved_and_the_file_named(
    shared_data, registry, tmp_path, monkeypatch, name
):
    version = registry.log("model", Bundle.from_folder(shared_data / "bundles" / "onnxruntime_genai" / name))
    wanted = sorted(COMPLETE[name])[0]
    descriptor = registry.find("model:v1").manifest.file(f"models/llm/{wanted}")
    (stored,) = [p for p in (tmp_path / "registry").rglob("*") if p.is_file() and descriptor.digest[7:] in p.name]
    stored.chmod(0o644)
    data = bytearray(stored.read_bytes())
    data[len(data) // 2] ^= 1
    stored.write_bytes(data)
    monkeypatch.setenv("LLMARTIFACTS_CACHE", str(tmp_path / "another-cache"))
    with la.connect(tmp_path / "registry") as opened, pytest.raises(Damaged, match=wanted) as caught:
        opened.resolve(version.pinned)
    assert caught.value.digest == descriptor.digest


def test_a_bundle_of_parts_is_pinned_typed_and_traced(registry):
    registry.log("docs", Files({"a.txt": b"one"}))
    first = registry.get("docs:v1")
    registry.log("stack", Bundle({"data": "docs:latest"}, {"llm": LLM}))
    registry.log("docs", Files({"a.txt": b"two"}))
    bundle = registry.resolve("stack:v1", Bundle)
    assert bundle.components == {"data": first.digest}
    assert bundle.component("data", Files).read("a.txt") == b"one"
    assert "docs:v1" in registry.lineage("stack:v1", "up").nodes


def test_a_bundle_that_names_a_bundle_is_refused_and_nothing_is_logged(registry):
    registry.log("models", Bundle(models={"llm": LLM}))
    with pytest.raises(Incompatible, match="is a bundle") as caught:
        registry.log("stack", Bundle({"models": "models:v1"}))
    assert caught.value.problems[0].startswith("bundle-nested")
    assert [c.name for c in registry.collections()] == ["models"]


def test_an_index_of_another_dimension_than_the_bundles_embedder_is_refused_by_the_rule(registry):
    space = la.EmbeddingSpec("a/embedder", 4, metric="l2")
    registry.log("kb", la.VectorIndex.from_vectors([[1.0, 0.0, 0.0, 0.0]], ["one"], embedding=space))

    def stack(dimension):
        embedder = ModelSpec(
            "me", "a/embedder", parameters={"dimension": dimension, "metric": "l2", "normalized": False}
        )
        return Bundle({"index": "kb:v1"}, {"embedder": embedder})

    with pytest.raises(Incompatible) as caught:
        registry.log("stack", stack(8))
    assert [p.partition(":")[0] for p in caught.value.problems] == ["index-dimension"]
    assert registry.log("stack", stack(4)).number == 1


def test_a_prompt_that_needs_more_than_the_caller_gives_is_refused_and_the_variable_named(registry):
    registry.log("agent", la.Prompt("{{ question }} {{ tone }} {{ context }}", template_format="jinja2"))
    with pytest.raises(Incompatible, match="'tone'"):
        registry.log("stack", Bundle({"prompt": "agent:v1"}, {"llm": LLM}, inputs=["question", "context"]))
    assert (
        registry.log(
            "stack", Bundle({"prompt": "agent:v1"}, {"llm": LLM}, inputs=["question", "context", "tone"])
        ).number
        == 1
    )


def test_a_dataset_in_the_bundle_says_what_the_prompt_is_given(registry):
    registry.log("eval", la.EvalDataset([{"id": "1", "question": "Why?", "tone": "kind", "answer": "So."}]))
    registry.log("agent", la.Prompt("{{ question }} {{ tone }}", template_format="jinja2"))
    registry.log("other", la.Prompt("{{ question }} {{ language }}", template_format="jinja2"))
    assert registry.log("stack", Bundle({"prompt": "agent:v1", "eval": "eval:v1"})).number == 1
    with pytest.raises(Incompatible, match="'language'"):
        registry.log("stack", Bundle({"prompt": "other:v1", "eval": "eval:v1"}))


def test_a_bundle_moves_with_its_own_parts_and_not_with_others(registry):
    registry.log("docs", Files({"a": b"1"}))
    registry.log("stack", Bundle({"data": "docs:v1"}, {"llm": LLM}))
    registry.log("docs", Files({"a": b"2"}))
    with pytest.raises(Refused, match="bundle-in-step"):
        registry.promote(["stack:v1", "docs:v2"], to="prod", reason="both")
    assert not registry.state("prod")
    registry.promote(["stack:v1", "docs:v1"], to="prod", reason="both")
    assert set(registry.state("prod")) == {"stack", "docs"}
