"""Leases: versions that a lockfile or a service holds for a time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from llmartifacts.errors import InvalidInput
from llmartifacts.records.arguments import shown
from llmartifacts.records.digest import Digest

MAX_LEASE = timedelta(days=366)
MAX_HELD = 1_000
"""Versions that one holder may hold."""
MAX_OF_ACCOUNT = 10_000
"""Versions that one account may hold on a server, under all names together."""


@dataclass(frozen=True, slots=True)
class Lease:
    """What one holder holds. Retention removes none of it; an erasure and the removal of the project do.

    Attributes:
        project: Name of the project.
        holder: Who holds it, in their words, such as `support@web-3`.
        digests: Manifest digests of the versions.
        until: When it ends, UTC.
        at: When it was taken or renewed, UTC.
        account: Who asked for it.
    """

    project: str
    holder: str
    digests: tuple[Digest, ...]
    until: datetime
    at: datetime
    account: str


def check_length(length: timedelta, *, field: str = "lease") -> timedelta:
    """A length of time that a lease may have; none at all ends it. Raises `InvalidInput`."""
    if not isinstance(length, timedelta) or not timedelta(0) <= length <= MAX_LEASE:
        told = f"{length / timedelta(days=1):g} days" if isinstance(length, timedelta) else shown(length)
        raise InvalidInput(
            f"{told} is no length of a lease",
            field=field,
            next_step=f"Give at most {MAX_LEASE.days} days, such as 90d, and renew it.",
        )
    return length
