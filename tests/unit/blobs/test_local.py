from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from llmartifacts.blobs.local import LocalDriver
from llmartifacts.errors import UnsafeContent


@pytest.fixture
def driver(tmp_path: Path) -> LocalDriver:
    return LocalDriver(tmp_path / "blobs")


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    path = tmp_path / "staged"
    path.write_bytes(b"staged")
    return path


def test_a_staged_file_is_adopted_without_a_copy(driver: LocalDriver, staged: Path) -> None:
    inode = staged.stat().st_ino
    driver.put_if_absent("a/b", staged)
    assert (driver.root / "a/b").stat().st_ino == inode


def test_a_file_from_another_file_system_is_copied(driver: LocalDriver, tmp_path: Path) -> None:
    here = tmp_path.stat().st_dev
    places = (Path(place) for place in ("/dev/shm", "/var/tmp", "/tmp"))
    other = next((p for p in places if p.is_dir() and p.stat().st_dev != here and os.access(p, os.W_OK)), None)
    if other is None:
        pytest.skip("NO SECOND FILE SYSTEM to copy from")
    source = other / f"llmartifacts-test-{os.getpid()}"
    source.write_bytes(b"far away" * 1000)
    try:
        assert driver.put_if_absent("a/b", source)
        driver.replace("a/c", source)
    finally:
        source.unlink()
    assert (driver.root / "a/b").read_bytes() == (driver.root / "a/c").read_bytes() == b"far away" * 1000
    assert not list((driver.root / ".incoming").iterdir())


def test_where_hard_links_are_refused_a_rename_stores(
    driver: LocalDriver, staged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*args: object, **kwargs: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    assert driver.put_if_absent("a/b", staged)
    assert not driver.put_if_absent("a/b", b"other")
    assert (driver.root / "a/b").read_bytes() == b"staged"


def test_stored_bytes_are_read_only(driver: LocalDriver) -> None:
    driver.put_if_absent("a/b", b"x")
    assert stat.S_IMODE((driver.root / "a/b").stat().st_mode) == 0o444


def test_a_replaced_file_is_another_file_so_that_maps_of_the_old_one_live_on(driver: LocalDriver) -> None:
    driver.put_if_absent("a/b", b"old")
    opened = driver.file("a/b")[0]
    driver.replace("a/b", b"new")
    with opened:
        assert opened.read() == b"old"


def test_foreign_files_links_and_hidden_names_are_not_listed(driver: LocalDriver) -> None:
    driver.put_if_absent("a/b", b"x")
    (driver.root / ".hidden").write_bytes(b"")
    (driver.root / "a" / "link").symlink_to("/etc/passwd")
    (driver.root / "away").symlink_to("/etc")
    os.mkfifo(driver.root / "a" / "pipe")
    assert list(driver.list()) == [("a/b", 1)]


def test_a_store_may_lie_behind_a_link_that_its_owner_chose(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "blobs").symlink_to(tmp_path / "disk")
    driver = LocalDriver(tmp_path / "blobs")
    driver.put_if_absent("a/b", b"x")
    assert (tmp_path / "disk/a/b").read_bytes() == b"x"


def test_a_store_that_is_removed_and_restored_under_a_running_process_is_read_again(driver: LocalDriver) -> None:
    driver.put_if_absent("a/b", b"x")
    driver.root.rename(driver.root.with_name("backup"))
    assert driver.size("a/b") is None
    driver.root.with_name("backup").rename(driver.root)
    assert driver.size("a/b") == 1
    assert driver.put_if_absent("a/c", b"y")


def test_a_folder_in_the_place_of_a_file_is_refused(driver: LocalDriver) -> None:
    driver.put_if_absent("a/b/c", b"x")
    for call in (driver.get, driver.size, driver.file):
        with pytest.raises(UnsafeContent):
            call("a/b")
    with pytest.raises(UnsafeContent):
        driver.replace("a/b", b"x")


def test_a_file_in_the_place_of_a_folder_is_refused(driver: LocalDriver) -> None:
    driver.put_if_absent("a/b", b"x")
    with pytest.raises(UnsafeContent):
        driver.put_if_absent("a/b/c", b"x")
