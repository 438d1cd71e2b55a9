"""`show --stamp`: from a line of a log back to every version, who put it there, and why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts import wire
from llmartifacts.runtime.explain import SOURCES, WARNINGS
from llmartifacts.runtime.stamp import Stamp, Stamped, parse_stamp

Cli = Callable[..., Any]
Log = Callable[..., dict[str, Any]]


def served(**wanted: str) -> str:
    """The stamp of a service that starts now."""
    with la.Resolver(wanted) as resolver:
        return resolver.current.stamp()


def altered(line: str, **changes: Any) -> str:
    stamp = parse_stamp(line)
    return str(Stamp(**{name: getattr(stamp, name) for name in Stamp.__dataclass_fields__} | changes))


def test_every_version_is_told_with_who_logged_it_who_moved_it_and_why(story: Cli) -> None:
    line = served(docs="docs:prod", index="kb:prod")
    text = story("show", "--stamp", line).out
    digest = story("show", "docs:v2", "--json").json["version"]["digest"]
    assert f"docs  docs:v2@{digest}  files" in text
    assert "by tester: state 2" in text
    assert "promote to v2" in text
    assert "CHG-2: state 2" in text
    assert "PASS        compatibility" in text
    assert ": the versions below" in text
    assert "moved on" not in text


def test_the_same_as_json(story: Cli) -> None:
    line = served(docs="docs:prod", index="kb:prod")
    found = story("show", "--stamp", line, "--json").json
    assert (found["stamp"], found["project"], found["source"]) == (line, "default", "registry")
    assert found["revision"] == found["revision_now"] == parse_stamp(line).revision
    assert found["set"] == {"digest": parse_stamp(line).set_short, "verdict": "matches"}
    assert [c["field"] for c in found["components"]] == ["docs", "index"]
    docs, index = found["components"]
    assert docs["reference"] == f"docs:v2@{docs['version']['digest']}"
    (pointed,) = docs["pointed"]
    assert pointed["then"] is True
    assert pointed["until"] is None
    move = pointed["move"]
    assert (move["alias"], move["ticket"], move["reason"], move["actor"]) == ("prod", "CHG-2", "state 2", "tester")
    assert [r["verdict"] for r in move["results"]] == ["PASS"]
    assert sorted(p["move"]["alias"] for p in index["pointed"]) == ["prod", "staging"]
    assert found["problems"] == found["warnings"] == []


@pytest.mark.parametrize(
    "around",
    ["{}", "2026-03-03T09:00:00Z INFO answered in 31 ms ({}).", "x-llm-artifacts: {}\r\n", '{{"stamp": "{}", "n": 1}}'],
)
def test_a_whole_line_of_a_log_or_a_header_is_taken_as_it_is(story: Cli, around: str) -> None:
    line = served(docs="docs:prod")
    assert story("show", "--stamp", around.format(line), "--json").json["stamp"] == line


def test_a_move_that_came_after_is_told_with_its_reason(story: Cli) -> None:
    line = served(docs="docs:prod")
    story("rollback", "docs:prod", "--reason", "wrong answers")
    text = story("show", "--stamp", line).out
    assert "promote to v2" in text
    moved = next(one for one in text.splitlines() if "moved on" in one)
    assert "rollback to v1" in moved
    assert "wrong answers" in moved


def test_an_alias_that_was_removed_since_is_still_told(story: Cli) -> None:
    story("promote", "docs:v1", "--to", "trial", "--reason", "to see")
    line = served(docs="docs:trial")
    story("alias", "rm", "docs:trial", "--reason", "seen")
    text = story("show", "--stamp", line).out
    assert "to see" in text
    assert "remove, and the alias is gone" in text


def test_a_version_that_no_alias_pointed_at_any_more_tells_the_alias_that_had(story: Cli, tmp_path: Path) -> None:
    pinned = served(docs="docs:v1")
    text = story("show", "--stamp", pinned).out
    assert "state 1" in text
    assert "had moved on before" in text
    story("log", "files", "loose", tmp_path / "source" / "docs.txt")
    assert "no alias pointed at" in story("show", "--stamp", served(loose="loose:v1")).out


def test_who_approved_it_and_what_each_gate_said_is_told(
    story: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMARTIFACTS_KEYS", str(tmp_path / "keys"))
    story("key", "create", "ada", "--person", "Ada")
    story("key", "trust", "ada", "--role", "ml-lead")
    (tmp_path / "policy.yaml").write_text(
        "name: strict\naliases:\n  live:\n    kinds:\n      files:\n        - approvals: {count: 1}\n"
    )
    story("policy", "set", "policy.yaml")
    story("approve", "docs:v2", "--to", "live", "--key", "ada", "--reason", "all read")
    story("promote", "docs:v2", "--to", "live", "--reason", "release")
    found = story("show", "--stamp", served(docs="docs:live"))
    assert "release (approved by Ada)" in found.out
    assert "approvals" in found.out
    as_json = story("show", "--stamp", served(docs="docs:live"), "--json").json
    (move,) = [p["move"] for p in as_json["components"][0]["pointed"] if p["move"]["alias"] == "live"]
    assert move["approvals"] == ["Ada"]
    assert len(move["results"]) >= 2


def test_a_move_is_found_however_many_came_after(story: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    line = served(docs="docs:prod")
    for number in (1, 2, 1, 2):
        story("promote", f"docs:v{number}", "--to", "prod", "--reason", f"later {number}")
    monkeypatch.setattr("llmartifacts.runtime.explain._FIRST", 2)
    text = story("show", "--stamp", line).out
    assert "CHG-2: state 2" in text
    assert next(one for one in text.splitlines() if "moved on: " in one).endswith("later 1")


def test_of_a_bundle_every_version_that_it_holds_is_told(story: Cli) -> None:
    with la.connect() as registry:
        registry.log("stack", la.Bundle(components={"text": "docs:v1", "index": "kb:v2"}), aliases="prod")
    line = served(stack="stack:prod")
    text = story("show", "--stamp", line).out
    assert "holds     index  kb:v2@sha256:" in text
    assert "holds     text  docs:v1@sha256:" in text
    (stack,) = story("show", "--stamp", line, "--json").json["components"]
    assert [(p["role"], p["reference"], p["kind"]) for p in stack["parts"]] == [
        ("index", "kb:v2", "files"),
        ("text", "docs:v1", "files"),
    ]


# --- what does not hold


def test_a_version_that_is_not_here_is_named_and_the_others_are_told(story: Cli) -> None:
    stamp = parse_stamp(served(docs="docs:prod", kb="kb:prod"))
    gone = altered(str(stamp), components={**stamp.components, "kb": Stamped("kb", 99, "0" * 12)})
    ended = story("show", "--stamp", gone, expect=wire.NOT_FOUND)
    assert "error: kb has no version v99" in ended.out
    assert "of another registry, or was altered" in ended.out
    assert "CHG-2: state 2" in ended.out
    assert "cannot be checked" in ended.out
    found = story("show", "--stamp", gone, "--json", expect=wire.NOT_FOUND).json
    assert [p["code"] for p in found["problems"]] == ["not_found"]
    assert found["components"][1]["version"] is None
    assert found["set"]["verdict"] == "unknown"


def test_a_number_whose_digest_is_another_is_no_match(story: Cli) -> None:
    stamp = parse_stamp(served(docs="docs:prod"))
    other = altered(str(stamp), components={"docs": Stamped("docs", 1, stamp.components["docs"].short)})
    ended = story("show", "--stamp", other, expect=wire.NOT_FOUND)
    assert f"and the stamp has {stamp.components['docs'].short}" in ended.out


def test_a_set_digest_that_is_not_that_of_its_versions_is_damage(story: Cli) -> None:
    forged = altered(served(docs="docs:prod"), set_short="0" * 12)
    ended = story("show", "--stamp", forged, expect=wire.DAMAGED)
    assert "NOT the versions below" in ended.out
    assert story("show", "--stamp", forged, "--json", expect=wire.DAMAGED).json["set"]["verdict"] == "differs"


def test_a_stamp_of_another_registry_says_so(story: Cli, log: Log, tmp_path: Path) -> None:
    line = served(docs="docs:prod")
    story("--registry", tmp_path / "other", "init")
    for way in ((), ("--json",)):
        ended = story("--registry", tmp_path / "other", "show", "--stamp", line, *way, expect=wire.NOT_FOUND)
        assert "another registry" in ended.out
    assert "the stamp is of revision" in ended.out
    ended = story("show", "--stamp", altered(line, project="elsewhere"), expect=wire.NOT_FOUND)
    assert "elsewhere" in ended.err
    assert "another registry" in ended.err


def test_components_that_the_line_had_no_room_for_are_counted_and_the_set_is_not_judged(story: Cli) -> None:
    short = altered(served(docs="docs:prod"), left_out=7)
    text = story("show", "--stamp", short).out
    assert "left out: 7 components more had no room in the line" in text
    assert "cannot be checked" in text
    assert story("show", "--stamp", short, "--json").json["left_out"] == 7


def test_a_withdrawn_version_says_when_and_why(story: Cli) -> None:
    line = served(docs="docs:v1")
    story("yank", "docs:v1", "--reason", "leaks names")
    assert "leaks names" in story("show", "--stamp", line).out


@pytest.mark.parametrize("code", [*WARNINGS, "index-embedder", "of-a-later-release"])
def test_each_warning_is_told_in_words(story: Cli, code: str) -> None:
    warned = altered(served(docs="docs:prod"), warnings=((code, "docs"),))
    text = story("show", "--stamp", warned).out
    (said,) = story("show", "--stamp", warned, "--json").json["warnings"]
    assert (said["code"], said["field"]) == (code, "docs")
    assert len(said["message"].split()) > 5
    assert f"{code} docs: {said['message']}" in text


@pytest.mark.parametrize("source", SOURCES)
def test_each_source_is_told_in_words(story: Cli, source: Any) -> None:
    text = story("show", "--stamp", altered(served(docs="docs:prod"), source=source)).out
    assert f"{source}: {SOURCES[source]}" in text


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (("--stamp", "GET / 200"), "there is no stamp"),
        (("--stamp", "la1;default@r2;set=zz"), "does not begin as a stamp"),
        (("docs", "--stamp", "la1;x"), "REF and --stamp exclude each other"),
    ],
)
def test_what_is_no_stamp_is_wrong_use(story: Cli, line: tuple[str, ...], told: str) -> None:
    assert told in story("show", *line, expect=wire.WRONG_USE).err


def test_hostile_text_in_a_line_is_shown_and_not_obeyed(story: Cli) -> None:
    stamp = parse_stamp(served(docs="docs:prod"))
    hostile = altered(
        str(stamp),
        components={"\x1b[2Jred\n\u202e": stamp.components["docs"], "gone": Stamped("kb", 7, "0" * 12)},
        warnings=(("yanked", "\x9b31m"),),
    )
    ended = story("show", "--stamp", f"\x1b[31m {hostile} \x07", expect=wire.NOT_FOUND)
    assert not {"\x1b", "\x9b", "\x07", "\u202e"} & set(ended.out + ended.err)
    assert "\\x1b[2Jred" in ended.out
    assert "\x1b" not in story("show", "--stamp", "\x1b[2J la1;x", expect=wire.WRONG_USE).err
