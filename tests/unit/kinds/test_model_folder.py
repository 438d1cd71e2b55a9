import shutil

import pytest

from llmartifacts.errors import (
    InvalidPath,
    InvalidValue,
)
from llmartifacts.kinds.bundle import Bundle, BundleKind
from llmartifacts.kinds.model_folder import read_model
from llmartifacts.testing.kinds import pack

KIND = BundleKind()
COMPLETE = {
    "multimodal-decoder-with-input-ids": {"dummy_embedding.onnx", "dummy_text.onnx", "dummy_vision.onnx"},
    "marian-batch": {"decoder.onnx", "encoder.onnx"},
    "engine/dummy-decoder": {"decoder.onnx"},
}


def unpacked(bundle):
    manifest, stored = pack(KIND, bundle)
    return KIND.unpack(manifest.config, stored)


@pytest.mark.parametrize("name", COMPLETE)
def test_a_real_onnx_bundle_comes_back_byte_for_byte(shared_data, tmp_path, name):
    folder = shared_data / "bundles" / "onnxruntime_genai" / name
    bundle = unpacked(Bundle.from_folder(folder))
    assert bundle.roles == ("llm",)
    assert bundle.model("llm").provider == "onnxruntime-genai"
    assert bundle.model("llm").name == folder.name
    files = bundle.model_files("llm")
    assert COMPLETE[name] <= set(files)
    files.export(tmp_path / "out")
    for path in files:
        assert (tmp_path / "out" / path).read_bytes() == (folder / path).read_bytes()


@pytest.mark.parametrize(("name", "file"), [(n, f) for n, files in COMPLETE.items() for f in sorted(files)])
def test_a_real_onnx_bundle_without_one_of_its_files_is_refused_and_the_file_named(shared_data, tmp_path, name, file):
    shutil.copytree(shared_data / "bundles" / "onnxruntime_genai" / name, tmp_path / "model", copy_function=shutil.copy)
    (tmp_path / "model").chmod(0o755)
    (tmp_path / "model" / file).unlink()
    with pytest.raises(InvalidValue, match=file) as caught:
        Bundle.from_folder(tmp_path / "model")
    assert caught.value.field.startswith("model.")
    assert caught.value.field.endswith(".filename")
    assert caught.value.origin.endswith("genai_config.json")


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("phi3-v", "dummy_text.onnx"),
        ("qwen2-5-vl", "dummy_text.onnx"),
        ("hf-internal-testing/tiny-random-gpt2-fp32", "past.onnx"),
    ],
)
def test_a_real_config_whose_models_were_left_out_names_the_first(shared_data, name, missing):
    with pytest.raises(InvalidValue, match=missing):
        Bundle.from_folder(shared_data / "bundles" / "onnxruntime_genai" / name)


def test_all_real_adapters_are_read_with_their_type(shared_data):
    folders = sorted({p.parent for p in (shared_data / "bundles" / "peft").rglob("adapter_config.json")})
    assert len(folders) >= 20
    specs = [unpacked(Bundle.from_folder(f)).model("llm") for f in folders]
    assert {s.parameters["peft_type"] for s in specs} >= {
        "LORA",
        "IA3",
        "LOHA",
        "PREFIX_TUNING",
        "PROMPT_TUNING",
        "P_TUNING",
    }
    assert all("adapter_config.json" in s.files for s in specs)


def test_a_real_sentence_transformer_states_its_dimension_and_normalisation(shared_data):
    bundle = Bundle.from_folder(shared_data / "bundles" / "all-MiniLM-L6-v2")
    assert bundle.roles == ("embedder",)
    assert bundle.model("embedder").name == "all-MiniLM-L6-v2"
    assert bundle.model("embedder").parameters == {"dimension": 384, "normalized": True}


def test_provider_name_revision_and_role_may_be_said(shared_data):
    folder = shared_data / "bundles" / "onnxruntime_genai" / "marian-batch"
    bundle = Bundle.from_folder(folder, role="translator", provider="me", name="marian", revision="abc")
    spec = bundle.model("translator")
    assert (spec.provider, spec.name, spec.revision) == ("me", "marian", "abc")


def test_a_config_that_names_a_file_outside_its_folder_is_refused(tmp_path):
    (tmp_path / "genai_config.json").write_text('{"model": {"decoder": {"filename": "../../etc/passwd"}}}')
    with pytest.raises(InvalidPath) as caught:
        read_model(tmp_path)
    assert caught.value.field == "model.decoder.filename"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("genai_config.json", "{"),
        ("genai_config.json", "[]"),
        ("genai_config.json", '{"model": 7}'),
        ("genai_config.json", '{"model": {}, "model": {}}'),
        ("adapter_config.json", "{}"),
        ("adapter_config.json", '{"peft_type": 7}'),
        ("modules.json", "[]"),
        ("modules.json", "[7]"),
        ("modules.json", '[{"type": "x.Pooling"}]'),
        ("modules.json", '[{"type": "x.Pooling", "path": "1_Pooling"}]'),
        ("modules.json", "[" * 100_000),
    ],
)
def test_a_malformed_model_folder_is_refused_and_its_file_named(tmp_path, file, text):
    (tmp_path / file).write_text(text)
    with pytest.raises(InvalidValue) as caught:
        read_model(tmp_path)
    assert file in caught.value.origin


def test_poolings_that_are_joined_and_a_dense_layer_decide_the_dimension(tmp_path):
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "2_Dense").mkdir()
    pooling = '{"word_embedding_dimension": 100, "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true}'
    (tmp_path / "1_Pooling" / "config.json").write_text(pooling)
    (tmp_path / "2_Dense" / "config.json").write_text('{"in_features": 200, "out_features": 64}')
    modules = '[{"type": "a.Transformer", "path": ""}, {"type": "a.Pooling", "path": "1_Pooling"}'
    (tmp_path / "modules.json").write_text(modules + "]")
    assert read_model(tmp_path).parameters == {"dimension": 200, "normalized": False}
    (tmp_path / "modules.json").write_text(modules + ', {"type": "a.Dense", "path": "2_Dense"}]')
    assert read_model(tmp_path).parameters == {"dimension": 64, "normalized": False}


def test_a_folder_of_no_known_form_says_what_would_be_known(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"1")
    with pytest.raises(InvalidValue) as caught:
        Bundle.from_folder(tmp_path)
    assert "genai_config.json" in caught.value.hint()
