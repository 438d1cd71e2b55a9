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
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, cast

from llmartifacts.blobs.failures import storage_errors
from llmartifacts.errors import Damaged
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
    kept = place / KEPT / time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    with storage_errors("keep", place):
        if not (place / DATABASE).is_file():
            return kept  # opening says what is wrong
        number = 1
        while kept.exists():
            number += 1
            kept = kept.with_name(f"{kept.name.partition('-')[0]}-{number}")
        kept.mkdir(parents=True, mode=0o700)
        try:
            for file in (DATABASE, f"{DATABASE}-wal"):
                if (place / file).is_file() and not (place / file).is_symlink():
                    shutil.copy2(place / file, kept / file)
        except BaseException:
            shutil.rmtree(kept, ignore_errors=True)
            raise
    return kept
