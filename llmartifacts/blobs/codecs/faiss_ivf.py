"""`faiss-ivf`: a FAISS index with inverted lists, taken apart so that a version costs what changed.

Vectors that are added scatter over all lists, so every part of such a file changes with every version. Here its rows
are kept in an order that hardly changes: those of the version before as they were, chunk by chunk, then new ones.
A row that is gone or changed stays in its chunk as a dead row while enough others in it live. Beside the rows lie
small streams (`ivf_streams`): for each row its id, its list and whether it is dead. `rest` is the file around them.

Without a version before, rows lie by ascending id where ids tell the order in which vectors came (the order of a flat
index over the same vectors, so that both share their chunks), else in the order of the file, cut where a long list
begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from llmartifacts.blobs.codecs import ivf_streams as streams
from llmartifacts.blobs.codecs import row_cuts
from llmartifacts.blobs.codecs.base import KEEP, Codec, Source
from llmartifacts.blobs.codecs.faiss_rows import is_index, layout_of, store
from llmartifacts.blobs.codecs.inverted_file import ID_BYTES, InvertedFile
from llmartifacts.blobs.codecs.ivf_match import Kept, kept_of
from llmartifacts.blobs.codecs.ivf_streams import Ids
from llmartifacts.blobs.codecs.stored_rows import StoredRows, any_offset, rows_in
from llmartifacts.blobs.forms import BadForm

if TYPE_CHECKING:
    from llmartifacts.blobs.chunks.entries import Entries
    from llmartifacts.blobs.chunks.reader import ChunkReader
    from llmartifacts.blobs.chunks.recipe import Encoded, Recipe
    from llmartifacts.blobs.chunks.writer import ChunkWriter

_WINDOW = 8 * 1024 * 1024
"""Bytes that are put together at once."""
_LET_GO = 1 << 28
_LONG = 4
"""Lists of more chunks than this begin a new chunk."""

Rows = npt.NDArray[Any]
"""Numbers of rows, int32; -1 for none."""


class FaissIvfCodec(Codec):
    """The codec `faiss-ivf`."""

    name: ClassVar[str] = streams.NAME
    needs_view: ClassVar[bool] = True
    uses_parent: ClassVar[bool] = True

    def suits(self, head: bytes) -> bool:
        """Whether it begins as a FAISS index that can be opened."""
        return is_index(head)

    def encode(
        self,
        source: Source,
        writer: ChunkWriter,
        reader: ChunkReader,
        parent: Recipe | None = None,
        keep: float = KEEP,
    ) -> Encoded | None:
        """Take an index with one set of inverted lists apart; None for every other file."""
        from llmartifacts.blobs.chunks.recipe import Encoded, Recipe

        view = source.view
        layout = None if view is None else layout_of(view)
        if view is None or layout is None or len(layout.lists) != 1:
            return None
        lists = layout.lists[0]
        if not 0 < sum(lists.sizes) <= streams.MAX_ROWS:
            return None
        file = InvertedFile(view, lists)
        rest = np.concatenate(
            [
                store(view, 0, file.offset, layout.blocks, writer),
                store(view, file.end, len(view), layout.blocks, writer),
            ]
        )
        kept = kept_of(file, parent, reader, max(keep, 1 / (1 + streams.MAX_DEAD)))
        if kept is not None:
            writer.rely(kept.rows)
        made, dead, child = _streams(file, kept, writer)
        parameters = {"code_bytes": file.code_bytes, "offset": file.offset, "lists": len(lists.sizes)}
        encoded = Encoded(parameters, {"rest": rest, **made}, dead * file.code_bytes)
        if reader.far:  # nobody else looks whether it comes back: not all of it is here to be put together
            writer.finish()
            recipe = Recipe(self.name, self.version, len(view), encoded)
            if not _comes_back(file, recipe, reader, child):
                return None
        return encoded

    def decode(self, recipe: Recipe, reader: ChunkReader) -> Iterator[Any]:
        """Put the index together again, list by list."""
        form = streams.form_of(recipe)
        yield from _split_rest(recipe, reader, form, before=True)
        yield from _lists(recipe, reader, form)
        yield from _split_rest(recipe, reader, form, before=False)

    def parts(self, recipe: Recipe, reader: ChunkReader, content: memoryview) -> Mapping[bytes, Callable[[], Any]]:
        """The chunks of rows of which all live, picked row by row, and those of the rest."""
        from llmartifacts.blobs.chunks.entries import ids_of, lengths_of

        form = streams.form_of(recipe)
        stored, firsts = _file_order(recipe, reader, form)
        place = np.full(form.stored, -1, np.int64)
        of = np.repeat(firsts[:-1], np.diff(firsts))
        place[stored] = form.offset + np.arange(form.alive) * form.code_bytes + of * ID_BYTES
        rows = any_offset(content, form.code_bytes)
        entries = recipe.encoded.streams["rows"]
        counts = rows_in(entries, form.code_bytes)
        if not counts.all():
            raise BadForm("a chunk of rows is empty")
        ends = np.cumsum(counts)
        whole = np.add.reduceat(place >= 0, ends - counts, dtype=np.int64) == counts
        ids = ids_of(entries)
        found: dict[bytes, Callable[[], Any]] = {
            ids[number]: partial(_picked, rows, place[ends[number] - counts[number] : ends[number]])
            for number in np.flatnonzero(whole).tolist()
        }
        rest = recipe.encoded.streams["rest"]
        stops = np.cumsum(lengths_of(rest))
        after = form.alive * (form.code_bytes + ID_BYTES)
        for name, length, stop in zip(ids_of(rest), lengths_of(rest).tolist(), stops.tolist(), strict=True):
            if stop <= form.offset:
                found[name] = partial(content.__getitem__, slice(stop - length, stop))
            elif stop - length >= form.offset:
                found[name] = partial(content.__getitem__, slice(stop - length + after, stop + after))
        return found


def _picked(rows: npt.NDArray[np.void], places: npt.NDArray[np.int64]) -> Any:
    return rows[places].view(np.uint8)


# --- apart


def _streams(file: InvertedFile, kept: Kept | None, writer: ChunkWriter) -> tuple[dict[str, Entries], int, Rows]:
    """All streams but `rest`, how many rows are dead, and which row of the file each stored one is."""
    fresh = _fresh(file, kept)
    new = _store_rows(file, fresh, writer)
    if kept is None:
        child, ids, lists, rows = fresh, file.ids[fresh], file.lists[fresh], new
    else:
        child = np.concatenate([kept.child, fresh])
        ids = np.concatenate([kept.ids, file.ids[fresh]])
        lists = np.concatenate([kept.lists, file.lists[fresh]])
        rows = np.concatenate([kept.rows, new])
    made = {"rows": rows, "ids": streams.put(writer, streams.differences(ids, "<u8"))}
    del ids
    made["lists"] = streams.put(writer, lists)
    del lists
    dead = np.flatnonzero(child < 0)
    if len(dead):
        made["dead"] = streams.put(writer, streams.differences(dead, "<u4"))
    living = np.flatnonzero(child >= 0).astype(np.int32)
    positions = np.empty(file.count, np.int32)
    positions[child[living]] = living
    del living
    order = streams.exceptions(positions, file.lists)
    if len(order):
        made["order"] = streams.put(writer, order)
    return made, len(dead), child


def _comes_back(file: InvertedFile, recipe: Recipe, reader: ChunkReader, child: Rows) -> bool:
    """Whether the streams give back the file: its lists, its ids, and its rows in their order."""
    stored, firsts = _file_order(recipe, reader, streams.form_of(recipe))
    if len(stored) != file.count or not np.array_equal(firsts, file.firsts):
        return False
    rows = np.arange(file.count, dtype=child.dtype)
    return np.array_equal(child[stored], rows) and np.array_equal(streams.get_ids(recipe, reader)[stored], file.ids)


def _fresh(file: InvertedFile, kept: Kept | None) -> npt.NDArray[np.int32]:
    """The rows that are stored anew, in the order in which they are."""
    new = np.ones(file.count, np.bool_)
    if kept is not None:
        new[kept.child[kept.child >= 0]] = False
    rows = np.flatnonzero(new).astype(np.int32)
    return rows[np.argsort(file.ids[rows], kind="stable")] if file.by_arrival else rows


def _store_rows(file: InvertedFile, rows: npt.NDArray[np.int32], writer: ChunkWriter) -> Entries:
    from llmartifacts.blobs.chunks.entries import empty

    size = row_cuts.sizes(file.code_bytes)
    step = max(row_cuts.BATCH // file.code_bytes, 4 * size.longest)
    parts = [empty()]
    seen = 0
    for begin, end in _runs(file, rows, _LONG * size.mean):
        at = begin
        while at < end:
            until = min(end, at + step)
            picked = file.pick(rows[at:until]).view(np.uint8)
            picked.flags.writeable = False  # nobody else has it, so it need not be copied
            marked = row_cuts.marks(
                row_cuts.heads(picked, 0, file.code_bytes, until - at), size, narrow=file.code_bytes < row_cuts.NARROW
            )
            ends = row_cuts.ends(marked, until - at, size, last=until == end)
            parts.append(writer.add(picked.data[: ends[-1] * file.code_bytes], np.array(ends) * file.code_bytes))
            at += ends[-1]
            seen += ends[-1] * file.code_bytes
            if seen >= _LET_GO:
                file.let_go()
                seen = 0
    return np.concatenate(parts)


def _runs(file: InvertedFile, rows: npt.NDArray[np.int32], long: int) -> Iterator[tuple[int, int]]:
    """Parts of the rows that begin a chunk: all of them at once, or one for each long list and those after it."""
    if not len(rows):
        return
    starts = [0]
    if not file.by_arrival:
        lists = file.lists[rows]
        first = np.flatnonzero(np.concatenate([[True], lists[1:] != lists[:-1]]))
        sizes = np.diff(np.append(first, len(rows)))
        starts += first[(sizes > long) & (first > 0)].tolist()
    yield from zip(starts, [*starts[1:], len(rows)], strict=True)


# --- together


def _split_rest(recipe: Recipe, reader: ChunkReader, form: streams.Form, *, before: bool) -> Iterator[Any]:
    """The part of `rest` before or after the lists; a chunk may lie across."""
    from llmartifacts.blobs.chunks.entries import lengths_of

    entries = recipe.encoded.streams["rest"]
    ends = np.cumsum(lengths_of(entries))
    starts = ends - lengths_of(entries)
    chosen = np.flatnonzero(starts < form.offset) if before else np.flatnonzero(ends > form.offset)
    for number, content in zip(chosen.tolist(), reader.read(entries[chosen]), strict=True):
        split = max(0, form.offset - int(starts[number]))
        yield memoryview(content)[:split] if before else memoryview(content)[split:]


def _lists(recipe: Recipe, reader: ChunkReader, form: streams.Form) -> Iterator[Any]:
    """The inverted lists."""
    stored, firsts = _file_order(recipe, reader, form)
    ids = streams.get_ids(recipe, reader)[stored]
    rows = StoredRows(reader, recipe.encoded.streams["rows"], form.code_bytes)
    seen = 0
    for first, last in _groups(firsts, max(1, _WINDOW // (form.code_bytes + ID_BYTES))):
        begin, end = int(firsts[first]), int(firsts[last])
        if last - first == 1:
            step = max(1, _WINDOW // form.code_bytes)
            for at in range(begin, end, step):
                yield rows.pick(stored[at : min(end, at + step)]).view(np.uint8)
            yield ids[begin:end].view(np.uint8)
        else:
            yield _together(rows.pick(stored[begin:end]), ids[begin:end], firsts[first : last + 1] - begin)
        seen += (end - begin) * form.code_bytes
        if seen >= _LET_GO:
            rows.let_go()
            seen = 0
    rows.let_go()


def _file_order(
    recipe: Recipe, reader: ChunkReader, form: streams.Form
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Where each row of the file is stored, and the first row of each list (and the number of rows)."""
    lists = streams.get_lists(recipe, reader, form)
    alive = np.ones(form.stored, np.bool_)
    alive[streams.get_dead(recipe, reader, form)] = False
    living = np.flatnonzero(alive).astype(np.int32)
    of = lists[living] if form.dead else lists
    if int(of.max()) >= form.lists:
        raise BadForm("a row belongs to a list that is not there")
    firsts = np.concatenate([[0], np.cumsum(np.bincount(of, minlength=form.lists))])
    stored = living[np.argsort(of, kind="stable")]
    streams.reorder(stored, firsts, streams.get(reader, recipe.encoded.streams.get("order"), "<u4"))
    return stored, firsts


def _groups(firsts: npt.NDArray[np.int64], most: int) -> Iterator[tuple[int, int]]:
    """Lists that are put together at once: as many as have so many rows together, or one that has more."""
    first, lists = 0, len(firsts) - 1
    while first < lists:
        last = max(first + 1, int(np.searchsorted(firsts, firsts[first] + most, side="right")) - 1)
        yield first, last
        first = last


def _together(codes: npt.NDArray[np.void], ids: Ids, firsts: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Lists, one after another, each its codes and then its ids."""
    width = codes.dtype.itemsize
    raw, names = codes.view(np.uint8), ids.view(np.uint8)
    made = np.empty(len(raw) + len(names), np.uint8)
    at = 0
    bounds = firsts.tolist()
    for first, last in pairwise(bounds):
        if first == last:
            continue
        middle = at + (last - first) * width
        end = middle + (last - first) * ID_BYTES
        made[at:middle] = raw[first * width : last * width]
        made[middle:end] = names[first * ID_BYTES : last * ID_BYTES]
        at = end
    return made
