"""How good an index is on the questions: recall and its like, as a report."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import llmartifacts as la
from llmartifacts.evals.retrieval import evaluate
from llmartifacts.integrations.hashing import HashingEmbeddings
from llmartifacts.kinds.report import ItemScore, Metric, current_environment

METRICS = ("recall@5", "hit@1", "mrr@10")
DEPTH = 10


def measure(
    index: la.VectorIndex,
    questions: la.EvalDataset,
    *,
    embeddings: HashingEmbeddings,
    target: la.Version,
    dataset: la.Version,
) -> la.Report:
    """Ask an index every question, and score what it finds by the `expected_ids` of the question.

    Args:
        index: The index.
        questions: Items with `input`, and `expected_ids` among their columns.
        embeddings: What the index was built with.
        target: The version of the index.
        dataset: The version of the questions.

    Returns:
        A report with what was found for each question and its scores. The means have 95 % intervals by Hoeffding's
        inequality (1963), which holds for scores from 0 to 1 however they are distributed.
    """
    started = datetime.now(UTC)
    asked = {item.id: str(item.input) for item in questions}
    hits = index.search(embeddings.embed_array(list(asked.values())), k=DEPTH)
    run = {name: [_whole(found) for found in row] for name, row in zip(asked, hits.ids.tolist(), strict=True)}
    labels = {item.id: dict.fromkeys(item.columns["expected_ids"], 1.0) for item in questions}
    scores = evaluate(run, labels, METRICS)
    return la.Report(
        suite="stdlib-retrieval",
        targets={str(target): target.digest},
        dataset=dataset.digest,
        metrics=[_metric(name, mean, scores.n) for name, mean in scores.mean.items()],
        items=[ItemScore(name, found, output=run[name]) for name, found in scores.per_query.items()],
        environment=current_environment("llmartifacts", "faiss-cpu", "numpy"),
        started=started.isoformat(),
        ended=datetime.now(UTC).isoformat(),
    )


def _whole(found: str | None) -> str | None:
    """The passage that a later piece of a long text belongs to: any piece of it answers."""
    return None if found is None else found.partition("#")[0]


def _metric(name: str, mean: float, n: int) -> Metric:
    margin = math.sqrt(math.log(2 / 0.05) / (2 * n))
    return Metric(name, mean, max(0.0, mean - margin), min(1.0, mean + margin), n)
