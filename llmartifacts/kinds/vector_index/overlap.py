"""How alike two indexes answer: the mean overlap of their neighbours on the query probes of both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmartifacts.kinds.vector_index.config import EmbeddingSpec
from llmartifacts.records.wording import printable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from llmartifacts.kinds.vector_index.value import VectorIndex

K = 5
NAME = f"overlap@{K}"


@dataclass(frozen=True, slots=True)
class Overlap:
    """What was measured.

    Attributes:
        mean: Share of the document ids that both give among their K nearest, 0 to 1 (6 digits), averaged over the
            queries.
        queries: How many queries.
    """

    mean: float
    queries: int


def apart(before: EmbeddingSpec, after: EmbeddingSpec) -> str:
    """Why two indexes cannot be asked the same queries; empty if they can."""
    for what in ("model", "dimension", "metric"):
        old, new = getattr(before, what), getattr(after, what)
        if old != new:
            return f"the spaces differ: {what} {printable(str(old))} and {printable(str(new))}"
    return ""


def measure(before: VectorIndex, after: VectorIndex) -> Overlap | None:
    """Ask both indexes the query probes of both, each query once.

    Args:
        before: An index.
        after: Another of the same space.

    Returns:
        The overlap; None if neither has a query probe.
    """
    import numpy as np

    every = np.concatenate([before.probes.query_vectors, after.probes.query_vectors])
    queries = np.array(list({query.tobytes(): query for query in every}.values()), np.float32)
    if not len(queries):
        return None
    old, new = _answers(before, queries), _answers(after, queries)
    shares = [len(a & b) / max(len(a), len(b), 1) for a, b in zip(old, new, strict=True)]
    return Overlap(round(float(np.mean(shares)), 6), len(shares))


def _answers(value: VectorIndex, queries: npt.NDArray[np.float32]) -> list[set[str]]:
    return [set(line) - {None} for line in value.search(queries, K).ids.tolist()]
