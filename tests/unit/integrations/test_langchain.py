"""LangChain's runnables follow what a resolver serves, and one invocation is of one generation."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.messages import HumanMessage
from langchain_core.runnables import (
    RunnableConfig,
    RunnableGenerator,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)

import llmartifacts as la
from llmartifacts.errors import Incompatible, InvalidInput, NotFound, ResolutionError, WrongKind
from llmartifacts.integrations.hashing import HashingEmbeddings
from llmartifacts.integrations.langchain import following, prompt, retriever
from llmartifacts.runtime.pinned import pinned

EMBEDDINGS = HashingEmbeddings(64)


@dataclass(frozen=True)
class Support:
    agent: Annotated[la.Prompt, "agent:prod"]
    kb: Annotated[la.VectorIndex, "kb:prod"]
    greeting: Annotated[la.Prompt | None, "greeting:prod"] = None


def index(word: str, dimension: int = 64) -> la.VectorIndex:
    passages = [{"id": f"{word}-{topic}", "text": f"{topic} {word}"} for topic in ("refund", "shipping")]
    embeddings = HashingEmbeddings(dimension)
    return la.VectorIndex.build(passages, embeddings=embeddings, model=embeddings.model, index="Flat")


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[la.Registry]:
    monkeypatch.setenv("LLMARTIFACTS_CACHE", str(tmp_path / "cache"))
    with la.init(tmp_path / "registry") as made:
        yield made


def promote(registry: la.Registry, word: str) -> None:
    """A prompt and an index that both say the word, moved together."""
    text = f"{word}: {{{{ question }}}} {{% for p in context %}}{{{{ p }}}}{{% endfor %}}"
    agent = registry.log("agent", la.Prompt(text, template_format="jinja2"))
    kb = registry.log("kb", index(word))
    registry.promote([f"agent:v{agent.number}", f"kb:v{kb.number}"], to="prod", reason=word)


@pytest.fixture
def resolver(registry: la.Registry) -> Iterator[la.Resolver[Support]]:
    promote(registry, "old")
    with la.Resolver(Support, registry=registry) as made:
        yield made


@pytest.fixture
def swap(registry: la.Registry, resolver: la.Resolver[Support]) -> Callable[[], None]:
    def swap() -> None:
        promote(registry, "new")
        assert resolver.refresh()

    return swap


def ids(found: list[Document]) -> list[Any]:
    return [document.id for document in found]


def texts(found: list[Document]) -> list[str]:
    return [document.page_content for document in found]


# --- following


def test_a_prompt_and_a_retriever_are_the_new_ones_after_a_promotion(
    resolver: la.Resolver[Support], swap: Callable[[], None]
) -> None:
    agent, kb = prompt(resolver, "agent"), retriever(resolver, "kb", EMBEDDINGS, search_kwargs={"k": 1})
    given = {"question": "Why?", "context": []}

    assert agent.invoke(given).to_string() == "old: Why? "
    assert ids(kb.invoke("refund")) == ["old-refund"]
    swap()
    assert agent.invoke(given).to_string() == "new: Why? "
    assert ids(kb.invoke("refund")) == ["new-refund"]


def test_it_may_be_put_together_before_the_resolver_has_started(registry: la.Registry) -> None:
    promote(registry, "old")
    resolver = la.Resolver(Support, registry=registry)
    chain = prompt(resolver, "agent") | RunnableLambda(lambda value: value.to_string())
    agent = prompt(resolver, "agent")

    assert agent.InputType is Any
    with pytest.raises(ResolutionError, match="has not started"):
        chain.invoke({"question": "Why?", "context": []})
    with resolver:
        assert chain.invoke({"question": "Why?", "context": []}) == "old: Why? "
        assert set(agent.get_input_schema().model_fields) == {"question", "context"}


def test_a_function_is_called_once_for_each_generation_and_when_it_comes(
    resolver: la.Resolver[Support], swap: Callable[[], None]
) -> None:
    made: list[str] = []

    def build(support: Support) -> Any:
        made.append(support.agent.template[:3])
        return support.agent.to_langchain()

    chain = following(resolver, build)
    for _ in range(3):
        chain.invoke({"question": "Why?", "context": []})
    assert made == ["old"]
    swap()
    assert made == ["old", "new"], "nobody waits for it"
    chain.batch([{"question": "Why?", "context": []}] * 3)
    assert made == ["old", "new"]


def test_what_is_no_runnable_and_makes_none_is_refused(resolver: la.Resolver[Support]) -> None:
    with pytest.raises(InvalidInput, match="neither a runnable nor a function"):
        following(resolver, "agent")  # type: ignore[call-overload, arg-type]


def test_an_old_generation_is_let_go_with_all_that_was_made_of_it(
    resolver: la.Resolver[Support], swap: Callable[[], None]
) -> None:
    kb = retriever(resolver, "kb", EMBEDDINGS)
    kb.invoke("refund")
    old = weakref.ref(resolver.current.value.agent)
    swap()
    gc.collect()

    assert old() is None


def test_a_runnable_that_nobody_has_is_not_kept_by_its_resolver(
    resolver: la.Resolver[Support], swap: Callable[[], None]
) -> None:
    made: list[int] = []
    agent = following(resolver, lambda support: made.append(1) or support.agent.to_langchain())
    gone = weakref.ref(agent)
    del agent
    gc.collect()

    assert gone() is None
    swap()
    assert made == []


def test_one_may_be_let_go_in_whatever_moment(resolver: la.Resolver[Support]) -> None:
    before = len(resolver._listeners)
    made = prompt(resolver, "agent")
    with resolver._lock:  # as where garbage is collected in a thread that holds it
        del made
        gc.collect()
    assert len(resolver._listeners) == before


def test_many_that_are_made_and_dropped_leave_nothing_behind(
    resolver: la.Resolver[Support], swap: Callable[[], None]
) -> None:
    kept = prompt(resolver, "agent")
    before = len(resolver._listeners)
    for _ in range(200):
        prompt(resolver, "agent").invoke({"question": "Why?", "context": []})

    assert len(resolver._listeners) == before
    swap()
    assert kept.invoke({"question": "Why?", "context": []}).to_string() == "new: Why? "


def test_one_that_cannot_be_made_of_a_new_generation_says_so_and_does_not_keep_others_from_it(
    resolver: la.Resolver[Support], swap: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    def only_old(support: Support) -> Any:
        if not support.agent.template.startswith("old"):
            raise ValueError("the template is not old")
        return support.agent.to_langchain()

    broken, well = following(resolver, only_old), [prompt(resolver, "agent") for _ in range(5)]
    given = {"question": "Why?", "context": []}
    assert broken.invoke(given).to_string() == "old: Why? "
    swap()

    assert "nothing can be made of generation 2: ValueError: the template is not old" in caplog.text
    assert {one.invoke(given).to_string() for one in well} == {"new: Why? "}
    with pytest.raises(ValueError, match="not old"):
        broken.invoke(given)


# --- one generation for one invocation


def chain_over(resolver: la.Resolver[Support], between: Callable[[], None]) -> Any:
    """Searches, lets a swap happen, and then writes the prompt."""

    def joined(found: list[Document]) -> list[str]:
        between()
        return texts(found)

    context = retriever(resolver, "kb", EMBEDDINGS, search_kwargs={"k": 1}) | joined
    return (
        {"context": context, "question": RunnablePassthrough()}
        | prompt(resolver, "agent")
        | RunnableLambda(lambda value: value.to_string())
    )


WANTED = {"old: refund refund old", "new: refund refund new"}


def test_a_chain_keeps_its_generation_over_a_swap_and_the_next_invocation_has_the_new_one(
    resolver: la.Resolver[Support], swap: Callable[[], None]
) -> None:
    left = [swap]
    chain = chain_over(resolver, lambda: left.pop()() if left else None)

    assert chain.invoke("refund") == "old: refund refund old"
    assert not left, "it was swapped in between"
    assert chain.invoke("refund") == "new: refund refund new"


def test_so_it_does_when_it_is_awaited(resolver: la.Resolver[Support], swap: Callable[[], None]) -> None:
    left = [swap]
    chain = chain_over(resolver, lambda: left.pop()() if left else None)

    async def both() -> list[str]:
        return [await chain.ainvoke("refund"), await chain.ainvoke("refund")]

    assert asyncio.run(both()) == ["old: refund refund old", "new: refund refund new"]


def test_a_whole_batch_is_of_one_generation(resolver: la.Resolver[Support], swap: Callable[[], None]) -> None:
    left = [swap]
    chain = chain_over(resolver, lambda: left.pop()() if left else None)
    many = ["refund"] * 6

    assert set(chain.batch(many, {"max_concurrency": 2})) == {"old: refund refund old"}
    assert set(chain.batch(many)) == {"new: refund refund new"}
    assert chain.batch([]) == []
    assert {text for _, text in chain.batch_as_completed(many)} == {"new: refund refund new"}


def test_a_whole_batch_is_of_one_generation_when_it_is_awaited(
    resolver: la.Resolver[Support], swap: Callable[[], None]
) -> None:
    left = [swap]
    chain = chain_over(resolver, lambda: left.pop()() if left else None)

    async def both() -> tuple[list[str], set[str]]:
        first = await chain.abatch(["refund"] * 4, [RunnableConfig(tags=["t"])] * 4)
        return first, {text async for _, text in chain.abatch_as_completed(["refund"] * 4)}

    first, then = asyncio.run(both())
    assert set(first) == {"old: refund refund old"}
    assert then == {"new: refund refund new"}


def characters(values: Iterator[str]) -> Iterator[str]:
    for value in values:
        yield from value


async def acharacters(values: AsyncIterator[str]) -> AsyncIterator[str]:
    async for value in values:
        for character in value:
            yield character


def test_a_stream_is_of_one_generation_to_its_end_and_pins_nothing_for_who_reads_it(
    resolver: la.Resolver[Support], swap: Callable[[], None]
) -> None:
    agent = prompt(resolver, "agent")
    late = RunnableLambda(lambda text: text + agent.invoke({"question": "late", "context": []}).to_string())
    chain = following(resolver, agent | (lambda value: value.to_string()) | RunnableGenerator(characters) | late)
    stream = chain.stream({"question": "Why?", "context": []})
    first = next(stream)
    swap()

    assert agent.invoke({"question": "Why?", "context": []}).to_string() == "new: Why? ", "the reader's own"
    assert first + "".join(stream) == "old: Why? old: late "


def test_an_awaited_stream_is_of_one_generation_and_pins_nothing_for_who_reads_it(
    resolver: la.Resolver[Support], swap: Callable[[], None]
) -> None:
    agent = prompt(resolver, "agent")
    chain = following(
        resolver,
        RunnablePassthrough.assign(question=lambda given: given["question"])
        | RunnableGenerator(one_by_one(agent), one_by_one_awaited(agent)),
    )

    async def read() -> tuple[list[str], str]:
        got, between = [], ""
        async for text in chain.astream({"question": "Why?", "context": []}):
            if not got:
                swap()
                between = agent.invoke({"question": "Why?", "context": []}).to_string()
            got.append(text)
        return got, between

    assert asyncio.run(read()) == (["old: Why? "] * 3, "new: Why? ")


def one_by_one(agent: Any) -> Any:
    def generate(values: Iterator[dict[str, Any]]) -> Iterator[str]:
        for value in values:
            for _ in range(3):
                yield agent.invoke({"context": [], **value}).to_string()

    return generate


def one_by_one_awaited(agent: Any) -> Any:
    async def generate(values: AsyncIterator[dict[str, Any]]) -> AsyncIterator[str]:
        whole: dict[str, Any] = {}
        async for value in values:
            whole |= value
        for _ in range(3):
            yield (await agent.ainvoke({"context": [], **whole})).to_string()

    return generate


def test_a_stream_that_is_left_before_its_end_is_closed(resolver: la.Resolver[Support]) -> None:
    closed: list[bool] = []

    def endless(values: Iterator[Any]) -> Iterator[str]:
        try:
            for _ in values:
                while True:
                    yield "more"
        finally:
            closed.append(True)

    stream = following(resolver, RunnableGenerator(endless)).stream("x")
    assert next(stream) == "more"
    stream.close()  # type: ignore[attr-defined]

    assert closed == [True]


def test_a_transform_takes_a_stream_and_gives_one(resolver: la.Resolver[Support]) -> None:
    chain = following(resolver, RunnableGenerator(characters, acharacters))

    async def awaited() -> str:
        async def words() -> AsyncIterator[str]:
            yield "ab"
            yield "c"

        return "".join([c async for c in chain.atransform(words())])

    assert list(chain.transform(iter(["ab", "c"]))) == ["a", "b", "c"]
    assert asyncio.run(awaited()) == "abc"


def test_within_a_pinned_block_all_is_of_its_generation(
    resolver: la.Resolver[Support], swap: Callable[[], None]
) -> None:
    agent, kb = prompt(resolver, "agent"), retriever(resolver, "kb", EMBEDDINGS, search_kwargs={"k": 1})
    with pinned(resolver):
        assert ids(kb.invoke("refund")) == ["old-refund"]
        swap()
        assert agent.invoke({"question": "Why?", "context": []}).to_string() == "old: Why? "
    assert agent.invoke({"question": "Why?", "context": []}).to_string() == "new: Why? "


def test_a_chain_that_langchain_put_together_is_refused_until_it_is_wrapped(
    resolver: la.Resolver[Support], swap: Callable[[], None]
) -> None:
    kb = retriever(resolver, "kb", EMBEDDINGS, search_kwargs={"k": 1})
    between = RunnableLambda(lambda given: swap() or given)
    assigned = RunnablePassthrough.assign(context=(lambda given: given["question"]) | kb) | between
    mixing = assigned | prompt(resolver, "agent")
    parallel = RunnableParallel(found=kb, again=kb)

    with pytest.raises(InvalidInput, match="a part of a chain") as refused:
        mixing.invoke({"question": "refund"})
    assert "following(resolver, chain)" in refused.value.hint()
    with pytest.raises(InvalidInput, match="a part of a chain"):
        asyncio.run(parallel.ainvoke("refund"))
    told = following(resolver, mixing).invoke({"question": "refund"}).to_string()
    assert told.startswith("old: refund")
    assert "old" in told.removeprefix("old:")
    assert "new" not in told


def test_what_langchain_makes_of_it_keeps_one_generation_too(resolver: la.Resolver[Support]) -> None:
    agent = prompt(resolver, "agent")
    given = {"question": "Why?", "context": []}
    text = RunnableLambda(lambda value: value.to_string())

    assert agent.pipe(text).invoke(given) == "old: Why? "
    assert (agent | text | str.upper).invoke(given) == "OLD: WHY? "
    assert ({"question": lambda _: "Why?", "context": lambda _: []} | (agent | text)).invoke("x") == "old: Why? "
    assert agent.with_retry(stop_after_attempt=2).invoke(given).to_string() == "old: Why? "
    assert agent.with_fallbacks([agent]).invoke(given).to_string() == "old: Why? "
    assert [one.to_string() for one in agent.map().invoke([given, given])] == ["old: Why? "] * 2
    assert agent.with_config(tags=["mine"]).invoke(given).to_string() == "old: Why? "
    assert agent.bind().invoke(given).to_string() == "old: Why? "
    found = following(resolver, lambda _: RunnablePassthrough()).assign(text=agent | text)
    assert found.invoke(given)["text"] == "old: Why? "
    assert found.pick("text").invoke(given) == "old: Why? "


# --- as any other runnable


class Runs(BaseCallbackHandler):
    """Keeps what is told of each run."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any], list[str]]] = []

    def on_chain_start(
        self, serialized: Any, inputs: Any, *, metadata: Any = None, tags: Any = None, **known: Any
    ) -> None:
        self.told.append((known.get("name", ""), metadata or {}, tags or []))

    def on_retriever_start(
        self, serialized: Any, query: Any, *, metadata: Any = None, tags: Any = None, **known: Any
    ) -> None:
        self.told.append((known.get("name", ""), metadata or {}, tags or []))


