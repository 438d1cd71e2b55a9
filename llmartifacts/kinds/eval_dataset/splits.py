"""Hash splits and seeded samples: an item's place depends on the item alone, never on its neighbours."""

from __future__ import annotations

import hashlib
import heapq
import math
from collections.abc import Mapping, Sequence

from llmartifacts.errors import InvalidValue
from llmartifacts.kinds.eval_dataset.rows import check_split

_WHOLE = 2**64


def unit(key: str, salt: str) -> int:
    r"""A uniform integer in [0, 2^64): the first 8 bytes, big-endian, of SHA-256 of `salt \0 key` in UTF-8."""
    return int.from_bytes(hashlib.sha256(f"{salt}\0{key}".encode()).digest()[:8], "big")


def bounds_of(fractions: Mapping[str, float]) -> list[tuple[str, int]]:
    """Upper bounds of the splits in [0, 2^64), in the order given.

    Split `j` takes the keys whose `unit` is below `2^64 * (f_1 + … + f_j)` and which no split before it took.

    Raises:
        InvalidValue: No split, a bad name, a fraction outside (0, 1], or they do not add up to 1.
    """
    if not fractions:
        raise InvalidValue("no split is named", field="fractions")
    for name, fraction in fractions.items():
        check_split(name, field="fractions")
        if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 < fraction <= 1:
            raise InvalidValue(
                f"the fraction is {fraction!r:.40}, not above 0 and at most 1", field=f"fractions.{name}"
            )
    if not math.isclose(math.fsum(fractions.values()), 1.0, abs_tol=1e-9):
        raise InvalidValue(
            f"the fractions add up to {math.fsum(fractions.values()):.6g}, not 1",
            field="fractions",
            next_step="Name the rest as a split too.",
        )
    made, sofar = [], []
    for name, fraction in fractions.items():
        sofar.append(fraction)
        made.append((name, int(math.fsum(sofar) * _WHOLE)))
    made[-1] = (made[-1][0], _WHOLE)
    return made


def place(key: str, bounds: Sequence[tuple[str, int]], salt: str) -> str:
    """The split of one key."""
    at = unit(key, salt)
    return next(name for name, bound in bounds if at < bound)


def choose(ids: Sequence[str], n: int, seed: int) -> list[int]:
    """The places of a sample: the `n` ids with the smallest `unit(id, "sample:<seed>")`, in their own order.

    A smaller sample of the same seed lies inside a larger one, and of two versions of a dataset nearly the same items
    are drawn.

    Raises:
        InvalidValue: `n` is not between 1 and the number of ids, or the seed is no integer.
    """
    if type(n) is not int or not 1 <= n <= len(ids):
        raise InvalidValue(f"cannot draw {n!r:.40} of {len(ids)} items", field="n")
    if type(seed) is not int:
        raise InvalidValue(f"the seed is {seed!r:.40}, not an integer", field="seed")
    salt = f"sample:{seed}"
    return sorted(heapq.nsmallest(n, range(len(ids)), key=lambda i: (unit(ids[i], salt), ids[i])))
