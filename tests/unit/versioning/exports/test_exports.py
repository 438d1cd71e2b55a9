"""Collections go from one registry to another in one file: with all they need, once, past no gate."""

from __future__ import annotations

import cProfile
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import llmartifacts as la
from llmartifacts.blobs.store import BlobStore
from llmartifacts.errors import (
    BlobMissing,
    Conflict,
    Damaged,
    GateRefused,
    InvalidInput,
    InvalidReference,
    InvalidValue,
    LlmartifactsError,
    NewerFormat,
    NotAllowed,
    NotFound,
    Refused,
    WrongKind,
)
from llmartifacts.kinds.report.value import Metric
from llmartifacts.metadata import dump
from llmartifacts.records.canonical import canonical_bytes
from llmartifacts.records.digest import digest_bytes, digest_of
from llmartifacts.records.export import HEAD, ExportedInput, ExportedVersion
from llmartifacts.records.manifest import Component, Descriptor, Manifest
from llmartifacts.registry import Registry
from llmartifacts.signing import key_files
from llmartifacts.testing.server import running_server
from llmartifacts.versioning.exports import imports
from llmartifacts.versioning.exports.frames import FrameReader
from llmartifacts.versioning.team import open_team

Frames = list[tuple[bytes, bytes]]


def rows_of(registry: Registry) -> dict[str, Any]:
    """Every row of the registry's database."""
    backend: Any = registry.backend
    with backend.parts.metadata.reading() as s:
        return {table.name: list(dump.rows(s, table)) for table in dump.kept()}


