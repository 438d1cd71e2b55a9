"""Every verdict has its exit code, whichever command tells it. The command line is run as a process, as builds do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import apsw
import pytest

import llmartifacts as la
from llmartifacts import wire
from llmartifacts.metadata import sqlite_pages
from llmartifacts.records.canonical import canonical_bytes
from llmartifacts.records.policy import Verdict

CODES = {"PASS": 0, "FAIL": 1, "TAMPERED": 5, "INCONCLUSIVE": 7, "ERROR": 8}
VERSIONS = {"PASS": "agent:v2", "FAIL": "agent:v3", "ERROR": "agent:v4", "INCONCLUSIVE": "agent:v5"}
"""Verdict -> the version that gets it."""
MODEL = """
def answer(value, item):
    number, said = int(item.input.split()[0]), value.format(input="")
    if "crash" in said and number == 3:
        raise RuntimeError("the model is down")
    wrong = ("hurry" in said and number % 3 == 0) or ("dawdle" in said and number % 40 == 0)
    return "?" if wrong else str(2 * number)
"""
SUITE = """
name: adding
dataset: sums
outputs: {runnable: model:answer}
scorers: [equals]
thresholds:
  equals: {margin: 0.05}
"""
POLICY: dict[str, Any] = {
    "name": "production",
    "aliases": {"prod": {"kinds": {"prompt": [{"eval": {"suite": "adding"}}]}}},
}


def command_line(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One command line, as a process."""
    return subprocess.run(
        [sys.executable, "-m", "llmartifacts", *arguments, "--json"],
        cwd=folder,
        env={**os.environ, "LLMARTIFACTS_REGISTRY": "registry", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, a suite, and a registry that has five prompts, of which the first is prod."""
    folder = tmp_path_factory.mktemp("evaluated")
    (folder / "model.py").write_text(MODEL)
    (folder / "adding.yaml").write_text(SUITE)
    with la.init(folder / "registry") as registry:
        items = [{"id": f"q{i}", "input": f"{i} + {i}", "expected_output": str(2 * i)} for i in range(80)]
        registry.log("sums", la.EvalDataset(items))
        for n, said in enumerate(("Add.", "Please add.", "Add, hurry.", "Add, crash.", "Add, dawdle.")):
            prompt = la.Prompt(said + " {{ input }}", template_format="jinja2")
            registry.log("agent", prompt, aliases="prod" if n == 0 else ())
        registry.set_policy(POLICY)
    return folder


@pytest.fixture
def folder(evaluated: Path, tmp_path: Path) -> Path:
    """A copy of it, for one test to change."""
    return Path(shutil.copytree(evaluated, tmp_path / "copy"))


def run_suite(folder: Path, verdict: str) -> subprocess.CompletedProcess[str]:
    return command_line(folder, "eval", "run", "adding.yaml", "--target", VERSIONS[verdict])


def test_the_table_names_every_verdict() -> None:
    assert {v.value: wire.verdict_code(v) for v in Verdict} == CODES


@pytest.mark.parametrize("verdict", VERSIONS)
def test_eval_run_gate_and_promote_end_with_the_code_of_the_verdict(verdict: str, folder: Path) -> None:
    ran = run_suite(folder, verdict)
    assert (ran.returncode, json.loads(ran.stdout)["verdict"]) == (CODES[verdict], verdict)

    asked = command_line(folder, "gate", VERSIONS[verdict], "--to", "prod")
    assert (asked.returncode, json.loads(asked.stdout)["verdict"]) == (CODES[verdict], verdict)

    moved = command_line(folder, "promote", VERSIONS[verdict], "--to", "prod")
    assert moved.returncode == CODES[verdict]
    assert serves(folder) == (2 if verdict == "PASS" else 1)
    if verdict != "PASS":
        (error,) = json.loads(moved.stdout)["errors"]
        assert (error["code"], error["detail"]["verdict"]) == ("gate_refused", verdict)


def test_without_a_report_gate_and_promote_are_inconclusive(folder: Path) -> None:
    assert command_line(folder, "gate", "agent:v2", "--to", "prod").returncode == CODES["INCONCLUSIVE"]
    assert command_line(folder, "promote", "agent:v2", "--to", "prod").returncode == CODES["INCONCLUSIVE"]
    assert serves(folder) == 1


def test_a_report_that_was_altered_is_tampered_for_gate_and_promote(folder: Path) -> None:
    run_suite(folder, "FAIL")
    with la.connect(folder / "registry") as registry:
        report = registry.find("adding-report:latest")
        digest, config = report.version.digest, dict(report.manifest.config)
    config["metrics"] = [{**config["metrics"][0], "value": 1.0, "upper": 1.0}]
    body = {"schema": "llmartifacts/manifest/1", "kind": "report", "config": config, "files": [], "components": []}
    overwrite(folder, digest, canonical_bytes(body))

    asked = command_line(folder, "gate", "agent:v3", "--to", "prod")
    assert (asked.returncode, json.loads(asked.stdout)["verdict"]) == (CODES["TAMPERED"], "TAMPERED")
    assert command_line(folder, "promote", "agent:v3", "--to", "prod").returncode == CODES["TAMPERED"]
    assert serves(folder) == 1


def test_eval_run_on_a_dataset_that_was_altered_ends_with_the_code_of_what_is_not_what_it_claims(folder: Path) -> None:
    with la.connect(folder / "registry") as registry:
        dataset = registry.find("sums:latest")
    overwrite(folder, dataset.version.digest, b'{"schema":"llmartifacts/manifest/1"}')

    ran = run_suite(folder, "PASS")
    assert ran.returncode == CODES["TAMPERED"]
    assert "verdict" not in json.loads(ran.stdout)


def test_a_suite_without_thresholds_measures_and_is_done(folder: Path) -> None:
    (folder / "adding.yaml").write_text(SUITE[: SUITE.index("thresholds")])
    ran = run_suite(folder, "FAIL")
    assert (ran.returncode, json.loads(ran.stdout)["verdict"]) == (0, None)


def test_a_move_that_breaks_the_glass_is_done_although_a_gate_denies(folder: Path) -> None:
    prod = {**POLICY["aliases"]["prod"], "break_glass": {"people": ["tester"]}}
    with la.connect(folder / "registry") as registry:
        registry.set_policy({**POLICY, "aliases": {"prod": prod}})
    moved = command_line(folder, "promote", "agent:v3", "--to", "prod", "--break-glass", "--reason", "prod is down")
    assert (moved.returncode, serves(folder)) == (0, 3)


def serves(folder: Path) -> int:
    """The number of the version that prod serves."""
    with la.connect(folder / "registry") as registry:
        return registry.find("agent:prod").version.number


def overwrite(folder: Path, digest: Any, body: bytes) -> None:
    """What somebody does who can write the registry's directory."""
    database = apsw.Connection(str(folder / "registry" / "registry.db"), vfs=sqlite_pages.vfs())
    database.execute("update manifest set body = ? where digest = ?", (body, bytes.fromhex(digest[7:])))
    database.close()
