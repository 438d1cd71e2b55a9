"""Chooses the probes of a new index, and writes down its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmartifacts.errors import InvalidValue
from llmartifacts.formats.faiss import Rows
from llmartifacts.kinds.vector_index import contents
from llmartifacts.kinds.vector_index.config import EmbeddingSpec
from llmartifacts.kinds.vector_index.documents import Documents
from llmartifacts.kinds.vector_index.guard import MappedIndex
from llmartifacts.kinds.vector_index.probes import (
    LONGEST_TEXT,
    MAX_PROBES,
    QUERIES,
    TEXTS,
    WINDOW_ROWS,
    QueryProbe,
    TextProbe,
    made_up_queries,
    make_queries,
    spread,
)
from llmartifacts.kinds.vector_index.value import VectorIndex

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]

PROBED_BYTES = 1 << 26
"""An index that is searched through and through, and not flat, is probed fewer times the larger it is."""


# --- text probes


def probe_rows(documents: Documents) -> list[int]:
    """Some documents whose texts serve as probes: evenly spread, each text once, none empty or very long."""
    chosen: dict[str, int] = {}
    for row in spread(4 * TEXTS, len(documents)):
        text = documents[row].text
        if text.strip() and len(text) <= LONGEST_TEXT:
            chosen.setdefault(text, row)
    rows = list(chosen.values())
    return [rows[i] for i in spread(TEXTS, len(rows))]


@dataclass(frozen=True, eq=False)
class Known:
    """Text probes: texts, and their vectors (n, d)."""

    texts: tuple[TextProbe, ...]
    vectors: Vectors

    def and_documents(self, documents: Documents, vectors: Mapping[int, Vectors], spec: EmbeddingSpec) -> Known:
        """These, and texts of some documents: row -> its vector."""
        more = of_documents(documents, vectors, spec)
        return Known((*self.texts, *more.texts), _join([self.vectors, more.vectors], spec))

    def and_queries(self, texts: Sequence[str], vectors: Sequence[Any], spec: EmbeddingSpec) -> Known:
        """These, and texts that were embedded as queries.

        Raises:
            InvalidValue: A vector is none, or of another dimension.
        """
        if not texts:
            return self
        more = contents.as_matrix(vectors, field="embeddings", dimension=spec.dimension)
        probes = tuple(TextProbe(text=text, side="query") for text in texts)
        return Known((*self.texts, *probes), _join([self.vectors, more], spec))


def of_documents(documents: Documents, vectors: Mapping[int, Vectors], spec: EmbeddingSpec) -> Known:
    """Probes of some documents' texts: row -> its vector."""
    texts = tuple(TextProbe(text=documents[row].text) for row in vectors)
    return Known(texts, _join(list(vectors.values()), spec))


def of_user(probes: Any, spec: EmbeddingSpec) -> Known:
    """Text probes that users give: texts with their vectors, or none.

    Raises:
        InvalidValue: Something else, too many, or vectors that do not fit.
    """
    if probes is None:
        return Known((), _join([], spec))
    if not isinstance(probes, Mapping) or not probes or not all(isinstance(text, str) for text in probes):
        raise InvalidValue(
            "probes are texts with their vectors, or 'documents'",
            field="probes",
            next_step="Give probes={text: vector}, or probes='documents' if the vectors embed the documents' texts.",
        )
    if len(probes) > MAX_PROBES:
        raise InvalidValue(
            f"{len(probes)} probes are more than {MAX_PROBES}", field="probes", next_step="Eight are plenty."
        )
    vectors = contents.as_matrix(list(probes.values()), field="probes", dimension=spec.dimension)
    return Known(tuple(TextProbe(text=text) for text in probes), _join([vectors], spec))


def _join(parts: Sequence[Vectors], spec: EmbeddingSpec) -> Vectors:
    """As one matrix, (0, d) if there are none; at unit length where the spec says so."""
    import numpy as np

    joined = np.vstack([np.zeros((0, spec.dimension), np.float32), *parts]).astype(np.float32)
    return contents.to_unit(joined, field="probes") if spec.normalized else joined


# --- query probes


def sample_queries(mapped: MappedIndex, spec: EmbeddingSpec, vectors: Vectors | None) -> Vectors:
    """Queries for probes: some of the vectors themselves, where they are known."""
    import numpy as np

    layout = mapped.layout
    count = min(QUERIES, layout.count)
    searched_whole = layout.nprobe is None and layout.ef_search is None
    if searched_whole and not _is_flat(mapped):
        count = max(1, min(count, PROBED_BYTES // len(mapped.data)))
    positions = spread(count, layout.count)
    if vectors is not None:
        return vectors[positions]
    if layout.vectors is None:
        return made_up_queries(count, spec.dimension)
    found: list[Vectors] = []
    before = 0
    for _, block in contents.stored_vectors(mapped.data, layout):
        found.extend(block[p - before].copy() for p in positions if before <= p < before + len(block))
        before += len(block)
    return np.stack(found)


def answers(value: VectorIndex, asked: Vectors, vectors: Vectors | None) -> tuple[QueryProbe, ...]:
    """What an index answers to its query probes.

    Args:
        value: The index.
        asked: The queries, (n, d).
        vectors: All its vectors by row, where they are at hand.
    """
    mapped, count = value.mapped, value.count
    windows: list[tuple[int, int] | None] = [None] * len(asked)
    if _is_flat(mapped) and count > WINDOW_ROWS:
        starts = [min(max(p - WINDOW_ROWS // 2, 0), count - WINDOW_ROWS) for p in spread(len(asked), count)]
        windows = [(start, start + WINDOW_ROWS) for start in starts]

    def find(rows: set[int]) -> dict[int, Vectors]:
        return {row: vectors[row] for row in rows} if vectors is not None else fetch(mapped, value.row_ids, rows)

    exact = find if mapped.layout.vectors is not None else None
    return make_queries(value.nearest_rows, asked, windows, value.embedding.metric, exact)


def _is_flat(mapped: MappedIndex) -> bool:
    return len(mapped.layout.types) == 1 and isinstance(mapped.layout.vectors, Rows)


def fetch(mapped: MappedIndex, row_ids: npt.NDArray[np.int64] | None, rows: set[int]) -> dict[int, Vectors]:
    """Vectors of some rows, read from the file; those it does not keep are missing."""
    import numpy as np

    wanted = {int(row_ids[row]) if row_ids is not None else row: row for row in rows}
    found: dict[int, Vectors] = {}
    keys = np.fromiter(wanted, np.int64, len(wanted))
    for ids, block in contents.stored_vectors(mapped.data, mapped.layout):
        for at in np.flatnonzero(np.isin(ids, keys)).tolist():
            found[wanted[int(ids[at])]] = block[at]
    return found
