"""The one validator of what comes with a call and is neither a name nor a reference: text, counts, mappings, places.

Text is kept as it was given and shown to other people later, in a terminal, a log, another database. So whatever one
of these cannot hold, or would act on, is refused where it comes in.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from llmartifacts.errors import InvalidInput, TooLarge

MAX_TEXT = 16_384
"""Characters of a message or a reason."""
MAX_LINE = 256
"""Characters of a ticket or of who acts."""
MAX_TOLD = 2000
MAX_COUNT = 2**31 - 1

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def check_text(value: Any, *, field: str) -> str:
    """Check text that people write for people: a message, a reason.

    Returns:
        The text; of a subclass of `str`, a plain one.

    Raises:
        InvalidInput: It is no text, or holds control characters other than tabs and line ends, or lone surrogates.
        TooLarge: It has more than 16,384 characters.
    """
    text = _plain(value, field)
    if len(text) > MAX_TEXT:
        raise TooLarge(
            f"the {field} has {len(text)} characters, the limit is {MAX_TEXT}",
            field=field,
            next_step="Log a long text as files, and name that version here.",
        )
    found = _CONTROL.search(text)
    if found:
        raise InvalidInput(
            f"the {field} holds the character {found.group()!a} at position {found.start()}",
            field=field,
            next_step="Use text without control characters; tabs and line ends are fine.",
        )
    return text


def check_reason(value: Any, what: str) -> str:
    """Check a reason that has to be given. Raises as `check_text`, and `InvalidInput` where there is none."""
    reason = check_text(value, field="reason")
    if not reason.strip():
        raise InvalidInput(f"{what} needs a reason", field="reason", next_step="Say why: reason='…'.")
    return reason


def check_line(value: Any, *, field: str) -> str:
    """Check a short text on one line: a ticket, who acts.

    Returns:
        The text; of a subclass of `str`, a plain one.

    Raises:
        InvalidInput: It is no printable text of at most 256 characters.
    """
    text = _plain(value, field)
    if len(text) > MAX_LINE or not text.isprintable():
        raise InvalidInput(
            f"{shown(text)} is not printable text of at most {MAX_LINE} characters",
            field=field,
            next_step="Write it on one line, without control characters.",
        )
    return text


def check_count(value: Any, *, field: str) -> int:
    """Check a number of things, from 1.

    Raises:
        InvalidInput: It is no whole number, or less than 1.
    """
    if type(value) is not int or not 1 <= value <= MAX_COUNT:
        raise InvalidInput(
            f"{shown(value)} is no count",
            field=field,
            next_step=f"Give a whole number from 1 to {MAX_COUNT:,}.",
        )
    return value


def check_limit(value: Any, *, field: str = "limit") -> int | None:
    """Check a limit; None is none. Raises as `check_count`."""
    return None if value is None else check_count(value, field=field)


def check_mapping(value: Any, *, field: str) -> dict[str, Any]:
    """Check that something maps text to whatever; None is empty. Returns a copy.

    Raises:
        InvalidInput: It is no mapping, or a key is no text.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidInput(f"a {type(value).__name__} is no mapping", field=field, next_step="Give a dict.")
    made = dict(value)
    for key in made:
        if not isinstance(key, str):
            raise InvalidInput(f"the key {shown(key)} is no text", field=field, next_step="Use text as keys.")
    return made


def check_place(value: Any, *, field: str) -> str:
    """Check a path of the file system that somebody names, as far as that can be told without looking.

    Raises:
        InvalidInput: It is no path, empty, or holds what no path can.
    """
    try:
        text = os.fsdecode(value)
        os.fsencode(text)
    except (TypeError, ValueError):
        raise InvalidInput(f"{shown(value)} is no path", field=field, next_step=_PLACE) from None
    if not text or "\0" in text:
        raise InvalidInput(f"{shown(text)} is no path", field=field, next_step=_PLACE)
    return text


def check_pairs(values: Any, *, field: str = "pairs") -> list[tuple[Any, Any]]:
    """Check that something is a list of pairs. Raises `InvalidInput`."""
    if not isinstance(values, Iterable):
        raise InvalidInput(f"a {type(values).__name__} is no list", field=field, next_step=_PAIRS)
    made = list(values)
    for i, pair in enumerate(made):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InvalidInput(f"{shown(pair)} is no pair", field=f"{field}[{i}]", next_step=_PAIRS)
    return made


_PAIRS = "Give a list of (name, value)."


_PLACE = "Give a path, as text or as a pathlib.Path."


def told_by(error: BaseException | None) -> str:
    r"""What a stranger's error says, made such that `check_text` takes it; empty for none.

    Example:
        >>> told_by(ValueError("it broke \x1b[31mhere"))
        'ValueError: it broke \\x1b[31mhere'
    """
    if error is None:
        return ""
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - it may fail to say what it is
        text = type(error).__name__
    return _CONTROL.sub(lambda found: ascii(found.group())[1:-1], text[:MAX_TOLD])[:MAX_TOLD]


def shown(value: object, limit: int = 100) -> str:
    """Whatever was given, for a message: its beginning, on one line, whatever it is."""
    try:
        text = repr(value[: limit + 1] if isinstance(value, str | bytes) else value)
    except Exception:  # noqa: BLE001 - a stranger's repr; also that of an int of 5,000 digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= limit else f"{text[:limit]}…"


def _plain(value: Any, field: str) -> str:
    if not isinstance(value, str):
        raise InvalidInput(f"a {type(value).__name__} is no text", field=field, next_step="Give a str.")
    return str.__str__(value)
