"""LangChain runnables that follow what a resolver serves: a promotion changes the chain, with no restart.

    chain = {"context": retriever(resolver, "kb", embeddings) | joined, "question": RunnablePassthrough()}
    chain = chain | prompt(resolver, "agent") | model

    following(resolver, lambda support: build_chain(support))          # built once for each generation
    following(resolver, any_runnable)                                  # keeps one generation for all that is in it

**One generation for one invocation.** Two parts that each follow could meet a swap between them, and answer from an old
index with a new prompt. So a generation is taken where the outermost one begins, and everything within keeps it, in
other threads and tasks too, for a whole batch, and to the end of a stream. Within a request of a service with
`GenerationMiddleware`, or a `with pinned(resolver):`, it is that of the request.

A chain that begins or is piped together with a part that follows is itself one that follows. Where LangChain puts one
together otherwise (`RunnablePassthrough.assign(context=retriever(…)) | …`) it cannot know; such a chain is refused when
it is invoked, until it is wrapped: `following(resolver, chain)`.

The versions are in the metadata and the tags of every run.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, overload

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.embeddings import Embeddings
from langchain_core.prompt_values import ChatPromptValue, PromptValue, StringPromptValue
from langchain_core.prompts import BasePromptTemplate
from langchain_core.runnables import Runnable, RunnableConfig, ensure_config
from langchain_core.runnables.base import RunnableLike, coerce_to_runnable
from langchain_core.runnables.config import run_in_executor
from langchain_core.runnables.utils import Input, Output

from llmartifacts.errors import InvalidInput, InvalidValue, NotFound, ResolutionError, WrongKind
from llmartifacts.kinds.prompt.value import Prompt
from llmartifacts.kinds.vector_index.value import VectorIndex
from llmartifacts.records.names import near_names
from llmartifacts.runtime.generation import Generation
from llmartifacts.runtime.pinned import pinned, pinned_here
from llmartifacts.runtime.resolver import Resolver

if TYPE_CHECKING:
    from langchain_core.documents import Document
    from langchain_core.runnables.graph import Graph
    from langchain_core.runnables.utils import ConfigurableFieldSpec

T = TypeVar("T")
V = TypeVar("V")
Item = TypeVar("Item")


@overload
def following(resolver: Resolver[T], what: Runnable[Input, Output], *, name: str = "") -> Following[Input, Output]: ...
@overload
def following(
    resolver: Resolver[T], what: Callable[[T], Runnable[Input, Output]], *, name: str = ""
) -> Following[Input, Output]: ...
@overload
def following(
    resolver: Resolver[T], what: Callable[[T], RunnableLike[Any, Any]], *, name: str = ""
) -> Following[Any, Any]: ...
def following(resolver: Resolver[T], what: Any, *, name: str = "") -> Following[Any, Any]:
    """A runnable that follows what a resolver serves.

    Args:
        resolver: What is served; it may be started later.
        what: A function that makes a runnable (or what LangChain takes for one) of the components; it is called once
            for each generation. Or a runnable that stays, in which all that follows shall keep one generation.
        name: What traces call it; by default as the runnable in it.

    Raises:
        InvalidInput: `what` is neither.

    Example:
        >>> import llmartifacts as la
        >>> registry = la.init("following-registry")
        >>> text = la.Prompt("Answer briefly: {{ question }}", template_format="jinja2")
        >>> _ = registry.log("support-agent", text, aliases="prod")
        >>> with la.Resolver({"agent": "support-agent:prod"}, registry=registry) as resolver:
        ...     chain = following(resolver, lambda support: support["agent"].to_langchain())
        ...     chain.invoke({"question": "Why?"}).to_string()
        'Answer briefly: Why?'
    """
    if isinstance(what, Runnable):
        return Following(resolver, lambda _: what, fixed=what, name=name)
    if not callable(what):
        raise InvalidInput(
            f"a {type(what).__name__} is neither a runnable nor a function that makes one",
            field="what",
            next_step="Write following(resolver, lambda value: …).",
        )
    return Following(resolver, lambda value: coerce_to_runnable(what(value)), name=name)


def prompt(resolver: Resolver[Any], field: str) -> Following[dict[str, Any], PromptValue]:
    """A prompt that is the current generation's: LangChain's prompt template, wherever one is taken.

    A prompt that LangChain's own templates cannot express (`Prompt.to_langchain` says which) is rendered here instead.

    Args:
        resolver: What is served.
        field: Field, role or name of the prompt.

    Raises:
        NotFound: When it is invoked: there is no such field, or it is absent.
        WrongKind: When it is invoked: it is no prompt.
    """
    return following(resolver, lambda value: _template(_component(value, field, Prompt)))


def retriever(
    resolver: Resolver[Any], field: str, embeddings: Embeddings | Callable[[VectorIndex], Embeddings], **options: Any
) -> Following[str, list[Document]]:
    """A retriever over the current generation's index.

    Args:
        resolver: What is served.
        field: Field, role or name of the index.
        embeddings: The embedder that the index was built with, checked by its probes for each generation; or a
            function that gives the one for an index, where a promotion may bring another.
        **options: Of LangChain's `VectorStore.as_retriever`: `search_type`, `search_kwargs={"k": 4}`, …

    Raises:
        NotFound: When it is invoked: there is no such field, or it is absent.
        WrongKind: When it is invoked: it is no index.
        Incompatible: When it is invoked: the index was built with another embedder.
    """

    def made(value: Any) -> Runnable[str, list[Document]]:
        index = _component(value, field, VectorIndex)
        chosen = embeddings if isinstance(embeddings, Embeddings) else embeddings(index)
        return index.as_retriever(chosen, **options)

    return following(resolver, made)


_log = logging.getLogger("llmartifacts.langchain")


class Following(Runnable[Input, Output]):
    """A runnable that does what another one does, made of the components that are served; see `following`.

    It makes no run of its own: on a trace stands what is in it.
    """

    def __init__(
        self,
        resolver: Resolver[Any],
        make: Callable[[Any], Runnable[Input, Output]],
        *,
        fixed: Runnable[Input, Output] | None = None,
        name: str = "",
    ) -> None:
        self.name = name or None
        self._resolver = resolver
        self._make = make
        self._fixed = fixed
        self._made: tuple[Generation[Any], Runnable[Input, Output]] | None = None
        if fixed is None:
            self._follow()

    def _follow(self) -> None:
        """Be told of each new generation for as long as anybody has this; the resolver does not keep it."""
        me = weakref.ref(self)

        def renew(new: Generation[Any], _: Generation[Any] | None) -> None:
            there = me()
            if there is not None:
                there._renew(new)

        weakref.finalize(self, self._resolver.on_change(renew)).atexit = False

    def _renew(self, new: Generation[Any]) -> None:
        """Build for a new generation when it comes, not when somebody waits; and let the old one go."""
        self._made = None
        try:
            self._inner(new)
        except Exception as error:  # noqa: BLE001 - what it makes is the user's; whoever invokes it meets it again
            _log.warning("nothing can be made of generation %d: %s: %s", new.number, type(error).__name__, error)

    # --- which generation, and what is made of it

    def _begin(self, config: RunnableConfig | None) -> tuple[Generation[Any], RunnableConfig]:
        here = pinned_here(self._resolver)
        if here is None and _is_within_another(config):
            raise InvalidInput(
                f"{self.get_name()} is a part of a chain of which other parts may meet another generation",
                field="chain",
                next_step="Wrap the whole chain: following(resolver, chain); or invoke it in `with pinned(resolver):`.",
            )
        generation = self._resolver.current if here is None else here
        return generation, _telling(generation, config)

    def _inner(self, generation: Generation[Any]) -> Runnable[Input, Output]:
        if self._fixed is not None:
            return self._fixed
        known = self._made  # read once: another thread may put another one there
        if known is not None and known[0] is generation:
            return known[1]
        made = self._make(generation.value)
        if self._is_current(generation):
            self._made = generation, made
            if not self._is_current(generation):  # swapped meanwhile: nothing here keeps an old index in memory
                self._made = None
        return made

    async def _ainner(self, generation: Generation[Any]) -> Runnable[Input, Output]:
        known = self._made
        if self._fixed is not None or (known is not None and known[0] is generation):
            return self._inner(generation)
        return await run_in_executor(None, self._inner, generation)

    def _is_current(self, generation: Generation[Any]) -> bool:
        with suppress(ResolutionError):
            return self._resolver.current is generation
        return False

    def _shown(self) -> Runnable[Input, Output] | None:
        """What is in it just now, for whoever asks what it takes and gives; None before the start."""
        if self._fixed is not None:
            return self._fixed
        generation = pinned_here(self._resolver)
        if generation is None:
            try:
                generation = self._resolver.current
            except ResolutionError:
                return None
        return self._inner(generation)

    # --- what it takes and gives

    def get_name(self, suffix: str | None = None, *, name: str | None = None) -> str:
        """Its name: the one it was given, else that of what is in it."""
        shown = None if name or self.name else self._shown()
        return super().get_name(suffix, name=name) if shown is None else shown.get_name(suffix)

    @property
    def InputType(self) -> Any:  # noqa: N802 - LangChain's name
        """What it takes: as what is in it; anything before the start."""
        shown = self._shown()
        return Any if shown is None else shown.InputType

    @property
    def OutputType(self) -> Any:  # noqa: N802 - LangChain's name
        """What it gives: as what is in it; anything before the start."""
        shown = self._shown()
        return Any if shown is None else shown.OutputType

    def get_input_schema(self, config: RunnableConfig | None = None) -> Any:
        """A pydantic model of what it takes, of this moment: a prompt's variables may change with a promotion."""
        shown = self._shown()
        return super().get_input_schema(config) if shown is None else shown.get_input_schema(config)

    def get_output_schema(self, config: RunnableConfig | None = None) -> Any:
        """A pydantic model of what it gives, of this moment."""
        shown = self._shown()
        return super().get_output_schema(config) if shown is None else shown.get_output_schema(config)

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        """What can be configured: as in what is in it."""
        shown = self._shown()
        return [] if shown is None else shown.config_specs

    def get_graph(self, config: RunnableConfig | None = None) -> Graph:
        """The graph of what is in it."""
        shown = self._shown()
        return super().get_graph(config) if shown is None else shown.get_graph(config)

    # --- what is put together with it follows as a whole

    def _whole(self, made: Runnable[Any, Any]) -> Any:
        return following(self._resolver, made)

    def _flat(self, other: Any) -> Any:
        """A chain that keeps the same resolver's generation already, without its wrapper: so that chains stay flat."""
        if isinstance(other, Following) and other._resolver is self._resolver and other._fixed and not other.name:
            return other._fixed
        return other

    def __or__(self, other: Any) -> Any:
        mine = self._flat(self)
        return self._whole(mine | self._flat(other) if mine is not self else super().__or__(self._flat(other)))

    def __ror__(self, other: Any) -> Any:
        mine = self._flat(self)
        return self._whole(coerce_to_runnable(other) | mine if mine is not self else super().__ror__(other))

    def pipe(self, *others: Any, name: str | None = None) -> Any:
        """As LangChain's; the whole chain keeps one generation."""
        return self._whole(super().pipe(*others, name=name))

    def assign(self, **kwargs: Any) -> Any:
        """As LangChain's; the whole chain keeps one generation."""
        return super().assign(**kwargs)

    def with_retry(self, **options: Any) -> Any:
        """As LangChain's; all tries are with one generation."""
        return self._whole(super().with_retry(**options))

    def with_fallbacks(self, fallbacks: Sequence[Runnable[Input, Output]], **options: Any) -> Any:
        """As LangChain's; the fallbacks keep the generation too."""
        return self._whole(super().with_fallbacks(fallbacks, **options))

    def map(self) -> Any:
        """As LangChain's; all items are done with one generation."""
        return self._whole(super().map())

    # --- doing it

    def invoke(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> Output:  # noqa: A002
        """As LangChain's, with one generation. Raises `ResolutionError` before the start."""
        generation, given = self._begin(config)
        with pinned(self._resolver, generation):
            return self._inner(generation).invoke(input, given, **kwargs)

    async def ainvoke(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> Output:  # noqa: A002
        """As LangChain's, with one generation. Raises `ResolutionError` before the start."""
        generation, given = self._begin(config)
        with pinned(self._resolver, generation):
            inner = await self._ainner(generation)
            return await inner.ainvoke(input, given, **kwargs)

    def batch(
        self,
        inputs: list[Input],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Output]:
        """As LangChain's; the whole batch is of one generation."""
        generation, given = self._begin_all(config)
        with pinned(self._resolver, generation):
            inner = self._inner(generation)
            return inner.batch(inputs, given, return_exceptions=return_exceptions, **kwargs)

    async def abatch(
        self,
        inputs: list[Input],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Output]:
        """As LangChain's; the whole batch is of one generation."""
        generation, given = self._begin_all(config)
        with pinned(self._resolver, generation):
            inner = await self._ainner(generation)
            return await inner.abatch(inputs, given, return_exceptions=return_exceptions, **kwargs)

    def _begin_all(
        self, config: RunnableConfig | Sequence[RunnableConfig] | None
    ) -> tuple[Generation[Any], RunnableConfig | list[RunnableConfig]]:
        if not isinstance(config, Sequence):
            return self._begin(config)
        generation, _ = self._begin(config[0] if config else None)
        return generation, [_telling(generation, one) for one in config]

    @overload
    def batch_as_completed(
        self,
        inputs: Sequence[Input],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        return_exceptions: Literal[False] = False,
        **kwargs: Any,
    ) -> Iterator[tuple[int, Output]]: ...
    @overload
    def batch_as_completed(
        self,
        inputs: Sequence[Input],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        return_exceptions: Literal[True],
        **kwargs: Any,
    ) -> Iterator[tuple[int, Output | Exception]]: ...
    def batch_as_completed(
        self,
        inputs: Sequence[Input],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> Iterator[tuple[int, Any]]:
        """As LangChain's; the whole batch is of one generation."""
        generation, given = self._begin_all(config)
        options: Any = {"return_exceptions": return_exceptions, **kwargs}
        yield from self._pulled(
            generation, lambda: self._inner(generation).batch_as_completed(inputs, given, **options)
        )

    @overload
    def abatch_as_completed(
        self,
        inputs: Sequence[Input],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        return_exceptions: Literal[False] = False,
        **kwargs: Any,
    ) -> AsyncIterator[tuple[int, Output]]: ...
    @overload
    def abatch_as_completed(
        self,
        inputs: Sequence[Input],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        return_exceptions: Literal[True],
        **kwargs: Any,
    ) -> AsyncIterator[tuple[int, Output | Exception]]: ...
    async def abatch_as_completed(
        self,
        inputs: Sequence[Input],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> AsyncIterator[tuple[int, Any]]:
        """As LangChain's; the whole batch is of one generation."""
        generation, given = self._begin_all(config)
        options: Any = {"return_exceptions": return_exceptions, **kwargs}
        async for item in self._apulled(generation, lambda inner: inner.abatch_as_completed(inputs, given, **options)):
            yield item

    def stream(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Output]:  # noqa: A002
        """As LangChain's; the whole stream is of one generation."""
        generation, given = self._begin(config)
        yield from self._pulled(generation, lambda: self._inner(generation).stream(input, given, **kwargs))

    async def astream(
        self,
        input: Input,  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[Output]:
        """As LangChain's; the whole stream is of one generation."""
        generation, given = self._begin(config)
        async for item in self._apulled(generation, lambda inner: inner.astream(input, given, **kwargs)):
            yield item

    def transform(
        self,
        input: Iterator[Input],  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> Iterator[Output]:
        """As LangChain's; the whole stream is of one generation."""
        generation, given = self._begin(config)
        yield from self._pulled(generation, lambda: self._inner(generation).transform(input, given, **kwargs))

    async def atransform(
        self,
        input: AsyncIterator[Input],  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[Output]:
        """As LangChain's; the whole stream is of one generation."""
        generation, given = self._begin(config)
        async for item in self._apulled(generation, lambda inner: inner.atransform(input, given, **kwargs)):
            yield item

    # A generator runs in its caller's context, so what is pinned over a `yield` would be pinned for the caller too.

    def _pulled(self, generation: Generation[Any], begin: Callable[[], Iterator[Item]]) -> Iterator[Item]:
        with pinned(self._resolver, generation):
            items = begin()
        try:
            while True:
                with pinned(self._resolver, generation):
                    try:
                        item = next(items)
                    except StopIteration:
                        return
                yield item
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()

    async def _apulled(
        self, generation: Generation[Any], begin: Callable[[Runnable[Input, Output]], AsyncIterator[Item]]
    ) -> AsyncIterator[Item]:
        with pinned(self._resolver, generation):
            items = begin(await self._ainner(generation))
        try:
            while True:
                with pinned(self._resolver, generation):
                    try:
                        item = await anext(items)
                    except StopAsyncIteration:
                        return
                yield item
        finally:
            close = getattr(items, "aclose", None)
            if close is not None:
                await close()


def _telling(generation: Generation[Any], config: RunnableConfig | None) -> RunnableConfig:
    """A config with the versions in its metadata and tags."""
    made, ours = ensure_config(config), generation.runnable_config()
    made["metadata"] = {**made.get("metadata", {}), **ours.get("metadata", {})}
    made["tags"] = list(dict.fromkeys([*(made.get("tags") or []), *(ours.get("tags") or [])]))
    return made


def _is_within_another(config: RunnableConfig | None) -> bool:
    callbacks = ensure_config(config).get("callbacks")
    return isinstance(callbacks, BaseCallbackManager) and callbacks.parent_run_id is not None


# --- components as runnables


def _component(value: Any, field: str, wanted: type[V]) -> V:
    names: Sequence[str] = (
        list(value) if isinstance(value, Mapping) else list(getattr(value, "__dataclass_fields__", ()))
    )
    if field not in names:
        raise NotFound(
            f"what is served has no {field!r}",
            what="field",
            name=field,
            field=field,
            near=near_names(field, names),
            next_step=f"It has {', '.join(sorted(names))}.",
        )
    found = value[field] if isinstance(value, Mapping) else getattr(value, field)
    if found is None:
        raise NotFound(f"{field} is absent", what="component", name=field, field=field)
    if not isinstance(found, wanted):
        raise WrongKind(f"{field} is a {type(found).__name__}, not a {wanted.__name__}", field=field)
    return found


def _template(found: Prompt) -> Runnable[dict[str, Any], PromptValue]:
    try:
        return cast("Runnable[dict[str, Any], PromptValue]", found.to_langchain())
    except InvalidValue:
        optional = [name for name in found.variables if name not in found.required]
        return _Rendered(input_variables=list(found.required), optional_variables=optional, prompt=found)


class _Rendered(BasePromptTemplate[Any]):
    """A prompt that LangChain's templates cannot express, rendered by itself."""

    prompt: Any

    @classmethod
    def is_lc_serializable(cls) -> bool:
        return False

    @property
    def _prompt_type(self) -> str:
        return "llmartifacts"

    def format_prompt(self, **kwargs: Any) -> PromptValue:
        from langchain_core.messages import convert_to_messages

        # As LangChain's templates: a chain hands over all that it has, and they take what they know.
        values = {name: kwargs[name] for name in self.prompt.variables if name in kwargs}
        if self.prompt.is_chat:
            return ChatPromptValue(messages=convert_to_messages(self.prompt.render_messages(values)))
        return StringPromptValue(text=self.prompt.render(values))

    async def aformat_prompt(self, **kwargs: Any) -> PromptValue:
        return await run_in_executor(None, partial(self.format_prompt, **kwargs))

    def format(self, **kwargs: Any) -> Any:
        return self.format_prompt(**kwargs).to_string()
