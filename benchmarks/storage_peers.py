"""Other tools that store versions of a file: what each one's own store grows by, and how long it takes.

dvc, mlflow and hf-xet come from pip, into a virtual environment of their own that is made on demand; restic and borg
are taken where they are on PATH. Each runs with a home folder of its own, so that no configuration counts or changes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Absent, Bench
from benchmarks.vectors import FLAT, HNSW, IVF_RANDOM, PQ_RANDOM, SQ_RANDOM

MEASURED = (IVF_RANDOM, SQ_RANDOM, PQ_RANDOM, FLAT, HNSW)
FILE = "index.faiss"  # a version replaces the one before, under the same name, as users have it
LIMIT = 1800  # seconds of one command

MLFLOW = """
import json, sys, time
import mlflow
store, file = sys.argv[1:]
mlflow.set_tracking_uri(f"sqlite:///{store}/mlflow.db")
if mlflow.get_experiment_by_name("index") is None:
    mlflow.create_experiment("index", artifact_location=f"file://{store}/artifacts")
mlflow.set_experiment("index")
with mlflow.start_run():
    begin = time.perf_counter()
    mlflow.log_artifact(file)
    print(json.dumps(time.perf_counter() - begin))
"""
XET = """
import json, sys, time
import hf_xet
store, file = sys.argv[1:]
begin = time.perf_counter()
with hf_xet.XetSession().new_upload_commit(endpoint=f"local://{store}") as commit:
    commit.start_upload_file(file)
