"""The small streams of `faiss-ivf`: what has to be known of each row besides its code.

    ids     for each stored row its id, as the difference to the one before (u64, modulo 2^64)
    lists   for each stored row the number of its list (u16, or u32 where there are more than 65,536 lists)
    dead    positions of dead rows, as differences (u32); absent where there are none
    order   lists whose rows are not in stored order (u32): how many, their numbers, and then for each of them and each
            of its rows in the file's order the row's place in stored order, less that of the row before, less one;
            absent where there are none

All numbers little-endian. What is read is checked: it may be hostile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from llmartifacts.blobs.codecs import row_cuts
from llmartifacts.blobs.forms import BadForm

if TYPE_CHECKING:
    from llmartifacts.blobs.chunks.entries import Entries
    from llmartifacts.blobs.chunks.reader import ChunkReader
    from llmartifacts.blobs.chunks.recipe import Recipe
    from llmartifacts.blobs.chunks.writer import ChunkWriter

NAME = "faiss-ivf"
MAX_ROWS = 20_000_000
"""Rows of the largest file that is taken apart: some 30 bytes of memory for each."""
MAX_DEAD = 3
"""Dead rows for each living one, at most; bounds what a small file can make its reader hold."""
_MAX_CODE = 1 << 20

Ids = npt.NDArray[np.int64]
ListNumbers = npt.NDArray[Any]
"""u16 or u32, one for each row."""
Index = npt.NDArray[Any]
"""Numbers of rows or positions, int32 or int64."""


def list_width(lists: int) -> int:
    """Bytes of a list's number."""
    return 2 if lists <= 1 << 16 else 4


# --- writing


def put(writer: ChunkWriter, values: npt.NDArray[Any]) -> Entries:
    """Store a small stream."""
    from llmartifacts.blobs.chunks.entries import empty

    data = np.ascontiguousarray(values).view(np.uint8).data if len(values) else memoryview(b"")
    cuts = row_cuts.batches(data, 0, values.dtype.itemsize, len(values), row_cuts.SIDE)
    return np.concatenate([empty(), *(writer.add(data[start:end], ends) for start, end, ends in cuts)])


def differences(values: npt.NDArray[Any], form: str) -> npt.NDArray[Any]:
    """Each value less the one before, modulo the range of an unsigned form."""
    made = values.astype(form)
    made[1:] -= made[:-1].copy()
    return made


def exceptions(positions: Index, lists: ListNumbers) -> npt.NDArray[np.uint32]:
    """The stream `order`.

    Args:
        positions: For each row of the file, in its order, where it is stored.
        lists: For each row of the file the number of its list; ascending.
    """
    back = (positions[1:] < positions[:-1]) & (lists[1:] == lists[:-1])
    bad = np.unique(lists[1:][back])
    del back
    if not len(bad):
        return np.zeros(0, np.uint32)
    chosen = np.zeros(int(lists[-1]) + 1, np.bool_)
    chosen[bad] = True
    rows = np.flatnonzero(chosen[lists])
    group = lists[rows]
    first = np.flatnonzero(np.concatenate([[True], group[1:] != group[:-1]]))
    sizes = np.diff(np.append(first, len(rows)))
    places = np.empty(len(rows), np.int64)
    places[np.lexsort((positions[rows], group))] = np.arange(len(rows))
    places -= np.repeat(first, sizes)
    steps = places.copy()
    steps[1:] -= places[:-1] + 1
    steps[first] = places[first]
    return np.concatenate([[len(bad)], bad, steps]).astype(np.int64).astype(np.uint32)


# --- reading


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """The numbers of a recipe by this codec, checked.

    Attributes:
        code_bytes: Bytes of a row.
        offset: Bytes of the file before its lists.
        lists: How many lists there are.
        stored: Stored rows.
        dead: Dead ones among them.
    """

    code_bytes: int
    offset: int
    lists: int
    stored: int
    dead: int

    @property
    def alive(self) -> int:
        """Rows of the file."""
        return self.stored - self.dead


