"""backup, restore, export and import on the command line."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts import wire
from llmartifacts.versioning.team import open_team

Cli = Callable[..., Any]


def test_a_backup_is_taken_listed_checked_and_restored(story: Cli, tmp_path: Path) -> None:
    first = story("backup", "kept").out
    assert "backup 1 of 4 versions" in first
    made = story("backup", "kept", "--verify", "--keep", "1", "--json").json
    assert (made["backup"]["number"], made["backup"]["sent"]) == (2, 0)
    assert made["pruned"]["removed"] == [1]
    (only,) = story("backup", "kept", "--list", "--json").json["backups"]
    assert only == made["backup"]
    assert only["id"][:12] in story("backup", "kept", "--list").out
    assert "all well" in story("backup", "kept", "--check").out
    told = story("restore", "kept", "--to", "then").out
    assert "from backup 2" in told
    assert "default 4" in told
    assert "all well" in story("--registry", "then", "verify", "--read-data").out
    again = story("restore", "kept", "--backup", only["id"][:8], "--to", "then2", "--read-data", "--json").json
    assert again["ok"] is True
    assert again["revisions"] == {"default": 4}
    story("restore", "kept", "--to", "then", expect=wire.CONFLICT)
    story("restore", "kept", "--backup", "9", "--to", "then3", expect=wire.NOT_FOUND)
    assert "no backups here" in story("backup", "nowhere", "--list").out


def test_damage_is_an_exit_code_of_its_own(story: Cli, tmp_path: Path) -> None:
    story("backup", "kept")
    file = next(p for p in (tmp_path / "kept" / "objects").rglob("*") if p.is_file())
    file.unlink()
    assert "1 damaged" in story("backup", "kept", "--check", expect=wire.DAMAGED).out
    document = story("backup", "kept", "--check", "--json", expect=wire.DAMAGED).json
    assert document["ok"] is False
    assert document["problems"][0]["hint"]
    story("restore", "kept", "--to", "then", expect=wire.DAMAGED)
    assert not (tmp_path / "then").exists()


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry of a test is the one in its folder."""
    for name in ("LLMARTIFACTS_SERVE_DATABASE", "LLMARTIFACTS_SERVE_BLOBS", "LLMARTIFACTS_REGISTRY"):
        monkeypatch.delenv(name, raising=False)


REFUSED_LINES = (
    "backup x --list --check",
    "backup x --list --keep 3",
    "backup x --backup 3",
    "backup x --keep 0",
    "backup x --database postgresql://x/y",
    "backup .llmartifacts",
    "restore x",
    "restore x --to y --database postgresql://x/y --blobs z",
    "restore x --database postgresql://x/y",
    "export x",
    "export x docs --all",
)


def test_a_line_that_says_two_things_or_none_is_refused(cli: Cli, tmp_path: Path) -> None:
    cli("init")
    before = sorted(p.name for p in tmp_path.iterdir())
    for line in REFUSED_LINES:
        cli(*line.split(), expect=wire.WRONG_USE)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_what_servers_share_is_backed_up_by_its_variables(
    cli: Cli, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--database", postgres_url, "--blobs", str(tmp_path / "blobs"))
    assert "no registry in that database" in cli("backup", "kept", *options, expect=wire.NOT_FOUND).err
    open_team(postgres_url, str(tmp_path / "blobs"), connections=2).close()
    assert cli("backup", "kept", *options, "--json").json["backup"]["versions"] == 0
    monkeypatch.setenv("LLMARTIFACTS_SERVE_DATABASE", postgres_url)
    monkeypatch.setenv("LLMARTIFACTS_SERVE_BLOBS", str(tmp_path / "blobs"))
    assert cli("backup", "kept", "--json").json["backup"]["number"] == 2
    assert "restored" in cli("restore", "kept", "--to", "here").out
    assert "holds a registry" in cli("restore", "kept", *options, expect=wire.CONFLICT).err


def test_collections_go_from_one_registry_to_another(story: Cli, tmp_path: Path) -> None:
    told = story("export", "two.llmx", "docs", "kb:v2").out
    assert "3 versions of 2 collections" in told
    story("export", "two.llmx", "docs", expect=wire.CONFLICT)
    done = story("export", "all.llmx", "--all", "--json").json
    assert (done["versions"], done["collections"], done["signed"]) == (4, 2, False)
    story("init", "other")
    other = ("--registry", "other")
    assert "3 versions would be imported" in story(*other, "import", "two.llmx", "--dry-run").out
    assert "default/docs" in story(*other, "import", "two.llmx", "--project", "acme").out.replace("acme", "default")
    made = story(*other, "import", "all.llmx", "--aliases", "--json").json
    assert (made["new"], made["present"], len(made["aliases"])) == (4, 0, 3)
    again = story(*other, "import", "all.llmx", "--json").json
    assert (again["new"], again["present"]) == (0, 4)
    story(*other, "import", "nowhere.llmx", expect=wire.NOT_FOUND)
    (tmp_path / "no.llmx").write_text("no")
    story(*other, "import", "no.llmx", expect=wire.WRONG_USE)
    (tmp_path / "half.llmx").write_bytes((tmp_path / "all.llmx").read_bytes()[:-9])
    story(*other, "import", "half.llmx", expect=wire.DAMAGED)
    story(*other, "import", "all.llmx", "--require-signature", expect=wire.REFUSED)


@pytest.mark.matrix
@pytest.mark.slow
@pytest.mark.parametrize("line", [("backup", "kept"), ("restore", "kept", "--to", "then"), ("import", "all.llmx")])
def test_killed_at_any_moment_there_is_nothing_by_halves(tmp_path: Path, line: tuple[str, ...]) -> None:
    """SIGKILL after ever longer; what is there then is whole, or is not there."""
    with la.init(tmp_path / ".llmartifacts") as registry:
        for i in range(12):
            registry.log("docs", la.Files({"n": str(i).encode(), "b.bin": bytes([i]) * 1_200_000}))
        registry.backup(str(tmp_path / "kept"))
        registry.export(tmp_path / "all.llmx")
    if line[0] == "import":
        with la.init(tmp_path / "other") as other:
            other.log("mine", la.Files({"x": b"y"}))
        line = ("--registry", "other", *line)
    killed = 0
    for wait in (0.35, 0.45, 0.5, 0.55, 0.6, 0.7):
        process = subprocess.Popen(
            [sys.executable, "-m", "llmartifacts", *line], cwd=tmp_path, stdout=subprocess.DEVNULL
        )
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        if (tmp_path / "then").exists():
            with la.connect(tmp_path / "then") as then:
                assert then.verify(read_data=True).ok
            break
    with la.connect(tmp_path / ".llmartifacts") as registry:
        assert registry.verify(read_data=True).ok
        registry.backup(str(tmp_path / "kept"), read_back=True)
    if line[0] == "restore" and not (tmp_path / "then").exists():
        assert subprocess.run([sys.executable, "-m", "llmartifacts", *line], cwd=tmp_path, check=False).returncode == 0
        assert not list(tmp_path.glob(".then*"))
    if "other" in line:
        with la.connect(tmp_path / "other") as other:
            assert other.verify(read_data=True).ok
            other.import_file(tmp_path / "all.llmx")
            assert len(other.versions("docs")) == 12
            assert other.verify(read_data=True).ok
