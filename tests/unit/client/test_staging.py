"""What is staged for a server: many small files cost one file here, and are what they were when they are sent."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmartifacts.blobs.cache import BlobCache
from llmartifacts.blobs.forms import Reader
from llmartifacts.client import staging as module
from llmartifacts.client import upload as uploads
from llmartifacts.client.blobs import RemoteBlobs
from llmartifacts.client.session import HttpSession
from llmartifacts.client.upload import Part, Upload
from llmartifacts.errors import NotAllowed
from llmartifacts.records.digest import Blob, digest_of


@pytest.fixture
def staging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A staging whose server is never asked; `sent` has what would go there."""
    blobs = RemoteBlobs(HttpSession("http://127.0.0.1:9", None), cache=BlobCache(tmp_path / "cache", limit="none"))
    with blobs.stage() as made:
        made.sent = []
        monkeypatch.setattr(made._uploads, "send", made.sent.append)
        made.folder = tmp_path / "cache" / "tmp"
        yield made


def row(sent: Upload, piece_size: int) -> tuple[bytes, list[Any]]:
    """The bytes that would travel, and what is said to lie where."""
    made = uploads._row(sent, piece_size, {part.blob.digest for part in sent.parts})
    pieces = [uploads._read(piece) for piece in made.pieces]
    assert all(len(piece) <= piece_size for piece in pieces)
    return b"".join(pieces), made.blobs


def test_many_small_files_are_one_file_aside_and_one_read_a_piece(staging: Any) -> None:
    texts = [f"text {number} ".encode() * 5 for number in range(500)]
    blobs = [staging.add(text) for text in texts]
    assert [blob.digest for blob in blobs] == [digest_of(text) for text in texts]
    assert len([file for file in staging.folder.rglob("*") if file.is_file()]) == 1
    staging.send("default")
    (sent,) = staging.sent
    assert [part.blob for part in sent.parts] == blobs
    made = uploads._row(sent, 1 << 20, {blob.digest for blob in blobs})
    assert [len(piece) for piece in made.pieces] == [1]


@settings(max_examples=50)
@given(st.lists(st.binary(max_size=300), min_size=1, max_size=30, unique=True), st.integers(1, 100), st.data())
def test_what_travels_is_what_was_staged(
    tmp_path_factory: pytest.TempPathFactory, contents: list[bytes], piece_size: int, data: st.DataObject
) -> None:
    spool = module._Spool(lambda: tmp_path_factory.mktemp("spool") / "file")
    for content in contents:
        spool.add(Blob(digest_of(content), len(content)), content)
    wanted: list[Part] = data.draw(st.lists(st.sampled_from(spool.parts), unique_by=lambda p: p.blob.digest))
    told, blobs = row(Upload("default", (), wanted, ()), piece_size)
    spool.close()
    by_digest = {digest_of(content): content for content in contents}
    assert len(blobs) == len(wanted)
    for part, said in zip(wanted, blobs, strict=True):
        stored = told[said.offset : said.offset + said.stored]
        assert b"".join(Reader(part.form, io.BytesIO(stored)).pieces(1000)) == by_digest[part.blob.digest]


def test_the_same_content_is_staged_once(staging: Any) -> None:
    assert staging.add(b"same") == staging.add(b"same")
    staging.send("default")
    assert len(staging.sent[0].parts) == 1


def test_a_disk_that_fills_up_in_between_spoils_nothing_that_follows(
    staging: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    staging.add(b"first")

    def full(fd: int, data: bytes) -> None:
        os.write(fd, data[:3])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_all", full)
        with pytest.raises(NotAllowed):
            staging.add(b"that is too much")
    staging.add(b"last")
    staging.send("default")
    told, blobs = row(staging.sent[0], 1 << 20)
    assert [told[b.offset : b.offset + b.stored] for b in blobs] == [b"first", b"last"]


def test_nothing_is_left_aside(staging: Any) -> None:
    staging.add(b"gone soon")
    staging.close()
    assert list(staging.folder.iterdir()) == []
