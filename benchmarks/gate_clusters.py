"""Questions of one document are alike: what it does to count them as if they were not, drawn from a fixed seed."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from benchmarks.gate_methods import ALPHA, MARGIN, resampling
from llmartifacts.evals.statistics import lower_bound

Floats = NDArray[np.float64]
Sizes = NDArray[np.int64]
DOCUMENTS = (60, 80, 120)
FEWEST, MOST = 2, 18  # questions of a document
DISCORDANT = 0.15
Draw = Callable[[np.random.Generator, Sizes], Floats]


def alike(correlation: float) -> Draw:
    """Differences of questions, any two of one document correlated so; the candidate is worse by exactly the margin.

    A question takes its document's own draw with probability sqrt(correlation), so that two share it with the
    correlation's; else it draws by itself.
    """
    law = [(DISCORDANT + MARGIN) / 2, 1 - DISCORDANT, (DISCORDANT - MARGIN) / 2]

    def draw(rng: np.random.Generator, sizes: Sizes) -> Floats:
        shared = np.repeat(rng.choice([-1.0, 0.0, 1.0], sizes.size, p=law), sizes)
        alone = rng.choice([-1.0, 0.0, 1.0], shared.size, p=law)
        return np.where(rng.random(shared.size) < math.sqrt(correlation), shared, alone)

    return draw


def lost_whole(rng: np.random.Generator, sizes: Sizes) -> Floats:
    """Of a perfect baseline the candidate loses whole documents, as many as the margin says."""
    return -np.repeat((rng.random(sizes.size) < MARGIN).astype(np.float64), sizes)


SHAPES: dict[str, Draw] = {"correlation 0.1": alike(0.1), "correlation 0.3": alike(0.3), "documents lost": lost_whole}


def _ignoring(differences: Floats, sizes: Sizes) -> float:
    return lower_bound(differences, -1, 1, alpha=ALPHA)


def _by_document(differences: Floats, sizes: Sizes) -> float:
    names = [f"d{i:03}" for i, size in enumerate(sizes) for _ in range(size)]
    return lower_bound(differences, -1, 1, alpha=ALPHA, clusters=names)


def _bootstrap(differences: Floats, sizes: Sizes) -> float:
    """Percentile bootstrap of whole documents."""
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    sums = np.add.reduceat(differences, starts)
    drawn = resampling(sizes.size)
    return float(np.quantile((drawn @ sums) / (drawn @ sizes), ALPHA))


WAYS: dict[str, Callable[[Floats, Sizes], float]] = {
    "atom bound by document": _by_document,
    "documents bootstrapped": _bootstrap,
    "atom bound, ignoring them": _ignoring,
}


def wrong_promotions(shape: str, documents: int, sets: int, seed: int) -> dict[str, float]:
    """How often each way passes a candidate that is worse by exactly the margin.

    Args:
        shape: One of `SHAPES`.
        documents: How many; each has 2 to 18 questions.
        sets: How many data sets are drawn.
        seed: Where chance comes from.
    """
    rng = np.random.default_rng([seed, documents, list(SHAPES).index(shape)])
    passed = dict.fromkeys(WAYS, 0)
    for _ in range(sets):
        sizes = rng.integers(FEWEST, MOST, documents, endpoint=True)
        differences = SHAPES[shape](rng, sizes)
        for name, bound in WAYS.items():
            passed[name] += bound(differences, sizes) > -MARGIN
    return {name: count / sets for name, count in passed.items()}
