"""export: chosen collections, or all, with everything they need, as one file.

What is exported is read in one transaction, so it is of one moment; files are read after it, each verified. Parts of a
bundle come along, whether they were named or not: a bundle without them could be imported nowhere.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from llmartifacts.blobs.base import PIECE
from llmartifacts.blobs.failures import storage_errors
from llmartifacts.errors import BlobMissing, InvalidInput
from llmartifacts.metadata import audit, projects, versions
from llmartifacts.metadata.database import Session
from llmartifacts.metadata.versions import VersionRow
from llmartifacts.records.digest import Blob, digest_bytes, digest_from_bytes
from llmartifacts.records.export import ExportedInput, ExportedVersion, ExportHeader
from llmartifacts.records.names import LATEST
from llmartifacts.records.reference import Reference
from llmartifacts.records.times import from_micros
from llmartifacts.signing.exporting import sign_export
from llmartifacts.versioning import auditlog
from llmartifacts.versioning.exports.frames import FrameWriter
from llmartifacts.versioning.parts import Parts

_AT_ONCE = 200
_ATTEMPTS = 3
_BLOB = 40


@dataclass(frozen=True, slots=True)
class Exported:
    """An export that was written.

    Attributes:
        file: The file.
        origin: Which registry it is of.
        versions: How many versions.
        collections: How many collections.
        files: How many files, each counted once.
        size: Bytes of the export.
        signed: Whether it is signed.
    """

    file: str
    origin: str
    versions: int
    collections: int
    files: int
    size: int
    signed: bool


def export(
    parts: Parts, file: Path, references: Sequence[Reference] | None, *, home: str, key: str = "", actor: str
) -> Exported:
    """Write an export.

    Args:
        parts: The stores.
        file: Where it goes; nothing lies there.
        references: Collections by their names, or single versions; None for every collection of every project.
        home: Project that names without a prefix mean.
        key: Sign it with this key of this machine; empty for none.
        actor: Who exports, for whoever imports.

    Raises:
        NotFound: There is no such project, collection or version.
        InvalidInput: Nothing was named.
        Conflict: There is a file already.
        Damaged: Something cannot be read; there is no file.
        NotAllowed: The file cannot be written, or its place is full.
    """
    if references is not None and not references:
        raise InvalidInput("nothing was named to export", field="REF", next_step="Name collections, or give --all.")
    for left in reversed(range(_ATTEMPTS)):
        writer = FrameWriter(file)
        try:
            with storage_errors("write", writer.file), tempfile.TemporaryFile(dir=writer.file.parent) as spool:
                header, names = _snapshot(parts, references, home, actor, spool)
                writer.frame(b"H", header.to_bytes())
                count, blobs = _write(parts, writer, spool)
            if key:
                writer.frame(b"S", sign_export(digest_from_bytes(writer.digest()), header.origin, key=key))
            writer.finish()
            return Exported(str(writer.file), header.origin, count, names, blobs, writer.size, bool(key))
        except BlobMissing:
            if not left:  # else a version was removed meanwhile: what is there now is looked at again
                raise
        finally:
            writer.close()
    raise AssertionError("the last attempt returns or raises")


# --- what is exported


def _snapshot(
    parts: Parts, references: Sequence[Reference] | None, home: str, actor: str, spool: BinaryIO
) -> tuple[ExportHeader, int]:
    """Write every version, and the files that it needs, to the spool; the header, and how many collections."""
    with parts.metadata.reading() as s:
        checkpoint = auditlog.checkpoint(parts)
        header = ExportHeader(audit.origin(s), actor, from_micros(s.now()), checkpoint.size, checkpoint.root.hex())
        chosen = _all(s) if references is None else _chosen(s, references, home)
        names = set()
        for project, ids in chosen:
            for some in versions.batched(ids, _AT_ONCE):
                for row, made in _exported(s, parts, project, some):
                    names.add(row.collection_id)
                    body = made.to_bytes()
                    blobs = {f.digest: f.size for f in made.manifest.files if f.url is None}
                    spool.write(len(body).to_bytes(8, "little") + len(blobs).to_bytes(8, "little") + body)
                    for digest, size in blobs.items():
                        spool.write(digest_bytes(digest) + size.to_bytes(8, "little"))
    if not names:
        raise InvalidInput(
            "there is no version to export", field="REF", next_step="See what there is: llmartifacts ls."
        )
    return header, len(names)


def _all(s: Session) -> Iterator[tuple[str, list[int]]]:
    for project_id, project in s.rows("select id, name from project order by name"):
        rows = s.rows(
            "select v.id from version v join collection c on c.id = v.collection_id"
            " where c.project_id = :p and v.removed_at is null order by v.id",
            {"p": project_id},
        )
        yield project, [row[0] for row in rows]


def _chosen(s: Session, references: Sequence[Reference], home: str) -> list[tuple[str, list[int]]]:
    found: dict[str, set[int]] = {}
    for reference in references:
        project = reference.project or home
        project_id, _ = projects.find_project(s, project)
        if reference.selects:
            ids = {versions.find(s, project_id, project, reference).id}
        else:
            collection = projects.find_collection(s, project_id, reference.name)
            ids = {
                row[0]
                for row in s.rows(
                    "select id from version where collection_id = :c and removed_at is null", {"c": collection.id}
                )
            }
        found.setdefault(project, set()).update(ids)
    for ids in found.values():
        for one in list(ids):  # the parts of a bundle lie in its project, and hold no parts
            ids |= {
                row[0]
                for row in s.rows(
                    "select e.parent from edge e join version v on v.id = e.parent"
                    " where e.child = :v and e.relation = 'contains' and v.removed_at is null",
                    {"v": one},
                )
            }
    return [(project, sorted(found[project])) for project in sorted(found)]


def _exported(
    s: Session, parts: Parts, project: str, ids: Sequence[int]
) -> Iterator[tuple[VersionRow, ExportedVersion]]:
    rows = versions.by_id(s, project, ids)
    for row, v in zip(rows, versions.complete(s, rows), strict=True):
        yield (
            row,
            ExportedVersion(
                project,
                v.name,
                v.number,
                parts.manifest(s, v.digest, None),
                v.created_at,
                v.author,
                v.message,
                v.git_commit,
                v.tags,
                tuple(alias for alias in v.aliases if alias != LATEST),
                LATEST in v.aliases,
                None if v.yanked_at is None else v.yank_reason,
                tuple(_inputs(s, row.id)),
            ),
        )


def _inputs(s: Session, version_id: int) -> Iterator[ExportedInput]:
    rows = s.rows(
        "select p.name, c.name, v.number, v.digest, e.relation, e.role from edge e join version v on v.id = e.parent"
        " join collection c on c.id = v.collection_id join project p on p.id = c.project_id"
        " where e.child = :v order by e.relation, e.role, e.parent",
        {"v": version_id},
    )
    for project, name, number, digest, relation, role in rows:
        yield ExportedInput(project, name, number, digest_from_bytes(digest), relation, role)


# --- to the file


def _write(parts: Parts, writer: FrameWriter, spool: BinaryIO) -> tuple[int, int]:
    """Write every version of the spool, the files that it needs before it; how many of both."""
    spool.seek(0)
    written: set[bytes] = set()
    count = 0
    while head := spool.read(16):
        body = spool.read(int.from_bytes(head[:8], "little"))
        for _ in range(int.from_bytes(head[8:], "little")):
            raw = spool.read(_BLOB)
            if raw[:32] not in written:
                written.add(raw[:32])
                _blob(parts, writer, Blob(digest_from_bytes(raw[:32]), int.from_bytes(raw[32:], "little")))
        writer.frame(b"V", body)
        count += 1
    return count, len(written)


def _blob(parts: Parts, writer: FrameWriter, blob: Blob) -> None:
    if blob.size <= PIECE:
        writer.blob(blob, io.BytesIO(parts.blobs.read(blob)))
        return
    copy = writer.new_file()
    parts.blobs.copy(blob, copy)
    with open(copy, "rb") as content:
        writer.blob(blob, content)
    copy.unlink()
