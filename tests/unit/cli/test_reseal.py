"""`llmartifacts repair --database`."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import llmartifacts as la

Cli = Any


def _poked(tmp_path: Path) -> Path:
    """A registry whose log another program took into the file, after the process was killed that wrote it."""
    with la.init(tmp_path / "r") as registry:
        registry.log("notes", la.Files({"notes.txt": b"a note"}))
        shutil.copytree(tmp_path / "r", tmp_path / ".llmartifacts")
    with closing(sqlite3.connect(tmp_path / ".llmartifacts" / "registry.db")) as plain:
        plain.execute("select count(*) from version").fetchall()
    return tmp_path / ".llmartifacts"


def test_the_command_tells_what_it_did(tmp_path: Path, cli: Cli) -> None:
    place = _poked(tmp_path)
    assert "repair --database" in " ".join(cli("ls", expect=5).err.split())
    told = cli("repair", "--database").out
    assert "1 version: every record is right; the checksums were made anew" in told
    assert "damaged" in told  # where the files are that were there
    assert "notes" in cli("ls").out
    done = cli("repair", "--database", "--json").json
    assert (done["ok"], done["versions"]) == (True, 1)
    assert Path(done["kept"]).parent == place / "damaged"


def test_it_takes_no_option_about_bytes_and_no_server(tmp_path: Path, cli: Cli) -> None:
    _poked(tmp_path)
    for option in ("--quick", "--dry-run", "--from=x"):
        assert "--database about records" in " ".join(cli("repair", "--database", option, expect=2).err.split())
    assert "server's host" in " ".join(
        cli("--registry", "https://registry.example.com", "repair", "--database", expect=None).err.split()
    )
