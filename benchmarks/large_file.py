"""A large file on its way in, beside `cp`."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import llmartifacts as la
from benchmarks.measure import Bench, Line, Subject, seconds

MEGABYTE = 1 << 20


def measure(bench: Bench) -> Iterator[Line]:
    size = bench.size(64, 512)
    source, copy = bench.folder / "large.bin", bench.folder / "large.copy"
    bench.say(f"writing a file of {size} MiB")
    _write(source, size)
    with la.init(bench.folder / "large") as registry:
        fresh = iter(range(1 << 30))

        def log() -> float:
            with source.open("r+b") as file:  # another file each time: the same one would be known by its digest
                file.write(next(fresh).to_bytes(8, "big"))
            return seconds(lambda: registry.log("weights", la.Files.from_path(source)))

        def cp(*then: str) -> float:
            copy.unlink(missing_ok=True)
            command = f'cp "$0" "$1" {" ".join(then)}'
            return seconds(lambda: subprocess.run(["sh", "-c", command, source, copy], check=True))

        ours, alone, synced, hashed = bench.beside(
            log, cp, lambda: cp("&&", "sync", '"$1"'), lambda: seconds(lambda: _hash(source))
        )
        name = f"log a file of {size} MiB"
        note = "hashed, cut into chunks, its inverse tried, on disk when log returns; indexes: see storage"
        yield Line(name, ours, alone, "cp", note=note)
        yield Line(name, ours, synced, "cp, then sync", note=note)
        yield Line(name, ours, hashed, "SHA-256 of it", note=note)
    source.unlink()
    copy.unlink()


def _hash(path: Path) -> None:
    with path.open("rb") as file:
        hashlib.file_digest(file, "sha256")


def _write(path: Path, size: int) -> None:
    import numpy as np

    random = np.random.default_rng(512)
    with path.open("wb") as file:
        for _ in range(size):
            file.write(random.bytes(MEGABYTE))


SUBJECT = Subject(
    "large_file", "a large file logged, durable", "`cp`, alone and with `sync`, and SHA-256 alone", measure
)
