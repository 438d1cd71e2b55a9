"""Every command on a real registry: what people read, and what `--json` says."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts import wire
from llmartifacts.records.backend import Stats, Verification
from llmartifacts.records.diff import Diff
from llmartifacts.records.promotion import HistoryEntry, Move, Promotion, State
from llmartifacts.records.version import Collection, Project, RunRecord, Version

Cli = Callable[..., Any]
Log = Callable[..., dict[str, Any]]
VERSION = {"reference", *(f.name for f in dataclasses.fields(Version))}


def keys(record: type[Any]) -> set[str]:
    return {f.name for f in dataclasses.fields(record)}


# --- init, log


def test_init_makes_a_registry_and_says_what_comes_next(cli: Cli, tmp_path: Path) -> None:
    text = cli("init").out
    assert text.startswith("made .llmartifacts\nnext: llmartifacts log ")
    assert "--registry" not in text
    assert "--registry other" in cli("init", "other").out
    made = cli("init", "third", "--project", "acme", "--json").json
    assert made == {"location": str(tmp_path / "third"), "project": "acme", "copied": []}
    cli("--registry", "fourth", "init")
    assert (tmp_path / "fourth").is_dir()


def test_init_notes_that_later_commands_go_elsewhere_where_a_variable_says_so(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMARTIFACTS_REGISTRY", "https://user:secret@registry.example.org")
    told = cli("init").out
    assert "note: later commands use $LLMARTIFACTS_REGISTRY, which names another registry" in told
    assert "secret" not in told
    monkeypatch.setenv("LLMARTIFACTS_REGISTRY", str(tmp_path / "other"))
    assert "note: " in cli("init", "third").out
    assert "note: " not in cli("init", "other").out


def test_init_copies_starter_content_or_makes_nothing(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "eval_suites").mkdir()
    assert "leave out --starter" in cli("init", "--starter", expect=wire.CONFLICT).err
    assert [p.name for p in tmp_path.iterdir()] == ["eval_suites"]
    (tmp_path / "eval_suites").rmdir()
    copied = cli("init", "--starter", "--json").json["copied"]
    assert all((tmp_path / path).is_file() for path in copied)
    assert {path.partition("/")[0] for path in copied} == {"templates", "eval_suites", "policies"}
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    told = cli("init", "--starter").out.partition("next: llmartifacts ")[2].split("\n")[0]
    assert "log prompt" in told
    cli(*told.split())


def test_init_where_there_is_one_already_is_a_conflict(cli: Cli) -> None:
    cli("init")
    assert cli("init", expect=wire.CONFLICT).err.startswith("error: ")


def test_log_says_whether_it_is_new(cli: Cli, tmp_path: Path) -> None:
    cli("init")
    (tmp_path / "a.txt").write_text("hello")
    line = ("log", "files", "docs", "a.txt", "-m", "first", "--tag", "owner=qa", "-a", "staging", "-a", "prod")
    first = cli(*line)
    assert first.out.startswith("docs:v1  sha256:")
    for word in ("  new\n", "1 file, 5 B", "latest, prod, staging", "owner=qa"):
        assert word in first.out
    assert "docs:v1" in cli(*line).out
    assert "this content was logged before" in cli(*line).out
    again = cli(*line, "--json").json
    assert again.keys() == VERSION
    assert (again["reference"], again["created"], again["tags"]) == ("docs:v1", False, {"owner": "qa"})


def test_log_of_a_prompt_reads_its_template(cli: Cli, tmp_path: Path) -> None:
    cli("init")
    (tmp_path / "hello.j2").write_text("Hello {{ name }}")
    assert cli("log", "prompt", "hello", "hello.j2", "--json").json["kind"] == "prompt"
    with la.connect(tmp_path / ".llmartifacts") as registry:
        assert registry.resolve("hello:v1", la.Prompt).format(name="Ada") == "Hello Ada"


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("log", "promt", "x", "a.txt"), wire.NOT_FOUND, "'promt'"),
        (("log", "files", "x", "a.tx"), wire.NOT_FOUND, "Did you mean a.txt?"),
        (("log", "files", "x", "a.txt", "--option", "speed=9"), wire.WRONG_USE, "speed"),
        (("log", "files", "x", "a.txt", "--input", "nothing:v1"), wire.NOT_FOUND, "nothing"),
        (("log", "files", "x", "a.txt", "--input", "docs"), wire.WRONG_USE, "has none"),
        (("log", "files", "x", "a.txt", "--tag", "bad key=1"), wire.WRONG_USE, "'bad key'"),
        (("log", "files", "x", "a.txt", "--alias", "latest"), wire.WRONG_USE, "latest"),
        (("log", "files", "../x", "a.txt"), wire.WRONG_USE, "'..'"),
        (("log", "eval_dataset", "docs", "q.jsonl"), wire.WRONG_USE, "files"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, tuple) else "",
)
def test_what_cannot_be_logged_is_refused_and_nothing_is_written(
    cli: Cli, log: Log, tmp_path: Path, arguments: tuple[str, ...], code: int, told: str
) -> None:
    cli("init")
    log("docs", "text")
    (tmp_path / "a.txt").write_text("hello")
    (tmp_path / "q.jsonl").write_text('{"input": "q", "expected_output": "a"}\n')
    before = cli("ls", "--json").json
    ended = cli(*arguments, expect=code)
    assert told in ended.err
    assert "\n  hint: " in ended.err
    assert cli("ls", "--json").json == before


# --- look


def test_ls_lists_collections_and_versions(story: Cli) -> None:
    assert story("ls").out.splitlines()[0].split() == ["name", "kind", "versions", "latest", "aliases", "since"]
    assert "prod v2, staging v2" in story("ls").out
    listed = story("ls", "--json").json
    assert [c.keys() for c in listed["collections"]] == [keys(Collection)] * 2
    assert story("ls", "--kind", "report", "--json").json == {"collections": []}
    assert "'fles'" in story("ls", "--kind", "fles", expect=wire.NOT_FOUND).err
    versions = story("ls", "kb", "--json").json["versions"]
    assert [v["reference"] for v in versions] == ["kb:v2", "kb:v1"]
    assert versions[0].keys() == VERSION
    assert "latest, prod, staging" in story("ls", "kb").out


def test_ls_filters_and_pages(story: Cli) -> None:
    assert [v["number"] for v in story("ls", "kb", "--tag", "state=1", "--json").json["versions"]] == [1]
    assert "no version fits" in story("ls", "kb", "--tag", "state=9").out
    page = story("ls", "kb", "--limit", "1").out
    assert "older ones: --before v2" in page
    assert [v["number"] for v in story("ls", "kb", "--before", "v2", "--json").json["versions"]] == [1]


def test_an_empty_registry_says_how_to_fill_it(cli: Cli) -> None:
    cli("init")
    assert "llmartifacts log KIND NAME SOURCE" in cli("ls").out
    assert "sets one" in cli("alias", "ls").out
    assert "no runs" in cli("run", "ls").out
    assert "all well" in cli("verify").out


def test_show_says_what_a_version_is_and_where_it_stands(story: Cli) -> None:
    text = story("show", "docs:v1").out
    for word in (
        "docs:v1  files\n",
        "  digest   sha256:",
        "state 1",
        "by tester",
        "docs.txt",
        "12 B",
        "led to",
        "source of  kb:v1",
    ):
        assert word in text
    assert "came from" in story("show", "kb").out
    shown = story("show", "kb", "--json").json
    assert shown.keys() == {"version", "summary", "manifest", "storage", "lineage"}
    assert shown["manifest"]["schema"] == "llmartifacts/manifest/1"
    assert shown["lineage"]["up"] == [{"child": "kb:v2", "parent": "docs:v2", "relation": "derived_from", "role": ""}]


def test_show_of_a_kind_that_is_not_installed_still_shows_it(story: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmartifacts import plugins

    monkeypatch.delitem(plugins.BUILT_IN["kinds"], "files")
    monkeypatch.setattr(plugins, "_LOADED", {})
    assert "(the kind 'files' is not installed here)" in story("show", "kb").out


def test_diff_speaks_in_changes(story: Cli) -> None:
    text = story("diff", "docs:v1", "docs:v2").out
    assert text.startswith("docs:v1 -> docs:v2  files\n")
    assert "documents 2" in text
    assert story("diff", "docs:v1", "docs:v2", "--json").json.keys() == keys(Diff)
    assert story("diff", "docs:v1", "docs:v1").out == "docs:v1 and docs:v1 have the same content\n"


def test_pull_writes_the_files_once(story: Cli, tmp_path: Path) -> None:
    assert "docs:v1 -> docs-v1  2 files, " in story("pull", "docs:v1").out
    assert (tmp_path / "docs-v1" / "docs.txt").read_text() == "documents 1\n"
    assert story("pull", "docs:v1", expect=wire.CONFLICT).err.startswith("error: ")
    made = story("pull", "kb:prod", "out/kb", "--json").json
    assert made["directory"] == "out/kb"
    assert made["version"]["reference"] == "kb:v2"
    assert made["files"] == ["kb.txt", "manifest.json"]


# --- promote, rollback, history, state


def test_promote_shows_what_moved(story: Cli) -> None:
    text = story("promote", "docs:v1", "kb:v1", "--to", "canary", "--expect", "docs=none", "--expect", "kb=NONE").out
    assert "docs:canary  - -> v1" in text
    assert "kb:canary  - -> v1" in text
    made = story("promote", "kb:v1", "--to", "prod", "--reason", "r", "--ticket", "T", "--json").json
    assert made.keys() == keys(Promotion)
    assert [m.keys() for m in made["moves"]] == [keys(Move)]
    assert (made["reason"], made["ticket"], made["moves"][0]["old"]) == ("r", "T", 2)


def test_promote_with_a_wrong_expectation_moves_nothing(story: Cli) -> None:
    ended = story("promote", "docs:v1", "kb:v1", "--to", "prod", "--expect", "kb=v1", expect=wire.CONFLICT)
    assert "hint: Look at what it serves now" in ended.err
    error = story("promote", "kb:v1", "--to", "prod", "--expect", "kb=none", "--json", expect=wire.CONFLICT).error
    assert error["code"] == "alias_moved"
    assert error["detail"]["actual"] == "v2"
    assert {e["version"]["number"] for e in story("state", "prod", "--json").json["entries"].values()} == {2}


def test_rollback_undoes_one_or_the_whole_and_says_what(story: Cli) -> None:
    assert "kb:prod  v2 -> v1" in story("rollback", "kb:prod", "--reason", "wrong answers").out
    refused = story("rollback", "docs:prod", "--whole", "--reason", "r", expect=None)
    assert refused.code == wire.CONFLICT
    story("promote", "docs:v2", "kb:v2", "--to", "trial")
    moved = story("promote", "docs:v1", "kb:v1", "--to", "trial", "--json").json
    undone = story("rollback", moved["id"], "--reason", "r", "--json").json
    assert undone["undoes"] == moved["id"]
    assert {(m["name"], m["new"]) for m in undone["moves"]} == {("docs", 2), ("kb", 2)}
    assert "kb:trial  v2 -> v1" in story("rollback", "kb:trial", "--to", "v1", "--reason", "r").out


def test_rollback_of_the_first_promotion_notes_that_the_alias_is_gone(story: Cli) -> None:
    story("promote", "kb:v1", "docs:v1", "--to", "trial")
    assert "note" not in story("rollback", "kb:prod", "--reason", "r").out
    gone = story("rollback", "kb:trial", "--whole", "--reason", "r").out
    assert "docs:trial  v1 -> removed" in gone
    note = "are gone: services that start now fail or use their last-known-good set"
    assert [line.strip() for line in gone.splitlines() if note in line] in (
        [f"note: trial of docs, trial of kb {note}"],
        [f"note: trial of kb, trial of docs {note}"],
    )
    story("promote", "kb:v1", "--to", "alone")
    assert "note: alone of kb is gone: services" in story("rollback", "kb:alone", "--reason", "r").out


def test_rollback_of_a_bare_name_lists_what_could_be_undone(story: Cli) -> None:
    ended = story("rollback", "kb", "--reason", "r", expect=wire.WRONG_USE)
    assert "hint: Write name:alias, or the id of a promotion. Recent: default@r" in ended.err


def test_history_tells_every_move(story: Cli) -> None:
    story("rollback", "kb:prod", "--reason", "wrong answers")
    lines = story("history", "kb:prod").out.splitlines()
    assert len(lines) == 4
    for word in ("rollback", "v2", "v1", "wrong answers", "tester"):
        assert word in lines[1]
    assert "CHG-2: state 2" in lines[2]
    entries = story("history", "kb:prod", "--json", "--limit", "2").json["history"]
    assert [e["verb"] for e in entries] == ["rollback", "promote"]
    assert entries[0].keys() == keys(HistoryEntry)
    assert entries[1]["undone_by"] == entries[0]["promotion"]


def test_state_tells_now_and_then(story: Cli) -> None:
    first = story("history", "kb:prod", "--json").json["history"][-1]
    then = story("state", "prod", "--at", first["at"], "--json").json
    assert then.keys() == keys(State)
    assert {name: e["version"]["number"] for name, e in then["entries"].items()} == {"docs": 1, "kb": 1}
    assert "state 2" in story("state", "prod").out
    assert "nothing in project default is called nowhere" in story("state", "nowhere").out
    assert "llmartifacts history kb:prod" in story("state", "kb:prod", expect=wire.WRONG_USE).err
    assert "hint: Write it like" in story("state", "prod", "--at", "tuesday", expect=wire.WRONG_USE).err


def test_yank_withdraws_what_nothing_names(story: Cli) -> None:
    assert story("yank", "kb:v2", "--reason", "bad", expect=None).code == wire.CONFLICT
    assert "kb:v1 withdrawn" in story("yank", "kb:v1", "--reason", "bad rows").out
    assert "yanked" in story("ls", "kb").out
    assert "bad rows" in story("show", "kb:v1").out
    refused = story("promote", "kb:v1", "--to", "prod", expect=wire.REFUSED)
    assert "hint: " in refused.err
    assert "withdrawn: bad rows" in story("pull", "kb:v1").out
    assert story("yank", "docs:v1", "--reason", "r", "--json").json["yank_reason"] == "r"


# --- aliases, tags, lineage, runs, projects


def test_aliases_are_listed_and_removed(story: Cli) -> None:
    rows = story("alias", "ls", "kb", "--json").json["aliases"]
    assert [(r["name"], r["alias"], r["number"]) for r in rows] == [("kb", "prod", 2), ("kb", "staging", 2)]
    assert "kb:staging removed, it meant v2" in story("alias", "rm", "kb:staging", "--reason", "over").out
    assert "staging" not in story("alias", "ls").out
    assert story("alias", "rm", "kb:staging", "--reason", "again", expect=None).code == wire.NOT_FOUND
    assert "Did you mean kb?" in story("alias", "ls", "kbb", expect=wire.NOT_FOUND).err
    assert story("alias", "rm", "kb:prod", "--reason", "r", "--json").json["verb"] == "remove"


def test_tags_are_set_removed_and_shown(story: Cli) -> None:
    assert story("tag", "kb:v1", "ticket=CHG-9", "--json").json["tags"] == {"state": "1", "ticket": "CHG-9"}
    assert "CHG-9" in story("tag", "kb:v1").out
    assert story("tag", "kb:v1", "--remove", "state", "--remove", "ticket", "--json").json["tags"] == {}
    assert "no tags" in story("tag", "kb:v1").out
    assert "hint: Write key=value." in story("tag", "kb:v1", "ticket", expect=wire.WRONG_USE).err


def test_lineage_is_written_in_four_ways(story: Cli) -> None:
    assert "└─ derived_from: docs:v2" in story("lineage", "kb:prod").out
    assert "└─ source of: kb:v2" in story("lineage", "docs:v2", "--down").out
    assert "--down" in story("lineage", "docs:v1").out
    assert "--up" in story("lineage", "kb:v1", "--down").out
    assert "kb:v1" in story("lineage", "docs:v1", "--down").out
    assert story("lineage", "kb", "--format", "mermaid").out.startswith("flowchart BT\n")
    assert story("lineage", "kb", "--up", "--format", "html").out.startswith("<!doctype html>")
    graph = story("lineage", "kb", "--json").json
    assert graph.keys() == {"root", "direction", "nodes", "edges"}
    assert story("lineage", "kb", "--format", "json").json == graph


def test_runs_are_listed_and_shown(story: Cli, tmp_path: Path) -> None:
    with la.connect(tmp_path / ".llmartifacts") as registry:
        with registry.run("build-index", parameters={"k": 5}) as run:
            run.use("docs:v1", la.Files)
        with pytest.raises(ValueError, match="no room"), registry.run("broken"):
            raise ValueError("no room")
    listed = story("run", "ls", "--json").json["runs"]
    assert [(r["name"], r["status"]) for r in listed] == [("broken", "failed"), ("build-index", "done")]
    assert listed[0].keys() == keys(RunRecord)
    assert "build-index" in story("run", "ls").out
    text = story("run", "show", run.id).out
    for word in ("build-index  done", "docs:v1@sha256:", "k =", "5"):
        assert word in text
    assert story("run", "show", run.id, "--json").json["parameters"] == {"k": 5}
    assert "ValueError: no room" in story("run", "show", listed[0]["id"]).out
    assert story("run", "show", "nothing", expect=None).code == wire.NOT_FOUND


def test_projects_keep_names_apart(story: Cli, log: Log) -> None:
    assert "made project acme" in story("project", "create", "acme").out
    log("acme/kb", "other")
    assert story("project", "create", "acme", expect=None).code == wire.CONFLICT
    assert story("project", "create", "beta", "--json").json.keys() == keys(Project)
    assert [p["name"] for p in story("project", "ls", "--json").json["projects"]] == ["acme", "beta", "default"]
    assert "collections" in story("project", "ls").out
    assert story("--project", "acme", "show", "kb", "--json").json["version"]["reference"] == "acme/kb:v1"
    assert story("alias", "ls", "acme/kb", "--json").json == {"aliases": []}


# --- upkeep


def test_stats_add_up(story: Cli) -> None:
    found = story("stats", "--json").json
    assert found.keys() == keys(Stats)
    assert sum(c["logical"] for c in found["collections"]) == found["logical"]
    assert "database" in story("stats").out


def test_verify_lists_what_is_damaged_and_ends_with_5(story: Cli, tmp_path: Path) -> None:
    found = story("verify", "--read-data", "--json").json
    assert found.keys() == {"ok", *keys(Verification)}
    assert found["ok"] is True
    digest = story("show", "kb:v1", "--json").json["manifest"]["files"][0]["digest"].removeprefix("sha256:")
    (stored,) = [p for p in (tmp_path / ".llmartifacts").rglob(f"*{digest[4:]}*") if p.is_file()]
    stored.chmod(0o600)
    data = bytearray(stored.read_bytes())
    data[-1] ^= 1
    stored.write_bytes(data)
    text = story("verify", "--read-data", expect=wire.DAMAGED)
    assert "1 damaged\nerror: " in text.out
    assert "kb:v1" in text.out
    assert text.err == ""
    (problem,) = story("verify", "--read-data", "--json", expect=wire.DAMAGED).json["problems"]
    assert problem["code"] == "digest_mismatch"
    assert digest in problem["digest"]
    assert any("kb:v1" in v for v in problem["versions"])
    assert story("pull", "kb:v1", expect=wire.DAMAGED).err.startswith("error: ")
    assert not (tmp_path / "kb-v1").exists()


# --- lock, install


def test_lock_writes_checks_and_upgrades(story: Cli, log: Log, tmp_path: Path) -> None:
    made = story("lock", "kb=kb:prod", "docs=docs:prod", "--json").json
    assert made.keys() == {"path", "written", "lockfile", "differences"}
    assert made["lockfile"]["components"]["kb"]["number"] == 2
    assert made["differences"] == []
    assert "nothing moved" in story("lock", "--check").out
    before = (tmp_path / "llmartifacts.lock").read_text()
    story("rollback", "kb:prod", "--reason", "r")
    behind = story("lock", "--check", expect=wire.REFUSED)
    assert "kb: kb:prod was v2, is v1" in behind.out
    assert "not written: llmartifacts.lock" in story("lock", "--upgrade", "kb", "--dry-run").out
    assert (tmp_path / "llmartifacts.lock").read_text() == before
    assert "kb: kb:prod was v2, is v1" in story("lock", "kb=kb:prod", "--check", expect=wire.REFUSED).out
    story("lock", "--upgrade", "kb")
    assert json.loads((tmp_path / "llmartifacts.lock").read_text())["components"]["kb"]["version"] == "v1"
    assert story("lock", "--check", "--json").json["differences"] == []
    (tmp_path / "llmartifacts.lock").write_text(before.replace("kb:prod", "kb:next"))
    edited = story("lock", "kb=kb:prod", "docs=docs:prod", expect=wire.WRONG_USE)
    assert "edited by hand" in edited.err
    assert "or remove it, and write it anew" in edited.err
    (tmp_path / "llmartifacts.lock").unlink()
    story("lock", "kb=kb:prod", "docs=docs:prod")
    none = story("lock", "kb=kb:prod", "--check", "--output", "other.lock", expect=wire.NOT_FOUND)
    assert "hint: Write one with `llmartifacts lock`." in none.err


def test_lock_reads_a_class_of_the_working_directory(story: Cli, tmp_path: Path) -> None:
    (tmp_path / "own_service.py").write_text(
        "from dataclasses import dataclass\nfrom typing import Annotated\nimport llmartifacts as la\n\n\n"
        "@dataclass(frozen=True)\nclass Spec:\n    kb: Annotated[la.Files, 'kb']\n"
    )
    made = story("lock", "own_service:Spec", "--alias", "staging", "--json").json
    assert made["lockfile"]["components"]["kb"]["reference"] == "kb:staging"
    assert "Did you mean Spec?" in story("lock", "own_service:Spce", expect=wire.NOT_FOUND).err


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        (["lock"], "Write package.module:Class"),
        (["lock", "kb=kb:prod", "--upgrade", "kb"], "Leave out SPEC."),
        (["lock", "--check", "--upgrade", "kb"], "Give one of them."),
        (["lock", "--check", "--dry-run"], "Leave out --dry-run."),
        (["lock", "kb"], "Write package.module:Class"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else "",
)
def test_lock_refuses_what_makes_no_sense(story: Cli, line: list[str], hint: str) -> None:
    assert f"hint: {hint}" in story(*line, expect=wire.WRONG_USE).err


def test_lock_names_every_component_that_fails(story: Cli, tmp_path: Path) -> None:
    ended = story("lock", "a=kb:nowhere", "b=dcs:prod", expect=wire.NOT_FOUND)
    assert "  a: " in ended.err
    assert "  b: " in ended.err
    assert "docs" in ended.err
    assert not (tmp_path / "llmartifacts.lock").exists()


def test_install_makes_a_folder_that_needs_no_registry(story: Cli, tmp_path: Path) -> None:
    story("lock", "kb=kb:prod", "--output", "deploy.lock")
    text = story("install", "deploy.lock", "--to", "served").out
    assert "installed 1 component" in text
    assert "lockfile='served'" in text
    assert "into the cache" in story("install", "deploy.lock").out
    (tmp_path / ".llmartifacts").rename(tmp_path / "gone")
    made = story("install", "--frozen", "deploy.lock", "--to", "again", "--json").json
    assert made["directory"] == "again"
    assert made["components"] == ["kb"]
    assert made["bytes"] > 0
    with la.Resolver({"kb": "kb:prod"}, lockfile=tmp_path / "again", frozen=True) as resolver:
        assert resolver.start().value["kb"].read("kb.txt") == b"index 2\n"
    assert story("install", "nothing.lock", expect=wire.NOT_FOUND).err.count("hint: ") == 1


# --- hostile text


def test_a_message_that_holds_markup_and_unseen_characters_is_shown_as_text(cli: Cli, log: Log) -> None:
    cli("init")
    hostile = "[red]\u202e[/red] two\nlines"
    log("docs", "text", "--message", hostile)
    for line in (("ls", "docs"), ("show", "docs"), ("history", "docs")):
        assert r"[red]\u202e[/red] two" in cli(*line).out
    for line in (("show", "docs", "--json"), ("ls", "docs", "--json")):
        assert "\u202e" not in cli(*line).out
    assert cli("show", "docs", "--json").json["version"]["message"] == hostile


def test_a_message_that_holds_escape_sequences_is_refused_and_nothing_is_logged(cli: Cli, log: Log) -> None:
    cli("init")
    log("docs", "text")
    refused = cli("tag", "docs:v1", "note=\x1b[2J", expect=2)
    assert "\x1b" not in refused.out + refused.err
    refused = cli("yank", "docs:v1", "--reason", "\x1b]0;owned\x07", expect=2)
    assert "\x1b" not in refused.out + refused.err
    assert "control characters" in refused.err
