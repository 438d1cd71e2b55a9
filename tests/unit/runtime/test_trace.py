"""What a generation says for traces, logs, responses and LangChain."""

from __future__ import annotations

import asyncio
import contextvars
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import RunnableLambda

import llmartifacts as la
from llmartifacts.errors import NotFound
from llmartifacts.records.digest import digest_of
from llmartifacts.records.lock import Locked, Lockfile
from llmartifacts.records.reference import Reference
from llmartifacts.registry import Registry
from llmartifacts.runtime import trace
from llmartifacts.runtime.generation import Generation, Notice
from llmartifacts.runtime.stamp import parse_stamp
from llmartifacts.runtime.trace import Reason


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """`agent` and `judge`, two prompts, and `docs`; all of them `prod`."""
    with la.init(tmp_path / "registry") as made:
        for name in ("agent", "judge"):
            made.log(name, la.Prompt(f"{name} {{{{ q }}}}", template_format="jinja2"))
        made.log("docs", la.Files({"a.txt": b"words"}))
        made.promote(["agent:v1", "judge:v1", "docs:v1"], to="prod", reason="first")
        yield made


def started(registry: Registry, **wanted: str) -> Generation[Any]:
    with la.Resolver(wanted, registry=registry) as resolver:
        return resolver.current


def locked(kind: str, number: int, reference: str = "thing:prod") -> Locked:
    return Locked(reference, kind, number, digest_of(f"{kind}{number}".encode()), 10)


def made_of(**components: Locked) -> Generation[None]:
    return Generation(3, None, Lockfile("acme", 7, components), "registry")


def test_each_component_is_told_with_its_version_digest_alias_and_reason(registry: Registry) -> None:
    made = started(registry, agent="agent:prod", docs="docs:v1")
    said = made.trace_attributes()
    assert {k.rpartition(".")[2]: v for k, v in said.items() if k.startswith("llmartifacts.component.agent.")} == {
        "name": "agent",
        "version": "v1",
        "digest": registry.get("agent:v1").digest,
        "kind": "prompt",
        "alias": "prod",
        "reason": "STATIC",
    }
    assert "llmartifacts.component.docs.alias" not in said, "asked for by number"
    assert said["llmartifacts.components"] == [f"{n}={c}" for n, c in parse_stamp(made.stamp()).components.items()]


def test_the_whole_set_is_told_by_one_digest_with_its_project_revision_and_source(registry: Registry) -> None:
    made = started(registry, agent="agent:prod", docs="docs:prod")
    said = made.trace_attributes()
    assert said["llmartifacts.set"] == made.lock.set_digest
    assert (said["llmartifacts.project"], said["llmartifacts.revision"]) == ("default", made.revision)
    assert (said["llmartifacts.source"], said["llmartifacts.generation"]) == ("registry", 1)
    assert said["llmartifacts.stamp"] == made.stamp()
    assert "llmartifacts.warnings" not in said
    warned = replace(made, warnings=(Notice("yanked", "v1 was withdrawn", "agent"), Notice("fallback", "packaged")))
    assert warned.trace_attributes()["llmartifacts.warnings"] == ["yanked.agent", "fallback"]


def test_one_prompt_and_one_index_are_told_by_the_conventions_too(registry: Registry) -> None:
    said = started(registry, agent="agent:prod", docs="docs:prod").trace_attributes()
    assert said["gen_ai.prompt.name"] == "agent"
    assert said["gen_ai.prompt.version"] == said["llm.prompt_template.version"] == "v1"
    assert said["prompt.vendor"] == "llmartifacts"
    assert registry.get(Reference.parse(str(said["prompt.id"]))).name == "agent"
    assert "gen_ai.data_source.id" not in said
    indexed = made_of(kb=locked("vector_index", 5, "support-kb:prod"))
    assert indexed.trace_attributes()["gen_ai.data_source.id"] == "support-kb:v5"
    two = made_of(a=locked("vector_index", 5), b=locked("vector_index", 6))
    assert "gen_ai.data_source.id" not in two.trace_attributes()


def test_of_two_prompts_the_conventions_say_the_one_that_is_named(registry: Registry) -> None:
    made = started(registry, agent="agent:prod", judge="judge:prod")
    assert not any(key.startswith(("gen_ai.", "llm.", "prompt.")) for key in made.trace_attributes())
    with made.traced():
        assert "gen_ai.prompt.name" not in (trace.current_attributes() or {})
        with made.traced("judge"):
            assert (trace.current_attributes() or {})["gen_ai.prompt.name"] == "judge"
        with made.traced("agent"):
            assert (trace.current_attributes() or {})["gen_ai.prompt.name"] == "agent"
    with pytest.raises(NotFound, match="'agnet'") as caught, made.traced("agnet"):
        pass
    assert caught.value.hint() == "Its prompts: agent, judge."
    assert trace.current() is None


def test_the_prompt_of_a_bundle_is_told_by_the_version_of_the_bundle(registry: Registry) -> None:
    @dataclass(frozen=True)
    class Stack:
        agent: la.Prompt
        docs: la.Files

    registry.log("stack", la.Bundle(components={"agent": "agent:v1", "docs": "docs:v1"}), aliases="prod")
    with la.Resolver(Stack, "stack:prod", registry=registry) as resolver:
        said = resolver.current.trace_attributes()
    assert said["llmartifacts.component.bundle.name"] == "stack"
    assert (said["gen_ai.prompt.name"], said["gen_ai.prompt.version"]) == ("stack#agent", "v1")
    assert str(said["prompt.id"]).startswith("default/stack:v1@sha256:")


