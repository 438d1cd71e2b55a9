"""A backup becomes a registry whole, or nothing does, whatever somebody put in its place."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from backup_helpers import parts_of, rows_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import llmartifacts as la
from llmartifacts.blobs.local import LocalDriver
from llmartifacts.errors import (
    BlobMissing,
    Conflict,
    Damaged,
    InvalidInput,
    LlmartifactsError,
    NewerFormat,
    NotAllowed,
    NotFound,
)
from llmartifacts.metadata import dump
from llmartifacts.metadata.dump import Table
from llmartifacts.metadata.schema import SCHEMA
from llmartifacts.records.backup import BackupRecord, Piece, Stream, object_key, record_key
from llmartifacts.records.digest import digest_of
from llmartifacts.records.rights import operator
from llmartifacts.registry import Registry
from llmartifacts.server.auth import bearer
from llmartifacts.versioning import accounts
from llmartifacts.versioning.access import identify
from llmartifacts.versioning.admission import bootstrap
from llmartifacts.versioning.backups import restore as restoring
from llmartifacts.versioning.backups.place import BackupPlace
from llmartifacts.versioning.backups.restore import restore_folder, restore_team
from llmartifacts.versioning.backups.rows import OBJECTS, compress, cut, to_lines
from llmartifacts.versioning.backups.take import backup
from llmartifacts.versioning.team import open_team


def nothing_at(folder: Path) -> bool:
    """Whether nothing is left of a restore: neither the registry nor what was on its way."""
    return not folder.exists() and not list(folder.parent.glob(f".{folder.name}*"))


def reseal(place: str, record: BackupRecord) -> None:
    """Put a record that somebody made up in the place of the true one."""
    file = Path(place) / record_key(record.number)
    file.chmod(0o644)
    file.write_bytes(record.to_bytes())


def store(place: str, data: bytes) -> Piece:
    """Bytes in a place, as a piece."""
    digest = digest_of(data)
    LocalDriver(place).put_if_absent(object_key(digest), data)
    return Piece(digest, len(data), 1, 1)


def stream_of(place: str, table: Table, rows: list[tuple[Any, ...]]) -> Stream:
    """Rows of a table, as somebody hostile would write them."""
    pieces = []
    for data, count in cut(to_lines(table, rows)):
        made = store(place, compress(data))
        pieces.append(Piece(made.digest, made.stored, len(data), count))
    return Stream(table.name, tuple(c.name for c in table.columns), tuple(pieces))


def with_table(place: str, record: BackupRecord, name: str, change: Callable[[list[Any]], list[Any]]) -> BackupRecord:
    """The record with the rows of one table changed, all digests made right again."""
    table = next(t for t in dump.kept() if t.name == name)
    here = BackupPlace.open(place)
    streams = []
    for stream in record.tables:
        if stream.name == name:
            stream = stream_of(place, table, change([list(row) for row in here.rows(stream, table)]))
        streams.append(stream)
    return replace(record, tables=tuple(streams))


# --- places


def test_a_folder_with_something_in_it_is_refused(
    source: Registry, taken: BackupRecord, place: str, tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("full", "file", "source"):
        with pytest.raises(Conflict):
            restore_folder(place, tmp_path / name, actor="eve")
    assert (tmp_path / "full" / "x").read_text() == "mine"
    with pytest.raises(InvalidInput, match="where the backups are"):
        restore_folder(place, Path(place) / "new", actor="eve")


def test_an_empty_folder_and_one_deep_down_are_taken(taken: BackupRecord, place: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "a" / "b" / "c"):
        restore_folder(place, folder, actor="eve")
        with la.connect(folder) as registry:
            assert registry.verify().ok


def test_where_there_is_no_backup_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no backup"):
        restore_folder(str(tmp_path / "nowhere"), tmp_path / "new", actor="eve")
    assert nothing_at(tmp_path / "new")
    assert not (tmp_path / "nowhere").exists()


def test_a_restored_registry_goes_on_being_backed_up_in_the_same_place(
    taken: BackupRecord, place: str, tmp_path: Path
) -> None:
    restore_folder(place, tmp_path / "new", actor="eve")
    with la.connect(tmp_path / "new") as registry:
        again = backup(parts_of(registry), place)
        assert again.number == 2
        assert again.sent < taken.sent / 10


# --- PostgreSQL


def test_an_embedded_registry_becomes_one_that_servers_share_and_back(
    source: Registry, taken: BackupRecord, place: str, postgres_url: str, tmp_path: Path
) -> None:
    before = rows_of(source.backend)  # type: ignore[arg-type]
    done = restore_team(place, postgres_url, str(tmp_path / "blobs"), actor="eve", read_data=True)
    assert done.revisions == {"acme": 0, "default": 3}
    assert "pa:ss" not in done.location
    backend = open_team(postgres_url, str(tmp_path / "blobs"), connections=4)
    with Registry(backend, project="default", actor="bob") as team:
        rows = rows_of(backend)
        assert {**rows, "audit": rows["audit"][:-1]} == before
        assert team.verify(read_data=True).ok
        assert team.log("docs", la.Files({"a.txt": b"from here on"})).number == 3  # ids go on after those that came
        team.log("new", la.Files({"b": os.urandom(1_200_000)}))
        team.create_project("later")
        assert team.verify(read_data=True).ok
        second = backup(backend.parts, place)
        assert (second.number, second.origin) == (2, taken.origin)
        after = rows_of(backend)
    restore_folder(place, tmp_path / "back", actor="eve", read_data=True)
    with la.connect(tmp_path / "back") as back:
        rows = rows_of(back.backend)  # type: ignore[arg-type]
        assert {**rows, "audit": rows["audit"][:-1]} == after
        assert back.log("docs", la.Files({"a.txt": b"and on"})).number == 4


def test_a_database_or_a_place_that_is_used_is_refused(
    source: Registry, taken: BackupRecord, place: str, postgres_url: str, tmp_path: Path
) -> None:
    (tmp_path / "used" / "sha256" / "ab").mkdir(parents=True)
    (tmp_path / "used" / "sha256" / "ab" / "x").write_bytes(b"somebody's")
    with pytest.raises(Conflict, match="holds bytes"):
        restore_team(place, postgres_url, str(tmp_path / "used"), actor="eve")
    with pytest.raises(Conflict, match="embedded"):
        restore_team(place, postgres_url, f"{source.backend.location}/blobs", actor="eve")
    with pytest.raises(InvalidInput, match="where the backups are"):
        restore_team(place, postgres_url, place, actor="eve")
    LocalDriver(tmp_path / "begun").put_if_absent("restoring", f"{taken.origin} {'0' * 64}\n".encode())
    with pytest.raises(Conflict, match="another restore"):
        restore_team(place, postgres_url, str(tmp_path / "begun"), actor="eve")
    open_team(postgres_url, str(tmp_path / "blobs"), connections=2).close()
    with pytest.raises(Conflict, match="holds a registry"):
        restore_team(place, postgres_url, str(tmp_path / "empty"), actor="eve")
    assert not (tmp_path / "empty").exists()


@pytest.mark.parametrize("where", ["bytes", "rows", "check"])
def test_a_restore_for_servers_that_was_killed_is_gone_on_with(
    taken: BackupRecord, place: str, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def killed(*given: Any, **more: Any) -> Any:
        raise KeyboardInterrupt

    if where == "bytes":
        put, left = LocalDriver._place, [4]

        def some(self: Any, key: str, *rest: Any) -> bool:
            left[0] -= 1
            return put(self, key, *rest) if left[0] >= 0 else killed()

        monkeypatch.setattr(LocalDriver, "_place", some)
    else:
        monkeypatch.setattr(restoring, {"rows": "_finish", "check": "_verified"}[where], killed)
    with pytest.raises(KeyboardInterrupt):
        restore_team(place, postgres_url, str(tmp_path / "blobs"), actor="eve")
    monkeypatch.undo()
    restore_team(place, postgres_url, str(tmp_path / "blobs"), actor="eve")
    with Registry(
        open_team(postgres_url, str(tmp_path / "blobs"), connections=2), project="default", actor="x"
    ) as team:
        assert team.verify(read_data=True).ok
        assert len(team.versions("docs")) == 2


# --- killed, or failing, at any point


@pytest.mark.parametrize("nth", range(0, 14, 2))
def test_a_restore_that_fails_anywhere_leaves_nothing_and_the_next_one_is_whole(
    taken: BackupRecord, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    """Every step that writes, in their order: the folder, each object, the rows, the check, the name."""
    left = [nth]

    def failing(true: Any) -> Any:
        def step(*given: Any, **more: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(28, "No space left on device", "somewhere")
            return true(*given, **more)

        return step

    for owner, name in (
        (LocalDriver, "put_many"),
        (restoring, "_fetch"),
        (restoring, "_finish"),
        (restoring, "_verified"),
        (restoring, "give_name"),
        (dump, "insert"),
    ):
        monkeypatch.setattr(owner, name, failing(getattr(owner, name)))
    with suppress(LlmartifactsError, OSError):
        restore_folder(place, tmp_path / "new", actor="eve")
        pytest.fail("it should have failed")
    monkeypatch.undo()
    assert nothing_at(tmp_path / "new")
    restore_folder(place, tmp_path / "new", actor="eve")
    with la.connect(tmp_path / "new") as registry:
        assert registry.verify(read_data=True).ok


def test_what_a_killed_restore_left_is_cleared_away(taken: BackupRecord, place: str, tmp_path: Path) -> None:
    left = tmp_path / ".new.restoring" / "stage-0123456789abcdef" / "registry"
    left.mkdir(parents=True)
    (left / "registry.db").write_bytes(b"half")
    restore_folder(place, tmp_path / "new", actor="eve")
    assert not (tmp_path / ".new.restoring").exists()


# --- bytes that are not what they should be


def test_a_bit_that_flipped_anywhere_is_found_and_nothing_is_restored(
    taken: BackupRecord, place: str, tmp_path: Path
) -> None:
    kept = sorted(
        p for p in Path(place).rglob("*") if p.is_file() and ("objects" in p.parts or p.parts[-2] == "backups")
    )
    assert len(kept) > 15
    for file in kept:
        true = file.read_bytes()
        data = bytearray(true)
        data[len(data) * 2 // 3] ^= 0x10
        file.chmod(0o644)
        file.write_bytes(data)
        with pytest.raises((Damaged, NewerFormat)):
            restore_folder(place, tmp_path / "new", actor="eve")
        assert nothing_at(tmp_path / "new"), file
        file.write_bytes(true)
    restore_folder(place, tmp_path / "new", actor="eve")


def test_a_file_that_is_missing_cut_short_or_longer_is_found(taken: BackupRecord, place: str, tmp_path: Path) -> None:
    for file in [p for p in (Path(place) / "objects").rglob("*") if p.is_file()][::6]:
        true = file.read_bytes()
        file.chmod(0o644)
        for data in (true[:-1], b"", true + b"\0"):
            file.write_bytes(data)
            with pytest.raises(Damaged):
                restore_folder(place, tmp_path / "new", actor="eve")
        file.unlink()
        with pytest.raises(BlobMissing, match="not whole"):
            restore_folder(place, tmp_path / "new", actor="eve")
        file.write_bytes(true)
    assert nothing_at(tmp_path / "new")


def test_a_link_in_the_place_is_not_followed(taken: BackupRecord, place: str, tmp_path: Path) -> None:
    file = next(p for p in (Path(place) / "objects").rglob("*") if p.is_file())
    (tmp_path / "elsewhere").write_bytes(file.read_bytes())
    file.unlink()
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Damaged):
        restore_folder(place, tmp_path / "new", actor="eve")
    assert nothing_at(tmp_path / "new")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_record_cut_short_or_altered_anywhere_is_none(taken: BackupRecord, data: st.DataObject) -> None:
    true = taken.to_bytes()
    assert BackupRecord.from_bytes(true) == taken
    length = data.draw(st.integers(0, len(true) - 1))
    with pytest.raises(Damaged):
        BackupRecord.from_bytes(true[:length])
    altered = bytearray(true)
    altered[length] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Damaged):
        BackupRecord.from_bytes(bytes(altered))


# --- made by somebody hostile: every digest is right, and what they are over is a lie


def _no_key(place: str, record: BackupRecord, key: str) -> BackupRecord:
    piece = store(place, b"evil")
    return replace(record, objects=stream_of(place, OBJECTS, [(key, 4, piece.digest)]))


HEX = "ab" * 32
LIES: dict[str, Callable[[str, BackupRecord], BackupRecord]] = {
    "a key that climbs": lambda p, r: _no_key(p, r, "../../evil"),
    "an absolute key": lambda p, r: _no_key(p, r, "/etc/evil"),
    "the key of the mark": lambda p, r: _no_key(p, r, "registry"),
    "a key of another folder": lambda p, r: _no_key(p, r, f"sha256/00/{HEX}"),
    "bytes of another digest": lambda p, r: _no_key(p, r, f"sha256/ab/{HEX}"),
    "a frame that is none": lambda p, r: _no_key(p, r, f"sha256/ab/{HEX}.zst"),
    "a recipe that is none": lambda p, r: _no_key(p, r, f"sha256/ab/{HEX}.recipe"),
    "a pack that is none": lambda p, r: replace(
        r, packs=replace(_no_key(p, r, f"packs/ab/{HEX}.pack").objects, name="packs")
    ),
    "a key twice": lambda p, r: replace(
        r, objects=stream_of(p, OBJECTS, [(f"sha256/ab/{HEX}", 4, store(p, b"evil").digest)] * 2)
    ),
    "a size that is negative": lambda p, r: replace(
        r, objects=stream_of(p, OBJECTS, [(f"sha256/ab/{HEX}", -1, store(p, b"evil").digest)])
    ),
    "a digest that is none": lambda p, r: replace(r, objects=stream_of(p, OBJECTS, [(f"sha256/ab/{HEX}", 4, "no")])),
    "no bytes at all": lambda p, r: replace(r, objects=replace(r.objects, pieces=())),
    "no packs": lambda p, r: replace(r, packs=replace(r.packs, pieces=())),
    "a table more": lambda p, r: replace(r, tables=(*r.tables, Stream("sqlite_master", ("name",), ()))),
    "a table less": lambda p, r: replace(r, tables=r.tables[1:]),
    "a column more": lambda p, r: replace(
        r, tables=(replace(r.tables[0], columns=(*r.tables[0].columns, "evil")), *r.tables[1:])
    ),
    "columns in another order": lambda p, r: replace(
        r, tables=(replace(r.tables[0], columns=r.tables[0].columns[::-1]), *r.tables[1:])
    ),
    "a row short of a value": lambda p, r: with_table(p, r, "project", lambda rows: [rows[0][:-1]]),
    "text for a number": lambda p, r: with_table(p, r, "project", lambda rows: [["1", *rows[0][1:]]]),
    "nothing where something must be": lambda p, r: with_table(p, r, "tag", lambda rows: [[*rows[0][:2], None]]),
    "a number beyond any": lambda p, r: with_table(p, r, "project", lambda rows: [[1 << 70, *rows[0][1:]], *rows]),
    "a NUL in a text": lambda p, r: with_table(p, r, "tag", lambda rows: [[*rows[0][:2], "a\0b"]]),
    "a row twice": lambda p, r: with_table(p, r, "tag", lambda rows: [*rows, *rows]),
    "a row of nobody": lambda p, r: with_table(p, r, "tag", lambda rows: [[99, "a", "b"]]),
    "no projects": lambda p, r: with_table(p, r, "project", lambda rows: []),
    "an audit that is another": lambda p, r: with_table(p, r, "audit", lambda rows: rows[:-1]),
    "no audit": lambda p, r: with_table(p, r, "audit", lambda rows: []),
    "a version that nobody logged": lambda p, r: with_table(
        p, r, "version", lambda rows: [*rows, [77, rows[0][1], 9, *rows[1][3:]]]
    ),
    "a grant that nobody gave": lambda p, r: with_table(
        p, r, "account", lambda rows: [*rows, [7, "eve", "eve", "user", 1, "eve", None]]
    ),
    "an alias that points elsewhere": lambda p, r: with_table(
        p, r, "alias", lambda rows: [[*rows[0][:2], 2, *rows[0][3:]], *rows[1:]]
    ),
    "a manifest that is another": lambda p, r: with_table(
        p, r, "manifest", lambda rows: [[rows[0][0], b"{}", *rows[0][2:]], *rows[1:]]
    ),
    "another registry's name": lambda p, r: replace(r, origin="llmartifacts/0123456789abcdef"),
    "another root": lambda p, r: replace(r, root="0" * 64),
    "a piece that is a bomb": lambda p, r: replace(
        r,
        objects=replace(
            r.objects,
            pieces=(replace(store(p, compress(bytes(50_000_000))), length=1000),),
        ),
    ),
    "a piece that is no frame": lambda p, r: replace(r, objects=replace(r.objects, pieces=(store(p, b"no frame"),))),
    "a piece that is JSON of another sort": lambda p, r: replace(
        r,
        objects=replace(r.objects, pieces=(replace(store(p, compress(b'{"a":1}\n')), length=8),)),
    ),
    "a piece of deep nesting": lambda p, r: replace(
        r,
        objects=replace(r.objects, pieces=(replace(store(p, compress(b"[" * 100_000 + b"\n")), length=100_001),)),
    ),
    "a piece with more rows than it says": lambda p, r: replace(
        r, tables=(replace(r.tables[0], pieces=(replace(r.tables[0].pieces[0], rows=1),)), *r.tables[1:])
    ),
}


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.replace(" ", "-"))
def test_a_backup_that_somebody_made_up_is_refused_and_leaves_nothing(
    taken: BackupRecord, place: str, tmp_path: Path, lie: str
) -> None:
    reseal(place, LIES[lie](place, taken))
    with pytest.raises(Damaged) as raised:
        restore_folder(place, tmp_path / "new", actor="eve")
    assert len(str(raised.value)) < 2000
    assert raised.value.hint()
    assert nothing_at(tmp_path / "new")
    assert not (tmp_path / "evil").exists()


def test_damage_in_the_records_can_be_accepted_and_is_told(taken: BackupRecord, place: str, tmp_path: Path) -> None:
    reseal(place, LIES["an alias that points elsewhere"](place, taken))
    done = restore_folder(place, tmp_path / "new", accept_damage=True, actor="eve")
    assert done.verification.problems
    with la.connect(tmp_path / "new") as registry:
        assert not registry.verify().ok
        event = registry.audit_log(verb="restore")[0].event
        assert event is not None
        assert event.body["accept_damage"] is True


def test_a_backup_by_a_newer_release_is_refused(taken: BackupRecord, place: str, tmp_path: Path) -> None:
    reseal(place, replace(taken, schema=SCHEMA + 1))
    with pytest.raises(NewerFormat):
        restore_folder(place, tmp_path / "new", actor="eve")
    body = taken.to_bytes()[:-73].replace(b"llmartifacts/backup/1", b"llmartifacts/backup/2")
    file = Path(place) / record_key(1)
    file.write_bytes(body + b"\n" + digest_of(body).encode() + b"\n")
    with pytest.raises(NewerFormat):
        restore_folder(place, tmp_path / "new", actor="eve")
    assert nothing_at(tmp_path / "new")


def test_a_backup_by_an_older_release_is_brought_up_to_date(
    source: Registry, taken: BackupRecord, place: str, tmp_path: Path
) -> None:
    """The tables as schema 5 had them: what came later is made as a migration makes it."""
    here, now = BackupPlace.open(place), {table.name: table for table in dump.kept()}
    streams = []
    for old in dump.kept(5):
        new = now[old.name]
        at = [next(i for i, c in enumerate(new.columns) if c.name == column.name) for column in old.columns]
        stream = next(s for s in taken.tables if s.name == old.name)
        streams.append(stream_of(place, old, [tuple(row[i] for i in at) for row in here.rows(stream, new)]))
    reseal(place, replace(taken, schema=5, tables=tuple(streams)))
    restore_folder(place, tmp_path / "new", actor="eve")
    with la.connect(tmp_path / "new") as registry:
        assert registry.verify(read_data=True).ok
        assert registry.log("docs", la.Files({"a.txt": b"and on"})).number == 3


# --- a store that fails


class Failing(LocalDriver):
    """A store whose credential expires after some calls."""

    left = 0

    def get(self, *given: Any, **more: Any) -> Any:
        Failing.left -= 1
        if Failing.left < 0:
            raise NotAllowed("the credential has expired")
        return super().get(*given, **more)


@pytest.fixture
def expiring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmartifacts.versioning.backups.place.driver_at", lambda p: (Failing(p), Path(p)))


@pytest.mark.parametrize("calls", [0, 1, 5, 12])
def test_a_credential_that_expires_half_way_leaves_nothing(
    taken: BackupRecord, place: str, tmp_path: Path, expiring: None, calls: int
) -> None:
    Failing.left = calls
    with pytest.raises(NotAllowed, match="expired"):
        restore_folder(place, tmp_path / "new", actor="eve")
    assert nothing_at(tmp_path / "new")
    Failing.left = 10_000
    restore_folder(place, tmp_path / "new", actor="eve")


def test_accounts_their_rights_and_their_tokens_come_back(
    source: Registry, place: str, postgres_url: str, tmp_path: Path
) -> None:
    """Tokens are kept as hashes, so a backup lets nobody in; whoever has one already gets in again."""
    first = bootstrap(parts_of(source))
    assert first is not None
    root = operator("admin")
    accounts.create_account(parts_of(source), "ada", "user", by=root)
    accounts.grant(parts_of(source), "ada", "promoter", project="default", by=root)
    backup(parts_of(source), place)
    secret = first.text.encode()
    assert not any(secret[-20:] in p.read_bytes() for p in Path(place).rglob("*") if p.is_file())
    restore_team(place, postgres_url, str(tmp_path / "blobs"), actor="eve")
    restore_folder(place, tmp_path / "new", actor="eve")
    for registry in (
        Registry(open_team(postgres_url, str(tmp_path / "blobs"), connections=2), project="default", actor="x"),
        la.connect(tmp_path / "new"),
    ):
        with registry:
            assert registry.verify().ok
            assert bootstrap(parts_of(registry)) is None  # there is an administrator
            grants = accounts.list_grants(parts_of(registry), "default", by=root)
            assert ("ada", "promoter") in {(g.subject, g.role.value) for g in grants}
            with parts_of(registry).metadata.reading() as s:
                presented = bearer({"authorization": f"Bearer {first.text}"})
                assert presented is not None
                found = identify(s, presented.id, presented.digest)
                assert found is not None
                assert found.name == "admin"
            accounts.create_account(parts_of(registry), "bea", "user", by=root)  # numbers go on after those that came
