"""A registry directory that somebody hostile prepared, or altered by hand: told in a typed way, nothing is obeyed."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

import llmartifacts as la
from llmartifacts.cli.main import main
from llmartifacts.errors import (
    Conflict,
    Damaged,
    InvalidInput,
    LlmartifactsError,
    NewerFormat,
    NotFound,
    UnsafeContent,
)
from llmartifacts.metadata import sqlite_pages


def prompt(text: str = "Hi {{ x }}") -> la.Prompt:
    return la.Prompt(text, template_format="jinja2")


def spoil(place: Path, name: str) -> None:
    database = place / "registry.db"
    if name == "a link in the place of the database":
        database.rename(place / "real.db")
        database.symlink_to("real.db")
    elif name == "a directory in the place of the database":
        database.unlink()
        database.mkdir()
    elif name == "a pipe in the place of the database":
        database.unlink()
        os.mkfifo(database)
    elif name == "a link in the place of the log":
        Path(f"{database}-wal").symlink_to(place / "elsewhere")
    elif name == "a directory in the place of the index of the log":
        Path(f"{database}-shm").mkdir()
    elif name == "a rollback journal":
        Path(f"{database}-journal").write_bytes(bytes.fromhex("d9d505f920a163d7") + b"\0" * 600)
    elif name == "garbage":
        database.write_bytes(b"nothing that is a database " * 400)
    elif name == "half a database":
        database.write_bytes(database.read_bytes()[: database.stat().st_size // 2])
    elif name == "nothing in it":
        database.write_bytes(b"")
    elif name == "another program's database":
        database.unlink()
        alter(place, "create table notes(text)")
    elif name == "a newer schema":
        alter(place, "update meta set value = 99")
    elif name == "a schema that is none":
        alter(place, "update meta set value = 'abc'")
    elif name == "an older schema that it has not":
        alter(place, "update meta set value = 0")
    elif name == "an endless view in the place of a table":
        endless = "with recursive n(x) as (select 1 union all select x + 1 from n) select 'schema' as name, x as value"
        alter(place, f"drop table meta; create view meta as {endless} from n")
    elif name == "a trigger":
        alter(place, "create trigger t after insert on audit begin delete from audit; end")


SPOILT = {
    "a link in the place of the database": UnsafeContent,
    "a directory in the place of the database": UnsafeContent,
    "a pipe in the place of the database": UnsafeContent,
    "a link in the place of the log": UnsafeContent,
    "a directory in the place of the index of the log": UnsafeContent,
    "a rollback journal": UnsafeContent,
    "garbage": Damaged,
    "half a database": Damaged,
    "nothing in it": NotFound,
    "another program's database": NotFound,
    "a newer schema": NewerFormat,
    "a schema that is none": Damaged,
    "an older schema that it has not": Damaged,
    "an endless view in the place of a table": UnsafeContent,
    "a trigger": UnsafeContent,
}


def alter(place: Path, sql: str) -> None:
    connection = apsw.Connection(str(place / "registry.db"), vfs=sqlite_pages.vfs())
    connection.execute("pragma foreign_keys=off")
    connection.execute(sql)
    connection.close()


@pytest.mark.parametrize("name", SPOILT)
def test_a_registry_is_refused_that_has(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil(place, name)
    with pytest.raises(LlmartifactsError) as caught:
        la.connect(place)
    assert type(caught.value) is SPOILT[name]
    assert caught.value.hint()
    assert main(["--registry", str(place), "ls"]) in (3, 5, 10)
    told = capsys.readouterr().err
    assert "hint:" in told
    assert "Traceback" not in told


@pytest.mark.parametrize("what", ["directory", "link"])
def test_a_queue_that_is_no_file_lets_nobody_write_and_everybody_read(place: Path, what: str) -> None:
    queue = place / "registry.db.lock"
    queue.unlink()
    if what == "directory":
        queue.mkdir()
    else:
        queue.symlink_to(place / "made by a victim")
    with la.connect(place) as registry:
        assert registry.get("a:prod").number == 1
        with pytest.raises(UnsafeContent) as caught:
            registry.promote("a:v2", to="prod")
    assert caught.value.hint()
    assert not (place / "made by a victim").exists()


def test_a_link_in_the_place_of_the_scratch_folder_deletes_nothing_elsewhere(place: Path, tmp_path: Path) -> None:
    for name in ("stage-eu", "stage-0123456789abcdef"):
        (tmp_path / "deploy" / name).mkdir(parents=True)
        (tmp_path / "deploy" / name / "config.yaml").write_text("precious")
    (place / "tmp").rmdir()
    (place / "tmp").symlink_to(tmp_path / "deploy")
    with la.connect(place) as registry:
        assert registry.get("a:prod").number == 1
        with pytest.raises(UnsafeContent):
            registry.log("f", la.Files({"x": b"y" * 5000}))
    assert len(list((tmp_path / "deploy").glob("*/config.yaml"))) == 2


def test_a_folder_beside_the_staged_ones_that_only_looks_like_one_stays(place: Path) -> None:
    (place / "tmp" / "stage-eu").mkdir()
    (place / "tmp" / "stage-0123456789abcdef").mkdir()
    la.connect(place).close()
    assert [p.name for p in (place / "tmp").iterdir()] == ["stage-eu"]


def test_a_repository_around_the_working_directory_cannot_hold_a_log_up(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a" * 40)
    heads: list[bytes | None] = [b"\xff\xfe", b"ref: a\x00b", b"ref: ../../secret", b"ref: refs/../../../secret", None]
    for i, head in enumerate(heads):
        git = tmp_path / f"work{i}" / ".git"
        git.mkdir(parents=True)
        if head is None:
            os.mkfifo(git / "HEAD")
        else:
            (git / "HEAD").write_bytes(head)
        monkeypatch.chdir(git.parent)
        with la.connect(place) as registry:
            assert registry.log("a", prompt(f"in {i}")).git_commit == ""


# --- rows altered by hand

VERBS: dict[str, Callable[[la.Registry], object]] = {
    "resolve": lambda r: r.resolve("a:prod"),
    "resolve files": lambda r: r.resolve("f:v1", la.Files).read("x"),
    "resolve a bundle": lambda r: r.resolve("set:prod"),
    "versions": lambda r: [v.tags for v in r.versions("a")],
    "collections": lambda r: r.collections(),
    "history": lambda r: (r.history("a:prod"), r.history("a")),
    "state": lambda r: (r.state("prod"), r.state("latest")),
    "lineage": lambda r: (r.lineage("set"), r.lineage("a:v1", "down"), r.lineage("out")),
    "runs": lambda r: r.runs(),
    "projects": lambda r: r.projects(),
    "promotions": lambda r: r.promotions(),
    "stats": lambda r: r.stats(),
    "audit": lambda r: list(r.backend.audit()),
    "verify": lambda r: r.verify(read_data=True),
    "log": lambda r: r.log("a", prompt("new"), aliases="fresh"),
    "promote": lambda r: r.promote("a:v2", to="prod"),
    "rollback": lambda r: r.rollback("a:prod", whole=True, reason="x"),
    "tag": lambda r: r.tag("a:v1", set={"z": "1"}),
    "yank": lambda r: r.yank("f:v1", reason="x"),
    "stats of one": lambda r: r.stats("f"),
    "migrate": lambda r: r.migrate(),
    "gc": lambda r: (r.gc(dry_run=True), r.gc(compact=True)),
}
TABLES = ["project", "collection", "manifest", "content", "version", "alias", "promotion", "move", "edge", "tag"]
TABLES += ["run", "run_version", "audit", "meta"]
CELLS = {"nothing": "null", "a big number": "9223372036854775807", "text": "'zz'", "no text": "cast(x'ff00' as text)"}


def use(registry: la.Registry) -> None:
    """Every verb ends well or with a typed error; anything else fails the test."""
    for verb in VERBS.values():
        with contextlib.suppress(LlmartifactsError):
            verb(registry)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("table", TABLES)
def test_a_row_with_something_else_in_a_column_is_a_typed_error(
    original: Path, tmp_path: Path, table: str, cell: str
) -> None:
    columns = [r[1] for r in apsw.Connection(str(original / "registry.db")).execute(f"pragma table_info({table})")]
    for column in columns:
        copy = tmp_path / column
        shutil.copytree(original, copy)
        try:
            alter(copy, f"update {table} set {column} = {CELLS[cell]} where rowid = (select max(rowid) from {table})")
        except (apsw.ConstraintError, apsw.MismatchError):
            continue  # the schema refuses it
        try:
            registry = la.connect(copy)
        except (Damaged, NewerFormat):
            continue
        with registry:
            use(registry)


@pytest.mark.parametrize("table", TABLES)
def test_a_table_without_rows_or_missing_is_a_typed_error(original: Path, tmp_path: Path, table: str) -> None:
    for sql in (f"delete from {table}", f"drop table {table}"):
        copy = tmp_path / sql.split()[0]
        shutil.copytree(original, copy)
        alter(copy, sql)
        try:
            registry = la.connect(copy)
        except (Damaged, NotFound):
            continue
        with registry:
            use(registry)


@pytest.mark.parametrize(
    ("sql", "reference"),
    [
        ("delete from manifest", "a:prod"),
        ("delete from version", "a:v1"),
        ("delete from version where number = 1", "a:prod"),
        ("delete from version", "a:latest"),
    ],
)
def test_what_the_database_promised_and_has_not_is_damage_and_not_a_mistyped_name(
    place: Path, sql: str, reference: str
) -> None:
    alter(place, sql)
    with la.connect(place) as registry, pytest.raises(Damaged) as caught:
        registry.resolve(reference)
    assert "llmartifacts verify" in caught.value.hint()


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("update version set digest = (select max(digest) from manifest) where number = 1", "digest is not what"),
        ("update version set author = 'eve' where number = 1", "author is not what the audit says"),
        ("update version set message = 'fine' where number = 1", "message is not what the audit says"),
        ("update version set created_at = created_at - 1", "time is not what the audit says"),
        ("update version set yanked_at = null where yanked_at is not null", "withdrawal is not what the audit says"),
        ("update version set yank_reason = 'no reason' where yanked_at is not null", "reason is not"),
        ("update promotion set actor = 'eve' where revision = 1", "actor is not what the audit says"),
        ("update promotion set reason = 'x' where verb = 'rollback'", "reason is not what the audit says"),
        ("update promotion set ticket = ''", "ticket is not what the audit says"),
        ("update move set new = 2 where alias = 'prod' and number = 1", "goal is not what the audit says"),
        ("update move set old = 2 where alias = 'prod' and number = 1", "start is not what the audit says"),
        ("update move set actor = 'eve' where alias = 'prod'", "does not belong to its promotion"),
        ("update move set undone_by = 1 where alias = 'prod' and number = 1", "does not belong to its promotion"),
        ("update collection set latest = 1 where name = 'a'", "latest is v1"),
        ("update project set revision = 77", "at revision 77"),
        ("delete from promotion where revision = 1", "is missing, and the audit tells of it"),
        ("delete from audit where verb = 'yank'", "withdrawn versions, and the audit tells of 0"),
        ("delete from audit where verb = 'log'", "versions, and the audit tells of 0"),
        ("delete from content", "not on the list of what is needed"),
        ("update alias set number = 2 where name = 'prod'", "its last move went to v1"),
    ],
)
def test_verify_names_what_was_altered_by_hand(place: Path, sql: str, told: str) -> None:
    alter(place, sql)
    with la.connect(place) as registry:
        problems = [str(p) for p in registry.verify().problems]
    assert any(told in p for p in problems), problems


def test_verify_finds_nothing_wrong_with_what_nobody_altered(registry: la.Registry) -> None:
    assert registry.verify(read_data=True).problems == ()


# --- odd places


@pytest.mark.parametrize("where", ["/dev/null", "/proc/self/mem", "x" * 5000, "a\nb", "~", "."], ids=lambda v: v[:12])
def test_a_registry_named_in_the_environment_that_is_none_is_told_without_a_traceback(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMARTIFACTS_REGISTRY", where)
    assert main(["ls"]) in (2, 3)
    told = capsys.readouterr().err
    assert "hint:" in told
    assert "Traceback" not in told
    assert list(tmp_path.iterdir()) == []


def test_init_where_nothing_can_be_made_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for where in (tmp_path / "file", tmp_path / "dangling", tmp_path / "file" / "below", tmp_path / ("x" * 300)):
        with pytest.raises((Conflict, InvalidInput, UnsafeContent)):
            la.init(where)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dangling", "file"]


@pytest.mark.parametrize("what", ["file", "loop", "device", "dangling"])
def test_a_cache_that_is_no_folder_keeps_no_service_from_starting(
    place: Path, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    if what == "file":
        cache.write_text("x")
    else:
        cache.symlink_to({"loop": cache, "device": "/dev/null", "dangling": tmp_path / "nowhere"}[what])
    monkeypatch.setenv("LLMARTIFACTS_CACHE", str(cache))
    with la.Resolver({"f": "f:v1", "a": "a:prod"}, registry=str(place)) as resolver:
        assert resolver.current.value["f"].read("x") == b"x" * 5000
