"""The embedded database: SQLite through apsw, in WAL mode, with a fair queue for writers.

Left to itself, SQLite lets one of several writers starve: its waiting is a sleep, and whoever comes back first wins.
Here every write transaction first queues at a `flock` on a file beside the database, where the kernel wakes the
waiters, and then begins with `BEGIN IMMEDIATE`, so that it never has to upgrade a lock.
"""

from __future__ import annotations

import fcntl
import functools
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import apsw

from llmartifacts.errors import Busy, Damaged, LlmartifactsError, NotAllowed, NotFound, Unreachable
from llmartifacts.metadata.database import Parameters, Row

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


class SqliteDatabase:
    """One SQLite file.

    Args:
        path: The file.
        create: Make it if it is not there.
        wait: Seconds to wait for other writers before `Busy`.

    Raises:
        NotFound: There is no such file.
        NotAllowed: It cannot be opened, or lies on a network file system.
    """

    types: ClassVar[Mapping[str, str]] = {"id": "integer primary key", "text": "text", "bytes": "blob"}

    def __init__(self, path: Path, *, create: bool = False, wait: float = WAIT_SECONDS) -> None:
        if tuple(map(int, apsw.sqlite_lib_version().split("."))) < MINIMUM:
            raise NotAllowed(
                f"SQLite {apsw.sqlite_lib_version()} is too old",
                next_step="Install the apsw wheel from the package index; it carries its own SQLite.",
            )
        self.path = path
        self._wait = wait
        self._create = create
        self._local = threading.local()
        self._all: list[_Session] = []
        self._guard = threading.Lock()
        self._closed = False
        kind = file_system(path.parent)
        if kind in NETWORK_FILE_SYSTEMS:
            raise NotAllowed(
                f"{path} lies on a network file system ({kind}), where SQLite's locks cannot be trusted",
                field="location",
                next_step="Keep an embedded registry on a local disk.",
            )
        if not create and not path.exists():
            raise NotFound(f"there is no database at {path}", what="registry", name=str(path))
        self._session()

    @contextmanager
    def reading(self) -> Iterator[_Session]:
        """A read transaction: everything in it is of one moment."""
        session = self._session()
        if session.depth:  # inside a write transaction of this thread: the same view
            yield session
            return
        with _translated(self.path):
            session.begin("begin")
            try:
                yield session
            finally:
                session.end("commit")

    @contextmanager
    def writing(self) -> Iterator[_Session]:
        """A write transaction, one at a time, in fair order."""
        session = self._session()
        if session.readonly:
            _read_only(self.path)
        if session.depth:
            raise RuntimeError("a write transaction is open in this thread already")
        with _translated(self.path):
            session.queue(self._wait)
            try:
                session.begin("begin immediate")
                try:
                    yield session
                except BaseException:
                    session.end("rollback")
                    raise
                session.end("commit")
            finally:
                session.leave()

    def size(self) -> int:
        """Bytes of the database and its log."""
        files = [self.path, Path(f"{self.path}-wal")]
        return sum(f.stat().st_size for f in files if f.exists())

    def check(self) -> list[str]:
        """SQLite's own integrity check."""
        try:
            with self.reading() as session:
                found = [str(r[0]) for r in session.rows("pragma integrity_check(20)")]
                found += [f"foreign key: {r}" for r in session.rows("pragma foreign_key_check")]
        except Damaged as error:
            return [error.message]
        return [line for line in found if line != "ok"]

    def close(self) -> None:
        """Close every connection of this process."""
        with self._guard:
            self._closed = True
            for session in self._all:
                session.close()
            self._all.clear()

    def _session(self) -> _Session:
        session: _Session | None = getattr(self._local, "session", None)
        if session is None or session.pid != os.getpid():  # a connection must not cross a fork
            with self._guard:
                if self._closed:
                    raise NotAllowed("this registry was closed", next_step="Open it again with connect().")
                session = _Session(self.path, self._create)
                self._all.append(session)
            self._local.session = session
        return session


