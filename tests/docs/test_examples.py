"""Every numbered example runs by itself, in an empty directory, and says what its README promises."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLES = ROOT / "examples"
SCRIPTS = sorted(p.name for p in EXAMPLES.glob("[0-9][0-9]_*.py"))
SERVICE = EXAMPLES / "03_service_fastapi"

# The last thing that a reader should see, so that an example which ends early is noticed.
ENDS = {
    "01_prompt_from_log_to_prod.py": "first release",
    "02_roll_back_an_index.py": "follow the link on the sign-in page",
    "04_bundle.py": "refused: index-dimension",
    "05_lineage_and_runs.py": "build-index, done: support-docs:v1 -> support-kb:v1",
    "06_your_own_kind.py": "prod has alias, digest, version",
    "07_update_an_index.py": "prod finds: help/401",
}


def run(script: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONWARNINGS": "error::UserWarning"}
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_example_runs_in_an_empty_directory(name: str, tmp_path: Path) -> None:
    done = run(EXAMPLES / name, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert ENDS[name] in done.stdout.splitlines()[-1]
    assert not done.stderr


def test_every_example_is_named_in_the_readme_and_the_other_way_round() -> None:
    readme = (EXAMPLES / "README.md").read_text()
    there = {p.name + "/" * p.is_dir() for p in EXAMPLES.glob("[0-9][0-9]_*")}

    assert {line.split("`")[1] for line in readme.splitlines() if line.startswith("| `")} == there


@pytest.mark.parametrize("plain", [False, True], ids=["fastapi", "plain"])
def test_the_service_answers_with_the_stamp_of_its_versions_and_ends_with_its_parent(
    plain: bool, tmp_path: Path
) -> None:
    prepared = run(SERVICE / "prepare.py", cwd=tmp_path)
    assert prepared.returncode == 0, prepared.stderr

    environment = {**os.environ, "LLMARTIFACTS_REGISTRY": "registry", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, str(SERVICE / "serve.py"), "--with-parent", *(["--plain"] if plain else [])]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            address, server = process.stdout.readline().split()
            port = int(address.rpartition(":")[2])
            status, headers, body = ask(port, "POST", "/ask", {"question": "How do I copy a directory tree?"})
            asked_wrongly = [
                ask(port, "POST", "/ask", {"question": ""})[0],
                ask(port, "POST", "/ask", {"question": 3})[0],
                ask(port, "POST", "/ask", {"question": "long " * 500})[0],
                ask(port, "POST", "/ask", ["question"])[0],
                ask(port, "GET", "/nothing")[0],
            ]
            health = ask(port, "GET", "/healthz")
        finally:
            process.stdin.close()
            ended = process.wait(20)

    assert server == ("http.server" if plain else "FastAPI")
    assert status == 200
    assert body["passages"][0] == "shutil.copytree"
    assert body["answer"].endswith("[shutil.copytree]")
    assert body["model"]["name"] == "gpt-4-turbo"
    for part in ("prompt=rag-answer:v1@", "kb=python-kb:v1@", "models=python-models:v1@"):
        assert part in headers["stamp"]
    assert health[2] == {"stamp": headers["stamp"]}
    assert asked_wrongly == [422, 422, 422, 422, 404]
    assert ended == 0


def test_a_service_without_its_registry_says_what_is_missing_and_does_not_start(tmp_path: Path) -> None:
    for plain in ([], ["--plain"]):
        environment = {**os.environ, "LLMARTIFACTS_REGISTRY": str(tmp_path / "nowhere")}
        done = subprocess.run(
            [sys.executable, str(SERVICE / "serve.py"), *plain],
            cwd=tmp_path,
            env={**environment, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

        assert done.returncode != 0
        assert "nowhere" in done.stderr
        for component in ("prompt", "kb", "models"):
            assert component in done.stderr


def ask(port: int, method: str, path: str, value: object = None) -> tuple[int, dict[str, str], dict[str, object]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        body = None if value is None else json.dumps(value)
        connection.request(method, path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        headers = {name.lower(): text for name, text in response.getheaders()}
        return response.status, headers, json.loads(response.read())
    finally:
        connection.close()
