"""A large index, its cache warm: from the start of a new service to the first answer, its memory, and a rollback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import llmartifacts as la
from benchmarks.inputs import DIMENSION, documents, service_set, vectors
from benchmarks.measure import Bench, Budget, Figure, Line, Subject, python_tells, seconds, times_floor, within

OURS = """
import json, sys, time
import faiss, numpy as np
import llmartifacts as la
from llmartifacts.kinds.vector_index import contents, documents, guard, kind, probes, value
query = np.load(sys.argv[2])
la.Resolver({"agent": "agent:prod"}, registry=sys.argv[1]).start()  # imports what a start needs, as faiss is imported
resolver = la.Resolver({"kb": sys.argv[3]}, registry=sys.argv[1])
begin = time.perf_counter()
hits = resolver.start().value["kb"].search(query, k=5)
first = time.perf_counter() - begin
again = []
for _ in range(5):
    begin = time.perf_counter()
    resolver.current.value["kb"].search(query, k=5)
    again.append(time.perf_counter() - begin)
"""
PLAIN = """
import json, sys, time
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
"""
OPEN = """
import json, mmap, os, sys, time
import faiss, numpy as np
query = np.load(sys.argv[2])
begin = time.perf_counter()
fd = os.open(sys.argv[1], os.O_RDONLY)
data = mmap.mmap(fd, 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
os.close(fd)
data.madvise(mmap.MADV_WILLNEED)
view = np.frombuffer(data, np.uint8)
flags = faiss.IO_FLAG_ONDISK_SAME_DIR | faiss.IO_FLAG_PQ_SKIP_SDC_TABLE
index = faiss.read_index(faiss.ZeroCopyIOReader(faiss.swig_ptr(view), view.size), flags)
_, ids = index.search(query, 5)
first = time.perf_counter() - begin
again = [0.0] * 3
"""
TELL = 'print(json.dumps({"first": first, "search": sorted(again)[2]%s}), flush=True)\n'
STAY = "sys.stdin.readline()\n"
ROLL = """
import json, sys, time
import faiss, numpy as np
import llmartifacts as la
from llmartifacts.kinds.vector_index import kind

def moved():
    told = dict(line.split(": ") for line in open("/proc/self/io").read().splitlines())
    return int(told["rchar"]) + int(told["wchar"])

query = np.load(sys.argv[2])
with la.connect(sys.argv[1]) as registry:
    la.Resolver({"kb": "kb:v2"}, registry=registry).start().value["kb"].search(query, k=5)
    registry.promote(["kb:v2"], to="prod", reason="measured")
    before, begin = moved(), time.perf_counter()
    registry.rollback("kb:prod", reason="measured")
    rolled = time.perf_counter() - begin
    served = la.Resolver({"kb": "kb:prod"}, registry=registry).start().value["kb"]
    count, hits = served.count, served.search(query, k=5)
    first, through = time.perf_counter() - begin, moved() - before
print(json.dumps({"rolled": rolled, "first": first, "moved": through, "count": count}))
"""
FORK = """
import json, os, sys, threading
import faiss, numpy as np
import llmartifacts as la
from llmartifacts.kinds.vector_index import contents, documents, guard, kind, probes, value

def proportional(pid):
    told = open(f"/proc/{pid}/smaps_rollup").read()
    return int(told.partition("Pss:")[2].split()[0]) * 1024 / 1e6

query = np.load(sys.argv[2])
if sys.argv[4]:
    read = []  # by a thread of its own: what OpenMP keeps for one that forks makes its children hang
    thread = threading.Thread(target=lambda: read.append(faiss.read_index(sys.argv[4])))
    thread.start()
    thread.join()
    index = read[0]
    search = lambda: index.search(query, 5)
else:
    resolver = la.Resolver({"kb": sys.argv[3]}, registry=sys.argv[1])
    resolver.start()
    search = lambda: resolver.current.value["kb"].search(query, k=5)
ready, said = os.pipe()
wait, go = os.pipe()
workers = []
for _ in range(int(sys.argv[5])):
    pid = os.fork()
    if pid == 0:
        os.close(go)
        search()
        os.write(said, b"x")
        os.read(wait, 1)
        os._exit(0)
    workers.append(pid)
for _ in workers:
    if not os.read(ready, 1):
        raise RuntimeError("a worker failed")
print(json.dumps({"MB": sum(map(proportional, [os.getpid(), *workers]))}))
"""
WORKERS = 4
IDLE = """
import sys
import faiss, numpy as np
import llmartifacts as la
from llmartifacts.kinds.vector_index import contents, documents, guard, kind, probes, value
la.Resolver({"agent": "agent:prod"}, registry=sys.argv[1]).start()
print("ready", flush=True)
"""


def measure(bench: Bench) -> Iterator[Line]:
    import numpy as np

    made = service_set(bench)
    query, location, cache = bench.folder / "query.npy", str(made.location), bench.folder / "index-cache"
    np.save(query, vectors(1))
    _add_ivf(made.location, made.count, bench)
    files = {}
    for name in ("kb", "ivf"):  # the first start fills the cache
        seen = _cached(cache)
        python_tells(OURS + TELL % "", location, str(query), f"{name}:prod", cache=cache)
        files[name] = max(_cached(cache) - seen, key=lambda file: file.stat().st_size)

    for name, kind, faster in (("kb", "Flat", 5), ("ivf", "IVF-Flat", 40)):
        yield from _starts(bench, kind, location, query, f"{name}:prod", cache, files[name], faster)
    idle = _memory(IDLE + STAY, location, cache=cache)
    for name, kind in (("kb", "Flat"), ("ivf", "IVF-Flat")):
        taken = [
            (
                _memory(OURS + TELL % "" + STAY, location, str(query), f"{name}:prod", cache=cache),
                _memory(PLAIN + TELL % "" + STAY, str(files[name]), str(query), cache=cache),
            )
            for _ in range(bench.runs)
        ]
        ours, plain = (Figure(samples, "MB") for samples in zip(*taken, strict=True))
        size = files[name].stat().st_size / 1e6
        budget = Budget("800 MB", lambda ours, floor: ours <= 800) if kind == "Flat" else None
        note = (
            f"memory of {WORKERS} workers: the sum of their proportional set sizes after searches; the file has"
            f" {size:,.0f} MB, and {WORKERS} workers with all imported and no index take {idle:,.0f} MB"
        )
        yield Line(f"{WORKERS} workers, {kind}", ours, plain, "read_index in each", budget, bench.full, note)
        yield _forked(bench, kind, location, query, f"{name}:prod", cache, files[name], budget)
    yield from _rollback(bench, location, query, cache, files["kb"], made.count)


def _forked(
    bench: Bench, kind: str, location: str, query: Path, reference: str, cache: Path, file: Path, budget: Budget | None
) -> Line:
    """The memory of workers that are forked from a process that started the resolver, that one included."""

    def taken(plain: str) -> float:
        told = python_tells(FORK, location, str(query), reference, plain, str(WORKERS), cache=cache)
        return float(told["MB"])

    ours, plain = bench.beside(lambda: taken(""), lambda: taken(str(file)), unit="MB")
    note = (
        f"one process imports everything, starts the resolver and forks {WORKERS} workers, as gunicorn --preload does;"
        f" all {WORKERS + 1} count. The floor forks after read_index, and keeps one copy that no later start shares"
    )
    return Line(f"{WORKERS} forked workers, {kind}", ours, plain, "read_index, forked", budget, bench.full, note)


def _starts(
    bench: Bench, kind: str, location: str, query: Path, reference: str, cache: Path, file: Path, faster: int
) -> Iterator[Line]:
    """From the start to the first answer, beside FAISS alone."""
    ours, plain, opened = [], [], []
    for _ in range(bench.runs + 1):
        opened.append(python_tells(OPEN + TELL % "", str(file), str(query)))
        ours.append(
            python_tells(OURS + TELL % ', "ids": hits.ids.tolist()', location, str(query), reference, cache=cache)
        )
        plain.append(python_tells(PLAIN + TELL % "", str(file), str(query)))
    if any(told["ids"] != ours[0]["ids"] for told in ours):
        raise RuntimeError("two starts gave different answers")
    first, again = (Figure(tuple(told[k] for told in ours[1:])) for k in ("first", "search"))
    read, search = (Figure(tuple(told[k] for told in plain[1:])) for k in ("first", "search"))
    note = f"{file.stat().st_size / 1e6:,.0f} MB, cache warm, a new process with its modules imported"
    if kind == "Flat":
        yield Line(f"{kind}, first answer", first, search, "search alone", times_floor(1.2), bench.full, note)
    budget = Budget(f"floor / {faster}", lambda ours, floor: ours * faster <= floor, relative=True)
    yield Line(f"{kind}, first answer", first, read, "read_index, search", budget, bench.full, note)
    bare = Figure(tuple(told["first"] for told in opened[1:]))
    unchecked = f"{note}. The floor looks nothing up, checks nothing, and has no documents"
    yield Line(f"{kind}, first answer", first, bare, "FAISS zero-copy, search", note=unchecked)
    yield Line(f"{kind}, FAISS zero-copy, search", bare, read, "read_index, search", budget, bench.full, unchecked)
    yield Line(f"{kind}, a later search", again, search, "search alone", note=note)


def _rollback(bench: Bench, location: str, query: Path, cache: Path, file: Path, count: int) -> Iterator[Line]:
    """The large version again after a small one, without a byte of it being copied."""
    copy = bench.folder / "index.copy"
    # Not in turn: what `cp` leaves to be written to the disk would slow down the next start.
    told = [python_tells(ROLL, location, str(query), cache=cache) for _ in range(bench.runs + 1)]
    copied = []
    for _ in range(bench.runs + 1):
        copy.unlink(missing_ok=True)
        copied.append(seconds(lambda: subprocess.run(["cp", file, copy], check=True)))
    copy.unlink()
    if any(one["count"] != count for one in told):
        raise RuntimeError("another index was served than the one that was rolled back to")
    floor = Figure(tuple(copied[1:]))
    through = Figure(tuple(one["moved"] for one in told[1:])).median / 1e6
    note = (
        f"a cached index of {file.stat().st_size / 1e6:,.0f} MB after a small one; {through:,.2f} MB pass through read"
        " and write calls until its first answer"
    )
    for name, key, budget in (("roll back", "rolled", within(0.05)), ("roll back, start, search", "first", None)):
        yield Line(name, Figure(tuple(one[key] for one in told[1:])), floor, "cp of the file", budget, note=note)


def _memory(code: str, *arguments: str, cache: Path) -> float:
    """Megabytes that some workers take together once each has answered: pages that they share count once."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LLMARTIFACTS_")}
    environment["LLMARTIFACTS_CACHE"] = str(cache)
    with ExitStack() as ended:
        started = []
        for _ in range(WORKERS):
            command = [sys.executable, "-c", code, *arguments]
            pipe = subprocess.PIPE
            one = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True)
            ended.enter_context(one)
            ended.callback(one.kill)
            started.append(one)
        for one in started:
            if one.stdout is None or not one.stdout.readline():
                raise RuntimeError("a worker failed")
        return sum(_proportional(one.pid) for one in started)


