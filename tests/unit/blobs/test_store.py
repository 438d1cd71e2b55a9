from __future__ import annotations

import errno
import io
import os
import shutil
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmartifacts.blobs import local
from llmartifacts.blobs.cache import BlobCache
from llmartifacts.blobs.chunks.pack import key_of as pack_key
from llmartifacts.blobs.forms import RAW, RECIPE, ZSTD, encode, key_of
from llmartifacts.blobs.store import BlobStore
from llmartifacts.errors import BlobMissing, Conflict, Damaged, DigestMismatch, InvalidInput, NotAllowed, NotFound
from llmartifacts.records.backend import BlobBackend, Staging
from llmartifacts.records.digest import Blob, digest_of

TEXT = b'{"id": 1, "text": "where is my order"}\n' * 1000
MIDDLE = os.urandom(1024 * 1024)
"""As large as what is stored as one file can be."""
BIG = os.urandom(9 * 1024 * 1024)
BIG_TEXT = b"".join(b'{"id": %d, "text": "where is my order"}\n' % i for i in range(300_000))


def put(store: BlobStore, source: bytes | Path | BinaryIO) -> Blob:
    with store.stage() as staging:
        blob = staging.add(source)
        staging.publish()
    return blob


def files_below(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file()]


def packs_of(store: BlobStore) -> list[Path]:
    return [Path(store.driver.where(key)) for key, _ in store.driver.list("packs/")]


def test_a_store_and_its_staging_keep_the_contract_of_a_backend(store: BlobStore) -> None:
    backend: BlobBackend = store
    with backend.stage() as staging:
        checked: Staging = staging
        blob = checked.add(b"x")
        checked.publish()
    assert backend.read(blob) == b"x"


@settings(deadline=None)
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


@settings(deadline=None)
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
        blob = staging.add(MIDDLE)
        inode = files_below(store.scratch)[0].stat().st_ino
        staging.publish()
        staging.publish()
    assert store.path(blob).stat().st_ino == inode


def test_publishing_large_content_is_links_only_too(store: BlobStore) -> None:
    with store.stage() as staging:
        blob = staging.add(BIG)
        written = {p.stat().st_ino for p in files_below(store.scratch)}
        staging.publish()
        staging.publish()
    assert {p.stat().st_ino for p in files_below(store.driver.root)} == written  # type: ignore[attr-defined]
    assert {p.suffix for p in files_below(store.driver.root)} == {".pack", ".recipe"}  # type: ignore[attr-defined]
    assert store.read(blob) == BIG


@pytest.mark.parametrize("data", [BIG, BIG_TEXT], ids=["noise", "text"])
def test_large_content_that_is_there_is_not_written_again(store: BlobStore, data: bytes) -> None:
    put(store, data)
    before = sorted(store.driver.list())
    with store.stage() as staging:
        staging.add(io.BytesIO(data))
        assert not files_below(store.scratch)
        staging.publish()
    assert sorted(store.driver.list()) == before


@pytest.mark.parametrize("data", [BIG, BIG_TEXT], ids=["noise", "text"])
def test_a_new_version_of_large_content_costs_what_changed(store: BlobStore, data: bytes) -> None:
    first = put(store, data)
    changed = data[:3_000_000] + b"a new line\n" + data[3_000_000:] + b"and one more\n"
    with store.stage() as staging:
        second = staging.add(changed)
        staging.publish()
    assert staging.added[second.digest] < 0.1 * len(changed)
    assert store.read(second) == changed
    assert store.read(first) == data


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
    raw = store.path(put(store, MIDDLE))
    made = [store.path(put(store, data)) for data in (TEXT, BIG, BIG_TEXT)]
    assert raw.is_relative_to(store.driver.root)  # type: ignore[attr-defined]
    assert all(path.is_relative_to(cache.root) for path in made)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (raw, *made)} == {0o444}
    assert {p for p in files_below(cache.root) if p.suffix != ".ok"} == set(made)


def test_text_takes_less_room_than_it_has_bytes(store: BlobStore) -> None:
    for data in (TEXT, BIG_TEXT):
        blob = put(store, data)
        stored = next(s for s in store.list() if s.digest == blob.digest)
        assert stored.size is None
        assert stored.stored == store.stored_size(blob)
        assert stored.stored < blob.size / 5
        assert Path(stored.file).stat().st_size == stored.stored
    assert sum(size for _, size in store.driver.list()) < (len(TEXT) + len(BIG_TEXT)) / 5


def test_a_blob_asked_for_with_the_wrong_size_is_refused(store: BlobStore) -> None:
    for data in (b"small", TEXT, MIDDLE, BIG, BIG_TEXT):
        blob = put(store, data)
        for size in (blob.size - 1, blob.size + 1, 0, 2**60):
            for call in (store.read, store.open, store.path, store.check):
                with pytest.raises(DigestMismatch):
                    call(Blob(blob.digest, size))


def test_a_check_that_reads_nothing_still_sees_a_missing_or_truncated_file(store: BlobStore) -> None:
    blob = put(store, MIDDLE)
    store.check(blob, read_data=False)
    path = store.path(blob)
    path.chmod(0o644)
    os.truncate(path, 100)
    with pytest.raises(DigestMismatch, match="100 of"):
        store.check(blob, read_data=False)
    path.unlink()
    with pytest.raises(BlobMissing):
        store.check(blob, read_data=False)


