"""A store of blobs over a bad line to an S3 server: a third of the calls fails, it is slow, cuts, lies, and expires.

`test_object_store.py` beside this has a driver that fails as a test says; here the real driver fails as lines do.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import pytest

from llmartifacts.blobs.cache import BlobCache
from llmartifacts.blobs.chunks.check import check_pack
from llmartifacts.blobs.chunks.pack import parse_key as parse_pack
from llmartifacts.blobs.forms import parse_key
from llmartifacts.blobs.object_store import ObjectStoreDriver
from llmartifacts.blobs.objects import patience
from llmartifacts.blobs.store import BlobStore
from llmartifacts.errors import Damaged, NotAllowed, Unreachable
from llmartifacts.records.digest import Blob, digest_of

T = TypeVar("T")
pytestmark = [pytest.mark.usefixtures("s3_environment")]
NOISE = random.Random(1).randbytes(3_000_000)
TEXT = b"".join(b'{"id": %d, "text": "order %d"}\n' % (i, i * i) for i in range(60_000))
CONTENTS = {"small": NOISE[:50_000], "noise": NOISE, "text": TEXT}
_PLACES = itertools.count()


@pytest.fixture(
    params=[
        "moto",
        pytest.param("radosgw", marks=[pytest.mark.slow, pytest.mark.matrix, pytest.mark.xdist_group("s3")]),
    ]
)
def line(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A line to an S3 server."""
    behind = request.getfixturevalue("moto_server" if request.param == "moto" else "s3_server")
    with closing(type(request.getfixturevalue("bad_line"))(behind)) as made:
        made.place = behind.url(behind.new_bucket(), f"p{next(_PLACES)}", endpoint=made.endpoint)
        yield made


@pytest.fixture(autouse=True)
def _pauses_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_FIRST", 0.005)


def store_at(url: str, folder: Path, seconds: float = 30) -> BlobStore:
    """As another process would open it: knowing nothing yet, with a cache of its own."""
    own = folder / str(time.monotonic_ns())
    driver = ObjectStoreDriver(url, seconds=seconds)
    return BlobStore(driver, cache=BlobCache(own / "cache"), scratch=own / "scratch")


def put(store: BlobStore, data: bytes) -> Blob:
    with store.stage() as staging:
        blob = staging.add(data)
        staging.publish()
    return blob


def until_it_works(call: Callable[[], T]) -> T:
    for _ in range(500):
        try:
            return call()
        except Unreachable:
            continue
    raise AssertionError("it never worked")


def all_is_whole(place: str, folder: Path) -> set[str]:
    """Every object that is really there is right; the digests of blobs."""
    store = store_at(place, folder)
    found = set()
    for key, size in store.driver.list():
        pack = parse_pack(key)
        if pack is not None:
            check_pack(store.driver, pack, size)
            continue
        parsed = parse_key(key)
        assert parsed is not None, key
        data = next(d for d in CONTENTS.values() if digest_of(d) == parsed[0])
        assert store.read(Blob(parsed[0], len(data))) == data
        found.add(parsed[0])
    return found


