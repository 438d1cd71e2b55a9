"""The writers' queue: a `flock` on a file beside the database, where the kernel wakes those who wait, in fair order."""

from __future__ import annotations

import fcntl
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from llmartifacts.errors import Busy
from llmartifacts.records.forks import first_in_child


class WriterQueue:
    """The queue of all processes and threads that write to one database.

    Args:
        path: The database; the queue's file lies beside it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held: set[int] = set()
        _EVERY.add(self)

    @contextmanager
    def head(self, wait: float) -> Iterator[None]:
        """Wait for the head of the queue, and stay there until the block ends.

        Args:
            wait: Seconds to wait at most.

        Raises:
            Busy: It took longer.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(f"{self.path}.lock", flags, 0o666)
        self._held.add(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._wait_in_line(descriptor, wait)
        except BaseException:
            self._leave(descriptor)
            raise
        try:
            yield
        finally:
            self._leave(descriptor)

    def _wait_in_line(self, descriptor: int, wait: float) -> None:
        # flock takes no timeout, and polling would give up the fair order: wait in a thread, and leave
        # the descriptor to it if the time runs out.
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
                self._leave(descriptor)

        def give_up() -> bool:
            with guard:
                state["abandoned"] = not state["held"]
                return state["held"]

        threading.Thread(target=take, name="llmartifacts-queue", daemon=True).start()
        try:
            arrived = done.wait(wait)
        except BaseException:
            if give_up():
                self._leave(descriptor)
            raise
        if not arrived and not give_up():
            raise Busy(f"{self.path} stayed locked by another writer for {wait:g} s", field="registry")

    def _leave(self, descriptor: int) -> None:
        if descriptor in self._held:  # not in a child, which has closed its copy
            self._held.discard(descriptor)
            # A forked child may hold a copy for a moment, and closing one's own would then not let go.
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    def _forget(self) -> None:
        for descriptor in self._held:
            with suppress(OSError):
                os.close(descriptor)
        self._held = set()


_EVERY: weakref.WeakSet[WriterQueue] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    # A lock is let go when the last copy of its descriptor is closed: a child must not keep its parent's place.
    for each in list(_EVERY):
        each._forget()


first_in_child(_after_fork_in_child)
