"""Times: always UTC, microseconds, `2026-03-03T09:00:00.000000Z` in text."""

from __future__ import annotations

import re
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


def parse_duration(value: str, *, field: str = "duration") -> timedelta:
    """Read a length of time such as `90m`, `12h`, `30d` or `2w`.

    Raises:
        InvalidInput: It is none, or longer than 10,000 weeks.
    """
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None or int(found[1]) * _UNITS[found[2]] > timedelta(weeks=10_000):
        raise InvalidInput(
            f"{shown(value, 60)} is no length of time", field=field, next_step="Write it like 90m, 12h, 30d or 2w."
        )
    return int(found[1]) * _UNITS[found[2]]


def duration_text(length: timedelta) -> str:
    """A length of time for people, in its largest unit, such as `3 days`."""
    for unit, word in ((timedelta(days=1), "day"), (timedelta(hours=1), "hour"), (timedelta(minutes=1), "minute")):
        if length >= unit:
            count = length // unit
            return f"{count} {word}{'s' if count > 1 else ''}"
    return "less than a minute"


_DURATION = re.compile(r"([1-9][0-9]{0,7})([smhdw])")
_UNITS = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
