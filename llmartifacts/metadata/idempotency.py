"""Answers kept by the key that a request carried, so that the same request, sent again, has no second effect.

An account has its own keys: nobody is handed the answer of another.
"""

from __future__ import annotations

from dataclasses import dataclass

from llmartifacts.errors import Conflict
from llmartifacts.metadata.database import Session

LIFE = 24 * 3600 * 1_000_000
"""Microseconds that an answer is kept."""
SWEEP = 50
"""Old answers that go with each new one."""


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """The answer that a request had.

    Attributes:
        status: HTTP status.
        body: The body as it was sent.
    """

    status: int
    body: bytes


def begin(s: Session, account: str, key: str, request: bytes) -> KeptAnswer | None:
    """The answer of an earlier request with the same key; None if there was none.

    Args:
        s: The write transaction in which the request has its effect: of two with one key, the second waits for it.
        account: Who asks.
        key: The key.
        request: SHA-256 over everything that makes up the request.

    Raises:
        Conflict: The key came with another request.
    """
    row = s.row(
        "select request, status, response, at from idempotency where account = :a and name = :k",
        {"a": account, "k": key},
    )
    if row is None:
        return None
    known, status, response, at = row
    if at <= s.now() - LIFE:
        s.run("delete from idempotency where account = :a and name = :k", {"a": account, "k": key})
        return None
    if bytes(known) != request:
        raise Conflict(
            "the idempotency key came with another request before",
            field="Idempotency-Key",
            next_step="Use a new key for each new request; the same one only to send the same request again.",
        )
    return KeptAnswer(status, bytes(response))


def keep(s: Session, account: str, key: str, request: bytes, answer: KeptAnswer) -> None:
    """Keep the answer of a request, in its own transaction; some of the old ones go."""
    at = s.now()
    s.run(
        "delete from idempotency where (account, name) in"
        " (select account, name from idempotency where at <= :old order by at limit :n)",
        {"old": at - LIFE, "n": SWEEP},
    )
    s.run(
        "insert into idempotency(account, name, request, status, response, at) values (:a, :k, :r, :s, :b, :at)",
        {"a": account, "k": key, "r": request, "s": answer.status, "b": answer.body, "at": at},
    )
