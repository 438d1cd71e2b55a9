"""`file://` reads below the folders that the reader opened, and follows no link on the way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llmartifacts.errors import BlobMissing, InvalidInput, NotAllowed, TooLarge
from llmartifacts.outbound import local
from llmartifacts.records.external import parse_place


def read(path: Path | str, *roots: Path | str, start: int = 0, limit: int = 1000) -> bytes:
    place = parse_place(f"file://{path}")
    with local.opened(place, start=start, limit=limit, roots=local.check_roots(roots)) as found:
        return b"".join(found.pieces)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    place = tmp_path / "open"
    (place / "deep" / "er").mkdir(parents=True)
    (place / "deep" / "er" / "w.bin").write_bytes(b"weights")
    (tmp_path / "secret").write_bytes(b"secret")
    return place


def test_a_file_below_an_open_folder_is_read(root: Path) -> None:
    assert read(root / "deep/er/w.bin", "/nowhere", root) == b"weights"
    assert read(root / "deep/er/w.bin", root / "deep", start=3) == b"ghts"


def test_the_folder_itself_may_be_reached_by_a_link_that_the_reader_named(root: Path, tmp_path: Path) -> None:
    (tmp_path / "named").symlink_to(root)
    assert read(tmp_path / "named/deep/er/w.bin", tmp_path / "named") == b"weights"


def test_what_lies_below_no_open_folder_is_refused(root: Path, tmp_path: Path) -> None:
    for roots in ([], [root], [f"{tmp_path}/secre"], [tmp_path / "secret"]):
        with pytest.raises(NotAllowed, match="no folder") as caught:
            read(tmp_path / "secret", *roots)
        assert "LLMARTIFACTS_FILE_ROOTS" in caught.value.hint()


def test_a_link_is_not_followed_at_the_end_nor_on_the_way(root: Path, tmp_path: Path) -> None:
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "folder").symlink_to(tmp_path)
    (root / "inside").symlink_to(root / "deep")
    for path in ("link", "folder/secret", "inside/er/w.bin"):
        with pytest.raises(NotAllowed, match="link"):
            read(root / path, root)


def test_what_is_no_plain_file_is_refused_and_holds_nobody_up(root: Path) -> None:
    os.mkfifo(root / "pipe")
    for path in ("pipe", "deep"):
        with pytest.raises(NotAllowed):
            read(root / path, root)
    with pytest.raises(NotAllowed):
        read(root / "deep/er/w.bin/x", root)


def test_a_file_that_is_gone_is_missing_and_one_that_is_too_large_is_refused(root: Path) -> None:
    with pytest.raises(BlobMissing):
        read(root / "nothing", root)
    with pytest.raises(TooLarge):
        read(root / "deep/er/w.bin", root, limit=6)


def test_the_environment_names_the_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    assert local.roots_from_environment() == ()
    monkeypatch.setenv("LLMARTIFACTS_FILE_ROOTS", "/data/:/srv/../mnt")
    assert local.roots_from_environment() == ("/data", "/mnt")
    monkeypatch.setenv("LLMARTIFACTS_FILE_ROOTS", "data")
    with pytest.raises(InvalidInput, match="absolute"):
        local.roots_from_environment()
