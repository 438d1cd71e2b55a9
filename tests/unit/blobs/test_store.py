from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.blobs import local
from llmartifacts.blobs.cache import BlobCache
from llmartifacts.blobs.forms import RAW, ZSTD, encode, key_of
from llmartifacts.blobs.store import BlobStore
from llmartifacts.errors import BlobMissing, Conflict, DigestMismatch, InvalidInput, NotAllowed, NotFound
from llmartifacts.records.backend import BlobBackend, Staging
from llmartifacts.records.digest import Blob, digest_of

TEXT = b'{"id": 1, "text": "where is my order"}\n' * 1000
BIG = os.urandom(9 * 1024 * 1024)
BIG_TEXT = TEXT * 300


def put(store: BlobStore, source: bytes | Path | BinaryIO) -> Blob:
    with store.stage() as staging:
        blob = staging.add(source)
        staging.publish()
    return blob


def files_below(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file()]


def test_a_store_and_its_staging_keep_the_contract_of_a_backend(store: BlobStore) -> None:
    backend: BlobBackend = store
    with backend.stage() as staging:
        checked: Staging = staging
        blob = checked.add(b"x")
        checked.publish()
    assert backend.read(blob) == b"x"


@given(
    data=st.one_of(
        st.binary(max_size=5000), st.text(max_size=3000).map(str.encode), st.binary(max_size=9).map(lambda b: b * 2000)
    )
)
def test_any_bytes_in_are_the_same_bytes_out(data: bytes) -> None:
    store = BlobStore.memory()
    blob = put(store, io.BytesIO(data))
    assert blob == Blob(digest_of(data), len(data))
    assert store.read(blob) == store.open(blob).read() == data


@given(blobs=st.lists(st.binary(max_size=200), max_size=12))
def test_as_many_objects_are_stored_as_there_are_contents(blobs: list[bytes]) -> None:
    store = BlobStore.memory()
    with store.stage() as staging:
        for data in blobs:
            staging.add(data)
        staging.publish()
    assert {s.digest for s in store.list()} == {digest_of(b) for b in blobs}


# --- in


@pytest.mark.parametrize("data", [b"small", TEXT, BIG, BIG_TEXT], ids=["small", "text", "big", "big text"])
def test_what_is_not_published_leaves_no_file(store: BlobStore, tmp_path: Path, data: bytes) -> None:
    with store.stage() as staging:
        staging.add(io.BytesIO(data))
        assert files_below(tmp_path)
    assert not files_below(tmp_path)


def test_a_source_that_fails_in_the_middle_leaves_no_file(store: BlobStore, tmp_path: Path) -> None:
    class Failing(io.RawIOBase):
        left = 3

        def read(self, size: int = -1) -> bytes:
            self.left -= 1
            if not self.left:
                raise RuntimeError("the source broke")
            return os.urandom(1024 * 1024)

    with store.stage() as staging:
        with pytest.raises(RuntimeError, match="the source broke"):
            staging.add(Failing())  # type: ignore[arg-type]
        assert not files_below(tmp_path)
        staging.add(b"another")
        staging.publish()
    assert len(list(store.list())) == 1


def test_staging_nothing_touches_nothing(store: BlobStore, tmp_path: Path) -> None:
    with store.stage() as staging:
        staging.publish()
    assert not list(tmp_path.iterdir())


def test_publishing_is_links_only_and_the_file_stays_where_it_was_written(store: BlobStore) -> None:
    with store.stage() as staging:
        blob = staging.add(BIG)
        inode = files_below(store.scratch)[0].stat().st_ino
        staging.publish()
        staging.publish()
    assert store.path(blob).stat().st_ino == inode


