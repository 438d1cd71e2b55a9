"""A checksum in every page of a SQLite file: a bit that rots is refused when its page is read, whatever it is part of.

SQLite's own extension `cksumvfs` keeps the last eight bytes of each page for it, writes it with the page and compares
it at each read; records of the log beside the file have checksums of their own. It is in the apsw wheel.

A header that says that nothing is kept at the end of pages would switch the comparison off, so a file with checksums
also has an application id of its own, and one that has that id and no room for checksums is refused.

Source: sqlite.org/cksumvfs.html (how the sum is made, and where it lies); sqlite.org/fileformat2.html (the header).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from pathlib import Path

import apsw

from llmartifacts.errors import Damaged, NotAllowed

SUM = 8
"""Bytes at the end of each page."""
APPLICATION = int.from_bytes(b"lart", "big")
"""The application id in the header of a file with checksums."""
BACKUP = "Restore the file from a backup."
HEADER = 100
_LOOKS = 3
_NAMED = 20


@functools.cache
def vfs() -> str:
    """The name under which SQLite reads and writes files with checksums; others it leaves as they are.

    Raises:
        NotAllowed: This build of apsw has not got it.
    """
    before = apsw.vfs_names()
    connection = apsw.Connection(":memory:")
    try:
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 1)
        connection.load_extension(str(_extension()))
    except (LookupError, ImportError, apsw.Error, OSError) as error:
        raise NotAllowed(
            f"this build of apsw has no checksums for pages ({error})",
            next_step="Install the apsw wheel from the package index; it carries them.",
        ) from error
    finally:
        connection.close()
    apsw.set_default_vfs(before[0])  # the extension made itself everybody's
    return next(name for name in apsw.vfs_names() if name not in before or name == "cksmvfs")


def _extension() -> Path:
    """The file of the extension in the wheel. `apsw.sqlite_extra` finds it too, and takes 25 ms to be imported."""
    folder = Path(apsw.__file__).parent / "sqlite_extra_binaries"
    for suffix in (".so", ".dylib", ".dll"):
        if (found := folder / f"cksumvfs{suffix}").is_file():
            return found
    from apsw import sqlite_extra

    try:
        return Path(sqlite_extra.path("cksumvfs"))
    except sqlite_extra.NotAvailable as error:
        raise LookupError(str(error)) from None


def reserve(connection: apsw.Connection) -> None:
    """Keep room for checksums in a file that has no page yet."""
    import ctypes  # 10 ms, and only who makes a registry needs it

    number = ctypes.c_int(SUM)
    connection.file_control("main", apsw.SQLITE_FCNTL_RESERVE_BYTES, ctypes.addressof(number))


def mark(connection: apsw.Connection) -> None:
    """Say in the header of a file with checksums that it has them, where that is not said yet."""
    if _compared(connection) and _application(connection) != APPLICATION:
        connection.execute(f"pragma application_id={APPLICATION}")


def require(connection: apsw.Connection, path: Path) -> None:
    """Raises `Damaged` where the header no longer says that pages have checksums, and once did."""
    if not _compared(connection) and _application(connection) == APPLICATION:
        raise Damaged(
            f"the header of the database {path} is damaged: its pages have checksums, and it denies that",
            file=str(path),
            next_step=BACKUP,
        )


def damaged(connection: apsw.Connection, path: Path) -> Iterator[str]:
    """The pages of a file that are not what was written there, one readable line; also of pages that hold nothing now.

    Nothing is said of a file without checksums. The file may be written to meanwhile: a page that looks wrong is
    looked at again. It is read through the connection, since closing a file of one's own would give away the locks
    that this process holds on it (sqlite.org/howtocorrupt.html, "Posix advisory locks canceled").

    Args:
        connection: Opened on the file under `vfs()`.
        path: The file.
    """
    if not _compared(connection):
        return
    size = int(str(connection.execute("pragma page_size").fetchall()[0][0]))
    taken = path.stat().st_size
    wrong = [number for number in range(-(-taken // size)) if _is_wrong(connection, size, number)]
    for _ in range(_LOOKS):
        if not wrong:
            return
        time.sleep(0.05)
        wrong = [number for number in wrong if _is_wrong(connection, size, number)]
    told = ", ".join(str(number + 1) for number in wrong[:_NAMED]) + (" and more" if len(wrong) > _NAMED else "")
    yield f"{'a page is' if len(wrong) == 1 else f'{len(wrong)} pages are'} not what was written there: {told}"


def header(connection: apsw.Connection) -> bytes:
    """The first hundred bytes of the file; as it was written last, which the log beside it may know better."""
    return connection.read("main", 0, 0, HEADER)[1]


def _is_wrong(connection: apsw.Connection, size: int, number: int) -> bool:
    try:
        return not connection.read("main", 0, number * size, size)[0]
    except apsw.Error:  # the checksum; apsw has no better word for it here
        return True


def _compared(connection: apsw.Connection) -> bool:
    return str(connection.execute("pragma checksum_verification").fetchall()[0][0]) == "1"


def _application(connection: apsw.Connection) -> int:
    return int(str(connection.execute("pragma application_id").fetchall()[0][0]))
