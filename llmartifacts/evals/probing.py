"""Runs the probes of an index and records what came of it, for the gate `probes`, which opens no index itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from llmartifacts.errors import Incompatible, InvalidInput, InvalidValue, Unreachable, WrongKind
from llmartifacts.evals.importing import imported
from llmartifacts.evals.plan import at_home
from llmartifacts.evals.retrieving import embedder_for
from llmartifacts.evals.statistics import estimate
from llmartifacts.kinds.report import ItemScore, Metric, Report, current_environment
from llmartifacts.records.evidence import ALPHA
from llmartifacts.records.reference import Reference
from llmartifacts.records.times import to_text
from llmartifacts.records.version import Version
from llmartifacts.registry import Registry

SUITE = "probes"
METRIC = "probes"
COLLECTION = "probes-report"
FILE = "probes.json"
FIELD = "embeddings"
_BUILD = "Log it again with the probes of `VectorIndex.build`."


@dataclass(frozen=True, slots=True)
class Probed:
    """What the probes of an index came to.

    Attributes:
        report: One item for each query probe: 1 where it came out right, 0 where not.
        version: The report's version; None if it was not logged.
        target: The index.
        texts: Probe texts that were embedded again; 0 without an embedder.
    """

    report: Report
    version: Version | None
    target: Version
    texts: int


def run_probes(registry: Registry, reference: str | Reference, *, embeddings: Any = None, log: bool = True) -> Probed:
    """Open an index, ask its query probes, and log a report of the suite `probes` on it.

    All of them come out right, or none counts as right: an index is served only whole, and with another embedder than
    its own no query finds what it should.

    Args:
        registry: The registry.
        reference: A `vector_index`.
        embeddings: The LangChain embedder that it is used with, to embed its text probes again; or what stands for
            it, as `package.module:name`, which is imported: an embedder, its class, or a function of the index that
            returns one. None leaves the texts out.
        log: Whether to log the report, in the collection `probes-report` of the index's project.

    Raises:
        NotFound: There is no such version.
        WrongKind: It is no index.
        InvalidInput: It was logged without query probes; or there is an embedder, and no text probe to check it by;
            or the name stands for none.
        Unreachable: The embedder could not be asked; nothing is logged.
        Damaged: Stored bytes are not what they claim to be; nothing is logged.
    """
    found = registry.find(reference)
    version = found.version
    if version.kind != "vector_index":
        raise WrongKind(f"{version} is a {version.kind}, and only a vector_index has probes", field="reference")
    file, (texts, queries) = found.manifest.file(FILE), _counts(found.manifest.config)
    if file is None or not queries:
        raise InvalidInput(f"{version} was logged without query probes", field="reference", next_step=_BUILD)
    if embeddings is not None and not texts:
        told = f"{version} was logged without text probes, which an embedder is checked by"
        raise InvalidInput(told, field=FIELD, next_step=_BUILD)
    started = datetime.now(UTC)
    named = imported(embeddings, field=FIELD) if isinstance(embeddings, str) else None
    wrong = ""
    try:
        index = registry.load(found.manifest)  # asks every probe query
    except InvalidValue as error:
        wrong = error.message
    else:
        if embeddings is not None:
            wrong = _misfit(index, embeddings if named is None else embedder_for(named, embeddings, index, field=FIELD))
    items = [ItemScore(f"query:{i}", {METRIC: 0.0 if wrong else 1.0}, error=wrong) for i in range(queries)]
    mean, lower, upper, n, sd = estimate([0.0 if wrong else 1.0] * queries, 0.0, 1.0, alpha=ALPHA)
    report = Report(
        suite=SUITE,
        targets={str(version): version.digest},
        dataset=file.digest,
        metrics=[Metric(METRIC, mean, lower, upper, n, sd=sd)],
        items=items,
        environment=current_environment("llmartifacts", "faiss-cpu", "numpy"),
        started=to_text(started),
        ended=to_text(max(started, datetime.now(UTC))),
    )
    logged = registry.log(f"{version.project}/{COLLECTION}", report, inputs=[at_home(version)]) if log else None
    return Probed(report, logged, version, 0 if embeddings is None else texts)


def _misfit(index: Any, embedder: Any) -> str:
    """Why an embedder is not the one of an index; empty if it is."""
    try:
        warnings = index.check_embeddings(embedder)
    except Incompatible as error:
        return error.message
    if warnings:
        raise Unreachable("; ".join(warnings), field=FIELD, next_step="Nothing was recorded; run it again.")
    return ""


def _counts(config: Mapping[str, Any]) -> tuple[int, int]:
    """Probe texts and query probes."""
    probes = config.get("probes")
    found = [probes.get(name) if isinstance(probes, Mapping) else 0 for name in ("texts", "queries")]
    texts, queries = (count if type(count) is int else 0 for count in found)
    return texts, queries
