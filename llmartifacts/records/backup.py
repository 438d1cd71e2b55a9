"""The format of backups: what lies in the place that holds them.

    backups/0000000007     the record of one backup, written last: a backup without one is none
    objects/ab/<hex>       bytes by the SHA-256 of what is stored: pieces of tables, small files, recipes, packs

A record is canonical JSON, a line feed, the digest of that JSON, a line feed. It names streams, each a number of pieces
in order; a piece is one Zstandard frame (RFC 8878) of lines, each a JSON array: a row. There is a stream for each table
of the database, and two for what is stored: `objects` and `packs`, whose rows are a key of the registry's own store,
the bytes there, and the digest under which a backup has them. Bytes in a row are text of characters up to U+00FF.

Nothing in such a place is believed: a digest is checked before anything is unpacked, a row before it is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmartifacts.errors import Damaged, DigestMismatch, LlmartifactsError, NewerFormat
from llmartifacts.records.canonical import canonical_bytes, parse_json
from llmartifacts.records.digest import Digest, digest_of, parse_digest
from llmartifacts.records.names import check_name

SCHEMA = "llmartifacts/backup/1"
_FAMILY = "llmartifacts/backup/"
RECORDS = "backups/"
OBJECTS = "objects/"
MAX_RECORD = 256 * 1024 * 1024
"""Bytes of a record."""
MAX_PIECE = 128 * 1024 * 1024
"""Bytes of a piece, unpacked: a writer makes them of some 256 KiB, and one row may have 64 MiB."""
MAX_NUMBER = 10**10 - 1
_SUM = 72
_KEY = re.compile(r"backups/([0-9]{10})")
_ORIGIN = re.compile(r"llmartifacts/[0-9a-f]{16}")
_WRITE = re.compile(r"[0-9a-f]{32}")
_ROOT = re.compile(r"[0-9a-f]{64}")
_FIELDS = frozenset(
    ("schema", "number", "write", "origin", "at", "database", "audit", "versions", "stored", "sent", "tables", "bytes")
)


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a stream.

    Attributes:
        digest: SHA-256 of the stored bytes.
        stored: Their number.
        length: Bytes of its lines.
        rows: How many lines.
    """

    digest: Digest
    stored: int
    length: int
    rows: int


