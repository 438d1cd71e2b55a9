from __future__ import annotations

import math
import threading

import pytest

from llmartifacts.errors import DeadlineExceeded, InvalidInput
from llmartifacts.runtime.task import Deadline, Task, check_seconds, each


@pytest.fixture
def forever():
    """An event that is set when the test ends, so that no thread outlives it."""
    event = threading.Event()
    yield event
    event.set()


def test_a_task_gives_what_it_returned_or_raises_what_it_raised():
    done = Task(lambda task: 7, "test").begin()
    assert done.wait(10)
    assert done.result() == 7

    def fail(task):
        raise KeyError("x")

    failed = Task(fail, "test").begin()
    assert failed.wait(10)
    with pytest.raises(KeyError):
        failed.result()


def test_nobody_waits_longer_than_the_time_given(forever: threading.Event):
    task = Task(lambda task: forever.wait(60), "test").begin()
    assert not task.wait(0.01)
    assert not task.ended


def test_silence_ends_the_waiting_only_where_it_is_heeded(forever: threading.Event):
    def hang(task):
        with task.step("asking", silence=0.01):
            forever.wait(60)

    task = Task(hang, "test").begin()
    assert not task.wait(30, heed_silence=True)
    assert task.silent
    assert task.doing == "asking"
    assert not task.wait(0.01)


def test_work_done_here_is_never_silence_and_a_big_file_may_take_its_time(forever: threading.Event):
    begun = threading.Event()

    def work(task):
        with task.step("unpacking"), task.step("fetching", silence=0.001, size=10**9):
            begun.set()
            forever.wait(60)

    task = Task(work, "test").begin()
    assert begun.wait(10)
    assert not task.wait(0.05, heed_silence=True)
    assert not task.silent
    assert task.doing == "fetching and unpacking"


def test_a_task_that_was_given_up_ends_at_its_next_step_and_its_result_is_dropped():
    held, seen = threading.Event(), []

    def work(task):
        with task.step("the first"):
            held.wait(60)
        try:
            with task.step("the second"):
                seen.append("reached")
        except DeadlineExceeded as error:
            seen.append(error)
            raise

    task = Task(work, "test").begin()
    task.give_up()
    assert not task.wait(10)
    held.set()
    task._thread.join(10)
    assert [type(s) for s in seen] == [DeadlineExceeded]
    assert task.error is None
    assert not task.ended


def test_items_are_done_a_few_at_a_time_and_the_first_error_is_raised():
    done: list[int] = []
    threads: set[str] = set()

    def work(item: int) -> None:
        threads.add(threading.current_thread().name)
        done.append(item)

    task = Task(lambda task: each(task, range(100), work), "test").begin()
    assert task.wait(10)
    task.result()
    assert sorted(done) == list(range(100))
    assert all(name.startswith("test") for name in threads)

    def fail(item: int) -> None:
        raise OSError(item)

    failed = Task(lambda task: each(task, [1, 2, 3], fail), "test").begin()
    assert failed.wait(10)
    with pytest.raises(OSError):
        failed.result()
    none = Task(lambda task: each(task, [], fail), "test").begin()
    assert none.wait(10)
    none.result()


def test_threads_never_keep_the_interpreter_from_ending(forever: threading.Event):
    task = Task(lambda task: each(task, [1, 2], lambda item: forever.wait(60) and None), "test").begin()
    assert not task.wait(0.02)
    assert all(t.daemon for t in threading.enumerate() if t.name.startswith("test"))


@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan, True, "60", None])
def test_a_budget_is_a_positive_number_of_seconds(value):
    with pytest.raises(InvalidInput) as caught:
        check_seconds(value, "startup_timeout")
    assert caught.value.field == "startup_timeout"
    assert Deadline.after(5).left > 0
    assert Deadline(1.0, 0.0).left == 0
