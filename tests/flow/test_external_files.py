"""Files that stay where they are, by the command line, over a server, in a lockfile and in a service."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest

import llmartifacts as la
from llmartifacts import errors, packing
from llmartifacts.cli.main import main
from llmartifacts.kinds.files import FilesKind
from llmartifacts.records.backend import Draft
from llmartifacts.records.digest import digest_of
from llmartifacts.records.manifest import Descriptor, Manifest
from llmartifacts.registry import Registry
from llmartifacts.runtime import lockfile

CONTENT = b"weights " * 50_000
HEX = hashlib.sha256(CONTENT).hexdigest()
Cli = Callable[..., Any]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return la.init(tmp_path / "registry")


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], registry: Registry) -> Cli:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMARTIFACTS_REGISTRY", str(tmp_path / "registry"))

    def run(line: str, expect: int = 0) -> Any:
        capsys.readouterr()
        code = main(line.split())
        out, err = capsys.readouterr()
        assert code == expect, (line, code, out, err)
        return json.loads(out) if "--json" in line and not expect else out + err

    return run


@dataclass(frozen=True)
class Service:
    weights: Annotated[la.Files, "weights:prod"]


def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str = "another-cache") -> None:
    monkeypatch.setenv("LLMARTIFACTS_CACHE", str(tmp_path / name))


# --- the command line


def test_the_command_line_logs_shows_and_pulls_them(cli: Cli, web: Any, tmp_path: Path) -> None:
    web.files["deep/w.bin"] = CONTENT
    (tmp_path / "config.json").write_text("{}")
    cli(f"log files weights config.json {web.url('deep/w.bin')} data/second.bin={web.url('deep/w.bin')}#sha256={HEX}")
    assert web.asked == ["GET /deep/w.bin"] * 2
    shown = cli("show weights")
    assert web.url("deep/w.bin") in shown
    assert "missing" not in shown
    files = cli("show weights --json")["manifest"]["files"]
    assert [(f["path"], f.get("url")) for f in files] == [
        ("config.json", None),
        ("data/second.bin", web.url("deep/w.bin")),
        ("w.bin", web.url("deep/w.bin")),
    ]
    assert sorted(cli("pull weights out --json")["files"]) == [
        "config.json",
        "data/second.bin",
        "manifest.json",
        "w.bin",
    ]
    assert (tmp_path / "out/data/second.bin").read_bytes() == CONTENT
    assert sorted(cli("pull weights few --no-external --json")["files"]) == ["config.json", "manifest.json"]


def test_the_command_line_refuses_another_content_than_was_named(cli: Cli, web: Any, registry: Registry) -> None:
    web.files["w.bin"] = CONTENT
    assert "not what was given" in cli(f"log files weights {web.url('w.bin')} --sha256 {'0' * 64}", 5)
    cli(f"log files weights {web.url('w.bin')}#sha256=abc", 2)
    cli(f"log files weights {web.url('w.bin')} x={web.url('w.bin')} --sha256 {HEX}", 2)
    cli(f"log files weights {web.url('w.bin')} {web.url('w.bin')}", 2)
    cli(f"log prompt agent {web.url('w.bin')}", 2)
    cli("log files weights http://example.org/w.bin", 2)
    cli("log files weights https://user:hush@example.org/w.bin", 2)
    assert registry.collections() == []
    cli(f"log files weights {web.url('w.bin')} --sha256 {HEX.upper()}")


def test_a_file_of_this_machine_is_logged_below_folders_that_are_open(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: Registry
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/w.bin").write_bytes(CONTENT)
    assert "LLMARTIFACTS_FILE_ROOTS" in cli(f"log files weights file://{tmp_path}/data/w.bin", 9)
    monkeypatch.setenv("LLMARTIFACTS_FILE_ROOTS", str(tmp_path / "data"))
    cli(f"log files weights file://{tmp_path}/data/w.bin")
    assert registry.resolve("weights:v1").read("w.bin") == CONTENT
    empty_cache(tmp_path, monkeypatch)
    monkeypatch.delenv("LLMARTIFACTS_FILE_ROOTS")
    with pytest.raises(errors.NotAllowed, match="no folder"):
        la.connect(tmp_path / "registry").resolve("weights:v1").read("w.bin")


# --- whether they are still what they were


def test_each_is_said_to_be_what_it_was_changed_gone_or_unread(
    registry: Registry, web: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmartifacts.external._PAUSE", 0.01)
    web.files |= {"same": b"1", "changed": b"2", "gone": b"3", "unread": b"4"}
    for _ in range(2):
        registry.log("a", la.Files.from_references([web.url(p) for p in web.files]))
    registry.log("team/b", la.Files({"x": b"x"}, external={"s": web.url("same")}))
    web.files["changed"] = b"?"
    del web.files["gone"]
    web.oddly["unread"] = b"HTTP/1.1 503 Later\r\nContent-Length: 0\r\n\r\n"
    found = registry.check_external()
    assert [(f.url.rpartition("/")[2], f.state) for f in found.files] == [
        (p, p) for p in sorted(web.files | {"gone": b""})
    ]
    assert {f.path: f.versions for f in found.files}["changed"] == ("default/a:v1",)
    assert next(f for f in found.files if f.state == "same").versions == ("default/a:v1", "team/b:v1")
    assert (found.ok, found.counts) == (False, {"same": 1, "changed": 1, "gone": 1, "unread": 1})
    assert registry.check_external("team/b").ok
    assert registry.verify(read_data=True).ok


def test_verify_tells_of_them_apart_and_is_refused_by_them_only_where_they_are_asked_for(
    cli: Cli, registry: Registry, web: Any
) -> None:
    assert "outside" not in cli("verify --read-data")
    web.files |= {"same": b"1", "changed": b"2"}
    registry.log("a", la.Files.from_references([web.url(p) for p in web.files]))
    assert "2 files kept outside: 2 as logged" in cli("verify --external")
    web.files["changed"] = b"?"
    assert "kept outside" not in cli("verify")
    told = cli("verify --read-data")
    assert "all well" in told
    assert "1 changed, 1 as logged" in told
    assert web.url("changed") in told
    assert "kept outside" not in cli("verify --read-data --no-external")
    found = cli("verify --read-data --json")
    assert found["ok"]
    assert found["external"]["counts"] == {"same": 1, "changed": 1}
    assert [f["state"] for f in found["external"]["files"]] == ["changed", "same"]
    cli("verify --external", 5)


# --- lockfiles and services


def test_an_installed_folder_has_them_and_starts_without_anybody(
    registry: Registry, web: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.files["w.bin"] = CONTENT
    registry.log("weights", la.Files({"a": b"1"}, external={"w.bin": web.url("w.bin")}))
    registry.promote("weights:v1", to="prod", reason="first")
    lock = lockfile.lock(Service, registry=registry)
    lockfile.install(lock, registry, tmp_path / "out")
    web.files.clear()
    registry.close()
    empty_cache(tmp_path, monkeypatch)
    with la.Resolver(Service, lockfile=tmp_path / "out", frozen=True) as resolver:
        assert resolver.start().value.weights.read("w.bin") == CONTENT


def test_an_install_of_what_has_changed_is_refused(registry: Registry, web: Any, tmp_path: Path) -> None:
    web.files["w.bin"] = CONTENT
    registry.log("weights", la.Files.from_references(web.url("w.bin")))
    registry.promote("weights:v1", to="prod", reason="first")
    lock = lockfile.lock(Service, registry=registry)
    web.files["w.bin"] = CONTENT[::-1]
    with pytest.raises(errors.ResolutionError, match="not what was logged"):
        lockfile.install(lock, registry, tmp_path / "out")


def test_a_service_has_them_before_it_starts_and_starts_anew_without_them(
    registry: Registry, web: Any, tmp_path: Path
) -> None:
    web.files["w.bin"] = CONTENT
    registry.log("weights", la.Files.from_references(web.url("w.bin")))
    registry.promote("weights:v1", to="prod", reason="first")
    web.server.requests.clear()
    with la.Resolver(Service, registry=registry) as resolver:
        value = resolver.start().value
        assert web.asked == ["GET /w.bin"]
        web.files.clear()
        assert value.weights.read("w.bin") == CONTENT
    with la.Resolver(Service, registry=registry) as resolver:
        assert resolver.start().value.weights.read("w.bin") == CONTENT


def test_a_service_whose_file_outside_has_changed_names_it_and_does_not_start(
    registry: Registry, web: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.files["w.bin"] = CONTENT
    registry.log("weights", la.Files.from_references(web.url("w.bin")))
    registry.promote("weights:v1", to="prod", reason="first")
    web.files["w.bin"] = b"changed"
    with pytest.raises(errors.ResolutionError) as caught, la.Resolver(Service, registry=registry) as resolver:
        resolver.start()
    assert isinstance(caught.value.failures["weights"], errors.DigestMismatch)


@dataclass(frozen=True)
class Agent:
    agent: Annotated[la.Prompt, "agent:prod"]


def test_a_version_that_names_a_place_which_its_kind_must_not_have_is_not_fetched_anywhere(
    registry: Registry, web: Any, tmp_path: Path
) -> None:
    web.files["w"] = b"w"
    made = registry.log("agent", la.Prompt("Hello {{ name }}", template_format="jinja2"))
    forged = Manifest(
        "prompt", registry.find(made.pinned).manifest.config, (Descriptor("w", digest_of(b"w"), 1, web.url("w")),)
    )
    registry.backend.commit("default", [Draft("agent", forged)], actor="whoever can write the directory")
    registry.promote("agent:v2", to="prod", reason="first")
    with pytest.raises(errors.InvalidManifest, match="kept in the registry"):
        registry.resolve("agent:prod")
    with pytest.raises(errors.InvalidManifest, match="kept in the registry"):
        registry.pull("agent:prod", tmp_path / "out")
    with (
        pytest.raises(errors.ResolutionError, match="kept in the registry"),
        la.Resolver(Agent, registry=registry) as made,
    ):
        made.start()
    with pytest.raises(errors.ResolutionError, match="kept in the registry"):
        lockfile.install(lockfile.lock(Agent, registry=registry), registry, tmp_path / "folder")
    assert web.asked == []


@pytest.mark.slow
def test_of_several_processes_that_read_at_once_one_fetches(registry: Registry, web: Any, tmp_path: Path) -> None:
    web.files["w.bin"] = CONTENT
    registry.log("weights", la.Files.from_references(web.url("w.bin")))
    web.server.requests.clear()
    script = f"""
