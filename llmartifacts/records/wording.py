"""Sizes, counts and foreign text, worded for people."""

from __future__ import annotations


def size(count: float) -> str:
    """Bytes for people, in decimal units.

    Example:
        >>> size(999), size(1500), size(768_000_000)
        ('999 B', '1.5 kB', '768 MB')
    """
    if count < 1000:
        return f"{count:.0f} B"
    for unit in ("kB", "MB", "GB", "TB", "PB"):
        count /= 1000
        if count < 999.5 or unit == "PB":
            break
    return f"{count:.1f} {unit}" if count < 9.95 else f"{count:.0f} {unit}"


def counted(number: int, noun: str) -> str:
    """A number with its noun: `1 file`, `2 files`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def printable(text: str) -> str:
    r"""Text on one line that a terminal shows and never obeys: what is not printable is escaped.

    Example:
        >>> printable("café\n\x1b[2J")
        'café\\n\\x1b[2J'
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
