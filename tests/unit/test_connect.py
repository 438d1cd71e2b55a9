"""connect, init, and who and what the caller is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import llmartifacts as la
from llmartifacts import errors
from llmartifacts.connect import find, git_commit, who


def test_the_nearest_registry_upward_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    la.init(tmp_path / ".llmartifacts").close()
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    with la.connect() as registry:
        assert registry.backend.location == str(tmp_path / ".llmartifacts")


def test_the_environment_names_the_registry_and_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    la.init(tmp_path / "r").close()
    monkeypatch.setenv("LLMARTIFACTS_REGISTRY", str(tmp_path / "r"))
    monkeypatch.setenv("LLMARTIFACTS_PROJECT", "acme")
    monkeypatch.setenv("LLMARTIFACTS_ACTOR", "ada")
    with la.connect() as registry:
        assert (registry.project, registry.actor) == ("acme", "ada")


def test_no_registry_at_all_says_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(errors.NotFound) as caught:
        la.connect()
    assert "llmartifacts init" in caught.value.hint()
    with pytest.raises(errors.NotFound):
        la.connect(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [".", "r/blobs", "r/blobs/sha256"])
def test_a_directory_too_high_or_too_deep_says_which_one_is_meant(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = tmp_path / ("r" if wrong != "." else ".llmartifacts")
    la.init(place).close()
    with pytest.raises(errors.NotFound) as caught:
        la.connect(wrong)
    assert caught.value.hint() == f"Did you mean {place}?"


def test_init_leaves_alone_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(errors.Conflict):
        la.init(tmp_path)
    la.init(tmp_path / "r").close()
    with pytest.raises(errors.Conflict, match="a registry"):
        la.init(tmp_path / "r")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "r"]


def test_a_project_name_is_checked(tmp_path: Path) -> None:
    la.init(tmp_path / "r").close()
    with pytest.raises(errors.InvalidReference):
        la.connect(tmp_path / "r", project="../x")


@pytest.mark.parametrize(
    ("address", "hint"),
    [
        ("s3://bucket/registry", "llmartifacts serve --blobs"),
        ("postgresql://ada:secret@host/db", "llmartifacts serve --database"),
        ("ftp://host", "https://registry.example.com"),
        ("://", "https://registry.example.com"),
    ],
)
def test_what_is_no_directory_and_no_server_says_what_is_possible(address: str, hint: str) -> None:
    with pytest.raises(errors.InvalidInput) as caught:
        la.connect(address)
    assert hint in caught.value.hint()
    assert caught.value.field == "location"
    assert "secret" not in str(caught.value) + caught.value.hint()


@pytest.mark.parametrize("address", ["https://registry.example", "HTTPS://registry.example/team", "http://127.0.0.1:9"])
def test_a_server_is_not_asked_before_it_is_needed(address: str) -> None:
    with la.connect(address, project="acme") as registry:
        assert registry.project == "acme"
        assert registry.backend.location.lower() == address.lower()
        assert address.lower() in repr(registry).lower()


@pytest.mark.parametrize(
    "address",
    [
        "https://ada:secret@registry.example",
        "https://lla_secret@registry.example",
        "https://registry.example?token=secret",
        "https://registry.example#secret",
        "https://registry.example:secret",
        "https://",
        "http://",
        "https://registry.example/\u0000secret",
    ],
)
def test_an_address_carries_nothing_but_the_address_and_no_secret_is_told(address: str) -> None:
    with pytest.raises(errors.InvalidInput) as caught:
        la.connect(address)
    assert "secret" not in str(caught.value) + caught.value.hint()


@pytest.mark.parametrize("address", ["http://registry.example", "http://192.0.2.1:8391", "http://127.0.0.1.example"])
def test_another_machine_is_not_spoken_to_in_the_open(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for token in ("", "lla_0123456789"):
        monkeypatch.setenv("LLMARTIFACTS_TOKEN", token)
        with pytest.raises(errors.NotAllowed) as caught:
            la.connect(address)
        assert "https://" in caught.value.hint()


def test_a_server_knows_who_acts(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(errors.InvalidInput) as caught:
        la.connect("https://registry.example", actor="ada")
    assert caught.value.field == "actor"
    monkeypatch.setenv("LLMARTIFACTS_ACTOR", "ada")
    monkeypatch.setenv("LLMARTIFACTS_TIMEOUT", "1")
    with la.connect("http://127.0.0.1:9") as registry, pytest.raises(errors.Unreachable):
        print(registry.actor)


def test_init_makes_no_server() -> None:
    with pytest.raises(errors.InvalidInput):
        la.init("https://registry.example")


def test_a_local_registry_loads_neither_requests_nor_the_bodies(tmp_path: Path) -> None:
    code = (
        "import sys, llmartifacts as la\n"
        "with la.init(sys.argv[1]) as r: r.project\n"
        "assert 'requests' not in sys.modules\n"
        "assert not [m for m in sys.modules if m.startswith('llmartifacts.client') or '.wire.bodies' in m]\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "r")], check=True)


def test_the_actor_is_the_login_name_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLMARTIFACTS_ACTOR")
    assert who()


def test_the_commit_is_read_from_git_without_starting_it(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b.invalid", *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    assert git_commit(tmp_path) == "" or len(git_commit(tmp_path)) == 40
    git("init", "-q", "-b", "main")
    assert git_commit(tmp_path) == ""
    git("commit", "-q", "--allow-empty", "-m", "x")
    assert git_commit(tmp_path) == git("rev-parse", "HEAD")
    git("pack-refs", "--all")
    assert git_commit(tmp_path) == git("rev-parse", "HEAD")
    git("checkout", "-q", "--detach")
    (tmp_path / "below").mkdir()
    assert git_commit(tmp_path / "below") == git("rev-parse", "HEAD")
    git("worktree", "add", "-q", "-b", "side", str(tmp_path / "tree"))
    assert git_commit(tmp_path / "tree") == git("rev-parse", "HEAD")


def test_importing_the_module_connect_leaves_the_function_in_place() -> None:
    import importlib

    importlib.import_module("llmartifacts.connect")
    assert callable(la.connect)
    assert find(Path("x")) == "x"
