"""`key` and `approve` as people type them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts.kinds.report import Metric
from llmartifacts.records.digest import digest_of

Cli = Callable[..., Any]


@pytest.fixture(autouse=True)
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMARTIFACTS_KEYS", str(tmp_path / "keys"))
    monkeypatch.delenv("LLMARTIFACTS_KEY_PASSPHRASE", raising=False)
    return tmp_path / "keys"


@pytest.fixture
def office(story: Cli) -> Cli:
    """The story, and Ada, whom the registry trusts as an ml-lead."""
    story("key", "create", "ada", "--person", "Ada")
    story("key", "trust", "ada", "--role", "ml-lead")
    return story


def test_a_new_key_prints_what_others_need_and_nothing_else(cli: Cli, keys: Path) -> None:
    made = cli("key", "create", "ada", "--person", "Ada", "--json").json
    assert made["public"].startswith("ed25519:")
    assert made["path"] == str(keys / "ada.pem")
    assert "PRIVATE" not in json.dumps(made)
    shown = cli("key", "create", "bob", "--person", "Bob Byrne").out
    assert "llmartifacts key trust ed25519:" in shown
    assert "--person 'Bob Byrne'" in shown
    assert cli("key", "create", "ada", "--person", "Ada", expect=4).err.startswith(
        "error: there is a key 'ada' already"
    )


def test_a_key_is_trusted_by_its_text_its_file_or_its_name(story: Cli, keys: Path) -> None:
    for name in ("ada", "bob", "cat"):
        story("key", "create", name, "--person", name)
    text = story("key", "show", "ada", "--json").json["local"]["public"]
    made = story("key", "trust", text, "--person", "ada", "--role", "safety", "--role", "ml-lead", "--json").json["key"]
    assert (made["person"], made["roles"]) == ("ada", ["ml-lead", "safety"])
    assert story("key", "trust", keys / "bob.pub", "--json").json["key"]["person"] == "bob"
    assert "cat  trusted" in story("key", "trust", "cat", "--role", "ops").out
    listed = story("key", "ls", "--json").json
    assert [k["person"] for k in listed["keys"]] == ["ada", "bob", "cat"]
    assert [k["name"] for k in listed["local"]] == ["ada", "bob", "cat"]
    assert story("key", "trust", text, "--person", "eve", expect=4)
    assert "nobody says whose" in story("key", "trust", text, expect=2).err
    assert "neither a public key nor a file" in story("key", "trust", "nothing.pub", expect=3).err


def test_key_ls_and_show_tell_what_is_good_and_what_is_here(office: Cli) -> None:
    office("key", "create", "bob", "--person", "Bob")
    lines = office("key", "ls").out.splitlines()
    assert ["ada" in line and "good" in line for line in lines if "Ada" in line] == [True]
    assert ["not trusted" in line for line in lines if "Bob" in line] == [True]
    shown = office("key", "show", "ada").out
    assert "ml-lead" in shown
    assert "ada.pem" in shown
    assert "not trusted" in office("key", "show", "bob").out
    assert office("key", "show", "nobody", expect=3)


def test_key_show_of_an_own_key_needs_no_registry(cli: Cli) -> None:
    cli("key", "create", "ada", "--person", "Ada")
    assert "not trusted" in cli("key", "show", "ada").out


def test_approve_shows_what_is_signed_and_what_came_of_it(office: Cli) -> None:
    ended = office("approve", "docs:v1", "kb:v1", "--to", "prod", "--key", "ada", "--reason", "read the report")
    first, *rest = ended.out.splitlines()
    assert first.startswith("signing, as Ada, with the key ")
    served = [line.split() for line in rest if line.strip().startswith(("docs:v1", "kb:v1"))]
    assert [(words[0], len(words[1]), words[2], words[4:]) for words in served] == [
        ("docs:v1", 12, "v2,", ["move", "2"]),
        ("kb:v1", 12, "v2,", ["move", "2"]),
    ]
    assert any(line.split() == ["policy", "none"] for line in rest)
    assert "default@a1 approved  docs:v1, kb:v1 -> prod, by Ada" in ended.out
    assert "approve --withdraw default@a1" in ended.out


def test_approve_says_the_same_as_one_json_document(office: Cli) -> None:
    (made,) = office("approve", "docs:v1", "--to", "prod", "--key", "ada", "--expires", "7d", "--json").json[
        "approvals"
    ]
    assert (made["id"], made["person"], made["roles"], made["problem"]) == ("default@a1", "Ada", ["ml-lead"], "")
    assert made["verdict"] == "PASS"
    assert made["binding"]["alias"] == "prod"
    assert made["binding"]["subjects"][0].keys() == {"name", "number", "digest"}
    assert made["binding"]["serving"]["docs"]["move"] == 2
    assert made["expires"] > made["at"]


def test_several_aliases_are_several_approvals(office: Cli) -> None:
    made = office("approve", "docs:v1", "--to", "prod", "--to", "canary", "--key", "ada", "--json").json["approvals"]
    assert [a["binding"]["alias"] for a in made] == ["prod", "canary"]


def test_the_author_is_warned_before_it_is_of_no_use(office: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    author = office("show", "docs:v1", "--json").json["version"]["author"]
    office("key", "create", "own", "--person", author)
    office("key", "trust", "own")
    ended = office("approve", "docs:v1", "--to", "prod", "--key", "own")
    assert f"warning: {author} logged docs:v1, and an author's approval does not count" in ended.err


def test_the_list_tells_which_hold_and_why_others_do_not(office: Cli) -> None:
    assert "nobody approved" in office("approve", "--list", "--to", "prod").out
    office("approve", "docs:v1", "--to", "prod", "--key", "ada")
    (holds,) = office("approve", "--list", "--to", "prod", "--json").json["approvals"]
    assert (holds["problem"], holds["verdict"]) == ("", "PASS")
    assert "  holds" in office("approve", "--list", "--to", "prod").out
    office("rollback", "docs:prod", "--reason", "back")
    (lapsed,) = office("approve", "--list", "--to", "prod", "--json").json["approvals"]
    assert lapsed["problem"] == "prod of docs has moved since (move 2, now 3)"
    assert "has moved since (move 2, now 3)" in office("approve", "--list", "--to", "prod").out


def test_an_approval_is_taken_back(office: Cli) -> None:
    office("approve", "docs:v1", "--to", "prod", "--key", "ada")
    assert "default@a1 withdrawn" in office("approve", "--withdraw", "default@a1", "--reason", "overlooked").out
    (gone,) = office("approve", "--list", "--to", "prod", "--json").json["approvals"]
    assert gone["problem"].endswith("withdrew it: overlooked")
    assert office("approve", "--withdraw", "default@a1", expect=2)
    assert office("approve", "--withdraw", "default@a9", "--reason", "x", expect=3)


@pytest.mark.parametrize(
    ("line", "code", "told"),
    [
        (("docs:v1", "--key", "ada"), 2, "no alias is named"),
        (("docs:v1", "--to", "prod"), 2, "no key is named"),
        (("--to", "prod", "--key", "ada"), 2, "no version is named"),
        (("docs", "--to", "prod", "--key", "ada"), 2, "approve wants an alias, a version or a digest"),
        (("docs:v1", "docs:v2", "--to", "prod", "--key", "ada"), 2, "named twice"),
        (("docs:v9", "--to", "prod", "--key", "ada"), 3, "docs has no version v9"),
        (("docs:v1", "--to", "latest", "--key", "ada"), 2, "latest"),
        (("docs:v1", "--to", "prod", "--key", "nobody"), 3, "there is no key 'nobody'"),
        (("docs:v1", "--to", "prod", "--key", "ada", "--expires", "soon"), 2, "not a time"),
        (("docs:v1", "--to", "prod", "--key", "ada", "--expires", "2001-01-01"), 1, "expired on"),
        (("docs:v1", "--list", "--to", "prod"), 2, "exclude each other"),
        (("--withdraw", "default@a1", "--to", "prod", "--reason", "x"), 2, "exclude each other"),
    ],
)
def test_a_line_that_cannot_be_meant_is_refused_and_nothing_is_approved(
    office: Cli, line: tuple[str, ...], code: int, told: str
) -> None:
    assert told in office("approve", *line, expect=code).err
    assert office("approve", "--list", "--to", "prod", "--json").json == {"approvals": []}


def test_a_key_that_is_not_trusted_approves_nothing_and_says_what_to_type(office: Cli) -> None:
    office("key", "create", "eve", "--person", "Eve")
    error = office("approve", "docs:v1", "--to", "prod", "--key", "eve", "--json", expect=9).error
    assert "does not trust the key eve" in error["message"]
    assert "llmartifacts key trust ed25519:" in error["detail"]["hint"]


def test_a_key_whose_file_names_somebody_else_is_not_used(office: Cli, keys: Path) -> None:
    text = (keys / "ada.pub").read_text()
    (keys / "ada.pub").write_text(text.replace("Ada", "Bob"))
    assert (
        "is Bob's here, and the registry trusts it as Ada's"
        in office(*("approve", "docs:v1", "--to", "prod", "--key", "ada"), expect=4).err
    )


def test_a_key_file_that_others_may_read_is_refused(office: Cli, keys: Path) -> None:
    os.chmod(keys / "ada.pem", 0o644)
    assert "chmod 600" in office("approve", "docs:v1", "--to", "prod", "--key", "ada", expect=9).err


def test_rotate_puts_a_new_key_in_the_place_and_voids_the_old(office: Cli, keys: Path) -> None:
    office("approve", "docs:v1", "--to", "prod", "--key", "ada")
    before = office("key", "show", "ada", "--json").json["key"]["id"]
    made = office("key", "rotate", "ada", "--json").json
    assert (made["key"]["replaces"], made["key"]["roles"]) == (before, ["ml-lead"])
    assert made["local"]["id"] == made["key"]["id"]
    assert Path(made["kept"]).name == f"ada.{before[:12]}.pem"
    (old,) = office("approve", "--list", "--to", "prod", "--json").json["approvals"]
    assert "was revoked" in old["problem"]
    office("approve", "docs:v1", "--to", "prod", "--key", "ada")
    assert office("approve", "--list", "--to", "prod", "--json").json["approvals"][0]["problem"] == ""


def test_a_rotation_that_was_interrupted_is_finished_by_the_next_one(
    office: Cli, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("llmartifacts.signing.approving.take_place", stop)
        office("key", "rotate", "ada", expect=130)
    assert len(office("key", "ls", "--json").json["keys"]) == 2, "the registry has taken the new key"
    assert "was revoked" in office("approve", "docs:v1", "--to", "prod", "--key", "ada", expect=9).err
    office("key", "rotate", "ada")
    assert len(office("key", "ls", "--json").json["keys"]) == 2
    office("approve", "docs:v1", "--to", "prod", "--key", "ada")


def test_trusting_a_key_again_without_roles_keeps_them(office: Cli) -> None:
    assert office("key", "trust", "ada", "--json").json["key"]["roles"] == ["ml-lead"]


def test_revoke_is_for_good(office: Cli) -> None:
    key_id = office("key", "show", "ada", "--json").json["key"]["id"]
    assert office("key", "revoke", "ada", expect=2)
    assert "revoked" in office("key", "revoke", key_id[:12], "--reason", "lost").out
    assert "was revoked on" in office("approve", "docs:v1", "--to", "prod", "--key", "ada", expect=9).err
    assert office("key", "trust", "ada", expect=1)
    assert "revoked" in office("key", "show", "ada").out


def test_an_approval_in_another_project_names_it(office: Cli, log: Any) -> None:
    office("project", "create", "acme")
    log("acme/docs", "other")
    (made,) = office("approve", "acme/docs:v1", "--to", "prod", "--key", "ada", "--json").json["approvals"]
    assert made["id"].startswith("acme@a")
    assert office("approve", "--list", "--to", "prod", "--json").json == {"approvals": []}
    listed = office("--project", "acme", "approve", "--list", "--to", "prod", "--json").json["approvals"]
    assert [a["id"] for a in listed] == [made["id"]]
    assert office("approve", "--withdraw", made["id"], "--reason", "x")


def test_a_report_is_signed_and_nothing_else_is(office: Cli) -> None:
    assert "not a report" in office("key", "sign", "docs:v1", "--key", "ada", expect=2).err
    with la.connect() as registry:
        metrics = [Metric("equals", 0.75, 0.6, 0.9, 40)]
        registry.log("quality", la.Report("suite", {"docs:v1": digest_of(b"1")}, digest_of(b"2"), metrics, []))
    made = office("key", "sign", "quality:v1", "--key", "ada", "--reason", "all read", "--json").json
    assert (made["report"], made["signers"]) == (
        "quality:v1",
        [{"person": "Ada", "roles": ["ml-lead"], "problem": ""}],
    )
    assert "Ada (ml-lead)" in office("key", "sign", "quality:v1", "--key", "ada").out