def test_content_that_is_there_is_not_written_again(store: BlobStore) -> None:
    blob = put(store, TEXT)
    before = next(store.driver.root.rglob("*.zst")).stat()  # type: ignore[attr-defined]
    with store.stage() as staging:
        assert staging.add(TEXT) == blob
        assert not files_below(store.scratch)
        staging.publish()
    after = next(store.driver.root.rglob("*.zst")).stat()  # type: ignore[attr-defined]
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_file_is_read_as_it_is_when_it_is_added(store: BlobStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(BIG)
    with store.stage() as staging:
        blob = staging.add(source)
        source.write_bytes(b"changed")
        staging.publish()
    assert store.read(blob) == BIG


def test_a_stream_is_read_from_where_it_stands(store: BlobStore) -> None:
    stream = io.BytesIO(b"head and tail")
    stream.seek(9)
    assert store.read(put(store, stream)) == b"tail"


def test_a_stream_that_gives_a_byte_at_a_time_is_read_to_its_end(store: BlobStore) -> None:
    class Dribbling(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(1)

    assert store.read(put(store, Dribbling(b"drop by drop"))) == b"drop by drop"


def test_content_removed_between_add_and_publish_is_a_conflict(store: BlobStore) -> None:
    blob = put(store, TEXT)
    with store.stage() as staging:
        staging.add(TEXT)
        store.delete(blob.digest)
        with pytest.raises(Conflict, match="removed since"):
            staging.publish()


def test_what_somebody_else_stored_a_moment_ago_is_made_durable_before_it_is_relied_on(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = put(store, TEXT)
    synced: list[Path] = []
    monkeypatch.setattr(local, "sync_folder", synced.append)
    put(BlobStore.local(store.driver.root, cache=store.cache), TEXT)  # type: ignore[attr-defined]
    root: Path = store.driver.root  # type: ignore[attr-defined]
    assert synced == [root / "sha256" / blob.digest[7:9], root / "sha256", root, root.parent]


def test_a_text_stream_is_refused(store: BlobStore) -> None:
    with store.stage() as staging, pytest.raises(InvalidInput, match="not bytes") as caught:
        staging.add(io.StringIO("text"))  # type: ignore[arg-type]
    assert caught.value.field == "source"


def test_a_source_that_is_no_plain_file_is_refused(store: BlobStore, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with store.stage() as staging:
        with pytest.raises(NotFound, match="no file"):
            staging.add(tmp_path / "nothing")
        for wrong in (tmp_path, tmp_path / "pipe"):
            with pytest.raises(InvalidInput, match="no plain file"):
                staging.add(wrong)


# --- out


@pytest.mark.parametrize("data", [b"", b"small", TEXT, BIG, BIG_TEXT])
def test_every_way_out_gives_the_same_bytes(store: BlobStore, data: bytes) -> None:
    blob = put(store, data)
    with store.open(blob) as stream:
        assert stream.read(10) == data[:10]
        stream.seek(-1 if data else 0, os.SEEK_END)
        assert stream.read() == data[-1:]
    assert store.read(blob) == store.path(blob).read_bytes() == data


def test_raw_content_is_handed_over_where_it_lies_and_compressed_content_through_the_cache(
    store: BlobStore, cache: BlobCache
) -> None:
    raw, text = store.path(put(store, BIG)), store.path(put(store, BIG_TEXT))
    assert raw.is_relative_to(store.driver.root)  # type: ignore[attr-defined]
    assert text.is_relative_to(cache.root)
    assert stat.S_IMODE(raw.stat().st_mode) == stat.S_IMODE(text.stat().st_mode) == 0o444
    assert not files_below(cache.root) or files_below(cache.root) == [text]


def test_text_takes_less_room_than_it_has_bytes(store: BlobStore) -> None:
    blob = put(store, BIG_TEXT)
    stored = next(store.list())
    assert stored.digest == blob.digest
    assert stored.size is None
    assert stored.stored == store.stored_size(blob) < blob.size / 10
    assert Path(stored.file).stat().st_size == stored.stored


def test_a_blob_asked_for_with_the_wrong_size_is_refused(store: BlobStore) -> None:
    for data in (b"small", TEXT, BIG, BIG_TEXT):
        blob = put(store, data)
        for size in (blob.size - 1, blob.size + 1, 0, 2**60):
            for call in (store.read, store.open, store.path, store.check):
                with pytest.raises(DigestMismatch):
                    call(Blob(blob.digest, size))


def test_a_check_that_reads_nothing_still_sees_a_missing_or_truncated_file(store: BlobStore) -> None:
    blob = put(store, BIG)
    store.check(blob, read_data=False)
    path = store.path(blob)
    path.chmod(0o644)
    os.truncate(path, 100)
    with pytest.raises(DigestMismatch, match="100 of"):
        store.check(blob, read_data=False)
    path.unlink()
    with pytest.raises(BlobMissing):
        store.check(blob, read_data=False)


def test_what_is_missing_is_named_with_the_place_where_it_should_be(store: BlobStore) -> None:
    blob = Blob(digest_of(b"x"), 1)
    with pytest.raises(BlobMissing) as caught:
        store.read(blob)
    assert caught.value.digest == blob.digest
    assert caught.value.file.endswith(blob.digest[7:])


def test_foreign_files_in_the_store_are_not_listed(store: BlobStore) -> None:
    blob = put(store, b"x")
    root: Path = store.driver.root  # type: ignore[attr-defined]
    (root / "sha256" / "readme").write_bytes(b"")
    (root / "sha256" / blob.digest[7:9] / "note.txt").write_bytes(b"")
    assert [s.digest for s in store.list()] == [blob.digest]


def test_a_deleted_blob_is_gone_in_every_form(store: BlobStore) -> None:
    blob = put(store, TEXT)
    store.driver.put_if_absent(key_of(blob.digest, RAW), TEXT)
    assert store.delete(blob.digest)
    assert not store.has(blob)
    assert not store.delete(blob.digest)


# --- healing


@pytest.mark.parametrize("form", [RAW, ZSTD])
@pytest.mark.parametrize("data", [TEXT, BIG_TEXT], ids=["small", "big"])
def test_logging_the_same_content_again_heals_whatever_form_is_damaged(
    store: BlobStore, form: str, data: bytes
) -> None:
    blob = put(store, data)
    other = RAW if form == ZSTD else ZSTD
    store.driver.replace(key_of(blob.digest, form), b"damaged")
    store.driver.replace(key_of(blob.digest, other), encode(other, data))
    assert put(store, io.BytesIO(data)) == blob
    assert store.read(blob) == data
    assert store.standing(blob)[1] == []


def test_two_that_heal_the_same_content_at_once_leave_it_whole(store: BlobStore) -> None:
    blob = put(store, TEXT)
    store.driver.replace(key_of(blob.digest, ZSTD), b"damaged")
    store.driver.replace(key_of(blob.digest, RAW), b"damaged")
    with store.stage() as first, store.stage() as second:
        first.add(TEXT)
        second.add(TEXT)
        first.publish()
        assert store.read(blob) == TEXT
        second.publish()
        assert store.read(blob) == TEXT


def test_a_link_planted_in_the_place_of_a_blob_is_replaced_by_the_blob(store: BlobStore, tmp_path: Path) -> None:
    blob = put(store, b"content")
    place = store.path(blob)
    place.unlink()
    (tmp_path / "elsewhere").write_bytes(b"content")
    place.symlink_to(tmp_path / "elsewhere")
    put(store, b"content")
    assert not place.is_symlink()
    assert store.read(blob) == b"content"
    assert (tmp_path / "elsewhere").read_bytes() == b"content"


# --- threads


def test_threads_share_a_store(store: BlobStore) -> None:
    bodies = [os.urandom(3000) for _ in range(10)] + [TEXT, BIG_TEXT]

    def work(i: int) -> None:
        data = bodies[i % len(bodies)]
        blob = put(store, data)
        assert store.read(blob) == store.path(blob).read_bytes() == data

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(96)))
    assert len(list(store.list())) == len(bodies)
    assert not files_below(store.scratch)


# --- places that cannot be written


@contextmanager
def without_rights() -> Iterator[None]:
    """As somebody who is not root, for whom modes of files do not count."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_read_only_store_is_read_and_refuses_to_be_written(tmp_path_factory: pytest.TempPathFactory) -> None:
    base = tmp_path_factory.mktemp("open")
    store = BlobStore.local(base / "registry" / "blobs", cache=BlobCache(base / "cache"))
    raw, text = put(store, b"raw"), put(store, BIG_TEXT)
    put(store, b"makes the folder")
    for folder in [base, *(p for p in base.rglob("*") if p.is_dir())]:
        folder.chmod(0o555)
    for parent in base.parents[:3]:
        if parent.stat().st_uid == os.getuid() and parent != Path("/tmp"):
            parent.chmod(parent.stat().st_mode | 0o055)
    with without_rights():
        assert store.read(raw) == store.path(raw).read_bytes() == b"raw"
        assert store.path(text).read_bytes() == BIG_TEXT  # the cache is read-only too
        put(store, b"raw")  # it is there already
        with store.stage() as staging, pytest.raises(NotAllowed, match="cannot write") as caught:
            staging.add(b"new")
    assert caught.value.hint()
    for folder in [base, *(p for p in base.rglob("*") if p.is_dir())]:
        folder.chmod(0o755)
    assert len(files_below(base)) == 3
