"""`open_team`: the registry of a team, a database and a place for bytes that any number of servers share.

The two belong together: bytes that another registry's versions need would look like rubbish here, and be cleaned up.
So the place of the bytes is marked, once and for good, with the registry that it belongs to.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from llmartifacts import plugins
from llmartifacts.blobs.base import Driver
from llmartifacts.blobs.cache import BlobCache
from llmartifacts.blobs.scratch import sweep
from llmartifacts.blobs.store import BlobStore
from llmartifacts.errors import BlobMissing, Conflict, InvalidInput, MissingExtra, NotFound
from llmartifacts.metadata import audit, projects
from llmartifacts.metadata.database import Database
from llmartifacts.metadata.store import MetadataStore
from llmartifacts.records.names import DEFAULT_PROJECT
from llmartifacts.versioning.chunk_index import RecordedIndex
from llmartifacts.versioning.embedded import DATABASE, EmbeddedBackend
from llmartifacts.versioning.parts import Parts

MARKER = "registry"
"""Key of the object that says which registry the bytes belong to."""
_SCHEMES = {"postgres": "postgresql"}
_ASIDE = ".staging"


def open_team(
    database: str,
    blobs: str,
    *,
    scratch: Path | None = None,
    cache: BlobCache | None = None,
    connections: int | None = None,
    actor: str = "server",
) -> EmbeddedBackend:
    """Open the registry of a team; one that is new gets its tables and the project `default`.

    Any number of servers may do so at once, also after an upgrade: one brings the tables up to date, the others wait.

    Args:
        database: URL of the database, `postgresql://user:password@host/name`.
        blobs: Where the bytes are: a folder, a `file://` URL, or a URL whose scheme is that of an installed driver.
        scratch: Folder for bytes on their way in; by default in the folder of the bytes, for other places in the
            cache.
        cache: Where files are made of compressed content; by default the user's.
        connections: Connections to the database at most, of this process; by default the driver's own number.
        actor: Who makes the registry, for its audit.

    Raises:
        InvalidInput: One of the addresses is none.
        NotFound: No driver is installed for a scheme, or there is no such database.
        Conflict: The bytes belong to another registry.
        NewerFormat: The database was written by a newer release.
        NotAllowed: The database's user, or this process, may not.
        Unreachable: The database or the bytes cannot be had.
    """
    driver, folder = _driver(blobs)
    opened = _database(database, connections)
    try:
        metadata = MetadataStore(opened, create=True)
        origin = _origin(metadata, actor)
        _require_pair(metadata, driver, folder, origin)
        cache = cache or BlobCache()
        if scratch is None:
            scratch = cache.root / _ASIDE if folder is None else folder / _ASIDE
        sweep(scratch)
        store = BlobStore(driver, cache=cache, scratch=scratch, index=lambda given: RecordedIndex(metadata, given))
        return EmbeddedBackend(Parts(metadata, store, getattr(opened, "place", "")))
    except BaseException:
        opened.close()
        raise


def _database(url: str, connections: int | None) -> Database:
    scheme, found, _ = url.partition("://")
    if not found:
        raise InvalidInput(
            "the address of the database is no URL",
            field="database",
            next_step="Write postgresql://user:password@host:port/name.",
        )
    try:
        kind = plugins.load("metadata", _SCHEMES.get(scheme, scheme))
    except ImportError as error:
        raise MissingExtra(f"a database at {scheme}:// needs {error.name}", extra="server") from error
    made: Database = kind(url) if connections is None else kind(url, connections=connections)
    return made


def _driver(place: str) -> tuple[Driver, Path | None]:
    """The driver of a place of bytes, and its folder where it is one."""
    scheme, found, _ = place.partition("://")
    if found and scheme != "file":
        if scheme in ("local", "memory"):
            raise InvalidInput(f"{scheme}:// is no place that servers share", field="blobs", next_step="Name a folder.")
        made: Driver = plugins.load("blobs", scheme)(place)
        return made, None
    if found:
        parts = urlsplit(place)
        if parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
            raise InvalidInput(f"{place!r:.200} is no folder here", field="blobs", next_step="Write file:///folder.")
        place = unquote(parts.path)
    if not place or "\0" in place:
        raise InvalidInput("the place of the bytes is empty", field="blobs", next_step="Name a folder.")
    folder = Path(place).absolute()
    return plugins.load("blobs", "local")(folder), folder


def _origin(metadata: MetadataStore, actor: str) -> str:
    """The identity of the registry, which its first entry gives it."""
    with metadata.reading() as s:
        found = audit.origin(s)
    if found:
        return found
    with metadata.writing() as s:
        found = audit.origin(s)  # again: another server may have been first
        if not found:
            number = projects.insert_project(s, DEFAULT_PROJECT)
            audit.record(s, number, DEFAULT_PROJECT, actor=actor, verb="project", subject=DEFAULT_PROJECT, created=True)
            found = audit.origin(s)
        return found


def _require_pair(metadata: MetadataStore, driver: Driver, folder: Path | None, origin: str) -> None:
    marked = _marked(driver)
    if not marked:
        _require_unused(metadata, driver, folder, origin)
        driver.put_if_absent(MARKER, f"{origin}\n".encode())
        marked = _marked(driver)
    if marked != origin:
        raise Conflict(
            f"the bytes at {folder or 'that place'} belong to the registry {marked!r:.100}, and the database"
            f" is that of {origin!r:.100}",
            field="blobs",
            next_step="Name the database and the blobs of one registry.",
        )


def _require_unused(metadata: MetadataStore, driver: Driver, folder: Path | None, origin: str) -> None:
    """A place without a mark is one that nobody uses yet, or a mistake that would cost somebody their bytes."""
    if folder is not None and (folder.parent / DATABASE).exists():
        raise Conflict(
            f"{folder} holds the bytes of the embedded registry beside it",
            field="blobs",
            next_step="Name a folder of its own.",
        )
    with metadata.reading() as s:
        needed = s.row("select 1 from content limit 1") is not None
    stored = any(next(driver.list(prefix), None) is not None for prefix in ("sha256/", "packs/"))
    if (not needed and not stored) or _marked(driver):  # marked by now: another server was first
        return
    where = folder or "that place"
    told = f"{where} holds bytes and does not say whose" if stored else f"{where} is empty, and versions need bytes"
    raise Conflict(
        told,
        field="blobs",
        next_step="See that the right place is named, and mounted. If it is the right one (restored from a backup"
        f" without its mark), write the line {origin} into the object {MARKER!r} there.",
    )


def _marked(driver: Driver) -> str:
    try:
        with driver.get(MARKER, 0, 200) as stream:
            return stream.read(200).decode("ascii", "replace").strip()
    except (BlobMissing, NotFound):
        return ""
