"""`mlflow server` doing its nearest work: four registered models by alias, each with its tags and where its files are.

It comes from pip, into the virtual environment of the peers. Its registry has no call that reads several models, so one
resolution is four requests, one after another on one kept connection.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from benchmarks.measure import Absent, Bench
from benchmarks.server_load import Ask, get
from benchmarks.server_setup import ended, free_port

FILL = """
import sys
from mlflow import MlflowClient
uri, *names = sys.argv[1:]
client = MlflowClient(tracking_uri=uri, registry_uri=uri)
for name in names:
    client.create_registered_model(name)
    for number in range(3):
        made = client.create_model_version(
            name, source=f"s3://models/{name}/{number}", tags={"template": "Answer. {{ question }}" * 20, "by": "ada"}
        )
    client.set_registered_model_alias(name, "prod", made.version)
"""
PATIENCE = 120


def found(bench: Bench) -> Path | Absent:
    """The Python that has mlflow, or why it is not here."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = (bench.peers_in or cache / "llmartifacts-benchmarks" / "peers").absolute()
    python = place / "bin" / "python"
    if not python.exists():
        bench.say(f"{sys.executable} -m venv {place}")
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=False)
    problem = _lacking(python)
    if problem:
        bench.say(f"{python} -m pip install mlflow psycopg2-binary")
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "mlflow", "psycopg2-binary"], check=False)
        problem = _lacking(python)
    return Absent("mlflow server", f"not installed: {problem}") if problem else python


def version(python: Path) -> str:
    """Which release of it."""
    ask = "from importlib.metadata import version; print(version('mlflow'))"
    return subprocess.run([str(python), "-c", ask], capture_output=True, text=True, check=True).stdout.strip()


@contextmanager
def serving(python: Path, folder: Path, store: str, workers: int, artifacts: Path | None = None) -> Iterator[str]:
    """`mlflow server` over a store until the block ends; gives its `host:port`.

    Args:
        python: Of `found`.
        folder: To work in.
        store: As `--backend-store-uri` takes it.
        workers: Processes.
        artifacts: Folder of the files that it hands out; None where it knows addresses of files only.
    """
    folder.mkdir(parents=True, exist_ok=True)
    host = f"127.0.0.1:{free_port()}"
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR", "LD_LIBRARY_PATH") if name in os.environ}
    environment = {**kept, "HOME": str(folder), "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    command = [str(python), "-m", "mlflow", "server", "--backend-store-uri", store, "--workers", str(workers)]
    handed = ["--artifacts-destination", str(artifacts)] if artifacts else ["--default-artifact-root", "s3://models"]
    command += [*handed, "--host", "127.0.0.1", "--port", host.rpartition(":")[2]]
    with (folder / "mlflow.log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait(process, f"http://{host}/health", folder / "mlflow.log")
        yield host
    finally:
        ended(process)


def fill(python: Path, host: str, names: Sequence[str]) -> None:
    """Register each name with three versions, and let `prod` name the last."""
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_LOGGING_LEVEL": "ERROR"}
    done = subprocess.run(
        [str(python), "-c", FILL, f"http://{host}", *names],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    if done.returncode:
        raise RuntimeError(f"mlflow could not be filled: {done.stderr.strip()[-300:]}")


def resolution(host: str, names: Sequence[str]) -> list[Ask]:
    """What one resolution asks for."""
    path = "/api/2.0/mlflow/registered-models/alias?alias=prod&name="
    return [get(path + quote(name), host, wanted=(f'"s3://models/{name}/2"'.encode(),)) for name in names]


def _lacking(python: Path) -> str:
    try:
        done = subprocess.run(
            [str(python), "-c", "import mlflow, psycopg2"],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return type(error).__name__
    return (done.stderr.strip().splitlines() or ["it cannot be imported"])[-1] if done.returncode else ""


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    begin = time.monotonic()
    while time.monotonic() < begin + PATIENCE:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"mlflow server does not answer: {log.read_text()[-300:]}")
