"""The kind `bundle`: a set frozen by digest, evaluated, approved, promoted and rolled back as one reference.

Example:
    >>> bundle = Bundle({"prompt": "support-agent:v2"}, {"llm": ModelSpec("openai", "gpt-4-turbo")})
    >>> bundle.roles
    ('llm', 'prompt')
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, TypeVar, cast, overload

from pydantic import Field

from llmartifacts.errors import InvalidInput, InvalidPath, InvalidValue, LlmartifactsError, NotFound, WrongKind
from llmartifacts.formats.yaml import MAX_BYTES, parse_yaml
from llmartifacts.kinds.base import Config, FileSink, FileView, Kind, check_options
from llmartifacts.kinds.disk import AnyPath, add_file, find_regular, read_regular, walk
from llmartifacts.kinds.files import Files
from llmartifacts.kinds.model import ModelConfig, ModelSpec
from llmartifacts.kinds.model_folder import GENAI, PEFT, SENTENCE, read_model
from llmartifacts.records.canonical import plain_json
from llmartifacts.records.names import check_name, check_path, did_you_mean, near_names
from llmartifacts.records.reference import Reference, strings
from llmartifacts.records.wording import printable

V = TypeVar("V")
MAX_INPUT = 200
MAX_SUMMARY = 240


class Bundle:
    """Components of the registry and models, under one role each.

    Args:
        components: Role -> reference with a selector, such as `support-agent:v2`; pinned to a digest when logged.
        models: Role -> model, with its files if it has some; not kept elsewhere in the registry.
        inputs: Names of the variables that the caller gives to the prompts with each request; with them, a prompt
            that needs more is refused when the bundle is logged.
        parameters: JSON object of the application's own settings, such as how many passages it retrieves.

    Raises:
        InvalidValue: A role or an input is malformed or taken twice, or there is neither component nor model.
        InvalidReference: A reference is malformed or has no selector.
    """

    kind: ClassVar[str] = "bundle"

    def __init__(
        self,
        components: Mapping[str, str | Reference] | None = None,
        models: Mapping[str, ModelSpec] | None = None,
        *,
        inputs: str | Sequence[str] = (),
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        for which, given in (("components", components), ("models", models), ("parameters", parameters)):
            if not isinstance(given, Mapping | None):
                raise InvalidValue(f"{which} is not a mapping", field=which)
        texts: dict[str, str] = {}
        for role, reference in (components or {}).items():
            parsed = Reference.parse(reference, field=f"components.{role}")
            texts[role] = str(parsed.required("a bundle", field=f"components.{role}"))
        for role, spec in (models or {}).items():
            if not isinstance(spec, ModelSpec):
                raise InvalidValue(
                    f"a {type(spec).__name__} is no model", field=f"models.{role}", next_step="Give an la.ModelSpec."
                )
        if not isinstance(inputs, str | list | tuple):
            raise InvalidValue("inputs is not a list of names", field="inputs")
        self._set(texts, models or {}, strings(inputs), parameters or {}, None)

    def _set(
        self,
        components: Mapping[str, str],
        models: Mapping[str, ModelSpec],
        inputs: Sequence[str],
        parameters: Mapping[str, Any],
        loaded: Mapping[str, Any] | None,
    ) -> None:
        _check_roles(components, models)
        try:
            settings = plain_json(parameters, field="parameters")
        except InvalidInput as error:
            raise InvalidValue.of(error) from None
        self._components = dict(sorted(components.items()))
        self._models = dict(sorted(models.items()))
        self._inputs = _checked_inputs(inputs)
        self._parameters: dict[str, Any] = settings
        self._loaded = loaded

    @classmethod
    def from_folder(
        cls,
        folder: AnyPath,
        *,
        role: str | None = None,
        provider: str | None = None,
        name: str | None = None,
        revision: str | None = None,
    ) -> Bundle:
        """A bundle of one model folder, as onnxruntime-genai, PEFT or sentence-transformers write it.

        Args:
            folder: Holds `genai_config.json`, `adapter_config.json` or `modules.json`.
            role: By default `embedder` for sentence-transformers, else `llm`.
            provider: As in `read_model`; so are `name` and `revision`.
            name: See `provider`.
            revision: See `provider`.

        Raises:
            InvalidValue: A file that the folder's config names is missing; it is named.
        """
        spec = read_model(folder, provider=provider, name=name, revision=revision)
        kept = {GENAI, PEFT} & spec.files.keys()
        return cls(models={role or ("embedder" if SENTENCE in spec.files and not kept else "llm"): spec})

    @property
    def components(self) -> Mapping[str, str]:
        """Role -> reference; once resolved, the pinned manifest digest."""
        return MappingProxyType(self._components)

    @property
    def models(self) -> Mapping[str, ModelSpec]:
        """Role -> model; once resolved, its files are verified, read-only files on disk."""
        return MappingProxyType(self._models)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Variables that the caller gives, sorted."""
        return self._inputs

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The application's own settings."""
        return MappingProxyType(self._parameters)

    @property
    def roles(self) -> tuple[str, ...]:
        """Every role, of components and of models, sorted."""
        return tuple(sorted([*self._components, *self._models]))

    @overload
    def component(self, role: str) -> Any: ...
    @overload
    def component(self, role: str, type: type[V]) -> V: ...

    def component(self, role: str, type: Any = None) -> Any:  # noqa: A002
        """The loaded value of one component of a resolved bundle.

        Args:
            role: Its role.
            type: Class that it must have, such as `la.VectorIndex`; None takes any.

        Raises:
            NotFound: No component has that role, or the bundle was not resolved from a registry.
            WrongKind: It is of another class.
        """
        if role not in self._components:
            raise _no_role(role, self._components, "component")
        if self._loaded is None:
            raise NotFound(
                f"the component {role!r} is not loaded",
                what="component",
                name=role,
                next_step="Log the bundle, then resolve it: registry.resolve('NAME:latest', la.Bundle).",
            )
        value = self._loaded[role]
        if type is not None and not isinstance(value, type):
            found = value.__class__.__name__
            raise WrongKind(
                f"the component {role!r} is a {found}, not a {type.__name__}", field=role, next_step=f"Ask for {found}."
            )
        return value

    def model(self, role: str) -> ModelSpec:
        """One model. Raises `NotFound`."""
        if role not in self._models:
            raise _no_role(role, self._models, "model")
        return self._models[role]

    def model_files(self, role: str) -> Files:
        """The files of one model under their own names: open them, or `export` them as the folder they came from.

        Raises:
            NotFound: There is no such model, or it has no files.
        """
        spec = self.model(role)
        if not spec.files:
            raise NotFound(f"the model {role!r} has no files", what="model", name=role)
        return Files(spec.files)

    def __repr__(self) -> str:
        return f"<Bundle {', '.join(self.roles)}>"


