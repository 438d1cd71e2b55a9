"""A directory is filled whole or not at all, and what a killed process left beside it goes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llmartifacts.errors import Conflict, NotAllowed
from llmartifacts.kinds.disk import filling

KILLED = """
import os, signal, sys
from pathlib import Path
from llmartifacts.kinds.disk import filling
with filling(Path(sys.argv[1])) as made:
    (made / "half").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def fill(directory: Path) -> None:
    with filling(directory) as made:
        (made / "file").write_bytes(b"whole")


def test_it_is_there_whole_and_nothing_lies_beside_it(tmp_path: Path) -> None:
    fill(tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "file").read_bytes() == b"whole"


def test_what_goes_wrong_inside_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(NotAllowed), filling(tmp_path / "out") as made:
        (made / "file").write_bytes(b"half")
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("taken", [False, True])
def test_what_a_killed_process_left_goes_with_the_next_call(tmp_path: Path, taken: bool) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "out")], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    if taken:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine").touch()
        with pytest.raises(Conflict):
            fill(tmp_path / "out")
    else:
        fill(tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_what_a_living_process_uses_and_what_is_somebody_elses_stays(tmp_path: Path) -> None:
    others = [tmp_path / name for name in (".out.mine", ".out.llmartifacts-short", ".other.llmartifacts-" + "0" * 16)]
    for other in others:
        other.mkdir()
    os.symlink(tmp_path / ".out.mine", tmp_path / (".out.llmartifacts-" + "1" * 16))
    with filling(tmp_path / "out") as made:
        (made / "first").touch()
        with pytest.raises(NotAllowed), filling(tmp_path / "out") as second:
            (second / "second").touch()
            fill(tmp_path / "out")  # a third comes first
        (tmp_path / "out" / "file").unlink()
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["first"]
    assert all(other.is_dir() for other in others)
    assert (tmp_path / (".out.llmartifacts-" + "1" * 16)).is_symlink()
