"""Words that both ends of a transfer use: media types, headers, and ranges."""

from __future__ import annotations

import re

from llmartifacts.errors import InvalidInput

STORED = "application/vnd.llmartifacts.stored"
"""Accepted by who takes a blob in the form in which it is stored."""
DESCRIBED = "application/vnd.llmartifacts.recipe"
"""A recipe and the table of its chunks."""
FORM_HEADER = b"llmartifacts-form"
"""Says the form: `raw`, `zstd` or `recipe`."""
RANGE_THERE = "Llmartifacts-Range"
"""Of an answer that sends elsewhere: the range to ask for there."""
MAX_RANGES = 256
"""Ranges of one request."""

Range = tuple[int, int]
"""First byte, and the one after the last."""
_ONE = re.compile(r"([0-9]{0,18})-([0-9]{0,18})")


def parse_ranges(header: str, size: int) -> list[Range] | None:
    """The ranges that a `Range` header asks for, in its order.

    Args:
        header: Its value.
        size: Bytes of what it is asked of.

    Returns:
        None where the unit is not bytes: then all of it is meant.

    Raises:
        InvalidInput: It is malformed; has more ranges, or asks for more bytes, than there can be; or, with the field
            `range`, one lies outside.

    Example:
        >>> parse_ranges("bytes=0-9,90-,-5", 100)
        [(0, 10), (90, 100), (95, 100)]
    """
    unit, _, told = header.partition("=")
    if unit.strip().lower() != "bytes":
        return None
    if told.count(",") >= MAX_RANGES:
        raise InvalidInput(f"at most {MAX_RANGES} ranges can be asked for at once", field="header range")
    found = []
    for one in told.split(","):
        parsed = _ONE.fullmatch(one.strip())
        if parsed is None or (not parsed[1] and not parsed[2]):
            raise InvalidInput("the header is no range of bytes", field="header range")
        if not parsed[1]:
            start, end = max(0, size - int(parsed[2])), size
        else:
            start, end = int(parsed[1]), min(size, int(parsed[2]) + 1 if parsed[2] else size)
            if parsed[2] and int(parsed[2]) < start:
                raise InvalidInput("a range ends before it begins", field="header range")
        if start >= size or start >= end:
            raise InvalidInput(f"a range lies outside of the {size} bytes that there are", field="range")
        found.append((start, end))
    if sum(end - start for start, end in found) > size:
        raise InvalidInput("the ranges overlap", field="header range")
    return found
