"""The sockets by name: built-ins as dotted strings, and entry points of other packages; loaded on first use.

To add a built-in kind, blob driver, metadata database, gate or scorer: one line here. Other packages add theirs under
the entry-point groups `llmartifacts.kinds`, `.blobs`, `.metadata`, `.gates`, `.scorers`, `.codecs`.
"""

from __future__ import annotations

import importlib
from typing import Any

from llmartifacts.errors import InvalidInput, NotFound
from llmartifacts.records.names import near_names

BUILT_IN: dict[str, dict[str, str]] = {
    "kinds": {
        "prompt": "llmartifacts.kinds.prompt.kind:PromptKind",
        "vector_index": "llmartifacts.kinds.vector_index.kind:VectorIndexKind",
        "eval_dataset": "llmartifacts.kinds.eval_dataset.kind:EvalDatasetKind",
        "bundle": "llmartifacts.kinds.bundle:BundleKind",
        "report": "llmartifacts.kinds.report:ReportKind",
        "eval_suite": "llmartifacts.kinds.eval_suite.kind:EvalSuiteKind",
        "files": "llmartifacts.kinds.files:FilesKind",
    },
    "blobs": {
        "local": "llmartifacts.blobs.local:LocalDriver",
        "memory": "llmartifacts.blobs.memory:MemoryDriver",
        "s3": "llmartifacts.blobs.object_store:ObjectStoreDriver",
        "gs": "llmartifacts.blobs.object_store:ObjectStoreDriver",
        "az": "llmartifacts.blobs.object_store:ObjectStoreDriver",
    },
    "metadata": {
        "postgresql": "llmartifacts.metadata.postgres:PostgresDatabase",
        "sqlite": "llmartifacts.metadata.sqlite:SqliteDatabase",
    },
    "gates": {
        "approvals": "llmartifacts.gates.approvals:ApprovalsGate",
        "compatibility": "llmartifacts.gates.compatibility:CompatibilityGate",
        "dataset-pinned": "llmartifacts.gates.dataset:DatasetPinnedGate",
        "eval": "llmartifacts.gates.eval_score:EvalGate",
        "freshness": "llmartifacts.gates.origin:FreshnessGate",
        "lineage": "llmartifacts.gates.origin:LineageGate",
        "probes": "llmartifacts.gates.probes:ProbesGate",
        "python": "llmartifacts.gates.python:PythonGate",
        "reason": "llmartifacts.gates.words:ReasonGate",
        "stage": "llmartifacts.gates.words:StageGate",
        "ticket": "llmartifacts.gates.words:TicketGate",
    },
    "scorers": {
        "equals": "llmartifacts.evals.scorers.equals:Equals",
        "contains": "llmartifacts.evals.scorers.equals:Contains",
        "regex": "llmartifacts.evals.scorers.regex:Regex",
        "json-schema": "llmartifacts.evals.scorers.json_schema:JsonSchema",
        "numeric": "llmartifacts.evals.scorers.numeric:Numeric",
        "squad_f1": "llmartifacts.evals.scorers.squad:SquadF1",
        "squad_em": "llmartifacts.evals.scorers.squad:SquadExact",
        "similarity": "llmartifacts.evals.scorers.similarity:Similarity",
        "judge": "llmartifacts.evals.scorers.judge:Judge",
        "function": "llmartifacts.evals.scorers.function:Function",
        "recall": "llmartifacts.evals.scorers.rankings:Recall",
        "precision": "llmartifacts.evals.scorers.rankings:Precision",
        "hit": "llmartifacts.evals.scorers.rankings:Hit",
        "mrr": "llmartifacts.evals.scorers.rankings:ReciprocalRank",
        "map": "llmartifacts.evals.scorers.rankings:AveragePrecision",
        "ndcg": "llmartifacts.evals.scorers.rankings:Ndcg",
        "overlap": "llmartifacts.evals.scorers.rankings:Overlap",
        "latency": "llmartifacts.evals.scorers.latency:Latency",
    },
    "codecs": {  # in the order in which they are tried
        "faiss-ivf": "llmartifacts.blobs.codecs.faiss_ivf:FaissIvfCodec",
        "faiss-rows": "llmartifacts.blobs.codecs.faiss_rows:FaissRowsCodec",
        "lines": "llmartifacts.blobs.codecs.lines:LinesCodec",
        "cdc": "llmartifacts.blobs.codecs.cdc:CdcCodec",
    },
    "references": {  # for kinds, which know no registry: (reference, class) -> value
        "registry": "llmartifacts.connect:resolve_reference",
    },
}
"""Socket -> name -> `module:object`."""

_LOADED: dict[tuple[str, str], Any] = {}


def load(socket: str, name: str) -> Any:
    """The object behind a name, imported on first use.

    Args:
        socket: `kinds`, `blobs`, `metadata`, `gates`, `scorers`, `codecs` or `references`.
        name: Name in that socket.

    Raises:
        NotFound: Nothing has that name; near names are given.
        InvalidInput: A plug-in of that name is installed but cannot be imported.
    """
    found = _LOADED.get((socket, name))
    if found is None:
        found = _import(socket, name)
        _LOADED[socket, name] = found
    return found


def names(socket: str) -> list[str]:
    """Every name of a socket, built-in or installed, sorted."""
    return sorted(BUILT_IN[socket].keys() | {e.name for e in _entry_points(socket)})


def is_installed(socket: str, name: str) -> bool:
    """Whether something has a name in a socket, built-in or installed."""
    return name in BUILT_IN[socket] or name in names(socket)


def _import(socket: str, name: str) -> Any:
    dotted = BUILT_IN[socket].get(name)
    if dotted is None:
        for entry in _entry_points(socket):
            if entry.name == name:
                try:
                    return entry.load()
                except Exception as error:
                    raise InvalidInput(
                        f"the plug-in {name!r} ({entry.value}) cannot be imported: {error}", field=socket
                    ) from error
        one = socket.rstrip("s")
        near = near_names(name, names(socket))
        meant = f"Did you mean {' or '.join(near)}? " if near else ""
        raise NotFound(
            f"no {one} is called {name!r}",
            what=one,
            name=name,
            near=near,
            next_step=f"{meant}Installed: {', '.join(names(socket))}; or install the package that brings it.",
        )
    module, _, attribute = dotted.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _entry_points(socket: str) -> Any:
    from importlib.metadata import entry_points  # 12 ms; needed for names that are not built in

    return entry_points(group=f"llmartifacts.{socket}")
