"""A place of bytes alone, without its database: the folder or the bucket of another registry, or a copy of it."""

from __future__ import annotations

from pathlib import Path

from llmartifacts import plugins
from llmartifacts.blobs.cache import BlobCache
from llmartifacts.blobs.store import BlobStore
from llmartifacts.errors import NotFound
from llmartifacts.records.arguments import check_place

_INSIDE = ("sha256", "packs")


def open_place(location: str, scratch: Path) -> BlobStore:
    """Open a place of bytes for reading. What it holds is found by digest, and verified.

    Args:
        location: A folder with `sha256/` or `packs/` in it, or above one called `blobs`; or a URL whose scheme is that
            of an installed driver, such as `s3://bucket/prefix`.
        scratch: A folder for files on their way; nothing is written into the place.

    Raises:
        NotFound: There is no such folder, or no driver for the scheme.
    """
    if "://" in location and not location.startswith("file://"):
        scheme = location.partition("://")[0].lower()
        return BlobStore(plugins.load("blobs", scheme)(location), cache=BlobCache(), scratch=scratch)
    folder = Path(check_place(location.removeprefix("file://"), field="from"))
    for place in (folder, folder / "blobs"):
        if any((place / inside).is_dir() for inside in _INSIDE):
            return BlobStore.local(place, scratch=scratch)
    raise NotFound(
        f"there is no registry and no place of bytes at {folder}",
        what="place",
        name=str(folder),
        next_step="Name the directory of a registry, or the folder that holds its sha256/ and packs/.",
    )
