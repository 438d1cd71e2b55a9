"""verify and repair on the command line: what they say, and how they end."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts import wire
from llmartifacts.errors import NotAllowed
from llmartifacts.metadata import sqlite
from llmartifacts.runtime import lockfile

Cli = Any
HOLDS = """
import apsw, sys
from llmartifacts.metadata import sqlite_pages
database = apsw.Connection(sys.argv[1], vfs=sqlite_pages.vfs())
database.execute("pragma locking_mode=exclusive")
database.execute("begin exclusive; update meta set value = value; commit")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def kept(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Two collections, a copy of the whole in `other`, and an empty cache."""
    monkeypatch.setenv("LLMARTIFACTS_CACHE", str(tmp_path / "cache"))
    cli("init")
    with la.connect(tmp_path / ".llmartifacts") as registry:
        registry.log("notes", la.Files({"notes.txt": b"a note " * 2000}))
        registry.log("weights", la.Files({"weights.bin": random.Random(1).randbytes(1_200_000)}))
    shutil.copytree(tmp_path / ".llmartifacts", tmp_path / "other")
    return cli


@pytest.fixture
def lose(tmp_path: Path) -> Callable[[str], Path]:
    """Removes the first stored file of a sort."""

    def remove(suffix: str) -> Path:
        found = min(p for p in (tmp_path / ".llmartifacts" / "blobs").rglob("*") if p.is_file() and p.suffix == suffix)
        found.unlink()
        return found

    return remove


def test_a_part_of_the_bytes_is_read(kept: Cli) -> None:
    assert "part 2/3 of the bytes read and hashed" in kept("verify", "--read-data-subset", "2/3").out
    assert kept("verify", "--read-data-subset", "2/3", "--json").json["part"] == "2/3"
    error = kept("verify", "--read-data-subset", "4/3", "--json", expect=wire.WRONG_USE).error
    assert error["detail"]["field"] == "read_data_subset"


def test_one_collection_is_checked(kept: Cli, lose: Callable[[str], Path]) -> None:
    lose(".zst")
    assert "1 version, 1 blob looked up" in kept("verify", "weights").out
    kept("verify", "notes", expect=wire.DAMAGED)
    error = kept("verify", "weight", "--json", expect=wire.NOT_FOUND).error
    assert error["detail"]["near"] == ["weights"]


def test_a_missing_file_and_a_damaged_one_have_codes_of_their_own(kept: Cli, lose: Callable[[str], Path]) -> None:
    file = lose(".zst")
    (problem,) = kept("verify", "--json", expect=wire.DAMAGED).json["problems"]
    assert (problem["code"], problem["versions"], problem["needed_by"]) == ("blob_missing", ["notes:v1"], 1)
    file.write_bytes(b"something else")
    (problem,) = kept("verify", "--read-data", "--json", expect=wire.DAMAGED).json["problems"]
    assert (problem["code"], problem["file"]) == ("digest_mismatch", str(file))
    assert "--from URL" in kept("verify", "--read-data", expect=wire.DAMAGED).out


def test_a_registry_of_a_newer_release_ends_with_10(kept: Cli, tmp_path: Path) -> None:
    with la.connect(tmp_path / ".llmartifacts") as registry:
        backend: Any = registry.backend
        with backend.parts.metadata.writing() as s:
            s.run("update meta set value = 999 where name = 'schema'")
    for command in ("verify", "repair"):
        assert kept(command, "--json", expect=wire.NEWER_FORMAT).error["code"] == "newer_format"


def test_no_registry_ends_with_3(cli: Cli) -> None:
    assert cli("verify", "--json", expect=wire.NOT_FOUND).error["code"] == "not_found"


def test_a_registry_that_somebody_holds_ends_with_4(kept: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "WAIT_SECONDS", 0.05)
    command = [sys.executable, "-c", HOLDS, str(tmp_path / ".llmartifacts" / "registry.db")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert kept("verify", "--json", expect=wire.CONFLICT).error["code"] == "busy"
        holder.communicate()
    kept("verify")


@pytest.mark.parametrize("source", ["other", "other/blobs"])
def test_repair_takes_a_registry_or_the_folder_of_its_bytes(
    kept: Cli, lose: Callable[[str], Path], source: str
) -> None:
    for suffix in (".zst", ".recipe", ".pack"):
        lose(suffix)
    assert "would be mended" in kept("repair", "--from", source, "--dry-run").out
    kept("verify", expect=wire.DAMAGED)
    assert "mended" in kept("repair", "--from", source).out
    assert "all well" in kept("verify", "--read-data").out
    assert "nothing is wrong" in kept("repair", "--from", source).out
    assert kept("repair", "--quick", "--json").json["ok"] is True


def test_what_cannot_be_mended_ends_with_5(kept: Cli, lose: Callable[[str], Path]) -> None:
    lose(".zst")
    told = kept("repair", expect=wire.DAMAGED).out
    assert "1 still damaged" in told
    assert "notes:v1" in told
    assert "--from URL names another registry" in told


def test_a_place_that_is_none_is_refused(kept: Cli, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source in ("empty", "nowhere"):
        assert kept("repair", "--from", source, "--json", expect=wire.NOT_FOUND).error["code"] == "not_found"


def test_a_server_is_repaired_on_its_own_host() -> None:
    with la.connect("http://127.0.0.1:9") as registry, pytest.raises(NotAllowed) as refused:
        registry.backend.repair(actor="ann")
    assert "on the server's host" in refused.value.hint()


# --- what lies beside a service


@pytest.fixture
def started(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """A service has started from the registry, and was installed into `folder`; then the registry is gone."""
    monkeypatch.setenv("LLMARTIFACTS_CACHE", str(tmp_path / "cache"))
    with la.init(tmp_path / "registry") as registry:
        registry.log("notes", la.Files({"notes.txt": b"a note " * 2000}), aliases="prod")
        with la.Resolver({"notes": "notes:prod"}, registry=tmp_path / "registry") as resolver:
            lock = resolver.current.lock
        lockfile.install(lock, registry, tmp_path / "folder")
    shutil.rmtree(tmp_path / "registry")
    return cli


def damage(folder: Path) -> Path:
    """Another byte at the end of the object that is named first."""
    file = min(p for p in folder.rglob("sha256/*/*") if not p.suffix)
    file.chmod(0o644)
    file.write_bytes(file.read_bytes() + b"x")
    return file


def test_a_cache_and_a_folder_are_checked_without_any_registry(started: Cli, tmp_path: Path) -> None:
    assert "2 objects (14 kB), 1 last-known-good set read and hashed" in started("verify", "--cache").out
    found = started("verify", "--cache", "--json").json
    assert (found["ok"], found["sets"], found["problems"]) == (True, 1, [])
    assert "all well" in started("verify", "--installed", "folder").out
    assert started("verify", "--installed", "folder/llmartifacts.lock", "--json").json["objects"] == 2
    assert started("verify", expect=wire.NOT_FOUND)


def test_what_is_damaged_in_a_cache_is_named_with_its_versions_and_may_be_removed(started: Cli, tmp_path: Path) -> None:
    file = damage(tmp_path / "cache")
    (problem,) = started("verify", "--cache", "--json", expect=wire.DAMAGED).json["problems"]
    assert (problem["code"], problem["file"]) == ("digest_mismatch", str(file))
    assert problem["versions"] == ["notes:v1"]
    assert "safe" in started("verify", "--cache", expect=wire.DAMAGED).out
    file.unlink()
    (problem,) = started("verify", "--cache", "--json", expect=wire.DAMAGED).json["problems"]
    assert (problem["code"], problem["file"]) == ("blob_missing", str(file))
    (record,) = (tmp_path / "cache" / "known-good").iterdir()
    assert str(record) in problem["hint"], (
        "nothing starts from that set any more, and whoever does not need it drops it"
    )
    record.unlink()
    started("verify", "--cache")


def test_what_is_damaged_in_a_folder_is_named_and_installed_again(started: Cli, tmp_path: Path) -> None:
    file = damage(tmp_path / "folder")
    (problem,) = started("verify", "--installed", "folder", "--json", expect=wire.DAMAGED).json["problems"]
    assert problem["file"] == str(file)
    assert f"--to {tmp_path / 'folder'}" in problem["hint"]
    started("install", "folder/llmartifacts.lock", "--frozen", "--to", "folder")
    started("verify", "--installed", "folder")
    lock = tmp_path / "folder" / "llmartifacts.lock"
    lock.write_text(lock.read_text().replace('"check"', '"chdck"'))
    (problem,) = started("verify", "--installed", "folder", "--json", expect=wire.DAMAGED).json["problems"]
    assert (problem["code"], problem["file"]) == ("damaged", str(lock))


def test_a_link_is_damage_and_a_set_of_a_newer_release_alone_ends_with_10(started: Cli, tmp_path: Path) -> None:
    (record,) = (tmp_path / "cache" / "known-good").iterdir()
    record.write_text(record.read_text().replace("known-good/1", "known-good/2"))
    (problem,) = started("verify", "--cache", "--json", expect=wire.NEWER_FORMAT).json["problems"]
    assert problem["code"] == "newer_format"
    (file, *_) = (tmp_path / "cache").rglob("sha256/*/*")
    file.unlink()
    file.symlink_to("/etc/hostname")
    found = started("verify", "--cache", "--json", expect=wire.DAMAGED).json["problems"]
    assert ("unsafe_content", str(file)) in [(problem["code"], problem.get("file")) for problem in found]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--cache", "--installed", "folder"], wire.WRONG_USE),
        (["--cache", "--read-data"], wire.WRONG_USE),
        (["notes", "--installed", "folder"], wire.WRONG_USE),
        (["--installed", "folder", "--no-external"], wire.WRONG_USE),
        (["--installed", "nowhere"], wire.NOT_FOUND),
        (["--cache"], wire.NOT_FOUND),
    ],
)
def test_what_cannot_be_checked_is_said(cli: Cli, tmp_path: Path, monkeypatch: Any, arguments: Any, code: int) -> None:
    monkeypatch.setenv("LLMARTIFACTS_CACHE", str(tmp_path / "no-cache"))
    error = cli("verify", *arguments, "--json", expect=code).error
    assert error["detail"]["hint"]
