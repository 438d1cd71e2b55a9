"""What a walked FAISS file holds, read from its bytes: ids, and the vectors where they are kept exactly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from llmartifacts.errors import InvalidValue
from llmartifacts.formats.faiss import Layout, Lists, Rows

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Ids = npt.NDArray[np.int64]
    Vectors = npt.NDArray[np.float32]

UNIT_TOLERANCE = 1e-3
"""How far the length of a unit vector may be from 1; float16 models stay below half of it."""
BLOCK_VALUES = 1 << 22
"""Numbers that are looked at in one go: 16 MB of float32."""


def faiss_ids(data: Any, layout: Layout) -> Ids | None:
    """FAISS's id of each vector, in the order of `stored_vectors`; None if they are the positions.

    Args:
        data: The file.
        layout: Its structure.
    """
    import numpy as np

    if layout.ids is None:
        return None
    if isinstance(layout.ids, Rows):
        return np.frombuffer(data, "<i8", layout.ids.count, layout.ids.offset)
    parts = [ids for ids, _ in _each_list(data, layout.ids)]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def ids_of_rows(raw: bytes, count: int) -> Ids:
    """FAISS's id of each document, from the file `ids.i64` of an artifact.

    Raises:
        InvalidValue: It has another number of them.
    """
    import numpy as np

    if len(raw) != 8 * count:
        raise InvalidValue(f"ids.i64 has {len(raw)} bytes, not {count} ids", field="files.ids.i64")
    return np.frombuffer(raw, "<i8").astype(np.int64)


def stored_vectors(data: Any, layout: Layout) -> Iterator[tuple[Ids, Vectors]]:
    """The vectors as they went in, in blocks, with FAISS's ids; nothing where the file keeps codes only.

    Args:
        data: The file.
        layout: Its structure.

    Yields:
        ids (m,) and vectors (m, dimension), some megabytes at a time.
    """
    import numpy as np

    outer = faiss_ids(data, layout) if isinstance(layout.ids, Rows) else None
    if isinstance(layout.vectors, Rows):
        rows = layout.vectors
        for block in _blocks(rows.count, layout.dimension):
            start, count = block.start, block.stop - block.start
            flat = np.frombuffer(data, "<f4", count * layout.dimension, rows.offset + start * rows.row_bytes)
            ids = np.arange(start, start + count, dtype=np.int64)
            if isinstance(layout.ids, Rows) and outer is not None:
                ids = outer[start : start + count]
            yield ids, flat.reshape(count, layout.dimension)
    elif isinstance(layout.vectors, Lists):
        for ids, codes in _each_list(data, layout.vectors):
            # An id map around lists: the lists' ids are positions in it.
            yield (ids if outer is None else outer[ids]), codes.view("<f4").reshape(len(ids), layout.dimension)


def _each_list(data: Any, lists: Lists) -> Iterator[tuple[Ids, npt.NDArray[np.uint8]]]:
    import numpy as np

    at = lists.offset
    for size in lists.sizes:
        if size:
            codes = np.frombuffer(data, np.uint8, size * lists.code_bytes, at)
            yield np.frombuffer(data, "<i8", size, at + size * lists.code_bytes), codes
        at += size * (lists.code_bytes + 8)


def _blocks(count: int, dimension: int) -> Iterator[slice]:
    """Rows that are looked at together, so that memory stays bounded whatever the size of the whole."""
    step = max(1, BLOCK_VALUES // dimension)
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


def first_not_finite(vectors: Vectors) -> int | None:
    """Row of the first vector with a NaN or an infinity, or None."""
    import numpy as np

    for block in _blocks(*vectors.shape):
        finite = np.isfinite(vectors[block]).all(axis=1)
        if not finite.all():
            return int(block.start + np.argmin(finite))
    return None


def first_not_unit(vectors: Vectors) -> int | None:
    """Row of the first vector whose length is not 1 (to 0.001), or None."""
    import numpy as np

    far = np.abs(lengths(vectors) - 1) > UNIT_TOLERANCE
    return int(np.argmax(far)) if far.any() else None


def lengths(vectors: Vectors) -> npt.NDArray[np.float64]:
    """Euclidean length of each row, without overflow."""
    import numpy as np

    made = np.empty(len(vectors))
    for block in _blocks(*vectors.shape):
        wide = vectors[block].astype(np.float64)
        made[block] = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    return made


def to_unit(vectors: Vectors, *, field: str) -> Vectors:
    """The rows at unit length. One that has it already stays bit for bit what it is.

    Raises:
        InvalidValue: A row is zero.
    """
    import numpy as np

    size = lengths(vectors)
    far = np.abs(size - 1) > UNIT_TOLERANCE
    if not far.any():
        return vectors
    if (size == 0).any():
        row = int(np.argmax(size == 0))
        raise InvalidValue(
            "a zero vector has no direction", field=f"{field}[{row}]", next_step="Leave it out, or embed its text anew."
        )
    made = vectors.copy()
    made[far] = (vectors[far] / size[far, None]).astype(np.float32)
    return made


def as_matrix(vectors: Any, *, field: str, dimension: int | None = None, one: bool = False) -> Vectors:
    """Check numbers from outside and give them as an (n, d) float32 matrix; no copy where they are one already.

    Args:
        vectors: Array, memory map, or lists of numbers, (n, d).
        field: What to call them in errors.
        dimension: The d they must have; None for any.
        one: Whether (d,) will do, for a matrix of one row.

    Raises:
        InvalidValue: No numbers, another shape, empty, NaN or infinite; the first bad row is named.
    """
    import numpy as np

    try:
        matrix = np.asarray(vectors)
    except (ValueError, TypeError, OverflowError):
        raise InvalidValue("the rows are no numbers, or of different lengths", field=field) from None
    if matrix.dtype.kind not in "fiu":
        raise InvalidValue(
            f"the vectors are {matrix.dtype}, not numbers", field=field, next_step="Give an (n, d) array of float32."
        )
    if one and matrix.ndim == 1:
        matrix = matrix[None]
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise InvalidValue(
            f"the vectors have shape {matrix.shape}, not (n, d)" if matrix.size else "there are no vectors",
            field=field,
            next_step="Give an (n, d) array: one row for each document.",
        )
    if dimension is not None and matrix.shape[1] != dimension:
        raise InvalidValue(
            f"the vectors have {matrix.shape[1]} components, the embedding says {dimension}", field=f"{field}[0]"
        )
    with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite, and that is refused below
        matrix = np.ascontiguousarray(matrix, dtype=np.float32)
    bad = first_not_finite(matrix)
    if bad is not None:
        raise InvalidValue(
            f"the vector of row {bad} holds a NaN or an infinity",
            field=f"{field}[{bad}]",
            next_step="Embed its text anew, or leave the document out.",
        )
    return matrix
