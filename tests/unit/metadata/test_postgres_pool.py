"""The line of writers in one process: fair, and nobody's place is lost."""

from __future__ import annotations

import threading
import time

import pytest

from llmartifacts.errors import Busy
from llmartifacts.metadata.postgres_pool import Line


def test_turns_come_in_the_order_of_asking() -> None:
    line, came, threads = Line(1), [], []

    def take(number: int) -> None:
        with line.turn(30, "here"):
            came.append(number)

    with line.turn(30, "here"):
        for number in range(20):
            threads.append(threading.Thread(target=take, args=(number,)))
            threads[-1].start()
            while len(line._waiting) <= number:
                time.sleep(0.001)
    for each in threads:
        each.join()
    assert came == list(range(20))


def test_only_so_many_have_their_turn_at_once() -> None:
    line = Line(2)
    third = pytest.raises(Busy, match="here stayed locked")
    with line.turn(1, "here"), line.turn(1, "here"), third, line.turn(0.01, "here"):
        pass
    with line.turn(0, "here"), line.turn(0, "here"):
        pass


def test_whoever_gives_up_leaves_the_line_to_the_next() -> None:
    line, came = Line(1), threading.Event()

    def give_up() -> None:
        with pytest.raises(Busy), line.turn(0.05, "here"):
            pass

    def wait() -> None:
        with line.turn(30, "here"):
            came.set()

    with line.turn(1, "here"):
        first, second = threading.Thread(target=give_up), threading.Thread(target=wait)
        first.start()
        while not line._waiting:
            time.sleep(0.001)
        second.start()
        first.join()
        assert not came.is_set()
    second.join(30)
    assert came.is_set()


def test_an_error_in_a_turn_ends_it() -> None:
    line = Line(1)
    with pytest.raises(ZeroDivisionError), line.turn(1, "here"):
        raise ZeroDivisionError
    with line.turn(0, "here"):
        pass