def _proportional(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("this kernel does not say how much memory is shared")


def _cached(cache: Path) -> set[Path]:
    return {file for file in (cache / "sha256").rglob("*") if file.is_file()}


def _add_ivf(location: Path, count: int, bench: Bench) -> None:
    """Log `ivf:prod`: the same vectors in an IVF-Flat index. Some of them are the centroids, for a start is as fast."""
    import faiss

    lists = bench.size(64, 1024)
    bench.say(f"making an IVF-Flat index of {count:,} vectors in {lists:,} lists")
    data = vectors(count)
    coarse = faiss.IndexFlatIP(DIMENSION)
    coarse.add(data[:lists])
    index = faiss.IndexIVFFlat(coarse, DIMENSION, lists, faiss.METRIC_INNER_PRODUCT)
    index.is_trained, index.nprobe = True, 16
    index.add(data)
    space = la.EmbeddingSpec("benchmark", DIMENSION, normalized=True)
    with la.connect(location) as registry:
        registry.log("ivf", la.VectorIndex.from_faiss(index, documents(count), embedding=space))
        registry.promote(["ivf:v1"], to="prod", reason="measured")


SUBJECT = Subject(
    "index_start",
    "a Flat and an IVF-Flat index of 500,000 x 384 (small: 20,000), cache warm: first answer, memory, rollback",
    "FAISS's search alone, `faiss.read_index` with a search, and `cp`",
    measure,
)
