"""Scorer `latency`: seconds until the output was there. Its scale is 0 to the declared cap; less is better."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

from llmartifacts.evals.scorers.base import Answer, Options, OptionScorer
from llmartifacts.kinds.eval_dataset.value import Item
from llmartifacts.kinds.eval_suite.config import Number


class LatencyOptions(Options):
    """Options of `latency`.

    Attributes:
        cap: Upper end of the scale, in seconds; an answer that took longer counts as this.
    """

    cap: Annotated[Number, Field(gt=0, le=86_400)] = 10.0


class Latency(OptionScorer[LatencyOptions]):
    """Seconds of an answer, at most the cap: a mean needs bounds to be compared."""

    type = "latency"
    Model = LatencyOptions
    higher_is_better = False

    def prepare(self) -> None:
        """The scale ends at the cap."""
        self.hi = self.given.cap

    def score(self, item: Item, answer: Answer, baseline: Answer | None = None) -> float:
        """The time that the answer took."""
        if answer.seconds is None:
            raise ValueError("it is not recorded how long the answer took; write seconds in the record")
        if isinstance(answer.seconds, bool) or not isinstance(answer.seconds, int | float):
            raise TypeError(f"the time is a {type(answer.seconds).__name__}, not a number")
        if not math.isfinite(answer.seconds) or answer.seconds < 0:
            raise ValueError(f"{answer.seconds} is no time")
        return float(min(answer.seconds, self.given.cap))
