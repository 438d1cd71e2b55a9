"""Model folders as the usual tools write them, read as a `ModelSpec` with all their files.

Known by the file they hold: `genai_config.json` (onnxruntime-genai), `adapter_config.json` (PEFT), `modules.json`
(sentence-transformers). A file that one of them names must be in the folder.

Sources of the formats: onnxruntime.ai, "genai_config.json reference"; huggingface.co/docs/peft, "PEFT checkpoint
format"; sbert.net, "Sentence Transformer modules".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llmartifacts.errors import InvalidInput, InvalidValue
from llmartifacts.kinds.disk import AnyPath, read_regular, walk
from llmartifacts.kinds.model import ModelSpec
from llmartifacts.records.canonical import parse_json
from llmartifacts.records.names import check_path, near_names

GENAI, PEFT, SENTENCE = "genai_config.json", "adapter_config.json", "modules.json"
MAX_CONFIG = 4 * 1024 * 1024


def read_model(
    folder: AnyPath, *, provider: str | None = None, name: str | None = None, revision: str | None = None
) -> ModelSpec:
    """Read a model folder, every file of it included.

    Args:
        folder: A folder that holds one of the three files above.
        provider: By default `onnxruntime-genai`, `huggingface` or `sentence-transformers`.
        name: By default the base model of an adapter, else the folder's name.
        revision: By default what an adapter says of its base model.

    Returns:
        The model; an embedder states its `dimension` and whether it is `normalized`.

    Raises:
        InvalidValue: None of the three files is there, one is malformed, or it names a file that is missing.
        InvalidPath: It names a file outside the folder, or the folder holds a link.
        NotFound: There is no such folder.
    """
    place = Path(folder)
    files = walk(place)
    for marker, read in _READERS.items():
        if marker in files:
            found = read(files, str(place / marker))
            return ModelSpec(
                provider or found["provider"],
                name or found.get("name") or place.resolve().name,
                revision or found.get("revision"),
                found["parameters"],
                files,
            )
    raise InvalidValue(
        "the folder is no model that can be recognised",
        field="folder",
        origin=str(place),
        next_step=f"It needs {', '.join(_READERS)}; or name its files yourself: ModelSpec(…, files={{path: file}}).",
    )


def _genai(files: Mapping[str, Path], origin: str) -> dict[str, Any]:
    model = _object(_object(_json(files, GENAI), GENAI, origin).get("model"), "model", origin)
    for where, named in _named_files(model, "model"):
        _present(files, named, where, origin)
    known = {key: model[key] for key in ("type", "context_length", "vocab_size") if key in model}
    return {"provider": "onnxruntime-genai", "parameters": known}


def _peft(files: Mapping[str, Path], origin: str) -> dict[str, Any]:
    body = _object(_json(files, PEFT), PEFT, origin)
    base, revision = body.get("base_model_name_or_path"), body.get("revision")
    known = {key: body[key] for key in ("peft_type", "task_type") if body.get(key) is not None}
    if not isinstance(known.get("peft_type"), str):
        raise InvalidValue("an adapter has a type", field="peft_type", origin=origin)
    return {
        "provider": "huggingface",
        "name": base if isinstance(base, str) else None,
        "revision": revision if isinstance(revision, str) else None,
        "parameters": known,
    }


def _sentence(files: Mapping[str, Path], origin: str) -> dict[str, Any]:
    modules = _json(files, SENTENCE)
    if not isinstance(modules, list) or not modules:
        raise InvalidValue("there are no modules", field=SENTENCE, origin=origin)
    known: dict[str, Any] = {}
    normalized = False
    for i, module in enumerate(modules):
        where = f"[{i}]"
        kind, path = (_object(module, where, origin).get(key) for key in ("type", "path"))
        if not isinstance(kind, str) or not isinstance(path, str):
            raise InvalidValue("a module has a type and a path", field=where, origin=origin)
        if path:
            check_path(path, field=f"{where}.path")
        kind = kind.rpartition(".")[2]
        normalized = kind == "Normalize"  # the last module decides
        if path and not any(f.startswith(f"{path}/") for f in files) and kind not in _WITHOUT_FILES:
            raise InvalidValue(f"the folder {path!r} of a module is missing", field=f"{where}.path", origin=origin)
        if kind in ("Pooling", "Dense"):
            known["dimension"] = _dimension(_json(files, f"{path}/config.json", f"{where}.path", origin), kind)
    return {"provider": "sentence-transformers", "parameters": {**_stated(known), "normalized": normalized}}


_READERS = {GENAI: _genai, PEFT: _peft, SENTENCE: _sentence}
_WITHOUT_FILES = frozenset({"Normalize"})


def _dimension(body: Any, kind: str) -> Any:
    if not isinstance(body, dict):
        return None
    if kind == "Dense":
        return body.get("out_features")
    word = body.get("word_embedding_dimension", body.get("embedding_dimension"))
    # Each pooling mode that is on gives one such vector, and they are joined.
    modes = sum(value is True for key, value in body.items() if key.startswith("pooling_mode_"))
    return word * max(modes, 1) if type(word) is int else None


def _stated(known: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in known.items() if type(value) is int and value > 0}


def _named_files(value: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, str) and (key == "filename" or key.endswith("_filename")):
                if item:
                    yield f"{where}.{key}", item
            else:
                yield from _named_files(item, f"{where}.{key}")
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _named_files(item, f"{where}[{i}]")


def _present(files: Mapping[str, Path], path: str, where: str, origin: str) -> None:
    check_path(path, field=where)
    if path not in files:
        near = near_names(path, files)
        raise InvalidValue(
            f"the file {path!r} is missing",
            field=where,
            origin=origin,
            next_step=f"Put it beside the config{f'; there is {near[0]}' if near else ''}.",
        )


def _json(files: Mapping[str, Path], path: str, where: str = "", origin: str = "") -> Any:
    _present(files, path, where or path, origin or path)
    file = files[path]
    data = read_regular(file, MAX_CONFIG, field=path)
    try:
        return parse_json(data, origin=str(file), max_bytes=MAX_CONFIG)
    except InvalidInput as error:
        raise InvalidValue.of(error, field=error.field or path) from None


def _object(value: Any, where: str, origin: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidValue("not an object", field=where, origin=origin)
    return value
