"""What is stored of blobs that a version would name again."""

from __future__ import annotations

from collections.abc import Mapping

from llmartifacts.blobs.forms import RAW, RECIPE
from llmartifacts.errors import BlobMissing, Damaged
from llmartifacts.records.digest import Blob, Digest
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


def check_there(parts: Parts, blob: Blob) -> None:
    """Check that all of a blob is stored, without reading its content. Raises `Damaged`."""
    found = next(parts.blobs.forms(blob), None)
    if found is None or (found[0] == RAW and found[1] != blob.size):
        raise BlobMissing(f"the bytes of {blob.digest} are not in the store", digest=blob.digest)
    if found[0] == RECIPE:
        parts.blobs.check(blob, read_data=False)
