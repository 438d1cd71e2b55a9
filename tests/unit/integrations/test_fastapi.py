"""A FastAPI service over a resolver: started with the application, one generation for each request.

Annotations are values here, since FastAPI reads those of functions within functions.
"""

import asyncio
import gc
import json
import shutil
import subprocess
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, WebSocket
from fastapi.responses import StreamingResponse

import llmartifacts as la
from llmartifacts.errors import InvalidInput, LlmartifactsError, ResolutionError
from llmartifacts.integrations.fastapi import GenerationMiddleware, generation, health, lifespan
from llmartifacts.integrations.langchain import prompt
from llmartifacts.runtime import trace
from llmartifacts.runtime.pinned import serving
from llmartifacts.runtime.stamp import parse_stamp


@dataclass(frozen=True)
class Support:
    agent: Annotated[la.Prompt, "agent:prod"]


@dataclass
class Answer:
    """What an application sent for one request."""

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> list[str]:
        return [value for told, value in self.headers if told == name.lower()]


async def asked(app: Any, path: str, method: str = "GET", chunks: list[Callable[[], Any]] | None = None) -> Answer:
    """Ask an application; after each chunk of the body the next of `chunks` is called."""
    answer, given = Answer(), [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> dict[str, Any]:
        if given:
            return given.pop()
        await asyncio.Event().wait()  # nobody hangs up
        raise AssertionError

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = [(n.decode(), v.decode()) for n, v in message["headers"]]
        else:
            answer.body += message.get("body", b"")
            if message.get("body") and chunks:
                await asyncio.to_thread(chunks.pop(0))

    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http"}
    scope |= {"path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": []}
    scope |= {"client": ("127.0.0.1", 1), "server": ("localhost", 80)}
    await app(scope, receive, send)
    return answer


def run(app: FastAPI, work: Callable[[], Awaitable[Any]]) -> Any:
    """Do something while the application is up."""

    async def up() -> Any:
        async with app.router.lifespan_context(app):
            return await work()

    return asyncio.run(up())


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[la.Registry]:
    monkeypatch.setenv("LLMARTIFACTS_CACHE", str(tmp_path / "cache"))
    with la.init(tmp_path / "registry") as made:
        made.log("agent", la.Prompt("old", template_format="jinja2"), aliases="prod")
        yield made


@pytest.fixture
def resolver(registry: la.Registry) -> la.Resolver[Support]:
    return la.Resolver(Support, registry=registry)


@pytest.fixture
def swap(registry: la.Registry, resolver: la.Resolver[Support]) -> Callable[[], None]:
    def swap() -> None:
        registry.log("agent", la.Prompt("new", template_format="jinja2"), aliases="prod")
        assert resolver.refresh()

    return swap


def made(resolver: la.Resolver[Support], *, middleware: bool = True, interval: float = 3600) -> FastAPI:
    app = FastAPI(lifespan=lifespan(resolver, interval))
    if middleware:
        app.add_middleware(GenerationMiddleware, resolver=resolver)
    app.include_router(health(resolver))
    return app


# --- the life of the application


def test_the_resolver_is_started_before_the_first_request_and_closed_after_the_last(
    resolver: la.Resolver[Support],
) -> None:
    app = made(resolver)

    async def work() -> tuple[Any, list[str]]:
        names = [t.name for t in threading.enumerate() if "llmartifacts" in t.name]
        return (await asked(app, "/readyz")).json, names

    told, watching = run(app, work)
    assert told["state"] == "READY"
    assert any("watch" in name for name in watching)
    assert resolver.status().state != "READY"
    assert not [t for t in threading.enumerate() if "llmartifacts" in t.name and "watch" in t.name and t.is_alive()]


def test_an_application_may_be_started_again(resolver: la.Resolver[Support]) -> None:
    app = made(resolver)
    agent = prompt(resolver, "agent")

    @app.get("/text")
    def text() -> str:
        return agent.invoke({}).to_string()

    async def work() -> tuple[int, Any]:
        return (await asked(app, "/readyz")).status, (await asked(app, "/text")).json

    assert run(app, work) == (200, "old")
    assert run(app, work) == (200, "old")


def test_it_watches_so_a_promotion_is_served_without_a_restart(
    registry: la.Registry, resolver: la.Resolver[Support]
) -> None:
    app = made(resolver, interval=0.05)

    @app.get("/text")
    def text(served: Annotated[la.Generation[Support], Depends(generation(resolver))]) -> str:
        return served.value.agent.format()

    async def work() -> str:
        assert (await asked(app, "/text")).json == "old"
        registry.log("agent", la.Prompt("new", template_format="jinja2"), aliases="prod")
        for _ in range(600):
            if (told := (await asked(app, "/text")).json) == "new":
                break
            await asyncio.sleep(0.05)
        return str(told)

    assert run(app, work) == "new"


def test_an_application_that_cannot_be_served_does_not_start_and_says_why(tmp_path: Path) -> None:
    resolver = la.Resolver(Support, registry=tmp_path / "nowhere", startup_timeout=5)
    app = made(resolver)

    async def work() -> None:
        raise AssertionError("it is up")

    with pytest.raises(ResolutionError) as failed:
        run(app, work)
    assert "agent" in failed.value.failures
    told = asyncio.run(asked(app, "/readyz"))
    assert (told.status, told.json["ready"]) == (503, False)


def test_it_goes_into_a_lifespan_of_your_own(resolver: la.Resolver[Support]) -> None:
    order: list[str] = []

    @asynccontextmanager
    async def mine(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(lifespan(resolver)(app))
            order.append(resolver.current.value.agent.template)
            yield

    app = FastAPI(lifespan=mine)
    app.include_router(health(resolver))

    async def work() -> Answer:
        return await asked(app, "/readyz")

    assert run(app, work).status == 200
    assert order == ["old"]


def test_an_interval_that_is_none_is_refused_where_it_is_written(resolver: la.Resolver[Support]) -> None:
    with pytest.raises(InvalidInput, match="positive number of seconds"):
        lifespan(resolver, interval=0)


# --- one generation for a request


@pytest.mark.parametrize("middleware", [True, False], ids=["middleware", "dependency alone"])
def test_all_of_a_request_comes_from_one_generation_whatever_is_swapped_in_meanwhile(
    middleware: bool, resolver: la.Resolver[Support], swap: Callable[[], None]
) -> None:
    app = made(resolver, middleware=middleware)
    Serving = Annotated[la.Generation[Support], Depends(generation(resolver))]
    after: list[str] = []

    def first(served: Serving) -> str:
        text = served.value.agent.template
        swap()
        return text

    async def second(served: Serving) -> str:
        return served.value.agent.template

    def later(served: la.Generation[Support]) -> None:
        after.append(served.value.agent.template)

    @app.get("/sync")
    def sync(
        one: Annotated[str, Depends(first)],
        two: Annotated[str, Depends(second)],
        served: Serving,
        tasks: BackgroundTasks,
    ) -> list[str]:
        tasks.add_task(later, served)
        return [one, two, served.value.agent.template]

    async def work() -> tuple[Answer, str]:
        return await asked(app, "/sync"), resolver.current.value.agent.template

    answer, now = run(app, work)
    assert answer.json == ["old"] * 3
    assert after == ["old"]
    assert now == "new"


def test_what_is_pinned_reaches_threads_streams_runnables_and_background_tasks(
    resolver: la.Resolver[Support], swap: Callable[[], None]
) -> None:
    app = made(resolver)
    agent = prompt(resolver, "agent")
    told: list[str] = []

    def seen() -> str:
        traced = trace.current()
        assert traced is not None
        return "".join({serving(resolver).value.agent.template, traced.value.agent.template})

    @app.get("/stream")
    def stream(tasks: BackgroundTasks) -> StreamingResponse:
        def chunks() -> Iterator[str]:
            yield seen() + " "
            yield seen() + " "
            yield agent.invoke({}).to_string()

        tasks.add_task(lambda: told.append(seen()))
        return StreamingResponse(chunks(), background=tasks)

    async def work() -> tuple[Answer, Answer]:
        return await asked(app, "/stream", chunks=[swap]), await asked(app, "/stream")

    before, then = run(app, work)
    assert before.body == b"old old old"
    assert then.body == b"new new new"
    assert told == ["old", "new"]
    assert trace.current() is None


def test_every_response_names_its_versions_also_one_that_failed(
    resolver: la.Resolver[Support], swap: Callable[[], None]
) -> None:
    app = made(resolver)

    async def work() -> list[Answer]:
        before = [await asked(app, "/healthz"), await asked(app, "/nothing")]
        await asyncio.to_thread(swap)
        return [*before, await asked(app, "/healthz")]

    answers = run(app, work)
    stamps = [answer.header("X-LLM-Artifacts") for answer in answers]
    assert [answer.status for answer in answers] == [200, 404, 200]
    assert [len(each) for each in stamps] == [1, 1, 1]
    assert stamps[0] == stamps[1]
    assert [parse_stamp(each[0]).components["agent"].number for each in stamps] == [1, 1, 2]
    assert stamps[2] == [resolver.current.stamp()]


def test_an_old_generation_is_let_go_though_no_other_request_comes(
    resolver: la.Resolver[Support], swap: Callable[[], None]
) -> None:
    app = made(resolver)

    @app.get("/text")
    def text(served: Annotated[la.Generation[Support], Depends(generation(resolver))]) -> str:
        return served.value.agent.template

    async def work() -> weakref.ref[la.Prompt]:
        old = weakref.ref(resolver.current.value.agent)
        await asyncio.create_task(asked(app, "/text"))
        await asyncio.to_thread(swap)
        gc.collect()
        return old

    assert run(app, work)() is None


def test_two_resolvers_say_both_their_stamps_and_keep_their_own(registry: la.Registry) -> None:
    one, two = la.Resolver(Support, registry=registry), la.Resolver({"a": "agent:prod"}, registry=registry)
    app = FastAPI()
    for each in (one, two):
        app.add_middleware(GenerationMiddleware, resolver=each)

    @app.get("/both")
    def both(
        here: Annotated[la.Generation[Support], Depends(generation(one))],
        there: Annotated[la.Generation[Any], Depends(generation(two))],
    ) -> list[str]:
        return [here.value.agent.template, there.value["a"].template]

    with one, two:
        answer = asyncio.run(asked(app, "/both"))
    assert answer.json == ["old", "old"]
    assert set(answer.header("X-LLM-Artifacts")) == {one.current.stamp(), two.current.stamp()}


def test_a_request_that_comes_before_the_start_is_told_to_come_again(resolver: la.Resolver[Support]) -> None:
    app = FastAPI()
    app.add_middleware(GenerationMiddleware, resolver=resolver)

    @app.get("/text")
    def text(served: Annotated[la.Generation[Support], Depends(generation(resolver))]) -> str:
        return served.value.agent.template

    answer = asyncio.run(asked(app, "/text"))
    assert answer.status == 503
    assert answer.header("Retry-After") == ["1"]
    assert answer.header("X-LLM-Artifacts") == []


def test_a_websocket_keeps_the_generation_that_it_was_opened_with(
    resolver: la.Resolver[Support], swap: Callable[[], None]
) -> None:
    app = FastAPI()
    app.add_middleware(GenerationMiddleware, resolver=resolver)

    @app.websocket("/talk")
    async def talk(socket: WebSocket, served: Annotated[la.Generation[Support], Depends(generation(resolver))]) -> None:
        await socket.accept()
        for _ in range(2):
            await socket.receive_text()
            await socket.send_text(served.value.agent.template + serving(resolver).value.agent.template)
        await socket.close()

    async def talked(between: Callable[[], Any]) -> list[Any]:
        sent: list[Any] = []
        given = [{"type": "websocket.connect"}, *[{"type": "websocket.receive", "text": "?"}] * 2]

        async def receive() -> Any:
            if len(given) == 1:
                await asyncio.to_thread(between)
            return given.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "websocket", "path": "/talk", "raw_path": b"/talk", "query_string": b"", "headers": []}
        scope |= {"subprotocols": [], "scheme": "ws", "client": None, "server": None, "root_path": ""}
        await app({**scope, "asgi": {"version": "3.0"}}, receive, send)
        return sent

    refused = asyncio.run(talked(lambda: None))
    assert [(m["type"], m["code"]) for m in refused] == [("websocket.close", 1013)]
    with resolver:
        stamp = resolver.current.stamp().encode()
        accepted, *texts, _ = asyncio.run(talked(swap))
    assert (b"x-llm-artifacts", stamp) in accepted["headers"]
    assert [m["text"] for m in texts] == ["oldold"] * 2


# --- health


def test_readiness_tells_the_whole_state_and_liveness_only_that_it_lives(resolver: la.Resolver[Support]) -> None:
    app = made(resolver)

    async def work() -> list[Answer]:
        return [
            await asked(app, "/readyz"),
            await asked(app, "/healthz"),
            await asked(app, "/readyz", "HEAD"),
        ]

    ready, alive, head = run(app, work)
    assert (ready.status, alive.status, head.status) == (200, 200, 200)
    status = ready.json
    assert (status["state"], status["ready"], status["generation"], status["revision"]) == ("READY", True, 1, 1)
    assert (status["source"], status["code"], status["reason"]) == ("registry", "", "")
    assert 0 <= status["age"] < 60
    assert status["checks"]["failed"] == 0
    assert set(status["checks"]) >= {"made", "unchanged", "shared", "swapped", "fetched", "cached", "stale_seconds"}
    assert alive.json == {"alive": True, "state": "READY", "stamp": status["stamp"]}
    assert ready.header("Cache-Control") == alive.header("Cache-Control") == ["no-store"]
    assert parse_stamp(status["stamp"])
    assert "/readyz" not in app.openapi()["paths"]


def test_a_registry_that_is_gone_makes_it_stale_and_not_dead(registry: la.Registry, tmp_path: Path) -> None:
    resolver = la.Resolver(Support, registry=tmp_path / "registry", startup_timeout=5)
    app = made(resolver)

    def fails() -> None:
        registry.close()
        shutil.rmtree(tmp_path / "registry")
        for _ in range(2):
            with pytest.raises(LlmartifactsError):
                resolver.refresh()

    async def work() -> list[Answer]:
        await asyncio.to_thread(fails)
        return [await asked(app, "/readyz"), await asked(app, "/healthz")]

    ready, alive = run(app, work)
    assert (ready.status, alive.status) == (200, 200)
    assert ready.json["state"] == "STALE"
    assert ready.json["code"]
    assert ready.json["reason"]
    assert ready.json["checks"]["failed"] >= 1


def test_one_that_is_too_old_is_not_ready_and_still_alive(registry: la.Registry, tmp_path: Path) -> None:
    resolver = la.Resolver(Support, registry=tmp_path / "registry", startup_timeout=5, max_stale=0.1)
    app = made(resolver)

    async def work() -> list[Answer]:
        for _ in range(600):
            ready = await asked(app, "/readyz")
            if ready.status == 503:
                break
            await asyncio.sleep(0.02)
        return [ready, await asked(app, "/healthz")]

    ready, alive = run(app, work)
    assert (ready.status, ready.json["state"], ready.json["code"]) == (503, "ERROR", "too-old")
    assert alive.status == 200


@pytest.mark.parametrize(("library", "extra"), [("fastapi", "fastapi"), ("prometheus_client", "prometheus")])
def test_a_library_that_is_not_installed_is_named_with_the_extra_that_brings_it(library: str, extra: str) -> None:
    program = f"""
import sys
sys.modules[{library!r}] = None
from llmartifacts.errors import MissingExtra
try:
    import llmartifacts.integrations.{extra}
except MissingExtra as error:
    print(error.hint())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == f"pip install 'llmartifacts[{extra}]'\n"


def test_nothing_heavy_is_loaded_with_it() -> None:
    program = (
        "import sys, llmartifacts.integrations.fastapi, llmartifacts.integrations.prometheus\n"
        "print([m for m in ('numpy', 'faiss', 'langchain_core', 'apsw', 'zstandard') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