@dataclass(frozen=True, slots=True)
class Stream:
    """Rows, in order.

    Attributes:
        name: Name of the table, or `objects` or `packs`.
        columns: Names of the columns.
        pieces: Where the rows are.
    """

    name: str
    columns: tuple[str, ...]
    pieces: tuple[Piece, ...]

    @property
    def rows(self) -> int:
        """How many rows."""
        return sum(piece.rows for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup, in short.

    Attributes:
        number: Its number in its place, from 1.
        id: 32 hex digits by chance; the first 4 or more name it too.
        origin: Which registry: the origin of its audit.
        at: When the registry was as the backup has it: RFC 3339, UTC, by the database's clock.
        schema: Number of the database's schema.
        versions: How many versions.
        entries: Entries of the audit.
        root: Root of the tree over them, 64 hex digits.
        files: How many files are stored whole, or as recipes.
        packs: How many packs.
        stored: Bytes of everything that it needs, shared with other backups or not.
        sent: Bytes that were not in the place before.
    """

    number: int
    id: str
    origin: str
    at: str
    schema: int
    versions: int
    entries: int
    root: str
    files: int
    packs: int
    stored: int
    sent: int


@dataclass(frozen=True, slots=True)
class BackupRecord:
    """One backup.

    Attributes:
        number: Its number in this place, from 1.
        write: Who wrote it: 32 hex digits by chance.
        origin: Which registry: the origin of its audit.
        at: When the registry was as the backup has it: RFC 3339, UTC, by the database's clock.
        schema: Number of the database's schema.
        meta: What the database says of itself besides.
        entries: Entries of the audit.
        root: Root of the tree over them, 64 hex digits.
        versions: How many versions.
        stored: Bytes of everything that it names.
        sent: Bytes of what was not there before.
        tables: The rows of each table.
        objects: The files that are stored whole, and recipes.
        packs: The packs.
    """

    number: int
    write: str
    origin: str
    at: str
    schema: int
    meta: Mapping[str, int]
    entries: int
    root: str
    versions: int
    stored: int
    sent: int
    tables: tuple[Stream, ...]
    objects: Stream
    packs: Stream

    @property
    def summary(self) -> Backup:
        """What people and programs are told of it."""
        return Backup(
            self.number,
            self.write,
            self.origin,
            self.at,
            self.schema,
            self.versions,
            self.entries,
            self.root,
            self.objects.rows,
            self.packs.rows,
            self.stored,
            self.sent,
        )

    @property
    def streams(self) -> tuple[Stream, ...]:
        """Every stream."""
        return (*self.tables, self.objects, self.packs)

    def to_bytes(self) -> bytes:
        """The record as it is stored."""
        body = canonical_bytes(
            {
                "schema": SCHEMA,
                "number": self.number,
                "write": self.write,
                "origin": self.origin,
                "at": self.at,
                "database": {"schema": self.schema, "meta": dict(self.meta)},
                "audit": {"entries": self.entries, "root": self.root},
                "versions": self.versions,
                "stored": self.stored,
                "sent": self.sent,
                "tables": [_stream_out(stream) for stream in self.tables],
                "bytes": [_stream_out(stream) for stream in (self.objects, self.packs)],
            },
            field="backup",
        )
        return body + b"\n" + digest_of(body).encode() + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes, *, origin: str = "") -> BackupRecord:
        """Read a record.

        Args:
            data: As it is stored.
            origin: Where it lies, for messages.

        Raises:
            Damaged: It is cut short, altered, or no record.
            NewerFormat: A newer release wrote it.
        """
        body, told = data[: -_SUM - 1], data[-_SUM:]
        if len(data) <= _SUM or data[-_SUM - 1 : -_SUM] != b"\n" or told != digest_of(body).encode() + b"\n":
            raise DigestMismatch("the record of the backup is cut short, or was altered", file=origin, next_step=_STEP)
        try:
            given = parse_json(body, field="backup", origin=origin, max_bytes=MAX_RECORD)
            return cls._from_json(given, origin)
        except NewerFormat:
            raise
        except (LlmartifactsError, KeyError, TypeError, ValueError, AttributeError) as error:
            what = error.message if isinstance(error, LlmartifactsError) else f"{type(error).__name__}: {error}"
            raise Damaged(f"the record of the backup is none: {what}", file=origin, next_step=_STEP) from None

    @classmethod
    def _from_json(cls, given: Any, origin: str) -> BackupRecord:
        schema = given.get("schema") if isinstance(given, dict) else None
        if schema != SCHEMA:
            if isinstance(schema, str) and schema.startswith(_FAMILY):
                raise NewerFormat(f"the backup has the form {schema!r:.60}", field="backup", origin=origin)
            raise ValueError("it does not say that it is a backup")
        if given.keys() != _FIELDS or given["database"].keys() != {"schema", "meta"}:
            raise ValueError("it has other fields than a backup has")
        objects, packs = map(_stream_in, _listed(given["bytes"]))
        if (objects.name, packs.name) != ("objects", "packs"):
            raise ValueError("what is stored is not listed")
        tables = tuple(map(_stream_in, _listed(given["tables"])))
        if len({stream.name for stream in tables}) != len(tables):
            raise ValueError("a table is there twice")
        meta = {check_name(name, field="meta"): _signed(value) for name, value in given["database"]["meta"].items()}
        return cls(
            _count(given["number"], 1, MAX_NUMBER),
            _text(given["write"], _WRITE),
            _text(given["origin"], _ORIGIN),
            _text(given["at"], _AT),
            _count(given["database"]["schema"], 1),
            meta,
            _count(given["audit"]["entries"], 1),
            _text(given["audit"]["root"], _ROOT),
            _count(given["versions"]),
            _count(given["stored"]),
            _count(given["sent"]),
            tables,
            objects,
            packs,
        )


_AT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")
_STEP = "Take another backup of this place (llmartifacts backup PLACE --list), or another copy of it."


def record_key(number: int) -> str:
    """The key of the record of a backup."""
    return f"{RECORDS}{number:010d}"


def record_number(key: str) -> int | None:
    """The number of the backup under a key; None if it is no record's."""
    found = _KEY.fullmatch(key)
    return int(found[1]) if found else None


def object_key(digest: Digest) -> str:
    """The key of bytes by their digest."""
    return f"{OBJECTS}{digest[7:9]}/{digest[7:]}"


def object_digest(key: str) -> Digest | None:
    """The digest of the bytes under a key; None if it is no such key."""
    digest = Digest("sha256:" + key.rpartition("/")[2])
    return digest if len(digest) == 71 and key == object_key(digest) else None


def _stream_out(stream: Stream) -> dict[str, Any]:
    pieces = [[piece.digest, piece.stored, piece.length, piece.rows] for piece in stream.pieces]
    return {"name": stream.name, "columns": list(stream.columns), "pieces": pieces}


def _stream_in(given: Any) -> Stream:
    if given.keys() != {"name", "columns", "pieces"}:
        raise ValueError("a stream has other fields")
    pieces = []
    for digest, stored, length, rows in _listed(given["pieces"]):
        if _count(length, 1) > MAX_PIECE or _count(stored, 1) > MAX_PIECE or _count(rows, 1) > length:
            raise ValueError("a piece is larger than any")
        pieces.append(Piece(parse_digest(digest), stored, length, rows))
    columns = tuple(check_name(name, field="columns") for name in _listed(given["columns"]))
    return Stream(check_name(given["name"], field="stream"), columns, tuple(pieces))


def _listed(value: Any) -> Sequence[Any]:
    if type(value) is not list:
        raise TypeError("a list is none")
    return value


def _count(value: Any, least: int = 0, most: int = 2**53 - 1) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError("a number is none")
    return value


def _signed(value: Any) -> int:
    if type(value) is not int:
        raise TypeError("a number is none")
    return value


def _text(value: Any, form: re.Pattern[str]) -> str:
    if not isinstance(value, str) or not form.fullmatch(value):
        raise ValueError(f"{value!r:.60} is not what belongs there")
    return value


def total(streams: Iterable[Stream]) -> int:
    """Bytes that the pieces of streams take."""
    return sum(piece.stored for stream in streams for piece in stream.pieces)
