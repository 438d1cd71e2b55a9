"""Probes: questions to an index, and to an embedder, whose answers were written down when the index was made.

Text probes are texts with their vectors. Another embedder of the same dimension gives other vectors, and is refused.
Query probes are vectors with their nearest documents. An index that answers otherwise, because FAISS reads the file
another way here, is not served.

`probes.json` has the texts, the expected rows and scores; `probes.f32` has the vectors, float32 little-endian, the
text probes' first, then the queries'.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError

from llmartifacts.errors import InvalidValue
from llmartifacts.formats.faiss import MAX_COUNT, Metric
from llmartifacts.kinds.base import Config
from llmartifacts.records.canonical import canonical_bytes, parse_json

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]
    Search = Callable[[Vectors, int, tuple[int, int] | None], tuple[npt.NDArray[np.int64], Vectors]]
    """(queries (n, d), k, window of rows or None) -> rows (n, k), -1 where there is none, and scores (n, k)."""
    Fetch = Callable[[set[int]], dict[int, npt.NDArray[np.float32]]]
    """rows -> their exact vectors (d,)."""

JSON, F32 = "probes.json", "probes.f32"
SCORE_TOLERANCE = 1e-3
"""Relative difference of scores between machines and thread counts; measured 1e-6, and scores are kept to 4 digits."""
TEXTS, QUERIES, NEIGHBOURS = 8, 8, 5
MAX_PROBES = 64
LONGEST_TEXT = 2000
WINDOW_ROWS = 4096
"""A query probe of a flat index looks at this many rows, so that starting with a large one stays cheap."""

Side = Literal["document", "query"]


Row = Annotated[int, Field(ge=0, le=MAX_COUNT, strict=True)]


class TextProbe(Config):
    """A text whose vector is known.

    Attributes:
        text: The text.
        side: Which method embeds it: `embed_documents` or `embed_query`; models with instructions differ in them.
    """

    text: str
    side: Side = "document"


class QueryProbe(Config):
    """A query whose neighbours are known.

    Attributes:
        rows: Expected rows, nearest first.
        scores: Their scores.
        window: First row and row after the last that were searched; None for all.
    """

    rows: tuple[Row, ...] = Field(max_length=MAX_PROBES)
    scores: tuple[float, ...] = Field(max_length=MAX_PROBES)
    window: tuple[Row, Row] | None = None


class ProbesFile(Config):
    """`probes.json`."""

    tolerance: float = Field(gt=0, lt=1)
    texts: tuple[TextProbe, ...] = Field(default=(), max_length=MAX_PROBES)
    queries: tuple[QueryProbe, ...] = Field(default=(), max_length=MAX_PROBES)


@dataclass(frozen=True, eq=False)
class Probes:
    """The probes of an index.

    Attributes:
        file: Texts, expected rows and scores.
        text_vectors: (texts, d) float32.
        query_vectors: (queries, d) float32.
    """

    file: ProbesFile
    text_vectors: Vectors = field(repr=False)
    query_vectors: Vectors = field(repr=False)

    def to_files(self) -> dict[str, bytes]:
        """The two files of the artifact."""
        vectors = self.text_vectors.astype("<f4").tobytes() + self.query_vectors.astype("<f4").tobytes()
        return {JSON: canonical_bytes(self.file.model_dump(mode="json"), field=JSON), F32: vectors}

    @classmethod
    def from_files(cls, body: bytes, vectors: bytes, dimension: int) -> Probes:
        """The inverse of `to_files`.

        Raises:
            InvalidValue: They are not what `to_files` writes.
        """
        import numpy as np

        try:
            file = ProbesFile.model_validate(parse_json(body, field=JSON, origin=JSON))
        except ValidationError as error:
            where = ".".join(str(part) for part in error.errors()[0]["loc"])
            raise InvalidValue(
                f"the probes are malformed: {error.errors()[0]['msg']}", field=f"{JSON}.{where}"
            ) from None
        count = len(file.texts) + len(file.queries)
        if len(vectors) != 4 * dimension * count:
            raise InvalidValue(f"{F32} has {len(vectors)} bytes, not {count} vectors of {dimension}", field=F32)
        matrix = np.frombuffer(vectors, "<f4").reshape(count, dimension)
        if not np.isfinite(matrix).all():
            raise InvalidValue("a probe's vector holds a NaN or an infinity", field=F32)
        return cls(file, matrix[: len(file.texts)], matrix[len(file.texts) :])


def spread(count: int, total: int) -> list[int]:
    """Up to `count` numbers below `total`, evenly spread, each once."""
    count = min(count, total)
    return [i * total // count + total // (2 * count) for i in range(count)]


def made_up_queries(count: int, dimension: int) -> Vectors:
    """Vectors for an index whose own are not at hand; the same on every machine."""
    import numpy as np

    raw = hashlib.shake_256(b"llmartifacts query probes").digest(4 * count * dimension)
    return (np.frombuffer(raw, "<i4").reshape(count, dimension) / np.float64(2**31)).astype(np.float32)


def make_queries(
    search: Search, vectors: Vectors, windows: Sequence[tuple[int, int] | None], metric: Metric, fetch: Fetch | None
) -> tuple[QueryProbe, ...]:
    """Write down what an index answers.

    Args:
        search: The index.
        vectors: The queries, (n, d).
        windows: For each, the rows to look at.
        metric: Of the index.
        fetch: Gives vectors by row, where the index compares vectors as they are. Scores are then computed in float64
            and rounded, so that the same content has the same digest whatever the machine and its threads.
    """
    answers = [search(vector[None], NEIGHBOURS, window) for vector, window in zip(vectors, windows, strict=True)]
    found = [
        [(int(r), float(s)) for r, s in zip(rows[0], scores[0], strict=True) if r >= 0] for rows, scores in answers
    ]
    if fetch:
        stored = fetch({row for pairs in found for row, _ in pairs})
        found = [
            [(row, _score(vector, stored[row], metric)) for row, _ in pairs]
            for vector, pairs in zip(vectors, found, strict=True)
        ]
    sign = -1 if metric == "inner_product" else 1
    made = []
    for pairs, window in zip(found, windows, strict=True):
        rounded = sorted(
            ((row, float(f"{score:.4g}") + 0.0) for row, score in pairs), key=lambda p: (sign * p[1], p[0])
        )
        made.append(QueryProbe(rows=[r for r, _ in rounded], scores=[s for _, s in rounded], window=window))
    return tuple(made)


def _score(query: Vectors, vector: Vectors, metric: Metric) -> float:
    import numpy as np

    a, b = query.astype(np.float64), vector.astype(np.float64)
    return float(a @ b) if metric == "inner_product" else float((a - b) @ (a - b))


def check_queries(search: Search, probes: Probes) -> None:
    """Ask the query probes again: rows exact with ties allowed, scores to a tolerance.

    Raises:
        InvalidValue: The index gives other neighbours.
    """
    # One by one: together, FAISS starts its threads, which costs more than they save where cores are shared.
    for number, (probe, vector) in enumerate(zip(probes.file.queries, probes.query_vectors, strict=True)):
        rows, scores = search(vector[None], max(len(probe.rows), 1), probe.window)
        found = [(row, score) for row, score in zip(rows[0].tolist(), scores[0].tolist(), strict=True) if row >= 0]
        if not same_neighbours(probe, [r for r, _ in found], [s for _, s in found], float(vector @ vector)):
            raise InvalidValue(
                f"the index gives other neighbours than when it was logged: {[r for r, _ in found]}, "
                f"not {list(probe.rows)}",
                field=f"{JSON}.queries[{number}]",
                next_step="Compare the FAISS releases here and where it was logged; else log the index again.",
            )


def same_neighbours(probe: QueryProbe, rows: Sequence[int], scores: Sequence[float], size: float) -> bool:
    """Whether an answer is the expected one.

    Args:
        probe: The expected rows and scores, nearest first.
        rows: The rows found.
        scores: Their scores.
        size: Squared length of the query; rounding errors grow with it.
    """
    close = SCORE_TOLERANCE * max([size, *map(abs, probe.scores)])
    if len(rows) != len(probe.rows) or len(probe.scores) != len(probe.rows) or len(set(rows)) != len(rows):
        return False
    expected = dict(zip(probe.rows, probe.scores, strict=True))
    for row, score, at_rank in zip(rows, scores, probe.scores, strict=True):
        # One that was not among them may only have pushed out an equal last one.
        known = expected.get(row, probe.scores[-1])
        if not (abs(score - at_rank) <= close and abs(known - at_rank) <= close):
            return False
    return True


def embed(embeddings: Any, probes: Sequence[TextProbe]) -> list[Any]:
    """Embed the texts of probes, each by its own method of a LangChain embedder.

    Raises:
        InvalidValue: It gives another number of vectors than it got texts.
    """
    texts = [p.text for p in probes if p.side == "document"]
    vectors = list(embeddings.embed_documents(texts)) if texts else []
    if len(vectors) != len(texts):
        raise InvalidValue(f"the embedder gave {len(vectors)} vectors for {len(texts)} texts", field="embeddings")
    documents = iter(vectors)
    return [next(documents) if p.side == "document" else embeddings.embed_query(p.text) for p in probes]


def furthest(expected: Vectors, found: Vectors) -> tuple[int, float]:
    """The text probe whose vector differs most, and by how much, relative to the longer of the two."""
    import numpy as np

    a, b = expected.astype(np.float64), found.astype(np.float64)
    longer = np.maximum(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))
    apart = np.linalg.norm(a - b, axis=1) / np.where(longer > 0, longer, 1)
    worst = int(np.argmax(apart))
    return worst, float(apart[worst])
