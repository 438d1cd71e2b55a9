"""What the versions of an index cost: bytes stored, and seconds to log and to read back."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from mmap import PROT_READ, mmap
from pathlib import Path

import llmartifacts as la
from benchmarks import storage_flask, storage_peers
from benchmarks.measure import Absent, Bench, Budget, Figure, Line, Subject, at_most, seconds, speed_of_floor
from benchmarks.vectors import DIMENSION, FAMILIES, FLAT, IVF_RANDOM, IVF_SEQUENTIAL, Corpus, Family
from llmartifacts.blobs.codecs.row_cuts import MEAN

FLOOR = "changed rows"
PIECE = 4 * 1024 * 1024
GOALS = {
    ("IVF-Flat", "+1 %"): 1.2,
    ("IVF-Flat", "-.5 +1 %"): 1.2,
    ("IVF-Flat", "rebuilt"): 2.0,
    ("IVF-SQ8", "+1 %"): 1.2,
    ("IVF-SQ8", "-.5 +1 %"): 1.3,
    ("IVF-PQ48", "+1 %"): 1.2,
    ("IVF-PQ48", "-.5 +1 %"): 1.3,
    ("Flat", "-.5 +1 %"): 2.0,
    ("HNSW32", "-.5 +1 %"): 17.0,
}
NOTE = (
    "new bytes of a version, as % of its file. ours: what blobs/ grew by; on the line below it everything in the"
    " registry's folder, the database included. changed rows: new or changed vectors x (code + 8 bytes of id, where the"
    " file has ids). -.5 +1 %: whole documents removed, others appended (HNSW cannot remove: built anew). rebuilt:"
    " 1 % of the documents changed and the quantiser trained again, so SQ8 and PQ48 codes all change. What is"
    " compressed (sequential ids, exponents of floats) can take less than this floor"
)


@dataclass(frozen=True)
class Logged:
    """What logging one file did.

    Attributes:
        blobs: Bytes that `blobs/` grew by.
        everything: Bytes that the registry's folder grew by.
        seconds: How long it took.
    """

    blobs: int
    everything: int
    seconds: float


def measure(bench: Bench) -> Iterator[Line | Absent]:
    corpus = Corpus(bench.size(20_000, 500_000))
    kept = bench.inputs or bench.folder / "indexes"
    peers = storage_peers.found(bench) if bench.peers else []
    yield from (peer for peer in peers if isinstance(peer, Absent))
    here = [peer for peer in peers if not isinstance(peer, Absent)]
    about = (
        f"{'; '.join(peer.about for peer in here)}. Of each tool, what its own store grew by; a command's time includes"
        " its start, a library's is taken inside its process; log v1, log v2: one sample each"
    )
    for family in FAMILIES:
        files = family.files(corpus, kept, bench.say)
        logged = log_each(bench.folder / "registry", files)
        yield from _versions(bench, corpus, family, files, logged)
        others = storage_peers.MEASURED if bench.full else (IVF_RANDOM,)
        for peer in here if family in others else []:
            yield from _beside(bench, corpus, family, files, logged, peer, about)
        if family == IVF_RANDOM:
            yield from _times(bench, files[0], family.type)
            yield from _back(bench, files[0], bench.folder / "copy.faiss")
        if family == FLAT:
            yield from _times(bench, files[0], family.type)
        if bench.inputs is None and family not in (FLAT, IVF_SEQUENTIAL):
            _remove(files)
    flat, lists = (family.files(corpus, kept, bench.say) for family in (FLAT, IVF_SEQUENTIAL))
    yield _second_type(bench, corpus, flat[0], lists[0])
    if bench.inputs is None:
        _remove([*flat, *lists])
    yield from storage_flask.measure(bench, log_each)


def log_each(place: Path, files: list[Path]) -> list[Logged]:
    """Log files as the versions of one collection, in a new registry that is removed afterwards."""
    la.init(place).close()
    try:
        return [log_one(place, "index", file) for file in files]
    finally:
        shutil.rmtree(place)


def log_one(place: Path, name: str, file: Path) -> Logged:
    """Log one file under one path, whatever it is called."""
    blobs, everything = size(place / "blobs"), size(place)
    with la.connect(place) as registry:
        value = la.Files({"index.faiss": file})
        took = _settled(lambda: registry.log(name, value))
    return Logged(size(place / "blobs") - blobs, size(place) - everything, took)


def size(folder: Path) -> int:
    """Bytes of all files below a folder; of one with several names, once."""
    found = {(told.st_dev, told.st_ino): told.st_size for p in folder.rglob("*") if p.is_file() and (told := p.stat())}
    return sum(found.values())


def new(share: int, file: Path) -> Figure:
    """Bytes as a part of a file's."""
    return Figure((100 * share / file.stat().st_size,), "% new")


