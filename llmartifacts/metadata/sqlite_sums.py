"""The checksum that SQLite keeps of a record in its log, and its extension `cksumvfs` of a page.

For each pair of words x, y: a += x + b; b += y + a, modulo 2^32. That is linear, so each half is a product with
Fibonacci numbers, and whether one flipped bit explains a difference can be told from the difference alone.

Source: sqlite.org/fileformat2.html, "Checksum Algorithm"; sqlite.org/cksumvfs.html.
"""

from __future__ import annotations

import sys
from array import array
from operator import mul
from typing import Literal

_WORD = 0xFFFFFFFF


def pair(data: bytes) -> tuple[int, int]:
    """The two halves of a checksum as a log holds it, big-endian."""
    return int.from_bytes(data[:4], "big"), int.from_bytes(data[4:8], "big")


def distance(one: bytes, other: bytes) -> int:
    """By how many bits two byte strings differ."""
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).bit_count()


class Sums:
    """Checksums over content of one length.

    Args:
        order: Order of the bytes in a word.
        pairs: Pairs of words in the content: an eighth of its bytes.
    """

    def __init__(self, order: Literal["little", "big"], pairs: int) -> None:
        self._swap = order != sys.byteorder
        numbers = [0, 1]
        while len(numbers) < 2 * pairs + 3:
            numbers.append((numbers[-1] + numbers[-2]) & _WORD)
        self._first = [w for k in reversed(range(pairs)) for w in (numbers[2 * k + 1], numbers[2 * k])]
        self._second = [w for k in reversed(range(pairs)) for w in (numbers[2 * k + 2], numbers[2 * k + 1])]
        self._power = (numbers[2 * pairs - 1], numbers[2 * pairs], numbers[2 * pairs + 1])

    def after(self, before: tuple[int, int], content: bytes) -> tuple[int, int]:
        """The checksum after more content; the first is after (0, 0)."""
        words = array("I", content)
        if self._swap:
            words.byteswap()
        low, mid, high = self._power
        a, b = before
        first, second = sum(map(mul, self._first, words)), sum(map(mul, self._second, words))
        return (low * a + mid * b + first) & _WORD, (mid * a + high * b + second) & _WORD

    def one_bit(self, made: tuple[int, int], stored: tuple[int, int]) -> bool:
        """Whether one flipped bit, of the content or of the checksum, explains that the checksum is another."""
        if sum((x ^ y).bit_count() for x, y in zip(made, stored, strict=True)) == 1:
            return True
        a, b = ((one - other) & _WORD for one, other in zip(made, stored, strict=True))
        wanted = {(a, b), (-a & _WORD, -b & _WORD)}
        return any(
            (x << bit & _WORD, y << bit & _WORD) in wanted
            for x, y in zip(self._first, self._second, strict=True)
            for bit in range(32)
        )
