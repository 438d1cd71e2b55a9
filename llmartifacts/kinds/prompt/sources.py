"""Prompts from files: templates, YAML with the fields of `Prompt`, and what LangChain wrote."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from llmartifacts.errors import InvalidInput, InvalidPath, InvalidValue, NotFound, TooLarge
from llmartifacts.formats.yaml import parse_yaml
from llmartifacts.kinds.disk import open_regular
from llmartifacts.kinds.model import ModelConfig, ModelSpec
from llmartifacts.kinds.prompt.config import MAX_TEMPLATE
from llmartifacts.kinds.prompt.parts import FIELDS, check_fields
from llmartifacts.kinds.prompt.value import Prompt
from llmartifacts.records.canonical import parse_json
from llmartifacts.records.names import check_path, near_names

SUFFIXES: Mapping[str, str] = {".j2": "jinja2", ".mustache": "mustache"}
"""Suffix of a template file -> its format; any other has to be declared."""

MAX_BYTES = 4 * MAX_TEMPLATE
_YAML = (".yaml", ".yml")
_STRUCTURED = (*_YAML, ".json")


def read_file(path: str | os.PathLike[str], *, template_format: str | None, fields: Mapping[str, Any]) -> Prompt:
    """Read a prompt; see `Prompt.from_file`."""
    file = Path(path)
    if file.is_dir():
        raise InvalidValue(
            "a prompt is one file, and this is a folder", field="path", origin=str(file), next_step="Name the file."
        )
    if file.suffix in _YAML or (file.suffix == ".json" and template_format is None):
        document = read_document(file)
        if isinstance(document, dict) and document.keys() & {"lc", "_type", "input_variables"}:
            return _from_langchain(document, file, fields)
        said = {} if template_format is None else {"template_format": template_format}
        return _from_fields(document, file, {**fields, **said})
    form = template_format or SUFFIXES.get(file.suffix)
    if form is None:
        raise InvalidValue(
            f"the suffix {file.suffix!r} does not say the template's format",
            field="template_format",
            origin=str(file),
            next_step="Say template_format=jinja2, f-string or mustache, or -o template_format=… in the shell; "
            "or name the file .j2 or .mustache.",
        )
    text = _text(file)
    if not text.strip():
        raise InvalidValue(
            "the template is empty", field="template", origin=str(file), next_step="Save the file, then log it."
        )
    return Prompt(text, template_format=form, origin=str(file), **check_fields(fields))


def read_langchain(path: str | os.PathLike[str], fields: Mapping[str, Any]) -> Prompt:
    """Read a prompt that LangChain wrote; see `Prompt.from_langchain_file`."""
    file = Path(path)
    if file.suffix not in _STRUCTURED:
        raise InvalidValue(
            f"LangChain writes prompts as .json or .yaml, not {file.suffix!r}", field="path", origin=str(file)
        )
    document = read_document(file)
    if not isinstance(document, dict):
        raise InvalidValue("a LangChain prompt is an object", origin=str(file))
    return _from_langchain(document, file, fields)


def read_document(file: Path) -> Any:
    """JSON or YAML, strict and bounded.

    Raises:
        InvalidInput: It is neither, or too large; the line is named where one is known.
    """
    data = _bytes(file)
    if file.suffix == ".json":
        return parse_json(data, origin=str(file), max_bytes=MAX_BYTES)
    return parse_yaml(data, origin=str(file))


def _from_langchain(document: dict[str, Any], file: Path, fields: Mapping[str, Any]) -> Prompt:
    from llmartifacts.kinds.prompt.langchain_json import from_document

    return from_document(document, lambda name: _beside(file, name), fields, str(file))


def _beside(file: Path, name: str) -> Any:
    """What a LangChain prompt keeps in a side file: in the prompt's own folder or below, never elsewhere."""
    if not isinstance(name, str):
        raise InvalidValue("a side file is named by text", origin=str(file))
    try:
        check_path(name, field="path")
    except InvalidPath as error:
        raise InvalidPath(error.message, field=error.field, origin=str(file)) from None
    side = file.parent / PurePosixPath(name)
    if os.path.realpath(side) != os.path.join(os.path.realpath(file.parent), *PurePosixPath(name).parts):
        raise InvalidPath(f"{name!r} is reached through a symbolic link", field="path", origin=str(file))
    if side.suffix in _STRUCTURED:
        return read_document(side)
    if side.suffix == ".txt":
        return _text(side)
    raise InvalidValue(f"a side file is .txt, .json or .yaml, not {name!r}", field="path", origin=str(file))


def _from_fields(document: Any, file: Path, fields: Mapping[str, Any]) -> Prompt:
    if not isinstance(document, dict):
        raise InvalidValue("the file is no object with the fields of a prompt", origin=str(file))
    known = ("template", "messages", "template_format", *FIELDS)
    made = {**check_fields(document, known, str(file)), **check_fields(fields, known)}
    if ("template" in made) == ("messages" in made):
        raise InvalidValue("a prompt has either a template or messages", field="template", origin=str(file))
    template = made.pop("messages") if "messages" in made else made.pop("template")
    if isinstance(made.get("model"), dict):
        made["model"] = _model(made["model"], str(file))
    form = made.pop("template_format", None)
    try:
        return Prompt(template, template_format=form, origin=f"{file}, in the template", **made)
    except InvalidInput as error:
        if not error.origin:
            raise replace(error, origin=str(file)) from None
        raise


def _model(given: dict[str, Any], origin: str) -> ModelSpec:
    unknown = given.keys() - ModelConfig.model_fields.keys() | ({"files"} & given.keys())
    if unknown:
        raise InvalidValue(
            f"a model has no field {min(map(str, unknown))!r}",
            field="model",
            origin=origin,
            next_step="Known: provider, name, revision, parameters.",
        )
    return ModelSpec(
        given.get("provider", ""), given.get("name", ""), given.get("revision"), given.get("parameters", {})
    )


def _text(file: Path) -> str:
    try:
        return _bytes(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidValue(
            f"not UTF-8 at byte {error.start}", origin=str(file), next_step="Save the file as UTF-8."
        ) from None


def _bytes(file: Path) -> bytes:
    try:
        with open_regular(file.resolve(strict=True)) as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        near = near_names(file.name, os.listdir(file.parent)) if file.parent.is_dir() else ()
        raise NotFound(f"no file {str(file)!r}", what="file", name=str(file), near=near) from None
    except OSError as error:
        raise InvalidValue(f"{str(file)!r} cannot be read: {error.strerror}", field="path") from None
    if len(data) > MAX_BYTES:
        raise TooLarge(f"the file has more than {MAX_BYTES:,} bytes", field="path", origin=str(file))
    return data
