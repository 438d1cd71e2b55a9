"""The embedded database: SQLite through apsw, in WAL mode, with a fair queue for writers.

Left to itself, SQLite lets one of several writers starve: its waiting is a sleep, and whoever comes back first wins.
Here every write transaction first waits in a queue (`queue.py`) and then begins with `BEGIN IMMEDIATE`, so that it
never has to upgrade a lock. Each thread has a connection of its own (`connections.py`).
"""

from __future__ import annotations

import functools
import os
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import apsw

from llmartifacts.errors import Busy, Damaged, NotAllowed, NotFound, UnsafeContent
from llmartifacts.metadata import sqlite_check, sqlite_log, sqlite_pages
from llmartifacts.metadata.connections import Connections
from llmartifacts.metadata.database import Parameters, Row
from llmartifacts.metadata.failures import database_errors, read_only
from llmartifacts.metadata.queue import WriterQueue

MINIMUM = (3, 51, 3)
"""Older SQLite can corrupt a WAL database that two processes write."""
NETWORK_FILE_SYSTEMS = frozenset(
    [
        "nfs",
        "nfs4",
        "cifs",
        "smb",
        "smb2",
        "smb3",
        "smbfs",
        "afs",
        "ncpfs",
        "ceph",
        "lustre",
        "gpfs",
        "beegfs",
        "glusterfs",
        "fuse.glusterfs",
        "fuse.sshfs",
        "fuse.s3fs",
        "fuse.gcsfuse",
        "fuse.rclone",
    ]
)
WAIT_SECONDS = 60.0
MAX_ROW = 64 * 1024 * 1024
"""Bytes of one row or value; what is longer, no release writes."""
TICK = 50_000_000
"""Nanoseconds."""


class SqliteDatabase:
    """One SQLite file.

    Args:
        path: The file.
        create: Make it if it is not there.
        wait: Seconds to wait for other writers before `Busy`.
        compare: Hold each page against its checksum, and refuse a log of which a part is lost; without, whoever asks
            must know by other means that what is read is right.

    Raises:
        NotFound: There is no such file.
        NotAllowed: It cannot be opened, or lies on a network file system.
        Damaged: A part of what was committed is lost, or the header is damaged.
    """

    types: ClassVar[Mapping[str, str]] = {
        "id": "integer primary key",
        "text": "text",
        "bytes": "blob",
        "keyed": "without rowid",
    }

    def __init__(self, path: Path, *, create: bool = False, wait: float = WAIT_SECONDS, compare: bool = True) -> None:
        if tuple(map(int, apsw.sqlite_lib_version().split("."))) < MINIMUM:
            raise NotAllowed(
                f"SQLite {apsw.sqlite_lib_version()} is too old",
                next_step="Install the apsw wheel from the package index; it carries its own SQLite.",
            )
        self.path = path
        self._wait = wait
        self._queue = WriterQueue(path)
        self._connections = Connections(str(path), lambda: _Session(path, create, compare))
        kind = file_system(path.parent)
        if kind in NETWORK_FILE_SYSTEMS:
            raise NotAllowed(
                f"{path} lies on a network file system ({kind}), where SQLite's locks cannot be trusted",
                field="location",
                next_step="Keep an embedded registry on a local disk.",
            )
        with database_errors(path), self._connections.use():
            pass

    @contextmanager
    def reading(self) -> Iterator[_Session]:
        """A read transaction: everything in it is of one moment."""
        with database_errors(self.path), self._connections.use() as session:
            if session.depth:  # inside a write transaction of this thread: the same view
                yield session
                return
            session.begin("begin")
            try:
                yield session
            finally:
                session.end("commit")
            session.require_unchanged()

    @contextmanager
    def writing(self) -> Iterator[_Session]:
        """A write transaction, one at a time, in fair order; inside one of this thread, a part of it."""
        with database_errors(self.path):
            with self._connections.use() as session:
                if session.depth:
                    with session.part():
                        yield session
                    return
                if session.readonly:
                    raise read_only(self.path, session.unwritable)
            with self._queue.head(self._wait), self._connections.use() as session:
                session.begin("begin immediate")
                try:
                    yield session
                except BaseException:
                    session.end("rollback")
                    raise
                session.end("commit")

    def size(self) -> int:
        """Bytes of the database and its log."""
        files = [self.path, Path(f"{self.path}-wal")]
        return sum(f.stat().st_size for f in files if f.exists())

    def scrub(self) -> None:
        """Write the file anew without its free pages, and empty the log. Raises `Busy` where others go on reading."""
        with database_errors(self.path), self._queue.head(self._wait), self._connections.use() as session:
            if session.readonly:
                raise read_only(self.path, session.unwritable)
            session.connection.execute("vacuum")
            self._empty_log(session)

    def empty_log(self) -> None:
        """Put what is in the log into the file. Raises as `scrub`."""
        with database_errors(self.path), self._queue.head(self._wait), self._connections.use() as session:
            self._empty_log(session)

    def _empty_log(self, session: _Session) -> None:
        if session.connection.execute("pragma wal_checkpoint(truncate)").fetchall()[0][0]:
            raise Busy(
                f"{self.path} is being read as it was before, and keeps what was deleted for that long",
                field="registry",
                next_step="Do the same again in a moment.",
            )

    def check(self) -> list[str]:
        """Each page's checksum, SQLite's own check, and what it does not look at: header, definitions, log."""
        found: list[str] = []
        try:
            with self.reading() as session:
                found += sqlite_pages.damaged(session.connection, self.path)
                found += [str(r[0]) for r in session.rows("pragma integrity_check(20)")]
                found += [f"foreign key: {r}" for r in session.rows("pragma foreign_key_check")]
                found += sqlite_check.problems(self.path, session, sqlite_pages.header(session.connection))
        except Damaged as error:
            return [*found, error.message]
        return [line for line in found if line != "ok"]

    def close(self) -> None:
        """Close every connection of this process."""
        self._connections.close()


