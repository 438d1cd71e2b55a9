"""What goes wrong with a SQLite file, as typed errors that say what to do."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from llmartifacts.errors import (
    Busy,
    Damaged,
    LlmartifactsError,
    NotAllowed,
    NotFound,
    Unreachable,
    UnsafeContent,
)

_BACKUP = "Restore the file from a backup."
RESEAL = (
    "Restore the file from a backup. Where only its checksums are wrong, because another program (sqlite3) had it open,"
    " llmartifacts repair --database makes them anew."
)
_ROOM = 64 * 1024
"""Bytes; with less, SQLite cannot make the files that it needs beside the database."""
_IN_THE_SCHEMA = ("no such", "already exists", "overflow", "mismatch")


@contextmanager
def database_errors(path: Path) -> Iterator[None]:
    """Turn whatever a transaction on a SQLite file raises into a typed error.

    Args:
        path: The file.

    Raises:
        Busy: Another writer holds it.
        NotFound: It is no registry, or gone.
        Damaged: It is no database, or holds what no release writes.
        UnsafeContent: A file beside it is a link or a device.
        NotAllowed: It cannot be written, or its file system is full.
        Unreachable: Any other failure of the storage.
    """
    try:
        yield
    except LlmartifactsError:
        raise
    except apsw.BusyError as error:
        raise Busy(f"{path} stayed locked by another writer: {error}", field="registry") from error
    except apsw.SQLError as error:
        if "no such table: meta" in str(error):
            step = "Name the directory that `llmartifacts init` made."
            raise NotFound(
                f"{path} is no registry: {error}", what="registry", name=str(path), next_step=step
            ) from error
        if not any(told in str(error) for told in _IN_THE_SCHEMA):
            raise
        raise _contradiction(path, error) from error
    except (apsw.CorruptError, apsw.NotADBError, apsw.FormatError) as error:
        raise Damaged(f"the database {path} is damaged: {error}", file=str(path), next_step=_BACKUP) from error
    except (apsw.ConstraintError, apsw.MismatchError, apsw.TooBigError) as error:
        raise _contradiction(path, error) from error
    except (apsw.ReadOnlyError, apsw.CantOpenError, apsw.PermissionsError, apsw.AuthError) as error:
        raise read_only(path, error) from error
    except apsw.FullError as error:
        raise _full(path, error) from error
    except apsw.IOError as error:
        if getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_DATA:
            told = f"the database {path} is damaged: a page of it is not what was written there"
            raise Damaged(told, file=str(path), next_step=RESEAL) from error
        if _has_no_room(path):
            raise _full(path, error) from error
        step = "Look at the disk: mount options, the system log."
        raise Unreachable(f"the database {path} cannot be read or written: {error}", next_step=step) from error
    except OSError as error:
        raise _system_error(path, error) from error
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError) as error:
        # Arguments were checked before. A column of SQLite takes any value, so a file that was changed by hand, or
        # made by somebody hostile, can hold what no release writes.
        raise _contradiction(path, error) from error


def read_only(path: Path, error: Exception | None = None) -> NotAllowed:
    """The error for a file that cannot be written."""
    if _has_no_room(path):
        return _full(path, error)
    return NotAllowed(
        f"{path} cannot be written{f': {error}' if error else ''}",
        field="location",
        next_step="Open it as a user who may write the directory, or work on a copy.",
    )


def _contradiction(path: Path, error: Exception) -> Damaged:
    return Damaged(
        f"the database {path} holds what no release writes: {type(error).__name__}: {error}",
        file=str(path),
        next_step=f"See what is wrong with `llmartifacts verify`. {_BACKUP}",
    )


def _has_no_room(path: Path) -> bool:
    try:
        found = os.statvfs(path.parent)
    except OSError:
        return False
    return not found.f_flag & os.ST_RDONLY and found.f_bavail * found.f_frsize < _ROOM


def _full(path: Path, error: Exception | None) -> NotAllowed:
    return NotAllowed(
        f"the database {path} cannot be written, its file system is full{f': {error}' if error else ''}",
        field="location",
        next_step="Free some space there and try again; nothing was left half-written.",
    )


def _system_error(path: Path, error: OSError) -> LlmartifactsError:
    where, told = str(error.filename or path), error.strerror or str(error)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return read_only(path, error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _full(path, error)
    if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENOTDIR, errno.ENXIO):
        step = "Remove it; it is made again when it is needed."
        return UnsafeContent(f"{where} is no plain file: {told}", file=where, next_step=step)
    if error.errno == errno.ENOENT:
        step = "The directory was moved or deleted."
        return NotFound(f"{where} is gone", what="registry", name=str(path), next_step=step)
    return Unreachable(f"{where}: {told}", next_step="Look at the disk, and at the limits of this process.")
