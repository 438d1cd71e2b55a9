"""Adds to a FAISS index and removes from it, with its training left as it is; the same bytes each time.

An index has ids of its own (an id map, or inverted lists): then those stay what they were. Or its ids are positions:
then what comes after a vector that goes moves up.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llmartifacts.errors import Damaged, InvalidValue
from llmartifacts.kinds.vector_index.build import ADD_ROWS, omp_threads, parts
from llmartifacts.kinds.vector_index.guard import reason

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Ids = npt.NDArray[np.int64]
    Mask = npt.NDArray[np.bool_]
    Vectors = npt.NDArray[np.float32]

MAX_ID = (1 << 63) - 1
_ANEW = (
    "Build it anew with VectorIndex.build(..., train_from=this index): its training stays, its documents are embedded."
)


def has_own_ids(index: Any) -> bool:
    """Whether FAISS's ids are the index's own, and no positions."""
    import faiss

    while isinstance(index, faiss.IndexPreTransform):
        index = _inner(index)
    return isinstance(index, faiss.IndexIDMap | faiss.IndexIDMap2 | faiss.IndexIVF)


def new_ids(taken: Ids, count: int) -> Ids:
    """Ids that an index does not have: those after its largest, or gaps where there is no room above.

    Args:
        taken: The ids it has, none below 0.
        count: How many are wanted.
    """
    import numpy as np

    top = int(taken.max()) if len(taken) else -1
    if top <= MAX_ID - count:
        return np.arange(top + 1, top + 1 + count, dtype=np.int64)
    free = np.setdiff1d(np.arange(len(taken) + count, dtype=np.int64), taken, assume_unique=True)
    return free[:count].astype(np.int64)


def check_removable(index: Any) -> None:
    """Refuse an index that nothing can be removed from: a graph over codes keeps no vectors to build it anew from.

    Raises:
        InvalidValue: It is one.
    """
    import faiss

    inside = False
    for part in parts(index):
        if isinstance(part, faiss.IndexIVF):
            inside = True  # a graph below lists only finds the lists
        elif isinstance(part, faiss.IndexHNSW) and not inside and not isinstance(part, faiss.IndexHNSWFlat):
            raise InvalidValue(
                f"a graph over codes ({type(part).__name__}) has no removal, and keeps no vectors to be built from",
                field="remove",
                next_step=_ANEW,
            )


def edit(index: Any, gone: Ids, vectors: Vectors | None, ids: Ids, threads: int) -> None:
    """Remove vectors from an index in memory and add others.

    Args:
        index: A writable index.
        gone: FAISS's ids of what goes: its own, or positions.
        vectors: What is added, (n, d); None for nothing.
        ids: FAISS's ids for it, where the index has its own.
        threads: With one, the same input gives the same bytes.

    Raises:
        InvalidValue: FAISS cannot remove from such an index, or cannot add to it.
    """
    own = has_own_ids(index)
    try:
        with omp_threads(threads), _without_direct_maps(index):
            if len(gone):
                _remove(index, gone)
            for start in range(0, 0 if vectors is None else len(vectors), ADD_ROWS):
                block = vectors[start : start + ADD_ROWS]  # type: ignore[index]  # the range is empty without
                if own:
                    index.add_with_ids(block, ids[start : start + len(block)])
                else:
                    index.add(block)
    except (RuntimeError, MemoryError, AssertionError) as error:
        raise InvalidValue(
            f"FAISS cannot change a {type(index).__name__}: {reason(error)}", field="index", next_step=_ANEW
        ) from None


def _remove(index: Any, gone: Ids) -> None:
    import faiss
    import numpy as np

    if isinstance(index, faiss.IndexPreTransform) and has_own_ids(index):
        _remove(inner := _inner(index), gone)
        index.ntotal = inner.ntotal
    elif isinstance(index, faiss.IndexIVF):
        index.remove_ids(faiss.IDSelectorBatch(gone))
    elif isinstance(index, faiss.IndexIDMap | faiss.IndexIDMap2):
        _keep(index, ~np.isin(faiss.vector_to_array(index.id_map), gone))
    else:
        keep = np.ones(index.ntotal, dtype=np.bool_)
        keep[gone] = False
        _keep(index, keep)


def _keep(index: Any, keep: Mask) -> None:
    """Leave the vectors of some positions; those after one that goes move up."""
    import faiss
    import numpy as np

    if isinstance(index, faiss.IndexIDMap | faiss.IndexIDMap2):
        # FAISS's own remove_ids takes the positions inside an IVF index for ones that move up, which they do not.
        _keep(inner := _inner(index), keep)
        faiss.copy_array_to_vector(faiss.vector_to_array(index.id_map)[keep], index.id_map)
        index.ntotal = inner.ntotal
        if isinstance(index, faiss.IndexIDMap2):
            index.construct_rev_map()
    elif isinstance(index, faiss.IndexPreTransform):
        _keep(inner := _inner(index), keep)
        index.ntotal = inner.ntotal
    elif isinstance(index, faiss.IndexRefine):
        base, exact = faiss.downcast_index(index.base_index), faiss.downcast_index(index.refine_index)
        _keep(base, keep)
        _keep(exact, keep)
        index.ntotal = base.ntotal
    elif isinstance(index, faiss.IndexHNSW):
        _rebuild_graph(index, keep)
    elif isinstance(index, faiss.IndexIVF):
        index.remove_ids(faiss.IDSelectorBatch(np.flatnonzero(~keep)))
        _renumber(index, keep)
    else:
        index.remove_ids(faiss.IDSelectorBatch(np.flatnonzero(~keep)))


def _rebuild_graph(index: Any, keep: Mask) -> None:
    """A graph has no removal: it is built anew from the vectors that it stores."""
    import faiss

    storage = faiss.downcast_index(index.storage)
    vectors = faiss.rev_swig_ptr(storage.get_xb(), storage.ntotal * storage.d).reshape(storage.ntotal, storage.d)[keep]
    index.reset()
    for start in range(0, len(vectors), ADD_ROWS):
        index.add(vectors[start : start + ADD_ROWS])


def _renumber(index: Any, keep: Mask) -> None:
    """Inverted lists that hold positions: each becomes what it is among those that stay."""
    import faiss
    import numpy as np

    position = np.cumsum(keep, dtype=np.int64) - 1
    lists = index.invlists
    for number in range(index.nlist):
        size = lists.list_size(number)
        if size:
            ids = faiss.rev_swig_ptr(lists.get_ids(number), size)
            if ids.min() < 0 or ids.max() >= len(position):
                raise Damaged("an inverted list names a vector that is not there", file="index.faiss")
            ids[:] = position[ids]


@contextmanager
def _without_direct_maps(index: Any) -> Iterator[None]:
    """FAISS cannot remove through a direct map of positions: maps are put away, and made again afterwards."""
    import faiss

    away = [(part, part.direct_map.type) for part in parts(index) if isinstance(part, faiss.IndexIVF)]
    for part, _ in away:
        part.set_direct_map_type(faiss.DirectMap.NoMap)
    yield
    for part, form in away:
        try:
            part.set_direct_map_type(form)
        except RuntimeError:  # the ids are no longer the positions
            part.set_direct_map_type(faiss.DirectMap.Hashtable)


def _inner(index: Any) -> Any:
    import faiss

    return faiss.downcast_index(index.index)