def _versions(bench: Bench, corpus: Corpus, family: Family, files: list[Path], logged: list[Logged]) -> Iterator[Line]:
    for file, state, stored in list(zip(files, corpus.states, logged, strict=False))[1:]:
        name, ours = f"{family.label}: {state.change}", new(stored.blobs, file)
        floor = new(state.changed * family.row, file)
        yield Line(name, ours, floor, FLOOR, _goal(family, state.change), bench.full, NOTE)
        yield Line(name, new(stored.everything, file), ours, "blobs/ alone", note=NOTE)


def _goal(family: Family, change: str) -> Budget | None:
    percent = GOALS.get((family.type, change))
    return None if percent is None else at_most(percent)


def _beside(
    bench: Bench,
    corpus: Corpus,
    family: Family,
    files: list[Path],
    logged: list[Logged],
    peer: storage_peers.Peer,
    note: str,
) -> Iterator[Line | Absent]:
    bench.say(f"{family.label} into {peer.name}")
    try:
        theirs = storage_peers.store_each(peer, bench.folder / "peer", files)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        yield Absent(f"{peer.name}, {family.label}", str(error))
        return
    steps = list(zip(files, corpus.states, logged, theirs, strict=False))
    for file, state, ours, other in steps[1:]:
        name = f"{family.label}: {state.change}"
        yield Line(name, new(ours.blobs, file), new(other.grown, file), peer.name, note=note)
    for number, (_, _, ours, other) in enumerate(steps[:2], 1):
        name = f"{family.label}: log v{number}"
        yield Line(name, Figure((ours.seconds,)), Figure((other.seconds,)), peer.name, note=note)


def _times(bench: Bench, file: Path, about: str) -> Iterator[Line]:
    """The first version on its way in, beside all that it cannot do without."""
    bytes_, copy, fresh = file.stat().st_size, bench.folder / "copy.faiss", iter(range(1 << 30))

    def log() -> float:
        return log_each(bench.folder / f"first-{next(fresh)}", [file])[0].seconds

    def cp(durable: bool) -> float:
        copy.unlink(missing_ok=True)
        return _settled(lambda: _cp(file, copy, durable))

    bench.say(f"timing {file.name}")
    ways = {
        "ours": log,
        "cp+fsync": lambda: cp(durable=True),
        "cp": lambda: cp(durable=False),
        "SHA-256": lambda: _settled(lambda: _hash(file)),
        "BLAKE3 of its chunks": lambda: _settled(lambda: _hash_chunks(file)),
        "write+fsync": lambda: _write(file, copy),
    }
    taken = dict(zip(ways, bench.beside(*ways.values()), strict=True))
    ours, synced, alone, hashed, chunks, written = taken.values()
    both = Figure(tuple(sum(three) / 2 for three in zip(hashed.samples, chunks.samples, written.samples, strict=True)))
    rates = (f"{name} {bytes_ / figure.median / 1e6:,.0f} MB/s" for name, figure in taken.items())
    note = f"{about}, {bytes_ / 1e6:,.0f} MB, a new registry each time: {', '.join(rates)}"
    name = f"log the first version, {about}"
    yield Line(name, ours, synced, "cp, then fsync", speed_of_floor(0.6), bench.full, note)
    yield Line(name, ours, alone, "cp", speed_of_floor(0.6), bench.full, note)
    yield Line(name, ours, hashed, "SHA-256 of it", note=note)
    least = f"{note}. The floor is what no store can do without that names files by SHA-256 and chunks by BLAKE3"
    yield Line(name, ours, both, "hashes, write; 2 cores", note=least)
    copy.unlink(missing_ok=True)


