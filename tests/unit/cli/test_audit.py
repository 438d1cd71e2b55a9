"""audit log, verify, export, checkpoint and prove on the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts import wire
from llmartifacts.records.checkpoint import Checkpoint, Note, VerifierKey
from llmartifacts.records.merkle import leaf_hash, root_of
from llmartifacts.signing import key_files

Cli = Callable[..., Any]


@pytest.fixture
def kept(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """A registry with seven entries, and a signed checkpoint of it with its verifier key in files beside it."""
    monkeypatch.setenv("LLMARTIFACTS_KEYS", str(tmp_path / "keys"))
    key_files.create("auditor", "ada")
    with la.init(tmp_path / ".llmartifacts") as registry:
        for n in (1, 2):
            for name in ("docs", "kb"):
                registry.log(name, la.Files({"a.txt": b"%s %d" % (name.encode(), n)}), message=f"state {n}")
            registry.promote([f"docs:v{n}", f"kb:v{n}"], to="prod", reason=f"state {n}", ticket=f"CHG-{n}")
    told = cli("audit", "checkpoint", "--key", "auditor", "--out", "one.checkpoint").err
    (tmp_path / "verifier.key").write_text(told.removeprefix("verifier key: "))
    return cli


def alter(tmp_path: Path, sql: str) -> None:
    with la.connect(tmp_path / ".llmartifacts") as registry:
        backend: Any = registry.backend
        with backend._parts.metadata.writing() as s:
            s.run(sql)


EDIT = "update audit set entry = replace(entry, 'state 1', 'state 9') where id = 2"
CHECKED = ("--checkpoint", "one.checkpoint", "--key", "verifier.key")


# --- log


def test_the_log_is_a_table_with_the_newest_entry_last(kept: Cli) -> None:
    lines = kept("audit", "log").out.splitlines()
    assert lines[0].split() == ["entry", "at,", "UTC", "who", "what", "of"]
    assert lines[1].split()[0] == "1"
    assert "tester" in lines[-1]
    assert "promote  default@r2" in lines[-1]
    assert "docs:prod v1 -> v2, kb:prod v1 -> v2, state 2, CHG-2" in lines[-1]
    assert "docs:prod -> v1" in kept("audit", "log", "--verb", "promote", "--limit", "3").out


def test_the_log_tells_of_keys_and_approvals_in_words_and_shortens_their_ids(kept: Cli) -> None:
    kept("key", "trust", "auditor", "--role", "lead", "--role", "safety")
    kept("approve", "docs:v1", "--to", "eu", "--key", "auditor", "--reason", "all read")
    kept("tag", "docs:v1", "k=v")
    lines = [" ".join(line.split()) for line in kept("audit", "log", "--limit", "3").out.splitlines()]
    public = key_files.load("auditor").private.public.id
    assert lines[1].endswith(f"key-trust key:{public[:12]} as ada, roles lead safety")
    assert lines[2].endswith("approve default@a1 docs:v1 -> eu, as ada, all read")
    assert lines[3].endswith("tag docs:v1 k=v")


def test_what_is_to_be_done_about_many_problems_is_told_once(kept: Cli, tmp_path: Path) -> None:
    alter(tmp_path, "update audit set entry = replace(entry, 'state', 'State')")
    told = kept("audit", "verify", expect=wire.DAMAGED).out
    assert told.count("wrong: ") > 3
    assert told.count("hint: ") == 1


def test_the_log_is_narrowed_by_project_verb_and_limit(kept: Cli, log: Callable[..., Any]) -> None:
    log("acme/other", "text\n")
    assert {e["project"] for e in kept("audit", "log", "--json").json["entries"]} == {"default", "acme"}
    (logged,) = kept("audit", "log", "--project", "acme", "--json").json["entries"]
    assert (logged["verb"], logged["subject"]) == ("log", "acme/other:v1")
    newest = kept("audit", "log", "--verb", "log", "--limit", "2", "--json").json["entries"]
    assert [e["subject"] for e in newest] == ["kb:v2", "acme/other:v1"]
    assert "project" in kept("audit", "log").out.splitlines()[0]
    assert "the newest 2; --limit shows more" in kept("audit", "log", "--limit", "2").out
    assert kept("audit", "log", "--verb", "yank").out == "no such entries\n"
    assert kept("audit", "log", "--project", "nowhere", expect=wire.NOT_FOUND).err


def test_the_log_as_json_has_every_field_of_what_is_hashed(kept: Cli) -> None:
    entry = kept("audit", "log", "--limit", "1", "--json").json["entries"][0]
    line = kept("audit", "export").out.splitlines()[-1]
    said = json.loads(line)
    assert {name: entry[name] for name in ("project", "at", "actor", "verb", "subject", "body")} == {
        name: said[name] for name in said if name != "schema"
    }
    assert entry["leaf"] == leaf_hash(line.encode()).hex()
    assert entry["damaged"] == ""


def test_what_was_stored_to_act_on_a_terminal_is_shown_and_does_nothing(kept: Cli, tmp_path: Path) -> None:
    escape, hidden = "\x9b31m", "\u202egpj.exe"
    with la.connect(tmp_path / ".llmartifacts") as registry:
        backend: Any = registry.backend
        from llmartifacts.metadata import audit

        with backend._parts.metadata.writing() as s:
            audit.record(s, None, "", actor=f"eve{escape}", verb="gc\x1b[2J", subject=f"a\n{hidden}", reason=escape)
    text = kept("audit", "log").out + kept("audit", "log", "--json").out
    assert not set(text) & {"\x1b", "\x9b", "\u202e"}
    assert "\\x9b31m" in text


def test_a_damaged_entry_is_marked_in_the_log_and_ends_it_with_5(kept: Cli, tmp_path: Path) -> None:
    alter(tmp_path, EDIT)
    told = kept("audit", "log", expect=wire.DAMAGED).out
    assert "entry 2 is damaged: its hash is not the recorded one" in told
    alter(tmp_path, "update audit set entry = '[]' where id = 2")
    assert "DAMAGED" in kept("audit", "log", expect=wire.DAMAGED).out
    entries = kept("audit", "log", "--json", expect=wire.DAMAGED).json["entries"]
    assert [e["number"] for e in entries if e["damaged"]] == [2]
    assert entries[1]["verb"] is None


# --- checkpoint


def test_a_checkpoint_is_a_signed_note_that_holds_the_root_of_the_export(kept: Cli, tmp_path: Path) -> None:
    note = Note.from_bytes((tmp_path / "one.checkpoint").read_bytes())
    made = Checkpoint.from_text(note.text)
    leaves = [leaf_hash(line.encode()) for line in kept("audit", "export").out.splitlines()]
    assert (made.size, made.root) == (len(leaves), root_of(leaves))
    assert made.origin == f"llmartifacts/{leaves[0].hex()[:16]}"
    key = VerifierKey.parse((tmp_path / "verifier.key").read_text())
    assert (note.signatures[0].name, note.signatures[0].key_id) == (key.name, key.key_id)


def test_a_checkpoint_on_standard_output_is_the_file_itself_and_its_key_goes_to_standard_error(
    kept: Cli, tmp_path: Path
) -> None:
    ended = kept("audit", "checkpoint", "--key", "auditor")
    assert ended.out == (tmp_path / "one.checkpoint").read_text()
    assert ended.err == f"verifier key: {(tmp_path / 'verifier.key').read_text()}"
    document = kept("audit", "checkpoint", "--key", "auditor", "--json").json
    assert document["checkpoint"] == ended.out
    assert document["key"] == (tmp_path / "verifier.key").read_text().strip()
    assert (document["size"], document["origin"]) == (int(ended.out.split("\n")[1]), ended.out.split("\n")[0])


def test_no_file_is_written_over(kept: Cli, tmp_path: Path) -> None:
    before = (tmp_path / "one.checkpoint").read_bytes()
    for arguments in (("checkpoint", "--key", "auditor"), ("export",), ("prove", "1", *CHECKED)):
        error = kept("audit", *arguments, "--out", "one.checkpoint", "--json", expect=wire.CONFLICT).error
        assert error["detail"]["field"] == "--out"
    assert (tmp_path / "one.checkpoint").read_bytes() == before


def test_a_checkpoint_is_signed_only_after_an_earlier_one_that_still_holds(kept: Cli, tmp_path: Path) -> None:
    kept("tag", "docs:v1", "checked=yes")
    kept("audit", "checkpoint", "--key", "auditor", "--after", "one.checkpoint", "--out", "two.checkpoint")
    alter(tmp_path, "delete from audit where id = (select max(id) from audit)")
    ended = kept("audit", "checkpoint", "--key", "auditor", "--after", "two.checkpoint", expect=wire.DAMAGED)
    assert ended.out == ""
    assert "the end was cut off" in ended.err
    key_files.create("other", "eve")
    ended = kept("audit", "checkpoint", "--key", "other", "--after", "one.checkpoint", expect=wire.DAMAGED)
    assert "not signed by a known key" in ended.err


def test_a_key_that_is_not_there_and_an_altered_audit_leave_no_checkpoint(kept: Cli, tmp_path: Path) -> None:
    kept("audit", "checkpoint", "--key", "nobody", "--out", "two.checkpoint", expect=wire.NOT_FOUND)
    alter(tmp_path, EDIT)
    kept("audit", "checkpoint", "--key", "auditor", "--out", "two.checkpoint", expect=wire.DAMAGED)
    assert not (tmp_path / "two.checkpoint").exists()


# --- verify


def test_an_untouched_audit_is_well_with_and_without_a_checkpoint(kept: Cli, tmp_path: Path) -> None:
    assert "only a checkpoint kept elsewhere shows a cut end" in kept("audit", "verify").out
    ended = kept("audit", "verify", *CHECKED)
    assert "one.checkpoint: 7 entries unchanged" in ended.out
    assert ended.out.endswith("all well\n")
    document = kept("audit", "verify", "--checkpoint", "one.checkpoint", "--key", key_text(tmp_path), "--json").json
    assert (document["ok"], document["proven"], document["first_wrong"]) == (True, 7, None)
    assert document["checkpoints"] == [
        {"source": "one.checkpoint", "size": 7, "root": document["root"], "ok": True},
    ]


def key_text(tmp_path: Path) -> str:
    return (tmp_path / "verifier.key").read_text().strip()


@pytest.mark.parametrize(
    ("sql", "told", "first"),
    [
        (EDIT, "altered since the checkpoint: entry 2; the others of its 7 entries are as they were", 2),
        ("delete from audit where id = 4", "entry 4 is the first that is missing", 4),
        ("delete from audit where id > 5", "after entry 5 the end was cut off", 6),
    ],
)
def test_tampering_ends_with_5_in_words_that_name_the_first_wrong_entry(
    kept: Cli, tmp_path: Path, sql: str, told: str, first: int
) -> None:
    alter(tmp_path, sql)
    text = kept("audit", "verify", *CHECKED, expect=wire.DAMAGED).out
    assert told in text
    assert "one.checkpoint: 7 entries NOT THE SAME" in text
    assert f"the first wrong entry that can be told is {first}\n" in text
    document = kept("audit", "verify", *CHECKED, "--json", expect=wire.DAMAGED).json
    assert (document["ok"], document["first_wrong"]) == (False, first)
    assert document["problems"][0]["code"] == "damaged"


def test_several_checkpoints_are_checked_at_once(kept: Cli, tmp_path: Path) -> None:
    kept("tag", "docs:v1", "checked=yes")
    kept("audit", "checkpoint", "--key", "auditor", "--out", "two.checkpoint")
    alter(tmp_path, "update audit set entry = replace(entry, 'yes', 'no') where id = 8")
    text = kept("audit", "verify", *CHECKED, "--checkpoint", "two.checkpoint", expect=wire.DAMAGED).out
    assert "one.checkpoint: 7 entries unchanged" in text
    assert "two.checkpoint: 8 entries NOT THE SAME" in text


@pytest.mark.parametrize(
    ("arguments", "code", "field"),
    [
        (("--checkpoint", "one.checkpoint"), wire.WRONG_USE, "--key"),
        (("--key", "verifier.key"), wire.WRONG_USE, "--key"),
        (("--checkpoint", "none.checkpoint", "--key", "verifier.key"), wire.NOT_FOUND, "--checkpoint"),
        (("--checkpoint", "one.checkpoint", "--key", "no key"), wire.WRONG_USE, "--key"),
        (("--checkpoint", "one.checkpoint", "--key", "one.checkpoint"), wire.WRONG_USE, "--key"),
        (("--checkpoint", "verifier.key", "--key", "verifier.key"), wire.WRONG_USE, "checkpoint"),
        (("--checkpoint", "one.checkpoint", "--proof", "one.checkpoint"), wire.WRONG_USE, "--checkpoint"),
        (("--proof", "one.checkpoint", "--key", "verifier.key"), wire.WRONG_USE, "proof"),
        (("--proof", "one.checkpoint"), wire.WRONG_USE, "--key"),
    ],
)
def test_wrong_use_is_told_with_the_option_that_is_wrong(
    kept: Cli, arguments: tuple[str, ...], code: int, field: str
) -> None:
    error = kept("audit", "verify", *arguments, "--json", expect=code).error
    assert error["detail"]["field"] == field
    assert error["detail"]["hint"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda note: note.replace("\n7\n", "\n6\n"), wire.DAMAGED),
        (lambda note: note.replace("\n", "\r\n"), wire.WRONG_USE),
        (lambda note: note * 2, wire.DAMAGED),
        (lambda note: note[:-20], wire.WRONG_USE),
        (lambda note: "a" * 10_000_000, wire.WRONG_USE),
        (lambda note: "", wire.WRONG_USE),
    ],
)
def test_a_hostile_checkpoint_ends_with_a_typed_error(
    kept: Cli, tmp_path: Path, change: Callable[[str], str], code: int
) -> None:
    file = tmp_path / "one.checkpoint"
    file.write_bytes(change(file.read_text()).encode())
    error = kept("audit", "verify", *CHECKED, "--json", expect=code).error
    assert "one.checkpoint" in json.dumps(error)


def test_a_checkpoint_of_another_registry_is_refused(kept: Cli, tmp_path: Path) -> None:
    kept("init", "other")
    theirs = kept("audit", "checkpoint", "--key", "auditor", "--registry", "other", "--json").json
    (tmp_path / "theirs.checkpoint").write_text(theirs["checkpoint"])
    kept("audit", "verify", "--checkpoint", "theirs.checkpoint", "--key", "verifier.key", expect=wire.DAMAGED)
    ended = kept("audit", "verify", "--checkpoint", "theirs.checkpoint", "--key", theirs["key"], expect=wire.DAMAGED)
    assert "either it is another registry's" in ended.out


# --- prove


def test_the_proof_of_an_entry_is_checked_without_the_registry(
    kept: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = kept("audit", "prove", "3", *CHECKED, "--json").json
    assert document["proof"] == "inclusion"
    kept("audit", "prove", "3", *CHECKED, "--out", "p.json")
    assert json.loads((tmp_path / "p.json").read_text()) == document
    (tmp_path / ".llmartifacts").rename(tmp_path / "gone")
    ended = kept("audit", "verify", "--proof", "p.json", "--key", "verifier.key")
    assert "proven: entry 3 of 7 is" in ended.out
    assert '"subject":"' in ended.out
    told = kept("audit", "verify", "--proof", "p.json", "--key", "verifier.key", "--json").json
    assert (told["proof"], told["entry"], told["old_checkpoint"]) == ("inclusion", document["entry"], None)


def test_the_proof_that_the_audit_only_grew_is_checked_without_the_registry(kept: Cli) -> None:
    kept("tag", "docs:v1", "checked=yes")
    kept("audit", "checkpoint", "--key", "auditor", "--out", "two.checkpoint")
    kept("audit", "prove", "--since", "one.checkpoint", "--checkpoint", "two.checkpoint", "--out", "c.json")
    ended = kept("audit", "verify", "--proof", "c.json", "--key", "verifier.key")
    assert "proven: the audit of 8 entries begins with that of 7 entries" in ended.out
    told = kept("audit", "verify", "--proof", "c.json", "--key", "verifier.key", "--json").json
    assert (told["checkpoint"]["size"], told["old_checkpoint"]["size"]) == (8, 7)
    ended = kept("audit", "prove", "--since", "two.checkpoint", "--checkpoint", "one.checkpoint", expect=None)
    assert ended.code in (wire.WRONG_USE, wire.DAMAGED)


def test_a_proof_that_was_altered_ends_with_5(kept: Cli, tmp_path: Path) -> None:
    document = kept("audit", "prove", "3", *CHECKED, "--json").json
    for change in (
        {"entry": document["entry"].replace("tester", "eve")},
        {"index": 4},
        {"path": document["path"][:-1]},
        {"path": ["00" * 32, *document["path"][1:]]},
        {"checkpoint": document["checkpoint"].replace("\n7\n", "\n8\n")},
    ):
        (tmp_path / "p.json").write_text(json.dumps({**document, **change}))
        kept("audit", "verify", "--proof", "p.json", "--key", "verifier.key", expect=wire.DAMAGED)


def test_nothing_is_proved_from_an_audit_that_is_not_the_one_that_was_signed(kept: Cli, tmp_path: Path) -> None:
    for arguments in (("prove",), ("prove", "3", "--since", "one.checkpoint")):
        error = kept("audit", *arguments, *CHECKED, "--json", expect=wire.WRONG_USE).error
        assert error["detail"]["field"] == "ENTRY"
    error = kept("audit", "prove", "8", *CHECKED, "--json", expect=wire.WRONG_USE).error
    assert error["message"] == "entry 8 is not among the 7 entries of the checkpoint"
    alter(tmp_path, "delete from audit where id = 7")
    ended = kept("audit", "prove", "3", *CHECKED, expect=wire.DAMAGED)
    assert "this audit is not the one that the checkpoint was signed over" in ended.err


# --- export


def test_the_export_is_one_canonical_line_for_each_entry(kept: Cli, tmp_path: Path) -> None:
    document = kept("audit", "export", "--out", "audit.jsonl", "--json").json
    assert document == {"file": "audit.jsonl", "entries": 7}
    data = (tmp_path / "audit.jsonl").read_bytes()
    assert kept("audit", "export").out.encode() == data
    with la.connect(tmp_path / ".llmartifacts") as registry:
        assert data == b"".join(entry + b"\n" for entry in registry.backend.export_audit())


def test_the_export_of_an_altered_audit_leaves_no_file(kept: Cli, tmp_path: Path) -> None:
    alter(tmp_path, EDIT)
    kept("audit", "export", "--out", "audit.jsonl", expect=wire.DAMAGED)
    assert not (tmp_path / "audit.jsonl").exists()
    assert kept("audit", "export", "--json", expect=wire.WRONG_USE).error["detail"]["field"] == "--out"


def test_the_export_on_a_terminal_is_text_that_it_does_not_obey(
    kept: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with la.connect(tmp_path / ".llmartifacts") as registry:
        backend: Any = registry.backend
        from llmartifacts.metadata import audit

        with backend._parts.metadata.writing() as s:
            audit.record(s, None, "", actor="eve", verb="gc", subject="\x9b2J\u202e")
    assert "\x9b" in kept("audit", "export").out, "the exact bytes, for a file"
    monkeypatch.setattr(type(sys.stdout), "isatty", lambda self: True)
    shown = kept("audit", "export").out
    assert "\\x9b2J" in shown
    assert not set(shown) & {"\x9b", "\u202e"}