class BundleConfig(Config):
    """A bundle but for its components, which the manifest pins.

    Attributes:
        models: Role -> model.
        inputs: Variables that the caller gives, sorted.
        parameters: The application's own settings.
    """

    models: dict[str, ModelConfig]
    inputs: tuple[Annotated[str, Field(strict=True, min_length=1, max_length=MAX_INPUT)], ...]
    parameters: dict[str, Any]


class BundleKind(Kind[Bundle]):
    """Packs a bundle: its models into the config, their files below `models/ROLE/`."""

    name = "bundle"
    value_type = Bundle
    config_model = BundleConfig

    def references(self, value: Bundle) -> Mapping[str, str]:
        """Role -> reference of each component."""
        return value.components

    def pack(self, value: Bundle, files: FileSink) -> dict[str, Any]:
        """Store the models' files."""
        for role, spec in value.models.items():
            for path, file in sorted(spec.files.items()):
                real = find_regular(file, field=f"models.{role}.files.{path}")
                add_file(files, f"models/{role}/{path}", real)
        return {
            "models": {role: spec.to_config() for role, spec in value.models.items()},
            "inputs": list(value.inputs),
            "parameters": dict(value.parameters),
        }

    def unpack(self, config: Mapping[str, Any], files: FileView) -> Bundle:
        """The bundle with its components loaded and every model file verified."""
        known = cast(BundleConfig, self.parse(config))
        declared = {f"models/{role}/{path}" for role, model in known.models.items() for path in model.files}
        if odd := sorted(declared ^ set(files.paths())):
            what = "is missing" if odd[0] in declared else "belongs to no model"
            raise InvalidValue(f"the file {odd[0]!r} {what}", field="config.models")
        models = {}
        for role, model in known.models.items():
            try:
                places = {path: files.as_path(f"models/{role}/{path}") for path in model.files}
                models[role] = ModelSpec.from_config(model, places)
            except InvalidInput as error:
                raise InvalidValue.of(error, field=f"config.{_below_role(error, role)}") from None
        parts = {part.role: part for part in files.parts()}
        made = Bundle.__new__(Bundle)
        made._set(
            {role: part.digest for role, part in parts.items()},
            models,
            known.inputs,
            known.parameters,
            {role: files.component(role) for role in parts},
        )
        return made

    def check(self, config: Mapping[str, Any]) -> list[str]:
        """Problems of a config; roles, inputs and models' own rules included."""
        problems = super().check(config)
        if problems:
            return problems
        known = cast(BundleConfig, self.parse(config))
        try:
            _check_roles({}, known.models, empty=True)
            for role, model in known.models.items():
                try:
                    ModelSpec.from_config(model, {path: Path(path) for path in model.files})
                except InvalidInput as error:
                    return [f"{_below_role(error, role)}: {error.message}"]
                if sorted(set(model.files)) != list(model.files):
                    return [f"models.{role}.files: not sorted, each once"]
            if list(_checked_inputs(known.inputs)) != list(known.inputs):
                return ["inputs: not sorted"]
        except LlmartifactsError as error:
            return [f"{error.field or 'models'}: {error.message}"]
        return []

    def summary(self, config: Mapping[str, Any]) -> str:
        """Its models and inputs; components are shown from the manifest."""
        known = cast(BundleConfig, self.parse(config))
        models = ", ".join(f"{role} {m.provider}/{m.name}" for role, m in sorted(known.models.items()))
        told = f"models: {models}" if models else "no models"
        if known.inputs:
            told = f"{_cut(told)}; inputs: {', '.join(known.inputs)}"
        return _cut(printable(told))

    def text(self, config: Mapping[str, Any]) -> str:
        """Each model with its revision and parameters, and the parameters of the bundle itself."""
        known = cast(BundleConfig, self.parse(config))
        lines = []
        for role, model in sorted(known.models.items()):
            told = [f"{role}: {model.provider}/{model.name}", f"revision {model.revision}" if model.revision else ""]
            told.append(_json(model.parameters) if model.parameters else "")
            lines.append(" ".join(filter(None, told)))
        if known.parameters:
            lines.append(f"parameters: {_json(known.parameters)}")
        return "\n".join(lines)

    def read_source(self, paths: Sequence[Path], options: Mapping[str, str]) -> Bundle:
        """Read `bundle.yaml`, or a model folder.

        The YAML has `components` (role: reference), `models` (role: fields of `ModelSpec`; `files` is a path or maps
        paths to paths; or `folder`, as `Bundle.from_folder` takes), `inputs` and `parameters`. Paths are relative to
        it and stay below its folder.
        """
        check_options(options, ("role",))
        if len(paths) != 1:
            raise InvalidValue(
                f"{len(paths)} sources", field="paths", next_step="A bundle is read from one YAML file or model folder."
            )
        if paths[0].is_dir():
            return Bundle.from_folder(paths[0], role=options.get("role"))
        check_options(options, ())
        return _from_yaml(paths[0])


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(dict(value), ensure_ascii=False, sort_keys=True)


