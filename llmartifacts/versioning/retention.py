"""Retention: which versions no rule keeps, and nothing holds.

held        by an alias now or within its history window, `latest`, a lease, the policy; the reports that let those
            in, and what they were measured against
stays       what a rule keeps, and what a bundle that stays contains
removed     the rest
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from llmartifacts.errors import LlmartifactsError
from llmartifacts.metadata import leases, policies, projects, retained, versions
from llmartifacts.metadata.aliases import parse_results
from llmartifacts.metadata.database import Session
from llmartifacts.metadata.versions import VersionRow
from llmartifacts.records.digest import Digest, parse_digest
from llmartifacts.records.reference import Reference
from llmartifacts.records.retention import Retention
from llmartifacts.versioning.parts import Parts
from llmartifacts.versioning.removal import remove

_MICROS = 1_000_000


def apply(parts: Parts, rules: Retention, *, actor: str) -> list[str]:
    """Remove what no rule keeps, in one transaction; returns the references. Raises `NotFound`."""
    with parts.metadata.writing() as s:
        project_id, _ = projects.lock_project(s, rules.project)
        rows = chosen(s, parts, rules)
        remove(s, project_id, rules.project, rows, actor=actor, reason=rules.reason, rule=rules.rule, at=s.now())
        return [str(row.version) for row in rows]


def chosen(s: Session, parts: Parts, rules: Retention) -> list[VersionRow]:
    """The versions that the rules would remove now, the oldest first.

    Raises:
        NotFound: There is no such project, or a collection that is named is not in it.
    """
    project_id, _ = projects.find_project(s, rules.project)
    going = _candidates(s, project_id, rules)
    if not going:
        return []
    going -= held(s, parts, project_id, rules.project, s.now() - int(rules.history.total_seconds() * _MICROS))
    inside: dict[int, list[int]] = {}
    for bundle, part in retained.contained(s, project_id):
        inside.setdefault(bundle, []).append(part)
    left = [bundle for bundle in inside if bundle not in going]
    while left:
        for part in inside.get(left.pop(), ()):
            if part in going:
                going.discard(part)
                left.append(part)
    return versions.by_id(s, rules.project, sorted(going))


def _candidates(s: Session, project_id: int, rules: Retention) -> set[int]:
    """Ids of the versions that no rule keeps."""
    named = [projects.find_collection(s, project_id, name).id for name in rules.collections] or None
    since = None if rules.keep_within is None else s.now() - int(rules.keep_within.total_seconds() * _MICROS)
    found: set[int] = set()
    for of_one in retained.newest_first(s, project_id, named):
        found |= {i for i, at in of_one[rules.keep_last or 0 :] if since is None or at < since}
    return found


# --- what is held


def held(s: Session, parts: Parts, project_id: int, project: str, since: int) -> set[int]:
    """Ids of the versions of a project that are held, whatever the rules say.

    Args:
        s: A transaction.
        parts: The stores.
        project_id: Id of the project.
        project: Its name.
        since: Since when an alias must have named a version, in microseconds since 1970, UTC.
    """
    found = retained.named(s, project_id, since)
    found |= retained.of_digests(s, project_id, leases.digests(s, project_id))
    record = policies.current(s, project_id, project)
    if record is not None:
        named = _named_in(s, project_id, project, _texts(record.body))
        found |= named | _measured_against(s, parts, project_id, project, named)
    evidence = (
        name
        for text in retained.results(s, project_id, since)
        for result in parse_results(text)
        for name in result.evidence
    )
    reports = _named_in(s, project_id, project, evidence)
    return found | reports | _measured_against(s, parts, project_id, project, reports)


def _measured_against(s: Session, parts: Parts, project_id: int, project: str, reports: set[int]) -> set[int]:
    """Suites, datasets, targets and baselines of reports; and what suites name."""
    found: set[int] = set()
    digests: set[Digest] = set()
    for row in versions.by_id(s, project, sorted(reports)):
        found |= retained.parents(s, row.id)
        with suppress(LlmartifactsError):
            texts = list(_texts(parts.manifest(s, row.version.digest, None).config))
            found |= _named_in(s, project_id, project, texts)
            digests |= set(_digests(texts))
    return found | retained.of_digests(s, project_id, digests)


def _named_in(s: Session, project_id: int, project: str, texts: Iterable[str]) -> set[int]:
    """Ids of the versions that some texts name, as far as they are references of this project, latest ones too."""
    found: set[int] = set()
    for text in dict.fromkeys(texts):
        try:
            reference = Reference.parse(text).or_latest()
            if reference.project in (None, project):
                found.add(versions.find(s, project_id, project, reference).id)
        except LlmartifactsError:
            continue  # a word that is no reference, or names nothing
    return found


def _texts(value: Any) -> Iterator[str]:
    """Every text in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, Sequence):
        for inner in value:
            yield from _texts(inner)


def _digests(texts: Iterable[str]) -> Iterator[Digest]:
    for text in texts:
        with suppress(LlmartifactsError):
            yield parse_digest(text)
