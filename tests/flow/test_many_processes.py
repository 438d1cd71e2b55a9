"""Several processes on one registry: nothing lost, nothing doubled, nobody locked out."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

import llmartifacts as la

PROCESSES = 8

MOVE = """
import sys
import llmartifacts as la
registry = la.connect(sys.argv[1], actor=f"writer-{sys.argv[2]}")
for i in range(int(sys.argv[3])):
    target = 1 + (int(sys.argv[2]) + i) % 3
    while True:
        current = registry.get("p:prod").number
        if current == target:
            target = 1 + target % 3
        try:
            registry.promote(f"p:v{target}", "prod", expect={"p": f"v{current}"})
            break
        except la.errors.AliasMoved:
            continue
"""

LOG = """
import sys
import llmartifacts as la
registry = la.connect(sys.argv[1], actor=f"writer-{sys.argv[2]}")
for i in range(int(sys.argv[3])):
    registry.log("p", la.Prompt(f"writer {sys.argv[2]} says {i}", template_format="jinja2"))
"""


def _together(code: str, place: Path, count: int) -> None:
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(place), str(i), str(count)], stderr=subprocess.PIPE, text=True
        )
        for i in range(PROCESSES)
    ]
    told = [child.communicate()[1] for child in children]
    assert [child.returncode for child in children] == [0] * PROCESSES, "\n".join(told)


@pytest.mark.slow
@pytest.mark.parametrize("count", [40, pytest.param(200, marks=pytest.mark.matrix)])
def test_eight_processes_moving_one_alias_lose_no_update(tmp_path: Path, count: int) -> None:
    registry = la.init(tmp_path / "r")
    for text in "abc":
        registry.log("p", la.Prompt(text, template_format="jinja2"))
    registry.promote("p:v1", "prod")
    _together(MOVE, tmp_path / "r", count)
    history = registry.history("p:prod")
    assert len(history) == 1 + PROCESSES * count
    assert [h.move for h in history] == list(range(len(history), 0, -1))
    assert [h.revision for h in history] == list(range(len(history), 0, -1))
    for newer, older in itertools.pairwise(history):
        assert newer.old == older.new, "each move starts where the one before it ended"
    assert {h.actor for h in history} >= {f"writer-{i}" for i in range(PROCESSES)}
    assert len(list(registry.backend.audit(None))) == 1 + 3 + len(history)
    assert registry.verify().ok


@pytest.mark.slow
@pytest.mark.parametrize("count", [10, pytest.param(50, marks=pytest.mark.matrix)])
def test_eight_processes_logging_leave_no_duplicate_and_no_missing_number(tmp_path: Path, count: int) -> None:
    registry = la.init(tmp_path / "r")
    _together(LOG, tmp_path / "r", count)
    versions = registry.versions("p")
    assert [v.number for v in versions] == list(range(PROCESSES * count, 0, -1))
    assert len({v.digest for v in versions}) == PROCESSES * count
    assert registry.verify(read_data=True).ok
