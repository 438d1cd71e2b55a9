"""Scorer `similarity`: cosine of the embeddings of the output and of the expected text.

Both texts are embedded as documents (`embed_documents`), in one call, with nothing added. Of several accepted texts the
most similar one counts. A blank text is not embedded: two blank texts are alike (1), one is like nothing (0), and so
is a text whose vector is zero. The scale is -1 to 1 (`cosine`), or 0 to 1 with what lies below 0 counted as 0
(`clipped`). An item that expects nothing has no score; vectors of unlike length, or with what is no finite number, are
an error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from llmartifacts.evals.scorers.base import Answer, OptionScorer
from llmartifacts.evals.scorers.named import NamedObject
from llmartifacts.evals.scorers.sources import source_digest
from llmartifacts.evals.scorers.texts import ExpectedOptions, expected_texts, output_text
from llmartifacts.kinds.eval_dataset.value import Item
from llmartifacts.kinds.eval_suite.config import Dotted


class SimilarityOptions(ExpectedOptions):
    """Options of `similarity`.

    Attributes:
        embeddings: A LangChain `Embeddings` object, its class or a function that makes it, as `package.module:name`.
        arguments: Keyword arguments for the class or the function, JSON.
        scale: `clipped` is 0 to 1, `cosine` is -1 to 1.
    """

    embeddings: Dotted
    arguments: Annotated[dict[str, Any], Field(max_length=100)] = Field(default_factory=dict)
    scale: Literal["clipped", "cosine"] = "clipped"


class Similarity(OptionScorer[SimilarityOptions]):
    """Cosine of two texts."""

    type = "similarity"
    Model = SimilarityOptions

    def prepare(self) -> None:
        """Set the scale, and find the source; nothing is imported."""
        given = self.given
        self.lo = -1.0 if given.scale == "cosine" else 0.0
        self.source = source_digest(given.embeddings, field="embeddings")
        self._embedder = NamedObject(given.embeddings, given.arguments, method="embed_documents", field="embeddings")

    def score(self, item: Item, answer: Answer, baseline: Answer | None = None) -> float | None:
        """The cosine with the nearest accepted text."""
        accepted = expected_texts(item, self.given.expected)
        if accepted is None:
            return None
        text = output_text(answer, self.given.field)
        if not text.strip():
            return float(not all(gold.strip() for gold in accepted))
        told = list(dict.fromkeys(t for t in (text, *accepted) if t.strip()))
        vectors = dict(zip(told, self._embedder.get().embed_documents(told), strict=True))
        found = [cosine(vectors[text], vectors[gold]) if gold.strip() else 0.0 for gold in accepted]
        return max(self.lo, *found)


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    """Cosine of two vectors, 0 if one is zero.

    Raises:
        ValueError: They have not the same length, or a part is not finite.

    Example:
        >>> cosine([1.0, 0.0], [2.0, 0.0]), cosine([1.0, 0.0], [0.0, 0.0])
        (1.0, 0.0)
    """
    x, y = [float(v) for v in a], [float(v) for v in b]
    if not x or len(x) != len(y) or not all(map(math.isfinite, (*x, *y))):
        raise ValueError(f"the embeddings are no two finite vectors of one length: {len(x)} and {len(y)}")
    x, y = _unit(x), _unit(y)
    return max(-1.0, min(1.0, math.fsum(p * q for p, q in zip(x, y, strict=True))))


def _unit(vector: list[float]) -> list[float]:
    largest = max(map(abs, vector))
    if not largest:
        return vector
    scaled = [v / largest for v in vector]  # so that squares neither overflow nor vanish
    length = math.sqrt(math.fsum(v * v for v in scaled))
    return [v / length for v in scaled]