def test_a_check_that_reads_nothing_still_sees_a_missing_or_truncated_pack(store: BlobStore) -> None:
    blob = put(store, BIG)
    store.check(blob, read_data=False)
    (pack,) = packs_of(store)
    pack.chmod(0o644)
    os.truncate(pack, 5_000_000)
    for call in (partial(store.check, read_data=False), store.check, store.read, store.path):
        with pytest.raises(Damaged) as caught:
            call(blob)
        assert (caught.value.file, caught.value.digest) == (str(pack), blob.digest)
    put(store, BIG)
    for call in (partial(store.check, read_data=False), store.check, store.read, store.path):
        call(blob)
        shutil.rmtree(store.cache.root, ignore_errors=True)
        pack.rename(pack.with_name("aside"))
        with pytest.raises(BlobMissing) as missing:
            call(blob)
        assert (missing.value.file, missing.value.digest) == (str(pack), blob.digest)
        pack.with_name("aside").rename(pack)


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
@pytest.mark.parametrize("data", [TEXT, TEXT * 20], ids=["small", "larger"])
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


@pytest.mark.parametrize("form", [RAW, ZSTD, RECIPE])
@pytest.mark.parametrize("data", [BIG, BIG_TEXT], ids=["noise", "text"])
def test_large_content_heals_whatever_form_it_is_stored_in(store: BlobStore, form: str, data: bytes) -> None:
    """An earlier release stored large content whole, so that may lie there too."""
    blob = put(store, data)
    store.driver.replace(key_of(blob.digest, form), b"damaged")
    if form == RECIPE:
        store.driver.replace(key_of(blob.digest, ZSTD), encode(ZSTD, data))
    assert put(store, io.BytesIO(data)) == blob
    assert store.read(blob) == data
    assert store.standing(blob)[1] == []


def damage_in(pack: Path) -> Iterator[tuple[str, bytes]]:
    """Every part of a pack altered: what is wrong, and the bytes."""
    good = pack.read_bytes()
    count = int.from_bytes(good[-48:-44], "little")
    footer = len(good) - 48 - 56 * count
    for part, at in {
        "header": 3,
        "a chunk": footer // 2,
        "the last chunk": footer - 9,
        "the footer": footer + 5,
        "the trailer": len(good) - 20,
        "the end": len(good) - 1,
    }.items():
        yield part, good[:at] + bytes([good[at] ^ 16]) + good[at + 1 :]
    yield "cut short", good[: len(good) // 2]
    yield "empty", b""
    yield "longer", good + b"\0"


@pytest.mark.parametrize("fresh", [True, False], ids=["by another process", "by the same process"])
@pytest.mark.parametrize("data", [BIG, BIG_TEXT], ids=["noise", "text"])
def test_logging_the_same_content_again_mends_a_damaged_pack(store: BlobStore, fresh: bool, data: bytes) -> None:
    blob = put(store, data)
    packs = packs_of(store)
    pack = max(packs, key=lambda p: p.stat().st_size)
    good = pack.read_bytes()
    for part, damaged in damage_in(pack):
        for more in set(packs_of(store)) - set(packs):
            more.unlink()
        store.driver.replace(pack_key(pack.stem), damaged)
        if fresh:
            store = BlobStore.local(store.driver.root, cache=store.cache)  # type: ignore[attr-defined]
        assert put(store, data) == blob
        assert pack.read_bytes() == good, part
        if "chunk" in part:
            assert sum(p.stat().st_size for p in packs_of(store) if p not in packs) < 400_000
        store.check(blob)
        assert store.read(blob) == data
        other = BlobStore.local(store.driver.root, cache=store.cache)  # type: ignore[attr-defined]
        assert other.read(blob) == data, part
    pack.unlink()
    assert put(store, io.BytesIO(data)) == blob
    assert pack.read_bytes() == good


def test_a_pack_that_holds_more_is_mended_by_what_is_logged_again_as_far_as_that_goes(store: BlobStore) -> None:
    with store.stage() as staging:
        first, second = staging.add(BIG), staging.add(BIG_TEXT)
        staging.publish()
    (pack,) = {p for p in packs_of(store) if p.stat().st_size > len(BIG)}
    good = pack.read_bytes()
    store.driver.replace(pack_key(pack.stem), good[:1000] + bytes([good[1000] ^ 1]) + good[1001:])
    assert put(store, BIG) == first
    for one in (store, BlobStore.local(store.driver.root, cache=store.cache)):  # type: ignore[attr-defined]
        assert one.read(first) == BIG
        assert one.read(second) == BIG_TEXT


def test_adding_goes_on_in_the_same_staging_after_the_disk_was_full(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = os.writev

    def full(fd: int, buffers: list[bytes]) -> int:
        if sum(map(len, buffers)) > 100_000:
            written(fd, [bytes(buffers[0])[:5]])
            raise OSError(errno.ENOSPC, "No space left on device")
        return written(fd, buffers)

    with store.stage() as staging:
        monkeypatch.setattr(os, "writev", full)
        for _ in range(2):
            with pytest.raises(NotAllowed, match="is full"):
                staging.add(BIG)
        assert not files_below(store.scratch)
        monkeypatch.setattr(os, "writev", written)
        blob = staging.add(BIG)
        staging.publish()
    assert BlobStore.local(store.driver.root, cache=store.cache).read(blob) == BIG  # type: ignore[attr-defined]


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
    before = sorted(store.driver.list())
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
        with store.stage() as staging, pytest.raises(NotAllowed, match="cannot write"):
            staging.add(BIG)
    for folder in [base, *(p for p in base.rglob("*") if p.is_dir())]:
        folder.chmod(0o755)
    assert sorted(store.driver.list()) == before
    assert {p.relative_to(base).parts[0] for p in files_below(base)} == {"registry"}
