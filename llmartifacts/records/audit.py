"""Audit events: one for every change, written in the same transaction.

Leaf hashes follow RFC 6962 (SHA-256 over a zero byte and the entry), in order, so that a Merkle tree can be laid over.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from llmartifacts.records.canonical import canonical_bytes
from llmartifacts.records.times import to_text

SCHEMA = "llmartifacts/audit/1"


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One recorded change.

    Attributes:
        project: Name of the project.
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


def leaf_hash(entry: bytes) -> bytes:
    """Hash of a Merkle leaf. Source: RFC 6962, section 2.1."""
    return hashlib.sha256(b"\x00" + entry).digest()
