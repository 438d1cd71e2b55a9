"""Chunks by name: the id and the length of each, in order. This is what streams of a recipe are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

ID_BYTES = 32
MAX_CHUNK = 1 << 24
"""Bytes of the longest chunk that is read; what this release writes is far below."""
ENTRY = np.dtype([("id", f"V{ID_BYTES}"), ("length", "<u4")])
"""One chunk, as recipes store it: its BLAKE3 id and the bytes of its content."""

Entries: TypeAlias = npt.NDArray[np.void]
"""An array of `ENTRY`, shape (chunks,)."""


def empty() -> Entries:
    """No chunks."""
    return np.zeros(0, ENTRY)


def entries_of(ids: Sequence[bytes], lengths: Sequence[int] | npt.NDArray[Any]) -> Entries:
    """Entries from ids of 32 bytes and lengths."""
    made = np.zeros(len(ids), ENTRY)
    made["id"] = np.frombuffer(b"".join(ids), f"V{ID_BYTES}")
    made["length"] = lengths
    return made


def ids_of(entries: Entries) -> list[bytes]:
    """The ids, in order."""
    raw = np.ascontiguousarray(entries["id"]).tobytes()
    return [raw[at : at + ID_BYTES] for at in range(0, len(raw), ID_BYTES)]


def lengths_of(entries: Entries) -> npt.NDArray[np.int64]:
    """The lengths of the contents, in bytes."""
    return entries["length"].astype(np.int64)


def bytes_of(entries: Entries) -> int:
    """Bytes of all contents together."""
    return int(lengths_of(entries).sum())
