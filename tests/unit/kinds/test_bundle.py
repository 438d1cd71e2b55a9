import shutil
import textwrap

import pytest

from llmartifacts import packing
from llmartifacts.errors import (
    InvalidInput,
    InvalidPath,
    InvalidReference,
    InvalidValue,
    NotFound,
    WrongKind,
)
from llmartifacts.kinds.bundle import Bundle, BundleKind
from llmartifacts.kinds.files import Files
from llmartifacts.kinds.model import ModelSpec
from llmartifacts.records.digest import digest_of
from llmartifacts.records.manifest import Component, Manifest
from llmartifacts.testing.kinds import MemoryFiles, pack

KIND = BundleKind()
LLM = ModelSpec("openai", "gpt-4-turbo")


def unpacked(bundle, parts=None):
    manifest, stored = pack(KIND, bundle)
    stored._values.update(parts or {})
    return KIND.unpack(manifest.config, stored)


# --- roles


def test_components_and_models_share_one_namespace_whatever_the_case():
    for components, models in (
        ({"llm": "a:v1"}, {"llm": LLM}),
        ({"LLM": "a:v1"}, {"llm": LLM}),
        ({"a": "a:v1", "A": "b:v1"}, {}),
    ):
        with pytest.raises(InvalidValue, match="taken twice"):
            Bundle(components, models)


@pytest.mark.parametrize("role", ["", "../up", "a/b", "a b", "é", "sha256", "dot.", 7, None])
def test_a_role_is_a_name(role):
    with pytest.raises(InvalidValue, match="role"):
        Bundle(models={role: LLM})


def test_an_empty_bundle_is_refused():
    with pytest.raises(InvalidValue, match="a component or a model"):
        Bundle()


def test_a_component_needs_a_selector_and_the_error_names_its_role():
    with pytest.raises(InvalidReference) as caught:
        Bundle({"prompt": "support-agent"})
    assert caught.value.field == "components.prompt"
    with pytest.raises(InvalidReference):
        Bundle({"prompt": "support agent:v1"})


def test_a_model_is_a_model_spec():
    with pytest.raises(InvalidValue) as caught:
        Bundle(models={"llm": {"provider": "openai"}})
    assert caught.value.field == "models.llm"


def test_what_is_no_mapping_is_refused():
    with pytest.raises(InvalidValue, match="components is not a mapping"):
        Bundle(["support-agent:v1"])


@pytest.mark.parametrize("inputs", [[""], ["a", "a"], [7], ["a\nb"], ["x" * 300]])
def test_inputs_are_names_each_once(inputs):
    with pytest.raises(InvalidValue) as caught:
        Bundle(models={"llm": LLM}, inputs=inputs)
    assert caught.value.field.startswith("inputs")


def test_one_input_may_be_one_string():
    assert Bundle(models={"llm": LLM}, inputs="question").inputs == ("question",)


@pytest.mark.parametrize("parameters", [{"x": float("nan")}, {"x": {1: 2}}, {"x": object()}, {"x": 2**60}])
def test_parameters_are_plain_json(parameters):
    with pytest.raises(InvalidValue) as caught:
        Bundle(models={"llm": LLM}, parameters=parameters)
    assert caught.value.field.startswith("parameters")


def test_a_bundle_is_frozen_against_its_makers_hands():
    components, parameters = {"prompt": "a:v1"}, {"k": [1]}
    bundle = Bundle(components, {"llm": LLM}, parameters=parameters)
    components["prompt"] = "b:v1"
    parameters["k"].append(2)
    assert bundle.components == {"prompt": "a:v1"}
    assert bundle.parameters == {"k": [1]}
    with pytest.raises(TypeError):
        bundle.models["x"] = LLM


# --- resolved


def test_a_resolved_bundle_gives_typed_components_and_pinned_digests():
    files = Files({"a": b"1"})
    bundle = unpacked(Bundle({"data": "support-docs:v1"}, {"llm": LLM}, inputs=["q"]), {"data": files})
    assert bundle.component("data", Files) is files
    assert bundle.component("data") is files
    assert bundle.components == {"data": digest_of(b"data")}
    assert bundle.models == {"llm": LLM}
    assert bundle.roles == ("data", "llm")
    assert bundle.inputs == ("q",)


def test_a_component_of_another_type_is_refused_and_the_type_found_is_named():
    bundle = unpacked(Bundle({"data": "support-docs:v1"}), {"data": Files({"a": b"1"})})
    with pytest.raises(WrongKind, match="Files, not a Bundle"):
        bundle.component("data", Bundle)


