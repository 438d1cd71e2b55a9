"""`ModelSpec`: which model, at which revision, with which parameters."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import Field

from llmartifacts.errors import InvalidValue, LlmartifactsError
from llmartifacts.kinds.base import Config
from llmartifacts.records.canonical import plain_json
from llmartifacts.records.names import check_paths


class ModelConfig(Config):
    """A `ModelSpec` inside a manifest's config.

    Attributes:
        provider: Who serves it, such as `openai`.
        name: The provider's name for it.
        revision: The provider's version or commit; None if it has none.
        parameters: JSON object of what it is called with.
        files: Paths of its own files, below `models/ROLE/` in a bundle.
    """

    provider: str
    name: str
    revision: str | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelSpec:
    """Which model, at which revision, with which parameters.

    Args:
        provider: Who serves it, such as `openai` or `huggingface`.
        name: The provider's name for it, such as `gpt-4-turbo`.
        revision: The provider's version or commit; pin it where the provider has one.
        parameters: JSON object of what it is called with, such as `temperature` and `top_p`; for an embedder also
            `dimension`, `metric` (`inner_product` or `l2`) and `normalized`, which compatibility rules read.
        files: Path inside the artifact -> file on disk, such as an adapter; for models of a bundle only.

    Raises:
        InvalidValue: A field is empty or no JSON; the field is named.

    Example:
        >>> ModelSpec("openai", "gpt-4-turbo", parameters={"temperature": 0.2}).parameters["temperature"]
        0.2
    """

    provider: str
    name: str
    revision: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for which in ("provider", "name"):
            text = getattr(self, which)
            if not isinstance(text, str) or not text.strip():
                raise InvalidValue(f"a model needs a {which}", field=f"model.{which}")
        if self.revision is not None and not (isinstance(self.revision, str) and self.revision):
            raise InvalidValue(
                "revision is not text", field="model.revision", next_step="Leave it out if there is none."
            )
        if not isinstance(self.parameters, Mapping):
            raise InvalidValue("parameters is not an object", field="model.parameters")
        try:
            parameters = plain_json(self.parameters, field="model.parameters")
        except LlmartifactsError as error:
            raise InvalidValue.of(error) from None
        check_paths(self.files, field="model.files")
        object.__setattr__(self, "parameters", MappingProxyType(parameters))
        # A path that holds its file does so only as long as that very object lives.
        files = {path: f if isinstance(f, Path) else Path(os.fspath(f)) for path, f in self.files.items()}
        object.__setattr__(self, "files", MappingProxyType(files))

    def __hash__(self) -> int:
        return hash((self.provider, self.name, self.revision))

    def to_config(self) -> dict[str, Any]:
        """Plain JSON, as manifests keep it; absent fields are left out."""
        made: dict[str, Any] = {"provider": self.provider, "name": self.name}
        if self.revision is not None:
            made["revision"] = self.revision
        if self.parameters:
            made["parameters"] = dict(self.parameters)
        if self.files:
            made["files"] = sorted(self.files)
        return made

    @classmethod
    def from_config(cls, config: ModelConfig, files: Mapping[str, Path] | None = None) -> ModelSpec:
        """The inverse of `to_config`, with the files where they are now."""
        return cls(config.provider, config.name, config.revision, config.parameters, files or {})