def form_of(recipe: Recipe) -> Form:
    """Check that the numbers of a recipe fit each other.

    Raises:
        BadForm: They do not.
    """
    from llmartifacts.blobs.chunks.entries import bytes_of

    sizes = {name: bytes_of(entries) for name, entries in recipe.encoded.streams.items()}
    code_bytes, offset, lists = (_number(recipe.encoded.parameters, name) for name in ("code_bytes", "offset", "lists"))
    rest = sizes.get("rest", 0)
    if not 0 < code_bytes <= _MAX_CODE or not 0 <= offset <= rest or not 0 < lists <= rest:
        raise BadForm("the numbers in its recipe do not fit its streams")
    stored, dead = sizes.get("rows", 0) // code_bytes, sizes.get("dead", 0) // 4
    alive = stored - dead
    whole = {"rows": stored * code_bytes, "ids": stored * 8, "lists": stored * list_width(lists), "dead": dead * 4}
    if any(sizes.get(name, 0) != size for name, size in whole.items()):
        raise BadForm("its streams do not fit each other")
    if not 0 < alive <= MAX_ROWS or dead > MAX_DEAD * alive or sizes.get("order", 0) > 4 * (1 + lists + alive):
        raise BadForm("its streams are longer than the file needs")
    if rest + alive * (code_bytes + 8) != recipe.size:
        raise BadForm("its streams make a file of another size")
    return Form(code_bytes, offset, lists, stored, dead)


def _number(parameters: Mapping[str, int | str], name: str) -> int:
    value = parameters.get(name, -1)
    return value if isinstance(value, int) else -1


def get(reader: ChunkReader, entries: Entries | None, form: str) -> npt.NDArray[Any]:
    """A small stream in memory; the caller has checked its size.

    Raises:
        BadForm: It ends inside a number, or a chunk has another length than the recipe says.
        BlobMissing: A chunk is not there.
    """
    from llmartifacts.blobs.chunks.entries import bytes_of

    count, more = divmod(0 if entries is None else bytes_of(entries), np.dtype(form).itemsize)
    if more:
        raise BadForm("one of its streams ends inside a number")
    made = np.empty(count, form)
    raw = made.view(np.uint8)
    at = 0
    if entries is not None:
        for content in reader.read(entries):
            raw[at : at + len(content)] = np.frombuffer(content, np.uint8)
            at += len(content)
    return made


def get_ids(recipe: Recipe, reader: ChunkReader) -> Ids:
    """The ids of the stored rows."""
    found = get(reader, recipe.encoded.streams.get("ids"), "<u8")
    return np.cumsum(found, out=found).view(np.int64)


def get_lists(recipe: Recipe, reader: ChunkReader, form: Form) -> ListNumbers:
    """The list numbers of the stored rows; not checked, since those of dead rows may be any."""
    return get(reader, recipe.encoded.streams.get("lists"), f"<u{list_width(form.lists)}")


def get_dead(recipe: Recipe, reader: ChunkReader, form: Form) -> Index:
    """The positions of dead rows, ascending.

    Raises:
        BadForm: They are not ascending, or not positions.
    """
    steps = get(reader, recipe.encoded.streams.get("dead"), "<u4").astype(np.int64)
    if len(steps) and not steps[1:].all():
        raise BadForm("a row is dead twice")
    found = np.cumsum(steps, out=steps)
    if len(found) and found[-1] >= form.stored:
        raise BadForm("a row is dead that is not there")
    return found


def reorder(rows: Index, firsts: npt.NDArray[np.int64], stream: npt.NDArray[Any]) -> None:
    """Put the rows of some lists in the file's order, in place.

    Args:
        rows: The stored positions of all living rows, list by list, ascending in each.
        firsts: Where each list begins in them, and the end.
        stream: The stream `order`.

    Raises:
        BadForm: The stream says something else than an order of the rows.
    """
    if not len(stream):
        return
    lists = len(firsts) - 1
    count = int(stream[0])
    if not 0 < count <= min(lists, len(stream) - 1):
        raise BadForm("its order of rows names more lists than there are")
    bad = stream[1 : 1 + count].astype(np.int64)
    if (np.diff(bad) <= 0).any() or bad[-1] >= lists:
        raise BadForm("its order of rows names a list that is not there")
    sizes = firsts[bad + 1] - firsts[bad]
    if not sizes.all() or int(sizes.sum()) != len(stream) - 1 - count:
        raise BadForm("its order of rows has another number of rows")
    begin = np.cumsum(sizes) - sizes
    places = stream[1 + count :].view("<i4").astype(np.int64)
    within = np.arange(len(places)) - np.repeat(begin, sizes)
    places[:] = np.cumsum(places)
    before = np.where(begin > 0, places[begin - 1], 0)
    places -= np.repeat(before, sizes)
    places += within
    if (places < 0).any() or (places >= np.repeat(sizes, sizes)).any():
        raise BadForm("its order of rows names a row that is not there")
    base = np.repeat(firsts[bad], sizes)
    taken = np.zeros(len(places), np.bool_)
    taken[np.repeat(begin, sizes) + places] = True
    if not taken.all():
        raise BadForm("its order of rows names a row twice")
    rows[base + within] = rows[base + places]
