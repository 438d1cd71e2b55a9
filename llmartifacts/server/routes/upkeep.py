"""Checks, sizes, and what frees space."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from llmartifacts.server.answers import without_places
from llmartifacts.server.calls import Call, handler
from llmartifacts.wire.bodies import upkeep as c


@handler("verify")
def verify(call: Call) -> Any:
    """Check that all is there."""
    asked = call.sends(c.VerifyRequest)
    found = call.backend.verify(read_data=asked.read_data, subset=asked.subset, project=asked.project, name=asked.name)
    return replace(found, problems=tuple([without_places(one, call.state.places) for one in found.problems]))


@handler("stats")
def stats(call: Call) -> Any:
    """Bytes of a project."""
    return call.backend.stats(call.project, call.asks(c.StatsQuery).name)


@handler("registry_stats")
def registry_stats(call: Call) -> Any:
    """Bytes of the whole registry."""
    return call.backend.stats()


@handler("gc")
def gc(call: Call) -> Any:
    """Free what no version needs."""
    body = call.sends(c.CollectRequest)
    rules = None if body.rules is None else body.rules.record()
    grace = None if body.grace is None else timedelta(seconds=body.grace)
    return call.backend.gc(dry_run=body.dry_run, compact=body.compact, grace=grace, rules=rules, actor=call.actor)


@handler("migrate")
def migrate(call: Call) -> Any:
    """Cut large blobs into chunks."""
    return call.backend.migrate(dry_run=call.sends(c.MigrateRequest).dry_run, actor=call.actor)
