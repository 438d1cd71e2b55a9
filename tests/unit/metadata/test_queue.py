"""The writers' queue: one at a time, nobody for ever, nothing left to a child."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from llmartifacts.errors import Busy
from llmartifacts.metadata.queue import WriterQueue

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture
def queue(tmp_path: Path) -> WriterQueue:
    return WriterQueue(tmp_path / "registry.db")


def test_of_many_threads_one_is_at_the_head(queue: WriterQueue) -> None:
    inside = 0
    seen: list[int] = []

    def work() -> None:
        nonlocal inside
        for _ in range(20):
            with queue.head(30):
                inside += 1
                seen.append(inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1] * 120


def test_who_waits_too_long_is_told_and_holds_nobody_up_afterwards(queue: WriterQueue) -> None:
    other = WriterQueue(queue.path)
    with queue.head(1):
        with pytest.raises(Busy) as caught, other.head(0.05):
            pass
        assert caught.value.hint()
    for each in (queue, other, queue):
        with each.head(5):
            pass


def test_an_error_at_the_head_lets_the_next_one_go(queue: WriterQueue) -> None:
    with pytest.raises(ZeroDivisionError), queue.head(1):
        _ = 1 / 0
    with WriterQueue(queue.path).head(0.5):
        pass


def test_no_descriptor_stays_open(queue: WriterQueue) -> None:
    if not Path("/proc/self/fd").exists():
        pytest.skip("NO /proc HERE: open files cannot be counted")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        with queue.head(1):
            pass
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_forked_child_does_not_keep_its_parents_place(queue: WriterQueue) -> None:
    told, answered = os.pipe(), os.pipe()
    with queue.head(1):
        child = os.fork()
        if child == 0:  # lives on, as a worker of a server does
            os.write(answered[1], b"1")
            os.read(told[0], 1)
            os._exit(0)
        os.read(answered[0], 1)
        (descriptor,) = queue._held
        os.close(descriptor)  # as if the parent had been killed: it never unlocks
        queue._held.clear()
    with WriterQueue(queue.path).head(0.5):
        pass
    os.write(told[1], b"1")
    os.waitpid(child, 0)
    for end in (*told, *answered):
        os.close(end)