def _back(bench: Bench, file: Path, copy: Path) -> Iterator[Line]:
    """The first version read back, with nothing in the cache and with the file in it."""
    place, cache, out = bench.folder / "back", bench.folder / "back-cache", bench.folder / "back-out"
    with la.init(place) as registry:
        registry.log("index", la.Files({"index.faiss": file}))

    def cp() -> float:
        copy.unlink(missing_ok=True)
        return _settled(lambda: _cp(file, copy, durable=False))

    def ours(pull: bool, empty: bool) -> float:
        shutil.rmtree(out, ignore_errors=True)
        if empty:
            shutil.rmtree(cache, ignore_errors=True)
        with _environment("LLMARTIFACTS_CACHE", str(cache)), la.connect(place) as registry:
            if pull:
                return _settled(lambda: registry.pull("index:v1", out))
            return _settled(lambda: registry.resolve("index:v1", la.Files).path("index.faiss"))

    ways = {
        "pull it, cache empty": (True, True),
        "resolve it, cache empty": (False, True),
        "resolve it, cache warm": (False, False),
        "pull it, cache warm": (True, False),
    }
    *figures, alone = bench.beside(*(partial(ours, *way) for way in ways.values()), cp)
    for name, figure in zip(ways, figures, strict=True):
        yield Line(name, figure, alone, "cp", note="to a path that any program can open: resolve to one in the cache")
    for folder in (place, cache, out):
        shutil.rmtree(folder, ignore_errors=True)
    copy.unlink()


def _settled(work: Callable[[], object]) -> float:
    """How long it takes once the disk has nothing left to do from before."""
    os.sync()
    return seconds(work)


def _second_type(bench: Bench, corpus: Corpus, flat: Path, lists: Path) -> Line:
    place = bench.folder / "registry"
    la.init(place).close()
    log_one(place, "flat", flat)
    second = log_one(place, "lists", lists)
    shutil.rmtree(place)
    floor = corpus.lists * 4 * DIMENSION + round(corpus.count * math.log2(corpus.lists) / 8)
    note = "IVF-Flat with sequential ids, logged under another name after a Flat index of the same vectors"
    beside = "centroids, lists"
    return Line(
        "a second index type", new(second.blobs, lists), new(floor, lists), beside, at_most(1), bench.full, note
    )


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _cp(source: Path, to: Path, durable: bool) -> None:
    subprocess.run(["cp", source, to], check=True)
    if durable:
        with to.open("rb") as file:
            os.fsync(file.fileno())


def _hash(path: Path) -> None:
    with path.open("rb") as file:
        hashlib.file_digest(file, "sha256")


def _hash_chunks(path: Path) -> None:
    """BLAKE3 of every chunk of the size that rows are cut to."""
    import blake3

    with path.open("rb") as file, mmap(file.fileno(), 0, prot=PROT_READ) as data, memoryview(data) as view:
        for at in range(0, len(view), MEAN):
            with view[at : at + MEAN] as chunk:
                blake3.blake3(chunk).digest()


def _write(source: Path, to: Path) -> float:
    """Write the same bytes and make them durable; they are in memory, so nothing is read from a disk."""
    to.unlink(missing_ok=True)
    with source.open("rb") as file, mmap(file.fileno(), 0, prot=PROT_READ) as data, memoryview(data) as view:

        def work() -> None:
            with to.open("wb", buffering=0) as out:
                for at in range(0, len(view), PIECE):
                    with view[at : at + PIECE] as piece:
                        out.write(piece)
                os.fsync(out.fileno())

        return _settled(work)


def _remove(files: list[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


SUBJECT = Subject(
    "storage",
    "bytes and seconds of the versions of 500,000 x 384 vectors (small: 20,000), and of five real releases",
    "changed rows x their size, `cp`, `fsync`, SHA-256; with --peers: dvc, mlflow, restic, borg, hf-xet",
    measure,
)
