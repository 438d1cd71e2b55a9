"""How sure a score is: bounds that need no luck and no large sample, for differences and for means.

One method for every kind of score, the atom bound (`bound`), on differences of the same items (`comparison`). What
follows from the numbers, the verdict, is decided by the rules in `llmartifacts.records.evidence`.
"""

from __future__ import annotations

from llmartifacts.evals.statistics.bound import lower_bound, upper_bound
from llmartifacts.evals.statistics.comparison import Estimated, compare, estimate, mean_per_item

__all__ = ["Estimated", "compare", "estimate", "lower_bound", "mean_per_item", "upper_bound"]
