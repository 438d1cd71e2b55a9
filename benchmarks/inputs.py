"""What is logged: real templates, and an index, documents and questions of any size, the same at every run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llmartifacts as la
from benchmarks.measure import Bench
from llmartifacts.registry import Registry

DIMENSION = 384
TEMPLATES = Path(__file__).resolve().parent.parent / "templates"


def prompts(count: int, mark: str = "") -> list[la.Prompt]:
    """Different prompts of the same length; the template is parsed once, for making prompts is measured elsewhere."""
    text = (TEMPLATES / "rag_answer.j2").read_text(encoding="utf-8")
    config = la.Prompt(text, template_format="jinja2").to_config()
    return [la.Prompt.from_config({**config, "template": f"{text}\n({mark}{i:09})"}) for i in range(count)]


def vectors(count: int) -> Any:
    """(count, 384) float32, each of unit length."""
    import numpy as np

    made = np.random.default_rng(384).standard_normal((count, DIMENSION), dtype=np.float32)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made


def documents(count: int) -> Iterator[dict[str, str]]:
    """One short passage for each vector."""
    for i in range(count):
        yield {"id": f"handbook-{i}", "text": f"Passage {i} of the handbook."}


def index(count: int) -> la.VectorIndex:
    """A Flat index of so many vectors."""
    space = la.EmbeddingSpec("benchmark", DIMENSION, normalized=True)
    return la.VectorIndex.from_vectors(vectors(count), documents(count), embedding=space)


def questions(count: int) -> la.EvalDataset:
    """A dataset of so many items."""
    return la.EvalDataset(
        [
            {"id": f"q{i}", "input": {"question": f"What does passage {i} say?"}, "expected_output": f"handbook-{i}"}
            for i in range(count)
        ]
    )


class ServiceSet:
    """A registry with what a service needs: `agent:prod`, `kb:prod`, `questions:prod`; the first version of each.

    The index is Flat, 384 components: 20,000 vectors (31 MB) on the small scale, 500,000 (768 MB) on the full one.

    Attributes:
        count: Vectors in the index.
        location: The registry.
        cache: The cache of its services; cold until the first start.
    """

    def __init__(self, bench: Bench) -> None:
        self.count = bench.size(20_000, 500_000)
        bench.say(f"making a registry with a Flat index of {self.count:,} x {DIMENSION} vectors")
        self.location = bench.folder / "set"
        self.cache = bench.folder / "set-cache"
        with la.init(self.location) as registry:
            for number in range(2):
                registry.log("agent", prompts(1, mark=f"agent {number} ")[0])
                registry.log("questions", questions(1000 + number))
            registry.log("kb", index(self.count))
            registry.log("kb", index(1000))
            registry.promote(["agent:v1", "kb:v1", "questions:v1"], to="prod", reason="first")

    def open(self) -> Registry:
        """The registry."""
        return la.connect(self.location)

    @property
    def files(self) -> list[Path]:
        """Every file that a start reads, as it lies in the cache."""
        return [file for file in (self.cache / "sha256").rglob("*") if file.is_file() and file.suffix != ".ok"]


def service_set(bench: Bench) -> ServiceSet:
    """The one of this run."""
    made: ServiceSet = bench.shared("service set", lambda: ServiceSet(bench))
    return made
