"""One call of a route: the models in, the models out, pages followed, and time for what takes long."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar, cast

from llmartifacts.client.answers import MAX_ANSWER, Answer
from llmartifacts.client.session import HttpSession
from llmartifacts.errors import LlmartifactsError, Unreachable
from llmartifacts.records.canonical import parse_json
from llmartifacts.wire import error_from_body
from llmartifacts.wire.bodies.base import MAX_PAGE, Body, Model, Query, read_answer
from llmartifacts.wire.bodies.versions import NamesQuery
from llmartifacts.wire.routes import BY_NAME, LINES, Route

M = TypeVar("M", bound=Model)
R = TypeVar("R")

Path = Mapping[str, str]
_NOWHERE: Path = {}

SLOW = 20
"""How many times as long as another a call may take whose route says that it is slow."""
MAX_LINE = 32 * 1024 * 1024
"""Bytes of one line of an export."""


class Calls:
    """Calls of the routes of one server.

    Args:
        session: The connections, with the token and the deadlines.
    """

    def __init__(self, session: HttpSession) -> None:
        self.session = session

    def ask(
        self, model: type[M], name: str, *, query: Query | None = None, body: Model | None = None, path: Path = _NOWHERE
    ) -> M:
        """Call a route and read its answer.

        Args:
            model: What the answer must be.
            name: Name of the route.
            query: Its query.
            body: Its body.
            path: Values of the names in its path.

        Raises:
            LlmartifactsError: What the server says.
            Unreachable: The answer is none that this release understands.
        """
        return self.read(model, name, self.answer(name, query=query, body=body, path=path))

    def tell(self, name: str, *, body: Model | None = None, path: Path = _NOWHERE) -> None:
        """Call a route whose answer is empty. Raises as `ask`."""
        self.answer(name, body=body, path=path)

    def answer(
        self,
        name: str,
        *,
        query: Query | None = None,
        body: Model | None = None,
        headers: Mapping[str, str] | None = None,
        limit: int = MAX_ANSWER,
        path: Path = _NOWHERE,
    ) -> Answer:
        """Call a route; its answer as it came."""
        route = BY_NAME[name]
        sent = None if body is None else body.to_bytes()
        return self.session.call(
            route,
            path=path,
            query=None if query is None else query.pairs(),
            body=sent,
            headers=headers,
            deadline=self._deadline(route),
            limit=limit,
        )

    def read(self, model: type[M], name: str, answer: Answer) -> M:
        """Read an answer. Raises `Unreachable`: it is not what the route gives."""
        try:
            return read_answer(model, answer.json())
        except LlmartifactsError as error:
            if isinstance(error, Unreachable):
                raise
            raise Unreachable(
                f"the answer of {self.session.address} to {name!r} cannot be understood: {error.message}",
                field=error.field,
                next_step="Is it a registry, and is this release of llmartifacts not older than the server's?",
            ) from None

    def record(
        self,
        model: type[Body[R]],
        name: str,
        *,
        query: Query | None = None,
        body: Model | None = None,
        path: Path = _NOWHERE,
    ) -> R:
        """Call a route whose answer is the body of a record. Raises as `ask`."""
        return self.recorded(name, self.ask(model, name, query=query, body=body, path=path))

    def recorded(self, name: str, body: Body[R]) -> R:
        """The record of a body of an answer. Raises `Unreachable`: it breaks the record's rules."""
        try:
            return body.record()
        except LlmartifactsError as error:
            raise Unreachable(
                f"the answer of {self.session.address} to {name!r} breaks a rule: {error.message}", field=error.field
            ) from None

    def pages(
        self,
        name: str,
        query: Query,
        *,
        limit: int | None,
        most: int = MAX_PAGE,
        first: str | int | None,
        path: Path = _NOWHERE,
    ) -> list[Any]:
        """The records of a list, page by page.

        Args:
            name: Name of the route.
            query: What is asked for, without a page.
            limit: At most so many; None for all.
            most: Members of one page.
            first: What the first page begins after; None for the beginning.
            path: Values of the names in the path of the route.
        """
        route = BY_NAME[name]
        model = cast("type[Any]", route.result)
        mark = "after" if "after" in cast("type[Query]", route.query).model_fields else "before"
        pairs: dict[str, Any] = query.pairs()
        made: list[Any] = []
        here = None if first is None else str(first)
        while True:
            size = most if limit is None else min(most, limit - len(made))
            asked = {**pairs, "limit": size, mark: here}
            page = self.read(model, name, self.session.call(route, path=path, query=asked, deadline=None))
            made += [item if isinstance(item, dict) else self.recorded(name, item) for item in page.items]
            following = None if page.next is None else str(page.next)
            if following is None or (limit is not None and len(made) >= limit):
                return made[:limit]
            if following == here or not page.items:
                raise Unreachable(f"the pages of {self.session.address} for {name!r} lead nowhere")
            here = following

    def lines(self, name: str) -> Iterator[bytes]:
        """The lines of a long answer, without their ends, while they come.

        Raises:
            LlmartifactsError: What the server says in the last line, where it went wrong in the middle.
        """
        route = BY_NAME[name]
        with self.session.stream(route, headers={"Accept": LINES}) as download:
            rest = b""
            for piece in download.chunks():
                *whole, rest = (rest + piece).split(b"\n")
                for line in whole:
                    yield _entry(line)
                if len(rest) > MAX_LINE:
                    raise Unreachable(f"a line of the answer of {self.session.address} does not end")
            if rest:
                yield _entry(rest)

    def _deadline(self, route: Route) -> float | None:
        return self.session.timeout * SLOW if route.slow else None


def _entry(line: bytes) -> bytes:
    if line.startswith(b'{"errors":'):
        raise error_from_body(500, parse_json(line))
    return line


def joined(ask: Callable[[NamesQuery], R], names: Callable[[R], list[str]], limit: int | None) -> list[R]:
    """Pages of an answer that is no list.

    Args:
        ask: Asks for a page.
        names: Names in a page, in order.
        limit: At most so many names; None for all.
    """
    made: list[R] = []
    count, after = 0, None
    while True:
        size = MAX_PAGE if limit is None else min(MAX_PAGE, limit - count)
        page = ask(NamesQuery(limit=size, after=after))
        made.append(page)
        found = names(page)
        count += len(found)
        if len(found) < size or (limit is not None and count >= limit):
            return made
        after = found[-1]
