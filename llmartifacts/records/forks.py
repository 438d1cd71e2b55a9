"""Children made by fork: what has locks or a thread gets new ones there, before anything of it is used.

In a child, in this order: connections and locks of databases (`first_in_child`), then everything that is renewed
(`after_fork`), and last what starts threads again (`go_on_after_fork`), since a thread uses all of the others at once.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any, Protocol


class Renewable(Protocol):
    """Something that a forked child cannot use as it was left; it may also have `go_on_after_fork()`."""

    def after_fork(self) -> None:
        """Begin anew, in the child; start no thread."""


_FIRST: list[Callable[[], None]] = []
_EVERY: weakref.WeakSet[Any] = weakref.WeakSet()


def renew_after_fork(one: Renewable) -> None:
    """Have `after_fork` called in every child, for as long as it lives."""
    _EVERY.add(one)


def first_in_child(work: Callable[[], None]) -> None:
    """Have a module's own work done in every child, before anything is renewed."""
    _FIRST.append(work)


def _in_child() -> None:
    for work in _FIRST:
        work()
    every = list(_EVERY)
    for one in every:
        one.after_fork()
    for one in every:
        go_on = getattr(one, "go_on_after_fork", None)
        if go_on is not None:
            go_on()


os.register_at_fork(after_in_child=_in_child)
