"""Conformance suites for blob drivers, and for a `BlobStore` over them.

A driver's whole test:

    def test_my_driver_keeps_the_contract(tmp_path: Path) -> None:
        places = itertools.count()
        check_driver(lambda: MyDriver(tmp_path / str(next(places))))
        check_store(lambda: BlobStore(MyDriver(tmp_path / str(next(places))), scratch=tmp_path / "scratch"))
"""

from __future__ import annotations

import io
import random
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from llmartifacts.blobs.base import PIECE, Driver
from llmartifacts.blobs.store import BlobStore
from llmartifacts.errors import BlobMissing, Damaged, DigestMismatch, InvalidPath, LlmartifactsError
from llmartifacts.records.digest import Blob, digest_of

_E = TypeVar("_E", bound=LlmartifactsError)
HOSTILE_KEYS = (
    "",
    "/etc/passwd",
    "../outside",
    "sha256/../../outside",
    "sha256/./ab",
    "sha256//ab",
    "sha256/ab/",
    ".hidden",
    "sha256/.hidden",
    "sha256/AB",
    "sha256\\ab",
    "sha256/ab\0",
    "sha256/ab\n",
    "sha256/é",
    "a" * 129,
    "/".join("abcdefghi"),
    "C:/windows",
)
"""Keys that every driver refuses."""


def check_driver(make_driver: Callable[[], Driver]) -> None:
    """Check that a driver keeps the contract of `Driver`.

    Args:
        make_driver: Gives a driver over a new, empty place, each time another.

    Raises:
        AssertionError: It does not; the message says what.
    """
    for check in (
        _what_goes_in_comes_out,
        _ranges,
        _the_first_put_stays,
        _of_many_writers_one_stores,
        _many_at_once,
        _replacing,
        _deleting,
        _deleting_many,
        _listing,
        _missing_objects,
        _hostile_keys,
    ):
        check(make_driver())


def check_store(make_store: Callable[[], BlobStore]) -> None:
    """Check that a `BlobStore` over a driver hides what is not published, verifies, deduplicates and heals.

    Args:
        make_store: Gives a store over a new, empty place, each time another.

    Raises:
        AssertionError: It does not; the message says what.
    """
    for check in (
        _any_bytes_come_out_the_same,
        _nothing_shows_before_publish,
        _the_same_content_is_stored_once,
        _damage_is_refused_and_healed,
        _versions_of_large_content_share_chunks,
        _damaged_packs_are_refused_and_healed,
        _what_is_not_there_is_named,
    ):
        check(make_store())


# --- drivers


def _what_goes_in_comes_out(driver: Driver) -> None:
    with _file(_noise(3_000_000)) as file:
        for key, source in (
            ("sha256/00/empty", b""),
            ("sha256/00/bytes.zst", b"hello"),
            ("a/file", file),
            ("top", b"x"),
        ):
            expected = source if isinstance(source, bytes) else _noise(3_000_000)
            _that(driver.put_if_absent(key, source), f"put_if_absent of the new key {key!r} gave False")
            _that(_get(driver, key) == expected, f"{key!r} came out otherwise than it went in")
            _that(driver.size(key) == len(expected), f"size of {key!r} is {driver.size(key)}, not {len(expected)}")
            _that(bool(driver.where(key)), "where() is empty")
            own = driver.file(key)
            if own is not None:
                with own[0] as stream:
                    _that(stream.read() == expected == own[1].read_bytes(), f"file() of {key!r} has other bytes")


def _ranges(driver: Driver) -> None:
    data = bytes(range(256))
    driver.put_if_absent("a/b", data)
    for start, length in ((0, 1), (10, 20), (250, 100), (255, 1), (256, 1), (300, 5), (0, None), (200, None), (5, 0)):
        expected = data[start:][:length]
        got = _get(driver, "a/b", start, length)
        _that(got == expected, f"range ({start}, {length}) gave {len(got)} bytes, not {len(expected)}")


def _the_first_put_stays(driver: Driver) -> None:
    driver.put_if_absent("a/b", b"first")
    _that(not driver.put_if_absent("a/b", b"first"), "put_if_absent of the same bytes again gave True")
    _that(not driver.put_if_absent("a/b", b"second"), "put_if_absent over an object gave True")
    _that(_get(driver, "a/b") == b"first", "put_if_absent changed an object")


