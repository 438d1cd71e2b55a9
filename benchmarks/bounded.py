"""A file larger than the memory allowed goes in and comes out: `python -m benchmarks.bounded --gigabytes 10 --limit 1`.

The file is an IVF-Flat index, written list by list without FAISS ever holding it, or any bytes. A process of its own
logs it and reads it back under a limit: a memory cgroup where this user may make one (it counts page cache too), else
`RLIMIT_DATA` (what a process allocates). A process that goes beyond is killed, or told that there is no memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

CGROUPS = Path("/sys/fs/cgroup/memory")
DIMENSION, LISTS = 384, 2048
GIGABYTE = 1 << 30

WORK = """
import json, resource, sys, threading, time
from pathlib import Path
import blake3, faiss, numpy, zstandard
import llmartifacts as la

folder, limit, group = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
if group:
    Path(group, "cgroup.procs").write_text("0")
else:
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
peak, done = [0], threading.Event()

def watch():
    while not done.wait(0.02):
        told = Path("/proc/self/status").read_text().partition("RssAnon:")[2]
        peak[0] = max(peak[0], int(told.split()[0]) * 1024)

threading.Thread(target=watch, daemon=True).start()
took = {}
with la.init(folder / "registry") as registry:
    for name in sys.argv[4:]:
        began = time.perf_counter()
        registry.log("large", la.Files({"large": folder / name}))
        took[f"log {name}"] = time.perf_counter() - began
        (folder / name).unlink()
    began = time.perf_counter()
    with registry.resolve("large:latest", la.Files).open("large") as stream:
        took["size"] = stream.seek(0, 2)
    took["read back, verified"] = time.perf_counter() - began
    took["stored"] = registry.stats().stored
done.set()
took["anonymous"] = peak[0]
print(json.dumps(took))
"""


def write_index(path: Path, rows: int, more: int = 0, seed: int = 7) -> None:
    """Write an IVF-Flat index with ids in the order of insertion; `more` rows come after the others in their lists."""
    import faiss

    from llmartifacts.formats.faiss import walk

    random = np.random.default_rng(seed)
    centroids = random.standard_normal((LISTS, DIMENSION), np.float32)
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(DIMENSION), DIMENSION, LISTS)
    index.quantizer.add(centroids)
    index.is_trained = True
    index.add(centroids)
    small = bytearray(faiss.serialize_index(index).tobytes())
    start = walk(bytes(small)).lists[0].offset
    sizes = np.full(LISTS, rows // LISTS, np.int64)
    extra = np.bincount(np.arange(more) % LISTS, minlength=LISTS)
    small[8:16] = int((sizes + extra).sum()).to_bytes(8, "little")
    small[start - 8 * LISTS : start] = (sizes + extra).astype("<u8").tobytes()
    total = int(sizes.sum())
    with path.open("wb") as file:
        file.write(small[:start])
        for number in range(LISTS):
            own = np.random.default_rng([seed, number])
            count = int(sizes[number] + extra[number])
            file.write(own.random((count, DIMENSION), np.float32).tobytes())
            ids = np.concatenate([np.arange(sizes[number]) * LISTS, total + np.arange(extra[number]) * LISTS])
            file.write((ids + number).astype("<i8").tobytes())


def write_bytes(path: Path, size: int) -> None:
    """Write bytes that nothing compresses."""
    random = np.random.default_rng(9)
    with path.open("wb") as file:
        for start in range(0, size, 1 << 26):
            file.write(random.bytes(min(1 << 26, size - start)))


@contextmanager
def memory_group(limit: int) -> Iterator[Path | None]:
    """A memory cgroup with a limit, or None where this user may not make one."""
    group = CGROUPS / f"bounded-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(limit))
    except OSError:
        yield None
        return
    try:
        yield group
    finally:
        group.rmdir()


def run(folder: Path, limit: int, names: list[str]) -> dict[str, float]:
    """Log files one after the other and read the last back, in a process with so much memory."""
    environment = {**os.environ, "LLMARTIFACTS_CACHE": str(folder / "cache"), "LLMARTIFACTS_CACHE_LIMIT": "none"}
    environment |= {"TMPDIR": str(folder), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with memory_group(limit) as group:
        done = subprocess.run(
            [sys.executable, "-c", WORK, str(folder), str(limit), str(group or ""), *names],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise MemoryError(f"ended with {done.returncode}: {done.stderr[-2000:]}")
        told: dict[str, float] = json.loads(done.stdout)
        if group:
            told["cgroup peak"] = int((group / "memory.max_usage_in_bytes").read_text())
    return told


def main() -> None:
    """Print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=10)
    parser.add_argument("--limit", type=float, default=1, help="gigabytes of memory")
    parser.add_argument("--content", choices=["index", "bytes"], default="index")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bounded-") as name:
        folder = Path(name)
        names = ["first"]
        if chosen.content == "index":
            rows = int(chosen.gigabytes * GIGABYTE) // (4 * DIMENSION + 8)
            write_index(folder / "first", rows)
            write_index(folder / "second", rows, more=rows // 100)
            names.append("second")
        else:
            write_bytes(folder / "first", int(chosen.gigabytes * GIGABYTE))
        for key, value in run(folder, int(chosen.limit * GIGABYTE), names).items():
            print(f"{key:>22}: {value:,.1f} s" if value < 1e5 else f"{key:>22}: {value / 1e6:,.0f} MB")


if __name__ == "__main__":
    began = time.perf_counter()
    main()
    print(f"{'all of it':>22}: {time.perf_counter() - began:,.1f} s")
