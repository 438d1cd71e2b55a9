"""What the scorer `regex` lets its process with limits do; imported there, so with the standard library alone."""

from __future__ import annotations

import re
from functools import lru_cache


def matches(pattern: str, flags: int, whole: bool, text: str) -> bool:
    """Whether a pattern matches a text, whole or somewhere."""
    compiled = _compiled(pattern, flags)
    return (compiled.fullmatch(text) if whole else compiled.search(text)) is not None


@lru_cache(maxsize=16)
def _compiled(pattern: str, flags: int) -> re.Pattern[str]:
    return re.compile(pattern, flags)
