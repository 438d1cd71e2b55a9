"""What a resolver is just now: its state, why, and what it has done so far.

A start leads from NOT_READY to READY, or to STALE where a kept set stands in, or to ERROR; each look at the registry
leads from READY to STALE and back; what has not been confirmed for `max_stale` seconds is an ERROR until it is again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from llmartifacts.runtime.stamp import Source


class State(StrEnum):
    """Whether a resolver serves, and how sure it is of what it serves."""

    NOT_READY = "NOT_READY"
    """It has not started, or is starting."""
    READY = "READY"
    """It serves a set that the registry confirmed, or the lockfile that was asked for."""
    STALE = "STALE"
    """It serves a set, and cannot tell whether that is still what the references mean."""
    ERROR = "ERROR"
    """It could not start; or what it serves is older than `max_stale`, or is not to be served any more."""


@dataclass(frozen=True, slots=True)
class Checks:
    """What a resolver has done since it was made.

    Attributes:
        made: Looks at the registry that this process began.
        unchanged: Looks of its own that found what is served already.
        shared: Looks of other processes of this host that were taken instead of one of its own.
        swapped: Generations that took the place of another one.
        failed: Looks that ended in an error, or in a set that could not be served.
        last_swap_seconds: Seconds from asking the registry to serving what it said; None before the first swap.
        fetched: Blobs that were fetched from the registry.
        cached: Blobs that were found in the cache.
        stale_seconds: Seconds served, in all, while the state was STALE.
    """

    made: int = 0
    unchanged: int = 0
    shared: int = 0
    swapped: int = 0
    failed: int = 0
    last_swap_seconds: float | None = None
    fetched: int = 0
    cached: int = 0
    stale_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Status:
    """What a resolver is at one moment; for a readiness probe, a metric, a log line.

    Attributes:
        state: Its state.
        ready: Whether requests may be sent to it: the state is READY or STALE.
        generation: Number of the generation that is served; 0 before the first.
        revision: The project's revision that it was read at; None before the first.
        source: Where its digests came from; None before the first.
        stamp: Its stamp; empty before the first.
        age: Seconds since the registry confirmed that this very set is what the references mean, by the monotonic
            clock; for a last-known-good set, from the time at which it was saved. None for a set that no registry
            ever confirmed here: a lockfile, or a packaged one that stands in.
        code: Why it is not READY: `registry-unreachable`, `registry-refused`, `newer-set-refused`,
            `revision-went-back`, `alias-missing`, `too-old`, `not-started`, `start-failed` or `fallback`; else empty.
        reason: The same in a sentence; empty when READY.
        checks: Counts.
    """

    state: State
    ready: bool
    generation: int = 0
    revision: int | None = None
    source: Source | None = None
    stamp: str = ""
    age: float | None = None
    code: str = ""
    reason: str = ""
    checks: Checks = field(default_factory=Checks)
