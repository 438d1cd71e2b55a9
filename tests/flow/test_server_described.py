"""The API is what its description says: a tool that reads the description finds no answer that it does not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import llmartifacts as la
from llmartifacts.testing.server import RunningServer, running_server

# Statuses of a refusal that a schema cannot foresee: a body may be well formed and still ask for what makes no sense.
_CONFIG = """
[checks]
negative_data_rejection.expected-statuses = [400, 401, 403, 404, 405, 408, 409, 413, 414, 415, 422, 429, 431]
positive_data_acceptance.expected-statuses = ["2xx", 304, 400, 403, 404, 409, 413, 414, 416, 422, 431]
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    place = tmp_path / "registry"
    with la.init(place, actor="ann") as registry:
        registry.log("agent", la.Prompt("Hi {{ x }}", template_format="jinja2"), aliases="prod")
        registry.log("agent", la.Prompt("Hello {{ x }}", template_format="jinja2"), aliases="staging")
        registry.log("kb", la.Files({"x": b"1" * 5000}), inputs="agent:v1")
    with running_server(place, rate_address=0, rate_failures=0) as running:
        yield running


def _explore(server: RunningServer, folder: Path, *options: str) -> None:
    config = folder / "schemathesis.toml"
    config.write_text(_CONFIG)
    command = [
        sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run",
        f"{server.url}/api/v1/openapi.json", "-H", f"Authorization: Bearer {server.token}",
        "--seed", "20260303", "--generation-database", "none", "--no-color", *options,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=1500)
    told = done.stdout[-6000:] + done.stderr[-2000:]
    assert done.returncode == 0, told
    assert " passed" in done.stdout, told
    assert '"failed"' not in server.log_text()


# It reads the ids of tokens off a list, and sooner or later it revokes its own: so that is asked for by itself.
_REVOKE = r"/tokens/\{id\}/revoke$"


def test_each_operation_answers_as_described(server: RunningServer, tmp_path: Path) -> None:
    _explore(server, tmp_path, "--phases", "examples,fuzzing,stateful", "-n", "3", "--exclude-path-regex", _REVOKE)


def test_revoking_a_token_answers_as_described(server: RunningServer, tmp_path: Path) -> None:
    _explore(server, tmp_path, "--phases", "examples,coverage,fuzzing", "-n", "20", "--include-path-regex", _REVOKE)


@pytest.mark.matrix
@pytest.mark.timeout(1500)
def test_each_operation_answers_as_described_to_thousands_of_requests(server: RunningServer, tmp_path: Path) -> None:
    phases = "examples,coverage,fuzzing,stateful"
    _explore(server, tmp_path, "--phases", phases, "-n", "60", "--exclude-path-regex", _REVOKE)
