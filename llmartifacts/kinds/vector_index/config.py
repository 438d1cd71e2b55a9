"""What a manifest says of a vector index, and `EmbeddingSpec`, the part of it that users write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

from pydantic import Field, model_validator

from llmartifacts.errors import InvalidValue
from llmartifacts.formats.faiss import MAX_COUNT, MAX_DIMENSION, Metric
from llmartifacts.kinds.base import Config
from llmartifacts.records.digest import parse_digest

MAX_MODEL_NAME = 512
PROBE_TOLERANCE = 0.05
"""|a - b| / max(|a|, |b|) that two runs of one embedder must stay below; 0.05 on unit vectors is a cosine of 0.99875.
Room for float16, batching and hosted models; vectors of unrelated models are about 1.4 apart."""
MAX_FIELDS = 256
"""Metadata fields that a config names; a corpus with more names the first ones, sorted."""


@dataclass(frozen=True)
class EmbeddingSpec:
    """The space that the vectors of an index live in.

    Args:
        model: Name of the embedder, such as `BAAI/bge-small-en-v1.5`; with its revision where it has one.
        dimension: Components of a vector, 1 to 65,536.
        metric: `inner_product` (larger is nearer) or `l2` (squared Euclidean distance, smaller is nearer).
        normalized: Vectors are compared at unit length. Stored vectors must have it (to 0.001), and a query that has
            not is scaled to it before the search.

    Raises:
        InvalidValue: A field is out of its range; the field is named.

    Example:
        >>> EmbeddingSpec("all-MiniLM-L6-v2", 384, normalized=True).metric
        'inner_product'
    """

    model: str
    dimension: int
    metric: Metric = "inner_product"
    normalized: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or not self.model.strip() or len(self.model) > MAX_MODEL_NAME:
            raise InvalidValue(
                f"an embedding needs the name of its model, of at most {MAX_MODEL_NAME} characters",
                field="embedding.model",
                next_step="Say which embedder made the vectors, such as 'BAAI/bge-small-en-v1.5'.",
            )
        if type(self.dimension) is not int or not 1 <= self.dimension <= MAX_DIMENSION:
            raise InvalidValue(
                f"the dimension {self.dimension!r:.40} is not a whole number from 1 to {MAX_DIMENSION}",
                field="embedding.dimension",
            )
        if self.metric not in get_args(Metric):
            raise InvalidValue(
                f"the metric {self.metric!r:.40} is not known",
                field="embedding.metric",
                next_step="Use 'inner_product' (on unit vectors this is cosine) or 'l2'.",
            )
        if type(self.normalized) is not bool:
            raise InvalidValue(
                f"normalized is {self.normalized!r:.40}, not true or false", field="embedding.normalized"
            )


class EmbeddingConfig(Config):
    """An `EmbeddingSpec` inside a manifest's config."""

    model: str = Field(min_length=1, max_length=MAX_MODEL_NAME)
    dimension: int = Field(ge=1, le=MAX_DIMENSION, strict=True)
    metric: Metric
    normalized: bool = Field(strict=True)

    def to_spec(self) -> EmbeddingSpec:
        """The spec that users see."""
        return EmbeddingSpec(self.model, self.dimension, self.metric, self.normalized)

    @classmethod
    def from_spec(cls, spec: EmbeddingSpec) -> EmbeddingConfig:
        """The inverse of `to_spec`."""
        return cls(model=spec.model, dimension=spec.dimension, metric=spec.metric, normalized=spec.normalized)


class IndexConfig(Config):
    """The FAISS index.

    Attributes:
        factory: How it was made, as FAISS's factory string.
        types: The index types in the file, outermost first, as paths of four-character tags.
        count: Vectors.
        dimension: Components of a vector.
        metric: As in the embedding.
        bytes: Size of the file.
        nprobe: Lists that a search looks at unless told otherwise; None if there are no lists.
        ef_search: Width of a search in the graph unless told otherwise; None if there is no graph.
        trained: Digest of the trained parts: centroids, tables, matrices. None where nothing is trained, and in
            versions of releases before this field.
    """

    factory: str = Field(min_length=1, max_length=1024)
    types: tuple[str, ...] = Field(min_length=1, max_length=64)
    count: int = Field(ge=1, le=MAX_COUNT, strict=True)
    dimension: int = Field(ge=1, le=MAX_DIMENSION, strict=True)
    metric: Metric
    bytes: int = Field(ge=1, strict=True)
    nprobe: int | None = Field(default=None, ge=1)
    ef_search: int | None = Field(default=None, ge=1)
    trained: str | None = Field(default=None, pattern=r"^sha256:[0-9a-f]{64}$")


class DocumentsConfig(Config):
    """The documents.

    Attributes:
        count: How many; as many as vectors.
        fields: Names of metadata fields that occur, sorted, at most 256.
    """

    count: int = Field(ge=1, le=MAX_COUNT, strict=True)
    fields: tuple[str, ...] = Field(default=(), max_length=MAX_FIELDS)


class ProbesConfig(Config):
    """How many probes the artifact carries.

    Attributes:
        texts: Texts with their vectors.
        queries: Queries with their neighbours.
    """

    texts: int = Field(ge=0, le=64, strict=True)
    queries: int = Field(ge=0, le=64, strict=True)


class VectorIndexConfig(Config):
    """The config of a vector index.

    Attributes:
        embedding: The space of the vectors.
        index: The FAISS index.
        documents: The documents.
        probes: The probes.
        chunking: How documents were cut into passages, in the user's words; None if unknown.
        corpus: Manifest digest of what the documents were made from; None if unknown.
    """

    embedding: EmbeddingConfig
    index: IndexConfig
    documents: DocumentsConfig
    probes: ProbesConfig
    chunking: dict[str, Any] | None = None
    corpus: str | None = Field(default=None, pattern=r"^sha256:[0-9a-f]{64}$")

    @model_validator(mode="after")
    def _agree(self) -> VectorIndexConfig:
        if self.index.dimension != self.embedding.dimension:
            raise ValueError(
                f"the index has dimension {self.index.dimension}, its embedding {self.embedding.dimension}"
            )
        if self.index.metric != self.embedding.metric:
            raise ValueError(f"the index has metric {self.index.metric}, its embedding {self.embedding.metric}")
        if self.documents.count != self.index.count:
            raise ValueError(f"{self.documents.count} documents for {self.index.count} vectors")
        return self


def check_corpus(corpus: object) -> str | None:
    """The digest of a corpus, given as text or as something that has a `digest`, such as a `Version`.

    Raises:
        InvalidReference: It is no digest.
    """
    if corpus is None:
        return None
    return parse_digest(str(getattr(corpus, "digest", corpus)), field="corpus")
