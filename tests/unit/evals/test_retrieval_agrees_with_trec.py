"""The retrieval scorers give what trec_eval gives (`ir-measures`, provider pytrec_eval) for the same ranking, to 1e-9.

trec_eval orders a run by score, and equal scores by document id from Z to A. Our scorers take a ranking in the order in
which it comes, so ties are broken before: an index does it, `retrieval.ranked` by id from A to Z.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmartifacts import plugins
from llmartifacts.evals.retrieval import ranked
from llmartifacts.evals.scorers.base import Answer, Scorer
from llmartifacts.testing.scorers import item

THEIRS = {
    "recall@1": "R@1",
    "recall@5": "R@5",
    "recall@10": "R@10",
    "precision@5": "P@5",
    "precision@10": "P@10",
    "hit@1": "Success@1",
    "hit@5": "Success@5",
    "mrr": "RR",
    "map": "AP",
    "map@10": "AP@10",
    "ndcg@5": "nDCG@5",
    "ndcg@10": "nDCG@10",
}
Run = Mapping[str, Sequence[str]]
Grades = Mapping[str, Mapping[str, int]]


def ours(run: Run, grades: Grades) -> dict[tuple[str, str], float]:
    found = {}
    for name in THEIRS:
        scorer = scorer_named(name)
        for query, labels in grades.items():
            score = scorer.score(item(query, expected_ids=labels), Answer(list(run.get(query, ()))))
            if score is not None:
                found[query, name] = score
    return found


def theirs(scores: Mapping[str, Mapping[str, float]], grades: Grades) -> dict[tuple[str, str], float]:
    names = {ir_measures.parse_measure(theirs): ours for ours, theirs in THEIRS.items()}
    labels = [ir_measures.Qrel(q, d, g) for q, graded in grades.items() for d, g in graded.items()]
    run = [ir_measures.ScoredDoc(q, d, s) for q, docs in scores.items() for d, s in docs.items()]
    found = ir_measures.pytrec_eval.iter_calc(list(names), labels, run)
    return {(metric.query_id, names[metric.measure]): metric.value for metric in found}


def scorer_named(name: str) -> Scorer:
    kind, _, k = name.partition("@")
    return plugins.load("scorers", kind)(**({"k": int(k)} if k else {}))


def by_rank(run: Run) -> dict[str, dict[str, float]]:
    return {query: {d: float(1000 - i) for i, d in enumerate(docs)} for query, docs in run.items()}


def agree(run: Run, grades: Grades) -> None:
    mine, reference = ours(run, grades), theirs(by_rank(run), grades)
    judged = {q for q, labels in grades.items() if any(g > 0 for g in labels.values())}
    assert {query for query, _ in mine} == judged
    for (query, name), score in mine.items():
        # trec_eval leaves out a query that the run does not answer; here it scores 0.
        assert score == pytest.approx(reference.get((query, name), 0.0), abs=1e-9), (query, name)


@pytest.mark.parametrize("name", ["anthropic_docs", "clapnq_dev"])
def test_on_real_questions_with_real_vectors(shared_data: Path, name: str) -> None:
    folder = shared_data / "rag" / name
    grades: dict[str, dict[str, int]] = {}
    with (folder / "qrels.tsv").open() as lines:
        for row in csv.DictReader(lines, delimiter="\t"):
            grades.setdefault(row["query-id"], {})[row["corpus-id"]] = int(row["score"])
    documents, queries = (
        [json.loads(line)["_id"] for line in (folder / part).read_bytes().splitlines()]
        for part in ("corpus.jsonl", "queries.jsonl")
    )
    similar = np.load(folder / "queries.embeddings.npy") @ np.load(folder / "corpus.embeddings.npy").T
    run = {
        query: ranked(dict(zip(documents, row.tolist(), strict=True)))[:100]
        for query, row in zip(queries, similar, strict=True)
    }
    agree(run, grades)
    found = ours(run, grades)
    recall = [score for (_, metric), score in found.items() if metric == "recall@5"]
    assert sum(recall) / len(recall) == pytest.approx({"anthropic_docs": 0.7317, "clapnq_dev": 1.0}[name], abs=5e-5)


documents = st.sampled_from([f"d{i}" for i in range(12)])


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["q1", "q2", "q3"]),
        st.tuples(st.lists(documents, unique=True), st.dictionaries(documents, st.integers(0, 3), min_size=1)),
        min_size=1,
    )
)
def test_on_any_ranking_with_graded_labels(made: dict[str, tuple[list[str], dict[str, int]]]) -> None:
    agree({q: docs for q, (docs, _) in made.items() if docs}, {q: labels for q, (_, labels) in made.items()})


def test_with_ties_the_order_that_trec_eval_takes_gives_what_it_gives() -> None:
    chosen = random.Random(7)
    scores = {f"q{i}": {f"d{j:02}": float(chosen.randint(0, 3)) for j in range(20)} for i in range(30)}
    grades = {f"q{i}": {f"d{j:02}": chosen.randint(0, 2) for j in range(0, 20, 3)} for i in range(30)}
    as_trec = {q: [d for _, d in sorted(((s, d) for d, s in docs.items()), reverse=True)] for q, docs in scores.items()}
    reference = theirs(scores, grades)
    mine = ours(as_trec, grades)

    assert mine == pytest.approx({key: reference[key] for key in mine}, abs=1e-9)
    from_a_to_z = ours({q: ranked(docs) for q, docs in scores.items()}, grades)
    assert from_a_to_z != mine  # so the order of ties is worth a rule
