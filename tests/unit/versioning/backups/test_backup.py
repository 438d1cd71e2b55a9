"""A backup holds a registry as it was at one moment, costs what is new, and is there whole or not at all."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from backup_helpers import Rows, parts_of, rows_of

import llmartifacts as la
from llmartifacts.blobs.local import LocalDriver
from llmartifacts.errors import Busy, Conflict, Damaged, InvalidInput, NotAllowed, NotFound
from llmartifacts.metadata import dump
from llmartifacts.records.backend import Draft
from llmartifacts.records.backup import BackupRecord, object_key, record_key
from llmartifacts.records.manifest import Manifest
from llmartifacts.registry import Registry
from llmartifacts.upkeep import Upkeep
from llmartifacts.versioning.backups import look, take
from llmartifacts.versioning.backups.place import BackupPlace
from llmartifacts.versioning.backups.restore import restore_folder
from llmartifacts.versioning.backups.take import backup


def files(place: str) -> dict[str, int]:
    """Path -> bytes of everything that a place holds for good."""
    root = Path(place)
    found = (p for p in root.rglob("*") if p.is_file() and not p.relative_to(root).parts[0].startswith("."))
    return {str(p.relative_to(root)): p.stat().st_size for p in found}


def without_restore(rows: Rows) -> Rows:
    """The rows without the entry that says that they were restored."""
    assert rows["audit"][-1][3] == "restore"
    return {**rows, "audit": rows["audit"][:-1]}


def test_what_is_restored_is_what_was_there_row_by_row_and_byte_by_byte(
    source: Registry, taken: BackupRecord, place: str, tmp_path: Path
) -> None:
    before = rows_of(source.backend)  # type: ignore[arg-type]
    done = restore_folder(place, tmp_path / "new", actor="eve", read_data=True)
    assert done.verification.ok
    assert done.revisions == {"acme": 0, "default": 3}
    with la.connect(tmp_path / "new") as restored:
        assert without_restore(rows_of(restored.backend)) == before  # type: ignore[arg-type]
        assert restored.verify(read_data=True).ok
        assert restored.verify_audit().problems == ()
        assert restored.backend.identity() == source.backend.identity() == taken.origin
        big = source.find("index:prod").manifest.files[0].blob
        assert restored.backend.blobs.read(big) == source.backend.blobs.read(big)
        assert len(restored.find("many:v1").manifest.files) == 700
        assert restored.log("docs", la.Files({"a.txt": b"and on it goes"})).number == 3
        assert restored.gc(dry_run=True).objects == 0


def test_the_audit_says_who_restored_what(source: Registry, taken: BackupRecord, place: str, tmp_path: Path) -> None:
    restore_folder(place, tmp_path / "new", actor="eve")
    with la.connect(tmp_path / "new") as restored:
        event = restored.audit_log(verb="restore")[0].event
        assert event is not None
        assert (event.actor, event.body["entries"], event.body["root"]) == ("eve", taken.entries, taken.root)
        assert restored.audit_checkpoint().size == taken.entries + 1


def test_a_second_backup_sends_only_what_is_new(source: Registry, taken: BackupRecord, place: str) -> None:
    before = files(place)
    again = backup(parts_of(source), place)
    assert (again.number, again.sent) == (2, 0)
    assert files(place).keys() - before.keys() == {record_key(2)}
    source.log("docs", la.Files({"a.txt": b"a third time"}))
    third = backup(parts_of(source), place)
    assert 0 < third.sent < taken.sent / 20
    assert files(place).keys() >= before.keys()
    assert sum(files(place).values()) < sum(before.values()) + 60_000


def test_a_row_more_changes_the_pieces_around_it_only(source: Registry, place: str) -> None:
    with parts_of(source).metadata.writing() as s:
        for i in range(8000):
            s.run(
                "insert into tag(version_id, name, value) values (1, :n, :v)",
                {"n": f"t{i:05}", "v": os.urandom(100).hex()},
            )
    first = backup(parts_of(source), place)
    with parts_of(source).metadata.writing() as s:
        s.run("insert into tag(version_id, name, value) values (1, 't00000a', 'x')")
    second = backup(parts_of(source), place)
    tags = next(stream for stream in first.tables if stream.name == "tag")
    assert len(tags.pieces) > 2
    shared = {p.digest for p in tags.pieces} & {p.digest for t in second.tables for p in t.pieces}
    assert len(shared) >= len(tags.pieces) - 2


_WRITER = """
import os, sys
import llmartifacts as la
place, name = sys.argv[1:]
with la.connect(place) as own:
    number = 0
    while not os.path.exists(place + "/../stop"):
        number += 1
        value = la.Files({"n": f"{name} {number}".encode(), "b.bin": os.urandom(1_100_000)})
        version = own.log(name, value, inputs=["docs:v1"])
        own.promote(f"{name}:v{version.number}", to="prod", reason="go")
        print("one more", flush=True)