def prompt(text: str) -> la.Prompt:
    return la.Prompt(text, template_format="f-string", model=la.ModelSpec(provider="openai", name="gpt-4-turbo"))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a registry, `source`, and exports of it: `all`, and `small` with one collection of few bytes."""
    folder = tmp_path_factory.mktemp("exporting")
    with la.init(folder / "source") as registry:
        registry.actor = "ann"
        registry.log("docs", la.Files({"a.txt": b"words " * 2000}), tags={"ticket": "CHG-1"}, message="first words")
        registry.log("agent", prompt("hello {name}"))
        registry.log("docs", la.Files({"a.txt": b"other words", "big.bin": os.urandom(1_500_000)}), inputs=["agent:v1"])
        registry.log("many", la.Files({f"folder/{i:04}.txt": f"file {i % 3}".encode() for i in range(700)}))
        registry.log("agent", prompt("good day {name}"), inputs=["docs:v1"])
        registry.log("docs", la.Files({"a.txt": b"third"}))
        registry.log("docs", la.Files({"a.txt": b"other words, withdrawn"}))
        registry.yank("docs:v4", reason="it was wrong")
        registry.log("stack", la.Bundle({"prompt": "agent:v2"}))
        registry.log("agent", prompt("hello {name}"))  # so `latest` is v1 again
        registry.promote(["docs:v2", "agent:v2"], to="prod", reason="ready")
        registry.log("docs", la.Files({"a.txt": b"words " * 2000}), inputs=["docs:v3"])  # an edge to a later version
        registry.log("docs", la.Files({"a.txt": b"third"}))
        registry.log("plain", la.Files({"x": b"some text", "y": b"more text"}), message="plain")
        registry.export(folder / "all")
        registry.export(folder / "small", ["plain"])
    return folder


@pytest.fixture
def source(original: Path, tmp_path: Path) -> Iterator[Registry]:
    shutil.copytree(original / "source", tmp_path / "source")
    with la.connect(tmp_path / "source") as registry:
        yield registry


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Registry]:
    """Another registry, of somebody else, with a collection of its own."""
    with la.init(tmp_path / "here") as registry:
        registry.actor = "bob"
        registry.log("mine", la.Files({"m": b"mine"}))
        yield registry


# --- over and over again


def test_everything_comes_along_under_its_own_number(original: Path, source: Registry, here: Registry) -> None:
    done = here.import_file(original / "all", aliases=True)
    assert (done.new, done.present, done.beyond, done.yanked) == (9, 0, 0, 1)
    assert sorted(done.aliases) == ["default/agent:prod", "default/docs:prod"]
    for name in ("docs", "agent", "many", "stack", "plain"):
        theirs, ours = source.versions(name), here.versions(name)
        assert [(v.number, v.digest, v.message, v.git_commit) for v in ours] == [
            (v.number, v.digest, v.message, v.git_commit) for v in theirs
        ]
        for there, now in zip(theirs, ours, strict=True):
            assert now.author == "bob"
            assert now.tags == {
                **there.tags,
                "imported.origin": source.backend.identity(),
                "imported.version": f"default/{name}:v{there.number}",
                "imported.author": "ann",
            }
            assert now.aliases == there.aliases  # `latest` too
            assert (now.yanked_at is None, now.yank_reason) == (there.yanked_at is None, there.yank_reason)
            edges = {(e.child, e.parent, e.relation, e.role) for e in source.lineage(str(there), "up").edges}
            assert {(e.child, e.parent, e.relation, e.role) for e in here.lineage(str(now), "up").edges} == edges
    big = source.find("docs:v2").manifest.file("big.bin")
    assert big is not None
    assert here.backend.blobs.read(big.blob) == source.backend.blobs.read(big.blob)
    assert here.resolve("stack:v1", la.Bundle).component("prompt", la.Prompt).format(name="x") == "good day x"
    assert here.verify(read_data=True).ok
    assert here.verify_audit().problems == ()


def test_importing_twice_adds_nothing(original: Path, here: Registry) -> None:
    here.import_file(original / "all", aliases=True)
    before = rows_of(here)
    again = here.import_file(original / "all", aliases=True)
    assert (again.new, again.present, again.aliases, again.yanked) == (0, 9, (), 0)
    assert rows_of(here) == before


def test_into_its_own_registry_nothing_is_added(original: Path, source: Registry) -> None:
    before = rows_of(source)
    assert source.import_file(original / "all", aliases=True).new == 0
    assert rows_of(source) == before


def test_a_dry_run_says_the_same_and_changes_nothing(original: Path, here: Registry) -> None:
    before = rows_of(here)
    told = here.import_file(original / "all", dry_run=True)
    assert rows_of(here) == before
    done = here.import_file(original / "all")
    assert (told.new, told.present, told.digest) == (done.new, done.present, done.digest)


def test_an_export_of_an_import_is_one_of_the_same_content(original: Path, here: Registry, tmp_path: Path) -> None:
    here.import_file(original / "all")
    here.export(tmp_path / "again", ["docs", "stack"])
    with la.init(tmp_path / "third") as third:
        done = third.import_file(tmp_path / "again")
        assert [v.digest for v in third.versions("docs")] == [v.digest for v in here.versions("docs")]
        assert third.versions("docs")[0].tags["imported.origin"] == here.backend.identity()
        assert done.new == 6  # and the part of the bundle


def test_where_others_are_here_already_it_goes_on_after_them(original: Path, here: Registry) -> None:
    here.log("docs", la.Files({"a.txt": b"our own"}))
    here.log("docs", la.Files({"a.txt": b"third"}))
    done = next(c for c in here.import_file(original / "all").collections if c.name == "docs")
    assert (done.new, done.present, done.renumbered) == (3, 1, 3)
    assert [v.number for v in here.versions("docs")] == [5, 4, 3, 2, 1]
    assert here.versions("docs")[2].tags["imported.version"] == "default/docs:v1"


def test_a_bundle_brings_its_parts_and_nothing_else(source: Registry, here: Registry, tmp_path: Path) -> None:
    done = source.export(tmp_path / "x", "stack:v1")
    assert (done.versions, done.collections) == (2, 2)
    made = here.import_file(tmp_path / "x")
    assert made.new == 2
    assert made.beyond == 1  # the part was derived from something that did not come along
    assert [v.number for v in here.versions("agent")] == [1]
    assert here.resolve("stack:v1", la.Bundle).component("prompt", la.Prompt).format(name="x") == "good day x"


def test_an_edge_to_what_is_here_already_is_kept(source: Registry, here: Registry, tmp_path: Path) -> None:
    source.export(tmp_path / "docs", "docs:v1")
    source.export(tmp_path / "agent", "agent:v2")
    here.import_file(tmp_path / "docs")
    assert here.import_file(tmp_path / "agent").beyond == 0
    assert [e.parent for e in here.lineage("agent:v1", "up").edges] == ["docs:v1"]


def test_projects_keep_their_names_or_become_one_that_is_named(
    source: Registry, here: Registry, original: Path, tmp_path: Path
) -> None:
    assert here.import_file(original / "small", project="acme").new == 1
    assert [p.name for p in here.projects()] == ["acme", "default"]
    with la.connect(source.backend.location, project="other") as other:
        other.log("theirs", la.Files({"t": b"t"}), inputs=["default/docs:v1"])
        other.export(tmp_path / "two")
    with pytest.raises(InvalidInput, match="2 projects"):
        here.import_file(tmp_path / "two", project="acme")
    done = here.import_file(tmp_path / "two")
    assert {c.project for c in done.collections} == {"default", "other"}
    edges = {(e.child, e.parent) for e in here.lineage("other/theirs:v1", "up").edges}
    assert ("other/theirs:v1", "docs:v1") in edges


def test_what_was_removed_is_not_exported(source: Registry, here: Registry, tmp_path: Path) -> None:
    source.log("removed", la.Files({"r": b"1"}))
    source.log("removed", la.Files({"r": b"2"}))
    backend: Any = source.backend
    with backend.parts.metadata.writing() as s:
        s.run(
            "update version set removed_at = 1, removed_by = 'x' where number = 1"
            " and collection_id = (select id from collection where name = 'removed')"
        )
    assert source.export(tmp_path / "x", "removed").versions == 1
    here.import_file(tmp_path / "x")
    assert here.versions("removed")[0].tags["imported.version"] == "default/removed:v2"


def test_over_postgresql_it_is_the_same(original: Path, here: Registry, postgres_url: str, tmp_path: Path) -> None:
    backend = open_team(postgres_url, str(tmp_path / "blobs"), connections=2)
    with Registry(backend, project="default", actor="bob") as team:
        assert team.import_file(original / "all", aliases=True).new == 9
        assert team.import_file(original / "all", aliases=True).new == 0
        assert team.verify(read_data=True).ok
        assert team.export(tmp_path / "again").versions == 9
    done = here.import_file(tmp_path / "again", aliases=True)
    assert (done.new, done.beyond, len(done.aliases)) == (9, 0, 2)
    assert [v.number for v in here.versions("docs")] == [4, 3, 2, 1]


@pytest.mark.slow
def test_a_server_takes_an_import_by_its_own_rules(original: Path, tmp_path: Path, monkeypatch: Any) -> None:
    with running_server(tmp_path / "served") as server:
        monkeypatch.setenv("LLMARTIFACTS_TOKEN", server.token)
        with la.connect(server.url) as remote:
            done = remote.import_file(original / "all", aliases=True)
            assert (done.new, done.yanked, done.beyond) == (9, 1, 0)
            assert [v.number for v in remote.versions("docs")] == [4, 3, 2, 1]
            assert remote.versions("agent")[0].author == "admin"
            assert remote.import_file(original / "all", aliases=True).new == 0
            assert remote.resolve("docs:prod", la.Files)
            with pytest.raises(NotAllowed, match="server's host"):
                remote.export(tmp_path / "x")
            with pytest.raises(NotAllowed, match="server's host"):
                remote.backup(str(tmp_path / "b"))
            with pytest.raises(NotFound, match="project"):
                remote.import_file(original / "small", project="acme")
    with la.connect(tmp_path / "served") as served:
        assert served.verify(read_data=True).ok


# --- what does not go together is said, and nothing is left


def test_another_kind_under_the_same_name_is_refused_and_nothing_is_logged(original: Path, here: Registry) -> None:
    here.log("agent", la.Files({"x": b"no prompt"}))
    before = rows_of(here)
    with pytest.raises(WrongKind, match="agent holds files versions"):
        here.import_file(original / "all")
    assert rows_of(here) == before


def test_a_name_that_differs_in_case_only_is_refused(original: Path, here: Registry) -> None:
    here.log("Plain", la.Files({"x": b"x"}))
    before = rows_of(here)
    for more in ({}, {"project": "Default"}):
        with pytest.raises(InvalidReference, match="case only"):
            here.import_file(original / "small", **more)
    assert rows_of(here) == before


def test_an_import_moves_no_alias_past_a_gate(original: Path, here: Registry) -> None:
    here.set_policy({"name": "strict", "aliases": {"prod": {"kinds": {"*": [{"approvals": {"count": 1}}]}}}})
    with pytest.raises(GateRefused):
        here.import_file(original / "all", aliases=True)
    assert len(here.versions("docs")) == 4  # they are here, to be judged
    assert not any("prod" in v.aliases for name in ("docs", "agent") for v in here.versions(name))
    assert here.verify().ok


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMARTIFACTS_KEYS", str(tmp_path / "keys"))
    key_files.create("ann", "Ann")
    key_files.create("eve", "Eve")


SUITE = """
name: quality
dataset: questions
target: agent
outputs: {runnable: my_app:answer}
scorers: [{type: equals}]
thresholds: {equals: {at_least: 0.5}}
"""


@pytest.fixture
def marked(tmp_path: Path) -> Iterator[Registry]:
    """Somebody's registry, whose `agent:prod` has a good report, as anybody can make one up."""
    (tmp_path / "quality.yaml").write_text(SUITE)
    with la.init(tmp_path / "marked") as registry:
        registry.log("questions", la.EvalDataset([{"id": "1", "input": "a", "expected_output": "b"}]))
        registry.log("quality", la.EvalSuite.from_file(tmp_path / "quality.yaml"))
        registry.log("agent", prompt("hello {name}"), aliases="prod")
        scorer = registry.find("quality").manifest.config["scorers"][0]
        metric = Metric("equals", 0.9, 0.85, 0.95, 400, scorer=digest_of(canonical_bytes(scorer)))
        on, data = {"agent:v1": registry.get("agent:v1").digest}, registry.get("questions").digest
        report = la.Report("quality", on, data, [metric], suite_digest=registry.get("quality").digest)
        registry.log("quality-report", report, inputs=["agent:v1", "questions:v1", "quality:v1"])
        yield registry


