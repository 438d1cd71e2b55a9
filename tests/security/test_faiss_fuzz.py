"""Mutated index files: refused in a typed way, or opened and searched; the process lives."""

import json
import subprocess
import sys

import faiss
import numpy as np
import pytest

CHILD = """
import json, pathlib, sys
import numpy as np
from llmartifacts.errors import LlmartifactsError
from llmartifacts.kinds.vector_index.guard import open_index

source, target, rounds, seed = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
good = source.read_bytes()
chance = np.random.default_rng(seed)
asked = np.random.default_rng(1).standard_normal((3, 16)).astype("f4")
values = [0, 1, 2, 255, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]
told = {"refused": 0, "opened": 0}
structure = [i for i in range(min(len(good), 400))] + [i for i in range(len(good)) if good[i:i + 2].isalpha()][:400]
for number in range(rounds):
    body = bytearray(good)
    for _ in range(int(chance.integers(1, 4))):
        at = int(chance.choice(structure)) if chance.random() < 0.7 else int(chance.integers(0, len(body)))
        how = int(chance.integers(0, 4))
        if how == 0:
            body[at] ^= 1 << int(chance.integers(0, 8))
        elif how == 1:
            width = int(chance.choice([1, 4, 8]))
            put = int(values[int(chance.integers(0, len(values)))]) % (1 << (8 * width))
            body[at:at + width] = put.to_bytes(width, "little")
        elif how == 2:
            del body[at:at + int(chance.integers(1, 64))]
        else:
            body[at:at] = bytes(int(chance.integers(1, 64)))
        if not body:
            body = bytearray(b"x")
    path = target / "mutated"
    path.unlink(missing_ok=True)            # a new file each time: what is mapped is never written to
    path.write_bytes(body)
    (target / "last").write_bytes(body)
    try:
        index = open_index(path).index
        if index.d == 16:
            index.search(asked, 5)
        told["opened"] += 1
    except (LlmartifactsError, RuntimeError) as error:
        # What FAISS refuses while searching is an exception of its own; `VectorIndex.search` makes it a typed one.
        told["refused"] += 1
print(json.dumps(told))
"""


@pytest.mark.parametrize(
    "factory",
    ["Flat", "IDMap2,SQ8", "IVF8,Flat", "IVF8,SQ8", "IVF8,PQ4x4", "HNSW8", "PCA8,IVF8,Flat", "IVF8_HNSW4,Flat"],
)
def test_mutated_files_never_end_the_process(factory, tmp_path):
    vectors = np.random.default_rng(0).standard_normal((300, 16)).astype("f4")
    index = faiss.index_factory(16, factory)
    index.train(vectors)
    if "IDMap" in factory:
        index.add_with_ids(vectors, np.arange(300))
    else:
        index.add(vectors)
    faiss.write_index(index, str(tmp_path / "good"))
    ran = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path / "good"), str(tmp_path), "80", "7"], capture_output=True, text=True
    )
    assert ran.returncode == 0, f"see {tmp_path / 'last'}: {ran.stderr[-2000:]}"
    told = json.loads(ran.stdout.splitlines()[-1])
    assert told["refused"] + told["opened"] == 80
    assert told["refused"] >= 20, "the mutations hit the structure"
