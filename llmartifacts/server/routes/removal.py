"""What lets go of content for good, and leases, which hold it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from llmartifacts.records.arguments import check_line, check_reason
from llmartifacts.server.calls import Call, handler, whole
from llmartifacts.wire.bodies import removal as x
from llmartifacts.wire.bodies.base import Page


@handler("erase")
def erase(call: Call) -> Any:
    """Erase documents."""
    body = call.sends(x.EraseRequest)
    why = check_reason(body.reason, "an erasure")
    return call.backend.erase(
        call.project, body.name, body.documents, reason=why, dry_run=body.dry_run, actor=call.actor
    )


@handler("remove_project")
def remove_project(call: Call) -> Any:
    """Remove a project."""
    body = call.sends(x.ProjectRemoval)
    grace = None if body.grace is None else timedelta(seconds=body.grace)
    why = check_reason(body.reason, "the removal of a project")
    return call.backend.remove_project(
        body.name, reason=why, grace=grace, even_default=body.even_default, actor=call.actor
    )


@handler("lease")
def lease(call: Call) -> Any:
    """Hold versions for a time."""
    body = call.sends(x.LeaseRequest)
    references = [one.required("lease") for one in body.references]
    length = timedelta(seconds=body.length)
    holder = check_line(body.holder, field="holder")
    return call.backend.lease(call.project, references, holder=holder, length=length, actor=call.actor)


@handler("leases")
def leases(call: Call) -> Page[x.Lease]:
    """What is held in a project."""
    return whole(call.backend.leases(call.project), x.Lease.of)
