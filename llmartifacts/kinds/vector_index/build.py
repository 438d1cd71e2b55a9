"""Makes FAISS indexes from vectors: by factory string, seeded, one thread unless asked, the same bytes each time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmartifacts.errors import InvalidValue
from llmartifacts.formats.faiss import ALLOWED
from llmartifacts.kinds.vector_index.config import EmbeddingSpec
from llmartifacts.kinds.vector_index.guard import INNER, reason

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from llmartifacts.kinds.vector_index.value import VectorIndex

MAX_FACTORY = 256
ADD_ROWS = 1 << 16
_LISTS = re.compile(r"IVF(\d+)")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to make an index.

    Attributes:
        factory: FAISS's factory string.
        nprobe: Lists that a search of an IVF index looks at; None leaves FAISS's 1.
        ef_search: Width of a search in an HNSW graph; None leaves FAISS's 16.
        seed: Of the training.
        threads: More are faster, and the same input may then give other bytes.
        trained: An index whose trained parts are taken over; None trains anew.
    """

    factory: str = "Flat"
    nprobe: int | None = None
    ef_search: int | None = None
    seed: int = 1234
    threads: int = 1
    trained: VectorIndex | None = None


def empty_index(count: int, spec: EmbeddingSpec, recipe: Recipe) -> Any:
    """The index before anything is in it: finds out cheaply whether a recipe can be followed.

    Args:
        count: Vectors that are to go in.
        spec: Their space.
        recipe: How to make it.

    Raises:
        InvalidValue: As `build_index`, as far as it can be told without the vectors.
        Incompatible: The index to train from is of another space or structure.
    """
    import faiss

    from llmartifacts.kinds.vector_index.training import check_space, check_structure

    if recipe.trained is not None:
        check_space(recipe.trained, spec.model, spec.metric, spec.dimension)
    factory = recipe.factory
    if not isinstance(factory, str) or not 0 < len(factory) <= MAX_FACTORY or not factory.isascii():
        raise InvalidValue(f"{factory!r:.80} is no FAISS factory string", field="index")
    learnt = recipe.trained.mapped.layout.lists if recipe.trained else ()
    most = max([count, *(len(found.sizes) for found in learnt)])  # who trains needs a vector for each list
    for lists in _LISTS.findall(factory):
        if not 0 < int(lists) <= most:
            raise InvalidValue(
                f"{factory!r} wants {lists} lists for {count} vectors",
                field="index",
                next_step="Take about the square root of the count, or Flat for a few thousand vectors.",
            )
    metric = faiss.METRIC_INNER_PRODUCT if spec.metric == "inner_product" else faiss.METRIC_L2
    try:
        index = faiss.index_factory(spec.dimension, factory, metric)
        tags = [bytes(faiss.serialize_index(part)[:4]).decode("ascii", "replace") for part in parts(index)]
    except (RuntimeError, MemoryError) as error:
        raise _refused(factory, error) from None
    unknown = [tag for tag in tags if tag not in ALLOWED]
    if unknown:
        raise InvalidValue(
            f"{factory!r} makes an index type ({unknown[0]}) that is not opened from a file",
            field="index",
            next_step=f"Use one of these: {', '.join(sorted(set(ALLOWED.values())))}.",
        )
    if index.metric_type != metric:
        raise InvalidValue(
            f"FAISS makes {factory!r} for another metric than {spec.metric}",
            field="index",
            next_step="Use metric='l2', which ranks unit vectors the same, or another index type.",
        )
    search_parameters(index, recipe.nprobe, recipe.ef_search)
    if recipe.trained is not None:
        check_structure(index, recipe.trained.faiss)
    return index


def build_index(vectors: npt.NDArray[np.float32], spec: EmbeddingSpec, recipe: Recipe) -> Any:
    """Train and fill an index; FAISS's ids are the rows.

    Args:
        vectors: (n, d) float32, finite.
        spec: Their space.
        recipe: How to make it.

    Raises:
        InvalidValue: FAISS does not take the factory string or cannot train it with these vectors, or the file it
            makes would not be opened.
        Incompatible: As `empty_index`.
    """
    import faiss
    import numpy as np

    from llmartifacts.kinds.vector_index.training import begin

    index = empty_index(len(vectors), spec, recipe)
    for part in parts(index):
        _seed(part, recipe.seed)
    if recipe.trained is not None:
        index = begin(index, recipe.trained.mapped)
    try:
        with omp_threads(recipe.threads):
            if not index.is_trained:
                index.train(vectors)
            mapped = isinstance(index, faiss.IndexIDMap | faiss.IndexIDMap2)
            for start in range(0, len(vectors), ADD_ROWS):
                block = vectors[start : start + ADD_ROWS]
                if mapped:
                    index.add_with_ids(block, np.arange(start, start + len(block), dtype=np.int64))
                else:
                    index.add(block)
    except (RuntimeError, MemoryError, AssertionError) as error:
        raise _refused(recipe.factory, error) from None
    _tune(index, recipe)
    return index


