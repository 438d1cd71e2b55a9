"""The audit: entries, checkpoints, proofs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llmartifacts.errors import LlmartifactsError, NotFound
from llmartifacts.metadata import audit as stored
from llmartifacts.metadata import projects
from llmartifacts.records.audit import AuditEvent
from llmartifacts.records.rights import Permission
from llmartifacts.server.answers import error_bytes
from llmartifacts.server.calls import Answer, Call, handler
from llmartifacts.wire.bodies import audit as u
from llmartifacts.wire.bodies.base import Page

PART = 256 * 1024
"""Bytes of an export that are sent at once."""


@handler("project_audit")
def project_audit(call: Call) -> u.AuditPage:
    """Entries of a project, in order."""
    return _page(call, call.project)


@handler("audit")
def audit(call: Call) -> u.AuditPage:
    """Entries of the whole registry, in order."""
    return _page(call, None)


def _page(call: Call, project: str | None) -> u.AuditPage:
    query = call.asks(u.AuditQuery)
    with call.backend.parts.metadata.reading() as s:
        project_id = None if project is None else projects.find_project(s, project)[0]
        page = stored.after(s, project_id, query.after, query.limit)
    following = page[-1][0] if len(page) >= query.limit else None
    return u.AuditPage.known(items=tuple([stored.parsed(entry) for _, entry, _ in page]), next=following)


@handler("audit_log")
def audit_log(call: Call) -> Page[u.AuditEntry]:
    """The newest entries, the newest last."""
    query = call.asks(u.AuditLogQuery)
    found = call.backend.audit_log(query.project, verb=query.verb, limit=query.limit, before=query.before)
    following = str(found[0].number) if len(found) >= query.limit else None
    return Page.known(items=tuple([u.AuditEntry.of(one) for one in found]), next=following)


@handler("export_audit")
def export_audit(call: Call) -> Answer:
    """Every entry, one a line, as the bytes that are hashed."""
    return Answer(_lines(call.backend.export_audit()))


def _lines(entries: Iterator[bytes]) -> Iterator[bytes]:
    held: list[bytes] = []
    size = 0
    try:
        for entry in entries:
            held += [entry, b"\n"]
            size += len(entry) + 1
            if size >= PART:
                yield b"".join(held)
                held, size = [], 0
    except LlmartifactsError as error:  # the status is sent already; no entry is like this last line
        held += [error_bytes(error), b"\n"]
    yield b"".join(held)


@handler("audit_checkpoint")
def audit_checkpoint(call: Call) -> Any:
    """Size and root."""
    return call.backend.audit_checkpoint()


@handler("audit_inclusion")
def audit_inclusion(call: Call) -> Any:
    """The proof of an entry; an entry of a project that the caller may not see is not there for it."""
    query = call.asks(u.InclusionQuery)
    proof = call.backend.audit_inclusion(query.index, query.size)
    if not call.caller.may(Permission.OPERATE):
        project = AuditEvent.from_bytes(proof.entry).project
        if not project or not call.caller.sees(project):  # without a project: accounts, tokens, keys
            raise NotFound(f"there is no entry {query.index}", what="audit entry", name=str(query.index))
    return proof


@handler("audit_consistency")
def audit_consistency(call: Call) -> Any:
    """The proof that the audit only grew."""
    query = call.asks(u.ConsistencyQuery)
    return call.backend.audit_consistency(query.old, query.new)


@handler("verify_audit")
def verify_audit(call: Call) -> Any:
    """Check the whole audit, against checkpoints that were kept elsewhere too."""
    kept = call.sends(u.AuditCheck).checkpoints
    return call.backend.verify_audit([(one.source, one.checkpoint.record()) for one in kept])
