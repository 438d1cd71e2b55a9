"""The connections of one database in this process: one a thread, none of a thread that has ended, none across a fork.

SQLite keeps account of a process's file locks in memory, and the kernel hands no lock on to a child. A child of a
process with an open connection therefore works under locks that it does not hold: what it commits can end in a log
that the parent has removed by then, and is lost. So before a fork the transactions of other threads are waited for
and every connection is closed; afterwards each side opens its own.

Source: sqlite.org/howtocorrupt.html, "Carrying an open database connection across a fork()".
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, Protocol, TypeVar

from llmartifacts.errors import NotAllowed
from llmartifacts.records.forks import first_in_child

FORK_SECONDS = 5.0
"""How long a fork waits for the transactions of other threads."""


class Connection(Protocol):
    """What is kept here of a connection."""

    def close(self) -> None:
        """Let go of it."""

    def usable(self) -> bool:
        """Whether it still shows what is stored now; one that does not is closed and opened anew."""


C = TypeVar("C", bound=Connection)


class Connections(Generic[C]):
    """One connection a thread, opened when the thread first needs it.

    Args:
        key: Whatever names the database; a child that could not be kept clean of it may not open it again.
        make: Opens a connection.
    """

    def __init__(self, key: str, make: Callable[[], C]) -> None:
        self._key = key
        self._make = make
        self._closed = False
        self._renew()
        _EVERY.add(self)

    def _renew(self) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._local = threading.local()
        self._open: list[tuple[threading.Thread, C]] = []
        self._users = 0
        self._forks = 0

    @contextmanager
    def use(self) -> Iterator[C]:
        """The connection of this thread; neither a close nor a fork takes it away inside the block.

        Raises:
            NotAllowed: They were closed, or this process is a child that was forked in a way that is not safe.
        """
        if getattr(self._local, "used", False):
            yield self._local.connection
            return
        changed = self._enter()
        local = self._local
        local.used = True
        try:
            yield self._own(local)
        finally:
            local.used = False
            with changed:
                if changed is self._changed:  # else this is a child now, and all of that is its parent's
                    self._users -= 1
                    if self._closed:
                        self._close_idle()
                    changed.notify_all()

    def close(self) -> None:
        """Close every connection; one that is in use, as soon as it is not."""
        with self._changed:
            self._closed = True
            self._close_idle()

    def _enter(self) -> threading.Condition:
        if self._pid != os.getpid():  # forked behind Python's back
            self._reborn()
        with self._changed:
            while self._forks:
                self._changed.wait()
            if self._closed:
                raise NotAllowed("this registry was closed", next_step="Open it again with connect().")
            self._users += 1
            return self._changed

    def _own(self, local: threading.local) -> C:
        connection: C | None = getattr(local, "connection", None)
        if connection is not None and connection.usable():
            return connection
        if self._key in _UNSAFE:
            raise NotAllowed(
                f"this process was forked while {self._key} was in use, and cannot use it safely",
                next_step="Fork before other threads use the registry, or begin the child with `spawn`.",
            )
        with self._changed:
            kept: list[tuple[threading.Thread, C]] = []
            for thread, other in self._open:
                if other is connection or not thread.is_alive():
                    other.close()
                else:
                    kept.append((thread, other))
            self._open = kept
        local.connection = None
        connection = self._make()
        with self._changed:
            self._open.append((threading.current_thread(), connection))
        local.connection = connection
        return connection

    def _close_idle(self) -> None:
        if not self._users:
            for _, connection in self._open:
                connection.close()
            self._open = []
            self._local = threading.local()

    # --- around a fork, in this order

    def _part(self) -> None:
        mine = 1 if getattr(self._local, "used", False) else 0
        with self._changed:
            self._forks += 1
            self._changed.wait_for(lambda: self._users <= mine, FORK_SECONDS)
            self._close_idle()

    def _rejoin(self) -> None:
        with self._changed:
            self._forks = max(0, self._forks - 1)
            self._changed.notify_all()

    def _reborn(self) -> None:
        if self._open:  # their memory says what is not true here; even to close them is not safe
            _UNSAFE[self._key] = [*_UNSAFE.get(self._key, []), *self._open]
        self._renew()


# Of the process as a whole, as a fork is: every pool, and what a child has inherited and must not touch.
_EVERY: weakref.WeakSet[Connections[Any]] = weakref.WeakSet()
_UNSAFE: dict[str, list[object]] = {}


def _before_fork() -> None:
    for each in list(_EVERY):
        each._part()


def _after_fork_in_parent() -> None:
    for each in list(_EVERY):
        each._rejoin()


def _after_fork_in_child() -> None:
    for each in list(_EVERY):
        if each._pid != os.getpid():  # else somebody used it before this, and it has connections of its own
            each._reborn()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent)
first_in_child(_after_fork_in_child)
