r"""The format of exports: collections with everything they need, in one file that is read from beginning to end.

    head     8 bytes, `LLMAEX1\n`
    frames   one after another: a letter, the length of what follows (u64, little-endian), and that
             H  what it is: canonical JSON, once, first
             B  a file begins: its digest (32 bytes) and its size (u64)
             D  its next part: 0 or 1 (whether it is one Zstandard frame), its bytes unpacked (u32), the part
             V  a version: canonical JSON; the files that it needs came before, and its parts where they are in the file
             S  at most once: an envelope (DSSE) that signs the SHA-256 of all that is before it
             E  the SHA-256 of all that is before it; nothing comes after it

Not a zip or a tar archive: in those one name may be there twice, a member may be a link or climb out of a folder, two
tables say where things are, and a reader has to choose whom to believe. Here there are no names of files to unpack to,
one order, one digest for each file and one over all, and no part that is larger unpacked than 1 MiB.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, get_args

from llmartifacts.errors import Damaged, LlmartifactsError, NewerFormat
from llmartifacts.records.canonical import canonical_bytes, parse_json
from llmartifacts.records.digest import Digest, parse_digest
from llmartifacts.records.lineage import Relation
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.names import check_alias, check_name, check_tags
from llmartifacts.records.times import parse_time, to_text

HEAD = b"LLMAEX1\n"
FAMILY = b"LLMAEX"
SCHEMA = "llmartifacts/export/1"
_FAMILY = "llmartifacts/export/"
PART = 1024 * 1024
"""Bytes of a part of a file, unpacked."""
MAX_HEADER = 1024 * 1024
MAX_VERSION = 80 * 1024 * 1024
"""Bytes of a version as JSON: a manifest has at most 32 MiB, and its quotes are written twice as long."""
MAX_SIGNATURE = 1024 * 1024
MAX_INPUTS = 1000
MAX_ALIASES = 64
_ORIGIN = re.compile(r"llmartifacts/[0-9a-f]{16}")
_ROOT = re.compile(r"[0-9a-f]{64}")
_STEP = "Have it exported again, and carried over whole."


@dataclass(frozen=True, slots=True)
class ExportHeader:
    """What an export is.

    Attributes:
        origin: Which registry it is of: the origin of its audit.
        by: Who exported it.
        at: When, UTC.
        entries: Entries of that registry's audit then.
        root: Root of the tree over them, 64 hex digits.
    """

    origin: str
    by: str
    at: datetime
    entries: int
    root: str

    def to_bytes(self) -> bytes:
        """The header in canonical JSON."""
        audit = {"entries": self.entries, "root": self.root}
        said = {"schema": SCHEMA, "origin": self.origin, "by": self.by, "at": to_text(self.at), "audit": audit}
        return canonical_bytes(said, field="export")

    @classmethod
    def from_bytes(cls, data: bytes, origin: str) -> ExportHeader:
        """Read a header. Raises `Damaged`, `NewerFormat`."""
        given = _parsed(data, MAX_HEADER, origin)
        schema = given.get("schema")
        if isinstance(schema, str) and schema != SCHEMA and schema.startswith(_FAMILY):
            raise NewerFormat(f"the export has the form {schema!r:.60}", field="export", origin=origin)
        with _Reading(origin):
            if given.keys() != {"schema", "origin", "by", "at", "audit"} or schema != SCHEMA:
                raise ValueError("its header is none")
            audit = given["audit"]
            if not _ORIGIN.fullmatch(given["origin"]) or not _ROOT.fullmatch(audit["root"]):
                raise ValueError("its header names no registry")
            entries = _count(audit["entries"], 1)
            return cls(given["origin"], _line(given["by"]), parse_time(_line(given["at"])), entries, audit["root"])
        raise AssertionError


@dataclass(frozen=True, slots=True)
class ExportedInput:
    """An edge of lineage.

    Attributes:
        project: Project of the parent.
        name: Its collection.
        number: Its number.
        digest: Its digest.
        relation: What it was to the child.
        role: Role in the bundle, for `contains`.
    """

    project: str
    name: str
    number: int
    digest: Digest
    relation: Relation
    role: str = ""


@dataclass(frozen=True, slots=True)
class ExportedVersion:
    """One version.

    Attributes:
        project: Name of its project.
        name: Name of its collection.
        number: N of `vN`.
        manifest: What it is.
        at: When it was logged, UTC.
        author: Who logged it.
        message: What was said of it.
        git_commit: Commit of the code that logged it.
        tags: Free labels.
        aliases: Aliases that pointed at it, without `latest`.
        latest: Whether it was the one last logged.
        yanked: Why it was withdrawn; None if it was not.
        inputs: Its edges.
    """

    project: str
    name: str
    number: int
    manifest: Manifest
    at: datetime
    author: str
    message: str = ""
    git_commit: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    latest: bool = False
    yanked: str | None = None
    inputs: tuple[ExportedInput, ...] = ()

    @property
    def label(self) -> str:
        """`project/name:vN`, for messages."""
        return f"{self.project}/{self.name}:v{self.number}"

    def to_bytes(self) -> bytes:
        """The version in canonical JSON."""
        return canonical_bytes(
            {
                "project": self.project,
                "name": self.name,
                "number": self.number,
                "digest": self.manifest.digest,
                "manifest": self.manifest.to_bytes().decode(),
                "at": to_text(self.at),
                "author": self.author,
                "message": self.message,
                "git_commit": self.git_commit,
                "tags": dict(self.tags),
                "aliases": list(self.aliases),
                "latest": self.latest,
                "yanked": self.yanked,
                "inputs": [
                    {
                        "project": one.project,
                        "name": one.name,
                        "number": one.number,
                        "digest": one.digest,
                        "relation": one.relation,
                        "role": one.role,
                    }
                    for one in self.inputs
                ],
            },
            field="version",
        )

    @classmethod
    def from_bytes(cls, data: bytes, origin: str) -> ExportedVersion:
        """Read a version; its manifest is verified. Raises `Damaged`, `NewerFormat`."""
        given = _parsed(data, MAX_VERSION, origin)
        with _Reading(origin):
            if given.keys() != _VERSION:
                raise ValueError("a version has other fields than versions have")
            digest = parse_digest(given["digest"])
            return cls(
                check_name(given["project"], field="project"),
                check_name(given["name"], field="name"),
                _count(given["number"], 1, 999_999_999),
                Manifest.from_bytes(given["manifest"].encode(), expect=digest, origin=origin),
                parse_time(_line(given["at"])),
                _line(given["author"]),
                _text(given["message"]),
                _text(given["git_commit"]),
                check_tags(given["tags"]),
                tuple(check_alias(alias, field="aliases") for alias in _list(given["aliases"], MAX_ALIASES)),
                _bool(given["latest"]),
                None if given["yanked"] is None else _text(given["yanked"]),
                tuple(map(_input, _list(given["inputs"], MAX_INPUTS))),
            )
        raise AssertionError

    @classmethod
    def known(cls, data: bytes) -> ExportedVersion:
        """Read a version that `from_bytes` read before, in this process: nothing is checked again.

        Args:
            data: The very same bytes.
        """
        given = json.loads(data.decode())
        return cls(
            given["project"],
            given["name"],
            given["number"],
            Manifest.known(given["manifest"], Digest(given["digest"])),
            parse_time(given["at"]),
            given["author"],
            given["message"],
            given["git_commit"],
            given["tags"],
            tuple(given["aliases"]),
            given["latest"],
            given["yanked"],
            tuple(ExportedInput(**{**one, "digest": Digest(one["digest"])}) for one in given["inputs"]),
        )


_VERSION = frozenset(ExportedVersion.__slots__) | {"digest"}
_RELATIONS = frozenset(get_args(Relation))


class _Reading:
    """What goes wrong with what somebody wrote, as `Damaged`."""

    def __init__(self, origin: str) -> None:
        self._origin = origin

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, NewerFormat):
            return
        if isinstance(error, LlmartifactsError | KeyError | TypeError | ValueError | AttributeError):
            what = error.message if isinstance(error, LlmartifactsError) else f"{type(error).__name__}: {error}"
            raise damaged(what, self._origin) from None


def damaged(what: str, origin: str) -> Damaged:
    """The error for an export that is not what it claims to be."""
    return Damaged(f"the export is damaged, or somebody made it up: {what:.500}", file=origin, next_step=_STEP)


def _parsed(data: bytes, most: int, origin: str) -> dict[str, Any]:
    with _Reading(origin):
        given = parse_json(data, max_bytes=most, origin=origin)
        if not isinstance(given, dict):
            raise TypeError("no object")
        return given
    raise AssertionError


def _input(given: Any) -> ExportedInput:
    if given.keys() != {"project", "name", "number", "digest", "relation", "role"}:
        raise ValueError("an input has other fields")
    relation = given["relation"]
    if relation not in _RELATIONS:
        raise ValueError(f"{relation!r:.40} is no relation")
    role = given["role"]
    if role != "":
        check_name(role, field="role")
    return ExportedInput(
        check_name(given["project"], field="project"),
        check_name(given["name"], field="name"),
        _count(given["number"], 1, 999_999_999),
        parse_digest(given["digest"]),
        relation,
        role,
    )


def _list(value: Any, most: int) -> Sequence[Any]:
    if type(value) is not list or len(value) > most:
        raise ValueError("a list is none, or too long")
    return value


def _count(value: Any, least: int = 0, most: int = 2**53 - 1) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError("a number is none")
    return value


def _bool(value: Any) -> bool:
    if type(value) is not bool:
        raise TypeError("neither true nor false")
    return value


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError("a text is none")
    return value


def _line(value: Any) -> str:
    text = _text(value)
    if not text.isprintable() or len(text) > 1024:
        raise ValueError("a line of text is none")
    return text
