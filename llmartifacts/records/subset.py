"""Which part of the stored bytes is read in one go, so that many short checks come to one whole.

    3/20    the third of twenty parts; twenty runs, 1/20 to 20/20, read every byte once
    5%      one of twenty parts, drawn by chance
    50G     one part of about 50 GiB, drawn by chance

What belongs to a part is decided by its digest, so it stays the same whatever else is stored.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from llmartifacts.errors import InvalidInput
from llmartifacts.records.arguments import shown

MOST = 1_000_000
"""Parts there can be."""
_FORM = re.compile(
    r"(?P<n>[0-9]{1,7})/(?P<t>[0-9]{1,7})|(?P<percent>[0-9]{1,3}(\.[0-9]{1,3})?)%|(?P<size>[0-9]{1,9})(?P<unit>[KMGT])"
)
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclass(frozen=True, slots=True)
class Subset:
    """One of several equal parts.

    Attributes:
        number: Which, from 1.
        of: How many parts there are.
    """

    number: int
    of: int

    def __contains__(self, digest: object) -> bool:
        """Whether something belongs to it, by the first 16 hexadecimal digits of its digest or name."""
        hexadecimal = str(digest).removeprefix("sha256:")[:16]
        return int(hexadecimal, 16) * self.of >> 4 * len(hexadecimal) == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def parse_subset(text: str, stored: int, chance: random.Random | None = None) -> Subset:
    """Read a part.

    Args:
        text: `3/20`, `5%` or `50G`.
        stored: Bytes that are stored in all, for the last form.
        chance: What draws a part, where none is named; by default the system's.

    Raises:
        InvalidInput: It is none.

    Example:
        >>> str(parse_subset("3/20", 0))
        '3/20'
    """
    found = _FORM.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise _none(text)
    if found["n"]:
        number, of = int(found["n"]), int(found["t"])
        if not 1 <= number <= of <= MOST:
            raise _none(text)
        return Subset(number, of)
    if found["percent"]:
        share = float(found["percent"])
        if not 0.001 <= share <= 100:
            raise _none(text)
        of = max(1, round(100 / share))
    else:
        size = int(found["size"]) * _UNITS[found["unit"]]
        if not size:
            raise _none(text)
        of = min(MOST, max(1, -(-stored // size)))
    return Subset((chance or random.SystemRandom()).randrange(of) + 1, of)


def _none(text: object) -> InvalidInput:
    return InvalidInput(
        f"{shown(text, 40)} is no part of what is stored",
        field="read_data_subset",
        next_step="Write 3/20 (the third of twenty parts), 5% or 50G.",
    )
