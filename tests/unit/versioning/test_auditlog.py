"""The audit as it is read: newest entries, export, checkpoints and proofs, over each database."""

from __future__ import annotations

import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts.errors import Damaged, InvalidInput, NotFound
from llmartifacts.records.audit import AuditEvent, origin_of
from llmartifacts.records.canonical import canonical_bytes
from llmartifacts.records.merkle import leaf_hash, root_of


@pytest.fixture
def used(short: Any) -> Any:
    """Eight entries: the creation, four of logging, two promotions, one rollback."""
    for n in range(1, 5):
        short.log("a", f"content {n}", message=f"state {n}")
    short.promote("a:v1", reason="first")
    short.promote("a:v2", reason="better")
    short.rollback("a:prod")
    return short


def alter(used: Any, sql: str) -> None:
    with used.backend._parts.metadata.writing() as s:
        s.run(sql)


def test_the_log_shows_the_newest_entries_the_newest_last(used: Any) -> None:
    entries = used.backend.audit_log(limit=3)
    assert [e.number for e in entries] == [6, 7, 8]
    assert [e.event.verb for e in entries] == ["promote", "promote", "rollback"]
    assert [e.event.to_bytes() for e in entries] == list(used.backend.export_audit())[-3:]
    assert not any(e.damaged for e in entries)


def test_the_log_is_narrowed_to_a_project_and_to_a_verb(used: Any) -> None:
    used.backend.create_project("other", actor="eve")
    assert [e.number for e in used.backend.audit_log("default", limit=2)] == [7, 8]
    assert [e.event.actor for e in used.backend.audit_log("other")] == ["eve"]
    assert [e.number for e in used.backend.audit_log(verb="promote")] == [6, 7]
    assert used.backend.audit_log("other", verb="promote") == []
    with pytest.raises(NotFound):
        used.backend.audit_log("others")


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("update audit set entry = replace(entry, 'ann', 'eve') where id = 3", "hash is not the recorded one"),
        ("update audit set verb = 'log' where id = 6", "its verb is not what it says"),
        ("update audit set project_id = null where id = 6", "its project is not what it says"),
        ("update audit set entry = '[]' where id = 4", "hash is not the recorded one"),
    ],
)
def test_the_log_shows_a_damaged_entry_as_damaged_and_the_others_as_they_are(used: Any, sql: str, told: str) -> None:
    alter(used, sql)
    entries = used.backend.audit_log()
    assert len(entries) == 8
    (damaged,) = (e for e in entries if e.damaged)
    assert told in damaged.damaged


def test_the_export_is_the_very_bytes_that_are_hashed(used: Any) -> None:
    exported = list(used.backend.export_audit())
    with used.backend._parts.metadata.reading() as s:
        leaves = [bytes(r[0]) for r in s.rows("select leaf from audit order by id")]
    assert [leaf_hash(entry) for entry in exported] == leaves
    for entry in exported:
        assert b"\n" not in entry
        assert AuditEvent.from_bytes(entry).to_bytes() == entry
    assert [canonical_bytes(e) for e in used.backend.audit()] == exported


