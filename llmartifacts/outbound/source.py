"""What a place outside gives: an object, opened for reading, whatever it lies on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

PIECE = 256 * 1024
"""Bytes that are handed on at a time, at most."""


@dataclass(frozen=True, slots=True)
class Opened:
    """An object outside, as it is opened. Nothing of it is verified yet.

    Attributes:
        pieces: Its bytes in order, from the byte that was asked for; read once, while it is open.
        size: Bytes of the whole object, as its place says; None where it does not say.
        version: The version of it that its place names; empty where it keeps none.
    """

    pieces: Iterator[bytes]
    size: int | None = None
    version: str = ""
