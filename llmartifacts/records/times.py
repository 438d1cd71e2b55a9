"""Times: always UTC, microseconds, `2026-03-03T09:00:00.000000Z` in text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from llmartifacts.errors import InvalidInput
from llmartifacts.records.arguments import shown

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def from_micros(micros: int) -> datetime:
    """The time some microseconds after 1970."""
    return _EPOCH + timedelta(microseconds=micros)


def to_micros(at: datetime) -> int:
    """Microseconds since 1970."""
    return (at - _EPOCH) // timedelta(microseconds=1)


def to_text(at: datetime) -> str:
    """RFC 3339 with microseconds and `Z`."""
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def parse_time(value: str | datetime, *, field: str = "at") -> datetime:
    """Read an ISO 8601 time; one without an offset is UTC.

    Raises:
        InvalidInput: It is no time.
    """
    try:
        made = datetime.fromisoformat(value) if isinstance(value, str) else value
        return made.replace(tzinfo=UTC) if made.tzinfo is None else made.astimezone(UTC)
    except (ValueError, TypeError, AttributeError, OverflowError):
        raise InvalidInput(
            f"{shown(value, 60)} is not a time", field=field, next_step="Write it like 2026-03-03T09:00Z."
        ) from None
