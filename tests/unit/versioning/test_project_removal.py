"""A project is removed by request, with proof of what is stored nowhere any more."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts.errors import Conflict, InvalidInput, NotFound, Removed
from llmartifacts.records.backend import Draft
from llmartifacts.records.canonical import canonical_bytes
from llmartifacts.records.digest import digest_of
from llmartifacts.records.manifest import Manifest
from llmartifacts.versioning import project_removal
from llmartifacts.versioning.embedded import EmbeddedBackend

CANARY = "what only this customer wrote 55e1"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[la.Registry]:
    monkeypatch.setenv("LLMARTIFACTS_CACHE", str(tmp_path / "cache"))
    with la.init(tmp_path / "registry", actor="ann") as made:
        made.log("acme/notes", la.Files({"own": CANARY.encode() * 9, "shared": b"for all " * 900}))
        made.log("acme/agent", la.Prompt(CANARY, template_format="f-string"))
        made.log("acme/agent", la.Prompt("hello", template_format="f-string"), aliases="prod")
        made.log("acme/set", la.Bundle(components={"p": "acme/agent:v2"}), aliases=["prod", "staging"])
        made.log("agent", la.Prompt("hello", template_format="f-string"), aliases="prod")
        made.log("notes", la.Files({"shared": b"for all " * 900}), inputs="acme/notes:v1")
        yield made


def files_with(folder: Path, needle: bytes) -> list[str]:
    return [str(p) for p in folder.rglob("*") if p.is_file() and needle in p.read_bytes()]


def test_all_of_its_content_goes_and_what_others_need_stays(registry: la.Registry, tmp_path: Path) -> None:
    assert files_with(tmp_path, CANARY.encode())
    shared = digest_of(b"for all " * 900)
    hello = registry.get("agent").digest
    proof = registry.remove_project("acme", reason="contract ended")
    assert files_with(tmp_path, CANARY.encode()) == []
    assert digest_of(CANARY.encode() * 9) in proof.gone
    assert {*proof.remaining} == {shared, hello}
    assert (proof.versions, proof.removed_by, proof.reason, proof.waiting) == (4, "ann", "contract ended", ())
    assert registry.resolve("agent:prod", la.Prompt).format() == "hello"
    assert registry.resolve("notes:v1", la.Files).read("shared") == b"for all " * 900
    assert "acme/notes:v1" in registry.lineage("notes:v1", "up").nodes
    assert registry.verify(read_data=True).problems == ()
    assert registry.verify_audit().ok
    assert [p.name for p in registry.projects()] == ["default"]
    assert registry.stats().unused == 0


def test_the_proof_is_what_the_audit_says_and_a_changed_list_is_found_out(registry: la.Registry) -> None:
    proof = registry.remove_project("acme", reason="contract ended")
    assert proof.list == digest_of(canonical_bytes(list(proof.digests)))
    (entry,) = registry.audit_log(verb="project-remove", limit=1)
    assert entry.event is not None
    assert (entry.number, entry.event.body["list"], entry.event.body["versions"]) == (proof.entry, proof.list, 4)
    assert proof.registry == registry.backend.identity()
    assert registry.verify_audit().ok
    backend: Any = registry.backend
    for change in (
        "update project set removed_at = null where name = 'acme'",
        "update project set removed_at = 7 where name = 'default'",
        "update version set removed_at = null where id = 1",
        "update manifest set body = 'x', erased_at = null where erased_at is not null",
    ):
        with pytest.raises(_Undo), backend.parts.metadata.writing() as s:
            s.run(change)
            assert not registry.verify_audit().ok, change
            raise _Undo


class _Undo(Exception):
    pass


def test_nobody_gets_at_it_and_its_name_is_not_used_again(registry: la.Registry) -> None:
    registry.remove_project("acme", reason="contract ended")
    calls = (
        lambda: registry.resolve("acme/agent:prod"),
        lambda: registry.versions("acme/agent"),
        lambda: registry.log("acme/agent", la.Prompt("back", template_format="f-string")),
        lambda: registry.promote("acme/agent:v2", to="prod"),
        lambda: registry.log("mine", la.Prompt("x", template_format="f-string"), inputs="acme/agent:v2"),
        lambda: la.connect(registry.backend.location, project="acme").history("agent:prod"),
    )
    for call in calls:
        with pytest.raises(Removed, match="removed"):
            call()
    for name in ("acme", "ACME"):
        with pytest.raises(Conflict, match="not used again"):
            registry.create_project(name)


def test_the_same_content_may_be_logged_elsewhere_afterwards(registry: la.Registry) -> None:
    registry.remove_project("acme", reason="contract ended")
    registry.log("other", la.Prompt(CANARY, template_format="f-string"))
    assert registry.resolve("other:v1", la.Prompt).format() == CANARY
    assert registry.verify(read_data=True).problems == ()


def test_where_servers_share_the_store_the_bytes_wait_and_a_second_call_frees_them(registry: la.Registry) -> None:
    proof = registry.remove_project("acme", reason="contract ended", grace=timedelta(hours=1))
    assert digest_of(CANARY.encode() * 9) in proof.waiting
    again = registry.remove_project("acme", reason="once more", grace=timedelta(0))
    assert again.waiting == ()
    assert digest_of(CANARY.encode() * 9) in again.gone
    assert (again.reason, again.entry, again.list) == ("contract ended", proof.entry, proof.list)
    assert len(registry.audit_log(verb="project-remove")) == 1


def test_a_removal_that_stopped_before_its_bytes_were_freed_is_finished_by_the_next(
    registry: la.Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*arguments: Any, **more: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(project_removal, "gc", stopped)
        registry.remove_project("acme", reason="contract ended")
    assert registry.verify_audit().ok
    registry.remove_project("acme", reason="contract ended")
    assert files_with(tmp_path, CANARY.encode()) == []


def test_a_project_that_is_not_there_is_not_removed(registry: la.Registry) -> None:
    with pytest.raises(NotFound):
        registry.remove_project("nothing", reason="r")
    with pytest.raises(InvalidInput):
        registry.remove_project("acme", reason="")
    assert registry.get("acme/agent").number == 2


def test_both_databases_remove_erase_and_lease(backend: EmbeddedBackend) -> None:
    from llmartifacts.records.reference import Reference

    backend.create_project("acme", actor="ann")
    for project in ("acme", "default"):
        for number in (1, 2):
            draft = Draft("a", Manifest.build("unknown-kind", {"of": project if number == 1 else "both"}))
            backend.commit(project, [draft], actor="ann")
    held = backend.lease("default", [Reference("a", number=1)], holder="web", length=timedelta(days=1), actor="ann")
    assert backend.leases("default") == [held]
    proof = backend.remove_project("acme", reason="over", actor="ann")
    assert (len(proof.gone), len(proof.remaining), proof.versions) == (1, 1, 2)
    assert backend.verify_audit().ok
    assert backend.verify(read_data=True).ok
    assert backend.projects()[0].name == "default"


def test_a_dataset_is_erased_in_both_databases(backend: EmbeddedBackend, tmp_path: Path) -> None:
    registry = la.Registry(backend, project="default", actor="ann")
    for lines in ("ab", "b"):
        file = tmp_path / "rows.jsonl"
        file.write_text("".join(f'{{"id": "{one}", "input": "ask"}}\n' for one in lines))
        registry.log("qa", la.EvalDataset.from_file(file))
    done = registry.erase("qa", "a", reason="request")
    assert (done.versions, done.complete) == (("qa:v1",), True)
    assert registry.verify_audit().ok
    assert registry.verify(read_data=True).ok
