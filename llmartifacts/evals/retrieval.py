"""Retrieval metrics with one fixed definition each, over ranked ids and graded labels.

A *ranking* is ids, best first; its order is taken as it is, so ties are broken before (`ranked` breaks them by id). A
*label* is a document id with its grade; a grade above 0 means relevant. With `rel(i)` 1 if the document at rank `i` is
relevant (else 0), `g(i)` its grade and `R` the number of relevant documents:

| metric | definition | range |
| --- | --- | --- |
| `hit@k` | 1 if some rel(i) = 1 with i <= k, else 0 | 0 or 1 |
| `recall@k` | sum of rel(i), i <= k, divided by R | [0, 1] |
| `precision@k` | sum of rel(i), i <= k, divided by k, also where fewer than k came back | [0, 1] |
| `mrr[@k]` | 1 / rank of the first relevant document, 0 if there is none | [0, 1] |
| `map[@k]` | sum over relevant i of precision@i, divided by R | [0, 1] |
| `ndcg@k` | DCG / DCG of the best possible ranking; DCG = sum of g(i) / log2(i + 1), i <= k | [0, 1] |
| `overlap@k` | common documents of two rankings cut at k, divided by the larger number of documents | [0, 1] |

What is usually left open, fixed here:

- A query without a relevant label has no score (None), and is in no mean.
- A query that was not answered, or answered with nothing, scores 0.
- A missing neighbour (id None) holds its rank and is never relevant.
- A document that is named twice counts at its first rank; its second holds a rank and is not relevant.
- A relevant document that no index holds still counts in R.

Sources: Manning, Raghavan and Schuetze 2008, chapter 8 (precision, recall, average precision); Voorhees 1999
(reciprocal rank); Järvelin and Kekäläinen 2002 (DCG, discounted from rank 2 on, as trec_eval has it).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from llmartifacts.errors import InvalidValue
from llmartifacts.records.names import did_you_mean

Ranking = Sequence[str | None]
Labels = Mapping[str, float]

DEFAULT = ("hit@1", "recall@5", "recall@10", "mrr@10", "ndcg@10")


def ranked(scores: Mapping[str, float]) -> list[str]:
    """Ids by score, best (largest) first; equal scores by id.

    Raises:
        InvalidValue: A score is NaN.

    Example:
        >>> ranked({"b": 0.5, "a": 0.5, "c": 0.9})
        ['c', 'a', 'b']
    """
    for name, score in scores.items():
        if math.isnan(score):
            raise InvalidValue("the score is NaN", field=f"scores.{name}")
    return sorted(scores, key=lambda name: (-scores[name], name))


def hit(ranking: Ranking, labels: Labels, k: int) -> float | None:
    """Whether a relevant document is among the first `k`.

    Args:
        ranking: Ids, best first; None for a missing neighbour.
        labels: Document id -> grade; above 0 is relevant.
        k: Cut, at least 1.

    Returns:
        0 or 1; None if no document is relevant.

    Raises:
        InvalidValue: `k` is no positive integer, or a grade is not finite.
    """
    found = _relevance(ranking, labels, k)
    return None if found is None else float(any(found))


def recall(ranking: Ranking, labels: Labels, k: int) -> float | None:
    """Share of the relevant documents that are among the first `k`; arguments and errors as `hit`.

    Example:
        >>> recall(["a", "x", "b"], {"a": 1, "b": 1, "c": 1, "d": 1}, 3)
        0.5
    """
    found = _relevance(ranking, labels, k)
    return None if found is None else sum(found) / len(_relevant(labels))


def precision(ranking: Ranking, labels: Labels, k: int) -> float | None:
    """Share of the first `k` ranks that hold a relevant document; arguments and errors as `hit`."""
    found = _relevance(ranking, labels, k)
    return None if found is None else sum(found) / k


def reciprocal_rank(ranking: Ranking, labels: Labels, k: int | None = None) -> float | None:
    """One by the rank of the first relevant document, 0 if there is none; its mean over queries is the MRR.

    Args:
        ranking: As in `hit`.
        labels: As in `hit`.
        k: Cut; None for the whole ranking.
    """
    found = _relevance(ranking, labels, k)
    if found is None:
        return None
    return next((1 / i for i, relevant in enumerate(found, 1) if relevant), 0.0)


def average_precision(ranking: Ranking, labels: Labels, k: int | None = None) -> float | None:
    """Mean over all relevant documents of the precision at their rank, 0 for those that did not come back.

    Its mean over queries is the MAP. It is divided by the number of relevant documents, also where `k` is smaller.

    Args:
        ranking: As in `hit`.
        labels: As in `hit`.
        k: Cut; None for the whole ranking.

    Example:
        >>> average_precision(["a", "x", "b"], {"a": 1, "b": 1})  # (1/1 + 2/3) / 2
        0.8333333333333333
    """
    found = _relevance(ranking, labels, k)
    if found is None:
        return None
    sofar, terms = 0, []
    for i, relevant in enumerate(found, 1):
        if relevant:
            sofar += 1
            terms.append(sofar / i)
    return math.fsum(terms) / len(_relevant(labels))


def ndcg(ranking: Ranking, labels: Labels, k: int) -> float | None:
    """Discounted cumulative gain by that of the best ranking; the gain is the grade. Arguments and errors as `hit`.

    Example:
        >>> ndcg(["b", "a"], {"a": 3, "b": 1}, 10)  # (1 + 3 / log2 3) / (3 + 1 / log2 3)
        0.7967075809905066
    """
    found = _relevance(ranking, labels, k)
    if found is None:
        return None
    grades = _relevant(labels)
    gained = [grades.get(name, 0.0) if new else 0.0 for name, new in zip(ranking[:k], found, strict=True)]
    best = sorted(grades.values(), reverse=True)[:k]
    return min(1.0, _dcg(gained) / _dcg(best))


def overlap(first: Ranking, second: Ranking, k: int) -> float:
    """How much two rankings agree in their first `k`: common documents by the larger number of documents.

    Missing neighbours count on neither side; two empty rankings agree (1).

    Raises:
        InvalidValue: `k` is no positive integer.

    Example:
        >>> overlap(["a", "b", "c"], ["c", "a", "x"], 2)
        0.5
    """
    _check_cut(k)
    a, b = ({name for name in ranking[:k] if name is not None} for ranking in (first, second))
    return len(a & b) / max(len(a), len(b)) if a or b else 1.0


@dataclass(frozen=True, slots=True)
class RetrievalScores:
    """The scores of one run.

    Attributes:
        per_query: Query -> metric -> score; queries without a relevant label are left out.
        mean: Metric -> mean over `per_query`.
        n: Number of queries in the means.
        unlabelled: Queries without a relevant label, sorted; scored by nothing.
        unanswered: Queries with a label that the run does not answer, sorted; scored 0.
    """

    per_query: Mapping[str, Mapping[str, float]]
    mean: Mapping[str, float]
    n: int
    unlabelled: tuple[str, ...] = ()
    unanswered: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        told = [f"{name} {value:.4f}" for name, value in self.mean.items()]
        told.append(f"{self.n} queries")
        told += [f"{len(self.unlabelled)} without a label"] if self.unlabelled else []
        told += [f"{len(self.unanswered)} not answered"] if self.unanswered else []
        return ", ".join(told)


def evaluate(
    run: Mapping[str, Ranking], labels: Mapping[str, Labels], metrics: Iterable[str] = DEFAULT
) -> RetrievalScores:
    """Score a whole run.

    Args:
        run: Query -> ids, best first.
        labels: Query -> document id -> grade.
        metrics: Names such as `recall@5`, `ndcg@10`, `map`; by default hit@1, recall@5, recall@10, mrr@10, ndcg@10.

    Returns:
        Scores of each query, and their means over the queries that have a relevant label.

    Raises:
        InvalidValue: An unknown metric, a grade that is not finite, or no query has a relevant label.

    Example:
        >>> print(evaluate({"q1": ["a", "b"], "q2": ["x"]}, {"q1": {"b": 1}, "q2": {"y": 1}}, ["hit@1", "mrr"]))
        hit@1 0.0000, mrr 0.2500, 2 queries
    """
    chosen = {name: metric(name) for name in metrics}
    if not chosen:
        raise InvalidValue("no metric is named", field="metrics")
    labelled = {query for query, graded in labels.items() if _relevant(graded)}
    if not labelled:
        raise InvalidValue("no query has a relevant label", field="labels")
    per_query = {}
    for query in sorted(labelled):
        ranking = run.get(query, ())
        scores = {name: score(ranking, labels[query]) for name, score in chosen.items()}
        per_query[query] = MappingProxyType({name: s for name, s in scores.items() if s is not None})
    mean = {name: math.fsum(s[name] for s in per_query.values()) / len(per_query) for name in chosen}
    return RetrievalScores(
        MappingProxyType(per_query),
        MappingProxyType(mean),
        len(per_query),
        tuple(sorted({*run, *labels} - labelled)),
        tuple(sorted(labelled - run.keys())),
    )


def metric(name: str) -> Callable[[Ranking, Labels], float | None]:
    """The metric of a name, such as `recall@5`; every metric but `mrr` and `map` needs a cut.

    Raises:
        InvalidValue: There is no such metric, or the cut is missing or no positive integer.
    """
    found = _NAME.fullmatch(name) if isinstance(name, str) else None
    if found is None or found[1] not in _METRICS:
        listed = f"Metrics: {', '.join(_METRICS)}, with @k."
        raise InvalidValue(
            f"no retrieval metric is called {name!r:.40}",
            field="metrics",
            next_step=did_you_mean(name, [f"{m}@10" for m in _METRICS], listed),
        )
    score, k = _METRICS[found[1]], found[2]
    if k is None and found[1] not in ("mrr", "map"):
        raise InvalidValue(f"{name} needs a cut", field="metrics", next_step=f"Write {name}@10.")
    cut = None if k is None else int(k)
    return lambda ranking, labels: score(ranking, labels, cut)


_NAME = re.compile(r"([a-z]+)(?:@([1-9][0-9]{0,6}))?")
_METRICS: Mapping[str, Callable[..., float | None]] = MappingProxyType(
    {
        "hit": hit,
        "recall": recall,
        "precision": precision,
        "mrr": reciprocal_rank,
        "map": average_precision,
        "ndcg": ndcg,
    }
)


def _relevance(ranking: Ranking, labels: Labels, k: int | None) -> list[bool] | None:
    """Whether each rank holds a relevant document that did not come before; None if none is relevant."""
    if k is not None:
        _check_cut(k)
    relevant = _relevant(labels)
    if not relevant:
        return None
    seen: set[str | None] = set()
    found = []
    for name in ranking[:k]:
        found.append(name in relevant and name not in seen)
        seen.add(name)
    return found


def _relevant(labels: Labels) -> dict[str | None, float]:
    for name, grade in labels.items():
        if not isinstance(grade, int | float) or not math.isfinite(grade):
            raise InvalidValue(f"the grade is {grade!r:.40}, not a finite number", field=f"labels.{name}")
    return {name: grade for name, grade in labels.items() if grade > 0}


def _dcg(gains: Sequence[float]) -> float:
    return math.fsum(gain / math.log2(i + 1) for i, gain in enumerate(gains, 1))


def _check_cut(k: int) -> None:
    if type(k) is not int or k < 1:
        raise InvalidValue(f"k is {k!r:.40}, not a positive integer", field="k")
