"""Projects, collections, versions, history, lineage: what is there."""

from __future__ import annotations

from typing import Any

from llmartifacts.errors import InvalidReference
from llmartifacts.records.names import check_name
from llmartifacts.records.reference import Reference
from llmartifacts.server.calls import Call, handler
from llmartifacts.wire.bodies import evidence as e
from llmartifacts.wire.bodies import lineage as n
from llmartifacts.wire.bodies import moves as m
from llmartifacts.wire.bodies import versions as v
from llmartifacts.wire.bodies.base import Page


def local(call: Call, reference: Reference, *, field: str = "reference") -> Reference:
    """The reference, which names no other project than the path does.

    Raises:
        InvalidReference: It does.
    """
    if reference.project not in (None, call.project):
        raise InvalidReference(
            f"{reference} is in another project than {call.project}",
            field=field,
            next_step="Leave the project out, or ask in its own.",
        )
    return reference


@handler("projects")
def projects(call: Call) -> Page[v.Project]:
    """Projects that the caller may see, by name."""
    query = call.asks(v.NamesQuery)
    seen = None if call.caller.sees_all else call.caller.sees
    found = call.backend.projects(limit=query.limit, after=query.after, visible=seen)
    return Page.made([v.Project.of(one) for one in found], query.limit, lambda one: one.name)


@handler("create_project")
def create_project(call: Call) -> Any:
    """Make a project."""
    return call.backend.create_project(call.sends(v.NewProject).name, actor=call.actor)


@handler("collections")
def collections(call: Call) -> Page[v.Collection]:
    """Collections of a project, by name."""
    query = call.asks(v.CollectionsQuery)
    found = call.backend.collections(call.project, kind=query.kind, limit=query.limit, after=query.after)
    return Page.made([v.Collection.of(one) for one in found], query.limit, lambda one: one.name)


@handler("versions")
def versions(call: Call) -> Page[v.Version]:
    """Versions of a collection, newest first."""
    query = call.asks(v.VersionsQuery)
    name = check_name(call.path["name"], field="name")
    tags = query.tags() or None
    found = call.backend.versions(call.project, name, tags=tags, limit=query.limit, before=query.before)
    return Page.made([v.Version.of(one) for one in found], query.limit, lambda one: one.number)


@handler("history")
def history(call: Call) -> Page[m.HistoryEntry]:
    """Moves of one alias, newest first."""
    query = call.asks(m.HistoryQuery)
    reference = local(call, query.reference)
    found = call.backend.history(call.project, reference, limit=query.limit, before=query.before)
    return Page.made([m.HistoryEntry.of(one) for one in found], query.limit, lambda one: one.move)


@handler("state")
def state(call: Call) -> Any:
    """What an alias meant, at a time."""
    query = call.asks(m.StateQuery)
    return call.backend.state(
        call.project, query.alias, at=query.at, limit=query.limit, after=query.after, revision=query.revision
    )


@handler("lineage")
def lineage(call: Call) -> Any:
    """The closure of a version, without what lies in projects that the caller may not see."""
    query = call.asks(n.LineageQuery)
    reference = local(call, query.reference)
    return call.backend.lineage(call.project, reference, query.direction, visible=call.caller.sees)


@handler("evidence")
def evidence(call: Call) -> e.Evidence:
    """A version and the reports on it."""
    query = call.asks(v.ReferenceQuery)
    version, reports = call.backend.evidence(call.project, local(call, query.reference))
    return e.Evidence.known(version=v.Version.of(version), reports=tuple([e.RecordedReport.of(one) for one in reports]))


@handler("signers")
def signers(call: Call) -> e.Signers:
    """Who signed a report."""
    query = call.asks(v.ReferenceQuery)
    found = call.backend.signers(call.project, local(call, query.reference))
    return e.Signers.known(
        signers=tuple([e.Signer.known(person=who, roles=roles, problem=why) for who, roles, why in found])
    )
