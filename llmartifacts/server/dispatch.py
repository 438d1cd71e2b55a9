"""One route's way from the request to the answer: who asks, what for, the handler, the result.

    rights as known  ->  query  ->  body  ->  a place to work  ->  handler, in a thread  ->  answer

Rights are looked at before a byte of a body is read, and again by every writing handler's unit of work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import UnionType
from typing import Annotated, Any, get_args, get_origin
from urllib.parse import parse_qsl

from llmartifacts.errors import DeadlineExceeded, InvalidInput, LlmartifactsError, NotFound, TooLarge
from llmartifacts.records import rights
from llmartifacts.records.rights import Permission
from llmartifacts.server import auth, bodies, work
from llmartifacts.server.answers import Receive, Scope, Send, send_bytes, send_error, send_turned, without_places
from llmartifacts.server.calls import Answer, Call, Handler, Header, Turned
from llmartifacts.server.config import MAX_JSON
from llmartifacts.server.state import PART_BYTES, State
from llmartifacts.wire.bodies.base import MAX_PARTS, Model, Query, check, json_parts, read_body
from llmartifacts.wire.errors import http_status
from llmartifacts.wire.routes import BYTES, Route

MAX_PIECE = 8 * 1024 * 1024
"""Bytes of one piece of an upload."""
MAX_QUERY = 64 * 1024
SMALL_BODY = 1024 * 1024
LARGE_BODIES = {
    **dict.fromkeys(("commit", "finish_upload"), MAX_JSON),
    **dict.fromkeys(("begin_upload", "missing_pieces", "storage", "sums"), 20 * SMALL_BODY),
    **dict.fromkeys(("set_policy", "approve", "attest"), 2 * SMALL_BODY),
}
"""Route -> bytes of its JSON, where that may have more than 1 MiB; never more than `Settings.max_json`."""
AT_ONCE = 64 * 1024
"""Bytes of JSON that are read in the event loop's thread, where everybody waits."""
FEW_PARTS = 1_000_000
"""Values of a JSON body that describes nothing but names of bytes."""


class Endpoint:
    """All methods of one path, as an ASGI application.

    Args:
        state: The server.
        bound: Each route of the path with its handler.
        pool: Threads that handlers run in.
    """

    def __init__(self, state: State, bound: Mapping[str, tuple[Route, Handler]], pool: ThreadPoolExecutor) -> None:
        self._methods = {method: Bound(state, route, handler, pool) for method, (route, handler) in bound.items()}
        if "GET" in self._methods:
            self._methods["HEAD"] = self._methods["GET"]
        self._allow = ", ".join(sorted(self._methods)).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        bound = self._methods.get(scope["method"])
        if bound is not None:
            await bound(scope, receive, send)
            return
        error = InvalidInput(f"{scope['method'][:20]!a} is no method of this path", field="method")
        await send_turned(send, Turned(405, error, ((b"allow", self._allow),)), head=scope["method"] == "HEAD")


