"""Leases: what a lockfile or a service holds for a time, so that no retention rule removes it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from llmartifacts.errors import NotAllowed, TooLarge
from llmartifacts.metadata import audit, leases, projects, versions
from llmartifacts.records.leases import MAX_HELD, MAX_OF_ACCOUNT, Lease, check_length
from llmartifacts.records.reference import Reference
from llmartifacts.records.times import from_micros
from llmartifacts.versioning.parts import Parts


def lease(
    parts: Parts, project: str, references: Sequence[Reference], *, holder: str, length: timedelta, actor: str
) -> Lease:
    """Hold some versions for a time, and no others under that name; for no time at all, let go of them.

    Args:
        parts: The stores.
        project: Name of the project.
        references: The versions, each with a selector; what is held is the content that each names now.
        holder: Who holds them, in their words.
        length: How long, from now.
        actor: Who asks.

    Raises:
        NotFound: A version is not there.
        Removed: It was removed.
        TooLarge: There are too many.
        NotAllowed: Somebody else holds something under that name, or the caller holds too much.
    """
    check_length(length)
    if len(references) > MAX_HELD:
        raise TooLarge(f"{len(references):,} versions, and one holder may hold {MAX_HELD:,}", field="references")
    with parts.metadata.writing() as s:
        project_id, _ = projects.find_project(s, project)
        owner = leases.account_of(s, project_id, holder)
        if parts.authenticated and owner not in (None, actor):
            raise NotAllowed(
                f"{holder!r} holds versions for somebody else", field="holder", next_step="Choose another name."
            )
        now = s.now()
        until = now + int(length.total_seconds() * 1_000_000)
        found = [versions.find(s, project_id, project, one).version for one in references]
        digests = tuple(sorted({version.digest for version in found})) if until > now else ()
        leases.put(s, project_id, digests, holder, until=until, at=now, account=actor)
        if parts.authenticated and leases.count_of(s, actor) > MAX_OF_ACCOUNT:
            raise NotAllowed(
                f"{actor} would hold more than {MAX_OF_ACCOUNT:,} versions",
                field="references",
                next_step="Let go of leases that nobody needs.",
            )
        audit.record(
            s,
            project_id,
            project,
            actor=actor,
            verb="lease",
            subject=holder,
            at=now,
            until=from_micros(until).isoformat(),
            versions=sorted(str(version.reference) for version in found) if digests else [],
        )
        return Lease(project, holder, digests, from_micros(until), from_micros(now), actor)


def list_leases(parts: Parts, project: str) -> list[Lease]:
    """Every lease of a project that has not ended, by holder."""
    with parts.metadata.reading() as s:
        return leases.of_project(s, projects.find_project(s, project)[0], project)
