"""The PostgreSQL connections of one process: a pool that says at once why there is none, and survives a fork.

A connection belongs to the process that opened it: two that speak on one socket garble both. A child therefore leaves
what it inherits alone, lets go of the sockets (or the server would not notice when its parent dies, and would keep the
parent's locks), and opens its own.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias

import psycopg
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from llmartifacts.errors import Busy, NotAllowed
from llmartifacts.records.forks import first_in_child

PATIENCE = 0.25
"""Seconds for a connection to come before one is opened beside the pool, or it is told why there is none."""
RECONNECT_SECONDS = 2.0
"""How long the pool tries to replace one; its pauses grow, and longer ones would outlast the server's absence."""
_QUIET = logging.getLogger("psycopg")
PREPARED = 300
"""Statements that a connection keeps prepared: more than there are."""
Connection: TypeAlias = psycopg.Connection[Any]


class Connections:
    """At most so many connections to one database.

    Args:
        options: What `psycopg.connect` is called with.
        most: How many at most, of this process.
        wait: Seconds to wait for one before `Busy`.
        place: The database, as it may be shown.
    """

    def __init__(self, options: dict[str, Any], *, most: int, wait: float, place: str) -> None:
        self._options = options
        self._most = most
        self._wait = wait
        self._place = place
        self._closed = False
        self._renew()
        _EVERY.add(self)

    def _renew(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._pool: ConnectionPool[Connection] | None = None
        self._made: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._beside: set[Connection] = set()
        self._out = 0

    def connect(self) -> Connection:
        """A connection beside the pool, for the caller to close; its errors say why there is none."""
        return psycopg.connect(**self._options)

    def take(self, *, fresh: bool = False) -> Connection:
        """A connection, to be given back.

        Args:
            fresh: One that is opened now, after another was found dead: those that idle may be dead too.

        Raises:
            Busy: All of them stayed in use.
            NotAllowed: They were closed.
            psycopg.Error: The server cannot be had.
        """
        pool = self._open()
        end = time.monotonic() + self._wait
        while True:
            if fresh and self._out < self._most:
                return self._beside_the_pool()
            try:
                connection = pool.getconn(timeout=min(PATIENCE, self._wait))
            except PoolTimeout:
                # None comes, though more might be opened: the pool pauses between its attempts. This one says why.
                fresh = True
                if time.monotonic() > end:
                    raise Busy(
                        f"all {self._most} connections to {self._place} stayed in use for {self._wait:g} s",
                        field="database",
                        next_step="Try again in a moment; if it stays, allow more connections.",
                    ) from None
            except PoolClosed:
                raise _closed() from None
            else:
                with self._lock:
                    self._out += 1
                return connection

    def give_back(self, connection: Connection) -> None:
        """Take back a connection; one that is broken is replaced."""
        if self._pid != os.getpid() or self._pool is None:
            return  # its parent's
        with self._lock:
            self._out -= 1
            beside = connection in self._beside
            self._beside.discard(connection)
        if beside:
            connection.close()
        else:
            self._pool.putconn(connection)

    def _keep(self, connection: Connection) -> None:
        connection.prepared_max = PREPARED
        self._made.add(connection)

    def _beside_the_pool(self) -> Connection:
        connection = self.connect()
        self._made.add(connection)
        with self._lock:
            self._out += 1
            self._beside.add(connection)
        return connection

    def close(self) -> None:
        """Close every connection; one that is in use, as soon as it is not."""
        self._closed = True
        if self._pool is not None and self._pid == os.getpid():
            self._pool.close()

    def _open(self) -> ConnectionPool[Connection]:
        with self._lock:
            if self._closed:
                raise _closed()
            if self._pool is None:
                _QUIET.setLevel(_QUIET.level or logging.ERROR)  # what it warns of is raised here, where it matters
                self._pool = ConnectionPool(
                    "",
                    kwargs=self._options,
                    min_size=1,
                    max_size=self._most,
                    reconnect_timeout=RECONNECT_SECONDS,
                    configure=self._keep,
                    name="llmartifacts",
                    open=True,
                )
            return self._pool

    def _reborn(self) -> None:
        inherited = list(self._made)
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for connection in inherited:
            with suppress(psycopg.Error, OSError):
                os.dup2(nothing, connection.fileno(), inheritable=False)
        os.close(nothing)
        if self._pool is not None:
            self._pool._closed = True  # else its end would wait for threads that are not here
            _INHERITED.append(self._pool)
        _INHERITED.extend(inherited)
        self._renew()


class Line:
    """Who of this process's threads writes next, in the order in which they came.

    The database has one writer at a time. Whoever waits there holds a connection, and a process whose writers hold all
    of them cannot read: so only so many wait there, and the others here.

    Args:
        most: How many may pass at a time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._renew()
        _EVERY.add(self)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._free = self._most
        self._waiting: deque[threading.Event] = deque()

    @contextmanager
    def turn(self, wait: float, place: str) -> Iterator[None]:
        """Wait for one's turn, and have it until the block ends.

        Args:
            wait: Seconds to wait at most.
            place: The database, as it may be shown.

        Raises:
            Busy: It took longer.
        """
        lock = self._lock
        called = threading.Event()
        with lock:
            if self._free and not self._waiting:
                self._free -= 1
                called.set()
            else:
                self._waiting.append(called)
        try:
            if not called.is_set() and not called.wait(wait):
                raise Busy(f"{place} stayed locked by other writers for {wait:g} s", field="registry")
            yield
        finally:
            if lock is self._lock:  # else this is a child, and the line its parent's
                self._leave(called)

    def _leave(self, called: threading.Event) -> None:
        with self._lock:
            if not called.is_set():
                self._waiting.remove(called)
            elif self._waiting:
                self._waiting.popleft().set()
            else:
                self._free += 1

    def _reborn(self) -> None:
        self._renew()


def _closed() -> NotAllowed:
    return NotAllowed("this registry was closed", next_step="Open it again.")


# Of the process as a whole, as a fork is; what a child has inherited must never be finalised there.
_EVERY: weakref.WeakSet[Connections | Line] = weakref.WeakSet()
_INHERITED: list[object] = []


def _after_fork_in_child() -> None:
    for each in list(_EVERY):
        if isinstance(each, Line) or each._pid != os.getpid():
            each._reborn()


first_in_child(_after_fork_in_child)
