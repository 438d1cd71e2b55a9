"""Children made by fork: what has locks or a thread gets new ones there, before anything of it is used."""

from __future__ import annotations

import os
import weakref
from typing import Any, Protocol


class Renewable(Protocol):
    """Something that a forked child cannot use as it was left."""

    def after_fork(self) -> None:
        """Begin anew, in the child."""


_EVERY: weakref.WeakSet[Any] = weakref.WeakSet()


def renew_after_fork(one: Renewable) -> None:
    """Have `after_fork` called in every child, for as long as it lives."""
    _EVERY.add(one)


def _in_child() -> None:
    for one in list(_EVERY):
        one.after_fork()


os.register_at_fork(after_in_child=_in_child)