def test_every_run_has_the_versions_and_what_the_caller_gave(resolver: la.Resolver[Support]) -> None:
    runs = Runs()
    chain = chain_over(resolver, lambda: None)
    chain.invoke("refund", {"callbacks": [runs], "tags": ["mine"], "metadata": {"request": "r1"}})

    assert len(runs.told) >= 5
    for name, metadata, tags in runs.told:
        assert metadata["request"] == "r1", name
        assert metadata["llmartifacts.stamp"] == resolver.current.stamp(), name
        assert {"agent:v1", "kb:v1", "mine"} <= set(tags), name
    assert not [name for name, *_ in runs.told if "Following" in name], "it makes no run of its own"


def test_its_events_are_those_of_what_is_in_it_and_of_one_generation(
    resolver: la.Resolver[Support], swap: Callable[[], None]
) -> None:
    left = [swap]
    chain = chain_over(resolver, lambda: left.pop()() if left else None)

    async def read() -> list[Any]:
        return [event async for event in chain.astream_events("refund", version="v2")]

    events = asyncio.run(read())
    assert {e["name"] for e in events} >= {"RunnableSequence", "PromptTemplate", "VectorStoreRetriever"}
    assert not [e for e in events if "Following" in e["name"]]
    assert {"agent:v1", "kb:v1"} <= set.intersection(*(set(e["tags"]) for e in events))
    assert events[-1]["data"]["output"] == "old: refund refund old"
    assert not left


