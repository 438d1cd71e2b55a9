"""A new process: what `import llmartifacts` and the first resolve add to Python itself."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import llmartifacts as la
from benchmarks.inputs import prompts
from benchmarks.measure import Bench, Line, Subject, above_floor, python, python_tells

BARE = "pass"
IMPORT = "import llmartifacts"
DOOR = "import llmartifacts as la; [getattr(la, name) for name in la.__all__]"
RESOLVE = """
import sys
import llmartifacts as la
la.connect(sys.argv[1]).resolve("agent:prod", la.Prompt)
"""
HEAVY = """
import json, sys
{code}
print(json.dumps({{m: m in sys.modules for m in ("faiss", "numpy", "langchain_core", "pydantic")}}))
"""


def measure(bench: Bench) -> Iterator[Line]:
    location = str(bench.folder / "startup")
    with la.init(location) as registry:
        registry.log("agent", prompts(1)[0], aliases="prod")
    for name, code, budget in (
        ("import llmartifacts", IMPORT, above_floor(0.1)),
        ("resolve a prompt", RESOLVE, above_floor(0.25)),
        ("import every public name", DOOR, None),
    ):
        ours, floor = bench.beside(partial(python, code, location), partial(python, BARE))
        loaded = [m for m, there in python_tells(HEAVY.format(code=code), location).items() if there]
        note = f"loads {', '.join(loaded) or 'no faiss, numpy, langchain_core or pydantic'}"
        yield Line(name, ours, floor, "bare Python", budget, note=note)


SUBJECT = Subject(
    "startup",
    "a new process: import llmartifacts; resolve a prompt from an embedded registry",
    "a bare `python -c pass`",
    measure,
)
