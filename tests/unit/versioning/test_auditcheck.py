"""Tampering with the audit, by those who hide it and those who do not, held against checkpoints; over each database."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from llmartifacts.errors import Damaged
from llmartifacts.metadata import audit
from llmartifacts.records.audit import AuditEvent, AuditVerification
from llmartifacts.records.checkpoint import Checkpoint
from llmartifacts.records.merkle import EMPTY_ROOT
from llmartifacts.records.reference import Reference

Events = list[AuditEvent]


def label(backend: Any, n: int) -> None:
    """A change that no record but the audit keeps the history of."""
    backend.tag("default", Reference.parse("a:v1"), set={"n": str(n)}, remove=[], actor="ann")


class Log:
    """A registry with twelve audit entries, and checkpoints that were kept elsewhere."""

    def __init__(self, short: Any) -> None:
        self.backend = short.backend
        self.kept: list[tuple[str, Checkpoint]] = []
        for n in range(3):
            short.log("a", f"content {n}")
        self.keep()
        for n in range(5):
            label(short.backend, n)
        self.keep()
        for n in range(3):
            short.log("b", f"content {n}")
        self.keep()

    def keep(self) -> None:
        made = self.backend.audit_checkpoint()
        self.kept.append((f"{made.size}.checkpoint", made))

    @property
    def last(self) -> list[tuple[str, Checkpoint]]:
        return self.kept[-1:]

    def run(self, sql: str) -> None:
        with self.backend._parts.metadata.writing() as s:
            s.run(sql)

    def events(self) -> Events:
        return [AuditEvent.from_bytes(entry) for entry in self.backend.export_audit()]

    def write_anew(self, change: Callable[[Events], Events]) -> None:
        """What somebody does who knows how it is made: entries, hashes, numbers and columns all fit again."""
        events = change(self.events())
        with self.backend._parts.metadata.writing() as s:
            ids = dict(s.rows("select name, id from project"))
            s.run("delete from audit")
            audit.record_many(s, [(ids.get(e.project), e) for e in events])

    def check(self, kept: list[tuple[str, Checkpoint]] | None = None) -> AuditVerification:
        return self.backend.verify_audit(self.last if kept is None else kept)


@pytest.fixture
def log(short: Any) -> Log:
    return Log(short)


def told(found: AuditVerification) -> str:
    return "\n".join(problem.message for problem in found.problems)


def test_an_audit_that_nobody_altered_is_proven_by_each_of_its_checkpoints(log: Log) -> None:
    found = log.check(log.kept)
    assert found.ok
    assert (found.size, found.proven, found.first_wrong) == (12, 12, None)
    assert [(f.source, f.size, f.ok) for f in found.checkpoints] == [
        ("4.checkpoint", 4, True),
        ("9.checkpoint", 9, True),
        ("12.checkpoint", 12, True),
    ]
    assert (found.origin, found.root) == (log.last[0][1].origin, log.last[0][1].root.hex())
    assert log.check([]).ok


def test_an_audit_that_grew_since_is_proven_as_far_as_the_checkpoint_goes(log: Log) -> None:
    log.backend.create_project("more", actor="ann")
    found = log.check()
    assert found.ok
    assert (found.size, found.proven) == (13, 12)


# --- by those who do not hide it: seen without a checkpoint too, and each wrong entry is named


@pytest.mark.parametrize(
    ("sql", "first", "alone", "beside"),
    [
        (
            "update audit set entry = replace(entry, 'ann', 'eve') where id = 6",
            6,
            "entry 6 was altered: its hash is not the recorded one",
            "altered since the checkpoint: entry 6; the others of its 12 entries are as they were",
        ),
        (
            "update audit set entry = replace(entry, 'ann', 'eve') where id in (6, 11)",
            6,
            "entry 11 was altered",
            "altered since the checkpoint: entries 6, 11;",
        ),
        (
            "delete from audit where id = 6",
            6,
            "entry 6 is missing",
            "12 entries were there when the checkpoint was signed, and there are 11: entry 6 is the first that is",
        ),
        (
            "delete from audit where id in (6, 12)",
            6,
            "entry 6 is missing",
            "entry 6 is the first that is missing, and after entry 11 the end was cut off",
        ),
        (
            "delete from audit where id > 10",
            11,
            "",
            "12 entries were there when the checkpoint was signed, and there are 10: after entry 10 the end was",
        ),
        (
            "update audit set entry = replace(entry, 'ann', 'eve') where id = 1",
            1,
            "entry 1 was altered",
            "altered since the checkpoint: entry 1; the others of its 12 entries are as they were",
        ),
        (
            "delete from audit where id = 1",
            1,
            "entry 1 is missing",
            "either it is another registry's, or entry 1 was altered",
        ),
        (
            "update audit set verb = 'gc' where id = 6",
            6,
            "entry 6 is filed wrongly: its verb is not what it says",
            "",
        ),
        (
            "update audit set project_id = null where id = 6",
            6,
            "entry 6 is filed wrongly: its project is not what it says",
            "",
        ),
    ],
    ids=["edit", "two edits", "delete", "delete and cut", "cut", "first", "without the first", "verb", "project"],
)
def test_clumsy_tampering_is_found_and_the_entry_named(log: Log, sql: str, first: int, alone: str, beside: str) -> None:
    log.run(sql)
    assert alone in told(log.check([]))
    found = log.check()
    assert not found.ok
    assert beside in told(found)
    assert alone in told(found)
    assert found.first_wrong == first
    assert all(isinstance(problem, Damaged) for problem in found.problems)


def test_two_entries_that_changed_places_are_both_named(log: Log) -> None:
    with log.backend._parts.metadata.writing() as s:
        (one,), (other,) = s.rows("select entry from audit where id in (6, 7) order by id")
        for number, entry in ((6, other), (7, one)):
            s.run("update audit set entry = :e where id = :n", {"e": entry, "n": number})
    assert told(log.check([])).splitlines() == [
        f"entry {n} was altered: its hash is not the recorded one" for n in (6, 7)
    ]
    assert "altered since the checkpoint: entries 6, 7; the others" in told(log.check())


def test_a_recorded_hash_that_was_altered_is_told_apart_from_an_entry_that_was(log: Log) -> None:
    with log.backend._parts.metadata.writing() as s:
        s.run("update audit set leaf = :l where id = 6", {"l": bytes(32)})
    assert told(log.check([])) == "entry 6 was altered: its hash is not the recorded one"
    found = log.check()
    assert told(found) == "the hash that is recorded beside entry 6 was altered; the entry is that of the checkpoint"
    assert found.proven == 12


# --- by those who write hashes and numbers anew: only a checkpoint shows it


def edited(events: Events) -> Events:
    return [*events[:5], replace(events[5], actor="eve"), *events[6:]]


def deleted(events: Events) -> Events:
    return [*events[:5], *events[6:]]


def inserted(events: Events) -> Events:
    return [*events[:5], replace(events[5], body={"name": "forged"}), *events[5:]]


def reordered(events: Events) -> Events:
    return [*events[:5], events[6], events[5], *events[7:]]


def cut(events: Events) -> Events:
    return events[:-1]


def rewritten(events: Events) -> Events:
    return [replace(e, actor="eve" if e.verb == "tag" else e.actor) for e in events]


def rewritten_from_the_first(events: Events) -> Events:
    return [replace(e, body={**e.body, "note": 1}) if e.verb == "project" else e for e in events]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            edited,
            "the first 12 entries are not those of the checkpoint: one of them was edited, removed, put in or moved",
        ),
        (deleted, "and there are 11: after entry 11 the end was cut off, as when an older backup is put back"),
        (inserted, "the first 12 entries are not those of the checkpoint"),
        (reordered, "entry 7 is older than the one before it, so look there first"),
        (cut, "and there are 11: after entry 11 the end was cut off, as when an older backup is put back"),
        (rewritten, "or all of it was written anew; an earlier checkpoint would narrow it down"),
        (rewritten_from_the_first, "this audit begins as llmartifacts/"),
    ],
)
def test_hidden_tampering_is_found_by_a_checkpoint(log: Log, change: Callable[[Events], Events], expected: str) -> None:
    log.write_anew(change)
    found = log.check()
    assert not found.ok
    assert expected in told(found)
    assert not found.checkpoints[0].ok
    assert found.problems[0].details()["file"] == "12.checkpoint"


@pytest.mark.parametrize("change", [edited, reordered, rewritten])
def test_hidden_tampering_with_what_the_records_do_not_hold_is_not_seen_without_a_checkpoint(
    log: Log, change: Callable[[Events], Events]
) -> None:
    log.write_anew(change)
    assert log.check([]).ok, "which is why checkpoints are kept elsewhere"


@pytest.mark.parametrize("change", [edited, inserted, reordered, rewritten])
def test_several_checkpoints_narrow_down_where_the_hidden_tampering_begins(
    log: Log, change: Callable[[Events], Events]
) -> None:
    log.write_anew(change)
    found = log.check(log.kept)
    assert [f.ok for f in found.checkpoints] == [True, False, False]
    assert found.proven == 4
    assert "the first 9 entries are not those of the checkpoint: one from 5 to 9 was edited" in told(found)
    assert "written anew" not in told(found)


def test_a_backup_that_was_put_back_and_written_on_is_another_audit_than_the_one_that_was_signed(log: Log) -> None:
    log.write_anew(lambda events: events[:-2])
    with log.backend._parts.metadata.writing() as s:
        s.run(
            "delete from move where alias = 'latest' and collection_id = (select id from collection where name = 'b')"
        )
    for n in range(3):
        label(log.backend, n)
    told = [p.message for p in log.check(log.kept).problems]
    assert any("the first 12 entries are not those of the checkpoint: one from 10 to 12 was" in t for t in told), told
    branch = [("branch.checkpoint", log.backend.audit_checkpoint())]
    assert log.check(branch).checkpoints[0].ok, "of its own branch a checkpoint tells nothing but that"


def test_one_entry_between_two_checkpoints_is_named_exactly(log: Log) -> None:
    log.backend.start_run("default", "build", parameters={}, actor="ann")
    log.keep()
    log.write_anew(lambda events: [*events[:-1], replace(events[-1], actor="eve")])
    found = log.check(log.kept)
    assert found.first_wrong == 13
    assert "entry 13 was edited" in told(found)


def test_a_cut_end_is_known_for_certain_where_a_checkpoint_ends_right_there(log: Log) -> None:
    log.write_anew(lambda events: events[:9])
    found = log.check(log.kept)
    assert (found.proven, found.first_wrong) == (9, 10)
    assert "after entry 9 the end was cut off, as when an older backup is put back" in told(found)
    assert "renumbered" not in told(found)


def test_an_audit_put_back_to_an_older_backup_with_all_its_records_is_found(short: Any) -> None:
    log = Log(short)
    backup = log.events()
    short.backend.start_run("default", "later", parameters={}, actor="ann")
    log.keep()
    log.run("delete from run where name = 'later'")
    log.write_anew(lambda events: backup)
    assert log.check([]).ok, "by itself the older registry is a sound one"
    assert "the end was cut off" in told(log.check())


def test_the_checkpoint_of_another_registry_is_told_apart(log: Log) -> None:
    made = log.last[0][1]
    found = log.check([("other.checkpoint", Checkpoint("llmartifacts/0000000000000000", made.size, made.root))])
    assert "the checkpoint is of llmartifacts/0000000000000000, and this audit begins as" in told(found)
    assert found.first_wrong == 1


def test_the_checkpoint_of_an_audit_without_entries_proves_nothing_and_harms_nothing(log: Log) -> None:
    made = log.last[0][1]
    found = log.check([("empty.checkpoint", Checkpoint(made.origin, 0, EMPTY_ROOT))])
    assert found.ok
    assert found.proven == 0
    assert not log.check([("wrong.checkpoint", Checkpoint(made.origin, 0, made.root))]).ok


def test_an_audit_that_is_gone_is_found_with_and_without_a_checkpoint(log: Log) -> None:
    log.run("delete from audit")
    assert "the audit has no entries" in told(log.check([]))
    assert "begins as nothing" in told(log.check())


def test_entries_below_the_first_number_are_found(log: Log) -> None:
    log.run(
        "insert into audit(id, project_id, at, verb, subject, entry, leaf)"
        " select -5, project_id, at, verb, subject, entry, leaf from audit where id = 2"
    )
    found = log.check()
    assert "rows without a number from 1 on, which are no entries: 1" in told(found)
    assert found.checkpoints[0].ok


def test_very_many_wrong_entries_are_counted_and_not_all_told(log: Log) -> None:
    for n in range(30):
        label(log.backend, n)
    log.run("update audit set entry = replace(entry, 'ann', 'eve') where verb = 'tag'")
    problems = [p.message for p in log.check([]).problems if "altered" in p.message or "more" in p.message]
    assert len(problems) == 21
    assert problems[-1] == "and 15 more like these"


def test_records_that_contradict_the_audit_are_told_too(log: Log) -> None:
    log.run("update version set author = 'eve' where number = 1")
    assert "the author is not what the audit says" in told(log.check())


def test_a_hash_that_is_no_hash_is_no_error_but_an_altered_entry(short: Any, request: pytest.FixtureRequest) -> None:
    if request.node.callspec.params["backend"] == "sqlite":  # a column of PostgreSQL takes bytes only
        log = Log(short)
        log.run("update audit set leaf = 1099511627776 where id = 6")
        log.run("update audit set leaf = 'text' where id = 7")
        assert "entry 6 was altered" in told(log.check([]))
        assert "entry 7 was altered" in told(log.check([]))


def test_text_that_is_none_is_told_with_how_far_could_be_read(short: Any, request: pytest.FixtureRequest) -> None:
    if request.node.callspec.params["backend"] == "sqlite":
        log = Log(short)
        log.run("update audit set entry = cast(x'ff41' as text) where id = 6")
        found = log.check(log.kept)
        assert not found.ok
        assert "holds what no release writes" in told(found)
        assert "cannot be checked: only" in told(found)
