"""MLflow doing the work of a service's start: a prompt, and the files of three registered models, all by alias.

Files come through `mlflow server`, as ours come through ours; they are the very files of our versions. FAISS reads the
index, and the dataset is parsed line by line. It keeps nothing for the next start, and checks no digest.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import server_mlflow
from benchmarks.measure import Absent, Bench, seconds
from llmartifacts.registry import Registry

PATIENCE = 900
FILL = """
import json, pathlib, sys
import mlflow
from mlflow import MlflowClient
uri, folder, prompt, *names = sys.argv[1:]
mlflow.set_tracking_uri(uri)
text = json.loads(pathlib.Path(folder, prompt, "manifest.json").read_text())["config"]["template"]
made = mlflow.genai.register_prompt(name=prompt, template=text)
mlflow.genai.set_prompt_alias(prompt, alias="prod", version=made.version)
client = MlflowClient()
mlflow.set_experiment("service")
for name in names:
    client.create_registered_model(name)
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(pathlib.Path(folder, name)), name)
        made = client.create_model_version(name, source=f"{run.info.artifact_uri}/{name}", run_id=run.info.run_id)
    client.set_registered_model_alias(name, "prod", made.version)
"""
START = """
import json, pathlib, sys, tempfile
import faiss, mlflow
uri, count, items, prompt, kb, dataset, bundle = sys.argv[1:]
mlflow.set_tracking_uri(uri)
with tempfile.TemporaryDirectory() as folder:
    text = mlflow.genai.load_prompt(f"prompts:/{prompt}@prod").template
    def fetched(name):
        place = pathlib.Path(folder, name)
        place.mkdir()
        there = f"models:/{name}@prod"
        return pathlib.Path(mlflow.artifacts.download_artifacts(artifact_uri=there, dst_path=str(place)))
    index = faiss.read_index(str(fetched(kb) / "index.faiss"))
    with open(fetched(dataset) / "items.jsonl", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    stack = json.loads((fetched(bundle) / "manifest.json").read_text())
    assert text and stack and (index.ntotal, len(rows)) == (int(count), int(items)), (index.ntotal, len(rows))
"""
REFUSED = """
import sys
import mlflow
mlflow.set_tracking_uri(sys.argv[1])
try:
    mlflow.genai.load_prompt("prompts:/agent@prod")
except Exception:
    sys.exit(0)
sys.exit("it answered")
"""


class Service:
    """Starts of a service by MLflow.

    Args:
        python: The Python that has it.
        url: Its server.
        names: The prompt, the index, the dataset and the bundle.
        count: Vectors of the index.
        items: Rows of the dataset.
    """

    def __init__(self, python: Path, url: str, names: tuple[str, ...], count: int, items: int) -> None:
        self._python, self._url, self._names = python, url, names
        self._arguments = [str(count), str(items)]

    def start(self) -> float:
        """Seconds of a whole process that loads all four."""
        return seconds(lambda: _run(self._python, START, self._url, *self._arguments, *self._names))

    def refused(self, url: str) -> float:
        """Seconds of a whole process until it gives up on a port that nobody listens on."""
        return seconds(lambda: _run(self._python, REFUSED, url))


def found(bench: Bench) -> Path | Absent:
    """The Python that has mlflow and faiss, or why it is not here."""
    python = server_mlflow.found(bench)
    if isinstance(python, Absent):
        return python
    check = [str(python), "-c", "import faiss"]
    if subprocess.run(check, capture_output=True, check=False).returncode:
        bench.say(f"{python} -m pip install faiss-cpu")
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "faiss-cpu"], check=False)
        if subprocess.run(check, capture_output=True, check=False).returncode:
            return Absent("mlflow server", "faiss is not installed beside it")
    return python


@contextmanager
def serving(
    python: Path, folder: Path, registry: Registry, names: tuple[str, ...], count: int, items: int
) -> Iterator[Service]:
    """`mlflow server` with the files of `name:prod` of a registry, until the block ends."""
    folder.mkdir(parents=True)
    for name in names:
        registry.pull(f"{name}:prod", folder / "files" / name)
    store = f"sqlite:///{folder}/mlflow.db"
    with server_mlflow.serving(python, folder, store, 1, folder / "artifacts") as host:
        _run(python, FILL, f"http://{host}", str(folder / "files"), *names)
        yield Service(python, f"http://{host}", names, count, items)


def _run(python: Path, code: str, *arguments: str) -> None:
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_LOGGING_LEVEL": "ERROR"}
    done = subprocess.run(
        [str(python), "-c", code, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    if done.returncode:
        raise RuntimeError(f"a process of mlflow failed: {done.stderr.strip()[-300:]}")
