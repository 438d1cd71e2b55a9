"""Opens FAISS files: map, walk the very bytes, let FAISS read views of them, make the object read-only.

One map is what the walk saw, what FAISS parsed and what `pack` stores, so nothing can be swapped in between. Opening
copies almost nothing and processes share the pages. Several threads may search one index; the map goes with the last
reference to it.

A write to a mapped index would end the process, so mutators raise. A Python guard cannot reach everything
(`faiss.downcast_index` gives an unguarded object); the file stays untouched in any case.
"""

from __future__ import annotations

import functools
import mmap
import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from llmartifacts.errors import InvalidValue, NotAllowed
from llmartifacts.formats.faiss import Layout, walk
from llmartifacts.kinds.vector_index.config import IndexConfig
from llmartifacts.kinds.vector_index.mapped import map_file, reader

FIELD = "index.faiss"
_MUTATORS = (
    *("add", "add_c", "add_core", "add_preassigned", "add_sa_codes", "add_with_ids", "add_with_ids_c"),
    *("train", "train_c", "train_encoder", "train_q1", "train_residual"),
    *("remove_ids", "remove_ids_c", "reset", "merge_from", "merge_from_multiple", "update_vectors", "update_vectors_c"),
    *("copy_subset_to", "permute_entries", "reorder_links", "replace_invlists", "shrink_level_0_neighbors"),
)
_WHERE = re.compile(r"\AError in .*? at \S+:\d+: (Error: )?", re.DOTALL)
_THREAD = threading.local()
"""For each thread, the process in which it last used FAISS: what OpenMP keeps, and nothing of ours."""
INNER = ("index", "storage", "base_index", "refine_index", "quantizer")
"""Attributes under which FAISS keeps an index inside another."""


@dataclass(frozen=True, eq=False)
class MappedIndex:
    """An index opened from its file.

    Attributes:
        index: FAISS's object, read-only; it keeps the map alive by itself.
        layout: The structure of the file.
        data: The map.
    """

    index: Any
    layout: Layout
    data: mmap.mmap

    def stream(self) -> BinaryIO:
        """The file's bytes, from the beginning."""
        return reader(self.data)

    def writable_copy(self) -> Any:
        """A copy in memory that may be changed. The layout was walked, so FAISS may read it."""
        import faiss
        import numpy as np

        return faiss.deserialize_index(np.frombuffer(self.data, np.uint8), faiss.IO_FLAG_ONDISK_SAME_DIR)


def open_index(path: Path, expect: IndexConfig | None = None) -> MappedIndex:
    """Open a FAISS file for searching.

    Args:
        path: The file. It must not be written to or cut while it is open; unlinking and renaming over it is fine.
        expect: What a manifest says of it.

    Raises:
        UnsafeContent: Its structure is not an allowed one; FAISS has not seen it.
        InvalidValue: FAISS refuses it, or it is not what the manifest says.
    """
    import faiss
    import numpy as np

    data = map_file(path, field=FIELD)
    layout = walk(data, file=str(path))
    _compare(layout, len(data), expect)
    data.madvise(mmap.MADV_WILLNEED)  # returns at once; without it a first cold search reads page by page
    view = np.frombuffer(data, np.uint8)
    flags = faiss.IO_FLAG_ONDISK_SAME_DIR | faiss.IO_FLAG_PQ_SKIP_SDC_TABLE
    try:
        index = faiss.read_index(faiss.ZeroCopyIOReader(faiss.swig_ptr(view), view.size), flags)
    except (RuntimeError, MemoryError) as error:
        raise InvalidValue(f"FAISS refuses the index: {reason(error)}", field=FIELD, origin=str(path)) from None
    metric = {faiss.METRIC_INNER_PRODUCT: "inner_product", faiss.METRIC_L2: "l2"}.get(index.metric_type)
    if (index.d, index.ntotal, metric) != (layout.dimension, layout.count, layout.metric):
        raise InvalidValue("FAISS reads another index than the structure says", field=FIELD, origin=str(path))
    return MappedIndex(_seal(index, view), layout, data)


def mind_forks() -> None:
    """Called before every search: in a forked process, one thread of FAISS is used where several would hang for ever.

    FAISS's OpenMP (libgomp) keeps helper threads for each thread that used it. After a fork, the one thread that goes
    on still counts on helpers that are gone. A server that loads an index, tries it, and then forks its workers
    would hang at the first request. Threads that begin after the fork have helpers of their own, all of them.
    """
    pid = os.getpid()
    if getattr(_THREAD, "pid", pid) != pid:
        import faiss

        faiss.omp_set_num_threads(1)  # of this thread only
    _THREAD.pid = pid


def reason(error: BaseException) -> str:
    """What FAISS says, without the function and the line of its source."""
    return _WHERE.sub("", str(error))[:200] or type(error).__name__


def _compare(layout: Layout, size: int, expect: IndexConfig | None) -> None:
    if layout.count == 0:
        raise InvalidValue("the index is empty", field=FIELD, next_step="Add vectors before it is logged.")
    if expect is None:
        return
    for what, found, stated in (
        ("types", layout.types, expect.types),
        ("count", layout.count, expect.count),
        ("dimension", layout.dimension, expect.dimension),
        ("metric", layout.metric, expect.metric),
        ("bytes", size, expect.bytes),
        ("nprobe", layout.nprobe, expect.nprobe),
        ("ef_search", layout.ef_search, expect.ef_search),
    ):
        if found != stated:
            raise InvalidValue(
                f"the index has {what} {found}, the manifest says {stated}", field=f"config.index.{what}"
            )


def _seal(index: Any, memory: Any) -> Any:
    """Make an index read-only, and let it keep what its memory belongs to."""
    made_of: Any = type(index)
    index.referenced_objects = [memory]  # the attribute that FAISS's wrapper allows for this
    index.__class__ = read_only(made_of)
    return index


@functools.lru_cache(maxsize=64)
def read_only(cls: type) -> type:
    """A subclass of a FAISS index class whose mutators raise `NotAllowed`; the inner indexes are guarded as well."""
    guarded: dict[str, Any] = {name: _refusal(name) for name in _MUTATORS if hasattr(cls, name)}
    for name in INNER:
        found = getattr(cls, name, None)
        if isinstance(found, property):
            guarded[name] = _guarded(found)
    return type(cls.__name__, (cls,), {**guarded, "__module__": cls.__module__, "__doc__": cls.__doc__})


def _refusal(name: str) -> Callable[..., None]:
    def refuse(self: object, *_: object, **__: object) -> None:
        raise NotAllowed(
            f"{name}(): the index of a version is read-only",
            field=name,
            next_step="Change a copy of it: VectorIndex.writable_copy(), then log that as a new version.",
        )

    return refuse


def _guarded(found: property) -> property:
    def inner(self: Any) -> Any:
        import faiss

        index = found.fget(self) if found.fget else None
        if index is None:
            return None
        return _seal(faiss.downcast_index(index), self)

    return property(inner, _refusal(str(getattr(found, "__name__", "set"))))
