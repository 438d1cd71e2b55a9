"""A corpus of clustered vectors in four versions, and the FAISS files that a team would write of each.

Passages of a document lie close together, documents lie in clusters: as real embeddings do. Everything is seeded.
The cosines are those of the pages of a real documentation under all-MiniLM-L6-v2: 0.45 of two passages of one page
(measured there: 0.41, neighbours 0.56), 0.30 of two pages of one topic (0.28), none of two topics (0.02).

    v1  the corpus
    v2  v1, and 1 % appended
    v3  v2 without 0.5 % of it (whole documents, scattered), and 1 % appended
    v4  v3 with 1 % of its documents changed, built anew: a quantiser is trained again
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

DIMENSION = 384
PASSAGES = 8  # of a document
ID_BYTES = 8
SEED = 2048
TRAINING = 40  # vectors for each list, as FAISS's own minimum of 39
ROUNDS = 8  # of k-means

Ids = str  # "seq.", "random", "hashed", or "" where the file has none


@dataclass(frozen=True)
class State:
    """What one version holds.

    Attributes:
        change: What was done to the version before, as the table says it; empty for the first.
        names: Array (n,) of int64: the name of each passage, which its id is made from; stable over versions.
        rows: Array (n,) of int64: where the vector of each passage lies in the pool.
        removed: Names that went.
        changed: How many vectors are new or different.
    """

    change: str
    names: Any
    rows: Any
    removed: Any
    changed: int


class Corpus:
    """The vectors of all versions, and which of them each version holds.

    Args:
        count: Vectors of the first version.
    """

    def __init__(self, count: int) -> None:
        self.count = count // PASSAGES * PASSAGES
        self.percent = max(PASSAGES, count // 100 // PASSAGES * PASSAGES)
        self.lists = 2048 if count >= 200_000 else max(16, count // 250)
        self.trained: dict[tuple[str, int], Any] = {}

    @cached_property
    def pool(self) -> Any:
        """Array (count + 3 %, 384) of float32, of unit length: the first version, then what comes later."""
        import numpy as np

        random = np.random.default_rng(SEED)
        centres = random.standard_normal((max(16, self.count // 1000), DIMENSION), dtype=np.float32)
        documents = (self.count + 3 * self.percent) // PASSAGES
        made = np.empty((documents * PASSAGES, DIMENSION), np.float32)
        weights = random.pareto(1.5, len(centres)) + 0.1  # a few topics have most of the documents
        topics = random.choice(len(centres), documents, p=weights / weights.sum())
        for begin in range(0, documents, 8192):
            chosen = topics[begin : begin + 8192]
            about = centres[chosen] + 0.7 * random.standard_normal((len(chosen), DIMENSION), dtype=np.float32)
            part = random.standard_normal((len(chosen), PASSAGES, DIMENSION), dtype=np.float32)
            part = (part * np.float32(1.35) + about[:, None, :]).reshape(-1, DIMENSION)
            part /= np.linalg.norm(part, axis=1, keepdims=True)
            made[begin * PASSAGES : begin * PASSAGES + len(part)] = part
        return made

    @cached_property
    def states(self) -> list[State]:
        """The four versions."""
        import numpy as np

        random = np.random.default_rng(SEED + 1)
        count, percent, nothing = self.count, self.percent, np.empty(0, np.int64)
        first = np.arange(count, dtype=np.int64)
        second = np.arange(count + percent, dtype=np.int64)
        gone = random.choice(len(second) // PASSAGES, max(1, percent // 2 // PASSAGES), replace=False)
        leave = np.isin(second // PASSAGES, gone)
        third = np.concatenate([second[~leave], np.arange(len(second), len(second) + percent, dtype=np.int64)])
        fourth = third.copy()
        redone = random.choice(len(third) // PASSAGES, percent // PASSAGES, replace=False)
        places = (np.sort(redone)[:, None] * PASSAGES + np.arange(PASSAGES)).reshape(-1)
        fourth[places] = count + 2 * percent + np.arange(len(places))
        return [
            State("", first, first, nothing, count),
            State("+1 %", second, second, nothing, percent),
            State("-.5 +1 %", third, third, second[leave], percent),
            State("rebuilt", third, fourth, nothing, len(places)),
        ]

    def ids(self, kind: Ids, names: Any) -> Any:
        """FAISS's ids of passages: array (n,) of int64."""
        return self._every_id[kind][names]

    @cached_property
    def _every_id(self) -> dict[Ids, Any]:
        import numpy as np

        most = self.count + 2 * self.percent
        keys = (f"docs/page-{n // PASSAGES}.md#{n % PASSAGES}".encode() for n in range(most))
        hashed = [int.from_bytes(blake2b(key, digest_size=8).digest(), "little") >> 1 for key in keys]
        return {
            "seq.": np.arange(most, dtype=np.int64),
            "random": np.random.default_rng(SEED + 2).integers(0, 2**63 - 1, most, dtype=np.int64),
            "hashed": np.array(hashed, np.int64),
        }