def _from_yaml(file: Path) -> Bundle:
    real = find_regular(file, field="paths")
    document = parse_yaml(read_regular(real, MAX_BYTES, field="paths"), origin=str(real))
    try:
        body = _fields(document, "", ("components", "models", "inputs", "parameters"))
        models = {role: _yaml_model(m, f"models.{role}", file.parent) for role, m in _table(body, "models").items()}
        inputs = body.get("inputs") or ()
        return Bundle(_table(body, "components"), models, inputs=inputs, parameters=_table(body, "parameters"))
    except InvalidInput as error:
        if error.origin:
            raise
        raise type(error).of(error, origin=str(file)) from None


def _yaml_model(body: Any, where: str, home: Path) -> ModelSpec:
    known = _fields(body, where, ("provider", "name", "revision", "parameters", "files", "folder"))
    if "folder" in known:
        if extra := known.keys() & {"files", "parameters"}:
            raise InvalidValue(f"a folder brings its own {min(extra)}", field=f"{where}.{min(extra)}")
        given = {key: known.get(key) for key in ("provider", "name", "revision")}
        return read_model(_below(home, known["folder"], f"{where}.folder"), **given)
    files = known.get("files") or {}
    if isinstance(files, str):
        place = _below(home, files, f"{where}.files")
        taken = walk(place) if place.is_dir() else {place.name: place}
    else:
        table = _table(known, "files", where)
        taken = {path: _below(home, file, f"{where}.files.{path}") for path, file in table.items()}
    parameters = _table(known, "parameters", where)
    try:
        return ModelSpec(known.get("provider", ""), known.get("name", ""), known.get("revision"), parameters, taken)
    except InvalidInput as error:
        raise type(error).of(error, field=_below_role(error, where.partition(".")[2])) from None