class Bound:
    """A route with its handler."""

    def __init__(self, state: State, route: Route, handler: Handler, pool: ThreadPoolExecutor) -> None:
        self.route = route
        self._state = state
        self._handler = handler
        self._pool = pool
        self._template = f"/api/v1{route.path}"
        self._lists = _lists(route.query)
        settings = state.settings
        if route.body == BYTES:
            self._limit = MAX_PIECE
        else:
            self._limit = min(LARGE_BODIES.get(route.name, SMALL_BODY), settings.max_json)
        self._parts = MAX_PARTS if route.name in ("commit", "finish_upload") else FEW_PARTS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        scope["llmartifacts.route"] = self._template
        head = scope["method"] == "HEAD"
        try:
            answer = await self._answer(scope, receive)
        except Turned as turned:
            self._state.metrics.count("llmartifacts_refused_total", reason=turned.reason or "request")
            await send_turned(send, turned, head=head)
        except LlmartifactsError as error:
            shown = without_places(error, self._state.places)
            if http_status(error) >= 500 or shown is not error:
                self._state.log.event("failed", "error", request=scope.get("llmartifacts.id", ""), error=str(error))
            await send_error(send, shown, head=head)
        else:
            await self._send(receive, send, answer, head=head)

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        headers = _headers(scope)
        call = Call(
            self.route,
            self._state,
            None,
            _path(scope["path_params"]),
            headers,
            target=scope.get("query_string", b""),
            id=scope.get("llmartifacts.id", ""),
            address=(scope.get("client") or ("",))[0],
        )
        if self.route.permission is not Permission.PUBLIC:
            call.identity = await auth.authenticate(self._state, headers, call.address)
            scope["llmartifacts.account"] = call.identity.name
            project = call.path.get("project") if self.route.in_project else None
            if self.route.permission is not Permission.SIGNED_IN:
                rights.require(call.identity, self.route.permission, project)
            if wait := self._state.rate.take(call.identity.name):
                raise auth.too_many(wait, f"{call.identity.name} asks too often")
        elif wait := self._state.rate_address.take(call.address):
            raise auth.too_many(wait, "this address asks too often")
        call.query = self._query(call.target)
        with self._state.bodies.hold(_who(call)) as hold:
            await self._read_body(call, receive, hold)
            return await self._work(call)

    def _query(self, text: bytes) -> Model | None:
        values = parse_query(text, self._lists)
        if self.route.query is not None:
            return check(self.route.query, values)
        if values:
            raise InvalidInput("unknown field", field=next(iter(values)))
        return None

    async def _read_body(self, call: Call, receive: Receive, hold: Any) -> None:
        length = bodies.announced(call.headers)
        model = self.route.body
        if model is None:
            if length:
                raise InvalidInput("this route takes no body", field="body")
            if "transfer-encoding" in call.headers:
                await bodies.read_all(receive, 0, None, self._state.settings, hold)
            return
        kind = call.headers.get("content-type", "").partition(";")[0].strip().lower()
        wanted = BYTES if model == BYTES else "application/json"
        if kind != wanted:
            error = InvalidInput(f"the body is no {wanted}", field="content-type", next_step=f"Send {wanted}.")
            raise Turned(415, error)
        call.raw = await bodies.read_all(receive, self._limit, length, self._state.settings, hold)
        if not isinstance(model, str):
            if len(call.raw) > AT_ONCE:
                hold(len(call.raw) + PART_BYTES * min(json_parts(call.raw), self._parts))
                call.body = await asyncio.get_running_loop().run_in_executor(
                    self._pool, lambda: read_body(model, call.raw, max_bytes=self._limit, max_parts=self._parts)
                )
            else:
                call.body = read_body(model, call.raw, max_bytes=self._limit, max_parts=self._parts)

    async def _work(self, call: Call) -> Answer:
        """Run the handler in a thread; the place is held until the thread is done, whoever waits for it."""
        state = self._state
        who = _who(call)
        await state.room.enter(who)
        loop = asyncio.get_running_loop()
        try:
            running = loop.run_in_executor(self._pool, self._run, call)
        except BaseException:
            state.room.leave(who)
            raise
        running.add_done_callback(lambda _: state.room.leave(who))
        running.add_done_callback(lambda done: done.cancelled() or done.exception())
        if self.route.slow:
            return await asyncio.shield(running)
        try:
            return await asyncio.wait_for(asyncio.shield(running), state.settings.request_seconds)
        except TimeoutError:
            raise DeadlineExceeded(
                "the request took too long", next_step="Send it again; with the same Idempotency-Key it is done once."
            ) from None

    def _run(self, call: Call) -> Answer:
        return work.perform(call, self._handler, self._encode)

    def _encode(self, call: Call, result: Any) -> Answer:
        """The answer that a handler's result makes."""
        if isinstance(result, Answer):
            return result
        model = self.route.result
        if model is None:
            return Answer()
        if isinstance(result, Model):
            return Answer(result.to_bytes())
        if isinstance(model, str):
            return Answer(result)
        body: Any = model
        return Answer(body.of(result).to_bytes())

    async def _send(self, receive: Receive, send: Send, answer: Answer, *, head: bool) -> None:
        status = answer.status or self.route.status
        media = answer.media_type or (self.route.result if isinstance(self.route.result, str) else "application/json")
        kind: tuple[Header, ...] = () if status in (204, 304) else ((b"content-type", media.encode()),)
        headers = (*kind, *answer.headers)
        if isinstance(answer.body, bytes):
            await send_bytes(send, status, answer.body, headers, head=head)
            return
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        stream = iter(answer.body)
        loop = asyncio.get_running_loop()
        left = loop.create_task(_left(receive))
        try:
            while not head and not left.done():
                part = await loop.run_in_executor(self._pool, _next, stream)
                if part is None:
                    break
                async with asyncio.timeout(self._state.settings.body_seconds):
                    await send({"type": "http.response.body", "body": part, "more_body": True})
        except TimeoutError:  # a reader that stopped lets go of all this
            raise bodies.Gone from None
        finally:
            left.cancel()
            close = getattr(stream, "close", None)
            if close is not None:
                await loop.run_in_executor(self._pool, close)
        await send({"type": "http.response.body", "body": b""})


def _who(call: Call) -> str:
    """Whose places and memory a request takes."""
    return f"address {call.address}" if call.identity is None else call.identity.name


def parse_query(text: bytes, lists: frozenset[str]) -> dict[str, Any]:
    """The parameters of a query string; one that is a list may be repeated.

    Raises:
        InvalidInput: One that is no list is repeated, or it is no text.
        TooLarge: It is too long.
    """
    if not text:
        return {}
    if len(text) > MAX_QUERY:
        raise TooLarge(f"the query has {len(text):,} bytes, the limit is {MAX_QUERY:,}", field="query")
    values: dict[str, Any] = {}
    try:
        pairs = parse_qsl(text.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=2000)
    except ValueError:
        raise InvalidInput("the query is no text of names and values", field="query") from None
    for name, value in pairs:
        if name in lists:
            values.setdefault(name, []).append(value)
        elif name in values:
            raise InvalidInput("the parameter is given more than once", field=name[:80])
        else:
            values[name] = value
    return values


def _lists(query: type[Query] | None) -> frozenset[str]:
    if query is None:
        return frozenset()
    return frozenset(name for name, info in query.model_fields.items() if _is_list(info.annotation))


def _is_list(kind: Any) -> bool:
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) is UnionType:
        return any(_is_list(one) for one in get_args(kind))
    return get_origin(kind) in (list, tuple)


def _headers(scope: Scope) -> dict[str, str]:
    made: dict[str, str] = {}
    for name, value in scope["headers"]:
        key = name.decode("latin-1")
        if key in made and key in ("authorization", "content-length", "content-type", "idempotency-key", "range"):
            raise InvalidInput("the header is given more than once", field=key)
        made[key] = value.decode("latin-1")
    return made


def _path(given: Mapping[str, str]) -> dict[str, str]:
    for name, value in given.items():
        if len(value) > 256 or not value.isprintable():
            raise NotFound(f"there is no such {name}", what=name, name=ascii(value[:80]))
    return dict(given)


async def _left(receive: Receive) -> None:
    """Ends when the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _next(stream: Iterator[bytes]) -> bytes | None:
    for part in stream:
        if part:
            return part
    return None
