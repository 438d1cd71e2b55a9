"""A FastAPI service over a resolver: started and watched with the application, one generation for each request.

    resolver = la.Resolver(Support)
    Serving = Annotated[la.Generation[Support], Depends(generation(resolver))]

    app = FastAPI(lifespan=lifespan(resolver))
    app.add_middleware(GenerationMiddleware, resolver=resolver)
    app.include_router(health(resolver))

    @app.post("/ask")
    def ask(question: Question, serving: Serving) -> Answer:
        return answer(serving.value, question)

Whatever is swapped in while a request runs, all of that request comes from one generation: what the dependency gives to
the endpoint, to other dependencies and to background tasks, what LangChain's runnables follow
(`llmartifacts.integrations.langchain`), what is on its traces and in the header of its response.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

from llmartifacts.errors import MissingExtra, ResolutionError
from llmartifacts.runtime.generation import Generation
from llmartifacts.runtime.pinned import pinned, serving
from llmartifacts.runtime.resolver import Resolver
from llmartifacts.runtime.state import Status
from llmartifacts.runtime.task import check_seconds

try:
    from fastapi import APIRouter, HTTPException, WebSocketException
    from fastapi.responses import JSONResponse
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import HTTPConnection
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
except ImportError as error:
    raise MissingExtra("a service over FastAPI needs it", extra="fastapi") from error

T = TypeVar("T")

_TAKEN = "llmartifacts.generations"
"""Key of an ASGI scope: resolver -> the generation that this request has."""
_STARTS = {"http.response.start", "websocket.accept"}
_AGAIN_LATER = 1013
_RETRY_SECONDS = 1


def lifespan(
    resolver: Resolver[Any], interval: float = 30.0
) -> Callable[[Any], AbstractAsyncContextManager[None, bool | None]]:
    """A lifespan for `FastAPI(lifespan=…)`: start before the first request, watch meanwhile, close after the last.

    The start runs in a thread, inside the resolver's `startup_timeout`. If it fails the application does not start, and
    what the server prints names every component. Within a lifespan of your own: `async with lifespan(resolver)(app):`.

    Args:
        resolver: What is served.
        interval: Seconds between two looks at the registry; see `Resolver.watch`.

    Raises:
        InvalidInput: The interval is no positive number.
    """
    check_seconds(interval, "interval")

    @asynccontextmanager
    async def around(_: Any) -> AsyncIterator[None]:
        try:
            await run_in_threadpool(resolver.start)
            await run_in_threadpool(resolver.watch, interval)
            yield
        finally:
            await run_in_threadpool(resolver.close)

    return around


def generation(resolver: Resolver[T]) -> Callable[[HTTPConnection], Awaitable[Generation[T]]]:
    """A dependency: the one generation of a request, whoever asks for it and however often.

    A request that comes while nothing is served is answered with 503. A WebSocket keeps the generation that it was
    opened with; one that lives for hours takes `resolver.current` for each message instead.

    Args:
        resolver: What is served.

    Returns:
        What `Depends` takes; annotate its parameter as `Annotated[la.Generation[Support], Depends(…)]`.
    """

    async def of_this_request(connection: HTTPConnection) -> Generation[T]:
        try:
            return _taken(connection.scope, resolver)
        except ResolutionError as error:
            if connection.scope["type"] == "websocket":
                raise WebSocketException(_AGAIN_LATER, "nothing is served yet") from error
            raise HTTPException(503, "nothing is served yet", {"Retry-After": str(_RETRY_SECONDS)}) from error

    return of_this_request


class GenerationMiddleware:
    """Pins a generation for each request, puts it on its traces, and says its stamp in a header of the response.

    Everything that runs for the request, in whatever thread, finds the same generation: by the dependency, by
    `llmartifacts.runtime.pinned.serving`, by the current trace. While nothing is served, requests pass as they are.

    Args:
        app: What it stands before.
        resolver: What is served.
    """

    def __init__(self, app: ASGIApp, resolver: Resolver[Any]) -> None:
        self.app = app
        self._resolver = resolver
        self._header: tuple[int, tuple[bytes, bytes]] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        try:
            chosen = _taken(scope, self._resolver)
        except ResolutionError:
            await self.app(scope, receive, send)
            return
        header = self._encoded(chosen)

        async def stamped(message: Message) -> None:
            if message["type"] in _STARTS:
                message = {**message, "headers": [*message.get("headers", ()), header]}
            await send(message)

        with pinned(self._resolver, chosen):
            await self.app(scope, receive, stamped)

    def _encoded(self, chosen: Generation[Any]) -> tuple[bytes, bytes]:
        known = self._header  # read once: another thread may put another one there
        if known is not None and known[0] == chosen.number:
            return known[1]
        name, value = chosen.header()
        made = name.lower().encode("ascii"), value.encode("ascii")
        self._header = chosen.number, made  # the number alone: nothing here keeps an old index in memory
        return made


def health(resolver: Resolver[Any]) -> APIRouter:
    """Two routes for whoever restarts and balances: `/healthz` and `/readyz`, both with the state in JSON.

    `/healthz` is 200 as long as the process answers: a registry that is down is no reason to restart a service.
    `/readyz` is 200 while requests may be sent here (READY, and STALE), and 503 otherwise; its body is the whole
    `llmartifacts.runtime.state.Status`, which names versions and why it is not READY, and holds no secret. Neither
    touches the registry, or waits for a thread.

    Args:
        resolver: What is served.
    """
    router = APIRouter()

    @router.api_route("/healthz", methods=["GET", "HEAD"], include_in_schema=False)
    async def healthz() -> JSONResponse:
        status = resolver.status()
        return _told(200, {"alive": True, "state": status.state, "stamp": status.stamp})

    @router.api_route("/readyz", methods=["GET", "HEAD"], include_in_schema=False)
    async def readyz() -> JSONResponse:
        status = resolver.status()
        return _told(200 if status.ready else 503, _plain(status))

    return router


def _told(code: int, body: dict[str, Any]) -> JSONResponse:
    return JSONResponse(body, code, {"Cache-Control": "no-store"})


def _plain(status: Status) -> dict[str, Any]:
    def rounded(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return {name: round(value, 3) if isinstance(value, float) else value for name, value in pairs}

    return dataclasses.asdict(status, dict_factory=rounded)


def _taken(scope: MutableMapping[str, Any], resolver: Resolver[T]) -> Generation[T]:
    taken: dict[Resolver[Any], Generation[Any]] = scope.setdefault(_TAKEN, {})
    chosen = taken.get(resolver)
    if chosen is None:
        chosen = taken[resolver] = serving(resolver)
    return chosen
