"""Spans of the real SDK, made in threads and tasks, tell the generation of their request."""

from __future__ import annotations

import asyncio
import importlib
import logging
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace as otel
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

import llmartifacts as la
from llmartifacts.errors import LlmartifactsError, MissingExtra
from llmartifacts.integrations.opentelemetry import GenerationSpanProcessor
from llmartifacts.registry import Registry
from llmartifacts.runtime.generation import Generation
from llmartifacts.runtime.state import State

STAMP = "llmartifacts.stamp"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with la.init(tmp_path / "registry") as made:
        for number in (1, 2):
            made.log("agent", la.Prompt(f"{number}: {{{{ q }}}}", template_format="jinja2"))
            made.promote(f"agent:v{number}", to="prod", reason="next")
        yield made


def started(registry: Registry, reference: str) -> Generation[Any]:
    with la.Resolver({"agent": reference}, registry=registry) as resolver:
        return resolver.current


def started_elsewhere(place: Path) -> Generation[Any]:
    with la.Resolver({"agent": "agent:v1"}, registry=place) as resolver:
        return resolver.current


class Traced:
    """A tracer whose spans are kept."""

    def __init__(self, resolver: Any = None, *, details: bool = True, **settings: Any) -> None:
        self._kept = InMemorySpanExporter()
        self.provider = TracerProvider(**settings)
        self.provider.add_span_processor(GenerationSpanProcessor(resolver, details=details))
        self.provider.add_span_processor(SimpleSpanProcessor(self._kept))
        self.tracer = self.provider.get_tracer("test")

    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self._kept.get_finished_spans()}

    def said(self, name: str) -> dict[str, Any]:
        return dict(self.spans()[name].attributes or {})


class Serving:
    """What a resolver is to the processor: `current`, which may be swapped."""

    state = State.READY

    def __init__(self, current: Any) -> None:
        self.served = current

    @property
    def current(self) -> Any:
        if isinstance(self.served, Exception):
            raise self.served
        return self.served


def test_a_span_inside_tells_all_that_its_generation_says(registry: Registry) -> None:
    made, traced = started(registry, "agent:v1"), Traced()
    with made.traced(), traced.tracer.start_as_current_span("answer"):
        pass
    said = traced.said("answer")
    wanted = {k: tuple(v) if isinstance(v, list) else v for k, v in made.trace_attributes().items()}
    assert said == wanted
    assert said["gen_ai.prompt.version"] == "v1"


def test_without_details_a_span_tells_the_stamp_and_the_list_and_no_single_component(registry: Registry) -> None:
    made, traced = started(registry, "agent:v1"), Traced(details=False)
    with made.traced(), traced.tracer.start_as_current_span("answer"), traced.tracer.start_as_current_span("part"):
        pass
    for name in ("answer", "part"):
        said = traced.said(name)
        assert said[STAMP] == made.stamp()
        assert said["gen_ai.prompt.version"] == "v1"
        assert len(said["llmartifacts.components"]) == 1
        assert not [key for key in said if key.startswith("llmartifacts.component.")]


def test_a_span_that_nothing_speaks_for_is_left_as_it_is() -> None:
    traced = Traced()
    with traced.tracer.start_as_current_span("alone", attributes={"own": 1}):
        pass
    assert traced.said("alone") == {"own": 1}


def test_without_a_generation_of_its_own_a_span_is_of_what_the_resolver_serves_now(registry: Registry) -> None:
    with la.Resolver({"agent": "agent:prod"}, registry=registry) as resolver:
        traced = Traced(resolver)
        with traced.tracer.start_as_current_span("served"):
            pass
        with started(registry, "agent:v1").traced(), traced.tracer.start_as_current_span("of the request"):
            pass
        assert traced.said("served")["gen_ai.prompt.version"] == "v2"
        assert traced.said("of the request")["gen_ai.prompt.version"] == "v1"


def test_a_resolver_that_has_not_started_says_nothing(registry: Registry) -> None:
    resolver = la.Resolver({"agent": "agent:prod"}, registry=registry)
    traced = Traced(resolver)
    with traced.tracer.start_as_current_span("early"):
        pass
    resolver.start()
    with traced.tracer.start_as_current_span("later"):
        pass
    assert STAMP not in traced.said("early")
    assert STAMP in traced.said("later")


def test_while_the_registry_cannot_be_had_the_reasons_are_stale_and_static_again_after(
    registry: Registry, tmp_path: Path
) -> None:
    with la.Resolver({"STATIC": "agent:prod"}, registry=tmp_path / "registry") as resolver:
        traced = Traced(resolver)

        def seen(name: str) -> tuple[str, str, str]:
            with resolver.current.traced(), traced.tracer.start_as_current_span(name):
                pass
            with traced.tracer.start_as_current_span(f"{name} beside"):
                pass
            said, beside = traced.said(name), traced.said(f"{name} beside")
            keys = ("llmartifacts.state", "llmartifacts.component.STATIC.reason", "llmartifacts.component.STATIC.name")
            assert [said[k] for k in keys] == [beside[k] for k in keys]
            return said[keys[0]], said[keys[1]], said[keys[2]]

        assert seen("first") == ("READY", "STATIC", "agent")
        registry.close()
        (tmp_path / "registry").rename(tmp_path / "away")
        with pytest.raises(LlmartifactsError):
            resolver.refresh()
        assert seen("down") == ("STALE", "STALE", "agent")
        with started_elsewhere(tmp_path / "away").traced(), traced.tracer.start_as_current_span("another service"):
            pass
        assert "llmartifacts.state" not in traced.said("another service")
        (tmp_path / "away").rename(tmp_path / "registry")
        resolver.refresh()
        assert seen("up again") == ("READY", "STATIC", "agent")


