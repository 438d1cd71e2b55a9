from __future__ import annotations

import gc
import threading
from collections.abc import Iterator

import pytest

from llmartifacts.blobs.chunks.behind import Behind


@pytest.fixture
def behind() -> Iterator[Behind]:
    made = Behind("behind-test", waiting=2)
    yield made
    made.end()
    assert not [thread for thread in threading.enumerate() if thread.name == "behind-test"]


def test_jobs_are_done_in_order_in_another_thread(behind: Behind) -> None:
    done: list[tuple[int, str]] = []
    for number in range(20):
        behind.do(lambda number=number: done.append((number, threading.current_thread().name)))
    behind.wait()
    assert done == [(number, "behind-test") for number in range(20)]


def test_the_error_of_a_job_reaches_the_caller_and_nothing_after_it_is_done(behind: Behind) -> None:
    done: list[str] = []
    go = threading.Event()

    def fails() -> None:
        go.wait()
        raise OSError("the disk is full")

    behind.do(fails)
    behind.do(lambda: done.append("after"))
    go.set()
    for _ in range(2):
        with pytest.raises(OSError, match="the disk is full"):
            behind.wait()
    with pytest.raises(OSError, match="the disk is full"):
        behind.do(lambda: done.append("later"))
    behind.idle()
    assert done == []


def test_a_caller_is_not_held_up_for_ever_by_a_job_that_failed(behind: Behind) -> None:
    def fails() -> None:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        for _ in range(100):
            behind.do(fails)


def test_no_more_jobs_wait_than_were_allowed(behind: Behind) -> None:
    go, given = threading.Event(), threading.Semaphore(0)

    def give() -> None:
        for _ in range(6):
            behind.do(go.wait)
            given.release()

    giver = threading.Thread(target=give)
    giver.start()
    for _ in range(3):  # one that runs, and two that wait
        assert given.acquire(timeout=10)
    assert not given.acquire(timeout=0.05)
    go.set()
    giver.join()
    behind.wait()


def test_at_its_end_what_has_not_begun_is_dropped_and_what_runs_is_waited_for(behind: Behind) -> None:
    begun, go, done = threading.Event(), threading.Event(), []

    def first() -> None:
        begun.set()
        go.wait()
        done.append("first")

    behind.do(first)
    behind.do(lambda: done.append("second"))
    begun.wait()
    threading.Timer(0.05, go.set).start()
    behind.end()
    assert done == ["first"]
    behind.end()
    behind.do(lambda: done.append("anew"))
    behind.wait()
    assert done == ["first", "anew"]


def test_after_an_error_it_can_begin_anew(behind: Behind) -> None:
    def fails() -> None:
        raise ValueError("no")

    behind.do(fails)
    behind.idle()
    behind.end()
    done: list[int] = []
    behind.do(lambda: done.append(1))
    behind.wait()
    assert done == [1]


def test_without_a_job_there_is_no_thread_and_nothing_to_wait_for(behind: Behind) -> None:
    behind.wait()
    behind.idle()
    behind.end()
    assert not [thread for thread in threading.enumerate() if thread.name == "behind-test"]


def test_one_that_nobody_ends_takes_its_thread_with_it() -> None:
    made = Behind("behind-abandoned")
    made.do(lambda: None)
    made.wait()
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "behind-abandoned"]
    del made
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()
