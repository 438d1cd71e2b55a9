"""A place keeps one history: a registry that was restored and the one that went on are told apart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from backup_helpers import parts_of

import llmartifacts as la
from llmartifacts.errors import Conflict
from llmartifacts.records.backup import BackupRecord
from llmartifacts.registry import Registry
from llmartifacts.versioning.backups.look import backups
from llmartifacts.versioning.backups.place import BackupPlace
from llmartifacts.versioning.backups.restore import restore_folder
from llmartifacts.versioning.backups.take import backup


@pytest.fixture
def restored(taken: BackupRecord, place: str, tmp_path: Path) -> Iterator[Registry]:
    """A registry that was restored from the newest backup, while the one it is of is still there."""
    restore_folder(place, tmp_path / "restored", actor="eve")
    with la.connect(tmp_path / "restored") as registry:
        yield registry


def numbers(place: str) -> list[int]:
    return [made.number for made in backups(place)]


def test_a_restored_registry_goes_on_in_the_place_that_it_came_from(restored: Registry, place: str) -> None:
    assert backup(parts_of(restored), place).number == 2
    restored.log("docs", la.Files({"a.txt": b"and on it goes"}))
    assert backup(parts_of(restored), place).number == 3


@pytest.mark.parametrize("first", ["the original", "the restored one"])
@pytest.mark.parametrize("goes_on", [False, True], ids=["as-it-was", "with-more-entries"])
def test_of_a_registry_and_its_restored_twin_the_second_is_refused(
    source: Registry, restored: Registry, place: str, tmp_path: Path, first: str, goes_on: bool
) -> None:
    one, other = (source, restored) if first == "the original" else (restored, source)
    one.log("docs", la.Files({"a.txt": b"what one of them has"}))
    backup(parts_of(one), place)
    for i in range(3 if goes_on else 0):
        other.log("docs", la.Files({"a.txt": f"what the other has {i}".encode()}))
    with pytest.raises(Conflict, match=r"backup 2 at .* one of the two was restored") as raised:
        backup(parts_of(other), place)
    assert raised.value.field == "target"
    assert "empty place" in raised.value.hint()
    assert "export and import" in raised.value.hint()
    assert numbers(place) == [1, 2]
    assert not list(BackupPlace.open(place).driver.list("running/"))
    assert backup(parts_of(one), place).number == 3  # whose place it is goes on there
    assert backup(parts_of(other), str(tmp_path / "a place of its own")).number == 1


def test_one_that_was_restored_from_an_older_backup_is_refused_where_the_newer_ones_are(
    source: Registry, taken: BackupRecord, place: str, tmp_path: Path
) -> None:
    for i in range(2):
        source.log("docs", la.Files({"a.txt": f"later {i}".encode()}))
    backup(parts_of(source), place)
    restore_folder(place, tmp_path / "older", which=taken.number, actor="eve")
    with la.connect(tmp_path / "older") as older:
        with pytest.raises(Conflict, match="this registry only"):
            backup(parts_of(older), place)
        assert backup(parts_of(older), str(tmp_path / "elsewhere")).number == 1


def test_a_twin_that_lists_a_backup_meanwhile_is_noticed_before_a_second_one_is_listed(
    source: Registry, restored: Registry, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = BackupPlace.list_record

    def beaten(self: BackupPlace, made: BackupRecord) -> bool:
        monkeypatch.undo()
        backup(parts_of(restored), place)
        return listing(self, made)

    monkeypatch.setattr(BackupPlace, "list_record", beaten)
    with pytest.raises(Conflict, match="backup 2 at"):
        backup(parts_of(source), place)
    assert numbers(place) == [1, 2]


def test_a_backup_of_the_same_registry_that_is_listed_meanwhile_is_welcome(
    source: Registry, taken: BackupRecord, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = BackupPlace.list_record

    def beaten(self: BackupPlace, made: BackupRecord) -> bool:
        monkeypatch.undo()
        source.log("docs", la.Files({"a.txt": b"meanwhile"}))
        backup(parts_of(source), place)
        return listing(self, made)

    monkeypatch.setattr(BackupPlace, "list_record", beaten)
    assert backup(parts_of(source), place).number == 3
    assert numbers(place) == [1, 2, 3]
