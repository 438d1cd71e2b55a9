"""What compatibility rules read from a config: never trusted, and None where it is not what the kind writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llmartifacts.records.digest import Digest
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.wording import printable


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A model of a bundle, or of a prompt.

    Attributes:
        role: Its role in the bundle; empty for a prompt's.
        provider: Who serves it.
        name: The provider's name for it.
        revision: The provider's version; None if it is not stated.
        parameters: What it is called with.
        dimension: Components of a vector, for an embedder that states it.
        metric: `inner_product`, `l2` or `cosine`, for an embedder that states it.
        normalized: Whether its vectors have unit length, for an embedder that states it.
    """

    role: str
    provider: str
    name: str
    revision: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict, hash=False)
    dimension: int | None = None
    metric: str | None = None
    normalized: bool | None = None

    @property
    def embeds(self) -> bool:
        """Whether it is an embedder: by its dimension, or by its role."""
        return self.dimension is not None or "embed" in self.role.lower()

    def __str__(self) -> str:
        return printable(f"{self.provider}/{self.name}" + (f"@{self.revision}" if self.revision else ""))


@dataclass(frozen=True, slots=True)
class IndexFacts:
    """A vector index: its role or collection, digest, and the space of its vectors."""

    role: str
    digest: Digest
    model: str
    dimension: int
    metric: str
    normalized: bool


@dataclass(frozen=True, slots=True)
class PromptFacts:
    """A prompt.

    Attributes:
        role: Its role or collection.
        digest: Its manifest digest.
        required: Variables without which it does not render.
        model: The model it was made for; None if it names none.
        response_fields: Fields of its answers; None if they may have any.
    """

    role: str
    digest: Digest
    required: frozenset[str]
    model: ModelFacts | None
    response_fields: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class DatasetFacts:
    """An eval dataset.

    Attributes:
        role: Its role or collection.
        digest: Its manifest digest.
        fields: Its columns, what they are for (`input`, …), and the fields inside `input` and `metadata`, where told.
        expected_fields: Fields inside `expected_output`, where told.
        asked: The names that `input` goes by.
        spare: How many variables of other names `input` gives, unless one asks for it by its own: one if it is a plain
            value, any number if it is an object whose fields are not told.
    """

    role: str
    digest: Digest
    fields: frozenset[str]
    expected_fields: frozenset[str]
    asked: frozenset[str]
    spare: int

    def lacks(self, needed: frozenset[str]) -> frozenset[str]:
        """Which of some variables it does not give."""
        lacking = needed - self.fields
        spare = self.spare if self.asked.isdisjoint(needed) else 0
        return lacking if len(lacking) > spare else frozenset()


MANY = 1_000_000
"""More variables than a prompt has."""


def models_of(config: Mapping[str, Any]) -> tuple[ModelFacts, ...]:
    """The models of a bundle's config, by role."""
    found = (_model(config_, role) for role, config_ in sorted(_table(config.get("models")).items()))
    return tuple(m for m in found if m is not None)


def inputs_of(config: Mapping[str, Any]) -> frozenset[str]:
    """The variables that a bundle's caller gives."""
    return _names(config.get("inputs"))


def index_facts(role: str, manifest: Manifest) -> IndexFacts | None:
    """Read the config of a `vector_index`."""
    space = _table(manifest.config.get("embedding"))
    model, dimension, metric = space.get("model"), space.get("dimension"), space.get("metric")
    normalized = space.get("normalized")
    if not (
        isinstance(model, str)
        and type(dimension) is int
        and metric in ("inner_product", "l2")
        and isinstance(normalized, bool)
    ):
        return None
    return IndexFacts(role, manifest.digest, model, dimension, metric, normalized)


def prompt_facts(role: str, manifest: Manifest) -> PromptFacts | None:
    """Read the config of a `prompt`."""
    variables = manifest.config.get("variables")
    if not isinstance(variables, Mapping) or not all(isinstance(v, Mapping) for v in variables.values()):
        return None
    fixed = _names(manifest.config.get("partials"))
    required = frozenset(n for n, v in variables.items() if v.get("required", True) is not False) - fixed
    response = _response_fields(manifest.config.get("response_format"))
    return PromptFacts(role, manifest.digest, required, _model(manifest.config.get("model"), ""), response)


def dataset_facts(role: str, manifest: Manifest) -> DatasetFacts | None:
    """Read the config of an `eval_dataset`."""
    declared = manifest.config.get("columns", manifest.config.get("schema"))
    columns = _columns(declared) or _children(declared) or _children({"columns": declared})
    if not columns:
        return None
    purposes = {k: v for k, v in _table(manifest.config.get("fields")).items() if isinstance(v, str)}
    inner = {name: frozenset(_children(columns.get(purposes.get(name, name)))) for name in _PURPOSES}
    fields = frozenset(columns) | purposes.keys() | inner["input"] | inner["metadata"]
    name = purposes.get("input", "input")
    spare = 0 if name not in columns or inner["input"] else MANY if _is_object(columns[name]) else 1
    return DatasetFacts(role, manifest.digest, fields, inner["expected_output"], frozenset({"input", name}), spare)


def _model(config: Any, role: str) -> ModelFacts | None:
    provider, name, revision = (_table(config).get(key) for key in ("provider", "name", "revision"))
    if not isinstance(provider, str) or not isinstance(name, str):
        return None
    parameters = _table(_table(config).get("parameters"))
    dimension, metric, normalized = (parameters.get(key) for key in ("dimension", "metric", "normalized"))
    return ModelFacts(
        role,
        provider,
        name,
        revision if isinstance(revision, str) else None,
        parameters,
        dimension if type(dimension) is int else None,
        _METRICS.get(metric.casefold()) if isinstance(metric, str) else None,
        normalized if isinstance(normalized, bool) else None,
    )


def _response_fields(response: Any) -> frozenset[str] | None:
    """Fields of a JSON Schema, bare or in the envelope `{"type": "json_schema", "json_schema": {"schema": …}}`."""
    schema = _table(response)
    for key in ("json_schema", "schema"):
        schema = _table(schema[key]) if isinstance(schema.get(key), Mapping) else schema
    properties = schema.get("properties")
    if not isinstance(properties, Mapping) or schema.get("additionalProperties", False) is not False:
        return None
    return frozenset(properties)


def _children(schema: Any) -> dict[str, Any]:
    """Name -> schema of what an object has: a mapping or a list, under any of the usual keys."""
    for key in ("columns", "fields", "properties"):
        inside = _table(schema).get(key)
        if isinstance(inside, Mapping):
            return dict(inside)
        if isinstance(inside, list | tuple):
            return {n: i for i in inside if isinstance(n := i.get("name") if isinstance(i, Mapping) else i, str)}
    return {}


_METRICS = {
    "inner_product": "inner_product",
    "ip": "inner_product",
    "dot": "inner_product",
    "dot_product": "inner_product",
    "l2": "l2",
    "euclidean": "l2",
    "cosine": "cosine",
}
_PURPOSES = ("input", "metadata", "expected_output")


def _columns(declared: Any) -> Mapping[str, Any]:
    """Column -> what it holds, where that is said without a key around; else empty."""
    table = _table(declared)
    plain = all(isinstance(c, Mapping) and (c.keys() & {"type", "types"}) for c in table.values())
    return table if plain else {}


def _is_object(column: Any) -> bool:
    types = _table(column).get("types", _table(column).get("type"))
    return types == "object" or (isinstance(types, Mapping | list | tuple) and "object" in types)


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _names(value: Any) -> frozenset[str]:
    return frozenset(n for n in value if isinstance(n, str)) if isinstance(value, Iterable) else frozenset()
