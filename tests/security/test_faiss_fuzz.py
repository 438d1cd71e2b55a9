"""Corrupted index files, two thousand and more: the process lives, and an answer known to be wrong is not accepted.

Each child corrupts one intact artifact many times and opens it the way a service does: out of the cache with its digest
check, then the walk over its structure, the comparison with the config, FAISS, and the probe queries. Twice:

    altered    the cached file is changed where it lies, its record left as it is: always refused by its digest
    forged     the manifest names the digest of the corrupted bytes, so the digest says nothing: what is refused then is
               refused by the rest, and what is served gives the right answers to every probe query

A child that ends by a signal, or does not end, fails the test; the file that did it is left in its folder.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FACTORIES = [
    *("Flat", "SQ8", "PQ4x4", "IDMap2,Flat", "IDMap2,SQ8", "HNSW8", "HNSW8_SQ8"),
    *("IVF8,Flat", "IVF8,SQ8", "IVF8,PQ4x4", "IVF8_HNSW4,Flat", "PCA8,IVF8,Flat", "SQ8,RFlat", "IVF8,SQ8,RFlat"),
]
ALTERED, FORGED = 40, 120
assert len(FACTORIES) * (ALTERED + FORGED) >= 2000

CHILD = """
import dataclasses, json, pathlib, sys, time
import faiss
import numpy as np
from llmartifacts import packing
from llmartifacts.blobs.cache import BlobCache
from llmartifacts.errors import DigestMismatch, InvalidValue, LlmartifactsError
from llmartifacts.kinds.vector_index.config import EmbeddingSpec
from llmartifacts.kinds.vector_index.kind import INDEX, VectorIndexKind
from llmartifacts.kinds.vector_index.value import VectorIndex
from llmartifacts.records.digest import Blob, digest_of
from llmartifacts.testing.kinds import pack

factory, folder = sys.argv[1], pathlib.Path(sys.argv[2])
altered, forged, chance = int(sys.argv[3]), int(sys.argv[4]), np.random.default_rng(int(sys.argv[5]))
faiss.omp_set_num_threads(1)
no_parts = lambda digests: {}

# --- an intact artifact, in a cache

vectors = np.random.default_rng(0).standard_normal((300, 16)).astype("f4")
index = faiss.index_factory(16, factory)
index.train(vectors)
index.add_with_ids(vectors, np.arange(300)) if "IDMap" in factory else index.add(vectors)
if "IVF" in factory:
    faiss.extract_index_ivf(index).nprobe = 4
value = VectorIndex.from_faiss(index, [f"passage {i}" for i in range(300)], embedding=EmbeddingSpec("m", 16, "l2"))
manifest, files = pack(VectorIndexKind(), value)
good, cache = files.read(INDEX), BlobCache(folder / "cache")
for path in files.paths():
    cache.put(files.descriptor(path).blob, files.read(path))
blob = files.descriptor(INDEX).blob
place = cache.root / "sha256" / blob.digest[7:9] / blob.digest[7:]

# --- the right answers, by the intact index

queries = value.probes.query_vectors
others = np.random.default_rng(1).standard_normal((16, 16)).astype("f4")


def answers(opened, asked):
    return [a.tolist() for a in opened.nearest_rows(asked, 5)]


def right(found, wanted, asked):
    # Rows exact, with ties allowed: a row may differ only where its score is the one expected at that rank. Scores to
    # one part in 500 of what they are made of.
    for rows, scores, rows2, scores2, query in zip(*found, *wanted, asked):
        near = 2e-3 * max(float(query @ query), *map(abs, scores2))
        if any(abs(a - b) > near for a, b in zip(scores, scores2)) or len(set(rows)) != len(rows):
            return False
        for rank, row in enumerate(rows):
            if row not in rows2 and abs(scores2[-1] - scores[rank]) > near:
                return False
    return True


expected, expected_others = answers(value, queries), answers(value, others)
served = packing.unpack(manifest, cache, no_parts)
assert right(answers(served, queries), expected, queries), "the intact file is served"
del served

# --- corruption

values = [0, 1, 2, 255, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]
structure = [i for i in range(min(len(good), 400))] + [i for i in range(len(good)) if good[i:i + 2].isalpha()][:400]


