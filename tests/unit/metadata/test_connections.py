"""One connection a thread, none of a thread that has ended, none across a fork."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest

from llmartifacts.errors import NotAllowed
from llmartifacts.metadata import connections
from llmartifacts.metadata.connections import Connections

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


class Fake:
    def __init__(self) -> None:
        self.open = True
        self.good = True

    def close(self) -> None:
        self.open = False

    def usable(self) -> bool:
        return self.good


class Pool(Connections[Fake]):
    def __init__(self, key: str = "a database") -> None:
        self.made: list[Fake] = []
        super().__init__(key, self._one)

    def _one(self) -> Fake:
        self.made.append(Fake())
        return self.made[-1]


@pytest.fixture
def pool(request: pytest.FixtureRequest) -> Pool:
    return Pool(request.node.name)


def in_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def in_child(work: Callable[[], object]) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def use(pool: Pool) -> Fake:
    with pool.use() as connection:
        assert connection.open
    return connection


def test_a_thread_keeps_its_connection_and_another_has_its_own(pool: Pool) -> None:
    mine = use(pool)
    in_thread(lambda: use(pool))
    assert use(pool) is mine
    assert len(pool.made) == 2


def test_inside_a_block_the_same_connection_is_used_again(pool: Pool) -> None:
    with pool.use() as outer, pool.use() as inner:
        assert outer is inner


def test_a_connection_of_a_thread_that_has_ended_is_closed_by_the_next_that_opens_one(pool: Pool) -> None:
    for _ in range(3):
        in_thread(lambda: use(pool))
    assert [c.open for c in pool.made] == [False, False, True]


def test_a_connection_that_is_no_use_any_more_is_opened_anew(pool: Pool) -> None:
    first = use(pool)
    first.good = False
    assert use(pool) is not first
    assert not first.open


def test_a_close_waits_for_nobody_and_takes_nothing_away_from_under_anybody(pool: Pool) -> None:
    with pool.use() as mine:
        in_thread(pool.close)
        assert mine.open
    assert not mine.open
    with pytest.raises(NotAllowed, match="closed"):
        use(pool)


def test_one_that_cannot_be_opened_leaves_the_pool_usable(pool: Pool) -> None:
    def fail() -> Fake:
        raise OSError

    pool._make, make = fail, pool._make
    with pytest.raises(OSError):
        use(pool)
    pool._make = make
    assert use(pool).open
    pool.close()
    assert not pool.made[-1].open


def test_no_connection_is_open_in_a_process_while_it_forks(pool: Pool) -> None:
    before = use(pool)

    def work() -> None:
        assert not before.open
        assert use(pool) is not before

    assert in_child(work) == 0
    assert not before.open
    assert use(pool).open


def test_a_fork_waits_for_what_other_threads_do(pool: Pool) -> None:
    inside, go_on = threading.Event(), threading.Event()
    seen: list[bool] = []

    def work() -> None:
        with pool.use() as connection:
            inside.set()
            go_on.wait(5)
            seen.append(connection.open)

    thread = threading.Thread(target=work)
    thread.start()
    inside.wait()
    threading.Timer(0.05, go_on.set).start()
    assert in_child(lambda: use(pool)) == 0
    thread.join()
    assert seen == [True]


def test_a_child_that_had_to_inherit_a_connection_may_not_use_the_database(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "FORK_SECONDS", 0.05)
    inside, go_on = threading.Event(), threading.Event()

    def stay() -> None:
        with pool.use():
            inside.set()
            go_on.wait(5)

    thread = threading.Thread(target=stay)
    thread.start()
    inside.wait()

    def work() -> None:
        for each in (pool, Pool(pool._key)):
            with pytest.raises(NotAllowed, match="forked") as caught:
                use(each)
            assert caught.value.hint()
        use(Pool("another database"))

    assert in_child(work) == 0
    go_on.set()
    thread.join()
    use(pool)


def test_a_fork_inside_a_block_leaves_the_connection_to_the_parent(pool: Pool) -> None:
    with pool.use() as mine:

        def work() -> None:
            with pytest.raises(NotAllowed, match="forked"):
                use(pool)

        assert in_child(work) == 0
        assert mine.open
    assert use(pool) is mine


def test_a_child_made_behind_pythons_back_is_told(pool: Pool) -> None:
    use(pool)
    pool._pid -= 1  # what it looks like: another process, and nobody was told of a fork
    with pytest.raises(NotAllowed, match="forked"):
        use(pool)
    connections._UNSAFE.pop(pool._key)


def test_a_child_that_used_it_before_it_was_told_of_the_fork_goes_on_using_it(pool: Pool) -> None:
    """A hook of somebody else, or a thread that one starts, can come first."""
    use(pool)

    def work() -> None:
        mine = use(pool)
        connections._after_fork_in_child()
        assert use(pool) is mine

    assert in_child(work) == 0
