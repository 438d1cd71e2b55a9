"""Looking back: state at a time, versions by page and tag, near names, lineage, runs, audit, verify, stats."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

import pytest

from llmartifacts.errors import Conflict, Damaged, DigestMismatch, NotFound
from llmartifacts.records.backend import Draft, Input
from llmartifacts.records.canonical import canonical_bytes
from llmartifacts.records.manifest import Component, Manifest
from llmartifacts.records.reference import Reference

R = Reference.parse


def test_state_at_a_time_is_what_the_alias_meant_then(short: Any) -> None:
    for content in "12":
        short.log("a", content)
        short.log("b", content)
    first = short.promote("a:v1", "b:v1")
    second = short.promote("a:v2")
    third = short.rollback("b:prod")
    before = short.backend.state("default", "prod", at=first.at - timedelta(microseconds=1))
    assert (dict(before), before.revision) == ({}, 0)
    for promotion, expected in [(first, {"a": 1, "b": 1}), (second, {"a": 2, "b": 1}), (third, {"a": 2})]:
        state = short.backend.state("default", "prod", at=promotion.at)
        assert {n: e.version.number for n, e in state.items()} == expected
        assert state.revision == promotion.revision
    assert short.backend.state("default", "prod")["a"].move.promotion == second.id


def test_state_of_latest_follows_the_logs(short: Any) -> None:
    first = short.log("a", "1")
    short.log("a", "2")
    assert short.backend.state("default", "latest", at=first.created_at)["a"].version.number == 1
    assert short.backend.state("default", "latest")["a"].version.number == 2


def test_history_of_latest_tells_every_log_that_moved_it(short: Any) -> None:
    short.log("a", "1", message="one")
    short.log("a", "2", message="two")
    short.log("a", "2")
    short.log("a", "1")
    history = short.backend.history("default", R("a:latest"))
    assert [(h.old, h.new, h.reason) for h in history] == [(2, 1, "one"), (1, 2, "two"), (None, 1, "one")]
    assert short.backend.revision("default") == 0


def test_versions_come_newest_first_and_by_page(short: Any) -> None:
    for i in range(7):
        short.log("a", str(i))
    page = short.backend.versions("default", "a", limit=3)
    assert [v.number for v in page] == [7, 6, 5]
    assert [v.number for v in short.backend.versions("default", "a", limit=3, before=5)] == [4, 3, 2]
    assert len(short.backend.versions("default", "a")) == 7


def test_versions_are_filtered_by_tags(short: Any) -> None:
    short.log("a", "1", tags={"team": "x", "lang": "de"})
    short.log("a", "2", tags={"team": "x"})
    assert [v.number for v in short.backend.versions("default", "a", tags={"team": "x", "lang": "de"})] == [1]


def test_tagged_versions_come_newest_first_and_by_page_whatever_other_collections_carry(short: Any) -> None:
    for i in range(6):
        short.log("b", str(i), tags={"team": "x"})
        short.log("a", str(i), tags={"team": "x", "even": "yes"} if i % 2 else {"team": "y"})
    short.backend.tag("default", R("a:v1"), set={"team": "x"}, remove=[], actor="ann")

    def page(tags: dict[str, str], **more: int) -> list[int]:
        return [v.number for v in short.backend.versions("default", "a", tags=tags, **more)]

    assert page({"team": "x"}) == [6, 4, 2, 1]
    assert page({"team": "x"}, limit=2) == [6, 4]
    assert page({"team": "x"}, limit=2, before=4) == [2, 1]
    assert page({"team": "x", "even": "yes"}, before=99) == [6, 4, 2]
    assert page({"even": "yes", "team": "x"}, before=3) == [2]
    assert page({"team": "z"}) == []


def test_a_tag_is_set_changed_removed_and_audited(short: Any) -> None:
    short.log("a", "1", tags={"x": "1"})
    version = short.backend.tag("default", R("a:v1"), set={"y": "2", "x": "3"}, remove=["z"], actor="ann")
    assert version.tags == {"x": "3", "y": "2"}
    assert short.backend.tag("default", R("a:v1"), set={}, remove=["x"], actor="ann").tags == {"y": "2"}
    assert [e["verb"] for e in short.backend.audit("default")][-2:] == ["tag", "tag"]


@pytest.mark.parametrize(
    ("reference", "near"),
    [
        ("suport-agent:v1", ("support-agent",)),
        ("SUPPORT-AGENT:v1", ("support-agent",)),
        ("support-agent:prd", ("support-agent:prod",)),
    ],
)
def test_what_is_not_found_gets_near_names(short: Any, reference: str, near: tuple[str, ...]) -> None:
    short.log("support-agent", "1", aliases=("prod",))
    item = short.backend.read("default", [R(reference)]).items[0]
    assert isinstance(item, NotFound)
    assert item.near == near


def test_a_version_that_is_not_there_names_the_newest(short: Any) -> None:
    short.log("a", "1")
    item = short.backend.read("default", [R("a:v7")]).items[0]
    assert isinstance(item, NotFound)
    assert "v1" in item.hint()


def test_a_digest_finds_its_version_and_must_agree_with_the_selector(short: Any) -> None:
    first, second = short.log("a", "1"), short.log("a", "2")
    assert short.at(f"a@{first.digest}") == "v1"
    assert short.at(f"a:v1@{first.digest}") == "v1"
    assert short.at(f"a:v1@{second.digest}") == "-"


def test_a_reading_names_one_revision_and_says_what_failed_in_its_place(short: Any) -> None:
    short.log("a", "1", aliases=("prod",))
    reading = short.backend.read("default", [R("a:prod"), R("b:prod")])
    assert reading.revision == 1
    assert reading.items[0].version.number == 1
    assert isinstance(reading.items[1], NotFound)


def test_an_unknown_project_is_not_found(short: Any) -> None:
    with pytest.raises(NotFound) as caught:
        short.backend.collections("defualt")
    assert caught.value.near == ("default",)
    with pytest.raises(Conflict):
        short.backend.create_project("Default", actor="ann")


def test_lineage_is_the_whole_closure_both_ways(short: Any) -> None:
    short.log("docs", "1")
    short.log("kb", "1", ("docs:v1",))
    short.log("eval", "1")
    index = short.backend.read("default", [R("kb:v1")]).items[0].version
    bundle = Manifest.build("bundle", {}, [], [Component("index", "unknown-kind", index.digest)])
    short.backend.commit(
        "default", [Draft("stack", bundle, inputs=(Input(index.pinned, "contains", "index"),))], actor="ann"
    )
    up = short.backend.lineage("default", R("stack:v1"), "up")
    assert set(up.nodes) == {"stack:v1", "kb:v1", "docs:v1"}
    assert up.to_text().splitlines() == [
        "stack:v1 (bundle) [latest]",
        "└─ contains index: kb:v1 (unknown-kind) [latest]",
        "   └─ derived_from: docs:v1 (unknown-kind) [latest]",
    ]
    down = short.backend.lineage("default", R("docs:v1"), "down")
    assert set(down.nodes) == {"docs:v1", "kb:v1", "stack:v1"}


def test_a_long_chain_of_lineage_is_walked_without_recursion(short: Any) -> None:
    drafts = [short.draft("a", "0")] + [short.draft("a", str(i), (f"a:v{i}",)) for i in range(1, 1500)]
    short.backend.commit("default", drafts, actor="ann")
    lineage = short.backend.lineage("default", R("a:v1500"), "up")
    assert len(lineage.nodes) == 1500
    assert len(lineage.to_text().splitlines()) == 1500


def test_a_run_records_what_it_used_and_produced(short: Any) -> None:
    short.log("docs", "1")
    run = short.backend.start_run("default", "build", parameters={"n": 1}, actor="ann", git_commit="c" * 40)
    short.backend.use_in_run("default", run.id, R("docs:v1"), actor="ann")
    short.log("kb", "1", run=run.id)
    short.backend.end_run("default", run.id, status="done", actor="ann")
    record = short.backend.run("default", run.id)
    assert (record.status, record.parameters, record.git_commit) == ("done", {"n": 1}, "c" * 40)
    assert [r.name for r in record.used] == ["docs"]
    assert [r.name for r in record.produced] == ["kb"]
    assert f"run:{run.id}" in short.backend.lineage("default", R("kb:v1"), "up").nodes
    with pytest.raises(Conflict, match="ended"):
        short.log("kb", "2", run=run.id)
    with pytest.raises(NotFound):
        short.backend.run("default", "nosuch")


def test_a_version_that_an_alias_names_cannot_be_withdrawn(short: Any) -> None:
    short.log("a", "1", aliases=("prod",))
    with pytest.raises(Conflict, match="prod"):
        short.backend.yank("default", R("a:v1"), reason="bad", actor="ann")
    short.rollback("a:prod")
    version = short.backend.yank("default", R("a:v1"), reason="bad", actor="ann")
    assert version.yanked_at is not None
    assert version.yank_reason == "bad"


def test_every_audit_entry_is_canonical_and_its_leaf_is_rfc_6962(short: Any) -> None:
    short.log("a", "1", aliases=("prod",))
    with short.backend._parts.metadata.reading() as s:
        rows = s.rows("select entry, leaf from audit order by id")
    entries = list(short.backend.audit())
    assert len(rows) == len(entries) == 3
    for (text, leaf), entry in zip(rows, entries, strict=True):
        assert canonical_bytes(entry) == text.encode()
        assert hashlib.sha256(b"\0" + text.encode()).digest() == bytes(leaf)


def test_every_change_writes_exactly_one_audit_entry(short: Any) -> None:
    counts = []
    for change in (
        lambda: short.log("a", "1"),
        lambda: short.log("a", "2"),
        lambda: short.promote("a:v1"),
        lambda: short.promote("a:v2"),
        lambda: short.rollback("a:prod"),
        lambda: short.backend.tag("default", R("a:v1"), set={"x": "1"}, remove=[], actor="ann"),
        lambda: short.backend.yank("default", R("a:v2"), reason="bad", actor="ann"),
        lambda: short.backend.remove_alias("default", R("a:prod"), reason="", actor="ann"),
        lambda: short.backend.create_project("p", actor="ann"),
    ):
        before = len(list(short.backend.audit()))
        change()
        counts.append(len(list(short.backend.audit())) - before)
    assert counts == [1] * 9


def test_verify_finds_nothing_wrong_with_a_good_registry(short: Any) -> None:
    short.log("a", "1", aliases=("prod",))
    found = short.backend.verify(read_data=True)
    assert (found.ok, found.versions) == (True, 1)


def _alter(short: Any, sql: str, **parameters: object) -> None:
    with short.backend._parts.metadata.writing() as s:
        s.run(sql, parameters)
    short.backend._parts._manifests.clear()


def test_an_altered_manifest_is_refused_before_parsing_and_its_version_named(short: Any) -> None:
    short.log("a", "1")
    with short.backend._parts.metadata.reading() as s:
        body = bytearray(s.rows("select body from manifest")[0][0])
    body[20] ^= 1
    _alter(short, "update manifest set body = :body", body=bytes(body))
    item = short.backend.read("default", [R("a:v1")]).items[0]
    assert isinstance(item, DigestMismatch)
    assert item.versions == ("a:v1",)
    problems = short.backend.verify().problems
    assert [p.versions for p in problems if isinstance(p, Damaged)] == [("a:v1",)]


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("update alias set number = 2", "its last move went to v1"),
        ("update audit set entry = replace(entry, 'ann', 'eve')", "audit entry"),
        ("update collection set head = 9", "should have 9 versions"),
    ],
)
def test_verify_names_records_that_disagree(short: Any, sql: str, told: str) -> None:
    short.log("a", "1", aliases=("prod",))
    short.log("a", "2")
    _alter(short, sql)
    assert any(told in str(p) for p in short.backend.verify().problems)


def test_stats_count_logical_and_stored_bytes(short: Any) -> None:
    for i in range(3):
        short.log("a", str(i))
    stats = short.backend.stats()
    assert stats.collections[0].versions == 3
    assert stats.collections[0].logical == stats.collections[0].stored == stats.logical > 0
    assert stats.database > 0
