"""The example of an evaluation in CI: the action is run as its workflow says, on its own little project."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import llmartifacts as la

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLE = ROOT / "examples" / "09_evaluate_in_ci"
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())
WORKFLOW: dict[Any, Any] = yaml.safe_load((EXAMPLE / "evaluate.yml").read_text())
(JOB,) = WORKFLOW["jobs"].values()
(STEP,) = (step for step in JOB["steps"] if "llmartifacts@" in step.get("uses", ""))
PROMPT = Path("prompts") / "sorting.j2"
Run = Callable[..., Any]
pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the example, with a registry in which the prompt as it is there is prod."""
    place = Path(shutil.copytree(EXAMPLE, tmp_path / "project"))
    with la.init(place / "registry", actor="founder") as registry:
        registry.log("sorting-prompt", la.Prompt.from_file(place / PROMPT), aliases=["staging", "prod"])
        registry.set_policy(place / "policy.yaml")
    return place


@pytest.fixture
def push(project: Path, tmp_path: Path, github: Any, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the step of the workflow that uses the action, for an event."""
    monkeypatch.setenv("LLMARTIFACTS_REGISTRY", str(project / "registry"))
    assert "LLMARTIFACTS_REGISTRY" in JOB["env"]

    def run(event: str, message: str) -> Any:
        known = {"github.event_name": event, "github.event.head_commit.message": message}
        given = {name: github.filled(text, known) for name, text in STEP["with"].items()}
        temp = tmp_path / f"runner-{event}"
        temp.mkdir()
        return github.run_action(ACTION, {**given, "install": "false"}, folder=project, path=ROOT, temp=temp)

    return run


def prod(project: Path) -> la.Version:
    with la.connect(project / "registry") as registry:
        return registry.find("sorting-prompt:prod").version


@pytest.mark.matrix
def test_a_better_prompt_is_told_in_a_pull_request_and_promoted_by_the_merge(push: Run, project: Path) -> None:
    text = (project / PROMPT).read_text()
    (project / PROMPT).write_text(
        text.replace("- cancellation: ", "- cancellation: the notice period, the trial, to withdraw, ")
    )

    asked = push("pull_request", "cancellation in more words")
    assert (asked.code, asked.outputs["verdict"], asked.outputs["promoted"]) == (0, "PASS", "false"), asked.log
    assert prod(project).number == 1

    merged = push("push", "cancellation in more words")
    assert (merged.code, merged.outputs["promoted"]) == (0, "true"), merged.log
    assert (prod(project).number, prod(project).message) == (2, "cancellation in more words")
    assert merged.summary.startswith("## PASS: `sorting-prompt:v2` was promoted")


@pytest.mark.matrix
def test_a_prompt_that_lost_a_label_is_refused(push: Run, project: Path) -> None:
    lines = (project / PROMPT).read_text().splitlines(keepends=True)
    (project / PROMPT).write_text("".join(line for line in lines if not line.startswith(("- billing", "- access"))))

    merged = push("push", "shorter")
    assert (merged.code, merged.outputs["verdict"]) == (1, "FAIL"), merged.log
    assert prod(project).number == 1
    assert "proven worse than the baseline" in merged.summary


def test_the_workflow_gives_inputs_that_the_action_has_and_keeps_what_it_writes() -> None:
    assert STEP["with"].keys() <= ACTION["inputs"].keys()
    assert {name for name, about in ACTION["inputs"].items() if about.get("required")} <= STEP["with"].keys()
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert JOB["steps"][-1]["with"]["path"] == f"${{{{ steps.{STEP['id']}.outputs.results }}}}"
    for name in ("source", "suite", "policy", "dataset-source"):
        assert (EXAMPLE / STEP["with"][name]).is_file()


def test_the_same_suite_runs_in_pytest(project: Path) -> None:
    environment = {
        **os.environ,
        "LLMARTIFACTS_REGISTRY": str(project / "registry"),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    with la.connect(project / "registry") as registry:
        registry.log("support-messages", la.EvalDataset.from_jsonl(project / "eval_suites" / "support_messages.jsonl"))
    command = [sys.executable, "-m", "pytest", "-p", "llmartifacts.integrations.pytest_plugin", "-q"]
    both = [*command, "--llmartifacts-suites", "eval_suites"]
    good = subprocess.run(both, cwd=project, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert good.returncode == 0, good.stdout
    assert "3 passed" in good.stdout

    (project / PROMPT).write_text("Labels\n- billing: anything\n\nMessage: {{ message }}\n")
    bad = subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert bad.returncode == 1
    assert "FAIL: proven worse than the baseline" in bad.stdout


def test_its_messages_are_those_of_the_starter_content() -> None:
    ours = (EXAMPLE / "eval_suites" / "support_messages.jsonl").read_bytes()
    assert ours == (ROOT / "eval_suites" / "support_messages.jsonl").read_bytes()