def test_an_unknown_role_is_not_found_and_near_roles_are_given():
    bundle = unpacked(Bundle({"prompt": "a:v1"}, {"embedder": LLM}))
    with pytest.raises(NotFound) as caught:
        bundle.component("promt")
    assert caught.value.near == ("prompt",)
    with pytest.raises(NotFound) as caught:
        bundle.model("embeder")
    assert caught.value.near == ("embedder",)


def test_a_bundle_that_was_not_resolved_says_how_to_load_its_parts():
    with pytest.raises(NotFound, match="not loaded") as caught:
        Bundle({"prompt": "a:v1"}).component("prompt")
    assert "resolve" in caught.value.hint()


def test_a_bundle_holds_no_bundle():
    inner = pack(KIND, Bundle(models={"llm": LLM}))[0]
    outer = Manifest.build(
        "bundle", pack(KIND, Bundle({"x": "a:v1"}))[0].config, (), [Component("x", "bundle", inner.digest)]
    )
    with pytest.raises(InvalidValue, match="holds no bundle"):
        packing.unpack(outer, None, lambda digests: {inner.digest: inner})


def test_a_part_of_another_kind_than_the_bundle_says_is_refused():
    inner = Manifest.build("report", {})
    outer = Manifest.build(
        "bundle", {"models": {}, "inputs": [], "parameters": {}}, (), [Component("x", "prompt", inner.digest)]
    )
    with pytest.raises(InvalidValue, match="report, not a prompt"):
        packing.unpack(outer, None, lambda digests: {inner.digest: inner})


# --- model files


def test_model_files_come_back_verified_under_their_own_names(tmp_path):
    (tmp_path / "w").write_bytes(b"weights")
    bundle = unpacked(Bundle(models={"tuned": ModelSpec("peft", "llama", files={"deep/adapter.bin": tmp_path / "w"})}))
    (tmp_path / "w").write_bytes(b"changed since")
    assert bundle.models["tuned"].files["deep/adapter.bin"].read_bytes() == b"weights"
    assert bundle.model_files("tuned").paths() == ["deep/adapter.bin"]
    assert bundle.model_files("tuned").read("deep/adapter.bin") == b"weights"
    written = bundle.model_files("tuned").export(tmp_path / "out")
    assert written == [tmp_path / "out/deep/adapter.bin"]


def test_a_model_without_files_says_so():
    with pytest.raises(NotFound, match="no files"):
        Bundle(models={"llm": LLM}).model_files("llm")


def test_a_model_file_that_is_gone_is_named_by_role_and_path(tmp_path):
    with pytest.raises(NotFound) as caught:
        pack(KIND, Bundle(models={"tuned": ModelSpec("peft", "llama", files={"a.bin": tmp_path / "a.bin"})}))
    assert caught.value.field == "models.tuned.files.a.bin"
    assert "a.bin" in caught.value.message


@pytest.mark.parametrize("change", ["missing", "extra"])
def test_a_model_file_that_is_missing_or_too_many_is_named_when_unpacked(tmp_path, change):
    (tmp_path / "a").write_bytes(b"1")
    manifest, stored = pack(KIND, Bundle(models={"tuned": ModelSpec("peft", "llama", files={"a": tmp_path / "a"})}))
    path = "models/tuned/a" if change == "missing" else "models/tuned/b"
    changed = stored.replaced(path, None if change == "missing" else b"x")
    with pytest.raises(InvalidValue, match=path):
        KIND.unpack(manifest.config, changed)


# --- YAML


def from_yaml(folder, text, **options):
    (folder / "bundle.yaml").write_text(textwrap.dedent(text))
    return KIND.read_source([folder / "bundle.yaml"], options)


def test_a_bundle_is_read_from_yaml(tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "adapter.bin").write_bytes(b"1")
    bundle = from_yaml(
        tmp_path,
        """
        components:
          prompt: support-agent:v2
          index: support-kb:prod
        models:
          llm: {provider: openai, name: gpt-4-turbo, parameters: {temperature: 0.2}}
          tuned: {provider: peft, name: llama, revision: abc, files: ./weights}
          other: {provider: peft, name: llama, files: {renamed.bin: weights/adapter.bin}}
        inputs: [question]
        parameters: {top_k: 5}
        """,
    )
    assert bundle.components == {"prompt": "support-agent:v2", "index": "support-kb:prod"}
    assert bundle.model("llm") == ModelSpec("openai", "gpt-4-turbo", parameters={"temperature": 0.2})
    assert bundle.model_files("tuned").read("adapter.bin") == b"1"
    assert bundle.model_files("other").paths() == ["renamed.bin"]
    assert (bundle.inputs, bundle.parameters) == (("question",), {"top_k": 5})


