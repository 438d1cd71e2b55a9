"""The registry's verbs as a user calls them, over the real embedded backend."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts import errors
from llmartifacts.records.version import Version


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[la.Registry]:
    with la.init(tmp_path / "registry") as made:
        yield made


def files(text: str) -> la.Files:
    return la.Files({"notes.txt": text.encode()})


def test_the_story_of_one_component(registry: la.Registry) -> None:
    first = registry.log("docs", files("one"), message="first", tags={"ticket": "CHG-1"})
    assert (first.created, str(first.reference), first.message) == (True, "docs:v1", "first")
    registry.log("docs", files("two"), aliases=["staging"])
    registry.promote("docs:v1", to="prod", reason="launch")
    registry.promote("docs:staging", to="prod", reason="better", expect={"docs": "v1"})
    assert registry.resolve("docs:prod", la.Files).read("notes.txt") == b"two"
    registry.rollback("docs:prod", reason="it was not")
    assert registry.resolve("docs:prod", la.Files).read("notes.txt") == b"one"
    assert [h.verb for h in registry.history("docs:prod")] == ["rollback", "promote", "promote"]


def test_one_string_is_a_list_of_one(registry: la.Registry) -> None:
    registry.log("a", files("1"), aliases="staging")
    registry.log("b", files("2"), inputs="a:v1")
    registry.promote("a:v1", to="prod")
    assert registry.get("a:prod").aliases == ("latest", "prod", "staging")


def test_a_prefix_names_another_project_and_one_call_stays_in_one(registry: la.Registry) -> None:
    registry.log("acme/docs", files("1"))
    assert registry.get("acme/docs:v1").project == "acme"
    assert str(registry.get("acme/docs").reference) == "acme/docs:v1"
    registry.log("docs", files("2"))
    with pytest.raises(errors.InvalidReference, match="several projects"):
        registry.promote(["docs:v1", "acme/docs:v1"], to="prod")


def test_log_many_is_one_transaction(registry: la.Registry) -> None:
    made = registry.log_many([("a", files("1")), ("b", files("2")), ("a", files("3"))], tags={"batch": "1"})
    assert [str(v) for v in made] == ["a:v1", "b:v1", "a:v2"]
    with pytest.raises(errors.InvalidReference):
        registry.log_many([("c", files("1")), ("../d", files("2"))])
    assert [c.name for c in registry.collections()] == ["a", "b"]
    assert registry.log_many([]) == []


def test_identity_lies_in_the_content_alone(registry: la.Registry) -> None:
    first = registry.log("a", files("x"), message="m", tags={"k": "v"})
    again = registry.log("a", files("x"), message="other", inputs="a:v1")
    assert (again.number, again.digest, again.created, again.message) == (1, first.digest, False, "m")
    assert registry.log("b", files("x")).digest == first.digest


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda r: r.log("a:v1", files("x")), errors.InvalidReference),
        (lambda r: r.log("../a", files("x")), errors.InvalidReference),
        (lambda r: r.log("sha256", files("x")), errors.InvalidReference),
        (lambda r: r.log("a" * 129, files("x")), errors.InvalidReference),
        (lambda r: r.log("new", files("x"), aliases="latest"), errors.InvalidReference),
        (lambda r: r.log("new", files("x"), aliases="v1"), errors.InvalidReference),
        (lambda r: r.log("new", files("x"), aliases="PROD"), errors.InvalidReference),
        (lambda r: r.log("new", files("x"), tags={"a b": "c"}), errors.InvalidReference),
        (lambda r: r.log("new", files("x"), tags={"a": "line\nline"}), errors.InvalidReference),
        (lambda r: r.log("new", files("x"), inputs="docs"), errors.InvalidReference),
        (lambda r: r.log("new", files("x"), inputs="nosuch:v1"), errors.NotFound),
        (lambda r: r.log("new", object()), errors.WrongKind),
        (lambda r: r.log("new", "a string"), errors.WrongKind),
        (lambda r: r.resolve("docs"), errors.InvalidReference),
        (lambda r: r.resolve("docs:v9"), errors.NotFound),
        (lambda r: r.resolve("docs:v1", la.Prompt), errors.WrongKind),
        (lambda r: r.promote("docs", to="prod"), errors.InvalidReference),
        (lambda r: r.promote([], to="prod"), errors.InvalidReference),
        (lambda r: r.promote("docs:v1", to=[]), errors.InvalidReference),
        (lambda r: r.promote("docs:v1", to="latest"), errors.InvalidReference),
        (lambda r: r.promote(["docs:v1", "docs:v1"], to="prod"), errors.InvalidReference),
        (lambda r: r.promote("docs:v1", to="prod", expect={"other": "v1"}), errors.InvalidReference),
        (lambda r: r.promote("docs:v1", to="prod", expect={"docs": "one"}), errors.InvalidReference),
        (lambda r: r.rollback("prod", reason="x"), errors.InvalidReference),
        (lambda r: r.rollback("docs:v1", reason="x"), errors.InvalidReference),
        (lambda r: r.rollback("docs:prod", reason=" "), errors.InvalidInput),
        (lambda r: r.rollback("docs:latest", reason="x"), errors.InvalidReference),
        (lambda r: r.rollback("docs:prod", to="other:v1", reason="x"), errors.InvalidReference),
        (lambda r: r.yank("docs:v1", reason=""), errors.InvalidInput),
        (lambda r: r.history("docs:v1"), errors.InvalidReference),
        (lambda r: r.state("prod", at="yesterday"), errors.InvalidInput),
        (lambda r: r.state("docs:prod"), errors.InvalidReference),
        (lambda r: r.rollback("default@r1", to="docs:v1", reason="x"), errors.InvalidInput),
        (lambda r: r.lineage("docs:v1", "sideways"), errors.InvalidInput),
        (lambda r: r.create_project("a/b"), errors.InvalidReference),
        (lambda r: r.create_project("DEFAULT"), errors.Conflict),
        (lambda r: r.remove_alias("docs:v1"), errors.InvalidReference),
    ],
)
def test_bad_input_is_a_typed_error_and_leaves_nothing(registry: la.Registry, call: Any, error: type) -> None:
    registry.log("docs", files("x"))
    before = sorted(p.name for p in Path(registry.backend.location, "blobs").rglob("*"))
    audited = len(list(registry.backend.audit(None)))
    with pytest.raises(error) as caught:
        call(registry)
    assert isinstance(caught.value, errors.LlmartifactsError)
    assert len(list(registry.backend.audit(None))) == audited
    assert sorted(p.name for p in Path(registry.backend.location, "blobs").rglob("*")) == before
    assert list(Path(registry.backend.location, "tmp").rglob("*.part")) == []
    assert [c.name for c in registry.collections()] == ["docs"]


def test_a_rollback_of_a_bare_alias_lists_recent_promotions(registry: la.Registry) -> None:
    registry.log("docs", files("x"), aliases="prod")
    with pytest.raises(errors.InvalidReference) as caught:
        registry.rollback("prod", reason="x")
    assert "default@r1" in caught.value.hint()


def test_a_withdrawn_version_resolves_by_digest_only_and_says_so(registry: la.Registry) -> None:
    version = registry.log("docs", files("x"))
    registry.yank("docs:v1", reason="wrong licence")
    with pytest.raises(errors.Yanked, match="wrong licence") as caught:
        registry.resolve("docs:v1")
    assert str(version.digest) in caught.value.hint()
    with pytest.warns(la.YankedWarning, match="wrong licence"):
        registry.resolve(f"docs@{version.digest}", la.Files)


def test_diff_says_what_changed_in_the_words_of_the_kind(registry: la.Registry) -> None:
    registry.log("docs", files("one"))
    registry.log("docs", files("two"))
    diff = registry.diff("docs:v1", "docs:v2")
    assert (diff.before, diff.after) == ("docs:v1", "docs:v2")
    assert "notes.txt" in str(diff)
    assert not registry.diff("docs:v1", "docs:v1")


def test_pull_writes_verified_files_and_never_into_a_full_directory(registry: la.Registry, tmp_path: Path) -> None:
    registry.log("docs", la.Files({"a/b.txt": b"1", "manifest.json": b"2"}))
    written = registry.pull("docs", tmp_path / "out" / "here")
    assert [p.relative_to(tmp_path / "out" / "here").as_posix() for p in written] == [
        ".manifest.json",
        "a/b.txt",
        "manifest.json",
    ]
    with pytest.raises(errors.Conflict):
        registry.pull("docs", tmp_path / "out" / "here")


def test_a_damaged_pull_leaves_the_directory_as_it_was(registry: la.Registry, tmp_path: Path) -> None:
    registry.log("docs", la.Files({"a.txt": b"1" * 50, "b.txt": b"2" * 50}))
    for blob in Path(registry.backend.location, "blobs").rglob("*"):
        if blob.is_file():
            blob.chmod(0o644)
            blob.write_bytes(b"x")
    with pytest.raises(errors.Damaged):
        registry.pull("docs", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_that_raises_is_kept_as_failed_with_what_it_used(registry: la.Registry) -> None:
    registry.log("docs", files("x"))
    with pytest.raises(ZeroDivisionError), registry.run("build", parameters={"n": 1}) as run:
        run.use("docs:v1", la.Files)
        _ = 1 / 0
    record = registry.get_run(run.id)
    assert (record.status, record.error) == ("failed", "ZeroDivisionError: division by zero")
    assert [r.name for r in record.used] == ["docs"]
    assert registry.runs()[0].id == run.id


def test_what_a_run_logs_is_derived_from_what_it_used(registry: la.Registry) -> None:
    registry.log("docs", files("x"))
    with registry.run("build") as run:
        run.use("docs:v1", la.Files)
        version: Version = run.log("index", files("y"))
    assert version.run == run.id
    up = registry.lineage("index:v1", "up")
    assert {e.relation for e in up.edges} == {"derived_from", "produced_by"}


def test_reading_several_names_one_revision(registry: la.Registry) -> None:
    registry.log("a", files("1"), aliases="prod")
    registry.log("b", files("2"), aliases="prod")
    reading = registry.read(["a:prod", "b:prod", "c:prod"])
    assert reading.revision == 2
    assert isinstance(reading.items[2], errors.NotFound)


def test_a_large_config_is_kept_and_resolved(registry: la.Registry) -> None:
    prompt = la.Prompt("{{ x }}" + "long " * 30_000, template_format="jinja2")
    registry.log("big", prompt)
    with la.connect(registry.backend.location) as other:
        assert other.resolve("big:v1", la.Prompt).format(x="1").startswith("1long")
        assert other.verify(read_data=True).ok


def test_a_run_refuses_a_withdrawn_version_as_resolve_does(registry: la.Registry) -> None:
    version = registry.log("docs", files("x"))
    registry.yank("docs:v1", reason="wrong licence")
    with pytest.raises(errors.Yanked), registry.run("build") as run:
        run.use("docs:v1")
    with pytest.warns(la.YankedWarning), registry.run("build") as run:
        run.use(version.pinned, la.Files)
    assert [len(r.used) for r in registry.runs()] == [1, 0]


def test_the_goal_of_a_rollback_may_name_its_project(registry: la.Registry) -> None:
    for text in "12":
        registry.log("docs", files(text), aliases="prod")
    registry.rollback("docs:prod", to="default/docs:v1", reason="back")
    assert registry.get("docs:prod").number == 1
    with pytest.raises(errors.InvalidReference):
        registry.rollback("docs:prod", to="other/docs:v1", reason="back")


def test_the_first_log_of_a_project_may_be_a_large_file(registry: la.Registry) -> None:
    large = la.Files({"large": bytes(range(256)) * 5000})
    with la.connect(registry.backend.location, project="new") as other:
        assert str(other.log("docs", large)) == "new/docs:v1"
        assert other.resolve("docs:v1", la.Files).read("large") == bytes(range(256)) * 5000
