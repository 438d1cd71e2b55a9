"""Audit events: one for every change, written in the same transaction; and what a check of all of them found.

The entries of a registry, in the order in which they were committed, are the leaves of one Merkle tree (`merkle`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from llmartifacts.errors import InvalidManifest, InvalidValue, LlmartifactsError
from llmartifacts.records.arguments import shown
from llmartifacts.records.canonical import canonical_bytes, parse_json
from llmartifacts.records.times import parse_time, to_text

SCHEMA = "llmartifacts/audit/1"
ORIGIN = "llmartifacts/"
_ORIGIN = re.compile(f"{ORIGIN}[0-9a-f]{{16}}")
_TEXTS = ("project", "at", "actor", "verb", "subject")


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One recorded change.

    Attributes:
        project: Name of the project; empty for what concerns the whole registry.
        at: When, UTC.
        actor: Who.
        verb: What was done: `log`, `promote`, `rollback`, `yank`, `tag`, `project`, `run`, …
        subject: What it was done to: a reference, a promotion id, a run id.
        body: JSON object with the particulars.
    """

    project: str
    at: datetime
    actor: str
    verb: str
    subject: str
    body: Mapping[str, Any]

    def to_bytes(self) -> bytes:
        """The entry in canonical JSON: what is hashed, exported and proved."""
        return canonical_bytes(
            {
                "schema": SCHEMA,
                "project": self.project,
                "at": to_text(self.at),
                "actor": self.actor,
                "verb": self.verb,
                "subject": self.subject,
                "body": self.body,
            }
        )

    @classmethod
    def from_bytes(cls, entry: bytes | str, *, origin: str = "") -> AuditEvent:
        """Read an entry.

        Args:
            entry: Its canonical JSON.
            origin: Where it came from, for messages.

        Raises:
            InvalidManifest: It is no entry that a release writes.
        """
        given = parse_json(entry, field="audit", origin=origin)
        fields = {*_TEXTS, "schema", "body"}
        if not isinstance(given, dict) or given.keys() != fields or given["schema"] != SCHEMA:
            raise InvalidManifest("not an audit entry that this release knows", field="audit", origin=origin)
        if not all(isinstance(given[name], str) for name in _TEXTS) or not isinstance(given["body"], dict):
            raise InvalidManifest("a field of the audit entry has the wrong type", field="audit", origin=origin)
        try:
            at = parse_time(given["at"], field="audit.at")
        except LlmartifactsError as error:
            raise InvalidManifest.of(error, origin=origin) from None
        return cls(given["project"], at, given["actor"], given["verb"], given["subject"], given["body"])


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One entry as it is stored.

    Attributes:
        number: Its place, from 1, without gaps.
        event: What it says; None where it cannot be read.
        leaf: Hash of its leaf, 64 hex digits.
        damaged: What is wrong with it; empty if its hash is the recorded one and it can be read.
    """

    number: int
    event: AuditEvent | None
    leaf: str
    damaged: str = ""


@dataclass(frozen=True, slots=True)
class CheckpointFinding:
    """What one checkpoint, kept elsewhere, says of the audit.

    Attributes:
        source: Where it was kept.
        size: How many entries there were when it was signed.
        root: Root of the tree over them, 64 hex digits.
        ok: Whether the audit still begins with exactly those entries.
    """

    source: str
    size: int
    root: str
    ok: bool


@dataclass(frozen=True, slots=True)
class AuditVerification:
    """What a check of the whole audit found.

    Attributes:
        origin: Which registry: `llmartifacts/` and 16 hex digits of its first entry's hash.
        size: How many entries there are.
        root: Root of the tree over them, 64 hex digits.
        proven: How many entries, from the first, are proven to be those of a checkpoint.
        first_wrong: Number of the first entry that is wrong, as far as that can be known; None if it cannot.
        checkpoints: What each checkpoint says, in the order given.
        problems: What is wrong; empty if nothing is.
    """

    origin: str
    size: int
    root: str
    proven: int = 0
    first_wrong: int | None = None
    checkpoints: tuple[CheckpointFinding, ...] = ()
    problems: tuple[LlmartifactsError, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def check_origin(value: object, *, field: str) -> str:
    """Check the identity of a registry.

    Raises:
        InvalidValue: It is not what `origin_of` gives.
    """
    if not isinstance(value, str) or not _ORIGIN.fullmatch(value):
        raise InvalidValue(f"{shown(value, 60)} is not the identity of a registry", field=field)
    return value


def origin_of(first: bytes) -> str:
    """The identity of a registry in its checkpoints, by the hash of its first entry.

    Args:
        first: Hash of the leaf, 32 bytes.
    """
    return f"{ORIGIN}{first.hex()[:16]}"


def entries_told(number: int) -> str:
    """A number of entries for people: `1 entry`, `2 entries`."""
    return "1 entry" if number == 1 else f"{number:,} entries"
