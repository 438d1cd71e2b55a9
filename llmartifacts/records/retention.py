"""Which versions are kept: pure rules, no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from llmartifacts.errors import InvalidInput
from llmartifacts.records.arguments import check_reason, shown
from llmartifacts.records.names import MAX_VERSIONS, check_name
from llmartifacts.records.times import duration_text

HISTORY = timedelta(days=30)
"""How long what an alias has named is kept after the alias moved on, where nobody says otherwise."""
SHARED_GRACE = timedelta(hours=24)
"""How long what nothing needs stays, where several servers share a database or a store."""
MAX_GRACE = timedelta(days=366)
MAX_COLLECTIONS = 10_000


@dataclass(frozen=True, slots=True)
class Retention:
    """Which versions of a project are kept; what no rule keeps is removed.

    A version is kept if one of the rules keeps it. Kept whatever the rules say: `latest`, what an alias names or named
    within `history`, what a lease holds, what a bundle that stays contains, what the policy names, and the reports that
    let those in, with what they were measured against.

    Attributes:
        project: Name of the project.
        keep_last: Of each collection, keep the newest so many; None for no such rule.
        keep_within: Keep what was logged within this time; None for no such rule.
        collections: Names of the collections that it is about; none for all of the project.
        history: How long what an alias has named is kept after the alias moved on.
        reason: Why, in the words of who asks.

    Raises:
        InvalidInput: There is no rule, or one that cannot be.
    """

    project: str
    keep_last: int | None = None
    keep_within: timedelta | None = None
    collections: tuple[str, ...] = ()
    history: timedelta = HISTORY
    reason: str = ""

    def __post_init__(self) -> None:
        if self.keep_last is None and self.keep_within is None:
            raise InvalidInput(
                "nothing says which versions are kept",
                field="keep_last",
                next_step="Give keep_last, keep_within, or both (--keep-last 10 --keep-within 90d).",
            )
        given = self.keep_last
        if given is not None and (type(given) is not int or not 1 <= given <= MAX_VERSIONS):
            raise InvalidInput(f"{shown(given)} is no number of versions to keep", field="keep_last")
        for name, length in (("keep_within", self.keep_within), ("history", self.history)):
            if length is not None and (not isinstance(length, timedelta) or length < timedelta(0)):
                raise InvalidInput(f"{shown(length)} is no length of time", field=name)
        if len(self.collections) > MAX_COLLECTIONS:
            raise InvalidInput(f"more than {MAX_COLLECTIONS:,} collections are named", field="collections")
        for name in self.collections:
            check_name(name, field="collections")
        if self.reason:
            check_reason(self.reason, "the reason of a removal")

    @property
    def rule(self) -> str:
        """The rules in short, such as `keep-last 10, keep-within 90 days`."""
        told = [] if self.keep_last is None else [f"keep-last {self.keep_last}"]
        if self.keep_within is not None:
            told.append(f"keep-within {duration_text(self.keep_within)}")
        return ", ".join(told)


def check_grace(grace: timedelta | None) -> timedelta | None:
    """A grace period that can be. Raises `InvalidInput`."""
    if grace is None:
        return None
    if not isinstance(grace, timedelta) or not timedelta(0) <= grace <= MAX_GRACE:
        raise InvalidInput(
            f"{shown(grace)} is no grace period",
            field="grace",
            next_step="Give a length of time of at most 366 days, such as 36h; 0 for none.",
        )
    return grace
