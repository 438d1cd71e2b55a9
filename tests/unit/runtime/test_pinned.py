"""A generation that is pinned is the one that everything beneath finds, and nothing else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts.errors import ResolutionError
from llmartifacts.runtime import trace
from llmartifacts.runtime.pinned import pinned, pinned_here, serving

WANTED = {"agent": "agent:prod"}


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[la.Registry]:
    monkeypatch.setenv("LLMARTIFACTS_CACHE", str(tmp_path / "cache"))
    with la.init(tmp_path / "registry") as made:
        made.log("agent", la.Prompt("old", template_format="jinja2"), aliases="prod")
        yield made


@pytest.fixture
def resolver(registry: la.Registry) -> Iterator[la.Resolver[Any]]:
    with la.Resolver(WANTED, registry=registry) as made:
        yield made


@pytest.fixture
def swap(registry: la.Registry, resolver: la.Resolver[Any]) -> Callable[[], None]:
    def swap() -> None:
        registry.log("agent", la.Prompt("new", template_format="jinja2"), aliases="prod")
        assert resolver.refresh()

    return swap


def test_what_is_pinned_stays_over_a_swap_and_ends_with_the_block(
    resolver: la.Resolver[Any], swap: Callable[[], None]
) -> None:
    with pinned(resolver) as generation:
        swap()
        assert serving(resolver) is generation
        with pinned(resolver) as inner:
            assert inner is generation
        assert serving(resolver) is generation
        assert resolver.current is not generation
    assert pinned_here(resolver) is None
    assert serving(resolver) is resolver.current


def test_a_generation_may_be_named(resolver: la.Resolver[Any], swap: Callable[[], None]) -> None:
    old = resolver.current
    swap()
    with pinned(resolver, old) as generation:
        assert generation is old
        assert serving(resolver).value["agent"].template == "old"


def test_threads_to_which_the_context_goes_find_it_and_others_do_not(
    resolver: la.Resolver[Any], swap: Callable[[], None]
) -> None:
    found: list[Any] = []

    async def within() -> None:
        with pinned(resolver) as generation:
            task = asyncio.create_task(asyncio.to_thread(serving, resolver))
            swap()
            assert await task is generation
            thread = threading.Thread(target=copy_context().run, args=(lambda: found.append(serving(resolver)),))
            thread.start()
            thread.join()
            assert found.pop() is generation

    asyncio.run(within())
    assert serving(resolver) is resolver.current


def test_two_requests_at_once_do_not_see_each_other(resolver: la.Resolver[Any], swap: Callable[[], None]) -> None:
    async def request(first: asyncio.Event, second: asyncio.Event) -> str:
        with pinned(resolver):
            first.set()
            await second.wait()
            return str(serving(resolver).value["agent"].template)

    async def both() -> list[str]:
        one, two, never = asyncio.Event(), asyncio.Event(), asyncio.Event()
        early = asyncio.create_task(request(one, two))
        await one.wait()
        await asyncio.to_thread(swap)
        late = asyncio.create_task(request(two, two))
        assert not never.is_set()
        return await asyncio.gather(early, late)

    assert asyncio.run(both()) == ["old", "new"]


def test_it_is_on_the_traces_and_a_prompt_that_is_named_there_stays(resolver: la.Resolver[Any]) -> None:
    with pinned(resolver) as generation:
        assert trace.current() is generation
    assert trace.current() is None
    with generation.traced(prompt="agent"):
        before = trace.current_attributes()
        with pinned(resolver):
            assert trace.current_attributes() is before


def test_each_resolver_has_its_own(registry: la.Registry, resolver: la.Resolver[Any]) -> None:
    with la.Resolver(WANTED, registry=registry) as other, pinned(resolver) as here:
        assert pinned_here(other) is None
        with pinned(other) as there:
            assert serving(resolver) is here
            assert serving(other) is there
            assert here is not there


def test_nothing_is_pinned_before_the_start(registry: la.Registry) -> None:
    resolver = la.Resolver(WANTED, registry=registry)
    with pytest.raises(ResolutionError, match="has not started"), pinned(resolver):
        pass
    assert pinned_here(resolver) is None
