"""What a handler is given, and what it gives back.

A handler is a plain function `handler(call) -> result`, registered under the name of its route. It runs in a thread,
inside one unit of work where its route writes. Its result is a record, a list of records (a page), a body, or an
`Answer` where it says more than a body.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from llmartifacts.errors import InvalidInput, LlmartifactsError
from llmartifacts.wire.bodies.base import Model, Page
from llmartifacts.wire.routes import BY_NAME, Route

if TYPE_CHECKING:
    from llmartifacts.records.rights import Identity
    from llmartifacts.server.state import State
    from llmartifacts.versioning.embedded import EmbeddedBackend

M = TypeVar("M", bound=Model)
T = TypeVar("T")
Header = tuple[bytes, bytes]


@dataclass(slots=True)
class Call:
    """One request, checked so far as its route says.

    Attributes:
        route: Which route.
        state: The server.
        identity: Who asks; None on a public route.
        path: Parameters of the path.
        headers: Headers, names in lower case.
        query: The query, where the route takes one.
        body: The JSON body, where the route takes one.
        target: The query string as it came.
        raw: The bytes of the body; empty where there is none.
        id: The request's id.
        address: The peer.
        answers: Where the route writes, what functions of others answered so far; for `promote` and `commit`.
        prepared: What the handler's `prepare` found, before the transaction; may be out of date in it.
    """

    route: Route
    state: State
    identity: Identity | None
    path: Mapping[str, str]
    headers: Mapping[str, str]
    query: Model | None = None
    body: Model | None = None
    target: bytes = b""
    raw: bytes = b""
    id: str = ""
    address: str = ""
    answers: Any = None
    prepared: Any = None

    @property
    def backend(self) -> EmbeddedBackend:
        """The registry."""
        return self.state.backend

    @property
    def project(self) -> str:
        """The project that the path names."""
        return self.path["project"]

    @property
    def caller(self) -> Identity:
        """Who asks, on a route that is not public."""
        assert self.identity is not None, "a public route has no caller"  # noqa: S101 - told apart by the route table
        return self.identity

    @property
    def actor(self) -> str:
        """Name of who asks, for the audit."""
        return self.caller.name

    def asks(self, model: type[M]) -> M:
        """The query as a model."""
        assert isinstance(self.query, model)  # noqa: S101 - the route table says so
        return self.query

    def sends(self, model: type[M]) -> M:
        """The body as a model."""
        assert isinstance(self.body, model)  # noqa: S101 - the route table says so
        return self.body


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent back.

    Attributes:
        body: Bytes, or an iterator over them that is read while they are sent.
        status: HTTP status; None is the route's own.
        headers: Further headers, names in lower case.
        media_type: Of the body; None is the route's own.
    """

    body: bytes | Iterator[bytes] = b""
    status: int | None = None
    headers: tuple[Header, ...] = ()
    media_type: str | None = None


@dataclass(eq=False)  # not frozen: the interpreter attaches a traceback
class Turned(Exception):
    """A request that is answered with an error whose status the table of errors does not give.

    Attributes:
        status: HTTP status.
        error: What is wrong.
        headers: Further headers.
        reason: One word for the figures.
    """

    status: int
    error: LlmartifactsError
    headers: tuple[Header, ...] = ()
    reason: str = ""


Handle = Callable[[Call], Any]
Aliases = Callable[[Call], Sequence[str]]
Prepare = Callable[[Call], Any]


@dataclass(frozen=True, slots=True)
class Handler:
    """What a route does.

    Attributes:
        run: Does it.
        aliases: Gives the aliases that it moves or approves for, on which rights depend too.
        prepare: Looks, before the transaction of a writing route, at what takes long; gives `Call.prepared`.
    """

    run: Handle
    aliases: Aliases = field(default=lambda _: ())
    prepare: Prepare = field(default=lambda _: None)


HANDLERS: dict[str, Handler] = {}
"""Route name -> what it does; filled by the modules of `server/routes/`, each importing this."""


def handler(
    name: str, *, aliases: Aliases = lambda _: (), prepare: Prepare = lambda _: None
) -> Callable[[Handle], Handle]:
    """Let a function answer a route.

    Args:
        name: Name of the route in `wire.routes`.
        aliases: Gives the aliases that a call would move or approve for.
        prepare: As in `Handler`.
    """

    def keep(function: Handle) -> Handle:
        if name in HANDLERS:
            raise RuntimeError(f"two handlers answer the route {name!r}")
        if name not in BY_NAME:
            raise RuntimeError(f"there is no route {name!r} to answer")
        HANDLERS[name] = Handler(function, aliases, prepare)
        return function

    return keep


def whole(found: Sequence[T], body: Callable[[T], Any]) -> Page[Any]:
    """A list that has one page."""
    return Page.known(items=tuple([body(one) for one in found]), next=None)


def wrong(message: str, field: str, next_step: str = "") -> InvalidInput:
    """An error of a request."""
    return InvalidInput(message, field=field, next_step=next_step)
