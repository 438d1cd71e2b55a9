"""One generation for everything that is done for one request: pinned in a context variable.

A request that looks at `resolver.current` twice may see two generations. Here it is taken once, and every call beneath
finds the same one: in other threads to which the context was copied (as `asyncio.to_thread` and the frameworks do), in
tasks, in LangChain's runnables.

    with pinned(resolver) as generation:
        ...                                  # serving(resolver) is generation, whatever is swapped in meanwhile

What outlives the block, such as a task that was begun in it, keeps the generation, and so its memory, as long as it
lives.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, TypeVar

from llmartifacts.runtime import trace
from llmartifacts.runtime.generation import Generation
from llmartifacts.runtime.resolver import Resolver

T = TypeVar("T")

_NOTHING: Mapping[Resolver[Any], Generation[Any]] = MappingProxyType({})
_PINNED: ContextVar[Mapping[Resolver[Any], Generation[Any]]] = ContextVar("llmartifacts_pinned", default=_NOTHING)


def pinned_here(resolver: Resolver[T]) -> Generation[T] | None:
    """The generation of a resolver that is pinned in this context; None if none is."""
    return _PINNED.get().get(resolver)


def serving(resolver: Resolver[T]) -> Generation[T]:
    """The generation that is pinned in this context, else what the resolver serves now.

    Raises:
        ResolutionError: None is pinned, and the resolver has not started.
    """
    here = pinned_here(resolver)
    return resolver.current if here is None else here


@contextmanager
def pinned(resolver: Resolver[T], generation: Generation[T] | None = None) -> Iterator[Generation[T]]:
    """Keep to one generation within a block, and put it on the traces that are made there (`Generation.traced`).

    Args:
        resolver: Whose generation it is.
        generation: Which one; by default the one that is pinned already, else what is served now.

    Raises:
        ResolutionError: The resolver has not started.

    Example:
        >>> import llmartifacts as la
        >>> registry = la.init("pinned-registry")
        >>> _ = registry.log("greeting", la.Prompt("Hello", template_format="jinja2"), aliases="prod")
        >>> with la.Resolver({"greeting": "greeting:prod"}, registry=registry) as resolver:
        ...     with pinned(resolver) as generation:
        ...         serving(resolver) is generation
        True
    """
    chosen = serving(resolver) if generation is None else generation
    token = _PINNED.set({**_PINNED.get(), resolver: chosen})
    try:
        # What is on the traces already may name a prompt too: it stays.
        with nullcontext() if trace.current() is chosen else chosen.traced():
            yield chosen
    finally:
        with suppress(ValueError):  # ended in another context, as generators of some frameworks are: nothing to undo
            _PINNED.reset(token)
