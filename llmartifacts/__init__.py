"""llmartifacts: the registry for the components of an LLM application.

This is the public door: exactly the names of `__all__`. Each is imported when it is first used, so that
`import llmartifacts` costs next to nothing.

    log     = pack -> store -> commit
    resolve = look up -> fetch -> unpack
    promote = check gates -> move aliases -> audit
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmartifacts import errors as errors
    from llmartifacts.connect import connect as connect
    from llmartifacts.connect import init as init
    from llmartifacts.errors import LlmartifactsError as LlmartifactsError
    from llmartifacts.errors import ResolutionError as ResolutionError
    from llmartifacts.evals.evaluate import evaluate as evaluate
    from llmartifacts.kinds.bundle import Bundle as Bundle
    from llmartifacts.kinds.eval_dataset.value import EvalDataset as EvalDataset
    from llmartifacts.kinds.eval_suite.value import EvalSuite as EvalSuite
    from llmartifacts.kinds.files import External as External
    from llmartifacts.kinds.files import Files as Files
    from llmartifacts.kinds.model import ModelSpec as ModelSpec
    from llmartifacts.kinds.prompt.value import Prompt as Prompt
    from llmartifacts.kinds.report import ItemScore as ItemScore
    from llmartifacts.kinds.report import Metric as Metric
    from llmartifacts.kinds.report import Report as Report
    from llmartifacts.kinds.vector_index.config import EmbeddingSpec as EmbeddingSpec
    from llmartifacts.kinds.vector_index.value import SearchHits as SearchHits
    from llmartifacts.kinds.vector_index.value import VectorIndex as VectorIndex
    from llmartifacts.records.diff import Diff as Diff
    from llmartifacts.records.lineage import Lineage as Lineage
    from llmartifacts.records.policy import Decision as Decision
    from llmartifacts.records.promotion import Promotion as Promotion
    from llmartifacts.records.reference import Reference as Reference
    from llmartifacts.records.version import Version as Version
    from llmartifacts.registry import Registry as Registry
    from llmartifacts.registry import YankedWarning as YankedWarning
    from llmartifacts.runtime.generation import Generation as Generation
    from llmartifacts.runtime.resolver import Resolver as Resolver

_DOOR = {
    "Bundle": "kinds.bundle",
    "Decision": "records.policy",
    "Diff": "records.diff",
    "EmbeddingSpec": "kinds.vector_index.config",
    "EvalDataset": "kinds.eval_dataset.value",
    "EvalSuite": "kinds.eval_suite.value",
    "External": "kinds.files",
    "Files": "kinds.files",
    "Generation": "runtime.generation",
    "ItemScore": "kinds.report",
    "Lineage": "records.lineage",
    "LlmartifactsError": "errors",
    "Metric": "kinds.report",
    "ModelSpec": "kinds.model",
    "Promotion": "records.promotion",
    "Prompt": "kinds.prompt.value",
    "Reference": "records.reference",
    "Registry": "registry",
    "Report": "kinds.report",
    "ResolutionError": "errors",
    "Resolver": "runtime.resolver",
    "SearchHits": "kinds.vector_index.value",
    "VectorIndex": "kinds.vector_index.value",
    "Version": "records.version",
    "YankedWarning": "registry",
    "connect": "connect",
    "evaluate": "evals.evaluate",
    "init": "connect",
}
"""Public name -> the module that has it."""

__all__ = [
    "Bundle",
    "Decision",
    "Diff",
    "EmbeddingSpec",
    "EvalDataset",
    "EvalSuite",
    "External",
    "Files",
    "Generation",
    "ItemScore",
    "Lineage",
    "LlmartifactsError",
    "Metric",
    "ModelSpec",
    "Promotion",
    "Prompt",
    "Reference",
    "Registry",
    "Report",
    "ResolutionError",
    "Resolver",
    "SearchHits",
    "VectorIndex",
    "Version",
    "YankedWarning",
    "connect",
    "errors",
    "evaluate",
    "init",
]


def __getattr__(name: str) -> Any:
    if name == "errors":
        return importlib.import_module("llmartifacts.errors")
    module = _DOOR.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"llmartifacts.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


class _Door(ModuleType):
    """Keeps `llmartifacts.connect` the function, where importing the module of that name would replace it."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name == "connect" and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Door
