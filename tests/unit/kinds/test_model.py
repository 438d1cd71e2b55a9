from __future__ import annotations

from pathlib import Path

import pytest

from llmartifacts.errors import InvalidInput, InvalidPath, InvalidValue
from llmartifacts.kinds.model import ModelConfig, ModelSpec


def test_a_model_comes_back_from_its_config() -> None:
    model = ModelSpec("openai", "gpt-4-turbo", "2024-04-09", {"temperature": 0.2, "stop": ["\n"]})
    assert ModelSpec.from_config(ModelConfig.model_validate(model.to_config())) == model
    assert hash(model) == hash(ModelSpec("openai", "gpt-4-turbo", "2024-04-09", {"temperature": 0.2, "stop": ["\n"]}))


def test_absent_fields_are_left_out_of_the_config() -> None:
    assert ModelSpec("openai", "gpt-4-turbo").to_config() == {"provider": "openai", "name": "gpt-4-turbo"}


def test_files_are_named_in_the_config_and_found_again(tmp_path: Path) -> None:
    adapter = tmp_path / "adapter.bin"
    model = ModelSpec("huggingface", "llama", files={"b.bin": adapter, "a.json": tmp_path / "a.json"})
    config = model.to_config()
    assert config["files"] == ["a.json", "b.bin"]
    assert ModelSpec.from_config(ModelConfig.model_validate(config), model.files).files["b.bin"] == adapter


def test_parameters_cannot_be_changed_from_outside() -> None:
    given = {"temperature": 0.2}
    model = ModelSpec("openai", "gpt-4-turbo", parameters=given)
    given["temperature"] = 2.0
    assert model.parameters["temperature"] == 0.2
    with pytest.raises(TypeError):
        model.parameters["temperature"] = 1  # type: ignore[index]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"provider": "", "name": "x"}, "model.provider"),
        ({"provider": "x", "name": "  "}, "model.name"),
        ({"provider": "x", "name": None}, "model.name"),
        ({"provider": "x", "name": "y", "revision": ""}, "model.revision"),
        ({"provider": "x", "name": "y", "parameters": [1]}, "model.parameters"),
        ({"provider": "x", "name": "y", "parameters": {"t": float("nan")}}, "model.parameters.t"),
        ({"provider": "x", "name": "y", "parameters": {"n": 2**60}}, "model.parameters.n"),
        ({"provider": "x", "name": "y", "parameters": {"f": object()}}, "model.parameters.f"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        ModelSpec(**fields)  # type: ignore[arg-type]
    assert caught.value.field == field


@pytest.mark.parametrize("path", ["../up", "/etc/passwd", "a//b", "a\x00b"])
def test_an_unsafe_file_path_is_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidPath):
        ModelSpec("x", "y", files={path: tmp_path / "f"})


def test_every_refusal_is_an_invalid_input() -> None:
    assert issubclass(InvalidValue, InvalidInput)
    assert issubclass(InvalidPath, InvalidInput)