@pytest.mark.parametrize(
    ("source", "reason"),
    [("registry", "STATIC"), ("lockfile", "STATIC"), ("last-known-good", "STALE"), ("fallback", "FALLBACK")],
)
def test_the_reason_says_how_sure_a_version_is(source: Any, reason: str) -> None:
    made = replace(made_of(a=locked("files", 1), b=locked("files", 2)), source=source)
    assert made.reasons == {"a": Reason(reason), "b": Reason(reason)}
    assert made.trace_attributes()["llmartifacts.component.b.reason"] == reason


def test_attributes_are_plain_and_may_be_changed_without_changing_the_next(registry: Registry) -> None:
    made = started(registry, agent="agent:prod")
    said = made.trace_attributes()
    assert json.loads(json.dumps(said)) == said
    assert {type(v) for v in said.values()} <= {str, int, list}
    said.clear()
    assert made.trace_attributes()["llmartifacts.stamp"] == made.stamp()
    assert dict(trace.shared(made)) == made.trace_attributes()


def test_of_a_very_large_set_a_span_is_told_the_versions_and_not_each_detail() -> None:
    made = made_of(**{f"part{i}": locked("files", i + 1) for i in range(40)})
    assert len(made.trace_attributes()) > 128, "more than a span keeps"
    on_span = trace.shared(made)
    assert len(on_span) <= trace.MAX_ON_SPAN
    assert len(on_span["llmartifacts.components"]) == 40  # type: ignore[arg-type]


def test_the_header_is_the_stamp(registry: Registry) -> None:
    made = started(registry, agent="agent:prod")
    assert made.header() == ("X-LLM-Artifacts", made.stamp())


# --- the context


def test_what_is_done_inside_knows_its_generation_and_what_is_outside_does_not(registry: Registry) -> None:
    first, second = started(registry, agent="agent:prod"), started(registry, judge="judge:prod")
    assert trace.current() is None
    with first.traced():
        assert trace.current() is first
        with second.traced():
            assert trace.current() is second
        assert trace.current() is first
    assert trace.current() is None


def test_tasks_and_to_thread_carry_their_own_generation(registry: Registry) -> None:
    generations = [started(registry, agent="agent:prod"), started(registry, judge="judge:prod")]

    async def request(generation: Generation[Any]) -> list[Generation[Any] | None]:
        with generation.traced():
            await asyncio.sleep(0)
            inner = asyncio.create_task(asyncio.to_thread(trace.current))
            await asyncio.sleep(0)
            return [trace.current(), await inner]

    async def main() -> list[list[Generation[Any] | None]]:
        return await asyncio.gather(*(request(generations[n % 2]) for n in range(8)))

    for number, seen in enumerate(asyncio.run(main())):
        assert all(one is generations[number % 2] for one in seen)


def test_a_new_thread_begins_with_none(registry: Registry) -> None:
    seen: list[Any] = []
    with started(registry, agent="agent:prod").traced():
        thread = threading.Thread(target=lambda: seen.append(trace.current()))
        thread.start()
        thread.join()
    assert seen == [None]


def test_leaving_it_in_another_context_is_no_error(registry: Registry) -> None:
    made = started(registry, agent="agent:prod")
    manager = made.traced()
    contextvars.copy_context().run(manager.__enter__)
    assert trace.current() is None
    manager.__exit__(None, None, None)
    assert trace.current() is None


# --- LangChain


class Seen(BaseCallbackHandler):
    """Keeps what every run is started with."""

    def __init__(self) -> None:
        self.runs: list[tuple[dict[str, Any], list[str]]] = []

    def on_chain_start(
        self,
        serialized: Any,
        inputs: Any,
        *,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.runs.append((metadata or {}, tags or []))


def test_every_run_of_a_langchain_chain_tells_its_versions(registry: Registry) -> None:
    @dataclass(frozen=True)
    class Service:
        agent: Annotated[la.Prompt, "agent:prod"]
        docs: Annotated[la.Files, "docs:prod"]

    seen = Seen()
    with la.Resolver(Service, registry=registry) as resolver:
        generation = resolver.current
        chain = generation.value.agent.to_langchain() | RunnableLambda(lambda value: value.to_string())
        config = generation.runnable_config()
        assert json.loads(json.dumps(config)) == config
        answered = chain.with_config(callbacks=[seen]).invoke({"q": "why?"}, config=config)
    assert answered == "agent why?"
    assert len(seen.runs) >= 2, "the chain and its parts"
    for metadata, tags in seen.runs:
        assert metadata["llmartifacts.stamp"] == generation.stamp()
        assert metadata["gen_ai.prompt.version"] == "v1"
        assert {"agent:v1", "docs:v1"} <= set(tags)


def test_tracing_brings_neither_langchain_nor_opentelemetry_along() -> None:
    code = (
        "import sys, llmartifacts.runtime.generation, llmartifacts.runtime.trace;"
        "print([m for m in ('langchain_core', 'opentelemetry', 'numpy', 'jinja2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
