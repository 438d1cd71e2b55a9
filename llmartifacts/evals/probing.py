"""Runs the probes of an index and records what came of it, for the gate `probes`, which opens no index itself."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from llmartifacts.errors import Incompatible, InvalidInput, InvalidValue, WrongKind
from llmartifacts.evals.statistics import estimate
from llmartifacts.kinds.report import ItemScore, Metric, Report, current_environment
from llmartifacts.records.evidence import ALPHA
from llmartifacts.records.reference import Reference
from llmartifacts.records.version import Version
from llmartifacts.registry import Registry

SUITE = "probes"
METRIC = "probes"
COLLECTION = "probes-report"
FILE = "probes.json"


def run_probes(
    registry: Registry, reference: str | Reference, *, embeddings: Any = None, log: bool = True
) -> tuple[Report, Version | None]:
    """Open an index, ask its probe queries, and log a report of the suite `probes` on it.

    Args:
        registry: The registry.
        reference: A `vector_index`.
        embeddings: The embedder that it was built with, to embed its probe texts again; None leaves them out.
        log: Whether to log the report, in the collection `probes-report`.

    Returns:
        The report: one item a probe, 1 where it came out right; and its version.

    Raises:
        WrongKind: It is no index.
        InvalidInput: It was logged without probes.
        Damaged: Stored bytes are not what they claim to be.
    """
    found = registry.find(reference)
    version = found.version
    if version.kind != "vector_index":
        raise WrongKind(f"{version} is a {version.kind}, and only a vector_index has probes", field="reference")
    probes = found.manifest.file(FILE)
    count = _count(found.manifest.config)
    if probes is None or not count:
        raise InvalidInput(f"{version} was logged without probe queries", field="reference")
    started = datetime.now(UTC)
    wrong, texts = "", {}
    try:
        index = registry.load(found.manifest)  # asks every probe query
        texts = {} if embeddings is None else _texts(index, embeddings)
    except (InvalidValue, Incompatible) as error:
        wrong = error.message
    items = [ItemScore(f"query:{i}", {METRIC: 0.0 if wrong else 1.0}, error=wrong) for i in range(count)]
    items += [ItemScore(f"text:{i}", {METRIC: float(not why)}, error=why) for i, why in texts.items()]
    scores = [item.scores[METRIC] or 0.0 for item in items]
    mean, lower, upper, n, sd = estimate(scores, 0.0, 1.0, alpha=ALPHA)
    report = Report(
        suite=SUITE,
        targets={str(version): version.digest},
        dataset=probes.digest,
        metrics=[Metric(METRIC, mean, lower, upper, n, sd=sd)],
        items=items,
        environment=current_environment("llmartifacts", "faiss-cpu", "numpy"),
        started=started.isoformat(),
        ended=datetime.now(UTC).isoformat(),
    )
    logged = registry.log(COLLECTION, report, inputs=[version.pinned], message=str(report.metrics[0])) if log else None
    return report, logged


def _count(config: Any) -> int:
    probes = config.get("probes")
    queries = probes.get("queries") if isinstance(probes, dict) else 0
    return queries if isinstance(queries, int) else 0


def _texts(index: Any, embeddings: Any) -> dict[int, str]:
    """Number of each probe text -> why its vector is another now; empty if it is the same."""
    count = len(index.probes.file.texts)
    try:
        warnings = index.check_embeddings(embeddings)
    except Incompatible as error:
        return dict.fromkeys(range(count), error.message)
    return dict.fromkeys(range(count), "; ".join(warnings))
