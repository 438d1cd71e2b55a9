"""Retrieval metrics against values worked by hand, against each other, and against stated figures on real sets."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.errors import InvalidValue
from llmartifacts.evals.retrieval import (
    average_precision,
    evaluate,
    hit,
    metric,
    ndcg,
    overlap,
    precision,
    ranked,
    recall,
    reciprocal_rank,
)

# Relevant at ranks 2 and 4 (grades 3 and 1); a third one (grade 2) does not come back.
RANKING = ["x", "a", "y", "b", "z"]
LABELS = {"a": 3, "b": 1, "c": 2, "x": 0}


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (hit(RANKING, LABELS, 1), 0),
        (hit(RANKING, LABELS, 2), 1),
        (recall(RANKING, LABELS, 2), 1 / 3),
        (recall(RANKING, LABELS, 5), 2 / 3),
        (precision(RANKING, LABELS, 2), 1 / 2),
        (precision(RANKING, LABELS, 4), 2 / 4),
        (precision(RANKING, LABELS, 10), 2 / 10),
        (reciprocal_rank(RANKING, LABELS), 1 / 2),
        (reciprocal_rank(RANKING, LABELS, 1), 0),
        (average_precision(RANKING, LABELS), (1 / 2 + 2 / 4) / 3),
        (average_precision(RANKING, LABELS, 2), (1 / 2) / 3),
        (
            ndcg(RANKING, LABELS, 5),
            (3 / math.log2(3) + 1 / math.log2(5)) / (3 / math.log2(2) + 2 / math.log2(3) + 1 / math.log2(4)),
        ),
        (ndcg(RANKING, LABELS, 2), (3 / math.log2(3)) / (3 + 2 / math.log2(3))),
        (overlap(["a", "b", "c"], ["c", "b", "a"], 2), 1 / 2),
        (overlap(["a", "b", "c"], ["c", "b", "a"], 3), 1),
        (overlap(["a"], ["a", "b"], 5), 1 / 2),
    ],
)
def test_a_metric_has_the_value_worked_by_hand(score: float, expected: float) -> None:
    assert score == pytest.approx(expected, abs=1e-15)


def test_ties_are_broken_by_id() -> None:
    assert ranked({"b": 1.0, "a": 1.0, "c": 2.0}) == ["c", "a", "b"]
    with pytest.raises(InvalidValue):
        ranked({"a": math.nan})


def test_a_missing_neighbour_holds_its_rank() -> None:
    assert reciprocal_rank([None, "a"], {"a": 1}) == 1 / 2
    assert precision([None, "a"], {"a": 1}, 2) == 1 / 2
    assert overlap([None, "a"], [None, "a"], 2) == 1
    assert overlap([None], [None], 1) == 1
    assert overlap([None, "a"], ["b", None], 2) == 0


def test_a_document_named_twice_counts_once_and_holds_two_ranks() -> None:
    twice = ["a", "a", "b"]
    labels = {"a": 1, "b": 1}
    assert recall(twice, labels, 2) == 1 / 2
    assert precision(twice, labels, 3) == pytest.approx(2 / 3)
    assert average_precision(twice, labels) == pytest.approx((1 + 2 / 3) / 2)
    assert ndcg(twice, labels, 3) == pytest.approx((1 + 1 / 2) / (1 + 1 / math.log2(3)))


@pytest.mark.parametrize("labels", [{}, {"a": 0}, {"a": -1.0}])
def test_a_query_without_a_relevant_label_has_no_score(labels: dict[str, float]) -> None:
    for name in ("hit@1", "recall@5", "precision@5", "mrr", "map", "ndcg@10"):
        assert metric(name)(["a", "b"], labels) is None


def test_an_empty_answer_scores_zero() -> None:
    for name in ("hit@1", "recall@5", "precision@5", "mrr", "map@3", "ndcg@10"):
        assert metric(name)([], {"a": 1}) == 0


@pytest.mark.parametrize("k", [0, -1, 1.5, True, "5"])
def test_a_cut_that_is_no_positive_integer_is_refused(k: int) -> None:
    for score in (hit, recall, precision, ndcg, reciprocal_rank, average_precision):
        with pytest.raises(InvalidValue):
            score(["a"], {"a": 1}, k)
    with pytest.raises(InvalidValue):
        overlap(["a"], ["a"], k)


@pytest.mark.parametrize("grade", [math.nan, math.inf, "1", None])
def test_a_grade_that_is_no_number_names_its_document(grade: float) -> None:
    with pytest.raises(InvalidValue) as caught:
        recall(["a"], {"a": grade}, 1)
    assert caught.value.field == "labels.a"


@pytest.mark.parametrize("name", ["recall", "recall@0", "recall@-1", "recal@5", "recall@5.0", "", "overlap@5", 5])
def test_an_unknown_metric_is_refused_with_a_hint(name: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        metric(name)
    assert caught.value.hint()


def test_a_run_is_scored_over_the_queries_that_have_labels() -> None:
    run = {"q1": ["a", "b"], "q2": ["x"], "q4": ["a"], "q5": ["a"]}
    labels = {"q1": {"b": 1}, "q2": {"y": 1}, "q3": {"a": 1}, "q4": {}}
    scores = evaluate(run, labels, ["hit@2", "mrr"])
    assert scores.per_query == {q: {"hit@2": h, "mrr": r} for q, h, r in (("q1", 1, 0.5), ("q2", 0, 0), ("q3", 0, 0))}
    assert scores.mean == {"hit@2": pytest.approx(1 / 3), "mrr": pytest.approx(1 / 6)}
    assert (scores.n, scores.unlabelled, scores.unanswered) == (3, ("q4", "q5"), ("q3",))
    assert str(scores) == "hit@2 0.3333, mrr 0.1667, 3 queries, 2 without a label, 1 not answered"


def test_a_run_without_any_label_or_metric_is_refused() -> None:
    with pytest.raises(InvalidValue):
        evaluate({"q": ["a"]}, {"q": {}})
    with pytest.raises(InvalidValue):
        evaluate({"q": ["a"]}, {"q": {"a": 1}}, [])


documents = st.sampled_from("abcdefgh")
rankings = st.lists(st.none() | documents, max_size=10)
labels_of = st.dictionaries(documents, st.sampled_from([0, 1, 2, 3, 0.5]), max_size=8)


@given(rankings, labels_of, st.integers(1, 12))
def test_every_score_lies_in_its_range_and_the_metrics_agree_with_each_other(
    ranking: list[str | None], labels: dict[str, float], k: int
) -> None:
    found = {
        name: metric(f"{name}@{k}")(ranking, labels) for name in ("hit", "recall", "precision", "mrr", "map", "ndcg")
    }
    relevant = sum(g > 0 for g in labels.values())
    if not relevant:
        assert set(found.values()) == {None}
        return
    assert all(s is not None and 0 <= s <= 1 for s in found.values())
    assert found["recall"] * relevant == pytest.approx(found["precision"] * k)  # type: ignore[operator]
    assert (found["hit"] == 1) == (found["mrr"] > 0) == (found["ndcg"] > 0) == (found["map"] > 0)  # type: ignore[operator]
    assert metric(f"recall@{k + 1}")(ranking, labels) >= found["recall"]  # type: ignore[operator]


@given(labels_of.filter(lambda d: any(g > 0 for g in d.values())))
def test_the_best_ranking_scores_one(labels: dict[str, float]) -> None:
    best = ranked(labels)
    relevant = sum(g > 0 for g in labels.values())
    for name in ("hit@1", f"recall@{relevant}", f"precision@{relevant}", "mrr", "map", "ndcg@10"):
        assert metric(name)(best, labels) == pytest.approx(1)


@given(rankings, rankings, st.integers(1, 12))
def test_overlap_is_symmetric_and_one_for_the_same_ranking(a: list[str | None], b: list[str | None], k: int) -> None:
    assert overlap(a, b, k) == overlap(b, a, k)
    assert overlap(a, a, k) == 1
    assert 0 <= overlap(a, b, k) <= 1


@pytest.mark.parametrize("name", ["anthropic_docs", "clapnq_dev"])
def test_exact_search_on_real_sets_gives_the_stated_figures(shared_data: Path, name: str) -> None:
    import numpy as np

    facts = json.loads((shared_data / "facts.json").read_text())["rag_exact_search_minilm"][name]
    place = shared_data / "rag" / name
    documents_, queries = (
        [json.loads(line)["_id"] for line in (place / f"{part}.jsonl").read_text().splitlines()]
        for part in ("corpus", "queries")
    )
    labels: dict[str, dict[str, float]] = {}
    for line in (place / "qrels.tsv").read_text().splitlines()[1:]:
        query, document, grade = line.split("\t")
        labels.setdefault(query, {})[document] = float(grade)
    scores = np.load(place / "queries.embeddings.npy") @ np.load(place / "corpus.embeddings.npy").T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    run = {query: [documents_[j] for j in row] for query, row in zip(queries, order, strict=True)}
    found = evaluate(run, labels)
    assert {"queries": found.n, **{m: round(v, 4) for m, v in found.mean.items()}} == facts
    assert len(found.unlabelled) == len(queries) - facts["queries"]
    assert found.unanswered == ()
