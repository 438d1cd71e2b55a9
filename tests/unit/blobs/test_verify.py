from __future__ import annotations

import io
import os
import time
from pathlib import Path

import pytest

from llmartifacts.blobs import verify
from llmartifacts.blobs.verify import VerifiedFiles, is_blob
from llmartifacts.records.digest import Blob, digest_of


def blob_of(data: bytes) -> Blob:
    return Blob(digest_of(data), len(data))


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Blob]:
    """Every blob that was really read and hashed."""
    seen: list[Blob] = []

    def counting(stream: io.FileIO, blob: Blob) -> bool:
        seen.append(blob)
        return is_blob(stream, blob)

    monkeypatch.setattr(verify, "is_blob", counting)
    return seen


def settled(path: Path, data: bytes) -> Path:
    """A file that was not changed just now."""
    path.write_bytes(data)
    time.sleep(0.06)
    return path


def test_a_stream_is_a_blob_only_if_digest_and_size_agree() -> None:
    data = b"x" * 3_000_000
    assert is_blob(io.BytesIO(data), blob_of(data))
    assert not is_blob(io.BytesIO(data), Blob(digest_of(data), len(data) - 1))
    assert not is_blob(io.BytesIO(data), Blob(digest_of(data), len(data) + 1))
    assert not is_blob(io.BytesIO(data[:-1] + b"y"), blob_of(data))
    assert not is_blob(io.BytesIO(b""), blob_of(data))
    assert is_blob(io.BytesIO(b""), blob_of(b""))


def test_an_endless_stream_is_given_up_one_byte_after_the_size() -> None:
    class Endless(io.RawIOBase):
        given = 0

        def read(self, size: int = -1) -> bytes:
            self.given += size
            return b"x" * size

    endless = Endless()
    assert not is_blob(endless, blob_of(b"x" * 10))  # type: ignore[arg-type]
    assert endless.given == 11


def test_a_file_that_did_not_change_is_hashed_once(tmp_path: Path, hashed: list[Blob]) -> None:
    path, files = settled(tmp_path / "f", b"data"), VerifiedFiles()
    for _ in range(3):
        with path.open("rb") as file:
            assert files.holds(file, blob_of(b"data"))
            assert file.read() == b"data"
    assert len(hashed) == 1


def test_a_file_changed_in_place_is_hashed_again(tmp_path: Path) -> None:
    path, files = settled(tmp_path / "f", b"data"), VerifiedFiles()
    with path.open("rb") as file:
        assert files.holds(file, blob_of(b"data"))
    before = path.stat()
    path.write_bytes(b"tada")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # the time of change cannot be set back
    with path.open("rb") as file:
        assert not files.holds(file, blob_of(b"data"))


def test_a_file_replaced_by_another_is_hashed_again(tmp_path: Path, hashed: list[Blob]) -> None:
    path, files = settled(tmp_path / "f", b"data"), VerifiedFiles()
    with path.open("rb") as file:
        assert files.holds(file, blob_of(b"data"))
    (tmp_path / "g").write_bytes(b"data")
    (tmp_path / "g").rename(path)
    with path.open("rb") as file:
        assert files.holds(file, blob_of(b"data"))
    assert len(hashed) == 2


def test_a_file_changed_just_now_is_not_remembered(tmp_path: Path, hashed: list[Blob]) -> None:
    path, files = tmp_path / "f", VerifiedFiles()
    path.write_bytes(b"data")
    for _ in range(2):
        with path.open("rb") as file:
            ctime = os.fstat(file.fileno()).st_ctime_ns
            assert files.holds(file, blob_of(b"data"))
    assert len(hashed) == 2 or time.time_ns() - ctime > 50_000_000


def test_memory_of_verified_files_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "_REMEMBERED", 2)
    files, paths = VerifiedFiles(), [tmp_path / str(i) for i in range(4)]
    for i, path in enumerate(paths):
        path.write_bytes(bytes([i]))
    time.sleep(0.06)
    for i, path in enumerate(paths):
        with path.open("rb") as file:
            assert files.holds(file, blob_of(bytes([i])))
    assert len(files._known) == 2
