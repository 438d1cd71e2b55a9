"""A hostile `llmartifacts.lock`: refused in a typed way, and no data of another project handed out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts.cli.main import main
from llmartifacts.errors import InvalidInput, LlmartifactsError, NewerFormat, NotFound, ResolutionError, UnsafeContent
from llmartifacts.records.canonical import canonical_bytes
from llmartifacts.records.digest import digest_of
from llmartifacts.runtime import lockfile

SPEC = {"a": "a:prod", "f": "f:v1"}
Body = dict[str, Any]


@pytest.fixture
def good(registry: la.Registry) -> Body:
    """The lockfile of two components."""
    made: Body = json.loads(lockfile.lock(SPEC, registry).to_text())
    return made


def consistent(body: Body) -> Body:
    """The same lockfile, its digest made to fit again: its author knows how."""
    digests = {name: entry["digest"] for name, entry in body["components"].items()}
    made = {**body, "set": digest_of(canonical_bytes(digests))}
    made.pop("check", None)
    return made


def changed(body: Body, **entry: Any) -> Body:
    components = {**body["components"], "a": {**body["components"]["a"], **entry}}
    return consistent({**body, "components": components})


BAD: dict[str, Callable[[Body], Any]] = {
    "no JSON": lambda b: "{",
    "nothing": lambda b: "null",
    "nested without end": lambda b: "[" * 10**6,
    "17 MB": lambda b: " " * 17_000_000,
    "a key twice": lambda b: json.dumps(b)[:-1] + ', "set": ""}',
    "a list of components": lambda b: {**b, "components": []},
    "a digest that does not fit": lambda b: {**b, "set": digest_of(b"")},
    "a digest that is none": lambda b: changed(b, digest="sha256:zz"),
    "a version that is none": lambda b: changed(b, version="v0"),
    "a version beyond the last": lambda b: changed(b, version="v" + "9" * 10**5),
    "a size that is none": lambda b: changed(b, size=-1),
    "a size beyond all": lambda b: changed(b, size=2**60),
    "a move that is none": lambda b: changed(b, move="1"),
    "a kind that is no name": lambda b: changed(b, kind="os.system('x')"),
    "a reference without a selector": lambda b: changed(b, reference="a"),
    "a reference into another project": lambda b: changed(b, reference="other/a:prod"),
    "a project that is no name": lambda b: {**b, "project": "../x"},
    "a revision that is none": lambda b: {**b, "revision": "1"},
    "a name that a terminal obeys": lambda b: consistent(
        {**b, "components": {**b["components"], "\x1b[31m": b["components"]["a"]}}
    ),
    "a name of many characters": lambda b: consistent(
        {**b, "components": {**b["components"], "x" * 10**6: b["components"]["a"]}}
    ),
    "many components": lambda b: consistent(
        {**b, "components": {f"n{i}": b["components"]["a"] for i in range(20_000)}}
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_lockfile_is_refused_that_has(
    what: str, good: Body, place: Path, registry: la.Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = BAD[what](good)
    file = tmp_path / "llmartifacts.lock"
    file.write_text(body if isinstance(body, str) else json.dumps(body))
    with pytest.raises(InvalidInput) as caught:
        lockfile.read(file)
    assert caught.value.origin == str(file)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000
    for frozen in (True, False):
        with pytest.raises(ResolutionError) as failed:
            la.Resolver(SPEC, registry=registry, lockfile=file, frozen=frozen).start()
        assert failed.value.failures.keys() == {"a", "f"}
    assert main(["--registry", str(place), "install", str(file)]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_newer_lockfile_says_so(tmp_path: Path) -> None:
    file = tmp_path / "llmartifacts.lock"
    file.write_text('{"schema": "llmartifacts/lock/99"}')
    with pytest.raises(NewerFormat):
        lockfile.read(file)


@pytest.mark.parametrize(
    "change",
    [
        lambda body, secret: changed(body, digest=secret),
        lambda body, secret: changed(body, digest=secret, version="v2"),
        lambda body, secret: changed(body, digest=body["components"]["f"]["digest"]),
        lambda body, secret: changed(body, version="v999999999"),
        lambda body, secret: changed(body, kind="files"),
        lambda body, secret: changed(body, size=10**15),
        lambda body, secret: {**body, "project": "other"},
    ],
)
def test_a_lockfile_that_speaks_of_something_else_starts_no_service_from_the_registry(
    good: Body, place: Path, tmp_path: Path, change: Callable[[Body, str], Body]
) -> None:
    with la.connect(place) as registry:
        secret = registry.log("other/a", la.Prompt("secret of another project", template_format="jinja2")).digest
        file = tmp_path / "llmartifacts.lock"
        file.write_text(json.dumps(change(good, secret)))
        with pytest.raises(ResolutionError) as caught:
            la.Resolver(SPEC, registry=registry, lockfile=file).start()
        assert "a" in caught.value.failures
        assert "secret of" not in str(caught.value)


@pytest.mark.parametrize("what", ["pipe", "device", "loop", "nowhere"])
def test_what_is_no_plain_file_is_no_lockfile_and_holds_nobody_up(what: str, tmp_path: Path) -> None:
    file = tmp_path / "llmartifacts.lock"
    if what == "pipe":
        os.mkfifo(file)
    else:
        file.symlink_to({"device": "/dev/zero", "loop": file, "nowhere": tmp_path / "none"}[what])
    with pytest.raises((UnsafeContent, NotFound)) as caught:
        lockfile.read(file)
    assert caught.value.hint()
    with pytest.raises(LlmartifactsError):
        la.Resolver(SPEC, lockfile=file, frozen=True).start()


def test_a_thousand_components_are_upgraded_at_once(good: Body, registry: la.Registry, tmp_path: Path) -> None:
    body = consistent({**good, "components": {f"n{i}": good["components"]["a"] for i in range(1000)}})
    (tmp_path / "llmartifacts.lock").write_text(json.dumps(body))
    lock = lockfile.read(tmp_path)
    registry.promote("a:v2", to="prod")
    assert {c.number for c in lockfile.upgrade(lock, registry).components.values()} == {2}
    assert len(lockfile.check(lock, registry)) == 1000