def test_the_export_of_more_than_a_page_is_whole(used: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(used.backend.export_audit())
    monkeypatch.setattr("llmartifacts.metadata.audit.stored_after.__defaults__", (3,))
    assert list(used.backend.export_audit()) == whole
    assert used.backend.audit_checkpoint().size == 8


def test_a_checkpoint_is_the_size_and_the_root_of_what_is_exported(used: Any) -> None:
    exported = [leaf_hash(entry) for entry in used.backend.export_audit()]
    made = used.backend.audit_checkpoint()
    assert (made.origin, made.size, made.root) == (origin_of(exported[0]), 8, root_of(exported))
    used.log("a", "more")
    later = used.backend.audit_checkpoint()
    assert (later.origin, later.size) == (made.origin, 9)
    assert later.root != made.root


def test_every_entry_is_proven_for_every_size(used: Any) -> None:
    exported = list(used.backend.export_audit())
    for size in range(1, 9):
        root = root_of(leaf_hash(entry) for entry in exported[:size])
        for index in range(size):
            proof = used.backend.audit_inclusion(index, size)
            assert (proof.entry, proof.index, proof.size) == (exported[index], index, size)
            checkpoint = type(used.backend.audit_checkpoint())("x", size, root)
            assert proof.holds(checkpoint)


def test_the_audit_is_proven_to_have_only_grown(used: Any) -> None:
    earlier = [used.backend.audit_checkpoint()]
    for n in range(5):
        used.log("b", f"content {n}")
        earlier.append(used.backend.audit_checkpoint())
    for i, old in enumerate(earlier):
        for new in earlier[i:]:
            assert used.backend.audit_consistency(old.size, new.size).holds(old, new)
    assert used.backend.audit_consistency(0, 3).path == ()


@pytest.mark.parametrize(("index", "size"), [(8, 8), (-1, 8), (0, 0), (0, 9)])
def test_a_proof_that_cannot_be_made_is_refused(used: Any, index: int, size: int) -> None:
    with pytest.raises(InvalidInput):
        used.backend.audit_inclusion(index, size)


@pytest.mark.parametrize(("old", "new"), [(5, 4), (-1, 4), (4, 9), (0, -1)])
def test_a_growth_that_was_none_is_refused(used: Any, old: int, new: int) -> None:
    with pytest.raises(InvalidInput):
        used.backend.audit_consistency(old, new)


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("update audit set entry = replace(entry, 'ann', 'eve') where id = 3", "audit entry 3 was altered"),
        ("delete from audit where id = 3", "audit entry 3 is missing"),
        ("delete from audit where id in (3, 4)", "audit entries 3 to 4 are missing"),
        ("delete from audit where id < 3", "audit entries 1 to 2 are missing"),
    ],
)
def test_what_was_tampered_with_is_neither_signed_nor_proven_nor_exported(used: Any, sql: str, told: str) -> None:
    alter(used, sql)
    for attempt in (
        used.backend.audit_checkpoint,
        lambda: used.backend.audit_consistency(4, 6),
        lambda: list(used.backend.export_audit()),
        lambda: used.backend.audit_inclusion(2, 4),
    ):
        with pytest.raises(Damaged, match=told):
            attempt()


def test_the_last_entry_is_not_proven_if_it_was_altered(used: Any) -> None:
    alter(used, "update audit set entry = replace(entry, 'cat', 'eve') where id = 8")
    with pytest.raises(Damaged, match="entry 8"):
        used.backend.audit_inclusion(7, 8)


def test_an_export_stops_at_an_entry_that_would_make_two_lines(used: Any) -> None:
    entry = b'{"a":\n1}'
    with used.backend._parts.metadata.writing() as s:
        s.run("update audit set entry = :e, leaf = :l where id = 5", {"e": entry.decode(), "l": leaf_hash(entry)})
    with pytest.raises(Damaged, match="entry 5"):
        list(used.backend.export_audit())


def test_numbers_have_no_gaps_even_after_a_change_that_failed(used: Any) -> None:
    class Stop(Exception):
        pass

    from llmartifacts.metadata import audit

    with pytest.raises(Stop), used.backend._parts.metadata.writing() as s:
        audit.record(s, None, "", actor="ann", verb="gc", subject="registry")
        raise Stop
    used.log("a", "one more")
    assert [e.number for e in used.backend.audit_log()] == list(range(1, 10))
    assert used.backend.verify_audit().ok


def test_checkpoints_taken_while_others_write_are_each_the_beginning_of_the_next(tmp_path: Path) -> None:
    with la.init(tmp_path / "registry") as registry:
        backend = registry.backend

        def write(name: str) -> None:
            for n in range(15):
                registry.log(name, la.Files({"a.txt": f"{name} {n}".encode()}))

        writers = [threading.Thread(target=write, args=(f"writer-{i}",)) for i in range(3)]
        for writer in writers:
            writer.start()
        taken = [backend.audit_checkpoint()]
        while any(writer.is_alive() for writer in writers):
            taken.append(backend.audit_checkpoint())
        for writer in writers:
            writer.join()
        taken.append(backend.audit_checkpoint())

        assert taken[-1].size == 1 + 3 * 15
        for old, new in pairwise(taken):
            assert backend.audit_consistency(old.size, new.size).holds(old, new)
        found = backend.verify_audit([(str(made.size), made) for made in taken])
        assert found.ok
        assert found.proven == taken[-1].size
