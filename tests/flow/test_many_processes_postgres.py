"""Several processes on one PostgreSQL: nothing lost, nothing doubled, nobody locked out."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import llmartifacts as la
from llmartifacts.versioning.team import open_team

PROCESSES = 8

OPEN = """
import sys
import llmartifacts as la
from llmartifacts.versioning.team import open_team
me, count = int(sys.argv[3]), int(sys.argv[4])
registry = la.Registry(open_team(sys.argv[1], sys.argv[2], connections=2), project="default", actor=f"writer-{me}")
"""
MOVE = """
for i in range(count):
    target = 1 + (me + i) % 3
    while True:
        current = registry.get("p:prod").number
        if current == target:
            target = 1 + target % 3
        try:
            registry.promote(f"p:v{target}", "prod", expect={"p": f"v{current}"})
            break
        except la.errors.AliasMoved:
            continue
registry.close()
"""
LOG = """
for i in range(count):
    registry.log("p", la.Prompt(f"writer {me} says {i}", template_format="jinja2"))
    registry.log("files", la.Files({"a.txt": f"the same {i}".encode()}))
registry.close()
"""


@pytest.fixture
def place(postgres_url: str, tmp_path: Path) -> tuple[str, str]:
    return postgres_url, str(tmp_path / "blobs")


@pytest.fixture
def registry(place: tuple[str, str]) -> Iterator[la.Registry]:
    with la.Registry(open_team(*place, connections=4), project="default", actor="ann") as made:
        yield made


def together(code: str, place: tuple[str, str], count: int) -> None:
    children = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN + code, *place, str(i), str(count)], stderr=subprocess.PIPE, text=True
        )
        for i in range(PROCESSES)
    ]
    told = [child.communicate()[1] for child in children]
    assert [child.returncode for child in children] == [0] * PROCESSES, "\n".join(told)


@pytest.mark.slow
@pytest.mark.parametrize("count", [8, pytest.param(200, marks=pytest.mark.matrix)])
def test_eight_processes_moving_one_alias_lose_no_update(
    registry: la.Registry, place: tuple[str, str], count: int
) -> None:
    for text in "abc":
        registry.log("p", la.Prompt(text, template_format="jinja2"))
    registry.promote("p:v1", "prod")
    together(MOVE, place, count)
    history = registry.history("p:prod")
    assert len(history) == 1 + PROCESSES * count
    assert [h.move for h in history] == list(range(len(history), 0, -1))
    assert [h.revision for h in history] == list(range(len(history), 0, -1))
    for newer, older in itertools.pairwise(history):
        assert newer.old == older.new, "each move starts where the one before it ended"
    assert Counter(h.actor for h in history) == {"ann": 1, **{f"writer-{i}": count for i in range(PROCESSES)}}
    assert len(list(registry.backend.audit(None))) == 1 + 3 + len(history)
    assert registry.verify().ok
    assert registry.backend.verify_audit().ok


@pytest.mark.slow
@pytest.mark.parametrize("count", [5, pytest.param(50, marks=pytest.mark.matrix)])
def test_eight_processes_logging_leave_no_duplicate_and_no_missing_number(
    registry: la.Registry, place: tuple[str, str], count: int
) -> None:
    together(LOG, place, count)
    versions = registry.versions("p")
    assert [v.number for v in versions] == list(range(PROCESSES * count, 0, -1))
    assert len({v.digest for v in versions}) == PROCESSES * count
    assert len(registry.versions("files")) == count, "the same content is one version, whoever logged it first"
    assert registry.verify(read_data=True).ok
