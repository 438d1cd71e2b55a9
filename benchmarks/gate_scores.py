"""Graded scores, drawn so that the true difference of candidate and baseline is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIZES = (50, 100, 200, 400)
Floats = NDArray[np.float64]


def graded(shape: str, sets: int, n: int, drop: float, rng: np.random.Generator) -> Floats:
    """Drawn differences of graded scores, shape (sets, n), as shares of the scale; their true mean is exactly -drop.

    A share of the items gets a new score from the law of the baseline's (it changes nothing on average); another share,
    as large as the drop needs, gets a worse one.

    Args:
        shape: One of `SHAPES`.
        sets: How many data sets.
        n: Items of each.
        drop: How much worse the candidate is; 0 for one that is equal.
        rng: Where chance comes from.
    """
    scores, law, worse, changed = (np.asarray(part) for part in SHAPES[shape])
    expected = float(scores @ law)
    dropped = drop / (expected - float(scores @ worse)) if drop else 0.0
    assert dropped + changed <= 1, f"{shape}: a drop of {drop} is too much"
    before = rng.choice(scores, (sets, n), p=law)
    again = rng.choice(scores, (sets, n), p=law)
    less = rng.choice(scores, (sets, n), p=worse)
    which = rng.random((sets, n))
    after = np.where(which < dropped, less, np.where(which < dropped + changed, again, before))
    made: Floats = after - before
    return made


def _ranks() -> tuple[Floats, Floats, Floats]:
    """nDCG@10 with one relevant document: 0, then 1 / log2(rank + 1) for rank 10 to 1; two laws of it."""
    scores = np.array([0.0, *(1 / math.log2(rank + 1) for rank in range(10, 0, -1))])
    law = np.array([0.15, *(0.85 * 0.45 * 0.55 ** (rank - 1) for rank in range(10, 0, -1))])
    worse = np.array([0.5] + [0.1] * 5 + [0.0] * 5)
    return scores, law / law.sum(), worse


SHAPES: dict[str, tuple[Any, Any, Any, float]] = {
    # scores on a scale of 1, their law for the baseline, the law of a worse answer, share of items that change anyway
    "nDCG@10, one relevant": (*_ranks(), 0.15),
    "judge, 1 to 5": ([0, 0.25, 0.5, 0.75, 1], [0.05, 0.1, 0.2, 0.4, 0.25], [0.1, 0.4, 0.3, 0.2, 0], 0.3),
    "perfect, rare total loss": ([0, 1], [0, 1], [1, 0], 0.0),
}
