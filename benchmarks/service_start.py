"""A service in a new process: prompt, index and dataset; its cache cold or warm, the registry there, gone or silent."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from benchmarks.inputs import service_set
from benchmarks.measure import Bench, Line, Subject, python, python_tells, within
from llmartifacts.runtime.stamp import parse_stamp

START = """
import json, sys
from dataclasses import dataclass
from typing import Annotated
import llmartifacts as la

@dataclass(frozen=True)
class Support:
    agent: Annotated[la.Prompt, "agent:prod"]
    kb: Annotated[la.VectorIndex, "kb:prod"]
    questions: Annotated[la.EvalDataset, "questions:prod"]

"""
THERE = START + 'print(json.dumps({"stamp": la.Resolver(Support, registry=sys.argv[1]).start().stamp()}))'
SILENT = (
    START
    + """
import time
from llmartifacts.registry import Registry

class Silent:
    def __init__(self, backend):
        self.location, self.blobs = backend.location, backend.blobs

    def read(self, project, references):
        time.sleep(600)

silent = Registry(Silent(la.connect(sys.argv[1]).backend), project="default", actor="benchmark")
print(json.dumps({"stamp": la.Resolver(Support, registry=silent).start().stamp()}))
"""
)
READ = """
import sys
for name in sys.argv[1:]:
    with open(name, "rb") as file:
        while file.read(1 << 20):
            pass
"""
BESIDE = "Python reads files"


def measure(bench: Bench) -> Iterator[Line]:
    made = service_set(bench)
    location, cold = str(made.location), bench.folder / "cold-cache"
    _source(THERE, location, made.cache, "registry")
    files = [str(file) for file in made.files]

    def start(code: str, place: str, cache: Path) -> float:
        return python(code, place, cache=cache)

    def read() -> float:
        return python(READ, *files)

    def start_cold() -> float:
        shutil.rmtree(cold, ignore_errors=True)
        return start(THERE, location, cold)

    size = sum(Path(file).stat().st_size for file in files) / 1e6
    note = f"a whole process, imports included; {size:,.0f} MB in {len(files)} files"
    ours, floor = bench.beside(lambda: start(THERE, location, made.cache), read)
    yield Line("start, cache warm", ours, floor, BESIDE, note=note)
    ours, floor = bench.beside(start_cold, read)
    yield Line("start, cache cold", ours, floor, BESIDE, note=note)

    ours, floor = bench.beside(lambda: start(SILENT, location, made.cache), read)
    _source(SILENT, location, made.cache, "last-known-good")
    waited = "a silent registry is given up after 3 s"
    yield Line("start, registry silent", ours, floor, BESIDE, within(60), note=waited)
    away = made.location.with_name("away")
    made.location.rename(away)
    try:
        ours, floor = bench.beside(lambda: start(THERE, location, made.cache), read)
        _source(THERE, location, made.cache, "last-known-good")
    finally:
        away.rename(made.location)
    yield Line("start, registry gone", ours, floor, BESIDE, within(60), note="every byte is hashed, as always")


def _source(code: str, location: str, cache: Path, wanted: str) -> None:
    """Make sure that a start has its set from where the line says."""
    stamp = parse_stamp(python_tells(code, location, cache=cache)["stamp"])
    if stamp.source != wanted:
        raise RuntimeError(f"the set should have come from the {wanted}, and came from the {stamp.source}")


SUBJECT = Subject(
    "service_start",
    "a new service process with prompt, index and dataset; and with a registry that is gone or silent",
    "a bare Python that reads the same files",
    measure,
)
