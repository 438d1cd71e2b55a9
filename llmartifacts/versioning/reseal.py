"""reseal: makes the checksums of an embedded registry's pages anew, where its records are right without them.

SQLite itself keeps no such checksums: another program that has the database open (`sqlite3`) can leave pages without,
and the registry refuses them. So what is there is read without comparing, as far as the log beside it can be read,
and held against what else proves it: SQLite's own check, every manifest's digest, and the audit. Only where all of
that agrees are the pages written anew. What nothing else proves, such as the time at which a run ended, is taken as it
is.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, cast

from llmartifacts.blobs.disk import make_folders, sync_data, sync_folder
from llmartifacts.blobs.failures import storage_errors
from llmartifacts.errors import Damaged, UnsafeContent
from llmartifacts.metadata import audit
from llmartifacts.versioning.embedded import DATABASE, EmbeddedBackend
from llmartifacts.versioning.verify import records

if TYPE_CHECKING:
    from llmartifacts.metadata.sqlite import SqliteDatabase

KEPT = "damaged"
"""Folder in the registry for the files as they were."""
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Resealed:
    """What was done.

    Attributes:
        versions: Versions that the database tells of.
        kept: Folder with the files as they were; it may be deleted.
    """

    versions: int
    kept: str


def reseal(path: Path, *, actor: str) -> Resealed:
    """Write the database of a registry anew, with its checksums, if everything else says that it is right.

    What was committed to a part of the log that cannot be read is given up. It may be interrupted and called again.

    Args:
        path: The registry's directory.
        actor: Who asks.

    Returns:
        What was done.

    Raises:
        NotFound: There is no registry.
        Damaged: Something else is wrong with the database; it stays refused, and the files as they were are kept.
        Busy: Somebody else has it open.
        UnsafeContent: A link lies where the files would be kept.
        NotAllowed: It cannot be written, or there is no room.
    """
    place = Path(os.path.abspath(path))
    kept = _kept(place)
    backend = EmbeddedBackend.open(place, compare=False)
    try:
        database = cast("SqliteDatabase", backend.parts.metadata.database)
        database.empty_log()  # what could be read of it is what is judged
        wrong = database.check() or [error.message for error in islice(records(backend.parts), _NAMED + 1)]
        if wrong:
            more = " and more" if len(wrong) > _NAMED else ""
            raise Damaged(
                f"the database is damaged, not only its checksums: {'; '.join(wrong[:_NAMED])}{more}",
                file=str(place / DATABASE),
                next_step=f"Restore it from a backup. The files as they were are in {kept}.",
            )
        with backend.parts.metadata.writing() as s:
            row = s.row("select count(*) from version")
            audit.record(s, None, "", actor=actor, verb="repair", subject="database")
        database.scrub()
    finally:
        backend.close()
    return Resealed(row[0] if row else 0, str(kept))


def _kept(place: Path) -> Path:
    """Keep the files as they are, before anything opens them: to open a log is to give up what cannot be read of it."""
    folder = place / KEPT
    with storage_errors("keep", place):
        if not (place / DATABASE).is_file():
            return folder  # opening says what is wrong
        if folder.is_symlink():
            raise UnsafeContent(
                f"{folder} is a symbolic link, and the database would be copied to where it leads",
                file=str(folder),
                next_step="Remove the link.",
            )
        make_folders(folder)
        aside = Path(tempfile.mkdtemp(prefix=".", dir=folder))
        try:
            for file in (DATABASE, f"{DATABASE}-wal"):
                if (place / file).is_file() and not (place / file).is_symlink():
                    shutil.copy2(place / file, aside / file)
                    with open(aside / file, "rb") as copied:
                        sync_data(copied.fileno())
            sync_folder(aside)
            kept = folder / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{aside.name[1:]}"
            aside.rename(kept)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        sync_folder(folder)
    return kept