import llmartifacts as la
with la.connect({str(tmp_path / "registry")!r}) as registry:
    print(len(registry.resolve("weights:v1").read("w.bin")))
"""
    running = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert [process.communicate(timeout=60)[0] for process in running] == [f"{len(CONTENT)}\n"] * 4
    assert web.asked == ["GET /w.bin"]


# --- over a server


def test_a_server_keeps_the_address_and_only_the_reader_fetches(
    service: Any, web: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.files["w.bin"] = CONTENT
    with la.connect(service.between.url) as remote:
        remote.log("weights", la.Files({"a": b"1"}, external={"w.bin": web.url("w.bin")}))
        assert remote.find("weights").manifest.file("w.bin").url == web.url("w.bin")
        assert web.asked == ["GET /w.bin"]
        assert remote.verify(read_data=True).ok
        with pytest.raises(errors.LlmartifactsError):  # knowing its digest gives nothing: the server has no such bytes
            remote.backend.blobs.read(remote.find("weights").manifest.file("w.bin").blob)
        assert web.asked == ["GET /w.bin"]
        assert remote.resolve("weights:v1").read("w.bin") == CONTENT
        assert len(remote.pull("weights", tmp_path / "out")) == 3
        assert remote.check_external("weights").ok
    assert web.asked == ["GET /w.bin"] * 3


def test_a_file_of_one_machine_is_refused_by_the_client_the_server_and_whoever_reads(
    service: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMARTIFACTS_FILE_ROOTS", str(tmp_path))
    (tmp_path / "w.bin").write_bytes(CONTENT)
    url = f"file://{tmp_path}/w.bin"
    pinned = la.External(url, digest_of(CONTENT), len(CONTENT))
    with la.connect(service.between.url) as remote:
        with pytest.raises(errors.NotAllowed, match="one machine"):
            remote.log("weights", la.Files.from_references(url))
        with pytest.raises(errors.InvalidManifest, match="everybody"):
            remote.log("weights", la.Files.from_references([pinned]))
        manifest = packing.pack(FilesKind(), la.Files.from_references([pinned]), None)  # type: ignore[arg-type]
        with pytest.raises(errors.NotAllowed, match="one machine"):  # a server that says so all the same
            remote.load(manifest).read("w.bin")


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/a",
        "https://u:p@example.org/a",
        "https://example.org/a\x1b[2J",
        "gopher://x/a",
        "s3://b/../a",
    ],
)
def test_a_hostile_address_is_refused_by_a_server(service: Any, url: str) -> None:
    config = {"count": 1, "bytes": 1, "suffixes": {"w": 1}}
    forged = Manifest("files", config, (Descriptor("w", digest_of(b"w"), 1, url),))
    with la.connect(service.between.url) as remote:
        with pytest.raises(errors.InvalidInput):
            remote.backend.commit(service.project, [Draft("weights", forged)], actor="x")
        with pytest.raises(errors.NotFound):
            remote.get("weights")


def test_a_kind_whose_files_are_kept_in_the_registry_has_none_elsewhere(service: Any, web: Any) -> None:
    with la.connect(service.between.url) as remote:
        version = remote.log("suite", la.Prompt("Hello {{ name }}", template_format="jinja2"))
        known = remote.find(version.pinned).manifest
        forged = Manifest("prompt", known.config, (Descriptor("w", digest_of(b"w"), 1, web.url("w")),))
        with pytest.raises(errors.InvalidInput, match="kept in the registry"):
            remote.backend.commit(service.project, [Draft("suite", forged)], actor="x")
        with pytest.raises(errors.InvalidInput, match="kept in the registry"):
            remote.load(forged)
    assert web.asked == []
