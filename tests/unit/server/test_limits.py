"""What one client may take, and what one process takes on."""

from __future__ import annotations

import asyncio

import pytest

from llmartifacts.errors import Busy
from llmartifacts.server import limits
from llmartifacts.server.limits import Bytes, Rate, Room, retry_after


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_rate_lets_a_burst_through_and_then_one_at_a_time() -> None:
    clock = Clock()
    rate = Rate(2.0, 3, clock=clock)
    assert [rate.take("ann") for _ in range(3)] == [0, 0, 0]
    assert rate.take("ann") == pytest.approx(0.5)
    assert rate.take("bob") == 0
    clock.now += 0.5
    assert rate.take("ann") == 0
    assert rate.take("ann") > 0


def test_a_rate_says_what_is_owed_without_taking() -> None:
    rate = Rate(1.0, 1, clock=Clock())
    assert rate.owing("ann") == 0
    assert rate.owing("ann") == 0
    rate.take("ann")
    assert rate.owing("ann") == pytest.approx(1.0)


def test_no_rate_is_no_limit() -> None:
    rate = Rate(0)
    assert all(rate.take("ann") == 0 for _ in range(10_000))


def test_those_longest_unseen_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REMEMBERED", 10)
    rate = Rate(1.0, 1, clock=Clock())
    for number in range(100):
        rate.take(str(number))
    assert len(rate._buckets) == 10
    assert rate.take("99") > 0
    assert rate.take("0") == 0


def test_who_finds_no_place_waits_for_one_and_the_next_is_refused() -> None:
    async def story() -> list[str]:
        room = Room(1, 1, seconds=30)
        told: list[str] = []
        await room.enter()

        async def second() -> None:
            async with room.place():
                told.append("second is in")

        waiting = asyncio.create_task(second())
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            await room.enter()
        told.append("third is refused")
        room.leave()
        await waiting
        assert room.free == 1
        return told

    assert asyncio.run(story()) == ["third is refused", "second is in"]


def test_who_waited_too_long_or_left_gives_no_place_away() -> None:
    async def story() -> None:
        room = Room(1, 5, seconds=0.01)
        await room.enter()
        with pytest.raises(Busy):
            await room.enter()
        slow = Room(1, 5, seconds=60)
        await slow.enter()
        waiting = asyncio.create_task(slow.enter())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        slow.leave()
        assert (slow.free, len(slow._queue)) == (1, 0)
        room.leave()
        assert (room.free, len(room._queue)) == (1, 0)

    asyncio.run(story())


def test_bodies_share_one_memory_and_give_it_back() -> None:
    memory = Bytes(100)
    with memory.hold("ann") as one:
        one(60)
        with pytest.raises(Busy), memory.hold("bob") as other:
            other(30)
            other(30)
        assert memory.left == 40
    assert memory.left == 100


def test_nobody_has_all_the_memory() -> None:
    memory = Bytes(100)
    with memory.hold("ann") as one, memory.hold("ann") as two, memory.hold("bob") as other:
        one(50)
        two(25)
        with pytest.raises(Busy):
            two(1)
        other(25)
    assert (memory.left, len(memory._held)) == (100, 0)


def test_when_to_come_again_is_whole_seconds() -> None:
    assert [retry_after(seconds) for seconds in (0.0, 0.2, 1.1, 1e9)] == [b"1", b"1", b"2", b"3600"]


def test_nobody_has_all_the_places_or_the_whole_queue() -> None:
    async def story() -> None:
        room = Room(4, 4, seconds=0.05)
        for _ in range(3):
            await room.enter("ann")
        with pytest.raises(Busy):
            await room.enter("ann")  # there is a place, and it is not for her
        waiting = [asyncio.create_task(room.enter("ann")) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            await room.enter("ann")  # nor is the end of the queue
        await room.enter("bob")
        later = asyncio.create_task(room.enter("bob"))
        await asyncio.sleep(0)
        room.leave("bob")
        await later  # ann waited longer, and has her share
        room.leave("ann")
        await waiting[0]
        assert [isinstance(e, Busy) for e in await asyncio.gather(*waiting, return_exceptions=True)] == [0, 1, 1]
        for who in ("ann", "ann", "ann", "bob"):
            room.leave(who)
        assert (room.free, len(room._queue), len(room._held), len(room._waits)) == (4, 0, 0, 0)

    asyncio.run(story())
