"""What an earlier version has of the rows of an inverted file: its chunks, kept while enough of their rows live."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from llmartifacts.blobs.codecs import ivf_streams as streams
from llmartifacts.blobs.codecs import row_cuts
from llmartifacts.blobs.codecs.ivf_streams import Ids, Index, ListNumbers
from llmartifacts.blobs.codecs.stored_rows import StoredRows, equal_rows, rows_in
from llmartifacts.blobs.codecs.stream import DATA
from llmartifacts.blobs.forms import BadForm
from llmartifacts.errors import BlobMissing, Damaged

if TYPE_CHECKING:
    from llmartifacts.blobs.chunks.entries import Entries
    from llmartifacts.blobs.chunks.reader import ChunkReader
    from llmartifacts.blobs.chunks.recipe import Recipe
    from llmartifacts.blobs.codecs.inverted_file import InvertedFile

_WINDOW = 1 << 20  # bytes that are compared together: they stay in the processor's cache
_FEW = 0.5
"""Below this part of rows found by id, they are looked for by content."""
_LET_GO = 1 << 28
_SUM = 16
_WORTH = 4 * _SUM
"""Bytes of a row from which on its sum is asked for rather than the row."""
_FETCHED = 0.1
"""The part of an earlier version's chunks that is fetched from afar, at most, to find what of them stays."""


@dataclass(frozen=True, slots=True, eq=False)
class Earlier:
    """The rows of an earlier version, in stored order.

    Attributes:
        rows: The chunks of rows.
        ids: The id of each row, dead ones included.
        lists: The list of each row; None where it had no lists.
        dead: Positions of dead rows.
    """

    rows: Entries
    ids: Ids
    lists: ListNumbers | None
    dead: Index


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """What is kept of an earlier version.

    Attributes:
        rows: The chunks that are kept.
        child: For each row in them the row of the new file, -1 where it is dead.
        ids: For each row in them the id.
        lists: For each row in them the number of its list; of a dead row, what it was.
    """

    rows: Entries
    child: Index
    ids: Ids
    lists: ListNumbers


def kept_of(file: InvertedFile, recipe: Recipe | None, reader: ChunkReader, keep: float) -> Kept | None:
    """What can be kept of an earlier version.

    Every row that is kept was compared with the new file; a chunk that has dead rows too was compared with its id.

    Args:
        file: The new file.
        recipe: The recipe of the earlier version, by any codec.
        reader: Reads its chunks.
        keep: The part of a chunk's rows that must live.

    Returns:
        None if there is nothing to keep, or it cannot be read.
    """
    if recipe is None:
        return None
    try:
        earlier = _earlier(recipe, reader, file.code_bytes)
        if earlier is None:
            return None
        if reader.far:
            found = _chunks_by_name(file, earlier, reader, keep)
            return found if found and len(found.rows) else None
        stored = StoredRows(reader, earlier.rows, file.code_bytes)
        child = _by_id(file, earlier, stored)
        kept = _chunks(file, earlier, stored, child, keep)
        if int((kept.child >= 0).sum()) < _FEW * min(file.count, len(child) - len(earlier.dead)):
            again = _chunks(file, earlier, stored, _by_content(file, earlier, stored), keep)
            if len(again.child) > len(kept.child):
                kept = again
    except (BadForm, BlobMissing, Damaged):
        return None
    return kept if len(kept.rows) else None


# --- the earlier version


def _earlier(recipe: Recipe, reader: ChunkReader, code_bytes: int) -> Earlier | None:
    if (recipe.codec, recipe.version) == ("faiss-rows", 1):
        return _of_rows(recipe, reader, code_bytes)
    if (recipe.codec, recipe.version) != (streams.NAME, 1):
        return None
    form = streams.form_of(recipe)
    if form.code_bytes != code_bytes:
        return None
    return Earlier(
        recipe.encoded.streams["rows"],
        streams.get_ids(recipe, reader),
        streams.get_lists(recipe, reader, form),
        streams.get_dead(recipe, reader, form),
    )


def _of_rows(recipe: Recipe, reader: ChunkReader, code_bytes: int) -> Earlier | None:
    """The vectors of an index without lists; where it has no ids, they are positions."""
    told = recipe.encoded.parameters
    at, count, ids_at = (told.get(name, -1) for name in ("rows_at", "rows", "ids_at"))
    entries = recipe.encoded.streams.get(DATA)
    if told.get("row_bytes") != code_bytes or entries is None:
        return None
    if not (isinstance(at, int) and isinstance(count, int) and isinstance(ids_at, int)):
        return None
    if not 0 < count <= streams.MAX_ROWS:
        return None
    rows = _between(entries, at, at + count * code_bytes)
    if ids_at < 0:
        ids = np.arange(count, dtype=np.int64)
    else:
        ids = streams.get(reader, _between(entries, ids_at, ids_at + 8 * count), "<i8")
    return Earlier(rows, ids, None, np.zeros(0, np.int64))


