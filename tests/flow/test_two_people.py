"""Two people and a service over two servers on one PostgreSQL; one dies, then the other, and the service goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llmartifacts.registry import Registry
from llmartifacts.versioning.team import open_team

PLAY = Path(__file__).resolve().parent.parent.parent / "examples" / "11_two_people" / "play.py"
ANSWER = "Refunds arrive within five days."


def play(place: Path, *arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, str(PLAY), *arguments],
        cwd=place,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONWARNINGS": "error::UserWarning"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()  # the log of the service that starts with nobody there
    assert line.startswith("Support: NOT_READY -> STALE (registry-unreachable)")
    return [line.strip() for line in done.stdout.splitlines()]


def told(lines: list[str]) -> None:
    """What a reader sees, in this order."""
    starts = [line for line in lines if line.startswith("from the ")]
    assert any("prod, by bob: refused" in line for line in lines)
    assert any(line.startswith("ada moved prod:") and line.endswith("approved by ada") for line in lines)
    assert [line.split(":")[0] for line in starts] == ["from the registry"] * 2 + ["from the last-known-good"]
    served = {tuple(part for part in line.split(";") if "@" in part and "=" in part) for line in starts}
    assert len(served) == 1, "three starts, one set"
    assert lines.count(ANSWER) == 3
    assert lines.count("We ship on weekdays.") == 1
    assert lines[-1] == "the service goes on"


@pytest.mark.matrix
def test_the_service_goes_on_when_both_servers_over_postgresql_are_gone(postgres_url: str, tmp_path: Path) -> None:
    told(play(tmp_path, "--database", postgres_url, "--blobs", "blobs"))

    with Registry(open_team(postgres_url, str(tmp_path / "blobs")), project="default", actor="tester") as registry:
        (move,) = registry.history("support-kb:prod")
        assert (move.actor, move.reason, move.approvals) == ("ada", "launch", ("ada",))
        assert registry.get("support-kb:prod").author == "bob"
        assert registry.verify(read_data=True).ok
        assert registry.backend.verify_audit().ok


@pytest.mark.matrix
def test_two_servers_over_one_directory_do_as_well(tmp_path: Path) -> None:
    told(play(tmp_path))
