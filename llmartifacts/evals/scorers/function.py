"""Scorer `function`: a Python function of the user, called in a process with limits.

The function is called as `function(output, item, **arguments)`: the output as it is (plain JSON), the item as a dict
with `id`, `input`, `expected_output`, `metadata`, `split` and `columns`. It returns a number on the declared scale,
true or false (1 or 0), or None where the item has nothing to grade by. Anything else is an error: an exception, a
number off the scale, too much time or memory, a crash. It should not use random numbers.

The SHA-256 of its module's file is part of the scorer's identity, so a changed function is a changed scorer.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, StrictBool

from llmartifacts.evals.scorers.base import Answer, Options
from llmartifacts.evals.scorers.isolated import IsolatedScorer, Megabytes, Seconds
from llmartifacts.evals.scorers.sources import source_digest
from llmartifacts.kinds.eval_dataset.value import Item
from llmartifacts.kinds.eval_suite.config import Dotted, Number


class FunctionOptions(Options):
    """Options of `function`.

    Attributes:
        function: `package.module:name`.
        arguments: Keyword arguments of each call, JSON.
        lo: Lower end of the scale.
        hi: Upper end.
        higher_is_better: Whether more is better.
        seconds: How long one call may take.
        megabytes: Address space of the process, its libraries included.
    """

    function: Dotted
    arguments: Annotated[dict[str, Any], Field(max_length=100)] = Field(default_factory=dict)
    lo: Number = 0.0
    hi: Number = 1.0
    higher_is_better: StrictBool = True
    seconds: Seconds = 10.0
    megabytes: Megabytes = 2000


class Function(IsolatedScorer[FunctionOptions]):
    """A function of the user."""

    type = "function"
    Model = FunctionOptions

    def own_metric(self) -> str:
        """The function's own name."""
        return self.given.function.rpartition(":")[2]

    def prepare(self) -> None:
        """Find the source, without running it."""
        super().prepare()
        given = self.given
        self.set_scale(given.lo, given.hi, given.higher_is_better)
        self.source = source_digest(given.function, field="function")

    def seconds(self) -> float:
        """As the suite says."""
        return self.given.seconds

    def megabytes(self) -> int:
        """As the suite says."""
        return self.given.megabytes

    def score(self, item: Item, answer: Answer, baseline: Answer | None = None) -> float | None:
        """What the function says."""
        plain = {
            "id": item.id,
            "input": item.input,
            "expected_output": item.expected_output,
            "metadata": item.metadata,
            "split": item.split,
            "columns": item.columns,
        }
        found = self.call(self.given.function, answer.output, plain, **self.given.arguments)
        return None if found is None else on_scale(found, self.lo, self.hi, f"{self.given.function} gave")


def on_scale(value: Any, lo: float, hi: float, what: str) -> float:
    """A number that was given for a score.

    Raises:
        TypeError: It is none.
        ValueError: It is not from `lo` to `hi`.
    """
    if not isinstance(value, bool | int | float):
        raise TypeError(f"{what} a {type(value).__name__}, not a number")
    if not lo <= value <= hi:  # NaN too
        raise ValueError(f"{what} {value:g}, which is not on the scale from {lo:g} to {hi:g}")
    return float(value)
