"""The GitHub Action as a file: its shape, its scripts by themselves, and nothing in them that an input could change."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())
STEPS: list[dict[str, Any]] = ACTION["runs"]["steps"]
SHELL = """ "; touch pwned; '; touch pwned; # $(touch pwned) `touch pwned` ${{ github.token }} && touch pwned | * \\"""


def test_it_has_the_shape_that_github_publishes_for_composite_actions() -> None:
    assert ACTION.keys() <= {"name", "author", "description", "inputs", "outputs", "runs", "branding"}
    assert ACTION.keys() >= {"name", "description", "runs"}
    assert ACTION["branding"].keys() == {"icon", "color"}
    assert ACTION["branding"]["color"] in {"white", "black", "yellow", "blue", "green", "orange", "red", "purple"}
    assert ACTION["runs"].keys() == {"using", "steps"}
    assert ACTION["runs"]["using"] == "composite"
    for name, about in ACTION["inputs"].items():
        assert re.fullmatch(r"[A-Za-z_][\w-]*", name)
        assert about.keys() <= {"description", "required", "default", "deprecationMessage"}
        assert about["description"]
        assert ("default" in about) != about.get("required", False)
        assert isinstance(about.get("default", ""), str)  # GitHub makes text of anything, YAML's true included
    for about in ACTION["outputs"].values():
        assert about.keys() == {"description", "value"}
    allowed = {"name", "id", "if", "env", "working-directory", "shell", "run", "uses", "with", "continue-on-error"}
    ids = [step["id"] for step in STEPS if "id" in step]
    assert len(ids) == len(set(ids))
    for step in STEPS:
        assert step.keys() <= allowed
        assert ("run" in step) != ("uses" in step)
        assert ("run" in step) == ("shell" in step)


def test_no_input_is_part_of_a_script_and_every_script_stops_at_its_first_error() -> None:
    for step in STEPS:
        if "run" in step:
            assert "${{" not in step["run"]
            assert step["shell"] == "bash"
            assert step["run"].startswith("set -euo pipefail\n")


def test_every_input_is_used_and_nothing_is_used_that_is_not_there() -> None:
    text = json.dumps([STEPS, ACTION["outputs"]])
    used = set(re.findall(r"inputs\.([\w-]+)", text))
    assert used == ACTION["inputs"].keys()

    ids: set[str] = set()
    for step in STEPS:
        for named in re.findall(r"steps\.([\w-]+)\.", json.dumps(step)):
            assert named in ids, f"{step['name']} reads a step that did not run yet"
        ids |= {step.get("id", "")}
        for variable in set(re.findall(r"\$\{?([A-Z][A-Z_]+)", step.get("run", ""))):
            assert variable in step["env"] or variable.startswith("GITHUB_"), (step["name"], variable)
        for variable in step.get("env", {}):
            known = variable in step["run"] or variable.startswith(("LLMARTIFACTS_", "PIP_"))
            assert known, f"{step['name']} does not use {variable}"


def test_the_runner_of_these_tests_reads_expressions_as_github_does(github: Any) -> None:
    known = {"inputs.a": "true", "inputs.b-c": "", "steps.x.outputs.verdict": "PASS"}
    assert github.evaluate("inputs.a == 'true' && inputs.b-c == ''", known) is True
    assert github.evaluate("inputs.b-c || steps.x.outputs.verdict", known) == "PASS"
    assert github.filled("-${{ inputs.b-c != '' }}-${{ inputs.a }}", known) == "-false-true"
    assert github.filled("${{ inputs.a }}", {"inputs.a": "${{ inputs.b }}"}) == "${{ inputs.b }}"


@pytest.mark.parametrize(
    ("known", "verdict", "code"),
    [
        ({"EVALUATION": "PASS", "GATE": "PASS"}, "PASS", 0),
        ({"EVALUATION": "FAIL", "GATE": "INCONCLUSIVE"}, "FAIL", 1),
        ({"EVALUATION": "INCONCLUSIVE", "GATE": "PASS"}, "INCONCLUSIVE", 7),
        ({"EVALUATION": "ERROR", "GATE": "PASS"}, "ERROR", 8),
        ({"EVALUATION": "PASS", "GATE": "FAIL"}, "FAIL", 1),
        ({"EVALUATION": "PASS", "GATE": "INCONCLUSIVE"}, "INCONCLUSIVE", 7),
        ({"EVALUATION": "PASS", "GATE": "ERROR"}, "ERROR", 8),
        ({"EVALUATION": "PASS", "GATE": "TAMPERED"}, "TAMPERED", 5),
        ({"EVALUATION": "PASS", "GATE": "INCONCLUSIVE", "COUNTS": "false"}, "PASS", 0),
        ({"EVALUATION": "FAIL", "GATE": "PASS", "COUNTS": "false"}, "FAIL", 1),
        ({"EVALUATION": "PASS", "GATE": "PASS", "PROMOTE": "true", "PROMOTED": "true"}, "PASS", 0),
        ({"EVALUATION": "PASS", "GATE": "PASS", "PROMOTE": "true", "REFUSED": "FAIL"}, "FAIL", 1),
        ({"EVALUATION": "PASS", "PROMOTE": "true", "REFUSED": "INCONCLUSIVE"}, "INCONCLUSIVE", 7),
        ({"EVALUATION": "PASS", "GATE": "PASS", "PROMOTE": "true"}, "ERROR", 8),
        ({"EVALUATION": "PASS"}, "ERROR", 8),
        ({}, "ERROR", 8),
    ],
)
def test_the_last_step_tells_one_verdict_by_its_exit_code(
    known: dict[str, str], verdict: str, code: int, tmp_path: Path
) -> None:
    (step,) = (s for s in STEPS if s.get("id") == "verdict")
    for part in ("evaluation", "gate"):
        (tmp_path / f"{part}.md").write_text(f"{part} said so\n")
    given = {"VERSION": "kb:v2", "COUNTS": "true", "PROMOTE": "false", "RESULTS": str(tmp_path), **known}
    environment = {
        **dict.fromkeys(step["env"], ""),
        **given,
        "GITHUB_OUTPUT": str(tmp_path / "out"),
        "PATH": "/usr/bin:/bin",
    }
    done = subprocess.run(["bash", "-c", step["run"]], env=environment, cwd=tmp_path, check=False, timeout=60)

    assert done.returncode == code
    assert (tmp_path / "out").read_text().splitlines()[0] == f"verdict={verdict}"
    summary = (tmp_path / "summary.md").read_text()
    assert summary.startswith(f"## {verdict}: `kb:v2`")
    assert ("evaluation said so" in summary, "gate said so" in summary) == ("EVALUATION" in known, "GATE" in known)


@pytest.mark.parametrize("package", ["", "llmartifacts==1.2.3", SHELL])
def test_what_is_installed_is_this_checkout_or_what_is_named(package: str, tmp_path: Path) -> None:
    (step,) = (s for s in STEPS if s["name"] == "Install")
    shim, told = tmp_path / "bin" / "python3", tmp_path / "told"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/bash\nprintf "%s\\0" "$@" > "{told}"\n')
    shim.chmod(0o755)
    environment = {"PATH": f"{shim.parent}:/usr/bin:/bin", "PACKAGE": package, "GITHUB_ACTION_PATH": str(ROOT)}
    subprocess.run(["bash", "-c", step["run"]], env=environment, cwd=tmp_path, check=True, timeout=60)

    assert told.read_text().split("\0")[:-1] == ["-m", "pip", "install", "--quiet", "--", package or str(ROOT)]
    assert not (tmp_path / "pwned").exists()
