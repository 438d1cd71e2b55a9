"""A large index, its cache warm, from the start of the resolver to the first answer."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.inputs import service_set
from benchmarks.measure import Bench, Figure, Line, Subject, python_tells, times_floor

OURS = """
import json, sys, time
import faiss, numpy as np
import llmartifacts as la
from llmartifacts.kinds.vector_index import kind
query = np.load(sys.argv[2])
resolver = la.Resolver({"kb": "kb:prod"}, registry=sys.argv[1])
begin = time.perf_counter()
hits = resolver.start().value["kb"].search(query, k=5)
first = time.perf_counter() - begin
again = []
for _ in range(5):
    begin = time.perf_counter()
    resolver.current.value["kb"].search(query, k=5)
    again.append(time.perf_counter() - begin)
print(json.dumps({"first": first, "search": sorted(again)[2], "ids": hits.ids.tolist()}))
"""
PLAIN = """
import hashlib, json, sys, time
import faiss, numpy as np
query = np.load(sys.argv[2])
begin = time.perf_counter()
index = faiss.read_index(sys.argv[1])
_, ids = index.search(query, 5)
first = time.perf_counter() - begin
again = []
for _ in range(5):
    begin = time.perf_counter()
    index.search(query, 5)
    again.append(time.perf_counter() - begin)
begin = time.perf_counter()
with open(sys.argv[1], "rb") as file:
    hashlib.file_digest(file, "sha256")
hashing = time.perf_counter() - begin
print(json.dumps({"first": first, "search": sorted(again)[2], "hashing": hashing}))
"""
NAME = "start to the first answer"


def measure(bench: Bench) -> Iterator[Line]:
    import numpy as np

    from benchmarks.inputs import vectors

    made = service_set(bench)
    query, location = bench.folder / "query.npy", str(made.location)
    np.save(query, vectors(1))
    tell = python_tells(OURS, location, str(query), cache=made.cache)  # the first start fills the cache
    largest = str(max(made.files, key=lambda file: file.stat().st_size))
    ours, plain = [], []
    for _ in range(bench.runs):
        ours.append(python_tells(OURS, location, str(query), cache=made.cache))
        plain.append(python_tells(PLAIN, largest, str(query)))
    if any(told["ids"] != tell["ids"] for told in ours):
        raise RuntimeError("two starts gave different answers")
    first = Figure(tuple(told["first"] for told in ours))
    hashing = Figure(tuple(told["hashing"] for told in plain))
    note = (
        f"{made.count:,} x 384, cache warm, modules imported; each process hashes the cached file once before anything"
        f" of it is parsed: {hashing.median * 1e3:,.0f} ms of it"
    )
    search = Figure(tuple(told["search"] for told in plain))
    yield Line(NAME, first, search, "search alone", times_floor(1.2), bench.full, note)
    read = Figure(tuple(told["first"] for told in plain))
    yield Line(NAME, first, read, "read_index, search", None, note=note)
    again = Figure(tuple(told["search"] for told in ours))
    yield Line("a later search, k=5", again, search, "search alone", note="one query, in the same process")


SUBJECT = Subject(
    "index_start",
    "a Flat index of 500,000 x 384 (small: 20,000), cache warm, from the start to the first answer",
    "FAISS's search alone, and `faiss.read_index` with a search",
    measure,
)