def _between(entries: Entries, start: int, end: int) -> Entries:
    """The chunks that make a part of a stream."""
    from llmartifacts.blobs.chunks.entries import lengths_of

    ends = np.cumsum(lengths_of(entries))
    first = 0 if start == 0 else int(np.searchsorted(ends, start)) + 1
    last = int(np.searchsorted(ends, end)) + 1
    found = entries[first:last]
    if start < 0 or int(lengths_of(found).sum()) != end - start:
        raise BadForm("its recipe says that rows lie where they do not")
    return found


# --- which row is which


def _by_id(file: InvertedFile, earlier: Earlier, stored: StoredRows) -> Index:
    """For each stored row the new row of the same id; of the same id and content where ids repeat."""
    if not file.unique or _repeat(np.delete(earlier.ids, earlier.dead)):
        found = _pairs(
            _with(file.ids, file.heads()),
            _with(earlier.ids, _stored_heads(stored)),
            earlier.dead,
        )
        wrong = np.flatnonzero(found >= 0)
        wrong = wrong[file.ids[found[wrong]] != earlier.ids[wrong]]
        found[wrong] = -1
        return found
    return _pairs(file.ids, earlier.ids, earlier.dead)


def _by_content(file: InvertedFile, earlier: Earlier, stored: StoredRows) -> Index:
    """For each stored row a new row that begins like it: for ids that were given anew."""
    return _pairs(file.heads().view(np.int64), _stored_heads(stored).view(np.int64), earlier.dead)


def _pairs(new: Ids, old: Ids, dead: Index) -> npt.NDArray[np.int32]:
    """For each old key which new one it is, -1 for none; among equal ones the first is the first, and so on."""
    by_new = np.argsort(new, kind="stable").astype(np.int32)
    alive = np.ones(len(old), np.bool_)
    alive[dead] = False
    by_old = np.argsort(old, kind="stable").astype(np.int32)
    by_old = by_old[alive[by_old]]
    sorted_new, sorted_old = new[by_new], old[by_old]
    at = np.searchsorted(sorted_new, sorted_old)
    first = np.flatnonzero(np.concatenate([[True], sorted_old[1:] != sorted_old[:-1]])) if len(sorted_old) else by_old
    at += np.arange(len(at)) - np.repeat(first, np.diff(np.append(first, len(at))))
    inside = np.flatnonzero(at < len(new))
    inside = inside[sorted_new[at[inside]] == sorted_old[inside]]
    found = np.full(len(old), -1, np.int32)
    found[by_old[inside]] = by_new[at[inside]]
    return found


def _with(ids: Ids, heads: row_cuts.Heads) -> Ids:
    return (row_cuts.mixed(heads) ^ (ids.view(np.uint64) * np.uint64(0xC2B2AE3D27D4EB4F))).view(np.int64)


def _repeat(ids: Ids) -> bool:
    ids.sort()
    return bool((ids[1:] == ids[:-1]).any())


def _stored_heads(stored: StoredRows) -> row_cuts.Heads:
    width = min(8, stored.row_bytes)
    return _windowed(len(stored), lambda a, b: _heads(stored.pick(np.arange(a, b), width), width))


def _windowed(count: int, part: Callable[[int, int], row_cuts.Heads]) -> row_cuts.Heads:
    made = np.empty(count, np.uint64)
    for start in range(0, count, 1 << 16):
        end = min(count, start + (1 << 16))
        made[start:end] = part(start, end)
    return made


def _heads(rows: npt.NDArray[np.void], width: int) -> row_cuts.Heads:
    return row_cuts.heads(rows.view(np.uint8), 0, width, len(rows))


# --- which chunks stay


def _chunks(file: InvertedFile, earlier: Earlier, stored: StoredRows, child: Index, keep: float) -> Kept:
    """Keep the chunks of which enough rows are in the new file, unchanged. Changes `child`."""
    counts = stored.counts
    _let_go_of_few(child, counts, keep)
    _compare(file, stored, child)
    alive = _alive(child, counts)
    stays = alive >= np.maximum(1, keep * counts)
    for number in np.flatnonzero(stays & (alive < counts)).tolist():
        stays[number] = _is_sound(stored, earlier.rows, number)
    return _kept(file, earlier, child, counts, stays)


def _chunks_by_name(file: InvertedFile, earlier: Earlier, reader: ChunkReader, keep: float) -> Kept | None:
    """As `_chunks`, where the earlier rows are far away; rows are found by their ids only.

    A chunk all of whose rows live is compared by its name, which the rows of the new file must give. Of those that this
    does not settle, some are fetched, for what they hold besides has to be known; many are stored anew.
    """
    if not file.unique or _repeat(np.delete(earlier.ids, earlier.dead)):
        return None
    counts = rows_in(earlier.rows, file.code_bytes)
    child = _pairs(file.ids, earlier.ids, earlier.dead)
    _let_go_of_few(child, counts, keep)
    alive = _alive(child, counts)
    firsts = np.cumsum(counts) - counts
    stays = np.zeros(len(counts), np.bool_)
    whole = np.flatnonzero((alive == counts) & (counts > 0))
    stays[whole] = _give_names(file, child, firsts[whole], counts[whole], earlier.rows[whole])
    rest = np.flatnonzero((alive > 0) & ~stays)
    for number, same in _same_rows(file, earlier, reader, rest, child, firsts, counts):
        part = child[firsts[number] : firsts[number] + counts[number]]
        part[np.flatnonzero(part >= 0)[~same]] = -1
        stays[number] = (part >= 0).sum() >= max(1, keep * counts[number])
    return _kept(file, earlier, child, counts, stays)


