"""The socket for scorers: what grades one output of one dataset item.

To add one: a file here (or a package with an entry point in `llmartifacts.scorers`), a line in `plugins.py`, and a test
that calls `llmartifacts.testing.scorers.check_scorer`. What a name in `plugins.py` stands for is called with the
options that the suite gives, as keywords, and `metric` (None for the scorer's own name of it), and gives a `Scorer`;
what it refuses it raises as `InvalidValue`, with the option as the field. `OptionScorer` does that with a pydantic
model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeAlias, TypeVar, cast, runtime_checkable

from pydantic import ValidationError

from llmartifacts.errors import InvalidValue
from llmartifacts.formats.problems import model_problems, raise_problems
from llmartifacts.kinds.base import Config
from llmartifacts.kinds.eval_dataset.value import Item
from llmartifacts.kinds.eval_suite.entries import entry_of
from llmartifacts.records.canonical import plain_json

MAX_METRIC = 200


@dataclass(frozen=True, slots=True)
class Answer:
    """What a target gave for one item, once.

    Attributes:
        output: Plain JSON: text, an object, or for an index the ids found, best first, None for a missing neighbour.
        seconds: How long it took, by a monotonic clock; None if it is not known, as in a record without times.
        error: Why there is no output; empty if there is.
    """

    output: Any = None
    seconds: float | None = 0.0
    error: str = ""


@runtime_checkable
class Scorer(Protocol):
    """Grades answers on one scale.

    Attributes:
        type: Its name in `plugins.py`, such as `equals`.
        definition: Counts changes of what it computes; part of its identity.
        isolated: Whether it runs what others wrote (a function, a pattern), and so in a process with limits.
        compares: Whether it needs the baseline's answer to the same item.
        source: `sha256:…` of the code that it runs besides its own; empty if there is none.
        metric: Name of the metric it gives, such as `recall@5`.
        lo: Lower end of its scale.
        hi: Upper end.
        higher_is_better: Whether more is better.
    """

    type: ClassVar[str]
    definition: ClassVar[int]
    isolated: ClassVar[bool]
    compares: ClassVar[bool]
    source: str
    metric: str
    lo: float
    hi: float
    higher_is_better: bool

    def options(self) -> Mapping[str, Any]:
        """Every option that changes a score, as JSON, defaults written out; what it was made with."""

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

    def close(self) -> None:
        """Give back what it holds, such as a process; may be called twice. Until then threads may call `score`."""


class Options(Config):
    """Base of the options of a scorer."""


OptionsT = TypeVar("OptionsT", bound=Options)
OptionsModel: TypeAlias = type[Options]


class OptionScorer(Generic[OptionsT]):
    """A scorer whose options are a pydantic model; its scale is 0 to 1, more being better, unless a subclass says so.

    Args:
        metric: Name of its metric; None for `own_metric`.
        **options: Fields of `Model`.

    Attributes:
        Model: The model of its options.
        given: Its options.

    Raises:
        InvalidValue: An option is unknown or does not fit; the field is named.
    """

    type: ClassVar[str]
    definition: ClassVar[int] = 1
    isolated: ClassVar[bool] = False
    compares: ClassVar[bool] = False
    Model: ClassVar[OptionsModel] = Options

    source = ""
    lo = 0.0
    hi = 1.0
    higher_is_better = True

    def __init__(self, metric: str | None = None, **options: Any) -> None:
        try:
            self.given = cast(OptionsT, self.Model.model_validate(options))
        except ValidationError as error:
            raise_problems(model_problems(error, self.Model))
        self.metric = self.own_metric() if metric is None else _checked_metric(metric)
        self.prepare()

    def set_scale(self, lo: float, hi: float, higher_is_better: bool = True) -> None:
        """Declare another scale than 0 to 1. Raises `InvalidValue`."""
        if not lo < hi:
            raise InvalidValue(f"the scale from {lo:g} to {hi:g} is empty", field="lo")
        self.lo, self.hi, self.higher_is_better = lo, hi, higher_is_better

    def own_metric(self) -> str:
        """Name of the metric where the suite gives none."""
        return self.type

    def prepare(self) -> None:
        """Check what the model cannot, and set the scale; raises `InvalidValue`."""

    def options(self) -> Mapping[str, Any]:
        """Every option, as JSON, defaults written out."""
        return cast(dict[str, Any], plain_json(self.given.model_dump(by_alias=True)))

    def entry(self) -> dict[str, Any]:
        """What a suite's config keeps of it; see `kinds.eval_suite.entries`."""
        return entry_of(self)

    def score(self, item: Item, answer: Answer, baseline: Answer | None = None) -> float | None:
        """Grade one answer; see `Scorer.score`."""
        raise NotImplementedError

    def close(self) -> None:
        """Nothing is held."""

    def __repr__(self) -> str:
        return f"<{self.type} {self.metric}>"


def _checked_metric(metric: str) -> str:
    if not isinstance(metric, str) or not metric.strip() or not metric.isprintable() or len(metric) > MAX_METRIC:
        raise InvalidValue(f"{metric!r:.80} is not printable text of 1 to {MAX_METRIC} characters", field="metric")
    return metric