def test_what_whoever_made_the_span_says_stays(registry: Registry) -> None:
    made, traced = started(registry, "agent:v1"), Traced()
    with made.traced(), traced.tracer.start_as_current_span("own", attributes={"gen_ai.prompt.name": "mine"}) as span:
        span.set_attribute("gen_ai.prompt.version", "9")
    said = traced.said("own")
    assert (said["gen_ai.prompt.name"], said["gen_ai.prompt.version"]) == ("mine", "9")
    assert said[STAMP] == made.stamp()


def test_tasks_carry_the_generation_of_their_request(registry: Registry) -> None:
    generations = [started(registry, "agent:v1"), started(registry, "agent:v2")]
    traced = Traced(Serving(generations[1]))

    async def step(name: str) -> None:
        await asyncio.sleep(0)
        with traced.tracer.start_as_current_span(name):
            await asyncio.sleep(0)

    def blocking(name: str) -> None:
        with traced.tracer.start_as_current_span(name):
            pass

    async def request(number: int) -> None:
        with generations[number % 2].traced(), traced.tracer.start_as_current_span(f"request {number}"):
            await asyncio.gather(step(f"task {number}"), asyncio.to_thread(blocking, f"thread {number}"))

    async def main() -> None:
        await asyncio.gather(*map(request, range(10)))

    asyncio.run(main())
    assert len(traced.spans()) == 30
    for name in traced.spans():
        assert traced.said(name)[STAMP] == generations[int(name.split()[1]) % 2].stamp(), name


def test_threads_of_a_pool_carry_it_where_the_context_variable_or_the_parent_span_reaches_them(
    registry: Registry,
) -> None:
    generations = [started(registry, "agent:v1"), started(registry, "agent:v2")]
    traced = Traced()

    def work(name: str, generation: Generation[Any]) -> None:
        with generation.traced(), traced.tracer.start_as_current_span(name):
            pass

    def child(name: str, parent: otel_context.Context) -> None:
        with traced.tracer.start_as_current_span(name, context=parent):
            pass

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, [f"own {n}" for n in range(20)], [generations[n % 2] for n in range(20)]))
        for number, generation in enumerate(generations):
            with generation.traced(), traced.tracer.start_as_current_span(f"parent {number}") as span:
                pool.submit(child, f"child {number}", otel.set_span_in_context(span)).result()
    for name in traced.spans():
        assert traced.said(name)[STAMP] == generations[int(name.split()[1]) % 2].stamp(), name


def test_a_request_in_flight_keeps_its_generation_while_another_one_is_swapped_in(registry: Registry) -> None:
    old, new = started(registry, "agent:v1"), started(registry, "agent:v2")
    serving = Serving(old)
    traced = Traced(serving)
    with traced.tracer.start_as_current_span("request"):
        serving.served = new
        with traced.tracer.start_as_current_span("late part"):
            pass
    with traced.tracer.start_as_current_span("next request"):
        pass
    assert traced.said("late part")[STAMP] == old.stamp()
    assert traced.said("next request")[STAMP] == new.stamp()


def test_whatever_goes_wrong_the_request_goes_on_and_the_log_says_it_once(caplog: pytest.LogCaptureFixture) -> None:
    traced = Traced(Serving(RuntimeError("broken")))
    with caplog.at_level(logging.WARNING, logger="llmartifacts.opentelemetry"):
        for number in range(3):
            with traced.tracer.start_as_current_span(f"span {number}"):
                pass
    assert len(traced.spans()) == 3
    assert [r.message for r in caplog.records] == ["spans do not tell what serves them"]


def test_a_span_that_is_not_sampled_costs_nothing_and_after_the_end_the_resolver_is_let_go(registry: Registry) -> None:
    made = started(registry, "agent:v1")
    silent = Traced(sampler=ALWAYS_OFF)
    with made.traced(), silent.tracer.start_as_current_span("unsampled"):
        pass
    assert silent.spans() == {}
    processor = GenerationSpanProcessor(Serving(made))  # type: ignore[arg-type]
    assert processor.force_flush()
    processor.shutdown()
    ended = TracerProvider().get_tracer("test").start_span("after")
    processor.on_start(ended)  # type: ignore[arg-type]
    assert STAMP not in (ended.attributes or {})  # type: ignore[attr-defined]


def test_without_the_sdk_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "llmartifacts.integrations.opentelemetry")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(MissingExtra) as caught:
        importlib.import_module("llmartifacts.integrations.opentelemetry")
    assert caught.value.hint() == "pip install 'llmartifacts[otel]'"
