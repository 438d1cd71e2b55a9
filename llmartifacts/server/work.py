"""One unit of work: everything that a writing request does is one transaction, with who may and with its answer.

    a look at the stores, if the verb asks for one: others can write meanwhile
    who asks, read anew  ->  may they  ->  the answer kept for this key, if it came before
                         ->  the verb (a part of the transaction)  ->  may they, of what it touched  ->  keep the answer

So a request has exactly one effect however often it is sent, and none once its rights are gone. Functions of others
that gates ask run between two attempts of the whole unit, never inside one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from llmartifacts.errors import Conflict, InvalidInput
from llmartifacts.metadata import accounts as rows
from llmartifacts.metadata import idempotency, projects
from llmartifacts.metadata.database import Session
from llmartifacts.metadata.idempotency import KeptAnswer
from llmartifacts.records import rights
from llmartifacts.records.approval import Approval
from llmartifacts.records.promotion import Promotion
from llmartifacts.records.rights import Identity, Permission
from llmartifacts.server import auth
from llmartifacts.server.calls import Answer, Call, Handler
from llmartifacts.server.sealing import seal, unseal
from llmartifacts.versioning.judge import answering

if TYPE_CHECKING:
    from llmartifacts.gates.base import Answers

ALONE = frozenset(
    {"begin_upload", "finish_upload", "abort_upload", "gc", "erase", "remove_project", "migrate", "exchange"}
)
"""Routes whose handlers take long, or check who asks themselves, and have transactions of their own. Sent twice, they
do the same again, which changes nothing more."""
SECRET = frozenset({"create_token"})
"""Routes whose answers hold a secret: kept sealed, with the token that asked as the key."""
REPLAYED = (b"idempotent-replay", b"true")
_KEY = re.compile(r"[A-Za-z0-9._~-]{16,128}")
_MOVES = frozenset({Permission.PROMOTE, Permission.APPROVE})

Encode = Callable[[Call, Any], Answer]


def perform(call: Call, handler: Handler, encode: Encode) -> Answer:
    """Do what a request asks.

    Args:
        call: The request; rights were looked at when it came in, and here again where it changes something.
        handler: What its route does.
        encode: Makes the answer of the handler's result.

    Raises:
        Turned: Its token is good no more.
        NotFound: Its project may not be seen any more.
        NotAllowed: Its rights do not reach.
        Conflict: Its idempotency key came with another request before.
        InvalidInput: Its idempotency key is malformed.
    """
    key = idempotency_key(call)
    if call.route.name in ALONE:
        if call.route.permission is not Permission.PUBLIC:
            with call.backend.parts.metadata.reading() as s:
                call.identity = still(call, s)
        return encode(call, handler.run(call))
    if not call.route.writes:
        return encode(call, handler.run(call))
    call.prepared = handler.prepare(call)

    def attempt(answers: Answers) -> Answer:
        call.answers = answers
        return _unit(call, handler, encode, key)

    return answering(attempt)


def still(call: Call, s: Session) -> Identity:
    """Who asks, if they may still do what the route asks for. Raises as `perform`.

    Args:
        call: The request.
        s: The transaction of the change.
    """
    identity = auth.again(call.state, s, call.headers)
    permission = call.route.permission
    if permission is not Permission.SIGNED_IN:
        rights.require(identity, permission, call.path["project"] if call.route.in_project else None)
    return identity


def _unit(call: Call, handler: Handler, encode: Encode, key: str | None) -> Answer:
    with call.backend.parts.metadata.writing() as s:
        call.identity = identity = still(call, s)
        _require_aliases(s, call, identity, handler.aliases(call))
        request = _request(call)
        if key is not None:
            kept = idempotency.begin(s, identity.name, key, request)
            if kept is not None:
                return _replay(call, kept)
        result = handler.run(call)
        _require_aliases(s, call, identity, _touched(result))
        answer = encode(call, result)
        if key is not None:
            _keep(s, call, key, request, answer)
        return answer


def _require_aliases(s: Session, call: Call, identity: Identity, aliases: Iterable[str]) -> None:
    """Refuse where a move, or an approval of one, is not allowed for every alias. A log that moves aliases promotes."""
    named = sorted(set(aliases))
    if not named or not call.route.in_project:
        return
    permission = call.route.permission if call.route.permission in _MOVES else Permission.PROMOTE
    project = call.path["project"]
    protected = rows.protections(s, projects.find_project(s, project)[0])
    rights.require(identity, permission, project, named, protected)


def _touched(result: Any) -> Iterable[str]:
    """Aliases that a change turned out to move, or an approval to be for: a rollback is not told them beforehand."""
    if isinstance(result, Promotion):
        return [move.alias for move in result.moves]
    if isinstance(result, Approval) and result.binding is not None:
        return [result.binding.alias]
    return ()


# --- the same request, sent again


def idempotency_key(call: Call) -> str | None:
    """The key that a request carries; None if it carries none. Raises `InvalidInput`."""
    key = call.headers.get("idempotency-key")
    if key is not None and not _KEY.fullmatch(key):
        raise InvalidInput(
            "the idempotency key is malformed",
            field="Idempotency-Key",
            next_step="16 to 128 characters of A-Z a-z 0-9 . _ ~ -, random.",
        )
    return key


def _request(call: Call) -> bytes:
    """SHA-256 over all that makes up a request."""
    parts = [call.route.name.encode(), *(f"{k}={v}".encode() for k, v in sorted(call.path.items())), call.raw]
    whole = sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8))
        whole.update(part)
    return whole.digest()


def _keep(s: Session, call: Call, key: str, request: bytes, answer: Answer) -> None:
    if not isinstance(answer.body, bytes) or call.identity is None:
        return
    body = answer.body
    if call.route.name in SECRET:
        body = seal(_token(call), body)
    kept = KeptAnswer(answer.status or call.route.status, body)
    idempotency.keep(s, call.identity.name, key, request, kept)


def _replay(call: Call, kept: KeptAnswer) -> Answer:
    body: bytes | None = kept.body
    if call.route.name in SECRET:
        body = unseal(_token(call), kept.body)
        if body is None:
            raise Conflict(
                "this was answered before, with a secret for another token than this one",
                field="Idempotency-Key",
                next_step="Send it with the token that was used then, or make another one with a new key.",
            )
    return Answer(body or b"", kept.status, (REPLAYED,))


def _token(call: Call) -> str:
    return call.headers.get("authorization", "")