def test_configurable_values_reach_what_is_in_it(resolver: la.Resolver[Support]) -> None:
    def see(value: str, config: RunnableConfig) -> tuple[str, Any]:
        return value, config["configurable"]["user"]

    chain = following(resolver, lambda _: RunnableLambda(see))

    assert chain.invoke("x", {"configurable": {"user": "ada"}}) == ("x", "ada")
    assert asyncio.run(chain.ainvoke("x", {"configurable": {"user": "ada"}})) == ("x", "ada")


def test_it_shows_what_it_takes_and_gives_as_what_is_in_it(
    resolver: la.Resolver[Support], registry: la.Registry
) -> None:
    agent = prompt(resolver, "agent")
    inner = resolver.current.value.agent.to_langchain()

    assert agent.get_input_jsonschema() == inner.get_input_jsonschema()
    assert agent.get_output_jsonschema() == inner.get_output_jsonschema()
    assert agent.InputType == inner.InputType
    assert agent.OutputType == inner.OutputType
    assert agent.config_specs == inner.config_specs
    assert agent.get_name() == inner.get_name()
    assert following(resolver, lambda s: s.agent.to_langchain(), name="the agent").get_name() == "the agent"
    assert list(agent.get_graph().to_json()["nodes"]) == list(inner.get_graph().to_json()["nodes"])
    registry.log("agent", la.Prompt("{{ topic }}", template_format="jinja2"))
    registry.promote("agent:v2", to="prod", reason="another variable")
    resolver.refresh()
    assert set(agent.get_input_schema().model_fields) == {"topic"}


