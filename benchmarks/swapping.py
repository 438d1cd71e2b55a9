"""A large index, swapped under a load of queries: how long they wait meanwhile, and the memory after many swaps."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import llmartifacts as la
from benchmarks.inputs import DIMENSION, documents, vectors
from benchmarks.measure import Bench, Budget, Figure, Line, Subject, python_tells
from benchmarks.server_setup import ROOT

CODE = "import sys; sys.path.insert(0, sys.argv[1]); from benchmarks.swapping_service import main; main(*sys.argv[2:])"
QUERIES = 16
PROBES = 16
BY_HAND = "read_index, assign"
FLAT = Budget("1.1 x floor", lambda ours, floor: ours <= 1.1 * floor, relative=True)


def measure(bench: Bench) -> Iterator[Line]:
    count = bench.size(20_000, 500_000)
    for kind in ("IVF-Flat", "Flat"):
        place = bench.folder / f"swapping-{kind}"
        given = _made(bench, place, kind, count)
        ours, by_hand = [], []
        for _ in range(bench.runs):
            bench.say(f"{given['swaps']} swaps of the {kind} index under queries, ours and by hand")
            ours.append(python_tells(CODE, str(ROOT), "ours", json.dumps(given), cache=place / "cache"))
            given["rate"] = ours[0]["rate"]
            by_hand.append(python_tells(CODE, str(ROOT), "by hand", json.dumps(given), cache=place / "cache"))
        yield from _lines(kind, count, given, ours, by_hand)
        shutil.rmtree(place)


def _lines(
    kind: str, count: int, given: dict[str, Any], ours: list[dict[str, Any]], by_hand: list[dict[str, Any]]
) -> Iterator[Line]:
    size = Path(given["files"]["v1"]).stat().st_size / 1e6
    asked, quiet = (sum(len(one[name]) for one in ours) // len(ours) for name in ("swapping", "quiet"))
    note = (
        f"{kind} of {count:,} x {DIMENSION}, {size:,.0f} MB; queries come at a fixed rate ({ours[0]['rate']:,.1f}/s,"
        " half of one core at most) and are measured from when they were due; every answer is compared."
        f" {asked:,} during {given['swaps']} swaps to a version that is not in the cache (fetched, put together,"
        f" hashed), and for 1 s after each; {quiet:,} without; a run. By hand: the file is there, nothing checked"
    )
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        during, without = _waits(ours, "swapping", share), _waits(ours, "quiet", share)
        yield Line(f"{kind}: {name} in a swap", during, without, f"{name} without", note=note)
    for name, share in (("p99", 0.99), ("slowest", 1.0)):
        pair = (_waits(one, "swapping", share) for one in (ours, by_hand))
        yield Line(f"{kind}: {name} in a swap", *pair, BY_HAND, note=note)
    for name, key in (("promote to served", "lasted"), ("the same, cached", "again")):
        pair = (_of(one, lambda told, key=key: within(told[key], 0.5)) for one in (ours, by_hand))  # type: ignore[misc]
        yield Line(f"{kind}: {name}", *pair, BY_HAND, note=note)
    own = "memory of the process's own at its most, without what it has mapped of files"
    yield Line(f"{kind}: peak, own", _of(ours, _peak, "MB"), _of(by_hand, _peak, "MB"), BY_HAND, note=own)
    after = f"{kind}: after {ours[0]['swaps']} swaps"
    yield Line(after, _of(ours, _last, "MB"), _of(ours, _first, "MB"), "after the first two", FLAT,
               note="memory in all, mapped files with it")  # fmt: skip


def within(times: Sequence[float], share: float) -> float:
    """Seconds that such a share of the times stayed within."""
    if not times:
        raise RuntimeError("nothing was answered meanwhile")
    return sorted(times)[min(len(times) - 1, int(len(times) * share))]


def _waits(told: list[dict[str, Any]], name: str, share: float) -> Figure:
    return _of(told, lambda one: within(one[name], share))


def _of(told: list[dict[str, Any]], what: Callable[[dict[str, Any]], float], unit: Any = "s") -> Figure:
    return Figure(tuple(what(one) for one in told), unit)


def _peak(one: dict[str, Any]) -> float:
    return float(one["peak"])


def _first(one: dict[str, Any]) -> float:
    return float(one["first"])


def _last(one: dict[str, Any]) -> float:
    return float(one["last"])


def _made(bench: Bench, place: Path, kind: str, count: int) -> dict[str, Any]:
    """A registry with two versions of an index, the files of both, and queries whose answers differ between them."""
    import faiss
    import numpy as np

    bench.say(f"making two versions of a {kind} index of {count:,} x {DIMENSION} vectors")
    place.mkdir()
    data, changed = vectors(count), count // 100
    space = la.EmbeddingSpec("benchmark", DIMENSION, normalized=True)
    files = {}
    np.save(place / "queries.npy", data[:changed][:: max(1, changed // QUERIES)][:QUERIES])
    with la.init(place / "registry") as registry:
        for version in ("v1", "v2"):
            index = _index(kind, data, bench.size(64, 1024))
            registry.log("kb", la.VectorIndex.from_faiss(index, documents(count), embedding=space))
            files[version] = str(place / f"{version}.faiss")
            faiss.write_index(index, files[version])
            data[:changed] *= -1
        registry.promote(["kb:v1"], to="prod", reason="first")
    return {
        "location": str(place / "registry"),
        "name": "kb",
        "files": files,
        "queries": str(place / "queries.npy"),
        "swaps": bench.size(2, 4),
        "quiet": bench.size(2, 10),
        "more": bench.size(10, 20),
        "rate": 0,
    }


def _index(kind: str, data: Any, lists: int) -> Any:
    """An index of these vectors; some of them are the centroids, for a search is as fast."""
    import faiss

    flat = faiss.IndexFlatIP(DIMENSION)
    if kind == "Flat":
        flat.add(data)
        return flat
    flat.add(data[-lists:])
    index = faiss.IndexIVFFlat(flat, DIMENSION, lists, faiss.METRIC_INNER_PRODUCT)
    index.is_trained, index.nprobe = True, PROBES
    index.add(data)
    return index


SUBJECT = Subject(
    "swapping",
    "a 768 MB index (small: 31 MB) swapped under a load of queries: p99 meanwhile, and memory after many swaps",
    "p99 without a swap, and `faiss.read_index` with an assignment",
    measure,
)