class _Session:
    """One connection of one thread."""

    def __init__(self, path: Path, create: bool) -> None:
        self.path = path
        self.pid = os.getpid()
        self.depth = 0
        self._queue: int | None = None
        with _translated(path):
            self.connection, self.readonly = _open(path, create)
            self.connection.set_busy_timeout(int(WAIT_SECONDS * 1000))
            for pragma in ("synchronous=full", "foreign_keys=on", "cell_size_check=on", "trusted_schema=off"):
                self.connection.execute(f"pragma {pragma}")
            if not self.readonly:
                mode = self.connection.execute("pragma journal_mode=wal").fetchall()[0][0]
                if mode != "wal":
                    raise NotAllowed(f"{path} cannot use a write-ahead log here (mode {mode})")

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

    def end(self, sql: str) -> None:
        self.depth -= 1
        try:
            self.connection.execute(sql)
        except BaseException:
            if self.connection.in_transaction:
                self.connection.execute("rollback")
            raise

    def queue(self, wait: float) -> None:
        """Take the place at the head of the writers' queue."""
        if self._queue is None:
            self._queue = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(self._queue, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._wait_in_line(wait)

    def _wait_in_line(self, wait: float) -> None:
        # flock takes no timeout, and polling would give up the fair order: wait in a thread, and leave
        # the descriptor to it if the time runs out.
        descriptor = self._queue
        assert descriptor is not None  # noqa: S101
        state = {"abandoned": False, "held": False}
        guard = threading.Lock()
        done = threading.Event()

        def take() -> None:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            with guard:
                state["held"] = True
                abandoned = state["abandoned"]
            done.set()
            if abandoned:
                os.close(descriptor)

        threading.Thread(target=take, name="llmartifacts-queue", daemon=True).start()
        if done.wait(wait):
            return
        with guard:
            if state["held"]:
                return
            state["abandoned"] = True
        self._queue = None
        raise Busy(f"{self.path} stayed locked by another writer for {wait:g} s", field="registry")

    def leave(self) -> None:
        """Let the next writer go."""
        if self._queue is not None:
            fcntl.flock(self._queue, fcntl.LOCK_UN)

    def close(self) -> None:
        if self.pid == os.getpid():
            self.connection.close()
            if self._queue is not None:
                os.close(self._queue)
                self._queue = None


@functools.lru_cache(512)
def _text(sql: str) -> str:
    return sql.replace(" {lock}", "")


def _open(path: Path, create: bool) -> tuple[apsw.Connection, bool]:
    writable = os.access(path if path.exists() else path.parent, os.W_OK) and os.access(path.parent, os.W_OK)
    if writable:
        flags = apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if create else 0)
        try:
            return apsw.Connection(str(path), flags=flags, statementcachesize=256), False
        except (apsw.CantOpenError, apsw.ReadOnlyError):
            if create:
                raise
    # A log that nobody may write holds what was committed last: then it must be read along. Without one,
    # the file is complete by itself.
    log = Path(f"{path}-wal")
    immutable = "" if log.exists() and log.stat().st_size else "&immutable=1"
    uri = f"{path.resolve().as_uri()}?mode=ro{immutable}"
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    return apsw.Connection(uri, flags=flags, statementcachesize=256), True


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """The database's own errors as ours."""
    try:
        yield
    except LlmartifactsError:
        raise
    except apsw.BusyError as error:
        raise Busy(f"{path} stayed locked by another writer: {error}", field="registry") from error
    except apsw.SQLError as error:
        if "no such table" not in str(error):
            raise
        raise NotFound(f"{path} is no registry: {error}", what="registry", name=str(path)) from error
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise Damaged(f"the database {path} is damaged: {error}", file=str(path)) from error
    except (apsw.ReadOnlyError, apsw.CantOpenError, apsw.PermissionsError, apsw.AuthError) as error:
        _read_only(path, error)
    except PermissionError as error:
        _read_only(path, error)
    except (apsw.FullError, apsw.IOError) as error:
        raise Unreachable(
            f"the database {path} cannot be read or written: {error}",
            next_step="Look at the disk: free space, mount options, the system log.",
        ) from error


def _read_only(path: Path, error: Exception | None = None) -> NoReturn:
    raise NotAllowed(
        f"{path} cannot be written{f': {error}' if error else ''}",
        field="location",
        next_step="Open it as a user who may write the directory, or work on a copy.",
    ) from error


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
