"""Runs: what used and produced versions."""

from __future__ import annotations

from typing import Any

from llmartifacts.server.calls import Call, handler
from llmartifacts.wire.bodies import versions as v
from llmartifacts.wire.bodies.base import Page


@handler("runs")
def runs(call: Call) -> Page[v.RunRecord]:
    """The newest runs."""
    query = call.asks(v.IdsQuery)
    found = call.backend.runs(call.project, limit=query.limit, before=query.before, visible=call.caller.sees)
    return Page.made([v.RunRecord.of(one) for one in found], query.limit, lambda one: one.id)


@handler("start_run")
def start_run(call: Call) -> Any:
    """Begin a run."""
    body = call.sends(v.NewRun)
    return call.backend.start_run(
        call.project, body.name, parameters=body.parameters, actor=call.actor, git_commit=body.git_commit
    )


@handler("run")
def run(call: Call) -> Any:
    """One run."""
    return call.backend.run(call.project, call.path["id"], visible=call.caller.sees)


@handler("use_in_run")
def use_in_run(call: Call) -> None:
    """Record that a run read a version."""
    reference = call.sends(v.Use).reference
    call.backend.use_in_run(call.project, call.path["id"], reference, actor=call.actor, visible=call.caller.sees)


@handler("end_run")
def end_run(call: Call) -> Any:
    """End a run."""
    body = call.sends(v.RunEnd)
    return call.backend.end_run(call.project, call.path["id"], status=body.status, error=body.error, actor=call.actor)
