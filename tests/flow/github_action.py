"""As much of GitHub's runner as a composite action of `run` steps needs: expressions, variables, files of outputs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}")
_TOKEN = re.compile(r"'[^']*'|&&|\|\||[!=]=|always\(\)|success\(\)|[A-Za-z_][\w.-]*|[()]|\s+")
_STATUS = {"always()": True, "success()": True}


@dataclass
class Job:
    """What a run of the action came to.

    Attributes:
        code: Exit code of the first step that failed; 0 if none did.
        outputs: Outputs of the action.
        ran: Names of the steps that ran.
        log: What the steps printed, one after the other.
        summary: What is in the summary of the job.
    """

    code: int = 0
    outputs: dict[str, str] = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)
    log: str = ""
    summary: str = ""


def evaluate(expression: str, known: Mapping[str, str]) -> Any:
    """An expression: names, texts, `==`, `!=`, `&&`, `||`, `always()`."""
    made, place = [], 0
    while place < len(expression):
        token = _TOKEN.match(expression, place)
        assert token, f"an expression that this runner does not know: {expression!r}"
        text, place = token[0], token.end()
        if text in ("&&", "||"):
            made.append({"&&": " and ", "||": " or "}[text])
        elif text in _STATUS:
            made.append("True")
        elif text[0].isalpha():
            made.append(repr(known.get(text, "")))
        else:
            made.append(text)
    return eval("".join(made).strip(), {"__builtins__": {}})


def filled(text: Any, known: Mapping[str, str]) -> str:
    """A value of YAML with its expressions replaced."""

    def one(found: re.Match[str]) -> str:
        value = evaluate(found[1].strip(), known)
        return str(value).lower() if isinstance(value, bool) else str(value)

    return _EXPRESSION.sub(one, str(text))


def run_action(
    action: Mapping[str, Any],
    given: Mapping[str, str],
    *,
    folder: Path,
    path: Path,
    temp: Path,
    before: Mapping[str, Callable[[], object]] | None = None,
) -> Job:
    """Run every step whose condition holds, as the runner does; steps with `uses` must have a condition that does not.

    Args:
        action: The parsed `action.yml`.
        given: Inputs.
        folder: The working directory of the job.
        path: The folder of the action.
        temp: A folder for the runner's own files.
        before: Name of a step -> what somebody else does before it runs.
    """
    assert given.keys() <= action["inputs"].keys()
    context = {"github.actor": "octo"} | {f"env.{name}": value for name, value in os.environ.items()}
    for name, about in action["inputs"].items():
        context[f"inputs.{name}"] = given[name] if name in given else filled(about.get("default", ""), context)
    job = Job()
    summary = temp / "summary"
    summary.touch()
    for number, step in enumerate(action["runs"]["steps"]):
        condition = step.get("if", "success()")
        if (job.code and "always()" not in condition) or not evaluate(condition, context):
            continue
        assert "run" in step, f"{step['name']} is no script"
        (before or {}).get(step["name"], lambda: None)()
        job.ran.append(step["name"])
        outputs, script = temp / f"outputs-{number}", temp / f"step-{number}.sh"
        outputs.touch()
        script.write_text(step["run"])
        where = folder / filled(step.get("working-directory", "."), context)
        environment = {
            **os.environ,
            **{name: filled(text, context) for name, text in step.get("env", {}).items()},
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "GITHUB_OUTPUT": str(outputs),
            "GITHUB_STEP_SUMMARY": str(summary),
            "GITHUB_ACTION_PATH": str(path),
        }
        assert step["shell"] == "bash"
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)],
            cwd=where,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        job.log += done.stdout
        for line in outputs.read_text().splitlines():
            name, equals, value = line.partition("=")
            assert equals, f"{step['name']} wrote an output that is none: {line!r}"
            context[f"steps.{step['id']}.outputs.{name}"] = value
        job.code = job.code or done.returncode
    job.outputs = {name: filled(about["value"], context) for name, about in action["outputs"].items()}
    job.summary = summary.read_text()
    return job


def commands(log: str) -> list[str]:
    """The lines of a log that the runner would obey; what lies between stop-commands and its token is text."""
    obeyed, until = [], ""
    for line in log.splitlines():
        text = line.strip()
        if until:
            until = "" if text == f"::{until}::" else until
        elif text.startswith("::stop-commands::"):
            until = text.removeprefix("::stop-commands::")
        elif text.startswith("::"):
            obeyed.append(text)
    return obeyed
