"""The table of a blob's chunks, as it travels: with it, the stored forms of all chunks lie one after another.

    table   44 bytes for each distinct chunk of a recipe, in the order of first use, the small streams before the
            largest: id, stored bytes (u32), bytes (u32), form (u32): 0 raw, 1 Zstandard. Little-endian

The order makes a *virtual object*: the stored forms joined in it, with zeros before one that is raw where it would not
begin at a multiple of 8, so that neighbours in a pack are neighbours in it. Who has the table can
ask for any range of that object and knows what it holds; where the chunks really lie is nobody else's business. The tag
of a table tells whether both sides speak of the same object: a chunk may have been stored anew, in another form.
"""

from __future__ import annotations

import blake3
import numpy as np
import numpy.typing as npt

from llmartifacts.blobs.chunks.entries import ID_BYTES, MAX_CHUNK, Entries, bytes_of
from llmartifacts.blobs.chunks.pack import FOOTER, RAW, ZSTD, Footer
from llmartifacts.blobs.chunks.recipe import MAX_BYTES, Recipe
from llmartifacts.blobs.forms import BadForm

ROW = np.dtype([("id", f"V{ID_BYTES}"), ("stored", "<u4"), ("length", "<u4"), ("form", "<u4")])
_BEFORE = 8
_ALIGNED = 8
Rows = npt.NDArray[np.void]
"""An array of `ROW`, shape (chunks,)."""


def order_of(recipe: Recipe) -> tuple[Entries, int]:
    """Every distinct chunk of a recipe, and how many of them are its head: nodes and all streams but the largest.

    The head comes first: it is needed to understand the rest.
    """
    streams = list(recipe.encoded.streams.values())
    largest = max(range(len(streams)), key=lambda n: bytes_of(streams[n]), default=-1)
    before = [recipe.nodes, *(stream for number, stream in enumerate(streams) if number != largest)]
    entries = np.concatenate([*before, *streams[largest : largest + 1]]) if streams else recipe.nodes
    raw = np.ascontiguousarray(entries["id"]).view(f"S{ID_BYTES}")
    first = np.sort(np.unique(raw, return_index=True)[1])
    found: Entries = entries[first]
    return found, int((first < sum(map(len, before))).sum())


def tag_of(rows: Rows) -> str:
    """Tells one table from every other: 64 hexadecimal digits."""
    return blake3.blake3(rows.tobytes()).hexdigest()


def starts_of(rows: Rows) -> npt.NDArray[np.int64]:
    """Where each chunk begins in the virtual object: one that is raw at a multiple of 8, as in a pack."""
    stored = rows["stored"].astype(np.int64)
    starts = np.cumsum(stored) - stored
    raw = np.flatnonzero(rows["form"] == RAW)
    if len(raw):  # between two of them lies what makes the distance a multiple of 8
        before = np.diff(starts[raw], prepend=0)
        gaps = np.zeros(len(rows), np.int64)
        gaps[raw] = -before % _ALIGNED
        starts += np.cumsum(gaps)
    return starts


def write(recipe: bytes, head: int, rows: Rows) -> bytes:
    """Recipe and table as they travel: bytes of the recipe (u32), chunks of the head (u32), the recipe, the table."""
    return len(recipe).to_bytes(4, "little") + head.to_bytes(4, "little") + recipe + rows.tobytes()


def read(data: bytes) -> tuple[bytes, int, Rows]:
    """The file of a recipe, how many chunks its head has, and the table of all of its chunks.

    Raises:
        BadForm: They are not well formed.
    """
    length, head = int.from_bytes(data[:4], "little"), int.from_bytes(data[4:8], "little")
    end = _BEFORE + length
    if len(data) < _BEFORE or length > MAX_BYTES or end > len(data) or (len(data) - end) % ROW.itemsize:
        raise BadForm("its table of chunks is cut short")
    rows = np.frombuffer(data, ROW, offset=end)
    lies = (rows["length"] > MAX_CHUNK) | (rows["stored"] > MAX_CHUNK) | (rows["form"] > ZSTD)
    lies |= (rows["form"] == RAW) & (rows["stored"] != rows["length"])
    if lies.any() or head > len(rows):
        raise BadForm("its table of chunks has a number that is none")
    return data[_BEFORE:end], head, rows


def footer_of(rows: Rows) -> Footer:
    """The virtual object as the footer of a pack, without checksums."""
    footer = np.zeros(len(rows), FOOTER)
    for name in ("id", "stored", "length", "form"):
        footer[name] = rows[name]
    footer["offset"] = starts_of(rows)
    return footer
