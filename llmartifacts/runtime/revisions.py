"""A registry that is older than it was: followed only where somebody said so, or where it is another one.

A project's revision only grows, and so does the number of moves of each alias. What is lower than is known here is an
old copy: a backup that was put back, a replica that lags, or somebody who plays an old state to withdraw a fix. The set
that is known stays.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from llmartifacts.errors import Refused
from llmartifacts.records.digest import Digest
from llmartifacts.records.lock import Lockfile
from llmartifacts.records.names import NAME
from llmartifacts.runtime.generation import Notice

VARIABLE = "LLMARTIFACTS_ACCEPT_REVISION"
_ACCEPTED = re.compile(rf"({NAME})@r(0|[1-9][0-9]{{0,17}})")


class WentBack(Refused):
    """The registry's revision is lower than the one that is known here."""


@dataclass(frozen=True, slots=True)
class Floor:
    """The newest state of a project that is known here.

    Attributes:
        revision: Its revision.
        registry: Which registry it was, as it says itself; empty if unknown.
        moves: Reference by alias -> the number of its last move, and the version that it led to.
    """

    revision: int
    registry: str = ""
    moves: Mapping[str, tuple[int, Digest]] = field(default_factory=dict)

    @classmethod
    def of(cls, lock: Lockfile, registry: str) -> Floor:
        """The state that a set was read from."""
        moves = {c.reference: (c.move, c.digest) for c in lock.components.values() if c.move is not None}
        return cls(lock.revision, registry, MappingProxyType(moves))

    def behind(self, lock: Lockfile) -> str:
        """How a set is older than this; empty if it is not."""
        if lock.revision < self.revision:
            return f"the registry is at revision {lock.revision}, and was at {self.revision}"
        for c in lock.components.values():
            move, digest = self.moves.get(c.reference, (0, c.digest))
            if c.move is not None and c.move < move:
                return f"{c.reference} is at its move {c.move} in the registry, and was at {move}"
            if c.move == move and c.digest != digest:
                return f"{c.reference} is another version in the registry, and has not moved since"
        return ""


def follow(lock: Lockfile, floor: Floor | None, identity: Callable[[], str]) -> Notice | None:
    """Whether what a registry says is to be followed.

    Args:
        lock: What it says.
        floor: The newest state known here; None if there is none.
        identity: Asks it which registry it is; called only if it is older.

    Returns:
        What somebody should know; None if it went on as it should.

    Raises:
        WentBack: It is older than it was.
    """
    told = floor.behind(lock) if floor is not None else ""
    if floor is None or not told:
        return None
    accepted = os.environ.get(VARIABLE, "")
    named = _ACCEPTED.fullmatch(accepted)
    if named is not None and named[1] == lock.project and lock.revision >= int(named[2]):
        return Notice("revision-went-back", f"{told}; ${VARIABLE} takes that")
    now = identity()
    if floor.registry and now and now != floor.registry:
        return Notice("registry-replaced", f"{told}, which was another one: {floor.registry} before, {now} now")
    if accepted and named is None:
        told += f" (${VARIABLE} is not PROJECT@rN, so it takes nothing)"
    raise WentBack(
        f"{told}: an older copy of it?",
        field="revision",
        next_step=f"If it was put back on purpose, set {VARIABLE}={lock.project}@r{lock.revision} for the service.",
    )