def test_a_prompt_that_langchain_cannot_express_is_rendered_here(
    resolver: la.Resolver[Support], registry: la.Registry
) -> None:
    tone = {"template_format": "mustache", "includes": {"tone": "Kindly:"}}
    registry.log("agent", la.Prompt("{{> tone}} {{question}}", **tone))
    place = {"placeholder": "history", "optional": True}
    registry.log("agent", la.Prompt([("system", "{{> tone}}"), place, ("user", "{{question}}")], **tone))
    agent = prompt(resolver, "agent")
    for version in ("v2", "v3"):
        registry.promote(f"agent:{version}", to="prod", reason="includes")
        assert resolver.refresh()
        told = agent.invoke({"question": "Why?", "of no use": 1}).to_string()
        assert "Kindly:" in told
        assert "Why?" in told
    messages = agent.invoke({"question": "Why?", "history": [HumanMessage("before")]}).to_messages()
    assert [m.content for m in messages] == ["Kindly:", "before", "Why?"]
    awaited = asyncio.run(agent.ainvoke({"question": "Why?"}))
    assert [m.type for m in awaited.to_messages()] == ["system", "human"]
    with pytest.raises(KeyError, match="question"):
        agent.invoke({})


def test_an_embedder_may_be_chosen_by_the_index_and_a_wrong_one_is_refused(
    resolver: la.Resolver[Support], registry: la.Registry
) -> None:
    fitting = retriever(resolver, "kb", lambda kb: HashingEmbeddings(kb.embedding.dimension), search_kwargs={"k": 1})
    fixed = retriever(resolver, "kb", EMBEDDINGS)
    assert ids(fixed.invoke("refund"))
    registry.log("kb", index("wide", 128))
    registry.promote("kb:v2", to="prod", reason="a wider one")
    assert resolver.refresh()

    assert ids(fitting.invoke("refund")) == ["wide-refund"]
    with pytest.raises(Incompatible):
        fixed.invoke("refund")


