"""The server itself."""

from __future__ import annotations

from importlib.metadata import version

from llmartifacts.metadata import audit
from llmartifacts.server.calls import Call, handler
from llmartifacts.server.dispatch import MAX_PIECE
from llmartifacts.wire.bodies import server as bodies
from llmartifacts.wire.bodies.base import MAX_PAGE

MAX_REFERENCES = 1000


@handler("info")
def info(call: Call) -> bodies.Info:
    """What this server is."""
    with call.backend.parts.metadata.reading() as s:
        registry = audit.origin(s)
    limits = bodies.Limits(body=call.state.settings.max_json, piece=MAX_PIECE, references=MAX_REFERENCES, page=MAX_PAGE)
    return bodies.Info(
        version=version("llmartifacts"), registry=registry, limits=limits, login=tuple(call.state.providers)
    )
