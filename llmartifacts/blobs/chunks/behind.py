"""Work in one thread behind the caller: what waits for a disk, or lets other threads run, goes on beside what does not.

Jobs run in order. One that fails is the last that runs, and the caller hears of it at the next call: so nobody goes on
for long after a disk is full, and `wait` says whether all of it was done.
"""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass

Job = Callable[[], object]


class Behind:
    """A queue of jobs and the thread that does them, which is started with the first.

    For one thread that gives jobs. The jobs hold what they need: a buffer must not be changed before they are done.

    Args:
        name: Of the thread.
        waiting: Jobs that wait at most; whoever gives one more waits until one is taken. Bounds the memory they hold.
    """

    def __init__(self, name: str, waiting: int = 4) -> None:
        self._name = name
        self._waiting = waiting
        self._work = _Work(queue.Queue(waiting))
        self._thread: threading.Thread | None = None

    def do(self, job: Job) -> None:
        """Have a job done, after those before it. Raises what one of those raised."""
        self._work.refuse()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work.run, name=self._name, daemon=True)
            self._thread.start()
            weakref.finalize(self, self._work.give_up)  # one that nobody ends must not leave a thread
        self._work.jobs.put(job)

    def wait(self) -> None:
        """Wait until every job is done. Raises what one of them raised."""
        self._work.jobs.join()
        self._work.refuse()

    def idle(self) -> None:
        """Wait until every job is done, or dropped for one that failed; that one is still raised by the next call."""
        self._work.jobs.join()

    def end(self) -> None:
        """Drop the jobs that have not begun, wait for the one that runs, and end the thread; forgets errors.

        May be called at any time, any number of times, also after an interrupt; a later `do` begins anew.
        """
        thread, self._thread = self._thread, None
        work, self._work = self._work, _Work(queue.Queue(self._waiting))
        if thread is not None:
            work.error = work.error or _Dropped()  # from here on, jobs are taken and not done
            while thread.is_alive() and not work.give_up():
                thread.join(0.01)
            thread.join()


@dataclass
class _Work:
    """What the thread knows: not the `Behind` itself, which ends it when it goes."""

    jobs: queue.Queue[Job | None]
    error: BaseException | None = None

    def refuse(self) -> None:
        if self.error is not None:
            raise self.error

    def give_up(self) -> bool:
        """Have the thread end once it comes to it; False if there is no room to say so yet."""
        try:
            self.jobs.put_nowait(None)
        except queue.Full:
            return False
        return True

    def run(self) -> None:
        while True:
            job = self.jobs.get()
            try:
                if job is None:
                    return
                if self.error is None:
                    job()
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is the caller's to handle
                self.error = error
            finally:
                del job  # and with it the buffers that it holds
                self.jobs.task_done()


class _Dropped(Exception):
    """Its jobs are not wanted any more. Never leaves this file."""
