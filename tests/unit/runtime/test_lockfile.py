from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest

import llmartifacts as la
from llmartifacts.errors import (
    BlobMissing,
    Conflict,
    DigestMismatch,
    Incompatible,
    InvalidInput,
    InvalidManifest,
    LlmartifactsError,
    NewerFormat,
    NotFound,
    ResolutionError,
    WrongKind,
)
from llmartifacts.records.lock import FILE_NAME, Lockfile
from llmartifacts.registry import Registry
from llmartifacts.runtime import lockfile as lockfiles
from llmartifacts.runtime.resolver import Resolver


@dataclass(frozen=True)
class Support:
    agent: Annotated[la.Files, "agent:prod"]
    kb: Annotated[la.Files, "kb:prod"]
    archive: Annotated[la.Files | None, "archive:prod"] = None


BOTH = {"agent": "agent:prod", "kb": "kb:prod"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / FILE_NAME


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "cache"
    monkeypatch.setenv("LLMARTIFACTS_CACHE", str(place))
    return place


class Untouchable:
    """A backend that must not be asked anything."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the registry was touched: {name}")


UNTOUCHABLE = Registry(Untouchable(), project="default", actor="tester")  # type: ignore[arg-type]


# --- lock, write, read


def test_a_lock_has_the_digests_of_one_revision_and_is_read_back(registry: Registry, path: Path):
    made = lockfiles.lock(Support, registry)
    assert lockfiles.write(made, path) == path
    assert lockfiles.read(path) == made
    assert lockfiles.read(path.parent) == made, "a directory means the file in it"
    assert (made.project, made.revision) == ("default", registry.backend.revision("default"))
    assert {n: (c.reference, c.number, c.move) for n, c in made.components.items()} == {
        "agent": ("agent:prod", 1, 1),
        "kb": ("kb:prod", 1, 1),
    }
    assert made == lockfiles.lock(BOTH, registry), "an absent optional field is not in it"
    assert lockfiles.lock({"kb": "kb"}, registry, alias="latest").components["kb"].number == 2


def test_an_alias_variable_that_is_set_and_empty_is_no_alias(registry: Registry, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LLMARTIFACTS_ALIAS", "")
    assert lockfiles.lock(BOTH, registry).components.keys() == BOTH.keys()
    monkeypatch.setenv("LLMARTIFACTS_ALIAS", "latest")
    assert lockfiles.lock({"kb": "kb"}, registry).components["kb"].number == 2


def test_locking_what_cannot_start_is_refused(registry: Registry):
    @dataclass(frozen=True)
    class Wrong:
        agent: Annotated[la.ModelSpec, "agent:prod"]
        kb: Annotated[la.Files, "kb:nightly"]

    with pytest.raises(ResolutionError) as caught:
        lockfiles.lock(Wrong, registry)
    assert {n: type(e) for n, e in caught.value.failures.items()} == {"kb": NotFound}
    registry.promote("kb:v1", to="nightly")
    with pytest.raises(ResolutionError) as caught:
        lockfiles.lock(Wrong, registry)
    assert {n: type(e) for n, e in caught.value.failures.items()} == {"agent": WrongKind}


def test_a_lockfile_that_is_missing_or_unreadable_is_a_typed_error(path: Path):
    with pytest.raises(NotFound, match="no lockfile") as caught:
        lockfiles.read(path)
    assert "llmartifacts lock" in caught.value.hint()
    os.mkfifo(path)
    with pytest.raises(LlmartifactsError, match="no plain file"):
        lockfiles.read(path)
    path.unlink()
    path.write_text('{"schema": "llmartifacts/lock/2"}')
    with pytest.raises(NewerFormat):
        lockfiles.read(path)


def test_a_lockfile_that_an_orchestrator_mounts_as_a_link_is_read(registry: Registry, path: Path, tmp_path: Path):
    made = lockfiles.lock(BOTH, registry)
    lockfiles.write(made, tmp_path / "real.lock")
    path.symlink_to(tmp_path / "real.lock")
    assert lockfiles.read(path) == made


def test_a_lockfile_is_written_whole_or_not_at_all(registry: Registry, path: Path, monkeypatch: pytest.MonkeyPatch):
    first = lockfiles.lock(BOTH, registry)
    lockfiles.write(first, path)

    def fail(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(LlmartifactsError, match="No space left"):
        lockfiles.write(Lockfile("default", 99, {}), path)
    assert lockfiles.read(path) == first
    assert [p.name for p in path.parent.iterdir() if "lock" in p.name] == [FILE_NAME]


# --- check, differences, upgrade


def test_a_check_says_what_moved(registry: Registry):
    made = lockfiles.lock(BOTH, registry)
    assert lockfiles.check(made, registry) == []
    registry.promote("kb:v2", to="prod", reason="newer")
    registry.remove_alias("agent:prod")
    moved = {d.name: d for d in lockfiles.check(made, registry)}
    assert (moved["kb"].locked, moved["kb"].now, moved["kb"].error) == ("v1", "v2", None)
    assert str(moved["kb"]) == "kb: kb:prod was v1, is v2"
    assert isinstance(moved["agent"].error, NotFound)
    assert lockfiles.check(Lockfile("default", 0, {}), registry) == []


def test_differences_name_what_came_went_and_changed(registry: Registry):
    before = lockfiles.lock({"agent": "agent:prod", "kb": "kb:v1"}, registry)
    after = lockfiles.lock({"agent": "agent:prod", "kb": "kb:v2"}, registry)
    other = lockfiles.lock({"agent": "agent:prod", "index": "kb:v1"}, registry)
    assert lockfiles.differences(before, before) == []
    assert [str(d) for d in lockfiles.differences(before, after)] == ["kb: kb:v2 was v1, is v2"]
    assert [str(d) for d in lockfiles.differences(before, other)] == [
        "index: kb:v1 was not there, is v1",
        "kb: kb:v1 was v1, is gone",
    ]


def test_an_upgrade_moves_what_is_named_and_nothing_else(registry: Registry):
    made = lockfiles.lock(BOTH, registry)
    registry.promote(["agent:v2", "kb:v2"], to="prod", reason="newer")
    for name in ("kb", ["kb"]):
        upgraded = lockfiles.upgrade(made, registry, name)
        assert {n: c.number for n, c in upgraded.components.items()} == {"agent": 1, "kb": 2}
        assert upgraded.components["agent"] == made.components["agent"]
        assert upgraded.components["kb"].reference == "kb:prod"
        assert upgraded.revision == made.revision + 1
    assert {c.number for c in lockfiles.upgrade(made, registry).components.values()} == {2}
    with pytest.raises(NotFound) as caught:
        lockfiles.upgrade(made, registry, "kbb")
    assert caught.value.near == ("kb",)


def test_an_upgrade_is_checked_as_a_whole(registry: Registry):
    registry.log("stack", la.Bundle({"kb": "kb:v1"}), aliases="prod")
    made = lockfiles.lock({"stack": "stack:prod", "kb": "kb:prod"}, registry)
    registry.promote("kb:v2", to="prod", reason="newer")
    with pytest.raises(ResolutionError, match="another version of kb") as caught:
        lockfiles.upgrade(made, registry, "kb")
    assert isinstance(caught.value.failures["kb"], Incompatible)


def test_another_project_s_lockfile_is_upgraded_and_checked_there(registry: Registry):
    acme = Registry(registry.backend, project="acme", actor="tester")
    acme.log("kb", la.Files({"a": b"1"}), aliases="prod")
    made = lockfiles.lock({"kb": "kb:prod"}, acme)
    acme.log("kb", la.Files({"a": b"2"}), aliases="prod")
    assert [d.now for d in lockfiles.check(made, registry)] == ["v2"]
    assert lockfiles.upgrade(made, registry).components["kb"].number == 2
    assert Resolver({"kb": "acme/kb:prod"}, registry=registry).start().lock.project == "acme"


# --- start from a lockfile


def test_a_start_reads_the_digests_of_the_lockfile_and_not_the_aliases(registry: Registry, path: Path):
    lockfiles.write(lockfiles.lock(Support, registry), path)
    registry.promote(["agent:v2", "kb:v2"], to="prod", reason="newer")
    for frozen in (False, True):
        generation = Resolver(Support, registry=registry, lockfile=path, frozen=frozen).start()
        assert generation.source == "lockfile"
        assert generation.warnings == ()
        assert generation.value.kb.read("kb.txt").startswith(b"kb 1")
        assert generation.value.archive is None
    assert Resolver(Support, registry=registry).start().value.kb.read("kb.txt").startswith(b"kb 2")


def test_frozen_never_touches_the_registry(cache: Path, registry: Registry, path: Path, monkeypatch):
    lockfiles.write(lockfiles.lock(BOTH, registry), path)
    with pytest.raises(ResolutionError) as caught:
        Resolver(BOTH, registry=UNTOUCHABLE, lockfile=path, frozen=True).start()
    assert all(isinstance(e, BlobMissing) for e in caught.value.failures.values())
    assert "`llmartifacts install`" in caught.value.hint()
    assert "backup" not in caught.value.hint(), "nothing is lost: it was never here"
    Resolver(BOTH, registry=registry, lockfile=path).start()
    assert Resolver(BOTH, registry=UNTOUCHABLE, lockfile=path, frozen=True).start().number == 1
    assert Resolver(BOTH, registry="/nowhere", lockfile=path, frozen=True).start().number == 1
    monkeypatch.chdir(path.parent)
    assert Resolver(BOTH, frozen=True).start().number == 1, "llmartifacts.lock is where it is looked for"


def test_a_locked_version_that_was_withdrawn_starts_with_a_warning(registry: Registry, path: Path):
    lockfiles.write(lockfiles.lock({"kb": "kb:latest"}, registry), path)
    registry.yank("kb:v2", reason="wrong corpus")
    generation = Resolver({"kb": "kb:latest"}, registry=registry, lockfile=path).start()
    assert [(w.code, w.field) for w in generation.warnings] == [("yanked", "kb")]


def test_a_lockfile_starts_without_its_registry_if_the_bytes_are_here(registry: Registry, path: Path, tmp_path: Path):
    location = registry.backend.location
    lockfiles.write(lockfiles.lock(BOTH, registry), path)
    lockfiles.install(lockfiles.read(path), registry)
    registry.close()
    Path(location).rename(tmp_path / "away")
    generation = Resolver(BOTH, registry=location, lockfile=path).start()
    assert generation.source == "lockfile"
    assert [w.code for w in generation.warnings] == ["registry-unreachable"]


def test_a_locked_version_that_the_registry_has_not_is_named(registry: Registry, path: Path, tmp_path: Path):
    lockfiles.write(lockfiles.lock(BOTH, registry), path)
    with la.init(tmp_path / "other") as other:
        other.log("kb", la.Files({"a": b"1"}), aliases="prod")
        with pytest.raises(ResolutionError) as caught:
            Resolver(BOTH, registry=other, lockfile=path).start()
    assert {n: type(e) for n, e in caught.value.failures.items()} == {"agent": NotFound, "kb": NotFound}


def test_an_optional_component_that_is_locked_is_never_taken_for_absent(registry: Registry, path: Path, tmp_path: Path):
    registry.log("archive", la.Files({"a": b"1"}), aliases="prod")
    lockfiles.write(lockfiles.lock(Support, registry), path)
    registry.remove_alias("archive:prod")
    assert Resolver(Support, registry=registry, lockfile=path).start().value.archive is not None
    with la.init(tmp_path / "other") as other:
        for name in ("agent", "kb"):
            other.log(name, registry.resolve(f"{name}:v1"), aliases="prod")
        with pytest.raises(ResolutionError) as caught:
            Resolver(Support, registry=other, lockfile=path).start()
    assert list(caught.value.failures) == ["archive"]


def test_a_lockfile_of_another_spec_names_the_fields(registry: Registry, path: Path):
    lockfiles.write(lockfiles.lock({"agent": "agent:prod", "kb": "kb:v1", "old": "kb:v2"}, registry), path)
    for frozen in (True, False):
        with pytest.raises(ResolutionError) as caught:
            Resolver(
                {"agent": "agent:prod", "kb": "kb:prod", "new": "kb:v2"},
                registry=registry,
                lockfile=path,
                frozen=frozen,
            ).start()
        told = caught.value.failures
        assert set(told) == {"kb", "new", "old"}
        assert all(isinstance(e, InvalidInput) and e.field == n and e.origin == str(path) for n, e in told.items())
        assert "llmartifacts lock" in caught.value.hint()


@pytest.mark.parametrize(
    ("alter", "told"),
    [
        (lambda kb: kb.update(digest="sha256:" + "0" * 64), "edited by hand"),
        (lambda kb: kb.update(kind="prompt"), "kind prompt"),
        (lambda kb: kb.update(size=7), "size 7"),
        (lambda kb: kb.update(reference="kb:staging"), "kb:staging"),
        (lambda kb: kb.update(version="latest"), "version"),
        (lambda kb: kb.pop("digest"), "digest"),
    ],
)
def test_a_lockfile_edited_by_hand_is_refused_and_the_place_named(registry: Registry, path: Path, alter, told: str):
    lockfiles.write(lockfiles.lock(BOTH, registry), path)
    Resolver(BOTH, registry=registry, lockfile=path).start()
    body = json.loads(path.read_text())
    alter(body["components"]["kb"])
    del body["check"]  # by somebody who wants to have it so
    path.write_text(json.dumps(body))
    for frozen in (True, False):
        with pytest.raises(ResolutionError, match=told) as caught:
            Resolver(BOTH, registry=registry, lockfile=path, frozen=frozen).start()
        errors = caught.value.failures.values()
        assert any(isinstance(e, InvalidManifest | InvalidInput) and str(path) in e.origin for e in errors)


def test_a_version_number_edited_by_hand_is_refused(registry: Registry, path: Path):
    lockfiles.write(lockfiles.lock(BOTH, registry), path)
    body = json.loads(path.read_text().replace('"v1"', '"v2"'))
    path.write_text(json.dumps(body))
    with pytest.raises(ResolutionError, match="edited by hand"):
        Resolver(BOTH, registry=registry, lockfile=path, frozen=True).start()
    del body["check"]
    path.write_text(json.dumps(body))
    with pytest.raises(ResolutionError) as caught:
        Resolver(BOTH, registry=registry, lockfile=path).start()
    assert list(caught.value.failures) == ["agent", "kb"]


def test_a_lockfile_that_is_not_there_is_an_error_of_every_component(tmp_path: Path):
    with pytest.raises(ResolutionError, match="no lockfile"):
        Resolver(BOTH, lockfile=tmp_path / "nowhere.lock", frozen=True).start()


# --- install


def installed(registry: Registry, folder: Path, spec: Any = BOTH) -> Lockfile:
    made = lockfiles.lock(spec, registry)
    lockfiles.install(made, registry, folder)
    return made


def no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LLMARTIFACTS_CACHE", str(tmp_path / "no-cache"))


def test_a_folder_that_was_installed_starts_with_no_registry_and_no_cache(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    registry.log("stack", la.Bundle({"kb": "kb:v1", "agent": "agent:v1"}), aliases="prod")
    spec = {"stack": "stack:prod", "agent": "agent:prod"}
    seen: list[tuple[int, int]] = []
    made = lockfiles.lock(spec, registry)
    count = lockfiles.install(made, registry, tmp_path / "to", progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (count, count)
    assert [d for d, _ in seen] == sorted(d for d, _ in seen)
    shutil.rmtree(registry.backend.location)
    no_cache(monkeypatch, tmp_path)
    generation = Resolver(spec, registry=UNTOUCHABLE, lockfile=tmp_path / "to", frozen=True).start()
    assert generation.lock == made
    assert generation.value["stack"].component("kb", la.Files).read("kb.txt").startswith(b"kb 1")
    assert generation.value["agent"].read("agent.txt").startswith(b"agent 1")
    assert not (tmp_path / "no-cache").exists()


def test_the_folder_holds_the_lockfile_and_each_blob_under_its_digest(registry: Registry, tmp_path: Path):
    made = installed(registry, tmp_path / "to")
    files = {str(p.relative_to(tmp_path / "to")) for p in (tmp_path / "to").rglob("*") if p.is_file()}
    wanted = {FILE_NAME}
    for locked in made.components.values():
        found = registry.find(f"{locked.name}:v{locked.number}")
        wanted |= {f"sha256/{d[7:9]}/{d[7:]}" for d in (locked.digest, *(f.digest for f in found.manifest.files))}
    assert files == wanted
    assert lockfiles.read(tmp_path / "to") == made


def test_installing_again_adds_what_is_new_and_replaces_the_lockfile(registry: Registry, tmp_path: Path, monkeypatch):
    installed(registry, tmp_path / "to")
    registry.promote(["kb:v2"], to="prod", reason="newer")
    made = installed(registry, tmp_path / "to")
    no_cache(monkeypatch, tmp_path)
    assert Resolver(BOTH, lockfile=tmp_path / "to", frozen=True).start().lock == made


def test_a_folder_that_holds_something_else_is_left_alone(registry: Registry, tmp_path: Path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("home", "file"):
        with pytest.raises(Conflict):
            installed(registry, tmp_path / name)
    assert [p.name for p in (tmp_path / "home").iterdir()] == ["notes.txt"]


def test_a_frozen_install_takes_everything_from_the_cache(cache: Path, registry: Registry, tmp_path: Path, monkeypatch):
    made = lockfiles.lock(BOTH, registry)
    with pytest.raises(ResolutionError) as caught:
        lockfiles.install(made, UNTOUCHABLE, tmp_path / "to", frozen=True)
    assert list(caught.value.failures) == ["agent", "kb"]
    assert not (tmp_path / "to" / FILE_NAME).exists()
    assert lockfiles.install(made, registry) > 0
    lockfiles.install(made, None, tmp_path / "to", frozen=True)
    no_cache(monkeypatch, tmp_path)
    assert Resolver(BOTH, lockfile=tmp_path / "to", frozen=True).start().lock == made
    with pytest.raises(InvalidInput, match="needs a registry"):
        lockfiles.install(made, None)


def test_a_tampered_folder_is_refused_and_the_component_named(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flip: Callable[[Path], None]
):
    made = installed(registry, tmp_path / "to")
    no_cache(monkeypatch, tmp_path)
    blobs = {
        name: [locked.digest, registry.find(f"{locked.name}:v1").manifest.files[0].digest]
        for name, locked in made.components.items()
    }
    for name, digests in blobs.items():
        for digest in digests:
            file = tmp_path / "to" / "sha256" / digest[7:9] / digest[7:]
            flip(file)
            with pytest.raises(ResolutionError) as caught:
                Resolver(BOTH, lockfile=tmp_path / "to", frozen=True).start()
            assert list(caught.value.failures) == [name]
            assert isinstance(caught.value.failures[name], DigestMismatch)
            flip(file)
    assert Resolver(BOTH, lockfile=tmp_path / "to", frozen=True).start().lock == made


def test_a_missing_or_oversized_file_in_the_folder_is_named(registry: Registry, tmp_path: Path, monkeypatch):
    made = installed(registry, tmp_path / "to")
    no_cache(monkeypatch, tmp_path)
    digest = made.components["kb"].digest
    file = tmp_path / "to" / "sha256" / digest[7:9] / digest[7:]
    file.unlink()
    with pytest.raises(ResolutionError) as caught:
        Resolver(BOTH, lockfile=tmp_path / "to", frozen=True).start()
    assert {n: type(e) for n, e in caught.value.failures.items()} == {"kb": BlobMissing}
    with file.open("wb") as out:
        out.truncate(10**12)
    with pytest.raises(ResolutionError) as caught:
        Resolver(BOTH, lockfile=tmp_path / "to", frozen=True).start()
    assert {n: type(e) for n, e in caught.value.failures.items()} == {"kb": DigestMismatch}


def test_a_bundle_is_locked_and_installed_as_one_component(registry: Registry, tmp_path: Path, monkeypatch):
    @dataclass(frozen=True)
    class Stack:
        agent: la.Files
        kb: la.Files

    registry.log("stack", la.Bundle({"agent": "agent:v1", "kb": "kb:v1"}), aliases="prod")
    made = lockfiles.lock(Stack, registry, bundle="stack:prod")
    assert {n: c.reference for n, c in made.components.items()} == {"bundle": "stack:prod"}
    lockfiles.install(made, registry, tmp_path / "to")
    no_cache(monkeypatch, tmp_path)
    generation = Resolver(Stack, "stack:prod", registry=UNTOUCHABLE, lockfile=tmp_path / "to", frozen=True).start()
    assert generation.value.kb.read("kb.txt").startswith(b"kb 1")
