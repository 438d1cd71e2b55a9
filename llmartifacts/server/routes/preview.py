"""A prompt rendered for somebody who looks at it."""

from __future__ import annotations

from llmartifacts.server.calls import Call, handler
from llmartifacts.server.preview import PreviewText
from llmartifacts.server.routes.look import local
from llmartifacts.wire.bodies import server as bodies


@handler("preview")
def preview(call: Call) -> bodies.Preview:
    """Render a prompt, in a process with limits."""
    body = call.sends(bodies.PreviewRequest)
    made = call.state.previews.preview(call.backend.parts, call.project, local(call, body.reference), body.variables)
    if isinstance(made, PreviewText):
        return bodies.Preview(text=made.text)
    messages = tuple([bodies.PreviewMessage(role=role, content=content) for role, content in made.messages])
    return bodies.Preview(messages=messages)