def corrupted(keep_size):
    while True:
        body = bytearray(good)
        for _ in range(int(chance.integers(1, 4))):
            at = int(chance.choice(structure)) if chance.random() < 0.6 else int(chance.integers(0, len(body)))
            at = min(at, len(body) - 1)
            how = int(chance.integers(0, 4 if keep_size else 6))
            if how == 0:
                body[at] ^= 1 << int(chance.integers(0, 8))
            elif how == 1:
                width = int(chance.choice([1, 4, 8]))
                put = int(values[int(chance.integers(0, len(values)))]) % (1 << (8 * width))
                body[at:at + width] = put.to_bytes(width, "little")[:len(body) - at]
            elif how == 2:  # another region of the same file
                size = min(int(chance.integers(1, 256)), len(body) - at)
                source = int(chance.integers(0, len(body) - size + 1))
                body[at:at + size] = body[source:source + size]
            elif how == 3:  # a page that was lost
                start = at // 512 * 512
                body[start:start + 512] = bytes(len(body[start:start + 512]))
            elif how == 4:
                del body[at:at + int(chance.integers(1, 64))]
            else:
                body[at:at] = bytes(int(chance.integers(1, 64)))
        if body and body != good:
            return bytes(body)


told = {"altered": {}, "forged": {}}


def count(which, outcome):
    told[which][outcome] = told[which].get(outcome, 0) + 1


time.sleep(0.06)
cache.get(blob)  # there is a record, which must not help
for number in range(altered):
    body = corrupted(keep_size=number % 4 > 0)
    place.chmod(0o644)
    place.write_bytes(body)
    place.chmod(0o444)
    try:
        packing.unpack(manifest, BlobCache(cache.root), no_parts)
        count("altered", "served")
    except DigestMismatch:
        count("altered", "refused by its digest")
    except LlmartifactsError as error:
        count("altered", f"refused otherwise: {error!r}")
    cache.path(blob, lambda sink: sink.write(good))  # a damaged file is built anew
    assert place.read_bytes() == good

for number in range(forged):
    body = corrupted(keep_size=number % 4 > 0)
    (folder / "last").write_bytes(body)
    other = Blob(digest_of(body), len(body))
    cache.put(other, body)
    lying = dataclasses.replace(
        manifest.file(INDEX), digest=other.digest, size=other.size
    )
    rest = [file for file in manifest.files if file.path != INDEX]
    forgery = type(manifest).build(manifest.kind, manifest.config, [*rest, lying], manifest.components)
    try:
        opened = packing.unpack(forgery, cache, no_parts)
    except LlmartifactsError as error:
        probed = isinstance(error, InvalidValue) and "other neighbours" in error.message
        count("forged", "refused by its probes" if probed else "refused before")
        continue
    finally:
        (cache.root / "sha256" / other.digest[7:9] / other.digest[7:]).unlink()
    if not right(answers(opened, queries), expected, queries):
        count("forged", "WRONG")
        continue
    try:
        same = right(answers(opened, others), expected_others, others)
        count("forged", "served, right" if same else "served, right to its probes")
    except LlmartifactsError:  # a search that FAISS refuses is told so, in a typed way
        count("forged", "served, right or refused")
print(json.dumps(told))
"""


def fuzz(factory: str, folder: Path, altered: int, forged: int, seed: int) -> dict[str, dict[str, int]]:
    command = [sys.executable, "-c", CHILD, factory, str(folder), str(altered), str(forged), str(seed)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, f"see {folder / 'last'}: {ran.returncode}: {ran.stderr[-2000:]}"
    told: dict[str, dict[str, int]] = json.loads(ran.stdout.splitlines()[-1])
    return told


def check(told: dict[str, dict[str, int]], altered: int, forged: int) -> None:
    assert told["altered"] == {"refused by its digest": altered}
    outcomes = dict(told["forged"])
    assert sum(outcomes.values()) == forged
    assert "WRONG" not in outcomes
    assert outcomes.pop("refused before", 0) >= forged / 4, "the corruption hits the structure"
    assert sum(outcomes.values()) >= 1, "and not only the structure"


@pytest.mark.parametrize(
    "factory", [pytest.param(f, marks=pytest.mark.matrix) if n % 2 else f for n, f in enumerate(FACTORIES)]
)
def test_a_corrupted_index_is_refused_or_right_and_the_process_lives(factory: str, tmp_path: Path) -> None:
    check(fuzz(factory, tmp_path, ALTERED, FORGED, seed=7), ALTERED, FORGED)


@pytest.mark.slow
@pytest.mark.matrix
@pytest.mark.parametrize("factory", FACTORIES)
def test_so_is_one_corrupted_in_many_more_ways(factory: str, tmp_path: Path) -> None:
    check(fuzz(factory, tmp_path, 20, 500, seed=11), 20, 500)
