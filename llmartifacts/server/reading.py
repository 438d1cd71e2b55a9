"""Readings from memory: the same answer for the same references, for as long as nothing was written.

Everything that changes what a reading says writes an audit entry in its transaction. So an encoded answer is good while
its project's newest entry is the same, and one small query decides that. Requests that come while the query of others
runs share the next one: each is answered from a state that is not older than its arrival.

The query runs at once, in the event loop's thread, on an embedded registry (20 us on a file in memory), and in a thread
where it crosses a network.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmartifacts.errors import NotFound
from llmartifacts.metadata import projects
from llmartifacts.metadata.database import Session
from llmartifacts.records.reference import Reference
from llmartifacts.records.rights import Identity
from llmartifacts.server import auth
from llmartifacts.server.answers import JSON, Receive, Scope, Send, send_bytes
from llmartifacts.server.calls import Header
from llmartifacts.versioning.parts import Parts
from llmartifacts.versioning.read import Item, items
from llmartifacts.wire.bodies.reading import encode_items, etag
from llmartifacts.wire.routes import BASE, BY_NAME

if TYPE_CHECKING:
    from llmartifacts.server.state import State

App = Callable[[Scope, Receive, Send], Awaitable[None]]
ROUTE = BASE + BY_NAME["read"].path
ASK_AGAIN: Header = (b"cache-control", b"private, no-cache")
_READ = re.compile(re.escape(BASE) + r"/projects/([A-Za-z0-9][A-Za-z0-9._-]{0,127})/read")


@dataclass(frozen=True, slots=True)
class Kept:
    """An encoded reading.

    Attributes:
        newest: Number of the project's newest audit entry when it was read.
        tag: Its entity tag.
        body: Its JSON.
        headers: Of its answer.
    """

    newest: int
    tag: bytes
    body: bytes
    headers: tuple[Header, ...]


class Readings:
    """Encoded readings by project and query string; those longest unused go. Safe to use from several threads.

    Args:
        most: Bytes that are kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, bytes], Kept] = OrderedDict()

    def get(self, project: str, query: bytes) -> Kept | None:
        """The answer that was kept, good or not."""
        return self._kept.get((project, query))

    def keep(self, project: str, query: bytes, kept: Kept) -> None:
        """Keep an answer, where it takes no more than a sixteenth of the room."""
        size = _size(query, kept)
        if size > self._most // 16:
            return
        with self._lock:
            self._drop(project, query)
            self._kept[project, query] = kept
            self._held += size
            while self._held > self._most:
                (_, text), old = self._kept.popitem(last=False)
                self._held -= _size(text, old)

    def used(self, project: str, query: bytes) -> None:
        """Say that an answer was good just now."""
        with self._lock:
            if (project, query) in self._kept:
                self._kept.move_to_end((project, query))

    def _drop(self, project: str, query: bytes) -> None:
        had = self._kept.pop((project, query), None)
        if had is not None:
            self._held -= _size(query, had)


def _size(query: bytes, kept: Kept) -> int:
    return len(query) + len(kept.body) + 512


class Newest:
    """Asks for the number of a project's newest audit entry.

    Args:
        parts: The stores.
        pool: Threads to ask in; None asks at once.
    """

    def __init__(self, parts: Parts, pool: ThreadPoolExecutor | None) -> None:
        self._parts = parts
        self._pool = pool
        self._next: dict[str, asyncio.Future[int]] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}

    async def __call__(self, project: str) -> int:
        """The number now, or a little later; 0 where there is no such project."""
        if self._pool is None:
            return self._ask(project)
        waiting = self._next.get(project)
        if waiting is None:
            loop = asyncio.get_running_loop()
            waiting = self._next[project] = loop.create_future()
            if project not in self._asking:
                self._asking[project] = loop.create_task(self._answer(project))
        return await asyncio.shield(waiting)

    def _ask(self, project: str) -> int:
        with self._parts.metadata.reading() as s:
            return newest_entry(s, project)

    async def _answer(self, project: str) -> None:
        """Answer those who wait, one query for all who came before it began."""
        loop = asyncio.get_running_loop()
        try:
            while project in self._next:
                waiting = self._next.pop(project)
                try:
                    waiting.set_result(await loop.run_in_executor(self._pool, self._ask, project))
                except Exception as error:  # noqa: BLE001 - told to whoever waits
                    waiting.set_exception(error)
                    waiting.exception()  # whoever waited may be gone
        finally:
            del self._asking[project]