class _Session:
    """One connection of one thread."""

    def __init__(self, path: Path, create: bool, compare: bool) -> None:
        self.path = path
        self._compare = compare
        self.depth = 0
        self.writing = False
        self._pid = os.getpid()
        self._alone: _State | None = None
        self.unwritable: Exception | None = None
        with database_errors(path):
            _require_plain_files(path)
            if not create:
                _require_no_journal(path)
            if not create and not path.exists():
                step = "The directory was moved or deleted, or is none that `llmartifacts init` made."
                raise NotFound(f"there is no database at {path}", what="registry", name=str(path), next_step=step)
            if not _may_write(path):
                self.connection = self._read_only()
            else:
                try:
                    self.connection = _writable(path, create, compare)
                except (apsw.CantOpenError, apsw.FullError, apsw.IOError, apsw.ReadOnlyError) as error:
                    if create:
                        raise
                    self.unwritable = error  # a full disk has no room for SQLite's own small files: reading needs none
                    self.connection = self._read_only()
            self.readonly = self.connection.readonly("main")
            self._identity = _identity(path)

    def _read_only(self) -> apsw.Connection:
        # A log holds what was committed last, and is read along. Without one the file is complete by itself; but to
        # watch for a log to come, SQLite would have to write beside it: that is looked after in `usable`.
        state = _state(self.path)
        self._alone = None if state.log else state
        uri = f"{self.path.absolute().as_uri()}?mode=ro{'' if state.log else '&immutable=1'}"
        flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        connection = apsw.Connection(uri, flags=flags, vfs=sqlite_pages.vfs(), statementcachesize=256)
        return _prepared(connection, self.path, self._compare)

    def rows(self, sql: str, parameters: Parameters = {}) -> list[Row]:
        return self.connection.execute(_text(sql), parameters).fetchall()

    def row(self, sql: str, parameters: Parameters = {}) -> Row | None:
        found = self.connection.execute(_text(sql), parameters).fetchall()
        return found[0] if found else None

    def run(self, sql: str, parameters: Parameters = {}) -> None:
        self.connection.execute(_text(sql), parameters)

    def run_many(self, sql: str, parameters: Sequence[Parameters]) -> None:
        if parameters:
            self.connection.executemany(_text(sql), parameters)

    def now(self) -> int:
        return time.time_ns() // 1000

    def begin(self, sql: str) -> None:
        self.connection.execute(sql)
        self.depth += 1
        self.writing = sql != "begin"

    def end(self, sql: str) -> None:
        if self._pid != os.getpid():
            raise NotAllowed("a transaction was taken across a fork", next_step="End it before the fork.")
        self.depth -= 1
        if (sql == "rollback" or not self.writing) and not self.connection.in_transaction:
            return  # a full disk, or a failure of it, has undone everything already
        try:
            self.connection.execute(sql)
        except BaseException:
            if self.connection.in_transaction:
                self.connection.execute("rollback")
            raise

    @contextmanager
    def part(self) -> Iterator[None]:
        """A part of the open write transaction that is undone by itself if an error leaves it."""
        if not self.writing:
            raise RuntimeError("a read transaction is open in this thread, and cannot be written in")
        self.connection.execute("savepoint part")
        try:
            yield
        except BaseException:
            if self._pid == os.getpid() and self.connection.in_transaction:
                self.connection.execute("rollback to part")
                self.connection.execute("release part")
            raise
        if self._pid != os.getpid():
            raise NotAllowed("a transaction was taken across a fork", next_step="End it before the fork.")
        self.connection.execute("release part")

    def usable(self) -> bool:
        """Whether it shows what is stored now: not if the file was replaced, or written to beside it."""
        if self.unwritable is not None:
            return False  # it may be by now
        if self._alone is None:
            return self._identity == _identity(self.path)
        # Times advance in ticks of a few milliseconds: a file written just now could be written again within one.
        return self._alone == _state(self.path) and time.time_ns() - self._alone.changed > TICK

    def require_unchanged(self) -> None:
        """Raises `Busy` if what was read beside writers was written to: then it was not of one moment."""
        if self._alone is not None and replace(_state(self.path), log=self._alone.log) != self._alone:
            raise Busy(f"{self.path} was written to while it was read", field="registry", next_step="Try again.")

    def close(self) -> None:
        self.connection.close()


