"""A backup that is made as the page says, while others write, can be restored; made the other way round it cannot."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import running

import llmartifacts as la
from llmartifacts.registry import Registry
from llmartifacts.versioning.team import open_team

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "operations.md"


def team(database: str, blobs: Path) -> Registry:
    return Registry(open_team(database, str(blobs)), project="default", actor="tester")


def content(number: int) -> la.Files:
    """What no other version shares: a small file, and one that is cut into chunks."""
    return la.Files({"note.txt": f"version {number}".encode(), "data.bin": os.urandom(1_200_000)})


@contextmanager
def writing(registry: Registry) -> Iterator[list[int]]:
    """Somebody who logs all the time; the list holds what is logged and done."""
    done: list[int] = []
    stop = threading.Event()
    failed: list[BaseException] = []

    def work() -> None:
        try:
            while not stop.is_set():
                done.append(registry.log("busy", content(len(done))).number)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join()
    assert not failed


def enough(done: list[int], more: int) -> None:
    """Wait until so many more were logged."""
    until = len(done) + more
    while len(done) < until:
        threading.Event().wait(0.01)


def block(heading: str, *, mark: str = "") -> list[str]:
    """Commands of the first block under a heading."""
    found = next(b for b in running.blocks(PAGE) if b.heading == heading and b.mark == mark)
    return [command for command, _ in running.commands(found)]


def run(commands: list[str], place: Path, environment: dict[str, str]) -> None:
    for command in commands:
        done = subprocess.run(
            command,
            shell=True,
            executable="/bin/bash",
            cwd=place,
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("pg_dump"), reason="PG_DUMP MISSING: no backup of PostgreSQL is tried")
def test_a_backup_made_while_others_write_is_restored_with_every_byte(
    postgres_server: Any, postgres_url: str, tmp_path: Path
) -> None:
    environment = {"LLMARTIFACTS_SERVE_DATABASE": postgres_url, "LLMARTIFACTS_SERVE_BLOBS": str(tmp_path / "blobs")}
    made, dumped, copied = block("Backup")
    with team(postgres_url, tmp_path / "blobs") as registry, writing(registry) as done:
        enough(done, 2)
        before = len(done)
        run([made, dumped], tmp_path, environment)
        enough(done, 2)  # between the two steps, too
        run([copied], tmp_path, environment)
    restore = block("Restore")
    name = f"r{postgres_url.rpartition('/t')[2]}"
    try:
        run([command.replace("restored", name) for command in restore[:2]], tmp_path, environment)
        run(restore[2:], tmp_path, environment)
        with team(postgres_server.url_of(name), tmp_path / "restored-blobs") as restored:
            found = restored.verify(read_data=True)
            assert found.ok, found.problems
            assert found.versions >= before
            assert restored.gc(dry_run=True, grace=timedelta(0)).freed >= 0
            assert restored.log("busy", content(0)).number == found.versions + 1
    finally:
        postgres_server.drop(postgres_server.url_of(name))


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("pg_dump"), reason="PG_DUMP MISSING: no backup of PostgreSQL is tried")
def test_a_backup_made_in_the_other_order_has_holes(postgres_server: Any, postgres_url: str, tmp_path: Path) -> None:
    environment = {"LLMARTIFACTS_SERVE_DATABASE": postgres_url, "LLMARTIFACTS_SERVE_BLOBS": str(tmp_path / "blobs")}
    made, dumped, copied = block("Backup")
    with team(postgres_url, tmp_path / "blobs") as registry:
        registry.log("calm", content(0))
        run([made, copied], tmp_path, environment)
        registry.log("calm", content(1))
        run([dumped], tmp_path, environment)
    name = f"r{postgres_url.rpartition('/t')[2]}"
    restore = block("Restore")
    try:
        run([command.replace("restored", name) for command in restore[:2]], tmp_path, environment)
        run(restore[2:], tmp_path, environment)
        with team(postgres_server.url_of(name), tmp_path / "restored-blobs") as restored:
            assert not restored.verify(read_data=True).ok
    finally:
        postgres_server.drop(postgres_server.url_of(name))


def test_a_copy_that_sqlite_itself_makes_of_an_embedded_registry_is_refused_as_the_page_says(tmp_path: Path) -> None:
    with la.init(tmp_path / "registry") as registry:
        registry.log("busy", content(0))
    shutil.copytree(tmp_path / "registry", tmp_path / "copy")
    (tmp_path / "copy" / "registry.db").unlink()
    with closing(sqlite3.connect(tmp_path / "registry" / "registry.db")) as plain:
        plain.execute("vacuum into ?", [str(tmp_path / "copy" / "registry.db")])
    with pytest.raises(la.errors.Damaged):
        la.connect(tmp_path / "copy")
    assert la.connect(tmp_path / "registry").verify(read_data=True).ok  # reading it harms nothing
