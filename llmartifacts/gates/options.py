"""Options of gates, read without trust: a policy is data that somebody wrote."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from datetime import timedelta
from typing import Any

from llmartifacts.errors import InvalidInput, InvalidReference, InvalidValue
from llmartifacts.records.names import did_you_mean
from llmartifacts.records.reference import Reference
from llmartifacts.records.times import parse_duration


def check_known(gate: str, options: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse unknown options. Raises `InvalidValue`, with the near or the known names."""
    for name in options:
        if name not in known:
            listed = f"Its options: {', '.join(sorted(known))}." if known else "It takes no options."
            raise refused(gate, name, "unknown option", did_you_mean(name, known, listed))


def refused(gate: str, name: str, message: str, next_step: str = "") -> InvalidValue:
    """The error for an option that a gate cannot take."""
    return InvalidValue(f"gate {gate}: {message}", field=name, next_step=next_step)


def duration(gate: str, name: str, value: Any) -> timedelta | None:
    """A length of time such as `30d`, or None. Raises `InvalidValue`."""
    if value is None:
        return None
    try:
        return parse_duration(value, field=name)
    except InvalidInput as error:
        raise refused(gate, name, error.message, error.hint()) from None


def count(gate: str, name: str, value: Any, *, least: int = 1, most: int = 1_000_000) -> int:
    """A whole number. Raises `InvalidValue`."""
    if type(value) is not int or not least <= value <= most:
        raise refused(gate, name, f"{value!r:.40} is no whole number from {least} to {most}")
    return value


def number(gate: str, name: str, value: Any, *, least: float, most: float) -> float:
    """A finite number. Raises `InvalidValue`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise refused(gate, name, f"{value!r:.40} is not a finite number")
    if not least <= value <= most:
        raise refused(gate, name, f"{value!r:.40} is not from {least:g} to {most:g}")
    return float(value)


def flag(gate: str, name: str, value: Any) -> bool:
    """True or false. Raises `InvalidValue`."""
    if not isinstance(value, bool):
        raise refused(gate, name, f"{value!r:.40} is not true or false")
    return value


def line(gate: str, name: str, value: Any, *, most: int = 512) -> str:
    """One line of printable text. Raises `InvalidValue`."""
    if not isinstance(value, str) or not value.strip() or len(value) > most or not value.isprintable():
        raise refused(gate, name, f"{value!r:.40} is not text of 1 to {most} printable characters")
    return value


def lines(gate: str, name: str, value: Any) -> tuple[str, ...]:
    """Lines of text; one by itself is a list of one. Raises `InvalidValue`."""
    values: Iterable[Any] = [value] if isinstance(value, str) else value
    if not isinstance(values, list | tuple):
        raise refused(gate, name, f"{value!r:.40} is no list of text")
    return tuple(dict.fromkeys(line(gate, name, v) for v in values))


def reference(gate: str, name: str, value: Any) -> str:
    """A reference within the project; without a selector it means `latest`. Raises `InvalidValue`."""
    try:
        parsed = Reference.parse(line(gate, name, value), field=name)
    except InvalidReference as error:
        raise refused(gate, name, error.message, error.hint()) from None
    if parsed.project is not None:
        raise refused(gate, name, f"{value} names a project; a policy looks at its own only")
    return str(parsed.or_latest())