@functools.lru_cache(512)
def _text(sql: str) -> str:
    return sql.replace(" {lock}", "")


@dataclass(frozen=True, slots=True)
class _State:
    """What tells that a database file was written to."""

    identity: tuple[int, int]
    size: int
    written: int
    changed: int
    log: bool


def _state(path: Path) -> _State:
    try:
        found = path.stat()
    except FileNotFoundError:
        return _State((0, 0), 0, 0, 0, False)
    log = _size(Path(f"{path}-wal")) > 0
    return _State((found.st_dev, found.st_ino), found.st_size, found.st_mtime_ns, found.st_ctime_ns, log)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _require_plain_files(path: Path) -> None:
    """Refuse links and devices: SQLite keeps its log beside the file that a link leads to, and not beside the link."""
    for suffix in ("", "-wal", "-shm"):
        place = f"{path}{suffix}"
        try:
            found = os.lstat(place)
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(found.st_mode):
            raise UnsafeContent(
                f"{place} is a symbolic link, or something else that is no plain file",
                file=place,
                next_step="Put the file itself there; link to the whole directory, not to a file in it.",
            )


def _require_no_journal(path: Path) -> None:
    """Refuse a rollback journal: this database never has one, and playing one back writes what it says, and more."""
    journal = f"{path}-journal"
    if os.path.lexists(journal):
        raise UnsafeContent(
            f"{journal} is a rollback journal, and a registry writes none",
            file=journal,
            next_step="Somebody put it there; restore the directory from a backup, or move the journal away.",
        )


def _require_plain_tables(connection: apsw.Connection) -> None:
    """Refuse views, triggers and virtual tables: they run what somebody else wrote."""
    # Only what has rows of its own has a root page.
    for name, kind in connection.execute(
        "select name, type from sqlite_master where coalesce(rootpage, 0) = 0 limit 1"
    ):
        raise UnsafeContent(
            f"the database holds {name!r:.100}, a {kind} that no release makes",
            next_step="Do not use this registry: somebody altered it. Restore it from a backup.",
        )


def _may_write(path: Path) -> bool:
    return os.access(path if path.exists() else path.parent, os.W_OK) and os.access(path.parent, os.W_OK)


def _writable(path: Path, create: bool, compare: bool) -> apsw.Connection:
    flags = apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if create else 0)
    connection = apsw.Connection(str(path), flags=flags, vfs=sqlite_pages.vfs(), statementcachesize=256)
    if create and not _size(path):
        sqlite_pages.reserve(connection)
    _prepared(connection, path, compare)
    try:
        mode = connection.execute("pragma journal_mode=wal").fetchall()[0][0]
        if mode != "wal":
            raise NotAllowed(f"{path} cannot use a write-ahead log here (mode {mode})")
        sqlite_pages.mark(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepared(connection: apsw.Connection, path: Path, compare: bool) -> apsw.Connection:
    try:
        if not compare:
            connection.execute("pragma checksum_verification=off")  # before the first page is read
        connection.set_busy_timeout(int(WAIT_SECONDS * 1000))
        for pragma in ("synchronous=full", "foreign_keys=on", "cell_size_check=on", "trusted_schema=off"):
            connection.execute(f"pragma {pragma}")
        connection.limit(apsw.SQLITE_LIMIT_LENGTH, MAX_ROW)
        if compare:
            sqlite_pages.require(connection, path)
            sqlite_log.require_all_taken(connection, path)  # before the first write: it would hide what is lost
        _require_plain_tables(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def file_system(folder: Path) -> str:
    """Type of the file system that a folder lies on, by Linux's mount table; empty where there is none."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    place = os.path.realpath(folder)
    best, kind = -1, ""
    for line in lines:
        left, _, right = line.partition(" - ")
        fields: list[Any] = left.split(" ")
        if len(fields) < 5 or not right:
            continue
        point = fields[4].replace("\\040", " ")
        inside = place == point or place.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:
            best, kind = len(point), right.split(" ", 1)[0]
    return kind
