"""The socket for scorers: what grades one output of one dataset item.

To add one: a file here (or a package with an entry point in `llmartifacts.scorers`), a line in `plugins.py`, and a test
that calls `llmartifacts.testing.scorers.check_scorer`. What a name in `plugins.py` stands for is a class: it is made
with the options that the suite gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from llmartifacts.kinds.eval_dataset.value import Item


@dataclass(frozen=True, slots=True)
class Answer:
    """What a target gave for one item, once.

    Attributes:
        output: Plain JSON: text, an object, or for an index the ids found, best first, None for a missing neighbour.
        seconds: How long it took, by a monotonic clock.
        error: Why there is no output; empty if there is.
    """

    output: Any = None
    seconds: float = 0.0
    error: str = ""


@runtime_checkable
class Scorer(Protocol):
    """Grades answers on one scale.

    Attributes:
        type: Its name in `plugins.py`, such as `equals`.
        definition: Counts changes of what it computes; part of its identity.
        isolated: Whether it runs what others wrote (a function, a pattern), and so in a process with limits.
        compares: Whether it needs the baseline's answer to the same item.
        metric: Name of the metric it gives, such as `recall@5`.
        lo: Lower end of its scale.
        hi: Upper end.
        higher_is_better: Whether more is better.
    """

    type: ClassVar[str]
    definition: ClassVar[int]
    isolated: ClassVar[bool]
    compares: ClassVar[bool]
    metric: str
    lo: float
    hi: float
    higher_is_better: bool

    def options(self) -> Mapping[str, Any]:
        """Every option that changes a score, as JSON, defaults written out."""

    def score(self, item: Item, answer: Answer, baseline: Answer | None = None) -> float | None:
        """Grade one answer.

        Args:
            item: The item, with what is expected.
            answer: What the target gave; its `error` is empty.
            baseline: What the baseline gave for the same item, for a scorer that compares.

        Returns:
            A finite number from `lo` to `hi`; None where the item has nothing to grade by, such as no label.

        Raises:
            Exception: Anything: the score is an error then, which no gate lets pass.
        """
