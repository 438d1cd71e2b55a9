"""Packs are written and made durable behind the one that cuts: in order, and what goes wrong there is heard of."""

from __future__ import annotations

import errno
import io
import os
import random
import threading
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmartifacts.blobs.chunks import pack as packs
from llmartifacts.blobs.chunks import writer as writers
from llmartifacts.blobs.local import LocalDriver
from llmartifacts.blobs.store import BlobStore
from llmartifacts.errors import NotAllowed, Unreachable

NOISE = [random.Random(i).randbytes(3000 + 8 * i) for i in range(12)]
ENDS = list(accumulate(map(len, NOISE)))


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())  # other tests may have left writers to the collector
    yield
    left = [t for t in threading.enumerate() if t not in before]
    for thread in left:
        thread.join(5)  # one that was told to end may be at its last piece
    assert [t.name for t in left if t.is_alive()] == []


def left(bench: Any) -> list[str]:
    return sorted(p.name for p in bench.scratch.iterdir())


def test_packs_are_durable_when_durable_returns_and_not_named_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    sync, put = packs.sync_data, LocalDriver.put_many

    def synced(fd: int) -> None:
        sync(fd)
        events.append("synced")

    def named(self: Any, items: Any) -> Any:
        events.extend("named" for key, _ in items if key.startswith("packs/"))
        return put(self, items)

    monkeypatch.setattr(packs, "sync_data", synced)
    monkeypatch.setattr(LocalDriver, "put_many", named)
    monkeypatch.setattr(writers, "FULL", 500_000)
    store = BlobStore.local(tmp_path / "blobs")
    data = random.Random(1).randbytes(3_000_000)
    with store.stage() as staging:
        blob = staging.add(data)
        assert "named" not in events
        staging.publish()
    assert events.count("named") == events.count("synced") > 4
    assert "synced" not in events[events.index("named") :], "every pack was durable before the first had its name"
    assert store.read(blob) == data


def test_a_sync_that_fails_is_told_before_anything_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fails(fd: int) -> None:
        calls.append(fd)
        if len(calls) == 2:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(writers, "FULL", 500_000)
    store = BlobStore.local(tmp_path / "blobs")
    data = random.Random(1).randbytes(3_000_000)
    with monkeypatch.context() as patched:
        patched.setattr(packs, "sync_data", fails)
        with pytest.raises(Unreachable, match="Input/output error"), store.stage() as staging:
            staging.add(data)
            staging.publish()
    assert list(store.driver.list()) == []
    assert not [p for p in (tmp_path / "tmp").rglob("*") if p.is_file()]
    with store.stage() as staging:
        blob = staging.add(data)
        staging.publish()
    assert store.read(blob) == data


def test_a_failed_sync_of_what_was_there_before_a_mark_is_not_forgotten_by_going_back(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    writer = bench.writer()
    monkeypatch.setattr(packs, "sync_data", fails)
    writer.add(NOISE[0], [len(NOISE[0])])
    mark = writer.mark()
    writer.back(mark)
    for _ in range(2):
        with pytest.raises(Unreachable, match="Input/output error"):
            writer.durable()
    writer.close()


def test_a_write_that_fails_behind_stops_the_cutting(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, buffers: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "writev", full)
    writer = bench.writer()
    added = 0
    with pytest.raises(NotAllowed, match="is full"):
        for number in range(1000):
            writer.add(random.Random(number).randbytes(4000), [4000])
            added += 1
    assert added < 20, "the caller goes on for a few buffers at most"
    writer.close()
    assert left(bench) == []


@pytest.mark.parametrize("after", [100_000, 5_000_000, 9_000_000])
def test_an_interrupt_leaves_no_thread_no_open_file_and_nothing_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    class Interrupted(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() >= after:
                raise KeyboardInterrupt
            return super().read(size)

    monkeypatch.setattr(writers, "FULL", 500_000)
    store = BlobStore.local(tmp_path / "blobs")
    before = len(os.listdir("/dev/fd"))
    data = random.Random(1).randbytes(10_000_000)
    with pytest.raises(KeyboardInterrupt), store.stage() as staging:
        staging.add(Interrupted(data))
    assert len(os.listdir("/dev/fd")) == before
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_an_interrupt_while_waiting_for_the_disk_leaves_nothing(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, go = packs.sync_data, threading.Event()

    def waits(fd: int) -> None:
        go.wait(10)
        slow(fd)

    monkeypatch.setattr(packs, "sync_data", waits)
    writer = bench.writer()
    mark = writer.mark()
    writer.add(b"".join(NOISE), ENDS)
    writer.finish()
    with monkeypatch.context() as patched:

        def interrupted() -> None:
            raise KeyboardInterrupt

        patched.setattr(writer._syncing, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            writer.durable()
    go.set()
    writer.back(mark)
    writer.close()
    assert left(bench) == []


@pytest.mark.parametrize("kind", [bytearray, np.array])
def test_what_may_be_changed_is_copied_before_it_is_written_behind(
    bench: Any, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    write, go = packs._write_vectors, threading.Event()

    def waits(fd: int, buffers: Any) -> None:
        go.wait(10)
        write(fd, buffers)

    monkeypatch.setattr(packs, "_write_vectors", waits)
    content = bytearray(b"".join(NOISE)) if kind is bytearray else np.frombuffer(b"".join(NOISE), np.uint8).copy()
    writer = bench.writer()
    entries = writer.add(content.data if kind is np.array else content, ENDS)
    content[:] = content[::-1]
    go.set()
    bench.publish(writer)
    writer.close()
    assert [bytes(chunk) for chunk in bench.reader().read(entries, verify=True)] == NOISE


def test_long_runs_and_single_chunks_make_the_same_packs(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writers, "FULL", 10_000)
    writer = bench.writer()
    at_once = writer.add(b"".join(NOISE), ENDS, compress=False)
    writer.finish()
    names = [(pack.name, pack.size, dict(pack.chunks)) for pack in writer.packs]
    writer.close()
    other = bench.writer()
    monkeypatch.setattr(writers, "_WORD", 1 << 40)  # never as a run
    one_by_one = other.add(b"".join(NOISE), ENDS, compress=False)
    other.finish()
    assert one_by_one.tobytes() == at_once.tobytes()
    assert [(pack.name, pack.size, dict(pack.chunks)) for pack in other.packs] == names
    assert len(names) > 2
    other.close()
