"""The last-known-good set: what a service started from last, kept so that it starts again with the registry gone.

    <cache>/known-good/<sha256 of location, project and references>.json

The record names digests only. The bytes lie in the cache under those digests and are verified again when they are used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llmartifacts.blobs.failures import storage_error
from llmartifacts.errors import InvalidManifest, LlmartifactsError, NewerFormat
from llmartifacts.records.canonical import canonical_bytes, parse_json
from llmartifacts.records.digest import digest_of
from llmartifacts.records.lock import MAX_BYTES, Lockfile
from llmartifacts.records.reference import Reference
from llmartifacts.records.times import parse_time, to_text
from llmartifacts.runtime.text_file import read_bounded, write_atomically

SCHEMA = "llmartifacts/known-good/1"
FOLDER = "known-good"
_NAME = re.compile(r"[0-9a-f]{64}\.json")
_LATER = re.compile(r"llmartifacts/known-good/[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a service asked for; each has a record of its own.

    Attributes:
        location: The registry's place, absolute.
        project: Name of the project.
        references: Component name -> reference as asked for.
    """

    location: str
    project: str
    references: Mapping[str, Reference]

    def body(self) -> dict[str, object]:
        """Plain values, for the record and its name."""
        return {
            "location": self.location,
            "project": self.project,
            "references": {name: str(r.within(self.project)) for name, r in self.references.items()},
        }

    def path(self, root: Path) -> Path:
        """The record's file, below the cache's folder."""
        return root / FOLDER / _named(self.body())


@dataclass(frozen=True, slots=True)
class KnownGood:
    """A set that a service has started from.

    Attributes:
        lock: Its digests.
        saved: When the registry last gave it, UTC, by this host's clock.
        registry: Which registry it was, as it says itself; empty if unknown.
    """

    lock: Lockfile
    saved: datetime
    registry: str = ""

    def age(self) -> float:
        """Seconds since it was saved; a clock that was set back counts just as much."""
        return abs((datetime.now(UTC) - self.saved).total_seconds())


def keep(root: Path, asked: Asked, lock: Lockfile, registry: str = "") -> None:
    """Write the record, atomically; the one before is replaced.

    Args:
        root: The cache's folder.
        asked: What was asked for.
        lock: What the registry gave.
        registry: Which registry it is; empty if unknown.

    Raises:
        LlmartifactsError: The cache cannot be written.
    """
    body: dict[str, object] = {
        "schema": SCHEMA,
        "asked": asked.body(),
        "saved": to_text(datetime.now(UTC)),
        "lock": json.loads(lock.to_text()),
        **({"registry": registry} if registry else {}),
    }
    body["check"] = digest_of(canonical_bytes(body))  # over all the rest: a torn or altered record is none
    write_atomically(asked.path(root), json.dumps(body, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def recall(root: Path, asked: Asked) -> KnownGood | None:
    """Read the record of what was asked for; None if there is none.

    Raises:
        InvalidManifest: It was altered, or is of another question.
        LlmartifactsError: It cannot be read.
    """
    path = asked.path(root)
    try:
        text = read_bounded(path, MAX_BYTES, follow=False)
    except FileNotFoundError:
        return None
    body = parse_json(text, field="known-good", origin=str(path), max_bytes=MAX_BYTES)
    if not isinstance(body, dict) or body.get("schema") != SCHEMA or body.get("asked") != asked.body():
        raise InvalidManifest("the last-known-good record is not of this service", origin=str(path))
    return _record(body, path)


def records(root: Path) -> Iterator[tuple[Path, KnownGood | LlmartifactsError]]:
    """Every record that is kept, by the name of its file, or what is wrong with it.

    Args:
        root: The cache's folder.
    """
    folder = root / FOLDER
    try:
        names = sorted(path.name for path in folder.iterdir() if _NAME.fullmatch(path.name))
    except FileNotFoundError:
        return
    except OSError as error:
        yield folder, storage_error(error, "list", folder)
        return
    for name in names:
        with suppress(FileNotFoundError):  # removed since the folder was listed
            yield folder / name, _read(folder / name)


def _read(path: Path) -> KnownGood | LlmartifactsError:
    try:
        text = read_bounded(path, MAX_BYTES, follow=False)
        body = parse_json(text, field="known-good", origin=str(path), max_bytes=MAX_BYTES)
        schema = body.get("schema") if isinstance(body, dict) else None
        if isinstance(schema, str) and schema != SCHEMA and _LATER.fullmatch(schema):
            raise NewerFormat(f"the last-known-good record has schema {schema!r}", origin=str(path))
        if not isinstance(body, dict) or schema != SCHEMA or _named(body.get("asked")) != path.name:
            raise InvalidManifest("the last-known-good record is not what its name says", origin=str(path))
        return _record(body, path)
    except LlmartifactsError as error:
        return error


def _named(asked: object) -> str:
    return f"{digest_of(canonical_bytes(asked))[7:]}.json"


def _record(body: dict[str, Any], path: Path) -> KnownGood:
    if body.pop("check", None) != digest_of(canonical_bytes(body)):
        raise InvalidManifest("the last-known-good record was altered", origin=str(path))
    try:
        saved = parse_time(body.get("saved", ""))
        registry = body.get("registry", "")
        return KnownGood(
            Lockfile.from_text(json.dumps(body.get("lock")), origin=str(path)),
            saved,
            registry if isinstance(registry, str) else "",
        )
    except LlmartifactsError as error:
        raise InvalidManifest(f"the last-known-good record is damaged: {error}", origin=str(path)) from error
