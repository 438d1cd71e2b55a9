"""Are the versions and projects that the audit tells of as removed, and no others, marked so, as it says?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from llmartifacts.metadata import removals
from llmartifacts.metadata.database import Session
from llmartifacts.records.canonical import canonical_bytes
from llmartifacts.records.digest import digest_from_bytes, digest_of, parse_digest
from llmartifacts.records.reference import Reference
from llmartifacts.records.times import from_micros, to_text

Key = tuple[str, str, int]
"""Keys of project and collection, and number of a version."""
_REMOVED = (
    "select p.name_key, c.name_key, v.number, v.removed_at, v.removed_by, v.remove_reason, v.remove_rule, v.digest"
    " from version v join collection c on c.id = v.collection_id join project p on p.id = c.project_id"
    " where v.removed_at is not null"
)


@dataclass
class RemovalsTold:
    """What entries told of removals so far.

    Attributes:
        versions: Each version that is removed -> time, who, reason, rule, digest.
        erased: Digests of the manifests that were emptied.
        projects: Key of each project that is removed -> its name, time, and the digest of its list of digests.
    """

    versions: dict[Key, tuple[str, str, str, str, str]] = field(default_factory=dict)
    erased: set[str] = field(default_factory=set)
    projects: dict[str, tuple[str, str, str]] = field(default_factory=dict)

    def tell(self, event: Mapping[str, Any]) -> None:
        """Take one entry. Raises `KeyError`, `TypeError` or an error of this package where it is none."""
        verb, body = event["verb"], event["body"]
        if verb == "log":
            if body["created"] or body.get("restored"):
                self.erased.discard(body["digest"])
            if body.get("restored"):
                self.versions.pop(_key(event), None)
        elif verb == "version-remove":
            said = (event["at"], event["actor"], body["reason"], body["rule"], parse_digest(body["digest"]))
            self.versions[_key(event)] = said
            if body["erased"]:
                self.erased.add(body["digest"])
        elif verb == "version-empty":
            self.erased.add(parse_digest(body["digest"]))
        elif verb == "project-remove":
            self.projects[event["subject"].casefold()] = (event["subject"], event["at"], body["list"])


def disagreements(s: Session, told: RemovalsTold) -> Iterator[str]:
    """Where what is removed is not what the audit says, one readable line each."""
    left = dict(told.versions)
    for project, name, number, at, actor, reason, rule, digest in s.rows(_REMOVED):
        said = left.pop((project, name, number), None)
        label = f"{name}:v{number} of the project {project}"
        if said is None:
            yield f"{label} is marked as removed, and the audit does not tell of it"
        elif said != (to_text(from_micros(at)), actor, reason, rule, digest_from_bytes(digest)):
            yield f"{label} was not removed as the audit says"
    for project, name, number in left:
        yield f"{name}:v{number} of the project {project} is there, and the audit tells that it was removed"
    erased = {digest_from_bytes(row[0]) for row in s.rows("select digest from manifest where erased_at is not null")}
    for one in sorted(erased ^ told.erased):
        is_, tells = ("is", "does not tell") if one in erased else ("is not", "tells")
        yield f"the manifest {one} {is_} erased, and the audit {tells} of it"
    closed = {
        row[0]: (row[1], row[2], row[3])
        for row in s.rows("select name_key, id, name, removed_at from project where removed_at is not null")
    }
    for key in sorted(closed.keys() ^ told.projects.keys()):
        is_, tells = ("is", "does not tell") if key in closed else ("is not", "tells")
        yield f"the project {key} {is_} removed, and the audit {tells} of it"
    for key, (_, at_text, listed) in told.projects.items():
        if key in closed:
            project_id, name, at = closed[key]
            if to_text(from_micros(at)) != at_text or listed != list_digest(s, project_id):
                yield f"the project {name} was not removed as the audit says"


def list_digest(s: Session, project_id: int) -> str:
    """SHA-256 of the list of all digests that a project ever had, as canonical JSON."""
    return digest_of(canonical_bytes(removals.digests(s, project_id)))


def _key(event: Mapping[str, Any]) -> Key:
    reference = Reference.parse(event["subject"])
    return event["project"].casefold(), reference.name.casefold(), reference.number or 0
