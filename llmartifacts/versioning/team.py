"""`open_team`: the registry of a team, a database and a place for bytes that any number of servers share.

The two belong together: bytes that another registry's versions need would look like rubbish here, and be cleaned up.
So the place of the bytes is marked, once and for good, with the registry that it belongs to and a number that the
database knows too: servers that were given different folders, or one that is not mounted, are told apart.
"""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from urllib.parse import unquote, urlsplit

from llmartifacts import plugins
from llmartifacts.blobs.base import Driver
from llmartifacts.blobs.cache import BlobCache
from llmartifacts.blobs.scratch import sweep
from llmartifacts.blobs.store import BlobStore
from llmartifacts.errors import BlobMissing, Conflict, InvalidInput, MissingExtra, NotFound
from llmartifacts.metadata import audit, projects, versions
from llmartifacts.metadata.database import Database, Session
from llmartifacts.metadata.store import MetadataStore
from llmartifacts.records.names import DEFAULT_PROJECT
from llmartifacts.versioning.chunk_index import RecordedIndex
from llmartifacts.versioning.embedded import DATABASE, EmbeddedBackend
from llmartifacts.versioning.parts import Parts

MARKER = "registry"
"""Key of the object that says which registry the bytes belong to."""
_SCHEMES = {"postgres": "postgresql"}
ASIDE = ".staging"
"""Folder, in that of the bytes, for bytes on their way in."""
PLACE = "place"
"""What the database calls the number of the place, in `meta`."""
_NUMBER = re.compile(r"[0-9a-f]{16}")


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
        Conflict: The bytes belong to another registry, or this is not the place where the other servers keep them.
        NewerFormat: The database was written by a newer release.
        NotAllowed: The database's user, or this process, may not.
        Unreachable: The database or the bytes cannot be had.
    """
    driver, folder = driver_at(blobs)
    opened = database_at(database, connections)
    try:
        metadata = MetadataStore(opened, create=True)
        origin = _origin(metadata, actor)
        mark = _require_pair(metadata, driver, folder, origin)
        cache = cache or BlobCache()
        if scratch is None:
            scratch = cache.root / ASIDE if folder is None else folder / ASIDE
        sweep(scratch)
        store = BlobStore(driver, cache=cache, scratch=scratch, index=lambda given: RecordedIndex(metadata, given))
        return EmbeddedBackend(Parts(metadata, store, getattr(opened, "place", ""), mark=mark, shared=True))
    except BaseException:
        opened.close()
        raise


def database_at(url: str, connections: int | None = None) -> Database:
    """Open the database at a URL; nothing is made in it.

    Args:
        url: As in `open_team`.
        connections: As in `open_team`.

    Raises:
        InvalidInput: It is no URL.
        NotFound: No driver is installed for its scheme, or there is no such database.
        MissingExtra: The driver needs something that is not installed.
        NotAllowed: The database's user may not.
        Unreachable: It cannot be had.
    """
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


def driver_at(place: str) -> tuple[Driver, Path | None]:
    """The driver of a place of bytes, and its folder where it is one; there need not be anything yet.

    Args:
        place: A folder, a `file://` URL, or a URL whose scheme is that of an installed driver.

    Raises:
        InvalidInput: It is no place that servers could share.
        NotFound: No driver is installed for its scheme.
    """
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


def is_marked(parts: Parts) -> bool:
    """Whether the bytes still lie where they did when the registry was opened; one look at a small object."""
    return not parts.mark or mark_at(parts.blobs.driver) == parts.mark


def is_filled(parts: Parts) -> bool:
    """Whether something is stored where versions need something; one look at one object, where all is well.

    It tells a folder that was emptied, or never mounted, where no mark does: that of an embedded registry.
    """
    with parts.metadata.reading() as s:
        one = versions.any_blob(s)
    return one is None or parts.blobs.has(one) or holds_bytes(parts.blobs.driver)


def _require_pair(metadata: MetadataStore, driver: Driver, folder: Path | None, origin: str) -> str:
    """The mark of the place; a place is given one together with the database, once and for good.

    The mark says which registry the bytes belong to, and which place of all it is: a number by chance that the
    database knows too. Without that, two servers with folders of their own would take each its own for the one.
    """
    with metadata.reading() as s:
        known = _place(s)
    if known is None:
        with metadata.writing() as s:  # one decides, the others wait for it
            known = _place(s)
            if known is None:
                return _mark(s, driver, folder, origin)
    expected = mark_of(origin, known)
    marked = mark_at(driver)  # after the database: whoever recorded the number had marked the place before
    if marked != expected:
        raise _another_place(driver, folder, marked, expected)
    return expected


def _mark(s: Session, driver: Driver, folder: Path | None, origin: str) -> str:
    """Mark a place, and record it. The mark comes first: one that no database knows is taken up by the next start."""
    marked = mark_at(driver)
    owner, _, told = marked.partition(" ")
    if marked and owner != origin:
        raise _another_place(driver, folder, marked, origin)
    if not marked:
        _require_unused(s, driver, folder, origin)
    number = int(told, 16) if _NUMBER.fullmatch(told) else secrets.randbits(62) + 1
    expected = mark_of(origin, number)
    if marked != expected:
        mark = f"{expected}\n".encode()
        if marked:
            driver.replace(MARKER, mark)
        else:
            driver.put_if_absent(MARKER, mark)
        marked = mark_at(driver)
        if marked != expected:
            raise _another_place(driver, folder, marked, expected)
    s.run("insert into meta(name, value) values (:name, :v)", {"name": PLACE, "v": number})
    return expected


def _place(s: Session) -> int | None:
    row = s.row("select value from meta where name = :name", {"name": PLACE})
    return None if row is None else int(row[0])


def mark_of(origin: str, number: int) -> str:
    """What a place is marked with.

    Args:
        origin: The registry that the bytes belong to: the origin of its audit.
        number: The number of the place, which the database of the registry knows too.
    """
    return f"{origin} {number:016x}"


def _another_place(driver: Driver, folder: Path | None, marked: str, expected: str) -> Conflict:
    where = folder or "that place"
    origin = expected.partition(" ")[0]
    if marked and marked.partition(" ")[0] != origin:
        return Conflict(
            f"the bytes at {where} belong to the registry {marked.partition(' ')[0]!r:.100}, and the database"
            f" is that of {origin!r:.100}",
            field="blobs",
            next_step="Name the database and the blobs of one registry.",
        )
    if marked:
        told = f"{where} is another place than the one where the servers of this database keep the bytes"
    elif holds_bytes(driver):
        told = (
            f"{where} holds bytes and does not say whose, and this database keeps its bytes in a place that is marked"
        )
    else:
        told = f"{where} is empty, and this database keeps its bytes in another place"
    return Conflict(
        told,
        field="blobs",
        next_step="The folders of the blobs differ between servers, or one is not mounted: all of them need the same"
        f" one. If it is the right one (restored from a backup without its mark), write the line {expected!r} into the"
        f" object {MARKER!r} there, without the quotes.",
    )


def _require_unused(s: Session, driver: Driver, folder: Path | None, origin: str) -> None:
    """A place without a mark is one that nobody uses yet, or a mistake that would cost somebody their bytes."""
    if folder is not None and (folder.parent / DATABASE).exists():
        raise Conflict(
            f"{folder} holds the bytes of the embedded registry beside it",
            field="blobs",
            next_step="Name a folder of its own.",
        )
    stored = holds_bytes(driver)
    if not stored and s.row("select 1 from content limit 1") is None:
        return
    where = folder or "that place"
    told = f"{where} holds bytes and does not say whose" if stored else f"{where} is empty, and versions need bytes"
    raise Conflict(
        told,
        field="blobs",
        next_step="See that the right place is named, and mounted. If it is the right one (restored from a backup"
        f" without its mark), write the line {origin} into the object {MARKER!r} there.",
    )


def holds_bytes(driver: Driver) -> bool:
    """Whether a registry's bytes lie at a place, of whatever registry."""
    return any(next(driver.list(prefix), None) is not None for prefix in ("sha256/", "packs/"))


def mark_at(driver: Driver) -> str:
    """What a place is marked with; empty where nothing marks it."""
    try:
        with driver.get(MARKER, 0, 200) as stream:
            return stream.read(200).decode("ascii", "replace").strip()
    except (BlobMissing, NotFound):
        return ""
