"""Retention removes what no rule keeps and nothing holds, marks it, and never uses its number again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts.errors import Conflict, InvalidInput, NotFound, Removed
from llmartifacts.kinds.report import Metric
from llmartifacts.records.policy import GateResult, Verdict
from llmartifacts.records.retention import Retention
from llmartifacts.versioning import promote
from llmartifacts.versioning.embedded import EmbeddedBackend
from tests.unit.versioning.conftest import Short

NONE = timedelta(0)


def text(number: int) -> la.Prompt:
    return la.Prompt(f"number {number}", template_format="f-string")


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[la.Registry]:
    with la.init(tmp_path / "registry", actor="ann") as made:
        yield made


def log(registry: la.Registry, name: str, *numbers: int) -> None:
    for number in numbers:
        registry.log(name, text(number))


def there(registry: la.Registry, name: str) -> list[int]:
    return [v.number for v in reversed(registry.versions(name)) if v.removed_at is None]


def test_the_newest_of_each_collection_stay_and_the_others_go(registry: la.Registry) -> None:
    log(registry, "a", 1, 2, 3, 4)
    log(registry, "b", 1, 2)
    done = registry.gc(keep_last=2, reason="too many")
    assert done.removed == ("a:v1", "a:v2")
    assert (there(registry, "a"), there(registry, "b")) == ([3, 4], [1, 2])
    assert registry.verify(read_data=True).ok


def test_only_the_collections_that_are_named_lose_versions(registry: la.Registry) -> None:
    for name in ("a", "b"):
        log(registry, name, 1, 2, 3)
    assert registry.gc(keep_last=1, collections="b").removed == ("b:v1", "b:v2")
    assert there(registry, "a") == [1, 2, 3]
    with pytest.raises(NotFound):
        registry.gc(keep_last=1, collections=["a", "nothing"])
    assert there(registry, "a") == [1, 2, 3]


def test_what_was_logged_within_the_time_stays_whatever_its_number(registry: la.Registry) -> None:
    log(registry, "a", 1, 2, 3)
    assert registry.gc(keep_last=1, keep_within=timedelta(days=1)).removed == ()
    assert registry.gc(keep_within=timedelta(days=1)).removed == ()
    parts: Any = registry.backend
    with parts.parts.metadata.writing() as s:
        s.run("update version set created_at = created_at - :day where number < 3", {"day": 2 * 86_400_000_000})
    assert registry.gc(keep_within=timedelta(days=1), dry_run=True).removed == ("a:v1", "a:v2")
    assert registry.gc(keep_last=2, keep_within=timedelta(days=1), dry_run=True).removed == ("a:v1",)


def test_what_an_alias_names_or_named_within_the_window_stays(registry: la.Registry) -> None:
    log(registry, "a", 1, 2, 3, 4, 5)
    registry.promote("a:v1", to="prod")
    registry.promote("a:v2", to="prod")
    registry.promote("a:v3", to="prod")
    assert registry.gc(keep_last=1, dry_run=True).removed == ("a:v4",)
    assert registry.gc(keep_last=1, history=NONE).removed == ("a:v1", "a:v2", "a:v4")
    assert registry.resolve("a:prod", la.Prompt) == text(3)


def test_the_latest_stays_though_others_are_newer(registry: la.Registry) -> None:
    log(registry, "a", 1, 2, 3, 1)
    assert registry.gc(keep_last=1).removed == ("a:v2",)
    assert registry.get("a").number == 1


def test_what_a_bundle_that_stays_contains_stays_and_goes_with_the_last_such_bundle(registry: la.Registry) -> None:
    log(registry, "a", 1, 2, 3)
    registry.log("set", la.Bundle(components={"p": "a:v1"}))
    registry.log("set", la.Bundle(components={"p": "a:v2"}))
    assert registry.gc(keep_last=1, collections="a").removed == ()
    assert registry.gc(keep_last=1).removed == ("a:v1", "set:v1")
    assert there(registry, "a") == [2, 3]
    assert registry.resolve("set:v2", la.Bundle).component("p", la.Prompt) == text(2)


def test_what_a_lease_holds_stays_until_it_ends(registry: la.Registry) -> None:
    log(registry, "a", 1, 2, 3)
    held = registry.lease(["a:v1", "a:v2"], holder="web", length=timedelta(days=1))
    assert registry.leases() == [held]
    assert registry.gc(keep_last=1).removed == ()
    renewed = registry.lease("a:v2", holder="web", length=timedelta(days=2))
    assert renewed.until > held.until
    assert registry.gc(keep_last=1).removed == ("a:v1",)
    with pytest.raises(Removed):
        registry.lease("a:v1", holder="other", length=timedelta(days=1))
    registry.lease("a:v2", holder="web", length=NONE)
    assert registry.leases() == []
    assert registry.gc(keep_last=1).removed == ("a:v2",)


def test_the_report_that_let_a_version_in_stays_with_what_it_was_measured_against(
    registry: la.Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    log(registry, "a", 1, 2, 3)
    log(registry, "base", 11, 12)
    log(registry, "unrelated", 21, 22)
    digests = {name: registry.get(name).digest for name in ("a:v3", "base:v1", "unrelated:v1")}

    def report(score: float) -> la.Report:
        metric = Metric("m", score, 0.0, 1.0, 9)
        return la.Report("s", {"a:v3": digests["a:v3"]}, digests["unrelated:v1"], [metric], baseline=digests["base:v1"])

    for score in (0.7, 0.8, 0.9):
        registry.log("r", report(score), inputs="a:v3")
    rely = str(registry.get("r:v1").pinned)

    def decided(*arguments: Any, **more: Any) -> Any:
        found = real(*arguments, **more)
        given = GateResult("eval_score", "eval_score:s", Verdict.PASS, "good", evidence=(rely,))
        return replace(found, results=(*found.results, given))

    real = promote.decide
    monkeypatch.setattr(promote, "decide", decided)
    registry.promote("a:v3", to="prod")
    monkeypatch.undo()
    assert registry.gc(keep_last=1, history=NONE).removed == ("a:v1", "a:v2", "r:v2")
    assert there(registry, "base") == [1, 2]
    assert there(registry, "unrelated") == [1, 2]


def test_what_the_policy_names_stays(registry: la.Registry) -> None:
    log(registry, "a", 1, 2)
    log(registry, "suite", 1, 2, 3)
    gate = {"eval": {"suite": "suite:v1"}}
    registry.set_policy({"name": "p", "aliases": {"prod": {"kinds": {"*": [gate]}}}})
    assert registry.gc(keep_last=1).removed == ("a:v1", "suite:v2")


def test_a_removed_version_is_told_of_everywhere_and_handed_over_nowhere(registry: la.Registry) -> None:
    log(registry, "a", 1, 2, 3)
    registry.promote("a:v1", to="old")
    registry.log("b", text(9), inputs="a:v1")
    registry.promote("a:v3", to="old")
    registry.gc(keep_last=1, history=NONE, reason="cleaning up")
    calls = (
        lambda: registry.resolve("a:v1"),
        lambda: registry.get("a:v1"),
        lambda: registry.promote("a:v1", to="old"),
        lambda: registry.rollback("a:old", reason="back"),
        lambda: registry.tag("a:v1", set={"x": "y"}),
        lambda: registry.yank("a:v1", reason="bad"),
        lambda: registry.log("c", text(10), inputs="a:v1"),
        lambda: registry.log("set", la.Bundle(components={"p": "a:v1"})),
    )
    for call in calls:
        with pytest.raises(Removed) as caught:
            call()
        assert (caught.value.number, caught.value.by, caught.value.reason) == (1, "ann", "cleaning up")
        assert caught.value.rule == "keep-last 1"
    (gone,) = [v for v in registry.versions("a") if v.number == 1]
    assert (gone.removed_by, gone.remove_reason, gone.remove_rule) == ("ann", "cleaning up", "keep-last 1")
    assert "a:v1" in registry.lineage("b:v1", "up").nodes
    assert "b:v1" in registry.lineage("a:v1", "down").nodes
    assert [entry.new for entry in registry.history("a:old")] == [3, 1]
    assert registry.log("a", text(4)).number == 4
    assert registry.verify_audit().ok
    assert registry.verify(read_data=True).ok


def test_logging_the_same_content_again_brings_a_version_back(registry: la.Registry) -> None:
    registry.log("f", la.Files({"text": b"some text " * 900}), message="first")
    registry.log("f", la.Files({"text": b"other text"}))
    registry.gc(keep_last=1)
    assert registry.stats().collections[0].versions == 1
    again = registry.log("f", la.Files({"text": b"some text " * 900}), message="again")
    assert (again.number, again.created, again.removed_at, again.message) == (1, False, None, "first")
    assert registry.resolve("f:v1", la.Files).read("text") == b"some text " * 900
    (entry,) = registry.audit_log(verb="log", limit=1)
    assert entry.event is not None
    assert entry.event.body["restored"] is True
    assert registry.verify_audit().ok
    assert registry.verify(read_data=True).ok


def test_a_dry_run_says_what_the_real_run_does(shelf: Any) -> None:
    import random

    for number in range(6):
        shelf.log("kb", random.Random(number).randbytes(1_200_000) + b"shared" * 50_000)
    for grace in (timedelta(hours=1), NONE):
        told = shelf.registry.gc(keep_last=3, dry_run=True, grace=grace)
        assert there(shelf.registry, "kb") == ([1, 2, 3, 4, 5, 6] if grace else [4, 5, 6])
        done = shelf.registry.gc(keep_last=3, grace=grace)
        assert {f: getattr(told, f) for f in told.__slots__ if f != "dry_run"} == {
            f: getattr(done, f) for f in done.__slots__ if f != "dry_run"
        }
    assert shelf.on_disk() == done.after


@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"keep_last": 0},
        {"keep_last": True},
        {"keep_last": 1, "keep_within": timedelta(days=-1)},
        {"keep_last": 1, "history": timedelta(days=-1)},
        {"keep_last": 1, "collections": ("a b",)},
        {"keep_last": 1, "reason": " "},
    ],
)
def test_rules_that_cannot_be_are_refused(rules: Any) -> None:
    with pytest.raises(InvalidInput):
        Retention("default", **rules)


def test_nothing_is_removed_where_something_needed_cannot_be_read(shelf: Any) -> None:
    from llmartifacts.errors import Damaged

    shelf.log("kb", b"x" * 9000)
    shelf.log("kb", b"y" * 9000)
    for name in shelf.files("sha256"):
        (shelf.place / "blobs" / name).unlink()
    with pytest.raises(Damaged):
        shelf.registry.gc(keep_last=1)
    assert there(shelf.registry, "kb") == [1, 2]


def test_both_databases_choose_and_mark_the_same(backend: EmbeddedBackend, short: Short) -> None:
    for number in range(4):
        short.log("a", f"{number}")
    short.promote("a:v2")
    rules = Retention("default", 1, history=NONE, reason="old")
    assert backend.gc(dry_run=True, rules=rules, actor="ann").removed == ("a:v1", "a:v3")
    assert backend.gc(rules=rules, actor="ann").removed == ("a:v1", "a:v3")
    assert short.at("a:v1") == "-"
    assert short.at("a:v2") == "v2"
    assert [v.removed_at is None for v in backend.versions("default", "a")] == [True, False, True, False]
    assert short.log("a", "0").number == 1
    assert short.at("a:v1") == "v1"
    assert backend.verify_audit().ok
    assert backend.verify(read_data=True).ok


def test_somebody_who_marks_a_version_behind_the_registry_is_found_out(backend: EmbeddedBackend, short: Short) -> None:
    short.log("a", "1")
    short.log("a", "2")
    backend.gc(rules=Retention("default", 1), actor="ann")
    for change in (
        "update version set removed_at = null where number = 1",
        "update version set removed_at = 5 where number = 1",
        "update version set remove_reason = 'x' where number = 1",
        "update version set removed_at = 5, removed_by = 'bob' where number = 2",
    ):
        with pytest.raises(_Undo), backend.parts.metadata.writing() as s:
            s.run(change)
            assert not backend.verify_audit().ok, change
            raise _Undo
    assert backend.verify_audit().ok


class _Undo(Exception):
    pass


def test_two_who_clean_up_at_once_remove_each_version_once(registry: la.Registry) -> None:
    import threading

    log(registry, "a", *range(20))
    removed: list[str] = []

    def clean() -> None:
        with la.connect(registry.backend.location) as own, suppress(Conflict):
            removed.extend(own.gc(keep_last=5).removed)

    threads = [threading.Thread(target=clean) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(removed) == sorted(f"a:v{n}" for n in range(1, 16))
    assert registry.verify_audit().ok


def test_evidence_that_was_withdrawn_does_not_count_again_when_it_is_removed(registry: la.Registry) -> None:
    log(registry, "a", 1)
    digest = registry.get("a").digest

    def report(score: float) -> la.Report:
        return la.Report("s", {"a:v1": digest}, digest, [Metric("m", score, 0.0, 1.0, 9)])

    registry.log("r", report(0.5), inputs="a:v1")
    registry.log("copy", report(0.5), inputs="a:v1")
    registry.log("r", report(0.6), inputs="a:v1")
    registry.yank("r:v1", reason="wrong")
    assert [str(one.version) for one in registry.evidence("a:v1")[1]] == ["r:v2"]
    assert registry.gc(keep_last=1, collections="r").removed == ("r:v1",)
    assert [str(one.version) for one in registry.evidence("a:v1")[1]] == ["r:v2"]
    registry.log("copy", report(0.7), inputs="a:v1")
    registry.gc(keep_last=1, collections="copy")
    assert [str(one.version) for one in registry.evidence("a:v1")[1]] == ["copy:v2", "r:v2"]
