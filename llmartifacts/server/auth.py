"""Who asks: from the `Authorization` header to an `Identity`.

    401  no token, or none that is good             what is wrong with it is not said
    404  a project that one may not see             word for word as if it were not there
    403  one sees it, and may not do this
    429  too many wrong tokens from one address     before the database is asked again

A token that is malformed or has a wrong checksum costs no look at the database. A good one is looked up once in three
seconds at most; every change looks it up again, in its own transaction (`work`). No token is logged, and none is kept:
only its digest.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmartifacts.errors import Busy, LlmartifactsError, NotAllowed
from llmartifacts.metadata import accounts as rows
from llmartifacts.metadata.database import Session
from llmartifacts.records.rights import Identity, operator, token_digest, token_id
from llmartifacts.server.calls import Turned
from llmartifacts.server.limits import retry_after
from llmartifacts.versioning.access import identify

if TYPE_CHECKING:
    from llmartifacts.server.state import State
    from llmartifacts.versioning.parts import Parts

CACHED = 3.0
"""Seconds that an identity is believed without a look at the database. A revoked token reads nothing after that."""
REMEMBERED = 10_000
"""Identities kept at once; those longest unused go."""
DAY = 24 * 3600 * 1_000_000
LOCAL = operator("local")
"""Who asks where the server was told to ask for no token: whoever sits at this machine."""


@dataclass(frozen=True, slots=True, repr=False)
class Presented:
    """A token as it was presented, without its secret.

    Attributes:
        id: Its public part.
        digest: SHA-256 of the whole.
    """

    id: str
    digest: bytes

    def __repr__(self) -> str:
        return f"Presented({self.id!r})"


class Identities:
    """Identities looked up within the last seconds, by the digest of the token; for the event loop's thread only."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, tuple[Identity, float]] = OrderedDict()
        self._loading: dict[bytes, asyncio.Task[Identity | None]] = {}

    def known(self, presented: Presented) -> Identity | None:
        """The identity, where it was looked up a moment ago."""
        found = self._known.get(presented.digest)
        if found is None:
            return None
        if time.monotonic() >= found[1]:
            del self._known[presented.digest]
            return None
        self._known.move_to_end(presented.digest)
        return found[0]

    async def load(self, parts: Parts, presented: Presented) -> Identity | None:
        """Look an identity up; of many requests with one token at once, one does."""
        task = self._loading.get(presented.digest)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._load(parts, presented))
            self._loading[presented.digest] = task
            task.add_done_callback(lambda _: self._loading.pop(presented.digest, None))
        return await asyncio.shield(task)

    async def _load(self, parts: Parts, presented: Presented) -> Identity | None:
        until = time.monotonic() + CACHED  # from before it is read: what is revoked meanwhile ends in time
        found = await asyncio.to_thread(_look_up, parts, presented)
        if found is not None:
            self._known[presented.digest] = (found, until)
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return found


async def authenticate(state: State, headers: Mapping[str, str], address: str) -> Identity:
    """Who asks, as of at most three seconds ago.

    Args:
        state: The server.
        headers: Of the request, names in lower case.
        address: The peer; wrong tokens are counted by it.

    Raises:
        Turned: 401, there is no good token; 429, there were too many bad ones from this address.
    """
    if not state.settings.authenticate:
        return LOCAL
    presented = bearer(headers)
    if presented is None:
        if wait := state.rate_address.take(address):
            raise too_many(wait, "this address asks too often")
        raise unauthenticated(given="authorization" in headers)
    found = state.identities.known(presented)
    if found is None:
        if wait := state.failures.owing(address):
            raise too_many(wait, "too many wrong tokens came from this address")
        found = await state.identities.load(state.backend.parts, presented)
    if found is None:
        state.failures.take(address)
        raise unauthenticated(given=True)
    return found


def bearer(headers: Mapping[str, str]) -> Presented | None:
    """The token of a request; None where there is none, or one that was never given out."""
    scheme, _, text = headers.get("authorization", "").partition(" ")
    token = text.strip(" ")
    found = token_id(token) if scheme.lower() == "bearer" else None
    return None if found is None else Presented(found, token_digest(token))


def again(state: State, s: Session, headers: Mapping[str, str]) -> Identity:
    """Who asks, as of now: in the transaction of a change, where it still holds when the change is committed.

    Raises:
        Turned: 401, the token is good no more.
    """
    if not state.settings.authenticate:
        return LOCAL
    presented = bearer(headers)
    found = None if presented is None else identify(s, presented.id, presented.digest)
    if found is None:
        raise unauthenticated(given=True)
    return found


def unauthenticated(*, given: bool) -> Turned:
    """The answer to a request without a good token; why it is none is not said."""
    if not given:
        error = NotAllowed(
            "no token was given", next_step="Log in: llmartifacts login URL; or set $LLMARTIFACTS_TOKEN."
        )
        return Turned(401, error, ((b"www-authenticate", b'Bearer realm="llmartifacts"'),), "no_token")
    error = NotAllowed(
        "the token is no good: it is mistyped, expired or revoked, or its account is disabled",
        next_step="Log in again: llmartifacts login URL.",
    )
    header = b'Bearer realm="llmartifacts", error="invalid_token"'
    return Turned(401, error, ((b"www-authenticate", header),), "bad_token")


def too_many(seconds: float, what: str) -> Turned:
    """The answer to one who asks too often.

    Args:
        seconds: When to come again.
        what: Of what there is too much, for the message.
    """
    error = Busy(what, next_step=f"Try again in {max(1, round(seconds))} s.")
    return Turned(429, error, ((b"retry-after", retry_after(seconds)),), "rate")


def _look_up(parts: Parts, presented: Presented) -> Identity | None:
    with parts.metadata.reading() as s:
        found = identify(s, presented.id, presented.digest)
        due = found is not None and rows.unused_since(s, presented.id, s.now() - DAY)
    if due:
        # Once a day, so that one sees which tokens nobody needs; where it cannot be written, nobody is kept out.
        with suppress(LlmartifactsError), parts.metadata.writing() as s:
            rows.touch_token(s, presented.id, s.now())
    return found