"""


def test_new_versions_change_only_the_ends_of_what_grows_with_them(source: Registry, place: str) -> None:
    def batch(start: int) -> list[Draft]:
        contents = [{"content": hashlib.sha256(f"{i}".encode()).hexdigest() * 6} for i in range(start, start + 1500)]
        return [Draft(f"p{i % 7}", Manifest.build("unknown-kind", config)) for i, config in enumerate(contents)]

    source.backend.commit("default", batch(0), actor="ann")
    first = backup(parts_of(source), place)
    source.backend.commit("default", batch(5000)[:20], actor="ann")
    second = backup(parts_of(source), place)
    before = {s.name: {p.digest for p in s.pieces} for s in first.tables}
    after = {s.name: s.pieces for s in second.tables}
    assert len(after["manifest"]) > 3
    for name in ("manifest", "content", "version", "audit"):
        assert sum(p.digest not in before[name] for p in after[name]) <= 2, name
    with parts_of(source).metadata.reading() as s:
        for table in dump.kept():  # in whatever order, each row once
            found = list(dump.rows(s, table, page=7))
            assert sorted(map(repr, found)) == sorted(map(repr, s.rows(f"select * from {table.name}")))


@pytest.mark.slow
def test_each_backup_taken_while_processes_write_is_of_one_moment(source: Registry, place: str, tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", _WRITER, source.backend.location]
    writers = [subprocess.Popen([*arguments, f"load-{i}"], stdout=subprocess.PIPE) for i in range(3)]

    def written() -> None:
        """Wait until everybody wrote once more."""
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"one more\n"

    records = []
    try:
        for _ in range(4):
            written()
            records.append(backup(parts_of(source), place))
        written()
    finally:
        (tmp_path / "stop").touch()
        for writer in writers:
            writer.communicate(timeout=60)
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert [r.number for r in records] == [1, 2, 3, 4]
    final = rows_of(source.backend)  # type: ignore[arg-type]
    assert records[0].entries < records[-1].entries < len(final["audit"])
    for record in records:
        restore_folder(place, tmp_path / f"r{record.number}", which=record.number, actor="eve", read_data=True)
        with la.connect(tmp_path / f"r{record.number}") as restored:
            rows = without_restore(rows_of(restored.backend))  # type: ignore[arg-type]
            at = record.entries
            assert rows["audit"] == final["audit"][:at]
            # What the audit had told by then, and nothing else: versions by id, moves by revision.
            told = sum(1 for e in final["audit"][:at] if e[3] == "log" and '"created":true' in e[5])
            assert rows["version"] == final["version"][:told]
            moves = sum(1 for e in final["audit"][:at] if e[3] in ("promote", "rollback"))
            assert len(rows["promotion"]) == moves
            assert set(rows["promotion"]) <= set(final["promotion"])


def test_what_a_collection_removed_meanwhile_makes_the_snapshot_be_taken_again(
    source: Registry, place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    parts, snapshot, calls = parts_of(source), take._Attempt._snapshot, []

    def then_removed(self: Any, *files: Any) -> Any:
        made = snapshot(self, *files)
        calls.append(made)
        if len(calls) == 1:  # the version goes, and with it its bytes
            found = source.find("docs:v2")
            with parts.metadata.writing() as s:
                s.run("update version set removed_at = 1 where number = 2")
            parts.blobs.delete(found.manifest.files[0].digest)
        return made

    monkeypatch.setattr(take._Attempt, "_snapshot", then_removed)
    record = backup(parts, place)
    assert len(calls) == 2
    with parts.metadata.reading() as s:
        assert s.rows("select * from upload") == []  # what was held is held no more
    assert look.check(place) == (record, ())


@pytest.mark.slow
def test_backups_are_whole_while_versions_are_removed_and_freed_all_the_time(
    source: Registry, place: str, tmp_path: Path
) -> None:
    stop = threading.Event()
    failed: list[BaseException] = []
    source.log("busy", la.Files({"n": b"first"}))

    def log() -> None:
        with la.connect(source.backend.location) as own:
            number = 0
            while not stop.is_set():
                number += 1
                own.log("busy", la.Files({"n": f"{number}".encode(), "b.bin": os.urandom(1_100_000)}))

    def free() -> None:
        with la.connect(source.backend.location) as own:
            while not stop.is_set():
                own.gc(keep_last=2, collections=["busy"], compact=True)

    def caught(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                work()
            except Conflict:  # two that clean up, or somebody who logs what just went: said, and nothing is lost
                run()
            except BaseException as error:
                failed.append(error)

        return run

    threads = [threading.Thread(target=caught(work)) for work in (log, free)]
    for thread in threads:
        thread.start()
    try:
        records = [backup(parts_of(source), place) for _ in range(5)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failed == []
    with parts_of(source).metadata.reading() as s:
        assert s.rows("select * from upload") == []
    for record in records:
        assert look.check(place, record.number)[1] == ()
    for number in (1, 5):
        restore_folder(place, tmp_path / f"r{number}", which=number, actor="eve", read_data=True)


def test_chunks_that_a_collection_put_into_other_packs_are_found_there(
    source: Registry, place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    each_pack, calls = take._Attempt._each_pack, []

    def after_repacking(self: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            for name in list(self._packs):
                self._parts.blobs.driver.delete(f"packs/{name[:2]}/{name}.pack")
                raise take._Gone(take.BlobMissing("gone"))
        return each_pack(self)

    monkeypatch.setattr(take._Attempt, "_each_pack", after_repacking)
    with pytest.raises((Damaged, Conflict)):  # here they are nowhere: said, and no backup is listed
        backup(parts_of(source), place)
    assert BackupPlace.open(place).numbers() == []


def test_damage_in_the_registry_is_found_when_it_is_sent_and_no_backup_is_listed(source: Registry, place: str) -> None:
    blob = source.find("docs:v2").manifest.files[0].blob
    file = Path(source.backend.location) / "blobs" / "sha256" / blob.digest[7:9] / blob.digest[7:]
    file.chmod(0o644)
    file.write_bytes(b"x" * blob.size)
    with pytest.raises(Damaged) as raised:
        backup(parts_of(source), place)
    assert "docs:v2" in raised.value.versions
    assert BackupPlace.open(place).numbers() == []


def test_a_damaged_pack_is_not_backed_up(source: Registry, place: str) -> None:
    pack = next((Path(source.backend.location) / "blobs" / "packs").rglob("*.pack"))
    pack.chmod(0o644)
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)
    with pytest.raises(Damaged, match="pack"):
        backup(parts_of(source), place)


def test_what_rotted_in_the_place_is_mended_where_it_is_read_back(
    source: Registry, taken: BackupRecord, place: str
) -> None:
    kept = [p for p in (Path(place) / "objects").rglob("*") if p.is_file()]
    for file in kept:
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.chmod(0o644)
        file.write_bytes(data)
    record, problems = look.check(place)
    assert record.number == 1
    assert problems
    assert backup(parts_of(source), place).sent == 0  # by their sizes they are there
    again = backup(parts_of(source), place, read_back=True)
    assert again.sent > 0
    assert look.check(place)[1] == ()
    assert look.check(place, 1)[1] == ()  # what both need is mended for both


def test_a_file_that_went_missing_is_sent_again(source: Registry, taken: BackupRecord, place: str) -> None:
    for file in [p for p in (Path(place) / "objects").rglob("*") if p.is_file()][::2]:
        file.unlink()
    assert look.check(place)[1]
    backup(parts_of(source), place)
    assert look.check(place)[1] == ()


@pytest.mark.parametrize("nth", [0, 1, 3, 5])
def test_a_backup_that_was_killed_is_none_and_the_next_one_is_whole(
    source: Registry, place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, nth: int
) -> None:
    put, left = LocalDriver._place, [nth]

    def killed(self: Any, key: str, *rest: Any) -> bool:
        if str(self.root) == place and not key.startswith("running/"):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
        return put(self, key, *rest)

    monkeypatch.setattr(LocalDriver, "_place", killed)
    with pytest.raises(KeyboardInterrupt):
        backup(parts_of(source), place)
    monkeypatch.undo()
    with pytest.raises(NotFound, match="no backup"):
        restore_folder(place, tmp_path / "none", actor="eve")
    record = backup(parts_of(source), place)
    assert record.number == 1
    assert look.check(place)[1] == ()


def test_of_two_that_end_at_once_each_gets_a_number_of_its_own(source: Registry, place: str) -> None:
    records: list[BackupRecord] = []
    threads = [threading.Thread(target=lambda: records.append(backup(parts_of(source), place))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(r.number for r in records) == [1, 2, 3, 4]
    assert len({r.write for r in records}) == 4


def test_an_answer_that_was_lost_is_not_taken_for_somebody_elses_backup(
    source: Registry, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = LocalDriver.put_if_absent

    def lost(self: Any, key: str, item: Any) -> bool:
        return put(self, key, item) and not key.startswith("backups/")

    monkeypatch.setattr(LocalDriver, "put_if_absent", lost)
    assert backup(parts_of(source), place).number == 1
    assert BackupPlace.open(place).numbers() == [1]


def test_a_place_is_for_one_registry_and_never_a_registry_itself(
    source: Registry, taken: BackupRecord, place: str, tmp_path: Path
) -> None:
    with la.init(tmp_path / "other") as other, pytest.raises(Conflict, match="has backups of"):
        backup(parts_of(other), place)
    for wrong in (source.backend.location, f"{source.backend.location}/blobs", f"{source.backend.location}/new"):
        with pytest.raises(InvalidInput, match="registry"):
            backup(parts_of(source), wrong)
    with pytest.raises(InvalidInput, match="empty"):
        backup(parts_of(source), "")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InvalidInput, match="no folder"):
        backup(parts_of(source), str(tmp_path / "file"))


def test_a_server_is_backed_up_on_its_own_host() -> None:
    class Remote(Upkeep):
        backend: Any = object()

    with pytest.raises(NotAllowed, match="server's host"):
        Remote().backup("anywhere")


def test_older_backups_go_with_what_only_they_need(source: Registry, place: str, tmp_path: Path) -> None:
    for i in range(4):
        source.log("docs", la.Files({"a.txt": f"{i}".encode() * 3000}))
        backup(parts_of(source), place)
    before = files(place)
    told = look.prune(place, 2, dry_run=True)
    assert files(place) == before
    done = look.prune(place, 2)
    assert (done.kept, done.removed) == ((3, 4), (1, 2))
    assert (told.objects, told.freed) == (done.objects, done.freed)
    assert done.objects > 0
    assert look.check(place, 3)[1] == look.check(place, 4)[1] == ()
    assert look.prune(place, 2).objects == 0
    restore_folder(place, tmp_path / "new", which=3, actor="eve")
    assert backup(parts_of(source), place).number == 5


def test_where_a_backup_that_stays_cannot_be_read_nothing_is_removed(source: Registry, place: str) -> None:
    for _ in range(3):
        record = backup(parts_of(source), place)
    piece = record.objects.pieces[0]
    (Path(place) / object_key(piece.digest)).unlink()
    before = files(place)
    with pytest.raises(Damaged):
        look.prune(place, 1)
    assert files(place) == before


def test_a_record_that_rotted_keeps_nobody_from_the_next_backup(
    source: Registry, taken: BackupRecord, place: str
) -> None:
    file = Path(place) / record_key(1)
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(Damaged):
        BackupPlace.open(place).find()
    assert backup(parts_of(source), place).number == 2
    found, problems = look.listed(place)
    assert [r.number for r in found] == [2]
    assert len(problems) == 1
    assert look.check(place)[1] == ()


def test_a_recipe_that_is_written_anew_meanwhile_is_listed_as_what_it_is(
    source: Registry, place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The listing is older than what is read: its size is not that of the recipe any more."""
    stored_as = take._Attempt._stored_as

    def listed_before(self: Any, *given: Any) -> Any:
        key, size, form = stored_as(self, *given)
        return key, size + (form == ".recipe"), form

    monkeypatch.setattr(take._Attempt, "_stored_as", listed_before)
    backup(parts_of(source), place)
    assert look.check(place)[1] == ()
    restore_folder(place, tmp_path / "new", actor="eve")


def test_backups_are_not_removed_while_one_is_taken(source: Registry, place: str) -> None:
    with BackupPlace.open(place).busy("backup"):
        with pytest.raises(Busy, match="a backup is under way"):
            look.prune(place, 1)
        backup(parts_of(source), place)  # beside another one
    stale = b'{"at":"2026-01-01T00:00:00.000000Z","host":"h","what":"prune"}'  # killed long ago
    assert BackupPlace.open(place).driver.put_if_absent("running/0123456789abcdef", stale)
    backup(parts_of(source), place)
    assert list(BackupPlace.open(place).driver.list("running/")) == []
    with BackupPlace.open(place).busy("prune"), pytest.raises(Busy, match="a prune is under way"):
        backup(parts_of(source), place)


def test_a_backup_is_found_by_number_and_by_id(source: Registry, place: str) -> None:
    first, second = backup(parts_of(source), place), backup(parts_of(source), place)
    here = BackupPlace.open(place)
    assert here.find() == second
    assert here.find("1") == here.find(1) == here.find(first.write) == here.find(first.write[:6] + "") == first
    for wrong in ("3", "zzzz", "ab"):
        with pytest.raises(NotFound):
            here.find(wrong)
    assert [r.number for r in look.backups(place)] == [1, 2]
