"""Five releases of a real documentation as indexes, logged in order: all that is stored, beside the least possible."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

from benchmarks.measure import Absent, Bench, Figure, Line

ROOT = Path(__file__).resolve().parent.parent
VARIABLE = "LLMARTIFACTS_TEST_DATA"
RELEASES = ("1.1.0", "2.0.0", "2.2.0", "2.3.0", "3.1.0")
DIMENSION = 384
FACTORIES = {"Flat": "Flat", "IVF16": "IVF16,Flat", "HNSW32": "HNSW32"}


def measure(bench: Bench, log_each: Callable[[Path, list[Path]], Any]) -> Iterator[Line | Absent]:
    """The lines of the real data, or why there are none.

    Args:
        bench: Where, and how.
        log_each: Logs files as the versions of one collection; tells `blobs` of each.
    """
    base = Path(os.environ.get(VARIABLE) or ROOT.parent / "shared" / "data") / "corpora" / "flask_docs"
    if not base.is_dir():
        yield Absent("five Flask releases", f"there is no {base}: set {VARIABLE} to the folder of real inputs")
        return
    bench.say("embedding five releases of Flask's documentation")
    releases = [_release(base, name) for name in RELEASES]
    unique = {text for release in releases for text in release.values()}
    vectors = _embedded(sorted(unique))
    for kind, factory in FACTORIES.items():
        folder = bench.folder / "flask"
        files = [_index(folder, f"{n}", factory, release, vectors) for n, release in enumerate(releases)]
        whole = sum(file.stat().st_size for file in files)
        stored = sum(one.blobs for one in log_each(bench.folder / "flask-registry", files))
        least = len(vectors) * 4 * DIMENSION
        shutil.rmtree(folder)
        note = (
            f"Flask {', '.join(RELEASES)}: {sum(map(len, releases)):,} passages, {len(vectors):,} different vectors of"
            f" the hashing embedder ({least / 1e6:.1f} MB); what blobs/ holds after the five, as % of five whole files"
        )
        ours, floor = (Figure((100 * n / whole,), "% new") for n in (stored, least))
        yield Line(f"Flask x 5, {kind}", ours, floor, "different vectors", note=note)


def _release(base: Path, name: str) -> dict[str, str]:
    """Id of each passage -> its text."""
    lines = (base / f"{name}.chunks.jsonl").read_text(encoding="utf-8").splitlines()
    return {chunk["id"]: chunk["text"] for chunk in map(json.loads, lines)}


def _embedded(texts: list[str]) -> dict[str, Any]:
    from llmartifacts.integrations.hashing import HashingEmbeddings

    made = HashingEmbeddings(DIMENSION).embed_array(texts)
    return dict(zip(texts, made, strict=True))


def _index(folder: Path, name: str, factory: str, release: dict[str, str], vectors: dict[str, Any]) -> Path:
    """An index as a rebuild writes it: trained and filled anew for each release, in the order of the passages."""
    import faiss
    import numpy as np

    folder.mkdir(exist_ok=True)
    rows = np.stack([vectors[text] for text in release.values()])
    index = faiss.index_factory(DIMENSION, factory, faiss.METRIC_INNER_PRODUCT)
    if factory.startswith("IVF"):
        index.cp.min_points_per_centroid = 1
        index.train(rows)
        digests = (blake2b(key.encode(), digest_size=8).digest() for key in release)
        index.add_with_ids(rows, np.array([int.from_bytes(d, "little") >> 1 for d in digests], np.int64))
    else:
        index.add(rows)
    place = folder / f"{name}.faiss"
    faiss.write_index(index, str(place))
    return place
