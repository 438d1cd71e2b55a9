"""Ways to decide from paired differences whether a candidate may pass: ours, and those that are usual.

Each asks the same: may the candidate be worse than its baseline by the margin or more? On pass/fail items only two
numbers count, how many items the candidate lost and how many it won. So a method is, for a number of items, the
greatest number of losses that it lets pass for each number of wins, and what it does is known exactly, without drawing
samples. On graded scores it judges drawn data sets.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import cache

import numpy as np
from numpy.typing import NDArray

from llmartifacts.evals.statistics import lower_bound

ALPHA = 0.05
MARGIN = 0.05
RESAMPLES = 2000
Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


class Method(ABC):
    """One way to decide.

    Attributes:
        name: What tables call it.
    """

    name: str

    @abstractmethod
    def passes_counts(self, n: int, lost: int, won: int, margin: float) -> bool:
        """Whether a candidate that lost and won so many of n pass/fail items passes."""

    @abstractmethod
    def passes(self, differences: Floats, margin: float) -> NDArray[np.bool_]:
        """Whether each data set passes; `differences` has shape (data sets, n), positive is better."""

    def most_lost(self, n: int, margin: float) -> Counts:
        """For each number of wins, 0 to n, the greatest number of losses that passes; -1 where none does.

        A win more never needs a loss less, so the search goes up from where it was for one win less.
        """
        most = np.full(n + 1, -1, dtype=np.int64)
        lost = -1
        for won in range(n + 1):
            lost = min(lost, n - won)
            while lost + 1 <= n - won and self.passes_counts(n, lost + 1, won, margin):
                lost += 1
            most[won] = lost
        return most


class Atom(Method):
    """Ours: the atom bound of the mean difference is above minus the margin."""

    name = "atom bound"

    def passes_counts(self, n: int, lost: int, won: int, margin: float) -> bool:
        """As in `Method`."""
        return _atom_of_counts(n, lost, won) > -margin

    def passes(self, differences: Floats, margin: float) -> NDArray[np.bool_]:
        """As in `Method`."""
        return np.array([lower_bound(row, -1, 1, alpha=ALPHA) > -margin for row in differences])

    def proves_worse(self, n: int) -> Counts:
        """For each number of wins, the fewest losses that prove the candidate worse; n + 1 where none do."""
        least = np.full(n + 1, n + 1, dtype=np.int64)
        lost = 0
        for won in range(n + 1):
            while lost + won <= n and -_atom_of_counts(n, won, lost) >= 0:  # the upper bound: won and lost turned round
                lost += 1
            if lost + won > n:
                break
            least[won] = lost
        return least


class PairedT(Method):
    """The one-sided 95 % bound of Student's paired t."""

    name = "paired t"

    def passes_counts(self, n: int, lost: int, won: int, margin: float) -> bool:
        """As in `Method`."""
        mean = (won - lost) / n
        variance = max(won + lost - n * mean * mean, 0.0) / (n - 1)
        return mean - _t(n) * math.sqrt(variance / n) > -margin

    def passes(self, differences: Floats, margin: float) -> NDArray[np.bool_]:
        """As in `Method`."""
        n = differences.shape[1]
        spread = differences.std(axis=1, ddof=1) / math.sqrt(n)
        passed: NDArray[np.bool_] = differences.mean(axis=1) - _t(n) * spread > -margin
        return passed


class Percentile(Method):
    """The percentile bootstrap: fewer than 5 % of resampled means are at or below minus the margin.

    On pass/fail items with all the resamples there are (the law of their sum is known); on graded scores with 2,000,
    the same for every data set.
    """

    name = "percentile bootstrap"

    def passes_counts(self, n: int, lost: int, won: int, margin: float) -> bool:
        """As in `Method`."""
        one = np.zeros(2 * n + 1)  # the law of one item's difference, then of the sum of n, from -n to n
        one[[0, 1, 2]] = lost / n, 1 - (lost + won) / n, won / n
        total = np.fft.irfft(np.fft.rfft(one) ** n, 2 * n + 1)
        worst = math.floor(-margin * n + 1e-9)
        return float(total[: worst + n + 1].sum()) < ALPHA - 1e-12

    def passes(self, differences: Floats, margin: float) -> NDArray[np.bool_]:
        """As in `Method`."""
        means = resampling(differences.shape[1]) @ differences.T
        passed: NDArray[np.bool_] = np.quantile(means, ALPHA, axis=0) > -margin
        return passed


class McNemar(Method):
    """It passes unless McNemar's exact test (on graded scores the sign test) finds it worse at 5 %; without margin."""

    name = "McNemar finds no loss"

    def passes_counts(self, n: int, lost: int, won: int, margin: float) -> bool:
        """As in `Method`."""
        return bool(_as_likely(lost + won)[lost] >= ALPHA)

    def passes(self, differences: Floats, margin: float) -> NDArray[np.bool_]:
        """As in `Method`."""
        lost, won = (differences < 0).sum(axis=1), (differences > 0).sum(axis=1)
        return np.array([_as_likely(x + y)[x] >= ALPHA for x, y in zip(lost, won, strict=True)])


ATOM, PERCENTILE, PAIRED_T, MCNEMAR = Atom(), Percentile(), PairedT(), McNemar()
METHODS: tuple[Method, ...] = (ATOM, PERCENTILE, PAIRED_T, MCNEMAR)


@cache
def most_lost(method: Method, n: int, margin: float = MARGIN) -> Counts:
    """What a method lets pass, worked out once."""
    return method.most_lost(n, margin)


def share_passing(most_lost: Counts, losing: float, winning: float) -> float:
    """The probability to pass, exactly, where each item is lost and won with these probabilities."""
    from scipy.stats import binom

    n = most_lost.size - 1
    won = np.arange(n + 1)
    passing = binom.cdf(most_lost, n - won, min(1.0, losing / (1 - winning)))
    return float(binom.pmf(won, n, winning) @ passing)


def worst_share(most_lost: Counts, margin: float, steps: int = 200) -> float:
    """The probability to pass of a candidate worse by exactly the margin, greatest over discordance up to 50 %."""
    return max(
        share_passing(most_lost, (discordant + margin) / 2, (discordant - margin) / 2)
        for discordant in np.linspace(margin, 0.5, steps)
    )


@cache
def _atom_of_counts(n: int, lost: int, won: int) -> float:
    return lower_bound(np.repeat([-1.0, 0.0, 1.0], [lost, n - lost - won, won]), -1, 1, alpha=ALPHA)


@cache
def _t(n: int) -> float:
    from scipy.stats import t

    return float(t.ppf(1 - ALPHA, n - 1))


@cache
def resampling(n: int) -> Floats:
    """How often, as a share, each of n items is drawn in each resample: shape (RESAMPLES, n)."""
    drawn: Floats = np.random.default_rng(n).multinomial(n, np.full(n, 1 / n), RESAMPLES) / n
    return drawn


@cache
def _as_likely(pairs: int) -> Floats:
    """For each number of losses in so many discordant pairs, the probability of as many or more by chance."""
    from scipy.stats import binom

    made: Floats = binom.sf(np.arange(pairs + 1) - 1, pairs, 0.5)
    return made
