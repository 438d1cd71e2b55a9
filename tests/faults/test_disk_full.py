"""Every verb on a disk that is full, and on one with a little more room each time: a typed error, or all of it.

The disk is a small file system in memory, mounted in a namespace of the test's own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from faulting.verbs import OPERATIONS

TRY = Path(__file__).parent / "faulting" / "full.py"
MOUNT = 'mount -t tmpfs -o size=32m none "$1" && shift && exec "$@"'


@pytest.fixture(scope="session")
def namespace(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Words before a command that give it mounts of its own."""
    unshare, folder = shutil.which("unshare"), tmp_path_factory.mktemp("mounted")
    if not unshare:
        pytest.skip("UNSHARE MISSING: no disk is filled (apt-get install util-linux)")
    told = ""
    for how in ([unshare, "-m"], [unshare, "-r", "-m"]):
        words = [*how, "sh", "-c", MOUNT, "sh"]
        probe = subprocess.run([*words, str(folder), "true"], capture_output=True, text=True, check=False)
        if probe.returncode == 0:
            return words
        told = probe.stderr.strip()
    pytest.skip(f"NO SMALL FILE SYSTEM CAN BE MOUNTED here, no disk is filled: {told}")


def tried(namespace: list[str], base: Path, verb: str, steps: str) -> list[dict[str, Any]]:
    folder, aside = base / "small", base / "aside"
    folder.mkdir()
    aside.mkdir()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("LLMARTIFACTS_")}
    command = [*namespace, str(folder), sys.executable, "-B", str(TRY), str(folder), str(aside), verb, steps]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def judged(rows: list[dict[str, Any]]) -> None:
    """Refused until there is room, then done; and what is refused says that it is for want of room."""
    outcomes = [row["outcome"] for row in rows]
    assert outcomes[0] == "refused"
    assert outcomes[-2:] == ["done", "done"]
    for row in rows:
        if row["outcome"] == "refused":
            code, name, message, hint = row["told"]
            assert (code, name) == (9, "not_allowed"), row
            assert "full" in message or "No space left" in message, row
            assert "space" in hint or "room" in hint, row


@pytest.mark.slow
def test_a_log_on_a_full_disk_is_refused_and_works_once_there_is_room(namespace: list[str], tmp_path: Path) -> None:
    judged(tried(namespace, tmp_path, "log large files", "few"))


@pytest.mark.faults
@pytest.mark.parametrize("verb", OPERATIONS)
def test_a_verb_is_done_wholly_or_refused_whatever_room_is_left(
    namespace: list[str], tmp_path: Path, verb: str
) -> None:
    judged(tried(namespace, tmp_path, verb, "all"))


@pytest.mark.slow
@pytest.mark.parametrize("steps", ["few", pytest.param("all", marks=pytest.mark.faults)])
def test_gc_frees_whole_packs_where_there_is_no_room_to_put_others_together(
    namespace: list[str], tmp_path: Path, steps: str
) -> None:
    rows = tried(namespace, tmp_path, "gc of whole packs", steps)
    judged(rows)
    assert all(row["outcome"] == "done" for row in rows if row["free"] >= 128 * 1024), "a new pack takes ten times that"