print(json.dumps(time.perf_counter() - begin))
"""


@dataclass(frozen=True)
class Step:
    """What storing one version did.

    Attributes:
        grown: Bytes that the tool's store grew by.
        seconds: How long it took.
    """

    grown: int
    seconds: float


@dataclass(frozen=True)
class Place:
    """Where a tool works.

    Attributes:
        folder: Holds the file, and a home for the tool.
        store: The tool's own store; all of it counts.
    """

    folder: Path
    store: Path

    @property
    def file(self) -> Path:
        """The file as it is at the moment."""
        return self.folder / FILE

    def run(self, *command: str | Path) -> str:
        """Run a command there.

        Raises:
            RuntimeError: It failed; with the end of what it said.
        """
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR", "LD_LIBRARY_PATH") if name in os.environ}
        own = {
            "HOME": str(home),
            "HF_HOME": str(home / "huggingface"),
            "BORG_BASE_DIR": str(home),
            "RESTIC_PASSWORD": "benchmark",
            "DVC_NO_ANALYTICS": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
        }
        done = subprocess.run(
            [str(part) for part in command],
            cwd=self.folder,
            env={**kept, **own},
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT,
        )
        if done.returncode:
            raise RuntimeError(f"{Path(command[0]).name} failed: {(done.stderr or done.stdout).strip()[-300:]}")
        return done.stdout


@dataclass(frozen=True)
class Peer:
    """A tool that is here.

    Attributes:
        name: As the table calls it.
        about: Its version and how it is used.
        store: Where its store is, below the folder that it works in.
        begin: Makes the store.
        put: Stores the file as it is; tells the seconds.
    """

    name: str
    about: str
    store: str
    begin: Callable[[Place], object]
    put: Callable[[Place], float]


def store_each(peer: Peer, folder: Path, files: list[Path]) -> list[Step]:
    """Store files one after the other as versions of one; the folder is made, and removed.

    Raises:
        RuntimeError: The tool failed, or stored nothing at all.
    """
    folder.mkdir()
    try:
        place = Place(folder, folder / peer.store)
        peer.begin(place)
        done = []
        for file in files:
            place.file.unlink(missing_ok=True)
            shutil.copyfile(file, place.file)
            os.sync()  # what the copy left to write is not the tool's
            before = _size(place.store)
            taken = peer.put(place)
            done.append(Step(_size(place.store) - before, taken))
        if sum(step.grown for step in done) <= 0:
            raise RuntimeError(f"nothing was stored below {peer.store}: it is not measured where it stores")
        return done
    finally:
        shutil.rmtree(folder)


def found(bench: Bench) -> list[Peer | Absent]:
    """Every peer, or why it is not here."""
    return [*_from_pip(bench), _restic(), _borg()]


def _from_pip(bench: Bench) -> list[Peer | Absent]:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = (bench.peers_in or cache / "llmartifacts-benchmarks" / "peers").absolute()
    python, said = place / "bin" / "python", ""
    if not python.exists():
        said = _command(bench, [sys.executable, "-m", "venv", str(place)])
    made: list[Peer | Absent] = []
    for name, package, make in (("dvc", "dvc", _dvc), ("mlflow", "mlflow", _mlflow), ("xet", "hf-xet", _xet)):
        ask = f"from importlib.metadata import version; print(version({package!r}))"
        told, problem = _asked([str(python), "-c", ask])
        if problem:
            said = _command(bench, [str(python), "-m", "pip", "install", "--quiet", package]) or said
            told, problem = _asked([str(python), "-c", ask])
        made.append(Absent(name, f"not installed: {said or problem}") if problem else make(python, told))
    return made


def _dvc(python: Path, version: str) -> Peer:
    command = python.parent / "dvc"
    return Peer(
        "dvc",
        f"dvc {version}: `dvc add`",
        ".dvc/cache",
        lambda place: place.run(command, "init", "--no-scm", "--quiet"),
        lambda place: _timed(lambda: place.run(command, "add", "--quiet", FILE)),
    )


def _mlflow(python: Path, version: str) -> Peer:
    def put(place: Place) -> float:
        return _told(place.run(python, "-c", MLFLOW, place.store, place.file))

    def begin(place: Place) -> None:
        place.store.mkdir()

    return Peer("mlflow", f"mlflow {version}: `log_artifact`, store of files", "store", begin, put)


def _xet(python: Path, version: str) -> Peer:
    def put(place: Place) -> float:
        return _told(place.run(python, "-c", XET, place.store, place.file))

    def begin(place: Place) -> None:
        place.store.mkdir()

    return Peer("xet", f"hf-xet {version}: `start_upload_file` to local://", "store", begin, put)


def _restic() -> Peer | Absent:
    told, problem = _asked(["restic", "version"])
    if problem:
        return Absent("restic", f"not installed: {problem}")
    options = ("--repo", "store", "--quiet")
    return Peer(
        "restic",
        f"{' '.join(told.split()[:2])}: `restic backup`",
        "store",
        lambda place: place.run("restic", *options, "init", "--repository-version", "2"),
        lambda place: _timed(lambda: place.run("restic", *options, "backup", FILE)),
    )


def _borg() -> Peer | Absent:
    told, problem = _asked(["borg", "--version"])
    if problem:
        return Absent("borg", f"not installed: {problem}")
    return Peer(
        "borg",
        f"{told}: `borg create`, unencrypted",
        "store",
        lambda place: place.run("borg", "init", "--encryption", "none", "store"),
        lambda place: _timed(lambda: place.run("borg", "create", f"store::v{time.time_ns()}", FILE)),
    )


def _asked(command: list[str]) -> tuple[str, str]:
    """What a command says, or why it cannot be asked."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", f"{command[0]}: {type(error).__name__}"
    lines = done.stderr.strip().splitlines()
    return done.stdout.strip(), "" if done.returncode == 0 else (lines or ["it failed"])[-1]


def _command(bench: Bench, command: list[str]) -> str:
    """Run a step of the installation; empty, or why it failed."""
    bench.say(" ".join(command))
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{type(error).__name__}"
    lines = (done.stderr or done.stdout).strip().splitlines()
    return "" if done.returncode == 0 else (lines or ["it failed"])[-1]


def _timed(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _told(printed: str) -> float:
    return float(json.loads(printed.strip().splitlines()[-1]))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
