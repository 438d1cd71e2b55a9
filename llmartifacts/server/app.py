"""The application: every route of the table bound to exactly one handler, or no start.

Observe   request id, log line, figures, last resort     middleware
Guard     host, other sites, headers                     middleware
Quick     readings from memory                           reading
FastAPI   paths -> Endpoint -> handler                   dispatch
"""

from __future__ import annotations

import importlib
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from starlette.routing import Route as Path

from llmartifacts.errors import NotFound
from llmartifacts.records.rights import Permission
from llmartifacts.server.answers import Receive, Scope, Send, send_bytes, send_error
from llmartifacts.server.calls import HANDLERS, Handler
from llmartifacts.server.config import Settings
from llmartifacts.server.dispatch import Endpoint
from llmartifacts.server.health import Health
from llmartifacts.server.logs import Log
from llmartifacts.server.metrics import Metrics
from llmartifacts.server.middleware import Guard, Observe
from llmartifacts.server.openapi import document
from llmartifacts.server.reading import Quick
from llmartifacts.server.state import State
from llmartifacts.versioning.embedded import EmbeddedBackend
from llmartifacts.wire.routes import BASE, ROUTES, Route

SUBJECTS = (
    "about",
    "accounts",
    "approvals",
    "audit",
    "log",
    "look",
    "moves",
    "preview",
    "reading",
    "removal",
    "runs",
    "transfer",
    "upkeep",
)
"""Modules of `server.routes`."""


class Api(FastAPI):
    """The application, described by the route table, which says more than signatures of functions."""

    described: dict[str, Any]

    def openapi(self) -> dict[str, Any]:
        """The description."""
        return self.described


def create_app(
    settings: Settings, backend: EmbeddedBackend, *, log: Log | None = None, metrics: Metrics | None = None
) -> FastAPI:
    """The application of one process.

    Args:
        settings: What the server is told to do; `Settings.checked` is asked again.
        backend: The registry; closed by whoever opened it.
        log: Where lines go; standard error by default.
        metrics: Figures; those of this process by default.

    Raises:
        RuntimeError: A route has no handler, a handler no route, or a route no permission.
        InvalidInput: The settings do not fit together.
        NotAllowed: They would let everybody in.
    """
    settings = settings.checked()
    backend = backend.guarded(allowed_gates=settings.allow_gates)
    state = State(settings, backend, log or Log(settings.log_format), metrics or Metrics())
    if settings.oidc:
        from llmartifacts.server.oidc import Login  # and PyJWT, for those who use it

        state.login = Login.open(state.backend.parts, settings.oidc)
        state.providers = state.login.providers
    pool = ThreadPoolExecutor(settings.max_concurrent + 4, thread_name_prefix="request")
    handlers = bind()
    health = Health(state, pool)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        yield
        pool.shutdown(wait=False, cancel_futures=True)
        state.previews.close()

    app = Api(
        title="llmartifacts",
        version=version("llmartifacts"),
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        lifespan=life,
        redirect_slashes=False,
    )
    described = document(settings.origin)
    app.described = described
    app.state.server = state
    for path, endpoint in paths(state, handlers, pool).items():
        app.router.routes.append(Path(BASE + path, endpoint, methods=None))
    outside = {"/healthz": health.alive, "/readyz": health.ready, f"{BASE}/openapi.json": _Constant(described)}
    if settings.metrics:
        outside["/metrics"] = health.metrics
    for path, answer in outside.items():
        app.router.routes.append(Path(path, _Get(answer, path)))
    app.router.default = _nothing
    app.add_middleware(Quick, state=state, pool=pool)
    app.add_middleware(Guard, state=state)
    app.add_middleware(Observe, state=state)
    return app


def bind(routes: tuple[Route, ...] = ROUTES, handlers: Mapping[str, Handler] | None = None) -> Mapping[str, Handler]:
    """The handlers, after every route was found to have one and a permission.

    Raises:
        RuntimeError: One has not, or a handler has no route.
    """
    if handlers is None:
        for subject in SUBJECTS:
            importlib.import_module(f"llmartifacts.server.routes.{subject}")
        handlers = HANDLERS
    names = [route.name for route in routes]
    wrong = [f"the route {name!r} has no handler" for name in names if name not in handlers]
    wrong += [f"the handler {name!r} has no route" for name in handlers if name not in names]
    wrong += [f"the route {r.name!r} has no permission" for r in routes if not isinstance(r.permission, Permission)]
    wrong += [f"there are two routes {name!r}" for name in set(names) if names.count(name) > 1]
    if wrong:
        raise RuntimeError(f"the server cannot start: {'; '.join(sorted(wrong))}")
    return handlers


def paths(state: State, handlers: Mapping[str, Handler], pool: ThreadPoolExecutor) -> dict[str, Endpoint]:
    """Each path with all of its methods; fixed ones before those with parameters in the same place."""
    by_path: defaultdict[str, dict[str, tuple[Route, Handler]]] = defaultdict(dict)
    for route in ROUTES:
        by_path[route.path][route.method] = (route, handlers[route.name])
    ordered = sorted(by_path, key=lambda path: [(part.startswith("{"), part) for part in path.split("/")])
    return {path: Endpoint(state, by_path[path], pool) for path in ordered}


class _Get:
    """A route outside the API, for `GET` and `HEAD`."""

    def __init__(self, answer: Any, path: str) -> None:
        self._answer = answer
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["llmartifacts.route"] = self._path
        if scope["method"] in ("GET", "HEAD"):
            await self._answer(scope, receive, send)
            return
        await send_bytes(send, 405, b"", ((b"allow", b"GET, HEAD"),))


class _Constant:
    """An answer that never changes."""

    def __init__(self, body: Any) -> None:
        import json

        self._body = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        kind = (b"content-type", b"application/json")
        await send_bytes(send, 200, self._body, (kind,), head=scope["method"] == "HEAD")


async def _nothing(scope: Scope, _: Receive, send: Send) -> None:
    """What is answered to an address that is none."""
    if scope["type"] == "http":
        error = NotFound(
            "there is nothing at this address", what="address", name="", next_step=f"The API is at {BASE}."
        )
        await send_error(send, error, head=scope["method"] == "HEAD")