def save_index(index: Any, path: Path) -> None:
    """Write a FAISS index to a file.

    Raises:
        InvalidValue: It is no FAISS index, or FAISS cannot write it.
    """
    import faiss

    if not isinstance(index, faiss.Index):
        raise InvalidValue(f"a {type(index).__name__} is no FAISS index", field="index")
    try:
        faiss.write_index(index, str(path))
    except (RuntimeError, MemoryError) as error:
        raise InvalidValue(f"FAISS cannot write the index: {reason(error)}", field="index") from None


def parts(index: Any) -> Iterator[Any]:
    """An index and every index inside it, outermost first."""
    import faiss

    yield index
    for name in INNER:
        inner = getattr(index, name, None)
        if isinstance(inner, faiss.Index):
            yield from parts(_concrete(inner))


def _concrete(index: Any) -> Any:
    """An inner index as its own class: FAISS gives some as the base class."""
    import faiss

    return faiss.downcast_index(index) if type(index) is faiss.Index else index


def search_parameters(index: Any, nprobe: int | None, ef_search: int | None) -> Any:
    """FAISS's search parameters for one call, through whatever wraps the index; None if nothing is asked for.

    Raises:
        InvalidValue: The index has no such parameter, or it is out of range.
    """
    import faiss

    if nprobe is None and ef_search is None:
        return None
    for name, value in (("nprobe", nprobe), ("ef_search", ef_search)):
        if value is not None and (type(value) is not int or not 1 <= value < 1 << 31):
            raise InvalidValue(f"{name} is {value!r:.40}, not a whole number from 1 on", field=name)
    if isinstance(index, faiss.IndexPreTransform):
        return faiss.SearchParametersPreTransform(
            index_params=search_parameters(_concrete(index.index), nprobe, ef_search)
        )
    if isinstance(index, faiss.IndexIDMap | faiss.IndexIDMap2):
        return search_parameters(_concrete(index.index), nprobe, ef_search)
    if isinstance(index, faiss.IndexRefine):
        inner = search_parameters(_concrete(index.base_index), nprobe, ef_search)
        return faiss.IndexRefineSearchParameters(k_factor=index.k_factor, base_index_params=inner)
    if isinstance(index, faiss.IndexIVF) and ef_search is None:
        return faiss.SearchParametersIVF(nprobe=nprobe)
    if isinstance(index, faiss.IndexHNSW) and nprobe is None:
        return faiss.SearchParametersHNSW(efSearch=ef_search)
    wrong = "nprobe" if nprobe is not None and not isinstance(index, faiss.IndexIVF) else "ef_search"
    raise InvalidValue(
        f"{wrong} does not apply to a {type(index).__name__}",
        field=wrong,
        next_step="nprobe is for IVF indexes, ef_search for HNSW.",
    )


def _seed(index: Any, seed: int) -> None:
    for owner in (index, getattr(index, "pq", None)):
        clustering = getattr(owner, "cp", None)
        if clustering is not None:
            clustering.seed = seed
            clustering.min_points_per_centroid = 1  # FAISS would print a warning; small corpora are common


def _tune(index: Any, recipe: Recipe) -> None:
    import faiss

    for part in parts(index):
        if recipe.nprobe is not None and isinstance(part, faiss.IndexIVF):
            part.nprobe = recipe.nprobe
        if recipe.ef_search is not None and isinstance(part, faiss.IndexHNSW):
            part.hnsw.efSearch = recipe.ef_search


@contextmanager
def omp_threads(count: int) -> Iterator[None]:
    """Let FAISS use so many threads; it counts them for each calling thread."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _refused(factory: str, error: BaseException) -> InvalidValue:
    return InvalidValue(
        f"FAISS cannot make {factory!r} of these vectors: {reason(error)}",
        field="index",
        next_step="Give a factory string such as 'Flat', 'IVF256,Flat' or 'HNSW32'.",
    )