class Quick:
    """Answers `GET …/read` from memory, where that is the answer now; passes on everything else."""

    def __init__(self, app: App, state: State, pool: ThreadPoolExecutor) -> None:
        self._app = app
        self._state = state
        self._newest = Newest(state.backend.parts, pool if state.settings.database else None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        found = _READ.fullmatch(scope["path"]) if scope["type"] == "http" and scope["method"] == "GET" else None
        if found is None or not await self._answered(scope, send, found[1]):
            await self._app(scope, receive, send)

    async def _answered(self, scope: Scope, send: Send, project: str) -> bool:
        state = self._state
        query = scope["query_string"]
        kept = state.readings.get(project, query)
        if kept is None:
            return False
        token, has = b"", b""
        for name, value in scope["headers"]:
            if name == b"authorization":
                if token:
                    return False
                token = value
            elif name == b"if-none-match":
                has = value
            elif name in (b"content-length", b"transfer-encoding"):
                return False
        identity = self._known(token)
        if identity is None or not identity.sees(project):
            return False  # the long way says what is wrong
        if await self._newest(project) != kept.newest or state.rate.take(identity.name):
            return False
        scope["llmartifacts.route"] = ROUTE
        scope["llmartifacts.account"] = identity.name
        state.metrics.count("llmartifacts_read_cache_total", found="yes")
        state.readings.used(project, query)
        if has and matches(kept.tag, has):
            await send_bytes(send, 304, b"", kept.headers[1:])
        else:
            await send_bytes(send, 200, kept.body, kept.headers)
        return True

    def _known(self, token: bytes) -> Identity | None:
        if not self._state.settings.authenticate:
            return auth.LOCAL
        presented = auth.bearer({"authorization": token.decode("latin-1")})
        return None if presented is None else self._state.identities.known(presented)


def newest_entry(s: Session, project: str) -> int:
    """Number of a project's newest audit entry; 0 where there is no such project.

    Args:
        s: A transaction; whatever is read in it is of the same moment.
        project: Name of the project.
    """
    row = s.row("select max(id) from audit where project_id = (select id from project where name = :p)", {"p": project})
    return 0 if row is None or row[0] is None else int(row[0])


def kept_reading(state: State, project: str, query: bytes, references: Sequence[Reference]) -> Kept:
    """Read, encode, and keep the answer where it is good for others too.

    Args:
        state: The server.
        project: Name of the project.
        query: The query string that it answers.
        references: What that asks for.
    """
    state.metrics.count("llmartifacts_read_cache_total", found="no")
    with state.backend.parts.metadata.reading() as s:
        number = newest_entry(s, project)
        project_id, revision = projects.find_project(s, project)
        lasting = True

        def found() -> Iterator[Item]:
            nonlocal lasting
            for item in items(s, state.backend.parts, project_id, project, references):
                lasting = lasting and (isinstance(item, tuple | NotFound))
                yield item

        body = encode_items(project, revision, found())
    tag = etag(body, revision).encode()
    made = Kept(number, tag, body, (JSON, (b"etag", tag), ASK_AGAIN))
    if query and number and lasting:
        state.readings.keep(project, query, made)
    return made


def matches(tag: bytes, has: bytes) -> bool:
    """Whether `If-None-Match` names an entity tag."""
    return has.strip() == b"*" or tag in [one.strip().removeprefix(b"W/") for one in has.split(b",")]
