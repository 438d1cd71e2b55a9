"""Scorers of rankings: recall@k, precision@k, hit@k, mrr[@k], map[@k], ndcg@k, and overlap@k with the baseline.

The definitions are those of `llmartifacts.evals.retrieval`; what is fixed here is where a ranking and its labels are.

- The output (or its `field`) is a list of ids, best first; None is a missing neighbour, an object counts by its `id`,
  and no output at all (None) is an empty ranking, which scores 0. Its order is taken as it is: an index breaks ties.
- The labels are a column of the item: a list of ids (grade 1 each), or an object id -> grade. An item without labels,
  or with none above 0, has no score.
- `whole` takes `doc#piece` as `doc`, in the ranking and in the labels; of several grades of one document the best
  counts, and of several pieces in the ranking the first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field, StrictBool, StrictInt, StrictStr

from llmartifacts.evals import retrieval
from llmartifacts.evals.scorers.base import Answer, Options, OptionScorer, OptionsModel
from llmartifacts.evals.scorers.places import inside, wanted
from llmartifacts.kinds.eval_dataset.value import Item

LABELS = ("expected_ids", "expected_output")
"""Where labels are looked for: the first that is a column of the item."""

Cut = Annotated[StrictInt, Field(ge=1, le=10_000)]
Text = Annotated[StrictStr, Field(min_length=1)]


class RankingOptions(Options):
    """Options of all scorers of rankings.

    Attributes:
        field: Path of the ranking in the output; None if the output is the ranking.
        whole: Whether `doc#piece` counts as `doc`.
    """

    field: Text | None = None
    whole: StrictBool = False


class LabelledOptions(RankingOptions):
    """Options where there are labels.

    Attributes:
        labels: Column that holds the labels; None for `expected_ids`, or `expected_output` where there is none.
    """

    labels: Text | None = None


class CutOptions(LabelledOptions):
    """Options of a metric that is cut.

    Attributes:
        k: How many of the first are looked at.
    """

    k: Cut


class AnyCutOptions(LabelledOptions):
    """Options of a metric that may be cut.

    Attributes:
        k: How many of the first are looked at; None for all.
    """

    k: Cut | None = None


class OverlapOptions(RankingOptions):
    """Options of the overlap.

    Attributes:
        k: How many of the first of each are looked at.
    """

    k: Cut


class _Labelled(OptionScorer[AnyCutOptions]):
    """A metric of a ranking against labels."""

    Model: ClassVar[OptionsModel] = CutOptions
    compute: ClassVar[Callable[..., float | None]]

    def own_metric(self) -> str:
        """Such as `recall@5`, or `mrr` without a cut."""
        return self.type if self.given.k is None else f"{self.type}@{self.given.k}"

    def score(self, item: Item, answer: Answer, baseline: Answer | None = None) -> float | None:
        """Grade a ranking; None for an item without a relevant label."""
        labels = _labels(item, self.given.labels, self.given.whole)
        if labels is None:
            return None
        return type(self).compute(_ranking(answer, self.given), labels, self.given.k)


class Recall(_Labelled):
    """Share of the relevant documents among the first k; see `retrieval.recall`."""

    type = "recall"
    compute = staticmethod(retrieval.recall)


class Precision(_Labelled):
    """Share of the first k ranks that hold a relevant document; see `retrieval.precision`."""

    type = "precision"
    compute = staticmethod(retrieval.precision)


class Hit(_Labelled):
    """Whether a relevant document is among the first k; see `retrieval.hit`."""

    type = "hit"
    compute = staticmethod(retrieval.hit)


class ReciprocalRank(_Labelled):
    """One by the rank of the first relevant document; see `retrieval.reciprocal_rank`."""

    type = "mrr"
    Model = AnyCutOptions
    compute = staticmethod(retrieval.reciprocal_rank)


class AveragePrecision(_Labelled):
    """Mean of the precision at each relevant document; see `retrieval.average_precision`."""

    type = "map"
    Model = AnyCutOptions
    compute = staticmethod(retrieval.average_precision)


class Ndcg(_Labelled):
    """Discounted gain by that of the best ranking; see `retrieval.ndcg`."""

    type = "ndcg"
    compute = staticmethod(retrieval.ndcg)


class Overlap(OptionScorer[OverlapOptions]):
    """How much the ranking agrees with the baseline's for the same item; see `retrieval.overlap`."""

    type = "overlap"
    compares = True
    Model = OverlapOptions

    def own_metric(self) -> str:
        """Such as `overlap@5`."""
        return f"{self.type}@{self.given.k}"

    def score(self, item: Item, answer: Answer, baseline: Answer | None = None) -> float | None:
        """Compare two rankings; None where the baseline gave no answer."""
        if baseline is None or baseline.error:
            return None
        return retrieval.overlap(_ranking(answer, self.given), _ranking(baseline, self.given), self.given.k)


def _ranking(answer: Answer, given: RankingOptions) -> list[str | None]:
    found = inside(answer.output, given.field)
    if found is None:
        return []
    if not isinstance(found, list | tuple):
        raise TypeError(f"the output is no list of ids, but a {type(found).__name__}")
    return [_id(entry, i, given.whole) for i, entry in enumerate(found)]


def _id(entry: Any, i: int, whole: bool) -> str | None:
    name = entry.get("id") if isinstance(entry, Mapping) else entry
    if name is None and not isinstance(entry, Mapping):
        return None
    if not isinstance(name, str):
        raise TypeError(f"rank {i + 1} of the output is no id, but a {type(entry).__name__}")
    return _whole(name) if whole else name


def _labels(item: Item, column: str | None, whole: bool) -> dict[str, float] | None:
    place = column or next((name for name in LABELS if name in item.columns), LABELS[-1])
    found = wanted(item, place)
    if found is None:
        return None
    if isinstance(found, str) and column is not None:
        found = [found]
    if isinstance(found, Mapping):
        graded = dict(found)
    elif isinstance(found, list | tuple):
        for name in found:
            if not isinstance(name, str):
                raise TypeError(f"{place} holds a {type(name).__name__}, not ids")
        graded = dict.fromkeys(found, 1.0)
    else:
        raise TypeError(f"{place} holds a {type(found).__name__}, not ids or grades")
    labels: dict[str, float] = {}
    for name, grade in graded.items():
        if isinstance(grade, bool) or not isinstance(grade, int | float):
            raise TypeError(f"the grade of {name!r:.80} in {place} is a {type(grade).__name__}, not a number")
        known = _whole(name) if whole else name
        labels[known] = max(grade, labels.get(known, grade))
    return labels


def _whole(name: str) -> str:
    return name.partition("#")[0]