def test_a_component_that_is_not_there_is_named(resolver: la.Resolver[Support]) -> None:
    with pytest.raises(NotFound, match="no 'agnet'") as missing:
        prompt(resolver, "agnet").invoke({})
    assert "agent" in missing.value.near
    with pytest.raises(NotFound, match="greeting is absent"):
        prompt(resolver, "greeting").invoke({})
    with pytest.raises(WrongKind, match="kb is a VectorIndex, not a Prompt"):
        prompt(resolver, "kb").invoke({})
    with pytest.raises(WrongKind, match="agent is a Prompt, not a VectorIndex"):
        retriever(resolver, "agent", EMBEDDINGS).invoke("refund")


def test_a_mapping_of_components_is_followed_too(registry: la.Registry) -> None:
    promote(registry, "old")
    with la.Resolver({"the-agent": "agent:prod"}, registry=registry) as resolver:
        told = prompt(resolver, "the-agent").invoke({"question": "Why?", "context": []})
        assert told.to_string() == "old: Why? "


def test_parts_of_two_resolvers_each_keep_their_own(registry: la.Registry, resolver: la.Resolver[Support]) -> None:
    with la.Resolver({"agent": "agent:prod"}, registry=registry) as other:
        text = RunnableLambda(lambda value: value.to_string())
        here, there = prompt(resolver, "agent") | text, prompt(other, "agent") | text
        both = following(other, following(resolver, RunnableParallel(here=here, there=there)))
        promote(registry, "new")
        assert other.refresh()
        given = {"question": "Why?", "context": []}
        assert both.invoke(given) == {"here": "old: Why? ", "there": "new: Why? "}
