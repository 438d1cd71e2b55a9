"""Lockfiles: `llmartifacts.lock`, the exact digests a service resolved.

JSON with sorted keys, one entry a component, so that a review shows what moved.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llmartifacts.errors import InvalidManifest, InvalidReference, NewerFormat, TooLarge
from llmartifacts.records.arguments import shown
from llmartifacts.records.canonical import canonical_bytes, parse_json
from llmartifacts.records.digest import Digest, digest_of, parse_digest
from llmartifacts.records.names import check_name, version_number
from llmartifacts.records.reference import Reference

SCHEMA = "llmartifacts/lock/1"
_SCHEMA_FAMILY = "llmartifacts/lock/"
FILE_NAME = "llmartifacts.lock"
MAX_BYTES = 16 * 1024 * 1024
MAX_COMPONENTS = 1000
MAX_NAME = 128


@dataclass(frozen=True, slots=True)
class Locked:
    """One component as it was resolved.

    Attributes:
        reference: The reference that was asked for, such as `support-agent:prod`.
        kind: Its kind.
        number: Version number it resolved to.
        digest: Manifest digest.
        size: Logical bytes.
        move: Move number of the alias; None if it was not asked for by alias.
    """

    reference: str
    kind: str
    number: int
    digest: Digest
    size: int
    move: int | None = None

    @property
    def name(self) -> str:
        """Name of the collection."""
        return Reference.parse(self.reference).name


@dataclass(frozen=True, slots=True)
class Lockfile:
    """Everything a service resolved, at one revision.

    Attributes:
        project: Name of the project.
        revision: The project's revision.
        components: Field or component name -> what it resolved to.
    """

    project: str
    revision: int
    components: Mapping[str, Locked] = field(default_factory=dict)

    @property
    def set_digest(self) -> Digest:
        """One digest for the whole set: over names and manifest digests only."""
        return digest_of(canonical_bytes({name: c.digest for name, c in self.components.items()}))

    def to_text(self) -> str:
        """The file's text."""
        body: dict[str, Any] = {
            "schema": SCHEMA,
            "project": self.project,
            "revision": self.revision,
            "set": self.set_digest,
            "components": {
                name: {
                    "reference": c.reference,
                    "kind": c.kind,
                    "version": f"v{c.number}",
                    "digest": c.digest,
                    "size": c.size,
                    **({"move": c.move} if c.move is not None else {}),
                }
                for name, c in self.components.items()
            },
        }
        body["check"] = _check(body)
        return json.dumps(body, indent=2, sort_keys=True, ensure_ascii=False) + "\n"

    @classmethod
    def from_text(cls, text: str | bytes, *, origin: str = FILE_NAME) -> Lockfile:
        """Read a lockfile.

        Raises:
            InvalidManifest: It is no lockfile, or was edited so that its parts disagree.
            NewerFormat: Written by a newer release.
        """
        body = parse_json(text, field="lockfile", origin=origin, max_bytes=MAX_BYTES)
        schema = body.get("schema") if isinstance(body, dict) else None
        if schema != SCHEMA:
            if isinstance(schema, str) and schema.startswith(_SCHEMA_FAMILY):
                raise NewerFormat(f"the lockfile has schema {schema!r}", origin=origin)
            raise InvalidManifest("not a lockfile", field="schema", origin=origin, next_step=_AGAIN)
        try:
            project = check_name(body["project"], field="project")
            if len(body["components"]) > MAX_COMPONENTS:
                raise TooLarge(
                    f"{len(body['components'])} components, the limit is {MAX_COMPONENTS}",
                    field="components",
                    origin=origin,
                    next_step=_AGAIN,
                )
            parts = {name: cls._entry(name, c, project) for name, c in body["components"].items()}
            made = cls(project, _whole(body["revision"]), parts)
            stated = body["set"]
        except InvalidReference as error:
            raise InvalidManifest(error.message, field=error.field, origin=origin, next_step=_AGAIN) from None
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise InvalidManifest(
                f"a field is missing or of the wrong type: {error}", origin=origin, next_step=_AGAIN
            ) from None
        if stated != made.set_digest:
            raise InvalidManifest(
                "the digests do not agree with 'set': the lockfile was edited by hand",
                field="set",
                origin=origin,
                next_step=_AGAIN,
            )
        if "check" in body and body["check"] != _check({k: v for k, v in body.items() if k != "check"}):
            raise InvalidManifest(
                "what it says does not agree with 'check': the lockfile was edited by hand",
                field="check",
                origin=origin,
                next_step=_AGAIN,
            )
        return made

    @staticmethod
    def _entry(name: str, c: Mapping[str, Any], project: str) -> Locked:
        if not name or len(name) > MAX_NAME or not name.isprintable():
            raise ValueError(f"{shown(name)} is no name of a component")
        where = f"components.{name}"
        reference = Reference.parse(c["reference"], field=f"{where}.reference")
        if not reference.selects:
            raise ValueError(f"{where}.reference names no version")
        if reference.project not in (None, project):
            raise ValueError(f"{where}.reference lies outside the project {project!r}")
        number = version_number(c["version"])
        if number is None:
            raise ValueError(f"{where}.version is {shown(c['version'])}")
        move = c.get("move")
        return Locked(
            str(reference),
            check_name(c["kind"], field=f"{where}.kind"),
            number,
            parse_digest(c["digest"], field=f"{where}.digest"),
            _whole(c["size"]),
            None if move is None else _whole(move),
        )


def _check(body: Mapping[str, Any]) -> Digest:
    """Over all of a lockfile: versions, revision and project too, which nothing can verify without the registry."""
    return digest_of(canonical_bytes(body))


_AGAIN = "Have back the one that `llmartifacts lock` wrote; or remove it, and write it anew: llmartifacts lock SPEC."


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{shown(value)} is not a whole number")
    return value