def test_a_model_folder_may_be_named_in_yaml(tmp_path, shared_data):
    shutil.copytree(
        shared_data / "bundles/onnxruntime_genai/marian-batch", tmp_path / "marian", copy_function=shutil.copy
    )
    bundle = from_yaml(tmp_path, "models: {llm: {folder: marian, name: opus}}")
    assert bundle.model("llm").name == "opus"
    assert "encoder.onnx" in bundle.model_files("llm")


def test_a_model_folder_is_a_source_by_itself(shared_data):
    folder = shared_data / "bundles" / "onnxruntime_genai" / "marian-batch"
    assert KIND.read_source([folder], {}).roles == ("llm",)
    assert KIND.read_source([folder], {"role": "translator"}).roles == ("translator",)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("[]", ""),
        ("model: {}", "model"),
        ("models: []", "models"),
        ("models: {llm: gpt-4}", "models.llm"),
        ("models: {llm: {provider: x, name: y, temperature: 1}}", "models.llm.temperature"),
        ("models: {llm: {provider: x}}", "models.llm.name"),
        ("models: {llm: {provider: x, name: 7}}", "models.llm.name"),
        ("models: {llm: {provider: x, name: y, files: /etc/passwd}}", "models.llm.files"),
        ("models: {llm: {provider: x, name: y, files: {a: ../../secret}}}", "models.llm.files.a"),
        ("models: {llm: {folder: .., name: y}}", "models.llm.folder"),
        ("models: {llm: {folder: x, parameters: {}}}", "models.llm.parameters"),
        ("components: {prompt: 7}", "components.prompt"),
        ("components: {prompt: support-agent}", "components.prompt"),
        ("inputs: 7\ncomponents: {a: 'b:v1'}", "inputs"),
        ("inputs: {a: b}\ncomponents: {a: 'b:v1'}", "inputs"),
        ("", ""),
    ],
)
def test_a_malformed_yaml_is_refused_and_the_field_named(tmp_path, text, field):
    with pytest.raises(InvalidInput) as caught:
        from_yaml(tmp_path, text)
    assert caught.value.field == field


def test_a_link_out_of_the_yaml_files_folder_is_not_followed(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "secret").write_bytes(b"1")
    (tmp_path / "home" / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(InvalidPath, match="leads out"):
        from_yaml(tmp_path / "home", "models: {llm: {provider: x, name: y, files: link}}")


def test_more_than_one_source_and_unknown_options_are_refused(tmp_path):
    with pytest.raises(InvalidValue, match="2 sources"):
        KIND.read_source([tmp_path, tmp_path], {})
    with pytest.raises(InvalidValue, match="unknown option"):
        KIND.read_source([tmp_path], {"x": "1"})
    with pytest.raises(NotFound):
        KIND.read_source([tmp_path / "none.yaml"], {})


# --- what people see


def test_the_summary_names_models_and_inputs():
    manifest, _ = pack(KIND, Bundle({"p": "a:v1"}, {"llm": LLM}, inputs=["question"]))
    assert KIND.summary(manifest.config) == "models: llm openai/gpt-4-turbo; inputs: question"
    many = Bundle(models={f"m{i}": LLM for i in range(200)}, inputs=[f"v{i}" for i in range(200)])
    assert len(KIND.summary(pack(KIND, many)[0].config)) <= 240


def test_a_changed_parameter_and_a_changed_part_are_differences():
    a = pack(KIND, Bundle({"p": "a:v1"}, {"llm": ModelSpec("o", "g", parameters={"t": 0.2})}))
    b = pack(KIND, Bundle({"p": "a:v1"}, {"llm": ModelSpec("o", "g", parameters={"t": 0.9})}))
    told = KIND.diff(a[0], b[0], (a[1], b[1]))
    assert [str(c) for c in told.changes] == ["~ models.llm.parameters.t: 0.2 -> 0.9"]
    one, two = (
        Manifest.build("bundle", a[0].config, (), [Component("p", "prompt", digest_of(text))]) for text in (b"1", b"2")
    )
    assert [c.path for c in KIND.diff(one, two, (MemoryFiles(), MemoryFiles())).changes] == ["components.p"]


@pytest.mark.parametrize(
    "models",
    [
        {"../x": {"provider": "a", "name": "b"}},
        {"x": {"provider": "", "name": "b"}},
        {"x": {"provider": "a", "name": "b", "files": ["../a"]}},
        {"x": {"provider": "a", "name": "b", "files": ["b", "a"]}},
        {"x": {"provider": "a", "name": "b"}, "X": {"provider": "a", "name": "b"}},
    ],
)
def test_check_refuses_a_hostile_config_in_words(models):
    problems = KIND.check({"models": models, "inputs": [], "parameters": {}})
    assert problems
    assert problems[0].startswith("models")
