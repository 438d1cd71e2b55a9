from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from llmartifacts.blobs.scratch import PREFIX, Scratch, sweep


def test_a_closed_scratch_folder_is_gone(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "tmp")
    scratch.new_file().write_bytes(b"x")
    scratch.close()
    scratch.close()
    assert not list((tmp_path / "tmp").iterdir())


def test_a_live_process_keeps_its_scratch_folder(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path)
    file = scratch.new_file()
    file.write_bytes(b"x")
    assert sweep(tmp_path) == 0
    assert file.read_bytes() == b"x"
    scratch.close()


def test_the_scratch_folder_of_a_killed_process_is_swept(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from llmartifacts.blobs.scratch import Scratch
Scratch(Path({str(tmp_path)!r})).new_file().write_bytes(b"left behind")
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    assert [p.name[: len(PREFIX)] for p in tmp_path.iterdir()] == [PREFIX]
    assert sweep(tmp_path) == 1
    assert not list(tmp_path.iterdir())


def test_a_sweep_touches_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / f"{PREFIX}file").write_bytes(b"")
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "precious").write_bytes(b"")
    (tmp_path / f"{PREFIX}link").symlink_to(tmp_path / "target")
    assert sweep(tmp_path) == 0
    assert (tmp_path / "target" / "precious").exists()
    assert len(list(tmp_path.iterdir())) == 4


def test_a_sweep_of_what_is_not_there_does_nothing(tmp_path: Path) -> None:
    assert sweep(tmp_path / "nothing") == 0


def test_a_forked_child_leaves_the_folders_of_its_parent_alone(tmp_path: Path) -> None:
    code = f"""
import os
from pathlib import Path
from llmartifacts.blobs.scratch import Scratch, private_folder
class Owner:
    pass
owner, scratch = Owner(), Scratch(Path({str(tmp_path)!r}))
folder = private_folder(owner)
if os.fork() == 0:
    scratch.close()
    del owner
    raise SystemExit  # runs what is to be done at exit, in the child
os.wait()
assert scratch.path.is_dir() and folder.is_dir()
scratch.close()
del owner
assert not scratch.path.exists() and not folder.exists()
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
