"""What is stored of blobs that a version would name again."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress

from llmartifacts.blobs.forms import RAW, RECIPE
from llmartifacts.errors import BlobMissing, Damaged, InvalidValue
from llmartifacts.metadata import projects, uploads
from llmartifacts.metadata.database import Session
from llmartifacts.records.digest import Blob, Digest
from llmartifacts.versioning.commit import chunks_recorded_in
from llmartifacts.versioning.parts import Parts

READ = 64 << 20
"""Bytes of blobs that are read, where a version names them again, to see whether they are right."""


def sound(parts: Parts, known: Mapping[Digest, int]) -> set[Digest]:
    """Of some blobs, those that are stored, and right as far as they are read: the smallest first, until that is much.

    Args:
        parts: The stores.
        known: The blobs -> their bytes.
    """
    found = set()
    left = READ
    for digest, size in sorted(known.items(), key=lambda one: one[1]):
        blob = Blob(digest, size)
        left -= size
        try:
            if left >= 0:
                good, damaged = parts.blobs.standing(blob)
                if not good or damaged:
                    continue
            else:
                check_there(parts, blob)
        except Damaged:
            continue
        found.add(digest)
    return found


def stored(parts: Parts, project: str, digests: Iterable[Digest]) -> set[Digest]:
    """Of some blobs, those that earlier versions in a project need and that are in the store.

    Looked at before the transaction, so that nobody waits for a store meanwhile. It still holds in it: what a version
    needs, gc keeps, and moves only together with the index that names its place.

    Args:
        parts: The stores.
        project: Name of the project.
        digests: The blobs.

    Raises:
        NotFound: There is no such project.
    """
    with parts.metadata.reading() as s:
        known = uploads.in_project(s, projects.find_project(s, project)[0], list(dict.fromkeys(digests)))
    found = set()
    for digest, size in known.items():
        with suppress(Damaged):  # lost, or under way to another pack: looked at again in the transaction
            check_there(parts, Blob(digest, size))
            found.add(digest)
    return found


def require_stored(parts: Parts, s: Session, known: Mapping[Digest, int], seen: Collection[Digest] = ()) -> None:
    """Require that blobs which earlier versions need are still in the store; nothing of them is read but recipes.

    Args:
        parts: The stores.
        s: The transaction that logs the version.
        known: The blobs -> their bytes.
        seen: Those that `stored` found: they are not looked at again.

    Raises:
        InvalidValue: One is lost: a version would name it, and nobody could read it.
    """
    with chunks_recorded_in(parts, s):
        for digest, size in known.items():
            if digest in seen:
                continue
            try:
                check_there(parts, Blob(digest, size))
            except Damaged as error:
                raise InvalidValue(
                    f"the bytes of {digest}, which earlier versions need too, are lost or damaged in the store",
                    field="files",
                    next_step="Log it again: what is lost is then sent anew.",
                ) from error


def check_there(parts: Parts, blob: Blob) -> None:
    """Check that all of a blob is stored, without reading its content. Raises `Damaged`."""
    found = next(parts.blobs.forms(blob), None)
    if found is None or (found[0] == RAW and found[1] != blob.size):
        raise BlobMissing(f"the bytes of {blob.digest} are not in the store", digest=blob.digest)
    if found[0] == RECIPE:
        parts.blobs.check(blob, read_data=False)