def _below_role(error: InvalidInput, role: str) -> str:
    """The field of a model's own error, which knows nothing of bundles, as a field of the bundle."""
    return f"models.{role}{error.field.removeprefix('model')}"


def _below(home: Path, path: Any, where: str) -> Path:
    """A path that the YAML names: inside its own folder, so that somebody else's YAML takes no other file along."""
    text = path.removeprefix("./") if isinstance(path, str) else path
    if text in (".", ""):
        return home
    place = home / check_path(text.rstrip("/") if isinstance(text, str) else text, field=where)
    if not place.resolve().is_relative_to(home.resolve()):
        raise InvalidPath(f"{path!r} leads out of the folder of the YAML file", field=where)
    return place


def _fields(body: Any, where: str, known: Sequence[str]) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise InvalidValue("not a mapping", field=where, next_step=f"It has the fields {', '.join(known)}.")
    for key in body:
        if key not in known:
            hint = did_you_mean(key, known, f"Known fields: {', '.join(known)}.")
            raise InvalidValue(f"unknown field {key!r:.80}", field=f"{where}.{key}".lstrip("."), next_step=hint)
    return body


def _table(body: Mapping[str, Any], key: str, where: str = "") -> dict[str, Any]:
    value = body.get(key)
    if value is not None and not isinstance(value, dict):
        raise InvalidValue(f"{key} is not a mapping", field=f"{where}.{key}".lstrip("."))
    return value or {}


def _check_roles(components: Mapping[str, Any], models: Mapping[str, Any], *, empty: bool = False) -> None:
    seen: dict[str, str] = {}
    for which, roles in (("components", components), ("models", models)):
        for role in roles:
            try:
                check_name(role, field=f"{which}.{role}")
                check_path(role, field=f"{which}.{role}")  # it becomes a folder for the model's files
            except InvalidInput as error:
                raise InvalidValue(f"the role {role!r:.80} is no name", field=which, next_step=error.hint()) from None
            other = seen.setdefault(role.casefold(), role)
            if other is not role or (which == "models" and role in components):
                raise InvalidValue(
                    f"the role {role!r} is taken twice",
                    field=f"{which}.{role}",
                    next_step="Components and models share one namespace, whatever the case; rename one.",
                )
    if not seen and not empty:
        raise InvalidValue("a bundle needs a component or a model", field="components")


def _checked_inputs(inputs: Sequence[str]) -> tuple[str, ...]:
    for i, name in enumerate(inputs):
        if not isinstance(name, str) or not name.strip() or len(name) > MAX_INPUT or not name.isprintable():
            raise InvalidValue(f"{name!r:.80} is no name of a variable", field=f"inputs[{i}]")
    if len(set(inputs)) != len(inputs):
        raise InvalidValue("a variable is named twice", field="inputs")
    return tuple(sorted(inputs))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_SUMMARY else f"{text[: MAX_SUMMARY - 1]}…"


def _no_role(role: str, known: Mapping[str, Any], what: str) -> NotFound:
    near = near_names(str(role), known)
    return NotFound(
        f"the bundle has no {what} {role!r}",
        what=what,
        name=str(role),
        near=near,
        next_step="" if near else f"It has: {', '.join(known) or 'none'}.",
    )