class Third:
    """30 % of the calls fail, each in one of the ways of a line."""

    def __init__(self, seed: int) -> None:
        self.failed = 0
        self._chance = random.Random(seed)
        self._lock = threading.Lock()

    def before(self, passed: Any) -> None:
        with self._lock:
            chance, way = self._chance.random(), self._chance.randrange(3)
            self.failed += chance < 0.15
        if chance < 0.15:
            if way:
                passed.fail(*((500, "InternalError"), (503, "SlowDown"))[way - 1])
            else:
                passed.lost = True

    def after(self, passed: Any) -> None:
        with self._lock:
            chance, way = self._chance.random(), self._chance.randrange(2)
            self.failed += chance < 0.18
        if chance < 0.18:  # it was done, and the answer gets lost, or is cut
            if way and passed.method == "GET" and passed.answer:
                passed.told, passed.answer = len(passed.answer), passed.answer[: len(passed.answer) // 2]
            else:
                passed.lost = True


def test_while_a_third_of_the_calls_fails_everything_is_stored_once_and_read_right(line: Any, tmp_path: Path) -> None:
    third = Third(7)
    line.before, line.after = third.before, third.after
    for data in CONTENTS.values():
        store = store_at(line.place, tmp_path)
        for _ in range(2):
            blob = until_it_works(lambda data=data, store=store: put(store, data))  # type: ignore[misc]
        fresh = store_at(line.place, tmp_path)
        assert until_it_works(lambda blob=blob, fresh=fresh: fresh.read(blob)) == data  # type: ignore[misc]
        until_it_works(lambda blob=blob, fresh=fresh: fresh.check(blob))  # type: ignore[misc]
    assert third.failed > 10
    line.quiet()
    assert all_is_whole(line.place, tmp_path) == {digest_of(data) for data in CONTENTS.values()}


def test_a_put_that_fails_leaves_nothing_that_can_be_seen_in_part(
    line: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "_RATE", 1 << 40)
    chance = random.Random(3)

    def dies(passed: Any) -> None:
        """The line works for some calls, and then no more."""
        left[0] -= 1
        passed.lost = left[0] < 0

    for _ in range(6):
        left = [chance.randrange(1, 12)]
        store = store_at(line.place, tmp_path, seconds=0.05)
        line.before = dies
        with pytest.raises(Unreachable):
            for data in CONTENTS.values():
                put(store, data)
            raise Unreachable("all of it went through")
        line.quiet()
        assert not [p for p in store.scratch.rglob("*") if p.is_file()]
        assert all_is_whole(line.place, tmp_path) <= {digest_of(data) for data in CONTENTS.values()}
    for data in CONTENTS.values():
        put(store_at(line.place, tmp_path), data)
    assert all_is_whole(line.place, tmp_path) == {digest_of(data) for data in CONTENTS.values()}


def test_a_slow_line_gives_the_same(line: Any, tmp_path: Path) -> None:
    line.before = lambda passed: time.sleep(0.03)
    for data in CONTENTS.values():
        assert store_at(line.place, tmp_path).read(put(store_at(line.place, tmp_path), data)) == data


def flipped(data: bytes) -> bytes:
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 8]) + data[at + 1 :] if data else data


LIES: dict[str, Callable[[bytes], bytes]] = {
    "wrong bytes": flipped,
    "other bytes": lambda data: random.Random(len(data)).randbytes(len(data)),
    "zeros": lambda data: bytes(len(data)),
    "half": lambda data: data[: len(data) // 2],
    "nothing": lambda data: b"",
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize(
    "kind", ["noise", *(pytest.param(kind, marks=pytest.mark.matrix) for kind in CONTENTS if kind != "noise")]
)
def test_a_store_that_lies_is_refused_and_no_wrong_byte_is_handed_over(
    line: Any, tmp_path: Path, kind: str, lie: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "_RATE", 1 << 40)
    store = store_at(line.place, tmp_path)
    blob = put(store, CONTENTS[kind])

    def lies(passed: Any) -> None:
        if passed.method == "GET" and passed.status == 206:
            passed.answer = LIES[lie](passed.answer)

    for one in (store, store_at(line.place, tmp_path, seconds=0.1)):
        one.driver._patience._seconds = 0.1  # type: ignore[attr-defined]
        for call in (one.read, one.path, one.check):
            line.after = lies
            with pytest.raises((Damaged, Unreachable)) as caught:
                call(blob)
            assert caught.value.hint() or isinstance(caught.value, Damaged)
        line.quiet()
        assert one.read(blob) == CONTENTS[kind]


def test_a_credential_that_expires_half_way_is_refused_and_a_new_one_goes_on(line: Any, tmp_path: Path) -> None:
    told: list[str] = []
    for calls in range(1, 12, 2):
        left = [calls]

        def expires(passed: Any, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                passed.fail(400, "ExpiredToken")

        store = store_at(line.place, tmp_path)
        line.before = expires
        try:
            for data in CONTENTS.values():
                put(store, data)
        except NotAllowed as error:
            told.append(error.hint())
        line.quiet()
        for data in CONTENTS.values():
            assert store.read(put(store, data)) == data
        assert all_is_whole(line.place, tmp_path) == {digest_of(data) for data in CONTENTS.values()}
        for key, _ in list(store.driver.list()):
            store.driver.delete(key)
    assert len(told) > 3
    assert all("expired" in hint for hint in told)