@dataclass(frozen=True)
class Family:
    """An index type with a kind of ids.

    Attributes:
        type: As the table calls it.
        factory: FAISS's factory string, with `{lists}`.
        code: Bytes of a stored vector.
        ids: Which ids the file holds.
        versions: How many of the four are measured.
    """

    type: str
    factory: str
    code: int
    ids: Ids = ""
    versions: int = 4

    @property
    def label(self) -> str:
        """Its name in the table."""
        return f"{self.type}, {self.ids}" if self.ids else self.type

    @property
    def row(self) -> int:
        """Bytes of a vector with its id."""
        return self.code + (ID_BYTES if self.ids else 0)

    def files(self, corpus: Corpus, folder: Path, say: Callable[[str], None]) -> list[Path]:
        """Its files, one for each version; made if they are not there yet."""
        folder.mkdir(parents=True, exist_ok=True)
        name = self.label.lower().replace(", ", "-").rstrip(".")
        places = [folder / f"{name}-{corpus.count}-v{n + 1}.faiss" for n in range(self.versions)]
        if not all(place.exists() for place in places):
            say(f"building {self.label}: {self.versions} versions of {corpus.count:,} x {DIMENSION}")
            for place, index in zip(places, self._built(corpus), strict=False):
                _write(index, place)
        return places

    def _built(self, corpus: Corpus) -> Iterator[Any]:
        """The index of each version in turn."""
        index = None
        for number, state in enumerate(corpus.states[: self.versions]):
            if index is None or number == 3 or (len(state.removed) and self.type.startswith("HNSW")):
                index, new = self._empty(corpus, number), slice(None)  # HNSW cannot remove
            else:
                if len(state.removed):
                    index.remove_ids(corpus.ids(self.ids, state.removed) if self.ids else state.removed)
                new = slice(len(state.names) - corpus.percent, None)
            vectors = corpus.pool[state.rows[new]]
            if self.ids:
                index.add_with_ids(vectors, corpus.ids(self.ids, state.names[new]))
            else:
                index.add(vectors)
            if index.ntotal != len(state.names):
                raise RuntimeError(f"{self.label} v{number + 1} holds {index.ntotal} vectors, not {len(state.names)}")
            yield index

    def _empty(self, corpus: Corpus, number: int) -> Any:
        """Trained on a sample of the version, with nothing in it; trained once for all kinds of ids."""
        import faiss
        import numpy as np

        kept = corpus.trained.get((self.factory, number))
        if kept is None:
            text = self.factory.format(lists=corpus.lists)
            kept = faiss.index_factory(DIMENSION, text, faiss.METRIC_INNER_PRODUCT)
            if not kept.is_trained:
                rows = corpus.states[number].rows
                size = min(len(rows), max(corpus.lists * TRAINING, 10_240))
                sample = np.random.default_rng(SEED + number).choice(rows, size, replace=False)
                kept.cp.seed, kept.cp.niter = SEED + number, ROUNDS
                if hasattr(kept, "pq"):  # how good the codes are changes no byte count, and k-means on 8 floats is slow
                    own = kept.pq.cp
                    own.seed, own.niter, own.min_points_per_centroid, own.max_points_per_centroid = number, 2, 1, 10
                kept.train(corpus.pool[np.sort(sample)])
            corpus.trained[self.factory, number] = kept
        return faiss.clone_index(kept)


def _write(index: Any, place: Path) -> None:
    """Whole or not at all: what lies there is used again."""
    import faiss

    beside = place.with_suffix(".writing")
    faiss.write_index(index, str(beside))
    os.replace(beside, place)


# "PQ48np": without the polysemous training, minutes that change no byte count.
FLAT = Family("Flat", "Flat", 4 * DIMENSION)
IVF_SEQUENTIAL = Family("IVF-Flat", "IVF{lists},Flat", 4 * DIMENSION, "seq.")
IVF_RANDOM = Family("IVF-Flat", "IVF{lists},Flat", 4 * DIMENSION, "random")
IVF_HASHED = Family("IVF-Flat", "IVF{lists},Flat", 4 * DIMENSION, "hashed")
SQ_RANDOM = Family("IVF-SQ8", "IVF{lists},SQ8", DIMENSION, "random")
PQ_RANDOM = Family("IVF-PQ48", "IVF{lists},PQ48np", 48, "random")
ID_MAP = Family("IDMap2", "IDMap2,Flat", 4 * DIMENSION, "random")
HNSW = Family("HNSW32", "HNSW32", 4 * DIMENSION, versions=3)
FAMILIES = (
    IVF_RANDOM,
    IVF_SEQUENTIAL,
    IVF_HASHED,
    SQ_RANDOM,
    Family("IVF-SQ8", "IVF{lists},SQ8", DIMENSION, "seq."),
    Family("IVF-SQ8", "IVF{lists},SQ8", DIMENSION, "hashed"),
    PQ_RANDOM,
    Family("IVF-PQ48", "IVF{lists},PQ48np", 48, "seq."),
    Family("IVF-PQ48", "IVF{lists},PQ48np", 48, "hashed"),
    FLAT,
    ID_MAP,
    HNSW,
)