def _of_many_writers_one_stores(driver: Driver) -> None:
    bodies = [bytes([i]) * 100_000 for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        stored = list(pool.map(lambda body: driver.put_if_absent("race/key", body), bodies))
    _that(sum(stored) == 1, f"{sum(stored)} of 8 writers of one key were told that they stored it")
    _that(_get(driver, "race/key") == bodies[stored.index(True)], "another writer's bytes are there")


def _many_at_once(driver: Driver) -> None:
    driver.put_if_absent("a/0", b"there")
    with _file(b"from a file") as file:
        stored = driver.put_many([("a/0", b"other"), ("a/1", b"one"), ("b/2", file)])
    _that(list(stored) == [False, True, True], f"put_many gave {stored}")
    _that([_get(driver, k) for k in ("a/0", "a/1", "b/2")] == [b"there", b"one", b"from a file"], "put_many mixed up")
    _that(list(driver.put_many([])) == [], "put_many of nothing gave something")


def _replacing(driver: Driver) -> None:
    driver.put_if_absent("a/b", b"damaged")
    reader = driver.get("a/b")
    with _file(b"healed") as file:
        driver.replace("a/b", file)
    with reader:
        _that(reader.read(100) in (b"damaged", b"healed"), "a reader saw a mixture while the object was replaced")
    _that(_get(driver, "a/b") == b"healed", "replace did not replace")
    driver.replace("a/new", b"x")
    _that(_get(driver, "a/new") == b"x", "replace of what is not there does not store")


def _deleting(driver: Driver) -> None:
    driver.put_if_absent("a/b", b"x")
    _that(driver.delete("a/b"), "delete of an object gave False")
    _that(not driver.delete("a/b"), "delete of nothing gave True")
    _that(driver.size("a/b") is None, "a deleted object has a size")
    _that(driver.put_if_absent("a/b", b"y"), "a deleted key cannot be stored again")


def _deleting_many(driver: Driver) -> None:
    keys = [f"{folder}/{i:02}" for folder in ("a", "a/b", "c") for i in range(20)]
    driver.put_many([(key, key.encode()) for key in (*keys, "a/stays", "top")])
    missing = ["nothing", "a/nothing", "no/such/folder"]
    driver.delete_many([missing[0], *keys[:30], *missing[1:], *keys[30:], "top"])
    _that(list(driver.list()) == [("a/stays", 7)], f"delete_many left {list(driver.list())}")
    driver.delete_many([*keys, *missing])
    driver.delete_many([])
    _that(list(driver.list()) == [("a/stays", 7)], "delete_many of what is not there removed something")
    _that(driver.put_if_absent(keys[0], b"again"), "a deleted key cannot be stored again")
    _raises(InvalidPath, "delete_many with a hostile key", driver.delete_many, ["../outside"])
    driver.delete_many(["a/stays"])
    _that(list(driver.list()) == [(keys[0], 5)], "delete_many of a single key removed something else")


def _listing(driver: Driver) -> None:
    _that(list(driver.list()) == [], "an empty place lists objects")
    keys = ["a.b/c", "a/b", "a/b.zst", "a/bc/d", "ab/c", "b"]
    for i, key in enumerate(keys):
        driver.put_if_absent(key, bytes(i))
    sized = {key: i for i, key in enumerate(keys)}
    for prefix in ("", "a", "a/", "a/b", "a/bc/", "b", "nothing", "a/b.zst"):
        expected = [(k, sized[k]) for k in sorted(keys) if k.startswith(prefix)]
        _that(list(driver.list(prefix)) == expected, f"list({prefix!r}) is {list(driver.list(prefix))}")


def _missing_objects(driver: Driver) -> None:
    _that(driver.size("a/b") is None, "an object that is not there has a size")
    _raises(BlobMissing, "get of nothing", driver.get, "a/b")
    driver.put_if_absent("a/c", b"")
    _raises(BlobMissing, "get of nothing beside something", driver.get, "a/b")


def _hostile_keys(driver: Driver) -> None:
    for key in HOSTILE_KEYS:
        for reading in (driver.get, driver.delete, driver.size):
            _raises(InvalidPath, f"{reading.__name__} of the key {key!r}", reading, key)
        for writing in (driver.put_if_absent, driver.replace):
            _raises(InvalidPath, f"{writing.__name__} of the key {key!r}", writing, key, b"x")


# --- stores


def samples() -> list[bytes]:
    """Contents of every sort that matters: empty, small, text, noise, around the limits of a piece and of memory."""
    line = b'{"id": 1, "text": "the quick brown fox"}\n'
    mib = 1024 * 1024
    return [
        b"",
        b"\0",
        b"hello",
        line * 200,
        _noise(5000),
        _noise(mib - 1),
        _noise(mib),
        _noise(mib + 1),
        line * (2 * mib // len(line)),
        line * 2000 + _noise(2 * mib),
        bytes(9 * mib),
        b"a" * (9 * mib),
    ]


def _any_bytes_come_out_the_same(store: BlobStore) -> None:
    for data in samples():
        for source in (data, io.BytesIO(data), None):
            with store.stage() as staging, _file(data) as file:
                blob = staging.add(file if source is None else source)
                staging.publish()
            _that(blob == Blob(digest_of(data), len(data)), f"add gave {blob}")
        _that(store.read(blob) == data, f"read of {len(data)} bytes gave others")
        with store.open(blob) as stream:
            _that(stream.read() == data, f"open of {len(data)} bytes gave others")
        _that(store.path(blob).read_bytes() == data, f"path of {len(data)} bytes gave others")
        _that(store.has(blob) and store.stored_size(blob) is not None, "has() does not know what is there")
        store.check(blob)
    known = sorted(digest_of(d) for d in samples())
    _that([s.digest for s in store.list()] == known, "list() is not what was stored")


def _nothing_shows_before_publish(store: BlobStore) -> None:
    for data in (b"unpublished" * 1000, _noise(3 * PIECE)):
        with store.stage() as staging:
            blob = staging.add(data)
            _that(not store.has(blob), "staged bytes are visible before publish")
            _raises(BlobMissing, "read of staged bytes", store.read, blob)
        _that(list(store.driver.list()) == [], "staged bytes are there although nobody published them")


def _the_same_content_is_stored_once(store: BlobStore) -> None:
    for _ in range(2):
        with store.stage() as staging:
            blobs = {staging.add(b"same" * 5000), staging.add(io.BytesIO(b"same" * 5000))}
            staging.publish()
            _that(len(blobs) == 1, "the same bytes have two addresses")
    _that(len(list(store.driver.list())) == 1, "the same content is stored twice")
    for _ in range(2):
        with store.stage() as staging:
            blobs = {staging.add(_noise(3 * PIECE)), staging.add(io.BytesIO(_noise(3 * PIECE)))}
            staging.publish()
            _that(len(blobs) == 1, "the same large bytes have two addresses")
    stored = sum(size for _, size in store.driver.list())
    _that(stored < 3.2 * PIECE, f"3 MiB of content, added four times, take {stored} bytes")


def _damage_is_refused_and_healed(store: BlobStore) -> None:
    for data in samples()[1:10]:
        with store.stage() as staging:
            blob = staging.add(data)
            staging.publish()
        stored = next(s for s in store.list() if s.digest == blob.digest)
        key = next(k for k, _ in store.driver.list() if blob.digest[7:] in k)
        good = _get(store.driver, key)
        for damaged in (_flipped(good, len(good) // 2), good[:-1], good + b"\0", b"", bytes(len(good))):
            if damaged == good:
                continue
            store.driver.replace(key, damaged)
            for call in (store.read, store.open, store.path, store.check):
                error = _raises(DigestMismatch, f"{call.__name__} of damaged bytes", call, blob)
                _that(error.digest == blob.digest, f"{call.__name__} does not name the digest")
                _that(error.file == stored.file, f"{call.__name__} names the file {error.file!r}")
            with store.stage() as staging:
                staging.add(data)
                staging.publish()
            _that(store.read(blob) == data, "logging the same content again did not heal the damaged object")


def _versions_of_large_content_share_chunks(store: BlobStore) -> None:
    lines = [b'{"id": %d, "text": "order %d"}\n' % (i, i * i) for i in range(100_000)]
    text, noise = b"".join(lines), _noise(3 * PIECE)
    for data, changed in (
        (noise, noise[:PIECE] + b"something new" + noise[PIECE:]),
        (text, b"".join([*lines[:5000], b"a new line\n", *lines[5001:]])),
    ):
        with store.stage() as staging:
            first = staging.add(data)
            staging.publish()
        before = sum(size for _, size in store.driver.list())
        with store.stage() as staging:
            second = staging.add(changed)
            added = staging.added[second.digest]
            staging.publish()
        after = sum(size for _, size in store.driver.list())
        _that(added == after - before, f"a version says that it adds {added} bytes, and adds {after - before}")
        _that(added < len(changed) / 8, f"a small change to {len(data)} bytes adds {added} bytes")
        for one in (store, _anew(store)):
            _that(one.read(first) == data and one.read(second) == changed, "a version came out otherwise")


def _damaged_packs_are_refused_and_healed(store: BlobStore) -> None:
    damages: tuple[Callable[[bytes], bytes | None], ...] = (
        lambda good: _flipped(good, len(good) // 2),
        lambda good: good[: len(good) // 2],
        lambda good: b"",
        lambda good: bytes(len(good)),
        lambda good: None,
    )
    for number, damage in enumerate(damages):
        data = _noise(3 * PIECE + number)
        known = {key for key, _ in store.driver.list("packs/")}
        with store.stage() as staging:
            blob = staging.add(data)
            staging.publish()
        keys = [key for key, _ in store.driver.list("packs/") if key not in known]
        _that(len(keys) == 1, f"{len(data)} bytes are in {len(keys)} packs")
        (key,) = keys
        files = {store.driver.where(k) for k, _ in store.driver.list()}
        good = _get(store.driver, key)
        damaged = damage(good)
        if damaged is None:
            store.driver.delete(key)
        else:
            store.driver.replace(key, damaged)
        for one in (store, _anew(store)):
            for call in (one.read, one.open, one.path, one.check):
                error = _raises(Damaged, f"{call.__name__} of a damaged pack", call, blob)
                _that(error.digest == blob.digest, f"{call.__name__} does not name the digest")
                _that(error.file in files, f"{call.__name__} names the file {error.file!r}")
        with store.stage() as staging:
            staging.add(data)
            staging.publish()
        _that(_get(store.driver, key) == good, "logging the same content again did not mend the damaged pack")
        for one in (store, _anew(store)):
            _that(one.read(blob) == data, "logging the same content again did not heal it")


def _anew(store: BlobStore) -> BlobStore:
    """The same objects as another process sees them, without a cache."""
    return BlobStore(store.driver, scratch=store.scratch)


def _what_is_not_there_is_named(store: BlobStore) -> None:
    blob = Blob(digest_of(b"never stored"), 12)
    for call in (store.read, store.open, store.path, store.check):
        error = _raises(BlobMissing, f"{call.__name__} of what is not there", call, blob)
        _that(error.digest == blob.digest, "the error does not name the digest")
    _that(not store.has(blob) and store.stored_size(blob) is None, "something that was never stored is there")
    _that(not store.delete(blob.digest), "delete of nothing gave True")


# --- helpers


def _that(fact: bool, otherwise: str) -> None:
    if not fact:
        raise AssertionError(otherwise)


def _raises(kind: type[_E], what: str, call: Callable[..., object], *args: object) -> _E:
    try:
        call(*args)
    except kind as error:
        return error
    raise AssertionError(f"{what} did not raise {kind.__name__}")


def _get(driver: Driver, key: str, start: int = 0, length: int | None = None) -> bytes:
    with driver.get(key, start, length) as stream:
        pieces = []
        while piece := stream.read(65_536):
            pieces.append(piece)
    return b"".join(pieces)


def _noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)  # noqa: S311 (test data)


def _flipped(data: bytes, at: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


@contextmanager
def _file(data: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(data)
        yield path