def _same_rows(
    file: InvertedFile, earlier: Earlier, reader: ChunkReader, rest: Index, child: Index, firsts: Index, counts: Index
) -> Iterator[tuple[int, npt.NDArray[np.bool_]]]:
    """Of chunks far away, which of their living rows are as in the new file: by their sums, or fetched if few."""
    import blake3

    if not len(rest):
        return
    sums = reader.sums(earlier.rows[rest], file.code_bytes) if reader.sums and file.code_bytes >= _WORTH else None
    if sums is None and len(rest) > _FETCHED * len(counts):
        return
    contents = reader.read(earlier.rows[rest], verify=True) if sums is None else iter(())
    at = 0
    for number in rest.tolist():
        part = child[firsts[number] : firsts[number] + counts[number]]
        living = np.flatnonzero(part >= 0)
        rows = file.pick(part[living])
        if sums is None:
            yield number, equal_rows(rows, np.frombuffer(next(contents), rows.dtype)[living])
            continue
        view = memoryview(rows.view(np.uint8).data).cast("B")
        size = file.code_bytes
        own = [blake3.blake3(view[n * size : (n + 1) * size]).digest(_SUM) for n in range(len(living))]
        told = [sums[at + n * _SUM : at + (n + 1) * _SUM] for n in living.tolist()]
        yield number, np.array([one == other for one, other in zip(own, told, strict=True)], np.bool_)
        at += int(counts[number]) * _SUM


def _give_names(file: InvertedFile, child: Index, firsts: Index, counts: Index, entries: Entries) -> list[bool]:
    """Whether rows of the new file make chunks of these names."""
    import blake3

    from llmartifacts.blobs.chunks.entries import ids_of

    found: list[bool] = []
    names, ends = ids_of(entries), np.cumsum(counts)
    step = max(1, _WINDOW // file.code_bytes)
    begin = seen = 0
    while begin < len(names):
        end = max(begin + 1, int(np.searchsorted(ends, ends[begin] + step)))
        rows = np.concatenate([child[a : a + n] for a, n in zip(firsts[begin:end], counts[begin:end], strict=True)])
        view = memoryview(file.pick(rows).view(np.uint8).data).cast("B")
        at = 0
        for name, count in zip(names[begin:end], counts[begin:end].tolist(), strict=True):
            found.append(blake3.blake3(view[at : at + count * file.code_bytes]).digest() == name)
            at += count * file.code_bytes
        begin, seen = end, seen + at
        if seen >= _LET_GO:
            file.let_go()
            seen = 0
    return found


def _kept(file: InvertedFile, earlier: Earlier, child: Index, counts: Index, stays: npt.NDArray[np.bool_]) -> Kept:
    rows = np.repeat(stays, counts)
    kept = child[rows]
    ids = earlier.ids[rows]
    lists = np.zeros(len(kept), file.lists.dtype)
    if earlier.lists is not None:
        lists[:] = earlier.lists[rows]
    living = np.flatnonzero(kept >= 0)
    ids[living] = file.ids[kept[living]]
    lists[living] = file.lists[kept[living]]
    return Kept(earlier.rows[stays], kept, ids, lists)


def _let_go_of_few(child: Index, counts: Index, keep: float) -> None:
    """Let go, in place, of the rows of chunks of which too few live."""
    child[np.repeat(_alive(child, counts) < np.maximum(1, keep * counts), counts)] = -1


def _alive(child: Index, counts: Index) -> npt.NDArray[np.int64]:
    alive = np.zeros(len(counts), np.int64)
    full = np.flatnonzero(counts)
    if len(full):
        alive[full] = np.add.reduceat(child >= 0, (np.cumsum(counts) - counts)[full], dtype=np.int64)
    return alive


def _compare(file: InvertedFile, stored: StoredRows, child: Index) -> None:
    """Let go, in place, of rows that were changed."""
    living = np.flatnonzero(child >= 0).astype(np.int32)
    step = max(1, _WINDOW // file.code_bytes)
    seen = 0
    for start in range(0, len(living), step):
        positions = living[start : start + step]
        same = equal_rows(file.pick(child[positions]), stored.pick(positions))
        if not same.all():
            child[positions[~same]] = -1
        seen += step * file.code_bytes
        if seen >= _LET_GO:
            file.let_go()
            stored.let_go()
            seen = 0


def _is_sound(stored: StoredRows, entries: Entries, number: int) -> bool:
    """Whether a chunk is what its id says: its dead rows could not be compared."""
    import blake3

    digest: Any = blake3.blake3(stored.chunk(number).data).digest()
    return bool(digest == entries["id"][number].tobytes())