@pytest.mark.usefixtures("keys")
def test_a_file_cannot_bring_a_candidate_together_with_its_good_marks(
    marked: Registry, here: Registry, tmp_path: Path
) -> None:
    here.set_policy({"name": "p", "aliases": {"prod": {"kinds": {"*": [{"eval": {"suite": "quality"}}]}}}})
    marked.export(tmp_path / "x")
    with pytest.raises(GateRefused):
        here.import_file(tmp_path / "x", aliases=True)
    assert [r.vouched for r in here.evidence("agent:v1")[1]] == [False]
    assert "prod" not in here.get("agent:v1").aliases
    with pytest.raises(GateRefused):
        here.import_file(tmp_path / "x", aliases=True)
    assert here.verify().ok


@pytest.mark.usefixtures("keys")
def test_reports_count_where_somebody_who_is_trusted_signed_the_file(
    marked: Registry, here: Registry, tmp_path: Path
) -> None:
    here.set_policy({"name": "p", "aliases": {"prod": {"kinds": {"*": [{"eval": {"suite": "quality"}}]}}}})
    public = key_files.load("ann").private.public
    here.backend.trust_key(public.text, person="Ann", roles=(), actor="root")
    marked.export(tmp_path / "x", key="ann")
    assert here.import_file(tmp_path / "x", aliases=True).aliases == ("default/agent:prod",)
    assert [r.vouched for r in here.evidence("agent:v1")[1]] == [True]


