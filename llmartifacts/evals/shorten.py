"""Inputs, outputs and scores of items, short enough for a line."""

from __future__ import annotations

import json
from typing import Any


def shorten(value: Any, width: int = 60) -> str:
    """Text, or JSON of anything else, on one line of at most so many characters.

    Args:
        value: An input or an output; None is nothing.
        width: Characters, from 2.

    Example:
        >>> shorten({"answer": "a long answer"}, 20)
        '{"answer": "a long …'
        >>> shorten(["d1", "d2", None])
        'd1, d2, -'
    """
    if value is None:
        return ""
    if isinstance(value, list | tuple) and all(v is None or isinstance(v, str) for v in value):
        text = ", ".join("-" if v is None else v for v in value)
    elif isinstance(value, str):
        text = value
    else:
        text = json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split())
    return text if len(text) <= width else f"{text[: width - 1]}…"


def number(value: float | None) -> str:
    """A score for people: three digits behind the point, or two that count where that would show nothing.

    Example:
        >>> number(0.75), number(0.000776), number(0.0), number(None)
        ('0.750', '0.00078', '0.000', '-')
    """
    if value is None:
        return "-"
    return f"{value:.3f}" if value == 0 or abs(value) >= 0.0095 else f"{value:.2g}"