def test_no_file_is_overwritten_and_none_is_left_where_an_export_fails(
    source: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(Conflict, match="already"):
        source.export(tmp_path / "taken")
    for wrong in ("nowhere", "docs:v9", "acme/docs"):
        with pytest.raises(NotFound):
            source.export(tmp_path / "x", wrong)
    with pytest.raises(InvalidInput):
        source.export(tmp_path / "x", [])
    with pytest.raises(NotFound, match="folder"):
        source.export(tmp_path / "nowhere" / "x")

    def missing(self: Any, *given: Any) -> Any:
        raise BlobMissing("gone")

    monkeypatch.setattr(BlobStore, "copy", missing)
    with pytest.raises(BlobMissing):
        source.export(tmp_path / "x")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source", "taken"]
    assert (tmp_path / "taken").read_text() == "mine"


# --- killed half-way


def test_an_import_that_was_killed_leaves_nothing_and_works_the_next_time(
    original: Path, here: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmartifacts.metadata import audit

    before, record, left = rows_of(here), audit.record, [5]

    def killed(*given: Any, **more: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        record(*given, **more)

    monkeypatch.setattr(audit, "record", killed)
    with pytest.raises(KeyboardInterrupt):
        here.import_file(original / "all")
    monkeypatch.undo()
    assert rows_of(here) == before
    assert here.import_file(original / "all").new == 9
    assert here.verify(read_data=True).ok


def test_one_of_several_transactions_that_was_killed_is_gone_on_with(
    original: Path, here: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, left = type(here.backend).commit, [2]

    def killed(self: Any, *given: Any, **more: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return commit(self, *given, **more)

    monkeypatch.setattr(imports, "BATCH", 2)
    monkeypatch.setattr(type(here.backend), "commit", killed)
    with pytest.raises(KeyboardInterrupt):
        here.import_file(original / "all")
    left[0] = 100
    assert here.verify(read_data=True).ok
    done = here.import_file(original / "all")
    assert (done.new, done.present) == (5, 4)
    assert here.verify(read_data=True).ok
    assert [v.number for v in here.versions("docs")] == [4, 3, 2, 1]


def test_what_was_withdrawn_is_withdrawn_by_the_transaction_that_logs_it(
    original: Path, here: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = type(here.backend).commit
    monkeypatch.setattr(imports, "BATCH", 1)

    def killed(self: Any, project: str, drafts: Any, **more: Any) -> Any:
        made = commit(self, project, drafts, **more)
        if (made[0].name, made[0].number) == ("stack", 1):  # logged after docs:v4, which was withdrawn
            raise KeyboardInterrupt
        return made

    monkeypatch.setattr(type(here.backend), "commit", killed)
    with pytest.raises(KeyboardInterrupt):
        here.import_file(original / "all")
    withdrawn = here.get("docs:v4")
    assert (withdrawn.yanked_at is not None, withdrawn.yank_reason) == (True, "it was wrong")
    monkeypatch.undo()
    assert here.import_file(original / "all").yanked == 0  # the rest of it, and that is done
    assert here.verify(read_data=True).ok


def test_where_a_withdrawal_fails_what_was_logged_with_it_is_undone(
    original: Path, here: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = rows_of(here)

    def killed(*given: Any, **more: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(type(here.backend), "yank", killed)
    with pytest.raises(KeyboardInterrupt):
        here.import_file(original / "all")
    assert rows_of(here) == before


def test_a_file_that_is_altered_between_the_look_and_the_logging_is_refused(
    original: Path, here: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(original / "all", tmp_path / "x")
    before, plan = rows_of(here), imports._Importer.plan

    def altered(self: Any) -> None:
        plan(self)
        data = (tmp_path / "x").read_bytes()
        with open(tmp_path / "x", "r+b") as file:  # in place: the file is open already
            file.write(data.replace(b"first words", b"other words"))

    monkeypatch.setattr(imports._Importer, "plan", altered)
    with pytest.raises(InvalidInput, match="changed while it was read"):
        here.import_file(tmp_path / "x")
    assert rows_of(here) == before


def test_a_version_that_was_checked_is_read_the_second_time_as_the_first(original: Path) -> None:
    bodies = [body for kind, body in frames_of(original / "all") if kind == b"V"]
    assert len(bodies) == 9
    for body in bodies:
        checked, again = ExportedVersion.from_bytes(body, "here"), ExportedVersion.known(body)
        assert again == checked
        assert again.manifest.to_bytes() == checked.manifest.to_bytes()
        assert again.manifest.digest == checked.manifest.digest == digest_of(again.manifest.to_bytes())


def calls_of(work: Callable[[], object]) -> int:
    """How many calls of functions something takes."""
    profile = cProfile.Profile()
    profile.runcall(work)
    return sum(one.callcount for one in profile.getstats())


def test_each_of_many_collections_costs_the_same(original: Path, tmp_path: Path) -> None:
    head = frames_of(original / "small")[0]
    plain = replace(version_of(frames_of(original / "small")), aliases=("prod",))
    config = prompt("hello").to_config()
    calls = {}
    for count in (50, 400):
        manifests = [Manifest.build("prompt", {**config, "template": f"hello {i}"}) for i in range(count)]
        named = [replace(plain, name=f"c{i}", manifest=one).to_bytes() for i, one in enumerate(manifests)]
        file = sealed(tmp_path / str(count), [head, *((b"V", body) for body in named)])
        with la.init(tmp_path / f"of {count}") as registry:
            calls[count] = calls_of(partial(registry.import_file, file)), calls_of(partial(registry.import_file, file))
            assert len(registry.collections()) == count
    for few, many in zip(*calls.values(), strict=True):
        assert many < 9 * few


# --- signatures


@pytest.mark.usefixtures("keys")
def test_a_signature_counts_where_its_key_is_trusted(source: Registry, here: Registry, tmp_path: Path) -> None:
    source.export(tmp_path / "x", "plain", key="ann")
    with pytest.raises(Refused, match="no key that counts"):
        here.import_file(tmp_path / "x", require_signature=True)
    assert here.import_file(tmp_path / "x", dry_run=True).signed is None
    public = key_files.load("ann").private.public
    here.backend.trust_key(public.text, person="Ann", roles=(), actor="root")
    done = here.import_file(tmp_path / "x", require_signature=True)
    assert done.signed is not None
    assert (done.signed.person, done.signed.key) == ("Ann", public.id)
    here.backend.revoke_key(public.id, reason="lost", actor="root")
    with pytest.raises(Refused):
        here.import_file(tmp_path / "x", require_signature=True)


@pytest.mark.usefixtures("keys")
def test_a_signature_is_for_one_export_and_cannot_be_forged(
    source: Registry, here: Registry, original: Path, tmp_path: Path
) -> None:
    with pytest.raises(Refused, match="nobody signed"):
        here.import_file(original / "small", require_signature=True)
    source.export(tmp_path / "mine", "plain", key="ann")
    source.export(tmp_path / "other", "docs", key="ann")
    here.backend.trust_key(key_files.load("ann").private.public.text, person="Ann", roles=(), actor="root")
    stolen = next(body for kind, body in frames_of(tmp_path / "mine") if kind == b"S")
    sealed(tmp_path / "stolen", [f if f[0] != b"S" else (b"S", stolen) for f in frames_of(tmp_path / "other")])
    with pytest.raises(InvalidValue, match="another export"):
        here.import_file(tmp_path / "stolen")
    by_eve = tmp_path / "by-eve"
    source.export(by_eve, "plain", key="eve")
    eves, anns = (key_files.load(name).private.public.id.encode() for name in ("eve", "ann"))
    forged = [(kind, body.replace(eves, anns) if kind == b"S" else body) for kind, body in frames_of(by_eve)]
    sealed(tmp_path / "forged", forged)
    with pytest.raises(LlmartifactsError, match="forged"):
        here.import_file(tmp_path / "forged")
    assert [c.name for c in here.collections()] == ["mine"]


# --- made by somebody hostile


def frames_of(file: Path) -> Frames:
    reader = FrameReader(file)
    try:
        return [(f.kind, f.body) for f in reader.frames() if f.kind != b"E"]
    finally:
        reader.close()


def sealed(file: Path, frames: Frames) -> Path:
    """Frames as an export whose end is right, whatever they say."""
    data = HEAD + b"".join(kind + len(body).to_bytes(8, "little") + body for kind, body in frames)
    end = hashlib.sha256(data).digest()
    file.write_bytes(data + b"E" + len(end).to_bytes(8, "little") + end)
    return file


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_an_export_cut_short_or_altered_anywhere_is_refused(
    original: Path, here: Registry, tmp_path: Path, data: st.DataObject
) -> None:
    true = (original / "small").read_bytes()
    length = data.draw(st.integers(0, len(true) - 1))
    file = tmp_path / "x"
    file.write_bytes(true[:length])
    with pytest.raises(Damaged):
        here.import_file(file)
    altered = bytearray(true)
    altered[length] ^= data.draw(st.integers(1, 255))
    file.write_bytes(altered)
    with pytest.raises((Damaged, InvalidInput, NewerFormat)):
        here.import_file(file)
    file.write_bytes(true + b"\0")
    with pytest.raises(Damaged, match="after its end"):
        here.import_file(file)
    assert [c.name for c in here.collections()] == ["mine"]


def _blob(content: bytes) -> Frames:
    head = hashlib.sha256(content).digest() + len(content).to_bytes(8, "little")
    return [(b"B", head), (b"D", b"\0" + len(content).to_bytes(4, "little") + content)]


def _version(change: Callable[[ExportedVersion], ExportedVersion], *, extra: Frames | None = None) -> Any:
    def lie(frames: Frames) -> Frames:
        given = ExportedVersion.from_bytes(frames[-1][1], "here")
        return [*frames[:-1], *(extra or []), (b"V", change(given).to_bytes())]

    return lie


def _text(old: bytes, new: bytes) -> Any:
    def lie(frames: Frames) -> Frames:
        assert old in frames[-1][1]
        return [*frames[:-1], (b"V", frames[-1][1].replace(old, new, 1))]

    return lie


OTHER = Manifest.build("files", {}, files=[Descriptor("z", digest_of(b"z"), 1)])
BOMB = b"\1" + (1024 * 1024).to_bytes(4, "little")
LIES: dict[str, Callable[[Frames], Frames]] = {
    "nothing in it": lambda f: [],
    "no versions": lambda f: f[:1],
    "no header": lambda f: f[1:],
    "two headers": lambda f: [f[0], *f],
    "a header of another sort": lambda f: [(b"H", b"[]"), *f[1:]],
    "a header of no registry": lambda f: [(b"H", f[0][1].replace(b"llmartifacts/", b"llmartifactz/")), *f[1:]],
    "a frame of no kind": lambda f: [*f, (b"Z", b"")],
    "a part without a file": lambda f: [f[0], (b"D", b"\0\1\0\0\0x"), *f[1:]],
    "a part too few": lambda f: [f[0], f[1], *f[3:]],
    "a part too many": lambda f: [*f[:3], f[2], *f[3:]],
    "a file twice": lambda f: [*f[:3], *f[1:]],
    "a file that nobody needs": lambda f: [*f, *_blob(b"stowaway")],
    "a file that is another": lambda f: [*f[:2], (b"D", f[2][1][:-1] + b"!"), *f[3:]],
    "a file that is missing": lambda f: [f[0], *f[3:]],
    "a file after what needs it": lambda f: [f[0], f[-1], *f[1:-1]],
    "a file of a size beyond any": lambda f: [f[0], (b"B", f[1][1][:32] + b"\xff" * 8), *f[2:]],
    "a file with half a head": lambda f: [f[0], (b"B", f[1][1][:20]), *f[2:]],
    "a part that says it is larger": lambda f: [*f[:2], (b"D", b"\0\xff\xff\0\0" + f[2][1][5:]), *f[3:]],
    "a part of no form": lambda f: [*f[:2], (b"D", b"\7" + f[2][1][1:]), *f[3:]],
    "a part that is no frame": lambda f: [*f[:2], (b"D", b"\1" + f[2][1][1:]), *f[3:]],
    "a bomb": lambda f: [
        f[0],
        (b"B", bytes(32) + (1 << 40).to_bytes(8, "little")),
        (b"D", BOMB + zstandard.ZstdCompressor().compress(bytes(200_000_000))),
        *f[1:],
    ],
    "a version twice": lambda f: [*f, f[-1]],
    "the same content under another number": lambda f: [*f, (b"V", f[-1][1].replace(b'"number":1', b'"number":2'))],
    "a version of no JSON": lambda f: [*f[:-1], (b"V", b"{")],
    "a version with a field more": _text(b'{"aliases"', b'{"admin":true,"aliases"'),
    "a version with a key twice": _text(b'"latest":true', b'"latest":true,"latest":true'),
    "a manifest that is another's": _text(b'"digest":"sha256:', b'"digest":"sha256:0'),
    "a manifest of another digest": _text(b"llmartifacts/manifest/1", b"llmartifacts/manifest/1 "),
    "a name that climbs": _text(b'"name":"plain"', b'"name":"../plain"'),
    "a project that is none": _text(b'"project":"default"', b'"project":"a/b"'),
    "a number that is none": _text(b'"number":1', b'"number":0'),
    "a number beyond any": _text(b'"number":1', b'"number":9999999999'),
    "an alias that nobody may set": _text(b'"aliases":[]', b'"aliases":["latest"]'),
    "an author on two lines": _text(b'"author":"ann"', b'"author":"ann\\nroot"'),
    "a time that is none": _text(b'"at":"2', b'"at":"x'),
    "a tag that is none": _version(lambda v: replace(v, tags={"a b": "c"})),
    "too many tags": _version(lambda v: replace(v, tags={f"t{i}": "x" for i in range(300)})),
    "a relation that is none": _version(
        lambda v: replace(v, inputs=(ExportedInput("default", "a", 1, v.manifest.digest, "owns"),))  # type: ignore[arg-type]
    ),
    "an edge to a run": _version(
        lambda v: replace(v, inputs=(ExportedInput("default", "a", 1, v.manifest.digest, "produced_by"),))
    ),
    "a role without a part": _version(
        lambda v: replace(v, inputs=(ExportedInput("default", "a", 1, v.manifest.digest, "contains", "prompt"),))
    ),
    "too many inputs": _version(
        lambda v: replace(v, inputs=(ExportedInput("default", "a", 1, v.manifest.digest, "derived_from"),) * 1001)
    ),
    "a file of another size": _version(
        lambda v: replace(
            v, manifest=replace_files(v.manifest, [replace(v.manifest.files[0], size=5), *v.manifest.files[1:]])
        )
    ),
    "a file on one machine": _version(
        lambda v: replace(
            v, manifest=replace_files(v.manifest, [*v.manifest.files, Descriptor("z", digest_of(b"z"), 1, "file:///z")])
        )
    ),
    "kinds mixed under a name": lambda f: [
        *f,
        (b"V", replace(version_of(f), number=2, manifest=Manifest.build("other", {"a": 1}), latest=False).to_bytes()),
    ],
    "names that differ in case": lambda f: [
        *f,
        (b"V", replace(version_of(f), name="PLAIN", latest=False).to_bytes()),
    ],
    "two that are latest": lambda f: [
        *f, *_blob(b"z"), (b"V", replace(version_of(f), number=2, manifest=OTHER).to_bytes()),
    ],
    "an alias at two versions": lambda f: [
        *f[:-1],
        (b"V", replace(version_of(f), aliases=("prod",)).to_bytes()),
        *_blob(b"z"),
        (b"V", replace(version_of(f), number=2, manifest=OTHER, latest=False, aliases=("prod",)).to_bytes()),
    ],
    "numbers that go back": lambda f: [
        *f[:-1],
        (b"V", replace(version_of(f), number=2).to_bytes()),
        *_blob(b"z"),
        (b"V", replace(version_of(f), number=1, manifest=OTHER, latest=False).to_bytes()),
    ],
    "a config that its kind refuses": lambda f: [
        *f,
        (b"V", replace(version_of(f), name="p", manifest=Manifest.build("prompt", {"no": "prompt"})).to_bytes()),
    ],
    "a bundle without its parts": lambda f: [
        *f,
        (b"V", replace(version_of(f), name="b", manifest=bundle(digest_of(b"nowhere"))).to_bytes()),
    ],
}  # fmt: skip


def version_of(frames: Frames) -> ExportedVersion:
    return ExportedVersion.from_bytes(frames[-1][1], "here")


def replace_files(manifest: Manifest, files: list[Descriptor]) -> Manifest:
    return Manifest(manifest.kind, manifest.config, tuple(files), manifest.components)


def bundle(part: Any) -> Manifest:
    config = {"models": {}, "inputs": [], "parameters": {}}
    return Manifest("bundle", config, (), (Component("prompt", "prompt", part),))


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.replace(" ", "-"))
def test_an_export_that_somebody_made_up_is_refused_and_leaves_nothing(
    original: Path, here: Registry, tmp_path: Path, lie: str
) -> None:
    before = rows_of(here)
    file = sealed(tmp_path / "x", LIES[lie](frames_of(original / "small")))
    with pytest.raises((Damaged, InvalidInput)) as raised:
        here.import_file(file)
    assert len(str(raised.value)) < 1500
    assert raised.value.hint()
    assert rows_of(here) == before
    assert [p.name for p in (tmp_path / "here" / "tmp").iterdir()] == []
    here.import_file(original / "small")  # and the true one is as welcome as before


def test_a_bundle_whose_part_is_neither_in_the_file_nor_here_is_refused(
    original: Path, here: Registry, tmp_path: Path
) -> None:
    part = digest_of(b"nowhere")
    one = replace(
        version_of(frames_of(original / "small")),
        name="b",
        manifest=bundle(part),
        inputs=(ExportedInput("default", "p", 1, part, "contains", "prompt"),),
    )
    before = rows_of(here)
    with pytest.raises(NotFound, match="neither in the export nor here"):
        here.import_file(sealed(tmp_path / "x", [*frames_of(original / "small"), (b"V", one.to_bytes())]))
    assert rows_of(here) == before


def test_a_part_that_is_of_another_kind_than_the_bundle_says_is_refused(
    original: Path, here: Registry, tmp_path: Path
) -> None:
    frames = frames_of(original / "small")
    plain = version_of(frames)
    one = replace(
        plain,
        name="b",
        manifest=bundle(plain.manifest.digest),
        inputs=(ExportedInput("default", "plain", 1, plain.manifest.digest, "contains", "prompt"),),
    )
    before = rows_of(here)
    with pytest.raises(InvalidValue, match="is no prompt"):
        here.import_file(sealed(tmp_path / "x", [*frames, (b"V", one.to_bytes())]))
    assert rows_of(here) == before


def test_a_file_that_is_no_export_is_said_to_be_none(here: Registry, tmp_path: Path) -> None:
    (tmp_path / "zip").write_bytes(b"PK\3\4" + bytes(100))
    (tmp_path / "newer").write_bytes(b"LLMAEX9\n" + bytes(100))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidInput, match="no export"):
        here.import_file(tmp_path / "zip")
    with pytest.raises(NewerFormat):
        here.import_file(tmp_path / "newer")
    for name in ("pipe", "here"):
        with pytest.raises(InvalidInput, match="plain file"):
            here.import_file(tmp_path / name)
    with pytest.raises(NotFound):
        here.import_file(tmp_path / "nowhere")


def test_digests_in_the_file_are_those_of_what_is_in_it(original: Path) -> None:
    frames = frames_of(original / "small")
    named = {body[:32] for kind, body in frames if kind == b"B"}
    assert named == {digest_bytes(f.digest) for f in version_of(frames).manifest.files}
